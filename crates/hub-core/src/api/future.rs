//! Waits of green threads for futures.

pub(crate) mod deferred;
pub(crate) mod remote;
mod waker;

use std::any::type_name;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use self::waker::WaitWaker;
use super::green_thread::GreenThread;
use super::spawn::spawn_at;
use crate::error::{LoopError, LoopErrorKind};
use crate::greenlet::run::PollMode;
use crate::wait::grace::Grace;

/// Waits for a future, and returns its output. Switches, unless the future is ready at once.
///
/// The future is polled on the stack of the green thread that waits. Other green threads run while it is pending. It
/// needs no runtime, only that its waker is called by whatever completes it: another green thread, a callback of the
/// hub, another OS thread. `block_on` of `futures::executor`, as a wait of a green thread.
///
/// Nothing switches while the future is polled or dropped: a call in it that would wait returns
/// [`LoopErrorKind::InPoll`](crate::LoopErrorKind::InPoll), or panics if it has no error to return. So does a
/// `block_on` in it whose future is pending. [`block_in_place`] allows such calls.
///
/// A kill, a timeout or a link strikes while the future is pending, and drops it on the green thread's own stack. The
/// wait belongs to this call: a waker that is called later, or after the call has returned, ends no other wait.
///
/// A future that is ready never switches. A loop over futures that are always ready keeps the other green threads
/// waiting; call [`consume_budget`](crate::consume_budget) in it. A future that wakes itself, such as Tokio's
/// `yield_now`, lets the other green threads run before it is polled again.
///
/// On the main loop, in its callbacks and in a poll of another future, where nothing may wait, the future is polled
/// once. In an OS thread without green threads the call blocks the OS thread. While panicking it blocks the OS thread
/// for at most the time of [`set_panicking_grace`](crate::set_panicking_grace). Where the future may be pending in such
/// a place, use [`try_block_on`].
///
/// Listings show the wait with the type of the future.
///
/// # Panics
///
/// Panics if a poll or the drop of the future does. Panics if the future is pending where nothing may wait: on the main
/// loop, in a poll of another future, and while panicking when the grace is over. In the main greenlet, panics with the
/// error that the main loop has for it. A loop that is aborted does not end the wait.
///
/// # Examples
///
/// ```
/// use greenhub::future::block_on;
/// use greenhub::spawn;
/// use std::future::{Future, poll_fn, ready};
/// use std::task::Poll;
///
/// assert_eq!(block_on(ready(1)), 1); // no switch
///
/// // Wakes itself once, as `tokio::task::yield_now` does.
/// let mut polled = false;
/// let yield_once = poll_fn(|cx| {
///     if std::mem::replace(&mut polled, true) {
///         return Poll::Ready("second poll");
///     }
///     cx.waker().wake_by_ref();
///     Poll::Pending
/// });
/// let other = spawn(|| ());
/// assert_eq!(block_on(yield_once), "second poll");
/// assert!(other.is_finished());
/// ```
#[doc(alias = "run_until_complete")]
#[track_caller]
pub fn block_on<F: Future>(future: F) -> F::Output {
    match wait_for_output(future, Grace::begin_whole) {
        Ok(output) => output,
        Err(error) => panic!("block_on: {error}"),
    }
}

/// Like [`block_on`], but returns an error where the wait is not possible. Switches, unless the future is ready at
/// once.
///
/// The future is dropped before an error is returned.
///
/// ```
/// use greenhub::future::try_block_on;
/// use greenhub::hub::LoopErrorKind;
/// use greenhub::{get_hub, sleep};
/// use std::cell::Cell;
/// use std::future::{pending, ready};
/// use std::rc::Rc;
/// use std::time::Duration;
/// let refused = Rc::new(Cell::new(None));
/// let seen = Rc::clone(&refused);
/// get_hub().schedule(Duration::ZERO, move || {
///     // A callback cannot wait, but it gets the output of a future that is ready.
///     assert_eq!(try_block_on(ready(7)).unwrap(), 7);
///     seen.set(try_block_on(pending::<()>()).err().map(|error| error.kind()));
/// });
/// sleep(Duration::from_millis(1));
/// assert_eq!(refused.get(), Some(LoopErrorKind::InMainloop));
/// ```
///
/// # Errors
///
/// Returns an error if the future is pending where nothing may wait: [`LoopErrorKind::InMainloop`] on the main loop,
/// [`LoopErrorKind::InPoll`] in a poll of another future, [`LoopErrorKind::Panicking`] while panicking when the grace
/// is over. In the main greenlet, returns the error that the main loop has for it, except that of an aborted loop and
/// of a replaced hub: the wait goes on.
///
/// # Panics
///
/// Panics if a poll or the drop of the future does.
pub fn try_block_on<F: Future>(future: F) -> Result<F::Output, LoopError> {
    wait_for_output(future, Grace::begin)
}

/// Spawns a green thread that waits for a future. Does not switch.
///
/// The same as [`spawn`](crate::spawn) of a [`block_on`].
///
/// ```
/// let green = greenhub::future::spawn_future(async { 6 * 7 });
/// assert_eq!(green.join()?, 42);
/// # Ok::<(), greenhub::GreenError>(())
/// ```
#[doc(alias = "ensure_future")]
#[doc(alias = "spawn_local")]
#[track_caller]
pub fn spawn_future<F: Future + 'static>(future: F) -> GreenThread<F::Output> {
    spawn_at(Location::caller(), move || block_on(future))
}

/// Runs `f`, which may wait although a poll of a future is under way. Switches if `f` does.
///
/// Inside a poll, a call that would let other green threads run returns
/// [`LoopErrorKind::InPoll`](crate::LoopErrorKind::InPoll) or panics. Code around the future may have set a
/// thread-local for the time of the poll, and other green threads would see it: Tokio's `Handle::enter`, `LocalSet`,
/// `task_local!`, its budget, and the spans of `tracing` work this way. Tokio's runtime is broken for good if green
/// threads leave such a guard in another order than they entered it.
///
/// `block_in_place` is for code that knows that nothing of this kind surrounds it. A handler of a server whose
/// connections have a green thread each can then call straight-line code, which parks its own connection and no other.
/// Where that is not known, use [`defer_to_green_thread`](deferred::defer_to_green_thread) and await it.
///
/// A kill or a timeout that strikes a wait in `f` unwinds the poll, as a panic would. Outside of a poll `f` is only
/// called. Tokio's `block_in_place` has the same purpose, but needs another worker thread for the other tasks.
///
/// # Panics
///
/// Panics if `f` does.
///
/// # Examples
///
/// ```
/// use greenhub::future::{block_in_place, block_on};
/// use greenhub::{sleep, spawn};
/// use std::time::Duration;
/// // A library calls this handler, which is asynchronous only in its form.
/// async fn handle(request: u32) -> u32 {
///     block_in_place(|| {
///         sleep(Duration::from_millis(1)); // such as a query by a client that blocks
///         request + 1
///     })
/// }
/// let connections = [1, 2, 3].map(|request| spawn(move || block_on(handle(request))));
/// let answers = connections.map(|connection| connection.join().unwrap());
/// assert_eq!(answers, [2, 3, 4]);
/// ```
pub fn block_in_place<R>(f: impl FnOnce() -> R) -> R {
    let _outside = PollMode::outside();
    f()
}

/// A future in the frame of its waiter. Nothing switches while it is polled or dropped.
struct Polled<'a, F>(Pin<&'a mut Option<F>>);

impl<F: Future> Polled<'_, F> {
    #[inline]
    fn poll(&mut self, waker: &WaitWaker) -> Poll<F::Output> {
        let Some(future) = self.0.as_mut().as_pin_mut() else { unreachable!("only `Drop` removes the future") };
        let _inside = PollMode::inside();
        future.poll(&mut Context::from_waker(waker.waker()))
    }
}

impl<F> Drop for Polled<'_, F> {
    #[inline]
    fn drop(&mut self) {
        let _inside = PollMode::inside();
        self.0.set(None);
    }
}

#[inline]
fn wait_for_output<F: Future>(future: F, begin: fn() -> Grace) -> Result<F::Output, LoopError> {
    // Dropped after the future, which may hold clones of the waker.
    let waker = WaitWaker::take();
    let mut polled = Polled(pin!(Some(future)));
    loop {
        if let Poll::Ready(output) = polled.poll(&waker) {
            return Ok(output);
        }
        if let Err(error) = waker.wait(type_name::<F>()) {
            if error.kind() == LoopErrorKind::Panicking {
                return poll_within(&begin(), &waker, &mut polled).ok_or(error);
            }
            return Err(error);
        }
    }
}

/// Polls a future while the OS thread is panicking, where nothing can switch: another OS thread may wake it.
#[cold]
fn poll_within<F: Future>(grace: &Grace, waker: &WaitWaker, polled: &mut Polled<'_, F>) -> Option<F::Output> {
    const PIECE: Duration = Duration::from_millis(1);
    // A wake-up during the last poll was taken.
    let mut woken = true;
    loop {
        if woken && let Poll::Ready(output) = polled.poll(waker) {
            return Some(output);
        }
        let left = grace.left();
        if left.is_zero() {
            return None;
        }
        woken = waker.take_notified();
        if !woken {
            #[expect(clippy::disallowed_methods, reason = "no green thread can run during a panic")]
            std::thread::sleep(left.min(PIECE));
        }
    }
}
