use std::fmt;
use std::time::Duration;

use hub_core::{GreenError, LoopError};

use super::queue::{GetError, LightQueue, PutError};

/// Values and errors from those who send to those who wait, in order. The `Channel` of Eventlet's `coros`.
///
/// A new one holds nothing: who sends waits until somebody has received. It is a [`LightQueue`] whose items may be
/// errors, which a wait returns as its own, and has its promises under kill and timeout.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::sync::Channel;
/// use hub_core::GreenError;
/// use std::sync::Arc;
/// let channel = Arc::new(Channel::new());
/// let sender = channel.clone();
/// greenstd::thread::spawn(move || {
///     sender.send("hello").unwrap();
///     sender.send_error(GreenError::custom("no more")).unwrap();
/// });
/// assert_eq!(channel.wait()?, "hello");
/// assert_eq!(channel.wait().unwrap_err().to_string(), "no more");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Channel<T> {
    queue: LightQueue<Result<T, GreenError>>,
}

impl<T> Channel<T> {
    /// One that holds nothing.
    #[must_use]
    pub fn new() -> Channel<T> {
        Channel::bounded(0)
    }

    /// One that holds `capacity` values and errors, so that not every send waits.
    #[must_use]
    pub fn bounded(capacity: usize) -> Channel<T> {
        Channel { queue: LightQueue::bounded(capacity) }
    }

    /// Sends a value, and waits until it is received or there is room for it. Switches.
    ///
    /// # Errors
    ///
    /// Where nobody may wait: in the main loop, while panicking. The value is dropped then, unless it was received.
    pub fn send(&self, value: T) -> Result<(), LoopError> {
        self.put(Ok(value))
    }

    /// Sends an error, which the wait that receives it returns. Eventlet's `send_exception`. Switches.
    ///
    /// # Errors
    ///
    /// As [`send`](Channel::send).
    pub fn send_error(&self, error: GreenError) -> Result<(), LoopError> {
        self.put(Err(error))
    }

    fn put(&self, mut item: Result<T, GreenError>) -> Result<(), LoopError> {
        loop {
            match self.queue.put(item) {
                Ok(()) => return Ok(()),
                Err(PutError::Loop(error, _)) => return Err(error),
                // Without a limit it is never too late.
                Err(PutError::Full(back)) => item = back,
            }
        }
    }

    /// Waits for what is sent next. Switches.
    ///
    /// # Errors
    ///
    /// The error that was sent. [`GreenError::Loop`] where nobody may wait: in the main loop, while panicking.
    pub fn wait(&self) -> Result<T, GreenError> {
        loop {
            match self.queue.get() {
                Ok(item) => return item,
                Err(GetError::Loop(error)) => return Err(error.into()),
                // Without a limit it is never too late.
                Err(GetError::Empty) => {}
            }
        }
    }

    /// As [`wait`](Channel::wait), for `timeout` at most: then `None`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Channel::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<T>, GreenError> {
        match self.queue.get_timeout(timeout) {
            Ok(item) => item.map(Some),
            Err(GetError::Loop(error)) => Err(error.into()),
            Err(GetError::Empty) => Ok(None),
        }
    }

    /// How many wait for something to be sent. Does not switch.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.getting()
    }

    /// How many wait for their value to be received. Does not switch.
    #[must_use]
    pub fn sending(&self) -> usize {
        self.queue.putting()
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
