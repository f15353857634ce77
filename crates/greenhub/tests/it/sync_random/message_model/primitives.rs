//! The primitives, each with its model.

use std::rc::Rc;
use std::time::Duration;

use greenhub::park::Waitable;
use greenhub::sync::{CancellationToken, Notify, WaitError, broadcast, oneshot, watch};

use super::{Outcome, Primitive, Queues};
use crate::support::random::Rng;

pub(super) struct OneshotChannel {
    sender: Option<oneshot::Sender<usize>>,
    receiver: Rc<oneshot::Receiver<usize>>,
    value: Option<usize>,
    /// Whether the value belongs to a woken waiter.
    promised: bool,
    closed: bool,
}

impl OneshotChannel {
    fn is_over(&self) -> bool {
        self.value.is_none() && (self.closed || self.sender.is_none())
    }

    fn settle(&mut self, queues: &mut Queues) {
        if self.is_over() {
            queues.wake_all(0);
        } else if self.value.is_some() && !self.promised {
            self.promised = queues.wake_first(0);
        }
    }
}

impl Primitive for OneshotChannel {
    type End = Rc<oneshot::Receiver<usize>>;

    const STEPS: usize = 25;

    fn new(_: &mut Rng) -> OneshotChannel {
        let (sender, receiver) = oneshot::channel();
        let receiver = Rc::new(receiver);
        OneshotChannel { sender: Some(sender), receiver, value: None, promised: false, closed: false }
    }

    fn end(&mut self, _: &mut Rng) -> Self::End {
        self.receiver.clone()
    }

    fn wait(end: &mut Self::End, limit: Option<Duration>) -> Outcome {
        let received = match limit {
            None => end.recv().map_err(oneshot::RecvTimeoutError::from),
            Some(limit) => end.recv_timeout(limit),
        };
        match received {
            Ok(value) => Outcome::Got(value),
            Err(oneshot::RecvTimeoutError::Closed) => Outcome::Closed,
            Err(oneshot::RecvTimeoutError::TimedOut) => Outcome::Late,
            Err(error) => panic!("{error}"),
        }
    }

    fn attempt(&mut self, _: usize, granted: bool, queues: &mut Queues) -> Option<Outcome> {
        self.promised &= !granted;
        if self.is_over() {
            return Some(Outcome::Closed);
        }
        if self.promised {
            return None;
        }
        let value = self.value.take()?;
        self.settle(queues);
        Some(Outcome::Got(value))
    }

    fn change(&mut self, random: &mut Rng, step: usize, queues: &mut Queues, at: &str) {
        match random.usize(..8) {
            0..=2 => {
                let Some(sender) = self.sender.take() else { return };
                assert_eq!(sender.is_closed(), self.closed, "{at}");
                let refused = sender.send(step).err();
                assert_eq!(refused, self.closed.then_some(step), "{at}");
                self.value = if self.closed { None } else { Some(step) };
                self.settle(queues);
            }
            3 if random.usize(..3) == 0 => {
                self.sender = None;
                self.settle(queues);
            }
            4 if random.usize(..3) == 0 => {
                self.receiver.close();
                self.closed = true;
                self.settle(queues);
            }
            _ => {
                let expected = match self.attempt(0, false, queues) {
                    Some(Outcome::Got(value)) => Ok(value),
                    Some(_) => Err(oneshot::TryRecvError::Closed),
                    None => Err(oneshot::TryRecvError::Empty),
                };
                assert_eq!(self.receiver.try_recv(), expected, "{at}");
            }
        }
    }

    fn check(&self, at: &str) {
        let is_ready = self.is_over() || (self.value.is_some() && !self.promised);
        assert_eq!(self.receiver.is_ready(), is_ready, "{at}");
    }
}

/// The number of changes that a receiver has seen; `None` after its end.
type Seen = Option<usize>;

pub(super) struct WatchChannel {
    sender: Option<watch::Sender<usize>>,
    receiver: watch::Receiver<usize>,
    value: usize,
    changes: usize,
    /// The receiver of main, then those of the actors.
    seen: Vec<Seen>,
    /// Whether each actor waits for a condition.
    conditional: Vec<bool>,
}

impl WatchChannel {
    fn set(&mut self, value: usize, queues: &mut Queues) {
        self.value = value;
        self.changes += 1;
        queues.wake_all(0);
    }

    /// The condition that some actors wait for.
    fn is_wanted(value: usize) -> bool {
        value.is_multiple_of(3)
    }
}

impl Primitive for WatchChannel {
    type End = (watch::Receiver<usize>, bool);

    const STEPS: usize = 80;

    fn new(_: &mut Rng) -> WatchChannel {
        let (sender, receiver) = watch::channel(1);
        let (seen, conditional) = (vec![Some(0)], Vec::new());
        WatchChannel { sender: Some(sender), receiver, value: 1, changes: 0, seen, conditional }
    }

    fn end(&mut self, random: &mut Rng) -> Self::End {
        self.seen.push(self.seen[0]);
        let conditional = random.bool();
        self.conditional.push(conditional);
        (self.receiver.clone(), conditional)
    }

    fn wait((receiver, conditional): &mut Self::End, limit: Option<Duration>) -> Outcome {
        let waited = match (*conditional, limit) {
            (true, None) => receiver.wait_for(|value| Self::is_wanted(*value)).map_err(watch::RecvTimeoutError::from),
            (true, Some(limit)) => receiver.wait_for_timeout(limit, |value| Self::is_wanted(*value)),
            (false, None) => receiver.changed().map_err(watch::RecvTimeoutError::from).map(|()| receiver.borrow()),
            (false, Some(limit)) => receiver.changed_timeout(limit).map(|()| receiver.borrow()),
        };
        match waited {
            Ok(value) => Outcome::Got(*value),
            Err(watch::RecvTimeoutError::Closed) => Outcome::Closed,
            Err(watch::RecvTimeoutError::TimedOut) => Outcome::Late,
            Err(error) => panic!("{error}"),
        }
    }

    fn attempt(&mut self, actor: usize, _: bool, _: &mut Queues) -> Option<Outcome> {
        let changed = self.seen[actor + 1].replace(self.changes) != Some(self.changes);
        let wanted = if self.conditional[actor] { Self::is_wanted(self.value) } else { changed };
        if wanted {
            return Some(Outcome::Got(self.value));
        }
        self.sender.is_none().then_some(Outcome::Closed)
    }

    fn drop_end(&mut self, actor: usize) {
        self.seen[actor + 1] = None;
    }

    fn change(&mut self, random: &mut Rng, step: usize, queues: &mut Queues, at: &str) {
        let choice = random.usize(..8);
        let Some(sender) = &self.sender else { return };
        match choice {
            0..=1 => {
                sender.send(step).expect("there is a receiver");
                self.set(step, queues);
            }
            2 => {
                assert_eq!(sender.send_replace(step), self.value, "{at}");
                self.set(step, queues);
            }
            3 => {
                sender.send_modify(|value| *value += 1);
                self.set(self.value + 1, queues);
            }
            4 => assert!(!sender.send_if_modified(|value| {
                *value += 1;
                false
            })),
            5 => {
                let changed = self.seen[0].replace(self.changes) != Some(self.changes);
                let value = self.receiver.borrow_and_update();
                assert_eq!((*value, value.has_changed()), (self.value, changed), "{at}");
            }
            6 if random.usize(..10) == 0 => {
                self.sender = None;
                queues.wake_all(0);
            }
            _ => {
                // A new receiver has seen the present value.
                self.receiver = sender.subscribe();
                self.seen[0] = Some(self.changes);
            }
        }
    }

    fn check(&self, at: &str) {
        let changed = self.seen[0] != Some(self.changes);
        let has_changed = self.receiver.has_changed().ok();
        assert_eq!(has_changed, (changed || self.sender.is_some()).then_some(changed), "{at}");
        assert_eq!(self.receiver.is_ready(), changed || self.sender.is_none(), "{at}");
        if let Some(sender) = &self.sender {
            let receivers = self.seen.iter().flatten().count();
            assert_eq!((sender.receiver_count(), *sender.borrow()), (receivers, self.value), "{at}");
        }
    }
}

pub(super) struct BroadcastChannel {
    sender: Option<broadcast::Sender<usize>>,
    receiver: Option<broadcast::Receiver<usize>>,
    capacity: usize,
    /// All values that were ever sent.
    sent: Vec<usize>,
    /// The number of values that each receiver has received or missed. The receiver of main, then those of the actors.
    seen: Vec<Seen>,
}

impl BroadcastChannel {
    fn take(&mut self, receiver: usize) -> Option<Outcome> {
        let seen = self.seen[receiver].as_mut().expect("the receiver exists");
        let oldest = self.sent.len().saturating_sub(self.capacity);
        if *seen < oldest {
            let missed = oldest - std::mem::replace(seen, oldest);
            return Some(Outcome::Lagged(missed as u64));
        }
        if let Some(value) = self.sent.get(*seen) {
            *seen += 1;
            return Some(Outcome::Got(*value));
        }
        self.sender.is_none().then_some(Outcome::Closed)
    }
}

impl Primitive for BroadcastChannel {
    type End = broadcast::Receiver<usize>;

    const STEPS: usize = 80;

    fn new(random: &mut Rng) -> BroadcastChannel {
        let capacity = 1 + random.usize(..4);
        let (sender, receiver) = broadcast::channel(capacity);
        let (sender, receiver) = (Some(sender), Some(receiver));
        BroadcastChannel { sender, receiver, capacity, sent: Vec::new(), seen: vec![Some(0)] }
    }

    fn end(&mut self, _: &mut Rng) -> Self::End {
        let new = match (&self.receiver, &self.sender) {
            (Some(receiver), _) => receiver.resubscribe(),
            (None, Some(sender)) => sender.subscribe(),
            (None, None) => {
                let (_, closed) = broadcast::channel(1);
                closed
            }
        };
        self.seen.push(Some(self.sent.len()));
        new
    }

    fn wait(end: &mut Self::End, limit: Option<Duration>) -> Outcome {
        let received = match limit {
            None => end.recv().map_err(|error| match error {
                broadcast::RecvError::Lagged(missed) => broadcast::RecvTimeoutError::Lagged(missed),
                broadcast::RecvError::Closed => broadcast::RecvTimeoutError::Closed,
                error => panic!("{error}"),
            }),
            Some(limit) => end.recv_timeout(limit),
        };
        match received {
            Ok(value) => Outcome::Got(value),
            Err(broadcast::RecvTimeoutError::Lagged(missed)) => Outcome::Lagged(missed),
            Err(broadcast::RecvTimeoutError::Closed) => Outcome::Closed,
            Err(broadcast::RecvTimeoutError::TimedOut) => Outcome::Late,
            Err(error) => panic!("{error}"),
        }
    }

    fn attempt(&mut self, actor: usize, _: bool, _: &mut Queues) -> Option<Outcome> {
        self.take(actor + 1)
    }

    fn drop_end(&mut self, actor: usize) {
        self.seen[actor + 1] = None;
    }

    fn change(&mut self, random: &mut Rng, step: usize, queues: &mut Queues, at: &str) {
        match random.usize(..16) {
            0..=9 => {
                let Some(sender) = &self.sender else { return };
                let receivers = self.seen.iter().flatten().count();
                assert_eq!(sender.send(step).ok(), (receivers > 0).then_some(receivers), "{at}");
                if receivers > 0 {
                    self.sent.push(step);
                    queues.wake_all(0);
                }
            }
            10 => {
                self.receiver = None;
                self.seen[0] = None;
            }
            11 if self.receiver.is_none() => {
                self.receiver = self.sender.as_ref().map(broadcast::Sender::subscribe);
                self.seen[0] = self.receiver.as_ref().map(|_| self.sent.len());
            }
            12 if random.usize(..10) == 0 => {
                self.sender = None;
                queues.wake_all(0);
            }
            _ => {
                let Some(receiver) = &mut self.receiver else { return };
                let received = receiver.try_recv();
                let expected = match self.take(0) {
                    Some(Outcome::Got(value)) => Ok(value),
                    Some(Outcome::Lagged(missed)) => Err(broadcast::TryRecvError::Lagged(missed)),
                    Some(_) => Err(broadcast::TryRecvError::Closed),
                    None => Err(broadcast::TryRecvError::Empty),
                };
                assert_eq!(received, expected, "{at}");
            }
        }
    }

    fn check(&self, at: &str) {
        let unseen = self.receiver.as_ref().map(broadcast::Receiver::len);
        assert_eq!(unseen, self.seen[0].map(|seen| self.sent.len() - seen), "{at}");
        if let Some(sender) = &self.sender {
            let seen: Vec<_> = self.seen.iter().flatten().collect();
            let kept = seen.iter().map(|&&seen| (self.sent.len() - seen).min(self.capacity)).max();
            assert_eq!((sender.receiver_count(), sender.len()), (seen.len(), kept.unwrap_or(0)), "{at}");
        }
    }
}

pub(super) struct Notification {
    notify: Rc<Notify>,
    permit: bool,
}

impl Primitive for Notification {
    type End = Rc<Notify>;

    const STEPS: usize = 80;

    fn new(_: &mut Rng) -> Notification {
        Notification { notify: Rc::default(), permit: false }
    }

    fn end(&mut self, _: &mut Rng) -> Self::End {
        self.notify.clone()
    }

    fn wait(end: &mut Self::End, limit: Option<Duration>) -> Outcome {
        waited(limit.map_or_else(|| end.wait().map_err(WaitError::from), |limit| end.wait_timeout(limit)))
    }

    fn attempt(&mut self, _: usize, granted: bool, _: &mut Queues) -> Option<Outcome> {
        (granted || std::mem::take(&mut self.permit)).then_some(Outcome::Got(0))
    }

    fn change(&mut self, random: &mut Rng, _: usize, queues: &mut Queues, at: &str) {
        match random.usize(..8) {
            0..=4 => {
                self.notify.notify_one();
                self.permit |= !queues.wake_first(0);
            }
            5 => {
                self.notify.notify_waiters();
                queues.wake_all(0);
            }
            _ => assert_eq!(self.notify.try_wait(), std::mem::take(&mut self.permit), "{at}"),
        }
    }

    fn check(&self, at: &str) {
        assert_eq!(self.notify.is_ready(), self.permit, "{at}");
    }
}

/// Returns the outcome of a wait without a value.
fn waited(waited: Result<(), WaitError>) -> Outcome {
    match waited {
        Ok(()) => Outcome::Got(0),
        Err(WaitError::TimedOut) => Outcome::Late,
        Err(error) => panic!("{error}"),
    }
}

pub(super) struct TokenTree {
    /// Each token, until its handle is dropped.
    tokens: Vec<Option<CancellationToken>>,
    parents: Vec<Option<usize>>,
    cancelled: Vec<bool>,
    /// The token of each actor.
    actors: Vec<usize>,
}

impl TokenTree {
    /// Returns a token that has a handle. The root always has one.
    fn choose(&self, random: &mut Rng) -> usize {
        let chosen = random.usize(..self.tokens.len());
        if self.tokens[chosen].is_some() { chosen } else { 0 }
    }

    fn token(&self, number: usize) -> &CancellationToken {
        self.tokens[number].as_ref().expect("the token has a handle")
    }

    fn cancel(&mut self, number: usize, queues: &mut Queues) {
        let mut below = vec![number];
        let mut index = 0;
        while let Some(&token) = below.get(index) {
            index += 1;
            if !std::mem::replace(&mut self.cancelled[token], true) {
                queues.wake_all(token);
            }
            below.extend((0..self.parents.len()).filter(|&child| self.parents[child] == Some(token)));
        }
    }
}

impl Primitive for TokenTree {
    type End = CancellationToken;

    const STEPS: usize = 80;

    fn new(_: &mut Rng) -> TokenTree {
        let tokens = vec![Some(CancellationToken::new())];
        TokenTree { tokens, parents: vec![None], cancelled: vec![false], actors: Vec::new() }
    }

    fn end(&mut self, random: &mut Rng) -> Self::End {
        let chosen = self.choose(random);
        self.actors.push(chosen);
        self.token(chosen).clone()
    }

    fn wait(end: &mut Self::End, limit: Option<Duration>) -> Outcome {
        waited(limit.map_or_else(|| end.wait().map_err(WaitError::from), |limit| end.wait_timeout(limit)))
    }

    fn attempt(&mut self, actor: usize, _: bool, _: &mut Queues) -> Option<Outcome> {
        self.cancelled[self.actors[actor]].then_some(Outcome::Got(0))
    }

    fn queue(&self, actor: usize) -> usize {
        self.actors[actor]
    }

    fn change(&mut self, random: &mut Rng, _: usize, queues: &mut Queues, _: &str) {
        let chosen = self.choose(random);
        match random.usize(..8) {
            0..=4 => {
                self.tokens.push(Some(self.token(chosen).child_token()));
                self.parents.push(Some(chosen));
                self.cancelled.push(self.cancelled[chosen]);
            }
            // The root is cancelled late.
            5 if chosen > 0 || random.usize(..20) == 0 => {
                self.token(chosen).cancel();
                self.cancel(chosen, queues);
            }
            6 if chosen > 0 => self.tokens[chosen] = None,
            _ => {}
        }
    }

    fn check(&self, at: &str) {
        for (number, token) in self.tokens.iter().enumerate() {
            let is_cancelled = token.as_ref().map(CancellationToken::is_cancelled);
            assert_eq!(is_cancelled, token.as_ref().map(|_| self.cancelled[number]), "{at}: {number}");
        }
    }
}
