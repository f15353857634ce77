//! The program without a terminal: its text, its errors and its exit status.

mod support;

use std::process::{Command, Output};
use std::time::Duration;

use crate::support::{Program, TOP};

fn run(arguments: &[&str]) -> Output {
    Command::new(TOP).args(arguments).output().expect("the program starts")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn one_snapshot_is_printed_without_a_terminal() {
    let program = Program::start("once");
    let path = program.path().to_str().expect("a text");
    for arguments in [&["--once", path][..], &[path]] {
        let output = run(arguments);
        assert_eq!((output.status.code(), errors(&output).as_str()), (Some(0), ""));
        let text = String::from_utf8_lossy(&output.stdout);
        let head = format!("{path}: process {}, thread served, hub ", std::process::id());
        assert!(text.starts_with(&head), "{text}");
        for name in ["main", "console", "alice", "bob", "carol"] {
            assert!(text.contains(&format!(" {name} (")), "{text}");
        }
        assert!(text.contains("sleeping, 3"), "{text}");
    }
}

#[test]
fn each_hub_is_printed() {
    let (one, other) = (Program::start("one"), Program::start("other"));
    let paths = [one.path(), other.path()].map(|path| path.to_str().expect("a text"));
    let output = run(&["--once", paths[0], paths[1]]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().filter(|line| line.contains("answered in")).count(), 2, "{text}");
}

#[test]
fn a_missing_socket_is_an_error_in_one_line() {
    let output = run(&["--once", "/nowhere/console"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        errors(&output),
        "greenhub-top: there is no socket /nowhere/console: does a program call `greenhub::debug::console` with this \
         path?\n"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn a_blocked_loop_is_an_error_after_the_timeout() {
    let program = Program::start("blocked");
    program.block(Duration::from_secs(2));
    // The order is obeyed within some milliseconds.
    std::thread::sleep(Duration::from_millis(200));
    let output = run(&["--once", "--timeout", "0.1", program.path().to_str().expect("a text")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).ends_with("no answer for 100ms: the loop of the program is blocked\n"), "{output:?}");
}

#[test]
fn wrong_usage_is_refused() {
    for arguments in [&[][..], &["--interval", "0", "path"], &["--nonsense"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
