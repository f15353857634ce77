//! std's `os`, as far as it is about descriptors, sockets, files and processes.

/// std's `os::fd`, unchanged.
pub mod fd {
    pub use std::os::fd::*;
}

#[cfg(unix)]
/// std's `os::unix`, as far as it has something green.
pub mod unix {
    pub mod fs;
    /// std's `os::unix::io`, unchanged.
    pub mod io {
        pub use std::os::unix::io::*;
    }
    pub mod net;
    pub mod process;
}
