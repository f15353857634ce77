//! How the end of a child is noticed.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use hub_core::{Interest, Left, Source, TrampolineError, trampoline};
use signal_hook::SigId;
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level;

/// How long a signal that never comes is waited for.
const PAUSE: Duration = Duration::from_millis(250);

/// Waits until the child has ended, and reaps it: `None` if that takes longer than `timeout`. A caller who is killed
/// in it leaves the child as it is.
pub(super) fn wait(child: &mut Child, timeout: Option<Duration>) -> io::Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let begun = Instant::now();
    // Not reaped, so that its number is nobody else's.
    if let Ok(process) = open(child.id()) {
        match trampoline(&process, Interest::READ, timeout) {
            // A debugger may keep it from here for a moment.
            Ok(_) => {}
            Err(TrampolineError::TimedOut(_)) => return late(child, timeout),
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
    }
    let signal = Signal::new()?;
    loop {
        // It may have ended before the signal was asked for.
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(begun.elapsed()));
        if left.is_zero() {
            return Ok(None);
        }
        match signal.wait(left.min(PAUSE)) {
            Err(error) if std::thread::panicking() && error.kind() == io::ErrorKind::TimedOut => {
                return late(child, timeout);
            }
            Err(error) if error.kind() != io::ErrorKind::TimedOut => return Err(error),
            _ => {}
        }
    }
}

/// It was waited for until now, for the time of grace only if the caller is panicking.
fn late(child: &mut Child, timeout: Option<Duration>) -> io::Result<Option<ExitStatus>> {
    match child.try_wait()? {
        None if timeout.is_none() => Err(io::ErrorKind::TimedOut.into()),
        ended => Ok(ended),
    }
}

/// A descriptor that can be read when the process has ended.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn open(process: u32) -> io::Result<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let number = i32::try_from(process).ok().and_then(Pid::from_raw);
    let number = number.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(number, PidfdFlags::empty())?)
}

/// Not on this system.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn open(_process: u32) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Told when any child has ended, as long as it exists.
struct Signal {
    told: Source,
    id: SigId,
}

impl Signal {
    fn new() -> io::Result<Signal> {
        let (told, tell) = UnixStream::pair()?;
        let told = Source::new(told.into())?;
        let id = low_level::pipe::register(SIGCHLD, tell)?;
        Ok(Signal { told, id })
    }

    fn wait(&self, timeout: Duration) -> io::Result<()> {
        let mut bytes = [0; 64];
        self.told.read(Some(timeout), |fd| Ok((rustix::io::read(fd, &mut bytes)?, Left::Likely)))?;
        Ok(())
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        low_level::unregister(self.id);
    }
}
