//! Shields: sections of a program that no exit leaves early.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::greenlet::local;
use crate::greenlet::run;

/// Runs `f`, and holds back kills, timeouts and links until it returns. Switches if `f` does.
///
/// A wait inside `f` goes on despite a pending exit. The exit strikes at the first wait after the outermost shield. A
/// [`kill`](crate::GreenThread::kill) meanwhile returns [`KillOutcome::Scheduled`](crate::KillOutcome::Scheduled).
/// Shields nest, and `f` may panic. `shield` builds no hub and allocates nothing, so it works in every OS thread. With
/// `panic = "abort"` there are no exits, and `shield` only calls `f`.
///
/// A shield is for steps that belong together although there is a wait between them: releasing a resource, notifying
/// the peer, writing the second of two records. **A wait without a limit inside a shield ends only by the event that it
/// waits for**: no kill, and no timeout or link around the shield, can end it. Give it a limit: a
/// [`with_timeout`](crate::with_timeout) or [`with_link`](crate::GreenThread::with_link) that is opened inside the
/// shield strikes there, as with Trio's shields. Only kills and the exits of scopes around a shield are held back.
///
/// A shield holds back no error that a call returns: that of a main loop that ends, or of a socket's time limit. A
/// [shutdown](crate::HubRef::shutdown) waits for the end of shields up to its limit, and then lifts them.
///
/// # Waits and exits
///
/// A kill, a timeout or a link strikes where a green thread waits, and nowhere else. It never interrupts code that
/// computes, nor a call that takes a free lock.
///
/// An operation on a socket, a pipe, a channel or a queue that can be served at once mostly does not wait either. After
/// 16 such operations in a row, or a few more, the next one first [yields](crate::consume_budget), and an exit strikes
/// there, before the operation has begun. So a loop of reads that always find data can be killed. Inside a shield no
/// such operation is struck.
///
/// | the green thread | an exit |
/// |---|---|
/// | sleeps, yields, yields before an operation that can be served at once, waits for a descriptor, a socket, a child, a [`join`](crate::GreenThread::join), a queue, a channel, a semaphore, an event, a barrier, a notification, a future, a free slot of a pool, the closure of a `Once`, `OnceLock` or `LazyLock` in another green thread | strikes at once |
/// | waits for a lock (a mutex, a reader-writer lock, the mutex after a notification) | strikes at the first wait after it, or when the wait has lasted for the [patience](crate::set_lock_patience), one second by default |
/// | waits for the green threads of a [`scope`](crate::scope()) | kills them, and strikes when they have ended |
/// | waits for a job that borrows (`tpool::execute_scoped`; files) | strikes at the first wait after the job |
/// | is inside a shield | strikes at the first wait after it |
/// | is inside a poll of a future, in [`block_on`](crate::future::block_on) | strikes at the first wait outside of the poll |
/// | unwinds already (a destructor runs because of a panic or an exit) | is not thrown again; the wait blocks the OS thread for at most the [grace](crate::set_panicking_grace) |
///
/// A wait keeps what it was granted: if the awaited event came before the exit is thrown, the wait returns it. The exit
/// strikes at the next wait, or not at all if its scope has ended. So a send that timed out was not received, and an
/// item that was taken out of a queue is not lost.
///
/// # A destructor that releases a resource
///
/// A destructor runs in two situations. At the end of a block it runs like any other code: an exit would strike a wait
/// in it, and skip the steps after that wait. So it needs a shield. While the green thread unwinds, nothing can switch:
/// a wait blocks the whole OS thread and fails after the grace. So a destructor should not wait long, and
/// should leave long work to a green thread of its own.
///
/// ```
/// use greenhub::{shield, sleep, spawn, spawn_n};
/// use greenhub::thread::yield_now;
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use std::time::Duration;
///
/// /// Says goodbye to its peer.
/// struct Session(Rc<Cell<u32>>);
///
/// impl Session {
///     fn goodbye(ended: &Cell<u32>) {
///         sleep(Duration::from_millis(1)); // a write that waits
///         ended.set(ended.get() + 1);
///     }
/// }
///
/// impl Drop for Session {
///     fn drop(&mut self) {
///         let ended = Rc::clone(&self.0);
///         if std::thread::panicking() {
///             spawn_n(move || Session::goodbye(&ended));
///         } else {
///             shield(|| Session::goodbye(&ended));
///         }
///     }
/// }
///
/// let ended = Rc::new(Cell::new(0));
/// let session = Session(Rc::clone(&ended));
/// let green = spawn(move || drop(session));
/// yield_now(); // it is in its destructor
/// green.kill();
/// let _ = green.join();
/// assert_eq!(ended.get(), 1);
/// ```
///
/// # Panics
///
/// Panics if `f` does.
///
/// # Examples
///
/// ```
/// use greenhub::{shield, sleep, with_timeout};
/// use std::time::Duration;
/// let short = Duration::from_millis(1);
/// let mut records = Vec::new();
/// let late = with_timeout(short, || {
///     shield(|| {
///         records.push("debit");
///         sleep(10 * short);
///         records.push("credit");
///     });
///     sleep(Duration::from_secs(3600)); // struck at once
/// });
/// assert!(late.is_err());
/// assert_eq!(records, ["debit", "credit"]);
/// ```
pub fn shield<R>(f: impl FnOnce() -> R) -> R {
    // Without greenlets no scope is open, so no exit can come.
    let shield = local::try_get().and_then(|_| run::Shield::new());
    let result = f();
    drop(shield);
    result
}

/// Runs foreign code under a lock of a primitive, where nothing can switch.
///
/// Returns the result of `f`, or the payload of its panic. A wait or a yield in `f` fails or panics, as in the main
/// loop. An OS thread that has not used this library yet blocks in a wait as with std.
///
/// ```
/// greenhub::spawn(|| ());
/// let slept = hub_core::internal::without_switching(|| greenhub::sleep(std::time::Duration::ZERO));
/// assert!(slept.is_err());
/// assert_eq!(hub_core::internal::without_switching(|| 1).unwrap(), 1);
/// ```
///
/// # Errors
///
/// Returns the payload if `f` panics.
pub fn without_switching<R>(f: impl FnOnce() -> R) -> std::thread::Result<R> {
    match local::try_get() {
        Some(local) => local.main_loop.call_guarded(f),
        None => catch_unwind(AssertUnwindSafe(f)),
    }
}
