//! OS threads, green threads and the pool for what blocks, side by side: SHA-256 sums of files.
//!
//! `cargo run --release --example threads -- FILE…` prints what `sha256sum` prints, in the same order. `--threads` OS
//! threads have a hub each and `--green` green threads on it. All of them take files from one list under one mutex, have
//! them read by a pool of `--jobs` OS threads, and send the sums through one channel to the main thread, which prints
//! them. A semaphore counts the sums that wait there for one before them.

mod cli;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::iter::Enumerate;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::vec;

use clap::Parser;
use greenhub::sync::mpsc::{Receiver, Sender, channel};
use greenhub::sync::{Arc, Mutex, OnceLock, PoisonError, Semaphore};
use greenhub::thread::os;
use greenhub::tpool;
use sha2::{Digest, Sha256};

use crate::cli::Failure;

/// Prints the SHA-256 sums of files as sha256sum does, in the order of the arguments, many files at a time.
///
/// Exit status: 0 if every file was read, 1 if one was not or something went wrong, 2 for wrong use.
#[derive(Parser)]
#[command(name = "threads")]
struct Options {
    /// What to read
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// How many OS threads with a hub there are, up to 100
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    threads: u16,

    /// How many green threads each of them has, up to 10000
    #[arg(long, value_name = "M", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    green: u16,

    /// How many files are read at the same time, each by an OS thread, up to 100 [default: one for each processor]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=100))]
    jobs: Option<u16>,

    /// Tell each second how far it is, and at the end who did how much
    #[arg(long)]
    verbose: bool,

    /// Which hub to use [default: that of EVENTLET_HUB, or the best of this system]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// What all threads share, green or not.
struct Shared {
    /// The files that nobody has taken, with their numbers.
    files: Mutex<Enumerate<vec::IntoIter<PathBuf>>>,
    /// How many more files may be taken before one is printed.
    room: Semaphore,
    /// Set when all hubs are there. No barrier: an OS thread that fails for want of a hub ends without arriving at one.
    begin: OnceLock<()>,
    /// How much was read.
    bytes: AtomicU64,
}

struct Sum {
    number: usize,
    path: PathBuf,
    digest: io::Result<[u8; 32]>,
}

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    cli::use_hub(options.hub.as_deref())?;
    if let Some(jobs) = jobs(&options) {
        tpool::set_num_threads(jobs);
    }
    let (threads, green) = (usize::from(options.threads), usize::from(options.green));
    let count = options.files.len();
    let shared = Arc::new(Shared {
        files: Mutex::new(options.files.into_iter().enumerate()),
        room: Semaphore::new(4 * threads * green),
        begin: OnceLock::new(),
        bytes: AtomicU64::new(0),
    });
    let (sender, sums) = channel();
    let (ready, hubs) = channel::<()>();
    let os_threads = (0..threads).map(|_| {
        let (shared, hub, ready, sender) = (Arc::clone(&shared), options.hub.clone(), ready.clone(), sender.clone());
        os::Builder::new().spawn(move || os_thread(&shared, hub.as_deref(), ready, green, &sender))
    });
    let os_threads = os_threads.collect::<Result<Vec<_>, _>>().map_err(Failure::doing("cannot start a thread"))?;
    // The channels end with the last thread.
    drop((ready, sender));

    // Nothing is sent: it ends when each OS thread has a hub, or has failed.
    hubs.iter().for_each(drop);
    let _ = shared.begin.set(());
    let began = Instant::now();
    let progress = options.verbose.then(|| {
        let shared = Arc::clone(&shared);
        greenhub::spawn(move || tell_progress(&shared, count))
    });
    let failed = print(&shared, sums).map_err(Failure::doing("cannot write"))?;
    if let Some(progress) = progress {
        progress.kill();
    }
    let took = began.elapsed().as_secs_f64();
    for (number, os_thread) in os_threads.into_iter().enumerate() {
        let done = os_thread.join().map_err(|_| Failure::Run(format!("thread {number} panicked")))??;
        if options.verbose {
            eprintln!("thread {number}: {done} files by {green} green threads");
        }
    }
    if options.verbose {
        eprintln!("{count} files, {} bytes in {took:.2} s", shared.bytes.load(Ordering::Relaxed));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn jobs(options: &Options) -> Option<NonZeroUsize> {
    match options.jobs {
        Some(jobs) => NonZeroUsize::new(jobs.into()),
        None => std::thread::available_parallelism().ok(),
    }
}

/// Runs green threads on a hub of its own, and returns how many files they took.
fn os_thread(
    shared: &Arc<Shared>,
    hub: Option<&str>,
    ready: Sender<()>,
    green: usize,
    sums: &Sender<Sum>,
) -> Result<usize, Failure> {
    cli::use_hub(hub)?;
    drop(ready);
    // The first thread would take all of a short list.
    shared.begin.wait();
    let workers: Vec<_> = (0..green)
        .map(|_| {
            let (shared, sums) = (Arc::clone(shared), sums.clone());
            greenhub::spawn(move || work(&shared, &sums))
        })
        .collect();
    let mut done = 0;
    for worker in workers {
        done += worker
            .join()
            .map_err(io::Error::from)
            .and_then(|done| done)
            .map_err(Failure::doing("a green thread failed"))?;
    }
    Ok(done)
}

/// A green thread: takes files until there are none.
fn work(shared: &Arc<Shared>, sums: &Sender<Sum>) -> io::Result<usize> {
    let mut done = 0;
    loop {
        shared.room.acquire()?;
        let next = shared.files.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some((number, path)) = next else {
            // For one who waits for room, to find that too.
            shared.room.release();
            return Ok(done);
        };
        let (name, reader) = (path.clone(), Arc::clone(shared));
        let digest =
            tpool::execute(move || digest(&name, &reader.bytes)).map_err(io::Error::from).and_then(|digest| digest);
        if sums.send(Sum { number, path, digest }).is_err() {
            return Ok(done);
        }
        done += 1;
    }
}

/// Reads a file. Blocks the OS thread.
fn digest(path: &Path, bytes: &AtomicU64) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(count) => {
                hash.update(&piece[..count]);
                bytes.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
}

/// Prints sums in the order of their files until all threads have ended, and returns how many there are not.
fn print(shared: &Shared, sums: Receiver<Sum>) -> io::Result<usize> {
    let (mut early, mut next, mut failed) = (BTreeMap::new(), 0, 0);
    for sum in sums {
        early.insert(sum.number, sum);
        while let Some(sum) = early.remove(&next) {
            match sum.digest {
                Ok(digest) => io::stdout().write_all(&line(&digest, &sum.path))?,
                Err(error) => {
                    failed += 1;
                    eprintln!("threads: {}: {error}", sum.path.display());
                }
            }
            next += 1;
            shared.room.release();
        }
    }
    io::stdout().flush()?;
    Ok(failed)
}

/// The line that sha256sum prints and checks: names with line breaks are marked, and written without them.
fn line(digest: &[u8; 32], path: &Path) -> Vec<u8> {
    let name = path.as_os_str().as_bytes();
    let mut line = if name.iter().any(|byte| b"\\\n\r".contains(byte)) { b"\\".to_vec() } else { Vec::new() };
    line.extend(digest.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
    line.extend(b"  ");
    for &byte in name {
        match byte {
            b'\\' => line.extend(b"\\\\"),
            b'\n' => line.extend(b"\\n"),
            b'\r' => line.extend(b"\\r"),
            byte => line.push(byte),
        }
    }
    line.push(b'\n');
    line
}

/// A line a second on standard error, until it is killed.
fn tell_progress(shared: &Shared, count: usize) {
    loop {
        greenhub::sleep(Duration::from_secs(1));
        let left = shared.files.lock().unwrap_or_else(PoisonError::into_inner).len();
        let bytes = shared.bytes.load(Ordering::Relaxed);
        eprintln!("{} of {count} files begun, {bytes} bytes read", count - left);
    }
}
