//! Shields: parts of a program that no exit leaves early.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::greenlet::local;
use crate::greenlet::run;

/// Runs `f` and holds back kills, timeouts and links until it is over. Switches if `f` does.
///
/// A wait inside `f` goes on as if the exit had not been asked for; the exit strikes at the first wait after the
/// outermost shield. A [`kill`](crate::GreenThread::kill) meanwhile returns [`KillOutcome::Scheduled`](crate::KillOutcome::Scheduled).
/// Shields nest, and `f` may panic. `shield` builds no hub and allocates nothing, so it works in every OS thread; with
/// `panic = "abort"`, where there are no exits, it calls `f`.
///
/// It is for steps that belong together though there is a wait between them: giving back what was borrowed, telling
/// the peer, writing the second of two records. **A wait without a limit inside a shield ends only by what it waits
/// for**: no kill and no timeout around the shield can end it. Give it a limit: a
/// [`with_timeout`](crate::with_timeout) or [`with_link`](crate::GreenThread::with_link) that is opened inside the shield
/// strikes there, as with Trio's shields. Only the scopes around a shield wait for it.
///
/// A shield holds back nothing that is a value: the error of a main loop that ends, or of a socket's time limit. A
/// [shutdown](crate::HubRef::shutdown) waits for the end of shields up to its limit, and lifts them then.
///
/// # Waits and exits
///
/// A kill, a timeout or a link strikes where a green thread waits, and nowhere else. Code that computes is never
/// interrupted, and neither is a call that takes a free lock.
///
/// An operation on a socket, a pipe, a channel or a queue that can be served at once mostly does not wait either. But
/// after 16 such operations in a row, or a few more, the next one first [lets others run](crate::consume_budget), and an
/// exit strikes there, before the operation has begun. So a loop of reads that always find data can be killed. Inside a
/// shield no such operation is struck.
///
/// | the green thread | an exit |
/// |---|---|
/// | sleeps, yields, lets others run before an operation that can be served at once, waits for a descriptor, a socket, a child, a [`join`](crate::GreenThread::join), a queue, a channel, a semaphore, an event, a barrier, a notification, a place in a pool, the closure of a `Once`, `OnceLock` or `LazyLock` that another one runs | strikes at once |
/// | waits for a lock (a mutex, a reader-writer lock; to have the mutex again after a notification) | strikes at the first wait after it, or when it has waited for the [patience](crate::set_lock_patience), a second |
/// | waits for the green threads of a [`scope`](crate::scope()) | kills them, and strikes when they have ended |
/// | waits for a job that borrows ([`offload_scoped`](crate::offload_scoped); files) | strikes at the first wait after the job |
/// | is inside a shield | strikes at the first wait after it |
/// | unwinds already (a destructor runs because of a panic or an exit) | is not thrown again; the wait blocks the OS thread for the [time of grace](crate::set_panicking_grace) at most |
///
/// A wait keeps what it was granted: if what it waits for came before the exit is thrown, the wait returns it and the exit
/// strikes at the next one, or not at all if its scope has ended. So a send that timed out was not received, and an
/// item that was taken out of a queue is not lost.
///
/// # A destructor that gives something back
///
/// A destructor runs in two situations. At the end of a block it runs like any other code: a wait in it would be struck,
/// and what comes after that wait would be left out. So it is shielded. While the green thread unwinds nothing can
/// switch: a wait blocks the whole OS thread and fails after the time of grace. So a destructor waits for nothing that
/// may take long, and hands what does to a green thread of its own.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{shield, sleep, spawn, spawn_n, yield_now};
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
/// # });
/// ```
///
/// # Panics
///
/// If `f` does.
///
/// # Examples
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{shield, sleep, with_timeout};
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
/// # });
/// ```
pub fn shield<R>(f: impl FnOnce() -> R) -> R {
    // Where there are no greenlets yet, no scope is open from which an exit could come.
    let shield = local::try_get().and_then(|_| run::Shield::new());
    let result = f();
    drop(shield);
    result
}

/// Runs foreign code under a lock of a primitive: nothing in it can switch. Returns its result, or the payload of its panic.
///
/// A wait in it fails or panics, as in the main loop, and so does giving way. An OS thread that has not used this library
/// yet blocks in a wait as with std.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// hub_core::spawn(|| ());
/// let slept = hub_core::without_switching(|| hub_core::sleep(std::time::Duration::ZERO));
/// assert!(slept.is_err());
/// assert_eq!(hub_core::without_switching(|| 1).unwrap(), 1);
/// # });
/// ```
///
/// # Errors
///
/// The payload, if `f` panics.
pub fn without_switching<R>(f: impl FnOnce() -> R) -> std::thread::Result<R> {
    match local::try_get() {
        Some(local) => local.main_loop.call_guarded(f),
        None => catch_unwind(AssertUnwindSafe(f)),
    }
}
