//! Any open descriptor: a stream, for which a hub can wait, or a file, which only blocks.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use hub_core::ThreadPool;

use crate::stream::Stream;

/// The largest part of a file that one job reads or writes. An exit of the caller has to wait for the end of the job.
const AT_ONCE: usize = 1 << 20;

pub(crate) enum Handle {
    Stream(Stream),
    /// A regular file, a directory or a disk.
    File(Arc<File>),
}

/// The way in which a file is read and written.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum FileKind {
    /// By the pool: no hub can wait for it.
    File,
    /// A hub can wait for it.
    Stream,
}

impl Handle {
    /// Takes over a file that was just opened, which no other process has. `kind` is the result of [`kind`].
    pub(crate) fn opened(file: File, kind: FileKind) -> io::Result<Handle> {
        match kind {
            FileKind::File => Ok(Handle::File(Arc::new(file))),
            FileKind::Stream if keeps_mode(&file) => Stream::own(file.into()).map(Handle::Stream),
            FileKind::Stream => Ok(Handle::Stream(Stream::shared(file.into()))),
        }
    }

    /// Takes over a descriptor of any kind, which other processes may have, too. A descriptor that cannot be examined
    /// counts as a file; its operations report the error.
    pub(crate) fn from_fd(fd: OwnedFd) -> Handle {
        let file = File::from(fd);
        match kind(&file) {
            Ok(FileKind::Stream) => Handle::Stream(Stream::shared(file.into())),
            Ok(FileKind::File) | Err(_) => Handle::File(Arc::new(file)),
        }
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Handle::Stream(stream) => stream.read(buffer),
            Handle::File(file) => {
                let room = buffer.len().min(AT_ONCE);
                borrowing(|| (&**file).read(&mut buffer[..room]))
            }
        }
    }

    pub(crate) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Handle::Stream(stream) => stream.read_vectored(buffers),
            Handle::File(file) => borrowing(|| (&**file).read_vectored(buffers)),
        }
    }

    /// Reads everything that is left, in few jobs.
    pub(crate) fn read_to_end(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let file = match self {
            Handle::Stream(stream) => return Read::read_to_end(&mut { stream }, buffer),
            Handle::File(file) => &**file,
        };
        let begin = buffer.len();
        loop {
            let n = borrowing(|| {
                // Reserves the reported size, so that the buffer need not grow. The size of some files is reported
                // wrongly.
                let size = usize::try_from(file.metadata()?.len()).unwrap_or(0);
                buffer.try_reserve(size.clamp(64, AT_ONCE))?;
                file.take(AT_ONCE as u64).read_to_end(buffer)
            })?;
            if n < AT_ONCE {
                return Ok(buffer.len() - begin);
            }
        }
    }

    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Handle::Stream(stream) => stream.write(data),
            Handle::File(file) => borrowing(|| (&**file).write(&data[..data.len().min(AT_ONCE)])),
        }
    }

    /// Writes after `before`: see [`Stream::write_after`].
    pub(crate) fn write_after(&self, data: &[u8], mut before: impl FnMut() -> io::Result<()>) -> io::Result<usize> {
        match self {
            Handle::Stream(stream) => stream.write_after(data, before),
            Handle::File(_) => before().and_then(|()| self.write(data)),
        }
    }

    /// Runs `op`: see [`Stream::when_there_is_room`].
    pub(crate) fn when_there_is_room(&self, mut op: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        match self {
            Handle::Stream(stream) => stream.when_there_is_room(op),
            Handle::File(_) => op(),
        }
    }

    pub(crate) fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Handle::Stream(stream) => stream.write_vectored(pieces),
            Handle::File(file) => borrowing(|| (&**file).write_vectored(pieces)),
        }
    }
}

impl AsFd for Handle {
    #[track_caller]
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Handle::Stream(stream) => stream.as_fd(),
            Handle::File(file) => file.as_fd(),
        }
    }
}

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Handle::Stream(stream) => stream.as_raw_fd(),
            Handle::File(file) => file.as_raw_fd(),
        }
    }
}

/// Determines the kind of a file. A hub can wait for streams, whatever their file type.
pub(crate) fn kind(file: &File) -> io::Result<FileKind> {
    use std::os::unix::fs::FileTypeExt;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    let is_file = if kind.is_file() {
        // Files of proc and tracefs may wait, and report no size. Files that can be written skip the check.
        metadata.len() > 0 || !is_read_only(file) || !can_be_waited_for(file)
    } else {
        kind.is_dir() || kind.is_symlink() || kind.is_block_device()
    };
    // The rest are pipes, sockets, devices, and descriptors without a type, such as eventfd.
    Ok(if is_file { FileKind::File } else { FileKind::Stream })
}

fn is_read_only(file: &File) -> bool {
    use rustix::fs::OFlags;
    rustix::fs::fcntl_getfl(file).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDONLY)
}

/// Returns true if a non-blocking call on the file neither waits, nor fails where no hub can wait for the file.
fn keeps_mode(file: &File) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let Ok(metadata) = file.metadata() else { return false };
    let kind = metadata.file_type();
    kind.is_fifo() || (kind.is_char_device() && can_be_waited_for(file))
}

/// Returns true if the system can report that the file is ready. It refuses regular files.
#[cfg(target_os = "linux")]
fn can_be_waited_for(file: &File) -> bool {
    use rustix::event::epoll;
    let probe = epoll::create(epoll::CreateFlags::CLOEXEC);
    probe.is_ok_and(|set| epoll::add(&set, file, epoll::EventData::new_u64(0), epoll::EventFlags::IN).is_ok())
}

#[cfg(not(target_os = "linux"))]
fn can_be_waited_for(file: &File) -> bool {
    io::IsTerminal::is_terminal(file)
}

/// A pool of its own, so that blocking jobs of the program do not delay files, nor the other way round.
static FILES: ThreadPool = ThreadPool::named("greenhub-files", 64);

/// Runs a job in the pool. The job goes on if its caller stops waiting for it.
#[track_caller]
pub(crate) fn job<T: Send + 'static>(job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    FILES.execute_io(job)
}

/// Runs a short job in the pool. Its caller waits for it in any case.
pub(crate) fn borrowing<T: Send>(job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    FILES.execute_scoped(job)?
}
