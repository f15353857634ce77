//! Waiting for many descriptors at once: Eventlet's green `select` and `poll`. Only the calling green thread waits.
//!
//! A program of green threads rarely needs them: a green thread for each descriptor says the same, and a hub finds
//! the ready one among thousands without looking at the others. They are for code that has descriptors of its own
//! and asks for them all.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use hub_core::{Deadline, Grace, Interest, LoopError, Readiness, TrampolineError, trampoline_any};
use rustix::event::{PollFlags, Timespec};
use rustix::io::Errno;

/// A descriptor to wait for, and what has come of it.
#[derive(Clone, Debug)]
pub struct PollFd<'fd> {
    fd: BorrowedFd<'fd>,
    interest: Interest,
    readiness: Readiness,
}

impl<'fd> PollFd<'fd> {
    /// Waits until `fd` can be read, written, or either, as `interest` says. With [`Interest::NONE`] only its end
    /// and its errors are told, when the others are looked at.
    pub fn new(fd: &'fd impl AsFd, interest: Interest) -> PollFd<'fd> {
        PollFd { fd: fd.as_fd(), interest, readiness: Readiness::NONE }
    }

    /// The descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'fd> {
        self.fd
    }

    /// What is waited for.
    #[must_use]
    pub fn interest(&self) -> Interest {
        self.interest
    }

    /// What the last [`poll`] has found. Errors and a number that is not open count as ready in each direction that
    /// was asked for; the latter is [`INVALID`](Readiness::INVALID) too.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness
    }
}

/// Waits until one of many descriptors is ready, and tells everything that is: how many are. 0 after the timeout,
/// without which it waits for ever; a timeout of zero looks once. Switches, but for a timeout of zero.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::select::{PollFd, poll};
/// use hub_core::{Interest, Readiness};
/// use std::io::Write;
/// let (one, _kept) = greenstd::io::pipe()?;
/// let (other, mut writer) = greenstd::io::pipe()?;
/// hub_core::spawn_n(move || writer.write_all(b"x").unwrap());
/// let mut both = [PollFd::new(&one, Interest::READ), PollFd::new(&other, Interest::READ)];
/// assert_eq!(poll(&mut both, None)?, 1);
/// assert!(both[1].readiness().contains(Readiness::READ));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// What [`trampoline`](hub_core::trampoline()) returns, as when another green thread waits for the same; if the loop
/// cannot wait.
pub fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let mut limit = Deadline::from(timeout);
    let mut parked = false;
    loop {
        let ready = poll_now(fds, Duration::ZERO)?;
        if timeout == Some(Duration::ZERO) {
            return Ok(ready);
        }
        if ready > 0 {
            if !parked && !std::thread::panicking() {
                // Somebody who finds something each time lets others run all the same.
                hub_core::yield_now();
            }
            return Ok(ready);
        }
        parked = true;
        let directions = [Interest::READ, Interest::WRITE];
        let each = fds.iter().flat_map(|asked| directions.map(|direction| (asked, direction)));
        let each = each.filter(|(asked, direction)| asked.interest.contains(*direction));
        let each: Vec<_> = each.map(|(asked, direction)| (asked.fd, direction)).collect();
        match trampoline_any(&each, &mut limit) {
            Ok(()) => {}
            Err(TrampolineError::TimedOut(_)) => return poll_now(fds, Duration::ZERO),
            Err(TrampolineError::Loop(LoopError::Panicking | LoopError::ThreadEnding)) => {
                let grace = Grace::begin();
                return poll_now(fds, timeout.unwrap_or(Duration::MAX).min(grace.left()));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks the system, and waits for it that long.
fn poll_now(fds: &mut [PollFd<'_>], wait: Duration) -> io::Result<usize> {
    let mut asked: Vec<_> =
        fds.iter().map(|asked| rustix::event::PollFd::from_borrowed_fd(asked.fd, flags(asked.interest))).collect();
    let (seconds, nanos) = hub_core::round::nanos(wait);
    let wait = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    let ready = loop {
        match rustix::event::poll(&mut asked, Some(&wait)) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    for (fd, asked) in fds.iter_mut().zip(&asked) {
        fd.readiness = readiness(asked.revents(), fd.interest);
    }
    Ok(ready)
}

fn flags(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.contains(Interest::READ));
    flags.set(PollFlags::OUT, interest.contains(Interest::WRITE));
    flags
}

fn readiness(flags: PollFlags, interest: Interest) -> Readiness {
    let mut readiness = Readiness::NONE;
    let both = flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
    for (flag, direction, told) in
        [(PollFlags::IN, Interest::READ, Readiness::READ), (PollFlags::OUT, Interest::WRITE, Readiness::WRITE)]
    {
        if interest.contains(direction) && (both || flags.contains(flag)) {
            readiness |= told;
        }
    }
    if both {
        readiness |= Readiness::END;
    }
    if flags.contains(PollFlags::NVAL) {
        readiness |= Readiness::INVALID;
    }
    readiness
}

/// Waits until one of `readers` can be read or one of `writers` written, and returns all that can: those of both
/// kinds, in the order in which they were given. Nothing after the timeout, without which it waits for ever; a
/// timeout of zero looks once. Switches, but for a timeout of zero.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use std::time::Duration;
/// let (reader, writer) = greenstd::io::pipe()?;
/// let (readable, writable) = greenstd::select::select(&[&reader], &[&writer], Some(Duration::from_secs(10)))?;
/// assert_eq!((readable.len(), writable.len()), (0, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// As [`poll`], and `EBADF` if one of them is not open.
pub fn select<R: AsFd + Copy, W: AsFd + Copy>(
    readers: &[R],
    writers: &[W],
    timeout: Option<Duration>,
) -> io::Result<(Vec<R>, Vec<W>)> {
    let mut fds: Vec<_> = readers.iter().map(|fd| PollFd::new(fd, Interest::READ)).collect();
    fds.extend(writers.iter().map(|fd| PollFd::new(fd, Interest::WRITE)));
    poll(&mut fds, timeout)?;
    if fds.iter().any(|fd| fd.readiness.contains(Readiness::INVALID)) {
        return Err(Errno::BADF.into());
    }
    let (read, written) = fds.split_at(readers.len());
    let readable = read.iter().zip(readers).filter(|(fd, _)| fd.readiness.contains(Readiness::READ));
    let writable = written.iter().zip(writers).filter(|(fd, _)| fd.readiness.contains(Readiness::WRITE));
    Ok((readable.map(|(_, reader)| *reader).collect(), writable.map(|(_, writer)| *writer).collect()))
}
