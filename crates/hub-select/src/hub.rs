//! The hub over select(2).

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use hub_core::{Hub, Interest, Key, Lease, Readiness, Ready, Rearm, Watched};
use nix::errno::Errno;
use nix::sys::select::{FD_SETSIZE, FdSet, select};
use rustix::event::{PollFd, Timespec, poll};
use rustix::io::fcntl_getfd;

use crate::convert;

/// The canonical name.
pub(crate) const NAME: &str = "select";

/// How late a writer may hear of a hang-up that unread data hides (quirk c).
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
            // There was unread data that is not waited for, and nothing else.
            let spent = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
            let left = timeout.map(|timeout| timeout.saturating_sub(spent));
            if left == Some(Duration::ZERO) {
                return Ok(());
            }
            limit = Some(left.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN));
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
    /// Reports what select has found, with what poll(2) adds to it; whether that was anything. Descriptors that are
    /// readable and only written to are put into `unread`.
    fn report<'fd>(&mut self, watched: &'fd Watched, sets: &mut Sets<'fd>, ready: &mut Ready) -> bool {
        let mut fds: Vec<PollFd<'_>> = mem::take(&mut self.fds);
        for (_, fd, interest) in armed(watched).filter(|&(_, fd, _)| sets.concern(fd)) {
            fds.push(PollFd::from_borrowed_fd(fd, convert::flags(sets.found(fd, interest))));
        }
        // If it fails, the answer of select stands.
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

/// The armed descriptors that a set can hold.
fn armed(watched: &Watched) -> impl Iterator<Item = (Key, BorrowedFd<'_>, Interest)> {
    watched.iter().take_while(|(key, ..)| fits(key.fd()))
}

/// The sets of one call of select.
#[derive(Default)]
struct Sets<'fd> {
    readers: FdSet<'fd>,
    writers: FdSet<'fd>,
    /// One more than the largest number in either.
    above: RawFd,
    /// Whether a descriptor is in `readers` that is not waited for there.
    borrows_readers: bool,
    /// Descriptors that are only written to and have unread data or its end, which hides their hang-up from select.
    unread: FdSet<'fd>,
}

impl<'fd> Sets<'fd> {
    /// Asks about everything that is armed. A hang-up may show in the set of readers alone (quirk c), so writers are
    /// there, too, unless they are known to have unread data.
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

    /// Whether poll(2) has to look at `fd`.
    fn concern(&self, fd: BorrowedFd<'_>) -> bool {
        self.readers.contains(fd) || self.writers.contains(fd) || self.unread.contains(fd)
    }

    /// The part of what was asked for that select has found.
    fn found(&self, fd: BorrowedFd<'_>, interest: Interest) -> Readiness {
        convert::readiness(self.readers.contains(fd), self.writers.contains(fd)) & interest.into()
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
