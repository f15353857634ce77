//! Pipes, terminals and other streams of bytes: they wait by way of [`Source`].
//!
//! `O_NONBLOCK` belongs to the open file description, which clones and other processes share; so a stream that others may
//! have is never made non-blocking. Asking it by poll(2) before each call is not enough, because another
//! reader or writer may come in between. Each operation takes the first of these ways that the system offers:
//!
//! 1. `recv` and `send` of sockets, told not to wait.
//! 2. `preadv2` and `pwritev2` with `RWF_NOWAIT`, which do not wait whatever the mode is. Linux has them for pipes,
//!    for reading eventfd, timerfd and signalfd, and for some devices.
//! 3. `readv` and `writev` of an open file description that only this process has, which is non-blocking. Linux gives
//!    one for named pipes and terminals, by opening `/proc/self/fd/N` anew.
//! 4. A call on an OS thread of a pool, made when poll(2) has said that it does not wait. It may wait all the same: another
//!    process was faster, or what is written to an eventfd is too large for now.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hub_core::{Interest, ReadHint, Source, ThreadPool};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer};
use rustix::pipe::PIPE_BUF;

use crate::exclusive::Exclusive;
use crate::socket::SEND;

/// More pieces than this the system refuses in one call; std clamps to the same.
const MAX_PIECES: usize = 1024;

/// The most that is written to a pipe or a terminal by a call that may wait: it fits into a pipe that can be written to
/// at all, less the quarter that [`Stream::write_after`] may have written before.
const AT_ONCE: usize = PIPE_BUF - PIPE_BUF / 4;

/// As [`AT_ONCE`], for anything else, whose records must not be cut.
const RECORD: usize = 1 << 20;

/// Of its own, so that files are not kept waiting: each job may wait for ever.
static STREAMS: ThreadPool = ThreadPool::named("greenhub-streams", 64);

/// Runs a job of the pool of streams for which its caller waits in any case.
pub(crate) fn borrowing<T: Send>(job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    STREAMS.execute_scoped(job)?
}

/// A stream of bytes, in one direction or in both.
pub(crate) struct Stream {
    source: Source,
    /// The same for all clones.
    description: Arc<Description>,
}

/// The open file description, as far as it is known.
struct Description {
    kind: Kind,
    exclusive: Exclusive,
    /// Whether `RWF_NOWAIT` was not refused yet.
    read_nowait: AtomicBool,
    write_nowait: AtomicBool,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    Socket,
    /// An anonymous pipe.
    Pipe,
    /// A named pipe or a terminal, of which another description can be had.
    Reopenable,
    /// A pipe or a terminal of which no other description can be had.
    Fixed,
    Other,
}

/// How one operation is kept from waiting.
#[derive(Copy, Clone)]
enum Way {
    Socket,
    NoWait,
    /// By the mode of the description, or because poll(2) was asked.
    Plain,
}

impl Description {
    fn of(fd: BorrowedFd<'_>, exclusive: Exclusive) -> Arc<Description> {
        let kind = kind(fd);
        let nowait = || AtomicBool::new(cfg!(target_os = "linux"));
        Arc::new(Description { kind, exclusive, read_nowait: nowait(), write_nowait: nowait() })
    }

    /// Performs an operation that does not wait. `None`: only another OS thread can.
    fn perform<R>(
        &self,
        fd: BorrowedFd<'_>,
        nowait: &AtomicBool,
        mut op: impl FnMut(Way) -> io::Result<R>,
    ) -> io::Result<Option<R>> {
        if self.kind == Kind::Socket {
            return op(Way::Socket).map(Some);
        }
        if nowait.load(Ordering::Relaxed) {
            match op(Way::NoWait) {
                Err(error) if is_refused(&error) => nowait.store(false, Ordering::Relaxed),
                result => return result.map(Some),
            }
        }
        if let Some(_entered) = self.exclusive.enter() {
            return op(Way::Plain).map(Some);
        }
        // Made non-blocking by others, who would have to change that between the two calls.
        if rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK) { op(Way::Plain).map(Some) } else { Ok(None) }
    }

    /// The most that is written by a call that may wait.
    fn at_once(&self) -> usize {
        if self.kind == Kind::Other { RECORD } else { AT_ONCE }
    }
}

impl Stream {
    /// Takes over a descriptor that no other process has, and makes it non-blocking.
    pub(crate) fn own(fd: OwnedFd) -> io::Result<Stream> {
        let description = Description::of(fd.as_fd(), Exclusive::default());
        Ok(Stream { source: Source::new(fd)?, description })
    }

    /// Takes over a descriptor that others may have too. Its description is not made non-blocking: where an operation could not be
    /// kept from waiting otherwise, the number gets an open file description of its own if there is one.
    pub(crate) fn shared(mut fd: OwnedFd) -> Stream {
        let exclusive = if kind(fd.as_fd()) == Kind::Reopenable && take_own(&mut fd).is_ok() {
            Exclusive::default()
        } else {
            Exclusive::shared()
        };
        let description = Description::of(fd.as_fd(), exclusive);
        Stream { source: Source::from_nonblocking(fd), description }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Stream> {
        // Standard input, output and error are left alone, as std does.
        let copy = self.source.with(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?))?;
        Ok(Stream { source: Source::from_nonblocking(copy), description: Arc::clone(&self.description) })
    }

    /// Gives the descriptor away, blocking. The operations of clones do not wait all the same.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        let Stream { source, description } = self;
        if description.exclusive.is_shared() {
            return source.into_fd();
        }
        let has_clones = Arc::strong_count(&description) > 1;
        if has_clones
            && description.kind == Kind::Reopenable
            && let Ok(other) = source.with(|fd| reopen(fd, false))
        {
            // The clones keep the description.
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
        let read = self.source.read(None, |fd| {
            let read = self.description.perform(fd, &self.description.read_nowait, |way| read(fd, way, buffers))?;
            Ok((read, read.map_or(ReadHint::Likely, |n| self.left(n, room))))
        })?;
        read.map_or_else(|| self.by_pool(Interest::READ, |fd| read_plainly(fd, buffers)), Ok)
    }

    /// Whether more is left after a read of `n` bytes.
    fn left(&self, n: usize, room: usize) -> ReadHint {
        // A terminal gives a line at a time, a socket may stop at a mark, and others may read what is left.
        let all = self.description.kind == Kind::Pipe && !self.description.exclusive.is_shared() && n < room;
        if all { ReadHint::Nothing } else { ReadHint::Perhaps }
    }

    /// Reads without waiting: `None` if there is nothing to read.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let buffers = &mut [IoSliceMut::new(buffer)];
        let read = self.source.with(|fd| {
            let read = self.description.perform(fd, &self.description.read_nowait, |way| read(fd, way, buffers))?;
            match read {
                Some(n) => Ok(n),
                None => now(fd, PollFlags::IN, &mut |fd| read_plainly(fd, buffers)),
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
        let written = self.source.write(None, |fd| {
            self.description.perform(fd, &self.description.write_nowait, |way| write(fd, way, pieces))
        })?;
        written.map_or_else(|| self.by_pool(Interest::WRITE, |fd| self.write_some(fd, pieces)), Ok)
    }

    /// Writes, after something that is written before it, of less than a quarter of [`PIPE_BUF`].
    pub(crate) fn write_after(&self, data: &[u8], mut before: impl FnMut() -> io::Result<()>) -> io::Result<usize> {
        if data.is_empty() {
            return self.source.with(|_| Ok(0));
        }
        let pieces = [IoSlice::new(data)];
        let written = self.source.write(None, |fd| {
            ask(fd, PollFlags::OUT)?;
            before()?;
            self.description.perform(fd, &self.description.write_nowait, |way| write(fd, way, &pieces))
        })?;
        written.map_or_else(|| self.by_pool(Interest::WRITE, |fd| self.write_some(fd, &pieces)), Ok)
    }

    /// Runs `op`, which writes less than a quarter of [`PIPE_BUF`], when there is room for it.
    pub(crate) fn when_there_is_room(&self, mut op: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        self.source.write(None, |fd| {
            ask(fd, PollFlags::OUT)?;
            op()
        })
    }

    /// Writes no more than a call takes without waiting, if poll(2) has said that there is room.
    fn write_some(&self, fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
        Ok(rustix::io::write(fd, &first[..first.len().min(self.description.at_once())])?)
    }

    /// Performs `op` on an OS thread of the pool, where it may wait after all.
    fn by_pool(
        &self,
        direction: Interest,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<usize> + Send,
    ) -> io::Result<usize> {
        let flags = if direction == Interest::READ { PollFlags::IN } else { PollFlags::OUT };
        loop {
            match self.source.with(|fd| now(fd, flags, &mut op)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.source.wait(direction, None)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Moves the position. Some files of `/proc` have one; the system refuses it for others.
    pub(crate) fn seek(&self, position: io::SeekFrom) -> io::Result<u64> {
        let position = match position {
            io::SeekFrom::Start(offset) => SeekFrom::Start(offset),
            io::SeekFrom::End(offset) => SeekFrom::End(offset),
            io::SeekFrom::Current(offset) => SeekFrom::Current(offset),
        };
        self.source.with(|fd| Ok(rustix::fs::seek(fd, position)?))
    }
}

/// For `read_to_end` and its like.
impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Stream::read(self, buffer)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}

fn read(fd: BorrowedFd<'_>, way: Way, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    match way {
        Way::Plain => read_plainly(fd, buffers),
        Way::NoWait => nowait::read(fd, buffers),
        Way::Socket => {
            let mut control = RecvAncillaryBuffer::default();
            Ok(rustix::net::recvmsg(fd, buffers, &mut control, RecvFlags::DONTWAIT)?.bytes)
        }
    }
}

fn read_plainly(fd: BorrowedFd<'_>, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    Ok(rustix::io::readv(fd, buffers)?)
}

fn write(fd: BorrowedFd<'_>, way: Way, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(match way {
        Way::Plain => rustix::io::writev(fd, pieces)?,
        Way::NoWait => return nowait::write(fd, pieces),
        Way::Socket => rustix::net::sendmsg(fd, pieces, &mut SendAncillaryBuffer::default(), SEND)?,
    })
}

/// Performs `op` on an OS thread of the pool if the system says that it does not wait.
fn now(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    op: &mut (impl FnMut(BorrowedFd<'_>) -> io::Result<usize> + Send),
) -> io::Result<usize> {
    ask(fd, flags)?;
    borrowing(|| {
        // Once more: the job may have waited in line.
        ask(fd, flags)?;
        op(fd)
    })
}

/// "Would block", unless the system says that the next call does not.
fn ask(fd: BorrowedFd<'_>, flags: PollFlags) -> Result<(), Errno> {
    let mut asked = [PollFd::from_borrowed_fd(fd, flags)];
    match rustix::event::poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Err(Errno::WOULDBLOCK),
        _ if asked[0].revents().contains(PollFlags::NVAL) => Err(Errno::BADF),
        _ => Ok(()),
    }
}

/// Whether the system does not know `RWF_NOWAIT`, or not for such a descriptor.
fn is_refused(error: &io::Error) -> bool {
    let refused = [Errno::OPNOTSUPP, Errno::NOSYS].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|error| refused.contains(&error))
}

/// Calls that do not wait whatever the mode of the description is.
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

fn kind(fd: BorrowedFd<'_>) -> Kind {
    let Ok(stat) = rustix::fs::fstat(fd) else { return Kind::Other };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => Kind::Socket,
        FileType::Fifo => reopening::fifo(fd),
        FileType::CharacterDevice if io::IsTerminal::is_terminal(&fd) => reopening::terminal(&stat),
        _ => Kind::Other,
    }
}

use reopening::{reopen, take_own};

#[cfg(target_os = "linux")]
mod reopening {
    use super::*;
    use rustix::fs::Mode;

    /// The file system of anonymous pipes, which need no other description: they know `RWF_NOWAIT`.
    const PIPEFS: rustix::fs::FsWord = 0x5049_5045;

    pub(super) fn fifo(fd: BorrowedFd<'_>) -> Kind {
        let anonymous = rustix::fs::fstatfs(fd).is_ok_and(|system| system.f_type == PIPEFS);
        if anonymous { Kind::Pipe } else { Kind::Reopenable }
    }

    pub(super) fn terminal(stat: &Stat) -> Kind {
        // Names whose opening gives another terminal: `/dev/tty`, `/dev/console`, `/dev/ptmx`, `/dev/tty0`.
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        if major == 5 || (major, minor) == (4, 0) { Kind::Fixed } else { Kind::Reopenable }
    }

    /// Has the number refer to an open file description that no other process has, and that is non-blocking.
    pub(super) fn take_own(fd: &mut OwnedFd) -> io::Result<()> {
        let own = reopen(fd.as_fd(), true)?;
        rustix::io::dup3(&own, fd, rustix::io::DupFlags::CLOEXEC)?;
        Ok(())
    }

    /// Opens the file behind `fd` anew, in the same direction.
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

/// No other description can be had.
#[cfg(not(target_os = "linux"))]
mod reopening {
    use super::*;

    pub(super) fn fifo(_fd: BorrowedFd<'_>) -> Kind {
        Kind::Pipe
    }

    pub(super) fn terminal(_stat: &Stat) -> Kind {
        Kind::Fixed
    }

    pub(super) fn take_own(_fd: &mut OwnedFd) -> io::Result<()> {
        Err(Errno::OPNOTSUPP.into())
    }

    pub(super) fn reopen(_fd: BorrowedFd<'_>, _nonblocking: bool) -> io::Result<OwnedFd> {
        Err(Errno::OPNOTSUPP.into())
    }
}
