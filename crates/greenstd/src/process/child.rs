//! Processes that were started here.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::process::{ExitStatus, Output};
use std::time::Duration;

use hub_core::Interest;

use super::{ending, orphans};
use crate::select::{PollFd, poll};
use crate::stream::Stream;

/// A child process, std's `Child`. Dropping it neither ends it nor waits for it.
///
/// A green thread that is killed or times out in one of its waits leaves the child running, and it can be waited for
/// again. From [`wait_with_output`](Child::wait_with_output), and from the methods of [`Command`](super::Command) that wait,
/// no handle is left that could: it runs on, as if it had been dropped, and its output finds no reader. Such a child, and
/// a child whose handle is dropped by unwinding, as a kill does, is an orphan: it is reaped within a second of its end. A
/// child that is dropped otherwise stays a zombie until this process ends, as in std; the program may wait for it by its
/// number.
pub struct Child {
    /// What the child reads, if it was asked for.
    pub stdin: Option<ChildStdin>,
    /// What the child writes, if it was asked for.
    pub stdout: Option<ChildStdout>,
    /// What the child tells of errors, if it was asked for.
    pub stderr: Option<ChildStderr>,
    child: ChildHolder,
}

impl Child {
    /// Makes a child of std green. Its pipes, which nobody else has, become non-blocking here. Does not switch.
    ///
    /// # Errors
    ///
    /// If the system refuses that.
    pub fn from_std(mut child: std::process::Child) -> io::Result<Child> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // Until all is well.
        let mut child = ChildHolder::last(child);
        let stdin = stdin.map(|pipe| Stream::own(pipe.into())).transpose()?.map(ChildStdin);
        let stdout = stdout.map(|pipe| Stream::own(pipe.into())).transpose()?.map(ChildStdout);
        let stderr = stderr.map(|pipe| Stream::own(pipe.into())).transpose()?.map(ChildStderr);
        child.is_last = false;
        Ok(Child { stdin, stdout, stderr, child })
    }

    /// The number of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.get().id()
    }

    /// Ends the child by `SIGKILL`; one that was waited for already is left alone. Does not switch.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.get_mut().kill()
    }

    /// Whether the child has ended, and how. Does not switch.
    ///
    /// # Errors
    ///
    /// If somebody else has reaped it.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.get_mut().try_wait()
    }

    /// Closes its standard input, and waits until the child has ended. Switches.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let mut child = greenstd::process::Command::new("sleep").arg("0.01").spawn()?;
    /// let other = hub_core::spawn(|| "goes on meanwhile");
    /// assert!(child.wait()?.success());
    /// assert!(other.is_finished());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// If somebody else has reaped it, or the loop cannot wait.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        self.child.wait()
    }

    /// As [`wait`](Child::wait), but no longer than that: `None` if the child runs on. Switches.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use std::time::Duration;
    /// let mut child = greenstd::process::Command::new("sleep").arg("1000").spawn()?;
    /// assert_eq!(child.wait_timeout(Duration::from_millis(10))?, None);
    /// child.kill()?;
    /// assert!(!child.wait()?.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`wait`](Child::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        drop(self.stdin.take());
        ending::wait(self.child.get_mut(), Some(timeout))
    }

    /// Closes its standard input, reads both outputs at the same time to their ends, and waits for that of the
    /// child. Switches.
    ///
    /// If the calling green thread is killed or times out in it, what was read is lost and the child runs on. Eventlet's
    /// `communicate` with a timeout keeps the child: who wants that takes its outputs and reads them, and then has
    /// [`wait_timeout`](Child::wait_timeout) and [`kill`](Child::kill).
    ///
    /// # Errors
    ///
    /// As [`wait`](Child::wait), and if reading fails.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        let outputs = [self.stdout.take().map(|pipe| pipe.0), self.stderr.take().map(|pipe| pipe.0)];
        self.child.is_last = true;
        let [stdout, stderr] = read_to_ends(outputs)?;
        Ok(Output { status: self.child.wait()?, stdout, stderr })
    }

    /// As [`wait`](Child::wait), for a child that has no other handle.
    pub(super) fn wait_at_last(mut self) -> io::Result<ExitStatus> {
        self.child.is_last = true;
        self.wait()
    }
}

/// A child of std, which becomes an orphan when no handle can wait for it any more.
struct ChildHolder {
    /// There until it is dropped.
    child: Option<std::process::Child>,
    /// Whether nothing but this will wait for the child.
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

const THERE: &str = "a child is there until it is dropped";

impl Drop for ChildHolder {
    /// A frame that is unwound, as by a kill, has not chosen to leave its child.
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

/// Reads several streams at the same time.
fn read_to_ends<const N: usize>(mut streams: [Option<Stream>; N]) -> io::Result<[Vec<u8>; N]> {
    let mut texts = [const { Vec::new() }; N];
    let mut buffer = vec![0; 16 * 1024];
    loop {
        for (stream, text) in streams.iter_mut().zip(&mut texts) {
            // One piece each, so that others run in between.
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
        // Without a limit nothing is ready only when the time of grace is used up.
        if poll(&mut open, None)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// What a child reads, std's `ChildStdin`. Writing to it parks the calling green thread only.
pub struct ChildStdin(Stream);

/// What a child writes, std's `ChildStdout`. Reading it parks the calling green thread only.
pub struct ChildStdout(Stream);

/// What a child tells of errors, std's `ChildStderr`. Reading it parks the calling green thread only.
pub struct ChildStderr(Stream);

pipe_common!(ChildStdin, std::process::ChildStdin);
pipe_common!(ChildStdout, std::process::ChildStdout);
pipe_common!(ChildStderr, std::process::ChildStderr);
pipe_write!(ChildStdin, &ChildStdin);
pipe_read!(ChildStdout, &ChildStdout, ChildStderr, &ChildStderr);
