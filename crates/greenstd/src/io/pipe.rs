//! Anonymous pipes.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll};

use crate::stream::Stream;

/// Creates an anonymous pipe, std's `io::pipe`. Does not switch.
///
/// Data that is written to one end is read from the other.
///
/// ```
/// use std::io::{Read, Write};
/// let (mut reader, mut writer) = greenhub::io::pipe()?;
/// greenhub::spawn_n(move || writer.write_all(b"hello").unwrap());
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?; // parks until the other end is dropped
/// assert_eq!(text, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns an error if no descriptors are free.
#[doc(alias = "GreenPipe")]
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    Ok((PipeReader(Stream::own(reader.into())?), PipeWriter(Stream::own(writer.into())?)))
}

/// The read end of an anonymous pipe, std's `PipeReader`. Reading parks only the calling green thread.
///
/// It is `Send + Sync`; a second green thread that reads needs a [clone](PipeReader::try_clone).
pub struct PipeReader(Stream);

/// The write end of an anonymous pipe, std's `PipeWriter`. Writing parks only the calling green thread.
///
/// It is `Send + Sync`; a second green thread that writes needs a [clone](PipeWriter::try_clone).
pub struct PipeWriter(Stream);

pipe_common!(PipeReader, std::io::PipeReader);
pipe_common!(PipeWriter, std::io::PipeWriter);
pipe_read!(PipeReader, &PipeReader);
pipe_write!(PipeWriter, &PipeWriter);
pipe_poll_read!(PipeReader);
pipe_poll_write!(PipeWriter);

impl PipeReader {
    /// Creates a new handle to the same end, which is watched on its own. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptor is free, or if the descriptor of this handle was closed.
    pub fn try_clone(&self) -> io::Result<PipeReader> {
        Ok(PipeReader(self.0.try_clone()?))
    }
}

impl PipeWriter {
    /// Creates a new handle to the same end, which is watched on its own. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptor is free, or if the descriptor of this handle was closed.
    pub fn try_clone(&self) -> io::Result<PipeWriter> {
        Ok(PipeWriter(self.0.try_clone()?))
    }
}
