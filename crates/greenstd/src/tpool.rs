//! Native threads for jobs that block: Eventlet's `tpool`.
//!
//! A default pool serves the whole process: 20 OS threads at most, unless `EVENTLET_THREADPOOL_SIZE` or
//! [`set_num_threads`] says otherwise. With a size of 0 jobs run on the OS thread of their caller, which is reported once.
//! Threads are started when they are needed, and end when they have been idle for a while. Each result goes to the hub of
//! the green thread that asked. A job that has waited for a thread for more than a second is
//! [reported](hub_core::set_report_stream), once.
//!
//! Jobs that must not wait for those of others have a [`Pool`] of their own. So have the files of [`fs`](crate::fs) and
//! the name look-ups of [`net`](crate::net): 64 OS threads each at most, whatever the default pool does.

use std::num::NonZeroUsize;

pub use hub_core::{JobError, ThreadPool as Pool};

/// Runs `job` on an OS thread of the default pool; only the calling green thread waits. Eventlet's `execute`. Switches.
///
/// A caller that is killed or times out goes on at once; the job runs to its end and its result is dropped. An `Err` or a
/// panic that is dropped so is [reported](hub_core::set_report_stream). While panicking, after the end of the thread's
/// green threads, and from a job of any pool, `job` runs on the calling OS thread.
///
/// A job may spawn green threads, which run on its OS thread. They run until they have ended, while the result of the job
/// is on its way already; only then does the OS thread take another job. Green threads that
/// nothing can wake are [reported](hub_core::set_report_stream) and killed, and timers and listeners that are left are
/// reported and dropped. A [`Remote`](hub_core::Remote) of the hub says then that it is gone.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let here = std::thread::current().id();
/// let there = greenstd::tpool::execute(|| std::thread::current().id())?;
/// assert_ne!(there, here);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`JobError::Panicked`] if `job` panics. [`JobError::Io`] if `EVENTLET_THREADPOOL_SIZE` is not a number, no OS
/// thread can be had, or the loop cannot wait; if the job was queued before, it runs all the same.
#[track_caller]
pub fn execute<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, JobError> {
    hub_core::offload(job)
}

/// As [`execute`], for a job that borrows. The wait is not left early: a kill or a timeout of the caller takes effect
/// when the job has ended, and a [shutdown](hub_core::HubRef::shutdown) waits for it up to its limit. Switches.
///
/// If the OS thread of the caller ends before the job, the job goes on. A job must therefore not borrow the value of a
/// thread-local: see [`spawn`](hub_core::spawn).
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let mut numbers = vec![3, 1, 2];
/// greenstd::tpool::execute_scoped(|| numbers.sort())?;
/// assert_eq!(numbers, [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`JobError::Panicked`] if `job` panics. [`JobError::Io`] if `EVENTLET_THREADPOOL_SIZE` is not a number, no OS
/// thread can be had, or there is no loop that could wait; the job has not run then.
pub fn execute_scoped<T: Send>(job: impl FnOnce() -> T + Send) -> Result<T, JobError> {
    hub_core::offload_scoped(job)
}

/// Sets the size of the default pool, whatever `EVENTLET_THREADPOOL_SIZE` says. Eventlet's `set_num_threads`.
///
/// Holds from the next job on, and for the whole process; surplus threads end when they have done their job. Does not
/// switch.
///
/// ```
/// greenstd::tpool::set_num_threads(std::num::NonZeroUsize::new(4).unwrap());
/// ```
pub fn set_num_threads(threads: NonZeroUsize) {
    hub_core::set_threads(threads);
}

/// Ends the OS threads of the default pool: idle threads at once, the others when they have done their job and the
/// queued ones. Eventlet's `kill_all`. Waits for none of them, and a later job starts new ones. Does not switch.
///
/// ```
/// greenstd::tpool::kill_all();
/// ```
pub fn kill_all() {
    hub_core::end_threads();
}
