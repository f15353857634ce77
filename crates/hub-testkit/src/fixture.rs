//! A driver that calls a hub as the main loop does, and owns every descriptor that it lends to the hub.
//!
//! Ground rules: a [`Driver`] keeps a file open from [`enter`](Driver::enter) until its number is entered anew,
//! forgotten or released. Each of these first removes the entry from the table. Only `close_while_armed` breaks this
//! rule, in a process of its own.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hub_core::hub::{Hub, Interest, Key, Lease, Notify, Readiness, Ready, Rearm, Watched};
use rustix::io::Errno;

use crate::process::assert_own;

/// The constructor of the hub under test.
pub type Make<'a, H> = &'a dyn Fn() -> io::Result<H>;

/// An open file that cases and drivers share.
pub type File = Arc<OwnedFd>;

/// Returns the time limit for an expected event, even on a busy machine.
///
/// The value is 20 seconds, unless [`set_time_limit`] has changed it.
pub fn time_limit() -> Duration {
    Duration::from_millis(TIME_LIMIT.load(Ordering::Relaxed))
}

/// Sets the value of [`time_limit`] in this process.
///
/// It is for tests that expect a case to fail and should not wait for long.
pub fn set_time_limit(late: Duration) {
    TIME_LIMIT.store(late.as_millis() as u64, Ordering::Relaxed);
}

/// The value of [`time_limit`] in milliseconds.
static TIME_LIMIT: AtomicU64 = AtomicU64::new(20_000);

/// The time to wait for a report that must not come.
pub const NO_REPORT_TIME: Duration = Duration::from_millis(30);

/// The number of waits that may return without a report for their caller.
const FEW: usize = 4;

/// A hub, and the part of the main loop that it needs.
///
/// ```
/// use hub_core::hub::{Interest, Lease, Readiness};
/// use hub_testkit::fixture::{Driver, pair, send, time_limit};
///
/// let mut driver = Driver::new(&hub_epoll::EpollHub::new);
/// let (one, other) = pair();
/// let key = driver.add(&one, Interest::READ, Lease::Life);
/// send(&other, b"x");
/// assert!(driver.wait_for(key, time_limit()).contains(Readiness::READ));
/// ```
#[derive(Debug)]
pub struct Driver<H: Hub> {
    /// The hub under test.
    pub hub: H,
    watched: Watched,
    ready: Ready,
    /// Indexed by number.
    lent: Vec<Option<Lent>>,
}

#[derive(Debug)]
struct Lent {
    file: File,
    lease: Lease,
    /// The directions that the hub must not report before the next `watch`.
    silent: Interest,
}

impl<H: Hub> Driver<H> {
    /// Creates a driver with a new hub.
    ///
    /// # Panics
    ///
    /// Panics if the hub cannot be created.
    #[track_caller]
    pub fn new(make: Make<'_, H>) -> Driver<H> {
        let hub = make().expect("the hub can be created");
        Driver { hub, watched: Watched::new(), ready: Ready::new(), lent: Vec::new() }
    }

    /// Enters `file` into the table and returns a new key for its number.
    pub fn enter(&mut self, file: &File) -> Key {
        let number = file.as_raw_fd();
        let key = self.watched.enter(number);
        if number as usize >= self.lent.len() {
            self.lent.resize_with(number as usize + 1, || None);
        }
        self.lent[number as usize] = Some(Lent { file: file.clone(), lease: Lease::Wait, silent: Interest::BOTH });
        key
    }

    /// Watches the file of `key` under `lease`, and arms exactly `interest`.
    ///
    /// # Errors
    ///
    /// Returns the error of the hub.
    pub fn watch(&mut self, key: Key, interest: Interest, lease: Lease) -> io::Result<()> {
        let lent = self.lent[key.fd() as usize].as_mut().expect("the file was entered");
        lent.lease = lease;
        lent.silent = Interest::BOTH.without(interest);
        let result = self.hub.watch(key, lent.file.as_fd(), interest, lease);
        self.watched.disarm(key, Interest::BOTH);
        if result.is_ok() {
            // SAFETY: `lent` keeps the file open until the number is entered anew.
            unsafe {
                self.watched.arm(key, interest);
                if lease == Lease::Life {
                    self.watched.lend(key);
                }
            }
        }
        result
    }

    /// Enters and watches a file that every hub must accept.
    ///
    /// # Panics
    ///
    /// Panics if the hub refuses the file.
    #[track_caller]
    pub fn add(&mut self, file: &File, interest: Interest, lease: Lease) -> Key {
        let key = self.enter(file);
        self.watch(key, interest, lease).expect("a socket or pipe is watched");
        key
    }

    /// Arms `interest` as a green socket does at each park.
    ///
    /// Watches the file again only if [`Hub::rearm`] requires it.
    ///
    /// # Panics
    ///
    /// Panics if the hub refuses to watch again.
    #[track_caller]
    pub fn park(&mut self, key: Key, interest: Interest) {
        let lent = self.lent[key.fd() as usize].as_ref().expect("the file was entered");
        let (lease, silent) = (lent.lease, lent.silent);
        let lasts = lease == Lease::Life && self.hub.rearm() != Rearm::Explicit;
        if lasts && !silent.intersects(interest) {
            // SAFETY: `lent` keeps the file open until the number is entered anew.
            unsafe { self.watched.arm(key, interest) };
            return;
        }
        let armed = self.watched.armed(key) | interest;
        let kept = if lasts { Interest::BOTH.without(silent) } else { Interest::NONE };
        self.watch(key, armed | kept, lease).expect("a descriptor is watched again");
        self.watched.disarm(key, Interest::BOTH.without(armed));
    }

    /// Makes the first [`park`](Driver::park) lend the file of `key` for life.
    pub fn lend(&mut self, key: Key) {
        if let Some(lent) = &mut self.lent[key.fd() as usize] {
            lent.lease = Lease::Life;
        }
    }

    /// Disarms `interest`: its waiter has left.
    pub fn disarm(&mut self, key: Key, interest: Interest) {
        self.watched.disarm(key, interest);
    }

    /// Forgets the registration and releases the file.
    pub fn forget(&mut self, key: Key) {
        if let Some(lent) = self.lent[key.fd() as usize].take() {
            self.hub.forget(key, Some(lent.file.as_fd()));
            self.watched.enter(key.fd());
        }
    }

    /// Forgets the registration of a number that may belong to another file by now.
    pub fn forget_number(&mut self, key: Key) {
        self.watched.enter(key.fd());
        self.lent[key.fd() as usize] = None;
        self.hub.forget(key, None);
    }

    /// Releases the file without a call to the hub.
    ///
    /// That is allowed for a file that was lent for one wait.
    pub fn release(&mut self, key: Key) {
        self.watched.enter(key.fd());
        self.lent[key.fd() as usize] = None;
    }

    /// Closes the number of `key` while it is armed, and returns the dead descriptor, for calls of the hub only.
    ///
    /// # Panics
    ///
    /// Panics if the file has another owner, or if the case has no process of its own.
    pub(crate) fn close_while_armed(&mut self, key: Key) -> BorrowedFd<'static> {
        let lent = self.lent[key.fd() as usize].take().expect("the file was entered");
        drop(Arc::into_inner(lent.file).expect("the driver is the only owner of the file"));
        assert_own();
        // SAFETY: the number is not -1. No other OS thread of this process opens descriptors, so the number stays
        // closed, and every system call with it fails with EBADF.
        unsafe { BorrowedFd::borrow_raw(key.fd()) }
    }

    /// Calls `wait` once, and returns the reports under current keys.
    ///
    /// Disarms the reported directions.
    ///
    /// # Panics
    ///
    /// Panics if the hub fails.
    #[track_caller]
    pub fn wait(&mut self, timeout: Option<Duration>) -> Vec<(Key, Readiness)> {
        self.wait_alone(timeout);
        let mut reports = Vec::new();
        for &(key, found) in self.ready.reports() {
            if !self.watched.is_current(key) {
                continue;
            }
            let unarmed = found.directions().without(self.watched.armed(key));
            if let Some(lent) = &mut self.lent[key.fd() as usize]
                && self.hub.rearm() == Rearm::Level
            {
                lent.silent |= unarmed;
            }
            self.watched.disarm(key, found.directions());
            reports.push((key, found));
        }
        reports
    }

    /// Waits until there is a report or `limit` is over, and returns the reports.
    ///
    /// One wait is not enough, because a signal may end it without a report.
    pub fn reported(&mut self, limit: Duration) -> Vec<(Key, Readiness)> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let reports = self.wait(Some(left));
            if !reports.is_empty() || left.is_zero() {
                return reports;
            }
        }
    }

    /// Calls `wait` of the hub, without the bookkeeping of [`wait`](Driver::wait).
    ///
    /// # Panics
    ///
    /// Panics if the hub fails.
    #[track_caller]
    pub fn wait_alone(&mut self, timeout: Option<Duration>) {
        self.ready.clear();
        self.hub.wait(&self.watched, timeout, &mut self.ready).expect("wait succeeds");
    }

    /// Returns the number of reports of the last wait, stale keys included.
    pub fn reports(&self) -> usize {
        self.ready.reports().len()
    }

    /// Returns the first report about `key`, or [`Readiness::NONE`] after `limit`.
    pub fn wait_for(&mut self, key: Key, limit: Duration) -> Readiness {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let reports = self.wait(Some(left));
            if let Some(&(_, found)) = reports.iter().find(|(reported, _)| *reported == key) {
                return found;
            }
            if left.is_zero() {
                return Readiness::NONE;
            }
        }
    }

    /// Waits for the time [`NO_REPORT_TIME`] and expects no report.
    ///
    /// # Panics
    ///
    /// Panics if there is a report under a current key, or if `wait` returns again and again.
    #[track_caller]
    pub fn expect_no_report(&mut self) {
        let end = Instant::now() + NO_REPORT_TIME;
        let mut returns = 0;
        while Instant::now() < end {
            let reports = self.wait(Some(end.saturating_duration_since(Instant::now())));
            assert!(reports.is_empty(), "no report expected, but got {reports:?}");
            returns += 1;
            assert!(returns <= FEW, "wait returns again and again without a report");
        }
    }

    /// Waits with a timeout of zero until the hub has no more reports.
    ///
    /// Such reports may concern directions without a waiter.
    ///
    /// # Panics
    ///
    /// Panics if that takes more than a few waits.
    #[track_caller]
    pub fn drain_reports(&mut self) {
        // One wait without a report is not enough: a signal may have interrupted it.
        let mut silent = 0;
        for _ in 0..2 * FEW {
            self.wait(Some(Duration::ZERO));
            silent = if self.reports() == 0 { silent + 1 } else { 0 };
            if silent == 2 {
                return;
            }
        }
        panic!("wait reports directions without a waiter again and again");
    }

    /// Returns the notifier that the main loop would use.
    ///
    /// It is the hub's own, or a pipe that the hub watches.
    pub fn notifier(&mut self) -> Arc<dyn Notify> {
        self.hub.notifier().unwrap_or_else(|| {
            let (reader, writer) = pipe();
            self.add(&reader, Interest::READ, Lease::Life);
            Arc::new(PipeNotifier(writer))
        })
    }

    /// Empties the pipe of a notifier after its reports, and parks on it again.
    pub fn acknowledge(&mut self, reports: &[(Key, Readiness)]) {
        for &(key, _) in reports {
            if let Some(lent) = &self.lent[key.fd() as usize] {
                drain(&lent.file.clone());
            }
            self.park(key, Interest::READ);
        }
    }
}

struct PipeNotifier(File);

impl Notify for PipeNotifier {
    fn notify(&self) {
        // A full pipe holds a notice already.
        let _ = rustix::io::write(&*self.0, b"!");
    }
}

/// Creates a pair of connected, nonblocking stream sockets.
///
/// # Panics
///
/// Panics if a system call fails, as all functions below do.
#[track_caller]
pub fn pair() -> (File, File) {
    let (one, other) = UnixStream::pair().expect("a socket pair");
    (file(one.into()), file(other.into()))
}

/// Creates the reading and the writing end of a nonblocking pipe.
pub fn pipe() -> (File, File) {
    let (reader, writer): (PipeReader, PipeWriter) = io::pipe().expect("a pipe");
    (file(reader.into()), file(writer.into()))
}

fn file(fd: OwnedFd) -> File {
    rustix::io::ioctl_fionbio(&fd, true).expect("a descriptor that does not block");
    Arc::new(fd)
}

/// Duplicates `file` to the number `number`, which must be free.
pub fn under(number: RawFd, file: &File) -> File {
    let copy = rustix::io::fcntl_dupfd_cloexec(&**file, number).expect("a copy of a descriptor");
    assert_eq!(copy.as_raw_fd(), number, "the number is in use");
    Arc::new(copy)
}

/// Sends all of `data`.
pub fn send(file: &File, data: &[u8]) {
    let sent = rustix::io::write(&**file, data).expect("room for a little data");
    assert_eq!(sent, data.len());
}

/// Receives at most `limit` bytes and returns their number.
pub fn receive(file: &File, limit: usize) -> usize {
    rustix::io::read(&**file, &mut vec![0; limit][..]).expect("the read succeeds")
}

/// Returns whether the end of the stream arrives within [`time_limit`].
///
/// It may be delayed: a process that another test starts holds copies of all files for a moment.
pub fn reaches_end(file: &File) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < time_limit() {
        match rustix::io::read(&**file, &mut [0; 1][..]) {
            Ok(count) => return count == 0,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    false
}

/// Reads until the file is empty.
pub fn drain(file: &File) {
    let mut buffer = [0; 65536];
    while matches!(rustix::io::read(&**file, &mut buffer[..]), Ok(1..)) {}
}

/// Writes until the file is full.
pub fn fill(file: &File) {
    let mut size = 65536;
    while size > 0 {
        match rustix::io::write(&**file, &vec![0; size]) {
            Ok(_) => {}
            Err(Errno::AGAIN) => size /= 2,
            Err(errno) => panic!("filling a buffer: {errno}"),
        }
    }
}
