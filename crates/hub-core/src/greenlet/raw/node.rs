//! The node of a plain greenlet, by which handles and children refer to it.
//!
//! A node outlives the control block, which exists only while the greenlet is live. A dead node leads to its parent.
//! Green threads and the main greenlet get a node when a handle of them is first needed. The [routes](mod@super::route)
//! of messages follow the nodes.
//!
//! Ground rules:
//! - `status` is `Live` only while the control block belongs to this greenlet. [`begin`](super::route::begin) sets it,
//!   and [`Node::of`] does for greenlets of other kinds. [`run_raw`](super::route::run_raw) and [`Switching::end`]
//!   reset it before the block is recycled; `drop_cold` calls the latter at the end of every greenlet. So the block of
//!   a live node may always be read.
//! - A greenlet in the state `Switched`, other than the main loop, is suspended in
//!   [`Greenlet::switch`](crate::Greenlet::switch) or its general form `deliver`, in no queue, with an empty inbox:
//!   each of them empties it first when it is resumed. The code that fills the inbox enters the greenlet at once.
//! - `handles` counts handles and children, not the greenlet itself. A node without any is unreachable from outside; if
//!   it is live and suspended it is made to exit.
//! - Foreign code (bodies, destructors, reports) runs on the stack of a greenlet that is `Running`, with no borrow
//!   held. State that was read before foreign code is read again after it.

use std::cell::{Cell, RefCell};
use std::mem;
use std::panic::Location;
use std::rc::Rc;

use super::super::control::{ControlRef, Kind, Waiter};
use super::super::payload::Payload;
use crate::error::GreenError;

/// The message that a switch carries: a value, or an error for the pending switch of the target.
pub(super) type Message = Result<Payload, GreenError>;

pub(super) type Body = Box<dyn FnOnce(Payload) -> Message>;

pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) status: Cell<Status>,
    pub(super) handles: Cell<usize>,
    /// `None` stands for the hub. For the main greenlet it means that there is no parent.
    pub(super) parent: RefCell<Option<Rc<Node>>>,
    /// The body, until it begins.
    pub(super) body: Cell<Option<Body>>,
    pub(super) successor: Cell<Successor>,
    /// Whether this greenlet waits in the drop of the last handle of another one.
    pub(super) in_drop: Cell<bool>,
    /// Greenlets that lost their last handle while this one was panicking. They exit when this one ends.
    pub(super) orphans: RefCell<Vec<Rc<Node>>>,
    pub(super) made_at: &'static Location<'static>,
}

#[derive(Copy, Clone)]
pub(super) enum Status {
    Unstarted,
    Live(ControlRef),
    Dead,
}

/// The successor of an ended greenlet.
#[derive(Copy, Clone)]
pub(super) enum Successor {
    Parent,
    /// The greenlet that waits in the drop of the last handle. It gets no result.
    Dropper(Waiter),
    /// The next greenlet of the run queue.
    Hub,
}

/// The part of a control block that raw switches use.
#[derive(Default)]
pub(in super::super) struct Switching {
    node: RefCell<Option<Rc<Node>>>,
    inbox: Cell<Inbox>,
}

/// The result of the pending switch. An error is boxed, so that a value is moved quickly.
#[derive(Default)]
pub(super) enum Inbox {
    #[default]
    Empty,
    Value(Payload),
    Error(Box<GreenError>),
}

impl Inbox {
    /// Returns the message, if there is one.
    pub(super) fn into_message(self) -> Option<Message> {
        match self {
            Inbox::Empty => None,
            Inbox::Value(value) => Some(Ok(value)),
            Inbox::Error(error) => Some(Err(*error)),
        }
    }
}

impl From<Message> for Inbox {
    fn from(message: Message) -> Inbox {
        message.map_or_else(|error| Inbox::Error(Box::new(error)), Inbox::Value)
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

    /// Returns the node of a live greenlet, and makes it if needed.
    #[track_caller]
    pub(super) fn of(control: ControlRef) -> Rc<Node> {
        if let Some(node) = control.node() {
            return node;
        }
        let node = Rc::new(Node::new(control.kind(), Status::Live(control)));
        control.set_node(Rc::clone(&node));
        node
    }

    pub(super) fn parent(&self) -> Option<Rc<Node>> {
        self.parent.borrow().clone()
    }
}

impl Switching {
    /// Marks the node as dead, because the control block is about to be recycled.
    pub(in super::super) fn end(&self) {
        Switching::end_node(self.node.take());
    }

    fn end_node(node: Option<Rc<Node>>) {
        // If the node is freed here, it has neither body nor parent.
        if let Some(node) = node {
            node.status.set(Status::Dead);
        }
    }
}

impl ControlRef {
    #[inline]
    pub(super) fn raw_node(self) -> Option<Rc<Node>> {
        if self.kind() == Kind::Raw { self.node() } else { None }
    }

    #[inline]
    fn node(self) -> Option<Rc<Node>> {
        // SAFETY: no foreign code runs here.
        unsafe { self.try_switching() }?.node.borrow().clone()
    }

    /// Gives the greenlet a node. It has none before.
    pub(super) fn set_node(self, node: Rc<Node>) {
        // SAFETY: no foreign code runs here.
        let former = unsafe { self.switching() }.node.replace(Some(node));
        debug_assert!(former.is_none(), "a greenlet gets one node");
    }

    /// Marks the node as dead, because the control block is about to be recycled.
    pub(super) fn end_node(self) {
        // SAFETY: the reference ends before the node is used.
        let node = unsafe { self.switching() }.node.take();
        Switching::end_node(node);
    }

    /// Returns whether it is a plain greenlet without handles, to which no greenlet can switch back.
    #[inline(always)]
    pub(super) fn is_unreachable(self) -> bool {
        // SAFETY: no foreign code runs here.
        let switching = (self.kind() == Kind::Raw).then(|| unsafe { self.try_switching() }).flatten();
        switching.is_some_and(|it| it.node.borrow().as_ref().is_some_and(|node| node.handles.get() == 0))
    }

    /// Sets the result of the pending switch.
    pub(super) fn put_message(self, message: Message) {
        // SAFETY: the reference ends before a former message is dropped, which may be a value of the program.
        let former = unsafe { self.switching() }.inbox.replace(Inbox::from(message));
        drop(former);
    }

    /// Sets the result of the pending switch of a suspended greenlet, whose inbox is empty. Runs no foreign code.
    #[inline(always)]
    pub(super) fn put_value(self, value: Payload) {
        // SAFETY: no foreign code runs here.
        let former = unsafe { self.switching() }.inbox.replace(Inbox::Value(value));
        debug_assert!(matches!(former, Inbox::Empty), "a suspended greenlet has no message");
        // It needs no drop, which the compiler cannot know.
        mem::forget(former);
    }

    /// Takes the result of the pending switch.
    #[inline(always)]
    pub(super) fn take_message(self) -> Inbox {
        // SAFETY: no foreign code runs here.
        unsafe { self.switching() }.inbox.take()
    }

    /// Describes a plain greenlet.
    pub(crate) fn describe_raw(self) -> Option<String> {
        Some(format!("a greenlet made at {}", self.made_at()?))
    }

    /// Returns the place where a plain greenlet was made.
    pub(crate) fn made_at(self) -> Option<&'static Location<'static>> {
        Some(self.raw_node()?.made_at)
    }
}
