//! Waiting for the end of a child.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use hub_core::hub::Interest;
use hub_core::internal::PiecewiseWait;
use hub_core::{HubError, TrampolineError, trampoline};
use signal_hook::SigId;
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level;

/// The time after which the child is checked although no signal came.
const SIGNAL_LIMIT: Duration = Duration::from_millis(250);

/// The first pause between two checks, where no descriptor is available.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// Waits until the child has ended, and reaps it. Returns `None` after `timeout`. An exit of the caller leaves the
/// child as it is.
pub(super) fn wait(child: &mut Child, timeout: Option<Duration>) -> io::Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let (wait, begun) = (PiecewiseWait::begin(), Instant::now());
    let left = || timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
    match by_descriptor(child, timeout)? {
        WaitOutcome::Ended(status) => return Ok(Some(status)),
        WaitOutcome::TimedOut => return timed_out(child, timeout),
        WaitOutcome::Unknown => {}
    }
    match by_signal(child, &wait, left)? {
        WaitOutcome::Ended(status) => return Ok(Some(status)),
        WaitOutcome::TimedOut => return timed_out(child, timeout),
        WaitOutcome::Unknown => {}
    }
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = left().unwrap_or(Duration::MAX);
        if left.is_zero() || wait.is_over() {
            return timed_out(child, timeout);
        }
        match hub_core::try_get_hub() {
            Ok(_) => hub_core::try_sleep(pause.min(left))?,
            Err(error @ HubError::InHub) => return Err(error.into()),
            // Without a hub there are no green threads that a sleep of the OS thread would delay.
            #[expect(clippy::disallowed_methods, reason = "an OS thread without a hub has no green threads")]
            Err(_) => std::thread::sleep(pause.min(left)),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The result of one way to wait for the end.
enum WaitOutcome {
    Ended(ExitStatus),
    TimedOut,
    /// This way is not available, or the report did not concern the child.
    Unknown,
}

fn by_descriptor(child: &mut Child, timeout: Option<Duration>) -> io::Result<WaitOutcome> {
    // The child was not reaped, so no other process has its number.
    let Ok(process) = open(child.id()) else { return Ok(WaitOutcome::Unknown) };
    match trampoline(&process, Interest::READ, timeout) {
        Ok(_) => {}
        Err(TrampolineError::TimedOut { .. }) => return Ok(WaitOutcome::TimedOut),
        Err(error) if is_unavailable(&error) => return Ok(WaitOutcome::Unknown),
        Err(error) => return Err(error.into()),
    }
    // A debugger may delay the status for a moment.
    Ok(child.try_wait()?.map_or(WaitOutcome::Unknown, WaitOutcome::Ended))
}

fn by_signal(child: &mut Child, wait: &PiecewiseWait, left: impl Fn() -> Option<Duration>) -> io::Result<WaitOutcome> {
    let Ok(signal) = Signal::new() else { return Ok(WaitOutcome::Unknown) };
    loop {
        // The child may have ended before the signal handler was registered.
        if let Some(status) = child.try_wait()? {
            return Ok(WaitOutcome::Ended(status));
        }
        let left = left().unwrap_or(Duration::MAX);
        if left.is_zero() {
            return Ok(WaitOutcome::TimedOut);
        }
        match trampoline(&signal.receiver, Interest::READ, Some(left.min(SIGNAL_LIMIT))) {
            Ok(_) => signal.take(),
            Err(TrampolineError::TimedOut { .. }) if wait.is_over() => return Ok(WaitOutcome::TimedOut),
            Err(TrampolineError::TimedOut { .. }) => {}
            Err(error) if is_unavailable(&error) => return Ok(WaitOutcome::Unknown),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns true if no hub can wait for the descriptor: its number may be too large for the hub, or no hub can be built.
fn is_unavailable(error: &TrampolineError) -> bool {
    match error {
        TrampolineError::Register { .. } => true,
        TrampolineError::Loop(error) => error.hub_error().is_some(),
        _ => false,
    }
}

/// Returns the result after the timeout, or after the panicking grace of a caller that is panicking.
fn timed_out(child: &mut Child, timeout: Option<Duration>) -> io::Result<Option<ExitStatus>> {
    match child.try_wait()? {
        None if timeout.is_none() => Err(io::ErrorKind::TimedOut.into()),
        ended => Ok(ended),
    }
}

/// Opens a descriptor that becomes readable when the process ends.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn open(process: u32) -> io::Result<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let number = i32::try_from(process).ok().and_then(Pid::from_raw);
    let number = number.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(number, PidfdFlags::empty())?)
}

/// Returns an error: this system has no such descriptor.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn open(_process: u32) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Receives a notice whenever a child of this process ends, until it is dropped.
struct Signal {
    receiver: UnixStream,
    id: SigId,
}

impl Signal {
    fn new() -> io::Result<Signal> {
        let (receiver, sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        let id = low_level::pipe::register(SIGCHLD, sender)?;
        Ok(Signal { receiver, id })
    }

    /// Takes the notices that have come so far.
    fn take(&self) {
        // After an error or the end there is nothing left to take.
        while (&self.receiver).read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        low_level::unregister(self.id);
    }
}
