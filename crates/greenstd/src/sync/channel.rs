use std::fmt;
use std::time::Duration;

use hub_core::{GreenError, LeftMark, LoopError, ReadyMark, Waitable};

use super::queue::{GetError, LightQueue, PutError};

/// A channel of values and errors in FIFO order. The `Channel` of Eventlet's `coros`.
///
/// A new channel holds nothing: a sender waits until a receiver has taken its item. It is a [`LightQueue`] whose items
/// may be errors, which a wait returns as its own, and keeps that queue's promises under exits.
///
/// ```
/// use greenhub::sync::Channel;
/// use greenhub::GreenError;
/// use std::sync::Arc;
/// let channel = Arc::new(Channel::new());
/// let sender = channel.clone();
/// greenhub::thread::spawn(move || {
///     sender.send("hello").unwrap();
///     sender.send_error(GreenError::custom("no more")).unwrap();
/// });
/// assert_eq!(channel.wait()?, "hello");
/// assert_eq!(channel.wait().unwrap_err().to_string(), "no more");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Channel<T> {
    queue: LightQueue<Result<T, GreenError>>,
}

impl<T> Channel<T> {
    /// Creates a channel that holds nothing.
    #[must_use]
    pub fn new() -> Channel<T> {
        Channel::bounded(0)
    }

    /// Creates a channel that holds `capacity` values and errors.
    ///
    /// A send waits only while it is full.
    #[must_use]
    pub fn bounded(capacity: usize) -> Channel<T> {
        Channel { queue: LightQueue::bounded(capacity) }
    }

    /// Sends a value, and waits until it is received or there is room for it. Switches.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the
    /// wait of the main greenlet by an error. The value is dropped then, unless it was received.
    pub fn send(&self, value: T) -> Result<(), LoopError> {
        self.put(Ok(value))
    }

    /// Sends an error, which the receiving wait returns, Eventlet's `send_exception`. Switches.
    ///
    /// # Errors
    ///
    /// Like [`send`](Channel::send).
    #[doc(alias = "send_exception")]
    pub fn send_error(&self, error: GreenError) -> Result<(), LoopError> {
        self.put(Err(error))
    }

    fn put(&self, mut item: Result<T, GreenError>) -> Result<(), LoopError> {
        loop {
            match self.queue.put(item) {
                Ok(()) => return Ok(()),
                Err(PutError::Loop { error, .. }) => return Err(error),
                // Does not occur: the put has no limit, and a channel is never closed.
                Err(PutError::Full(back) | PutError::TimedOut(back) | PutError::Closed(back)) => item = back,
            }
        }
    }

    /// Waits for the next item. Switches.
    ///
    /// # Errors
    ///
    /// Returns the error that was sent. Returns [`GreenError::Loop`] where the caller may not wait (in the main loop,
    /// while panicking), and if the main loop ends the wait of the main greenlet by an error.
    pub fn wait(&self) -> Result<T, GreenError> {
        loop {
            match self.queue.get() {
                Ok(item) => return item,
                Err(GetError::Loop(error)) => return Err(error.into()),
                // Does not occur: the get has no limit, and a channel is never closed.
                Err(GetError::Empty | GetError::TimedOut | GetError::Closed) => {}
            }
        }
    }

    /// Like [`wait`](Channel::wait), for at most `timeout`. Switches.
    ///
    /// A timeout of zero lets other green threads run once.
    ///
    /// # Errors
    ///
    /// Returns [`GreenError::TimedOut`] if there was no item in time, or an error of [`wait`](Channel::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<T, GreenError> {
        match self.queue.get_timeout(timeout) {
            Ok(item) => item,
            Err(GetError::Loop(error)) => Err(error.into()),
            Err(GetError::Empty | GetError::TimedOut | GetError::Closed) => Err(GreenError::TimedOut),
        }
    }

    /// Returns the next item, if there is one. Does not switch.
    ///
    /// ```
    /// use greenhub::sync::Channel;
    /// let channel = Channel::bounded(1);
    /// assert!(channel.poll().is_none(), "not now");
    /// channel.send("hello")?;
    /// assert_eq!(channel.poll().unwrap()?, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn poll(&self) -> Option<Result<T, GreenError>> {
        self.queue.try_get().ok()
    }

    /// Returns the number of waiting receivers. Does not switch.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.getting()
    }

    /// Returns the number of waiting senders. Does not switch.
    #[must_use]
    pub fn sending(&self) -> usize {
        self.queue.putting()
    }
}

/// A channel is ready when a wait would return at once. The waiter gets no item, and takes one by
/// [`poll`](Channel::poll).
///
/// Receivers come first. An item that was there for a moment may have been taken since.
impl<T> Waitable for Channel<T> {
    fn is_ready(&self) -> bool {
        self.queue.is_ready()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        self.queue.leave(mark)
    }

    fn take_back(&self, left: LeftMark) {
        self.queue.take_back(left);
    }
}

impl<T> Default for Channel<T> {
    fn default() -> Channel<T> {
        Channel::new()
    }
}

impl<T> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.queue).finish()
    }
}
