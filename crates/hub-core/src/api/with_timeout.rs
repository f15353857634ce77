//! Timeouts: an exit that unwinds to the scope that set it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Timeout;
use crate::greenlet::driver::Driver;
use crate::greenlet::exit::{Exit, in_scope};
use crate::greenlet::local;
use crate::greenlet::run;
use crate::greenlet::target::Target;
use crate::timer_queue::TimerId;

/// Runs `f`, and unwinds it if it has not returned after `limit`. Switches if `f` does.
///
/// When the limit passes, the call in which `f` blocks starts to unwind, the destructors of `f` run, and `with_timeout`
/// returns an error. `None` means no limit. Eventlet's `with_timeout`.
///
/// A call is interrupted only where it waits or yields: code that computes runs on until its next such call. An
/// operation on a socket, a pipe, a channel or a queue that can be served at once mostly is, and is not interrupted.
/// After 16 such operations in a row, or a few more, the next one first [yields](crate::consume_budget), and the
/// timeout strikes there, before the operation has begun.
///
/// The limit counts from the loop's next look at the clock, so the timeout is never early. A limit of zero strikes at
/// the first wait or yield. Scopes nest, and each catches its own timeout only. A limit that passes has no effect if
/// `f` returns without another wait or yield.
///
/// A call keeps what it was granted before the timeout strikes: it returns that, and `f` is interrupted at its next
/// wait. Data that had arrived by the deadline counts, however long other green threads computed meanwhile. In a part
/// of `f` that must not be left early (a [`scope`](crate::scope) that joins its green threads, a
/// [`shield`](crate::shield())) the timeout is held back until that part is over. [`shield`](crate::shield()) lists the
/// waits that a timeout interrupts, and shows a destructor that releases a resource.
///
/// Code inside `f` that calls [`catch_unwind`](std::panic::catch_unwind) has to let the timeout pass, see
/// [`is_exit`](crate::is_exit). A timeout that is swallowed is thrown again at the next wait, and given up after a
/// hundred times.
///
/// ```
/// use greenhub::{sleep, with_timeout};
/// use std::time::Duration;
/// assert_eq!(with_timeout(Duration::from_secs(3600), || "in time")?, "in time");
/// let late = with_timeout(Duration::from_millis(1), || sleep(Duration::from_secs(3600)));
/// assert_eq!(late.unwrap_err().to_string(), "timed out after 0.001 seconds");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns [`Timeout`] if the limit passed. With `panic = "abort"` nothing can be interrupted: `f` is not run, and the
/// error says so ([`is_unsupported`](Timeout::is_unsupported)).
///
/// # Panics
///
/// Panics if `f` does.
#[doc(alias = "timeout")]
#[doc(alias = "start_new")]
#[doc(alias = "fail_after")]
#[doc(alias = "move_on_after")]
#[doc(alias = "exc_after")]
pub fn with_timeout<R>(limit: impl Into<Option<Duration>>, f: impl FnOnce() -> R) -> Result<R, Timeout> {
    let Some(limit) = limit.into() else { return Ok(f()) };
    let number = next_number();
    if cfg!(panic = "abort") {
        return Err(Timeout::unsupported(number, limit));
    }
    let scope = TimeoutScope::open(number, limit);
    in_scope(number, scope, f).map_err(|_| Timeout::of_scope(number, limit))
}

/// Returns a number that no other scope of the process has.
///
/// OS threads reserve numbers in blocks, since an atomic addition costs as much as the timer.
#[inline]
pub(crate) fn next_number() -> u64 {
    const BLOCK: u64 = 1 << 16;
    static NEXT_BLOCK: AtomicU64 = AtomicU64::new(0);
    thread_local!(static NEXT: Cell<u64> = const { Cell::new(0) });
    NEXT.with(|next| {
        let mut number = next.get();
        if number % BLOCK == 0 {
            number = NEXT_BLOCK.fetch_add(BLOCK, Ordering::Relaxed) + 1;
        }
        next.set(number + 1);
        number
    })
}

/// An open scope. Its timer is armed while it exists, so a timer that fires finds its greenlet inside the scope.
struct TimeoutScope {
    number: u64,
    /// `None` if the limit was zero: the scope has timed out from the start.
    timer: Option<TimerId>,
}

impl TimeoutScope {
    fn open(number: u64, limit: Duration) -> TimeoutScope {
        let greenlet = run::current();
        if limit.is_zero() {
            greenlet.set_exit(Exit::Timeout { scope: number, shields: greenlet.shields() });
            return TimeoutScope { number, timer: None };
        }
        let target = Target::Timeout { greenlet: greenlet.number(), shields: greenlet.shields(), timeout: number };
        TimeoutScope { number, timer: Some(local::get().main_loop.arm(limit, target)) }
    }
}

impl Drop for TimeoutScope {
    fn drop(&mut self) {
        let disarmed = self.timer.is_some_and(|timer| local::get().main_loop.disarm(timer));
        if !disarmed {
            run::current().clear_scope(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::next_number;

    #[test]
    fn numbers_are_unique_within_and_across_threads() {
        let draw = || (0..(3 << 16)).map(|_| next_number()).collect::<Vec<u64>>();
        let other = std::thread::spawn(draw);
        let mut all = draw();
        all.extend(other.join().expect("no panic"));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
