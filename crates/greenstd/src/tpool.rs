//! OS threads for blocking jobs, Eventlet's `tpool`.
//!
//! A default pool serves the whole process. It has at most 20 OS threads, unless `EVENTLET_THREADPOOL_SIZE` or
//! [`set_num_threads`] sets another number. With a size of 0 jobs run on the OS thread of their caller, which is
//! reported once. Pool threads start when they are needed, and end when they have been idle for a while. Each result
//! goes to the hub of the calling green thread. A job that has waited more than a second for a pool thread is
//! [reported](hub_core::set_report_stream), once.
//!
//! Jobs that must not wait for other jobs need their own [`Pool`]. The files of [`fs`](crate::fs) and the name look-ups
//! of [`net`](crate::net) have pools of their own, of at most 64 OS threads each.

use std::io;
use std::num::NonZeroUsize;

pub use hub_core::{JobError, ThreadPool as Pool};

/// Runs `job` on an OS thread of the default pool, Eventlet's `execute`. Switches.
///
/// Only the calling green thread waits. An [exit](hub_core::is_exit) strikes at once; the job runs to its end and its
/// result is dropped. A dropped result that is an `Err` or a panic is [reported](hub_core::set_report_stream). While
/// panicking, after the end of the OS thread's green threads, and in a job of any pool, `job` runs on the calling OS
/// thread.
///
/// A job may spawn green threads, which run on its pool thread. They may outlive the job, whose result is sent at once.
/// The pool thread takes another job only after they have ended. Green threads that nothing can wake are
/// [reported](hub_core::set_report_stream) and killed. Timers and listeners that are left are reported and dropped. A
/// [`Remote`](hub_core::Remote) of the hub then fails, because the hub is gone.
///
/// ```
/// let here = std::thread::current().id();
/// let there = greenhub::tpool::execute(|| std::thread::current().id())?;
/// assert_ne!(there, here);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns [`JobError::Panic`] if `job` panics. Returns [`JobError::Io`] if `EVENTLET_THREADPOOL_SIZE` is not a
/// number, no OS thread can be started, or the caller cannot wait. A job that was queued before the error runs all the
/// same. In a forked child the wait for a job of the parent returns [`JobError::Io`]: the job goes on in the parent
/// alone.
#[doc(alias = "apply")]
#[doc(alias = "run_in_executor")]
#[doc(alias = "spawn_blocking")]
#[track_caller]
pub fn execute<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, JobError> {
    hub_core::internal::offload(job)
}

/// Like [`execute`], for a job that borrows. Switches.
///
/// The wait is not left early: it returns the job's result, and an exit strikes at the next wait. A
/// [shutdown](hub_core::HubRef::shutdown) waits for it up to its limit.
///
/// If the OS thread of the caller ends before the job, the job goes on. A job must therefore not borrow the value of a
/// thread-local: see [`spawn`](hub_core::spawn).
///
/// ```
/// let mut numbers = vec![3, 1, 2];
/// greenhub::tpool::execute_scoped(|| numbers.sort())?;
/// assert_eq!(numbers, [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns [`JobError::Panic`] if `job` panics. Returns [`JobError::Io`] if `EVENTLET_THREADPOOL_SIZE` is not a number,
/// no OS thread can be started, or there is no loop that could wait; the job has not run then. In a forked child the
/// wait for a job of the parent returns [`JobError::Io`] as well.
pub fn execute_scoped<T: Send>(job: impl FnOnce() -> T + Send) -> Result<T, JobError> {
    hub_core::internal::offload_scoped(job)
}

/// Sets the size of the default pool, Eventlet's `set_num_threads`. Does not switch.
///
/// It overrides `EVENTLET_THREADPOOL_SIZE` for the whole process, from the next job on. Surplus pool threads end after
/// their present job.
///
/// ```
/// greenhub::tpool::set_num_threads(std::num::NonZeroUsize::new(4).unwrap());
/// assert_eq!(greenhub::tpool::num_threads()?, 4);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn set_num_threads(threads: NonZeroUsize) {
    hub_core::internal::set_num_threads(threads);
}

/// Returns the size of the default pool. Does not switch.
///
/// It is 0 if `EVENTLET_THREADPOOL_SIZE` says so: jobs then run on the OS thread of their caller.
///
/// # Errors
///
/// Returns an error if `EVENTLET_THREADPOOL_SIZE` is not a number.
pub fn num_threads() -> io::Result<usize> {
    hub_core::internal::num_threads()
}

/// Ends the OS threads of the default pool, Eventlet's `killall`. Does not switch.
///
/// Idle pool threads end at once, the others after their present job and the queued jobs. It does not wait for them,
/// and a later job starts new ones.
///
/// ```
/// greenhub::tpool::kill_all();
/// ```
#[doc(alias = "killall")]
pub fn kill_all() {
    hub_core::internal::end_threads();
}
