//! Compares the time of a message between two OS threads and back: greenhub, std, and Tokio's current-thread runtimes.
//!
//! It prints real time, because both OS threads work at once, and in brackets the processor time of both. `across
//! [REPETITIONS]` prints tables, `across --figures [TEXT]` the lines of [`benches::figures`].

use std::process::ExitCode;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::{Duration, Instant};

use benches::figures::{Figures, Unit};
use benches::processors::{processors, restrict_to};
use benches::{Stopwatch, repetitions};
use greenhub::hub::{busy_poll_time, set_busy_poll_time};
use greenhub::sync::mpsc;

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

const PEERS: [Peer; 5] = [
    ("greenhub", green_rounds),
    ("greenhub, without busy polls", without_busy_polls),
    ("greenhub, OS threads", greenhub_rounds),
    ("std", std_rounds),
    ("tokio", tokio_rounds),
];

const PLACES: [(&str, Place); 3] =
    [("one processor", Place::Together), ("two processors", Place::Apart), ("any processor", Place::Free)];

fn main() -> ExitCode {
    processors();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let Some(figures) = Figures::requested(&words) {
        print_figures(&figures);
        return ExitCode::SUCCESS;
    }
    let repetitions = match repetitions("across") {
        Ok(repetitions) => repetitions,
        Err(wrong) => return wrong,
    };
    for (name, place) in PLACES {
        let mut times = PEERS.map(|_| Vec::new());
        for _ in 0..repetitions {
            for ((_, rounds), times) in PEERS.iter().zip(&mut times) {
                times.push(measured(*rounds, place));
            }
        }
        println!("{name}, in µs, median of {repetitions}:");
        for ((peer, _), mut times) in PEERS.iter().zip(times) {
            times.sort();
            let (real, processor) = times[times.len() / 2];
            println!("  {peer:<30} {:>7.2} ({:.2})", micros(real), micros(processor));
        }
    }
    ExitCode::SUCCESS
}

fn print_figures(figures: &Figures) {
    for (name, place) in PLACES {
        let group = format!("a message between OS threads and back, {name}");
        for (peer, rounds) in PEERS.into_iter().filter(|(peer, _)| figures.wants(&group, peer)) {
            let (real, processor) = measured(rounds, place);
            figures.print(&group, peer, Unit::Processor, processor.as_secs_f64() * 1e9);
            figures.print(&format!("{group}, real time"), peer, Unit::Real, real.as_secs_f64() * 1e9);
        }
    }
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
        (begun.elapsed().div_f64(ROUNDS as f64), watch.elapsed().div_f64(ROUNDS as f64))
    };
    thread::spawn(run).join().expect("no panic")
}

/// Allows the calling OS thread the processors of `place`. `number`: that of the OS thread, 0 or 1.
fn settle(place: Place, number: usize) {
    let all = processors();
    let chosen = match place {
        Place::Free => return,
        Place::Together => all[0],
        Place::Apart => all[number % all.len()],
    };
    restrict_to(&[chosen]).expect("the processor is allowed");
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

fn without_busy_polls(place: Place) {
    let usual = busy_poll_time();
    set_busy_poll_time(None);
    green_rounds(place);
    set_busy_poll_time(usual);
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
