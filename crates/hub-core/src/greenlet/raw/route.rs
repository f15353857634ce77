//! The routes of a switch, an error and an end between plain greenlets.
//!
//! Ground rules: those of [`node`](super::node).

use std::rc::Rc;

use super::super::control::{ControlRef, Kind, State, Waiter, Wake};
use super::super::driver::Driver;
use super::super::exit::{Exit, contained, drop_contained};
use super::super::local::{self, Local};
use super::super::payload::Payload;
use super::super::run::exit_request::request_exit;
use super::super::run::mask::Mask;
use super::super::run::may_switch::must_not_switch;
use super::super::run::queue::{current, end_switch, thread};
use super::super::run::throw_exit::exit_now;
use super::super::spans::Away;
use super::node::{Message, Node, Status, Successor};
use crate::error::GreenError;
use crate::report::{self, Report};

/// The route of a message.
pub(super) enum Route {
    /// To the running greenlet.
    Here(Message),
    /// To a greenlet that is suspended in a switch.
    Enter(ControlRef, Message),
    /// To a greenlet that begins with it.
    Begin(Rc<Node>, Payload),
    /// To a greenlet that only the hub may enter.
    Parked(Message),
    /// To the main loop.
    Hub(Message),
}

/// Follows the parents of greenlets that cannot take a message. An error ends greenlets that have not begun.
pub(super) fn route(mut node: Rc<Node>, mut message: Message, me: ControlRef) -> Route {
    loop {
        match node.status.get() {
            Status::Live(control) if control == me => return Route::Here(message),
            Status::Live(control) => {
                return match control.state() {
                    _ if control.kind() == Kind::MainLoop => Route::Hub(message),
                    State::Switched => Route::Enter(control, message),
                    _ => Route::Parked(message),
                };
            }
            Status::Unstarted => match message {
                Ok(value) => return Route::Begin(node, value),
                Err(_) => node.drop_body(),
            },
            Status::Dead => {}
        }
        message = returned(message);
        match node.parent() {
            Some(parent) => node = parent,
            None => return Route::Hub(message),
        }
    }
}

/// Converts the last message of a greenlet to the message for its parent.
pub(super) fn returned(message: Message) -> Message {
    match message {
        Err(GreenError::Kill) => Ok(Payload::kill()),
        message => message,
    }
}

pub(super) fn accept_exit(me: ControlRef, message: Message) -> Message {
    if let Err(GreenError::Kill) = message
        && me.kind() != Kind::Main
    {
        exit_now(Exit::Kill(GreenError::Kill));
    }
    message
}

/// Ends the switch in which a greenlet is suspended.
///
/// # Safety
///
/// The caller enters the greenlet at once.
pub(super) unsafe fn deliver(target: ControlRef, message: Message) {
    target.advance_ticket();
    match message {
        Err(GreenError::Kill) if target.kind() != Kind::Main => drop(target.set_exit(Exit::Kill(GreenError::Kill))),
        message => target.put_message(message),
    }
    // SAFETY: the caller enters the target at once.
    unsafe { target.set_state(State::Running) };
}

/// Gives a greenlet that has not begun a control block, and a value to begin with. The caller must enter it.
pub(super) fn begin(local: &Local, node: &Rc<Node>, value: Payload) -> ControlRef {
    let control = local.controls.take(Kind::Raw, local.main_loop.last_stamp());
    // SAFETY: the body has not begun, and the caller enters the greenlet instead of queueing it.
    unsafe { control.set_state(State::Unstarted) };
    node.status.set(Status::Live(control));
    control.set_node(Rc::clone(node));
    control.put_message(Ok(value));
    control
}

/// Runs the body of `me`, which is current, and hands on its result. Never unwinds.
///
/// Returns the greenlet to enter: suspended, or in the state Unstarted, to be run on the same stack. `None` leaves the
/// choice to the run queue.
pub(in super::super) fn run_raw(me: ControlRef) -> Option<ControlRef> {
    let node = me.raw_node().expect("a plain greenlet has its node until it ends");
    let body = node.body.take().expect("a greenlet begins once");
    let value = me.take_message().into_message().expect("a greenlet begins with a value");
    let message = contained(|| body(value?)).and_then(|message| message);
    // Pending exits concerned the body. Destructors may switch and block again.
    me.clear_exits();
    me.drop_locals();
    node.end_orphans();

    let destination = match (node.successor.get(), node.parent()) {
        (Successor::Parent, Some(parent)) => route(parent, returned(message), me),
        _ => Route::Hub(returned(message)),
    };
    let next = match destination {
        Route::Enter(target, message) => {
            // SAFETY: the caller enters the target.
            unsafe { deliver(target, message) };
            Some(target)
        }
        Route::Begin(parent, value) => Some(begin(local::get(), &parent, value)),
        Route::Here(message) | Route::Parked(message) | Route::Hub(message) => {
            node.discard(message);
            None
        }
    };
    // No handle can ask for the parent any more. The greenlet that is entered counts as running already, so nothing
    // makes it exit. The greenlets between it and `me` are dead. With a target, no foreign code runs here.
    if node.handles.get() == 0
        && let Some(parent) = node.parent.take()
    {
        release(parent);
    }
    if next.is_none() {
        // The destructors of the result and of the parent's body may have panicked and left greenlets behind.
        node.end_orphans();
    }
    node.status.set(Status::Dead);
    me.end_node();
    match node.successor.get() {
        Successor::Dropper(waiter) if next.is_none() => take_waiter(waiter),
        Successor::Dropper(waiter) => {
            // The last handle of `me` was dropped while `route` dropped the body of an unstarted ancestor. By then the
            // result of `me` was on its way to an ancestor, so the dropper gets a plain wake-up.
            waiter.wake();
            next
        }
        _ => next,
    }
}

/// Ends the park of a greenlet that waits in a drop, if it still does. The caller must enter it.
pub(super) fn take_waiter(waiter: Waiter) -> Option<ControlRef> {
    let dropper = waiter.control();
    if dropper.ticket() != waiter.ticket() || dropper.state() != State::Parked {
        return None;
    }
    dropper.advance_ticket();
    dropper.set_wake(Wake::Event);
    Some(dropper)
}

/// Wakes the greenlet that waits in a drop for the end of `me`, because `me` caught its exit and lives on.
pub(in super::super) fn release_dropper(me: ControlRef) {
    if let Some(node) = me.raw_node()
        && let Successor::Dropper(waiter) = node.successor.get()
    {
        node.successor.set(Successor::Hub);
        waiter.wake();
    }
}

/// Removes one handle or child from the count of `node`.
///
/// If it was the last one, a live greenlet is made to exit. For any other greenlet, the parent is released in turn.
pub(super) fn release(mut node: Rc<Node>) {
    loop {
        node.handles.set(node.handles.get() - 1);
        if node.handles.get() != 0 {
            return;
        }
        if let Status::Live(_) = node.status.get() {
            return node.end_unless_held();
        }
        node.drop_body();
        let parent = node.parent.take();
        match parent {
            Some(parent) => node = parent,
            None => return,
        }
    }
}

impl Node {
    pub(super) fn set_parent(&self, parent: Option<Rc<Node>>) {
        if let Some(parent) = &parent {
            parent.handles.set(parent.handles.get() + 1);
        }
        let former = self.parent.replace(parent);
        if let Some(former) = former {
            release(former);
        }
    }

    /// Ends a greenlet that has not begun.
    pub(super) fn drop_body(&self) {
        self.status.set(Status::Dead);
        if let Some(body) = self.body.take()
            && let Err(error) = contained(|| drop(body))
        {
            self.report(error);
        }
    }

    /// Makes the greenlets exit that have lost their last handle while this one was panicking.
    fn end_orphans(&self) {
        loop {
            let orphan = self.orphans.borrow_mut().pop();
            let Some(orphan) = orphan else { return };
            orphan.end_unless_held();
        }
    }

    /// Drops a message without a receiver.
    pub(super) fn discard(&self, message: Message) {
        match message {
            Ok(value) => drop_contained(value),
            // An exit and a loop error come from outside the greenlet, so the code that caused them knows of them.
            Err(GreenError::Kill | GreenError::Loop(_)) => {}
            Err(error) => self.report(error),
        }
    }

    pub(super) fn report(&self, error: GreenError) {
        report::tell(Report::GreenletFailed { made_at: self.made_at.to_string(), error });
    }

    /// Makes a suspended greenlet without handles exit. The running greenlet waits for its end, where that is possible.
    pub(super) fn end_unless_held(self: &Rc<Self>) {
        let Status::Live(target) = self.status.get() else { return };
        if self.kind != Kind::Raw || self.handles.get() != 0 || cfg!(panic = "abort") {
            return;
        }
        // A greenlet that runs, is about to run or waits in a drop continues. An ended OS thread enters no greenlet.
        if !target.is_suspended() || self.in_drop.get() || local::has_ended() {
            return;
        }
        let me = current();
        let panicking = std::thread::panicking();
        if panicking && let Some(node) = me.raw_node() {
            node.orphans.borrow_mut().push(Rc::clone(self));
            return;
        }
        let exit = Exit::Kill(GreenError::Kill);
        let may_not_switch = must_not_switch() || local::get().main_loop.in_hub();
        let shielded = target.is_shielded_from(&exit);
        if panicking || may_not_switch || target.is_masked() || shielded {
            self.successor.set(Successor::Hub);
            // The exit is queued instead of a switch, so no error is possible.
            let _ = request_exit(target, exit, false);
            if shielded && target.state() == State::Switched {
                // No greenlet can switch to it any more, so its switch ends with the exit as an error.
                end_switch(target, Wake::Exit);
            }
            return;
        }
        let _away = Away::new();
        // A drop cannot unwind for an exit of `me`. Such an exit ends the wait.
        let mask = Mask::new();
        let in_drop = |yes| {
            if let Some(node) = me.raw_node() {
                node.in_drop.set(yes);
            }
        };
        in_drop(true);
        self.successor.set(Successor::Dropper(Waiter::new(me, me.advance_ticket())));
        target.set_exit(exit);
        me.set_wake(Wake::Event);
        if target.state() == State::Ready {
            // Without a main loop this may return at once. The target keeps its place.
            let _ = thread().park(me);
        } else {
            // SAFETY: the running greenlet is left below.
            unsafe { me.set_state(State::Parked) };
            target.advance_ticket();
            target.set_wake(Wake::Exit);
            // SAFETY: the target was suspended before `Away::new`, which calls subscribers. A subscriber cannot switch,
            // so the target is still suspended. If a subscriber has woken the target, it is `Ready` and in the run
            // queue: that is the branch above. Here the target is in no queue. It is not `me`, because `me` runs. The
            // target enters `me` when it has ended. Until then a wake-up with the ticket of `me` may end the park.
            unsafe { thread().switch(me, target) };
        }
        in_drop(false);
        drop(mask);
    }
}
