//! The conformance suite.

use hub_select::SelectHub;

hub_testkit::conformance!(SelectHub::new);
