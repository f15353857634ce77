//! The report of a run: a table, or one JSON object.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

pub(crate) struct Report {
    pub(crate) hub: &'static str,
    pub(crate) connections: usize,
    pub(crate) bytes: usize,
    pub(crate) seconds: Duration,
    pub(crate) round_trips: u64,
    /// p50, p99 and p99.9 in nanoseconds. `None` without clients.
    pub(crate) latencies: Option<[u64; 3]>,
    pub(crate) resident_bytes: Option<u64>,
    /// System calls of this process per round trip.
    pub(crate) calls: Option<f64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Whether a run without round trips is a success, as for a server without clients.
    pub(crate) idle_is_success: bool,
}

impl Report {
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.errors == 0 && (self.round_trips > 0 || self.idle_is_success) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Prints the report to standard output, and the first error to standard error.
    pub(crate) fn print(&self, as_json: bool) -> io::Result<()> {
        if let Some(first) = &self.first_error {
            eprintln!("echo: {} errors, the first: {first}", self.errors);
        } else if self.round_trips == 0 && !self.idle_is_success {
            eprintln!("echo: no message came back in time");
        }
        let text = if as_json { self.json().to_string() } else { self.table() };
        writeln!(io::stdout(), "{text}")
    }

    fn rate(&self) -> f64 {
        self.round_trips as f64 / self.seconds.as_secs_f64()
    }

    fn json(&self) -> Value {
        let [p50, p99, p999] = match self.latencies {
            Some(latencies) => latencies.map(|nanos| Some(nanos as f64 / 1e3)),
            None => [None; 3],
        };
        json!({
            "hub": self.hub,
            "connections": self.connections,
            "bytes": self.bytes,
            "seconds": self.seconds.as_secs_f64(),
            "round_trips": self.round_trips,
            "round_trips_per_s": self.rate(),
            "p50_us": p50,
            "p99_us": p99,
            "p999_us": p999,
            "rss_per_green_thread_bytes": self.resident_bytes,
            "syscalls_per_round_trip": self.calls,
            "errors": self.errors,
        })
    }

    fn table(&self) -> String {
        let unknown = || "unknown".to_owned();
        let latency = |index: usize| match self.latencies {
            Some(latencies) => format!("{:.1} µs", latencies[index] as f64 / 1e3),
            None => unknown(),
        };
        let rows = [
            ("hub", self.hub.to_owned()),
            ("connections", self.connections.to_string()),
            ("message", format!("{} bytes", self.bytes)),
            ("measured", format!("{:.2} s", self.seconds.as_secs_f64())),
            ("round trips", self.round_trips.to_string()),
            ("round trips per second", format!("{:.0}", self.rate())),
            ("latency p50", latency(0)),
            ("latency p99", latency(1)),
            ("latency p99.9", latency(2)),
            ("resident per green thread", self.resident_bytes.map_or_else(unknown, |bytes| format!("{bytes} bytes"))),
            ("system calls per round trip", self.calls.map_or_else(unknown, |calls| format!("{calls:.2}"))),
            ("errors", self.errors.to_string()),
        ];
        rows.map(|(name, value)| format!("{name:<28} {value:>16}")).join("\n")
    }
}
