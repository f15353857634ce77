//! Queues on one OS thread, compared with a model of the queue and of the order in which green threads run.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use greenhub::sync::{Fifo, GetError, Lifo, Order, OrderedQueue, Priority, PutError};
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn, with_timeout};

use crate::support::green::held;
use crate::support::hubs::use_manual_clock;
use crate::support::random::Rng;
use crate::support::run;

const TICK: Duration = Duration::from_millis(1);

/// An item of which only the priority is compared.
#[derive(Copy, Clone, Debug)]
struct Item {
    priority: usize,
    number: usize,
}

impl Ord for Item {
    fn cmp(&self, other: &Item) -> Ordering {
        self.priority.cmp(&other.priority)
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Item) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Item) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Item {}

/// The operation of a green thread.
#[derive(Copy, Clone, Debug)]
enum Wish {
    Get,
    Put(Item),
    Join,
}

/// The longest time that the operation waits.
#[derive(Copy, Clone, Debug)]
enum Patience {
    Endless,
    /// In ticks, by the form of the call with a timeout.
    Limit(u32),
    /// In ticks, by `with_timeout`.
    Scope(u32),
}

impl Patience {
    fn ticks(self) -> Option<u32> {
        match self {
            Patience::Endless => None,
            Patience::Limit(ticks) | Patience::Scope(ticks) => Some(ticks),
        }
    }
}

/// The outcome of an operation.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Got(usize),
    Done,
    Late,
    Closed,
    Killed,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum State {
    Unstarted,
    Waiting,
    /// Woken, but not run yet; true if a kill came since.
    Woken(bool),
    Ended(Outcome),
}

struct Actor {
    wish: Wish,
    patience: Patience,
    deadline: Option<u32>,
    state: State,
}

/// A queue and its users, without any switching.
struct Model {
    next: fn(&[Item]) -> usize,
    items: Vec<Item>,
    capacity: usize,
    actors: Vec<Actor>,
    /// The actors in the order in which they run next.
    ready: VecDeque<usize>,
    getters: VecDeque<usize>,
    putters: VecDeque<usize>,
    joiners: VecDeque<usize>,
    /// The number of woken getters, each of which was granted an item.
    promised: usize,
    unfinished: usize,
    is_closed: bool,
    /// The putters whose items the end of the queue has put back.
    returned: Vec<usize>,
    now: u32,
}

impl Model {
    fn wake(&mut self, actor: usize) {
        self.actors[actor].state = State::Woken(false);
        self.ready.push_back(actor);
    }

    fn end(&mut self, actor: usize, outcome: Outcome) {
        self.actors[actor].state = State::Ended(outcome);
    }

    fn free(&self) -> usize {
        self.items.len().saturating_sub(self.promised)
    }

    /// Returns whether there is an ungranted item, in the queue or with a putter.
    fn has_more(&self) -> bool {
        self.items.len() + self.putters.len() > self.promised
    }

    fn push(&mut self, item: Item) {
        self.items.push(item);
        self.unfinished += 1;
    }

    /// Moves the item of the longest waiting putter into the queue.
    fn take_in(&mut self) -> bool {
        let Some(putter) = self.putters.pop_front() else { return false };
        let Wish::Put(item) = self.actors[putter].wish else { unreachable!() };
        self.push(item);
        self.wake(putter);
        true
    }

    fn settle(&mut self) {
        while self.has_more()
            && let Some(getter) = self.getters.pop_front()
        {
            self.promised += 1;
            self.wake(getter);
        }
        while self.free() < self.capacity && self.take_in() {}
    }

    fn pop(&mut self) -> Option<Item> {
        if self.items.is_empty() && !self.take_in() {
            return None;
        }
        let item = self.items.remove((self.next)(&self.items));
        self.settle();
        Some(item)
    }

    fn close(&mut self) {
        while self.items.len() < self.promised && self.take_in() {}
        self.end_waits();
    }

    fn close_now(&mut self) -> Vec<usize> {
        self.end_waits();
        let mut left = Vec::new();
        while !self.items.is_empty() {
            left.push(self.items.remove((self.next)(&self.items)).number);
        }
        for _ in &left {
            self.task_done();
        }
        if self.unfinished == 0 {
            self.wake_joiners();
        }
        left
    }

    fn end_waits(&mut self) {
        self.is_closed = true;
        while let Some(putter) = self.putters.pop_front() {
            self.returned.push(putter);
            self.wake(putter);
        }
        while let Some(getter) = self.getters.pop_front() {
            self.promised += 1;
            self.wake(getter);
        }
    }

    fn try_put(&mut self, item: Item) -> bool {
        if self.is_closed {
            return false;
        }
        let room = self.free() < self.capacity;
        let wanted = self.items.len() + self.putters.len() < self.promised + self.getters.len();
        if !room && !wanted {
            return false;
        }
        // Waiting putters go first.
        while self.items.len() < self.promised && self.take_in() {}
        self.push(item);
        self.settle();
        true
    }

    fn try_get(&mut self) -> Option<Item> {
        if self.has_more() { self.pop() } else { None }
    }

    fn task_done(&mut self) -> bool {
        if self.unfinished == 0 {
            return false;
        }
        self.unfinished -= 1;
        if self.unfinished == 0 {
            self.wake_joiners();
        }
        true
    }

    fn wake_joiners(&mut self) {
        while let Some(joiner) = self.joiners.pop_front() {
            self.wake(joiner);
        }
    }

    fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.settle();
    }

    /// Runs an actor until it waits or ends.
    fn go_on(&mut self, actor: usize) {
        match (self.actors[actor].state, self.actors[actor].wish) {
            (State::Unstarted, wish) => {
                let waits = match wish {
                    Wish::Get => match self.try_get() {
                        Some(item) => return self.end(actor, Outcome::Got(item.number)),
                        None if self.is_closed => return self.end(actor, Outcome::Closed),
                        None => &mut self.getters,
                    },
                    Wish::Put(_) if self.is_closed => return self.end(actor, Outcome::Closed),
                    Wish::Put(item) if self.free() < self.capacity => {
                        self.push(item);
                        self.settle();
                        return self.end(actor, Outcome::Done);
                    }
                    Wish::Put(_) => &mut self.putters,
                    Wish::Join if self.unfinished == 0 => return self.end(actor, Outcome::Done),
                    Wish::Join => &mut self.joiners,
                };
                waits.push_back(actor);
                let deadline = self.actors[actor].patience.ticks().map(|ticks| self.now + ticks);
                self.actors[actor].deadline = deadline;
                self.actors[actor].state = State::Waiting;
                self.settle();
            }
            (State::Woken(killed), Wish::Get) => {
                self.promised -= 1;
                match self.pop() {
                    Some(item) => self.end(actor, Outcome::Got(item.number)),
                    None if self.is_closed => self.end(actor, Outcome::Closed),
                    // A kill strikes when the actor would wait again.
                    None if killed => self.end(actor, Outcome::Killed),
                    // The putter of the granted item has left. The getter returns to its place in order of arrival.
                    None => {
                        let place = self.getters.partition_point(|other| *other < actor);
                        self.getters.insert(place, actor);
                        self.actors[actor].state = State::Waiting;
                    }
                }
            }
            (State::Woken(_), Wish::Put(_)) if self.returned.contains(&actor) => self.end(actor, Outcome::Closed),
            (State::Woken(_), _) => self.end(actor, Outcome::Done),
            (State::Waiting | State::Ended(_), _) => {}
        }
    }

    /// Runs every ready actor once.
    fn run_ready(&mut self) {
        for _ in 0..self.ready.len() {
            if let Some(actor) = self.ready.pop_front() {
                self.go_on(actor);
            }
        }
    }

    fn leave(&mut self, actor: usize, outcome: Outcome) {
        for queue in [&mut self.getters, &mut self.putters, &mut self.joiners] {
            queue.retain(|waiting| *waiting != actor);
        }
        self.end(actor, outcome);
    }

    fn kill(&mut self, actor: usize) {
        match self.actors[actor].state {
            State::Unstarted => self.end(actor, Outcome::Killed),
            // The victim unwinds at once; the killer runs after every ready actor.
            State::Waiting => {
                self.leave(actor, Outcome::Killed);
                self.run_ready();
            }
            State::Woken(_) => {
                self.actors[actor].state = State::Woken(true);
                self.run_ready();
            }
            State::Ended(_) => {}
        }
    }

    /// Passes a tick, while no actor is ready.
    fn tick(&mut self) {
        self.now += 1;
        for actor in 0..self.actors.len() {
            let over = self.actors[actor].deadline.is_some_and(|deadline| deadline <= self.now);
            if over && self.actors[actor].state == State::Waiting {
                self.leave(actor, Outcome::Late);
            }
        }
    }
}

/// Performs the operation and returns its outcome.
fn act<O: Order<Item>>(queue: &OrderedQueue<Item, O>, wish: Wish, patience: Patience) -> Outcome {
    let limit = match patience {
        Patience::Limit(ticks) => Some(TICK * ticks),
        _ => None,
    };
    let wait = || match (wish, limit) {
        (Wish::Get, None) => match queue.get() {
            Err(GetError::Closed) => Outcome::Closed,
            got => Outcome::Got(got.unwrap().number),
        },
        (Wish::Get, Some(limit)) => match queue.get_timeout(limit) {
            Err(GetError::TimedOut) => Outcome::Late,
            Err(GetError::Closed) => Outcome::Closed,
            got => Outcome::Got(got.unwrap().number),
        },
        (Wish::Put(item), None) => match queue.put(item) {
            Err(PutError::Closed(back)) => {
                assert_eq!(back.number, item.number);
                Outcome::Closed
            }
            put => {
                put.unwrap();
                Outcome::Done
            }
        },
        (Wish::Put(item), Some(limit)) => match queue.put_timeout(item, limit) {
            Err(PutError::TimedOut(back)) => {
                assert_eq!(back.number, item.number);
                Outcome::Late
            }
            Err(PutError::Closed(back)) => {
                assert_eq!(back.number, item.number);
                Outcome::Closed
            }
            put => {
                put.unwrap();
                Outcome::Done
            }
        },
        (Wish::Join, _) => {
            queue.join().unwrap();
            Outcome::Done
        }
    };
    match patience {
        Patience::Scope(ticks) => with_timeout(TICK * ticks, wait).unwrap_or(Outcome::Late),
        _ => wait(),
    }
}

fn compare<O: Order<Item> + 'static>(seeds: u64, next: fn(&[Item]) -> usize) {
    use_manual_clock();
    get_hub().set_timer_slack(0, Duration::ZERO);
    for seed in 0..seeds {
        let (mut random, before) = (Rng::with_seed(seed), held());
        let sizes = [0, 1, 2, 3, usize::MAX];
        let capacity = sizes[random.usize(..sizes.len())];
        let queue = Rc::new(OrderedQueue::<Item, O>::bounded(capacity));
        let mut model = Model {
            next,
            items: Vec::new(),
            capacity,
            actors: Vec::new(),
            ready: VecDeque::new(),
            getters: VecDeque::new(),
            putters: VecDeque::new(),
            joiners: VecDeque::new(),
            promised: 0,
            unfinished: 0,
            is_closed: false,
            returned: Vec::new(),
            now: 0,
        };
        let outcomes: Rc<RefCell<Vec<Outcome>>> = Rc::default();
        let mut greens = Vec::new();
        for step in 0..80 {
            let at = format!("seed {seed}, step {step}");
            let item = Item { priority: random.usize(..3), number: step };
            match random.usize(..16) {
                choice @ 0..=6 => {
                    let wish = match choice {
                        0..=2 => Wish::Get,
                        3..=5 => Wish::Put(item),
                        _ => Wish::Join,
                    };
                    let ticks = 1 + random.usize(..3) as u32;
                    let patience = match (random.usize(..4), wish) {
                        (0, Wish::Get | Wish::Put(_)) => Patience::Limit(ticks),
                        (1, _) => Patience::Scope(ticks),
                        _ => Patience::Endless,
                    };
                    let number = greens.len();
                    let (queue, outcomes) = (queue.clone(), outcomes.clone());
                    outcomes.borrow_mut().push(Outcome::Killed);
                    greens.push(spawn(move || {
                        let outcome = act(&queue, wish, patience);
                        outcomes.borrow_mut()[number] = outcome;
                    }));
                    model.actors.push(Actor { wish, patience, deadline: None, state: State::Unstarted });
                    model.ready.push_back(number);
                }
                7 => assert_eq!(queue.try_put(item).is_ok(), model.try_put(item), "{at}"),
                8 => {
                    let got = queue.try_get().ok();
                    assert_eq!(got.map(|item| item.number), model.try_get().map(|item| item.number), "{at}");
                }
                9 => assert_eq!(queue.task_done().is_ok(), model.task_done(), "{at}"),
                10 => {
                    let capacity = sizes[random.usize(..sizes.len())];
                    queue.resize(capacity);
                    model.resize(capacity);
                }
                11 if !greens.is_empty() => {
                    let victim = random.usize(..greens.len());
                    greens[victim].kill();
                    model.kill(victim);
                }
                // One queue of three is closed, so that the others run to the end with waiters.
                12 if seed % 3 == 0 && step > 20 && random.usize(..2) == 0 => {
                    if random.usize(..2) == 0 {
                        queue.close();
                        model.close();
                    } else {
                        let left: Vec<_> = queue.close_now().into_iter().map(|item| item.number).collect();
                        assert_eq!(left, model.close_now(), "{at}");
                    }
                }
                13 => {
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
            let seen = (queue.len(), queue.getting(), queue.putting(), queue.unfinished());
            let expected = (model.free(), model.getters.len(), model.putters.len(), model.unfinished);
            assert_eq!(seen, expected, "{at}: items, getters, putters, unfinished");
            for (number, green) in greens.iter().enumerate() {
                let ended = green.is_finished().then(|| outcomes.borrow()[number]);
                let expected = match model.actors[number].state {
                    State::Ended(outcome) => Some(outcome),
                    _ => None,
                };
                assert_eq!(ended, expected, "{at}: {number}, {:?}", model.actors[number].wish);
            }
        }
        greens.iter().for_each(|green| _ = green.kill());
        assert_eq!((queue.getting(), queue.putting()), (0, 0), "seed {seed}");
        drop((greens, queue));
        assert_eq!(held(), before, "seed {seed}");
    }
}

#[test]
fn a_queue_matches_its_model() {
    run("a_queue_matches_its_model", || compare::<Fifo<Item>>(400, |_| 0));
}

#[test]
fn a_lifo_queue_matches_its_model() {
    run("a_lifo_queue_matches_its_model", || compare::<Lifo<Item>>(200, |items| items.len() - 1));
}

#[test]
fn a_priority_queue_matches_its_model() {
    run("a_priority_queue_matches_its_model", || {
        compare::<Priority<Item>>(200, |items| {
            // The first of several equal items.
            (0..items.len()).min_by_key(|index| items[*index].priority).unwrap()
        });
    });
}
