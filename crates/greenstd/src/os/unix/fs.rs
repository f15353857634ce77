//! std's `os::unix::fs`: what files have on Unix only.
//!
//! `OpenOptionsExt` and `DirBuilderExt` are methods of [`OpenOptions`](crate::fs::OpenOptions) and
//! [`DirBuilder`](crate::fs::DirBuilder).

use std::io;
use std::path::Path;

pub use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};

use crate::handle::job;

/// Makes a symbolic link, std's `symlink`. Switches.
///
/// # Errors
///
/// As std's.
pub fn symlink<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    let (original, link) = (original.as_ref().to_owned(), link.as_ref().to_owned());
    job(move || std::os::unix::fs::symlink(original, link))
}

/// Gives a file to somebody else, std's `chown`. Switches.
///
/// # Errors
///
/// As std's.
pub fn chown<P: AsRef<Path>>(path: P, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    job(move || std::os::unix::fs::chown(path, uid, gid))
}

/// As [`chown`], but of a symbolic link itself. Switches.
///
/// # Errors
///
/// As std's.
pub fn lchown<P: AsRef<Path>>(path: P, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    job(move || std::os::unix::fs::lchown(path, uid, gid))
}
