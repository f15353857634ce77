//! The bytes of a client that are received but not used.

use std::io;

use crate::Stream;

/// The number of bytes that a read asks for.
const PIECE: usize = 8 << 10;

/// The input of a connection. Pipelined requests follow each other in it.
#[derive(Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// The number of bytes at the beginning that are used.
    used: usize,
}

impl Input {
    /// Returns the bytes that are not used.
    pub(super) fn unused(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// Marks bytes as used.
    pub(super) fn consume(&mut self, amount: usize) {
        self.used += amount;
        debug_assert!(self.used <= self.bytes.len());
    }

    /// Receives more bytes, and returns their number, 0 at the end of the connection. Switches.
    pub(super) fn receive(&mut self, stream: &mut dyn Stream) -> io::Result<usize> {
        self.bytes.drain(..self.used);
        self.used = 0;
        let filled = self.bytes.len();
        self.bytes.resize(filled + PIECE, 0);
        // An exit that unwinds the read ends the connection, so the zeros behind the input do no harm.
        let received = loop {
            match stream.read(&mut self.bytes[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        self.bytes.truncate(filled + received.as_ref().map_or(0, |amount| *amount));
        received
    }
}
