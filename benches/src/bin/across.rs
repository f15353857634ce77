//! Compares the time of a message between two OS threads and back: greenhub, std, and Tokio's current-thread runtimes.
//!
//! It prints real time, because both OS threads work at once, and in brackets the processor time of both.

use std::process::ExitCode;
use std::sync::{OnceLock, mpsc as std_mpsc};
use std::thread;
use std::time::{Duration, Instant};

use benches::{Stopwatch, repetitions};
use greenhub::hub::{busy_poll_time, set_busy_poll_time};
use greenhub::sync::mpsc;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The messages there and back of one measurement.
const ROUNDS: u64 = 20_000;

/// The real time and the processor time of a round.
type Times = (Duration, Duration);

/// A name, and a function that passes [`ROUNDS`] messages there and back.
type Peer = (&'static str, fn(Place));

/// Which processors the two OS threads may use.
#[derive(Copy, Clone)]
enum Place {
    Together,
    Apart,
    Free,
}

fn main() -> ExitCode {
    let repetitions = match repetitions("across") {
        Ok(repetitions) => repetitions,
        Err(wrong) => return wrong,
    };
    processors();
    let peers: [Peer; 5] = [
        ("green threads", green_rounds),
        ("without looks", without_looks),
        ("greenhub, OS threads", greenhub_rounds),
        ("std", std_rounds),
        ("tokio", tokio_rounds),
    ];
    let places = [("one processor", Place::Together), ("two processors", Place::Apart), ("any processor", Place::Free)];
    for (name, place) in places {
        let mut times = peers.map(|_| Vec::new());
        for _ in 0..repetitions {
            for ((_, rounds), times) in peers.iter().zip(&mut times) {
                times.push(measured(*rounds, place));
            }
        }
        println!("{name}, in µs, median of {repetitions}:");
        for ((peer, _), mut times) in peers.iter().zip(times) {
            times.sort();
            let (real, processor) = times[times.len() / 2];
            println!("  {peer:<20} {:>7.2} ({:.2})", micros(real), micros(processor));
        }
    }
    ExitCode::SUCCESS
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Measures `rounds` on a new OS thread, so that no hub is left from another measurement.
fn measured(rounds: fn(Place), place: Place) -> Times {
    let run = move || {
        settle(place, 0);
        let (begun, watch) = (Instant::now(), Stopwatch::start());
        rounds(place);
        (begun.elapsed() / ROUNDS as u32, watch.elapsed() / ROUNDS as u32)
    };
    thread::spawn(run).join().expect("no panic")
}

/// Returns the processors that the process may use. An OS thread inherits the restriction of the one that spawns it.
fn processors() -> &'static [usize] {
    static ALL: OnceLock<Vec<usize>> = OnceLock::new();
    ALL.get_or_init(|| {
        let allowed = sched_getaffinity(None).expect("the system tells");
        (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)).collect()
    })
}

/// Allows the calling OS thread the processors of `place`. `number`: that of the OS thread, 0 or 1.
fn settle(place: Place, number: usize) {
    let all = processors();
    let chosen = match place {
        Place::Free => return,
        Place::Together => all[0],
        Place::Apart => all[number % all.len()],
    };
    let mut only = CpuSet::new();
    only.set(chosen);
    sched_setaffinity(None, &only).expect("the processor is allowed");
}

/// Defines rounds over the channels of a module with the names of `std::sync::mpsc`, each side by `$run`.
macro_rules! rounds_by {
    ($name:ident, $channel:path, $run:path) => {
        fn $name(place: Place) {
            let ((there, arrived), (back, returned)) = ($channel(), $channel());
            let other = thread::spawn(move || {
                settle(place, 1);
                $run(move || {
                    while let Ok(number) = arrived.recv() {
                        back.send(number).expect("the receiver lives");
                    }
                });
            });
            $run(move || {
                for number in 0..ROUNDS {
                    there.send(number).expect("the receiver lives");
                    assert_eq!(returned.recv(), Ok(number));
                }
            });
            other.join().expect("no panic");
        }
    };
}

rounds_by!(green_rounds, mpsc::channel, in_a_green_thread);
rounds_by!(greenhub_rounds, mpsc::channel, in_place);
rounds_by!(std_rounds, std_mpsc::channel, in_place);

fn without_looks(place: Place) {
    let looks = busy_poll_time();
    set_busy_poll_time(None);
    green_rounds(place);
    set_busy_poll_time(looks);
}

fn in_place(run: impl FnOnce()) {
    run();
}

fn in_a_green_thread(run: impl FnOnce() + 'static) {
    greenhub::spawn(run).join().expect("no panic");
}

fn tokio_rounds(place: Place) {
    use tokio::sync::mpsc::unbounded_channel;
    let ((there, mut arrived), (back, mut returned)) = (unbounded_channel(), unbounded_channel());
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let other = thread::spawn(move || {
        settle(place, 1);
        runtime().block_on(async {
            while let Some(number) = arrived.recv().await {
                back.send(number).expect("the receiver lives");
            }
        });
    });
    runtime().block_on(async {
        for number in 0..ROUNDS {
            there.send(number).expect("the receiver lives");
            assert_eq!(returned.recv().await, Some(number));
        }
    });
    drop(there);
    other.join().expect("no panic");
}
