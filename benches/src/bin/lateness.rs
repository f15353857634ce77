//! How late a sleep of 5 ms ends beside work that never waits: `lateness [REPETITIONS]`.
//!
//! A sleep of Tokio is beside two green threads that only yield, and a sleep of a green thread is beside a hundred
//! tasks that only yield. Tokio alone has the same load in tasks. Each cell of the table has the median and the longest
//! delay of the sleeps. In brackets is the ratio of the median to Tokio's.

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::awaiting::runtime;
use benches::repetitions;
use greenhub::future::{block_on, defer_to_green_thread};
use greenhub::{spawn, use_hub};

/// The time of a sleep.
const SLEEP: Duration = Duration::from_millis(5);

/// The number of sleeps of one repetition.
const SLEEPS: usize = 20;

/// A column of the table.
#[derive(Copy, Clone)]
enum Mode {
    /// Green threads on the hub `tokio`.
    Implicit,
    /// Green threads in a runtime of the program.
    Explicit,
    /// Tasks on a current-thread runtime.
    Tokio,
}

const MODES: [Mode; 3] = [Mode::Implicit, Mode::Explicit, Mode::Tokio];

/// Returns the delays of some sleeps.
type Sleeps = fn() -> Vec<Duration>;

/// A row of the table.
struct Load {
    name: &'static str,
    /// In a green thread beside Tokio.
    beside_tokio: Sleeps,
    in_tokio: Sleeps,
}

const LOADS: &[Load] = &[
    Load {
        name: "a sleep of Tokio beside 2 green threads",
        beside_tokio: || beside_green_threads(2, || block_on(tokio::time::sleep(SLEEP))),
        in_tokio: || in_tokio(2),
    },
    Load {
        name: "a sleep of a green thread beside 100 tasks",
        beside_tokio: || {
            let load = Tasks::spawn(100);
            let delays = delays(|| greenhub::sleep(SLEEP));
            drop(load);
            delays
        },
        in_tokio: || in_tokio(100),
    },
];

fn main() -> ExitCode {
    let repetitions = match repetitions("lateness") {
        Ok(repetitions) => repetitions,
        Err(code) => return code,
    };
    println!("| late by, in ms | implicit | explicit | Tokio alone |");
    println!("|---|---:|---:|---:|");
    for load in LOADS {
        let mut all = MODES.map(|_| Vec::new());
        for _ in 0..repetitions {
            for (mode, delays) in MODES.into_iter().zip(&mut all) {
                delays.extend(load.run(mode));
            }
        }
        all.iter_mut().for_each(|delays| delays.sort());
        let millis = |delay: Duration| delay.as_secs_f64() * 1e3;
        let median = |delays: &[Duration]| millis(delays[delays.len() / 2]);
        let tokio = median(&all[2]);
        let cells = all.map(|delays| {
            let (median, worst) = (median(&delays), millis(delays[delays.len() - 1]));
            format!("{median:.2} / {worst:.2} ({:.2})", median / tokio)
        });
        println!("| {} | {} |", load.name, cells.join(" | "));
    }
    ExitCode::SUCCESS
}

impl Load {
    /// Runs the sleeps on an OS thread of their own, so that each run has a new hub.
    fn run(&self, mode: Mode) -> Vec<Duration> {
        let sleeps = match mode {
            Mode::Implicit | Mode::Explicit => self.beside_tokio,
            Mode::Tokio => self.in_tokio,
        };
        let slept = std::thread::spawn(move || match mode {
            Mode::Implicit => {
                use_hub("tokio").expect("the hub is compiled in");
                spawn(sleeps).join().expect("no panic")
            }
            Mode::Explicit => {
                use_hub("epoll").expect("the hub is compiled in");
                let slept = runtime().block_on(hub_tokio::run_until(defer_to_green_thread(sleeps)));
                slept.expect("a hub that can be joined").expect("no panic")
            }
            Mode::Tokio => sleeps(),
        });
        slept.join().expect("no panic")
    }
}

/// Returns by how much each of some calls of `sleep` is late.
fn delays(mut sleep: impl FnMut()) -> Vec<Duration> {
    let delay = |_| {
        let begun = Instant::now();
        sleep();
        begun.elapsed().saturating_sub(SLEEP)
    };
    (0..SLEEPS).map(delay).collect()
}

fn beside_green_threads(count: usize, sleep: impl FnMut()) -> Vec<Duration> {
    let stop = Rc::new(Cell::new(false));
    let yielding = |_| {
        let stop = Rc::clone(&stop);
        spawn(move || {
            while !stop.get() {
                greenhub::thread::yield_now();
            }
        })
    };
    let load: Vec<_> = (0..count).map(yielding).collect();
    let delays = delays(sleep);
    stop.set(true);
    load.into_iter().for_each(|green| green.join().expect("no panic"));
    delays
}

/// Tasks that yield until this is dropped.
struct Tasks(Arc<AtomicBool>);

impl Tasks {
    /// Spawns them on the runtime whose context is entered.
    fn spawn(count: usize) -> Tasks {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..count {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                }
            });
        }
        Tasks(stop)
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A sleep of Tokio beside tasks, without green threads.
fn in_tokio(tasks: usize) -> Vec<Duration> {
    runtime().block_on(async {
        let _load = Tasks::spawn(tasks);
        let mut delays = Vec::new();
        for _ in 0..SLEEPS {
            let begun = Instant::now();
            tokio::time::sleep(SLEEP).await;
            delays.push(begun.elapsed().saturating_sub(SLEEP));
        }
        delays
    })
}
