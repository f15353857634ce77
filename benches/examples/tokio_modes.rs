//! Compares the ways to run green threads beside Tokio with the hub epoll and with Tokio alone, alternately on the same
//! work.
//!
//! `tokio_modes [REPETITIONS]` prints a table. Each cell has the least and the median processor time of the
//! repetitions, and in brackets the ratio of the median to Tokio's. Both ends of a connection are on one OS thread.

use std::future::ready;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use benches::{Stopwatch, green, tcp_pairs, timed};
use greenhub::future::{block_on, defer_to_green_thread};
use greenhub::net::TcpStream as GreenStream;
use greenhub::{get_hub, sleep, use_hub};
use hub_tokio::GreenTransport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

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
        in_tokio: |count| runtime_of(|runtime| timed(count, || runtime.block_on(ready(black_box(1))))),
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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let repetitions = match &arguments[..] {
        [] => Some(9),
        [number] => number.parse().ok().filter(|number| *number > 0),
        _ => None,
    };
    let Some(repetitions) = repetitions else {
        eprintln!("usage: tokio_modes [REPETITIONS]");
        return ExitCode::from(2);
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
                runtime_of(|runtime| runtime.block_on(hub_tokio::run_until(measured)))
                    .expect("a hub that can be joined")
                    .expect("no panic")
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

fn runtime_of<T>(run: impl FnOnce(&Runtime) -> T) -> T {
    run(&Builder::new_current_thread().enable_all().build().expect("a runtime"))
}

fn block_on_ready(count: u64) -> Duration {
    timed(count, || block_on(ready(black_box(1))))
}

fn tokio_sleeps(count: u64) -> Duration {
    runtime_of(|runtime| {
        runtime.block_on(async {
            let watch = Stopwatch::start();
            for _ in 0..count {
                tokio::time::sleep(SLEEP).await;
            }
            watch.elapsed()
        })
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
    let rounds = count / pairs;
    let player = move |(near, far)| {
        let (mut near, mut far) = (stream(near), stream(far));
        tokio::spawn(async move {
            let mut message = [0; BYTES];
            for _ in 0..rounds {
                far.read_exact(&mut message).await.expect("a message comes");
                far.write_all(&message).await.expect("the peer reads");
            }
        });
        tokio::spawn(async move {
            let mut message = [7; BYTES];
            for _ in 0..rounds {
                near.write_all(&message).await.expect("a message is sent");
                near.read_exact(&mut message).await.expect("the message comes back");
            }
        })
    };
    runtime_of(|runtime| {
        runtime.block_on(async {
            let sockets = tcp_pairs(pairs as usize).expect("enough descriptors");
            let watch = Stopwatch::start();
            let players: Vec<_> = sockets.into_iter().map(player).collect();
            for player in players {
                player.await.expect("no panic");
            }
            watch.elapsed()
        })
    })
}

/// Registers a socket with the runtime whose context is entered.
fn stream(socket: OwnedFd) -> TcpStream {
    let socket = StdStream::from(socket);
    socket.set_nonblocking(true).expect("a socket");
    TcpStream::from_std(socket).expect("registered")
}

/// A socket of Tokio, each of whose operations is one `block_on`.
struct Awaited(TcpStream);

impl Read for Awaited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        block_on(self.0.read(buffer))
    }
}

impl Write for Awaited {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        block_on(self.0.write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        block_on(self.0.flush())
    }
}
