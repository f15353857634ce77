//! Pipes, terminals and other streams of bytes, which wait through [`Source`].
//!
//! `O_NONBLOCK` belongs to the open file description, which clones and other processes share. So a stream that other
//! processes may have is never made non-blocking. Asking poll(2) before each call is not enough, because another reader
//! or writer may come in between. Each operation takes the first of these ways that the system offers:
//!
//! 1. `recv` and `send` with `MSG_DONTWAIT`, for sockets.
//! 2. `preadv2` and `pwritev2` with `RWF_NOWAIT`, which do not wait whatever the mode is. Linux has them for pipes,
//!    for reading eventfd, timerfd and signalfd, and for some devices.
//! 3. `readv` and `writev` on an open file description that only this process has, which is non-blocking. Linux gives
//!    one for named pipes and terminals, by reopening `/proc/self/fd/N`.
//! 4. A call on a pool thread, made when poll(2) has reported that it does not wait. It may wait all the same: another
//!    process was faster, or the value that is written to an eventfd is too large for now.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hub_core::ThreadPool;
use hub_core::hub::Interest;
use hub_core::{ReadHint, Source};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer};
use rustix::pipe::PIPE_BUF;

use crate::exclusive::Exclusive;
use crate::socket::SEND;

/// The system refuses more pieces than this in one call; std clamps to the same number.
const MAX_PIECES: usize = 1024;

/// The largest write to a pipe or a terminal by a call that may wait. It fits into a pipe that is writable at all, less
/// the quarter that [`Stream::write_after`] may have written before.
const AT_ONCE: usize = PIPE_BUF - PIPE_BUF / 4;

/// Like [`AT_ONCE`], for all other kinds, whose records must not be split.
const RECORD: usize = 1 << 20;

/// A pool of its own, so that files are not delayed: each job may wait forever.
static STREAMS: ThreadPool = ThreadPool::named("greenhub-streams", 64);

/// Runs a job in the pool of streams. Its caller waits for it in any case.
pub(crate) fn borrowing<T: Send>(job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    STREAMS.execute_scoped(job)?
}

/// A stream of bytes, in one direction or in both.
pub(crate) struct Stream {
    source: Source,
    /// Shared by all clones.
    description: Arc<Description>,
}

/// The open file description, as far as it is known.
struct Description {
    kind: StreamKind,
    exclusive: Exclusive,
    /// Whether `RWF_NOWAIT` was not refused so far.
    read_nowait: AtomicBool,
    write_nowait: AtomicBool,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum StreamKind {
    Socket,
    /// An anonymous pipe.
    Pipe,
    /// A named pipe or a terminal, which can be reopened for another description.
    Reopenable,
    /// A pipe or a terminal that cannot be reopened.
    Fixed,
    Other,
}

/// The means that keeps one operation from waiting.
#[derive(Copy, Clone)]
enum CallMode {
    Socket,
    NoWait,
    /// The mode of the description, or an earlier poll(2), keeps it from waiting.
    Plain,
}

impl Description {
    fn of(fd: BorrowedFd<'_>, exclusive: Exclusive) -> Arc<Description> {
        let kind = kind(fd);
        let nowait = || AtomicBool::new(cfg!(target_os = "linux"));
        Arc::new(Description { kind, exclusive, read_nowait: nowait(), write_nowait: nowait() })
    }

    /// Performs an operation without waiting. Returns `None` if only another OS thread can perform it.
    fn perform<R>(
        &self,
        fd: BorrowedFd<'_>,
        nowait: &AtomicBool,
        mut op: impl FnMut(CallMode) -> io::Result<R>,
    ) -> io::Result<Option<R>> {
        if self.kind == StreamKind::Socket {
            return op(CallMode::Socket).map(Some);
        }
        if nowait.load(Ordering::Relaxed) {
            match op(CallMode::NoWait) {
                Err(error) if is_refused(&error) => nowait.store(false, Ordering::Relaxed),
                result => return result.map(Some),
            }
        }
        if let Some(_entered) = self.exclusive.enter() {
            return op(CallMode::Plain).map(Some);
        }
        // Non-blocking by the choice of others, which would have to change the mode between the two calls.
        if rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK) { op(CallMode::Plain).map(Some) } else { Ok(None) }
    }

    /// Returns the size of the largest write by a call that may wait.
    fn at_once(&self) -> usize {
        if self.kind == StreamKind::Other { RECORD } else { AT_ONCE }
    }
}

impl Stream {
    /// Takes ownership of a descriptor that no other process has, and makes it non-blocking.
    pub(crate) fn own(fd: OwnedFd) -> io::Result<Stream> {
        let description = Description::of(fd.as_fd(), Exclusive::default());
        Ok(Stream { source: Source::new(fd)?, description })
    }

    /// Takes ownership of a descriptor that other processes may have, too. Its description is not made non-blocking.
    /// Where nothing else would keep an operation from waiting, the descriptor gets a description of its own if it can
    /// be reopened.
    pub(crate) fn shared(mut fd: OwnedFd) -> Stream {
        let exclusive = if kind(fd.as_fd()) == StreamKind::Reopenable && reopen_in_place(&mut fd).is_ok() {
            Exclusive::default()
        } else {
            Exclusive::shared()
        };
        let description = Description::of(fd.as_fd(), exclusive);
        Stream { source: Source::from_nonblocking(fd), description }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Stream> {
        // Numbers below 3 stay free for standard input, output and error, as with std.
        let copy = self.source.with(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?))?;
        Ok(Stream { source: Source::from_nonblocking(copy), description: Arc::clone(&self.description) })
    }

    /// Returns the descriptor, blocking. The operations of clones still do not wait.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        let Stream { source, description } = self;
        if description.exclusive.is_shared() {
            return source.into_fd();
        }
        let has_clones = Arc::strong_count(&description) > 1;
        if has_clones
            && description.kind == StreamKind::Reopenable
            && let Ok(other) = source.with(|fd| reopen(fd, false))
        {
            // The clones keep the present description.
            return Ok(other);
        }
        description.exclusive.share();
        let fd = source.into_fd()?;
        rustix::io::ioctl_fionbio(&fd, false)?;
        Ok(fd)
    }

    pub(crate) fn close(&self) {
        self.source.close();
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buffer)])
    }

    pub(crate) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let pieces = buffers.len().min(MAX_PIECES);
        let buffers = &mut buffers[..pieces];
        let room = buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
        if room == 0 {
            return self.source.with(|_| Ok(0));
        }
        let read = self.source.read(None, |fd| self.read_once(fd, buffers, room))?;
        read.map_or_else(|| self.by_pool(Interest::READ, |fd| read_plainly(fd, buffers)), Ok)
    }

    /// Reads without waiting. Returns `None` if only another OS thread can read.
    fn read_once(
        &self,
        fd: BorrowedFd<'_>,
        buffers: &mut [IoSliceMut<'_>],
        room: usize,
    ) -> io::Result<(Option<usize>, ReadHint)> {
        let read = self.description.perform(fd, &self.description.read_nowait, |mode| read(fd, mode, buffers))?;
        Ok((read, read.map_or(ReadHint::Likely, |n| self.hint_after(n, room))))
    }

    /// Writes without waiting. Returns `None` if only another OS thread can write.
    fn write_once(&self, fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        self.description.perform(fd, &self.description.write_nowait, |mode| write(fd, mode, pieces))
    }

    /// Reads for a future. A descriptor that only another OS thread can read is not supported.
    pub(crate) fn poll_read_vectored(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let pieces = buffers.len().min(MAX_PIECES);
        let buffers = &mut buffers[..pieces];
        let room = buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
        if room == 0 {
            return Poll::Ready(self.source.with(|_| Ok(0)));
        }
        let read = std::task::ready!(self.source.poll(Interest::READ, cx, |fd| self.read_once(fd, buffers, room)))?;
        Poll::Ready(read.ok_or_else(needs_green_thread))
    }

    /// Writes for a future. A descriptor that only another OS thread can write is not supported.
    pub(crate) fn poll_write_vectored(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let pieces = &pieces[..pieces.len().min(MAX_PIECES)];
        if pieces.iter().all(|piece| piece.is_empty()) && self.description.exclusive.is_shared() {
            return Poll::Ready(self.source.with(|_| Ok(0)));
        }
        let write = |fd: BorrowedFd<'_>| Ok((self.write_once(fd, pieces)?, ReadHint::Likely));
        let written = std::task::ready!(self.source.poll(Interest::WRITE, cx, write))?;
        Poll::Ready(written.ok_or_else(needs_green_thread))
    }

    pub(crate) fn cancel_poll(&self, directions: Interest) {
        self.source.cancel_poll(directions);
    }

    /// Returns what a read of `n` bytes tells about the rest.
    fn hint_after(&self, n: usize, room: usize) -> ReadHint {
        // A terminal returns a line at a time, a socket may stop at a mark, and others may read the rest.
        let all = self.description.kind == StreamKind::Pipe && !self.description.exclusive.is_shared() && n < room;
        if all { ReadHint::Nothing } else { ReadHint::Perhaps }
    }

    /// Reads without waiting. Returns `None` if there is nothing to read.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let buffers = &mut [IoSliceMut::new(buffer)];
        let read = self.source.with(|fd| {
            let read = self.description.perform(fd, &self.description.read_nowait, |mode| read(fd, mode, buffers))?;
            match read {
                Some(n) => Ok(n),
                None => run_if_ready(fd, PollFlags::IN, &mut |fd| read_plainly(fd, buffers)),
            }
        });
        match read {
            Ok(n) => Ok(Some(n)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(data)])
    }

    pub(crate) fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let pieces = &pieces[..pieces.len().min(MAX_PIECES)];
        if pieces.iter().all(|piece| piece.is_empty()) && self.description.exclusive.is_shared() {
            return self.source.with(|_| Ok(0));
        }
        let written = self.source.write(None, |fd| self.write_once(fd, pieces))?;
        written.map_or_else(|| self.by_pool(Interest::WRITE, |fd| self.write_some(fd, pieces)), Ok)
    }

    /// Writes after `before`, which writes less than a quarter of [`PIPE_BUF`].
    pub(crate) fn write_after(&self, data: &[u8], mut before: impl FnMut() -> io::Result<()>) -> io::Result<usize> {
        if data.is_empty() {
            return self.source.with(|_| Ok(0));
        }
        let pieces = [IoSlice::new(data)];
        let written = self.source.write(None, |fd| {
            check_ready(fd, PollFlags::OUT)?;
            before()?;
            self.description.perform(fd, &self.description.write_nowait, |mode| write(fd, mode, &pieces))
        })?;
        written.map_or_else(|| self.by_pool(Interest::WRITE, |fd| self.write_some(fd, &pieces)), Ok)
    }

    /// Runs `op`, which writes less than a quarter of [`PIPE_BUF`], when there is room.
    pub(crate) fn when_there_is_room(&self, mut op: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        self.source.write(None, |fd| {
            check_ready(fd, PollFlags::OUT)?;
            op()
        })
    }

    /// Writes no more than a call takes without waiting after poll(2) has reported room.
    fn write_some(&self, fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
        Ok(rustix::io::write(fd, &first[..first.len().min(self.description.at_once())])?)
    }

    /// Performs `op` on a pool thread, where it may wait after all.
    fn by_pool(
        &self,
        direction: Interest,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<usize> + Send,
    ) -> io::Result<usize> {
        let flags = if direction == Interest::READ { PollFlags::IN } else { PollFlags::OUT };
        loop {
            match self.source.with(|fd| run_if_ready(fd, flags, &mut op)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.source.wait(direction, None)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Moves the position. Some files of `/proc` have one; the system refuses the call for other streams.
    pub(crate) fn seek(&self, position: io::SeekFrom) -> io::Result<u64> {
        let position = match position {
            io::SeekFrom::Start(offset) => SeekFrom::Start(offset),
            io::SeekFrom::End(offset) => SeekFrom::End(offset),
            io::SeekFrom::Current(offset) => SeekFrom::Current(offset),
        };
        self.source.with(|fd| Ok(rustix::fs::seek(fd, position)?))
    }
}

/// For `read_to_end` and similar methods.
impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Stream::read(self, buffer)
    }
}

impl AsFd for Stream {
    #[track_caller]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}

fn read(fd: BorrowedFd<'_>, mode: CallMode, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    match mode {
        CallMode::Plain => read_plainly(fd, buffers),
        CallMode::NoWait => nowait::read(fd, buffers),
        CallMode::Socket => {
            let mut control = RecvAncillaryBuffer::default();
            Ok(rustix::net::recvmsg(fd, buffers, &mut control, RecvFlags::DONTWAIT)?.bytes)
        }
    }
}

fn read_plainly(fd: BorrowedFd<'_>, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    Ok(rustix::io::readv(fd, buffers)?)
}

fn write(fd: BorrowedFd<'_>, mode: CallMode, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(match mode {
        CallMode::Plain => rustix::io::writev(fd, pieces)?,
        CallMode::NoWait => return nowait::write(fd, pieces),
        CallMode::Socket => rustix::net::sendmsg(fd, pieces, &mut SendAncillaryBuffer::default(), SEND)?,
    })
}

/// Performs `op` on a pool thread if poll(2) reports that it does not wait.
fn run_if_ready(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    op: &mut (impl FnMut(BorrowedFd<'_>) -> io::Result<usize> + Send),
) -> io::Result<usize> {
    check_ready(fd, flags)?;
    borrowing(|| {
        // A second check: the job may have waited in the queue of the pool.
        check_ready(fd, flags)?;
        op(fd)
    })
}

/// Returns `WOULDBLOCK`, unless poll(2) reports that the next call does not wait. Returns `BADF` for a number that is
/// not open.
fn check_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> Result<(), Errno> {
    let mut asked = [PollFd::from_borrowed_fd(fd, flags)];
    match rustix::event::poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Err(Errno::WOULDBLOCK),
        _ if asked[0].revents().contains(PollFlags::NVAL) => Err(Errno::BADF),
        _ => Ok(()),
    }
}

/// Returns the error of a poll where only a call that may block the OS thread is left.
#[cold]
fn needs_green_thread() -> io::Error {
    let text =
        "every call on this descriptor may block, because another process shares it: only a green thread can use it";
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// Returns true if the system does not support `RWF_NOWAIT`, or not for this descriptor.
fn is_refused(error: &io::Error) -> bool {
    let refused = [Errno::OPNOTSUPP, Errno::NOSYS].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|error| refused.contains(&error))
}

/// Calls that do not wait, whatever the mode of the description is.
mod nowait {
    use super::*;

    #[cfg(target_os = "linux")]
    pub(super) fn read(fd: BorrowedFd<'_>, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(rustix::io::preadv2(fd, buffers, u64::MAX, rustix::io::ReadWriteFlags::NOWAIT)?)
    }

    #[cfg(target_os = "linux")]
    pub(super) fn write(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::pwritev2(fd, pieces, u64::MAX, rustix::io::ReadWriteFlags::NOWAIT)?)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn read(_fd: BorrowedFd<'_>, _buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Err(Errno::OPNOTSUPP.into())
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn write(_fd: BorrowedFd<'_>, _pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(Errno::OPNOTSUPP.into())
    }
}

fn kind(fd: BorrowedFd<'_>) -> StreamKind {
    let Ok(stat) = rustix::fs::fstat(fd) else { return StreamKind::Other };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => StreamKind::Socket,
        FileType::Fifo => reopening::fifo(fd),
        FileType::CharacterDevice if io::IsTerminal::is_terminal(&fd) => reopening::terminal(&stat),
        _ => StreamKind::Other,
    }
}

use reopening::{reopen, reopen_in_place};

#[cfg(target_os = "linux")]
mod reopening {
    use super::*;
    use rustix::fs::Mode;

    /// The file system of anonymous pipes, which need no other description: they support `RWF_NOWAIT`.
    const PIPEFS: rustix::fs::FsWord = 0x5049_5045;

    pub(super) fn fifo(fd: BorrowedFd<'_>) -> StreamKind {
        let anonymous = rustix::fs::fstatfs(fd).is_ok_and(|system| system.f_type == PIPEFS);
        if anonymous { StreamKind::Pipe } else { StreamKind::Reopenable }
    }

    pub(super) fn terminal(stat: &Stat) -> StreamKind {
        // Opening these names gives another terminal: `/dev/tty`, `/dev/console`, `/dev/ptmx`, `/dev/tty0`.
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        if major == 5 || (major, minor) == (4, 0) { StreamKind::Fixed } else { StreamKind::Reopenable }
    }

    /// Replaces the descriptor's description by one that no other process has, and that is non-blocking.
    pub(super) fn reopen_in_place(fd: &mut OwnedFd) -> io::Result<()> {
        let own = reopen(fd.as_fd(), true)?;
        rustix::io::dup3(&own, fd, rustix::io::DupFlags::CLOEXEC)?;
        Ok(())
    }

    /// Reopens the file behind `fd`, in the same direction.
    pub(super) fn reopen(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<OwnedFd> {
        let direction = rustix::fs::fcntl_getfl(fd)? & (OFlags::ACCMODE | OFlags::APPEND);
        let flags = direction | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let other = rustix::fs::open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty())?;
        let id = |stat: Stat| (stat.st_dev, stat.st_ino, stat.st_rdev);
        if id(rustix::fs::fstat(fd)?) != id(rustix::fs::fstat(&other)?) {
            return Err(Errno::NXIO.into());
        }
        if !nonblocking {
            rustix::io::ioctl_fionbio(&other, false)?;
        }
        Ok(other)
    }
}

/// No other description is available.
#[cfg(not(target_os = "linux"))]
mod reopening {
    use super::*;

    pub(super) fn fifo(_fd: BorrowedFd<'_>) -> StreamKind {
        StreamKind::Pipe
    }

    pub(super) fn terminal(_stat: &Stat) -> StreamKind {
        StreamKind::Fixed
    }

    pub(super) fn reopen_in_place(_fd: &mut OwnedFd) -> io::Result<()> {
        Err(Errno::OPNOTSUPP.into())
    }

    pub(super) fn reopen(_fd: BorrowedFd<'_>, _nonblocking: bool) -> io::Result<OwnedFd> {
        Err(Errno::OPNOTSUPP.into())
    }
}
