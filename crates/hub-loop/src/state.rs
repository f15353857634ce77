//! The loop of one OS thread: the pending watchers, and the hooks that deliver their events.
//!
//! Ground rule: a callback is foreign code. It is called and dropped while no cell is borrowed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};

use hub_core::hub::Interest;
use hub_core::internal::drop_contained;
use hub_core::{HubRef, Phase, get_hub};

use crate::child::ChildKind;
use crate::directories::Directories;
use crate::hooks::Hooks;
use crate::io::Fan;
use crate::node::{Deliver, Node};
use crate::pending::Pending;
use crate::phase::PhaseNodes;
use crate::signal::SignalFan;
use crate::wake::Wake;

/// The priority of a watcher.
///
/// Among the pending watchers of a turn, those of a higher priority are called first.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Priority {
    /// gevent's -2, `loop.MINPRI`.
    #[doc(alias = "MINPRI")]
    Lowest,
    /// gevent's -1.
    Low,
    /// gevent's 0, the default.
    #[default]
    Normal,
    /// gevent's 1.
    High,
    /// gevent's 2, `loop.MAXPRI`.
    #[doc(alias = "MAXPRI")]
    Highest,
}

impl Priority {
    pub(crate) const ALL: [Priority; Priority::COUNT] =
        [Priority::Lowest, Priority::Low, Priority::Normal, Priority::High, Priority::Highest];
    pub(crate) const COUNT: usize = Priority::Highest as usize + 1;
}

thread_local! {
    static STATE: RefCell<Weak<State>> = const { RefCell::new(Weak::new()) };
}

/// The part of the loop of one OS thread that all its watchers share. It ends with the last of them.
pub(crate) struct State {
    hub: HubRef,
    pub(crate) pending: Pending,
    /// The number of watchers with an event that was not delivered.
    undelivered: Cell<usize>,
    /// The number of active watchers that keep the loop alive.
    counted: Cell<usize>,
    /// The number of these that the hub does not know: watchers of phases.
    counted_here: Cell<usize>,
    /// The number of waits of the hub that this loop has seen, and one.
    turn: Cell<u64>,
    /// The number of callbacks in progress.
    depth: Cell<usize>,
    /// The number of events that were delivered.
    delivered: Cell<u64>,
    /// Whether an event was delivered since the last look of an idle watcher, not counting those of phases.
    is_busy: Cell<bool>,
    pub(crate) fans: RefCell<HashMap<(RawFd, Interest), Weak<Fan>>>,
    pub(crate) phases: PhaseNodes,
    pub(crate) wake: Wake,
    pub(crate) directories: Directories,
    pub(crate) children: RefCell<Vec<Rc<Node<ChildKind>>>>,
    pub(crate) signals: RefCell<HashMap<c_int, Weak<SignalFan>>>,
    /// The watchers for which a green thread waits.
    waited: RefCell<Vec<Rc<dyn EndWaits>>>,
    /// The number of delivered events at the begin of a single turn, which does not wait after the delivery of another.
    single_turn: Cell<Option<u64>>,
    /// Whether the loop was told that events are left to deliver.
    is_due: Cell<bool>,
    hooks: Hooks,
    /// The number of active watchers.
    active: Cell<usize>,
}

impl State {
    /// Returns the state of the calling OS thread and its present hub.
    pub(crate) fn here() -> Rc<State> {
        let hub = get_hub();
        let known = STATE.try_with(|state| state.borrow().upgrade()).ok().flatten();
        if let Some(state) = known.filter(|state| state.hub.id() == hub.id()) {
            return state;
        }
        let state = Rc::new_cyclic(|own| State::new(hub, own));
        let _ = STATE.try_with(|slot| slot.replace(Rc::downgrade(&state)));
        state
    }

    fn new(hub: HubRef, own: &Weak<State>) -> State {
        State {
            hub,
            pending: Pending::new(),
            undelivered: Cell::new(0),
            counted: Cell::new(0),
            counted_here: Cell::new(0),
            turn: Cell::new(1),
            depth: Cell::new(0),
            delivered: Cell::new(0),
            is_busy: Cell::new(false),
            fans: RefCell::default(),
            phases: PhaseNodes::new(own),
            wake: Wake::new(own),
            directories: Directories::new(own),
            children: RefCell::default(),
            signals: RefCell::default(),
            waited: RefCell::default(),
            single_turn: Cell::new(None),
            is_due: Cell::new(false),
            hooks: Hooks::new(own),
            active: Cell::new(0),
        }
    }

    pub(crate) fn hub(&self) -> &HubRef {
        &self.hub
    }

    /// Returns whether the hub of this state is still that of its OS thread.
    pub(crate) fn is_current(&self) -> bool {
        self.hub.is_current()
    }

    /// Makes the watchers those of a forked child, and calls those of a fork before all others.
    pub(crate) fn renew(&self) {
        self.wake.renew();
        self.directories.renew();
        self.close_children();
        self.phases.set_pending(Phase::Fork);
        let last = self.pending.last();
        while let Some(node) = self.pending.pop_of(Phase::Fork, last) {
            self.call(node);
        }
    }

    pub(crate) fn check(&self) {
        self.turn.set(self.turn.get() + 1);
        self.phases.set_pending(Phase::Check);
        self.deliver();
        self.update_due();
    }

    pub(crate) fn prepare(&self) {
        self.phases.set_pending(Phase::Prepare);
        self.deliver();
        self.update_due();
        if self.active.get() == 0 && self.pending.is_empty() && self.single_turn.get().is_none() {
            self.end_use();
        }
    }

    /// Begins to take part in the turns of the hub: a watcher is pending, or active.
    pub(crate) fn begin_use(&self) {
        if self.hooks.set() {
            self.turn.set(self.turn.get() + 1);
        }
    }

    /// Ends what [`begin_use`](State::begin_use) has begun. The end of a turn does it, so that a watcher that is
    /// started again in the same turn costs no more.
    fn end_use(&self) {
        self.hooks.remove(self.wake.is_open());
        self.is_due.set(false);
    }

    pub(crate) fn add_active(&self) {
        self.active.set(self.active.get() + 1);
        self.begin_use();
    }

    pub(crate) fn remove_active(&self) {
        self.active.set(self.active.get() - 1);
    }

    /// Ends the waits for watchers, and drops the events that were not delivered: the hub is gone.
    pub(crate) fn end(&self) {
        let waited = self.waited.borrow().clone();
        waited.iter().for_each(|node| node.end_waits());
        drop_contained(waited);
        while let Some(node) = self.pending.pop(u64::MAX) {
            node.discard();
            drop_contained(node);
        }
    }

    /// Tells the loop whether it must not sleep: callbacks have fed watchers, or a latch was set at which it has not
    /// looked. The next turn delivers those. A single turn that has delivered an event does not sleep, either.
    ///
    /// Between two turns of an embedded loop it may call foreign code, the waker of the program.
    pub(crate) fn update_due(&self) {
        let has_delivered = self.single_turn.get().is_some_and(|before| before != self.delivered.get());
        let is_due = has_delivered || !self.pending.is_empty() || self.wake.has_rung();
        if self.is_due.replace(is_due) != is_due {
            self.hooks.set_due(is_due);
        }
    }

    /// Begins a single turn, which ends when the returned value is dropped.
    pub(crate) fn begin_single_turn(&self) -> SingleTurn<'_> {
        self.single_turn.set(Some(self.delivered.get()));
        SingleTurn(self)
    }

    /// Adds a watcher for which a green thread waits.
    pub(crate) fn add_waited(&self, node: Rc<dyn EndWaits>) {
        self.waited.borrow_mut().push(node);
    }

    /// Removes a watcher for which no green thread waits any more.
    pub(crate) fn remove_waited(&self, node: &dyn EndWaits) {
        remove(&self.waited, node);
    }

    pub(crate) fn add_undelivered(&self) {
        self.undelivered.set(self.undelivered.get() + 1);
    }

    pub(crate) fn remove_undelivered(&self) {
        self.undelivered.set(self.undelivered.get() - 1);
    }

    pub(crate) fn undelivered(&self) -> usize {
        self.undelivered.get()
    }

    /// Calls the callbacks of the watchers that are pending now, not of those that become pending meanwhile, and of
    /// each once in a turn.
    fn deliver(&self) {
        let last = self.pending.last();
        while let Some(node) = self.pending.pop(last) {
            if Rc::clone(&node).put_off(self.turn.get()) {
                drop_contained(node);
            } else {
                self.call(node);
            }
        }
    }

    fn call(&self, node: Rc<dyn Deliver>) {
        self.delivered.set(self.delivered.get() + 1);
        self.is_busy.set(self.is_busy.get() || node.phase().is_none());
        Rc::clone(&node).deliver();
        // It may be the last reference, and what the watcher owns is foreign.
        drop_contained(node);
    }

    /// Returns the number of events that were delivered.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.get()
    }

    /// Returns whether an event was delivered since the last call, not counting those of phases.
    pub(crate) fn take_is_busy(&self) -> bool {
        self.is_busy.take()
    }

    /// Counts a callback in progress while `call` runs, which does not unwind.
    pub(crate) fn nested<R>(&self, call: impl FnOnce() -> R) -> R {
        self.depth.set(self.depth.get() + 1);
        let result = call();
        self.depth.set(self.depth.get() - 1);
        result
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth.get()
    }

    /// Adds an active watcher that keeps the loop alive to the count, or removes it. `is_here`: the hub does not know
    /// it.
    pub(crate) fn count(&self, is_counted: bool, is_here: bool) {
        let change = |number: &Cell<usize>| {
            number.set(if is_counted { number.get() + 1 } else { number.get() - 1 });
        };
        change(&self.counted);
        if is_here {
            change(&self.counted_here);
            self.hooks.set_counted(self.counted_here.get() != 0);
        }
    }

    pub(crate) fn counted(&self) -> usize {
        self.counted.get()
    }
}

/// A single turn. `Drop` ends it, however it ends.
pub(crate) struct SingleTurn<'a>(&'a State);

impl Drop for SingleTurn<'_> {
    fn drop(&mut self) {
        self.0.single_turn.set(None);
        self.0.update_due();
    }
}

/// A watcher for which a green thread waits, of any kind.
pub(crate) trait EndWaits {
    /// Ends the waits with an error: the hub is gone, and no event will come.
    fn end_waits(&self);
}

/// Calls `f` for each object of a list, which is not borrowed meanwhile.
pub(crate) fn for_each<T: ?Sized>(list: &RefCell<Vec<Rc<T>>>, f: impl Fn(Rc<T>)) {
    let object = |index| list.borrow().get(index).cloned();
    (0..).map_while(object).for_each(f);
}

/// Removes an object from a list, by its place in memory.
pub(crate) fn remove<T: ?Sized, U: ?Sized>(list: &RefCell<Vec<Rc<T>>>, object: &U) {
    let place = std::ptr::from_ref(object).cast::<()>();
    list.borrow_mut().retain(|other| Rc::as_ptr(other).cast::<()>() != place);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::async_::Async;
    use crate::timer::Timer;
    use crate::watcher::Watcher;
    // Its hub serves these tests.
    use greenhub as _;

    #[test]
    fn a_turn_without_active_and_pending_watchers_has_no_hooks() {
        const LONG: Duration = Duration::from_secs(3600);
        let state = State::here();
        let turn = || state.hub.run_once(Duration::ZERO).expect("main may run the loop");
        state.hub.schedule_once(LONG, || ());
        let timer = Timer::of(Rc::clone(&state), LONG, Duration::ZERO);
        turn();
        assert_eq!(state.hooks.are_set(), (false, false));
        for _ in 0..2 {
            timer.start(|_, ()| ()).expect("an open watcher");
            turn();
            assert_eq!(state.hooks.are_set(), (true, true));
            timer.stop();
            turn();
            assert_eq!(state.hooks.are_set(), (false, false));
            timer.feed(());
            assert_eq!(state.hooks.are_set(), (true, true));
            turn();
            turn();
            assert_eq!(state.hooks.are_set(), (false, false));
        }
        // The descriptor of wake-ups has to be replaced in a child.
        let wakeup = Async::of(Rc::clone(&state));
        wakeup.start(|_, ()| ()).expect("an open watcher");
        drop(wakeup);
        turn();
        assert_eq!(state.hooks.are_set(), (false, true));
    }
}
