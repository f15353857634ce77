//! The hub over one event base of libevent.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use hub_core::hub::{Hub, Interest, Key, Lease, Readiness, Ready, Rearm, Watched};
use rustix::event::{PollFd, Timespec, poll};

use crate::base::Base;
use crate::convert;

/// The canonical name of the hub.
pub(crate) const NAME: &str = "libevent";

/// How a number is registered with the base.
#[derive(Copy, Clone)]
struct Registered {
    key: Key,
    /// The registered directions. Empty if the number is not registered.
    asked: Interest,
    lease: Lease,
}

/// A hub over one event base of libevent.
///
/// ```
/// hub_core::use_hub_with(hub_libevent::LibeventHub::new)?;
/// hub_core::sleep(std::time::Duration::from_millis(1)); // in event_base_loop
/// assert_eq!(hub_core::get_hub().name(), "libevent");
/// # Ok::<(), hub_core::HubError>(())
/// ```
pub struct LibeventHub {
    base: Base,
    /// Indexed by number.
    registered: Vec<Registered>,
    /// The keys of the descriptors that the last wait polled. The allocation is reused.
    keys: Vec<Key>,
    /// The polled descriptors, parallel to `keys`. Between waits it is empty, so it borrows no descriptor.
    fds: Vec<PollFd<'static>>,
}

impl LibeventHub {
    /// Creates a hub with an event base of its own.
    ///
    /// # Errors
    ///
    /// Returns an error if too many files are open, if memory is exhausted, or if libevent supports neither epoll nor
    /// kqueue.
    pub fn new() -> io::Result<LibeventHub> {
        Ok(LibeventHub { base: Base::new()?, registered: Vec::new(), keys: Vec::new(), fds: Vec::new() })
    }
}

impl Hub for LibeventHub {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rearm(&self) -> Rearm {
        Rearm::Level
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        let number = key.fd() as usize;
        while number >= self.registered.len() {
            let key = Key::new(self.registered.len() as i32, 0);
            self.registered.push(Registered { key, asked: Interest::NONE, lease });
        }
        let known = &mut self.registered[number];
        // A level-triggered registration of the same file stays: each turn of libevent's loop looks at it again.
        let stays = lease == Lease::Life && known.lease == lease && known.key == key;
        let kept = if stays { known.asked & interest } else { Interest::NONE };
        self.base.remove(key.fd(), known.asked.without(kept));
        *known = Registered { key, asked: interest, lease };
        for direction in [Interest::READ, Interest::WRITE] {
            if interest.without(kept).contains(direction)
                && let Err(error) = self.base.add(fd, direction, lease)
            {
                self.forget(key, None);
                return Err(error);
            }
        }
        Ok(())
    }

    fn forget(&mut self, key: Key, _fd: Option<BorrowedFd<'_>>) {
        if let Some(known) = self.registered.get_mut(key.fd() as usize) {
            known.asked = Interest::NONE;
            self.base.remove(key.fd(), Interest::BOTH);
        }
    }

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        self.base.run(timeout)?;
        let mut fds: Vec<PollFd<'_>> = mem::take(&mut self.fds);
        self.keys.clear();
        for &number in self.base.found() {
            let Some(known) = self.registered.get_mut(number as usize) else { continue };
            if let Some(fd) = watched.fd(known.key) {
                self.keys.push(known.key);
                fds.push(PollFd::from_borrowed_fd(fd, convert::poll_flags(known.asked)));
            } else {
                // The descriptor was lent for one wait, and that wait is over.
                self.base.remove(number, known.asked);
                known.asked = Interest::NONE;
            }
        }
        let looked = fds.is_empty() || poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok();
        for (&key, fd) in self.keys.iter().zip(&fds) {
            let known = &mut self.registered[key.fd() as usize];
            // If poll fails, report the registered directions: the waiters' own system calls find the state.
            let found = if looked { convert::readiness(fd.revents()) } else { Readiness::from(known.asked) };
            if found.is_empty() {
                continue;
            }
            let armed = if known.lease == Lease::Life { watched.armed(key) } else { Interest::NONE };
            let over = known.asked & found.directions().without(armed);
            if !over.is_empty() {
                self.base.remove(key.fd(), over);
                known.asked = known.asked.without(over);
            }
            ready.push(key, found);
        }
        // Keep the allocation under another lifetime: std collects an iterator over a `Vec` in place.
        fds.clear();
        self.fds = fds.into_iter().map(|_| unreachable!()).collect();
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        let copied = mem::replace(&mut self.base, Base::new()?);
        copied.abandon();
        self.registered.clear();
        Ok(())
    }
}

impl fmt::Debug for LibeventHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibeventHub").field("base", &self.base).finish_non_exhaustive()
    }
}
