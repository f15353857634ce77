//! Starting processes.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{CommandArgs, CommandEnvs, ExitStatus, Output, Stdio};

use super::{Child, orphans};

/// A process builder, std's `Command`.
///
/// ```
/// use greenhub::process::{Command, Stdio};
/// use std::io::Write;
/// let mut child = Command::new("tr").args(["a-z", "A-Z"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// let mut stdin = child.stdin.take().expect("a piped standard input");
/// greenhub::spawn_n(move || stdin.write_all(b"hello").unwrap());
/// assert_eq!(child.wait_with_output()?.stdout, b"HELLO");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Popen")]
#[doc(alias = "subprocess")]
#[must_use = "nothing is started before `spawn`, `status` or `output`"]
pub struct Command {
    command: std::process::Command,
    /// Which of the three standard streams were set. The defaults of the others differ between `spawn` and `output`.
    set: [bool; 3],
}

impl Command {
    /// Constructs a new `Command` for launching the program at path `program`.
    ///
    /// A name without a slash is looked up in `PATH`.
    pub fn new<S: AsRef<OsStr>>(program: S) -> Command {
        Command { command: std::process::Command::new(program), set: [false; 3] }
    }

    /// Adds an argument to pass to the program.
    pub fn arg<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command {
        self.command.arg(arg);
        self
    }

    /// Adds multiple arguments to pass to the program.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&mut self, args: I) -> &mut Command {
        self.command.args(args);
        self
    }

    /// Inserts or updates an explicit environment variable mapping.
    pub fn env<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, key: K, value: V) -> &mut Command {
        self.command.env(key, value);
        self
    }

    /// Inserts or updates multiple explicit environment variable mappings.
    pub fn envs<I: IntoIterator<Item = (K, V)>, K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, vars: I) -> &mut Command {
        self.command.envs(vars);
        self
    }

    /// Removes an explicitly set environment variable and prevents inheriting it.
    pub fn env_remove<K: AsRef<OsStr>>(&mut self, key: K) -> &mut Command {
        self.command.env_remove(key);
        self
    }

    /// Clears all environment variables of the child process.
    ///
    /// Explicitly set variables are removed, and none of the parent's is inherited.
    pub fn env_clear(&mut self) -> &mut Command {
        self.command.env_clear();
        self
    }

    /// Sets the working directory for the child process.
    pub fn current_dir<P: AsRef<Path>>(&mut self, dir: P) -> &mut Command {
        self.command.current_dir(dir);
        self
    }

    /// Sets the configuration for the child process's standard input handle.
    ///
    /// The default is to inherit for [`spawn`](Command::spawn) and [`status`](Command::status), and an empty input for
    /// [`output`](Command::output).
    pub fn stdin<T: Into<Stdio>>(&mut self, stdin: T) -> &mut Command {
        self.set[0] = true;
        self.command.stdin(stdin);
        self
    }

    /// Sets the configuration for the child process's standard output handle.
    ///
    /// The default is to inherit for [`spawn`](Command::spawn) and [`status`](Command::status), and a pipe for
    /// [`output`](Command::output).
    pub fn stdout<T: Into<Stdio>>(&mut self, stdout: T) -> &mut Command {
        self.set[1] = true;
        self.command.stdout(stdout);
        self
    }

    /// Sets the configuration for the child process's standard error handle. The defaults are those of
    /// [`stdout`](Command::stdout).
    pub fn stderr<T: Into<Stdio>>(&mut self, stderr: T) -> &mut Command {
        self.set[2] = true;
        self.command.stderr(stderr);
        self
    }

    /// Executes the command as a child process, returning a handle to it. Does not switch.
    ///
    /// The OS thread waits until the system has started the program, or failed to.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn spawn(&mut self) -> io::Result<Child> {
        orphans::reap();
        Child::from_std(self.command.spawn()?)
    }

    /// Executes the command as a child process, and collects its output. Switches.
    ///
    /// The call waits for the end of the child.
    ///
    /// If an [exit](hub_core::is_exit) unwinds the caller meanwhile, the child runs on. [`spawn`](Command::spawn)
    /// returns a handle that can kill the child.
    ///
    /// # Errors
    ///
    /// Like std's.
    #[doc(alias = "check_output")]
    #[doc(alias = "communicate")]
    pub fn output(&mut self) -> io::Result<Output> {
        let [stdin, stdout, stderr] = self.set;
        if !stdin {
            self.command.stdin(Stdio::null());
        }
        if !stdout {
            self.command.stdout(Stdio::piped());
        }
        if !stderr {
            self.command.stderr(Stdio::piped());
        }
        let child = self.spawn();
        // Restores the streams that were not set.
        if !stdin {
            self.command.stdin(Stdio::inherit());
        }
        if !stdout {
            self.command.stdout(Stdio::inherit());
        }
        if !stderr {
            self.command.stderr(Stdio::inherit());
        }
        child?.wait_with_output()
    }

    /// Executes a command as a child process, waiting for it and returning its status. Switches.
    ///
    /// If an exit unwinds the caller meanwhile, the child runs on, as for [`output`](Command::output).
    ///
    /// # Errors
    ///
    /// Like std's.
    #[doc(alias = "check_call")]
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn()?.wait_at_last()
    }

    /// Returns the path to the program that was given to [`Command::new`].
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        self.command.get_program()
    }

    /// Returns an iterator of the arguments that will be passed to the program.
    pub fn get_args(&self) -> CommandArgs<'_> {
        self.command.get_args()
    }

    /// Returns an iterator of the environment variables that were set or removed.
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        self.command.get_envs()
    }

    /// Returns the working directory for the child process, if it was set.
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.command.get_current_dir()
    }

    /// Returns std's command, for other settings such as `pre_exec`. The standard streams should be set here.
    pub fn as_std_mut(&mut self) -> &mut std::process::Command {
        &mut self.command
    }
}

impl From<std::process::Command> for Command {
    /// Converts a std command as if none of its standard streams had been set: [`output`](Command::output) sets them
    /// all.
    fn from(command: std::process::Command) -> Command {
        Command { command, set: [false; 3] }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command.fmt(f)
    }
}
