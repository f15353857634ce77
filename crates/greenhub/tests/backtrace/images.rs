//! Backtraces of a program whose file has an unusual path, or is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::shows;
use crate::support::{assert_succeeded, is_child, mark_child, run};
use greenhub::debug::backtrace_of;
use greenhub::{sleep, spawn};

#[inline(never)]
fn sleep_deep(depth: u32) {
    match depth {
        0 => sleep(Duration::from_secs(600)),
        _ => sleep_deep(std::hint::black_box(depth - 1)),
    }
    std::hint::black_box(());
}

/// Returns the backtrace of a green thread with ten calls of its own.
fn deep_backtrace() -> String {
    let green = spawn(|| sleep_deep(9));
    sleep(Duration::from_millis(1));
    let backtrace = backtrace_of(green.id().unwrap()).unwrap();
    green.kill();
    backtrace
}

/// Runs the test with this name in a process whose program has another path.
fn run_as(path: &Path, test: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(path);
    fs::hard_link(std::env::current_exe().unwrap(), path).unwrap();
    let mut command = Command::new(path);
    command.args([&format!("images::{test}"), "--exact", "--nocapture", "--test-threads=1"]);
    let output = mark_child(&mut command).output().unwrap();
    let _ = fs::remove_file(path);
    assert_succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("backtrace images")
}

#[test]
fn a_program_with_spaces_in_its_path_has_backtraces() {
    const NAME: &str = "a_program_with_spaces_in_its_path_has_backtraces";
    if !is_child() {
        return run_as(&folder().join("a program"), NAME);
    }
    run(NAME, || {
        let backtrace = deep_backtrace();
        assert_eq!(backtrace.matches("sleep_deep").count(), 10, "{backtrace}");
        shows(&backtrace, &["sleep_deep", "images.rs:", "greenlet/switch.rs:"]);
    });
}

#[test]
fn a_program_whose_file_was_replaced_has_backtraces_of_the_code_that_runs() {
    const NAME: &str = "a_program_whose_file_was_replaced_has_backtraces_of_the_code_that_runs";
    if !is_child() {
        return run_as(&folder().join("replaced"), NAME);
    }
    run(NAME, || {
        let path = std::env::current_exe().unwrap();
        fs::remove_file(&path).unwrap();
        // Neither this program nor a program at all.
        fs::write(&path, "another build").unwrap();
        let backtrace = deep_backtrace();
        // The names are gone with the file. The calls are not: those of the test, and those of the library around.
        assert!(backtrace.matches(": ").count() >= 12, "{backtrace}");
    });
}
