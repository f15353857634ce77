//! std's `os::unix::fs`: the Unix parts of files.

use std::io;
use std::path::Path;

pub use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};

use crate::fs::{DirBuilder, DirEntry, OpenOptions};
use crate::handle::job;

/// Unix-specific extensions to [`OpenOptions`], std's `OpenOptionsExt`.
///
/// ```
/// use greenhub::fs::OpenOptions;
/// use greenhub::os::unix::fs::OpenOptionsExt;
/// # let path = std::env::temp_dir().join(format!("greenstd-options-ext-{}", std::process::id()));
/// let private = OpenOptions::new().write(true).create(true).mode(0o600).open(&path)?;
/// # drop(private);
/// # greenhub::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait OpenOptionsExt: private::Sealed {
    /// Sets the mode bits that a new file will be created with.
    fn mode(&mut self, mode: u32) -> &mut Self;

    /// Passes custom flags to the system.
    fn custom_flags(&mut self, flags: i32) -> &mut Self;
}

/// Unix-specific extensions to [`DirBuilder`], std's `DirBuilderExt`.
pub trait DirBuilderExt: private::Sealed {
    /// Sets the mode to create new directories with.
    fn mode(&mut self, mode: u32) -> &mut Self;
}

/// Unix-specific extensions to [`DirEntry`], std's `DirEntryExt`.
pub trait DirEntryExt: private::Sealed {
    /// Returns the underlying inode number. Does not switch.
    fn ino(&self) -> u64;
}

mod private {
    pub trait Sealed {}
    impl Sealed for super::OpenOptions {}
    impl Sealed for super::DirBuilder {}
    impl Sealed for super::DirEntry {}
}

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
