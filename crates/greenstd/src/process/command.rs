//! How processes are started.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{CommandArgs, CommandEnvs, ExitStatus, Output, Stdio};

use super::{Child, orphans};

/// How a process is started, std's `Command`.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::process::{Command, Stdio};
/// use std::io::Write;
/// let mut child = Command::new("tr").args(["a-z", "A-Z"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// let mut stdin = child.stdin.take().expect("it was asked for");
/// hub_core::spawn_n(move || stdin.write_all(b"hello").unwrap());
/// assert_eq!(child.wait_with_output()?.stdout, b"HELLO");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Command {
    command: std::process::Command,
    /// Which of the three standard streams was set; the others differ between `spawn` and `output`.
    set: [bool; 3],
}

impl Command {
    /// Starts the program at a path, or of a name that is looked up in `PATH`.
    pub fn new<S: AsRef<OsStr>>(program: S) -> Command {
        Command { command: std::process::Command::new(program), set: [false; 3] }
    }

    /// One more argument.
    pub fn arg<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&mut self, args: I) -> &mut Command {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    pub fn env<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, key: K, value: V) -> &mut Command {
        self.command.env(key, value);
        self
    }

    /// Sets variables of its environment.
    pub fn envs<I: IntoIterator<Item = (K, V)>, K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, vars: I) -> &mut Command {
        self.command.envs(vars);
        self
    }

    /// Leaves a variable out of its environment.
    pub fn env_remove<K: AsRef<OsStr>>(&mut self, key: K) -> &mut Command {
        self.command.env_remove(key);
        self
    }

    /// Leaves out every variable that was not set here.
    pub fn env_clear(&mut self) -> &mut Command {
        self.command.env_clear();
        self
    }

    /// Where it begins.
    pub fn current_dir<P: AsRef<Path>>(&mut self, dir: P) -> &mut Command {
        self.command.current_dir(dir);
        self
    }

    /// What it reads. For [`spawn`](Command::spawn) and [`status`](Command::status) what this process reads, unless it
    /// is set; for [`output`](Command::output) nothing.
    pub fn stdin<T: Into<Stdio>>(&mut self, stdin: T) -> &mut Command {
        self.set[0] = true;
        self.command.stdin(stdin);
        self
    }

    /// Where it writes. For [`spawn`](Command::spawn) and [`status`](Command::status) where this process writes, unless
    /// it is set; for [`output`](Command::output) a pipe.
    pub fn stdout<T: Into<Stdio>>(&mut self, stdout: T) -> &mut Command {
        self.set[1] = true;
        self.command.stdout(stdout);
        self
    }

    /// Where it tells of errors; as [`stdout`](Command::stdout).
    pub fn stderr<T: Into<Stdio>>(&mut self, stderr: T) -> &mut Command {
        self.set[2] = true;
        self.command.stderr(stderr);
        self
    }

    /// Starts it. Does not switch: the OS thread waits until the program runs, or does not.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn spawn(&mut self) -> io::Result<Child> {
        orphans::reap();
        Child::from_std(self.command.spawn()?)
    }

    /// Starts it, and waits for its end with all that it has written. Switches.
    ///
    /// If the calling green thread is killed or times out in it, the child runs on: [`spawn`](Command::spawn) gives one that
    /// can be killed.
    ///
    /// # Errors
    ///
    /// As std's.
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
        // What was not set is as before.
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

    /// Starts it, and waits for its end. Switches.
    ///
    /// If the calling green thread is killed or times out in it, the child runs on, as from [`output`](Command::output).
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn()?.wait_at_last()
    }

    /// The program.
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        self.command.get_program()
    }

    /// Its arguments.
    pub fn get_args(&self) -> CommandArgs<'_> {
        self.command.get_args()
    }

    /// What was set in its environment, and left out of it.
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        self.command.get_envs()
    }

    /// Where it begins, if that was set.
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.command.get_current_dir()
    }

    /// std's own, for what is not here, such as `pre_exec`. The standard streams better are set here.
    pub fn as_std_mut(&mut self) -> &mut std::process::Command {
        &mut self.command
    }
}

impl From<std::process::Command> for Command {
    /// As if none of the standard streams had been set: [`output`](Command::output) sets them all.
    fn from(command: std::process::Command) -> Command {
        Command { command, set: [false; 3] }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command.fmt(f)
    }
}
