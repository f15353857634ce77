//! Tests of the examples `million`, `third_party_hub` and `panic_abort` as programs: output and exit status. One test
//! covers the addresses that all examples accept.

use std::process::Output;

use crate::support::example;
use crate::support::example::{ends, refuses, text};

const NAMES: [&str; 3] = ["million", "third_party_hub", "panic_abort"];

fn run(name: &str, arguments: &[&str]) -> Output {
    example::run(&mut example::command(name, arguments))
}

#[test]
fn help_is_no_error() {
    for name in NAMES {
        let output = run(name, &["--help"]);
        ends(&output, 0);
        assert!(text(&output).contains(&format!("Usage: {name}")), "{}", text(&output));
    }
}

#[test]
fn wrong_arguments_are_reported_in_one_line() {
    for name in NAMES {
        refuses(&run(name, &["--colour"]), 2, &[name, "--help"]);
    }
    refuses(&run("million", &["0"]), 2, &["0"]);
    refuses(&run("million", &["many"]), 2, &["many"]);
    refuses(&run("million", &["1", "2"]), 2, &["2"]);
}

#[test]
fn a_malformed_address_is_wrong_use_and_an_unknown_host_is_not() {
    for wrong in ["localhost", ":80", "localhost:http"] {
        refuses(&run("echo", &["--connect", wrong]), 2, &[wrong, "HOST:PORT"]);
        refuses(&run("echo", &["--server", wrong]), 2, &[wrong, "HOST:PORT"]);
    }
    // No host can have so long a name.
    let unknown = format!("{}:80", "x".repeat(100));
    // Few enough connections for every hub.
    refuses(&run("echo", &["--connect", &unknown, "--connections", "10"]), 1, &[&unknown]);
    refuses(&run("port_forwarder", &[&unknown, "localhost:80"]), 1, &[&unknown]);
}

#[test]
fn million_parks_the_requested_number() {
    let output = run("million", &["500"]);
    ends(&output, 0);
    let parked = text(&output).lines().find_map(|line| line.strip_prefix("parked").map(|it| it.trim().to_owned()));
    assert_eq!(parked.as_deref(), Some("500"));
}

#[test]
fn third_party_hub_passes_the_ball_on_its_own_hub() {
    let output = run("third_party_hub", &[]);
    ends(&output, 0);
    assert!(text(&output).starts_with("hub example.org:counting-poll: 100 rounds"), "{}", text(&output));
}

#[test]
fn panic_abort_check_refuses_an_unwinding_build() {
    refuses(&run("panic_abort", &[]), 1, &["--profile abort"]);
}
