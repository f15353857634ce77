//! Compares the ways to run green threads beside Tokio with the hub epoll and with Tokio alone, alternately on the same
//! work.
//!
//! `tokio_modes [REPETITIONS]` prints a table. Each cell has the least and the median processor time of the
//! repetitions, and in brackets the ratio of the median to Tokio's. Both ends of a connection are on one OS thread.

use std::future::ready;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use benches::awaiting::{self, Awaited, runtime};
use benches::{Stopwatch, green, repetitions, tcp_pairs, timed};
use greenhub::future::{block_on, defer_to_green_thread};
use greenhub::net::TcpStream as GreenStream;
use greenhub::{get_hub, sleep, spawn, use_hub};
use hub_tokio::GreenTransport;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// The size of a message.
const BYTES: usize = 64;

/// The time of a sleep.
const SLEEP: Duration = Duration::from_millis(1);

/// A column of the table.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Mode {
    /// Green threads without Tokio.
    Epoll,
    /// Green threads on the hub `tokio`.
    Implicit,
    /// Green threads in a runtime of the program.
    Explicit,
    /// Tasks on a current-thread runtime.
    Tokio,
}

const MODES: [Mode; 4] = [Mode::Epoll, Mode::Implicit, Mode::Explicit, Mode::Tokio];

/// Does something a number of times, and returns the processor time.
type Operation = fn(u64) -> Duration;

/// A row of the table.
struct Work {
    name: &'static str,
    /// The number of operations in one repetition.
    operations: u64,
    /// The number of nanoseconds in the unit of the table.
    unit: (&'static str, f64),
    /// On the hub epoll. None: the work needs Tokio.
    on_epoll: Option<Operation>,
    /// In green threads beside Tokio.
    beside_tokio: Operation,
    in_tokio: Operation,
}

const NANOS: (&str, f64) = ("ns", 1.0);
const MICROS: (&str, f64) = ("µs", 1e3);

const WORKS: &[Work] = &[
    Work {
        name: "`block_on` of a ready future",
        operations: 2_000_000,
        unit: NANOS,
        on_epoll: Some(block_on_ready),
        beside_tokio: block_on_ready,
        in_tokio: |count| {
            let runtime = runtime();
            timed(count, || runtime.block_on(ready(black_box(1))))
        },
    },
    Work {
        name: "message there and back by `tokio::sync::mpsc`",
        operations: 500_000,
        unit: NANOS,
        on_epoll: Some(messages),
        beside_tokio: messages,
        in_tokio: tokio_messages,
    },
    Work {
        name: "a sleep of 1 ms by the hub's timer",
        operations: 200,
        unit: MICROS,
        on_epoll: Some(|count| timed(count, || sleep(SLEEP))),
        beside_tokio: |count| timed(count, || sleep(SLEEP)),
        in_tokio: tokio_sleeps,
    },
    Work {
        name: "a sleep of 1 ms by Tokio's timer",
        operations: 200,
        unit: MICROS,
        on_epoll: None,
        beside_tokio: |count| timed(count, || block_on(tokio::time::sleep(SLEEP))),
        in_tokio: tokio_sleeps,
    },
    Work {
        name: "echo, green sockets, 1 pair",
        operations: 20_000,
        unit: MICROS,
        on_epoll: Some(|count| echo(1, count, GreenStream::from)),
        beside_tokio: |count| echo(1, count, GreenStream::from),
        in_tokio: |count| tokio_echo(1, count),
    },
    Work {
        name: "echo, green sockets, 50 pairs",
        operations: 40_000,
        unit: MICROS,
        on_epoll: Some(|count| echo(50, count, GreenStream::from)),
        beside_tokio: |count| echo(50, count, GreenStream::from),
        in_tokio: |count| tokio_echo(50, count),
    },
    Work {
        name: "echo, sockets of Tokio by `block_on`, 1 pair",
        operations: 20_000,
        unit: MICROS,
        on_epoll: None,
        beside_tokio: |count| echo(1, count, |socket| Awaited(stream(socket))),
        in_tokio: |count| tokio_echo(1, count),
    },
    Work {
        name: "echo, `GreenTransport` of Tokio's sockets, 1 pair",
        operations: 20_000,
        unit: MICROS,
        on_epoll: None,
        beside_tokio: |count| echo(1, count, |socket| GreenTransport::new(stream(socket))),
        in_tokio: |count| tokio_echo(1, count),
    },
    Work {
        name: "echo, `GreenTransport` of Tokio's sockets, 50 pairs",
        operations: 40_000,
        unit: MICROS,
        on_epoll: None,
        beside_tokio: |count| echo(50, count, |socket| GreenTransport::new(stream(socket))),
        in_tokio: |count| tokio_echo(50, count),
    },
];

fn main() -> ExitCode {
    let repetitions = match repetitions("tokio_modes") {
        Ok(repetitions) => repetitions,
        Err(code) => return code,
    };
    println!("| work | unit | epoll | implicit | explicit | Tokio alone |");
    println!("|---|---|---:|---:|---:|---:|");
    for work in WORKS {
        let mut times = MODES.map(|_| Vec::new());
        for _ in 0..repetitions {
            for (mode, times) in MODES.into_iter().zip(&mut times) {
                times.extend(work.run(mode).map(|time| time.as_secs_f64() * 1e9 / work.operations as f64));
            }
        }
        let summaries = times.map(Summary::of);
        let tokio = summaries[3].as_ref().map_or(f64::NAN, |summary| summary.median);
        let cells = summaries.map(|summary| summary.map_or("–".to_owned(), |it| it.cell(work.unit.1, tokio)));
        println!("| {} | {} | {} |", work.name, work.unit.0, cells.join(" | "));
    }
    ExitCode::SUCCESS
}

impl Work {
    /// Runs the work on an OS thread of its own, so that each run has a new hub.
    fn run(&self, mode: Mode) -> Option<Duration> {
        let operation = match mode {
            Mode::Epoll => self.on_epoll?,
            Mode::Implicit | Mode::Explicit => self.beside_tokio,
            Mode::Tokio => self.in_tokio,
        };
        let count = self.operations;
        let measured = std::thread::spawn(move || match mode {
            Mode::Epoll => on_hub("epoll", || operation(count)),
            Mode::Implicit => on_hub("tokio", || operation(count)),
            Mode::Explicit => on_hub("epoll", || {
                let measured = defer_to_green_thread(move || operation(count));
                runtime().block_on(hub_tokio::run_until(measured)).expect("a hub that can be joined").expect("no panic")
            }),
            Mode::Tokio => operation(count),
        });
        Some(measured.join().expect("no panic"))
    }
}

/// The summary of several runs of the same work, in nanoseconds.
struct Summary {
    least: f64,
    median: f64,
}

impl Summary {
    fn of(mut times: Vec<f64>) -> Option<Summary> {
        times.sort_by(f64::total_cmp);
        Some(Summary { least: *times.first()?, median: *times.get(times.len() / 2)? })
    }

    fn cell(&self, unit: f64, tokio: f64) -> String {
        format!("{:.1} / {:.1} ({:.2})", self.least / unit, self.median / unit, self.median / tokio)
    }
}

fn on_hub<T>(name: &str, run: impl FnOnce() -> T) -> T {
    use_hub(name).expect("the hub is compiled in");
    // Built now, since the code before the first wait may need its runtime.
    let _hub = get_hub();
    run()
}

fn block_on_ready(count: u64) -> Duration {
    timed(count, || block_on(ready(black_box(1))))
}

/// Sends `count` messages between two green threads and back.
fn messages(count: u64) -> Duration {
    let ((there, mut arrived), (back, mut returned)) = (mpsc::channel(1), mpsc::channel(1));
    let watch = Stopwatch::start();
    let bounce = spawn(move || {
        while let Some(number) = block_on(arrived.recv()) {
            block_on(back.send(number)).expect("the receiver lives");
        }
    });
    let send = spawn(move || {
        for number in 0..count {
            block_on(there.send(number)).expect("the receiver lives");
            assert_eq!(block_on(returned.recv()), Some(number));
        }
    });
    send.join().expect("no panic");
    bounce.join().expect("no panic");
    watch.elapsed()
}

/// Sends `count` messages between two tasks and back.
fn tokio_messages(count: u64) -> Duration {
    runtime().block_on(async {
        let ((there, mut arrived), (back, mut returned)) = (mpsc::channel(1), mpsc::channel(1));
        let watch = Stopwatch::start();
        let bounce = tokio::spawn(async move {
            while let Some(number) = arrived.recv().await {
                back.send(number).await.expect("the receiver lives");
            }
        });
        let send = tokio::spawn(async move {
            for number in 0..count {
                there.send(number).await.expect("the receiver lives");
                assert_eq!(returned.recv().await, Some(number));
            }
        });
        send.await.expect("no panic");
        bounce.await.expect("no panic");
        watch.elapsed()
    })
}

fn tokio_sleeps(count: u64) -> Duration {
    runtime().block_on(async {
        let watch = Stopwatch::start();
        for _ in 0..count {
            tokio::time::sleep(SLEEP).await;
        }
        watch.elapsed()
    })
}

/// Sends messages there and back in green threads, `count` of them over all pairs.
fn echo<S: Read + Write + 'static>(pairs: u64, count: u64, convert: impl Fn(OwnedFd) -> S) -> Duration {
    let sockets = tcp_pairs(pairs as usize).expect("enough descriptors");
    let sockets = sockets.into_iter().map(|(near, far)| (convert(near), convert(far))).collect();
    let watch = Stopwatch::start();
    green::ping_pong(sockets, count / pairs, BYTES);
    watch.elapsed()
}

/// Sends messages there and back in tasks, `count` of them over all pairs.
fn tokio_echo(pairs: u64, count: u64) -> Duration {
    runtime().block_on(async {
        let sockets = tcp_pairs(pairs as usize).expect("enough descriptors");
        let sockets = sockets.into_iter().map(|(near, far)| (stream(near), stream(far))).collect();
        let watch = Stopwatch::start();
        awaiting::ping_pong(sockets, count / pairs, BYTES).await;
        watch.elapsed()
    })
}

/// Registers a socket with the runtime whose context is entered.
fn stream(socket: OwnedFd) -> TcpStream {
    let socket = StdStream::from(socket);
    socket.set_nonblocking(true).expect("a socket");
    TcpStream::from_std(socket).expect("the runtime takes the socket")
}
