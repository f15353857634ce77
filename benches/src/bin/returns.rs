//! Compares yields between two green threads of one body with yields between green threads of two bodies:
//! `returns [COUNT]`.
//!
//! Prints the nanoseconds of each and their ratio. The processor predicts returns from calls. It does so across a
//! switch only if the switch is inlined into the body, since a return then never pairs with a call of another green
//! thread. `cargo xtask costs` holds the ratio.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use greenhub::thread::yield_now;

fn main() -> ExitCode {
    let count = std::env::args().nth(1).map_or(Ok(100_000), |count| count.parse());
    let Ok(count) = count else {
        eprintln!("usage: returns [COUNT]");
        return ExitCode::from(2);
    };
    let (mut same, mut apart) = (f64::INFINITY, f64::INFINITY);
    // The least of several: others may use the processor meanwhile.
    for _ in 0..30 {
        same = same.min(nanos_each(count, [one, one]));
        apart = apart.min(nanos_each(count, [one, other]));
    }
    println!("one body {same:.2} ns, two bodies {apart:.2} ns, ratio {:.2}", apart / same);
    ExitCode::SUCCESS
}

/// Returns the time of a yield, for two green threads that yield `count` times each.
fn nanos_each(count: u32, bodies: [fn(u32); 2]) -> f64 {
    let start = Instant::now();
    let threads = bodies.map(|body| greenhub::spawn(move || body(count)));
    threads.into_iter().for_each(|thread| thread.join().expect("yields only"));
    start.elapsed().as_secs_f64() * 1e9 / f64::from(2 * count)
}

#[inline(never)]
fn one(count: u32) {
    for number in 0..count {
        yield_now();
        black_box(number);
    }
}

#[inline(never)]
fn other(count: u32) {
    for number in 0..count {
        black_box(number);
        yield_now();
        black_box(number + 1);
    }
}
