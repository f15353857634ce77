//! The limit of descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of descriptors to the greatest value that the system allows this process.
///
/// Programs with thousands of sockets do this first, since the usual limit is 1024.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If it fails, the limit stays, and a socket too many is an error with a name.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
