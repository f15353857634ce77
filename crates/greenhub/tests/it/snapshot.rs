//! The snapshot of a hub as JSON, as the console gives it to programs.

use std::time::Duration;

use crate::support::green::{LONG, pipe};
use crate::support::run;
use greenhub::debug::format_snapshot;
use greenhub::thread::yield_now;
use greenhub::{Builder, Interest, get_hub, sleep, spawn, spawn_after, trampoline};
use serde_json::Value;

fn snapshot(most: usize) -> Value {
    let line = format_snapshot(most);
    assert!(!line.contains('\n'), "{line}");
    serde_json::from_str(&line).expect("valid JSON")
}

/// Returns the entry of the greenlet with that name.
fn named<'a>(snapshot: &'a Value, name: &str) -> &'a Value {
    let all = snapshot["greenlets"].as_array().expect("a list");
    all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name:?} in {snapshot}"))
}

#[test]
fn a_snapshot_has_the_hub_and_its_counters() {
    run("a_snapshot_has_the_hub_and_its_counters", || {
        sleep(Duration::from_millis(1));
        get_hub().set_label("requests \"1\"");
        let snapshot = snapshot(100);
        let stats = get_hub().stats();
        assert_eq!((&snapshot["format"], &snapshot["omitted"]), (&1.into(), &0.into()));
        assert_eq!(snapshot["process"], std::process::id());
        assert_eq!(snapshot["hub"], get_hub().name());
        assert_eq!(snapshot["hub_id"].to_string(), get_hub().id().to_string());
        assert_eq!(snapshot["label"], "requests \"1\"");
        assert_eq!((&snapshot["stats"]["turns"], &snapshot["stats"]["pool_queued"]), (&stats.turns.into(), &0.into()));
        let all = snapshot["greenlets"].as_array().expect("a list");
        assert_eq!(all.iter().filter(|one| one["kind"] == "main").count(), 1, "{snapshot}");
        assert_eq!(all.iter().filter(|one| one["state"] == "running").count(), 1, "{snapshot}");
        assert!(!all.iter().any(|one| one["kind"] == "main loop"), "{snapshot}");
    });
}

#[test]
fn each_state_of_a_greenlet_is_shown() {
    run("each_state_of_a_greenlet_is_shown", || {
        let build = |name: &str| Builder::new().name(name.to_owned());
        let (reader, _writer) = pipe();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
        build("sleeper \u{1}\\\"").spawn(|| sleep(LONG)).expect("a green thread");
        build("reader").spawn(move || trampoline(&reader, Interest::READ, None)).expect("a green thread");
        spawn_after(LONG, || ());
        // A timer has a time that is left when the turn has ended in which it was armed.
        sleep(Duration::from_millis(1));
        build("busy").spawn(|| (0..3).for_each(|_| yield_now())).expect("a green thread");
        yield_now();
        build("new").spawn(|| ()).expect("a green thread");
        let snapshot = snapshot(100);
        let sleeper = named(&snapshot, "sleeper \u{1}\\\"");
        assert_eq!((&sleeper["state"], &sleeper["reason"]), (&"waiting".into(), &"Sleep".into()));
        let left = Duration::from_millis(sleeper["due_ms"].as_u64().expect("a number"));
        assert!(left <= LONG && left > LONG / 2, "{sleeper}");
        assert!(sleeper["made_at"].as_str().expect("a place").contains("snapshot.rs:"), "{sleeper}");
        let reader = named(&snapshot, "reader");
        assert_eq!((&reader["fd"], &reader["direction"]), (&fd.into(), &"read".into()));
        assert!(reader["text"].as_str().expect("a text").contains("waiting for a descriptor"), "{reader}");
        assert_eq!(reader.get("due_ms"), None);
        assert_eq!(named(&snapshot, "busy")["state"], "ready");
        assert_eq!(named(&snapshot, "new")["state"], "unstarted");
        let states = snapshot["greenlets"].as_array().expect("a list").iter();
        assert_eq!(states.filter(|one| one["state"] == "delayed").count(), 1, "{snapshot}");
    });
}

#[test]
fn greenlets_beyond_the_limit_are_counted() {
    run("greenlets_beyond_the_limit_are_counted", || {
        (0..10).for_each(|_| drop(spawn(|| sleep(LONG))));
        yield_now();
        let before = snapshot(0)["omitted"].as_u64().expect("a number");
        assert!(before >= 11, "ten sleepers and the main greenlet");
        let snapshot = snapshot(4);
        assert_eq!(snapshot["greenlets"].as_array().map(Vec::len), Some(4));
        assert_eq!(snapshot["omitted"], before - 4);
    });
}

#[cfg(feature = "console")]
#[test]
fn the_console_answers_with_a_snapshot_in_one_line() {
    run("the_console_answers_with_a_snapshot_in_one_line", || {
        use std::io::{BufRead, BufReader, Write};

        use greenhub::os::unix::net::UnixStream;

        let path = std::env::temp_dir().join(format!("greenhub-snapshot-{}", std::process::id()));
        let console = greenhub::debug::console(&path).expect("a console");
        let mut client = UnixStream::connect(&path).expect("a client");
        client.write_all(b"snapshot\nsnapshot 1\nquit\n").expect("the console reads");
        let lines: Vec<String> = BufReader::new(client).lines().map(|line| line.expect("a text")).collect();
        let answer = lines.iter().find_map(|line| line.trim_start_matches("> ").strip_prefix('{')).expect("an object");
        let snapshot: Value = serde_json::from_str(&format!("{{{answer}")).expect("valid JSON");
        assert_eq!(snapshot["process"], std::process::id());
        named(&snapshot, "console");
        assert!(lines.iter().any(|line| line.ends_with("`snapshot` takes no arguments")), "{lines:?}");
        console.stop();
    });
}
