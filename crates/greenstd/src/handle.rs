//! Whatever may be behind a descriptor: a stream, for which a hub can wait, or a file, which only blocks.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use hub_core::ThreadPool;

use crate::stream::Stream;

/// What a file is asked for in one job, during which a kill of the caller has to wait.
const AT_ONCE: usize = 1 << 20;

pub(crate) enum Handle {
    Stream(Stream),
    /// A regular file, a directory, a disk.
    File(Arc<File>),
}

impl Handle {
    /// Takes over a file; `is_stream` as [`is_stream`] says.
    pub(crate) fn new(file: File, is_stream: bool) -> Handle {
        if is_stream { Handle::Stream(Stream::shared(file.into())) } else { Handle::File(Arc::new(file)) }
    }

    /// Takes over a descriptor of anything. One that nothing can be learned of says so when it is used.
    pub(crate) fn from_fd(fd: OwnedFd) -> Handle {
        let file = File::from(fd);
        let is_stream = is_stream(&file).unwrap_or(false);
        Handle::new(file, is_stream)
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

    /// Reads all that is left, by few jobs.
    pub(crate) fn read_to_end(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let file = match self {
            Handle::Stream(stream) => return Read::read_to_end(&mut { stream }, buffer),
            Handle::File(file) => &**file,
        };
        let begin = buffer.len();
        loop {
            let n = borrowing(|| {
                // So that it need not grow. What it is told about some files is wrong.
                let size = usize::try_from(file.metadata()?.len()).unwrap_or(0);
                buffer.try_reserve(size.clamp(64, AT_ONCE))?;
                file.take(AT_ONCE as u64).read_to_end(buffer)
            })?;
            if n < AT_ONCE {
                return Ok(buffer.len() - begin);
            }
        }
    }

    /// Writes, after `before`, as [`Stream::write_after`].
    pub(crate) fn write_after(&self, data: &[u8], mut before: impl FnMut() -> io::Result<()>) -> io::Result<usize> {
        match self {
            Handle::Stream(stream) => stream.write_after(data, before),
            Handle::File(file) => {
                before()?;
                borrowing(|| (&**file).write(&data[..data.len().min(AT_ONCE)]))
            }
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

/// Whether it is a pipe, a terminal, a socket or the like.
pub(crate) fn is_stream(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt;
    let kind = file.metadata()?.file_type();
    Ok(kind.is_fifo() || kind.is_char_device() || kind.is_socket())
}

/// Of its own, so that other jobs that block do not keep files waiting, nor the other way round.
static FILES: ThreadPool = ThreadPool::named("greenhub-files", 64);

/// Runs a job of the pool that lives on if its caller does not wait for it any more.
pub(crate) fn job<T: Send + 'static>(job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    FILES.execute(job)?
}

/// Runs a job of the pool for which its caller waits in any case: a short one.
pub(crate) fn borrowing<T: Send>(job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    FILES.execute_scoped(job)?
}
