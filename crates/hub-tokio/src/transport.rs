//! Asynchronous streams as blocking ones of green threads.

mod flow;
mod turn;

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::mem;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hub_core::consume_budget;
use hub_core::future::{block_on, sleep, try_block_on};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Mutex, MutexGuard};

use self::flow::{Flow, is_temporary};
pub(crate) use self::turn::Turn;

/// A stream of Tokio as a blocking stream of green threads.
///
/// It reads and writes as std's `TcpStream` does, and an operation that waits parks only its green thread. The stream
/// may be any that has Tokio's `AsyncRead` and `AsyncWrite`: a socket, a TLS session over one, a `tokio::io::duplex`. A
/// stream that needs no reactor works on every hub; a socket of Tokio needs its runtime to be driven, by the hub
/// `tokio` or elsewhere. Eventlet's `GreenTransport`, from its years on Twisted.
///
/// - **Reads** take from the stream only while a green thread reads: the transport has no buffer of its own. A
///   connection that was lost gives the data that came before, then its error once, then the end of the file for ever.
/// - **Writes** return when the stream has flushed what it accepted. A connection that was lost fails each further
///   write with the reason.
/// - **Kills and timeouts** lose no data: a read that they end has taken none, and bytes that the stream has accepted
///   are flushed by the next write.
/// - **Sharing**: `&GreenTransport` reads and writes, too, on one OS thread or several. Reads and writes do not wait
///   for each other. A second simultaneous reader, or writer, is an error of the kind
///   [`ResourceBusy`](io::ErrorKind::ResourceBusy), unless
///   [`hub_prevent_multiple_readers`](hub_core::hub_prevent_multiple_readers) is off: then it queues.
///
/// ```
/// use hub_tokio::GreenTransport;
/// use std::io::{Read, Write};
/// let (client, server) = tokio::io::duplex(64);
/// let echo = greenhub::spawn(move || {
///     let mut transport = GreenTransport::new(server);
///     let mut request = [0; 5];
///     transport.read_exact(&mut request)?;
///     transport.write_all(&request.map(|byte| byte.to_ascii_uppercase()))
/// });
/// let mut transport = GreenTransport::new(client);
/// transport.write_all(b"hello")?;
/// let mut response = String::new();
/// transport.read_to_string(&mut response)?; // the other side is dropped when its green thread ends
/// assert_eq!(response, "HELLO");
/// echo.join()??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "SyncIoBridge")]
#[doc(alias = "UnbufferedTransport")]
#[must_use = "a transport that is dropped drops its stream"]
pub struct GreenTransport<T> {
    /// Locked for one poll at a time, and not while an operation waits.
    io: Mutex<T>,
    reading: Turn<Reading>,
    writing: Turn<Writing>,
    flow: Flow,
    read_timeout: Timeout,
    write_timeout: Timeout,
}

/// The state of the read direction.
#[derive(Default)]
struct Reading {
    /// Whether a read has found the end, or an error after which there is nothing to read.
    ended: bool,
}

/// The state of the write direction.
#[derive(Default)]
struct Writing {
    /// Whether the stream has accepted bytes that it was not seen to flush.
    undrained: bool,
}

impl<T> GreenTransport<T> {
    /// Creates a transport over a stream. Does not switch.
    ///
    /// Nothing is read before the first read.
    pub fn new(io: T) -> GreenTransport<T> {
        GreenTransport {
            io: Mutex::new(io),
            reading: Turn::default(),
            writing: Turn::default(),
            flow: Flow::default(),
            read_timeout: Timeout::default(),
            write_timeout: Timeout::default(),
        }
    }

    /// Returns the stream, such as for the address of its peer. Switches while it is in use elsewhere.
    ///
    /// It is in use during each poll, which matters if another OS thread reads or writes, and while another
    /// `TransportRef` exists. Reads and writes wait until the `TransportRef` is dropped.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// # use hub_tokio::{GreenTransport, net};
    /// greenhub::use_hub("tokio")?;
    /// let listener = net::listen("127.0.0.1:0")?;
    /// let transport = net::connect(listener.local_addr()?)?;
    /// assert_eq!(transport.get_ref().peer_addr()?, listener.local_addr()?);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if it would have to wait where nothing may wait: see [`block_on`].
    #[track_caller]
    pub fn get_ref(&self) -> TransportRef<'_, T> {
        // Not in a closure, which would hide the caller.
        match self.io.try_lock() {
            Ok(io) => TransportRef(io),
            Err(_) => TransportRef(block_on(self.io.lock())),
        }
    }

    /// Returns the stream. Does not switch.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut T {
        self.io.get_mut()
    }

    /// Returns the stream, and ends the transport. Does not switch.
    ///
    /// The stream may hold bytes that it has accepted and not flushed: call [`flush`](Write::flush) first.
    #[must_use = "the stream is dropped otherwise"]
    pub fn into_inner(self) -> T {
        self.io.into_inner()
    }

    /// Sets the longest time for which a read waits. Does not switch.
    ///
    /// A read that times out fails with [`TimedOut`](io::ErrorKind::TimedOut), and has taken no data. The time of a
    /// [`pause`](GreenTransport::pause) counts.
    ///
    /// ```
    /// # use hub_tokio::GreenTransport;
    /// use std::io::{ErrorKind, Read};
    /// use std::time::Duration;
    /// let (ours, _theirs) = tokio::io::duplex(64);
    /// let mut transport = GreenTransport::new(ours);
    /// transport.set_read_timeout(Some(Duration::from_millis(1)))?;
    /// assert_eq!(transport.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) for a timeout of zero, as std does.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.read_timeout.set(timeout)
    }

    /// Sets the longest time for which a write, a flush or a shutdown waits. Does not switch.
    ///
    /// A write that times out before the stream has accepted any bytes fails with
    /// [`TimedOut`](io::ErrorKind::TimedOut). After that it returns how many the stream has accepted, and the next
    /// write begins by flushing them.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) for a timeout of zero, as std does.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.write_timeout.set(timeout)
    }

    /// Returns the longest time for which a read waits. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns none. The type is that of std's sockets.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.read_timeout.get())
    }

    /// Returns the longest time for which a write waits. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns none. The type is that of std's sockets.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.write_timeout.get())
    }

    /// Holds up reads until [`resume`](GreenTransport::resume). Does not switch.
    ///
    /// It concerns also a read that waits already, on any OS thread. Pauses nest: reads go on after as many calls of
    /// `resume`. Twisted's `pauseProducing`.
    ///
    /// ```
    /// # use hub_tokio::GreenTransport;
    /// use std::io::{Read, Write};
    /// use std::rc::Rc;
    /// let (ours, theirs) = tokio::io::duplex(64);
    /// GreenTransport::new(theirs).write_all(b"x")?;
    /// let transport = Rc::new(GreenTransport::new(ours));
    /// transport.pause();
    /// let reading = Rc::clone(&transport);
    /// let reader = greenhub::spawn(move || (&*reading).read(&mut [0]));
    /// greenhub::thread::yield_now();
    /// assert!(!reader.is_finished());
    /// transport.resume();
    /// assert_eq!(reader.join()??, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "pauseProducing")]
    pub fn pause(&self) {
        self.flow.pause();
    }

    /// Takes back one [`pause`](GreenTransport::pause). Does not switch.
    ///
    /// Does nothing if reads are not held up: a call too many takes back no later pause. Twisted's `resumeProducing`.
    #[doc(alias = "resumeProducing")]
    pub fn resume(&self) {
        self.flow.resume();
    }

    /// Returns whether reads are held up by [`pause`](GreenTransport::pause). Does not switch.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.flow.is_paused()
    }

    /// Returns whether reads have found the end, or an error after which there is nothing to read.
    pub(crate) fn has_read_all(&mut self) -> bool {
        self.reading.get_mut().ended
    }

    /// Polls the stream until it is ready.
    async fn poll_io<R>(&self, mut op: impl FnMut(Pin<&mut T>, &mut Context<'_>) -> Poll<R>) -> R
    where
        T: Unpin,
    {
        loop {
            let mut io = match self.io.try_lock() {
                Ok(io) => io,
                Err(_) => self.io.lock().await,
            };
            let polled = poll_fn(|cx| Poll::Ready(op(Pin::new(&mut *io), cx))).await;
            drop(io);
            match polled {
                Poll::Ready(value) => return value,
                Poll::Pending => woken().await,
            }
        }
    }
}

impl<T: AsyncRead + Unpin> GreenTransport<T> {
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        wait(self.read_timeout.get(), async {
            let mut reading = self.reading.take("read").await?;
            if reading.ended {
                return Ok(0);
            }
            let watch = self.flow.watch_pauses();
            let mut buffer = ReadBuf::new(buffer);
            let read = self.poll_io(|io, cx| {
                ready!(watch.poll_flowing(cx));
                io.poll_read(cx, &mut buffer)
            });
            match read.await {
                Ok(()) => {
                    let n = buffer.filled().len();
                    reading.ended = n == 0;
                    Ok(n)
                }
                Err(error) => {
                    reading.ended = !is_temporary(&error);
                    self.flow.lose(&error);
                    Err(error)
                }
            }
        })?
    }
}

impl<T: AsyncWrite + Unpin> GreenTransport<T> {
    /// Writes at once what the stream accepts. Does not switch.
    ///
    /// Returns how many bytes the stream has accepted. The next write, flush or
    /// [`shutdown`](GreenTransport::shutdown) flushes the rest of them. May be called on the main loop. Twisted's
    /// `transport.write`, but with a bound: the transport has no buffer of its own.
    ///
    /// ```
    /// # use hub_tokio::GreenTransport;
    /// use std::io::ErrorKind;
    /// let (ours, _theirs) = tokio::io::duplex(4);
    /// let transport = GreenTransport::new(ours);
    /// assert_eq!(transport.write_nowait(b"hello")?, 4);
    /// assert_eq!(transport.write_nowait(b"o").unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`WouldBlock`](io::ErrorKind::WouldBlock) if the stream accepts no byte at once, or if another green
    /// thread writes. Returns the reason if the connection is lost.
    pub fn write_nowait(&self, data: &[u8]) -> io::Result<usize> {
        let would_block = || io::Error::from(io::ErrorKind::WouldBlock);
        let mut writing = self.writing.try_take().ok_or_else(would_block)?;
        let mut io = self.io.try_lock().map_err(|_| would_block())?;
        // As a future, so that the stream is polled under the rules for polls.
        let attempt = poll_fn(|_| {
            let mut cx = Context::from_waker(Waker::noop());
            Poll::Ready(self.attempt(&mut *io, &mut cx, &mut writing, data))
        });
        try_block_on(attempt)?.inspect_err(|error| self.flow.lose(error))
    }

    /// Flushes, and ends the write direction: the peer reads the end of the file. Switches while it has to wait.
    ///
    /// Reads go on. Waits for at most the [write timeout](GreenTransport::set_write_timeout). A call after a timeout
    /// goes on where the last one ended. `shutdown` of Tokio's `AsyncWriteExt`.
    ///
    /// ```
    /// # use hub_tokio::GreenTransport;
    /// use std::io::{Read, Write};
    /// let (ours, theirs) = tokio::io::duplex(64);
    /// let (mut ours, mut theirs) = (GreenTransport::new(ours), GreenTransport::new(theirs));
    /// ours.write_all(b"request")?;
    /// ours.shutdown()?;
    /// let mut request = String::new();
    /// theirs.read_to_string(&mut request)?;
    /// theirs.write_all(b"response")?;
    /// assert_eq!(ours.read(&mut [0; 16])?, 8);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of a write.
    pub fn shutdown(&self) -> io::Result<()> {
        wait(self.write_timeout.get(), async {
            let mut writing = self.writing.take("write").await?;
            self.drain(&mut writing).await?;
            self.poll_write(|io, cx| io.poll_shutdown(cx)).await
        })?
    }
}

impl<T: AsyncWrite + Unpin> GreenTransport<T> {
    fn write_some(
        &self,
        op: impl FnMut(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> io::Result<usize> {
        let accepted = Cell::new(0);
        let waited = wait(self.write_timeout.get(), async {
            let mut writing = self.writing.take("write").await?;
            self.drain(&mut writing).await?;
            accepted.set(self.accept_into(&mut writing, op).await?);
            self.drain(&mut writing).await
        });
        let failed = match waited {
            Ok(Ok(())) => return Ok(accepted.get()),
            Ok(Err(error)) if !is_temporary(&error) => return Err(error),
            Ok(Err(error)) | Err(error) => error,
        };
        // The caller must not write again what was accepted. The next operation flushes it.
        if accepted.get() == 0 { Err(failed) } else { Ok(accepted.get()) }
    }

    /// Writes what the stream accepts, and does not flush it. Switches while it has to wait.
    ///
    /// A kill or a timeout strikes only before the stream has accepted anything.
    pub(crate) fn accept(&self, data: &[u8]) -> io::Result<usize> {
        wait(self.write_timeout.get(), async {
            let mut writing = self.writing.take("write").await?;
            self.accept_into(&mut writing, |io, cx| io.poll_write(cx, data)).await
        })?
    }

    async fn accept_into(
        &self,
        writing: &mut Writing,
        op: impl FnMut(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> io::Result<usize> {
        let n = self.poll_write(op).await?;
        writing.undrained |= n != 0;
        Ok(n)
    }

    fn flush_all(&self) -> io::Result<()> {
        wait(self.write_timeout.get(), async {
            let mut writing = self.writing.take("write").await?;
            // The stream may hold bytes that were written to it directly.
            writing.undrained = true;
            self.drain(&mut writing).await
        })?
    }

    /// Waits until the stream has flushed what it has accepted.
    async fn drain(&self, writing: &mut Writing) -> io::Result<()> {
        if writing.undrained {
            self.poll_write(|io, cx| io.poll_flush(cx)).await?;
            writing.undrained = false;
        }
        Ok(())
    }

    /// Polls the write direction until it is ready or the connection is lost.
    async fn poll_write<R>(
        &self,
        mut op: impl FnMut(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> io::Result<R> {
        self.flow.check_loss()?;
        let watch = self.flow.watch_loss();
        let write = self.poll_io(|io, cx| match op(io, cx) {
            Poll::Pending => watch.poll_loss(cx).map(Err),
            ready => ready,
        });
        write.await.inspect_err(|error| self.flow.lose(error))
    }

    /// Flushes and writes without a wait.
    fn attempt(&self, io: &mut T, cx: &mut Context<'_>, writing: &mut Writing, data: &[u8]) -> io::Result<usize> {
        self.flow.check_loss()?;
        if flushes_at_once(io, cx, writing)?
            && let Poll::Ready(accepted) = Pin::new(&mut *io).poll_write(cx, data)
        {
            let n = accepted?;
            writing.undrained |= n != 0;
            flushes_at_once(io, cx, writing)?;
            return Ok(n);
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Flushes without a wait. Returns whether nothing is left.
fn flushes_at_once<T: AsyncWrite + Unpin>(io: &mut T, cx: &mut Context<'_>, writing: &mut Writing) -> io::Result<bool> {
    if writing.undrained
        && let Poll::Ready(flushed) = Pin::new(io).poll_flush(cx)
    {
        flushed?;
        writing.undrained = false;
    }
    Ok(!writing.undrained)
}

impl<T: AsyncRead + Unpin> Read for &GreenTransport<T> {
    /// Reads some bytes. Switches while it has to wait.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer)
    }
}

impl<T: AsyncRead + Unpin> Read for GreenTransport<T> {
    /// Reads some bytes. Switches while it has to wait.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer)
    }
}

impl<T: AsyncWrite + Unpin> Write for &GreenTransport<T> {
    /// Writes some bytes, and flushes them. Switches while it has to wait.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_some(|io, cx| io.poll_write(cx, data))
    }

    /// Like [`write`](Write::write), from several buffers, if the stream supports it. Switches while it has to wait.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_some(|io, cx| io.poll_write_vectored(cx, pieces))
    }

    /// Waits until the stream has flushed what it has accepted. Switches then.
    fn flush(&mut self) -> io::Result<()> {
        self.flush_all()
    }
}

impl<T: AsyncWrite + Unpin> Write for GreenTransport<T> {
    /// Writes some bytes, and flushes them. Switches while it has to wait.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    /// Like [`write`](Write::write), from several buffers, if the stream supports it. Switches while it has to wait.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(pieces)
    }

    /// Waits until the stream has flushed what it has accepted. Switches then.
    fn flush(&mut self) -> io::Result<()> {
        self.flush_all()
    }
}

impl<T> fmt::Debug for GreenTransport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GreenTransport")
            .field("io", &std::any::type_name::<T>())
            .field("read_timeout", &self.read_timeout.get())
            .field("write_timeout", &self.write_timeout.get())
            .field("is_paused", &self.is_paused())
            .finish()
    }
}

/// The stream of a transport, from [`GreenTransport::get_ref`].
///
/// Reads and writes of the transport wait until it is dropped.
#[must_use = "reads and writes of the transport wait until it is dropped"]
pub struct TransportRef<'a, T>(MutexGuard<'a, T>);

impl<T> Deref for TransportRef<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for TransportRef<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The longest time of a wait, in nanoseconds. Zero stands for none.
#[derive(Default)]
struct Timeout(AtomicU64);

impl Timeout {
    fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    fn set(&self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a 0 duration timeout"));
        }
        let nanos = timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        self.0.store(nanos, Ordering::Relaxed);
        Ok(())
    }
}

/// Waits for an operation of a transport. Switches while it is pending, and after many operations in a row.
///
/// # Errors
///
/// The outer error is that of the wait: it timed out, or nothing may wait here. The operation has been dropped.
pub(crate) fn wait<R>(timeout: Option<Duration>, op: impl Future<Output = io::Result<R>>) -> io::Result<io::Result<R>> {
    consume_budget()?;
    match timeout {
        None => Ok(try_block_on(op)?),
        Some(timeout) => try_block_on(within(timeout, op))?.ok_or_else(|| io::ErrorKind::TimedOut.into()),
    }
}

/// Returns `None` if `op` is not ready in time.
async fn within<F: Future>(timeout: Duration, op: F) -> Option<F::Output> {
    let mut op = pin!(op);
    let mut timer = pin!(None);
    poll_fn(|cx| {
        if let Poll::Ready(output) = op.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        // Most operations need no timer.
        if timer.is_none() {
            timer.set(Some(sleep(timeout)));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// Returns `None` if `end` is ready before `op`.
pub(crate) async fn unless<F: Future>(end: impl Future<Output = ()>, op: F) -> Option<F::Output> {
    let (mut end, mut op) = (pin!(end), pin!(op));
    poll_fn(|cx| match op.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Is pending once, without a wake-up of its own.
async fn woken() {
    let mut polled = false;
    poll_fn(|_| if mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}
