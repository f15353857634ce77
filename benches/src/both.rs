//! Two functions that run beside each other: in green threads, in tasks, and in OS threads.

use std::time::Duration;

use crate::Stopwatch;

/// Runs two functions in green threads of this OS thread, and returns the time until both have ended.
///
/// # Panics
///
/// Panics if one of them does.
pub fn both_green(one: impl FnOnce() + 'static, other: impl FnOnce() + 'static) -> Duration {
    let watch = Stopwatch::start();
    let both = [greenhub::spawn(one), greenhub::spawn(other)];
    both.into_iter().for_each(|green| green.join().expect("no panic"));
    watch.elapsed()
}

/// Runs two futures as tasks of Tokio on one OS thread, and returns the time until both have ended.
///
/// # Panics
///
/// Panics if one of them does.
pub fn both_tasks(
    one: impl Future<Output = ()> + Send + 'static,
    other: impl Future<Output = ()> + Send + 'static,
) -> Duration {
    tokio_runtime().block_on(async move {
        let watch = Stopwatch::start();
        let both = [tokio::spawn(one), tokio::spawn(other)];
        for task in both {
            task.await.expect("no panic");
        }
        watch.elapsed()
    })
}

/// Builds a current-thread runtime of Tokio without timers and sockets.
///
/// # Panics
///
/// Panics if the system lacks what a runtime needs.
#[must_use]
pub fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

/// Runs two functions on OS threads of their own, and returns the time until both have ended.
///
/// # Panics
///
/// Panics if one of them does.
pub fn both_threads(one: impl FnOnce() + Send + 'static, other: impl FnOnce() + Send + 'static) -> Duration {
    let watch = Stopwatch::start();
    let both = [std::thread::spawn(one), std::thread::spawn(other)];
    both.into_iter().for_each(|thread| thread.join().expect("no panic"));
    watch.elapsed()
}
