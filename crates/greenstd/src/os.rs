//! std's `os`, as far as it is about descriptors and sockets.

/// std's `os::fd`, unchanged.
pub mod fd {
    pub use std::os::fd::*;
}

#[cfg(unix)]
/// std's `os::unix`, as far as it has something green.
pub mod unix {
    pub mod net;
}
