//! The examples `million`, `third_party_hub` and `panic_abort`, from outside: what they print, and their status; and what
//! all take for an address.

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
fn wrong_arguments_are_told_in_a_line() {
    for name in NAMES {
        refuses(&run(name, &["--colour"]), 2, &[name, "--help"]);
    }
    refuses(&run("million", &["0"]), 2, &["0"]);
    refuses(&run("million", &["many"]), 2, &["many"]);
    refuses(&run("million", &["1", "2"]), 2, &["2"]);
}

#[test]
fn what_is_not_of_the_form_of_an_address_is_wrong_use_and_an_unknown_host_is_not() {
    for wrong in ["localhost", ":80", "localhost:http"] {
        refuses(&run("echo", &["--connect", wrong]), 2, &[wrong, "HOST:PORT"]);
        refuses(&run("echo", &["--server", wrong]), 2, &[wrong, "HOST:PORT"]);
    }
    // Nobody can have so long a name.
    let unknown = format!("{}:80", "x".repeat(100));
    // So few that every hub can have them.
    refuses(&run("echo", &["--connect", &unknown, "--connections", "10"]), 1, &[&unknown]);
    refuses(&run("port_forwarder", &[&unknown, "localhost:80"]), 1, &[&unknown]);
}

#[test]
fn as_many_are_parked_as_was_said() {
    let output = run("million", &["500"]);
    ends(&output, 0);
    let parked = text(&output).lines().find_map(|line| line.strip_prefix("parked").map(|it| it.trim().to_owned()));
    assert_eq!(parked.as_deref(), Some("500"));
}

#[test]
fn the_ball_goes_round_on_the_hub_of_ones_own() {
    let output = run("third_party_hub", &[]);
    ends(&output, 0);
    assert!(text(&output).starts_with("hub example.org:counting-poll: 100 rounds"), "{}", text(&output));
}

#[test]
fn what_unwinds_is_not_what_the_check_is_about() {
    refuses(&run("panic_abort", &[]), 1, &["--profile abort"]);
}
