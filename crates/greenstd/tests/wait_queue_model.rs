//! Explores by loom the interleavings of waiters in a `WaitQueue`, their grants, and exits that strike meanwhile, and
//! the protocols that some primitives add:
//! `RUSTFLAGS="--cfg loom" cargo test -p greenstd --release --test wait_queue_model`.
//!
//! The wait queue is the source file that every primitive uses, and the protocols are source files of the primitives.
//! This file plays their dependency `hub_core`: a lock of loom's, and waits that end once, by the first cause. A kill
//! ends a wait early and turns the next wait of its thread into an error, in place of unwinding. loom runs every thread
//! of a model on one OS thread, so an unwinding thread would make all of them appear to be panicking.
#![cfg(loom)]

extern crate self as hub_core;

#[allow(dead_code, reason = "the models use a part of each")]
#[path = "../src/sync"]
mod sync {
    pub(crate) mod wait_queue;
    pub(crate) mod waiters;

    mod cancellation_token {
        mod node;

        use std::sync::Arc;

        use loom::thread;

        use self::node::Node;
        use crate::{Deadline, model, waiter};

        fn is_cancelled(node: &Node) -> bool {
            node.state.lock().is_cancelled()
        }

        #[test]
        fn a_child_that_is_made_during_a_cancellation_is_cancelled() {
            model(3, || {
                let root = Node::root();
                let other = Arc::clone(&root);
                let canceller = thread::spawn(move || other.cancel());
                let leaf = root.child().child();
                canceller.join().unwrap();
                assert!(is_cancelled(&leaf));
            });
        }

        #[test]
        fn a_cancellation_reaches_a_waiter_below_a_token_without_handles() {
            model(2, || {
                let root = Node::root();
                let middle = root.child();
                let leaf = middle.child();
                let (_, waiting) = waiter(move || leaf.wait(&mut Deadline).is_ok());
                let dropper = thread::spawn(move || drop(middle));
                root.cancel();
                assert!(waiting.join().unwrap());
                dropper.join().unwrap();
            });
        }

        #[test]
        fn every_cancellation_returns_after_the_children_are_cancelled() {
            model(3, || {
                let root = Node::root();
                let leaf = root.child().child();
                let other = Arc::clone(&root);
                let canceller = thread::spawn(move || other.cancel());
                root.cancel();
                assert!(is_cancelled(&leaf));
                canceller.join().unwrap();
            });
        }

        #[test]
        fn a_child_may_end_during_a_cancellation() {
            model(3, || {
                let root = Node::root();
                let leaf = root.child().child();
                let dropper = thread::spawn(move || drop(leaf));
                root.cancel();
                dropper.join().unwrap();
                assert_eq!(Arc::strong_count(&root), 1);
            });
        }
    }

    mod notify {
        mod state;

        use std::sync::Arc;

        use loom::thread;

        use self::state::{State, wait};
        use crate::{BiasedMutex, Deadline, STRIKES, model, waiter};

        fn shared() -> Arc<BiasedMutex<State>> {
            Arc::new(BiasedMutex::new(State::new()))
        }

        /// Strikes a waiter while another thread notifies. Returns whether the waiter was notified, and whether a
        /// permit is left.
        fn strike_and_notify(strike: crate::Strike, notify: fn(&mut State)) -> (bool, bool) {
            let state = shared();
            let own = Arc::clone(&state);
            let (place, struck) = waiter(move || wait(&own, &mut Deadline).is_ok());
            let other = Arc::clone(&state);
            let notifier = thread::spawn(move || notify(&mut other.lock()));
            place.strike(strike);
            let notified = struck.join().unwrap();
            notifier.join().unwrap();
            let state = state.lock();
            assert_eq!((state.waiting(), state.has_grants()), (0, false), "{strike:?}");
            (notified, state.has_permit())
        }

        #[test]
        fn a_notification_of_a_struck_waiter_is_stored() {
            for strike in STRIKES {
                model(3, move || {
                    let (notified, permit) = strike_and_notify(strike, State::notify_one);
                    assert_eq!(permit, !notified, "{strike:?}");
                });
            }
        }

        #[test]
        fn a_notification_of_all_is_never_stored() {
            for strike in STRIKES {
                model(3, move || {
                    let (_, permit) = strike_and_notify(strike, State::notify_waiters);
                    assert!(!permit, "{strike:?}");
                });
            }
        }

        #[test]
        fn a_struck_waiter_owes_the_notification_that_was_its_own() {
            for strike in STRIKES {
                model(3, move || {
                    let (notified, permit) = strike_and_notify(strike, |state| {
                        state.notify_one();
                        state.notify_waiters();
                    });
                    assert_eq!(permit, !notified, "{strike:?}");
                });
            }
        }

        #[test]
        fn a_notification_of_a_struck_waiter_goes_to_the_next() {
            for strike in STRIKES {
                model(2, move || {
                    let state = shared();
                    let (own, next) = (Arc::clone(&state), Arc::clone(&state));
                    let (place, struck) = waiter(move || wait(&own, &mut Deadline).is_ok());
                    let next = thread::spawn(move || wait(&next, &mut Deadline).is_ok());
                    let other = Arc::clone(&state);
                    let notifier = thread::spawn(move || other.lock().notify_one());
                    place.strike(strike);
                    notifier.join().unwrap();
                    if struck.join().unwrap() {
                        state.lock().notify_one();
                    }
                    assert!(next.join().unwrap());
                    let state = state.lock();
                    assert_eq!((state.has_permit(), state.has_grants(), state.waiting()), (false, false, 0));
                });
            }
        }
    }

    mod oneshot {
        mod state;

        use std::sync::Arc;

        use loom::thread;

        use self::state::{Closed, ReceiveWait, State};
        use super::wait_queue::Wait;
        use crate::{BiasedMutex, Deadline, STRIKES, model, waiter};

        type Shared = Arc<BiasedMutex<State<u8>>>;

        fn shared() -> Shared {
            Arc::new(BiasedMutex::new(State::new()))
        }

        /// Receives. Returns `None` if another cause ended the wait first.
        fn receive(shared: &Shared) -> Option<Result<u8, Closed>> {
            let received = ReceiveWait::wait(shared, &mut Deadline, (), |state, ungranted| {
                state.take(ungranted.is_none()).ok_or(())
            });
            received.ok()
        }

        #[test]
        fn a_value_is_received_or_left() {
            for strike in STRIKES {
                model(3, move || {
                    let shared = shared();
                    let (own, other) = (Arc::clone(&shared), Arc::clone(&shared));
                    let (place, struck) = waiter(move || receive(&own));
                    let sender = thread::spawn(move || other.lock().send(7));
                    place.strike(strike);
                    let received = struck.join().unwrap();
                    sender.join().unwrap().unwrap();
                    let left = shared.lock().take(false);
                    assert_eq!(left, Some(if received.is_some() { Err(Closed) } else { Ok(7) }), "{strike:?}");
                    assert!(received.is_none_or(|value| value == Ok(7)), "{strike:?}");
                });
            }
        }

        #[test]
        fn one_of_two_receivers_gets_the_value_and_the_other_the_end() {
            for strike in STRIKES {
                model(2, move || {
                    let shared = shared();
                    let (own, next, other) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared));
                    let (place, struck) = waiter(move || receive(&own));
                    let next = thread::spawn(move || receive(&next));
                    let sender = thread::spawn(move || other.lock().send(7));
                    place.strike(strike);
                    sender.join().unwrap().unwrap();
                    let (first, second) = (struck.join().unwrap(), next.join().unwrap());
                    let values = [first, second].into_iter().filter(|received| *received == Some(Ok(7))).count();
                    assert_eq!(values, 1, "{strike:?}: {first:?}, {second:?}");
                    assert!(second.is_some(), "{strike:?}");
                });
            }
        }

        #[test]
        fn the_end_of_the_sender_reaches_both_receivers() {
            model(2, || {
                let shared = shared();
                let receivers = [(); 2].map(|()| {
                    let own = Arc::clone(&shared);
                    thread::spawn(move || receive(&own))
                });
                shared.lock().disconnect_sender();
                for receiver in receivers {
                    assert_eq!(receiver.join().unwrap(), Some(Err(Closed)));
                }
            });
        }
    }
}

use std::sync::Arc;

use loom::sync::{Condvar, Mutex, MutexGuard};
use loom::thread;

use sync::wait_queue::{Unserved, Wait, WaitQueue};

pub(crate) struct BiasedMutex<T>(Mutex<T>);

pub(crate) type BiasedMutexGuard<'a, T> = MutexGuard<'a, T>;

impl<T> BiasedMutex<T> {
    fn new(value: T) -> BiasedMutex<T> {
        BiasedMutex(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

#[derive(Copy, Clone)]
pub(crate) enum WaitReason {
    Cancellation,
    Channel,
    Event,
    Notification,
    Queue,
    Waiting,
}

/// The marks of waiters for several objects, of which a model has none.
#[derive(Default)]
pub(crate) struct ReadyMarks;

pub(crate) struct ReadyMark;

pub(crate) struct LeftMark;

impl ReadyMark {
    pub(crate) fn set(self) {}
}

impl LeftMark {
    pub(crate) const SET: LeftMark = LeftMark;
}

impl ReadyMarks {
    pub(crate) const fn new() -> ReadyMarks {
        ReadyMarks
    }

    pub(crate) fn leave(&mut self, _: ReadyMark) -> LeftMark {
        LeftMark
    }

    pub(crate) fn take_back(&mut self, _: &LeftMark) {}

    pub(crate) fn set_all(&mut self) {}

    pub(crate) fn len(&self) -> usize {
        0
    }

    pub(crate) fn is_empty(&self) -> bool {
        true
    }
}

pub(crate) struct Deadline;

#[derive(Debug)]
pub(crate) enum LoopError {
    Aborted,
    Killed,
}

#[derive(PartialEq, Eq)]
pub(crate) enum Parked {
    Unparked,
    TimedOut,
    Exit,
}

/// The cause that ends a wait.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Strike {
    Unpark,
    Late,
    /// An exit that a mask holds back.
    Early,
    /// An error of the main loop.
    Abort,
    Kill,
}

/// The waits of one thread of the model.
#[derive(Default)]
struct Place {
    /// The number of the current wait, and the cause of its end. Before the first wait, the cause that will end it.
    present: Mutex<(u64, Option<Strike>)>,
    ended: Condvar,
    killed: Mutex<bool>,
}

impl Place {
    /// Ends the wait with number `wait` if it is still the current one.
    fn end(&self, wait: u64, by: Strike) {
        let mut present = self.present.lock().unwrap();
        if present.0 == wait {
            self.end_present(&mut present, by);
        }
    }

    /// Ends the current wait, or the first one as soon as it begins.
    fn strike(&self, by: Strike) {
        self.end_present(&mut self.present.lock().unwrap(), by);
    }

    fn end_present(&self, present: &mut (u64, Option<Strike>), by: Strike) {
        if by == Strike::Kill {
            *self.killed.lock().unwrap() = true;
        }
        if present.1.is_none() {
            present.1 = Some(by);
            self.ended.notify_one();
        }
    }
}

loom::thread_local! {
    static HERE: Arc<Place> = Arc::default();
}

pub(crate) struct Parker {
    place: Arc<Place>,
    wait: u64,
}

pub(crate) struct Unparker {
    place: Arc<Place>,
    wait: u64,
}

impl Parker {
    pub(crate) fn new(_: WaitReason) -> Result<Parker, LoopError> {
        let place = HERE.with(Arc::clone);
        let mut present = place.present.lock().unwrap();
        present.0 += 1;
        if present.0 > 1 {
            present.1 = None;
        }
        let wait = present.0;
        drop(present);
        Ok(Parker { place, wait })
    }

    pub(crate) fn if_prepared(reason: WaitReason) -> Result<Option<Parker>, LoopError> {
        if HERE.with(|place| *place.killed.lock().unwrap()) {
            return Err(LoopError::Killed);
        }
        Parker::new(reason).map(Some)
    }

    pub(crate) fn prepare(_: WaitReason) -> Result<(), LoopError> {
        Ok(())
    }

    pub(crate) fn unparker(&self) -> Unparker {
        Unparker { place: Arc::clone(&self.place), wait: self.wait }
    }

    pub(crate) fn park_deferring_exit(self, _: &mut Deadline) -> Result<Parked, LoopError> {
        let mut present = self.place.present.lock().unwrap();
        let by = loop {
            match present.1 {
                Some(by) => break by,
                None => present = self.place.ended.wait(present).unwrap(),
            }
        };
        drop(present);
        match by {
            Strike::Unpark => Ok(Parked::Unparked),
            Strike::Late => Ok(Parked::TimedOut),
            Strike::Early | Strike::Kill => Ok(Parked::Exit),
            Strike::Abort => Err(LoopError::Aborted),
        }
    }
}

/// Returns at once: a thread of the model has an unlimited budget.
pub(crate) fn consume_budget() -> Result<(), LoopError> {
    Ok(())
}

/// Does nothing: the next wait returns an error instead.
pub(crate) fn throw_exit() {}

impl Unparker {
    pub(crate) fn unpark(self) {
        self.place.end(self.wait, Strike::Unpark);
    }
}

pub(crate) mod internal {
    /// Always succeeds: a waiter of a model never outlives its thread.
    pub(crate) fn unpark_under_lock(unparker: super::Unparker) -> bool {
        unparker.unpark();
        true
    }
}

/// The state of most primitives: a count and a queue of waiters.
#[derive(Default)]
struct Tokens {
    free: usize,
    waiting: WaitQueue,
}

struct ForToken;

impl Wait for ForToken {
    type State = Tokens;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Waiting;

    fn queue(state: &mut Tokens) -> &mut WaitQueue {
        &mut state.waiting
    }

    fn regrant(state: &mut Tokens) {
        state.give();
    }
}

impl Tokens {
    fn new() -> Arc<BiasedMutex<Tokens>> {
        Arc::new(BiasedMutex::new(Tokens::default()))
    }

    /// Grants a token to the first waiter, or frees it.
    fn give(&mut self) {
        if !self.waiting.grant() {
            self.free += 1;
        }
    }
}

/// Waits for a token. Returns false if another cause ended the wait first.
fn acquire(tokens: &BiasedMutex<Tokens>) -> bool {
    let waited = ForToken::wait(tokens, &mut Deadline, (), |state, ungranted| match ungranted {
        Some(()) if state.free == 0 => Err(()),
        Some(()) => {
            state.free -= 1;
            Ok(())
        }
        None => Ok(()),
    });
    waited.is_ok()
}

/// Spawns a waiting thread; returns the place through which its wait is ended.
fn waiter<R: 'static>(wait: impl FnOnce() -> R + 'static) -> (Arc<Place>, thread::JoinHandle<R>) {
    let place = Arc::new(Mutex::new(None));
    let own_place = Arc::clone(&place);
    let thread = thread::spawn(move || {
        *own_place.lock().unwrap() = Some(HERE.with(Arc::clone));
        wait()
    });
    loop {
        if let Some(place) = place.lock().unwrap().take() {
            return (place, thread);
        }
        thread::yield_now();
    }
}

fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

const STRIKES: [Strike; 3] = [Strike::Late, Strike::Abort, Strike::Kill];

#[test]
fn each_of_two_waiters_gets_a_permit() {
    model(3, || {
        let tokens = Tokens::new();
        let waiters = [(); 2].map(|()| {
            let tokens = Arc::clone(&tokens);
            thread::spawn(move || acquire(&tokens))
        });
        tokens.lock().give();
        tokens.lock().give();
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
        let tokens = tokens.lock();
        assert_eq!((tokens.free, tokens.waiting.len()), (0, 0));
    });
}

#[test]
fn a_grant_to_a_struck_waiter_is_freed() {
    for strike in STRIKES {
        model(3, move || {
            let tokens = Tokens::new();
            let own = Arc::clone(&tokens);
            let (place, struck) = waiter(move || acquire(&own));
            let other = Arc::clone(&tokens);
            let giver = thread::spawn(move || other.lock().give());
            place.strike(strike);
            // A thread struck before its wait would wait forever without a grant.
            let got = struck.join().unwrap();
            giver.join().unwrap();
            let tokens = tokens.lock();
            assert_eq!((tokens.free, tokens.waiting.len()), (usize::from(!got), 0), "{strike:?}");
        });
    }
}

#[test]
fn a_grant_to_a_struck_waiter_goes_to_the_next() {
    for strike in STRIKES {
        model(2, move || {
            let tokens = Tokens::new();
            let own = Arc::clone(&tokens);
            let (place, struck) = waiter(move || acquire(&own));
            let next = Arc::clone(&tokens);
            let next = thread::spawn(move || acquire(&next));
            let other = Arc::clone(&tokens);
            let giver = thread::spawn(move || other.lock().give());
            place.strike(strike);
            giver.join().unwrap();
            if struck.join().unwrap() {
                tokens.lock().give();
            }
            assert!(next.join().unwrap());
            let tokens = tokens.lock();
            assert_eq!((tokens.free, tokens.waiting.len()), (0, 0), "{strike:?}");
        });
    }
}

#[test]
fn a_waiter_woken_early_keeps_its_place_and_its_grant() {
    model(3, || {
        let tokens = Tokens::new();
        let own = Arc::clone(&tokens);
        let (place, waiting) = waiter(move || acquire(&own));
        let other = Arc::clone(&tokens);
        let giver = thread::spawn(move || other.lock().give());
        place.strike(Strike::Early);
        place.strike(Strike::Early);
        assert!(waiting.join().unwrap());
        giver.join().unwrap();
        let tokens = tokens.lock();
        assert_eq!((tokens.free, tokens.waiting.len()), (0, 0));
    });
}

#[test]
fn a_waiter_woken_early_and_then_struck_regrants() {
    for strike in STRIKES {
        model(2, move || {
            let tokens = Tokens::new();
            let own = Arc::clone(&tokens);
            let (place, struck) = waiter(move || acquire(&own));
            let other = Arc::clone(&tokens);
            let giver = thread::spawn(move || other.lock().give());
            place.strike(Strike::Early);
            place.strike(strike);
            let got = struck.join().unwrap();
            giver.join().unwrap();
            let tokens = tokens.lock();
            assert_eq!((tokens.free, tokens.waiting.len()), (usize::from(!got), 0), "{strike:?}");
        });
    }
}

/// A queue whose waiters offer payloads.
#[derive(Default)]
struct Offers {
    queue: WaitQueue<Offer>,
}

/// A payload whose live instances are counted.
struct Offer(#[expect(dead_code, reason = "held")] Arc<()>);

struct ToBeTaken;

impl Wait for ToBeTaken {
    type State = Offers;
    type Payload = Offer;

    const REASON: WaitReason = WaitReason::Waiting;

    fn queue(state: &mut Offers) -> &mut WaitQueue<Offer> {
        &mut state.queue
    }

    fn regrant(_: &mut Offers) {
        // A taker keeps its payload.
    }
}

#[test]
fn a_payload_is_taken_or_returned_and_dropped_once() {
    for strike in STRIKES {
        model(3, move || {
            let (offers, count) = (Arc::new(BiasedMutex::new(Offers::default())), Arc::new(()));
            let (own, offer) = (Arc::clone(&offers), Offer(Arc::clone(&count)));
            let (place, offering) = waiter(move || {
                let waited = ToBeTaken::wait(&own, &mut Deadline, offer, |_, offer| match offer {
                    Some(offer) => Err(offer),
                    None => Ok(()),
                });
                // Whether the payload was certainly taken, and the returned payload.
                match waited {
                    Ok(()) => (true, None),
                    Err(Unserved::TimedOut(back)) => (false, Some(back)),
                    Err(Unserved::Failed(_, back)) => (false, back),
                }
            });
            let other = Arc::clone(&offers);
            let taker = thread::spawn(move || other.lock().queue.grant_payload());
            place.strike(strike);
            let taken = taker.join().unwrap();
            let (certain, back) = offering.join().unwrap();
            assert!(!certain || taken.is_some(), "{strike:?}: it was not taken");
            assert!(taken.is_none() || back.is_none(), "{strike:?}: it was taken and came back");
            assert!(taken.is_some() || back.is_some(), "{strike:?}: it is gone");
            assert!(offers.lock().queue.is_empty());
            drop((taken, back));
            assert_eq!(Arc::strong_count(&count), 1, "{strike:?}: it is dropped once");
        });
    }
}
