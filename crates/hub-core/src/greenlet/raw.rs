//! Plain greenlets: switched to by hand, with a parent that gets their result.
//!
//! ```text
//! unstarted ── first switch ──► live: runs ◄── switches ──► suspended ── body ends ──► dead
//!     └──────── an error thrown in, the last handle dropped ───────────────────────────▲
//! ```
//!
//! Handles and children refer to a greenlet by its [`node`].
//!
//! Ground rules: those of [`node`], and
//! - A target is entered in the call that found it suspended, and no foreign code runs in between.

pub(super) mod node;
pub(super) mod route;

use std::fmt;
use std::rc::Rc;

use self::node::{Body, Inbox, Message, Node, Status, Successor};
use self::route::{Route, accept_exit, begin, deliver, release, route};
use super::control::{ControlRef, Kind, State, Wake};
use super::driver::Driver;
use super::exit::Exit;
use super::local;
use super::payload::Payload;
use super::run;
use super::run::queue::thread;
use super::spans;
use crate::base::wait_reason::WaitReason;
use crate::error::{GreenError, GreenletError, LoopError, LoopErrorKind};

/// A plain greenlet: a function with its own stack that switches explicitly. Python's `greenlet`.
///
/// The value is a handle. The function runs when another greenlet switches to it, and stops when it switches away.
///
/// Each greenlet has a parent, at first the greenlet that made it. When the body ends, the parent continues: its
/// pending switch returns the result, or fails with the error or the panic of the body. It does not matter which
/// greenlet switched last. A switch to an ended greenlet goes to its parent. The main greenlet of an OS thread has no
/// parent. Green threads can take part; their parent is the hub.
///
/// A body may call blocking functions. It then parks on the hub like a green thread, and other green threads run. A
/// switch to a parked greenlet is an error until it is woken.
///
/// Handles are counted. Dropping the last handle of a suspended greenlet makes it exit: its pending switch unwinds, and
/// its destructors have run when the drop returns. If the handle is dropped in a callback of the main loop, in a poll
/// of a future or while panicking, or if the greenlet is in a [`shield`](crate::shield()) or in a wait that must not be
/// left early, the exit happens later, as soon as possible. An exit that the body catches is thrown again at the next
/// switch of the greenlet. A greenlet that drops its own last handle runs until it switches away.
///
/// A child counts as a handle of its parent. A greenlet whose own frames hold a handle of itself or of a descendant is
/// therefore kept as long as its OS thread lives, as with [`Rc`]. [`Greenlet::current`] makes the former needless,
/// [`with_parent`](Greenlet::with_parent) the latter.
///
/// At the end of an OS thread its suspended greenlets are abandoned, unless a [shutdown](crate::HubRef::shutdown) has
/// unwound them before. See [`spawn`](crate::spawn).
///
/// ```
/// use greenhub::greenlet::{Greenlet, Payload};
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
/// # Ok::<(), greenhub::GreenError>(())
/// ```
#[doc(alias = "greenlet")]
#[must_use = "the greenlet ends when its last handle is dropped"]
pub struct Greenlet {
    node: Rc<Node>,
}

impl Greenlet {
    /// Creates a greenlet that will run `body` with the first value switched to it. Does not switch.
    ///
    /// Its parent is the running greenlet or, in a callback of the main loop, the hub.
    #[track_caller]
    pub fn new(body: impl FnOnce(Payload) -> Result<Payload, GreenError> + 'static) -> Greenlet {
        let me = run::current();
        let parent = if me.kind() == Kind::MainLoop { None } else { Some(Node::of(me)) };
        Greenlet::make(Box::new(body), parent)
    }

    /// Creates a greenlet like [`new`](Greenlet::new), with the given parent. Does not switch.
    ///
    /// ```
    /// use greenhub::greenlet::{Greenlet, Payload};
    /// let parent = Greenlet::new(|value| Ok(value)); // ends with what its child returns
    /// let child = Greenlet::with_parent(&parent, |_| Ok(Payload::new("from the child")));
    /// assert_eq!(child.switch(Payload::unit())?.downcast::<&str>().unwrap(), "from the child");
    /// assert!(parent.is_dead());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
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

    /// Returns the running greenlet.
    ///
    /// It is a plain one, that of a green thread, the main one or, in a callback, the main loop.
    #[doc(alias = "getcurrent")]
    #[track_caller]
    pub fn current() -> Greenlet {
        Greenlet::from(Node::of(run::current()))
    }

    /// Returns the main greenlet of this OS thread.
    #[track_caller]
    pub fn main() -> Greenlet {
        Greenlet::from(Node::of(local::get().main))
    }

    /// Returns the greenlet that continues when this one has ended.
    ///
    /// Returns `None` for the main greenlet, which has no parent, and if the parent is the main loop: for a green
    /// thread, and for a greenlet made in a callback.
    #[must_use]
    pub fn parent(&self) -> Option<Greenlet> {
        self.node.parent().map(Greenlet::from)
    }

    /// Sets the parent, also of a greenlet that has ended. Switches.
    ///
    /// The greenlet drops its handle of the former parent, which can make that parent exit.
    ///
    /// ```
    /// use greenhub::greenlet::{Greenlet, GreenletError, Payload};
    /// let one = Greenlet::new(|value| Ok(value));
    /// let other = Greenlet::new(|_| Ok(Payload::new(7)));
    /// other.set_parent(&one)?;
    /// assert_eq!(one.set_parent(&other), Err(GreenletError::Cycle));
    /// assert_eq!(other.switch(Payload::unit())?.downcast::<i32>().unwrap(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns one of these errors, and changes nothing then:
    ///
    /// - [`GreenletError::Cycle`] if `parent` is this greenlet or one of its descendants.
    /// - [`GreenletError::Main`] for the main greenlet.
    /// - [`GreenletError::GreenThread`] for a green thread.
    /// - [`GreenletError::MainLoopParent`] for the main loop.
    pub fn set_parent(&self, parent: &Greenlet) -> Result<(), GreenletError> {
        match self.node.kind {
            Kind::Raw => {}
            Kind::Main => return Err(GreenletError::Main),
            Kind::Thread => return Err(GreenletError::GreenThread),
            Kind::MainLoop => return Err(GreenletError::MainLoopParent),
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

    /// Switches to this greenlet and passes `value` to it.
    ///
    /// The pending switch of the target returns `value`, or its body begins with it. The call returns the next value
    /// that is switched to the caller. A switch to the running greenlet itself returns `value`. A switch to an ended
    /// greenlet goes to its parent.
    ///
    /// # Errors
    ///
    /// Returns an error thrown into the caller: by [`throw`](Greenlet::throw), or by a child whose body failed or
    /// panicked. If an exit ends the switch where it must not unwind, as in a shield, returns the error of that exit.
    ///
    /// Returns [`GreenError::Switch`] if there is no greenlet to switch to. `value` is then dropped.
    ///
    /// Returns [`GreenError::Loop`] in a callback of the main loop, in a poll of a future, while panicking, when no
    /// stack is left, and when the OS thread is ending. In the main greenlet, also when the main loop ends or nothing
    /// is left that could ever run the main greenlet.
    // Without optimizations, its frame would be part of that of each caller, and it is large.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn switch(&self, value: Payload) -> Result<Payload, GreenError> {
        let Some((me, target)) = self.suspended() else { return self.deliver(Ok(value)) };
        target.advance_ticket();
        target.put_value(value);
        me.set_wake(Wake::Event);
        // SAFETY: the target is suspended in a switch, so it is in no queue, and is not `me`. It is entered, and the
        // running greenlet is left, right here. `me` is entered by the greenlet that hands it a message or makes it
        // exit. No foreign code has run since `suspended`.
        unsafe {
            target.set_state(State::Running);
            me.set_state(State::Switched);
            thread().switch(me, target);
        }
        match me.take_message() {
            Inbox::Value(value) if !me.has_exit() && me.wake() != Wake::Failed => Ok(value),
            inbox => received(me, inbox),
        }
    }

    /// Returns the running greenlet and this one, if a value can be handed to this one without any of the cases of
    /// [`deliver`](Greenlet::deliver).
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn suspended(&self) -> Option<(ControlRef, ControlRef)> {
        let Status::Live(target) = self.node.status.get() else { return None };
        let me = thread().running()?;
        let special = target.state() != State::Switched
            || target.kind() == Kind::MainLoop
            || run::must_check_switch(me)
            || local::try_get().is_none_or(|local| local.main_loop.in_hub())
            || me.is_unreachable();
        (!special).then_some((me, target))
    }

    /// Switches to this greenlet and makes its pending switch fail with `error`.
    ///
    /// Otherwise like [`switch`](Greenlet::switch). A greenlet that has not begun never does: its body is dropped, and
    /// the error goes to its parent. [`GreenError::Kill`] makes the target exit, see [`kill`](Greenlet::kill).
    ///
    /// ```
    /// use greenhub::GreenError;
    /// use greenhub::greenlet::{Greenlet, Payload};
    /// let main = Greenlet::current();
    /// let other = Greenlet::new(move |_| {
    ///     let thrown = main.switch(Payload::unit()).unwrap_err();
    ///     Ok(Payload::new(thrown.to_string()))
    /// });
    /// other.switch(Payload::unit())?;
    /// let answer = other.throw(GreenError::custom("no"))?;
    /// assert_eq!(answer.downcast::<String>().unwrap(), "no");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`switch`](Greenlet::switch). Returns `error` if it is thrown into the running greenlet itself.
    pub fn throw(&self, error: GreenError) -> Result<Payload, GreenError> {
        self.deliver(Err(error))
    }

    /// Switches to this greenlet and makes it exit. Python's `throw` without arguments.
    ///
    /// Its pending switch unwinds, its destructors run, and its parent continues with a payload for which
    /// [`is_kill`](Payload::is_kill) returns true.
    ///
    /// A greenlet that has not begun never does. For an ended greenlet, the parent receives the payload. The running
    /// greenlet unwinds at once when it kills itself. The main greenlet receives [`GreenError::Kill`] instead.
    ///
    /// ```
    /// use greenhub::greenlet::{Greenlet, Payload};
    /// let main = Greenlet::current();
    /// let other = Greenlet::new(move |_| main.switch(Payload::unit()));
    /// other.switch(Payload::unit())?;
    /// assert!(other.kill()?.is_kill());
    /// assert!(other.is_dead());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`switch`](Greenlet::switch). With `panic = "abort"`, always returns [`GreenletError::Unsupported`].
    pub fn kill(&self) -> Result<Payload, GreenError> {
        self.deliver(Err(GreenError::Kill))
    }

    /// Returns whether the body has begun, or the greenlet has ended before that.
    #[must_use]
    pub fn is_started(&self) -> bool {
        !matches!(self.node.status.get(), Status::Unstarted)
    }

    /// Returns whether the greenlet has ended.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.node.status.get(), Status::Dead)
    }

    /// Returns whether this is the running greenlet.
    #[must_use]
    pub fn is_current(&self) -> bool {
        matches!(self.node.status.get(), Status::Live(control) if control == run::current())
    }

    fn deliver(&self, message: Message) -> Message {
        if cfg!(panic = "abort") && matches!(message, Err(GreenError::Kill)) {
            return Err(GreenletError::Unsupported.into());
        }
        // A handle can outlive the state of its OS thread.
        let Some(local) = local::try_get() else { return Err(LoopError::from(LoopErrorKind::ThreadEnding).into()) };
        let me = run::current();
        run::may_leave(me, WaitReason::Switch)?;
        if local.main_loop.in_hub() {
            return Err(LoopError::in_mainloop(WaitReason::Switch.as_str()).into());
        }
        let target = match self.leave_spans(route(Rc::clone(&self.node), message, me), me) {
            Route::Here(message) => return accept_exit(me, message),
            Route::Hub(_) => return Err(GreenletError::MainLoop.into()),
            Route::Parked(_) => return Err(GreenletError::Parked.into()),
            Route::Enter(target, message) => {
                // SAFETY: the target is entered below, and no foreign code runs before.
                unsafe { deliver(target, message) };
                target
            }
            Route::Begin(node, value) => {
                let stack = local.take_stack(None).inspect_err(|_| spans::entered(me))?;
                let target = begin(local, &node, value);
                // SAFETY: the stack was just taken, and is entered by this context only.
                unsafe {
                    target.set_stack(stack);
                    target.set_context(run::enter_stack(stack));
                }
                target
            }
        };
        me.set_wake(Wake::Event);
        // SAFETY: the running greenlet is left below.
        unsafe { me.set_state(State::Switched) };
        if let Some(node) = me.raw_node()
            && node.handles.get() == 0
        {
            // No handle is left, so no greenlet can switch back: it exits when the run queue gets to it. With
            // `panic = "abort"` it stays suspended.
            node.successor.set(Successor::Hub);
            let _ = run::request_exit(me, Exit::Kill(GreenError::Kill), false);
        }
        // SAFETY: the target is fresh, or suspended in this very place and in no queue, and is not `me`. Since `route`
        // saw that, only `begin` and `request_exit` of `me` ran, and they run no foreign code. `me` is entered by the
        // greenlet that hands it a message or makes it exit.
        unsafe { thread().switch(me, target) };
        received(me, me.take_message())
    }

    /// Exits the spans of the running greenlet if `destination` leads to another one. A subscriber that runs here may
    /// change the route.
    #[cfg(feature = "tracing")]
    fn leave_spans(&self, mut destination: Route, me: ControlRef) -> Route {
        loop {
            let message = match destination {
                Route::Enter(target, message) if !spans::exited(me) => return Route::Enter(target, message),
                Route::Begin(node, value) if !spans::exited(me) => return Route::Begin(node, value),
                Route::Enter(_, message) => message,
                Route::Begin(_, value) => Ok(value),
                destination => {
                    spans::entered(me);
                    return destination;
                }
            };
            run::check_exit();
            destination = route(Rc::clone(&self.node), message, me);
        }
    }

    #[cfg(not(feature = "tracing"))]
    #[inline(always)]
    fn leave_spans(&self, destination: Route, _: ControlRef) -> Route {
        destination
    }
}

/// Returns the result of a switch of `me`, which was entered again. Throws the pending exit unless a mask is in force.
#[cold]
fn received(me: ControlRef, inbox: Inbox) -> Message {
    run::arrive(me)?;
    let refused = || Err(me.held_exit().map_or(GreenletError::ExitRefused.into(), GreenError::from));
    inbox.into_message().unwrap_or_else(refused)
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
    /// Returns whether both are handles of the same greenlet.
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
            Status::Dead if thread().has_ended() => "(thread exited) dead",
            Status::Dead => "dead",
        })?;
        f.write_str(")")
    }
}
