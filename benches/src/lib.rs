//! Shared parts of the benches.
//!
//! There are a clock, pairs of connected sockets, and a ring of descriptors of which few are busy. Ping-pong over the
//! sockets runs in green threads, in tasks, and in plain system calls. Servers of all runtimes run as child processes
//! under a load of this process. [`figures`] prints what a program has measured.
//!
//! Times are processor time, system calls included, unless a bench says otherwise. Other load on the machine affects
//! processor time less than wall-clock time.

pub mod awaiting;
pub mod both;
pub mod children;
pub mod figures;
pub mod green;
pub mod load;
pub mod peers;
pub mod processors;
pub mod raw;
pub mod ring;
pub mod servers;

use std::hint::black_box;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Measures processor time.
#[derive(Copy, Clone, Debug)]
pub struct Stopwatch(Duration);

impl Stopwatch {
    /// Starts a stopwatch.
    #[must_use]
    pub fn start() -> Stopwatch {
        Stopwatch(processor_time())
    }

    /// Returns the processor time of this process since the start.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        processor_time().saturating_sub(self.0)
    }

    /// Returns the processor time between two starts.
    #[must_use]
    pub fn since(self, earlier: Stopwatch) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Returns the time of `count` operations, one after the other.
pub fn timed<R>(count: u64, mut operation: impl FnMut() -> R) -> Duration {
    let watch = Stopwatch::start();
    for _ in 0..count {
        black_box(operation());
    }
    watch.elapsed()
}

/// Returns the number of times that a program repeats each measurement.
///
/// It is the only argument of the program. Without an argument it is nine.
///
/// # Errors
///
/// Returns the exit code of `program` if the argument is no positive number or there are several. The usage was printed
/// to standard error.
pub fn repetitions(program: &str) -> Result<usize, ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let repetitions = match &arguments[..] {
        [] => Some(9),
        [number] => number.parse().ok().filter(|number| *number > 0),
        _ => None,
    };
    repetitions.ok_or_else(|| {
        eprintln!("usage: {program} [REPETITIONS]");
        ExitCode::from(2)
    })
}

/// A name, and a function that performs a number of operations and returns their time.
pub type Contender = (&'static str, fn(u64) -> Duration);

/// Both ends of a connection.
pub type Pair = (OwnedFd, OwnedFd);

/// Creates both ends of `count` Unix streams.
///
/// # Errors
///
/// Returns the error of the system, such as too many open files.
pub fn unix_pairs(count: usize) -> io::Result<Vec<Pair>> {
    raise_descriptor_limit()?;
    (0..count).map(|_| UnixStream::pair().map(|(near, far)| (near.into(), far.into()))).collect()
}

/// Creates a listener with an abstract name, which leaves no file, and returns its address.
///
/// # Errors
///
/// Returns the error of the system.
pub fn unix_listener() -> io::Result<(UnixListener, UnixAddress)> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let address = UnixAddress::from_abstract_name(format!("greenhub-bench-{}-{number}", std::process::id()))?;
    Ok((UnixListener::bind_addr(&address)?, address))
}

/// Creates both ends of `count` TCP connections over the loopback interface, with `TCP_NODELAY`.
///
/// # Errors
///
/// Returns the error of the system, such as too many open files.
pub fn tcp_pairs(count: usize) -> io::Result<Vec<Pair>> {
    raise_descriptor_limit()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let pair = |_| {
        let near = TcpStream::connect(address)?;
        let (far, _) = listener.accept()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        Ok((near.into(), far.into()))
    };
    (0..count).map(pair).collect()
}

/// Returns the time of `wanted` operations if `done` operations took `elapsed`.
#[must_use]
pub fn scaled(elapsed: Duration, done: u64, wanted: u64) -> Duration {
    elapsed.mul_f64(wanted as f64 / done as f64)
}

/// Raises the limit of open files to the hard limit.
///
/// # Errors
///
/// Returns the error of the system.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}
