//! Timeouts: an exit that goes as far as the scope that set it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Timeout;
use crate::greenlet::driver::Driver;
use crate::greenlet::local;
use crate::greenlet::run;
use crate::greenlet::target::Target;
use crate::greenlet::unwind::{Exit, in_scope};
use crate::timer_queue::TimerId;

/// Runs `f` and gives it up if it has not returned after `limit`: the call in which it blocks then starts
/// to unwind, its destructors run, and `with_timeout` returns. `None` means no limit. Eventlet's
/// `with_timeout`. Switches if `f` does.
///
/// A call is interrupted where it blocks or lets others run: code that computes runs on until the next such call. An
/// operation on a socket, a pipe, a channel or a queue that can be served at once mostly is, and is not interrupted; but
/// after 16 in a row, or a few more, the next one first [lets others run](crate::consume_budget), and the timeout strikes
/// there, before the operation has begun.
///
/// The limit counts from the loop's next look at the clock, so it is never early; one of zero strikes at the first call
/// that blocks or lets others run. Scopes nest; each catches its own timeout only. A limit that has passed when `f`
/// returns without either changes nothing.
///
/// A call keeps what it was granted before the timeout strikes: it returns that, and `f` is interrupted at its next
/// such call. Data that had arrived by the deadline counts, however long other green threads computed meanwhile.
/// In a part of `f` that must not be left early (a [`scope`](crate::scope) that joins its green
/// threads, a [`shield`](crate::shield())) the timeout waits until that part is over. [`shield`](crate::shield()) lists
/// which waits are struck, and shows a destructor that gives something back.
///
/// Code inside `f` that calls [`catch_unwind`](std::panic::catch_unwind) has to let the timeout pass, see
/// [`is_exit`](crate::is_exit). One that is swallowed is thrown again at the next wait, and given up after a hundred times.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{sleep, with_timeout};
/// use std::time::Duration;
/// assert_eq!(with_timeout(Duration::from_secs(3600), || "in time")?, "in time");
/// let late = with_timeout(Duration::from_millis(1), || sleep(Duration::from_secs(3600)));
/// assert_eq!(late.unwrap_err().to_string(), "timed out after 0.001 seconds");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`Timeout`] if the limit passed. With `panic = "abort"` nothing can be interrupted: `f` is not run,
/// and the error says so ([`is_unsupported`](Timeout::is_unsupported)).
///
/// # Panics
///
/// If `f` does.
pub fn with_timeout<R>(limit: impl Into<Option<Duration>>, f: impl FnOnce() -> R) -> Result<R, Timeout> {
    let Some(limit) = limit.into() else { return Ok(f()) };
    let number = next_number();
    if cfg!(panic = "abort") {
        return Err(Timeout::unsupported(number, limit));
    }
    let scope = Scope::open(number, limit);
    in_scope(number, scope, f).map_err(|_| Timeout::of_scope(number, limit))
}

/// A number that no other scope of the process has. Threads draw them in blocks, since an atomic addition
/// costs as much as the timer.
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

/// Has its timer armed while it exists, so a timer that fires finds its greenlet inside the scope.
struct Scope {
    number: u64,
    /// `None`: it has run out from the beginning.
    timer: Option<TimerId>,
}

impl Scope {
    fn open(number: u64, limit: Duration) -> Scope {
        let greenlet = run::current();
        if limit.is_zero() {
            greenlet.set_exit(Exit::Timeout { scope: number, shields: greenlet.shields() });
            return Scope { number, timer: None };
        }
        let target = Target::Timeout { greenlet: greenlet.number(), shields: greenlet.shields(), timeout: number };
        Scope { number, timer: Some(local::get().main_loop.arm(limit, target)) }
    }
}

impl Drop for Scope {
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
        all.extend(other.join().expect("draws only"));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
