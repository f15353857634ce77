//! Backtraces of greenlets that are suspended.

use std::hint::black_box;
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use crate::shows;
use crate::support::run;
use greenhub::debug::{BacktraceError, GreenletKind, backtrace_of, dump, greenlets};
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::greenthread::{GreenletId, current_id};
use greenhub::io::{PipeReader, pipe};
use greenhub::sync::Mutex;
use greenhub::thread::yield_now;
use greenhub::{GreenThread, sleep, spawn, spawn_after, use_hub};

const LONG: Duration = Duration::from_secs(600);

/// Runs a test on each hub.
fn on_each_hub(name: &'static str, test: fn()) {
    for hub in ["epoll", "poll", "select"] {
        run(name, move || {
            use_hub(hub).unwrap();
            test();
        });
    }
}

/// Returns the backtrace of a green thread that has run until its first wait, and kills the green thread.
fn backtrace_in_wait(green: GreenThread<()>) -> String {
    sleep(Duration::from_millis(1));
    let backtrace = backtrace_of(green.id().unwrap()).unwrap();
    green.kill();
    backtrace
}

/// Asserts that no call of the switch is shown first, and that the entry of the green thread is shown last.
#[track_caller]
fn is_trimmed(backtrace: &str) {
    let files: Vec<&str> = backtrace.lines().filter(|line| line.trim_start().starts_with("at ")).collect();
    assert!(!files[0].contains("hub-core/src/greenlet/"), "{backtrace}");
    assert!(files[files.len() - 1].contains("hub-core/src/greenlet/switch.rs:"), "{backtrace}");
}

#[inline(never)]
fn read_a_byte(mut reader: PipeReader) {
    let mut byte = [0];
    let _ = black_box(reader.read(&mut byte));
}

#[inline(never)]
fn run_the_reader(reader: PipeReader) {
    read_a_byte(reader);
    black_box(());
}

#[test]
fn a_parked_reader_is_shown_from_its_wait_to_its_root() {
    on_each_hub("a_parked_reader_is_shown_from_its_wait_to_its_root", || {
        let (reader, _writer) = pipe().unwrap();
        let backtrace = backtrace_in_wait(spawn(move || run_the_reader(reader)));
        is_trimmed(&backtrace);
        shows(&backtrace, &["read_a_byte", "parked.rs:", "run_the_reader", "parked.rs:", "greenlet/switch.rs:"]);
    });
}

#[inline(never)]
fn wait_for_the_lock(lock: &Mutex<()>) {
    drop(black_box(lock.lock()));
}

#[test]
fn a_parked_lock_waiter_is_shown_from_its_wait_to_its_root() {
    on_each_hub("a_parked_lock_waiter_is_shown_from_its_wait_to_its_root", || {
        let lock = Rc::new(Mutex::new(()));
        let _held = lock.lock().unwrap();
        let waiter = Rc::clone(&lock);
        let backtrace = backtrace_in_wait(spawn(move || wait_for_the_lock(&waiter)));
        is_trimmed(&backtrace);
        shows(&backtrace, &["wait_for_the_lock", "parked.rs:", "greenlet/switch.rs:"]);
    });
}

#[inline(always)]
fn sleep_inlined() {
    sleep(LONG);
    black_box(());
}

#[inline(never)]
fn sleep_long() {
    sleep_inlined();
    black_box(());
}

#[test]
fn a_sleeper_is_shown_with_the_functions_that_were_inlined() {
    on_each_hub("a_sleeper_is_shown_with_the_functions_that_were_inlined", || {
        let backtrace = backtrace_in_wait(spawn(sleep_long));
        is_trimmed(&backtrace);
        shows(&backtrace, &["sleep_inlined", "parked.rs:", "sleep_long", "parked.rs:", "greenlet/switch.rs:"]);
    });
}

#[test]
fn a_green_thread_that_has_not_begun_has_no_backtrace() {
    on_each_hub("a_green_thread_that_has_not_begun_has_no_backtrace", || {
        let ready = spawn(|| ());
        let delayed = spawn_after(LONG, || ());
        for green in [&ready, &delayed] {
            assert_eq!(backtrace_of(green.id().unwrap()), Err(BacktraceError::NotBegun));
        }
        delayed.kill();
    });
}

#[test]
fn a_green_thread_that_has_ended_has_no_backtrace() {
    on_each_hub("a_green_thread_that_has_ended_has_no_backtrace", || {
        let green = spawn(yield_now);
        let id = green.id().unwrap();
        yield_now();
        assert!(backtrace_of(id).is_ok());
        green.join().unwrap();
        assert_eq!(backtrace_of(id), Err(BacktraceError::NotFound));
        assert_eq!(backtrace_of("4000000000".parse().unwrap()), Err(BacktraceError::NotFound));
    });
}

#[test]
fn an_os_thread_without_greenlets_has_no_backtraces() {
    let id: GreenletId = "0".parse().unwrap();
    let backtrace = std::thread::spawn(move || backtrace_of(id)).join().unwrap();
    assert_eq!(backtrace, Err(BacktraceError::NotFound));
}

fn main_greenlet() -> GreenletId {
    greenlets().into_iter().find(|info| info.kind == GreenletKind::Main).unwrap().id
}

#[inline(never)]
fn join_in_main(green: GreenThread<String>) -> String {
    black_box(green.join().unwrap())
}

#[test]
fn the_main_greenlet_is_shown_to_a_green_thread_up_to_the_entry_of_its_os_thread() {
    on_each_hub("the_main_greenlet_is_shown_to_a_green_thread_up_to_the_entry_of_its_os_thread", || {
        let backtrace = join_in_main(spawn(|| backtrace_of(main_greenlet()).unwrap()));
        shows(&backtrace, &["join_in_main", "parked.rs:", "support/mod.rs:", "thread_start"]);
    });
}

#[inline(never)]
fn look_at_myself() -> String {
    black_box(backtrace_of(current_id()).unwrap())
}

#[test]
fn the_caller_is_shown_itself() {
    on_each_hub("the_caller_is_shown_itself", || {
        let backtrace = spawn(look_at_myself).join().unwrap();
        shows(&backtrace, &["backtrace_of", "look_at_myself", "greenlet/switch.rs:"]);
        shows(&look_at_myself(), &["look_at_myself", "support/mod.rs:"]);
    });
}

#[inline(never)]
fn switch_away(to: &Greenlet) -> Payload {
    black_box(to.switch(Payload::unit()).unwrap())
}

#[test]
fn a_plain_greenlet_that_has_switched_away_is_shown() {
    run("a_plain_greenlet_that_has_switched_away_is_shown", || {
        let plain = Greenlet::new(|_| Ok(switch_away(&Greenlet::main())));
        plain.switch(Payload::unit()).unwrap();
        let id = greenlets().into_iter().find(|info| info.kind == GreenletKind::Plain).unwrap().id;
        let backtrace = backtrace_of(id).unwrap();
        is_trimmed(&backtrace);
        shows(&backtrace, &["switch_away", "parked.rs:", "greenlet/switch.rs:"]);
        plain.kill().unwrap();
    });
}

/// Parks below a given number of frames.
#[inline(never)]
fn park_below(frames: usize) {
    match frames {
        0 => sleep(LONG),
        _ => park_below(black_box(frames - 1)),
    }
    black_box(());
}

#[test]
fn a_deep_stack_is_shown_up_to_a_bound() {
    on_each_hub("a_deep_stack_is_shown_up_to_a_bound", || {
        let backtrace = backtrace_in_wait(spawn(|| park_below(400)));
        let shown = backtrace.matches("park_below").count();
        assert!((80..=100).contains(&shown), "{shown}");
    });
}

#[test]
fn a_dump_shows_each_greenlet_with_its_state_and_its_calls() {
    on_each_hub("a_dump_shows_each_greenlet_with_its_state_and_its_calls", || {
        let (reader, _writer) = pipe().unwrap();
        let reading = spawn(move || run_the_reader(reader));
        let sleeping = spawn(sleep_long);
        sleep(Duration::from_millis(1));
        let later = spawn_after(LONG, || ());
        let text = dump();
        for (id, first, second) in [
            (main_greenlet(), "running", "parked.rs:"),
            (reading.id().unwrap(), "waiting for a descriptor (reading from ", "read_a_byte"),
            (sleeping.id().unwrap(), "sleeping", "sleep_long"),
            (later.id().unwrap(), "begins ", "\n"),
        ] {
            let entry = text.split("\n\n").find(|entry| entry.starts_with(&format!("{id} ")));
            let entry = entry.unwrap_or_else(|| panic!("{id} is missing:\n{text}"));
            shows(&format!("{entry}\n"), &[first, second]);
        }
        [reading, sleeping, later].into_iter().for_each(|green| _ = green.kill());
    });
}
