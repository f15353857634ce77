//! std's `fs`, green: files are read and written on the OS threads of [`tpool`](crate::tpool), because no hub can
//! wait for a disk.
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
//! What is a stream (a named pipe, a terminal, another device) is waited for by the hub, once it is open. Opening a
//! named pipe takes an OS thread of the pool until the other side opens it, too.

mod dir;
mod file;
mod options;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use std::fs::{FileTimes, FileType, Metadata, Permissions};

pub use dir::{DirBuilder, DirEntry, ReadDir, read_dir};
pub use file::File;
pub use options::OpenOptions;

use crate::handle::job;

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

/// Reads a whole file, std's `read`: one job. Switches.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hub-core/tests/support/doctest.rs")); }
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
    at(path, std::fs::read)
}

/// Reads a whole file of text, std's `read_to_string`: one job. Switches.
///
/// # Errors
///
/// As std's: [`InvalidData`](io::ErrorKind::InvalidData) for what is not UTF-8.
pub fn read_to_string<P: AsRef<Path>>(path: P) -> io::Result<String> {
    at(path, std::fs::read_to_string)
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
    between(from, to, std::fs::copy)
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
