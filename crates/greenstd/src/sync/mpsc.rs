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

use hub_core::{BiasedMutex, Doing, Parker};

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use super::attempt::{Late, within};
use super::line::{Line, Wait};

/// A channel that holds as much as is sent.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hub-core/tests/support/doctest.rs")); }
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
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hub-core/tests/support/doctest.rs")); }
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
        senders: 1,
        receiver: true,
        receiving: Line::new(),
        sending: Line::new(),
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
    /// Senders are served in the order in which they came. Switches if it has to wait.
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
    /// Receives the next item. Switches if it has to wait.
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

    /// Receives the next item, if it comes before `timeout` has passed. Switches if it has to wait.
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

    /// Receives until there is no sender any more. Its `next` switches if it has to wait.
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
    items: VecDeque<Item<T>>,
    /// How many receivers were chosen and did not run yet. As many items are theirs, unless their senders withdraw them.
    promised: usize,
    capacity: usize,
    /// How much of the room belongs to senders that were chosen.
    lent: usize,
    next_offer: u64,
    senders: usize,
    receiver: bool,
    receiving: Line,
    sending: Line,
}

struct Item<T> {
    value: T,
    /// Without a buffer: whose sender waits until it was received. They wait in the order of the items.
    offer: Option<u64>,
}

/// For an item.
struct ToReceive<T>(PhantomData<T>);

impl<T> Wait for ToReceive<T> {
    type State = State<T>;
    type Brought = ();

    const DOING: Doing = Doing::Queue;

    fn line(state: &mut State<T>) -> &mut Line {
        &mut state.receiving
    }

    fn pass_on(state: &mut State<T>) {
        if !state.receiving.choose() {
            state.promised -= 1;
        }
    }
}

/// For room, or without a buffer, for the receiver.
struct ToSend<T>(PhantomData<T>);

impl<T> Wait for ToSend<T> {
    type State = State<T>;
    type Brought = ();

    const DOING: Doing = Doing::Queue;
    /// Who offers again does so behind the others, as its item is.
    const KEEPS_PLACE: bool = false;

    fn line(state: &mut State<T>) -> &mut Line {
        &mut state.sending
    }

    fn pass_on(state: &mut State<T>) {
        if state.capacity > 0 && !state.sending.choose() {
            state.lent = state.lent.saturating_sub(1);
        }
    }
}

impl<T> State<T> {
    fn has_room(&self) -> bool {
        self.items.len() + self.lent < self.capacity
    }

    fn push(&mut self, value: T, offer: Option<u64>) {
        self.items.push_back(Item { value, offer });
        if self.receiving.choose() {
            self.promised += 1;
        }
    }

    /// Takes the next item. None: it is to be waited for. Those who were chosen may find that the item was
    /// withdrawn.
    fn take(&mut self, chosen: bool) -> Option<Result<T, RecvError>> {
        if chosen {
            self.promised -= 1;
        }
        if self.items.len() <= self.promised {
            return (self.senders == 0).then_some(Err(RecvError));
        }
        let item = self.items.pop_front()?;
        if item.offer.is_some() {
            self.sending.choose();
        } else if !self.sending.is_empty() && self.has_room() && self.sending.choose() {
            self.lent += 1;
        }
        Some(Ok(item.value))
    }

    /// Takes back what nobody has received.
    fn withdraw(&mut self, offer: u64) -> Option<T> {
        let index = self.items.iter().position(|item| item.offer == Some(offer))?;
        Some(self.items.remove(index)?.value)
    }

    /// The receiver has gone: what senders do not wait for is left to the caller.
    fn disconnect(&mut self) -> VecDeque<Item<T>> {
        self.receiver = false;
        self.promised = 0;
        let (offers, left) = self.items.drain(..).partition(|item| item.offer.is_some());
        self.items = offers;
        self.sending.choose_all();
        left
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
        // Without a buffer there is room with those who wait.
        if !state.has_room() && (state.capacity > 0 || state.receiving.is_empty()) {
            return Err(TrySendError::Full(item));
        }
        state.push(item, None);
        Ok(())
    }

    #[track_caller]
    fn send(&self, item: T) -> Result<(), SendError<T>> {
        if self.0.lock().capacity == 0 {
            return self.hand_over(item);
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
                state.push(item, None);
            }
            Some(())
        });
        debug_assert!(sent.is_ok() || item.is_some());
        item.map_or(Ok(()), |item| Err(SendError(item)))
    }

    /// Offers the item, and waits until it was received. Who was chosen and finds the item still there, since
    /// another sender has gone in between, offers it again at the end.
    #[track_caller]
    fn hand_over(&self, item: T) -> Result<(), SendError<T>> {
        // What is done before the first wait comes before the offer: made twice, it would choose two receivers. An
        // error comes again at the wait.
        drop(Parker::prepare());
        let mut offer = Offer { state: &self.0, number: None };
        let mut item = Some(item);
        let sent: Result<(), Late> = within::<ToSend<T>, _>(None, &self.0, |state, _| {
            if let Some(number) = offer.number.take() {
                item = state.withdraw(number);
            }
            if !state.receiver {
                return Some(());
            }
            let value = item.take();
            let Some(value) = value else { return Some(()) };
            let number = state.next_offer;
            state.next_offer += 1;
            offer.number = Some(number);
            state.push(value, Some(number));
            None
        });
        if sent.is_err() {
            item = offer.number.take().and_then(|number| self.0.lock().withdraw(number));
        }
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

/// What its sender takes back when it is unwound.
struct Offer<'a, T> {
    state: &'a BiasedMutex<State<T>>,
    number: Option<u64>,
}

impl<T> Drop for Offer<'_, T> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let withdrawn = self.state.lock().withdraw(number);
            drop(withdrawn);
        }
    }
}
