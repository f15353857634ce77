//! Descriptions of greenlets, for reports and listings.

use super::control::{ControlRef, Kind, State};
use super::driver::{Driver, FutureWaits};
use super::local::{Local, try_get};
use super::run::queue::thread;
use super::stack::StackRef;
use super::task::cell::{TaskRef, write_location};

/// Describes a greenlet: its kind, its name and the place where it was spawned.
pub(crate) fn greenlet(control: ControlRef) -> String {
    if let Some(task) = control.with_task(TaskRef::describe) {
        return format!("green thread {task}");
    }
    match control.kind() {
        Kind::Main => "the main greenlet".to_owned(),
        _ => control.describe_raw().unwrap_or_else(|| "a green thread that is ending".to_owned()),
    }
}

/// Describes the wait of a parked greenlet: its reason, and the type of the future if it waits for one.
pub(crate) fn wait(local: &Local, control: ControlRef) -> String {
    let reason = control.reason().as_str();
    match future(local, control) {
        Some(future) => format!("{reason} ({future})"),
        None => reason.to_owned(),
    }
}

/// Returns the type of the future for which a greenlet is parked.
pub(crate) fn future(local: &Local, control: ControlRef) -> Option<&'static str> {
    local.futures.type_name(control.number(), control.ticket())
}

/// Describes a greenlet for the report of abandoned greenlets.
pub(crate) fn abandoned(local: &Local, control: ControlRef) -> String {
    let name = control.with_task(TaskRef::describe).or_else(|| control.describe_raw());
    let name = name.unwrap_or_else(|| "a green thread that is ending".to_owned());
    if control.has_begun() { format!("{name}, {}", wait(local, control)) } else { format!("{name}, not begun") }
}

/// Describes the parked greenlets and their reasons to wait, for the report of a loop that nothing can wake.
pub(crate) fn parked(local: &Local) -> Vec<(ControlRef, String)> {
    local
        .controls
        .in_use()
        .into_iter()
        .filter(|control| control.state() == State::Parked)
        .filter_map(|control| {
            let name = control.with_task(TaskRef::describe).or_else(|| control.describe_raw())?;
            Some((control, format!("{name}, {}", wait(local, control))))
        })
        .collect()
}

/// Writes which greenlet runs on a stack. Runs in a signal handler, on the OS thread whose stack has overflowed.
pub(super) fn write_owner(stack: StackRef, out: &mut dyn FnMut(&[u8])) {
    let current = thread().running().filter(|current| current.stack() == Some(stack));
    match current.map(|current| (current.kind(), current)) {
        Some((Kind::Thread, current)) => write_green_thread(current, out),
        Some((Kind::MainLoop, _)) => out(b"the main loop"),
        _ => out(b"a greenlet"),
    }
}

/// Writes which greenlet runs on this OS thread. Async-signal-safe: it allocates nothing and takes no lock.
pub(crate) fn write_running(out: &mut dyn FnMut(&[u8])) {
    let current = thread().running();
    match current.map(|current| (current.kind(), current)) {
        Some((Kind::Thread, current)) => write_green_thread(current, out),
        Some((Kind::MainLoop, _)) => match try_get().and_then(|local| local.main_loop.calling()) {
            Some(made_at) => {
                out(b"a callback (made at ");
                write_location(made_at, out);
                out(b")");
            }
            None => out(b"the main loop"),
        },
        Some((Kind::Raw, _)) => out(b"a plain greenlet"),
        Some((Kind::Main, _)) | None => out(b"the main greenlet"),
    }
}

/// Describes the running greenlet or callback of the main loop, by its name or its number and its origin.
///
/// Returns `None` for the main greenlet, and on an OS thread without greenlets. May be called while the greenlet
/// panics.
#[must_use]
pub fn describe_running() -> Option<String> {
    let current = thread().running().filter(|current| current.kind() != Kind::Main)?;
    let mut text = Vec::new();
    // It leaves out a name that is being changed, where others would panic.
    write_running(&mut |part| text.extend_from_slice(part));
    let text = String::from_utf8_lossy(&text);
    Some(match text.strip_prefix("green thread (") {
        Some(origin) => format!("green thread {} ({origin}", current.id()),
        None => text.into_owned(),
    })
}

/// Writes the name and the origin of a running green thread. May be called in a signal handler.
fn write_green_thread(running: ControlRef, out: &mut dyn FnMut(&[u8])) {
    // The handler undoes its pin, so the code that it interrupts finds the cell as it was.
    if running.with_task(|task| task.write_to(out)).is_none() {
        out(b"a green thread that is ending");
    }
}
