//! The resident memory of a parked green thread, task or goroutine: `parked --figures [TEXT]`.
//!
//! Prints the lines of [`benches::figures`] for 10,000, 100,000 and 1,000,000 at a time. Each measurement is a process
//! of its own, in Rust this program as `parked measure RUNTIME COUNT`.

use std::fs;
use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use benches::children;
use benches::figures::{Figures, Unit, skip};
use benches::peers::Peer;
use benches::processors::processors;

const COUNTS: [(usize, &str); 3] = [(10_000, "10,000"), (100_000, "100,000"), (1_000_000, "1,000,000")];

const RUNTIMES: [&str; 4] = ["greenhub", "tokio", "smol", "may"];

/// The memory that a parked coroutine may take at most, with room for the system. A stack starts with a page.
const MOST: u64 = 8 << 10;

/// The time after which a measurement counts as hung.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match (&words[..], Figures::requested(&words)) {
        (&["measure", runtime, count], _) => measure(runtime, count),
        (_, Some(figures)) => print_figures(&figures),
        _ => {
            eprintln!("usage: parked --figures [TEXT], or parked measure RUNTIME COUNT");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print_figures(figures: &Figures) -> io::Result<()> {
    let this = std::env::current_exe()?;
    let mut programs: Vec<(&str, PathBuf, Vec<&str>)> =
        RUNTIMES.map(|runtime| (runtime, this.clone(), vec!["measure", runtime])).into();
    match Peer::GO.build()? {
        Ok(program) => programs.push((Peer::GO.name, program, vec!["parked"])),
        Err(missing) => skip(Peer::GO.name, missing),
    }
    for (count, shown) in COUNTS {
        let group = format!("memory of a parked green thread among {shown}");
        if available_bytes()? < count as u64 * MOST {
            skip(&group, "the memory does not suffice");
            continue;
        }
        for (name, program, words) in &programs {
            if !figures.wants(&group, name) {
                continue;
            }
            let mut command = Command::new(program);
            let output = children::output(command.args(words).arg(count.to_string()), processors(), LIMIT);
            let bytes = output.and_then(|output| output.trim().parse::<f64>().map_err(io::Error::other));
            match bytes {
                Ok(bytes) => figures.print(&group, name, Unit::Bytes, bytes),
                Err(error) if *name == "greenhub" => return Err(error),
                Err(error) => skip(&format!("{group}, {name}"), error),
            }
        }
    }
    Ok(())
}

/// Parks `count` coroutines, prints the resident bytes of each, and ends the process with all of them parked.
fn measure(runtime: &str, count: &str) -> io::Result<()> {
    let count = count.parse().map_err(|_| io::Error::other(format!("not a number: {count}")))?;
    match runtime {
        "greenhub" => greenhub_parked(count),
        "tokio" => tokio_parked(count),
        "smol" => smol_parked(count),
        "may" => may_parked(count),
        _ => Err(io::Error::other(format!("no such runtime: {runtime}"))),
    }
}

/// Prints the difference of the resident memory before and after parking.
fn report(before: u64, count: usize) -> io::Result<()> {
    println!("{}", resident_bytes()?.saturating_sub(before) as f64 / count as f64);
    exit(0);
}

fn greenhub_parked(count: usize) -> io::Result<()> {
    greenhub::thread::yield_now();
    let before = resident_bytes()?;
    for _ in 0..count {
        greenhub::spawn_n(|| greenhub::sleep(Duration::MAX));
    }
    while greenhub::get_hub().stats().ready > 0 {
        greenhub::thread::yield_now();
    }
    report(before, count)
}

fn tokio_parked(count: usize) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        let before = resident_bytes()?;
        for _ in 0..count {
            tokio::spawn(pending::<()>());
        }
        tokio::task::yield_now().await;
        // The runtime runs a limited number of tasks between two polls of this one.
        while tokio::runtime::Handle::current().metrics().global_queue_depth() > 0 {
            tokio::task::yield_now().await;
        }
        report(before, count)
    })
}

fn smol_parked(count: usize) -> io::Result<()> {
    let executor = smol::LocalExecutor::new();
    let before = resident_bytes()?;
    for _ in 0..count {
        executor.spawn(pending::<()>()).detach();
    }
    while executor.try_tick() {}
    report(before, count)
}

fn may_parked(count: usize) -> io::Result<()> {
    let mappings = fs::read_to_string("/proc/sys/vm/max_map_count")?.trim().parse().unwrap_or(usize::MAX);
    // may panics in this case, and the panic finds no memory.
    if 2 * count + 1_000 > mappings {
        return Err(io::Error::other("a stack takes two mappings, more in all than vm.max_map_count"));
    }
    may::config().set_workers(1);
    let before = resident_bytes()?;
    let parked = Arc::new(AtomicUsize::new(0));
    for _ in 0..count {
        let parked = Arc::clone(&parked);
        may::go!(move || {
            parked.fetch_add(1, Ordering::Relaxed);
            loop {
                may::coroutine::park();
            }
        });
    }
    while parked.load(Ordering::Relaxed) < count {
        thread::sleep(Duration::from_millis(1));
    }
    report(before, count)
}

/// Returns the resident memory of this process.
fn resident_bytes() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    Ok(pages.ok_or(io::ErrorKind::InvalidData)? * rustix::param::page_size() as u64)
}

/// Returns the memory that the system can give to a new process.
fn available_bytes() -> io::Result<u64> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kilobytes = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    Ok(kilobytes.and_then(|number| number.parse::<u64>().ok()).ok_or(io::ErrorKind::InvalidData)? * 1024)
}
