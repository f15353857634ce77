//! A hub and its greenlets as one line of JSON.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::time::Duration;

use hub_core::hub::Interest;
use hub_core::internal::greenlets_at_most;
use hub_core::{GreenletInfo, GreenletKind, GreenletState, get_hub};

/// The version of the format. It changes when a field is removed or gets another meaning.
const FORMAT: u32 = 1;

/// Formats this OS thread's hub and its greenlets as one line of JSON. Does not switch.
///
/// It is for programs, such as `greenhub-top`, which asks the [`console`](super::console()) for it by the command
/// `snapshot`. The line is an object with these fields:
///
/// - `format`: the version of the format, 1. It changes when a field is removed or gets another meaning. A new field
///   does not change it;
/// - `process`, `thread`: the id of the process and the name of the OS thread, `null` if it has none;
/// - `hub`, `hub_id`, `label`: the name, the id and the label of the hub;
/// - `stats`: the fields of [`Stats`](hub_core::Stats), each a number;
/// - `omitted`: the number of greenlets that are not listed, because there are more than `most`;
/// - `greenlets`: a list in the order of the ids, without the main loop. Each has `id`, `kind` (`main`, `green thread`,
///   `plain`), `name`, `made_at` (`FILE:LINE:COLUMN`), `age_ms`, `state` (`running`, `ready`, `unstarted`, `delayed`,
///   `switched`, `waiting`), `reason` (the name of the [`WaitReason`](hub_core::WaitReason)), `fd`, `direction` (`read`
///   or `write`), `future`, `due_ms` (the time until a timer ends the wait), and `text`, the state in words. A field
///   that does not apply is left out.
///
/// ```
/// use std::time::Duration;
/// greenhub::Builder::new().name("sleeper".into()).spawn(|| greenhub::sleep(Duration::from_secs(60)))?;
/// greenhub::thread::yield_now();
/// let line = greenhub::debug::format_snapshot(1000);
/// assert!(line.starts_with("{\"format\":1,") && line.contains("\"name\":\"sleeper\""), "{line}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// Panics if the hub cannot be built.
#[must_use]
#[track_caller]
pub fn format_snapshot(most: usize) -> String {
    capture_snapshot(most)()
}

/// Captures a snapshot, and returns the function that writes its text, on any OS thread. Does not switch.
#[track_caller]
pub(super) fn capture_snapshot(most: usize) -> impl Fn() -> String + Send + Sync {
    let hub = get_hub();
    let (listed, omitted) = greenlets_at_most(most, |kind| kind != GreenletKind::MainLoop);
    let thread = std::thread::current().name().map(str::to_owned);
    let (name, id, label, counters) = (hub.name().to_owned(), hub.id(), hub.label(), hub.stats().to_string());
    move || {
        let mut object = Object::new();
        object.value("format", FORMAT);
        object.value("process", std::process::id());
        match &thread {
            Some(name) => object.text("thread", name),
            None => object.value("thread", "null"),
        }
        object.text("hub", &name);
        object.value("hub_id", id);
        object.text("label", &label);
        object.value("stats", stats(&counters));
        object.value("omitted", omitted);
        let listed: Vec<String> = listed.iter().map(greenlet).collect();
        object.value("greenlets", format_args!("[{}]", listed.join(",")));
        object.end()
    }
}

/// Converts the text of the counters, which has one name and number in each line.
fn stats(text: &str) -> String {
    let mut object = Object::new();
    for line in text.lines() {
        if let Some((name, number)) = line.split_once(' ') {
            object.value(name, number.trim_start());
        }
    }
    object.end()
}

fn greenlet(info: &GreenletInfo) -> String {
    let mut object = Object::new();
    object.value("id", info.id);
    object.text(
        "kind",
        match info.kind {
            GreenletKind::Main => "main",
            GreenletKind::GreenThread => "green thread",
            _ => "plain",
        },
    );
    if let Some(name) = &info.name {
        object.text("name", name);
    }
    if let Some(made_at) = info.made_at {
        object.text("made_at", &made_at.to_string());
    }
    if let Some(age) = info.age {
        object.value("age_ms", age.as_millis());
    }
    let (state, due_in) = match info.state {
        GreenletState::Running => ("running", None),
        GreenletState::Ready => ("ready", None),
        GreenletState::Unstarted => ("unstarted", None),
        GreenletState::Delayed { due_in } => ("delayed", due_in),
        GreenletState::Waiting { due_in, .. } => ("waiting", due_in),
        _ => ("switched", None),
    };
    object.text("state", state);
    if let GreenletState::Waiting { reason, descriptor, future, .. } = info.state {
        object.text("reason", &format!("{reason:?}"));
        if let Some((fd, interest)) = descriptor {
            object.value("fd", fd);
            object.text("direction", if interest == Interest::WRITE { "write" } else { "read" });
        }
        if let Some(future) = future {
            object.text("future", future);
        }
    }
    if let Some(due_in) = due_in {
        object.value("due_ms", due_in.as_millis());
    }
    object.text("text", &rounded(info.state).to_string());
    object.end()
}

/// Rounds the times of a state to milliseconds, because nanoseconds would be noise to a reader.
fn rounded(state: GreenletState) -> GreenletState {
    let round = |time: Duration| Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    match state {
        GreenletState::Delayed { due_in } => GreenletState::Delayed { due_in: due_in.map(round) },
        GreenletState::Waiting { reason, descriptor, future, due_in } => {
            GreenletState::Waiting { reason, descriptor, future, due_in: due_in.map(round) }
        }
        other => other,
    }
}

/// An object of JSON that is being written.
struct Object(String);

impl Object {
    fn new() -> Object {
        Object(String::from("{"))
    }

    /// Adds a value that is valid JSON as it is displayed.
    fn value(&mut self, name: &str, value: impl Display) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        // Writing to a string does not fail.
        let _ = fmt::Write::write_fmt(&mut self.0, format_args!("\"{name}\":{value}"));
    }

    fn text(&mut self, name: &str, value: &str) {
        self.value(name, format_args!("\"{}\"", escaped(value)));
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Escapes a text for a string of JSON.
fn escaped(text: &str) -> Cow<'_, str> {
    let needs_escape = |char: char| matches!(char, '"' | '\\') || char < ' ';
    if !text.contains(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match char {
            '"' | '\\' => escaped.extend(['\\', char]),
            char if char < ' ' => escaped.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => escaped.push(char),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_quotes_are_escaped() {
        assert_eq!(escaped("plain é"), "plain é");
        assert_eq!(escaped("a\"b\\c\nd\u{1}"), "a\\\"b\\\\c\\u000ad\\u0001");
    }

    #[test]
    fn counters_become_numbers() {
        assert_eq!(stats("turns                 12\nready                 0\n"), "{\"turns\":12,\"ready\":0}");
    }
}
