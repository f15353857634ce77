//! hyper's traits: streams, the executor and the timer.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hub_core::future::{sleep, spawn_future};
use hyper::rt::{Executor, Read, ReadBufCursor, Sleep, Timer, Write};

use super::{AsyncIo, PollRead, PollWrite};

/// The size of the buffer from which data is copied into hyper's.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// hyper lends memory that is not initialized, and only unsafe code may read into it. Its polls do not nest, so one
    /// buffer serves all streams of an OS thread. A poll that nests all the same finds an empty one, and makes another.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[cfg_attr(docsrs, doc(cfg(feature = "hyper-io")))]
impl<S: PollRead + Unpin> Read for AsyncIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
        buffer.resize(SCRATCH, 0);
        let room = cursor.remaining().min(SCRATCH);
        let read = AsyncIo::poll_read(self.get_mut(), cx, &mut buffer[..room]);
        if let Poll::Ready(Ok(n)) = read {
            cursor.put_slice(&buffer[..n]);
        }
        // At the end of the OS thread the buffer is dropped.
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
        Poll::Ready(ready!(read).map(drop))
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "hyper-io")))]
impl<S: PollWrite + Unpin> Write for AsyncIo<S> {
    write_methods! { poll_shutdown }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// hyper's executor: each future gets a green thread of its own.
///
/// HTTP/2 connections need one. The futures need not be `Send`.
///
/// ```
/// use greenhub::future::GreenExecutor;
/// use hyper::rt::Executor;
/// use std::cell::Cell;
/// use std::rc::Rc;
/// let done = Rc::new(Cell::new(false));
/// let ran = Rc::clone(&done);
/// GreenExecutor.execute(async move { ran.set(true) });
/// greenhub::thread::yield_now();
/// assert!(done.get());
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "hyper-io")))]
#[derive(Copy, Clone, Default, Debug)]
pub struct GreenExecutor;

impl<F: Future + 'static> Executor<F> for GreenExecutor {
    #[track_caller]
    fn execute(&self, future: F) {
        drop(spawn_future(future));
    }
}

/// hyper's timer: the timers of the hub of the OS thread that polls.
///
/// ```
/// use greenhub::future::{GreenTimer, block_on};
/// use hyper::rt::Timer;
/// use std::time::{Duration, Instant};
/// let begun = Instant::now();
/// block_on(GreenTimer.sleep(Duration::from_millis(5)));
/// assert!(begun.elapsed() >= Duration::from_millis(5));
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "hyper-io")))]
#[derive(Copy, Clone, Default, Debug)]
pub struct GreenTimer;

impl Timer for GreenTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(GreenSleep(sleep(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }
}

struct GreenSleep(hub_core::future::Sleep);

impl Future for GreenSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl Sleep for GreenSleep {}
