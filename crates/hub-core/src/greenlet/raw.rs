//! Plain greenlets: switched to by hand, with a parent that gets what comes of them.
//!
//! ```text
//! unstarted ── first switch ──► live: runs ◄── switches ──► suspended ── body ends ──► dead
//!     └──────── an error thrown in, the last handle dropped ───────────────────────────▲
//! ```
//!
//! What handles and children know of a greenlet is its [`node`].
//!
//! Ground rules: those of [`node`], and
//! - A target is entered in the call that has found it suspended, and no foreign code runs in between.

mod node;

use std::fmt;
use std::rc::Rc;

use self::node::{Body, Message, Node, Route, Status, Successor, accept_exit, begin, deliver, release, route};
use super::control::{ControlRef, Kind, State, Wake};
use super::driver::Driver;
use super::local::{self};
use super::payload::Payload;
use super::run::{self, thread};
use super::spans::{self};
use super::unwind::Exit;
use crate::base::wait_reason::WaitReason;
use crate::error::{GreenError, GreenletError, LoopError};

pub(super) use self::node::{Switching, release_dropper, run_raw};

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
    /// use hub_core::{Greenlet, Payload, GreenletError};
    /// let one = Greenlet::new(|value| Ok(value));
    /// let other = Greenlet::new(|_| Ok(Payload::new(7)));
    /// other.set_parent(&one)?;
    /// assert_eq!(one.set_parent(&other), Err(GreenletError::Cycle));
    /// assert_eq!(other.switch(Payload::unit())?.downcast::<i32>().unwrap(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`GreenletError::Cycle`] if `parent` is this greenlet or one that descends from it, [`GreenletError::Main`] for
    /// the main greenlet, [`GreenletError::GreenThread`] for a green thread. Nothing changes then.
    pub fn set_parent(&self, parent: &Greenlet) -> Result<(), GreenletError> {
        match self.node.kind {
            Kind::Raw => {}
            Kind::Main => return Err(GreenletError::Main),
            Kind::Thread => return Err(GreenletError::GreenThread),
            Kind::Mainloop => return Err(GreenletError::Hub),
        }
        let mut ancestor = Some(Rc::clone(&parent.node));
        while let Some(node) = ancestor {
            if Rc::ptr_eq(&node, &self.node) {
                return Err(GreenletError::Cycle);
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
    /// As [`switch`](Greenlet::switch); with `panic = "abort"` always [`GreenletError::Unsupported`].
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
            return Err(GreenletError::Unsupported.into());
        }
        // A handle can outlive the state of its thread.
        let Some(local) = local::try_get() else { return Err(LoopError::ThreadEnding.into()) };
        let me = run::current();
        run::may_leave(me, WaitReason::Switch).map_err(|error| *error)?;
        if local.main_loop.in_hub() {
            return Err(LoopError::InMainloop { doing: WaitReason::Switch.as_str() }.into());
        }
        let target = match self.leave_spans(route(Rc::clone(&self.node), message, me), me) {
            Route::Here(message) => return accept_exit(me, message),
            Route::Hub(_) => return Err(GreenletError::Hub.into()),
            Route::Parked(_) => return Err(GreenletError::Parked.into()),
            Route::Enter(target, message) => {
                deliver(target, message);
                target
            }
            Route::Begin(node, value) => {
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
            node.successor.set(Successor::Hub);
            let _ = run::interrupt(me, Exit::Kill(GreenError::Exit), false);
        }
        // SAFETY: the target is fresh, or suspended in this very place and in no queue, and is not `me`.
        // Nothing ran since `route` saw that but `begin` and `interrupt` of `me`, which run no foreign
        // code. `me` is entered by whoever hands it a message or makes it exit.
        unsafe { thread().switch(me, target) };
        let message = me.switching().inbox.take();
        run::arrive(me).map_err(|error| *error)?;
        message.unwrap_or_else(|| Err(me.held_exit().map_or(GreenletError::Interrupted.into(), GreenError::from)))
    }

    /// Exits the spans of the running greenlet if `way` leads to another. Who is told of it may change where it leads.
    #[cfg(feature = "tracing")]
    fn leave_spans(&self, mut way: Route, me: ControlRef) -> Route {
        loop {
            let message = match way {
                Route::Enter(target, message) if !spans::exited(me) => return Route::Enter(target, message),
                Route::Begin(node, value) if !spans::exited(me) => return Route::Begin(node, value),
                Route::Enter(_, message) => message,
                Route::Begin(_, value) => Ok(value),
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
    fn leave_spans(&self, way: Route, _: ControlRef) -> Route {
        way
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
