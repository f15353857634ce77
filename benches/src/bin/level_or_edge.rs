//! Compares epoll's level-triggered and edge-triggered registration of owned sockets, alternately on the same work.
//!
//! `level_or_edge [REPETITIONS]` prints a table. The numbers are per round trip or message. The times are the least and
//! the median processor time of the repetitions. The calls are those of `Hub::wait` and `Hub::watch` and the operations
//! on sockets, in the repetition with the median time.

use std::fmt;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use benches::{Pair, Stopwatch, green, repetitions, tcp_pairs};
use greenhub::net::TcpStream;
use greenhub::{get_hub, spawn, use_hub_with};
use hub_epoll::{EpollHub, Paths, Trigger};

/// The traffic over the sockets.
#[derive(Copy, Clone)]
enum Work {
    /// A message goes back and forth. The unit is a round trip.
    PingPong,
    /// One end sends and the other end reads. The unit is a message.
    OneWay,
}

/// A row of the table.
struct Case {
    work: Work,
    connections: usize,
    bytes: usize,
    /// The total number of units over all connections.
    units: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match self.work {
            Work::PingPong => "there and back",
            Work::OneWay => "one way",
        };
        write!(f, "{work}, {} × {} B", self.connections, self.bytes)
    }
}

const CASES: &[Case] = &[
    Case { work: Work::PingPong, connections: 1, bytes: 64, units: 20_000 },
    Case { work: Work::PingPong, connections: 100, bytes: 64, units: 40_000 },
    Case { work: Work::PingPong, connections: 1000, bytes: 64, units: 50_000 },
    Case { work: Work::PingPong, connections: 1, bytes: 32 * 1024, units: 10_000 },
    Case { work: Work::PingPong, connections: 100, bytes: 32 * 1024, units: 10_000 },
    Case { work: Work::OneWay, connections: 1, bytes: 64, units: 200_000 },
    Case { work: Work::OneWay, connections: 1, bytes: 64 * 1024, units: 10_000 },
    Case { work: Work::OneWay, connections: 100, bytes: 64 * 1024, units: 10_000 },
];

/// The cost of one unit.
#[derive(Copy, Clone)]
struct Cost {
    time: Duration,
    calls: f64,
}

fn main() -> ExitCode {
    let repetitions = match repetitions("level_or_edge") {
        Ok(repetitions) => repetitions,
        Err(code) => return code,
    };
    println!("| work | level, µs | edge, µs | edge/level | level, calls | edge, calls |");
    println!("|---|---:|---:|---:|---:|---:|");
    for case in CASES {
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..repetitions {
            for (trigger, costs) in [Trigger::Level, Trigger::Edge].into_iter().zip(&mut costs) {
                costs.push(run(case, trigger));
            }
        }
        let [level, edge] = costs.map(Summary::of);
        println!(
            "| {case} | {level} | {edge} | {:.2} | {:.2} | {:.2} |",
            edge.median.as_secs_f64() / level.median.as_secs_f64(),
            level.calls,
            edge.calls
        );
    }
    ExitCode::SUCCESS
}

/// The summary of several runs of the same work.
struct Summary {
    least: Duration,
    median: Duration,
    calls: f64,
}

impl Summary {
    fn of(mut costs: Vec<Cost>) -> Summary {
        costs.sort_by_key(|cost| cost.time);
        let middle = costs[costs.len() / 2];
        Summary { least: costs[0].time, median: middle.time, calls: middle.calls }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        write!(f, "{:.2} / {:.2}", micros(self.least), micros(self.median))
    }
}

/// Runs a case on an OS thread of its own, so that each run has a new hub.
fn run(case: &Case, trigger: Trigger) -> Cost {
    let pairs = tcp_pairs(case.connections).expect("enough descriptors");
    let each = case.units / case.connections;
    let (work, bytes) = (case.work, case.bytes);
    let measure = move || {
        use_hub_with(move || EpollHub::with(Paths { trigger, ..Paths::default() })).expect("no loop runs yet");
        let hub = get_hub();
        let watch = Stopwatch::start();
        match work {
            Work::PingPong => green::ping_pong(sockets(pairs), each as u64, bytes),
            Work::OneWay => one_way(sockets(pairs), each, bytes),
        }
        (watch.elapsed(), hub.stats())
    };
    let (time, stats) = std::thread::spawn(measure).join().expect("no panic");
    let units = (each * case.connections) as f64;
    let calls = (stats.waits + stats.watches + stats.operations) as f64;
    Cost { time: time.div_f64(units), calls: calls / units }
}

fn sockets(pairs: Vec<Pair>) -> Vec<(TcpStream, TcpStream)> {
    pairs.into_iter().map(|(near, far)| (near.into(), far.into())).collect()
}

/// Sends `count` messages of `bytes` over each pair. The reader takes up to 64 KiB at a time.
fn one_way(pairs: Vec<(TcpStream, TcpStream)>, count: usize, bytes: usize) {
    let reader = |(mut near, mut far): (TcpStream, TcpStream)| {
        greenhub::spawn_n(move || {
            let message = vec![7; bytes];
            (0..count).for_each(|_| near.write_all(&message).expect("a message is sent"));
        });
        spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            let mut left = bytes * count;
            while left > 0 {
                left -= far.read(&mut buffer).expect("data of a message");
            }
        })
    };
    let readers: Vec<_> = pairs.into_iter().map(reader).collect();
    readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
}
