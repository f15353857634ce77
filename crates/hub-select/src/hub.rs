//! The hub over select(2).

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use hub_core::hub::{Hub, Interest, Key, Lease, Readiness, Ready, Rearm, Watched};
use nix::errno::Errno;
use nix::sys::select::{FD_SETSIZE, FdSet, select};
use rustix::event::{PollFd, Timespec, poll};
use rustix::io::fcntl_getfd;

use crate::convert;

/// The canonical name of the hub.
pub(crate) const NAME: &str = "select";

/// The interval at which poll(2) looks for a hang-up that unread data hides from select (quirk c).
const HANG_UP_INTERVAL: Duration = Duration::from_millis(50);

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
    /// The descriptors that poll(2) has to look at. Between calls the vector is empty: it borrows no descriptor, and
    /// keeps only its allocation.
    fds: Vec<PollFd<'static>>,
}

impl SelectHub {
    /// Creates a hub.
    ///
    /// # Errors
    ///
    /// Returns no error at present: the hub needs no system object.
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
        let mut sets = Sets::default();
        let mut begun = None;
        let mut limit = timeout;
        loop {
            sets.ask(watched);
            if sets.borrows_readers && begun.is_none() {
                begun = timeout.map(|_| Instant::now());
            }
            match sets.select(limit) {
                Err(Errno::EINTR) => return Ok(()),
                Err(Errno::EBADF) => {
                    let dead = armed(watched).filter(|(_, fd, _)| fcntl_getfd(fd).is_err());
                    dead.for_each(|(key, ..)| ready.push(key, Readiness::GONE));
                    return Ok(());
                }
                Err(errno) => return Err(errno.into()),
                Ok(0) if sets.unread.highest().is_none() => return Ok(()),
                Ok(_) => {}
            }
            if self.report(watched, &mut sets, ready) {
                return Ok(());
            }
            // Select found only unread data that has no reader. Wait for the rest of the timeout.
            let spent = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
            let left = timeout.map(|timeout| timeout.saturating_sub(spent));
            if left == Some(Duration::ZERO) {
                return Ok(());
            }
            limit = Some(left.unwrap_or(HANG_UP_INTERVAL).min(HANG_UP_INTERVAL));
        }
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

impl SelectHub {
    /// Reports the findings of select, refined by poll(2), and returns whether there was a report. Puts descriptors
    /// that have unread data and only a writer into `unread`.
    fn report<'fd>(&mut self, watched: &'fd Watched, sets: &mut Sets<'fd>, ready: &mut Ready) -> bool {
        let mut fds: Vec<PollFd<'_>> = mem::take(&mut self.fds);
        for (_, fd, interest) in armed(watched).filter(|&(_, fd, _)| sets.concern(fd)) {
            fds.push(PollFd::from_borrowed_fd(fd, convert::flags(sets.found(fd, interest))));
        }
        // If the call fails, the answer of select stands.
        let _ = poll(&mut fds, Some(&Timespec::default()));
        let mut reported = false;
        for asked in &fds {
            let Some(key) = watched.key(asked.as_fd().as_raw_fd()) else { continue };
            let Some(fd) = watched.fd(key) else { continue };
            let found = sets.found(fd, watched.armed(key)) | convert::end(asked.revents());
            if found.is_empty() {
                sets.unread.insert(fd);
            } else {
                ready.push(key, found);
                reported = true;
            }
        }
        self.fds = emptied(fds);
        reported
    }
}

/// Returns the armed descriptors that a set can hold.
fn armed(watched: &Watched) -> impl Iterator<Item = (Key, BorrowedFd<'_>, Interest)> {
    watched.iter().take_while(|(key, ..)| fits(key.fd()))
}

/// The sets of one call of select.
#[derive(Default)]
struct Sets<'fd> {
    readers: FdSet<'fd>,
    writers: FdSet<'fd>,
    /// One more than the largest number in either set.
    above: RawFd,
    /// Whether `readers` holds a descriptor that has only a writer.
    borrows_readers: bool,
    /// The descriptors that have only a writer, and unread data or an unread end of data. Either hides a hang-up from
    /// select.
    unread: FdSet<'fd>,
}

impl<'fd> Sets<'fd> {
    /// Fills the sets with the armed descriptors. A hang-up may show in the set of readers only (quirk c), so
    /// descriptors with only a writer are in that set, too, unless they are known to have unread data.
    fn ask(&mut self, watched: &'fd Watched) {
        self.readers.clear();
        self.writers.clear();
        for (key, fd, interest) in armed(watched) {
            if interest.contains(Interest::WRITE) {
                self.writers.insert(fd);
            }
            if interest.contains(Interest::READ) {
                self.readers.insert(fd);
            } else if !self.unread.contains(fd) {
                self.readers.insert(fd);
                self.borrows_readers = true;
            }
            self.above = key.fd() + 1;
        }
    }

    fn select(&mut self, limit: Option<Duration>) -> nix::Result<i32> {
        let mut limit = limit.map(convert::limit);
        select(self.above, &mut self.readers, &mut self.writers, None, limit.as_mut())
    }

    /// Returns whether poll(2) has to look at `fd`.
    fn concern(&self, fd: BorrowedFd<'_>) -> bool {
        self.readers.contains(fd) || self.writers.contains(fd) || self.unread.contains(fd)
    }

    /// Returns the directions of `interest` that select has found ready.
    fn found(&self, fd: BorrowedFd<'_>, interest: Interest) -> Readiness {
        convert::readiness(self.readers.contains(fd), self.writers.contains(fd)) & interest.into()
    }
}

/// Returns whether a set can hold `fd`.
fn fits(fd: RawFd) -> bool {
    usize::try_from(fd).is_ok_and(|fd| fd < FD_SETSIZE)
}

/// Creates the error for a number that no set can hold.
fn too_large(fd: RawFd) -> io::Error {
    let message = format!(
        "select(2) takes descriptors below {FD_SETSIZE} (FD_SETSIZE), not {fd}; \
         keep fewer open, or choose a hub without that limit, such as \"poll\""
    );
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Clears `fds` and keeps its allocation under another lifetime: std collects an iterator over a `Vec` in place.
fn emptied(mut fds: Vec<PollFd<'_>>) -> Vec<PollFd<'static>> {
    fds.clear();
    fds.into_iter().map(|_| unreachable!("the vector is empty")).collect()
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

    #[test]
    fn the_error_for_a_large_number_names_the_number_the_limit_and_a_remedy() {
        let error = too_large(1500).to_string();
        assert!(error.contains("not 1500") && error.contains("below 1024") && error.contains("\"poll\""), "{error}");
    }
}
