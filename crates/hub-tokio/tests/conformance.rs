//! The conformance suite, over each hub with a pollable descriptor.

use std::cell::Cell;

use hub_tokio::TokioHub;

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "../../hub-kqueue/tests/emulation/mod.rs"]
mod emulation;

/// Runs `closure` in a task.
#[allow(dead_code, reason = "no hub of the other systems has a pollable descriptor")]
fn run_in_wait<H>(_: &mut TokioHub<H>, closure: Box<dyn FnOnce()>) {
    // A task must be `Send`, and runs on this OS thread all the same.
    thread_local!(static CLOSURE: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) });
    CLOSURE.set(Some(closure));
    tokio::spawn(async { CLOSURE.take().into_iter().for_each(|closure| closure()) });
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod over_epoll {
    use hub_epoll::{EpollHub, Paths, Trigger};
    use hub_kqueue::KqueueHub;
    use hub_tokio::TokioHub;

    use crate::emulation::Emulation;

    hub_testkit::conformance!(|| TokioHub::over(EpollHub::new()?));
    hub_testkit::conformance!(edge: || {
        TokioHub::over(EpollHub::with(Paths { trigger: Trigger::Edge, ..Paths::default() })?)
    });
    hub_testkit::conformance!(kqueue: || TokioHub::over(KqueueHub::with(Box::new(Emulation::default()))?));

    hub_testkit::foreign_code!(|| TokioHub::over(EpollHub::new()?), crate::run_in_wait);
}

#[cfg(any(
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]
mod over_kqueue {
    use hub_kqueue::KqueueHub;
    use hub_tokio::TokioHub;

    hub_testkit::conformance!(|| TokioHub::over(KqueueHub::new()?));

    hub_testkit::foreign_code!(|| TokioHub::over(KqueueHub::new()?), crate::run_in_wait);
}
