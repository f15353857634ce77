//! How late a sleeper of 1 ms wakes among green threads that never wait: `worst_gap [SECONDS]`.
//!
//! The green threads perform one kind of operation in a loop. Each operation is followed by 50 µs of work. For each
//! kind of operation and number of green threads, the program prints how often the sleeper woke and the longest time
//! between two wake-ups.
//!
//! `worst_gap --figures [TEXT]` prints the median and the longest delay as lines of [`benches::figures`], beside those
//! of a task among tasks of Tokio's current-thread runtime that perform the same operations.

mod green;
mod tasks;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use benches::figures::{Figures, Unit};

const SLEEP: Duration = Duration::from_millis(1);

const WORK: Duration = Duration::from_micros(50);

/// The time of a measurement for figures.
const RUN: Duration = Duration::from_millis(400);

/// Measures for a while, and returns the times between the wake-ups.
type Measure = Box<dyn FnOnce(usize, Duration) -> Vec<Duration> + Send>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let seconds = match words[..] {
        [] => Some(2.0),
        [seconds] => seconds.parse().ok().filter(|seconds| (0.1..1e6).contains(seconds)),
        _ => None,
    };
    match (seconds, Figures::requested(&words)) {
        (Some(seconds), _) => print_table(Duration::from_secs_f64(seconds)),
        (None, Some(figures)) => print_figures(&figures),
        (None, None) => {
            eprintln!("usage: worst_gap [SECONDS], or worst_gap --figures [TEXT]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn print_table(time: Duration) {
    println!("operation  greedy   wake-ups   worst gap");
    for (name, make) in green::KINDS {
        for greedy in [1, 10, 100, 500] {
            let gaps = measured(Box::new(move |greedy, time| green::gaps(make, greedy, time)), greedy, time);
            let worst = gaps.last().map_or(0.0, Duration::as_secs_f64);
            println!("{name:<10} {greedy:>6} {:>10} {:>8.2} ms", gaps.len(), worst * 1e3);
        }
    }
}

fn print_figures(figures: &Figures) {
    for ((kind, green), (_, tasks)) in green::KINDS.into_iter().zip(tasks::KINDS) {
        for greedy in [10, 100] {
            let group = format!("delay of a 1 ms ticker beside {greedy} greedy peers, {kind}");
            let peers: [(&str, Measure); 2] = [
                ("greenhub", Box::new(move |greedy, time| green::gaps(green, greedy, time))),
                ("tokio", Box::new(move |greedy, time| tasks::gaps(tasks, greedy, time))),
            ];
            for (name, measure) in peers {
                if !figures.wants(&group, name) {
                    continue;
                }
                let gaps = measured(measure, greedy, RUN);
                let delay = |gap: Duration| gap.saturating_sub(SLEEP).as_secs_f64() * 1e9;
                let median = gaps.get(gaps.len() / 2).copied().unwrap_or(RUN);
                figures.print(&format!("{group}, median"), name, Unit::Real, delay(median));
                figures.print(&format!("{group}, longest"), name, Unit::Real, delay(*gaps.last().unwrap_or(&RUN)));
            }
        }
    }
}

/// Measures on a new OS thread, and so with a new hub. Returns the sorted times between the wake-ups.
fn measured(measure: Measure, greedy: usize, time: Duration) -> Vec<Duration> {
    let mut gaps = std::thread::spawn(move || measure(greedy, time)).join().expect("no panic");
    gaps.sort();
    gaps
}

fn work() {
    let begun = Instant::now();
    while begun.elapsed() < WORK {
        std::hint::spin_loop();
    }
}
