//! Drives a hub as the main loop does, and owns every descriptor that it lends to it.
//!
//! Ground rules: a [`Driver`] keeps a file open from [`enter`](Driver::enter) until its number is
//! entered anew, forgotten or lost, and each of these first takes the entry out of the table. Only
//! `die` breaks that, in a process of its own.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hub_core::{Hub, Interest, Key, Lease, Notify, Readiness, Ready, Rearm, Watched};
use rustix::io::Errno;

use crate::process::assert_own;

/// How a case gets the hub under test.
pub type Make<'a, H> = &'a dyn Fn() -> io::Result<H>;

/// An open file that cases and drivers share.
pub type File = Arc<OwnedFd>;

/// Longer than anything that happens at once takes on a busy machine, or what [`set_soon`] says.
pub fn soon() -> Duration {
    Duration::from_millis(SOON.load(Ordering::Relaxed))
}

/// What is late from now on in this process: for those who expect a case to fail and do not want to wait for it.
pub fn set_soon(late: Duration) {
    SOON.store(late.as_millis() as u64, Ordering::Relaxed);
}

/// In milliseconds.
static SOON: AtomicU64 = AtomicU64::new(20_000);

/// Long enough to notice a report that should not come.
pub const WHILE: Duration = Duration::from_millis(30);

/// How often a wait may return with nothing for its caller.
const FEW: usize = 4;

/// A hub, and the part of the main loop that it needs.
///
/// ```
/// use hub_core::{Interest, Lease, Readiness};
/// use hub_testkit::fixture::{Driver, pair, send, soon};
///
/// let mut driver = Driver::new(&hub_epoll::EpollHub::new);
/// let (one, other) = pair();
/// let key = driver.add(&one, Interest::READ, Lease::Life);
/// send(&other, b"x");
/// assert!(driver.hear(key, soon()).contains(Readiness::READ));
/// ```
#[derive(Debug)]
pub struct Driver<H: Hub> {
    /// The hub under test.
    pub hub: H,
    watched: Watched,
    ready: Ready,
    /// By number.
    lent: Vec<Option<Lent>>,
}

#[derive(Debug)]
struct Lent {
    file: File,
    lease: Lease,
    /// The directions that the hub is not to speak of before the next `watch`.
    silent: Interest,
}

impl<H: Hub> Driver<H> {
    /// A driver with a new hub.
    ///
    /// # Panics
    ///
    /// If the hub cannot be made.
    pub fn new(make: Make<'_, H>) -> Driver<H> {
        let hub = make().expect("a hub is made");
        Driver { hub, watched: Watched::new(), ready: Ready::new(), lent: Vec::new() }
    }

    /// Gives the number of `file` a new key.
    pub fn enter(&mut self, file: &File) -> Key {
        let number = file.as_raw_fd();
        let key = self.watched.enter(number);
        if number as usize >= self.lent.len() {
            self.lent.resize_with(number as usize + 1, || None);
        }
        self.lent[number as usize] = Some(Lent { file: file.clone(), lease: Lease::Wait, silent: Interest::BOTH });
        key
    }

    /// Lends the file of `key`, arms exactly `interest`, and watches it.
    ///
    /// # Errors
    ///
    /// The hub's.
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

    /// Enters and watches a file that every hub can watch.
    ///
    /// # Panics
    ///
    /// If the hub refuses it.
    pub fn add(&mut self, file: &File, interest: Interest, lease: Lease) -> Key {
        let key = self.enter(file);
        self.watch(key, interest, lease).expect("a socket or pipe is watched");
        key
    }

    /// Waits for `interest` as a green socket does at each park: watches again only where the hub
    /// says that it must.
    ///
    /// # Panics
    ///
    /// If the hub refuses to watch again.
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

    /// Lends the file of `key` for life from its first park on.
    pub fn lend(&mut self, key: Key) {
        if let Some(lent) = &mut self.lent[key.fd() as usize] {
            lent.lease = Lease::Life;
        }
    }

    /// Nobody waits for `interest` any more.
    pub fn disarm(&mut self, key: Key, interest: Interest) {
        self.watched.disarm(key, interest);
    }

    /// Forgets the registration and lets go of the file.
    pub fn forget(&mut self, key: Key) {
        if let Some(lent) = self.lent[key.fd() as usize].take() {
            self.hub.forget(key, Some(lent.file.as_fd()));
            self.watched.enter(key.fd());
        }
    }

    /// Forgets the registration of a number that may be any file's by now.
    pub fn give_up(&mut self, key: Key) {
        self.watched.enter(key.fd());
        self.lent[key.fd() as usize] = None;
        self.hub.forget(key, None);
    }

    /// Lets go of the file without a word to the hub, as happens to what is lent for one wait.
    pub fn lose(&mut self, key: Key) {
        self.watched.enter(key.fd());
        self.lent[key.fd() as usize] = None;
    }

    /// Closes the number of `key` while it is armed, and returns what a dead number looks like, to hubs alone.
    ///
    /// # Panics
    ///
    /// If anybody else holds the file, or the case has no process of its own.
    pub(crate) fn die(&mut self, key: Key) -> BorrowedFd<'static> {
        let lent = self.lent[key.fd() as usize].take().expect("the file was entered");
        drop(Arc::into_inner(lent.file).expect("nobody else holds the file"));
        assert_own();
        // SAFETY: the number is never -1, and since no other thread of this process opens anything, the
        // system answers EBADF for it, whoever asks.
        unsafe { BorrowedFd::borrow_raw(key.fd()) }
    }

    /// One call of `wait`: the reports under current keys. Who is told does not wait any more.
    ///
    /// # Panics
    ///
    /// If the hub fails.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Vec<(Key, Readiness)> {
        self.wait_alone(timeout);
        let mut heard = Vec::new();
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
            heard.push((key, found));
        }
        heard
    }

    /// What the first wait with a report tells within `limit`: a signal may end a wait with nothing.
    pub fn reported(&mut self, limit: Duration) -> Vec<(Key, Readiness)> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let heard = self.wait(Some(left));
            if !heard.is_empty() || left.is_zero() {
                return heard;
            }
        }
    }

    /// The hub's own part of [`wait`](Driver::wait), and nothing else.
    ///
    /// # Panics
    ///
    /// If the hub fails.
    pub fn wait_alone(&mut self, timeout: Option<Duration>) {
        self.ready.clear();
        self.hub.wait(&self.watched, timeout, &mut self.ready).expect("wait succeeds");
    }

    /// How many reports the last wait had, whatever their keys.
    pub fn reports(&self) -> usize {
        self.ready.reports().len()
    }

    /// What is reported of `key` within `limit`: the first report, and none if it is over.
    pub fn hear(&mut self, key: Key, limit: Duration) -> Readiness {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let heard = self.wait(Some(left));
            if let Some(&(_, found)) = heard.iter().find(|(whose, _)| *whose == key) {
                return found;
            }
            if left.is_zero() {
                return Readiness::NONE;
            }
        }
    }

    /// Waits and expects to hear of nothing.
    ///
    /// # Panics
    ///
    /// If anything is reported, or if `wait` keeps returning.
    pub fn expect_silence(&mut self) {
        let end = Instant::now() + WHILE;
        let mut returns = 0;
        while Instant::now() < end {
            let heard = self.wait(Some(end.saturating_duration_since(Instant::now())));
            assert!(heard.is_empty(), "silence expected, but heard of {heard:?}");
            returns += 1;
            assert!(returns <= FEW, "wait returns again and again with nothing");
        }
    }

    /// Lets what nobody waits for be reported, until `wait` has nothing more to say.
    ///
    /// # Panics
    ///
    /// If that takes more than a few waits.
    pub fn settle(&mut self) {
        // A wait that a signal interrupted has nothing to say either, so one is not enough.
        let mut silent = 0;
        for _ in 0..2 * FEW {
            self.wait(Some(Duration::ZERO));
            silent = if self.reports() == 0 { silent + 1 } else { 0 };
            if silent == 2 {
                return;
            }
        }
        panic!("wait reports again and again what nobody waits for");
    }

    /// The wake-up that the main loop would use: the hub's own, or a pipe that it watches.
    pub fn notifier(&mut self) -> Arc<dyn Notify> {
        self.hub.notifier().unwrap_or_else(|| {
            let (reader, writer) = pipe();
            self.add(&reader, Interest::READ, Lease::Life);
            Arc::new(PipeNotifier(writer))
        })
    }

    /// Watches the wake-up again, where it is a descriptor, and empties it.
    pub fn heed(&mut self, heard: &[(Key, Readiness)]) {
        for &(key, _) in heard {
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
        // A full pipe has a notice in it already.
        let _ = rustix::io::write(&*self.0, b"!");
    }
}

/// A pair of connected stream sockets that do not block.
///
/// # Panics
///
/// If the system has none to give; so do all functions here.
pub fn pair() -> (File, File) {
    let (one, other) = UnixStream::pair().expect("a socket pair");
    (file(one.into()), file(other.into()))
}

/// The reading and the writing end of a pipe; neither blocks.
pub fn pipe() -> (File, File) {
    let (reader, writer): (PipeReader, PipeWriter) = io::pipe().expect("a pipe");
    (file(reader.into()), file(writer.into()))
}

fn file(fd: OwnedFd) -> File {
    rustix::io::ioctl_fionbio(&fd, true).expect("a descriptor that does not block");
    Arc::new(fd)
}

/// Puts a copy of `file` under the number `number`, which nobody uses.
pub fn under(number: RawFd, file: &File) -> File {
    let copy = rustix::io::fcntl_dupfd_cloexec(&**file, number).expect("a copy of a descriptor");
    assert_eq!(copy.as_raw_fd(), number, "the number is free");
    Arc::new(copy)
}

/// Sends all of `data`.
pub fn send(file: &File, data: &[u8]) {
    let sent = rustix::io::write(&**file, data).expect("room for a little data");
    assert_eq!(sent, data.len());
}

/// Receives at most `limit` bytes, and says how many.
pub fn receive(file: &File, limit: usize) -> usize {
    rustix::io::read(&**file, &mut vec![0; limit][..]).expect("data or the end")
}

/// Whether there is an end to be read soon: a child that another test starts has copies of all files for a moment.
pub fn ends(file: &File) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < soon() {
        match rustix::io::read(&**file, &mut [0; 1][..]) {
            Ok(count) => return count == 0,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    false
}

/// Reads until there is nothing.
pub fn drain(file: &File) {
    let mut buffer = [0; 65536];
    while matches!(rustix::io::read(&**file, &mut buffer[..]), Ok(1..)) {}
}

/// Writes until there is no room.
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
