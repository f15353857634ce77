//! Watchers of the phases of a turn.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use hub_core::internal::hook_shared;
use hub_core::{Hook, Phase};

use crate::error::WatcherError;
use crate::node::{Kind, Node};
use crate::state::{State, for_each, remove};
use crate::watcher::Watch;

/// The places of the phases in the parameter of [`PhaseKind`].
const PREPARE: u8 = 0;
const CHECK: u8 = 1;
const IDLE: u8 = 2;
const FORK: u8 = 3;

/// A watcher whose callback is called before each wait of the hub. gevent's `loop.prepare`.
///
/// Made by [`Loop::prepare`](crate::Loop::prepare). It is the last call of a turn that can add work.
///
/// ```
/// use greenhub::gevent::{Watcher, event_loop};
/// use std::time::Duration;
/// let prepare = event_loop().prepare();
/// prepare.start(|_, ()| println!("the output of this turn is flushed here"))?;
/// prepare.set_counted(false); // it has no work of its own
/// greenhub::sleep(Duration::from_millis(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Prepare = Watch<PhaseKind<PREPARE>>;

/// A watcher whose callback is called after each wait of the hub. gevent's `loop.check`.
///
/// Made by [`Loop::check`](crate::Loop::check).
///
/// ```
/// use greenhub::gevent::{Watcher, event_loop};
/// use std::time::Duration;
/// let check = event_loop().check();
/// check.start(|_, ()| println!("the loop has polled the descriptors"))?;
/// check.set_counted(false); // it has no work of its own
/// greenhub::sleep(Duration::from_millis(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Check = Watch<PhaseKind<CHECK>>;

/// A watcher whose callback is called in each turn without other events. gevent's `loop.idle`.
///
/// Made by [`Loop::idle`](crate::Loop::idle). While one is active the loop does not sleep.
///
/// ```
/// use greenhub::gevent::{Watcher, event_loop};
/// let green = greenhub::spawn(|| println!("work"));
/// event_loop().idle().wait(None)?; // until nothing else has work
/// assert!(green.is_finished());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Idle = Watch<PhaseKind<IDLE>>;

/// A watcher whose callback is called once in a forked child, before all other watchers. gevent's `loop.fork`.
///
/// Made by [`Loop::fork`](crate::Loop::fork). Green threads that are ready run before it.
///
/// ```
/// use greenhub::gevent::{Watcher, event_loop};
/// let fork = event_loop().fork();
/// fork.set_counted(false); // the program may end without a fork
/// fork.start(|_, ()| println!("connections are opened anew here, in the child"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Fork = Watch<PhaseKind<FORK>>;

/// The part of a watcher of a phase that other watchers do not have.
#[derive(Debug)]
pub struct PhaseKind<const PHASE: u8>(());

impl<const PHASE: u8> Watch<PhaseKind<PHASE>> {
    /// Creates a watcher of the phase.
    pub(crate) fn of_phase(state: Rc<State>) -> Self {
        Watch::new(Node::new(state, PhaseKind(())))
    }
}

impl<const PHASE: u8> Kind for PhaseKind<PHASE> {
    type Event = ();

    const NAME: &'static str = ["Prepare", "Check", "Idle", "Fork"][PHASE as usize];
    const IS_COUNTED_HERE: bool = true;
    // The next start does not bring a fork again.
    const KEEPS_EVENTS: bool = PHASE == FORK;
    const PHASE: Option<Phase> = Some([Phase::Prepare, Phase::Check, Phase::Idle, Phase::Fork][PHASE as usize]);

    fn arm(&self, node: &Rc<Node<Self>>) -> Result<(), WatcherError> {
        node.state.phases.add(PHASE, Rc::clone(node) as Rc<dyn SetPending>);
        Ok(())
    }

    fn disarm(&self, node: &Node<Self>) {
        node.state.phases.remove(PHASE, node);
    }
}

/// A watcher whose event the loop finds.
pub(crate) trait SetPending {
    fn set_pending(self: Rc<Self>);
}

impl<const PHASE: u8> SetPending for Node<PhaseKind<PHASE>> {
    fn set_pending(self: Rc<Self>) {
        Node::set_pending(&self, ());
    }
}

/// The active watchers of each phase.
pub(crate) struct PhaseNodes {
    nodes: [RefCell<Vec<Rc<dyn SetPending>>>; 4],
    /// Keeps the loop from sleeping while an idle watcher is active.
    idle: RefCell<Option<Hook>>,
    idle_hook: Rc<dyn Fn()>,
}

impl PhaseNodes {
    pub(crate) fn new(own: &Weak<State>) -> PhaseNodes {
        let own = Weak::clone(own);
        let idle_hook = Rc::new(move || {
            if let Some(state) = own.upgrade()
                && !state.take_is_busy()
            {
                state.phases.set_pending(Phase::Idle);
            }
        });
        PhaseNodes { nodes: Default::default(), idle: RefCell::default(), idle_hook }
    }

    fn add(&self, phase: u8, node: Rc<dyn SetPending>) {
        self.nodes[phase as usize].borrow_mut().push(node);
        self.update_idle();
    }

    fn remove(&self, phase: u8, node: &dyn SetPending) {
        remove(&self.nodes[phase as usize], node);
        self.update_idle();
    }

    fn update_idle(&self) {
        let is_needed = !self.nodes[IDLE as usize].borrow().is_empty();
        if is_needed == self.idle.borrow().is_some() {
            return;
        }
        let hook = is_needed.then(|| hook_shared(Phase::Idle, Rc::clone(&self.idle_hook)));
        let former = self.idle.replace(hook);
        drop(former);
    }

    /// Makes the active watchers of a phase pending.
    pub(crate) fn set_pending(&self, phase: Phase) {
        let place = match phase {
            Phase::Prepare => PREPARE,
            Phase::Check => CHECK,
            Phase::Idle => IDLE,
            _ => FORK,
        };
        for_each(&self.nodes[place as usize], |node| node.set_pending());
    }
}
