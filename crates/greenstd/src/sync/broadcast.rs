//! A channel in which every receiver gets every value. Tokio's `broadcast`, std-shaped.
//!
//! The channel keeps the last values, up to its capacity. A send never waits: if the channel is full, it overwrites the
//! oldest value. A receiver that has not received that value *lags*: its next call returns how many values it has
//! missed, and the one after that the oldest value that is left.
//!
//! Each receiver gets its own clone of a value. The last receiver of a value gets the value itself. Green threads of
//! any hub and plain OS threads may hold the halves: they are `Send + Sync` if `T` is, because several receivers may
//! clone one value at the same time.
//!
//! ```
//! use greenhub::sync::broadcast;
//! use greenhub::thread;
//! let (sender, mut first) = broadcast::channel(16);
//! let mut second = sender.subscribe();
//! let reader = thread::spawn(move || (first.recv(), first.recv()));
//! sender.send("hello")?;
//! drop(sender);
//! assert_eq!(second.recv()?, "hello");
//! let (value, end) = reader.join()?;
//! assert_eq!(value?, "hello");
//! assert!(matches!(end, Err(broadcast::RecvError::Closed)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Exits and limits
//!
//! A wait that an exit or a limit ends moves its receiver past no value. The next call gets the value that the wait
//! would have got.

mod error;

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use hub_core::{BiasedMutex, Deadline, LeftMark, LoopError, ReadyMark, WaitReason, Waitable};

pub use std::sync::mpsc::SendError;

pub use self::error::{RecvError, RecvTimeoutError, TryRecvError};
use super::close_wait::{self, Close};
use super::wait_error::WaitError;
use super::wait_queue::{Unserved, Wait, WaitQueue};
use super::waiters::Waiters;

/// Creates a channel that keeps the last `capacity` values.
///
/// ```
/// use greenhub::sync::broadcast::{self, TryRecvError};
/// let (sender, mut receiver) = broadcast::channel(2);
/// for n in 1..=5 {
///     sender.send(n)?;
/// }
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Lagged(3)));
/// assert_eq!((receiver.try_recv(), receiver.try_recv()), (Ok(4), Ok(5)));
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
/// # Ok::<(), broadcast::SendError<i32>>(())
/// ```
///
/// # Panics
///
/// Panics if `capacity` is zero.
#[must_use]
#[track_caller]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a broadcast channel keeps at least one value");
    let state = State {
        slots: VecDeque::new(),
        head: 0,
        capacity,
        senders: 1,
        receivers: 1,
        receiving: Waiters::new(),
        closing: Waiters::new(),
    };
    let shared = Arc::new(BiasedMutex::new(state));
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared, next: 0 })
}

/// The sending half of a [`channel`]. Its clones send to the same receivers.
///
/// A sender is ready, as a [`Waitable`], when no receiver is left.
pub struct Sender<T> {
    shared: Arc<BiasedMutex<State<T>>>,
}

/// The receiving half of a [`channel`].
///
/// [`resubscribe`](Receiver::resubscribe) and [`Sender::subscribe`] make more receivers.
pub struct Receiver<T> {
    shared: Arc<BiasedMutex<State<T>>>,
    /// The position of the next value.
    next: u64,
}

struct State<T> {
    /// The values that a receiver may still receive.
    slots: VecDeque<Slot<T>>,
    /// The position of the first slot. Positions count all values that were ever sent.
    head: u64,
    capacity: usize,
    senders: usize,
    receivers: usize,
    receiving: Waiters,
    /// The senders that wait for the end of all receivers.
    closing: Waiters,
}

struct Slot<T> {
    value: Arc<T>,
    /// The number of receivers that have not received the value. Values are received in order, so this number never
    /// decreases from one slot to the next, and the first slot is the first to reach zero.
    unseen: usize,
}

/// The wait for a value. It is for all waiters: there is nothing to regrant.
struct ReceiveWait<T>(PhantomData<T>);

impl<T> Wait for ReceiveWait<T> {
    type State = State<T>;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Channel;
    const CHARGED: bool = true;

    fn queue(state: &mut State<T>) -> &mut WaitQueue {
        &mut state.receiving.queue
    }

    fn regrant(_: &mut State<T>) {}
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
    /// Returns the position of the next value that is sent.
    fn tail(&self) -> u64 {
        self.head + self.slots.len() as u64
    }

    /// Removes the first value, which its caller drops without the lock.
    fn pop(&mut self) -> Option<Arc<T>> {
        let slot = self.slots.pop_front()?;
        self.head += 1;
        Some(slot.value)
    }

    /// Stores a value for all receivers. Returns the value that it overwrites.
    fn push(&mut self, value: T) -> Option<Arc<T>> {
        let overwritten = if self.slots.len() == self.capacity { self.pop() } else { None };
        self.slots.push_back(Slot { value: Arc::new(value), unseen: self.receivers });
        self.receiving.grant_all();
        overwritten
    }

    /// Takes the value at the position `next`, and moves on. `None` if the caller has to wait for it.
    fn take(&mut self, next: &mut u64) -> Option<Result<Arc<T>, TryRecvError>> {
        let missed = self.head.saturating_sub(*next);
        if missed > 0 {
            *next = self.head;
            return Some(Err(TryRecvError::Lagged(missed)));
        }
        let Some(slot) = self.slots.get_mut((*next - self.head) as usize) else {
            return (self.senders == 0).then_some(Err(TryRecvError::Closed));
        };
        *next += 1;
        slot.unseen -= 1;
        if slot.unseen == 0 { self.pop().map(Ok) } else { Some(Ok(Arc::clone(&slot.value))) }
    }

    /// Returns true if a receiver at the position `next` would not have to wait.
    fn is_ready(&self, next: u64) -> bool {
        next < self.tail() || self.senders == 0
    }

    /// Adds a receiver, and returns the position of its first value.
    fn subscribe(&mut self) -> u64 {
        self.receivers += 1;
        self.tail()
    }

    /// Removes a receiver at the position `next`. Returns the values that no other receiver needs.
    fn unsubscribe(&mut self, next: u64) -> Vec<Arc<T>> {
        self.receivers -= 1;
        let seen = next.saturating_sub(self.head) as usize;
        for slot in self.slots.iter_mut().skip(seen) {
            slot.unseen -= 1;
        }
        let mut unneeded = Vec::new();
        while self.slots.front().is_some_and(|slot| slot.unseen == 0) {
            unneeded.extend(self.pop());
        }
        if self.is_closed() {
            self.closing.grant_all();
        }
        unneeded
    }
}

impl<T> Sender<T> {
    /// Sends a value to all receivers, and returns their number. Does not switch.
    ///
    /// Whether they will receive it is not known: a receiver may lag, or end before.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no receiver; the error holds the value. A later send succeeds after a
    /// [`subscribe`](Sender::subscribe).
    pub fn send(&self, value: T) -> Result<usize, SendError<T>> {
        let mut state = self.shared.lock();
        let receivers = state.receivers;
        if state.is_closed() {
            return Err(SendError(value));
        }
        let overwritten = state.push(value);
        // The value's destructor is user code: it runs without the lock.
        drop(state);
        drop(overwritten);
        Ok(receivers)
    }

    /// Creates a receiver of the values that are sent from now on. Does not switch.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        let next = self.shared.lock().subscribe();
        Receiver { shared: Arc::clone(&self.shared), next }
    }

    /// Returns the number of receivers. Does not switch.
    #[must_use]
    pub fn receiver_count(&self) -> usize {
        self.shared.lock().receivers
    }

    /// Returns the number of values that a receiver has not received yet. Does not switch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.lock().slots.len()
    }

    /// Returns true if all receivers have received all values. Does not switch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until no receiver is left. Switches if it waits.
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
    /// Returns [`WaitError::TimedOut`] if a receiver was left in time, or an error of [`closed`](Sender::closed).
    pub fn closed_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        close_wait::closed(&self.shared, Deadline::from(timeout))
    }
}

impl<T> Receiver<T> {
    /// Returns the number of values that were sent and not received by this receiver. Does not switch.
    ///
    /// It counts the values that the receiver has missed.
    #[must_use]
    pub fn len(&self) -> usize {
        let unseen = self.shared.lock().tail() - self.next;
        usize::try_from(unseen).unwrap_or(usize::MAX)
    }

    /// Returns true if there is no value to receive. Does not switch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Creates a receiver of the values that are sent from now on. Does not switch.
    ///
    /// A clone would have to share what this receiver has not received, so there is none.
    #[must_use]
    pub fn resubscribe(&self) -> Receiver<T> {
        let next = self.shared.lock().subscribe();
        Receiver { shared: Arc::clone(&self.shared), next }
    }
}

impl<T: Clone> Receiver<T> {
    /// Waits for the next value. Switches.
    ///
    /// # Errors
    ///
    /// Returns [`RecvError::Lagged`] with the number of values that the receiver has missed; the next call returns the
    /// oldest value that is left. Returns [`RecvError::Closed`] if all values were received and all senders are gone.
    /// Returns [`RecvError::Loop`] where the caller may not wait (in the main loop, while panicking), and if the main
    /// loop ends the wait of the main greenlet by an error.
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.recv_within(Deadline::none()).map_err(RecvTimeoutError::without_limit)
    }

    /// Like [`recv`](Receiver::recv), for at most `timeout`. Switches.
    ///
    /// A timeout of zero lets other green threads run once.
    ///
    /// # Errors
    ///
    /// Returns [`RecvTimeoutError::TimedOut`] if no value came in time, or an error of [`recv`](Receiver::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_within(Deadline::from(timeout))
    }

    fn recv_within(&mut self, mut deadline: Deadline) -> Result<T, RecvTimeoutError> {
        let next = &mut self.next;
        let taken = ReceiveWait::wait(&self.shared, &mut deadline, (), |state, _| state.take(next).ok_or(()));
        match taken {
            // The clone is user code: it runs without the lock.
            Ok(Ok(value)) => Ok(Arc::unwrap_or_clone(value)),
            Ok(Err(TryRecvError::Lagged(missed))) => Err(RecvTimeoutError::Lagged(missed)),
            Ok(Err(TryRecvError::Closed | TryRecvError::Empty)) => Err(RecvTimeoutError::Closed),
            Err(Unserved::TimedOut(())) => Err(RecvTimeoutError::TimedOut),
            Err(Unserved::Failed(error, _)) => Err(RecvTimeoutError::Loop(error)),
        }
    }

    /// Returns the next value, if one was sent. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns [`TryRecvError::Empty`] if there is no value now, [`TryRecvError::Lagged`] if the receiver has missed
    /// values, and [`TryRecvError::Closed`] if all values were received and all senders are gone.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let taken = self.shared.lock().take(&mut self.next);
        taken.unwrap_or(Err(TryRecvError::Empty)).map(Arc::unwrap_or_clone)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.shared.lock().senders += 1;
        Sender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.senders -= 1;
        if state.senders == 0 {
            state.receiving.grant_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let unneeded = self.shared.lock().unsubscribe(self.next);
        // The values' destructors are user code: they run without the lock.
        drop(unneeded);
    }
}

/// A receiver is ready when a value or a lag can be received, or none will come.
impl<T> Waitable for Receiver<T> {
    fn is_ready(&self) -> bool {
        self.shared.lock().is_ready(self.next)
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        let mut state = self.shared.lock();
        let is_ready = state.is_ready(self.next);
        state.receiving.leave(mark, is_ready)
    }

    fn take_back(&self, left: LeftMark) {
        self.shared.lock().receiving.take_back(&left);
    }
}

/// A sender is ready when no receiver is left.
impl<T> Waitable for Sender<T> {
    fn is_ready(&self) -> bool {
        self.shared.lock().is_closed()
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
