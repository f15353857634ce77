//! The end of a time, as a future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::greenlet::local;
use crate::hub::Time;
use crate::main_loop::remote::{Mailbox, Message};
use crate::main_loop::waker_table::WakerId;

/// A future that is ready when a time has passed, from [`sleep`].
///
/// It is `Send + Sync`. The hub of the OS thread that polls it has the timer. The deadline is by the clock of the hub
/// of the OS thread that has made the future, so both hubs have to use the same clock. A drop cancels the timer.
#[must_use = "a future does nothing unless it is polled"]
pub struct Sleep {
    deadline: Time,
    armed: Option<(Arc<Mailbox>, WakerId)>,
}

/// Returns a future that is ready when `duration` has passed. Does not switch.
///
/// The clock is that of this OS thread's hub. No runtime is needed: the timer is one of the main loop. In straight-line
/// code, [`sleep`](crate::sleep()) is shorter. After the end of the OS thread's green threads a poll is ready at once,
/// since no loop is left.
///
/// ```
/// use greenhub::future::{block_on, sleep};
/// use std::time::{Duration, Instant};
/// let begun = Instant::now();
/// block_on(async { sleep(Duration::from_millis(5)).await });
/// assert!(begun.elapsed() >= Duration::from_millis(5));
/// ```
///
/// # Panics
///
/// A poll panics if the hub cannot be built.
pub fn sleep(duration: Duration) -> Sleep {
    let now = local::get_if_any().map_or_else(Time::monotonic, |local| local.main_loop.now());
    Sleep { deadline: now + duration, armed: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // At the end of an OS thread there is no loop any more, and nothing to wait for.
        let Some(local) = local::get_if_any() else { return Poll::Ready(()) };
        let main_loop = &local.main_loop;
        let here = main_loop.mailbox();
        if let Some((mailbox, id)) = &this.armed
            && here.as_ref().is_some_and(|here| Arc::ptr_eq(here, mailbox))
            && main_loop.wakers.renew_for_timer(*id, cx.waker())
        {
            return Poll::Pending;
        }
        this.cancel();
        let left = this.deadline - main_loop.now();
        if left.is_zero() {
            return Poll::Ready(());
        }
        match main_loop.arm_timer_waker(left, cx.waker().clone()) {
            Ok(id) => this.armed = main_loop.mailbox().map(|mailbox| (mailbox, id)),
            Err(error) => panic!("{error}"),
        }
        Poll::Pending
    }
}

impl Sleep {
    fn cancel(&mut self) {
        let Some((mailbox, id)) = self.armed.take() else { return };
        let here =
            local::try_get().filter(|local| local.main_loop.mailbox().is_some_and(|here| Arc::ptr_eq(&here, &mailbox)));
        match here {
            Some(local) => local.main_loop.cancel_waker(id),
            // An OS thread that has ended has no timer any more.
            None => drop(mailbox.post(Message::Run(Box::new(move || local::get().main_loop.cancel_waker(id))))),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
