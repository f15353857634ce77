//! The conformance suite.

#![cfg(unix)]

use hub_libevent::LibeventHub;

hub_testkit::conformance!(LibeventHub::new);
