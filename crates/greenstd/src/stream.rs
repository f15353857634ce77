//! What pipes, terminals and other streams of bytes share: they wait by way of [`Source`].
//!
//! Whether a call blocks is not said by a descriptor but by what is open behind it, which clones and other processes
//! share. So only what nobody else has is made non-blocking. For the rest each operation asks first, and writes no
//! more than there is room for then.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hub_core::{Left, Source};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::pipe::PIPE_BUF;

/// More pieces than this the system refuses in one call; std clamps to the same.
const MAX_PIECES: usize = 1024;

/// A stream of bytes, in one direction or in both.
pub(crate) struct Stream {
    source: Source,
    /// Others have it too, so that it blocks. The same for all clones.
    shared: Arc<AtomicBool>,
}

impl Stream {
    /// Takes over what nobody else has, and makes it non-blocking.
    pub(crate) fn own(fd: OwnedFd) -> io::Result<Stream> {
        Ok(Stream { source: Source::new(fd)?, shared: Arc::default() })
    }

    /// Takes over a descriptor of something that others may have too.
    pub(crate) fn shared(fd: OwnedFd) -> Stream {
        Stream { source: Source::from_nonblocking(fd), shared: Arc::new(AtomicBool::new(true)) }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Stream> {
        // Standard input, output and error are left alone, as std does.
        let copy = self.source.with(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?))?;
        Ok(Stream { source: Source::from_nonblocking(copy), shared: Arc::clone(&self.shared) })
    }

    /// Gives the descriptor away. It blocks, whoever gets it; so the clones are told to ask first.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        let was_shared = self.shared.swap(true, Ordering::Relaxed);
        let fd = self.source.into_fd()?;
        if !was_shared {
            rustix::io::ioctl_fionbio(&fd, false)?;
        }
        Ok(fd)
    }

    pub(crate) fn close(&self) {
        self.source.close();
    }

    fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    fn reading(&self, room: usize, mut op: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>) -> io::Result<usize> {
        if room == 0 && self.is_shared() {
            return Ok(0);
        }
        self.source.read(None, |fd| {
            if !self.is_shared() {
                let n = op(fd)?;
                return Ok((n, if n == room { Left::Perhaps } else { Left::Nothing }));
            }
            ask(fd, PollFlags::IN)?;
            // A terminal gives a line at a time.
            Ok((op(fd)?, Left::Perhaps))
        })
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reading(buffer.len(), |fd| rustix::io::read(fd, &mut *buffer))
    }

    pub(crate) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let pieces = buffers.len().min(MAX_PIECES);
        let buffers = &mut buffers[..pieces];
        let room = buffers.iter().map(|buffer| buffer.len()).sum();
        self.reading(room, |fd| rustix::io::readv(fd, buffers))
    }

    /// Reads what is there already: `None` if nothing is.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = self.source.with(|fd| {
            if self.is_shared() {
                ask(fd, PollFlags::IN)?;
            }
            Ok(rustix::io::read(fd, buffer)?)
        });
        match read {
            Ok(n) => Ok(Some(n)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.write_after(data, || Ok(()))
    }

    /// Writes, after something that is written before it, of less than a quarter of [`PIPE_BUF`].
    pub(crate) fn write_after(&self, data: &[u8], mut before: impl FnMut() -> io::Result<()>) -> io::Result<usize> {
        if data.is_empty() && self.is_shared() {
            return Ok(0);
        }
        self.source.write(None, |fd| {
            if !self.is_shared() {
                before()?;
                return Ok(rustix::io::write(fd, data)?);
            }
            ask(fd, PollFlags::OUT)?;
            before()?;
            Ok(rustix::io::write(fd, &data[..data.len().min(AT_ONCE)])?)
        })
    }

    pub(crate) fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.is_shared() {
            return self.write(pieces.iter().find(|piece| !piece.is_empty()).map_or(&[], |piece| piece));
        }
        let pieces = &pieces[..pieces.len().min(MAX_PIECES)];
        self.source.write(None, |fd| Ok(rustix::io::writev(fd, pieces)?))
    }
}

/// For what std makes of single reads.
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

/// What fits into a pipe that can be written to at all, less what [`Stream::write_after`] may have written before.
const AT_ONCE: usize = PIPE_BUF - PIPE_BUF / 4;

/// "Would block", unless the system says that the next call does not.
fn ask(fd: BorrowedFd<'_>, flags: PollFlags) -> Result<(), Errno> {
    let mut asked = [PollFd::from_borrowed_fd(fd, flags)];
    match rustix::event::poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Err(Errno::WOULDBLOCK),
        _ if asked[0].revents().contains(PollFlags::NVAL) => Err(Errno::BADF),
        _ => Ok(()),
    }
}
