//! The events and spans of the feature `tracing`.

mod notes;
mod random_spans;
mod spans;
#[path = "../it/support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::fmt::{Debug, Write};
use std::time::Duration;

use crate::support::green;
use crate::support::green::{LONG, SHORT, quiet_panic};
use crate::support::{is_child, rerun, run};
use greenhub::debug::{hub_blocking_detection, hub_exceptions};
use greenhub::thread::yield_now;
use greenhub::{Builder, get_hub, sleep, spawn, spawn_after, spawn_n, use_hub};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

thread_local! {
    static RECORDED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A subscriber that records each event of the target `greenhub` as a line, by OS thread.
struct Recorder;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "greenhub" && metadata.is_event()
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        unreachable!("spans are not enabled")
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        RECORDED.with_borrow_mut(|recorded| recorded.push(line.0));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn listen() -> DefaultGuard {
    tracing::subscriber::set_default(Recorder)
}

/// Returns the lines recorded since the last call.
fn take_lines() -> Vec<String> {
    RECORDED.take()
}

fn lines_with(parts: &[&str]) -> Vec<String> {
    take_lines().into_iter().filter(|line| parts.iter().all(|part| line.contains(part))).collect()
}

#[test]
fn a_green_thread_emits_events_at_its_spawn_and_its_end() {
    run("a_green_thread_emits_events_at_its_spawn_and_its_end", || {
        let _recorder = listen();
        let green = Builder::new().name("worker".into()).spawn(|| ()).unwrap();
        let spawned = lines_with(&["DEBUG", "green thread spawned", "worker", file!()]);
        assert_eq!(spawned.len(), 1);
        green.join().unwrap();
        assert_eq!(lines_with(&["DEBUG", "green thread ended", "worker", file!()]).len(), 1);
        spawn_n(|| ());
        yield_now();
        let killed = spawn(|| sleep(LONG));
        yield_now();
        killed.kill();
        spawn(|| ()).cancel();
        spawn_after(LONG, || ()).cancel();
        greenhub::scope(|scope| {
            scope.spawn(|| ());
        });
        let all = take_lines();
        for state in ["spawned", "ended"] {
            let count = all.iter().filter(|line| line.contains(&format!("green thread {state}"))).count();
            assert_eq!(count, 5, "{all:#?}");
        }
    });
}

#[test]
fn hubs_and_loops_emit_events() {
    run("hubs_and_loops_emit_events", || {
        let _recorder = listen();
        sleep(SHORT);
        let hub = get_hub();
        let all = take_lines();
        assert!(
            all.iter().any(|line| line.starts_with("INFO") && line.contains("hub built") && line.contains(hub.name()))
        );
        assert!(all.iter().any(|line| line.contains("main loop began")));
        hub.abort_wait().unwrap();
        assert_eq!(lines_with(&["DEBUG", "main loop ended"]).len(), 1);
        use_hub(None).unwrap();
        sleep(SHORT);
        assert_eq!(lines_with(&["hub built"]).len(), 1);
    });
}

#[test]
fn the_end_of_the_wait_of_main_emits_an_event() {
    run("the_end_of_the_wait_of_main_emits_an_event", || {
        let _recorder = listen();
        let hub = get_hub();
        spawn_n(move || hub.interrupt());
        let (reader, _writer) = green::pipe();
        assert!(greenhub::trampoline(&reader, greenhub::Interest::READ, None).is_err());
        assert_eq!(lines_with(&["WARN", "the main greenlet's wait ends", "interrupted"]).len(), 1);
    });
}

#[test]
fn reports_emit_events_unless_switched_off() {
    if !is_child() {
        return assert!(rerun("reports_emit_events_unless_switched_off", |_| ()).status.success());
    }
    run("reports", || {
        let _recorder = listen();
        drop(spawn(|| Err::<(), _>("unjoined")));
        yield_now();
        assert_eq!(lines_with(&["ERROR", "unjoined"]).len(), 1);
        drop(spawn(|| -> () { quiet_panic("uncaught") }));
        yield_now();
        assert_eq!(lines_with(&["ERROR", "uncaught"]).len(), 1);
        hub_core::hub::warn("not so good");
        assert_eq!(lines_with(&["WARN", "not so good"]).len(), 1);
        hub_exceptions(false);
        drop(spawn(|| Err::<(), _>("unjoined")));
        yield_now();
        assert_eq!(lines_with(&["ERROR"]).len(), 0);
    });
}

/// A subscriber that sends each event to a channel.
struct ToChannel(std::sync::mpsc::Sender<String>);

impl Subscriber for ToChannel {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "greenhub" && metadata.is_event()
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        unreachable!("spans are not enabled")
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        let _ = self.0.send(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn the_blocking_detector_reaches_the_global_subscriber() {
    if !is_child() {
        return assert!(rerun("the_blocking_detector_reaches_the_global_subscriber", |_| ()).status.success());
    }
    run("blocking", || {
        let (sender, lines) = std::sync::mpsc::channel();
        tracing::subscriber::set_global_default(ToChannel(sender)).unwrap();
        hub_blocking_detection(Duration::from_millis(40)).unwrap();
        let selfish = Builder::new().name("selfish".into()).spawn(move || {
            loop {
                let line = lines.recv_timeout(Duration::from_secs(60)).unwrap();
                if line.starts_with("WARN") && line.contains("selfish") {
                    return;
                }
            }
        });
        selfish.unwrap().join().unwrap();
    });
}

/// A subscriber that panics at each event.
struct PanickingSubscriber;

impl Subscriber for PanickingSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "greenhub" && metadata.is_event()
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        unreachable!("spans are not enabled")
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        quiet_panic("a subscriber that panics")
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn a_panicking_subscriber_does_no_harm() {
    run("a_panicking_subscriber_does_no_harm", || {
        let _subscriber = tracing::subscriber::set_default(PanickingSubscriber);
        sleep(SHORT);
        assert_eq!(spawn(|| 7).join().unwrap(), 7);
        assert!(spawn(|| sleep(LONG)).cancel());
        get_hub().abort_wait().unwrap();
        sleep(SHORT);
    });
}
