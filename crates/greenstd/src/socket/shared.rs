//! Accepting on a blocking socket that other processes share, as after a clone went to a child.
//!
//! No call accepts on a blocking socket without waiting, and the child, which shares the mode, expects it to block. So
//! an OS thread accepts after poll(2) has reported a connection. If another process takes that connection first, the OS
//! thread waits for the next one. The green thread can leave the wait nevertheless; the next caller then gets the
//! connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hub_core::Source;
use hub_core::ThreadPool;
use hub_core::hub::Interest;
use hub_core::internal::PiecewiseWait;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::create;
use crate::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};

/// A pool of its own, because each job may wait forever.
static ACCEPTS: ThreadPool = ThreadPool::named("greenhub-accept", 64);

/// The interval at which a waiting green thread checks for a closed socket, for abandoned attempts that have succeeded,
/// and, on a non-blocking socket, for a connection that another process has taken.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

pub(super) type AcceptedSocket = (OwnedFd, Option<SocketAddrAny>);
type Attempt = Receiver<io::Result<AcceptedSocket>>;

/// Attempts whose callers have left the wait, by an exit, a deadline or an error; shared by the clones of a socket.
#[derive(Default)]
pub(super) struct Abandoned(Mutex<Vec<Attempt>>);

impl Abandoned {
    fn lock(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection that was accepted for a caller that has left.
    fn take(&self) -> Option<AcceptedSocket> {
        let mut accepted = None;
        self.lock().retain(|attempt| {
            if accepted.is_some() {
                return true;
            }
            match attempt.try_recv() {
                Ok(Ok(connection)) => accepted = Some(connection),
                Err(TryRecvError::Empty) => return true,
                // The error belonged to the caller that has left. An attempt without a sender has no result any more.
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => {}
            }
            false
        });
        accepted
    }
}

/// An attempt that its caller waits for. `Drop` abandons it.
struct PendingAttempt<'a> {
    attempt: Option<Attempt>,
    abandoned: &'a Abandoned,
}

impl Drop for PendingAttempt<'_> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.abandoned.lock().push(attempt);
        }
    }
}

/// Returns true if the open file description blocks.
pub(super) fn blocks(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(!rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

/// Accepts a connection on an OS thread, if `admit` returns a ticket. Switches.
///
/// `admit` is called before each attempt. Returns `None` if it returns none. A timeout is an error of the kind
/// `TimedOut`. A `nonblocking` caller waits only for an OS thread that has a connection to accept.
pub(super) fn accept<T>(
    source: &Source,
    abandoned: &Abandoned,
    timeout: Option<Duration>,
    nonblocking: bool,
    mut admit: impl FnMut() -> Option<T>,
) -> io::Result<Option<(AcceptedSocket, T)>> {
    let (pieces, begun) = (PiecewiseWait::begin(), Instant::now());
    let left = || timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
    loop {
        let Some(ticket) = admit() else { return Ok(None) };
        let accepted = match abandoned.take() {
            Some(accepted) => Ok(accepted),
            None => source.with(has_connection).and_then(|()| attempt(source, abandoned, &pieces, left(), nonblocking)),
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

/// Starts an attempt on an OS thread and waits for it.
fn attempt(
    source: &Source,
    abandoned: &Abandoned,
    pieces: &PiecewiseWait,
    timeout: Option<Duration>,
    nonblocking: bool,
) -> io::Result<AcceptedSocket> {
    let socket = source.with(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?))?;
    let (done, attempt) = channel();
    ACCEPTS.start(move || {
        let accepted = has_connection(socket.as_fd()).and_then(|()| create::accept(socket.as_fd()));
        // Closed before the caller is notified: the caller may bind the address of a listener that it has closed.
        drop(socket);
        drop(done.send(accepted));
    })?;
    let pending = PendingAttempt { attempt: Some(attempt), abandoned };
    wait_for_attempt(source, pending, pieces, timeout, nonblocking)
}

/// Waits for the result of an attempt.
///
/// If another process has taken the connection, a `nonblocking` caller leaves the attempt and gets `WouldBlock`.
fn wait_for_attempt(
    source: &Source,
    mut pending: PendingAttempt<'_>,
    pieces: &PiecewiseWait,
    timeout: Option<Duration>,
    nonblocking: bool,
) -> io::Result<AcceptedSocket> {
    let begun = Instant::now();
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        let interval = left.map_or(CHECK_INTERVAL, |left| left.min(CHECK_INTERVAL));
        let Some(attempt) = &pending.attempt else { return Err(Errno::WOULDBLOCK.into()) };
        match attempt.recv_timeout(interval) {
            Ok(accepted) => {
                pending.attempt = None;
                return accepted;
            }
            Err(RecvTimeoutError::Disconnected) => pending.attempt = None,
            Err(RecvTimeoutError::Timeout) if left.is_some_and(|left| left <= interval) || pieces.is_over() => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // Returns the error of a closed socket, and `WouldBlock` after another process has taken the connection.
            Err(RecvTimeoutError::Timeout) if nonblocking => source.with(has_connection)?,
            Err(RecvTimeoutError::Timeout) => source.with(|_| Ok(()))?,
        }
    }
}

/// Waits until the hub reports a connection, or an abandoned attempt may have one.
fn wait(source: &Source, abandoned: &Abandoned, pieces: &PiecewiseWait, timeout: Option<Duration>) -> io::Result<()> {
    let checks = !abandoned.lock().is_empty() && timeout.is_none_or(|timeout| timeout > CHECK_INTERVAL);
    match source.wait(Interest::READ, if checks { Some(CHECK_INTERVAL) } else { timeout }) {
        Err(error) if checks && error.kind() == io::ErrorKind::TimedOut => pieces.check(),
        waited => waited,
    }
}

/// Returns `WouldBlock` unless there is a connection to accept.
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
        let address = listener.local_addr().expect("the listener has an address");
        (Source::from_nonblocking(listener.into()), address)
    }

    #[test]
    fn the_connection_of_an_abandoned_attempt_goes_to_the_next_caller() {
        let ((source, _), (other, address)) = (listener(), listener());
        let abandoned = Abandoned::default();
        let (done, attempt) = channel();
        drop(PendingAttempt { attempt: Some(attempt), abandoned: &abandoned });
        assert!(abandoned.take().is_none());
        let nothing = accept(&source, &abandoned, None, true, || Some(())).expect_err("no connection");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let client = std::net::TcpStream::connect(address).expect("a listener");
        let connection = other.with(create::accept).expect("a connection");
        assert!(done.send(Ok(connection)).is_ok());
        // A caller that is not admitted leaves the connection in place.
        assert!(accept(&source, &abandoned, None, true, || None::<()>).expect("no error").is_none());
        let accepted = accept(&source, &abandoned, None, true, || Some(7)).expect("an attempt");
        let ((socket, _), ticket) = accepted.expect("the caller is admitted");
        let peer = std::net::TcpStream::from(socket).peer_addr().expect("the socket is connected");
        assert_eq!((peer, ticket), (client.local_addr().expect("the socket is connected"), 7));
        assert!(abandoned.lock().is_empty());
    }

    #[test]
    fn a_nonblocking_caller_leaves_an_attempt_whose_connection_is_gone() {
        let on_hub = std::thread::spawn(|| {
            hub_core::use_hub_with(hub_poll::DESCRIPTOR.build).expect("a fresh thread takes any hub");
            let ((source, address), abandoned) = (listener(), Abandoned::default());
            let (done, attempt) = channel();
            let limit = Some(Duration::from_secs(60));
            let wait = |attempt, nonblocking, limit| {
                let pending = PendingAttempt { attempt: Some(attempt), abandoned: &abandoned };
                wait_for_attempt(&source, pending, &PiecewiseWait::begin(), limit, nonblocking)
            };
            let left = wait(attempt, true, limit).expect_err("no connection is there");
            assert_eq!(left.kind(), io::ErrorKind::WouldBlock);
            // The attempt may still succeed, for the next caller.
            drop(done);
            assert!(abandoned.take().is_none() && abandoned.lock().is_empty());
            // A connection that is still there belongs to the attempt.
            let _client = std::net::TcpStream::connect(address).expect("a listener");
            let (_done, attempt) = channel();
            let late = wait(attempt, true, Some(4 * CHECK_INTERVAL)).expect_err("the attempt does not end");
            assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        });
        on_hub.join().expect("the waits end as expected");
    }

    /// When dropped, accepts on a listener without connections, beside an attempt that is under way.
    struct Accepts(std::sync::mpsc::Sender<io::ErrorKind>);

    impl Drop for Accepts {
        fn drop(&mut self) {
            let ((source, _), abandoned) = (listener(), Abandoned::default());
            let (_done, attempt) = channel();
            drop(PendingAttempt { attempt: Some(attempt), abandoned: &abandoned });
            let error = accept(&source, &abandoned, None, false, || Some(())).expect_err("no connection");
            _ = self.0.send(error.kind());
        }
    }

    #[test]
    fn accept_while_panicking_ends_when_the_grace_is_used_up() {
        let (sender, kinds) = std::sync::mpsc::channel();
        let panics = std::thread::spawn(move || {
            hub_core::use_hub_with(hub_poll::DESCRIPTOR.build).expect("a fresh thread takes any hub");
            let _accepts = Accepts(sender);
            std::panic::resume_unwind(Box::new(()));
        });
        assert_eq!(kinds.recv_timeout(Duration::from_secs(60)), Ok(io::ErrorKind::TimedOut));
        assert!(panics.join().is_err());
    }

    #[test]
    fn the_error_of_an_abandoned_attempt_is_dropped() {
        let abandoned = Abandoned::default();
        let (done, attempt) = channel();
        let (gone, lost) = channel();
        for attempt in [attempt, lost] {
            drop(PendingAttempt { attempt: Some(attempt), abandoned: &abandoned });
        }
        assert!(done.send(Err(Errno::CONNABORTED.into())).is_ok());
        drop(gone);
        assert!(abandoned.take().is_none() && abandoned.lock().is_empty());
    }
}
