//! The end of a green thread as a future.

use std::cell::Cell;
use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::api::green_thread::GreenThread;
use crate::api::link::LinkId;
use crate::api::spawn::spawn_at;
use crate::error::GreenError;
use crate::greenlet::exit::Exit;
use crate::greenlet::run;

/// Runs `f` in a new green thread, and returns a future of its result. Does not switch.
///
/// It turns straight-line code into a future: `f` may wait, and the future is pending meanwhile. The green thread
/// begins when the caller next waits or yields, whether or not the future is polled. Twisted's `deferToGreenThread`.
///
/// ```
/// use greenhub::future::{block_on, defer_to_green_thread};
/// use greenhub::sleep;
/// use std::time::Duration;
/// let answer = block_on(async {
///     let deferred = defer_to_green_thread(|| {
///         sleep(Duration::from_millis(1));
///         42
///     });
///     deferred.await
/// });
/// assert_eq!(answer?, 42);
/// # Ok::<(), greenhub::GreenError>(())
/// ```
#[doc(alias = "deferToGreenThread")]
#[doc(alias = "spawn_blocking")]
#[track_caller]
pub fn defer_to_green_thread<T: 'static>(f: impl FnOnce() -> T + 'static) -> Deferred<T> {
    Deferred { green: spawn_at(Location::caller(), f), waker: Rc::default(), link: None, kills: false }
}

/// A future of the result of a green thread, from [`defer_to_green_thread`].
///
/// Its output is the result, or the error with which the green thread ended: a panic, a kill. After the output was
/// taken, here or by the green thread's handle, a poll returns [`GreenError::Taken`].
///
/// Dropping it detaches the green thread, which runs on, unless [`kill_on_drop`](Deferred::kill_on_drop) was called.
#[must_use = "the result is lost unless the future is awaited"]
pub struct Deferred<T: 'static> {
    green: GreenThread<T>,
    /// The waker of the last pending poll. The link wakes it.
    waker: Rc<Cell<Option<Waker>>>,
    link: Option<LinkId>,
    kills: bool,
}

impl<T> Deferred<T> {
    /// Returns the green thread.
    #[must_use]
    pub fn thread(&self) -> &GreenThread<T> {
        &self.green
    }

    /// Makes the drop of the future kill the green thread, if that has not ended. Does not switch.
    ///
    /// The drop does not switch either, since it may take place inside a poll: the kill strikes when the green thread
    /// next runs. A green thread that has not begun never does.
    ///
    /// ```
    /// use greenhub::future::defer_to_green_thread;
    /// use greenhub::sleep;
    /// use greenhub::thread::yield_now;
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use std::time::Duration;
    /// let slept = Rc::new(Cell::new(false));
    /// let seen = Rc::clone(&slept);
    /// let deferred = defer_to_green_thread(move || {
    ///     sleep(Duration::from_secs(3600));
    ///     seen.set(true);
    /// });
    /// yield_now(); // it sleeps
    /// drop(deferred.kill_on_drop());
    /// yield_now(); // it unwinds
    /// assert_eq!(Rc::strong_count(&slept), 1);
    /// assert!(!slept.get());
    /// ```
    pub fn kill_on_drop(mut self) -> Deferred<T> {
        self.kills = true;
        self
    }

    /// Makes the end of the green thread wake `waker`.
    fn watch(&mut self, waker: &Waker) {
        let known = self.waker.take();
        let waker = match known {
            Some(known) if known.will_wake(waker) => known,
            // The old waker is foreign, so it is dropped when the new one is in place.
            known => {
                self.waker.set(Some(waker.clone()));
                return drop(known);
            }
        };
        self.waker.set(Some(waker));
    }
}

impl<T> Future for Deferred<T> {
    type Output = Result<T, GreenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, GreenError>> {
        let this = &mut *self;
        if this.green.is_finished() {
            return Poll::Ready(this.green.task.take_result());
        }
        this.watch(cx.waker());
        if this.link.is_none() {
            let waker = Rc::clone(&this.waker);
            let wake = move |_: &_| _ = waker.take().map(Waker::wake);
            this.link = Some(this.green.link(wake));
        }
        Poll::Pending
    }
}

/// The result is not pinned: it lies with the green thread.
impl<T> Unpin for Deferred<T> {}

impl<T: 'static> Drop for Deferred<T> {
    fn drop(&mut self) {
        if let Some(link) = self.link {
            self.green.unlink(link);
        }
        if self.kills
            && let Some(control) = self.green.task.control()
        {
            run::request_exit(control, Exit::Kill(GreenError::Kill), false);
        }
    }
}

impl<T> fmt::Debug for Deferred<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").field("thread", &self.green).field("kill_on_drop", &self.kills).finish()
    }
}
