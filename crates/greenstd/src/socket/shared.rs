//! Accepting on a socket that other processes have too and that blocks, as after a clone went to a child.
//!
//! No call accepts without waiting on a blocking socket, and the mode belongs to the child as well, which expects it. So
//! an OS thread accepts, when poll(2) has said that there is a connection. If another process is faster, that thread waits
//! for the next connection. The green thread can leave nevertheless; the next caller then gets the connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hub_core::{Interest, PiecewiseWait, Source, ThreadPool};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::birth;
use crate::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};

/// Of its own, because each job may wait for ever.
static ACCEPTS: ThreadPool = ThreadPool::named("greenhub-accept", 64);

/// How long a green thread waits before it looks whether the socket was closed, or an abandoned attempt has succeeded.
const LOOK: Duration = Duration::from_millis(50);

pub(super) type Accepted = (OwnedFd, Option<SocketAddrAny>);
type Attempt = Receiver<io::Result<Accepted>>;

/// Attempts whose callers were killed or timed out; shared by the clones of a socket.
#[derive(Default)]
pub(super) struct Abandoned(Mutex<Vec<Attempt>>);

impl Abandoned {
    fn lock(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that was accepted for a caller that has left.
    fn take(&self) -> Option<Accepted> {
        let mut accepted = None;
        self.lock().retain(|attempt| {
            if accepted.is_some() {
                return true;
            }
            match attempt.try_recv() {
                Ok(Ok(connection)) => accepted = Some(connection),
                Err(TryRecvError::Empty) => return true,
                // The error was not this caller's.
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => {}
            }
            false
        });
        accepted
    }
}

/// An attempt that its caller waits for.
struct Waiting<'a> {
    attempt: Option<Attempt>,
    abandoned: &'a Abandoned,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.abandoned.lock().push(attempt);
        }
    }
}

/// Whether the open file description blocks.
pub(super) fn blocks(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(!rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

/// Accepts a connection, by an OS thread, if `admit` gives something for it, which is asked for before each attempt; `None`
/// if it does not. A timeout is an error of the kind `TimedOut`; `nonblocking` callers do not wait for a connection.
/// Switches.
pub(super) fn accept<T>(
    source: &Source,
    abandoned: &Abandoned,
    timeout: Option<Duration>,
    nonblocking: bool,
    mut admit: impl FnMut() -> Option<T>,
) -> io::Result<Option<(Accepted, T)>> {
    let (pieces, begun) = (PiecewiseWait::begin(), Instant::now());
    let left = || timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
    loop {
        let Some(ticket) = admit() else { return Ok(None) };
        let accepted = match abandoned.take() {
            Some(accepted) => Ok(accepted),
            None => source.with(has_connection).and_then(|()| attempt(source, abandoned, &pieces, left())),
        };
        match accepted {
            Ok(accepted) => return Ok(Some((accepted, ticket))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !nonblocking => {
                drop(ticket);
                wait(source, abandoned, &pieces, left())?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Has an OS thread accept, and waits for it.
fn attempt(
    source: &Source,
    abandoned: &Abandoned,
    pieces: &PiecewiseWait,
    timeout: Option<Duration>,
) -> io::Result<Accepted> {
    let begun = Instant::now();
    let socket = source.with(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?))?;
    let (done, attempt) = channel();
    ACCEPTS.start(move || {
        let accepted = has_connection(socket.as_fd()).and_then(|()| birth::accept(socket.as_fd()));
        // Before the caller hears of it, which may bind the address of a listener that it has closed.
        drop(socket);
        drop(done.send(accepted));
    })?;
    let mut waiting = Waiting { attempt: Some(attempt), abandoned };
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        let look = left.map_or(LOOK, |left| left.min(LOOK));
        let Some(attempt) = &waiting.attempt else { return Err(Errno::WOULDBLOCK.into()) };
        match attempt.recv_timeout(look) {
            Ok(accepted) => {
                waiting.attempt = None;
                return accepted;
            }
            Err(RecvTimeoutError::Disconnected) => waiting.attempt = None,
            Err(RecvTimeoutError::Timeout) if left.is_some_and(|left| left <= look) || pieces.is_over() => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // An error if the socket was closed meanwhile.
            Err(RecvTimeoutError::Timeout) => source.with(|_| Ok(()))?,
        }
    }
}

/// Waits until the hub reports a connection, or an abandoned attempt may have one.
fn wait(source: &Source, abandoned: &Abandoned, pieces: &PiecewiseWait, timeout: Option<Duration>) -> io::Result<()> {
    let looks = !abandoned.lock().is_empty() && timeout.is_none_or(|timeout| timeout > LOOK);
    match source.wait(Interest::READ, if looks { Some(LOOK) } else { timeout }) {
        Err(error) if looks && error.kind() == io::ErrorKind::TimedOut => pieces.check(),
        waited => waited,
    }
}

/// "Would block", unless there is a connection to accept.
fn has_connection(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut asked = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match rustix::event::poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Err(Errno::WOULDBLOCK.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> (Source, std::net::SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        (Source::from_nonblocking(listener.into()), address)
    }

    #[test]
    fn a_connection_of_a_caller_that_has_left_goes_to_the_next() {
        let ((source, _), (other, address)) = (listener(), listener());
        let abandoned = Abandoned::default();
        let (done, attempt) = channel();
        drop(Waiting { attempt: Some(attempt), abandoned: &abandoned });
        assert!(abandoned.take().is_none());
        let nothing = accept(&source, &abandoned, None, true, || Some(())).expect_err("no connection");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let client = std::net::TcpStream::connect(address).expect("a listener");
        let connection = other.with(birth::accept).expect("a connection");
        assert!(done.send(Ok(connection)).is_ok());
        // The caller is not admitted, and leaves it where it is.
        assert!(accept(&source, &abandoned, None, true, || None::<()>).expect("no error").is_none());
        let accepted = accept(&source, &abandoned, None, true, || Some(7)).expect("an attempt");
        let ((socket, _), ticket) = accepted.expect("admitted");
        let peer = std::net::TcpStream::from(socket).peer_addr().expect("connected");
        assert_eq!((peer, ticket), (client.local_addr().expect("connected"), 7));
        assert!(abandoned.lock().is_empty());
    }

    #[allow(unreachable_pub)]
    mod doctest {
        include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
    }

    /// Accepts on a listener without connections while another attempt is under way.
    struct Accepts(std::sync::mpsc::Sender<io::ErrorKind>);

    impl Drop for Accepts {
        fn drop(&mut self) {
            let ((source, _), abandoned) = (listener(), Abandoned::default());
            let (_done, attempt) = channel();
            drop(Waiting { attempt: Some(attempt), abandoned: &abandoned });
            let error = accept(&source, &abandoned, None, false, || Some(())).expect_err("no connection");
            _ = self.0.send(error.kind());
        }
    }

    #[test]
    fn accept_while_panicking_ends_when_the_grace_is_used_up() {
        let (tell, told) = std::sync::mpsc::channel();
        let panics = std::thread::spawn(move || {
            doctest::run(|| {
                let _accepts = Accepts(tell);
                std::panic::resume_unwind(Box::new(()));
            });
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(io::ErrorKind::TimedOut));
        assert!(panics.join().is_err());
    }

    #[test]
    fn an_error_of_a_caller_that_has_left_is_dropped() {
        let abandoned = Abandoned::default();
        let (done, attempt) = channel();
        let (gone, lost) = channel();
        for attempt in [attempt, lost] {
            drop(Waiting { attempt: Some(attempt), abandoned: &abandoned });
        }
        assert!(done.send(Err(Errno::CONNABORTED.into())).is_ok());
        drop(gone);
        assert!(abandoned.take().is_none() && abandoned.lock().is_empty());
    }
}
