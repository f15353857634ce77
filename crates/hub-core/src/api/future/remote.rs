//! The end of a green thread of any hub as a future of any OS thread.

use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use crate::error::{GreenError, HubGone, LoopErrorKind};
use crate::greenlet::exit::{Payload, contained, error_of};
use crate::greenlet::local::{self, Local};
use crate::main_loop::foreign_futures::ForeignFuture;
use crate::main_loop::remote::{Mailbox, Remote};
use crate::report;

/// A future of the result of a green thread of another hub, from [`Remote::defer`]. May be sent to other OS threads.
///
/// Its output is the result, or the error with which the green thread ended: a panic, a kill. After the output was
/// taken, a poll returns [`GreenError::Taken`].
///
/// Dropping it detaches the green thread, which runs on.
///
/// If a [shutdown](crate::HubRef::shutdown) of the hub ends the green thread, or drops the closure before it has begun,
/// the output is an error. An OS thread that ends without a shutdown abandons its green threads: the output is then
/// [`LoopErrorKind::ThreadEnding`]. In a forked child a hub of another OS thread does not exist, so a poll returns that
/// error too; a future that was pending before the fork is not woken there.
#[must_use = "the result is lost unless the future is awaited"]
pub struct RemoteDeferred<T> {
    shared: Arc<Shared<T>>,
    /// Not counted as a user's handle: the loop need not wait for this future.
    mailbox: Arc<Mailbox>,
}

impl Remote {
    /// Runs `f` in a new green thread of the hub, and returns a future of its result.
    ///
    /// The future may be awaited on any OS thread, also by a runtime. `f` runs whether or not the future is polled.
    /// Otherwise like [`spawn`](Remote::spawn).
    ///
    /// ```
    /// use greenhub::future::block_on;
    /// use greenhub::{get_hub, sleep};
    /// use std::time::Duration;
    /// let remote = get_hub().remote();
    /// let other = std::thread::spawn(move || {
    ///     let deferred = remote.defer(|| {
    ///         sleep(Duration::from_millis(1)); // on the hub's OS thread
    ///         42
    ///     })?;
    ///     Ok::<_, greenhub::hub::HubGone>(block_on(deferred)) // blocks this OS thread
    /// });
    /// while !other.is_finished() {
    ///     sleep(Duration::from_millis(1));
    /// }
    /// assert_eq!(other.join().unwrap()??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`HubGone`] if the hub's OS thread has ended; `f` is dropped, on the calling OS thread.
    #[track_caller]
    pub fn defer<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<RemoteDeferred<T>, HubGone> {
        let shared = Arc::new(Shared(Mutex::new(State::Pending(None))));
        let completion = Completion(Arc::clone(&shared));
        let future: Weak<Shared<T>> = Arc::downgrade(&shared);
        self.spawn_for(Location::caller(), move || completion.run(f), future)?;
        Ok(RemoteDeferred { shared, mailbox: Arc::clone(self.mailbox()) })
    }
}

impl<T> Future for RemoteDeferred<T> {
    type Output = Result<T, GreenError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, GreenError>> {
        // Foreign code runs without the lock: the clone of the new waker, and the drop of the old one.
        let waker = cx.waker().clone();
        let mut state = self.shared.lock();
        let polled = match &mut *state {
            State::Pending(_) if self.mailbox.is_gone() => {
                Poll::Ready(Err(GreenError::Loop(LoopErrorKind::ThreadEnding.into())))
            }
            State::Pending(known) => {
                let old = known.replace(waker);
                drop(state);
                drop(old);
                return Poll::Pending;
            }
            state => match std::mem::replace(state, State::Taken) {
                State::Done(result) => Poll::Ready(result),
                _ => Poll::Ready(Err(GreenError::Taken)),
            },
        };
        drop(state);
        polled
    }
}

impl<T> Drop for RemoteDeferred<T> {
    fn drop(&mut self) {
        let left = std::mem::replace(&mut *self.shared.lock(), State::Taken);
        // A waker or a result, which is dropped without the lock.
        drop(left);
    }
}

impl<T> fmt::Debug for RemoteDeferred<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteDeferred").field("hub", &self.mailbox.hub_id()).finish_non_exhaustive()
    }
}

/// The part that the green thread and the future share.
struct Shared<T>(Mutex<State<T>>);

enum State<T> {
    /// With the waker of the last poll.
    Pending(Option<Waker>),
    Done(Result<T, GreenError>),
    /// The output was taken, or the future was dropped.
    Taken,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The green thread's side. Dropped without a result, it completes the future with an error.
struct Completion<T>(Arc<Shared<T>>);

impl<T> Completion<T> {
    /// Runs the body of the green thread, and completes the future. Switches if `f` does.
    fn run(self, f: impl FnOnce() -> T) {
        let payload = match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => return self.complete(Ok(value)),
            Err(payload) => payload,
        };
        if let Some(Payload(exit)) = payload.downcast_ref() {
            self.complete(Err(exit.clone().into()));
        } else if self.is_awaited() {
            return self.complete(Err(error_of(payload)));
        }
        // An exit continues, and a panic whose result is out of reach is reported.
        resume_unwind(payload);
    }

    fn is_awaited(&self) -> bool {
        matches!(*self.0.lock(), State::Pending(_))
    }

    fn complete(&self, result: Result<T, GreenError>) {
        let mut state = self.0.lock();
        // The rest is dropped without the lock.
        let (waker, _refused) = match &mut *state {
            State::Pending(waker) => {
                let waker = waker.take();
                *state = State::Done(result);
                (waker, None)
            }
            _ => (None, Some(result)),
        };
        drop(state);
        wake(waker);
    }
}

impl<T: Send> ForeignFuture for Shared<T> {
    fn wake_abandoned(&self) {
        let mut state = self.lock();
        // The next poll finds the error by itself.
        let waker = if let State::Pending(waker) = &mut *state { waker.take() } else { None };
        drop(state);
        wake(waker);
    }
}

/// Wakes foreign code, which may panic. Call it without a lock.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker
        && let Err(error) = contained(|| waker.wake())
    {
        report::callback_failed("waking a task", None, error);
    }
}

impl<T> Drop for Completion<T> {
    fn drop(&mut self) {
        if self.is_awaited() {
            let refused = local::try_get().is_none_or(Local::refuses_bodies);
            let error = if refused { GreenError::Loop(LoopErrorKind::ThreadEnding.into()) } else { GreenError::Kill };
            self.complete(Err(error));
        }
    }
}
