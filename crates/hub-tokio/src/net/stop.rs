//! The graceful end of servers.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::future::sleep;
use tokio::sync::watch;

use crate::transport::unless;

/// A handle that stops servers over Tokio's sockets. Eventlet's `StopServe`.
///
/// Any OS thread may use it. Clones stop the same servers. Servers over green sockets have a `StopServe` of their own,
/// in `greenhub::net`.
///
/// Dropping it stops nothing. A stop is permanent: a server that is started with a stopped handle ends at once.
///
/// ```
/// use hub_tokio::net::StopServe;
/// let stop = StopServe::new();
/// let elsewhere = stop.clone();
/// std::thread::spawn(move || elsewhere.stop()).join().unwrap();
/// assert!(stop.is_stopped());
/// ```
#[derive(Clone, Default)]
pub struct StopServe(Arc<watch::Sender<State>>);

#[derive(Copy, Clone, Default)]
struct State {
    stopped: bool,
    /// The time at which the handlers are killed.
    deadline: Option<Instant>,
}

impl StopServe {
    /// Creates a handle that is not stopped.
    #[must_use]
    pub fn new() -> StopServe {
        StopServe::default()
    }

    /// Makes the servers stop accepting, wait for their handlers, and return. Does not switch.
    pub fn stop(&self) {
        self.stop_at(None);
    }

    /// Like [`stop`](StopServe::stop), and kills the handlers after `time`. Does not switch.
    ///
    /// A later call may bring the deadline nearer, but never postpones it.
    pub fn stop_within(&self, time: Duration) {
        // A time beyond the range of the clock is no limit.
        self.stop_at(Instant::now().checked_add(time));
    }

    fn stop_at(&self, deadline: Option<Instant>) {
        self.0.send_modify(|state| {
            state.stopped = true;
            state.deadline = state.deadline.into_iter().chain(deadline).min();
        });
    }

    /// Returns true if it was stopped. Does not switch.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.borrow().stopped
    }

    /// Is ready when it is stopped.
    pub(super) async fn stopped(&self) {
        let mut changes = self.0.subscribe();
        // There is no error: the sender is in `self`.
        let _ = changes.wait_for(|state| state.stopped).await;
    }

    /// Is ready at the deadline, which may change meanwhile.
    pub(super) async fn passes_deadline(&self) {
        let mut changes = self.0.subscribe();
        loop {
            let deadline = changes.borrow_and_update().deadline;
            let changed = ignore_output(changes.changed());
            match deadline {
                None => changed.await,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if unless(changed, sleep(left)).await.is_some() {
                        return;
                    }
                }
            }
        }
    }
}

async fn ignore_output(future: impl Future) {
    future.await;
}

impl fmt::Debug for StopServe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = *self.0.borrow();
        f.debug_struct("StopServe").field("stopped", &state.stopped).field("deadline", &state.deadline).finish()
    }
}
