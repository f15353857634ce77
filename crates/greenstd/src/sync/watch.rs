//! A channel that holds one value, the last one that was sent. Tokio's `watch`, std-shaped.
//!
//! Each receiver learns that the value has changed since it last looked, and sees the present value. It may miss values
//! in between. Green threads of any hub and plain OS threads may hold the halves: they are `Send + Sync` if `T` is.
//!
//! ```
//! use greenhub::sync::watch;
//! use greenhub::thread;
//! let (sender, mut receiver) = watch::channel("first");
//! assert_eq!(*receiver.borrow(), "first");
//! thread::spawn(move || sender.send("second"));
//! receiver.changed()?;
//! assert_eq!(*receiver.borrow_and_update(), "second");
//! assert!(matches!(receiver.changed(), Err(watch::RecvError::Closed)), "the sender has ended");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A borrow is a snapshot
//!
//! In Tokio a borrow is a read lock, and a send waits for its end. Here the guard of a borrow, [`Ref`], keeps the value
//! that was present, and a send replaces the channel's value beside it. So a guard may be held while its green thread
//! waits, a send never waits for a borrow, and a green thread may send while it borrows. A send from a callback of the
//! main loop or from a destructor is possible for the same reason: it never switches.
//!
//! The price is that a value is never changed in place. [`Sender::send_modify`] changes a clone, and needs `T: Clone`.
//! A large value that is modified often belongs into an [`Arc`].
//!
//! # Exits and limits
//!
//! A wait that an exit or a limit ends has marked nothing as seen.

mod receiver;

use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hub_core::{BiasedMutex, Deadline, LeftMark, LoopError, ReadyMark, Waitable};

pub use std::sync::mpsc::SendError;

pub use self::receiver::Receiver;
pub use super::recv_error::{RecvError, RecvTimeoutError};

use super::close_wait::{self, Close};
use super::mutex::Mutex;
use super::wait_error::WaitError;
use super::waiters::Waiters;

/// Creates a channel that holds `value`, which counts as seen by the receiver.
#[must_use]
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let state = State {
        value: Arc::new(value),
        version: 0,
        senders: 1,
        receivers: 1,
        changing: Waiters::new(),
        closing: Waiters::new(),
    };
    let shared = Arc::new(Shared { state: BiasedMutex::new(state), modifying: Mutex::new(()) });
    (Sender { shared: Arc::clone(&shared) }, Receiver::new(shared, 0))
}

/// The sending half of a [`channel`]. Its clones send to the same receivers.
///
/// A sender is ready, as a [`Waitable`], when no receiver is left.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// A value that was present in the channel when it was borrowed.
///
/// It is a snapshot: later sends do not change it, and do not wait for it. It may be held during a wait.
pub struct Ref<T> {
    value: Arc<T>,
    changed: bool,
}

struct Shared<T> {
    state: BiasedMutex<State<T>>,
    /// Held while a closure modifies a clone of the value, so that no modification is lost. Other calls do not take it.
    modifying: Mutex<()>,
}

struct State<T> {
    value: Arc<T>,
    /// The number of changes, of which each receiver remembers the last that it has seen.
    version: u64,
    senders: usize,
    receivers: usize,
    /// The receivers that wait for a change.
    changing: Waiters,
    /// The senders that wait for the end of all receivers.
    closing: Waiters,
}

impl<T> Close for State<T> {
    fn is_closed(&self) -> bool {
        self.receivers == 0
    }

    fn closing(&mut self) -> &mut Waiters {
        &mut self.closing
    }
}

impl<T> State<T> {
    /// Replaces the value and wakes the receivers. Returns the old value, which the caller drops without the lock: as
    /// an error if a [`Ref`] may still hold it.
    fn change(&mut self, value: T) -> Result<T, Arc<T>> {
        self.version += 1;
        self.changing.grant_all();
        match Arc::get_mut(&mut self.value) {
            Some(present) => Ok(mem::replace(present, value)),
            None => Err(mem::replace(&mut self.value, Arc::new(value))),
        }
    }

    fn borrow(&self, seen: u64) -> Ref<T> {
        Ref { value: Arc::clone(&self.value), changed: self.version != seen }
    }

    /// Returns true if a receiver that has seen the change `seen` would not have to wait.
    fn is_ready(&self, seen: u64) -> bool {
        self.version != seen || self.senders == 0
    }
}

impl<T> Sender<T> {
    /// Sends a value in place of the present one. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no receiver; the error holds the value, and the channel keeps the present one.
    /// [`send_replace`](Sender::send_replace) needs no receiver.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut state = self.shared.state.lock();
        if state.is_closed() {
            return Err(SendError(value));
        }
        let old = state.change(value);
        // The value's destructor is user code: it runs without the lock.
        drop(state);
        drop(old);
        Ok(())
    }

    /// Returns the present value. Does not switch.
    #[must_use]
    pub fn borrow(&self) -> Ref<T> {
        let state = self.shared.state.lock();
        state.borrow(state.version)
    }

    /// Creates a receiver, by which the present value counts as seen. Does not switch.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        let mut state = self.shared.state.lock();
        state.receivers += 1;
        Receiver::new(Arc::clone(&self.shared), state.version)
    }

    /// Returns the number of receivers. Does not switch.
    #[must_use]
    pub fn receiver_count(&self) -> usize {
        self.shared.state.lock().receivers
    }

    /// Returns true if no receiver is left. Does not switch.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.state.lock().is_closed()
    }

    /// Waits until no receiver is left. Switches if it waits.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the
    /// wait of the main greenlet by an error.
    pub fn closed(&self) -> Result<(), LoopError> {
        close_wait::closed(&self.shared.state, Deadline::none()).map_err(WaitError::without_limit)
    }

    /// Like [`closed`](Sender::closed), for at most `timeout`. Switches if it waits.
    ///
    /// A timeout of zero lets other green threads run once.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::TimedOut`] if a receiver was left in time, or an error of [`closed`](Sender::closed).
    pub fn closed_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        close_wait::closed(&self.shared.state, Deadline::from(timeout))
    }
}

impl<T: Clone> Sender<T> {
    /// Replaces the value and returns the old one. Switches only while another sender modifies the value.
    ///
    /// It returns a clone of the old value if a [`Ref`] still holds it.
    ///
    /// # Panics
    ///
    /// Like [`send_modify`](Sender::send_modify).
    #[track_caller]
    pub fn send_replace(&self, value: T) -> T {
        let turn = self.shared.modifying.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.shared.state.lock().change(value);
        drop(turn);
        // The clone is user code: it runs without a lock.
        old.unwrap_or_else(Arc::unwrap_or_clone)
    }

    /// Changes a clone of the value by `modify`, and sends it. Switches only while another sender modifies the value.
    ///
    /// It needs no receiver. Modifications come one after the other, and each sees the one before it. A value that
    /// another sender [sends](Sender::send) meanwhile replaces the modified one. If `modify` panics or an exit unwinds
    /// it, the value does not change.
    ///
    /// `modify` may wait. It must not modify the value of the same channel by another call, which would wait for its
    /// own end.
    ///
    /// ```
    /// use greenhub::sync::watch;
    /// let (sender, mut receiver) = watch::channel(vec![1]);
    /// let before = receiver.borrow();
    /// sender.send_modify(|list| list.push(2));
    /// assert!(receiver.has_changed()?);
    /// assert_eq!((before.len(), receiver.borrow_and_update().len()), (1, 2));
    /// # Ok::<(), watch::RecvError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if `modify` does. Panics if it has to wait for another sender in the main loop, or if the main loop ends
    /// the wait of the main greenlet by an error. A destructor that runs while panicking must not have to wait for one:
    /// see [`Mutex::lock`](super::Mutex::lock). It can always [`send`](Sender::send).
    #[track_caller]
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Like [`send_modify`](Sender::send_modify), but wakes the receivers only if `modify` returns true.
    ///
    /// Returns what `modify` returned. If that is false, the changes are discarded. Switches only while another sender
    /// modifies the value.
    ///
    /// # Panics
    ///
    /// Like [`send_modify`](Sender::send_modify).
    #[track_caller]
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        // Declared before the turn, and so dropped after it: the destructor of a value is user code.
        let (present, version, mut value, _old);
        // An unwound closure leaves nothing half changed, so the poison says nothing.
        let turn = self.shared.modifying.lock().unwrap_or_else(PoisonError::into_inner);
        (present, version) = {
            let state = self.shared.state.lock();
            (Arc::clone(&state.value), state.version)
        };
        // User code runs without the lock of the state.
        value = T::clone(&present);
        let modified = modify(&mut value);
        if modified {
            let mut state = self.shared.state.lock();
            // A value that was sent since then replaces this one.
            if state.version == version {
                _old = state.change(value);
            }
        }
        drop(turn);
        modified
    }
}

impl<T> Ref<T> {
    /// Returns true if the value had changed since its receiver saw one. Does not switch.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed
    }
}

impl<T> Deref for Ref<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.shared.state.lock().senders += 1;
        Sender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.senders -= 1;
        if state.senders == 0 {
            state.changing.grant_all();
        }
    }
}

/// A sender is ready when no receiver is left.
impl<T> Waitable for Sender<T> {
    fn is_ready(&self) -> bool {
        self.is_closed()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        let mut state = self.shared.state.lock();
        let is_ready = state.is_closed();
        state.closing.leave(mark, is_ready)
    }

    fn take_back(&self, left: LeftMark) {
        self.shared.state.lock().closing.take_back(&left);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
