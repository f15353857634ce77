//! The conformance suite, over a minimal hub.

#[allow(unreachable_pub)] // a crate's root in all but name
#[path = "support/poll_hub.rs"]
mod poll_hub;

hub_testkit::conformance!(poll_hub::PollHub::new);
