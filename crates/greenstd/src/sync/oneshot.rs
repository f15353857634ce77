//! A channel for one value, from one sender to one receiver. Tokio's `oneshot`, std-shaped.
//!
//! A send never waits. Green threads of any hub and plain OS threads may hold the halves.
//!
//! ```
//! use greenhub::sync::oneshot;
//! use greenhub::thread;
//! let (sender, receiver) = oneshot::channel();
//! thread::spawn(move || sender.send("done"));
//! assert_eq!(receiver.recv()?, "done");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Exits and limits
//!
//! The value belongs to the channel until a call of the receiver returns it. A wait that an exit or a limit ends leaves
//! it there, for the next call. A value that was granted before the exit is returned, and the exit strikes at the next
//! wait. A value that is not received is dropped with the receiver.

mod state;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hub_core::{BiasedMutex, Deadline, LeftMark, LoopError, ReadyMark, Waitable};

use self::state::{Closed, ReceiveWait, State};
use super::close_wait::{self, Close};
pub use super::recv_error::{RecvError, RecvTimeoutError};
use super::wait_error::WaitError;
use super::wait_queue::Wait;
use super::waiters::Waiters;

/// Creates a channel for one value.
///
/// ```
/// use greenhub::sync::oneshot::{self, RecvError, TryRecvError};
/// let (sender, receiver) = oneshot::channel();
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
/// assert!(sender.send(1).is_ok());
/// assert_eq!(receiver.recv()?, 1);
/// assert!(matches!(receiver.recv(), Err(RecvError::Closed)));
/// # Ok::<(), RecvError>(())
/// ```
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(BiasedMutex::new(State::new()));
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// The sending half of a [`channel`].
///
/// A sender is ready, as a [`Waitable`], when no value of it can be received.
pub struct Sender<T> {
    shared: Arc<BiasedMutex<State<T>>>,
}

/// The receiving half of a [`channel`].
///
/// Several green threads may wait on one receiver. The value goes to the first waiter, and the others learn that the
/// channel is closed.
pub struct Receiver<T> {
    shared: Arc<BiasedMutex<State<T>>>,
}

/// The reason why [`Receiver::try_recv`] has no value.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TryRecvError {
    /// There is no value now, or it was granted to a waiter.
    #[error("the channel is empty")]
    Empty,
    /// There is no value, and none will come.
    #[error("the channel is closed")]
    Closed,
}

impl From<TryRecvError> for io::Error {
    fn from(error: TryRecvError) -> io::Error {
        let kind = match error {
            TryRecvError::Empty => io::ErrorKind::WouldBlock,
            TryRecvError::Closed => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error)
    }
}

impl<T> Close for State<T> {
    fn is_closed(&self) -> bool {
        self.is_closed()
    }

    fn closing(&mut self) -> &mut Waiters {
        &mut self.closing
    }
}

impl<T> Sender<T> {
    /// Sends the value, which the receiver gets later. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns the value if the receiver is gone or [closed](Receiver::close).
    pub fn send(self, value: T) -> Result<(), T> {
        self.shared.lock().send(value)
    }

    /// Returns true if the receiver is gone or closed. Does not switch.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().is_closed()
    }

    /// Waits until the receiver is gone or closed. Switches if it waits.
    ///
    /// It is for work that is useless without its receiver.
    ///
    /// ```
    /// use greenhub::sync::oneshot;
    /// let (sender, receiver) = oneshot::channel::<u8>();
    /// greenhub::thread::spawn(move || drop(receiver));
    /// sender.closed()?;
    /// assert_eq!(sender.send(1), Err(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the
    /// wait of the main greenlet by an error.
    pub fn closed(&self) -> Result<(), LoopError> {
        close_wait::closed(&self.shared, Deadline::none()).map_err(WaitError::without_limit)
    }

    /// Like [`closed`](Sender::closed), for at most `timeout`. Switches if it waits.
    ///
    /// A timeout of zero lets other green threads run once.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::TimedOut`] if the receiver was not gone in time, or an error of [`closed`](Sender::closed).
    pub fn closed_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        close_wait::closed(&self.shared, Deadline::from(timeout))
    }
}

impl<T> Receiver<T> {
    /// Waits for the value. Switches.
    ///
    /// # Errors
    ///
    /// Returns [`RecvError::Closed`] if the sender is gone without a value, if the value was received before, or if the
    /// receiver is closed. Returns [`RecvError::Loop`] where the caller may not wait (in the main loop, while
    /// panicking), and if the main loop ends the wait of the main greenlet by an error.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_within(Deadline::none()).map_err(RecvTimeoutError::without_limit)
    }

    /// Like [`recv`](Receiver::recv), for at most `timeout`. Switches.
    ///
    /// A timeout of zero lets other green threads run once.
    ///
    /// ```
    /// use greenhub::sync::oneshot::{self, RecvTimeoutError};
    /// use std::time::Duration;
    /// let (sender, receiver) = oneshot::channel::<u8>();
    /// assert!(matches!(receiver.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::TimedOut)));
    /// drop(sender);
    /// assert!(matches!(receiver.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Closed)));
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`RecvTimeoutError::TimedOut`] if there was no value in time, or an error of [`recv`](Receiver::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_within(Deadline::from(timeout))
    }

    fn recv_within(&self, mut deadline: Deadline) -> Result<T, RecvTimeoutError> {
        let received = ReceiveWait::wait(&self.shared, &mut deadline, (), |state, ungranted| {
            state.take(ungranted.is_none()).ok_or(())
        })?;
        received.map_err(|Closed| RecvTimeoutError::Closed)
    }

    /// Returns the value, if it was sent. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no value for this caller; the error tells whether one may come.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.shared.lock().take(false) {
            Some(Ok(value)) => Ok(value),
            Some(Err(Closed)) => Err(TryRecvError::Closed),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Refuses a value that is sent from now on. Does not switch.
    ///
    /// A value that was sent before can still be received.
    pub fn close(&self) {
        self.shared.lock().close();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.lock().disconnect_sender();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = self.shared.lock().disconnect_receiver();
        // The value's destructor is user code: it runs without the lock.
        drop(left);
    }
}

/// A receiver is ready when a value can be received, or none will come.
impl<T> Waitable for Receiver<T> {
    fn is_ready(&self) -> bool {
        self.shared.lock().is_ready()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        let mut state = self.shared.lock();
        let is_ready = state.is_ready();
        state.receiving.leave(mark, is_ready)
    }

    fn take_back(&self, left: LeftMark) {
        self.shared.lock().receiving.take_back(&left);
    }
}

/// A sender is ready when the receiver is gone or closed.
impl<T> Waitable for Sender<T> {
    fn is_ready(&self) -> bool {
        self.is_closed()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        let mut state = self.shared.lock();
        let is_ready = state.is_closed();
        state.closing.leave(mark, is_ready)
    }

    fn take_back(&self, left: LeftMark) {
        self.shared.lock().closing.take_back(&left);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
