//! Primitives that wake all waiters, events and barriers, compared with models on one OS thread.

use std::cell::RefCell;
use std::rc::Rc;

use greenhub::sync::{Barrier, Event};
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenThread, spawn};

use crate::support::green::held;
use crate::support::random::Rng;
use crate::support::run;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum State<R> {
    Unstarted,
    Waiting,
    /// Woken with a result, but not run yet.
    Woken(R),
    /// `None` after a kill.
    Ended(Option<R>),
}

/// Green threads that wait once, and the state of each in the model.
struct Waiters<R> {
    greens: Vec<GreenThread<()>>,
    results: Rc<RefCell<Vec<Option<R>>>>,
    states: Vec<State<R>>,
}

impl<R: Copy + PartialEq + std::fmt::Debug + 'static> Waiters<R> {
    fn new() -> Waiters<R> {
        Waiters { greens: Vec::new(), results: Rc::default(), states: Vec::new() }
    }

    fn spawn(&mut self, wait: impl FnOnce() -> R + 'static) {
        let (results, number) = (self.results.clone(), self.greens.len());
        results.borrow_mut().push(None);
        self.greens.push(spawn(move || {
            let result = wait();
            results.borrow_mut()[number] = Some(result);
        }));
        self.states.push(State::Unstarted);
    }

    fn waiting(&self) -> usize {
        self.states.iter().filter(|state| **state == State::Waiting).count()
    }

    fn wake_all(&mut self, result: R) {
        for state in &mut self.states {
            if *state == State::Waiting {
                *state = State::Woken(result);
            }
        }
    }

    /// Kills a green thread. If it had begun, every ready one runs; unstarted ones begin with `begin`.
    fn kill(&mut self, victim: usize, begin: impl FnMut(&mut Self) -> Option<R>) {
        self.greens[victim].kill();
        match self.states[victim] {
            State::Unstarted => return self.states[victim] = State::Ended(None),
            State::Waiting => self.states[victim] = State::Ended(None),
            // A woken waiter keeps its result.
            State::Woken(_) => {}
            State::Ended(_) => return,
        }
        self.run_ready(begin);
    }

    /// Runs every ready green thread; unstarted ones begin with `begin`.
    fn run_ready(&mut self, mut begin: impl FnMut(&mut Self) -> Option<R>) {
        // Waiters woken during this round run in the next one.
        let before = self.states.clone();
        for (number, state) in before.into_iter().enumerate() {
            match state {
                State::Unstarted => {
                    self.states[number] = match begin(self) {
                        Some(result) => State::Ended(Some(result)),
                        None => State::Waiting,
                    }
                }
                State::Woken(result) => self.states[number] = State::Ended(Some(result)),
                State::Waiting | State::Ended(_) => {}
            }
        }
    }

    #[track_caller]
    fn check(&self, at: &str) {
        for (number, green) in self.greens.iter().enumerate() {
            let ended = green.is_finished().then(|| self.results.borrow()[number]);
            let expected = match self.states[number] {
                State::Ended(result) => Some(result),
                _ => None,
            };
            assert_eq!(ended, expected, "{at}: {number}");
        }
    }
}

#[test]
fn an_event_matches_its_model() {
    run("an_event_matches_its_model", || {
        for seed in 0..300 {
            let (mut random, before) = (Rng::with_seed(seed), held());
            let event = std::sync::Arc::new(Event::new());
            // The sent value or error.
            let mut sent: Option<Result<usize, usize>> = None;
            let mut waiters = Waiters::new();
            for step in 0..80 {
                let at = format!("seed {seed}, step {step}");
                match random.usize(..9) {
                    0..=2 => {
                        let event = event.clone();
                        waiters.spawn(move || event.wait().map_err(|error| error.to_string().parse().unwrap()));
                    }
                    choice @ 3..=4 => {
                        let (result, done) = match choice {
                            3 => (Ok(step), event.send(step)),
                            _ => (Err(step), event.send_error(GreenError::custom(step.to_string()))),
                        };
                        assert_eq!(done.is_ok(), sent.is_none(), "{at}");
                        if sent.is_none() {
                            sent = Some(result);
                            waiters.wake_all(result);
                        }
                    }
                    5 => assert_eq!(event.reset().is_ok(), sent.take().is_some(), "{at}"),
                    6 if !waiters.greens.is_empty() => {
                        let victim = random.usize(..waiters.greens.len());
                        waiters.kill(victim, |_| sent);
                    }
                    _ => {
                        yield_now();
                        waiters.run_ready(|_| sent);
                    }
                }
                assert_eq!((event.ready(), event.waiting()), (sent.is_some(), waiters.waiting()), "{at}");
                waiters.check(&at);
            }
            waiters.greens.iter().for_each(|green| _ = green.kill());
            assert_eq!(event.waiting(), 0, "seed {seed}");
            drop(waiters);
            assert_eq!(held(), before, "seed {seed}");
        }
    });
}

#[test]
fn a_barrier_matches_its_model_under_kills() {
    run("a_barrier_matches_its_model_under_kills", || {
        for seed in 0..300 {
            let (mut random, before) = (Rng::with_seed(seed), held());
            let count = 1 + random.usize(..4);
            let barrier = Rc::new(Barrier::new(count));
            let mut waiters = Waiters::new();
            // The last missing arrival leads and releases the others.
            let arrive = |waiters: &mut Waiters<bool>| {
                let opens = waiters.waiting() + 1 == count;
                if opens {
                    waiters.wake_all(false);
                }
                opens.then_some(true)
            };
            for step in 0..80 {
                match random.usize(..6) {
                    0..=2 => {
                        let barrier = barrier.clone();
                        waiters.spawn(move || barrier.wait().is_leader());
                    }
                    3 if !waiters.greens.is_empty() => {
                        let victim = random.usize(..waiters.greens.len());
                        waiters.kill(victim, arrive);
                    }
                    _ => {
                        yield_now();
                        waiters.run_ready(arrive);
                    }
                }
                waiters.check(&format!("seed {seed}, {count} at a time, step {step}"));
            }
            waiters.greens.iter().for_each(|green| _ = green.kill());
            drop(waiters);
            assert_eq!(held(), before, "seed {seed}");
        }
    });
}
