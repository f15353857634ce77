//! Green sockets and pipes for asynchronous code.
//!
//! [`AsyncIo`] gives a green stream the traits of an asynchronous ecosystem, so that a library of that ecosystem runs
//! over it unchanged, on every hub and without a runtime. Each feature brings the traits of one ecosystem:
//!
//! | feature | traits of `AsyncIo` |
//! |---|---|
//! | `tokio-io` | `tokio::io::AsyncRead`, `AsyncWrite` |
//! | `futures-io` | `futures_io::AsyncRead`, `AsyncWrite` |
//! | `hyper-io` | `hyper::rt::Read`, `Write`; `GreenExecutor` and `GreenTimer` are hyper's executor and timer |
//!
//! The example `hyper_server` of greenhub is a web server by hyper with one green thread for each connection.
//!
//! Without a feature there are the methods of [`AsyncIo`] itself, and the traits [`PollRead`], [`PollWrite`] and
//! [`PollAccept`].
//!
//! The futures are polled where the loop of the OS thread runs: by `block_on` or in a green thread of `spawn_future`.
//! A stream that is polled by another executor makes progress only while something runs that loop.

/// The methods that the asynchronous traits for writing share. Each names the end of the data in its own way.
#[cfg(any(feature = "tokio-io", feature = "futures-io", feature = "hyper-io"))]
macro_rules! write_methods {
    ($end:ident) => {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            data: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            crate::future::AsyncIo::poll_write(self.get_mut(), cx, data)
        }

        fn poll_write_vectored(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            pieces: &[std::io::IoSlice<'_>],
        ) -> std::task::Poll<std::io::Result<usize>> {
            crate::future::AsyncIo::poll_write_vectored(self.get_mut(), cx, pieces)
        }

        /// Does nothing: there is no buffer.
        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }

        /// Ends the data: see [`PollWrite::end_write`](crate::future::PollWrite::end_write).
        fn $end(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(crate::future::AsyncIo::get_ref(&self).end_write())
        }
    };
}

#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "hyper-io")]
mod hyper_io;
#[cfg(feature = "tokio-io")]
mod tokio_io;

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use hub_core::hub::Interest;

#[cfg(feature = "hyper-io")]
pub use hyper_io::{GreenExecutor, GreenTimer};

/// A green object that futures poll. [`AsyncIo`] is the adapter over it.
///
/// The green streams, listeners and pipes implement it, and so do references to them, `Rc`s and `Arc`s. A type over a
/// [`Source`](hub_core::Source) implements it by the methods of the same names.
pub trait PollIo {
    /// Cancels the armed wakers in `directions`, and wakes them: see
    /// [`Source::cancel_poll`](hub_core::Source::cancel_poll).
    fn cancel_poll(&self, directions: Interest);
}

/// A green stream from which futures read.
///
/// Timeouts and the non-blocking mode of a socket do not concern polls, which never wait.
pub trait PollRead: PollIo {
    /// Reads, or arms the waker of `cx` for data: see [`Source::poll`](hub_core::Source::poll). Does not switch.
    ///
    /// # Errors
    ///
    /// Returns the errors of a read, and [`ResourceBusy`](io::ErrorKind::ResourceBusy) if a green thread waits to read.
    /// Returns [`Unsupported`](io::ErrorKind::Unsupported) for a pipe whose reads may block the OS thread, because
    /// another process shares it and the system offers no other call.
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Like [`poll_read`](PollRead::poll_read), into several buffers in order. Does not switch.
    ///
    /// # Errors
    ///
    /// The same as [`poll_read`](PollRead::poll_read).
    fn poll_read_vectored(&self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>>;
}

/// A green stream to which futures write.
pub trait PollWrite: PollIo {
    /// Writes, or arms the waker of `cx` for room: see [`Source::poll`](hub_core::Source::poll). Does not switch.
    ///
    /// # Errors
    ///
    /// Returns the errors of a write, and otherwise the same as [`poll_read`](PollRead::poll_read).
    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;

    /// Like [`poll_write`](PollWrite::poll_write), from several buffers in order. Does not switch.
    ///
    /// # Errors
    ///
    /// The same as [`poll_write`](PollWrite::poll_write).
    fn poll_write_vectored(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Ends the data, so that the peer reads to its end. Does not switch.
    ///
    /// A socket shuts down its writing half. A pipe is closed.
    ///
    /// # Errors
    ///
    /// Returns an error if the socket is not connected.
    fn end_write(&self) -> io::Result<()>;
}

/// A green listener at which futures accept.
pub trait PollAccept: PollIo {
    /// The type of a connection.
    type Stream;
    /// The type of the peer's address.
    type Address;

    /// Accepts, or arms the waker of `cx` for a connection: see [`Source::poll`](hub_core::Source::poll). Does not
    /// switch.
    ///
    /// # Errors
    ///
    /// Returns the errors of an accept, and [`ResourceBusy`](io::ErrorKind::ResourceBusy) if a green thread waits to
    /// accept. Returns [`Unsupported`](io::ErrorKind::Unsupported) if the listener blocks, because another process
    /// shares it.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Self::Address)>>;
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<S: PollIo + ?Sized> PollIo for $pointer {
            fn cancel_poll(&self, directions: Interest) {
                S::cancel_poll(self, directions);
            }
        }

        impl<S: PollRead + ?Sized> PollRead for $pointer {
            fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
                S::poll_read(self, cx, buffer)
            }

            fn poll_read_vectored(
                &self,
                cx: &mut Context<'_>,
                buffers: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                S::poll_read_vectored(self, cx, buffers)
            }
        }

        impl<S: PollWrite + ?Sized> PollWrite for $pointer {
            fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
                S::poll_write(self, cx, data)
            }

            fn poll_write_vectored(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
                S::poll_write_vectored(self, cx, pieces)
            }

            fn end_write(&self) -> io::Result<()> {
                S::end_write(self)
            }
        }

        impl<S: PollAccept + ?Sized> PollAccept for $pointer {
            type Stream = S::Stream;
            type Address = S::Address;

            fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(S::Stream, S::Address)>> {
                S::poll_accept(self, cx)
            }
        }
    )*};
}

forward!(&S, Rc<S>, Arc<S>);

/// A green stream or listener with the traits of asynchronous code.
///
/// The traits are those of the [features](self) that are switched on. A wait costs no system call but those of the
/// operation: the stream is registered with the hub once, like that of a green thread. While a poll is pending, a green
/// thread that reads from the same stream is refused with [`ResourceBusy`](io::ErrorKind::ResourceBusy), and the other
/// way round; the two directions are independent. A drop cancels what is pending, as does
/// [`into_inner`](AsyncIo::into_inner). A half in a task of its own is an `AsyncIo` over an `Rc` or an `Arc`. Each
/// direction has one pending poll: that of another adapter of the same stream replaces its waker. The drop of either
/// adapter wakes the waker, so the future of the other one polls again.
///
/// The timeouts of a socket do not apply; a future is given a limit by [`with_timeout`](hub_core::with_timeout) around
/// its `block_on`, or by a timer of its ecosystem.
///
/// ```
/// use greenhub::future::{AsyncIo, block_on};
/// use greenhub::os::unix::net::UnixStream;
/// use std::io::Write;
/// let (one, mut other) = UnixStream::pair()?;
/// let mut one = AsyncIo::new(one);
/// greenhub::spawn_n(move || other.write_all(b"hello").unwrap());
/// let mut buffer = [0; 16];
/// let n = block_on(one.read(&mut buffer))?;
/// assert_eq!(&buffer[..n], b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "Async")]
#[doc(alias = "Compat")]
#[doc(alias = "TokioIo")]
#[derive(Debug)]
pub struct AsyncIo<S: PollIo> {
    /// `None` only in `into_inner`.
    io: Option<S>,
    /// The directions in which the last poll is pending.
    pending: Interest,
}

impl<S: PollIo> AsyncIo<S> {
    /// Adapts a green stream or listener. Does not switch.
    pub fn new(io: S) -> AsyncIo<S> {
        AsyncIo { io: Some(io), pending: Interest::NONE }
    }

    /// Returns a reference to the stream. Operations that do not wait may be called on it.
    pub fn get_ref(&self) -> &S {
        self.io.as_ref().expect("only `into_inner` takes the stream")
    }

    /// Returns a mutable reference to the stream.
    pub fn get_mut(&mut self) -> &mut S {
        self.io.as_mut().expect("only `into_inner` takes the stream")
    }

    /// Returns the stream, for straight-line code. Does not switch.
    ///
    /// ```
    /// use greenhub::future::AsyncIo;
    /// use std::io::{Read, Write};
    /// let (reader, mut writer) = greenhub::io::pipe()?;
    /// let mut reader = AsyncIo::new(reader).into_inner();
    /// writer.write_all(b"hello")?;
    /// drop(writer);
    /// let mut text = String::new();
    /// reader.read_to_string(&mut text)?;
    /// assert_eq!(text, "hello");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_inner(mut self) -> S {
        self.cancel();
        self.io.take().expect("only `into_inner` takes the stream")
    }

    fn cancel(&mut self) {
        let pending = std::mem::replace(&mut self.pending, Interest::NONE);
        if let Some(io) = &self.io
            && !pending.is_empty()
        {
            io.cancel_poll(pending);
        }
    }

    /// Polls in one direction, and records whether that is pending.
    #[inline]
    fn poll<R>(&mut self, direction: Interest, poll: impl FnOnce(&S) -> Poll<R>) -> Poll<R> {
        let polled = poll(self.get_ref());
        self.pending = self.pending.without(direction);
        if polled.is_pending() {
            self.pending |= direction;
        }
        polled
    }
}

impl<S: PollRead> AsyncIo<S> {
    /// Reads some bytes into `buffer`, and returns their number.
    ///
    /// The number is 0 at the end of the data.
    ///
    /// # Errors
    ///
    /// The same as [`PollRead::poll_read`].
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buffer)).await
    }

    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll(Interest::READ, |io| io.poll_read(cx, buffer))
    }

    #[cfg(feature = "futures-io")]
    fn poll_read_vectored(&mut self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        self.poll(Interest::READ, |io| io.poll_read_vectored(cx, buffers))
    }
}

impl<S: PollWrite> AsyncIo<S> {
    /// Writes some bytes of `data`, and returns their number.
    ///
    /// # Errors
    ///
    /// The same as [`PollWrite::poll_write`].
    pub async fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_write(cx, data)).await
    }

    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(Interest::WRITE, |io| io.poll_write(cx, data))
    }

    #[cfg(any(feature = "tokio-io", feature = "futures-io", feature = "hyper-io"))]
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll(Interest::WRITE, |io| io.poll_write_vectored(cx, pieces))
    }
}

impl<S: PollAccept> AsyncIo<S> {
    /// Accepts a connection, and returns it with the address of the peer.
    ///
    /// ```
    /// use greenhub::future::{AsyncIo, block_on};
    /// use greenhub::net::{TcpListener, TcpStream};
    /// let mut listener = AsyncIo::new(TcpListener::bind("127.0.0.1:0")?);
    /// let address = listener.get_ref().local_addr()?;
    /// let client = greenhub::spawn(move || TcpStream::connect(address));
    /// let (_stream, peer) = block_on(listener.accept())?;
    /// assert_eq!(client.join()??.local_addr()?, peer);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`PollAccept::poll_accept`].
    pub async fn accept(&mut self) -> io::Result<(S::Stream, S::Address)> {
        poll_fn(|cx| self.poll(Interest::READ, |io| io.poll_accept(cx))).await
    }
}

impl<S: PollIo> Drop for AsyncIo<S> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<S: PollIo> From<S> for AsyncIo<S> {
    fn from(io: S) -> AsyncIo<S> {
        AsyncIo::new(io)
    }
}
