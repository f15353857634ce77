//! std's `mpsc`, green: channels with many senders and one receiver.
//!
//! The errors are std's own.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use hub_core::{BiasedMutex, Deadline, Grace, LoopError, WaitReason};

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use super::attempt::{block, within};
use super::line::{Ended, Line, Wait};

/// A channel that holds as much as is sent.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::{sync::mpsc, thread};
/// let (sender, receiver) = mpsc::channel();
/// for name in ["epoll", "poll"] {
///     let sender = sender.clone();
///     thread::spawn(move || sender.send(name));
/// }
/// drop(sender);
/// assert_eq!(receiver.iter().collect::<Vec<_>>(), ["epoll", "poll"]);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = pair(usize::MAX);
    (Sender(sender), receiver)
}

/// A channel that holds up to `bound` items: those who send more wait. With 0 it holds none: who sends waits until
/// the item was received.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::{sync::mpsc, thread};
/// let (sender, receiver) = mpsc::sync_channel(1);
/// sender.send(1)?;
/// assert_eq!(sender.try_send(2), Err(mpsc::TrySendError::Full(2)));
/// let other = thread::spawn(move || sender.send(3)); // waits for room
/// assert_eq!((receiver.recv()?, receiver.recv()?), (1, 3));
/// other.join()??;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use]
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (sender, receiver) = pair(bound);
    (SyncSender(sender), receiver)
}

fn pair<T>(capacity: usize) -> (Sending<T>, Receiver<T>) {
    let state = State {
        items: VecDeque::new(),
        promised: 0,
        capacity,
        lent: 0,
        next_offer: 0,
        returned: Vec::new(),
        senders: 1,
        receiver: true,
        receiving: Line::new(),
        sending: Line::new(),
        offering: Line::new(),
    };
    let shared = Arc::new(BiasedMutex::new(state));
    (Sending(Arc::clone(&shared)), Receiver { shared, not_sync: PhantomData })
}

/// Sends into a [`channel`] without a bound, std's `Sender`.
pub struct Sender<T>(Sending<T>);

/// Sends into a [`sync_channel`], std's `SyncSender`.
pub struct SyncSender<T>(Sending<T>);

/// Receives from a channel, std's `Receiver`.
pub struct Receiver<T> {
    shared: Arc<BiasedMutex<State<T>>>,
    /// As std's: one OS thread at a time.
    not_sync: PhantomData<AssertUnwindSafe<Cell<()>>>,
}

impl<T> Sender<T> {
    /// Sends an item. Does not switch.
    ///
    /// # Errors
    ///
    /// If there is no receiver any more; the item is in the error.
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.0.try_send(item).map_err(|error| match error {
            TrySendError::Full(item) | TrySendError::Disconnected(item) => SendError(item),
        })
    }
}

impl<T> SyncSender<T> {
    /// Sends an item, as soon as there is room for it; without a buffer it returns when the item was received.
    /// Senders are served in the order in which they came. Switches.
    ///
    /// If the green thread is killed while it waits, the item is dropped.
    ///
    /// # Errors
    ///
    /// If there is no receiver any more; the item is in the error. Also in a destructor that runs while panicking,
    /// if there is no room after the time of [`set_panicking_grace`](hub_core::set_panicking_grace).
    ///
    /// # Panics
    ///
    /// If it has to wait in the main loop; in the main greenlet, with what the loop has to tell it.
    #[track_caller]
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.0.send(item)
    }

    /// Sends an item if there is room for it, or without a buffer, if the receiver waits. Does not switch.
    ///
    /// # Errors
    ///
    /// If there is no room, or no receiver any more; the item is in the error.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(item)
    }
}

impl<T> Receiver<T> {
    /// Receives the next item. Switches.
    ///
    /// # Errors
    ///
    /// If there is none and no sender any more. Also in a destructor that runs while panicking, if none comes
    /// within the time of [`set_panicking_grace`](hub_core::set_panicking_grace).
    ///
    /// # Panics
    ///
    /// If it has to wait in the main loop; in the main greenlet, with what the loop has to tell it.
    #[track_caller]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.receive(None).map_err(|_| RecvError)
    }

    /// Receives the next item, if it comes before `timeout` has passed. Switches.
    ///
    /// # Errors
    ///
    /// If none came in time, which is limited while panicking, or there is none and no sender any more.
    ///
    /// # Panics
    ///
    /// As [`recv`](Receiver::recv).
    #[track_caller]
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.receive(Some(timeout))
    }

    /// Receives the next item if it is there. Does not switch.
    ///
    /// # Errors
    ///
    /// If there is none, and then, whether there is a sender still.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.shared.lock().take(false) {
            Some(Ok(item)) => Ok(item),
            Some(Err(RecvError)) => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Receives until there is no sender any more. Its `next` switches.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self)
    }

    /// Receives what is there. Does not switch.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter(self)
    }

    #[track_caller]
    fn receive(&self, timeout: Option<Duration>) -> Result<T, RecvTimeoutError> {
        match within::<ToReceive<T>, _>(timeout, &self.shared, State::take) {
            Ok(Ok(item)) => Ok(item),
            Ok(Err(RecvError)) => Err(RecvTimeoutError::Disconnected),
            Err(_) => Err(RecvTimeoutError::Timeout),
        }
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
        // Foreign code, without the lock.
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

/// What [`Receiver::iter`] returns.
#[derive(Debug)]
pub struct Iter<'a, T>(&'a Receiver<T>);

/// What [`Receiver::try_iter`] returns.
#[derive(Debug)]
pub struct TryIter<'a, T>(&'a Receiver<T>);

/// What a [`Receiver`] is turned into by `into_iter`.
#[derive(Debug)]
pub struct IntoIter<T>(Receiver<T>);

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

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

/// What both ends share.
struct State<T> {
    items: VecDeque<T>,
    /// How many receivers were chosen and did not run yet. As many items are theirs, unless their senders withdraw them.
    promised: usize,
    capacity: usize,
    /// How much of the room belongs to senders that were chosen.
    lent: usize,
    next_offer: u64,
    /// The offers of senders that wait, after the receiver has gone, to be taken back.
    returned: Vec<Offer<T>>,
    senders: usize,
    receiver: bool,
    receiving: Line,
    /// Senders that wait for room.
    sending: Line,
    /// Without a buffer: senders that wait until their item is received. An item is with its sender until then, so a
    /// sender that leaves knows under the lock whether it was received.
    offering: Line<Offer<T>>,
}

struct Offer<T> {
    number: u64,
    item: T,
}

/// For an item.
struct ToReceive<T>(PhantomData<T>);

impl<T> Wait for ToReceive<T> {
    type State = State<T>;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Queue;
    const CHARGED: bool = true;

    fn line(state: &mut State<T>) -> &mut Line {
        &mut state.receiving
    }

    fn pass_on(state: &mut State<T>) {
        if !state.receiving.choose() {
            state.promised -= 1;
        }
    }
}

/// For room.
struct ToSend<T>(PhantomData<T>);

impl<T> Wait for ToSend<T> {
    type State = State<T>;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Queue;
    const CHARGED: bool = true;

    fn line(state: &mut State<T>) -> &mut Line {
        &mut state.sending
    }

    fn pass_on(state: &mut State<T>) {
        if !state.sending.choose() {
            state.lent = state.lent.saturating_sub(1);
        }
    }
}

/// Without a buffer: for a receiver that takes the item.
struct ToHandOver<T>(PhantomData<T>);

impl<T> Wait for ToHandOver<T> {
    type State = State<T>;
    type Brought = Offer<T>;

    const DOING: WaitReason = WaitReason::Queue;

    fn line(state: &mut State<T>) -> &mut Line<Offer<T>> {
        &mut state.offering
    }

    fn entered(state: &mut State<T>) {
        state.announce();
    }

    fn pass_on(_: &mut State<T>) {
        // A receiver that takes an item from its sender keeps it.
    }
}

impl<T> State<T> {
    fn has_room(&self) -> bool {
        self.items.len() + self.lent < self.capacity
    }

    /// Chooses a receiver for an item that has come.
    fn announce(&mut self) {
        if self.receiving.choose() {
            self.promised += 1;
        }
    }

    fn push(&mut self, item: T) {
        self.items.push_back(item);
        self.announce();
    }

    /// Takes the next item. None: it is to be waited for. A receiver that was chosen may find that the item was
    /// withdrawn.
    #[inline]
    fn take(&mut self, chosen: bool) -> Option<Result<T, RecvError>> {
        if chosen {
            self.promised -= 1;
        }
        if self.items.len() <= self.promised {
            return if self.offering.is_empty() { self.take_nothing() } else { self.take_offered() };
        }
        let item = self.items.pop_front()?;
        if !self.sending.is_empty() && self.has_room() && self.sending.choose() {
            self.lent += 1;
        }
        Some(Ok(item))
    }

    fn take_nothing(&self) -> Option<Result<T, RecvError>> {
        (self.senders == 0).then_some(Err(RecvError))
    }

    /// Takes the next item, as far as those that are there are promised.
    #[cold]
    fn take_offered(&mut self) -> Option<Result<T, RecvError>> {
        if self.items.len() + self.offering.len() <= self.promised {
            return self.take_nothing();
        }
        let item = self.items.pop_front().or_else(|| Some(self.offering.choose_with()?.item));
        item.map(Ok)
    }

    /// Without a buffer: takes an item if a receiver waits for it.
    #[cold]
    fn hand_to_waiting(&mut self, item: T) -> Result<(), T> {
        if self.receiving.is_empty() {
            return Err(item);
        }
        // Senders whose receivers were chosen before came first.
        while self.items.len() < self.promised
            && let Some(offer) = self.offering.choose_with()
        {
            self.items.push_back(offer.item);
        }
        self.push(item);
        Ok(())
    }

    /// The number of a new offer, if there is no buffer.
    fn number_offer(&mut self) -> Option<u64> {
        if self.capacity > 0 {
            return None;
        }
        self.next_offer += 1;
        Some(self.next_offer)
    }

    /// Gives a sender back what nobody has received, if the receiver has gone.
    fn take_back(&mut self, number: u64) -> Option<T> {
        let index = self.returned.iter().position(|offer| offer.number == number)?;
        Some(self.returned.swap_remove(index).item)
    }

    /// The receiver has gone: senders that wait get their items back, and the rest is left to the caller.
    fn disconnect(&mut self) -> VecDeque<T> {
        self.receiver = false;
        self.promised = 0;
        while let Some(offer) = self.offering.choose_with() {
            self.returned.push(offer);
        }
        self.sending.choose_all();
        std::mem::take(&mut self.items)
    }
}

/// The sending end.
struct Sending<T>(Arc<BiasedMutex<State<T>>>);

impl<T> Sending<T> {
    fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut state = self.0.lock();
        if !state.receiver {
            return Err(TrySendError::Disconnected(item));
        }
        if state.has_room() {
            state.push(item);
            return Ok(());
        }
        if state.capacity > 0 { Err(item) } else { state.hand_to_waiting(item) }.map_err(TrySendError::Full)
    }

    #[track_caller]
    fn send(&self, item: T) -> Result<(), SendError<T>> {
        let offer = self.0.lock().number_offer();
        if let Some(number) = offer {
            return self.hand_over(number, item);
        }
        let mut item = Some(item);
        let sent = within::<ToSend<T>, _>(None, &self.0, |state, chosen| {
            if chosen {
                state.lent = state.lent.saturating_sub(1);
            }
            if state.receiver && !state.has_room() {
                return None;
            }
            if state.receiver
                && let Some(item) = item.take()
            {
                state.push(item);
            }
            Some(())
        });
        debug_assert!(sent.is_ok() || item.is_some());
        item.map_or(Ok(()), |item| Err(SendError(item)))
    }

    /// Offers the item, and waits until it was received.
    #[track_caller]
    fn hand_over(&self, number: u64, item: T) -> Result<(), SendError<T>> {
        let mut offered = Some(Offer { number, item });
        while let Some(offer) = offered.take() {
            let sent = ToHandOver::wait(&self.0, &mut Deadline::none(), offer, |state, offer| match offer {
                Some(offer) if state.receiver => Err(offer),
                Some(offer) => Ok(Err(SendError(offer.item))),
                None => Ok(state.take_back(number).map_or(Ok(()), |item| Err(SendError(item)))),
            });
            let (error, left) = match sent {
                Ok(result) => return result,
                Err(Ended::Failed(error, left)) => (error, left),
                // Without a limit it is never too late.
                Err(Ended::Late(left)) => {
                    offered = Some(left);
                    continue;
                }
            };
            offered = left;
            match (*error, offered.take()) {
                // It was chosen before the error came.
                (_, None) => return self.0.lock().take_back(number).map_or(Ok(()), |item| Err(SendError(item))),
                (LoopError::Aborted | LoopError::HubReplaced, left) => offered = left,
                (LoopError::Panicking, Some(offer)) => return self.hand_over_with_grace(offer.item),
                (error, _) => panic!("{error}"),
            }
        }
        Ok(())
    }

    /// While panicking, when nothing may switch: a receiver on another OS thread may come.
    #[cold]
    fn hand_over_with_grace(&self, item: T) -> Result<(), SendError<T>> {
        let mut item = Some(item);
        let _late = block(&Grace::begin(), None, || {
            let mut state = self.0.lock();
            if state.receiver {
                item = state.hand_to_waiting(item.take()?).err();
            }
            (item.is_none() || !state.receiver).then_some(())
        });
        item.map_or(Ok(()), |item| Err(SendError(item)))
    }
}

impl<T> Clone for Sending<T> {
    fn clone(&self) -> Sending<T> {
        self.0.lock().senders += 1;
        Sending(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sending<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        if state.senders == 0 {
            while state.receiving.choose() {
                state.promised += 1;
            }
        }
    }
}
