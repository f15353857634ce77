//! Watchers that other OS threads wake.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use hub_core::internal::Latch;

use crate::error::WatcherError;
use crate::node::{Kind, Node};
use crate::state::State;
use crate::wake::Look;
use crate::watcher::Watch;

/// A watcher that other OS threads and signal handlers wake. gevent's `loop.async_`.
///
/// Made by [`Loop::async_`](crate::Loop::async_). An [`AsyncHandle`] sends the wake-up. Several sends before the
/// callback is called are one event. A wake-up that was sent while the watcher was not active is delivered when it
/// starts. A loop that nothing else keeps alive delivers the wake-ups that were sent before it ends, also to a watcher
/// that is not [counted](crate::Watcher::set_counted).
///
/// ```
/// use greenhub::gevent::{Watcher, event_loop};
/// let watcher = event_loop().async_();
/// let handle = watcher.handle();
/// let other = std::thread::spawn(move || handle.send());
/// watcher.wait(None)?; // only this green thread waits
/// other.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Async = Watch<AsyncKind>;

/// The part of an [`Async`] that other watchers do not have.
pub struct AsyncKind {
    latch: Arc<Latch>,
}

impl Async {
    /// Creates a watcher.
    pub(crate) fn of(state: Rc<State>) -> Async {
        let latch = state.wake.latch();
        Watch::new(Node::new(state, AsyncKind { latch }))
    }

    /// Returns a handle that wakes the watcher from any OS thread. Does not switch.
    #[must_use]
    pub fn handle(&self) -> AsyncHandle {
        AsyncHandle { latch: Arc::clone(&self.node().kind.latch) }
    }
}

impl fmt::Debug for AsyncKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(Self::NAME).finish_non_exhaustive()
    }
}

impl Kind for AsyncKind {
    type Event = ();

    const NAME: &'static str = "Async";
    const IS_COUNTED_HERE: bool = true;
    const KEEPS_EVENTS: bool = true;

    fn arm(&self, node: &Rc<Node<AsyncKind>>) -> Result<(), WatcherError> {
        node.state.wake.add(Rc::clone(node) as Rc<dyn Look>)?;
        Rc::clone(node).look();
        Ok(())
    }

    fn disarm(&self, node: &Node<AsyncKind>) {
        node.state.wake.remove(node);
    }
}

impl Look for Node<AsyncKind> {
    fn look(self: Rc<Self>) {
        if self.kind.latch.take() {
            self.set_pending(());
        }
    }
}

/// Wakes an [`Async`] watcher from any OS thread.
///
/// Made by [`Async::handle`]. It does not keep the loop alive: a [counted](crate::Watcher::set_counted) active watcher
/// does. Once the watcher is closed, or its loop has ended, sends do nothing.
#[derive(Clone, Debug)]
pub struct AsyncHandle {
    latch: Arc<Latch>,
}

impl AsyncHandle {
    /// Wakes the watcher. Does not switch.
    ///
    /// It is async-signal-safe: it uses atomics, writes at most once to a descriptor of the loop, and keeps `errno`.
    /// In a forked child it wakes the watcher of the child only.
    pub fn send(&self) {
        let errno = errno::errno();
        self.latch.set();
        errno::set_errno(errno);
    }
}
