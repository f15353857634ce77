//! A green stream for futures, and its peer.

use std::io::{Read, Write};

use greenhub::future::AsyncIo;
use greenhub::os::unix::net::UnixStream;
use greenhub::{GreenThread, spawn};

/// Returns a stream for futures, and its peer.
pub(crate) fn pair() -> (AsyncIo<UnixStream>, UnixStream) {
    let (here, there) = UnixStream::pair().expect("a pair");
    (AsyncIo::new(here), there)
}

/// Reads a text to its end, and then sends it back in upper case.
pub(crate) fn spawn_upper_case(mut stream: UnixStream) -> GreenThread<()> {
    spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the end");
        stream.write_all(text.to_uppercase().as_bytes()).expect("the other half is open");
    })
}
