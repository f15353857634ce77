//! std's `os::unix::fs`: the Unix parts of files.
//!
//! `OpenOptionsExt` and `DirBuilderExt` are methods of [`OpenOptions`](crate::fs::OpenOptions) and
//! [`DirBuilder`](crate::fs::DirBuilder).

use std::io;
use std::path::Path;

pub use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};

use crate::handle::job;

/// Creates a new symbolic link on the filesystem, std's `symlink`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn symlink<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    let (original, link) = (original.as_ref().to_owned(), link.as_ref().to_owned());
    job(move || std::os::unix::fs::symlink(original, link))
}

/// Changes the owner and group of the specified path, std's `chown`. Switches.
///
/// # Errors
///
/// Like std's.
pub fn chown<P: AsRef<Path>>(path: P, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    job(move || std::os::unix::fs::chown(path, uid, gid))
}

/// Like [`chown`], without following a symbolic link. Switches.
///
/// # Errors
///
/// Like std's.
pub fn lchown<P: AsRef<Path>>(path: P, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    job(move || std::os::unix::fs::lchown(path, uid, gid))
}
