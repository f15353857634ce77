use std::fmt;
use std::sync::Arc;
use std::thread::{self, Thread};

use hub_core::{GreenError, LeftMark, LoopErrorKind, ReadyMark, Waitable};

use crate::sync::Event;

/// An owned permission to join on an OS thread, std's `JoinHandle`. Made by [`spawn`](super::spawn).
///
/// Dropping it detaches the OS thread. As a [`Waitable`] it is ready when the green threads of the OS thread have
/// ended.
///
/// ```
/// use greenhub::{get_hub, thread};
/// let here = get_hub().remote();
/// let thread = thread::os::spawn(move || here.spawn(|| println!("called back")).is_ok());
/// assert!(thread.join().unwrap()); // the green thread that was sent back runs meanwhile
/// ```
pub struct JoinHandle<T> {
    thread: thread::JoinHandle<T>,
    ended: Arc<Event<()>>,
}

/// Sends the event when it is dropped, however the OS thread ends.
pub(super) struct EndNotice(Arc<Event<()>>);

impl EndNotice {
    pub(super) fn new() -> (EndNotice, Arc<Event<()>>) {
        let ended = Arc::new(Event::new());
        (EndNotice(Arc::clone(&ended)), ended)
    }
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        // It is sent once.
        let _ = self.0.send(());
    }
}

impl<T> JoinHandle<T> {
    pub(super) fn new(thread: thread::JoinHandle<T>, ended: Arc<Event<()>>) -> JoinHandle<T> {
        JoinHandle { thread, ended }
    }

    /// Extracts a handle to the underlying OS thread.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        self.thread.thread()
    }

    /// Checks if the OS thread has finished running its main function. Does not switch.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the OS thread to finish. Switches if it waits.
    ///
    /// Only the calling green thread waits until the closure has returned and the green threads of the OS thread have
    /// been unwound. The destructors of its thread-locals, which come last, block the calling OS thread.
    ///
    /// While panicking, and after the end of the green threads of the calling OS thread, it blocks the OS thread like
    /// std's.
    ///
    /// # Errors
    ///
    /// Returns the payload of the panic if the OS thread has panicked.
    ///
    /// # Panics
    ///
    /// Panics if the caller may not wait (in the main loop, in a poll of a future), and if the main loop ends the wait
    /// of the main greenlet by an error. The OS thread is then detached.
    #[track_caller]
    pub fn join(self) -> thread::Result<T> {
        loop {
            match self.ended.wait() {
                Ok(()) => break,
                Err(GreenError::Loop(error)) if begins_anew(error.kind()) => {}
                Err(GreenError::Loop(error)) if blocks_instead(error.kind()) => break,
                Err(error) => panic!("join: {error}"),
            }
        }
        self.thread.join()
    }

    /// Returns std's handle, whose `join` blocks the OS thread. Does not switch.
    #[must_use]
    pub fn into_std(self) -> thread::JoinHandle<T> {
        self.thread
    }
}

/// Returns whether a wait of the main greenlet begins anew, since the next loop goes on.
fn begins_anew(ended: LoopErrorKind) -> bool {
    matches!(ended, LoopErrorKind::Aborted | LoopErrorKind::HubReplaced)
}

/// Returns whether a join blocks the OS thread because no green thread can run, or because there is no hub for one.
fn blocks_instead(refused: LoopErrorKind) -> bool {
    matches!(refused, LoopErrorKind::Panicking | LoopErrorKind::ThreadEnding | LoopErrorKind::Hub)
}

impl<T> From<JoinHandle<T>> for thread::JoinHandle<T> {
    fn from(handle: JoinHandle<T>) -> thread::JoinHandle<T> {
        handle.into_std()
    }
}

impl<T> Waitable for JoinHandle<T> {
    fn is_ready(&self) -> bool {
        self.ended.is_ready()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        self.ended.leave(mark)
    }

    fn take_back(&self, left: LeftMark) {
        self.ended.take_back(left);
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("thread", self.thread()).finish_non_exhaustive()
    }
}
