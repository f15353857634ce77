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

/// An object providing access to an open file, std's `File`.
///
/// Reading, writing and queries park the calling green thread; seeking and closing do not. It is `Send + Sync`, and
/// several green threads may use it at the same time.
///
/// ```
/// use greenhub::fs::{File, remove_file};
/// use std::io::{Read, Write};
/// # let path = std::env::temp_dir().join(format!("greenstd-file-{}", std::process::id()));
/// File::create(&path)?.write_all(b"hello")?;
/// let mut text = String::new();
/// File::open(&path)?.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "GreenPipe")]
#[doc(alias = "FileObject")]
#[doc(alias = "FileObjectThread")]
#[doc(alias = "tp_read")]
#[doc(alias = "tp_write")]
pub struct File(pub(super) Handle);

// Opening, handing over.
impl File {
    /// Opens a file in read-only mode. Switches.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn open<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().read(true).open(path)
    }

    /// Opens a file in write-only mode. Switches.
    ///
    /// It creates the file if it does not exist, and truncates it if it does.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn create<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// Creates a new file in read-write mode; fails if the file exists. Switches.
    ///
    /// # Errors
    ///
    /// Like std's: [`AlreadyExists`](io::ErrorKind::AlreadyExists).
    pub fn create_new<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    /// Returns a new [`OpenOptions`] object.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Converts a std file. Does not switch.
    #[must_use]
    pub fn from_std(file: std::fs::File) -> File {
        File(Handle::from_fd(file.into()))
    }

    /// Converts into a std file. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if an abandoned job still holds the file, and no descriptor is free for another one.
    pub fn into_std(self) -> io::Result<std::fs::File> {
        match self.0 {
            Handle::Stream(stream) => Ok(stream.into_fd()?.into()),
            Handle::File(file) => Arc::try_unwrap(file).or_else(|file| file.try_clone()),
        }
    }

    /// Returns true if the file is a terminal. Does not switch.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.as_fd().is_terminal()
    }

    /// Creates a new `File` instance with the same underlying file and position. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptor is free.
    pub fn try_clone(&self) -> io::Result<File> {
        Ok(File(match &self.0 {
            Handle::Stream(stream) => Handle::Stream(stream.try_clone()?),
            Handle::File(file) => Handle::File(Arc::new(file.try_clone()?)),
        }))
    }
}

// Attributes that the system keeps.
impl File {
    /// Runs a job. If an exit unwinds the caller, the job goes on without it.
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

    /// Attempts to sync all OS-internal file content and metadata to disk. Switches.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn sync_all(&self) -> io::Result<()> {
        self.job(std::fs::File::sync_all)
    }

    /// Like [`sync_all`](File::sync_all), except that it might not synchronize file metadata. Switches.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn sync_data(&self) -> io::Result<()> {
        self.job(std::fs::File::sync_data)
    }

    /// Truncates the underlying file, or extends it with zeros. Switches.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        self.job(move |file| file.set_len(size))
    }

    /// Queries metadata about the underlying file. Switches.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.job(std::fs::File::metadata)
    }

    /// Changes the permissions on the underlying file. Switches.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.job(|file| file.set_permissions(permissions))
    }

    /// Changes the timestamps of the underlying file. Switches.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn set_times(&self, times: FileTimes) -> io::Result<()> {
        self.job(move |file| file.set_times(times))
    }

    /// Changes the modification time of the underlying file. Switches.
    ///
    /// # Errors
    ///
    /// Like std's.
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
            // A seek does not access the disk.
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
            // The system refuses the call for streams without positions, such as pipes.
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
    /// Takes ownership of a descriptor of any kind. Does not switch.
    fn from(fd: OwnedFd) -> File {
        File(Handle::from_fd(fd))
    }
}

impl From<File> for OwnedFd {
    /// Calls [`into_std`](File::into_std).
    ///
    /// # Panics
    ///
    /// Panics if `into_std` returns an error.
    #[track_caller]
    fn from(file: File) -> OwnedFd {
        match file.into_std() {
            Ok(file) => file.into(),
            Err(error) => panic!("File: cannot give the descriptor away: {error}"),
        }
    }
}

impl From<File> for std::process::Stdio {
    /// Converts the file for a child.
    ///
    /// # Panics
    ///
    /// Panics if [`into_std`](File::into_std) returns an error.
    #[track_caller]
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
