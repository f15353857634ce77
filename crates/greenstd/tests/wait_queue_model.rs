//! Explores by loom the interleavings of waiters in a `WaitQueue`, their grants, and exits that strike meanwhile:
//! `RUSTFLAGS="--cfg loom" cargo test -p greenstd --release --test wait_queue_model`.
//!
//! The wait queue is the source file that every primitive uses. This file plays its dependency `hub_core`: a lock of
//! loom's, and waits that end once, by the first cause. A kill ends a wait early and turns the next wait of its thread
//! into an error, in place of unwinding. loom runs every thread of a model on one OS thread, so an unwinding thread
//! would make all of them appear to be panicking.
#![cfg(loom)]

extern crate self as hub_core;

#[allow(dead_code, reason = "each primitive uses a part of it")]
#[path = "../src/sync/wait_queue.rs"]
mod wait_queue;

use std::sync::Arc;

use loom::sync::{Condvar, Mutex, MutexGuard};
use loom::thread;

use wait_queue::{Unserved, Wait, WaitQueue};

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
    Waiting,
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
