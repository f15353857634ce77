//! The hub over one kernel queue.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use hub_core::hub::{Hub, Interest, Key, Lease, Ready, Rearm, Watched, round};

use crate::convert::{self, Event};
use crate::sys;

/// The canonical name of the hub.
pub(crate) const NAME: &str = "kqueue";

/// The maximum number of events that one system call returns. The next call returns further events.
const BATCH: usize = 256;

/// The two system calls of the hub. Tests provide other implementations.
pub trait Kevent {
    /// Creates a queue by `kqueue`. Its descriptor is close-on-exec.
    ///
    /// # Errors
    ///
    /// Returns the error of the system, usually too many open files.
    fn kqueue(&mut self) -> io::Result<OwnedFd>;

    /// Submits `changes` and receives `events` by `kevent`.
    ///
    /// Fills `events` from the beginning and returns their number. With changes, the events are the answers to the
    /// changes, in their order. Without changes, the events are those that occur within `timeout`, in seconds and
    /// nanoseconds. `None` waits without a limit.
    ///
    /// # Errors
    ///
    /// Returns the error of the call as a whole. The error of a single change is in its answer.
    fn kevent(
        &mut self,
        queue: BorrowedFd<'_>,
        changes: &[Event],
        events: &mut [Event],
        timeout: Option<(i64, i32)>,
    ) -> io::Result<usize>;
}

/// A hub over one kernel queue.
pub struct KqueueHub {
    system: Box<dyn Kevent>,
    /// `None` only in a forked child that failed to create a queue.
    queue: Option<OwnedFd>,
    /// The watched directions, indexed by number. An entry is stale if the system dropped the registration when the
    /// number was closed (quirk a).
    asked: Vec<Interest>,
    /// The changes of the next call. The allocation is reused.
    changes: Vec<Event>,
    /// The buffer for events and answers.
    events: Vec<Event>,
}

impl KqueueHub {
    /// Creates a hub over the calls of this system.
    ///
    /// # Errors
    ///
    /// Returns [`Unsupported`](io::ErrorKind::Unsupported) on a system without kqueue, or the error of `kqueue`,
    /// usually too many open files.
    pub fn new() -> io::Result<KqueueHub> {
        KqueueHub::with(sys::calls()?)
    }

    /// Creates a hub over the given calls.
    ///
    /// # Errors
    ///
    /// Returns the error of [`kqueue`](Kevent::kqueue).
    pub fn with(mut system: Box<dyn Kevent>) -> io::Result<KqueueHub> {
        let queue = Some(system.kqueue()?);
        Ok(KqueueHub { system, queue, asked: Vec::new(), changes: Vec::new(), events: vec![Event::NONE; BATCH] })
    }
}

impl Hub for KqueueHub {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rearm(&self) -> Rearm {
        Rearm::Automatic
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, _lease: Lease) -> io::Result<()> {
        let number = key.fd() as usize;
        if number >= self.asked.len() {
            self.asked.resize(number + 1, Interest::NONE);
        }
        let asked = std::mem::replace(&mut self.asked[number], Interest::NONE);
        convert::must_be_waitable(fd)?;
        let result = match self.change(key, asked, interest) {
            // A pipe without a reader (quirk g).
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.report_hang_up(key),
            other => other,
        };
        match &result {
            Ok(()) => self.asked[number] = interest,
            // Remove the filters that were added before the error, and possible earlier ones.
            Err(_) => drop(self.change(key, Interest::BOTH, Interest::NONE)),
        }
        result
    }

    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        let Some(asked) = self.asked.get_mut(key.fd() as usize) else { return };
        let asked = std::mem::take(asked);
        if fd.is_some() && !asked.is_empty() {
            // Fails only if the system has dropped the registration already.
            let _ = self.change(key, asked, Interest::NONE);
        }
    }

    fn wait(&mut self, _watched: &Watched, mut timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        // No event is dropped twice (quirk g), so this ends.
        while self.wait_once(timeout, ready)? {
            timeout = Some(Duration::ZERO);
        }
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        if let Some(queue) = self.queue.take() {
            // In the child the number is not open, or belongs to another file (quirk j). Do not close it.
            let _ = queue.into_raw_fd();
        }
        self.asked.clear();
        self.queue = Some(self.system.kqueue()?);
        Ok(())
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.queue.as_ref().map(AsFd::as_fd)
    }
}

impl fmt::Debug for KqueueHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KqueueHub").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl KqueueHub {
    /// Waits by one system call. Returns whether the caller has to look again: a full batch of dropped events may hide
    /// others, and an interrupted look would leave reports behind (clause 17).
    fn wait_once(&mut self, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<bool> {
        let limit = timeout.map(round::nanos);
        let count = match self.system.kevent(borrowed(&self.queue)?, &[], &mut self.events, limit) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(timeout == Some(Duration::ZERO)),
            other => other?,
        };
        let mut is_dropped = count == self.events.len();
        for event in &self.events[..count] {
            match self.asked.get(event.number as usize) {
                // The timer of a forgotten number (quirk g).
                None | Some(&Interest::NONE) => {}
                Some(&asked) => {
                    is_dropped = false;
                    ready.push(event.key(), convert::readiness(event, asked));
                }
            }
        }
        Ok(is_dropped)
    }

    /// Replaces the filters for `old` with those for `new` (quirk b).
    fn change(&mut self, key: Key, old: Interest, new: Interest) -> io::Result<()> {
        self.changes.clear();
        self.changes.extend(convert::filters(old).map(|filter| Event::delete(key.fd(), filter)));
        self.changes.extend(convert::filters(new).map(|filter| Event::add(key, filter)));
        self.submit()
    }

    /// Makes a timer of the queue report a hang-up (quirk g).
    fn report_hang_up(&mut self, key: Key) -> io::Result<()> {
        self.changes.clear();
        self.changes.push(Event::hang_up(key));
        self.submit()
    }

    /// Submits `changes`. Returns the error of the first refused change; the other changes take effect.
    fn submit(&mut self) -> io::Result<()> {
        let answers = &mut self.events[..self.changes.len()];
        let count = loop {
            match self.system.kevent(borrowed(&self.queue)?, &self.changes, answers, Some((0, 0))) {
                // The changes may have taken effect or not. Submitting them twice is harmless.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if count < answers.len() {
            return Err(io::Error::other("kevent left a change without an answer"));
        }
        self.changes.iter().zip(answers).try_for_each(|(change, answer)| convert::verdict(change, answer))?;
        Ok(())
    }
}

fn borrowed(queue: &Option<OwnedFd>) -> io::Result<BorrowedFd<'_>> {
    queue.as_ref().map(AsFd::as_fd).ok_or_else(|| io::Error::other("this process could not make a queue of its own"))
}
