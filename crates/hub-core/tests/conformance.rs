//! The conformance suite, over a minimal hub.

#[allow(unreachable_pub)] // the file is also included as the root of a doctest
#[path = "support/poll_hub.rs"]
mod poll_hub;

hub_testkit::conformance!(poll_hub::PollHub::new);
