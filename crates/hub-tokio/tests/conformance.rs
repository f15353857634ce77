//! The conformance suite, over each hub with a pollable descriptor.

#![cfg(any(target_os = "linux", target_os = "android"))]

#[path = "../../hub-kqueue/tests/emulation/mod.rs"]
mod emulation;

use std::cell::Cell;

use hub_epoll::{EpollHub, Paths, Trigger};
use hub_kqueue::KqueueHub;
use hub_tokio::TokioHub;

hub_testkit::conformance!(|| TokioHub::over(EpollHub::new()?));
hub_testkit::conformance!(edge: || {
    TokioHub::over(EpollHub::with(Paths { trigger: Trigger::Edge, ..Paths::default() })?)
});
hub_testkit::conformance!(kqueue: || TokioHub::over(KqueueHub::with(Box::new(emulation::Emulation::default()))?));

hub_testkit::foreign_code!(|| TokioHub::over(EpollHub::new()?), |_: &mut TokioHub<EpollHub>, closure| {
    // A task must be `Send`, and runs on this OS thread all the same.
    thread_local!(static CLOSURE: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) });
    CLOSURE.set(Some(closure));
    tokio::spawn(async { CLOSURE.take().into_iter().for_each(|closure| closure()) });
});
