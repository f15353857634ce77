//! One snapshot as text, for a terminal that is none, and the words that all views share.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::snapshot::Snapshot;

/// Formats a snapshot: a line for the hub, a line of counters, and a line for each greenlet.
pub(crate) fn format(path: &Path, snapshot: &Snapshot, latency: Duration) -> String {
    let stats = &snapshot.stats;
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{}: process {}, thread {}, hub {}, answered in {}",
        path.display(),
        snapshot.process,
        escaped(snapshot.thread.as_deref().unwrap_or("without a name")),
        escaped(&snapshot.title()),
        time(latency),
    );
    let _ = writeln!(
        text,
        "{} turns, {} switches, {} green threads, {} ready, {} parked, {} timers, {} readers, {} writers, \
         {} resident in stacks, {} jobs, {} queued",
        stats.turns,
        stats.switches,
        stats.green_threads,
        stats.ready,
        stats.parked,
        stats.timers,
        stats.readers,
        stats.writers,
        bytes(stats.stack_bytes_resident),
        stats.pool_jobs,
        stats.pool_queued,
    );
    for greenlet in &snapshot.greenlets {
        let age = greenlet.age().map_or_else(|| "-".to_owned(), time);
        let made_at = escaped(greenlet.made_at.as_deref().unwrap_or("-"));
        let (title, state) = (escaped(greenlet.title()), escaped(&greenlet.text));
        let _ = writeln!(text, "{:>6} {age:>8} {title} ({made_at}): {state}", greenlet.id);
    }
    if snapshot.omitted > 0 {
        let _ = writeln!(text, "and {} more", snapshot.omitted);
    }
    text
}

/// Escapes control characters and other characters that a terminal does not print. The program that is shown chooses
/// its names.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\'' => escaped.push(char),
            char => escaped.extend(char.escape_debug()),
        }
    }
    escaped
}

/// Formats a time in at most seven characters.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time < Duration::from_millis(1) => format!("{}us", time.as_micros()),
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// Formats a number of bytes in at most six characters.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0}{}", UNITS[unit])
    } else {
        format!("{value:.1}{}", UNITS[unit])
    }
}

/// Formats a number in at most six characters.
pub(crate) fn count(value: f64) -> String {
    match value {
        ..10_000.0 => format!("{value:.0}"),
        ..1e6 => format!("{:.0}k", value / 1e3),
        ..1e9 => format!("{:.1}M", value / 1e6),
        _ => format!("{:.1}G", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::LINE;

    #[test]
    fn a_snapshot_has_a_line_for_each_greenlet() {
        let snapshot = Snapshot::parse(LINE).expect("a snapshot");
        let text = format(Path::new("/run/console"), &snapshot, Duration::from_micros(250));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "/run/console: process 42, thread main, hub epoll #1, answered in 250us");
        assert!(lines[1].starts_with("1000 turns, 5000 switches, 3 green threads, 1 ready, 2 parked, 1 timers"));
        assert_eq!(lines[3], "     2    1m01s reader (src/server.rs:20:5): waiting for a descriptor (reading from 7)");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn a_name_sends_no_commands_to_the_terminal() {
        let line = LINE.replace("\"reader\"", "\"\\u001b[2J it's\\n\"").replace("\"main\",\"hub", "\"\\u009b\",\"hub");
        let snapshot = Snapshot::parse(&line).expect("a snapshot");
        let text = format(Path::new("/run/console"), &snapshot, Duration::ZERO);
        assert!(!text.contains(|char: char| char.is_control() && char != '\n'), "{text:?}");
        assert!(text.contains(" \\u{1b}[2J it's\\n (src/server.rs:20:5)"), "{text:?}");
        assert!(text.contains("thread \\u{9b}, hub epoll"), "{text:?}");
        assert_eq!(text.lines().count(), 6);
    }

    #[test]
    fn times_numbers_and_sizes_are_short() {
        let times = [7, 1_500, 2_500_000, 61_000_000, 7_260_000_000, 180_000_000_000].map(Duration::from_micros);
        assert_eq!(times.map(time), ["7us", "1ms", "2.5s", "1m01s", "2h01m", "2d02h"]);
        assert_eq!([0, 999, 4096, 150 << 20, u64::MAX].map(bytes), ["0B", "999B", "4.0K", "150M", "16777216T"]);
        assert_eq!([0.4, 9_999.0, 12_345.0, 2.5e6, 3e9].map(count), ["0", "9999", "12k", "2.5M", "3.0G"]);
    }
}
