//! The answer of a console to `snapshot`, in format 1 of `greenhub::debug::format_snapshot`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The format that this program reads.
const FORMAT: u32 = 1;

/// A hub and its greenlets at one time.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) process: u32,
    pub(crate) thread: Option<String>,
    pub(crate) hub: String,
    pub(crate) hub_id: u64,
    #[serde(default)]
    pub(crate) label: String,
    pub(crate) stats: Stats,
    /// The number of greenlets that are not listed.
    #[serde(default)]
    pub(crate) omitted: usize,
    pub(crate) greenlets: Vec<Greenlet>,
}

/// The counters that are shown. An unknown one is ignored, and a missing one is zero.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stats {
    pub(crate) turns: u64,
    pub(crate) switches: u64,
    pub(crate) timers: u64,
    pub(crate) readers: u64,
    pub(crate) writers: u64,
    pub(crate) ready: u64,
    pub(crate) parked: u64,
    pub(crate) green_threads: u64,
    pub(crate) stack_bytes_resident: u64,
    pub(crate) stack_bytes_mapped: u64,
    pub(crate) pool_threads: u64,
    pub(crate) pool_jobs: u64,
    pub(crate) pool_queued: u64,
}

/// A greenlet that has not ended.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Greenlet {
    pub(crate) id: u64,
    pub(crate) kind: String,
    pub(crate) name: Option<String>,
    pub(crate) made_at: Option<String>,
    pub(crate) age_ms: Option<u64>,
    pub(crate) state: String,
    /// The state in words.
    pub(crate) text: String,
}

impl Snapshot {
    /// Parses a line.
    ///
    /// # Errors
    ///
    /// Returns an error if the line is none of this format.
    pub(crate) fn parse(line: &str) -> Result<Snapshot> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }

        let version: Version = serde_json::from_str(line).context("the answer is no snapshot")?;
        ensure!(
            version.format == FORMAT,
            "the program sends format {}, and this greenhub-top reads format {FORMAT}",
            version.format
        );
        serde_json::from_str(line).context("the answer is no snapshot of format 1")
    }

    /// Returns the label of the hub, or its name with its number.
    pub(crate) fn title(&self) -> String {
        if self.label.is_empty() { format!("{} #{}", self.hub, self.hub_id) } else { self.label.clone() }
    }
}

impl Greenlet {
    pub(crate) fn age(&self) -> Option<Duration> {
        self.age_ms.map(Duration::from_millis)
    }

    /// Returns the name, or the kind of a greenlet without a name.
    pub(crate) fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.kind)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const LINE: &str = r#"{"format":1,"process":42,"thread":"main","hub":"epoll","hub_id":1,"label":"",
        "stats":{"turns":1000,"switches":5000,"timers":1,"readers":2,"writers":0,"ready":1,"parked":2,
        "green_threads":3,"stack_bytes_mapped":4194304,"stack_bytes_resident":16384,"later":1},"omitted":0,
        "greenlets":[
        {"id":0,"kind":"main","state":"waiting","reason":"Join","text":"waiting for a green thread"},
        {"id":2,"kind":"green thread","name":"reader","made_at":"src/server.rs:20:5","age_ms":61000,
         "state":"waiting","reason":"Descriptor","fd":7,"direction":"read",
         "text":"waiting for a descriptor (reading from 7)"},
        {"id":3,"kind":"green thread","name":"sleeper","made_at":"src/server.rs:30:5","age_ms":1500,
         "state":"waiting","reason":"Sleep","due_ms":2500,"text":"sleeping, 2.5s left"},
        {"id":4,"kind":"green thread","made_at":"src/worker.rs:8:1","age_ms":20,"state":"ready","text":"ready"}]}"#;

    #[test]
    fn a_snapshot_is_parsed() {
        let snapshot = Snapshot::parse(LINE).expect("a snapshot");
        assert_eq!((snapshot.process, snapshot.title().as_str()), (42, "epoll #1"));
        assert_eq!((snapshot.stats.turns, snapshot.stats.pool_jobs), (1000, 0));
        assert_eq!(snapshot.greenlets.len(), 4);
        assert_eq!(snapshot.greenlets[1].age(), Some(Duration::from_secs(61)));
        assert_eq!(snapshot.greenlets[0].age(), None);
        let titles: Vec<&str> = snapshot.greenlets.iter().map(Greenlet::title).collect();
        assert_eq!(titles, ["main", "reader", "sleeper", "green thread"]);
    }

    #[test]
    fn another_format_is_named() {
        let error = Snapshot::parse(r#"{"format":2}"#).expect_err("another format").to_string();
        assert_eq!(error, "the program sends format 2, and this greenhub-top reads format 1");
    }

    #[test]
    fn other_answers_are_no_snapshots() {
        for line in ["", "{", "hello", r#"{"format":1}"#, r#"{"format":"one"}"#] {
            let error = Snapshot::parse(line).expect_err(line).to_string();
            assert!(error.starts_with("the answer is no snapshot"), "{error}");
        }
    }
}
