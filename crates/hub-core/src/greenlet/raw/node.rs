//! The node of a plain greenlet, and where a switch, an error and an end lead.
//!
//! A [`Node`] is what handles and children know of a greenlet. It outlives the control block, which
//! exists only while the greenlet is live; a dead node leads to its parent. Green threads and the main
//! greenlet get a node when somebody asks for a handle.
//!
//! Ground rules:
//! - `status` is `Live` exactly as long as the control block belongs to this greenlet: [`begin`] sets it,
//!   [`run_raw`] and [`Switching::end`] take it back before the block is recycled. So the block of a live
//!   node may always be looked at.
//! - A greenlet in the state `Switched` is suspended in [`Greenlet::deliver`](crate::Greenlet::deliver), in no queue, with an empty
//!   inbox. Whoever fills the inbox enters it at once.
//! - `handles` counts handles and children, not the greenlet itself. A node without any is unreachable
//!   from outside; if it is live and suspended it is made to exit.
//! - Foreign code (bodies, destructors, reports) runs on the stack of a greenlet that is `Running`, with
//!   no borrow held, and what was known before it is asked again after it.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::rc::Rc;

use super::super::control::{ControlRef, Kind, State, Wake};
use super::super::driver::Driver;
use super::super::local::{self, Local};
use super::super::payload::Payload;
use super::super::run::{self, Mask, Waiter, thread};
use super::super::spans::Away;
use super::super::trace;
use super::super::unwind::{Exit, contained, drop_contained};
use crate::error::GreenError;
use crate::report::{self, Report};

/// What a switch carries: a value, or an error for the pending switch of the target.
pub(super) type Message = Result<Payload, GreenError>;

pub(super) type Body = Box<dyn FnOnce(Payload) -> Message>;

pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) status: Cell<Status>,
    pub(super) handles: Cell<usize>,
    /// `None` stands for the hub, and for nobody in the case of the main greenlet.
    pub(super) parent: RefCell<Option<Rc<Node>>>,
    /// What it is to run, until it begins.
    pub(super) body: Cell<Option<Body>>,
    pub(super) successor: Cell<Successor>,
    /// It waits for one whose last handle it dropped.
    pub(super) in_drop: Cell<bool>,
    /// Lost their last handle while this one was panicking; they exit when it ends.
    pub(super) orphans: RefCell<Vec<Rc<Node>>>,
    pub(super) made_at: &'static Location<'static>,
}

#[derive(Copy, Clone)]
pub(super) enum Status {
    Unstarted,
    Live(ControlRef),
    Dead,
}

/// Who goes on when a greenlet has ended.
#[derive(Copy, Clone)]
pub(super) enum Successor {
    Parent,
    /// Waits in the drop of the last handle; gets no result.
    Dropper(Waiter),
    /// Whoever is next in the run queue.
    Hub,
}

/// The part of a control block that raw switches use.
#[derive(Default)]
pub(in super::super) struct Switching {
    pub(super) node: RefCell<Option<Rc<Node>>>,
    /// What the pending switch returns.
    pub(super) inbox: Cell<Option<Message>>,
}

/// Where a message leads.
pub(super) enum Route {
    /// To the running greenlet.
    Here(Message),
    /// To one that is suspended in a switch.
    Enter(ControlRef, Message),
    /// To one that begins with it.
    Begin(Rc<Node>, Payload),
    /// To one that only the hub may enter.
    Parked(Message),
    /// To the main loop.
    Hub(Message),
}

/// Follows the parents of those that cannot take a message. An error ends those that have not begun.
pub(super) fn route(mut node: Rc<Node>, mut message: Message, me: ControlRef) -> Route {
    loop {
        match node.status.get() {
            Status::Live(control) if control == me => return Route::Here(message),
            Status::Live(control) => {
                return match control.state() {
                    _ if control.kind() == Kind::Mainloop => Route::Hub(message),
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

/// What the end of a greenlet with `message` means to its parent.
pub(super) fn returned(message: Message) -> Message {
    match message {
        Err(GreenError::Exit) => Ok(Payload::exit()),
        message => message,
    }
}

pub(super) fn accept_exit(me: ControlRef, message: Message) -> Message {
    if let Err(GreenError::Exit) = message
        && me.kind() != Kind::Main
    {
        run::exit_now(Exit::Kill(GreenError::Exit));
    }
    message
}

/// Ends the switch in which a greenlet is suspended. The caller enters it.
pub(super) fn deliver(target: ControlRef, message: Message) {
    target.ticket.set(target.ticket() + 1);
    match message {
        Err(GreenError::Exit) if target.kind() != Kind::Main => drop(target.set_exit(Exit::Kill(GreenError::Exit))),
        message => target.switching().inbox.set(Some(message)),
    }
    target.state.set(State::Running);
}

/// Gives one that has not begun a control block, and a value to begin with. The caller enters it.
pub(super) fn begin(local: &Local, node: &Rc<Node>, value: Payload) -> ControlRef {
    let control = local.controls.take(Kind::Raw, local.main_loop.last_stamp());
    control.state.set(State::Unstarted);
    node.status.set(Status::Live(control));
    let switching = control.switching();
    *switching.node.borrow_mut() = Some(Rc::clone(node));
    switching.inbox.set(Some(Ok(value)));
    control
}

/// Runs the body of `me`, which is current, and hands on what comes of it. Returns whom to enter: suspended,
/// or in the state Unstarted, to be run on the same stack; `None` leaves it to the run queue. Never unwinds.
pub(in super::super) fn run_raw(me: ControlRef) -> Option<ControlRef> {
    let node = me.raw_node().expect("a plain greenlet has its node until it ends");
    let body = node.body.take().expect("a greenlet begins once");
    let value = me.switching().inbox.take().expect("a greenlet begins with a value");
    let message = contained(|| body(value?)).and_then(|message| message);
    // What was pending concerned the body; destructors may switch and block again.
    me.clear_exits();
    me.drop_locals();
    loop {
        let orphan = node.orphans.borrow_mut().pop();
        match orphan {
            Some(orphan) => orphan.end_unless_held(),
            None => break,
        }
    }

    let way = match (node.successor.get(), node.parent()) {
        (Successor::Parent, Some(parent)) => route(parent, returned(message), me),
        _ => Route::Hub(returned(message)),
    };
    let next = match way {
        Route::Enter(target, message) => {
            deliver(target, message);
            Some(target)
        }
        Route::Begin(parent, value) => Some(begin(local::get(), &parent, value)),
        Route::Here(message) | Route::Parked(message) | Route::Hub(message) => {
            node.discard(message);
            None
        }
    };
    // Nobody can ask for the parent any more. The one that is entered counts as running already, so
    // nothing makes it exit, and those between it and here are dead: with a target nothing foreign runs.
    if node.handles.get() == 0
        && let Some(parent) = node.parent.take()
    {
        release(parent);
    }
    node.status.set(Status::Dead);
    me.switching().end();
    match node.successor.get() {
        Successor::Dropper(waiter) if next.is_none() => take_waiter(waiter),
        Successor::Dropper(waiter) => {
            // It came while a body above was being dropped; what came of this one has gone to the parent.
            waiter.wake();
            next
        }
        _ => next,
    }
}

/// Ends the park of one that waits in a drop, if it still does. The caller enters it.
pub(super) fn take_waiter(waiter: Waiter) -> Option<ControlRef> {
    let dropper = waiter.control();
    if dropper.ticket() != waiter.ticket() || dropper.state() != State::Parked {
        return None;
    }
    dropper.ticket.set(waiter.ticket() + 1);
    dropper.wake.set(Wake::Event);
    Some(dropper)
}

/// A greenlet without handles does not end though it was made to: the one that waits for that in a drop goes on.
pub(in super::super) fn release_dropper(me: ControlRef) {
    if let Some(node) = me.raw_node()
        && let Successor::Dropper(waiter) = node.successor.get()
    {
        node.successor.set(Successor::Hub);
        waiter.wake();
    }
}

/// A handle or a child is gone. Goes up to the parent if this was the last one of a greenlet that is not live.
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
    #[track_caller]
    pub(super) fn new(kind: Kind, status: Status) -> Node {
        Node {
            kind,
            status: Cell::new(status),
            handles: Cell::new(0),
            parent: RefCell::new(None),
            body: Cell::new(None),
            successor: Cell::new(Successor::Parent),
            in_drop: Cell::new(false),
            orphans: RefCell::default(),
            made_at: Location::caller(),
        }
    }

    /// The node of a greenlet that lives, made now if nobody asked for it before.
    #[track_caller]
    pub(super) fn of(control: ControlRef) -> Rc<Node> {
        let mut node = control.switching().node.borrow_mut();
        let node = node.get_or_insert_with(|| Rc::new(Node::new(control.kind(), Status::Live(control))));
        Rc::clone(node)
    }

    pub(super) fn parent(&self) -> Option<Rc<Node>> {
        self.parent.borrow().clone()
    }

    pub(super) fn set_parent(&self, parent: Option<Rc<Node>>) {
        if let Some(parent) = &parent {
            parent.handles.set(parent.handles.get() + 1);
        }
        let former = self.parent.replace(parent);
        if let Some(former) = former {
            release(former);
        }
    }

    /// Ends it if it has not begun.
    pub(super) fn drop_body(&self) {
        self.status.set(Status::Dead);
        if let Some(body) = self.body.take()
            && let Err(error) = contained(|| drop(body))
        {
            self.report(error);
        }
    }

    /// Drops what nobody waits for.
    pub(super) fn discard(&self, message: Message) {
        match message {
            Ok(value) => drop_contained(value),
            // Ended from outside: whoever did it knows.
            Err(GreenError::Exit | GreenError::Loop(_)) => {}
            Err(error) => self.report(error),
        }
    }

    pub(super) fn report(&self, error: GreenError) {
        report::tell(Report::GreenletFailed { made_at: self.made_at.to_string(), error });
    }

    /// Makes a suspended greenlet exit that nobody has a handle of. The running one waits until it has ended,
    /// where that is possible.
    pub(super) fn end_unless_held(self: &Rc<Self>) {
        let Status::Live(target) = self.status.get() else { return };
        if self.kind != Kind::Raw || self.handles.get() != 0 || cfg!(panic = "abort") {
            return;
        }
        // One that runs, is about to or waits in a drop goes on. In a thread that has ended nothing is entered any more.
        if !target.is_suspended() || self.in_drop.get() || local::has_ended() {
            return;
        }
        let me = run::current();
        let panicking = std::thread::panicking();
        if panicking && let Some(node) = me.raw_node() {
            node.orphans.borrow_mut().push(Rc::clone(self));
            return;
        }
        let exit = Exit::Kill(GreenError::Exit);
        let call_guarded = me.kind() == Kind::Mainloop || trace::is_telling() || local::get().main_loop.in_hub();
        let shielded = target.is_shielded_from(&exit);
        if panicking || call_guarded || target.is_masked() || shielded {
            self.successor.set(Successor::Hub);
            // Queued, not switched to: errors are impossible.
            let _ = run::interrupt(target, exit, false);
            if shielded && target.state() == State::Switched {
                // Nothing can switch to it any more, so its switch ends with the exit as an error.
                target.set_parked();
                Waiter::new(target, target.ticket()).wake_with(Wake::Exit);
            }
            return;
        }
        let _away = Away::new();
        // A drop cannot unwind because of an exit of its own; one that comes up ends the wait.
        let mask = Mask::new();
        let in_drop = |yes| {
            if let Some(node) = me.raw_node() {
                node.in_drop.set(yes);
            }
        };
        in_drop(true);
        self.successor.set(Successor::Dropper(Waiter::new(me, me.ticket())));
        target.set_exit(exit);
        me.wake.set(Wake::Event);
        me.state.set(State::Parked);
        if target.state() == State::Ready {
            // Without a main loop to go to this returns at once; the target keeps its place.
            let _ = thread().leave(me);
        } else {
            target.ticket.set(target.ticket() + 1);
            target.wake.set(Wake::Exit);
            // SAFETY: the target is suspended, in no queue, and is not `me`, which runs. It enters `me` when
            // it has ended; until then others may wake `me` by its ticket.
            unsafe { thread().switch(me, target) };
        }
        in_drop(false);
        drop(mask);
    }
}

impl Switching {
    pub(super) fn node(&self) -> Option<Rc<Node>> {
        self.node.borrow().clone()
    }

    /// The control block is about to be recycled.
    pub(in super::super) fn end(&self) {
        // A node that is freed here has neither body nor parent.
        let node = self.node.take();
        if let Some(node) = node {
            node.status.set(Status::Dead);
        }
    }
}

impl ControlRef {
    pub(super) fn raw_node(self) -> Option<Rc<Node>> {
        if self.kind() != Kind::Raw {
            return None;
        }
        self.try_switching()?.node()
    }

    /// A plain greenlet in words.
    pub(crate) fn describe_raw(self) -> Option<String> {
        Some(format!("a greenlet made at {}", self.made_at()?))
    }

    /// Where a plain greenlet was made.
    pub(crate) fn made_at(self) -> Option<&'static Location<'static>> {
        Some(self.raw_node()?.made_at)
    }
}
