//! The hub over select(2).

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use hub_core::{Hub, Interest, Key, Lease, Readiness, Ready, Rearm, Watched};
use nix::errno::Errno;
use nix::sys::select::{FD_SETSIZE, FdSet, select};
use rustix::event::{PollFd, Timespec, poll};
use rustix::io::fcntl_getfd;

use crate::convert;

/// The canonical name.
pub(crate) const NAME: &str = "select";

/// A hub over select(2).
///
/// ```
/// hub_core::use_hub_with(hub_select::SelectHub::new)?;
/// hub_core::sleep(std::time::Duration::from_millis(1)); // in select
/// assert_eq!(hub_core::get_hub().name(), "select");
/// # Ok::<(), hub_core::HubError>(())
/// ```
#[derive(Default)]
pub struct SelectHub {
    /// What the call under way has found; kept for its room. Empty between calls, so it lends nothing for ever.
    fds: Vec<PollFd<'static>>,
}

impl SelectHub {
    /// A hub.
    ///
    /// # Errors
    ///
    /// None: it needs nothing of the system.
    pub fn new() -> io::Result<SelectHub> {
        Ok(SelectHub::default())
    }
}

impl Hub for SelectHub {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rearm(&self) -> Rearm {
        Rearm::Explicit
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, _interest: Interest, _lease: Lease) -> io::Result<()> {
        if !fits(key.fd()) {
            return Err(too_large(key.fd()));
        }
        fcntl_getfd(fd)?;
        Ok(())
    }

    fn forget(&mut self, _key: Key, _fd: Option<BorrowedFd<'_>>) {}

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        let armed = || watched.iter().take_while(|(key, ..)| fits(key.fd()));
        let (mut readers, mut writers) = (FdSet::new(), FdSet::new());
        let mut above = 0;
        for (key, fd, interest) in armed() {
            if interest.contains(Interest::READ) {
                readers.insert(fd);
            }
            if interest.contains(Interest::WRITE) {
                writers.insert(fd);
            }
            above = key.fd() + 1;
        }
        match select(above, &mut readers, &mut writers, None, timeout.map(convert::limit).as_mut()) {
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(Errno::EBADF) => {
                let dead = armed().filter(|(_, fd, _)| fcntl_getfd(fd).is_err());
                dead.for_each(|(key, ..)| ready.push(key, Readiness::GONE));
                return Ok(());
            }
            Err(errno) => return Err(errno.into()),
        }
        let found = |fd| convert::readiness(readers.contains(fd), writers.contains(fd));
        let mut fds: Vec<PollFd<'_>> = mem::take(&mut self.fds);
        for (_, fd, _) in armed().filter(|&(_, fd, _)| !found(fd).is_empty()) {
            fds.push(PollFd::from_borrowed_fd(fd, convert::flags(found(fd))));
        }
        // If it fails, the answer of select stands.
        let _ = poll(&mut fds, Some(&Timespec::default()));
        for fd in &fds {
            if let Some(key) = watched.key(fd.as_fd().as_raw_fd()) {
                ready.push(key, found(fd.as_fd()) | convert::end(fd.revents()));
            }
        }
        self.fds = emptied(fds);
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for SelectHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelectHub").finish_non_exhaustive()
    }
}

/// Whether a set can hold `fd`.
fn fits(fd: RawFd) -> bool {
    usize::try_from(fd).is_ok_and(|fd| fd < FD_SETSIZE)
}

/// Why `fd` is refused, and what helps.
fn too_large(fd: RawFd) -> io::Error {
    let what = format!(
        "select(2) takes descriptors below {FD_SETSIZE} (FD_SETSIZE), not {fd}; \
         keep fewer open, or choose a hub without that limit, such as \"poll\""
    );
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// The room of `fds`, which may lend for any time when it is empty: std collects it in place.
fn emptied(mut fds: Vec<PollFd<'_>>) -> Vec<PollFd<'static>> {
    fds.clear();
    fds.into_iter().map(|_| unreachable!("it is empty")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_the_array_is_kept() {
        let fds = Vec::with_capacity(100);
        let room = fds.as_ptr();
        let kept = emptied(fds);
        assert_eq!((kept.as_ptr(), kept.capacity(), kept.len()), (room, 100, 0));
    }

    #[test]
    fn a_refusal_names_the_number_the_limit_and_what_helps() {
        let error = too_large(1500).to_string();
        assert!(error.contains("not 1500") && error.contains("below 1024") && error.contains("\"poll\""), "{error}");
    }
}
