//! The comparison of calls with those of an OS thread.

use recipes::way::Way;

use crate::costs_example::measure;
use crate::support::{is_installed, run};

#[test]
fn both_kinds_of_calls_are_measured() {
    if !is_installed("redis-server") {
        return;
    }
    run(&[Way::Hub("epoll"), Way::Hub("poll")], |_| {
        let costs = measure(3).expect("answers");
        let calls = costs.each_ref().map(|cost| cost.call);
        assert_eq!(calls, ["a request of ureq", "a command of redis", "a request over TLS"]);
        assert!(costs.iter().all(|cost| !cost.green.is_zero() && !cost.plain.is_zero()));
    });
}
