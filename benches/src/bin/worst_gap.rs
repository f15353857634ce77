//! The longest gap between wake-ups of a main greenlet that sleeps for 1 ms, among green threads that never wait:
//! `worst_gap [SECONDS]`.
//!
//! The green threads perform one kind of operation in a loop. Each operation is followed by 50 µs of work. For each
//! kind of operation and number of green threads, the program prints how often the sleeper woke and the longest time
//! between two wake-ups.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenhub::os::unix::net::UnixStream;
use greenhub::sync::Queue;

/// One round of a green thread that never waits.
type Operation = Box<dyn FnMut()>;

type Kind = (&'static str, fn() -> Operation);

fn main() {
    let seconds = std::env::args().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(2.0);
    let kinds: [Kind; 4] =
        [("socket", socket), ("queue", queue), ("yield", || Box::new(greenhub::thread::yield_now)), ("accept", accept)];
    println!("operation  greedy   wake-ups   worst gap");
    for (name, make) in kinds {
        for greedy in [1, 10, 100, 500] {
            // Use a new OS thread for each measurement, and so a new hub.
            let measured = std::thread::spawn(move || measure(make, greedy, Duration::from_secs_f64(seconds)));
            let (wake_ups, gap) = measured.join().expect("no panic");
            println!("{name:<10} {greedy:>6} {wake_ups:>10} {:>8.2} ms", gap.as_secs_f64() * 1e3);
        }
    }
}

fn measure(make: fn() -> Operation, greedy: usize, time: Duration) -> (usize, Duration) {
    let begun = Instant::now();
    let stop = Rc::new(Cell::new(false));
    let all: Vec<_> = (0..greedy)
        .map(|_| {
            let (stop, mut operation) = (stop.clone(), make());
            greenhub::spawn(move || {
                while !stop.get() {
                    operation();
                    let work = Instant::now();
                    while work.elapsed() < Duration::from_micros(50) {}
                }
            })
        })
        .collect();
    let (mut wake_ups, mut worst, mut last) = (0, Duration::ZERO, Instant::now());
    while begun.elapsed() < time {
        greenhub::sleep(Duration::from_millis(1));
        worst = worst.max(last.elapsed());
        last = Instant::now();
        wake_ups += 1;
    }
    stop.set(true);
    all.into_iter().for_each(|one| one.join().expect("no panic"));
    (wake_ups, worst)
}

/// Returns an operation that sends a byte over a pair of sockets and reads it, so that the read need not wait.
fn socket() -> Operation {
    let (mut near, mut far) = UnixStream::pair().expect("a pair");
    Box::new(move || {
        near.write_all(&[7]).expect("there is room");
        far.read_exact(&mut [0]).expect("the byte was sent");
    })
}

fn queue() -> Operation {
    let queue = Queue::new();
    Box::new(move || {
        queue.put(7).expect("there is room");
        queue.get().expect("the item was put");
    })
}

/// Returns an operation that opens a connection before it accepts it, so that the accept need not wait.
fn accept() -> Operation {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("greenhub-gap-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let listener = greenhub::os::unix::net::UnixListener::bind(&path).expect("a listener");
    Box::new(move || {
        let connection = std::os::unix::net::UnixStream::connect(&path).expect("the listener is bound");
        listener.accept().expect("a pending connection");
        drop(connection);
    })
}
