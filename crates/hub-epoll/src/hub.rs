//! The hub over one epoll set.

use std::env;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use hub_core::hub::{ForkAware, Hub, Interest, Key, Lease, Readiness, Ready, Rearm, Watched, round};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::convert;

/// The canonical name of the hub.
pub(crate) const NAME: &str = "epoll";

/// How many events one system call returns at most. Further events are not lost: the next call returns them.
///
/// The greenlets that one batch wakes should find in the cache what the loop has fetched for them.
const BATCH: usize = 64;

/// How descriptors that are lent for life are registered.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Trigger {
    /// Level-triggered: unread data is reported again, so a reader needs no probing read.
    #[default]
    Level,
    /// Edge-triggered: each arrival is reported once.
    Edge,
}

/// The system calls and flags of a hub, for tests and measurements.
///
/// ```
/// use hub_epoll::{EpollHub, Paths, Trigger};
/// let edge = Paths { trigger: Trigger::Edge, ..Paths::default() };
/// hub_core::use_hub_with(move || EpollHub::with(edge))?;
/// # Ok::<(), hub_core::HubError>(())
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    /// How descriptors that are lent for life are registered.
    pub trigger: Trigger,
    /// Whether to try `epoll_pwait2`, which counts nanoseconds.
    pub precise_wait: bool,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { trigger: Trigger::default(), precise_wait: true }
    }
}

impl Paths {
    const VARIABLE: &str = "GREENHUB_EPOLL";

    /// Reads the paths that `GREENHUB_EPOLL` forces.
    pub(crate) fn from_env() -> io::Result<Paths> {
        match env::var_os(Self::VARIABLE) {
            None => Ok(Paths::default()),
            Some(value) => Self::parse(&value.to_string_lossy()),
        }
    }

    fn parse(value: &str) -> io::Result<Paths> {
        let mut paths = Paths::default();
        for path in value.split(',').filter(|path| !path.is_empty()) {
            match path {
                "edge" => paths.trigger = Trigger::Edge,
                "millis" => paths.precise_wait = false,
                other => {
                    let message = format!("{}={value:?}: {other:?} is neither \"edge\" nor \"millis\"", Self::VARIABLE);
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                }
            }
        }
        Ok(paths)
    }
}

/// How a number is registered with the epoll set.
#[derive(Copy, Clone, PartialEq, Eq, Default)]
enum Registered {
    /// Not registered.
    #[default]
    Not,
    /// Edge-triggered.
    Edge,
    /// Level-triggered, for these directions.
    Level(Interest),
}

/// A hub over one epoll set.
///
/// ```
/// hub_core::use_hub_with(hub_epoll::EpollHub::new)?;
/// hub_core::sleep(std::time::Duration::from_millis(1)); // in epoll_pwait2
/// assert_eq!(hub_core::get_hub().name(), "epoll");
/// # Ok::<(), hub_core::HubError>(())
/// ```
pub struct EpollHub {
    set: ForkAware<Set>,
    paths: Paths,
    /// Indexed by number. An entry is stale if the system dropped the registration with the file (quirk a).
    registered: Vec<Registered>,
    /// The events of the last wait. The allocation is reused.
    events: Vec<Event>,
    /// The buffer of the wait in milliseconds. It is empty until that wait is used.
    coarse: Vec<EpollEvent>,
}

impl EpollHub {
    /// Creates a hub that uses the best system calls available.
    ///
    /// # Errors
    ///
    /// Returns the error of `epoll_create1`, usually too many open files.
    pub fn new() -> io::Result<EpollHub> {
        EpollHub::with(Paths::default())
    }

    /// Creates a hub that uses the given paths.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`new`](EpollHub::new).
    pub fn with(paths: Paths) -> io::Result<EpollHub> {
        Ok(EpollHub {
            set: create()?,
            paths,
            registered: Vec::new(),
            events: Vec::with_capacity(BATCH),
            coarse: Vec::new(),
        })
    }
}

impl Hub for EpollHub {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rearm(&self) -> Rearm {
        match self.paths.trigger {
            Trigger::Level => Rearm::Level,
            Trigger::Edge => Rearm::Automatic,
        }
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        let (flags, registered) = match (lease, self.paths.trigger) {
            (Lease::Life, Trigger::Level) => (convert::flags(interest), Registered::Level(interest)),
            _ => (convert::flags(interest) | EventFlags::ET, Registered::Edge),
        };
        let data = EventData::new_u64(key.to_u64());
        let set = &self.set.0.0;
        let number = key.fd() as usize;
        if number >= self.registered.len() {
            self.registered.resize(number + 1, Registered::Not);
        }
        let result = if self.registered[number] == Registered::Not {
            match epoll::add(set, fd, data, flags) {
                Err(Errno::EXIST) => epoll::modify(set, fd, data, flags),
                other => other,
            }
        } else {
            match epoll::modify(set, fd, data, flags) {
                Err(Errno::NOENT) => epoll::add(set, fd, data, flags),
                other => other,
            }
        };
        self.registered[number] = if result.is_ok() { registered } else { Registered::Not };
        Ok(result?)
    }

    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        if let Some(fd) = fd {
            // Fails only if the system has dropped the registration already.
            let _ = epoll::delete(&self.set.0.0, fd);
        }
        if let Some(entry) = self.registered.get_mut(key.fd() as usize) {
            *entry = Registered::Not;
        }
    }

    fn wait(&mut self, watched: &Watched, mut timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        // No event is dropped twice (quirk d), so this ends.
        while self.wait_once(watched, timeout, ready)? {
            timeout = Some(Duration::ZERO);
        }
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        self.set = create()?;
        self.registered.clear();
        self.events.clear();
        Ok(())
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.set.as_fd())
    }
}

impl fmt::Debug for EpollHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollHub").field("set", &self.set.0.0).field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl EpollHub {
    /// Waits by one system call. Returns whether the caller has to look again: a full batch of dropped events may hide
    /// others, and an interrupted look would leave reports behind (clause 17).
    fn wait_once(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<bool> {
        self.events.clear();
        match self.sleep(timeout) {
            Err(Errno::INTR) => return Ok(timeout == Some(Duration::ZERO)),
            other => other?,
        }
        let mut is_dropped = self.events.len() >= BATCH;
        for event in &self.events {
            let key = Key::from_u64(event.data.u64());
            let found = convert::readiness(event.flags);
            match self.registered.get_mut(key.fd() as usize) {
                // The registration has no direction left. Hang-ups cannot be masked and arrive once more (quirk d).
                Some(Registered::Level(Interest::NONE)) => continue,
                Some(Registered::Level(asked)) => *asked = disarm(&self.set.0.0, watched, key, *asked, found),
                _ => {}
            }
            is_dropped = false;
            ready.push(key, found);
        }
        Ok(is_dropped)
    }

    /// Waits, and fills `events`.
    fn sleep(&mut self, timeout: Option<Duration>) -> Result<(), Errno> {
        if self.paths.precise_wait {
            let limit = timeout.map(round::nanos).map(|(secs, nanos)| Timespec { tv_sec: secs, tv_nsec: nanos.into() });
            match epoll::wait(&self.set.0.0, spare_capacity(&mut self.events), limit.as_ref()) {
                Err(Errno::NOSYS | Errno::PERM) => self.paths.precise_wait = false,
                other => return other.map(drop),
            }
        }
        self.coarse.resize(BATCH, EpollEvent::empty());
        let limit = EpollTimeout::try_from(round::millis(timeout)).unwrap_or(EpollTimeout::MAX);
        let count = self.set.0.wait(&mut self.coarse, limit).map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
        self.events.extend(self.coarse[..count].iter().map(|event| Event {
            flags: EventFlags::from_bits_retain(event.events().bits() as u32),
            data: EventData::new_u64(event.data()),
        }));
        Ok(())
    }
}

/// The epoll set, in the form that [`ForkAware`] takes.
#[derive(Debug)]
struct Set(Epoll);

impl AsFd for Set {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

fn create() -> io::Result<ForkAware<Set>> {
    ForkAware::new(Set(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
}

/// Removes the directions of `found` that have no waiter from a level-triggered registration for `asked` (quirks c, d).
/// Returns the remaining directions.
fn disarm(set: &OwnedFd, watched: &Watched, key: Key, asked: Interest, found: Readiness) -> Interest {
    let left = asked.without(found.directions().without(watched.armed(key)));
    let Some(fd) = watched.fd(key).filter(|_| left != asked) else { return asked };
    let flags = if left.is_empty() { EventFlags::ET } else { convert::flags(left) };
    match epoll::modify(set, fd, EventData::new_u64(key.to_u64()), flags) {
        Ok(()) => left,
        Err(_) => asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_forces_paths_and_an_error_lists_them() {
        assert_eq!(Paths::parse("").unwrap(), Paths::default());
        assert_eq!(Paths::parse("edge,millis").unwrap(), Paths { trigger: Trigger::Edge, precise_wait: false });
        let error = Paths::parse("edgy").unwrap_err().to_string();
        assert_eq!(error, "GREENHUB_EPOLL=\"edgy\": \"edgy\" is neither \"edge\" nor \"millis\"");
    }
}
