//! [`AsyncIo`] as `AsyncRead` and `AsyncWrite` of the crate `futures-io`.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use super::{AsyncIo, PollRead, PollWrite};

#[cfg_attr(docsrs, doc(cfg(feature = "futures-io")))]
impl<S: PollRead + Unpin> AsyncRead for AsyncIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        AsyncIo::poll_read(self.get_mut(), cx, buffer)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncIo::poll_read_vectored(self.get_mut(), cx, buffers)
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "futures-io")))]
impl<S: PollWrite + Unpin> AsyncWrite for AsyncIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        AsyncIo::poll_write(self.get_mut(), cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncIo::poll_write_vectored(self.get_mut(), cx, pieces)
    }

    /// Does nothing: there is no buffer.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the data: see [`PollWrite::end_write`].
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(AsyncIo::get_ref(&self).end_write())
    }
}
