//! Numbers that distinguish the loops with the same hub and the same name of the OS thread.
//!
//! A recorder keeps each series for good. The number of an ended loop is therefore given to the next one, so the
//! program has no more series than it had loops at one time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::fork::PerProcess;

/// The number of a loop, given back when dropped.
pub(super) struct Slot {
    hub: &'static str,
    thread: String,
    number: u32,
}

/// The slots in use, in no order: hub, name of the OS thread, number. A forked child begins with none.
type Slots = Vec<(&'static str, String, u32)>;

static SLOTS: PerProcess<Mutex<Slots>> = PerProcess::new();

fn lock(slots: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    /// Takes the smallest number that no living loop with the same names has.
    pub(super) fn take(hub: &'static str, thread: &str) -> Slot {
        // Without a table, which only a system without memory refuses, loops share their series.
        let number = SLOTS.get_or_make(Mutex::default).map_or(0, |slots| {
            let mut slots = lock(slots);
            let is_used = |number| slots.iter().any(|used| (used.0, &*used.1, used.2) == (hub, thread, number));
            let number = (0..).find(|number| !is_used(*number)).unwrap_or(u32::MAX);
            slots.push((hub, thread.to_owned(), number));
            number
        });
        Slot { hub, thread: thread.to_owned(), number }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(slots) = SLOTS.get() else { return };
        let mut slots = lock(slots);
        let this = (self.hub, &*self.thread, self.number);
        let found = slots.iter().position(|used| (used.0, &*used.1, used.2) == this);
        found.map(|index| slots.swap_remove(index));
    }
}
