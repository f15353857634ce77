//! Tokio's traits.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{AsyncIo, PollRead, PollWrite};

#[cfg_attr(docsrs, doc(cfg(feature = "tokio-io")))]
impl<S: PollRead + Unpin> AsyncRead for AsyncIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let n = ready!(AsyncIo::poll_read(self.get_mut(), cx, buffer.initialize_unfilled()))?;
        buffer.advance(n);
        Poll::Ready(Ok(()))
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "tokio-io")))]
impl<S: PollWrite + Unpin> AsyncWrite for AsyncIo<S> {
    write_methods! { poll_shutdown }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
