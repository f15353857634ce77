//! Native threads for what can only block: Eventlet's `tpool`.
//!
//! One small pool of OS threads serves the whole process: 20 of them unless `EVENTLET_THREADPOOL_SIZE` or
//! [`set_num_threads`] says otherwise. They are started when they are needed, and end when they have been idle for a
//! while. Each result goes to the hub of the green thread that asked.

use std::num::NonZeroUsize;

pub use hub_core::JobError;

/// Runs `job` on an OS thread of the pool; only the calling green thread waits. Eventlet's `execute`. Switches.
///
/// A caller that is killed or times out goes on at once; the job runs to its end and its result is dropped. While
/// panicking, in an ending thread, and from a job of the pool, `job` runs on the calling OS thread.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hub-core/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let here = std::thread::current().id();
/// let there = greenstd::tpool::execute(|| std::thread::current().id())?;
/// assert_ne!(there, here);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`JobError::Panicked`] if `job` panics. [`JobError::Io`] if `EVENTLET_THREADPOOL_SIZE` is not a positive number, no OS
/// thread can be had, or the loop cannot wait; if the job was queued before, it runs all the same.
pub fn execute<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, JobError> {
    hub_core::offload(job)
}

/// As [`execute`], for a job that borrows. The wait is not left early: a kill or a timeout of the caller takes effect
/// when the job has ended, and the end of the OS thread waits for it. Switches.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hub-core/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let mut numbers = vec![3, 1, 2];
/// greenstd::tpool::execute_scoped(|| numbers.sort())?;
/// assert_eq!(numbers, [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`JobError::Panicked`] if `job` panics. [`JobError::Io`] if `EVENTLET_THREADPOOL_SIZE` is not a positive number, no OS
/// thread can be had, or there is no loop that could wait; the job has not run then.
pub fn execute_scoped<T: Send>(job: impl FnOnce() -> T + Send) -> Result<T, JobError> {
    hub_core::offload_scoped(job)
}

/// Sets how many OS threads there are at most, whatever `EVENTLET_THREADPOOL_SIZE` says. Eventlet's `set_num_threads`.
/// Holds from the next job on, and for the whole process; threads that are too many then end when they have done
/// their job. Does not switch.
///
/// ```
/// greenstd::tpool::set_num_threads(std::num::NonZeroUsize::new(4).unwrap());
/// ```
pub fn set_num_threads(threads: NonZeroUsize) {
    hub_core::set_threads(threads);
}

/// Ends the OS threads of the pool: those that are idle at once, the others when they have done their job and what
/// is queued. Eventlet's `killall`. Waits for nobody, and a later job starts new ones. Does not switch.
///
/// ```
/// greenstd::tpool::killall();
/// ```
pub fn killall() {
    hub_core::end_threads();
}
