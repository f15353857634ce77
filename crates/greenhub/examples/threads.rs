//! OS threads, green threads and the pool for blocking code together: SHA-256 sums of files.
//!
//! `cargo run --release --example threads -- FILE…` prints the same lines as `sha256sum`, in the same order. Each of
//! `--threads` OS threads has a hub and `--green` green threads. All green threads take files from one list under a
//! mutex, let a pool of `--jobs` OS threads read them, and send the sums through one channel to the main OS thread,
//! which prints them. A semaphore bounds the sums that wait for an earlier one.

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
/// Exit status: 0 if every file was read, 1 after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "threads")]
struct Options {
    /// Files to read
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Number of OS threads with a hub, up to 100
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    threads: u16,

    /// Number of green threads on each OS thread, up to 10000
    #[arg(long, value_name = "M", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    green: u16,

    /// Number of files read at the same time, each by an OS thread, up to 100 [default: one per processor]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=100))]
    jobs: Option<u16>,

    /// Print the progress every second, and the files per OS thread at the end
    #[arg(long)]
    verbose: bool,

    /// Hub to use [default: the one in GREENHUB_HUB, or the best available]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// The state that all OS threads share.
struct Shared {
    /// The remaining files, with their numbers.
    files: Mutex<Enumerate<vec::IntoIter<PathBuf>>>,
    /// One permit for each file that may be taken before another sum is printed.
    room: Semaphore,
    /// Set when all hubs are built. A barrier would not do: an OS thread that fails to build its hub never reaches it.
    begin: OnceLock<()>,
    /// The number of bytes read.
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
    let os_threads = os_threads.collect::<Result<Vec<_>, _>>().map_err(Failure::doing("cannot start an OS thread"))?;
    // Drop the senders of this OS thread, so that the channels end with the last other one.
    drop((ready, sender));

    // Nothing is sent. The channel ends when each OS thread has dropped its sender: it has a hub, or has failed.
    hubs.iter().for_each(drop);
    let _ = shared.begin.set(());
    let began = Instant::now();
    let progress = options.verbose.then(|| {
        let shared = Arc::clone(&shared);
        greenhub::spawn(move || print_progress(&shared, count))
    });
    let failed = print(&shared, sums).map_err(Failure::doing("cannot write"))?;
    if let Some(progress) = progress {
        progress.kill();
    }
    let took = began.elapsed().as_secs_f64();
    for (number, os_thread) in os_threads.into_iter().enumerate() {
        let done = os_thread.join().map_err(|_| Failure::Run(format!("OS thread {number} panicked")))??;
        if options.verbose {
            eprintln!("OS thread {number}: {done} files by {green} green threads");
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

/// Runs the green threads of an OS thread on a hub of its own, and returns the number of files that they took.
fn os_thread(
    shared: &Arc<Shared>,
    hub: Option<&str>,
    ready: Sender<()>,
    green: usize,
    sums: &Sender<Sum>,
) -> Result<usize, Failure> {
    cli::use_hub(hub)?;
    drop(ready);
    // Wait for all hubs. Otherwise the first OS thread would take a short list alone.
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

/// Takes files until the list is empty, and returns their number. The body of a green thread.
fn work(shared: &Arc<Shared>, sums: &Sender<Sum>) -> io::Result<usize> {
    let mut done = 0;
    loop {
        shared.room.acquire()?;
        let next = shared.files.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some((number, path)) = next else {
            // Return the permit to another waiter, which finds the empty list as well.
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

/// Returns the SHA-256 sum of a file. Blocks the OS thread.
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

/// Prints the sums in the order of the files until all OS threads have ended, and returns the number of failed files.
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

/// Returns a line in the format of sha256sum: a name with line breaks or backslashes is escaped, and the line marked.
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

/// Prints a line per second to standard error. The caller ends this by a kill.
fn print_progress(shared: &Shared, count: usize) {
    loop {
        greenhub::sleep(Duration::from_secs(1));
        let left = shared.files.lock().unwrap_or_else(PoisonError::into_inner).len();
        let bytes = shared.bytes.load(Ordering::Relaxed);
        eprintln!("{} of {count} files begun, {bytes} bytes read", count - left);
    }
}
