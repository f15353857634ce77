//! The state that all kinds of watchers share: callback, event, priority, liveness.
//!
//! Ground rules:
//! - A callback is taken out of its cell for the call. If the watcher was started anew meanwhile, the cell has another
//!   one, and the old one is dropped.
//! - An event that has come belongs to its watcher until a callback or a wait takes it, or the program stops the
//!   watcher. A wait takes it from the watcher itself, however the wait ends. So no event goes with a wait that is
//!   given up.
//! - A node has at most one place in the queue of pending watchers, and only with an event. When the event goes, so
//!   does the place, and with it what the watcher owns.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem;
use std::panic::Location;
use std::rc::Rc;

use hub_core::internal::{call_contained, drop_contained};
use hub_core::{LeftMark, LoopError, LoopErrorKind, Phase, ReadyMark, ReadyMarks, Unparker, WaitReason};

use crate::error::{WaitError, WatcherError};
use crate::pending::Place;
use crate::state::{EndWaits, Priority, State};
use crate::watcher::Watch;

/// The part of a watcher that differs between the kinds.
pub trait Kind: Sized + 'static {
    /// The event that the callback gets.
    type Event: 'static;

    /// The name of the kind.
    const NAME: &'static str;
    /// Whether a callback that panics closes the watcher.
    const CLOSES_ON_PANIC: bool = false;
    /// Whether the hub does not know the watcher, so that this crate keeps the loop alive for it.
    const IS_COUNTED_HERE: bool = false;

    /// The phase whose watcher this is. Its calls do not keep a turn from being idle, and come in each turn.
    const PHASE: Option<Phase> = None;

    /// Whether an event that no callback and no wait has taken is kept for the next one. It is not if the next start
    /// brings it again, or makes it meaningless.
    const KEEPS_EVENTS: bool = false;

    /// The reason of a wait for the watcher, in reports of a loop that nothing can wake.
    const REASON: WaitReason = WaitReason::Watcher;

    /// Begins to watch. After an error, the caller disarms.
    fn arm(&self, node: &Rc<Node<Self>>) -> Result<(), WatcherError>;

    /// Ends what [`arm`](Kind::arm) has begun, also in part.
    fn disarm(&self, node: &Node<Self>);

    /// Looks whether an event has come that was not reported yet, before the watch for a wait ends.
    fn look(&self) {}

    /// Merges an event with an earlier one that was not delivered.
    fn merge(earlier: Self::Event, later: Self::Event) -> Self::Event {
        drop(earlier);
        later
    }

    /// Called before an event is delivered. Returns whether the watcher stays active.
    fn stays_active(&self) -> bool {
        true
    }

    /// Tells the hub whether the armed watcher keeps the loop alive.
    fn set_counted(&self, node: &Node<Self>, counted: bool) {
        let _ = (node, counted);
    }

    /// Writes the settings of the watcher.
    fn describe(&self, shown: &mut fmt::DebugStruct<'_, '_>) {
        let _ = shown;
    }
}

type Function<K> = dyn FnMut(&Watch<K>, <K as Kind>::Event);

struct Callback<K: Kind> {
    function: Box<Function<K>>,
    made_at: &'static Location<'static>,
}

/// A watcher without its handle.
pub struct Node<K: Kind> {
    pub(crate) state: Rc<State>,
    pub(crate) kind: K,
    callback: RefCell<Option<Callback<K>>>,
    /// Whether the callback is in progress, and so not in its cell.
    is_calling: Cell<bool>,
    /// The event that was not delivered.
    event: RefCell<Option<K::Event>>,
    /// The place in the queue of pending watchers.
    place: Cell<Option<Place>>,
    /// The turn in which an event was delivered last.
    delivered_in: Cell<u64>,
    is_active: Cell<bool>,
    is_counted: Cell<bool>,
    /// Whether the state has it among the active watchers, and among those that keep the loop alive.
    is_in_use: Cell<bool>,
    is_in_count: Cell<bool>,
    is_closed: Cell<bool>,
    priority: Cell<Priority>,
    /// The green thread that waits for the watcher, and the error that ends its wait.
    waiting: Cell<Option<Waiting>>,
    error: RefCell<Option<WaitError>>,
    /// The marks of waits for several objects.
    marks: RefCell<ReadyMarks>,
    /// Whether the watcher is active for its marks alone.
    is_marked: Cell<bool>,
    /// Whether the state has this in its list of watchers for which a green thread waits.
    is_waited: Cell<bool>,
}

impl<K: Kind> fmt::Debug for Node<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(K::NAME);
        self.kind.describe(&mut shown);
        shown.field("active", &self.is_active()).field("pending", &self.is_pending());
        shown.field("counted", &self.is_counted()).field("priority", &self.priority()).finish()
    }
}

/// The wait of a green thread for a watcher.
#[derive(Copy, Clone)]
enum Waiting {
    /// It has not parked yet.
    Begun,
    Parked(Unparker),
}

impl<K: Kind> Node<K> {
    pub(crate) fn new(state: Rc<State>, kind: K) -> Rc<Node<K>> {
        Rc::new(Node {
            state,
            kind,
            callback: RefCell::default(),
            is_calling: Cell::default(),
            event: RefCell::default(),
            place: Cell::default(),
            delivered_in: Cell::default(),
            is_active: Cell::default(),
            is_counted: Cell::new(true),
            is_in_use: Cell::default(),
            is_in_count: Cell::default(),
            is_closed: Cell::default(),
            priority: Cell::default(),
            waiting: Cell::default(),
            error: RefCell::default(),
            marks: RefCell::default(),
            is_marked: Cell::default(),
            is_waited: Cell::default(),
        })
    }

    pub(crate) fn is_active(&self) -> bool {
        self.is_active.get() && self.state.is_current()
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.event.borrow().is_some()
    }

    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted.get()
    }

    pub(crate) fn priority(&self) -> Priority {
        self.priority.get()
    }

    pub(crate) fn set_priority(self: &Rc<Self>, priority: Priority) -> Result<(), WatcherError> {
        if self.is_active() {
            return Err(WatcherError::Active { setting: "priority" });
        }
        self.priority.set(priority);
        if self.place.get().is_some() {
            self.dequeue();
            self.enqueue();
        }
        Ok(())
    }

    pub(crate) fn set_counted(&self, counted: bool) {
        if self.is_counted.replace(counted) == counted || !self.is_active() {
            return;
        }
        self.update_count();
        self.kind.set_counted(self, counted);
    }

    /// Adds the watcher to the count of the state, or removes it, unless that was done.
    fn update_count(&self) {
        let is_in_count = self.is_active.get() && self.is_counted.get();
        if self.is_in_count.replace(is_in_count) != is_in_count {
            self.state.count(is_in_count, K::IS_COUNTED_HERE);
        }
    }

    /// Sets the callback.
    pub(crate) fn set_callback(&self, function: Box<Function<K>>, made_at: &'static Location<'static>) {
        self.is_marked.set(false);
        let former = self.callback.replace(Some(Callback { function, made_at }));
        drop_contained(former);
    }

    /// Returns an error if no event can come any more.
    pub(crate) fn check_open(&self) -> Result<(), WatcherError> {
        if self.is_closed.get() {
            return Err(WatcherError::Closed);
        }
        if self.state.is_current() { Ok(()) } else { Err(WatcherError::HubDestroyed) }
    }

    /// Begins to watch, unless it does already.
    pub(crate) fn activate(self: &Rc<Self>) -> Result<(), WatcherError> {
        self.check_open()?;
        if self.is_active.get() {
            return Ok(());
        }
        self.is_active.set(true);
        let arming = Arming(self);
        self.kind.arm(self)?;
        arming.complete();
        if !self.is_active.get() {
            // The owner of the descriptor is foreign code, and has stopped the watcher.
            self.kind.disarm(self);
            return self.check_open();
        }
        self.is_in_use.set(true);
        self.state.add_active();
        self.update_count();
        if !self.is_counted.get() {
            self.kind.set_counted(self, false);
        }
        if self.is_pending() {
            // It was kept by a wait that was given up.
            self.enqueue();
        }
        Ok(())
    }

    /// Ends the watch. The event that was not delivered is dropped.
    pub(crate) fn deactivate(&self) {
        self.end_watch();
        self.drop_event();
    }

    /// Drops the event that was not delivered, to a callback or to a wait.
    pub(crate) fn drop_event(&self) {
        if !self.has_served() {
            self.dequeue();
            drop_contained(self.take_event());
        }
    }

    /// Ends the watch that was begun for waits, when the last of them ends. What has come by now may be kept.
    fn release(&self) {
        self.kind.look();
        self.end_watch();
        self.dequeue();
        if !K::KEEPS_EVENTS {
            drop_contained(self.take_event());
        }
    }

    /// Returns whether the event was delivered to the green thread that waits, which has not run since.
    fn has_served(&self) -> bool {
        self.waiting.get().is_some() && self.place.get().is_none() && self.is_pending()
    }

    /// Takes the event that was not delivered.
    fn take_event(&self) -> Option<K::Event> {
        let event = self.event.take()?;
        self.state.remove_undelivered();
        Some(event)
    }

    /// Appends the watcher to the pending ones, unless it is among them.
    fn enqueue(self: &Rc<Self>) {
        if self.place.get().is_none() {
            let place = self.state.pending.push(Rc::clone(self) as Rc<dyn Deliver>, self.priority.get());
            self.place.set(Some(place));
            self.state.begin_use();
            self.state.update_due();
        }
    }

    /// Removes the watcher from the pending ones.
    fn dequeue(&self) {
        if let Some(place) = self.place.take() {
            drop(self.state.pending.remove(place));
        }
    }

    /// Ends the watch, and keeps the event.
    fn end_watch(&self) {
        self.is_marked.set(false);
        if self.is_active.replace(false) {
            if self.is_in_use.take() {
                self.state.remove_active();
            }
            self.update_count();
            self.kind.disarm(self);
        }
    }

    /// Stops the watcher, with the waits for it.
    pub(crate) fn stop(&self) {
        self.deactivate();
        self.set_marks();
        self.end_wait(|| WaitError::Stopped);
    }

    /// Stops a watcher whose timer an abort of the loop has discarded. An event that has come for a wait is kept.
    pub(crate) fn abort(&self) {
        self.end_watch();
        if !self.end_wait(|| LoopError::from(LoopErrorKind::Aborted).into()) {
            self.drop_event();
        }
        self.set_marks();
    }

    /// Refuses a callback while a green thread waits.
    pub(crate) fn check_unwaited(&self) -> Result<(), WatcherError> {
        if self.waiting.get().is_some() { Err(WatcherError::Waited) } else { Ok(()) }
    }

    /// Closes the watcher for good. A green thread that waits for it gets an error.
    pub(crate) fn close(&self) {
        self.close_during_wait();
        self.end_wait(|| WaitError::Closed);
    }

    /// Closes the watcher for good. Returns whether a green thread waits for it, whose wait goes on.
    pub(crate) fn close_during_wait(&self) -> bool {
        self.is_closed.set(true);
        self.deactivate();
        self.set_marks();
        let callback = self.callback.take();
        drop_contained(callback);
        self.waiting.get().is_some()
    }

    /// Makes the watcher pending with an event of the program, unless its hub is gone.
    pub(crate) fn feed(self: &Rc<Self>, event: K::Event) {
        if self.state.is_current() {
            self.set_pending(event);
        } else {
            drop_contained(event);
        }
    }

    /// Makes the watcher pending with an event.
    pub(crate) fn set_pending(self: &Rc<Self>, event: K::Event) {
        if self.is_closed.get() {
            return drop_contained(event);
        }
        let event = match self.event.take() {
            Some(earlier) => K::merge(earlier, event),
            None => {
                self.state.add_undelivered();
                event
            }
        };
        self.event.replace(Some(event));
        self.enqueue();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Keeps a mark until the next event, and starts the watcher if it is not active.
    pub(crate) fn leave(self: &Rc<Self>, mark: ReadyMark) -> LeftMark {
        let was_active = self.is_active();
        if self.is_pending() || self.activate().is_err() {
            mark.set();
            return LeftMark::SET;
        }
        self.is_marked.set(self.is_marked.get() || !was_active);
        let left = self.marks.borrow_mut().leave(mark);
        self.update_waited();
        left
    }

    /// Tells the state whether a green thread waits for the watcher.
    fn update_waited(self: &Rc<Self>) {
        let is_waited = self.waiting.get().is_some() || !self.marks.borrow().is_empty();
        if self.is_waited.replace(is_waited) == is_waited {
            return;
        }
        if is_waited {
            self.state.add_waited(Rc::clone(self) as Rc<dyn EndWaits>);
        } else {
            self.state.remove_waited(&**self);
        }
    }

    /// Sets all marks. No cell is borrowed meanwhile: it may wake the waker of an embedded loop.
    fn set_marks(&self) {
        let mut marks = self.marks.borrow_mut().take_all();
        marks.set_all();
    }

    /// Removes a mark, and stops the watcher if it was active for its marks alone.
    pub(crate) fn take_back(self: &Rc<Self>, left: &LeftMark) {
        self.marks.borrow_mut().take_back(left);
        self.update_waited();
        self.stop_if_unmarked();
    }

    /// Removes a mark that was set, and drops the event that was kept for it.
    pub(crate) fn give(self: &Rc<Self>, left: &LeftMark) {
        self.take_back(left);
        if self.place.get().is_none() && self.waiting.get().is_none() {
            drop_contained(self.take_event());
        }
    }

    fn stop_if_unmarked(&self) {
        if self.is_marked.get() && self.marks.borrow().is_empty() {
            self.release();
        }
    }

    /// Returns an error if the watcher cannot be started with the callback that it has.
    pub(crate) fn check_restart(&self) -> Result<(), WatcherError> {
        self.check_open()?;
        self.check_unwaited()?;
        let has_callback = self.is_calling.get() || self.callback.borrow().is_some();
        if has_callback { Ok(()) } else { Err(WatcherError::NoCallback) }
    }

    /// Begins to watch for the callback that the watcher has.
    pub(crate) fn resume(self: &Rc<Self>) -> Result<(), WatcherError> {
        self.check_restart()?;
        self.activate()?;
        self.is_marked.set(false);
        Ok(())
    }

    /// Begins the wait of a green thread.
    pub(crate) fn begin_wait(self: &Rc<Self>) -> Result<NodeWait<'_, K>, WaitError> {
        if self.waiting.get().is_some() || self.is_active() {
            return Err(WaitError::ConcurrentUse);
        }
        self.activate()?;
        self.waiting.set(Some(Waiting::Begun));
        self.update_waited();
        Ok(NodeWait(self))
    }

    /// Returns the green thread that waits for the watcher.
    pub(crate) fn waiter(&self) -> Option<Unparker> {
        match self.waiting.get() {
            Some(Waiting::Parked(unparker)) => Some(unparker),
            _ => None,
        }
    }

    /// Ends the wait of a green thread with an error, unless its event was delivered. Returns false if there is none.
    pub(crate) fn end_wait(&self, error: impl FnOnce() -> WaitError) -> bool {
        if self.waiting.get().is_none() {
            return false;
        }
        if self.error.borrow().is_none() && !self.has_served() {
            self.error.replace(Some(error()));
        }
        self.wake_waiter();
        true
    }

    fn wake_waiter(&self) {
        if let Some(unparker) = self.waiter() {
            unparker.unpark();
        }
    }
}

/// A start in progress. `Drop` takes it back, if an error or a panic of foreign code ends it.
struct Arming<'a, K: Kind>(&'a Node<K>);

impl<K: Kind> Arming<'_, K> {
    fn complete(self) {
        mem::forget(self);
    }
}

impl<K: Kind> Drop for Arming<'_, K> {
    fn drop(&mut self) {
        self.0.is_active.set(false);
        self.0.kind.disarm(self.0);
    }
}

/// The wait of a green thread for a watcher. `Drop` ends it and stops the watcher, however the wait ends.
pub(crate) struct NodeWait<'a, K: Kind>(&'a Rc<Node<K>>);

impl<K: Kind> NodeWait<'_, K> {
    /// Names the next park of the caller as that of the wait. Returns false if the wait has ended before.
    pub(crate) fn parks_by(&self, unparker: Unparker) -> bool {
        self.0.waiting.set(Some(Waiting::Parked(unparker)));
        self.0.error.borrow().is_none() && !self.0.has_served()
    }

    /// Returns the event or the error that ends the wait, once. An event that has come counts even if it was not
    /// delivered yet.
    pub(crate) fn take_outcome(&self) -> Option<Result<K::Event, WaitError>> {
        if let Some(error) = self.0.error.take() {
            return Some(Err(error));
        }
        self.0.kind.look();
        self.0.dequeue();
        self.0.take_event().map(Ok)
    }
}

impl<K: Kind> Drop for NodeWait<'_, K> {
    fn drop(&mut self) {
        let node = self.0;
        node.waiting.set(None);
        node.update_waited();
        if node.marks.borrow().is_empty() {
            node.release();
        } else {
            // Other green threads wait for this watcher among other objects.
            node.is_marked.set(node.is_active.get());
            if node.is_pending() && node.state.is_current() {
                node.enqueue();
            }
        }
        drop_contained(node.error.take());
    }
}

impl<K: Kind> EndWaits for Node<K> {
    fn end_waits(&self) {
        if self.is_pending() {
            self.wake_waiter();
        } else {
            self.end_wait(|| WatcherError::HubDestroyed.into());
        }
        self.set_marks();
    }
}

/// A node of any kind, in the queue of pending watchers.
pub(crate) trait Deliver {
    /// Queues a watcher that has left the queue anew, if an event of it was delivered in this turn. Returns whether it
    /// did.
    fn put_off(self: Rc<Self>, turn: u64) -> bool;

    /// Delivers the event of a watcher that has left the queue.
    fn deliver(self: Rc<Self>);

    /// Drops the event of a watcher that has left the queue: its hub is gone.
    fn discard(&self);

    /// Returns the phase whose watcher this is.
    fn phase(&self) -> Option<Phase>;
}

impl<K: Kind> Deliver for Node<K> {
    fn phase(&self) -> Option<Phase> {
        K::PHASE
    }

    fn put_off(self: Rc<Self>, turn: u64) -> bool {
        let is_first = self.delivered_in.replace(turn) != turn;
        if is_first || K::PHASE.is_some() {
            return false;
        }
        self.place.set(None);
        self.enqueue();
        true
    }

    fn discard(&self) {
        self.place.set(None);
        self.drop_event();
    }

    fn deliver(self: Rc<Self>) {
        self.place.set(None);
        let is_for_marks = self.is_marked.get();
        if !self.kind.stays_active() {
            self.end_watch();
        }
        self.set_marks();
        self.update_waited();
        self.stop_if_unmarked();
        if self.waiting.get().is_some() {
            // It takes the event.
            return self.wake_waiter();
        }
        let callback = self.callback.borrow_mut().take_if(|_| !is_for_marks);
        let Some(mut callback) = callback else {
            if !K::KEEPS_EVENTS {
                drop_contained(self.take_event());
            }
            return;
        };
        let Some(event) = self.take_event() else { return };
        let watch = Watch::view(Rc::clone(&self));
        let call = || (callback.function)(&watch, event);
        self.is_calling.set(true);
        let returned = self.state.nested(|| call_contained(|| format!("{watch:?}"), callback.made_at, call));
        self.is_calling.set(false);
        if !returned && K::CLOSES_ON_PANIC {
            self.close();
        }
        let keeps = !self.is_closed.get() && self.callback.borrow().is_none();
        if keeps {
            self.callback.replace(Some(callback));
        } else {
            drop_contained(callback);
        }
    }
}
