//! Plain greenlets: switched to by hand, with a parent that gets what comes of them.
//!
//! ```text
//! unstarted ── first switch ──► live: runs ◄── switches ──► suspended ── body ends ──► dead
//!     └──────── an error thrown in, the last handle dropped ───────────────────────────▲
//! ```
//!
//! A [`Node`] is what handles and children know of a greenlet. It outlives the control block, which
//! exists only while the greenlet is live; a dead node leads to its parent. Green threads and the main
//! greenlet get a node when somebody asks for a handle.
//!
//! Ground rules:
//! - `status` is `Live` exactly as long as the control block belongs to this greenlet: [`begin`] sets it,
//!   [`run`] and [`Switching::end`] take it back before the block is recycled. So the block of a live
//!   node may always be looked at.
//! - A greenlet in the state `Switched` is suspended in [`Greenlet::deliver`], in no queue, with an empty
//!   inbox. Whoever fills the inbox enters it at once.
//! - `handles` counts handles and children, not the greenlet itself. A node without any is unreachable
//!   from outside; if it is live and suspended it is made to exit.
//! - Foreign code (bodies, destructors, reports) runs on the stack of a greenlet that is `Running`, with
//!   no borrow held, and what was known before it is asked again after it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use super::control::{ControlRef, Doing, Kind, State, Wake};
use super::driver::Driver;
use super::local::{self, Local};
use super::payload::Payload;
use super::run::{self, Mask, Waiter, thread};
use super::spans::{self, Away};
use super::unwind::{Exit, contained, drop_contained};
use crate::error::{GreenError, LoopError, RawError};
use crate::report::{self, Report};
use crate::trace;

/// What a switch carries: a value, or an error for the pending switch of the target.
type Message = Result<Payload, GreenError>;

type Body = Box<dyn FnOnce(Payload) -> Message>;

/// A handle of a plain greenlet: a function with a stack of its own, which runs when somebody switches to
/// it and stops when it switches to somebody else. Python's `greenlet`.
///
/// Each greenlet has a parent, at first the one that made it. When its body ends, its parent goes on: the
/// parent's pending switch returns the result, or fails with the error or the panic of the body, whoever
/// switched to the greenlet last. A greenlet that has ended stands for its parent: a switch to it goes there.
/// The main greenlet of a thread has no parent; green threads can take part, their parent is the hub.
///
/// A body may call what blocks. It then parks on the hub like a green thread, and other green threads run;
/// until it is woken, switching to it is an error.
///
/// Handles are counted. When the last one of a suspended greenlet is dropped, it is made to exit: its
/// pending switch unwinds, and its destructors have run when the drop returns, except in a callback of the
/// main loop, while panicking, and in a wait that must not be left early, where this is done as soon as
/// possible. An exit that the body catches is thrown again at its next switch. A greenlet that drops its own
/// last handle runs on until it switches away. A child counts as a handle of its parent; so one whose own frames
/// hold a handle of itself or of a descendant is kept for as long as its thread lives, as with [`Rc`].
/// [`Greenlet::current`] does without the former, [`with_parent`](Greenlet::with_parent) without the latter.
///
/// At the end of a thread its suspended greenlets are abandoned, unless a [shutdown](crate::HubRef::shutdown) has unwound
/// them before; see [`spawn`](crate::spawn).
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// use hub_core::{Greenlet, Payload};
/// # doctest::run(|| {
/// let main = Greenlet::current();
/// let squares = Greenlet::new(move |_| {
///     for n in 1..=3 {
///         main.switch(Payload::new(n * n))?;
///     }
///     Ok(Payload::new("done"))
/// });
/// for square in [1, 4, 9] {
///     assert_eq!(squares.switch(Payload::unit())?.downcast::<i32>().unwrap(), square);
/// }
/// assert_eq!(squares.switch(Payload::unit())?.downcast::<&str>().unwrap(), "done");
/// assert!(squares.is_dead());
/// # Ok::<(), hub_core::GreenError>(())
/// # }).unwrap();
/// ```
pub struct Greenlet {
    node: Rc<Node>,
}

struct Node {
    kind: Kind,
    status: Cell<Status>,
    handles: Cell<usize>,
    /// `None` stands for the hub, and for nobody in the case of the main greenlet.
    parent: RefCell<Option<Rc<Node>>>,
    /// What it is to run, until it begins.
    body: Cell<Option<Body>>,
    heir: Cell<Heir>,
    /// It waits for one whose last handle it dropped.
    in_drop: Cell<bool>,
    /// Lost their last handle while this one was panicking; they exit when it ends.
    orphans: RefCell<Vec<Rc<Node>>>,
    made_at: &'static Location<'static>,
}

#[derive(Copy, Clone)]
enum Status {
    Unstarted,
    Live(ControlRef),
    Dead,
}

/// Who goes on when a greenlet has ended.
#[derive(Copy, Clone)]
enum Heir {
    Parent,
    /// Waits in the drop of the last handle; gets no result.
    Dropper(Waiter),
    /// Whoever is next in the run queue.
    Hub,
}

/// The part of a control block that raw switches use.
#[derive(Default)]
pub(super) struct Switching {
    node: RefCell<Option<Rc<Node>>>,
    /// What the pending switch returns.
    inbox: Cell<Option<Message>>,
}

/// Where a message leads.
enum Way {
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

impl Greenlet {
    /// A greenlet that will run `body` with the first value that is switched to it. Its parent is the running
    /// greenlet. Never switches.
    #[track_caller]
    #[must_use]
    pub fn new(body: impl FnOnce(Payload) -> Result<Payload, GreenError> + 'static) -> Greenlet {
        let me = run::current();
        let parent = if me.kind() == Kind::Mainloop { None } else { Some(Node::of(me)) };
        Greenlet::make(Box::new(body), parent)
    }

    /// Like [`new`](Greenlet::new), with a parent of your choice. Never switches.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::{Greenlet, Payload};
    /// let parent = Greenlet::new(|value| Ok(value)); // ends with what its child returns
    /// let child = Greenlet::with_parent(&parent, |_| Ok(Payload::new("from the child")));
    /// assert_eq!(child.switch(Payload::unit())?.downcast::<&str>().unwrap(), "from the child");
    /// assert!(parent.is_dead());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[track_caller]
    #[must_use]
    pub fn with_parent(
        parent: &Greenlet,
        body: impl FnOnce(Payload) -> Result<Payload, GreenError> + 'static,
    ) -> Greenlet {
        Greenlet::make(Box::new(body), Some(Rc::clone(&parent.node)))
    }

    #[track_caller]
    fn make(body: Body, parent: Option<Rc<Node>>) -> Greenlet {
        let node = Node::new(Kind::Raw, Status::Unstarted);
        node.body.set(Some(body));
        node.set_parent(parent);
        Greenlet::from(Rc::new(node))
    }

    /// The running greenlet: a plain one, a green thread's, or the main one.
    #[track_caller]
    #[must_use]
    pub fn current() -> Greenlet {
        Greenlet::from(Node::of(run::current()))
    }

    /// The main greenlet of this thread.
    #[track_caller]
    #[must_use]
    pub fn main() -> Greenlet {
        Greenlet::from(Node::of(local::get().main))
    }

    /// Who goes on when this one has ended. `None`: the main greenlet has no parent, and that of a green
    /// thread is the hub.
    #[must_use]
    pub fn parent(&self) -> Option<Greenlet> {
        self.node.parent().map(Greenlet::from)
    }

    /// Gives it another parent, also after it has ended. The handle that it has of the former one is dropped,
    /// so this can switch.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::{Greenlet, Payload, RawError};
    /// let one = Greenlet::new(|value| Ok(value));
    /// let other = Greenlet::new(|_| Ok(Payload::new(7)));
    /// other.set_parent(&one)?;
    /// assert_eq!(one.set_parent(&other), Err(RawError::Cycle));
    /// assert_eq!(other.switch(Payload::unit())?.downcast::<i32>().unwrap(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`RawError::Cycle`] if `parent` is this greenlet or one that descends from it, [`RawError::Main`] for
    /// the main greenlet, [`RawError::GreenThread`] for a green thread. Nothing changes then.
    pub fn set_parent(&self, parent: &Greenlet) -> Result<(), RawError> {
        match self.node.kind {
            Kind::Raw => {}
            Kind::Main => return Err(RawError::Main),
            Kind::Thread => return Err(RawError::GreenThread),
            Kind::Mainloop => return Err(RawError::Hub),
        }
        let mut ancestor = Some(Rc::clone(&parent.node));
        while let Some(node) = ancestor {
            if Rc::ptr_eq(&node, &self.node) {
                return Err(RawError::Cycle);
            }
            ancestor = node.parent();
        }
        self.node.set_parent(Some(Rc::clone(&parent.node)));
        Ok(())
    }

    /// Switches to it. Its pending switch returns `value`, or its body begins with it. Returns when somebody
    /// switches back here, with what they brought.
    ///
    /// A switch to oneself returns `value`; one to a greenlet that has ended goes to its parent.
    ///
    /// # Errors
    ///
    /// What was thrown in here instead: by [`throw`](Greenlet::throw), or by a child whose body failed or
    /// panicked. [`GreenError::Switch`] if there is nobody to switch to, which drops `value`;
    /// [`GreenError::Loop`] in a callback of the main loop, while panicking, when no stack is left, when the
    /// thread is ending, and in the main greenlet when the main loop ends or nothing is left that could ever
    /// run it.
    pub fn switch(&self, value: Payload) -> Result<Payload, GreenError> {
        self.deliver(Ok(value))
    }

    /// Switches to it and has its pending switch fail with `error`. Otherwise like
    /// [`switch`](Greenlet::switch).
    ///
    /// One that has not begun never does: its body is dropped, and the error goes to its parent.
    /// [`GreenError::Exit`] makes it exit, see [`kill`](Greenlet::kill).
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::{GreenError, Greenlet, Payload};
    /// let main = Greenlet::current();
    /// let other = Greenlet::new(move |_| {
    ///     let thrown = main.switch(Payload::unit()).unwrap_err();
    ///     Ok(Payload::new(thrown.to_string()))
    /// });
    /// other.switch(Payload::unit())?;
    /// let answer = other.throw(GreenError::custom("no"))?;
    /// assert_eq!(answer.downcast::<String>().unwrap(), "no");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`switch`](Greenlet::switch); thrown into oneself, `error` itself.
    pub fn throw(&self, error: GreenError) -> Result<Payload, GreenError> {
        self.deliver(Err(error))
    }

    /// Switches to it and makes it exit: its pending switch unwinds, its destructors run, and its parent goes
    /// on with a payload that [says so](Payload::is_exit). Python's `throw` without arguments.
    ///
    /// One that has not begun never does. One that has ended is an alias of its parent, which gets the payload
    /// returned. Killing oneself unwinds at once; the main greenlet gets [`GreenError::Exit`] instead.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::{Greenlet, Payload};
    /// let main = Greenlet::current();
    /// let other = Greenlet::new(move |_| main.switch(Payload::unit()));
    /// other.switch(Payload::unit())?;
    /// assert!(other.kill()?.is_exit());
    /// assert!(other.is_dead());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`switch`](Greenlet::switch); with `panic = "abort"` always [`RawError::Unsupported`].
    pub fn kill(&self) -> Result<Payload, GreenError> {
        self.deliver(Err(GreenError::Exit))
    }

    /// Whether it has begun, or has ended before it could.
    #[must_use]
    pub fn is_started(&self) -> bool {
        !matches!(self.node.status.get(), Status::Unstarted)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.node.status.get(), Status::Dead)
    }

    /// Whether it is the one that runs.
    #[must_use]
    pub fn is_current(&self) -> bool {
        matches!(self.node.status.get(), Status::Live(control) if control == run::current())
    }

    fn deliver(&self, message: Message) -> Message {
        if cfg!(panic = "abort") && matches!(message, Err(GreenError::Exit)) {
            return Err(RawError::Unsupported.into());
        }
        // A handle can outlive the state of its thread.
        let Some(local) = local::try_get() else { return Err(LoopError::ThreadEnding.into()) };
        let me = run::current();
        run::may_leave(me, Doing::Switch).map_err(|error| *error)?;
        if local.main_loop.in_hub() {
            return Err(LoopError::InMainloop { doing: Doing::Switch.as_str() }.into());
        }
        let target = match self.leave_spans(route(Rc::clone(&self.node), message, me), me) {
            Way::Here(message) => return take_here(me, message),
            Way::Hub(_) => return Err(RawError::Hub.into()),
            Way::Parked(_) => return Err(RawError::Parked.into()),
            Way::Enter(target, message) => {
                hand(target, message);
                target
            }
            Way::Begin(node, value) => {
                let stack = local.take_stack(None).inspect_err(|_| spans::entered(me))?;
                let target = begin(local, &node, value);
                target.stack.set(Some(stack));
                target.context.set(local::enter_stack(stack));
                target
            }
        };
        me.wake.set(Wake::Event);
        me.state.set(State::Switched);
        if let Some(node) = me.raw_node()
            && node.handles.get() == 0
            && !cfg!(panic = "abort")
        {
            // Nobody can ever switch back: it exits when the run queue gets to it.
            node.heir.set(Heir::Hub);
            let _ = run::interrupt(me, Exit::Kill(GreenError::Exit), false);
        }
        // SAFETY: the target is fresh, or suspended in this very place and in no queue, and is not `me`.
        // Nothing ran since `route` saw that but `begin` and `interrupt` of `me`, which run no foreign
        // code. `me` is entered by whoever hands it a message or makes it exit.
        unsafe { thread().switch(me, target) };
        let message = me.switching().inbox.take();
        run::arrive(me).map_err(|error| *error)?;
        message.unwrap_or_else(|| Err(me.held_exit().map_or(RawError::Interrupted.into(), GreenError::from)))
    }

    /// Exits the spans of the running greenlet if `way` leads to another. Who is told of it may change where it leads.
    #[cfg(feature = "tracing")]
    fn leave_spans(&self, mut way: Way, me: ControlRef) -> Way {
        loop {
            let message = match way {
                Way::Enter(target, message) if !spans::exited(me) => return Way::Enter(target, message),
                Way::Begin(node, value) if !spans::exited(me) => return Way::Begin(node, value),
                Way::Enter(_, message) => message,
                Way::Begin(_, value) => Ok(value),
                way => {
                    spans::entered(me);
                    return way;
                }
            };
            run::check_exit();
            way = route(Rc::clone(&self.node), message, me);
        }
    }

    #[cfg(not(feature = "tracing"))]
    #[inline(always)]
    fn leave_spans(&self, way: Way, _: ControlRef) -> Way {
        way
    }
}

/// Follows the parents of those that cannot take a message. An error ends those that have not begun.
fn route(mut node: Rc<Node>, mut message: Message, me: ControlRef) -> Way {
    loop {
        match node.status.get() {
            Status::Live(control) if control == me => return Way::Here(message),
            Status::Live(control) => {
                return match control.state() {
                    _ if control.kind() == Kind::Mainloop => Way::Hub(message),
                    State::Switched => Way::Enter(control, message),
                    _ => Way::Parked(message),
                };
            }
            Status::Unstarted => match message {
                Ok(value) => return Way::Begin(node, value),
                Err(_) => node.drop_body(),
            },
            Status::Dead => {}
        }
        message = returned(message);
        match node.parent() {
            Some(parent) => node = parent,
            None => return Way::Hub(message),
        }
    }
}

/// What the end of a greenlet with `message` means to its parent.
fn returned(message: Message) -> Message {
    match message {
        Err(GreenError::Exit) => Ok(Payload::exit()),
        message => message,
    }
}

fn take_here(me: ControlRef, message: Message) -> Message {
    if let Err(GreenError::Exit) = message
        && me.kind() != Kind::Main
    {
        run::exit_now(Exit::Kill(GreenError::Exit));
    }
    message
}

/// Ends the switch in which a greenlet is suspended. The caller enters it.
fn hand(target: ControlRef, message: Message) {
    target.ticket.set(target.ticket() + 1);
    match message {
        Err(GreenError::Exit) if target.kind() != Kind::Main => drop(target.set_exit(Exit::Kill(GreenError::Exit))),
        message => target.switching().inbox.set(Some(message)),
    }
    target.state.set(State::Running);
}

/// Gives one that has not begun a control block, and a value to begin with. The caller enters it.
fn begin(local: &Local, node: &Rc<Node>, value: Payload) -> ControlRef {
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
pub(super) fn run(me: ControlRef) -> Option<ControlRef> {
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

    let way = match (node.heir.get(), node.parent()) {
        (Heir::Parent, Some(parent)) => route(parent, returned(message), me),
        _ => Way::Hub(returned(message)),
    };
    let next = match way {
        Way::Enter(target, message) => {
            hand(target, message);
            Some(target)
        }
        Way::Begin(parent, value) => Some(begin(local::get(), &parent, value)),
        Way::Here(message) | Way::Parked(message) | Way::Hub(message) => {
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
    match node.heir.get() {
        Heir::Dropper(waiter) if next.is_none() => claim(waiter),
        Heir::Dropper(waiter) => {
            // It came while a body above was being dropped; what came of this one has gone to the parent.
            waiter.wake();
            next
        }
        _ => next,
    }
}

/// Ends the park of one that waits in a drop, if it still does. The caller enters it.
fn claim(waiter: Waiter) -> Option<ControlRef> {
    let dropper = waiter.control();
    if dropper.ticket() != waiter.ticket() || dropper.state() != State::Parked {
        return None;
    }
    dropper.ticket.set(waiter.ticket() + 1);
    dropper.wake.set(Wake::Event);
    Some(dropper)
}

/// A greenlet without handles does not end though it was made to: the one that waits for that in a drop goes on.
pub(super) fn release_dropper(me: ControlRef) {
    if let Some(node) = me.raw_node()
        && let Heir::Dropper(waiter) = node.heir.get()
    {
        node.heir.set(Heir::Hub);
        waiter.wake();
    }
}

/// A handle or a child is gone. Goes up to the parent if this was the last one of a greenlet that is not live.
fn release(mut node: Rc<Node>) {
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
    fn new(kind: Kind, status: Status) -> Node {
        Node {
            kind,
            status: Cell::new(status),
            handles: Cell::new(0),
            parent: RefCell::new(None),
            body: Cell::new(None),
            heir: Cell::new(Heir::Parent),
            in_drop: Cell::new(false),
            orphans: RefCell::default(),
            made_at: Location::caller(),
        }
    }

    /// The node of a greenlet that lives, made now if nobody asked for it before.
    #[track_caller]
    fn of(control: ControlRef) -> Rc<Node> {
        let mut node = control.switching().node.borrow_mut();
        let node = node.get_or_insert_with(|| Rc::new(Node::new(control.kind(), Status::Live(control))));
        Rc::clone(node)
    }

    fn parent(&self) -> Option<Rc<Node>> {
        self.parent.borrow().clone()
    }

    fn set_parent(&self, parent: Option<Rc<Node>>) {
        if let Some(parent) = &parent {
            parent.handles.set(parent.handles.get() + 1);
        }
        let former = self.parent.replace(parent);
        if let Some(former) = former {
            release(former);
        }
    }

    /// Ends it if it has not begun.
    fn drop_body(&self) {
        self.status.set(Status::Dead);
        if let Some(body) = self.body.take()
            && let Err(error) = contained(|| drop(body))
        {
            self.report(error);
        }
    }

    /// Drops what nobody waits for.
    fn discard(&self, message: Message) {
        match message {
            Ok(value) => drop_contained(value),
            // Ended from outside: whoever did it knows.
            Err(GreenError::Exit | GreenError::Loop(_)) => {}
            Err(error) => self.report(error),
        }
    }

    fn report(&self, error: GreenError) {
        report::tell(Report::GreenletFailed { made_at: self.made_at.to_string(), error });
    }

    /// Makes a suspended greenlet exit that nobody has a handle of. The running one waits until it has ended,
    /// where that is possible.
    fn end_unless_held(self: &Rc<Self>) {
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
        let shut_in = me.kind() == Kind::Mainloop || trace::is_telling() || local::get().main_loop.in_hub();
        let shielded = target.is_shielded_from(&exit);
        if panicking || shut_in || target.is_masked() || shielded {
            self.heir.set(Heir::Hub);
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
        self.heir.set(Heir::Dropper(Waiter::new(me, me.ticket())));
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
    fn node(&self) -> Option<Rc<Node>> {
        self.node.borrow().clone()
    }

    /// The control block is about to be recycled.
    pub(super) fn end(&self) {
        // A node that is freed here has neither body nor parent.
        let node = self.node.take();
        if let Some(node) = node {
            node.status.set(Status::Dead);
        }
    }
}

impl ControlRef {
    fn raw_node(self) -> Option<Rc<Node>> {
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

impl From<Rc<Node>> for Greenlet {
    fn from(node: Rc<Node>) -> Greenlet {
        node.handles.set(node.handles.get() + 1);
        Greenlet { node }
    }
}

impl Clone for Greenlet {
    fn clone(&self) -> Greenlet {
        Greenlet::from(Rc::clone(&self.node))
    }
}

impl PartialEq for Greenlet {
    /// Whether both are handles of the same greenlet.
    fn eq(&self, other: &Greenlet) -> bool {
        Rc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for Greenlet {}

impl Drop for Greenlet {
    fn drop(&mut self) {
        release(Rc::clone(&self.node));
    }
}

impl fmt::Debug for Greenlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Greenlet(")?;
        if self.node.kind == Kind::Main {
            f.write_str("main ")?;
        }
        f.write_str(match self.node.status.get() {
            Status::Unstarted => "pending",
            Status::Live(control) if control == run::current() => "current active started",
            Status::Live(_) => "suspended active started",
            Status::Dead if thread().ended.get() => "(thread exited) dead",
            Status::Dead => "dead",
        })?;
        f.write_str(")")
    }
}
