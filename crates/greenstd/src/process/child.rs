//! Child processes.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::process::{ExitStatus, Output};
use std::task::{Context, Poll};
use std::time::Duration;

use hub_core::hub::Interest;

use super::{ending, orphans};
use crate::select::{PollFd, poll};
use crate::stream::Stream;

/// Representation of a running or exited child process, std's `Child`. Dropping it neither kills the child nor waits
/// for it.
///
/// An [exit](hub_core::is_exit) during one of its waits leaves the child running, and the handle can wait again.
/// [`wait_with_output`](Child::wait_with_output), and the methods of [`Command`](super::Command) that wait, own the
/// last handle. After an exit in them the child runs on as if the handle had been dropped, and its output has no
/// reader. Such a child is an orphan, and so is a child whose handle is dropped while unwinding. An orphan is reaped
/// within a second of its end. A child whose handle is dropped otherwise stays a zombie until this process ends, as in
/// std; the program may wait for it by its process ID.
#[doc(alias = "Popen")]
pub struct Child {
    /// The handle for writing to the child's standard input, if it was captured.
    pub stdin: Option<ChildStdin>,
    /// The handle for reading from the child's standard output, if it was captured.
    pub stdout: Option<ChildStdout>,
    /// The handle for reading from the child's standard error, if it was captured.
    pub stderr: Option<ChildStderr>,
    child: ChildHolder,
}

impl Child {
    /// Converts a std child. Does not switch.
    ///
    /// Its pipes, which no other handle shares, become non-blocking.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses the change of the mode.
    pub fn from_std(mut child: std::process::Child) -> io::Result<Child> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // If the conversion fails, the child becomes an orphan.
        let mut child = ChildHolder::last(child);
        let stdin = stdin.map(|pipe| Stream::own(pipe.into())).transpose()?.map(ChildStdin);
        let stdout = stdout.map(|pipe| Stream::own(pipe.into())).transpose()?.map(ChildStdout);
        let stderr = stderr.map(|pipe| Stream::own(pipe.into())).transpose()?.map(ChildStderr);
        child.is_last = false;
        Ok(Child { stdin, stdout, stderr, child })
    }

    /// Returns the OS-assigned process identifier associated with this child.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.get().id()
    }

    /// Forces the child process to exit, by `SIGKILL`. Does not switch.
    ///
    /// If the child has been waited for already, it does nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses the signal.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.get_mut().kill()
    }

    /// Attempts to collect the exit status of the child if it has already exited. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if other code has reaped the child.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.get_mut().try_wait()
    }

    /// Waits for the child to exit, and returns its exit status. Switches.
    ///
    /// It closes the child's standard input first.
    ///
    /// ```
    /// let mut child = greenhub::process::Command::new("sleep").arg("0.01").spawn()?;
    /// let other = greenhub::spawn(|| "goes on meanwhile");
    /// assert!(child.wait()?.success());
    /// assert!(other.is_finished());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if other code has reaped the child, or the caller cannot wait.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        self.child.wait()
    }

    /// Like [`wait`](Child::wait), for at most `timeout`; returns `None` if the child runs on. Switches.
    ///
    /// ```
    /// use std::time::Duration;
    /// let mut child = greenhub::process::Command::new("sleep").arg("1000").spawn()?;
    /// assert_eq!(child.wait_timeout(Duration::from_millis(10))?, None);
    /// child.kill()?;
    /// assert!(!child.wait()?.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Like [`wait`](Child::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        drop(self.stdin.take());
        ending::wait(self.child.get_mut(), Some(timeout))
    }

    /// Waits for the child to exit and collects all remaining output on both streams. Switches.
    ///
    /// It closes the child's standard input first, and reads both streams at the same time. If an exit unwinds the
    /// caller meanwhile, the output is lost and the child runs on. Eventlet's `communicate` with a timeout keeps the
    /// child. A program that needs this takes the outputs and reads them itself, and then calls
    /// [`wait_timeout`](Child::wait_timeout) and [`kill`](Child::kill).
    ///
    /// # Errors
    ///
    /// Like [`wait`](Child::wait), and if reading fails.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        let outputs = [self.stdout.take().map(|pipe| pipe.0), self.stderr.take().map(|pipe| pipe.0)];
        self.child.is_last = true;
        let [stdout, stderr] = read_to_ends(outputs)?;
        Ok(Output { status: self.child.wait()?, stdout, stderr })
    }

    /// Like [`wait`](Child::wait), for a child without another handle.
    pub(super) fn wait_at_last(mut self) -> io::Result<ExitStatus> {
        self.child.is_last = true;
        self.wait()
    }
}

/// Holds std's child, and makes it an orphan when no handle can wait for it any more.
struct ChildHolder {
    /// `Some` until it is dropped.
    child: Option<std::process::Child>,
    /// Whether this is the last handle that will wait for the child.
    is_last: bool,
}

impl ChildHolder {
    fn last(child: std::process::Child) -> ChildHolder {
        ChildHolder { child: Some(child), is_last: true }
    }

    fn get(&self) -> &std::process::Child {
        self.child.as_ref().expect(THERE)
    }

    fn get_mut(&mut self) -> &mut std::process::Child {
        self.child.as_mut().expect(THERE)
    }

    fn wait(&mut self) -> io::Result<ExitStatus> {
        ending::wait(self.get_mut(), None)?.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

const THERE: &str = "a child exists until its handle is dropped";

impl Drop for ChildHolder {
    /// A green thread that unwinds, as by an exit, has not chosen to abandon its child.
    fn drop(&mut self) {
        if let Some(child) = self.child.take()
            && (self.is_last || std::thread::panicking())
        {
            orphans::adopt(child);
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("id", &self.id())
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .finish_non_exhaustive()
    }
}

/// Reads several streams to their ends at the same time.
fn read_to_ends<const N: usize>(mut streams: [Option<Stream>; N]) -> io::Result<[Vec<u8>; N]> {
    let mut texts = [const { Vec::new() }; N];
    let mut buffer = vec![0; 16 * 1024];
    loop {
        for (stream, text) in streams.iter_mut().zip(&mut texts) {
            // One piece of each, so that other green threads run in between.
            match stream.as_ref().map(|stream| stream.try_read(&mut buffer)).transpose()? {
                Some(Some(0)) => *stream = None,
                Some(Some(n)) => text.extend_from_slice(&buffer[..n]),
                Some(None) | None => {}
            }
        }
        let mut open: Vec<_> = streams.iter().flatten().map(|stream| PollFd::new(stream, Interest::READ)).collect();
        if open.is_empty() {
            return Ok(texts);
        }
        // Without a timeout, nothing is ready only at the end of the panicking grace.
        if poll(&mut open, None)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// A handle to a child process's standard input, std's `ChildStdin`. Writing parks only the calling green thread.
pub struct ChildStdin(Stream);

/// A handle to a child process's standard output, std's `ChildStdout`. Reading parks only the calling green thread.
pub struct ChildStdout(Stream);

/// A handle to a child process's standard error, std's `ChildStderr`. Reading parks only the calling green thread.
pub struct ChildStderr(Stream);

pipe_common!(ChildStdin, std::process::ChildStdin);
pipe_common!(ChildStdout, std::process::ChildStdout);
pipe_common!(ChildStderr, std::process::ChildStderr);
pipe_write!(ChildStdin, &ChildStdin);
pipe_read!(ChildStdout, &ChildStdout, ChildStderr, &ChildStderr);
pipe_poll_write!(ChildStdin);
pipe_poll_read!(ChildStdout, ChildStderr);
