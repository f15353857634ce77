//! The callbacks of one loop, by number.
//!
//! Timers and descriptor slots know a callback by its number alone, and drop the number before it is given to another
//! callback. A handle may outlive its callback, so the handle knows the serial number too.

use std::any::Any;
use std::os::fd::{AsFd, RawFd};
use std::rc::Rc;
use std::task::Waker;

use super::descriptors::Owner;
use super::listener::{Listener, Timer};
use super::origin::Origin;
use super::waker_table;
use crate::greenlet::exit::drop_contained;
use crate::greenlet::target::Target;
use crate::hub::{Interest, Key};
use crate::timer_queue::TimerId;

/// A registered callback.
pub(crate) enum Callback {
    Listener {
        key: Key,
        interest: Interest,
        listener: Rc<dyn Listener>,
        origin: Origin,
        /// Whether it keeps the loop alive.
        is_counted: bool,
        /// The owner of the number: the loop's own wake-up descriptor is lent for life.
        owner: Owner,
        /// Keeps the descriptor open. The number is not read from it again.
        fd: Rc<dyn AsFd>,
    },
    Timer {
        timer: Rc<dyn Timer>,
        origin: Origin,
        /// Whether it keeps the loop alive.
        is_counted: bool,
        /// The armed timer, or `None` for a callback that is due.
        armed: Option<TimerId>,
    },
    /// The descriptor of this listener was closed; the main loop has to notify the listener.
    Closed { listener: CallbackId, fd: RawFd },
    /// The waker of a future; the main loop has to wake it.
    Wake(Waker),
    /// A closure of a hub that is gone. It is only dropped.
    Leftover { _closure: Box<dyn Any> },
}

impl Callback {
    fn uncounted(&self) -> Uncounted {
        match self {
            Callback::Listener { is_counted: false, .. } => Uncounted { listeners: 1, timers: 0 },
            Callback::Timer { is_counted: false, armed: Some(_), .. } => Uncounted { listeners: 0, timers: 1 },
            _ => Uncounted::default(),
        }
    }

    /// Drops a callback that will not run. A waker is woken in any case: its future has to look again.
    pub(crate) fn discard(self) {
        match self {
            Callback::Wake(waker) => waker_table::wake(waker),
            callback => drop_contained(callback),
        }
    }
}

/// The share of a callback in the numbers of uncounted ones.
#[derive(Copy, Clone, Default)]
struct Uncounted {
    listeners: usize,
    timers: usize,
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
    /// The number of listeners that do not keep the loop alive.
    uncounted_listeners: usize,
    /// The number of callbacks with an armed timer that do not keep the loop alive.
    uncounted_timers: usize,
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

    /// Returns the listeners that do not keep the loop alive.
    pub(crate) fn uncounted_listeners(&self) -> usize {
        self.uncounted_listeners
    }

    /// Returns the number of armed timers of callbacks that do not keep the loop alive.
    pub(crate) fn uncounted_timers(&self) -> usize {
        self.uncounted_timers
    }

    /// Returns whether a callback keeps the loop alive.
    pub(crate) fn is_counted(&self, id: CallbackId) -> bool {
        match self.get(id) {
            Some(Callback::Listener { is_counted, .. } | Callback::Timer { is_counted, .. }) => *is_counted,
            _ => true,
        }
    }

    /// Sets whether a callback keeps the loop alive.
    pub(crate) fn set_counted(&mut self, id: CallbackId, counted: bool) {
        self.change(id, |callback| match callback {
            Callback::Listener { is_counted, .. } | Callback::Timer { is_counted, .. } => *is_counted = counted,
            _ => {}
        });
    }

    /// Sets the key under which a listener is registered.
    pub(super) fn set_key(&mut self, id: CallbackId, key: Key) {
        if let Some(Callback::Listener { key: known, .. }) = self.get_mut(id) {
            *known = key;
        }
    }

    /// Returns the descriptor of a listener, `None` for other targets.
    pub(super) fn descriptor_of(&self, target: Target) -> Option<Rc<dyn AsFd>> {
        let Target::Call(number) = target else { return None };
        match self.get(self.id(number)?) {
            Some(Callback::Listener { fd, .. }) => Some(Rc::clone(fd)),
            _ => None,
        }
    }

    /// Sets the armed timer of a callback.
    pub(crate) fn set_armed(&mut self, id: CallbackId, timer: Option<TimerId>) {
        self.change(id, |callback| {
            if let Callback::Timer { armed, .. } = callback {
                *armed = timer;
            }
        });
    }

    /// Changes a callback, and the numbers of uncounted ones with it.
    fn change(&mut self, id: CallbackId, change: impl FnOnce(&mut Callback)) {
        let Some(callback) = self.get_mut(id) else { return };
        let before = callback.uncounted();
        change(callback);
        let after = callback.uncounted();
        self.adjust(before, after);
    }

    fn adjust(&mut self, before: Uncounted, after: Uncounted) {
        self.uncounted_listeners = self.uncounted_listeners + after.listeners - before.listeners;
        self.uncounted_timers = self.uncounted_timers + after.timers - before.timers;
    }

    pub(crate) fn get_mut(&mut self, id: CallbackId) -> Option<&mut Callback> {
        let entry = self.entries.get_mut(id.number as usize);
        entry.filter(|(serial, _)| *serial == id.serial).map(|(_, callback)| callback)
    }

    pub(crate) fn remove(&mut self, id: CallbackId) -> Option<Callback> {
        self.get(id)?;
        let (_, callback) = self.entries.remove(id.number as usize);
        self.adjust(callback.uncounted(), Uncounted::default());
        Some(callback)
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
        (self.uncounted_listeners, self.uncounted_timers) = (0, 0);
        std::mem::take(&mut self.entries).into_iter().map(|(_, (_, callback))| callback)
    }
}
