//! Runs a closure in the greenlet of its caller, like a green thread.

use std::panic::Location;

use super::green_thread::GreenThread;
use crate::greenlet::local;
use crate::greenlet::run;
use crate::greenlet::task::Task;

/// Runs `f` at once in the caller's greenlet, and returns a finished handle. Switches only if `f` does.
///
/// A panic of `f` is in the handle. It is for pools that have no free slot for a task that one of their own tasks
/// spawns. An exit that reaches the caller within `f` continues once `f` is unwound.
///
/// ```
/// let here = greenhub::greenthread::current_id();
/// let green = hub_core::internal::run_in_place(greenhub::greenthread::current_id);
/// assert!(green.is_finished());
/// assert_eq!(green.join().unwrap(), here);
/// ```
#[track_caller]
pub fn run_in_place<T: 'static>(f: impl FnOnce() -> T + 'static) -> GreenThread<T> {
    run_in_place_at(Location::caller(), f)
}

/// Like [`run_in_place`], but reports show `place` as the location of the spawn. Switches only if `f` does.
///
/// ```
/// let here = std::panic::Location::caller();
/// let green = hub_core::internal::run_in_place_at(here, || ());
/// assert_eq!(green.spawned_at(), here);
/// ```
pub fn run_in_place_at<T: 'static>(
    place: &'static Location<'static>,
    f: impl FnOnce() -> T + 'static,
) -> GreenThread<T> {
    let local = local::get();
    let me = run::current();
    let thrown = me.thrown();
    let task = Task::run_at_once(local, f, place);
    let green = GreenThread { task };
    if run::has_to_exit(me) {
        // The caller exits, so it cannot use the handle.
        green.task.discard();
        if me.thrown() != thrown {
            run::exit_again();
        }
        run::check_exit();
    }
    green
}
