//! Sockets of all kinds: each operation is written here once, and waits through [`Source`].

mod create;
mod shared;

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hub_core::hub::Interest;
use hub_core::{ReadHint, Source, SourceWaker};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SocketAddrAny};
use socket2::{Domain, SockAddr, SockRef, Type};

pub(crate) use create::SEND;
use shared::{Abandoned, AcceptedSocket};

use crate::exclusive::Exclusive;

/// The number of connections that may wait to be accepted. The system may allow fewer (on Linux `net.core.somaxconn`,
/// 4096 by default).
pub(crate) const BACKLOG: i32 = 4096;

/// A buffer of at least this size that was filled is worth another attempt before parking.
const LARGE: usize = 4096;

/// The system refuses more pieces than this in one call; std clamps to the same number.
const MAX_PIECES: usize = 1024;

/// A green socket of any family.
pub(crate) struct Socket {
    source: Source,
    /// Shared by all clones, as the system shares its own options. Most sockets never set any.
    options: OnceLock<Arc<Options>>,
}

/// The options that the system would keep for a blocking socket. Timeouts are in nanoseconds, 0 for none.
#[derive(Default)]
struct Options {
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
    nonblocking: AtomicBool,
    /// Whether the open file description is known to be non-blocking.
    exclusive: Exclusive,
    abandoned: Abandoned,
    handles: Handles,
}

/// All handles of a socket that was cloned.
#[derive(Default)]
struct Handles(Mutex<Vec<SourceWaker>>);

impl Handles {
    /// Adds a clone. For the first clone, also adds the socket that it is cloned from.
    fn add(&self, source: &Source, clone: &Source) {
        let mut handles = self.lock();
        if handles.is_empty() {
            handles.push(source.waker());
        }
        // Dropped handles are removed each time the vector would grow.
        if handles.len() == handles.capacity() {
            handles.retain(|handle| !handle.is_gone());
            let count = handles.len();
            handles.reserve(count + 1);
        }
        handles.push(clone.waker());
    }

    /// Returns a copy, so that nothing is locked while the handles are woken.
    fn all(&self) -> Vec<SourceWaker> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SourceWaker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The direction of a timeout.
#[derive(Copy, Clone)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Options {
    fn cell(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Read => &self.read_timeout,
            Direction::Write => &self.write_timeout,
        }
    }

    fn timeout(&self, direction: Direction) -> Option<Duration> {
        match self.cell(direction).load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

// Making, cloning, handing over.
impl Socket {
    pub(crate) fn new(domain: Domain, kind: Type) -> io::Result<Socket> {
        Ok(Socket::owning(create::open(domain, kind)?, domain == Domain::UNIX))
    }

    pub(crate) fn pair(kind: Type) -> io::Result<(Socket, Socket)> {
        let (one, other) = create::pair(kind)?;
        Ok((Socket::owning(one, true), Socket::owning(other, true)))
    }

    /// Takes over a descriptor that is non-blocking.
    fn owning(fd: OwnedFd, is_unix: bool) -> Socket {
        let source = Source::from_nonblocking(fd);
        // For Unix sockets the system reports neither room at a full receiver nor the end of its reading.
        source.set_retrying(is_unix);
        Socket { source, options: OnceLock::new() }
    }

    fn is_unix(&self) -> bool {
        self.source.is_retrying()
    }

    /// Takes over a descriptor that was used elsewhere, with its timeouts and its mode.
    pub(crate) fn from_fd(fd: OwnedFd) -> io::Result<Socket> {
        let options = Options::default();
        let socket = SockRef::from(&fd);
        // A descriptor that is no socket has no timeouts; its operations will report the error.
        let read_timeout = socket.read_timeout().unwrap_or(None);
        let write_timeout = socket.write_timeout().unwrap_or(None);
        let nonblocking = socket.nonblocking()?;
        let is_unix = socket.local_addr().is_ok_and(|address| address.domain() == Domain::UNIX);
        options.read_timeout.store(nanos(read_timeout), Ordering::Relaxed);
        options.write_timeout.store(nanos(write_timeout), Ordering::Relaxed);
        options.nonblocking.store(nonblocking, Ordering::Relaxed);
        // Only an accept depends on the mode, which other processes may change: data calls pass `DONTWAIT`.
        let listens = create::may_listen(fd.as_fd());
        if listens {
            options.exclusive.share();
        }
        rustix::io::ioctl_fionbio(&fd, true)?;
        let socket = Socket::owning(fd, is_unix);
        if nonblocking || listens || read_timeout.is_some() || write_timeout.is_some() {
            let _ = socket.options.set(Arc::new(options));
        }
        Ok(socket)
    }

    /// Gives the descriptor away, with its timeouts and its mode.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        if let Some(options) = self.options.get() {
            options.exclusive.share();
        }
        let fd = self.source.into_fd()?;
        let socket = SockRef::from(&fd);
        if let Some(options) = self.options.get() {
            // The system counts microseconds, and takes zero for no timeout.
            let timeout = |direction| options.timeout(direction).map(|timeout| timeout.max(Duration::from_micros(1)));
            socket.set_read_timeout(timeout(Direction::Read))?;
            socket.set_write_timeout(timeout(Direction::Write))?;
        }
        let nonblocking = self.options.get().is_some_and(|options| options.nonblocking.load(Ordering::Relaxed));
        socket.set_nonblocking(nonblocking)?;
        Ok(fd)
    }

    pub(crate) fn try_clone(&self) -> io::Result<Socket> {
        // Numbers below 3 stay free for standard input, output and error, as with std.
        let copy = self.source.with(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?))?;
        let clone = Socket::owning(copy, self.is_unix());
        let options = self.options();
        options.handles.add(&self.source, &clone.source);
        let _ = clone.options.set(Arc::clone(options));
        Ok(clone)
    }

    pub(crate) fn close(&self) {
        self.source.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.source.is_closed()
    }
}

// Options.
impl Socket {
    fn options(&self) -> &Arc<Options> {
        self.options.get_or_init(Arc::default)
    }

    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.source.with(|_| Ok(()))?;
        self.options().nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn set_timeout(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a 0 duration timeout"));
        }
        self.source.with(|_| Ok(()))?;
        self.options().cell(direction).store(nanos(timeout), Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn timeout(&self, direction: Direction) -> io::Result<Option<Duration>> {
        self.source.with(|_| Ok(self.options.get().and_then(|options| options.timeout(direction))))
    }

    /// Gets or sets an option of the system.
    pub(crate) fn configure<R>(&self, op: impl FnOnce(SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        self.source.with(|fd| op(SockRef::from(&fd)))
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.configure(|socket| socket.shutdown(how))?;
        // The system does not report a shutdown to a writer on a Unix socket.
        let directions = match how {
            Shutdown::Read => Interest::READ,
            Shutdown::Write => Interest::WRITE,
            Shutdown::Both => Interest::BOTH,
        };
        let handles = self.options.get().map(|options| options.handles.all()).unwrap_or_default();
        if handles.is_empty() {
            self.source.wake(directions);
        }
        handles.iter().for_each(|handle| handle.wake(directions));
        Ok(())
    }
}

// Waiting.
impl Socket {
    #[inline]
    fn read<R>(&self, mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, ReadHint)>) -> io::Result<R> {
        let Some(options) = self.options.get() else { return self.source.read(None, op) };
        if options.nonblocking.load(Ordering::Relaxed) {
            return self.source.with(|fd| op(fd).map(|(value, _)| value));
        }
        self.source.read(options.timeout(Direction::Read), op)
    }

    /// Reads one piece, a connection or a datagram. `at_end` makes the result of a blocking call on a socket that was
    /// shut down for reading. Linux returns "would block" to a non-blocking call there, while every hub reports the
    /// socket as ready.
    fn read_piece<R>(
        &self,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
        mut at_end: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        let timeout = match self.options.get() {
            None => None,
            Some(options) if options.nonblocking.load(Ordering::Relaxed) => return self.source.with(op),
            Some(options) => options.timeout(Direction::Read),
        };
        // More pieces may have arrived with the first.
        let op = |fd: BorrowedFd<'_>| op(fd).map(|value| (value, ReadHint::Likely));
        self.source.read_or_end(timeout, op, |fd| is_shut_down_for_reading(fd).then(&mut at_end))
    }

    #[inline]
    fn write<R>(&self, op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
        let Some(options) = self.options.get() else { return self.source.write(None, op) };
        if options.nonblocking.load(Ordering::Relaxed) {
            return self.source.with(op);
        }
        self.source.write(options.timeout(Direction::Write), op)
    }
}

// Connections.
impl Socket {
    /// Connects a stream. A timeout is an error of the kind `TimedOut`.
    pub(crate) fn connect(&self, address: &SockAddr, timeout: Option<Duration>) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            match self.configure(|socket| socket.connect(address)) {
                // A signal may end the call before the attempt has begun.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_in_progress(&error) => break,
                Err(error) if error.raw_os_error() == Some(Errno::ISCONN.raw_os_error()) => return Ok(()),
                result => return result,
            }
        }
        let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        self.source.wait(Interest::WRITE, left)?;
        // A wait that was woken has not timed out, however late it runs.
        let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        self.source.write(left, |fd| {
            let socket = SockRef::from(&fd);
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            match socket.peer_addr() {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
                result => result.map(drop),
            }
        })
    }

    /// Connects within this system. The call either succeeds at once or has to be repeated: the system does not report
    /// that the full queue of a listener has room again.
    pub(crate) fn connect_local(&self, address: &SockAddr) -> io::Result<()> {
        self.write(|fd| SockRef::from(&fd).connect(address))
    }

    pub(crate) fn accept(&self) -> io::Result<(Socket, Option<SocketAddrAny>)> {
        let accepted = self.accept_if(|| Some(()))?;
        accepted.map(|(socket, address, ())| (socket, address)).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Accepts a connection, if `admit` returns a ticket. `admit` is called before each attempt. Returns `None` without
    /// a ticket.
    pub(crate) fn accept_if<T>(
        &self,
        mut admit: impl FnMut() -> Option<T>,
    ) -> io::Result<Option<(Socket, Option<SocketAddrAny>, T)>> {
        let accept = |fd: BorrowedFd<'_>| {
            self.unless_blocking(fd, || {
                let Some(ticket) = admit() else { return Ok(None) };
                Ok(Some((create::accept(fd)?, ticket)))
            })
        };
        // The error of a blocking call on a listener that was shut down.
        let accepted = self.read_piece(accept, || Err(Errno::INVAL.into()))?;
        let accepted = accepted.or_else(|BlocksThread| self.accept_shared(admit))?;
        Ok(accepted.map(|((fd, address), ticket)| (Socket::owning(fd, self.is_unix()), address, ticket)))
    }

    /// Runs `op`, unless its call on the socket would block the OS thread.
    fn unless_blocking<R>(
        &self,
        fd: BorrowedFd<'_>,
        op: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<Result<R, BlocksThread>> {
        let entered = self.options.get().map(|options| options.exclusive.enter());
        // On a shared description, only another process that changes the mode between the two calls can make `op`
        // block.
        if matches!(entered, Some(None)) && shared::blocks(fd)? {
            return Ok(Err(BlocksThread));
        }
        op().map(Ok)
    }

    #[cold]
    fn accept_shared<T>(&self, admit: impl FnMut() -> Option<T>) -> io::Result<Option<(AcceptedSocket, T)>> {
        let options = self.options();
        let nonblocking = options.nonblocking.load(Ordering::Relaxed);
        let timeout = options.timeout(Direction::Read);
        shared::accept(&self.source, &options.abandoned, timeout, nonblocking, admit)
    }
}

/// A call on the socket would block the OS thread.
struct BlocksThread;

// Data.
impl Socket {
    #[inline]
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read(|fd| recv(fd, buffer))
    }

    /// Like [`recv`](Socket::recv), and calls `admit` before each attempt. Its error ends the call.
    #[cfg(feature = "console")]
    pub(crate) fn recv_if(&self, buffer: &mut [u8], admit: impl Fn() -> io::Result<()>) -> io::Result<usize> {
        self.read(|fd| admit().and_then(|()| recv(fd, buffer)))
    }

    pub(crate) fn recv_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read(|fd| recv_vectored(fd, buffers))
    }

    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // A peek leaves the data in place.
        self.read(|fd| {
            let (_, n) = rustix::net::recv(fd, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::PEEK)?;
            Ok((n, ReadHint::Likely))
        })
    }

    /// Receives or peeks at one datagram.
    pub(crate) fn recv_datagram(&self, buffer: &mut [u8], peek: bool) -> io::Result<usize> {
        let receive = |fd: BorrowedFd<'_>| {
            let (_, n) = rustix::net::recv(fd, &mut *buffer, datagram_flags(peek))?;
            Ok(n)
        };
        self.read_piece(receive, || Ok(0))
    }

    pub(crate) fn recv_from(&self, buffer: &mut [u8], peek: bool) -> io::Result<(usize, Option<SocketAddrAny>)> {
        let receive = |fd: BorrowedFd<'_>| {
            let (_, n, address) = rustix::net::recvfrom(fd, &mut *buffer, datagram_flags(peek))?;
            Ok((n, address))
        };
        self.read_piece(receive, || Ok((0, None)))
    }

    #[inline]
    pub(crate) fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.write(|fd| Ok(rustix::net::send(fd, data, SEND)?))
    }

    /// Like [`send`](Socket::send), and calls `admit` before each attempt. Its error ends the call.
    #[cfg(feature = "console")]
    pub(crate) fn send_if(&self, data: &[u8], admit: impl Fn() -> io::Result<()>) -> io::Result<usize> {
        self.write(|fd| admit().and_then(|()| Ok(rustix::net::send(fd, data, SEND)?)))
    }

    pub(crate) fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(|fd| send_vectored(fd, pieces))
    }

    pub(crate) fn send_to(&self, data: &[u8], address: &std::net::SocketAddr) -> io::Result<usize> {
        self.write(|fd| Ok(rustix::net::sendto(fd, data, SEND, address)?))
    }

    /// Sends a datagram within this system. The system does not report room in the queue of a receiver that this socket
    /// is not connected to.
    pub(crate) fn send_to_local(&self, data: &[u8], address: &SockAddr) -> io::Result<usize> {
        self.write(|fd| SockRef::from(&fd).send_to_with_flags(data, address, SEND.bits() as i32))
    }
}

// Polls of futures. They never wait, so timeouts and the non-blocking mode do not concern them.
impl Socket {
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.source.poll(Interest::READ, cx, |fd| recv(fd, buffer))
    }

    pub(crate) fn poll_recv_vectored(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.source.poll(Interest::READ, cx, |fd| recv_vectored(fd, buffers))
    }

    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.source.poll(Interest::WRITE, cx, |fd| Ok((rustix::net::send(fd, data, SEND)?, ReadHint::Likely)))
    }

    pub(crate) fn poll_send_vectored(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.source.poll(Interest::WRITE, cx, |fd| Ok((send_vectored(fd, pieces)?, ReadHint::Likely)))
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Option<SocketAddrAny>)>> {
        let accept = |fd: BorrowedFd<'_>| {
            let accepted = match self.unless_blocking(fd, || create::accept(fd)) {
                // A blocking call returns this error on a listener that was shut down.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_shut_down_for_reading(fd) => {
                    return Err(Errno::INVAL.into());
                }
                accepted => accepted?,
            };
            let shared = "the listener blocks, because another process shares it: only a green thread can accept";
            let accepted = accepted.map_err(|BlocksThread| io::Error::new(io::ErrorKind::Unsupported, shared))?;
            Ok((accepted, ReadHint::Likely))
        };
        let (fd, address) = std::task::ready!(self.source.poll(Interest::READ, cx, accept))?;
        Poll::Ready(Ok((Socket::owning(fd, self.is_unix()), address)))
    }

    pub(crate) fn cancel_poll(&self, directions: Interest) {
        self.source.cancel_poll(directions);
    }
}

impl AsFd for Socket {
    #[track_caller]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}

impl Socket {
    /// Formats a socket as std does: with everything known about it.
    pub(crate) fn debug<A: fmt::Debug>(
        &self,
        name: &str,
        local: io::Result<A>,
        peer: io::Result<A>,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        let mut out = f.debug_struct(name);
        if let Ok(local) = local {
            out.field("addr", &local);
        }
        if let Ok(peer) = peer {
            out.field("peer", &peer);
        }
        out.field("fd", &self.as_raw_fd()).finish()
    }
}

#[inline]
fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, ReadHint)> {
    let (_, n) = rustix::net::recv(fd, &mut *buffer, RecvFlags::DONTWAIT)?;
    Ok((n, hint_after(n, buffer.len())))
}

fn recv_vectored(fd: BorrowedFd<'_>, buffers: &mut [IoSliceMut<'_>]) -> io::Result<(usize, ReadHint)> {
    let pieces = buffers.len().min(MAX_PIECES);
    let buffers = &mut buffers[..pieces];
    let capacity: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    let n = rustix::net::recvmsg(fd, buffers, &mut RecvAncillaryBuffer::default(), RecvFlags::DONTWAIT)?.bytes;
    Ok((n, hint_after(n, capacity)))
}

fn send_vectored(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let pieces = &pieces[..pieces.len().min(MAX_PIECES)];
    Ok(rustix::net::sendmsg(fd, pieces, &mut SendAncillaryBuffer::default(), SEND)?)
}

fn nanos(timeout: Option<Duration>) -> u64 {
    timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))
}

fn datagram_flags(peek: bool) -> RecvFlags {
    if peek { RecvFlags::DONTWAIT | RecvFlags::PEEK } else { RecvFlags::DONTWAIT }
}

/// Returns true if the socket is shut down for reading and empty. Linux reports that only to blocking calls.
fn is_shut_down_for_reading(fd: BorrowedFd<'_>) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut asked = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
        poll(&mut asked, Some(&Timespec::default())).is_ok() && asked[0].revents().contains(PollFlags::RDHUP)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = fd;
        false
    }
}

/// Returns the hint of a read of `n` bytes into a buffer of `room` bytes. A short read need not have emptied the
/// stream: a read also stops at an urgent mark, and where descriptors were sent along.
fn hint_after(n: usize, room: usize) -> ReadHint {
    if n == room && n >= LARGE { ReadHint::Likely } else { ReadHint::Perhaps }
}

fn is_in_progress(error: &io::Error) -> bool {
    // A signal does not end the attempt; a repeated call reports that it is still in progress.
    [Errno::INPROGRESS, Errno::ALREADY].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Returns the error for an address of a family other than the socket's.
pub(crate) fn foreign_address() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the socket has an address of another family")
}
