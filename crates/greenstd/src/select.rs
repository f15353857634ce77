//! Waiting for many things at once: Eventlet's green `select` and `poll`, and crossbeam's `Select`.
//!
//! Only the calling green thread waits. A program of green threads rarely needs [`poll()`] and [`select()`]: it can use
//! one green thread for each descriptor, and the hub waits for all of them at once. These calls serve code that has its
//! own set of descriptors. A [`Select`] waits for channels, events, green threads, descriptors and times together.

mod objects;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use hub_core::hub::{Interest, Readiness};
use hub_core::{Deadline, Grace, LoopErrorKind, TrampolineError, trampoline_any};
use rustix::event::{PollFlags, Timespec};
use rustix::io::Errno;

pub use objects::Select;

/// A descriptor to wait for, with the result of the last wait.
#[derive(Clone, Debug)]
pub struct PollFd<'fd> {
    fd: BorrowedFd<'fd>,
    interest: Interest,
    readiness: Readiness,
}

impl<'fd> PollFd<'fd> {
    /// Creates an entry that waits until `fd` is ready for `interest`.
    ///
    /// With [`Interest::NONE`] it reports only errors and the end. These end no wait that has begun.
    ///
    /// # Panics
    ///
    /// Panics if `fd` does, as a socket of this crate that was closed.
    #[track_caller]
    pub fn new(fd: &'fd impl AsFd, interest: Interest) -> PollFd<'fd> {
        PollFd::of(fd.as_fd(), interest)
    }

    fn of(fd: BorrowedFd<'fd>, interest: Interest) -> PollFd<'fd> {
        PollFd { fd, interest, readiness: Readiness::NONE }
    }

    /// Returns the descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'fd> {
        self.fd
    }

    /// Returns the interest.
    #[must_use]
    pub fn interest(&self) -> Interest {
        self.interest
    }

    /// Returns the result of the last [`poll`].
    ///
    /// Errors, a hang-up and a number that is not open count as ready in each direction of the interest. A number that
    /// is not open is also [`INVALID`](Readiness::INVALID).
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness
    }
}

/// Waits until one of many descriptors is ready, and returns how many are. Switches, unless the timeout is zero.
///
/// Sets the readiness of each entry. Like poll(2), returns 0 after the timeout. `None` waits forever, and zero checks
/// once. While the OS thread panics, the wait ends with 0 at the latest when the panicking grace is over.
///
/// ```
/// use greenhub::select::{PollFd, poll};
/// use greenhub::Interest;
/// use greenhub::hub::Readiness;
/// use std::io::Write;
/// let (one, _kept) = greenhub::io::pipe()?;
/// let (other, mut writer) = greenhub::io::pipe()?;
/// greenhub::spawn_n(move || writer.write_all(b"x").unwrap());
/// let mut both = [PollFd::new(&one, Interest::READ), PollFd::new(&other, Interest::READ)];
/// assert_eq!(poll(&mut both, None)?, 1);
/// assert!(both[1].readiness().contains(Readiness::READ));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns the errors of [`trampoline`](hub_core::trampoline()), for example if another green thread waits for the same
/// direction of a descriptor, or an error if the caller cannot wait. A caller that panics, or whose OS thread is
/// ending, blocks the OS thread for the panicking grace instead.
pub fn poll(fds: &mut [PollFd<'_>], timeout: impl Into<Option<Duration>>) -> io::Result<usize> {
    poll_within(fds, timeout.into())
}

fn poll_within(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let mut deadline = Deadline::from(timeout);
    let mut parked = false;
    loop {
        let ready = poll_now(fds, Duration::ZERO)?;
        if timeout == Some(Duration::ZERO) {
            return Ok(ready);
        }
        if ready > 0 {
            if !parked && !std::thread::panicking() {
                // A caller that finds a ready descriptor at each call must let the other green threads run all the
                // same.
                hub_core::try_sleep(Duration::ZERO)?;
            }
            return Ok(ready);
        }
        parked = true;
        let directions = [Interest::READ, Interest::WRITE];
        let each = fds.iter().flat_map(|asked| directions.map(|direction| (asked, direction)));
        let each = each.filter(|(asked, direction)| asked.interest.contains(*direction));
        let each: Vec<_> = each.map(|(asked, direction)| (asked.fd, direction)).collect();
        match trampoline_any(&each, &mut deadline) {
            Ok(()) => {}
            Err(TrampolineError::TimedOut { .. }) => return poll_now(fds, Duration::ZERO),
            Err(TrampolineError::Loop(error))
                if matches!(error.kind(), LoopErrorKind::Panicking | LoopErrorKind::ThreadEnding) =>
            {
                let grace = Grace::begin();
                return poll_now(fds, timeout.unwrap_or(Duration::MAX).min(grace.left()));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Calls poll(2) with that timeout.
fn poll_now(fds: &mut [PollFd<'_>], wait: Duration) -> io::Result<usize> {
    let mut asked: Vec<_> =
        fds.iter().map(|asked| rustix::event::PollFd::from_borrowed_fd(asked.fd, flags(asked.interest))).collect();
    let (seconds, nanos) = hub_core::hub::round::nanos(wait);
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
    for (flag, direction, ready) in
        [(PollFlags::IN, Interest::READ, Readiness::READ), (PollFlags::OUT, Interest::WRITE, Readiness::WRITE)]
    {
        if interest.contains(direction) && (both || flags.contains(flag)) {
            readiness |= ready;
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

/// Waits until a reader or a writer is ready, and returns all that are. Switches, unless the timeout is zero.
///
/// The results keep the given order. They are empty after the timeout; `None` waits forever, and zero checks once.
///
/// ```
/// use std::time::Duration;
/// let (reader, writer) = greenhub::io::pipe()?;
/// let (readable, writable) = greenhub::select::select(&[&reader], &[&writer], Duration::from_secs(10))?;
/// assert_eq!((readable.len(), writable.len()), (0, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns the errors of [`poll`], and `EBADF` if a reader or a writer is not open.
pub fn select<R: AsFd + Copy, W: AsFd + Copy>(
    readers: &[R],
    writers: &[W],
    timeout: impl Into<Option<Duration>>,
) -> io::Result<(Vec<R>, Vec<W>)> {
    let mut fds: Vec<_> = readers.iter().map(|fd| PollFd::new(fd, Interest::READ)).collect();
    fds.extend(writers.iter().map(|fd| PollFd::new(fd, Interest::WRITE)));
    poll_within(&mut fds, timeout.into())?;
    if fds.iter().any(|fd| fd.readiness.contains(Readiness::INVALID)) {
        return Err(Errno::BADF.into());
    }
    let (read, written) = fds.split_at(readers.len());
    let readable = read.iter().zip(readers).filter(|(fd, _)| fd.readiness.contains(Readiness::READ));
    let writable = written.iter().zip(writers).filter(|(fd, _)| fd.readiness.contains(Readiness::WRITE));
    Ok((readable.map(|(_, reader)| *reader).collect(), writable.map(|(_, writer)| *writer).collect()))
}
