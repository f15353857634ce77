//! The tree of tokens. A cancellation goes down from a token to its children.
//!
//! A child keeps its parent alive, and a parent knows its children by weak references. So a token that lost its last
//! handle still passes the cancellation of its own parent on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use hub_core::{BiasedMutex, Deadline, WaitReason};

use crate::sync::wait_queue::{Unserved, Wait, WaitQueue};
use crate::sync::waiters::Waiters;

pub(super) struct Node {
    pub(super) state: BiasedMutex<State>,
    /// `None` at the root, and for the child of a token that was cancelled before.
    parent: Option<Parent>,
}

struct Parent {
    node: Arc<Node>,
    /// The number of this node among the parent's children.
    number: u64,
}

#[derive(Default)]
pub(super) struct State {
    cancelled: bool,
    pub(super) waiting: Waiters,
    /// The children that exist, in the order of their creation.
    children: BTreeMap<u64, Weak<Node>>,
    next_child: u64,
}

/// The wait for the cancellation. It is for all waiters: there is nothing to regrant.
struct CancelWait;

impl Wait for CancelWait {
    type State = State;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Cancellation;

    fn queue(state: &mut State) -> &mut WaitQueue {
        &mut state.waiting.queue
    }

    fn regrant(_: &mut State) {}
}

impl State {
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.queue.len() + self.waiting.marks.len()
    }

    pub(super) fn children(&self) -> usize {
        self.children.len()
    }
}

impl Node {
    pub(super) fn root() -> Arc<Node> {
        Arc::new(Node { state: BiasedMutex::new(State::default()), parent: None })
    }

    /// Creates a child, which is cancelled if this node is.
    pub(super) fn child(self: &Arc<Node>) -> Arc<Node> {
        let mut state = self.state.lock();
        if state.cancelled {
            let cancelled = State { cancelled: true, ..State::default() };
            return Arc::new(Node { state: BiasedMutex::new(cancelled), parent: None });
        }
        let parent = Parent { node: Arc::clone(self), number: state.next_child };
        state.next_child += 1;
        let number = parent.number;
        let child = Arc::new(Node { state: BiasedMutex::new(State::default()), parent: Some(parent) });
        state.children.insert(number, Arc::downgrade(&child));
        child
    }

    /// Cancels this node and all below it. On return all are cancelled, also if another call has begun before.
    pub(super) fn cancel(&self) {
        let mut below = VecDeque::new();
        self.cancel_alone(&mut below);
        // A loop instead of a recursion: a chain of tokens may be longer than a stack.
        while let Some(node) = below.pop_front() {
            node.cancel_alone(&mut below);
        }
    }

    fn cancel_alone(&self, children: &mut VecDeque<Arc<Node>>) {
        let mut state = self.state.lock();
        if !state.cancelled {
            state.cancelled = true;
            state.waiting.grant_all();
        }
        // The caller drops the children, without the lock: a child that ends takes it.
        children.extend(state.children.values().filter_map(Weak::upgrade));
    }

    pub(super) fn wait(&self, deadline: &mut Deadline) -> Result<(), Unserved> {
        CancelWait::wait(&self.state, deadline, (), |state, _| if state.cancelled { Ok(()) } else { Err(()) })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut above = self.parent.take();
        // A loop instead of a recursion, as in `cancel`: this may drop the last reference to the parent.
        while let Some(Parent { node, number }) = above {
            node.state.lock().children.remove(&number);
            above = Arc::into_inner(node).and_then(|mut node| node.parent.take());
        }
    }
}
