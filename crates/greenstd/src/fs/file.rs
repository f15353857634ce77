//! Open files.

use std::fmt;
use std::fs::{FileTimes, Metadata, Permissions};
use std::io::{self, IoSlice, IoSliceMut, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::OpenOptions;
use crate::handle::{Handle, borrowing, job};
use crate::stream;

/// An open file, std's `File`. What reads, writes or asks for something parks the calling green thread; seeking and
/// closing do not.
///
/// It is `Send + Sync`, and several green threads may use it at the same time.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::fs::{File, remove_file};
/// use std::io::{Read, Write};
/// # let path = std::env::temp_dir().join(format!("greenstd-file-{}", std::process::id()));
/// File::create(&path)?.write_all(b"hello")?;
/// let mut text = String::new();
/// File::open(&path)?.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// remove_file(&path)?;
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
pub struct File(pub(super) Handle);

// Opening, handing over.
impl File {
    /// Opens a file for reading. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn open<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().read(true).open(path)
    }

    /// Makes a file, or empties one that is there, for writing. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn create<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// Makes a file for reading and writing, which must not be there. Switches.
    ///
    /// # Errors
    ///
    /// As std's: [`AlreadyExists`](io::ErrorKind::AlreadyExists).
    pub fn create_new<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    /// [`OpenOptions::new`].
    #[must_use]
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Makes a file of std green. Does not switch.
    #[must_use]
    pub fn from_std(file: std::fs::File) -> File {
        File(Handle::from_fd(file.into()))
    }

    /// Gives the file to std. Does not switch.
    ///
    /// # Errors
    ///
    /// If a job that was left early still has the file, and no descriptor is free for another one.
    pub fn into_std(self) -> io::Result<std::fs::File> {
        match self.0 {
            Handle::Stream(stream) => Ok(stream.into_fd()?.into()),
            Handle::File(file) => Arc::try_unwrap(file).or_else(|file| file.try_clone()),
        }
    }

    /// Whether it is a terminal. Does not switch.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.as_fd().is_terminal()
    }

    /// Another handle of the same file, with the same position. Does not switch.
    ///
    /// # Errors
    ///
    /// If no descriptor is free.
    pub fn try_clone(&self) -> io::Result<File> {
        Ok(File(match &self.0 {
            Handle::Stream(stream) => Handle::Stream(stream.try_clone()?),
            Handle::File(file) => Handle::File(Arc::new(file.try_clone()?)),
        }))
    }
}

// What the system keeps.
impl File {
    /// A job that is left at once by a caller who is killed, and goes on.
    fn job<T: Send + 'static>(
        &self,
        op: impl FnOnce(&std::fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = match &self.0 {
            Handle::File(file) => Arc::clone(file),
            Handle::Stream(stream) => Arc::new(stream.as_fd().try_clone_to_owned()?.into()),
        };
        job(move || op(&file))
    }

    /// Has everything that was written, and what is known of the file, reach the disk. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn sync_all(&self) -> io::Result<()> {
        self.job(std::fs::File::sync_all)
    }

    /// Has everything that was written reach the disk. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn sync_data(&self) -> io::Result<()> {
        self.job(std::fs::File::sync_data)
    }

    /// Cuts the file off, or fills it up with zeros. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        self.job(move |file| file.set_len(size))
    }

    /// What is known of the file. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.job(std::fs::File::metadata)
    }

    /// Changes its permissions. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.job(|file| file.set_permissions(permissions))
    }

    /// Changes its times. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn set_times(&self, times: FileTimes) -> io::Result<()> {
        self.job(move |file| file.set_times(times))
    }

    /// Changes the time of its last change. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.set_times(FileTimes::new().set_modified(time))
    }
}

impl Read for &File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.0.read_vectored(buffers)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.0.read_to_end(buffer)
    }

    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes)?;
        let more = String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        text.push_str(&more);
        Ok(more.len())
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(buffers)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buffer)
    }

    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(text)
    }
}

impl Write for &File {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for File {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        match &self.0 {
            // No disk is asked for this.
            Handle::File(file) => (&**file).seek(position),
            Handle::Stream(stream) => stream.seek(position),
        }
    }
}

impl Seek for File {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        (&*self).seek(position)
    }
}

impl FileExt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.0 {
            Handle::File(file) => borrowing(|| file.read_at(buffer, offset)),
            // The system refuses it for streams without positions, such as pipes.
            Handle::Stream(stream) => stream::borrowing(|| Ok(rustix::io::pread(stream, buffer, offset)?)),
        }
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        match &self.0 {
            Handle::File(file) => borrowing(|| file.write_at(data, offset)),
            Handle::Stream(stream) => stream::borrowing(|| Ok(rustix::io::pwrite(stream, data, offset)?)),
        }
    }
}

impl From<std::fs::File> for File {
    fn from(file: std::fs::File) -> File {
        File::from_std(file)
    }
}

impl From<OwnedFd> for File {
    /// Takes over a descriptor of anything. Does not switch.
    fn from(fd: OwnedFd) -> File {
        File(Handle::from_fd(fd))
    }
}

impl From<File> for OwnedFd {
    /// [`into_std`](File::into_std).
    ///
    /// # Panics
    ///
    /// If that is an error.
    fn from(file: File) -> OwnedFd {
        match file.into_std() {
            Ok(file) => file.into(),
            Err(error) => panic!("File: cannot give the descriptor away: {error}"),
        }
    }
}

impl From<File> for std::process::Stdio {
    /// For a child.
    ///
    /// # Panics
    ///
    /// As [`into_std`](File::into_std) fails.
    fn from(file: File) -> std::process::Stdio {
        OwnedFd::from(file).into()
    }
}

impl IntoRawFd for File {
    fn into_raw_fd(self) -> RawFd {
        OwnedFd::from(self).into_raw_fd()
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Handle::File(file) => file.fmt(f),
            Handle::Stream(stream) => f.debug_struct("File").field("fd", &stream.as_raw_fd()).finish(),
        }
    }
}
