//! The hub over poll(2).

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use hub_core::hub::{Hub, Interest, Key, Lease, Ready, Rearm, Watched};
use rustix::event::{PollFd, poll};
use rustix::io::Errno;

use crate::convert;

/// The canonical name of the hub.
pub(crate) const NAME: &str = "poll";

/// A hub over poll(2).
///
/// ```
/// hub_core::use_hub_with(hub_poll::PollHub::new)?;
/// hub_core::sleep(std::time::Duration::from_millis(1)); // in ppoll, where there is one
/// assert_eq!(hub_core::get_hub().name(), "poll");
/// # Ok::<(), hub_core::HubError>(())
/// ```
#[derive(Default)]
pub struct PollHub {
    /// The argument of the system call. Between calls the vector is empty: it borrows no descriptor, and keeps only its
    /// allocation.
    fds: Vec<PollFd<'static>>,
}

impl PollHub {
    /// Creates a hub.
    ///
    /// # Errors
    ///
    /// Returns no error at present: the hub needs no system object.
    pub fn new() -> io::Result<PollHub> {
        Ok(PollHub::default())
    }
}

impl Hub for PollHub {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rearm(&self) -> Rearm {
        Rearm::Explicit
    }

    fn watch(&mut self, _key: Key, _fd: BorrowedFd<'_>, _interest: Interest, _lease: Lease) -> io::Result<()> {
        Ok(())
    }

    fn forget(&mut self, _key: Key, _fd: Option<BorrowedFd<'_>>) {}

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        let mut fds: Vec<PollFd<'_>> = mem::take(&mut self.fds);
        // `for_each` iterates inside the loops over the table's words; `next` would leave and re-enter them each time.
        watched.iter().for_each(|(_, fd, armed)| fds.push(PollFd::from_borrowed_fd(fd, convert::flags(armed))));
        let found = poll(&mut fds, timeout.map(convert::limit).as_ref());
        let reports = fds.iter().filter(|fd| !fd.revents().is_empty()).take(found.unwrap_or(0));
        for fd in reports {
            if let Some(key) = watched.key(fd.as_fd().as_raw_fd()) {
                ready.push(key, convert::readiness(fd.revents()));
            }
        }
        self.fds = emptied(fds);
        match found {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(Errno::INVAL) => Err(too_many(watched.len())),
            Err(errno) => Err(errno.into()),
        }
    }

    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for PollHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollHub").finish_non_exhaustive()
    }
}

/// Clears `fds` and keeps its allocation under another lifetime: std collects an iterator over a `Vec` in place.
fn emptied(mut fds: Vec<PollFd<'_>>) -> Vec<PollFd<'static>> {
    fds.clear();
    fds.into_iter().map(|_| unreachable!("the vector is empty")).collect()
}

/// Creates the error for EINVAL (quirk h).
fn too_many(count: usize) -> io::Error {
    let message =
        format!("poll(2) refuses {count} descriptors: RLIMIT_NOFILE was lowered below the number that is open");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocation_of_the_vector_is_reused() {
        let fds = Vec::with_capacity(100);
        let allocation = fds.as_ptr();
        let kept = emptied(fds);
        assert_eq!((kept.as_ptr(), kept.capacity(), kept.len()), (allocation, 100, 0));
    }
}
