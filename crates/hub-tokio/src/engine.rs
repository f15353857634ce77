//! The runtime of a hub, and what the hub lets it do.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use hub_core::hub::{Watched, warn};
use tokio::runtime::{Builder, Handle, Id, Runtime};

use crate::raw::{Context, Readable};

thread_local! {
    /// The handles of the runtimes of this OS thread's hubs, the latest last. More than one hub exists only in tests.
    static HANDLES: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// Returns the handle of the runtime that the hub of the calling OS thread drives. Does not switch.
///
/// `None` if the hub is another one, or not built yet: [`hub_core::get_hub`] builds it. [`Handle::current`] is the same
/// runtime, unless the program has entered another one.
///
/// `GREENHUB_HUB=tokio` alone builds no hub before the first wait. Until then `tokio::spawn` panics, and so does a
/// timer or a socket of Tokio: "there is no reactor running". A program that begins with one of them calls
/// [`hub_core::get_hub`] first. `greenhub::use_hub` builds the hub if it chooses `tokio`.
///
/// ```
/// # #[cfg(any(target_os = "linux", target_os = "android"))] {
/// # use hub_tokio::TokioHub;
/// hub_core::use_hub_with(|| TokioHub::over(hub_epoll::EpollHub::new()?))?;
/// assert!(hub_tokio::handle().is_none());
/// let _hub = hub_core::get_hub();
/// let handle = hub_tokio::handle().unwrap();
/// let task = handle.spawn(async { 7 });
/// assert_eq!(hub_core::future::block_on(task)?, 7);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn handle() -> Option<Handle> {
    HANDLES.try_with(|handles| handles.borrow().last().cloned()).ok().flatten()
}

/// The time after which an engine inside of another runtime tries again, whatever the context says.
pub(crate) const RETRY: Duration = Duration::from_millis(100);

/// The beginnings of two panics of Tokio, which has no errors for these events.
const NESTED: &str = "Cannot start a runtime from within a runtime";
const DRIVER_FAILED: &str = "unexpected error when polling the I/O driver";

/// A current-thread runtime that watches a descriptor.
#[derive(Debug)]
pub(crate) struct Engine {
    // In the order of the drop.
    readable: Readable,
    context: Option<Context>,
    runtime: Background,
    /// The runtime in whose `block_on` the last attempt found the loop.
    around: Cell<Option<Around>>,
}

/// Another runtime of the OS thread, in whose `block_on` a green thread waits.
#[derive(Copy, Clone, Debug)]
struct Around {
    runtime: Id,
    /// The time of the next attempt if the context stays that of `runtime`.
    retry: Instant,
}

impl Engine {
    /// Creates a runtime that watches a duplicate of `pollable`, and enters its context.
    pub(crate) fn new(pollable: BorrowedFd<'_>) -> io::Result<Engine> {
        let runtime = Background::new()?;
        let context = Context::enter(runtime.get().handle());
        let readable = Readable::new(pollable.try_clone_to_owned()?)?;
        Ok(Engine { readable, context: Some(context), runtime, around: Cell::new(None) })
    }

    /// Checks that the runtime can run on this OS thread.
    pub(crate) fn check_place(&self) -> io::Result<()> {
        let text = "another Tokio runtime runs on this OS thread, and runtimes do not nest: `hub_tokio::run_until` \
                    runs green threads inside of it, on the hub epoll or kqueue";
        self.try_run(async {})?.ok_or_else(|| io::Error::other(text))
    }

    /// Forgets that the descriptor became readable.
    pub(crate) fn forget_readiness(&self) -> io::Result<()> {
        match self.readable.poll_take(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Ready(taken) => taken,
            Poll::Pending => Ok(()),
        }
    }

    /// Runs one turn of the runtime, without a sleep: some tasks, its timers and its descriptors.
    pub(crate) fn turn(&self) -> io::Result<()> {
        let mut has_turned = false;
        let turned = self.run(poll_fn(|context| {
            if mem::replace(&mut has_turned, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        turned.map(drop)
    }

    /// Runs the runtime until the descriptor becomes readable, the timeout elapses or the loop is woken.
    ///
    /// Returns whether the descriptor became readable, and `None` inside of another runtime, where this one cannot run.
    pub(crate) fn sleep(&self, watched: &Watched, timeout: Option<Duration>) -> io::Result<Option<bool>> {
        let slept = self.run(async {
            let mut sleep = pin!(timeout.map(tokio::time::sleep));
            let mut is_woken = false;
            poll_fn(|context| {
                watched.wake_by(context.waker());
                if let Poll::Ready(taken) = self.readable.poll_take(context) {
                    return Poll::Ready(taken.map(|()| true));
                }
                let is_over = sleep.as_mut().as_pin_mut().is_some_and(|sleep| sleep.poll(context).is_ready());
                // A second poll that finds nothing was caused by the loop's own wake-up.
                if is_over || mem::replace(&mut is_woken, true) { Poll::Ready(Ok(false)) } else { Poll::Pending }
            })
            .await
        });
        slept?.transpose()
    }

    /// Runs the runtime until `future` is ready. Returns `None` inside of another runtime (quirk l).
    fn run<F: Future>(&self, future: F) -> io::Result<Option<F::Output>> {
        if self.around.get().is_some_and(Around::lasts) {
            return Ok(None);
        }
        let output = self.try_run(future)?;
        let around = output.is_none().then(Around::now).flatten();
        if self.around.replace(around).is_none() && around.is_some() {
            warn(
                "a green thread waits inside of the `block_on` of another Tokio runtime: the tasks and timers of hub \
                 tokio stand still until it returns; `greenhub::future::block_on` has no such effect",
            );
        }
        Ok(output)
    }

    /// Like [`run`](Engine::run), without memory of earlier attempts.
    fn try_run<F: Future>(&self, future: F) -> io::Result<Option<F::Output>> {
        // The future is dropped by a panic, and the runtime is not used after the error of its driver.
        match catch_unwind(AssertUnwindSafe(|| self.runtime.get().block_on(future))) {
            Ok(output) => Ok(Some(output)),
            Err(payload) => match message(&*payload) {
                nested if nested.starts_with(NESTED) => Ok(None),
                failed if failed.starts_with(DRIVER_FAILED) => Err(io::Error::other(failed.to_owned())),
                _ => resume_unwind(payload),
            },
        }
    }

    /// Returns whether the runtime has tasks that are not complete.
    pub(crate) fn has_tasks(&self) -> bool {
        self.runtime.get().metrics().num_alive_tasks() != 0
    }

    /// Leaves the context, before this is forgotten.
    pub(crate) fn leave(&mut self) {
        self.context = None;
        self.runtime.remove_handle();
    }
}

impl Around {
    /// Returns the runtime whose context is entered.
    fn now() -> Option<Around> {
        let runtime = Handle::try_current().ok()?.id();
        Some(Around { runtime, retry: Instant::now() + RETRY })
    }

    /// Returns whether the loop is probably still inside of it. Each attempt to find out prints a panic.
    fn lasts(self) -> bool {
        Handle::try_current().is_ok_and(|current| current.id() == self.runtime) && Instant::now() < self.retry
    }
}

/// Returns the message of a panic.
fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
}

/// A runtime whose drop does not wait for the jobs of its blocking threads.
#[derive(Debug)]
struct Background(Option<Runtime>);

impl Background {
    fn new() -> io::Result<Background> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        // Gone if a destructor of an ending OS thread builds the hub: such a runtime has no `handle`.
        let _ = HANDLES.try_with(|handles| handles.borrow_mut().push(runtime.handle().clone()));
        Ok(Background(Some(runtime)))
    }

    fn get(&self) -> &Runtime {
        self.0.as_ref().expect("the runtime is present until the drop")
    }

    /// Makes [`handle`] forget the runtime. The thread-local is gone if the OS thread ends.
    fn remove_handle(&self) {
        let id = self.get().handle().id();
        let _ = HANDLES.try_with(|handles| handles.borrow_mut().retain(|handle| handle.id() != id));
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.remove_handle();
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
