//! The phases of a turn, and the hooks that the program has set there.
//!
//! Ground rules:
//! - A hook is foreign code. It leaves this table before it is dropped, and a clone of it is called.
//! - A turn without hooks reads one cell.
//! - The hooks of a phase are called in the order in which they were set. A hook that is set meanwhile waits for the
//!   next time. A hook that is removed meanwhile is not called.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::rc::Rc;

/// A point in a turn of the main loop at which [hooks](crate::HubRef::hook) are called.
///
/// All are on the main loop, between two waits of the hub, in the order of this list.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Phase {
    /// In a forked child, once, when the hub was reset and all descriptors are registered again. libev's `ev_fork`.
    Fork,
    /// After mail: a message or a notice of another OS thread was carried out. libev's `ev_async`.
    Notice,
    /// After a wait of the hub: its reports were delivered, the timers that it made due have fired, and the green
    /// threads that were ready have run. libev's `ev_check`.
    Check,
    /// After a wait that reported nothing, if no green thread has run since and nothing is due. libev's `ev_idle`.
    ///
    /// A loop with such a hook does not sleep.
    Idle,
    /// Before the next wait of the hub. libev's `ev_prepare`.
    Prepare,
}

impl Phase {
    const ALL: [Phase; 5] = [Phase::Fork, Phase::Notice, Phase::Check, Phase::Idle, Phase::Prepare];
}

/// Identifies a hook forever.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct HookId {
    phase: Phase,
    serial: u64,
}

/// A hook.
#[derive(Clone)]
pub(super) struct Entry {
    serial: u64,
    hook: Rc<dyn Fn()>,
    at: &'static Location<'static>,
    is_counted: bool,
    /// Whether it has work to do.
    is_due: bool,
}

impl Entry {
    pub(super) fn id(&self, phase: Phase) -> HookId {
        HookId { phase, serial: self.serial }
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    pub(super) fn at(&self) -> &'static Location<'static> {
        self.at
    }

    pub(super) fn call(&self) {
        (self.hook)();
    }
}

/// The hooks of a loop.
#[derive(Default)]
pub(super) struct Phases {
    /// Whether any hook is set.
    any: Cell<bool>,
    entries: RefCell<[Vec<Entry>; Phase::ALL.len()]>,
    /// The serial number of the last hook.
    serial: Cell<u64>,
    /// The number of hooks that keep the loop alive.
    counted: Cell<usize>,
    /// The number of hooks that have work to do.
    due: Cell<usize>,
    /// Whether the loop is in a child whose hooks of [`Phase::Fork`] have not been called.
    is_forked: Cell<bool>,
    /// Whether mail was carried out since the hooks were called last.
    is_noticed: Cell<bool>,
    /// The number of waits of the hub before the hooks were called last.
    waits: Cell<u64>,
    /// The number of switches before the hooks were called last.
    switches: Cell<u64>,
}

impl Phases {
    /// Returns whether any hook is set.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any.get()
    }

    /// Returns whether a hook keeps the loop alive.
    pub(super) fn any_counted(&self) -> bool {
        self.counted.get() != 0
    }

    /// Returns whether a hook has work to do.
    pub(super) fn is_due(&self) -> bool {
        self.due.get() != 0
    }

    /// Returns whether a hook keeps the loop from sleeping.
    pub(super) fn forbid_sleep(&self) -> bool {
        self.any() && (self.is_due() || !self.entries.borrow()[Phase::Idle as usize].is_empty())
    }

    /// Notes that this process is a child.
    pub(super) fn note_fork(&self) {
        self.is_forked.set(true);
    }

    /// Notes that mail was carried out.
    pub(super) fn note_mail(&self) {
        self.is_noticed.set(true);
    }

    /// Sets a hook. `waits` is the number of waits of the hub so far.
    pub(super) fn insert(
        &self,
        phase: Phase,
        hook: Rc<dyn Fn()>,
        at: &'static Location<'static>,
        waits: u64,
    ) -> HookId {
        let serial = self.serial.get() + 1;
        self.serial.set(serial);
        if !self.any.replace(true) {
            // The first hook sees what happens from now on.
            self.is_noticed.set(false);
            self.is_forked.set(false);
            self.waits.set(waits);
        }
        self.entries.borrow_mut()[phase as usize].push(Entry { serial, hook, at, is_counted: false, is_due: false });
        HookId { phase, serial }
    }

    /// Removes a hook, for the caller to drop.
    pub(super) fn remove(&self, id: HookId) -> Option<Entry> {
        let mut phases = self.entries.borrow_mut();
        let entries = &mut phases[id.phase as usize];
        let index = entries.iter().position(|entry| entry.serial == id.serial)?;
        let entry = entries.remove(index);
        self.counted.set(self.counted.get() - usize::from(entry.is_counted));
        self.due.set(self.due.get() - usize::from(entry.is_due));
        self.any.set(phases.iter().any(|entries| !entries.is_empty()));
        Some(entry)
    }

    /// Sets whether a hook keeps the loop alive.
    pub(super) fn set_counted(&self, id: HookId, is_counted: bool) {
        self.set_flag(id, |entry| &mut entry.is_counted, &self.counted, is_counted);
    }

    /// Sets whether a hook has work to do.
    pub(super) fn set_due(&self, id: HookId, is_due: bool) {
        self.set_flag(id, |entry| &mut entry.is_due, &self.due, is_due);
    }

    /// Sets a flag of a hook, and the number of hooks that have it.
    fn set_flag(&self, id: HookId, flag: impl Fn(&mut Entry) -> &mut bool, number: &Cell<usize>, value: bool) {
        let mut phases = self.entries.borrow_mut();
        let Some(entry) = phases[id.phase as usize].iter_mut().find(|entry| entry.serial == id.serial) else { return };
        let before = std::mem::replace(flag(entry), value);
        number.set(number.get() + usize::from(value) - usize::from(before));
    }

    /// Returns the serial number of the last hook.
    pub(super) fn last(&self) -> u64 {
        self.serial.get()
    }

    /// Returns the first hook of a phase that is younger than `after` and not younger than `last`.
    pub(super) fn next(&self, phase: Phase, after: u64, last: u64) -> Option<Entry> {
        let phases = self.entries.borrow();
        phases[phase as usize].iter().find(|entry| after < entry.serial && entry.serial <= last).cloned()
    }

    /// Returns whether this is a child whose hooks have not been called; once.
    pub(super) fn take_fork(&self) -> bool {
        self.is_forked.take()
    }

    /// Returns whether mail was carried out since the last call.
    pub(super) fn take_notice(&self) -> bool {
        self.is_noticed.take()
    }

    /// Returns whether the hub has waited since the last call. `waits` is the number of its waits so far.
    pub(super) fn has_waited(&self, waits: u64) -> bool {
        self.waits.replace(waits) != waits
    }

    /// Returns whether greenlets have run since the last call. `switches` is the number of switches so far.
    pub(super) fn has_switched(&self, switches: u64) -> bool {
        self.switches.replace(switches) != switches
    }

    /// Leaves the next switch out of account: to the main greenlet, which has requested a single turn.
    pub(super) fn expect_switch(&self) {
        self.switches.set(self.switches.get() + 1);
    }

    /// Removes all hooks, for the caller to drop.
    pub(super) fn take_all(&self) -> impl Iterator<Item = Rc<dyn Fn()>> + use<> {
        self.any.set(false);
        self.counted.set(0);
        self.due.set(0);
        self.entries.take().into_iter().flatten().map(|entry| entry.hook)
    }
}
