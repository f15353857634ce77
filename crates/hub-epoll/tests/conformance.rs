//! The conformance suite, once for each of the paths that the hub can use.

#![cfg(any(target_os = "linux", target_os = "android"))]

use hub_epoll::{EpollHub, Paths, Trigger};

hub_testkit::conformance!(EpollHub::new);
hub_testkit::conformance!(edge: || EpollHub::with(Paths { trigger: Trigger::Edge, ..Paths::default() }));
hub_testkit::conformance!(milliseconds: || EpollHub::with(Paths { precise_wait: false, ..Paths::default() }));
