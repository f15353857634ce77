//! A recorder of the crate `metrics` that renders its values as text for Prometheus.
//!
//! A program with more values of its own may use the crate `metrics-exporter-prometheus` instead, without its listener:
//! its `PrometheusHandle::render` returns the same text.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// The upper bounds of the buckets of each histogram, in seconds.
const BOUNDS: [f64; 10] = [0.000_01, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// All values. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Prometheus {
    families: Arc<Mutex<BTreeMap<String, Family>>>,
}

/// The values of one name.
#[derive(Default)]
struct Family {
    meaning: SharedString,
    /// By their labels, as in the text.
    series: BTreeMap<String, Series>,
}

enum Series {
    Counter(Arc<AtomicU64>),
    /// The bits of an `f64`.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

#[derive(Default)]
struct Buckets {
    /// The number of values up to each bound, and above the last one.
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        GaugeFn::increment(&self.sum, value);
    }
}

impl Prometheus {
    /// Returns all values in Prometheus's text format.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in self.lock().iter().filter(|(_, family)| !family.series.is_empty()) {
            // Writing to a string does not fail.
            let _ = family.write(&mut text, name);
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self, name: KeyName, meaning: SharedString) {
        self.lock().entry(name.as_str().to_owned()).or_default().meaning = meaning;
    }

    /// Calls `take` with the series of that name and these labels, which `make` makes if there is none.
    fn series<R>(&self, key: &Key, make: fn() -> Series, take: impl FnOnce(&Series) -> R) -> R {
        let mut families = self.lock();
        let family = families.entry(key.name().to_owned()).or_default();
        take(family.series.entry(labels(key)).or_insert_with(make))
    }
}

impl Recorder for Prometheus {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, meaning: SharedString) {
        self.describe(name, meaning);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, meaning: SharedString) {
        self.describe(name, meaning);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, meaning: SharedString) {
        self.describe(name, meaning);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.series(
            key,
            || Series::Counter(Arc::default()),
            |series| match series {
                Series::Counter(value) => Counter::from_arc(Arc::clone(value)),
                _ => Counter::noop(),
            },
        )
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.series(
            key,
            || Series::Gauge(Arc::default()),
            |series| match series {
                Series::Gauge(value) => Gauge::from_arc(Arc::clone(value)),
                _ => Gauge::noop(),
            },
        )
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.series(
            key,
            || Series::Histogram(Arc::default()),
            |series| match series {
                Series::Histogram(buckets) => Histogram::from_arc(Arc::clone(buckets)),
                _ => Histogram::noop(),
            },
        )
    }
}

impl Family {
    fn write(&self, text: &mut String, name: &str) -> fmt::Result {
        let kind = match self.series.values().next() {
            Some(Series::Counter(_)) => "counter",
            Some(Series::Histogram(_)) => "histogram",
            _ => "gauge",
        };
        if !self.meaning.is_empty() {
            writeln!(text, "# HELP {name} {}", self.meaning)?;
        }
        writeln!(text, "# TYPE {name} {kind}")?;
        for (labels, series) in &self.series {
            match series {
                Series::Counter(value) => writeln!(text, "{name}{labels} {}", value.load(Ordering::Relaxed))?,
                Series::Gauge(value) => writeln!(text, "{name}{labels} {}", float(value))?,
                Series::Histogram(buckets) => buckets.write(text, name, labels)?,
            }
        }
        Ok(())
    }
}

impl Buckets {
    fn write(&self, text: &mut String, name: &str, labels: &str) -> fmt::Result {
        let others = labels.trim_matches(['{', '}']);
        let comma = if others.is_empty() { "" } else { "," };
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let mut total = 0;
        for (count, bound) in self.counts.iter().zip(bounds) {
            total += count.load(Ordering::Relaxed);
            writeln!(text, "{name}_bucket{{{others}{comma}le=\"{bound}\"}} {total}")?;
        }
        writeln!(text, "{name}_sum{labels} {}", float(&self.sum))?;
        writeln!(text, "{name}_count{labels} {total}")
    }
}

fn float(bits: &AtomicU64) -> f64 {
    f64::from_bits(bits.load(Ordering::Relaxed))
}

/// Returns the labels of `key` in braces, or nothing if it has none.
fn labels(key: &Key) -> String {
    let escaped = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let labels: Vec<String> =
        key.labels().map(|label| format!("{}=\"{}\"", label.key(), escaped(label.value()))).collect();
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) }
}
