//! The callbacks of one loop, by number.
//!
//! Timers and descriptor slots know a callback by its number alone, and drop the number before it is given to another
//! callback. A handle may outlive its callback, so the handle knows the serial number too.

use std::os::fd::{AsFd, RawFd};
use std::rc::Rc;
use std::task::Waker;

use super::listener::{Listener, Timer};
use super::origin::Origin;
use super::waker_table;
use crate::greenlet::exit::drop_contained;
use crate::hub::{Interest, Key};
use crate::timer_queue::TimerId;

/// A registered callback.
pub(crate) enum Callback {
    Listener {
        key: Key,
        interest: Interest,
        listener: Rc<dyn Listener>,
        origin: Origin,
        /// Keeps the descriptor open. The number is not read from it again.
        fd: Rc<dyn AsFd>,
    },
    Timer {
        timer: Rc<dyn Timer>,
        origin: Origin,
        /// The armed timer, or `None` for a callback that is due.
        armed: Option<TimerId>,
    },
    /// The descriptor of this listener was closed; the main loop has to notify the listener.
    Closed { listener: CallbackId, fd: RawFd },
    /// The waker of a future; the main loop has to wake it.
    Wake(Waker),
}

impl Callback {
    /// Drops a callback that will not run. A waker is woken in any case: its future has to look again.
    pub(crate) fn discard(self) {
        match self {
            Callback::Wake(waker) => waker_table::wake(waker),
            callback => drop_contained(callback),
        }
    }
}

/// Identifies one registration forever.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct CallbackId {
    number: u32,
    serial: u64,
}

impl CallbackId {
    /// Returns the number by which timers and slots know the callback while it exists.
    pub(crate) fn number(self) -> u32 {
        self.number
    }
}

/// The table of callbacks.
#[derive(Default)]
pub(crate) struct Callbacks {
    entries: slab::Slab<(u64, Callback)>,
    serial: u64,
}

impl Callbacks {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn insert(&mut self, callback: Callback) -> CallbackId {
        self.serial += 1;
        let number = self.entries.insert((self.serial, callback)) as u32;
        CallbackId { number, serial: self.serial }
    }

    /// Returns the id of the callback that has the number now.
    pub(crate) fn id(&self, number: u32) -> Option<CallbackId> {
        self.entries.get(number as usize).map(|&(serial, _)| CallbackId { number, serial })
    }

    pub(crate) fn get(&self, id: CallbackId) -> Option<&Callback> {
        self.entries.get(id.number as usize).filter(|(serial, _)| *serial == id.serial).map(|(_, callback)| callback)
    }

    pub(crate) fn get_mut(&mut self, id: CallbackId) -> Option<&mut Callback> {
        let entry = self.entries.get_mut(id.number as usize);
        entry.filter(|(serial, _)| *serial == id.serial).map(|(_, callback)| callback)
    }

    pub(crate) fn remove(&mut self, id: CallbackId) -> Option<Callback> {
        self.get(id)?;
        Some(self.entries.remove(id.number as usize).1)
    }

    /// Returns the ids of the timer callbacks that are due and have not run.
    pub(crate) fn immediate(&self) -> impl Iterator<Item = CallbackId> {
        self.entries.iter().filter_map(|(number, (serial, callback))| {
            matches!(callback, Callback::Timer { armed: None, .. })
                .then_some(CallbackId { number: number as u32, serial: *serial })
        })
    }

    /// Empties the table; earlier ids identify nothing afterwards.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Callback> + use<> {
        std::mem::take(&mut self.entries).into_iter().map(|(_, (_, callback))| callback)
    }
}
