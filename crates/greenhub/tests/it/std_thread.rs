//! `thread`: std's behaviour of OS threads, for green threads.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::green::{LONG, held};
use crate::support::random::Rng;
use greenhub::{sleep, with_timeout};

same_as_std! {
    fn spawned_code_runs_and_its_result_is_joined() {
        let handle = thread::spawn(|| 6 * 7);
        assert_eq!(handle.join().unwrap(), 42);
    }

    fn a_panic_is_an_error_of_join() {
        let handle = thread::spawn(|| if true { panic!("on purpose") });
        assert!(handle.join().is_err());
    }

    fn a_builder_gives_a_name() {
        let builder = thread::Builder::new().name("worker".to_owned()).stack_size(256 * 1024);
        let handle = builder.spawn(|| thread::current().name().map(str::to_owned)).unwrap();
        assert_eq!(handle.join().unwrap().as_deref(), Some("worker"));
    }

    fn a_builder_names_a_thread_of_a_scope() {
        let words = ["green", "threads"];
        let names = thread::scope(|scope| {
            let named = thread::Builder::new().name("worker".into()).stack_size(256 * 1024);
            let named = named.spawn_scoped(scope, || (thread::current().name().map(str::to_owned), words.len()));
            let unnamed = thread::Builder::new().spawn_scoped(scope, || thread::current().name().map(str::to_owned));
            let named = named.unwrap();
            assert_eq!(named.thread().name(), Some("worker"));
            (named.join().unwrap(), unnamed.unwrap().join().unwrap())
        });
        assert_eq!(names, ((Some("worker".to_owned()), 2), None));
    }

    fn a_scope_joins_the_green_threads_of_a_builder() {
        let ended = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                let builder = thread::Builder::new();
                let begun = builder.spawn_scoped(scope, || {
                    thread::yield_now();
                    ended.fetch_add(1, Ordering::SeqCst);
                });
                begun.unwrap();
            }
        });
        assert_eq!(ended.into_inner(), 3);
    }

    fn live_threads_have_different_ids() {
        let here = thread::current().id();
        let there = thread::spawn(|| thread::current().id()).join().unwrap();
        assert_ne!(here, there);
        assert_eq!(here, thread::current().id());
    }

    fn a_sleep_is_not_too_short() {
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(20));
        assert!(begun.elapsed() >= Duration::from_millis(20));
        thread::yield_now();
    }

    fn a_scope_lends_and_joins() {
        let data = [1, 2, 3];
        let mut sum = 0;
        let product = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(2));
                sum = data.iter().sum();
            });
            scope.spawn(|| data.iter().product::<i32>()).join().unwrap()
        });
        assert_eq!((sum, product), (6, 6));
    }

    fn an_unpark_is_kept_for_the_next_park() {
        thread::current().unpark();
        thread::current().unpark();
        thread::park();
        let begun = Instant::now();
        thread::park_timeout(Duration::from_millis(10));
        assert!(begun.elapsed() >= Duration::from_millis(10), "two make one");
    }

    fn a_parked_thread_is_unparked_through_its_handle() {
        let ready = Arc::new(AtomicBool::new(false));
        let seen = ready.clone();
        let parked = thread::Builder::new().name("parked".to_owned()).spawn(move || {
            while !seen.load(Ordering::SeqCst) {
                thread::park();
            }
            thread::current().id()
        });
        let parked = parked.unwrap();
        assert_eq!(parked.thread().name(), Some("parked"));
        thread::sleep(Duration::from_millis(2));
        ready.store(true, Ordering::SeqCst);
        parked.thread().unpark();
        let id = parked.thread().id();
        assert_eq!(parked.join().unwrap(), id);
    }

    fn two_threads_park_and_unpark_in_turn() {
        let turns = AtomicUsize::new(0);
        let main = thread::current();
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                for _ in 0..100 {
                    while turns.load(Ordering::SeqCst).is_multiple_of(2) {
                        thread::park();
                    }
                    turns.fetch_add(1, Ordering::SeqCst);
                    main.unpark();
                }
            });
            for _ in 0..100 {
                turns.fetch_add(1, Ordering::SeqCst);
                other.thread().unpark();
                while turns.load(Ordering::SeqCst) % 2 == 1 {
                    thread::park();
                }
            }
        });
        assert_eq!(turns.into_inner(), 200);
    }

    fn a_handle_reports_its_end_and_returns_the_result() {
        let handle: thread::JoinHandle<i32> = thread::spawn(|| 1);
        while !handle.is_finished() {
            thread::yield_now();
        }
        assert_eq!(handle.join().unwrap(), 1);
        assert!(thread::available_parallelism().is_ok());
        assert!(!thread::panicking());
    }
}

#[test]
fn green_threads_of_two_os_threads_have_different_ids() {
    support::run("green_threads_of_two_os_threads_have_different_ids", || {
        let here = greenhub::thread::current().id();
        let there = std::thread::spawn(|| greenhub::thread::current().id()).join().unwrap();
        assert_ne!(here, there);
    });
}

#[test]
fn a_green_thread_is_unparked_from_other_os_threads() {
    support::run("a_green_thread_is_unparked_from_other_os_threads", || {
        let rounds = Arc::new(AtomicUsize::new(0));
        let (counted, here) = (rounds.clone(), greenhub::thread::current());
        let parked = greenhub::spawn(move || {
            for round in 1..=50 {
                while counted.load(Ordering::SeqCst) < round {
                    greenhub::thread::park();
                }
                here.unpark();
            }
        });
        let thread = parked.thread().clone();
        let other = std::thread::spawn(move || {
            for _ in 0..50 {
                rounds.fetch_add(1, Ordering::SeqCst);
                thread.unpark();
                std::thread::yield_now();
            }
        });
        parked.join().unwrap();
        other.join().unwrap();
        greenhub::thread::park();
    });
}

#[test]
fn a_park_is_left_by_a_kill_and_the_thread_outlives_it() {
    support::run("a_park_is_left_by_a_kill_and_the_thread_outlives_it", || {
        let parked = greenhub::spawn(greenhub::thread::park);
        greenhub::thread::yield_now();
        let thread = parked.thread().clone();
        parked.kill();
        assert!(parked.join().unwrap_err().is_kill());
        thread.unpark();
        let next = greenhub::spawn(|| greenhub::thread::current().id());
        assert_ne!(next.join().unwrap(), thread.id(), "an id is not given again");
    });
}

/// The way in which a green thread of a random program parks.
#[derive(Copy, Clone, Debug)]
enum Park {
    Forever,
    /// With a timeout that does not expire.
    Long,
    /// With a timeout that expires at once.
    AtOnce,
    /// Inside `with_timeout` with a limit of zero.
    Struck,
}

/// A reference model of a parking green thread, without any switching.
#[derive(Default)]
struct Parker {
    token: bool,
    parked: bool,
    killed: bool,
    to_do: VecDeque<Park>,
    /// For each finished park, whether a timeout ended it.
    over: Vec<bool>,
}

impl Parker {
    fn settle(&mut self) {
        while !self.killed {
            if self.parked {
                if !std::mem::take(&mut self.token) {
                    return;
                }
                self.parked = false;
                self.over.push(false);
            }
            let Some(park) = self.to_do.pop_front() else { return };
            if std::mem::take(&mut self.token) {
                self.over.push(false);
                continue;
            }
            match park {
                Park::Forever | Park::Long => self.parked = true,
                Park::AtOnce => self.over.push(false),
                Park::Struck => self.over.push(true),
            }
        }
    }
}

fn park(how: Park) -> bool {
    match how {
        Park::Forever => greenhub::thread::park(),
        Park::Long => greenhub::thread::park_timeout(LONG),
        Park::AtOnce => greenhub::thread::park_timeout(Duration::ZERO),
        Park::Struck => return with_timeout(Duration::ZERO, greenhub::thread::park).is_err(),
    }
    false
}

#[test]
fn parks_match_their_model_under_kills_and_timeouts() {
    support::run("parks_match_their_model_under_kills_and_timeouts", || {
        for seed in 0..25 {
            let (mut random, before) = (Rng::with_seed(seed), held());
            let mut models: Vec<_> = (0..4).map(|_| Parker::default()).collect();
            let real: Vec<_> = models
                .iter()
                .map(|_| {
                    let (to_do, over) = (Rc::<RefCell<VecDeque<Park>>>::default(), Rc::<RefCell<Vec<bool>>>::default());
                    let (parks, ended) = (to_do.clone(), over.clone());
                    let green = greenhub::spawn(move || {
                        loop {
                            let next = parks.borrow_mut().pop_front();
                            match next {
                                Some(how) => {
                                    let struck = park(how);
                                    ended.borrow_mut().push(struck);
                                }
                                None => greenhub::thread::yield_now(),
                            }
                        }
                    });
                    (green, to_do, over)
                })
                .collect();
            for step in 0..80 {
                let number = random.usize(..4);
                let (model, (green, to_do, _)) = (&mut models[number], &real[number]);
                match random.usize(..20) {
                    0 => {
                        // Lets the other green threads run.
                        green.kill();
                        model.killed = true;
                    }
                    1..=4 => {
                        green.thread().unpark();
                        model.token = true;
                        continue;
                    }
                    5..=7 => {
                        let thread = green.thread().clone();
                        std::thread::spawn(move || thread.unpark()).join().unwrap();
                        model.token = true;
                        continue;
                    }
                    8..=15 => {
                        let how = [Park::Forever, Park::Long, Park::AtOnce, Park::Struck][random.usize(..4)];
                        to_do.borrow_mut().push_back(how);
                        model.to_do.push_back(how);
                        continue;
                    }
                    _ => {}
                }
                (0..20).for_each(|_| sleep(Duration::from_micros(20)));
                for (number, (model, (_, _, over))) in models.iter_mut().zip(&real).enumerate() {
                    model.settle();
                    assert!(model.killed || *over.borrow() == model.over, "seed {seed}, step {step}, number {number}");
                }
            }
            for (green, _, _) in real {
                green.kill();
                assert!(green.join().unwrap_err().is_kill());
            }
            assert_eq!(held(), before, "seed {seed}");
        }
    });
}
