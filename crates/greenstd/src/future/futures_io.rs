//! [`AsyncIo`] as `AsyncRead` and `AsyncWrite` of the crate `futures-io`.

use std::io::{self, IoSliceMut};
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
    write_methods! { poll_close }
}
