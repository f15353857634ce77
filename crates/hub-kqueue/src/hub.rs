//! The hub over one kernel queue.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use hub_core::{Hub, Interest, Key, Lease, Ready, Rearm, Watched, round};

use crate::convert::{self, Event};
use crate::sys;

/// The canonical name.
pub(crate) const NAME: &str = "kqueue";

/// Events that one call of the system hands over. More cost a second call, not a report.
const BATCH: usize = 256;

/// The two calls of the system. Tests bring others.
pub trait Kevent {
    /// `kqueue`: a new queue, closed when another program is executed.
    ///
    /// # Errors
    ///
    /// What the system says: mostly too many open files.
    fn kqueue(&mut self) -> io::Result<OwnedFd>;

    /// `kevent`: makes `changes`, then fills `events` from the beginning and says how many there are: the
    /// answers to the changes in their order, else what has happened within `timeout` (seconds and
    /// nanoseconds; `None`: no limit).
    ///
    /// # Errors
    ///
    /// What the system says of the call as a whole. What it says of one change is its answer.
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
    /// None only in a child that could not make one.
    queue: Option<OwnedFd>,
    /// What is watched, by number; only a guess where the system forgot a closed number by itself (quirk a).
    asked: Vec<Interest>,
    /// What the next call submits; kept for its room.
    changes: Vec<Event>,
    /// Room for what a call reports.
    events: Vec<Event>,
}

impl KqueueHub {
    /// A hub over the calls of this system.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) where it has none; what `kqueue` says: mostly too many open files.
    pub fn new() -> io::Result<KqueueHub> {
        KqueueHub::with(sys::calls()?)
    }

    /// A hub over the given calls.
    ///
    /// # Errors
    ///
    /// What [`kqueue`](Kevent::kqueue) says.
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
            // A pipe that nobody reads any more (quirk g).
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.announce_hang_up(key),
            other => other,
        };
        match &result {
            Ok(()) => self.asked[number] = interest,
            // What was added before the error, and what may have been there before.
            Err(_) => drop(self.change(key, Interest::BOTH, Interest::NONE)),
        }
        result
    }

    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        let Some(asked) = self.asked.get_mut(key.fd() as usize) else { return };
        let asked = std::mem::take(asked);
        if fd.is_some() && !asked.is_empty() {
            // Refused only if the system let go of it already.
            let _ = self.change(key, asked, Interest::NONE);
        }
    }

    fn wait(&mut self, _watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        let timeout = timeout.map(round::nanos);
        let count = match self.system.kevent(borrowed(&self.queue)?, &[], &mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        for event in &self.events[..count] {
            match self.asked.get(event.number as usize) {
                // The timer of a number that was forgotten (quirk g).
                None | Some(&Interest::NONE) => {}
                Some(&asked) => ready.push(event.key(), convert::readiness(event, asked)),
            }
        }
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        if let Some(queue) = self.queue.take() {
            // Its number is not open here, or it is something else (quirk j).
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
    /// Replaces the filters for `old` by those for `new` (quirk b).
    fn change(&mut self, key: Key, old: Interest, new: Interest) -> io::Result<()> {
        self.changes.clear();
        self.changes.extend(convert::filters(old).map(|filter| Event::delete(key.fd(), filter)));
        self.changes.extend(convert::filters(new).map(|filter| Event::add(key, filter)));
        self.submit()
    }

    /// Has the queue itself report a hang-up (quirk g).
    fn announce_hang_up(&mut self, key: Key) -> io::Result<()> {
        self.changes.clear();
        self.changes.push(Event::hang_up(key));
        self.submit()
    }

    /// Submits `changes`. The error is that of the first that was refused; the others are made nevertheless.
    fn submit(&mut self) -> io::Result<()> {
        let answers = &mut self.events[..self.changes.len()];
        let count = loop {
            match self.system.kevent(borrowed(&self.queue)?, &self.changes, answers, Some((0, 0))) {
                // Made or not: a change may be made twice.
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
