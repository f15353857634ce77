//! The conformance suite.

use hub_poll::PollHub;

hub_testkit::conformance!(PollHub::new);
