//! A million green threads, parked at the same time, each on a stack of its own with a guard.
//!
//! `cargo run --release --example million -- [COUNT]` prints the time, the resident memory per green thread and the
//! number of memory mappings of the process. Then it wakes all green threads and joins each of them.

mod cli;

use std::cell::Cell;
use std::fs;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn};

use crate::cli::Failure;

/// Parks many green threads at the same time, and prints their costs.
///
/// Exit status: 0 if all were parked and woken, 1 after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "million")]
struct Options {
    /// Number of green threads
    #[arg(value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

fn main() -> ExitCode {
    cli::main(|options: Options| {
        run(options.count as usize).map_err(Failure::doing("cannot run the green threads"))?;
        Ok(ExitCode::SUCCESS)
    })
}

fn run(count: usize) -> io::Result<()> {
    let parked = Rc::new(Cell::new(0));
    // Every other green thread waits for the end of the gate.
    let gate = Rc::new(spawn(|| sleep(Duration::MAX)));
    let mut threads = Vec::with_capacity(count);
    let resident_before = resident_bytes()?;

    let start = Instant::now();
    for number in 0..count {
        let (parked, gate) = (Rc::clone(&parked), Rc::clone(&gate));
        threads.push(spawn(move || {
            parked.set(parked.get() + 1);
            // The gate ends by a kill, which `wait` returns as an error.
            assert!(gate.wait().is_err_and(|error| error.is_kill()));
            number
        }));
    }
    while get_hub().stats().ready > 0 {
        yield_now();
    }
    let time = start.elapsed();
    let resident = resident_bytes()?.saturating_sub(resident_before);
    let stats = get_hub().stats();
    println!("parked                      {:>12}", parked.get());
    println!("stacks in use               {:>12}", stats.stacks_in_use);
    println!("time                        {:>12.2} s", time.as_secs_f64());
    println!("resident per green thread   {:>12} bytes", resident / count as u64);
    println!("memory mappings             {:>12}", mappings()?);

    let start = Instant::now();
    gate.kill();
    for (number, thread) in threads.into_iter().enumerate() {
        if thread.join().map_err(io::Error::from)? != number {
            return Err(io::Error::other(format!("green thread {number} returned a wrong number")));
        }
    }
    println!("woken and joined            {:>12.2} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Returns the resident memory of this process, in bytes.
fn resident_bytes() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    Ok(pages.ok_or(io::ErrorKind::InvalidData)? * rustix::param::page_size() as u64)
}

/// Returns the number of memory mappings of this process.
fn mappings() -> io::Result<usize> {
    Ok(fs::read_to_string("/proc/self/maps")?.lines().count())
}
