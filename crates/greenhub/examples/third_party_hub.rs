//! A complete hub of your own in one file: it waits by poll(2) and counts its calls.
//!
//! `cargo run --example third_party_hub` registers the hub by name and runs a small program on it.
//! `cargo test --example third_party_hub` checks it against the clauses of the contract.
//! In a crate of its own, the hub would depend on `hub-core`, and on `hub-testkit` for its tests.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use greenhub::Interest;
use greenhub::hub::{Hub, HubDescriptor, Key, Lease, Readiness, Ready, Rearm, Watched, round};
use greenhub::os::unix::net::UnixStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Makes the hub available to `use_hub("example.org:counting-poll")` and `GREENHUB_HUB=counting-poll`.
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: "example.org:counting-poll",
    aliases: &["counting-poll"],
    available: || true,
    build: || Ok(Box::new(CountingHub::new()?)),
};

/// The statistics of the hub of an OS thread.
#[derive(Copy, Clone, Debug, Default)]
pub struct Counts {
    /// Calls of poll(2).
    pub waits: u64,
    /// Descriptors passed to poll(2), over all calls.
    pub asked: u64,
    /// Descriptors reported by poll(2), over all calls.
    pub reported: u64,
    /// The duration of all calls.
    pub waited: Duration,
}

thread_local! {
    static COUNTS: Cell<Counts> = Cell::default();
}

/// Returns the statistics of the calling OS thread so far.
pub fn counts() -> Counts {
    COUNTS.get()
}

/// A hub over poll(2). The system keeps no registrations between two calls, so the hub keeps none either.
#[derive(Default)]
pub struct CountingHub {
    /// The argument of poll(2). It is a field to reuse the allocation, because a wait must not allocate. Between calls
    /// it is empty, so it borrows no descriptor.
    fds: Vec<PollFd<'static>>,
}

impl CountingHub {
    /// Creates a hub.
    ///
    /// # Errors
    ///
    /// Returns no error at present: the hub needs no system object.
    pub fn new() -> io::Result<CountingHub> {
        Ok(CountingHub::default())
    }
}

impl Hub for CountingHub {
    fn name(&self) -> &'static str {
        DESCRIPTOR.name
    }

    /// A reported direction leaves the main loop's table, and each call of poll(2) takes the table as it is. So a
    /// direction stays silent after a report until it is watched again.
    fn rearm(&self) -> Rearm {
        Rearm::Explicit
    }

    /// Does nothing: `wait` reads the main loop's table.
    fn watch(&mut self, _key: Key, _fd: BorrowedFd<'_>, _interest: Interest, _lease: Lease) -> io::Result<()> {
        Ok(())
    }

    fn forget(&mut self, _key: Key, _fd: Option<BorrowedFd<'_>>) {}

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        let mut fds: Vec<PollFd<'_>> = mem::take(&mut self.fds);
        for (_key, fd, armed) in watched.iter() {
            fds.push(PollFd::from_borrowed_fd(fd, flags(armed)));
        }
        let timeout = timeout.map(round::nanos).map(|(secs, nanos)| Timespec { tv_sec: secs, tv_nsec: nanos.into() });
        let start = Instant::now();
        let found = poll(&mut fds, timeout.as_ref());
        let counts = counts();
        COUNTS.set(Counts {
            waits: counts.waits + 1,
            asked: counts.asked + fds.len() as u64,
            reported: counts.reported + found.unwrap_or(0) as u64,
            waited: counts.waited + start.elapsed(),
        });
        for fd in fds.iter().filter(|fd| found.is_ok() && !fd.revents().is_empty()) {
            if let Some(key) = watched.key(fd.as_fd().as_raw_fd()) {
                ready.push(key, readiness(fd.revents()));
            }
        }
        fds.clear();
        // Keep the allocation under the lifetime `'static`: std collects an iterator over a `Vec` in place.
        self.fds = fds.into_iter().map(|_| unreachable!("it is empty")).collect();
        match found {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Does nothing: a forked child shares no system object with its parent.
    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for CountingHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountingHub")
    }
}

/// The flag that tells a half close from data. On systems without it a read finds the end.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const HALF_CLOSE: PollFlags = PollFlags::RDHUP;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const HALF_CLOSE: PollFlags = PollFlags::empty();

/// Returns the flags to poll for `interest`.
fn flags(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN | HALF_CLOSE, interest.contains(Interest::READ));
    flags.set(PollFlags::OUT, interest.contains(Interest::WRITE));
    flags
}

/// Returns the readiness that reported `flags` mean.
fn readiness(flags: PollFlags) -> Readiness {
    let meanings = [
        (PollFlags::IN, Readiness::READ),
        (PollFlags::OUT, Readiness::WRITE),
        (HALF_CLOSE, Readiness::READ | Readiness::END),
        (PollFlags::HUP | PollFlags::ERR, Readiness::HANGUP),
        (PollFlags::NVAL, Readiness::GONE),
    ];
    let set = meanings.iter().filter(|(flag, _)| flags.intersects(*flag));
    set.fold(Readiness::NONE, |found, &(_, meaning)| found | meaning)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match &arguments[..] {
        [] => match play_all() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("third_party_hub: {error}");
                ExitCode::FAILURE
            }
        },
        [help] if help == "--help" || help == "-h" => {
            println!("Passes a ball around a ring of green threads, on a hub of its own.\n\nUsage: third_party_hub");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("third_party_hub: no arguments are expected (--help says what it does)");
            ExitCode::from(2)
        }
    }
}

/// Passes a ball around a ring of green threads.
fn play_all() -> Result<(), Box<dyn Error>> {
    const PLAYERS: usize = 50;
    const ROUNDS: usize = 100;

    greenhub::register_hub(DESCRIPTOR)?;
    greenhub::use_hub("counting-poll")?;

    let mut pairs = (0..PLAYERS).map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>()?;
    let (mut first, last) = pairs.remove(0);
    let mut from = last;
    let mut players = Vec::new();
    for (to, next) in pairs {
        players.push(greenhub::spawn(move || play(from, to, ROUNDS)));
        from = next;
    }
    let mut home = from;
    for _ in 0..ROUNDS {
        first.write_all(b"o")?;
        home.read_exact(&mut [0])?;
    }
    for player in players {
        player.join()??;
    }

    let Counts { waits, asked, reported, waited } = counts();
    println!("hub {}: {ROUNDS} rounds of {PLAYERS} players", greenhub::get_hub().name());
    println!("{waits} waits took {waited:?}, asked about {asked} descriptors and reported {reported}");
    Ok(())
}

/// Passes the ball on in each round.
fn play(mut from: UnixStream, mut to: UnixStream, rounds: usize) -> io::Result<()> {
    let mut ball = [0];
    for _ in 0..rounds {
        from.read_exact(&mut ball)?;
        to.write_all(&ball)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::CountingHub;

    hub_testkit::conformance!(CountingHub::new);
}
