//! Random programs: every event is in the spans of the model, and every span is closed once.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use greenhub::debug::in_span;
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::sync::{Mutex, Queue};
use greenhub::thread::yield_now;
use greenhub::{Builder, GreenThread, get_hub, sleep, with_timeout};
use tracing::{Span, info_span};

use crate::notes::Notes;
use crate::support::green::{OnDrop, keep_reports, quiet_panic};
use crate::support::random::{Moment, Rng, seeds};
use crate::support::run;

/// The state shared by the greenlets of a program.
struct World {
    notes: Notes,
    wrong: RefCell<Vec<String>>,
    green_threads: RefCell<Vec<Rc<GreenThread<()>>>>,
    /// The number of green threads that may still be spawned.
    left: Cell<usize>,
    labels: Cell<usize>,
    queue: Queue<usize>,
    lock: Arc<Mutex<()>>,
}

/// The spans in which one greenlet is.
#[derive(Clone)]
struct Model(Rc<RefCell<Vec<String>>>);

impl Model {
    fn new(own: Option<String>) -> Model {
        Model(Rc::new(RefCell::new(own.into_iter().collect())))
    }

    fn last(&self) -> Option<String> {
        self.0.borrow().last().cloned()
    }
}

impl World {
    fn label(&self, kind: &str) -> String {
        self.labels.set(self.labels.get() + 1);
        format!("{kind} {}", self.labels.get())
    }

    /// Emits an event and checks its spans.
    fn check(&self, model: &Model, at: &str) {
        self.compare(&self.notes.here(), &model.0.borrow(), at);
    }

    /// Differences are kept until the end, since the programs catch panics.
    fn compare(&self, here: &[String], expected: &[String], at: &str) {
        if here != expected {
            self.wrong.borrow_mut().push(format!("{at}: in {here:?} instead of {expected:?}"));
        }
    }

    fn in_part(&self, model: &Model, body: impl FnOnce()) {
        let label = self.label("part");
        in_span(part(&label), || {
            model.0.borrow_mut().push(label);
            // Runs at the end of the span, by return or by unwinding.
            let _leaves = OnDrop(|| {
                self.check(model, "at the end of a span");
                model.0.borrow_mut().pop();
            });
            self.check(model, "in a new span");
            body();
        });
        self.check(model, "after a span");
    }

    fn some_green_thread(&self, random: &mut Rng) -> Option<Rc<GreenThread<()>>> {
        let all = self.green_threads.borrow();
        if all.is_empty() { None } else { Some(all[random.usize(..all.len())].clone()) }
    }

    fn take_one(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }
}

fn part(label: &str) -> Span {
    info_span!(target: "test", "part", label)
}

fn spawn_one(world: &Rc<World>, model: &Model, random: &mut Rng, depth: usize) {
    if !world.take_one() {
        return;
    }
    let (name, mut random, its_world) = (world.label("green"), random.fork(), world.clone());
    let its = Model::new(Some(name.clone()));
    let green = Builder::new().name(name).spawn(move || {
        its_world.check(&its, "at the beginning");
        act(&its_world, &its, &mut random, depth);
    });
    let parent = world.notes.last().and_then(|span| span.parent);
    world.compare(parent.as_slice(), model.last().as_slice(), "spawned");
    world.green_threads.borrow_mut().push(Rc::new(green.unwrap()));
}

/// Makes a greenlet and switches to it and back by hand; it may also wait, or be dropped while it is suspended.
fn switch_by_hand(world: &Rc<World>, model: &Model, random: &mut Rng) {
    let (maker, its_world, waits) = (Greenlet::current(), world.clone(), random.usize(..3) == 0);
    let plain = Greenlet::new(move |_| {
        let its = Model::new(None);
        its_world.check(&its, "in a plain greenlet");
        its_world.in_part(&its, || {
            drop(maker.switch(Payload::unit()));
            its_world.check(&its, "switched to again");
            if waits {
                yield_now();
            }
        });
        Ok(Payload::unit())
    });
    for _ in 0..random.usize(..3) {
        drop(plain.switch(Payload::unit()));
        world.check(model, "switched back to");
    }
    drop(plain);
    world.check(model, "after a plain greenlet");
}

fn act(world: &Rc<World>, model: &Model, random: &mut Rng, depth: usize) {
    let steps = if depth == 0 { 1 } else { 1 + random.usize(..5) };
    for _ in 0..steps {
        let (kind, moment, below) = (random.usize(..15), random.moment(), depth.saturating_sub(1));
        match kind {
            0 | 1 => yield_now(),
            2 => sleep(moment),
            3 | 4 if depth > 0 => world.in_part(model, || act(world, model, random, below)),
            5 if depth > 0 => {
                let _ = with_timeout(moment, || world.in_part(model, || act(world, model, random, below)));
            }
            6 if depth > 0 => {
                let panics = random.usize(..2) == 0;
                // May swallow a kill as well, which strikes again at the next wait.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    world.in_part(model, || {
                        act(world, model, random, below);
                        if panics {
                            quiet_panic("a panic");
                        }
                    });
                }));
            }
            7 | 8 => spawn_one(world, model, random, depth),
            9 => {
                if let Some(green) = world.some_green_thread(random) {
                    green.kill();
                }
            }
            10 => {
                if let Some(green) = world.some_green_thread(random) {
                    let _ = with_timeout(moment, || green.wait());
                }
            }
            11 if random.usize(..2) == 0 => drop(world.queue.put(kind)),
            11 => drop(world.queue.get_timeout(moment)),
            12 => {
                let _ = with_timeout(moment * 2, || {
                    let _held = world.lock.lock();
                    yield_now();
                    world.check(model, "with a lock");
                });
            }
            13 if depth > 0 && world.take_one() => greenhub::scope(|scope| {
                let mut theirs = random.fork();
                scope.spawn(move || {
                    let own = world.notes.here();
                    world.compare(&own, &["green_thread".to_owned()], "in a scope");
                    act(world, &Model(Rc::new(RefCell::new(own))), &mut theirs, below);
                });
                act(world, model, random, below);
            }),
            13 => {
                let label = world.label("guarded");
                let span = part(&label);
                let _in_it = span.enter();
                model.0.borrow_mut().push(label);
                world.check(model, "with a guard");
                model.0.borrow_mut().pop();
            }
            14 if random.usize(..2) == 0 => {
                let its_world = world.clone();
                get_hub().schedule(moment / 2, move || its_world.check(&Model::new(None), "in a callback"));
            }
            _ => switch_by_hand(world, model, random),
        }
        world.check(model, "after a step");
    }
}

#[test]
fn events_are_in_the_spans_of_the_model() {
    for seed in seeds(300, 1) {
        let (notes, wrong) = run("events_are_in_the_spans_of_the_model", move || {
            keep_reports();
            let (notes, _listening) = Notes::listen();
            let mut random = Rng::with_seed(seed);
            let world = Rc::new(World {
                notes: notes.clone(),
                wrong: RefCell::default(),
                green_threads: RefCell::default(),
                left: Cell::new(25),
                labels: Cell::default(),
                queue: Queue::new(),
                lock: Arc::default(),
            });
            let main = Model::new(None);
            for _ in 0..3 {
                world.in_part(&main, || spawn_one(&world, &main, &mut random, 3));
                act(&world, &main, &mut random, 2);
            }
            let left_behind = random.usize(..4) == 0;
            loop {
                let next = world.green_threads.borrow_mut().pop();
                match next {
                    Some(green) if !left_behind => drop(green.wait()),
                    Some(_) => {}
                    None => break,
                }
                world.check(&main, "in main");
            }
            if !left_behind {
                sleep(Duration::from_micros(400));
            }
            (notes, world.wrong.take())
        });
        assert_eq!(wrong, [""; 0], "seed {seed}");
        notes.are_settled();
    }
}
