//! Multi-producer, single-consumer FIFO queue communication primitives, std's `mpsc`.
//!
//! The errors are std's own.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use hub_core::{BiasedMutex, Deadline, Grace, LeftMark, LoopErrorKind, ReadyMark, WaitReason, Waitable};

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use super::wait_infallible::{block, within};
use super::wait_queue::{Unserved, Wait, WaitQueue};
use super::waiters::Waiters;

/// Creates a new asynchronous channel, returning the sender and receiver halves.
///
/// It has no bound: a send never waits.
///
/// ```
/// use greenhub::thread;
/// use greenhub::sync::mpsc;
/// let (sender, receiver) = mpsc::channel();
/// for name in ["epoll", "poll"] {
///     let sender = sender.clone();
///     thread::spawn(move || sender.send(name));
/// }
/// drop(sender);
/// assert_eq!(receiver.iter().collect::<Vec<_>>(), ["epoll", "poll"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = pair(usize::MAX);
    (Sender(sender), receiver)
}

/// Creates a new synchronous, bounded channel.
///
/// It holds up to `bound` items; a sender waits while it is full. With 0 it holds none: a sender waits until its item
/// is received.
///
/// ```
/// use greenhub::thread;
/// use greenhub::sync::mpsc;
/// let (sender, receiver) = mpsc::sync_channel(1);
/// sender.send(1)?;
/// assert_eq!(sender.try_send(2), Err(mpsc::TrySendError::Full(2)));
/// let other = thread::spawn(move || sender.send(3)); // waits for room
/// assert_eq!((receiver.recv()?, receiver.recv()?), (1, 3));
/// other.join()??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (sender, receiver) = pair(bound);
    (SyncSender(sender), receiver)
}

fn pair<T>(capacity: usize) -> (RawSender<T>, Receiver<T>) {
    let state = State {
        items: VecDeque::new(),
        promised: 0,
        capacity,
        reserved: 0,
        next_offer: 0,
        returned: Vec::new(),
        senders: 1,
        has_receiver: true,
        receiving: Waiters::new(),
        sending: WaitQueue::new(),
        offering: WaitQueue::new(),
    };
    let shared = Arc::new(BiasedMutex::new(state));
    (RawSender(Arc::clone(&shared)), Receiver { shared, not_sync: PhantomData })
}

/// The sending half of a [`channel`], std's `Sender`.
pub struct Sender<T>(RawSender<T>);

/// The sending half of a [`sync_channel`], std's `SyncSender`.
pub struct SyncSender<T>(RawSender<T>);

/// The receiving half of a channel, std's `Receiver`.
pub struct Receiver<T> {
    shared: Arc<BiasedMutex<State<T>>>,
    /// Not `Sync`, like std's.
    not_sync: PhantomData<AssertUnwindSafe<Cell<()>>>,
}

impl<T> Sender<T> {
    /// Attempts to send a value on this channel. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if the receiver is gone; the error holds the item.
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.0.send_unbounded(item)
    }
}

impl<T> SyncSender<T> {
    /// Sends a value on this synchronous channel. Switches.
    ///
    /// It waits for room; without a buffer it waits until the item is received. Senders are served in FIFO order. If an
    /// exit ends the wait, the item is dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if the receiver is gone; the error holds the item. The same holds in a destructor that runs
    /// while panicking, if there is no room within the time of [`set_panicking_grace`](hub_core::set_panicking_grace).
    ///
    /// # Panics
    ///
    /// Panics if it has to wait in the main loop, or if the main loop ends the wait of the main greenlet by an error.
    #[track_caller]
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.0.send(item)
    }

    /// Attempts to send a value on this channel without waiting. Does not switch.
    ///
    /// Without a buffer it succeeds only if the receiver waits.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no room, or the receiver is gone; the error holds the item.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(item)
    }
}

impl<T> Receiver<T> {
    /// Attempts to wait for a value on this receiver. Switches.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no item and all senders are gone. The same holds in a destructor that runs while
    /// panicking, if no item comes within the time of [`set_panicking_grace`](hub_core::set_panicking_grace).
    ///
    /// # Panics
    ///
    /// Panics if it has to wait in the main loop, or if the main loop ends the wait of the main greenlet by an error.
    #[track_caller]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.receive(None).map_err(|_| RecvError)
    }

    /// Attempts to wait for a value on this receiver for at most `timeout`. Switches.
    ///
    /// # Errors
    ///
    /// Returns an error if no item came in time, or there is none and all senders are gone. While panicking, the
    /// panicking grace limits the timeout.
    ///
    /// # Panics
    ///
    /// Like [`recv`](Receiver::recv).
    #[track_caller]
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.receive(Some(timeout))
    }

    /// Attempts to return a pending value on this receiver without waiting. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no item; the error tells whether there is still a sender.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.shared.lock().take(false) {
            Some(Ok(item)) => Ok(item),
            Some(Err(RecvError)) => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Returns an iterator that waits for items until all senders are gone. Its `next` switches.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self)
    }

    /// Returns an iterator over the pending items. Does not switch.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter(self)
    }

    #[track_caller]
    fn receive(&self, timeout: Option<Duration>) -> Result<T, RecvTimeoutError> {
        match within::<ReceiveWait<T>, _>(timeout, &self.shared, State::take) {
            Ok(Ok(item)) => Ok(item),
            Ok(Err(RecvError)) => Err(RecvTimeoutError::Disconnected),
            Err(_) => Err(RecvTimeoutError::Timeout),
        }
    }
}

/// A receiver is ready when it would return at once, with an item or because all senders are gone. The waiter gets no
/// item, and takes one by [`try_recv`](Receiver::try_recv).
///
/// Callers that wait in [`recv`](Receiver::recv) come first.
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

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender(self.0.clone())
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> SyncSender<T> {
        SyncSender(self.0.clone())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = self.shared.lock().disconnect();
        // The items' destructors are user code: they run without the lock.
        drop(left);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// An iterator over messages on a [`Receiver`], created by [`Receiver::iter`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Iter<'a, T>(&'a Receiver<T>);

/// An iterator over pending messages on a [`Receiver`], created by [`Receiver::try_iter`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct TryIter<'a, T>(&'a Receiver<T>);

/// An owning iterator over messages on a [`Receiver`], created by `into_iter`.
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct IntoIter<T>(Receiver<T>);

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    #[track_caller]
    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    #[track_caller]
    fn next(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    #[track_caller]
    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

/// The state that both halves share.
struct State<T> {
    items: VecDeque<T>,
    /// The number of receivers that were granted and have not run since. As many items belong to them, unless their
    /// senders withdraw them.
    promised: usize,
    capacity: usize,
    /// The part of the room that belongs to granted senders.
    reserved: usize,
    next_offer: u64,
    /// The offers of waiting senders after the receiver is gone; each sender takes its own back.
    returned: Vec<Offer<T>>,
    senders: usize,
    has_receiver: bool,
    receiving: Waiters,
    /// The senders that wait for room.
    sending: WaitQueue,
    /// Without a buffer: the senders that wait until their items are received. The item stays with its sender until
    /// then, so a sender that leaves knows under the lock whether it was received.
    offering: WaitQueue<Offer<T>>,
}

struct Offer<T> {
    number: u64,
    item: T,
}

/// The wait for an item.
struct ReceiveWait<T>(PhantomData<T>);

impl<T> Wait for ReceiveWait<T> {
    type State = State<T>;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Channel;
    const CALL: &'static str = "recv";
    const CHARGED: bool = true;

    fn queue(state: &mut State<T>) -> &mut WaitQueue {
        &mut state.receiving.queue
    }

    fn regrant(state: &mut State<T>) {
        if !state.receiving.grant() {
            state.promised -= 1;
        }
    }
}

/// The wait for room.
struct RoomWait<T>(PhantomData<T>);

impl<T> Wait for RoomWait<T> {
    type State = State<T>;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Channel;
    const CALL: &'static str = "send";
    const CHARGED: bool = true;

    fn queue(state: &mut State<T>) -> &mut WaitQueue {
        &mut state.sending
    }

    fn regrant(state: &mut State<T>) {
        if !state.sending.grant() {
            state.reserved = state.reserved.saturating_sub(1);
        }
    }
}

/// The wait, without a buffer, for a receiver that takes the item.
struct RendezvousWait<T>(PhantomData<T>);

impl<T> Wait for RendezvousWait<T> {
    type State = State<T>;
    type Payload = Offer<T>;

    const REASON: WaitReason = WaitReason::Channel;
    const CALL: &'static str = "send";

    fn queue(state: &mut State<T>) -> &mut WaitQueue<Offer<T>> {
        &mut state.offering
    }

    fn enqueued(state: &mut State<T>) {
        state.grant_receiver();
    }

    fn regrant(_: &mut State<T>) {
        // A receiver that takes the item of a sender keeps it.
    }
}

impl<T> State<T> {
    fn has_room(&self) -> bool {
        self.items.len() + self.reserved < self.capacity
    }

    /// Grants the receiver a new item, or sets the marks.
    fn grant_receiver(&mut self) {
        if self.receiving.grant() {
            self.promised += 1;
        }
    }

    /// Returns true if a newcomer would return at once, with an item or because all senders are gone.
    fn is_ready(&self) -> bool {
        self.items.len() + self.offering.len() > self.promised || self.senders == 0
    }

    fn push(&mut self, item: T) {
        self.items.push_back(item);
        self.grant_receiver();
    }

    /// Takes the next item. `None` if the caller has to wait for it. A granted receiver may find that its item was
    /// withdrawn.
    #[inline]
    fn take(&mut self, granted: bool) -> Option<Result<T, RecvError>> {
        if granted {
            self.promised -= 1;
        }
        if self.items.len() <= self.promised {
            return if self.offering.is_empty() { self.check_disconnected() } else { self.take_offered() };
        }
        let item = self.items.pop_front()?;
        if !self.sending.is_empty() && self.has_room() && self.sending.grant() {
            self.reserved += 1;
        }
        Some(Ok(item))
    }

    fn check_disconnected(&self) -> Option<Result<T, RecvError>> {
        (self.senders == 0).then_some(Err(RecvError))
    }

    /// Takes the next item, when all items in the buffer are promised.
    #[cold]
    fn take_offered(&mut self) -> Option<Result<T, RecvError>> {
        if self.items.len() + self.offering.len() <= self.promised {
            return self.check_disconnected();
        }
        let item = self.items.pop_front().or_else(|| Some(self.offering.grant_payload()?.item));
        item.map(Ok)
    }

    /// Passes the item on if a receiver waits. For a channel without a buffer.
    #[cold]
    fn hand_to_receiver(&mut self, item: T) -> Result<(), T> {
        if self.receiving.queue.is_empty() {
            return Err(item);
        }
        // Senders whose receivers were granted before came first.
        while self.items.len() < self.promised
            && let Some(offer) = self.offering.grant_payload()
        {
            self.items.push_back(offer.item);
        }
        self.push(item);
        Ok(())
    }

    /// Returns the number of a new offer if there is no buffer.
    fn number_offer(&mut self) -> Option<u64> {
        if self.capacity > 0 {
            return None;
        }
        self.next_offer += 1;
        Some(self.next_offer)
    }

    /// Returns the item of an offer that the receiver's end has put back.
    fn take_back(&mut self, number: u64) -> Option<T> {
        let index = self.returned.iter().position(|offer| offer.number == number)?;
        Some(self.returned.swap_remove(index).item)
    }

    /// Disconnects the receiver: waiting senders get their items back. Returns the buffered items.
    fn disconnect(&mut self) -> VecDeque<T> {
        self.has_receiver = false;
        self.promised = 0;
        while let Some(offer) = self.offering.grant_payload() {
            self.returned.push(offer);
        }
        self.sending.grant_all();
        std::mem::take(&mut self.items)
    }
}

/// The sending half of both kinds of channels.
struct RawSender<T>(Arc<BiasedMutex<State<T>>>);

impl<T> RawSender<T> {
    /// Sends on a channel without a bound, which always has room.
    fn send_unbounded(&self, item: T) -> Result<(), SendError<T>> {
        let mut state = self.0.lock();
        if !state.has_receiver {
            return Err(SendError(item));
        }
        state.push(item);
        Ok(())
    }

    fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut state = self.0.lock();
        if !state.has_receiver {
            return Err(TrySendError::Disconnected(item));
        }
        if state.has_room() {
            state.push(item);
            return Ok(());
        }
        if state.capacity > 0 { Err(item) } else { state.hand_to_receiver(item) }.map_err(TrySendError::Full)
    }

    #[track_caller]
    fn send(&self, item: T) -> Result<(), SendError<T>> {
        let offer = self.0.lock().number_offer();
        if let Some(number) = offer {
            return self.hand_over(number, item);
        }
        let mut item = Some(item);
        let sent = within::<RoomWait<T>, _>(None, &self.0, |state, granted| {
            if granted {
                state.reserved = state.reserved.saturating_sub(1);
            }
            if state.has_receiver && !state.has_room() {
                return None;
            }
            if state.has_receiver
                && let Some(item) = item.take()
            {
                state.push(item);
            }
            Some(())
        });
        debug_assert!(sent.is_ok() || item.is_some());
        item.map_or(Ok(()), |item| Err(SendError(item)))
    }

    /// Offers the item, and waits until it is received.
    #[track_caller]
    fn hand_over(&self, number: u64, item: T) -> Result<(), SendError<T>> {
        let mut offered = Some(Offer { number, item });
        while let Some(offer) = offered.take() {
            let sent = RendezvousWait::wait(&self.0, &mut Deadline::none(), offer, |state, offer| match offer {
                Some(offer) if state.has_receiver => Err(offer),
                Some(offer) => Ok(Err(SendError(offer.item))),
                None => Ok(state.take_back(number).map_or(Ok(()), |item| Err(SendError(item)))),
            });
            let (error, left) = match sent {
                Ok(result) => return result,
                Err(Unserved::Failed(error, left)) => (error, left),
                // Does not occur without a timeout.
                Err(Unserved::TimedOut(left)) => {
                    offered = Some(left);
                    continue;
                }
            };
            offered = left;
            match (error.kind(), offered.take()) {
                // A grant came before the error.
                (_, None) => return self.0.lock().take_back(number).map_or(Ok(()), |item| Err(SendError(item))),
                (LoopErrorKind::Aborted | LoopErrorKind::HubReplaced, left) => offered = left,
                (LoopErrorKind::Panicking, Some(offer)) => return self.hand_over_with_grace(offer.item),
                _ => panic!("{}: {error}", RendezvousWait::<T>::CALL),
            }
        }
        Ok(())
    }

    /// Blocks while panicking, when nothing may switch: a receiver on another OS thread may come.
    #[cold]
    fn hand_over_with_grace(&self, item: T) -> Result<(), SendError<T>> {
        let mut item = Some(item);
        let _late = block(&Grace::begin(), None, || {
            let mut state = self.0.lock();
            if state.has_receiver {
                item = state.hand_to_receiver(item.take()?).err();
            }
            (item.is_none() || !state.has_receiver).then_some(())
        });
        item.map_or(Ok(()), |item| Err(SendError(item)))
    }
}

impl<T> Clone for RawSender<T> {
    fn clone(&self) -> RawSender<T> {
        self.0.lock().senders += 1;
        RawSender(Arc::clone(&self.0))
    }
}

impl<T> Drop for RawSender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        if state.senders == 0 {
            // The last call finds no receiver, and sets the marks.
            while state.receiving.grant() {
                state.promised += 1;
            }
        }
    }
}
