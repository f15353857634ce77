//! Child processes that end with their parent, with a limit of time for each.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child as Process, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::time::ClockId;
use nix::unistd::Pid;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::sched_setaffinity;

use crate::processors::set_of;

/// A child process. Dropping it kills the process and waits for its end.
#[derive(Debug)]
pub struct Child(Process);

impl Child {
    /// Starts a command on some processors. The system kills the process if this one ends.
    ///
    /// # Errors
    ///
    /// Returns the error of the system. It names the program.
    pub fn start(command: &mut Command, processors: &[usize]) -> io::Result<Child> {
        let set = set_of(processors);
        let prepare = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(sched_setaffinity(None, &set)?)
        };
        // SAFETY: `prepare` makes two system calls and takes no lock.
        unsafe { command.pre_exec(prepare) };
        let name = command.get_program().to_string_lossy().into_owned();
        command.spawn().map(Child).map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
    }

    /// Returns the processor time of the process so far, system calls included.
    ///
    /// # Errors
    ///
    /// Returns the error of the system, such as for a process that has ended.
    pub fn processor_time(&self) -> io::Result<Duration> {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(self.0.id().cast_signed()))?;
        Ok(clock.now()?.into())
    }

    /// Adds to an error that the process has ended, if it has.
    pub fn explain(&mut self, error: io::Error) -> io::Error {
        match self.0.try_wait() {
            Ok(Some(status)) => io::Error::other(format!("{error}; the process has ended: {status}")),
            _ => error,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command on some processors, and returns its output. The output must fit into a pipe.
///
/// # Errors
///
/// Returns an error if the command cannot be started, fails, or is killed after `limit`.
pub fn output(command: &mut Command, processors: &[usize], limit: Duration) -> io::Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begun = Instant::now();
    let mut child = Child::start(command, processors)?;
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        if begun.elapsed() > limit {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end after {} s", limit.as_secs())));
        }
        thread::sleep(Duration::from_millis(2));
    };
    let (mut output, mut errors) = (String::new(), String::new());
    child.0.stdout.take().map(|mut pipe| pipe.read_to_string(&mut output)).transpose()?;
    child.0.stderr.take().map(|mut pipe| pipe.read_to_string(&mut errors)).transpose()?;
    if status.success() {
        return Ok(output);
    }
    // The first line of a panic or of a Go program names the failure. The rest is a trace.
    let reason = errors.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(io::Error::other(format!("{status}: {reason}")))
}
