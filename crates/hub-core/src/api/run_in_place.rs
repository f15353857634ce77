//! Runs a body in the greenlet of its caller, as if it were a green thread.

use std::panic::Location;

use super::green_thread::GreenThread;
use crate::greenlet::local;
use crate::greenlet::run::{self};
use crate::greenlet::task::Task;

/// Runs `f` at once, in the green thread that calls this, and returns the handle of a green thread that has ended so.
/// What `f` panics with is in the handle. May switch only where `f` does.
///
/// For pools that have no room for what one of their own spawns. An exit that reaches the caller within `f` goes on
/// when `f` is unwound.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let here = hub_core::current_id();
/// let green = hub_core::run_in_place(hub_core::current_id);
/// assert!(green.is_finished());
/// assert_eq!(green.join().unwrap(), here);
/// # });
/// ```
#[track_caller]
pub fn run_in_place<T: 'static>(f: impl FnOnce() -> T + 'static) -> GreenThread<T> {
    run_in_place_at(Location::caller(), f)
}

/// Like [`run_in_place`], with the place that reports name as that of the spawning. May switch only where `f` does.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let here = std::panic::Location::caller();
/// let green = hub_core::run_in_place_at(here, || ());
/// assert_eq!(green.spawned_at(), here);
/// # });
/// ```
pub fn run_in_place_at<T: 'static>(
    place: &'static Location<'static>,
    f: impl FnOnce() -> T + 'static,
) -> GreenThread<T> {
    let local = local::get();
    let task = Task::new(local, f, true, place);
    if let Some(control) = task.control() {
        task.forget_control();
        local.controls.give(control);
    }
    let me = run::current();
    let thrown = me.thrown();
    task.run();
    task.finish();
    let green = GreenThread { task };
    if run::has_to_exit(me) {
        // The caller ends, so the handle is of no use.
        task.discard();
        if me.thrown() != thrown {
            run::exit_again();
        }
        run::check_exit();
    }
    green
}
