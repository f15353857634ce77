//! std's `fs` for green threads.
//!
//! Files are read and written on a pool of OS threads, because no hub can wait for a disk. The pool has at most 64 OS
//! threads; the jobs of [`tpool`](crate::tpool) run on others.
//!
//! # Cost
//!
//! Each call is a job of that pool, so a small read or write takes as long as a hand-over to another OS thread and
//! back: some 20 µs, where the system alone needs 1 µs for cached data. So large pieces are better than small
//! ones: [`read`] and [`write()`] for whole files, [`BufReader`](std::io::BufReader) and
//! [`BufWriter`](std::io::BufWriter) with a capacity of at least 64 KiB. Reading and writing copy nothing. For small
//! files that are certainly cached, std's own calls are cheaper.
//!
//! # Exits
//!
//! An [exit](hub_core::is_exit) during a read or write of a [`File`] does not end the job in progress: it strikes at
//! the next wait. Such a job covers at most 1 MiB, but a vectored call, or one at an offset, is a single job of any
//! size. During all other calls an exit strikes at once, and the call to the system is completed all the same.
//!
//! The hub waits for every file whose readiness the system can report, whatever its type: a named pipe, a terminal,
//! another device, or a descriptor such as an eventfd. Opening a named pipe waits for the other side as in std, and an
//! exit ends that wait at once.

mod dir;
mod fifo;
mod file;
mod options;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

pub use std::fs::{FileTimes, FileType, Metadata, Permissions};

pub use dir::{DirBuilder, DirEntry, ReadDir, read_dir};
pub use file::File;
pub use options::OpenOptions;

use crate::handle::{FileKind, job};
use crate::os::unix::fs::OpenOptionsExt;
use options::Opened;

/// Runs a function of std for one path as a job.
fn at<T: Send + 'static>(
    path: impl AsRef<Path>,
    op: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path = path.as_ref().to_owned();
    job(move || op(path))
}

/// Runs a function of std for two paths as a job.
fn between<T: Send + 'static>(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    op: impl FnOnce(PathBuf, PathBuf) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    job(move || op(from, to))
}

/// Reads the entire contents of a file into a bytes vector, std's `read`. Switches.
///
/// It is one job, unless the file is a stream.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("greenstd-read-{}", std::process::id()));
/// greenhub::fs::write(&path, "some bytes")?;
/// assert_eq!(greenhub::fs::read(&path)?, b"some bytes");
/// greenhub::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Like std's.
pub fn read<P: AsRef<Path>>(path: P) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true);
    let job = options.clone();
    let opened = at(path, move |path| match job.open_now(&path)? {
        Opened::File(file, FileKind::File) => Ok(Ok(read_whole(file)?)),
        stream => Ok(Err(stream)),
    })?;
    match opened {
        Ok(bytes) => Ok(bytes),
        Err(stream) => {
            let mut bytes = Vec::new();
            options.finish(stream)?.read_to_end(&mut bytes)?;
            Ok(bytes)
        }
    }
}

fn read_whole(mut file: std::fs::File) -> io::Result<Vec<u8>> {
    // Reserves the reported size, so that the buffer need not grow. The size of some files is reported wrongly.
    let size = file.metadata().map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or(0));
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads the entire contents of a file into a string, std's `read_to_string`. Switches.
///
/// It is one job, unless the file is a stream.
///
/// # Errors
///
/// Like std's: [`InvalidData`](io::ErrorKind::InvalidData) if the contents are not UTF-8.
pub fn read_to_string<P: AsRef<Path>>(path: P) -> io::Result<String> {
    let bytes = read(path)?;
    // The text of std's error.
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

/// Writes a slice as the entire contents of a file, std's `write`. Switches.
///
/// It creates the file, or replaces its contents.
///
/// # Errors
///
/// Like std's.
pub fn write<P: AsRef<Path>, C: AsRef<[u8]>>(path: P, contents: C) -> io::Result<()> {
    File::create(path)?.write_all(contents.as_ref())
}

/// Copies the contents and the permissions of a file, std's `copy`. Switches.
///
/// It is one job, unless a file is a pipe or a device.
///
/// # Errors
///
/// Like std's.
pub fn copy<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<u64> {
    let copied = between(&from, &to, |from, to| {
        if is_special(&from) || is_special(&to) { Ok(None) } else { std::fs::copy(from, to).map(Some) }
    })?;
    match copied {
        Some(bytes) => Ok(bytes),
        None => copy_special(from.as_ref(), to.as_ref()),
    }
}

/// Returns true if opening or using the file may wait for anything but a disk.
fn is_special(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let kind = std::fs::metadata(path).map(|metadata| metadata.file_type());
    kind.is_ok_and(|kind| kind.is_fifo() || kind.is_char_device())
}

/// Like std's `copy`, where one file is a pipe or a device. Refuses it as the source.
fn copy_special(from: &Path, to: &Path) -> io::Result<u64> {
    let mut reader = File::open(from)?;
    let metadata = reader.metadata()?;
    if !metadata.is_file() {
        let text = "the source path is neither a regular file nor a symlink to a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    let mut writer = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(to)?;
    io::copy(&mut reader, &mut writer)
}

/// Renames a file or directory to a new name, std's `rename`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn rename<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<()> {
    between(from, to, std::fs::rename)
}

/// Creates a new hard link on the filesystem, std's `hard_link`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn hard_link<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    between(original, link, std::fs::hard_link)
}

/// Removes a file from the filesystem, std's `remove_file`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn remove_file<P: AsRef<Path>>(path: P) -> io::Result<()> {
    at(path, std::fs::remove_file)
}

/// Creates a new, empty directory at the provided path, std's `create_dir`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn create_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    at(path, std::fs::create_dir)
}

/// Creates a directory and all missing parent directories, std's `create_dir_all`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn create_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    at(path, std::fs::create_dir_all)
}

/// Removes an empty directory, std's `remove_dir`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn remove_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    at(path, std::fs::remove_dir)
}

/// Removes a directory after removing all its contents, std's `remove_dir_all`. Switches.
///
/// It is one job.
///
/// # Errors
///
/// Like std's.
pub fn remove_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    at(path, std::fs::remove_dir_all)
}

/// Queries the file system for information about a file, std's `metadata`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    at(path, std::fs::metadata)
}

/// Like [`metadata`], without following a symbolic link. Switches.
///
/// # Errors
///
/// Like std's.
pub fn symlink_metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    at(path, std::fs::symlink_metadata)
}

/// Returns true if the path points at an existing entity, std's `exists`. Switches.
///
/// # Errors
///
/// Like std's: if the existence cannot be determined.
pub fn exists<P: AsRef<Path>>(path: P) -> io::Result<bool> {
    at(path, std::fs::exists)
}

/// Reads a symbolic link, returning the file that the link points to. std's `read_link`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn read_link<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    at(path, std::fs::read_link)
}

/// Returns the absolute path with all symbolic links resolved. std's `canonicalize`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn canonicalize<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    at(path, std::fs::canonicalize)
}

/// Changes the permissions of a file or directory, std's `set_permissions`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn set_permissions<P: AsRef<Path>>(path: P, permissions: Permissions) -> io::Result<()> {
    at(path, |path| std::fs::set_permissions(path, permissions))
}
