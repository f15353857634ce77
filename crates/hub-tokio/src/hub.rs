//! The hub that runs Tokio while it waits.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use hub_core::hub::{Hub, Interest, Key, Lease, Ready, Rearm, Time, Watched};

use crate::engine::{Engine, RETRY};

/// The canonical name of the hub.
const NAME: &str = "tokio";

/// The number of waits without a sleep after which the runtime gets a turn.
const WAITS_PER_TURN: u32 = 8;

/// The size of the stack for tasks, which is that of Tokio's own threads.
const STACK_SIZE: usize = 2 << 20;

/// A hub that runs a Tokio runtime while it waits.
///
/// Another hub below it waits for descriptors. That hub must have a [`pollable`](Hub::pollable) descriptor: hub-epoll
/// and hub-kqueue have.
///
/// ```
/// # #[cfg(any(target_os = "linux", target_os = "android"))] {
/// use hub_core::future::block_on;
/// use hub_tokio::TokioHub;
/// use std::time::Duration;
///
/// hub_core::use_hub_with(|| TokioHub::over(hub_epoll::EpollHub::new()?))?;
/// let _hub = hub_core::get_hub(); // builds the hub, so that the context is entered before the first wait
/// let green = hub_core::spawn(|| {
///     let task = tokio::spawn(async {
///         tokio::time::sleep(Duration::from_millis(1)).await;
///         7
///     });
///     block_on(task)
/// });
/// assert_eq!(green.join()??, 7);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TokioHub<H> {
    // Dropped before the other hub, whose descriptor it watches.
    engine: Engine,
    inner: H,
    /// Whether the other hub may have more to report, of which its descriptor makes no new edge (quirk b).
    has_more: bool,
    /// The number of waits that did not sleep.
    busy_waits: u32,
}

impl<H: Hub> TokioHub<H> {
    /// Creates a hub with a runtime of its own, over `inner`.
    ///
    /// The context of the runtime is entered on this OS thread until the hub is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`Unsupported`](io::ErrorKind::Unsupported) if `inner` has no pollable descriptor, an error if the OS
    /// thread is inside of the `block_on` of another runtime, and the error of the system if the runtime cannot be
    /// built, usually too many open files.
    pub fn over(inner: H) -> io::Result<TokioHub<H>> {
        let engine = engine_over(&inner)?;
        engine.check_place()?;
        Ok(TokioHub { engine, inner, has_more: true, busy_waits: 0 })
    }
}

impl<H: Hub> Hub for TokioHub<H> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rearm(&self) -> Rearm {
        self.inner.rearm()
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        self.inner.watch(key, fd, interest, lease)
    }

    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        self.inner.forget(key, fd);
    }

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        let must_not_sleep = timeout == Some(Duration::ZERO);
        if self.has_more || must_not_sleep {
            // In this order: what arrives after the look is a new edge.
            self.engine.forget_readiness()?;
            self.look(watched, ready)?;
            if self.has_more || must_not_sleep {
                self.busy_waits = self.busy_waits.wrapping_add(1);
                if self.busy_waits.is_multiple_of(WAITS_PER_TURN) {
                    self.engine.turn()?;
                }
                return Ok(());
            }
        }
        match self.engine.sleep(watched, timeout)? {
            Some(true) => self.look(watched, ready),
            Some(false) => Ok(()),
            None => {
                // Green threads go on without the runtime, so that the one inside of the other runtime can leave it.
                self.has_more = true;
                self.inner.wait(watched, Some(timeout.map_or(RETRY, |timeout| timeout.min(RETRY))), ready)
            }
        }
    }

    fn after_fork(&mut self) -> io::Result<()> {
        self.inner.after_fork()?;
        self.engine.leave();
        let engine = engine_over(&self.inner)?;
        // The old engine shares system objects with the parent's (quirk f).
        mem::forget(mem::replace(&mut self.engine, engine));
        self.has_more = true;
        Ok(())
    }

    fn may_wake(&self) -> bool {
        self.engine.has_tasks() || self.inner.may_wake()
    }

    fn completes_futures(&self) -> bool {
        // Futures that wait for a timer or a socket of the runtime.
        true
    }

    fn stack_size(&self) -> usize {
        self.inner.stack_size().max(STACK_SIZE)
    }

    fn now(&self) -> Time {
        self.inner.now()
    }
}

impl<H: fmt::Debug> fmt::Debug for TokioHub<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioHub").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<H: Hub> TokioHub<H> {
    /// Asks the other hub for its reports, without a sleep.
    fn look(&mut self, watched: &Watched, ready: &mut Ready) -> io::Result<()> {
        self.inner.wait(watched, Some(Duration::ZERO), ready)?;
        self.has_more = !ready.reports().is_empty();
        Ok(())
    }
}

/// Creates a runtime that watches the descriptor of `inner`.
fn engine_over<H: Hub>(inner: &H) -> io::Result<Engine> {
    let pollable = inner.pollable().ok_or_else(|| {
        let text = format!("hub {:?} has no descriptor that Tokio could watch: use epoll or kqueue", inner.name());
        io::Error::new(io::ErrorKind::Unsupported, text)
    })?;
    Engine::new(pollable)
}
