//! std's `fs`, green: files are read and written on a pool of OS threads, because no hub can wait for a disk. The pool
//! has 64 threads at most; the jobs of [`tpool`](crate::tpool) run on others.
//!
//! # What it costs
//!
//! Each call is a job of that pool, so a small read or write takes as long as handing it to another OS thread and
//! back: some 10 to 30 µs, where the system alone needs 1 µs for what it has in memory. So large pieces are better
//! than small ones: [`read`] and [`write()`] for whole files, [`BufReader`](std::io::BufReader) and
//! [`BufWriter`](std::io::BufWriter) with a capacity of 64 KiB and more. Reading and writing copy nothing. For
//! small files that are certainly in memory, std's own calls are cheaper.
//!
//! # Kills and timeouts
//!
//! A green thread that is killed or times out in [`File`]'s reading and writing of a file leaves when the call has
//! ended, of 1 MiB at most. From everything else it leaves at once; what the system was asked for is done all the
//! same.
//!
//! The hub waits for every file that the system can report, whatever its type: a named pipe, a terminal, another device,
//! or a descriptor such as an eventfd. Opening a named pipe waits for the other side as in std, and can be left at once.

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
use options::Opened;

/// A function of std for one path.
fn at<T: Send + 'static>(
    path: impl AsRef<Path>,
    op: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path = path.as_ref().to_owned();
    job(move || op(path))
}

/// A function of std for two paths.
fn between<T: Send + 'static>(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    op: impl FnOnce(PathBuf, PathBuf) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    job(move || op(from, to))
}

/// Reads a whole file, std's `read`: one job, but for a stream. Switches.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// # let path = std::env::temp_dir().join(format!("greenstd-read-{}", std::process::id()));
/// greenstd::fs::write(&path, "some bytes")?;
/// assert_eq!(greenstd::fs::read(&path)?, b"some bytes");
/// greenstd::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// As std's.
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
    // So that it need not grow. The system tells a wrong size of some files.
    let size = file.metadata().map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or(0));
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a whole file of text, std's `read_to_string`: one job, but for a stream. Switches.
///
/// # Errors
///
/// As std's: [`InvalidData`](io::ErrorKind::InvalidData) for what is not UTF-8.
pub fn read_to_string<P: AsRef<Path>>(path: P) -> io::Result<String> {
    let bytes = read(path)?;
    // The same words as std's.
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

/// Makes a file of these contents, or replaces those of one that is there, std's `write`. Switches.
///
/// # Errors
///
/// As std's.
pub fn write<P: AsRef<Path>, C: AsRef<[u8]>>(path: P, contents: C) -> io::Result<()> {
    File::create(path)?.write_all(contents.as_ref())
}

/// Copies the contents and the permissions of a file, std's `copy`: one job. Switches.
///
/// # Errors
///
/// As std's.
pub fn copy<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<u64> {
    let copied = between(&from, &to, |from, to| {
        if is_special(&from) || is_special(&to) { Ok(None) } else { std::fs::copy(from, to).map(Some) }
    })?;
    match copied {
        Some(bytes) => Ok(bytes),
        None => copy_special(from.as_ref(), to.as_ref()),
    }
}

/// Whether opening or using it may wait for anything but a disk.
fn is_special(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let kind = std::fs::metadata(path).map(|metadata| metadata.file_type());
    kind.is_ok_and(|kind| kind.is_fifo() || kind.is_char_device())
}

/// As std's `copy`, for a pipe or a device as source, which is refused, or as destination.
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

/// Gives a file or directory another name, std's `rename`. Switches.
///
/// # Errors
///
/// As std's.
pub fn rename<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<()> {
    between(from, to, std::fs::rename)
}

/// Gives a file one more name, std's `hard_link`. Switches.
///
/// # Errors
///
/// As std's.
pub fn hard_link<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    between(original, link, std::fs::hard_link)
}

/// Removes a file, std's `remove_file`. Switches.
///
/// # Errors
///
/// As std's.
pub fn remove_file<P: AsRef<Path>>(path: P) -> io::Result<()> {
    at(path, std::fs::remove_file)
}

/// Makes a directory, std's `create_dir`. Switches.
///
/// # Errors
///
/// As std's.
pub fn create_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    at(path, std::fs::create_dir)
}

/// Makes a directory and those above it that are missing, std's `create_dir_all`. Switches.
///
/// # Errors
///
/// As std's.
pub fn create_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    at(path, std::fs::create_dir_all)
}

/// Removes an empty directory, std's `remove_dir`. Switches.
///
/// # Errors
///
/// As std's.
pub fn remove_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    at(path, std::fs::remove_dir)
}

/// Removes a directory with everything in it, std's `remove_dir_all`: one job. Switches.
///
/// # Errors
///
/// As std's.
pub fn remove_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    at(path, std::fs::remove_dir_all)
}

/// What is known of the file at a path, std's `metadata`. Switches.
///
/// # Errors
///
/// As std's.
pub fn metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    at(path, std::fs::metadata)
}

/// As [`metadata`], but of a symbolic link itself. Switches.
///
/// # Errors
///
/// As std's.
pub fn symlink_metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    at(path, std::fs::symlink_metadata)
}

/// Whether something is at a path, std's `exists`. Switches.
///
/// # Errors
///
/// As std's: if it cannot be found out.
pub fn exists<P: AsRef<Path>>(path: P) -> io::Result<bool> {
    at(path, std::fs::exists)
}

/// Where a symbolic link leads, std's `read_link`. Switches.
///
/// # Errors
///
/// As std's.
pub fn read_link<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    at(path, std::fs::read_link)
}

/// The absolute path without symbolic links, std's `canonicalize`. Switches.
///
/// # Errors
///
/// As std's.
pub fn canonicalize<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    at(path, std::fs::canonicalize)
}

/// Changes the permissions of a file, std's `set_permissions`. Switches.
///
/// # Errors
///
/// As std's.
pub fn set_permissions<P: AsRef<Path>>(path: P, permissions: Permissions) -> io::Result<()> {
    at(path, |path| std::fs::set_permissions(path, permissions))
}
