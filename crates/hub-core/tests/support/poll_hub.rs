// A complete hub over poll(2), written like a third-party hub. The tests run the core and the conformance suite on it,
// and the first page of the crate's documentation includes it.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use hub_core::hub::{Hub, Interest, Key, Lease, Readiness, Ready, Rearm, Watched, round};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// A hub that keeps no registrations: each wait passes the armed descriptors to poll(2), with their armed directions.
#[derive(Default)]
pub struct PollHub {
    /// The keys of the current call; kept for their capacity.
    keys: Vec<Key>,
    /// The descriptors for `keys`. Empty between calls, so no borrow outlives its call.
    fds: Vec<PollFd<'static>>,
}

impl PollHub {
    /// Creates a hub, without using any resource of the system.
    pub fn new() -> io::Result<PollHub> {
        Ok(PollHub::default())
    }
}

impl Hub for PollHub {
    fn name(&self) -> &'static str {
        "poll"
    }

    fn rearm(&self) -> Rearm {
        Rearm::Explicit
    }

    fn watch(&mut self, _key: Key, _fd: BorrowedFd<'_>, _interest: Interest, _lease: Lease) -> io::Result<()> {
        Ok(())
    }

    fn forget(&mut self, _key: Key, _fd: Option<BorrowedFd<'_>>) {}

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        let mut fds: Vec<PollFd<'_>> = std::mem::take(&mut self.fds);
        self.keys.clear();
        for (key, fd, armed) in watched.iter() {
            self.keys.push(key);
            fds.push(PollFd::from_borrowed_fd(fd, flags(armed)));
        }
        let timeout = timeout.map(round::nanos).map(|(secs, nanos)| Timespec { tv_sec: secs, tv_nsec: nanos.into() });
        let result = poll(&mut fds, timeout.as_ref());
        if result.is_ok() {
            for (&key, fd) in self.keys.iter().zip(&fds) {
                let found = readiness(fd.revents());
                if !found.is_empty() {
                    ready.push(key, found);
                }
            }
        }
        // An empty vector holds no borrow, so its lifetime can be changed. The standard library collects it in place.
        fds.clear();
        self.fds = fds.into_iter().map(|_| unreachable!()).collect();
        match result {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for PollHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PollHub")
    }
}

/// Tells a half close from data. On a system without the flag, only a read finds the end of the data.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const HALF_CLOSE: PollFlags = PollFlags::RDHUP;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const HALF_CLOSE: PollFlags = PollFlags::empty();

fn flags(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN | HALF_CLOSE, interest.contains(Interest::READ));
    flags.set(PollFlags::OUT, interest.contains(Interest::WRITE));
    flags
}

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
