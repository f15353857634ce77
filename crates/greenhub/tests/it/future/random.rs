//! Random programs of green threads and futures that wake, kill, time out and drop each other.
//!
//! The programs are checked against invariants: a wait ends only when its gate is open, a future is polled only when it
//! was woken, it is dropped once and by its own green thread, polls leave in the order in which they began, and in the
//! end nothing is left. `GREENHUB_SEEDS` sets the number of programs.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::green::{held, keep_reports, reports};
use crate::support::random::{Moment, Rng, seeds};
use crate::support::run;
use greenhub::future::{block_in_place, block_on, defer_to_green_thread};
use greenhub::greenthread::{GreenletId, current_id};
use greenhub::thread::yield_now;
use greenhub::{GreenThread, sleep, spawn, with_timeout};

const GATES: usize = 4;
const ACTORS: usize = 6;

/// A gate for any number of waiters.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Gate {
    fn wake(&self) {
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap());
        wakers.into_iter().for_each(Waker::wake);
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
        self.wake();
    }
}

/// The state that the green threads of a program share.
#[derive(Default)]
struct World {
    gates: Arc<[Gate; GATES]>,
    actors: RefCell<Vec<Rc<GreenThread<()>>>>,
    /// Wakers that outlive their waits.
    kept: RefCell<Vec<Waker>>,
    /// The polls under way, the innermost last.
    polls: RefCell<Vec<GreenletId>>,
    futures: Cell<usize>,
    dropped: Cell<usize>,
}

/// Counts the wake-ups of one wait, and passes them on.
struct Counted {
    inner: Waker,
    wakes: AtomicUsize,
}

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.inner.wake_by_ref();
    }
}

/// A wait for a gate, with the checks of the program.
struct Wait {
    world: Rc<World>,
    gate: usize,
    owner: GreenletId,
    counted: Option<Arc<Counted>>,
    polls: usize,
    /// Whether it waits for the next one within its own poll, by `block_in_place`.
    inner: Option<usize>,
    restless: usize,
}

impl Wait {
    fn new(world: &Rc<World>, rng: &mut Rng) -> Wait {
        world.futures.set(world.futures.get() + 1);
        Wait {
            world: Rc::clone(world),
            gate: rng.usize(..GATES),
            owner: current_id(),
            counted: None,
            polls: 0,
            inner: (rng.u8(..8) == 0).then(|| rng.usize(..GATES)),
            restless: if rng.u8(..4) == 0 { rng.usize(..3) } else { 0 },
        }
    }

    fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let counted = self
            .counted
            .get_or_insert_with(|| Arc::new(Counted { inner: cx.waker().clone(), wakes: AtomicUsize::new(0) }));
        assert!(counted.inner.will_wake(cx.waker()), "a wait has one waker");
        assert!(self.polls <= counted.wakes.load(Ordering::SeqCst), "polled without a wake-up");
        self.polls += 1;
        let waker = Waker::from(Arc::clone(counted));
        if self.restless != 0 {
            self.restless -= 1;
            waker.wake();
            return Poll::Pending;
        }
        if let Some(gate) = self.inner.take() {
            let (world, outer) = (Rc::clone(&self.world), self.world.polls.borrow_mut().pop());
            block_in_place(|| with_timeout(Duration::from_micros(300), || wait_simply(&world, gate)).ok());
            world.polls.borrow_mut().extend(outer);
        }
        let gate = &self.world.gates[self.gate];
        let mut wakers = gate.wakers.lock().unwrap();
        if gate.open.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        wakers.push(waker);
        Poll::Pending
    }
}

/// Ends the entry of a poll, also if it is unwound by a kill in `block_in_place`.
struct PollEntry<'a>(&'a World, usize);

impl Drop for PollEntry<'_> {
    fn drop(&mut self) {
        self.0.polls.borrow_mut().truncate(self.1);
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (world, me) = (Rc::clone(&self.world), current_id());
        assert_eq!(me, self.owner, "polled by another green thread");
        let depth = world.polls.borrow().len();
        world.polls.borrow_mut().push(me);
        let unwound = PollEntry(&world, depth);
        let polled = self.poll_once(cx);
        assert_eq!(world.polls.borrow().last(), Some(&me), "polls leave in the order in which they began");
        drop(unwound);
        polled
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        assert_eq!(current_id(), self.owner, "dropped by another green thread");
        self.world.dropped.set(self.world.dropped.get() + 1);
    }
}

/// Waits for a gate by a future without checks.
fn wait_simply(world: &World, gate: usize) {
    let gate = &world.gates[gate];
    block_on(poll_fn(|cx| {
        let mut wakers = gate.wakers.lock().unwrap();
        if gate.open.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        wakers.push(cx.waker().clone());
        Poll::Pending
    }));
}

/// Performs random steps.
fn act(world: &Rc<World>, mut rng: Rng, depth: usize) {
    for _ in 0..rng.usize(1..8) {
        match rng.u8(..12) {
            0..3 => {
                let wait = Wait::new(world, &mut rng);
                let gate = wait.gate;
                block_on(wait);
                assert!(world.gates[gate].open.load(Ordering::SeqCst), "a wait ended at a closed gate");
            }
            3..5 => {
                let wait = Wait::new(world, &mut rng);
                let gate = wait.gate;
                let waited = with_timeout(rng.moment(), || block_on(wait));
                assert!(waited.is_err() || world.gates[gate].open.load(Ordering::SeqCst));
            }
            5 => world.gates[rng.usize(..GATES)].open(),
            6 => world.gates[rng.usize(..GATES)].wake(),
            7 => {
                let wakers = world.gates[rng.usize(..GATES)].wakers.lock().unwrap().clone();
                world.kept.borrow_mut().extend(wakers);
            }
            8 => world.kept.borrow().iter().for_each(Waker::wake_by_ref),
            9 => {
                let target = world.actors.borrow().get(rng.usize(..ACTORS)).cloned();
                if let Some(target) = target {
                    target.kill();
                }
            }
            10 if depth < 3 => defer(world, &mut rng, depth),
            _ => yield_now(),
        }
    }
}

/// Waits for a green thread as a future, and drops it early at times.
fn defer(world: &Rc<World>, rng: &mut Rng, depth: usize) {
    let (inner, seed) = (Rc::clone(world), rng.fork());
    let mut deferred = defer_to_green_thread(move || act(&inner, seed, depth + 1)).kill_on_drop();
    match rng.u8(..3) {
        0 => _ = block_on(deferred),
        1 => _ = with_timeout(rng.moment(), || block_on(deferred)),
        _ => {
            // Dropped in the poll.
            let mut kept = Some(Pin::new(&mut deferred));
            block_on(poll_fn(|cx| {
                kept.take().map(|mut deferred| deferred.as_mut().poll(cx));
                Poll::Ready(())
            }));
        }
    }
}

/// Runs one program. If `stirs`, another OS thread opens and wakes gates meanwhile.
fn run_program(seed: u64, stirs: bool) {
    let mut rng = Rng::with_seed(seed);
    let world = Rc::new(World::default());
    let stop = Arc::new(AtomicBool::new(false));
    let stirrer = stirs.then(|| {
        let (gates, stop, mut rng) = (Arc::clone(&world.gates), Arc::clone(&stop), rng.fork());
        std::thread::spawn(move || {
            for _ in 0..20 {
                let gate = &gates[rng.usize(..GATES)];
                if rng.u8(..10) == 0 {
                    gate.open()
                } else {
                    gate.wake()
                }
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                std::thread::sleep(rng.moment() / 4);
            }
        })
    });
    for _ in 0..ACTORS {
        let (inner, rng) = (Rc::clone(&world), rng.fork());
        world.actors.borrow_mut().push(Rc::new(spawn(move || act(&inner, rng, 0))));
    }
    for _ in 0..rng.usize(1..10) {
        sleep(rng.moment());
    }
    stop.store(true, Ordering::SeqCst);
    // With every gate open, each green thread ends: a lost wake-up is a hang.
    let actors = world.actors.borrow().clone();
    for actor in &actors {
        while !actor.is_finished() {
            world.gates.iter().for_each(|gate| gate.open());
            sleep(Duration::from_micros(50));
        }
        let ended = actor.wait();
        assert!(ended.as_ref().is_ok_and(|()| true) || ended.as_ref().unwrap_err().is_kill(), "seed {seed}: {ended:?}");
    }
    stirrer.into_iter().for_each(|stirrer| stirrer.join().unwrap());
    // Green threads that were killed by a dropped future may still unwind.
    while Rc::strong_count(&world) != 1 {
        world.gates.iter().for_each(|gate| gate.open());
        sleep(Duration::from_micros(50));
    }
    assert_eq!(world.futures.get(), world.dropped.get(), "seed {seed}");
    assert_eq!(*world.polls.borrow(), [], "seed {seed}");
    world.actors.take();
}

fn run_programs(stirs: bool, usual: u64, weight: u64) {
    keep_reports();
    let before = held();
    for seed in seeds(usual, weight) {
        run_program(seed, stirs);
        assert_eq!(reports(), [""; 0], "seed {seed}");
    }
    assert_eq!(held(), before);
}

#[test]
fn random_programs_of_one_os_thread_keep_the_invariants() {
    run("random_programs_of_one_os_thread_keep_the_invariants", || run_programs(false, 1000, 4));
}

#[test]
fn random_programs_with_wakers_on_another_os_thread_keep_the_invariants() {
    run("random_programs_with_wakers_on_another_os_thread_keep_the_invariants", || run_programs(true, 400, 8));
}

#[test]
fn random_programs_of_two_hubs_keep_the_invariants() {
    let both = [1000, 2000].map(|_| {
        std::thread::spawn(|| {
            run("random_programs_of_two_hubs_keep_the_invariants", || run_programs(true, 150, 16));
        })
    });
    both.into_iter().for_each(|thread| thread.join().unwrap());
}
