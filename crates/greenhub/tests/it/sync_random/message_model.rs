//! Channels of messages, notifications and tokens on one OS thread, compared with models of each and of the order in
//! which green threads run.

mod primitives;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn, with_timeout};

use crate::support::green::held;
use crate::support::hubs::use_manual_clock;
use crate::support::random::Rng;
use crate::support::run;
use primitives::{BroadcastChannel, Notification, OneshotChannel, TokenTree, WatchChannel};

const TICK: Duration = Duration::from_millis(1);

/// The outcome of a wait.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Got(usize),
    Lagged(u64),
    Closed,
    Late,
    Killed,
}

/// A primitive, its model, and what both do.
trait Primitive: Sized {
    /// The end by which an actor waits.
    type End: 'static;

    const STEPS: usize;

    fn new(random: &mut Rng) -> Self;

    /// Makes the end of the next actor, in the model, too.
    fn end(&mut self, random: &mut Rng) -> Self::End;

    /// Waits by the real end.
    fn wait(end: &mut Self::End, limit: Option<Duration>) -> Outcome;

    /// Attempts the wait of an actor in the model. `None` if the actor has to wait.
    fn attempt(&mut self, actor: usize, granted: bool, queues: &mut Queues) -> Option<Outcome>;

    /// Drops the end of an actor in the model.
    fn drop_end(&mut self, _actor: usize) {}

    /// Returns the number of the queue in which the actor waits.
    fn queue(&self, _actor: usize) -> usize {
        0
    }

    /// Uses the primitive and its model in the same random way, and compares the results.
    fn change(&mut self, random: &mut Rng, step: usize, queues: &mut Queues, at: &str);

    /// Compares the states that can be seen.
    fn check(&self, at: &str);
}

/// The actors that wait, by queue, and those that were woken since.
#[derive(Default)]
struct Queues {
    waiting: Vec<VecDeque<usize>>,
    woken: Vec<usize>,
}

impl Queues {
    fn push(&mut self, queue: usize, actor: usize) {
        if self.waiting.len() <= queue {
            self.waiting.resize_with(queue + 1, VecDeque::new);
        }
        self.waiting[queue].push_back(actor);
    }

    /// Wakes the first waiter. Returns false if there is none.
    fn wake_first(&mut self, queue: usize) -> bool {
        let first = self.waiting.get_mut(queue).and_then(VecDeque::pop_front);
        self.woken.extend(first);
        first.is_some()
    }

    fn wake_all(&mut self, queue: usize) {
        while self.wake_first(queue) {}
    }

    fn leave(&mut self, actor: usize) {
        self.waiting.iter_mut().for_each(|queue| queue.retain(|waiting| *waiting != actor));
    }
}

/// The longest time that a wait of an actor takes.
#[derive(Copy, Clone, Debug)]
enum Patience {
    Endless,
    /// In ticks, by the form of the call with a timeout.
    Limit(u32),
    /// In ticks, by `with_timeout`.
    Scope(u32),
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum State {
    Unstarted,
    Waiting,
    Woken,
    Ended,
}

/// A green thread that waits a few times.
struct Actor {
    patience: Patience,
    /// The number of waits that are left.
    left: usize,
    state: State,
    /// Whether a kill came after the wake-up.
    killed: bool,
    deadline: Option<u32>,
    log: Vec<Outcome>,
}

struct Model<P> {
    primitive: P,
    queues: Queues,
    actors: Vec<Actor>,
    /// The actors in the order in which they run next.
    ready: VecDeque<usize>,
    now: u32,
}

impl<P: Primitive> Model<P> {
    /// Moves the actors that were woken behind those that are ready.
    fn settle(&mut self) {
        for actor in self.queues.woken.drain(..) {
            self.actors[actor].state = State::Woken;
            self.ready.push_back(actor);
        }
    }

    fn end(&mut self, actor: usize, last: Option<Outcome>) {
        self.actors[actor].log.extend(last);
        self.actors[actor].state = State::Ended;
        self.primitive.drop_end(actor);
    }

    /// Runs an actor until it waits or ends.
    fn go_on(&mut self, actor: usize) {
        let mut granted = self.actors[actor].state == State::Woken;
        loop {
            let outcome = self.primitive.attempt(actor, std::mem::take(&mut granted), &mut self.queues);
            self.settle();
            let own = &mut self.actors[actor];
            if let Some(outcome) = outcome {
                own.log.push(outcome);
                own.left -= 1;
                own.deadline = None;
                if own.left == 0 {
                    return self.end(actor, None);
                }
            } else if own.killed {
                return self.end(actor, Some(Outcome::Killed));
            } else {
                own.state = State::Waiting;
                if let Patience::Limit(ticks) | Patience::Scope(ticks) = own.patience {
                    own.deadline = own.deadline.or(Some(self.now + ticks));
                }
                return self.queues.push(self.primitive.queue(actor), actor);
            }
        }
    }

    /// Runs every ready actor once.
    fn run_ready(&mut self) {
        for _ in 0..self.ready.len() {
            if let Some(actor) = self.ready.pop_front()
                && self.actors[actor].state != State::Ended
            {
                self.go_on(actor);
            }
        }
    }

    fn kill(&mut self, actor: usize) {
        match self.actors[actor].state {
            State::Unstarted => self.end(actor, Some(Outcome::Killed)),
            // The victim unwinds at once; the killer runs after every ready actor.
            State::Waiting => {
                self.queues.leave(actor);
                self.end(actor, Some(Outcome::Killed));
                self.run_ready();
            }
            State::Woken => {
                self.actors[actor].killed = true;
                self.run_ready();
            }
            State::Ended => {}
        }
    }

    /// Passes a tick, while no actor is ready.
    fn tick(&mut self) {
        self.now += 1;
        for actor in 0..self.actors.len() {
            let is_over = self.actors[actor].deadline.is_some_and(|deadline| deadline <= self.now);
            if is_over && self.actors[actor].state == State::Waiting {
                self.queues.leave(actor);
                self.end(actor, Some(Outcome::Late));
            }
        }
    }
}

/// Adds the outcome of a kill to a log, unless its actor ends by itself.
struct KilledUnlessDone(Rc<RefCell<Vec<Outcome>>>, bool);

impl Drop for KilledUnlessDone {
    fn drop(&mut self) {
        if !self.1 {
            self.0.borrow_mut().push(Outcome::Killed);
        }
    }
}

fn act<P: Primitive>(mut end: P::End, patience: Patience, waits: usize, mut log: KilledUnlessDone) {
    for _ in 0..waits {
        let outcome = match patience {
            Patience::Endless => P::wait(&mut end, None),
            Patience::Limit(ticks) => P::wait(&mut end, Some(TICK * ticks)),
            Patience::Scope(ticks) => with_timeout(TICK * ticks, || P::wait(&mut end, None)).unwrap_or(Outcome::Late),
        };
        log.0.borrow_mut().push(outcome);
        if outcome == Outcome::Late {
            break;
        }
    }
    log.1 = true;
}

fn compare<P: Primitive + 'static>(seeds: u64) {
    use_manual_clock();
    get_hub().set_timer_slack(0, Duration::ZERO);
    for seed in 0..seeds {
        let (mut random, before) = (Rng::with_seed(seed), held());
        let primitive = P::new(&mut random);
        let (queues, ready) = (Queues::default(), VecDeque::new());
        let mut model = Model { primitive, queues, actors: Vec::new(), ready, now: 0 };
        let (mut greens, mut logs) = (Vec::new(), Vec::new());
        for step in 0..P::STEPS {
            let at = format!("seed {seed}, step {step}");
            match random.usize(..12) {
                0..=2 => {
                    let ticks = 1 + random.u32(..3);
                    let patience = match random.usize(..4) {
                        0 => Patience::Limit(ticks),
                        1 => Patience::Scope(ticks),
                        _ => Patience::Endless,
                    };
                    let (end, waits) = (model.primitive.end(&mut random), 1 + random.usize(..3));
                    let log = Rc::default();
                    logs.push(Rc::clone(&log));
                    let log = KilledUnlessDone(log, false);
                    model.ready.push_back(greens.len());
                    greens.push(spawn(move || act::<P>(end, patience, waits, log)));
                    let state = State::Unstarted;
                    let actor = Actor { patience, left: waits, state, killed: false, deadline: None, log: Vec::new() };
                    model.actors.push(actor);
                }
                3..=6 => {
                    let Model { primitive, queues, .. } = &mut model;
                    primitive.change(&mut random, step, queues, &at);
                    model.settle();
                }
                7 | 8 if !greens.is_empty() => {
                    let victim = random.usize(..greens.len());
                    greens[victim].kill();
                    model.kill(victim);
                }
                9 => {
                    while !model.ready.is_empty() {
                        yield_now();
                        model.run_ready();
                    }
                    sleep(TICK);
                    model.tick();
                }
                _ => {
                    yield_now();
                    model.run_ready();
                }
            }
            model.primitive.check(&at);
            for (number, (green, log)) in greens.iter().zip(&logs).enumerate() {
                let Actor { log: expected, state, patience, .. } = &model.actors[number];
                let has_ended = *state == State::Ended;
                assert_eq!(
                    (&*log.borrow(), green.is_finished()),
                    (expected, has_ended),
                    "{at}: {number}, {patience:?}"
                );
            }
        }
        greens.iter().for_each(|green| _ = green.kill());
        drop((greens, model));
        assert_eq!(held(), before, "seed {seed}");
    }
}

#[test]
fn a_oneshot_channel_matches_its_model() {
    run("a_oneshot_channel_matches_its_model", || compare::<OneshotChannel>(1500));
}

#[test]
fn a_watch_channel_matches_its_model() {
    run("a_watch_channel_matches_its_model", || compare::<WatchChannel>(300));
}

#[test]
fn a_broadcast_channel_matches_its_model() {
    run("a_broadcast_channel_matches_its_model", || compare::<BroadcastChannel>(300));
}

#[test]
fn a_notification_matches_its_model() {
    run("a_notification_matches_its_model", || compare::<Notification>(300));
}

#[test]
fn a_tree_of_tokens_matches_its_model() {
    run("a_tree_of_tokens_matches_its_model", || compare::<TokenTree>(300));
}
