//! The descriptor by which another OS thread ends the loop's sleep.

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::hub::{ForkAware, Notify};

/// The kind of a [`Wakeup`].
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum WakeupKind {
    /// An eventfd; a pipe on systems without eventfds.
    #[default]
    Eventfd,
    /// A pipe everywhere.
    Pipe,
}

impl WakeupKind {
    const VARIABLE: &str = "GREENHUB_WAKEUP";

    /// Returns the kind that `GREENHUB_WAKEUP` sets: `pipe`, or `eventfd`, the default. The variable exists so that a
    /// test suite can run again over pipes on a system that has eventfds.
    pub(crate) fn from_env() -> io::Result<WakeupKind> {
        match env::var_os(Self::VARIABLE) {
            None => Ok(WakeupKind::default()),
            Some(value) => Self::parse(&value.to_string_lossy()),
        }
    }

    fn parse(value: &str) -> io::Result<WakeupKind> {
        match value {
            "" | "eventfd" => Ok(WakeupKind::Eventfd),
            "pipe" => Ok(WakeupKind::Pipe),
            other => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{}={other:?}: the loop is woken by \"eventfd\" or \"pipe\"", Self::VARIABLE),
            )),
        }
    }
}

/// A descriptor that is readable from [`notify`](Notify::notify) until [`drain`](Wakeup::drain).
///
/// Both ends are non-blocking and close-on-exec. After a fork the child makes a new one and drops this.
#[derive(Debug)]
pub(crate) struct Wakeup {
    read: ForkAware<OwnedFd>,
    /// The other end of a pipe. An eventfd has one end.
    write: Option<ForkAware<OwnedFd>>,
}

impl Wakeup {
    pub(crate) fn new(kind: WakeupKind) -> io::Result<Arc<Wakeup>> {
        let eventfd = match kind {
            WakeupKind::Eventfd => eventfd()?,
            WakeupKind::Pipe => None,
        };
        let wakeup = match eventfd {
            Some(read) => Wakeup { read: ForkAware::new(read)?, write: None },
            None => {
                let (read, write) = pipe()?;
                Wakeup { read: ForkAware::new(read)?, write: Some(ForkAware::new(write)?) }
            }
        };
        Ok(Arc::new(wakeup))
    }

    /// Takes every notice so far. A woken loop must drain before it checks for mail: a full pipe takes no further
    /// notice, and makes no further edge.
    pub(crate) fn drain(&self) {
        let mut buffer = [0; 64];
        // A short read has emptied either kind; an eventfd always reads short.
        while matches!(rustix::io::read(&*self.read, &mut buffer), Ok(64)) {}
    }
}

/// The descriptor that the hub watches for reading.
impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl Notify for Wakeup {
    /// Writes once, and never blocks.
    ///
    /// Async-signal-safe except for `errno`, which a signal handler saves where the system calls of this platform go
    /// through the C library.
    fn notify(&self) {
        // If it is full, there is a notice already. No other error is possible while both ends are open, and they are
        // open as long as `self` lives.
        let one = 1_u64.to_ne_bytes();
        let _ = match &self.write {
            None => rustix::io::write(&*self.read, &one),
            Some(write) => rustix::io::write(&**write, &one[..1]),
        };
    }
}

/// Returns `None` if the kernel has no eventfds.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "illumos"))]
fn eventfd() -> io::Result<Option<OwnedFd>> {
    use rustix::event::EventfdFlags;
    match rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC) {
        Ok(fd) => Ok(Some(fd)),
        // An older kernel, or a sandbox.
        Err(Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "illumos")))]
fn eventfd() -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

#[cfg(not(target_vendor = "apple"))]
fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::pipe::PipeFlags;
    rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)
}

/// Creates a pipe without `pipe2`. A fork and exec of another OS thread may inherit it before its flags are set.
#[cfg(target_vendor = "apple")]
fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = rustix::pipe::pipe()?;
    for end in [&read, &write] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(end, true)?;
    }
    Ok((read, write))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::{FdFlags, fcntl_getfd};

    const KINDS: [WakeupKind; 2] = [WakeupKind::Eventfd, WakeupKind::Pipe];

    fn readable(wakeup: &Wakeup) -> bool {
        let mut fds = [PollFd::new(wakeup, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn a_wakeup_is_readable_from_a_notice_until_a_drain() {
        for kind in KINDS {
            let wakeup = Wakeup::new(kind).unwrap();
            assert!(!readable(&wakeup), "{kind:?}");
            wakeup.notify();
            assert!(readable(&wakeup), "{kind:?}");
            wakeup.drain();
            assert!(!readable(&wakeup), "{kind:?}");
        }
    }

    #[test]
    fn draining_nothing_does_not_block() {
        for kind in KINDS {
            Wakeup::new(kind).unwrap().drain();
        }
    }

    #[test]
    fn more_notices_than_a_pipe_holds_neither_block_nor_outlive_a_drain() {
        for kind in KINDS {
            let wakeup = Wakeup::new(kind).unwrap();
            for _ in 0..100_000 {
                wakeup.notify();
            }
            wakeup.drain();
            assert!(!readable(&wakeup), "{kind:?}");
            wakeup.notify();
            assert!(readable(&wakeup), "{kind:?}");
        }
    }

    #[test]
    fn every_end_is_closed_by_exec() {
        for kind in KINDS {
            let wakeup = Wakeup::new(kind).unwrap();
            for end in [Some(&wakeup.read), wakeup.write.as_ref()].into_iter().flatten() {
                assert!(fcntl_getfd(&**end).unwrap().contains(FdFlags::CLOEXEC), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_pipe_is_made_when_asked_for() {
        assert!(Wakeup::new(WakeupKind::Pipe).unwrap().write.is_some());
    }

    #[test]
    fn the_variable_chooses_the_kind() {
        assert_eq!(WakeupKind::parse("pipe").unwrap(), WakeupKind::Pipe);
        assert_eq!(WakeupKind::parse("eventfd").unwrap(), WakeupKind::Eventfd);
        assert_eq!(WakeupKind::parse("").unwrap(), WakeupKind::Eventfd);
    }

    #[test]
    fn an_unknown_kind_is_an_error_that_quotes_it() {
        let error = WakeupKind::parse("bell").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("GREENHUB_WAKEUP=\"bell\""), "{error}");
    }
}
