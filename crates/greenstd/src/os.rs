//! std's `os`: descriptors, and the Unix parts of sockets, files and processes.

/// std's `os::fd`, unchanged.
pub mod fd {
    pub use std::os::fd::*;
}

#[cfg(unix)]
/// std's `os::unix`: the modules that have green items.
pub mod unix {
    pub mod fs;
    /// std's `os::unix::io`, unchanged.
    pub mod io {
        pub use std::os::unix::io::*;
    }
    pub mod net;
    pub mod process;

    /// std's `os::unix::prelude`: the extension traits of this module, and those of std.
    pub mod prelude {
        pub use super::fs::{DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
        pub use super::io::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
        pub use super::process::{CommandExt, ExitStatusExt};
        pub use std::os::unix::ffi::{OsStrExt, OsStringExt};
    }
}
