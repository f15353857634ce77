//! The rules of soundness of `docs/design.md`: attempts of safe code to break each rule.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::fork::{exits_with, forked};
use crate::support::green;
use crate::support::green::{
    Drops, LONG, Log, OnDrop, PARK_POINTS, SHORT, held, keep_reports, pipe, quiet_panic, reports,
};
use crate::support::hubs::{Tap, Wait, Watch, use_tapped_hub};
use crate::support::{alone, assert_succeeded, is_child, rerun, run};
use greenhub::greenlet::{Greenlet, GreenletError, Payload};
use greenhub::greenpool::Group;
use greenhub::greenthread::{KillOutcome, ScopedGreenThread};
use greenhub::hub::{Hub, HubError, Key, Lease, LoopErrorKind, Readiness, Ready, Rearm, Time, Watched};
use greenhub::park::{Deadline, Parker, ReadHint, Source, Unparker, WaitReason};
use greenhub::pools::Pool;
use greenhub::sync::{Event, Queue, Semaphore};
use greenhub::thread::yield_now;
use greenhub::{
    Builder, GreenError, GreenPool, GreenThread, Interest, TrampolineError, get_hub, scope, sleep, spawn, spawn_after,
    spawn_n, tpool, trampoline, use_hub, use_hub_with, with_timeout,
};

/// Like `Drops`, for use across OS threads.
#[derive(Clone, Default)]
struct SharedDrops(Arc<AtomicUsize>);

impl SharedDrops {
    fn one(&self) -> OnDrop<impl FnMut() + use<>> {
        let count = self.0.clone();
        OnDrop(move || _ = count.fetch_add(1, Ordering::SeqCst))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A green thread that is in a deadlock with another one.
struct Never(Rc<GreenThread<()>>);

impl Never {
    fn new() -> Never {
        let slot = Rc::new(RefCell::new(None::<Rc<GreenThread<()>>>));
        let other = slot.clone();
        let one = Rc::new(spawn(move || {
            yield_now();
            let other = other.take();
            drop(other.map(|other| other.wait()));
        }));
        let waits = one.clone();
        *slot.borrow_mut() = Some(Rc::new(spawn(move || drop(waits.wait()))));
        Never(one)
    }

    /// Waits for the green thread, which only this OS thread could end.
    fn wait(&self) {
        drop(self.0.wait());
    }
}

impl Drop for Never {
    fn drop(&mut self) {
        self.0.kill();
    }
}

// ---- 1 ------------------------------------------------------------------------------------------

#[test]
fn rule_01_a_masked_park_is_not_left_early() {
    run("rule_01_a_masked_park_is_not_left_early", || {
        let before = held();
        // A killed parent, a parent that times out, and a loop with nothing left to wait for.
        let ends: [fn(&dyn Fn()); 3] = [
            |body| {
                scope(|s| {
                    let parent = s.spawn(body);
                    yield_now();
                    yield_now();
                    assert_eq!(parent.kill(), KillOutcome::Scheduled);
                    assert!(parent.join().unwrap_err().is_kill());
                });
            },
            |body| assert!(with_timeout(SHORT, body).is_err()),
            |body| {
                body();
                // The next wait receives the loop's error.
                let other = spawn(yield_now);
                assert!(
                    matches!(other.join(), Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::LoopExit)
                );
            },
        ];
        for (index, end) in ends.into_iter().enumerate() {
            let log = Log::new();
            end(&|| {
                let mut frame = [7_u8; 256];
                let borrowed = &mut frame;
                scope(|s| {
                    s.spawn(|| {
                        let _end = OnDrop(|| {
                            // The parent's frame is still valid while its children unwind.
                            assert_eq!(borrowed[255], 7);
                            borrowed[0] = 1;
                            log.add("child");
                        });
                        if index < 2 {
                            sleep(LONG);
                        } else {
                            Never::new().wait();
                        }
                    });
                });
                assert_eq!(frame[0], 1);
                log.add("parent");
            });
            log.is(if index == 2 { &["child", "parent"] } else { &["child"] });
        }
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_01_a_wait_for_a_borrowing_job_is_not_left_early() {
    run("rule_01_a_wait_for_a_borrowing_job_is_not_left_early", || {
        let before = held();
        for by_kill in [true, false] {
            let (begin, begun) = std::sync::mpsc::channel();
            let (go, goes) = std::sync::mpsc::channel::<()>();
            let lives = Arc::new(AtomicUsize::new(1));
            let (left, looks, intact) = (lives.clone(), lives.clone(), Arc::new(AtomicUsize::new(0)));
            let wrote = intact.clone();
            let body = move || {
                let mut frame = [7_u8; 256];
                let _end = OnDrop(|| left.store(0, Ordering::SeqCst));
                let lent = &mut frame;
                let _ = tpool::execute_scoped(move || {
                    begin.send(()).unwrap();
                    // Blocks until the exit has been requested.
                    let _ = goes.recv();
                    lent.fill(1);
                    wrote.store(looks.load(Ordering::SeqCst), Ordering::SeqCst);
                });
                assert_eq!(frame[255], 1);
                // The pending exit strikes here.
                yield_now();
            };
            let limit = if by_kill { LONG } else { SHORT };
            let parent = spawn(move || with_timeout(limit, body));
            yield_now();
            begun.recv().unwrap();
            if by_kill {
                assert_eq!(parent.kill(), KillOutcome::Scheduled);
            } else {
                sleep(SHORT * 4);
            }
            sleep(SHORT);
            assert_eq!(lives.load(Ordering::SeqCst), 1, "its frame was left while the job borrows it");
            drop(go);
            let ended = parent.join();
            assert!(if by_kill { ended.is_err_and(|error| error.is_kill()) } else { ended.unwrap().is_err() });
            assert_eq!(intact.load(Ordering::SeqCst), 1);
        }
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_01_masks_nest() {
    run("rule_01_masks_nest", || {
        let before = held();
        let log = Log::new();
        let parent = spawn({
            let log = log.clone();
            move || {
                scope(|s| {
                    s.spawn(|| {
                        let _end = log.on_drop("child");
                        scope(|s| {
                            s.spawn(|| {
                                let _end = log.on_drop("grandchild");
                                // Swallows one exit.
                                assert!(catch_unwind(|| sleep(LONG)).is_err());
                                sleep(LONG);
                            });
                        });
                    });
                });
                log.add("never");
            }
        });
        sleep(SHORT);
        parent.kill();
        assert!(parent.join().unwrap_err().is_kill());
        log.is(&["grandchild", "child"]);
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_01_results_may_hold_handles_of_their_siblings() {
    run("rule_01_results_may_hold_handles_of_their_siblings", || {
        struct Asks<'scope>(ScopedGreenThread<'scope, Vec<u8>>, Rc<Cell<usize>>);
        impl Drop for Asks<'_> {
            fn drop(&mut self) {
                assert!(self.0.is_finished());
                assert_eq!(self.0.kill(), KillOutcome::Dead);
                self.1.set(self.1.get() + 1);
            }
        }
        let before = held();
        let asked = Rc::new(Cell::new(0));
        scope(|s| {
            let first = s.spawn(|| vec![1; 100]);
            let to = asked.clone();
            s.spawn(move || Asks(first, to));
            // The result with the handle may also come before the sibling it refers to.
            let slot = Rc::new(RefCell::new(None));
            let inner = slot.clone();
            s.spawn(move || {
                yield_now();
                inner.take()
            });
            *slot.borrow_mut() = Some(Asks(s.spawn(|| vec![2; 100]), asked.clone()));
        });
        assert_eq!(asked.get(), 2);
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_01_a_destructor_of_a_result_may_spawn_into_the_scope() {
    run("rule_01_a_destructor_of_a_result_may_spawn_into_the_scope", || {
        let before = held();
        let ran = Cell::new(0);
        scope(|s| {
            let ran = &ran;
            let again = OnDrop(move || {
                s.spawn(move || {
                    sleep(SHORT);
                    ran.set(ran.get() + 1);
                });
            });
            s.spawn(move || again);
        });
        assert_eq!(ran.get(), 1);
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_01_a_result_is_not_claimed_by_a_join_during_its_formatting() {
    /// An error whose `Display` switches.
    #[derive(Debug)]
    struct Wordy(Arc<AtomicUsize>);
    impl fmt::Display for Wordy {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            yield_now();
            f.write_str(if Arc::strong_count(&self.0) == 2 { "wordy" } else { "gone" })
        }
    }
    impl Error for Wordy {}
    impl Drop for Wordy {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    run("rule_01_a_result_is_not_claimed_by_a_join_during_its_formatting", || {
        let dropped = Arc::new(AtomicUsize::new(0));
        // The payload of a kill with an error, to be thrown again in another green thread.
        let caught = Rc::new(Cell::new(None));
        let to = caught.clone();
        let victim = spawn(move || to.set(catch_unwind(|| sleep(LONG)).err()));
        yield_now();
        victim.kill_with(GreenError::custom(Wordy(dropped.clone())));
        drop(victim);
        let payload = caught.take().unwrap();
        let taken = Cell::new(false);
        let taken_here = &taken;
        let ended = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                let slot: Rc<RefCell<Option<ScopedGreenThread<'_, ()>>>> = Rc::default();
                let handle = slot.clone();
                // The destructor of the first result spawns a green thread that joins the second.
                s.spawn(move || {
                    OnDrop(move || {
                        let other = handle.take().unwrap();
                        s.spawn(move || taken_here.set(other.join().is_err_and(|error| error.to_string() == "wordy")));
                    })
                });
                *slot.borrow_mut() = Some(s.spawn(move || std::panic::resume_unwind(payload)));
            });
        }));
        assert!(ended.is_err(), "a green thread of the scope failed");
        assert!(!taken.get());
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn rule_01_a_panic_of_the_closure_ends_the_children_first() {
    run("rule_01_a_panic_of_the_closure_ends_the_children_first", || {
        let before = held();
        let log = Log::new();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(|| {
                    let _end = log.on_drop("begun");
                    sleep(LONG);
                });
                yield_now();
                let unstarted = log.on_drop("unstarted");
                s.spawn(move || drop(unstarted));
                quiet_panic(42);
            })
        }));
        assert_eq!(*caught.unwrap_err().downcast::<i32>().unwrap(), 42);
        log.add("caught");
        log.is(&["unstarted", "begun", "caught"]);
        // An unclaimed panic of a child becomes the scope's.
        let caught = catch_unwind(|| {
            scope(|s| {
                s.spawn(|| quiet_panic("child"));
            })
        });
        assert!(caught.is_err());
        scope(|s| assert!(s.spawn(|| quiet_panic("taken")).join().is_err()));
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_01_a_scope_is_refused_while_panicking() {
    let test = "rule_01_a_scope_is_refused_while_panicking";
    if is_child() {
        let _end = OnDrop(|| {
            let refused = catch_unwind(|| {
                scope(|s| {
                    s.spawn(|| println!("a child ran"));
                })
            });
            println!("refused: {}", refused.is_err());
        });
        quiet_panic(());
    }
    let output = rerun(test, |_| ());
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(!out.contains("a child ran") && out.contains("refused: true"), "{out}");
}

// ---- 2 ------------------------------------------------------------------------------------------

#[test]
fn rule_02_a_stack_is_reused_only_after_its_root_returned() {
    run("rule_02_a_stack_is_reused_only_after_its_root_returned", || {
        let before = held();
        let (broken, unwound) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let guarded = |index: usize| {
            let (broken, unwound) = (broken.clone(), unwound.clone());
            spawn(move || {
                let frame = std::hint::black_box([index; 64]);
                let _end = OnDrop(|| {
                    unwound.set(unwound.get() + 1);
                    if std::hint::black_box(&frame).iter().any(|&place| place != index) {
                        broken.set(broken.get() + 1);
                    }
                });
                sleep(LONG);
            })
        };
        let mut all: Vec<_> = (0..200).map(guarded).collect();
        yield_now();
        for round in 0..5 {
            // A stale handle reaches no green thread, although its control block is in use again.
            let dead: Vec<_> = all.drain(..100).collect();
            for one in &dead {
                assert_eq!(one.kill(), KillOutcome::Ended);
            }
            assert_eq!(unwound.get(), 100 * (round + 1), "a stack was reused before its green thread was unwound");
            all.extend((0..100).map(|index| guarded(round * 1000 + index)));
            yield_now();
            get_hub().trim_stacks();
            for one in &dead {
                assert_eq!(one.kill(), KillOutcome::Dead);
            }
            assert_eq!(get_hub().stats().stacks_in_use, 201, "each parked one has its own, and the loop");
        }
        for one in all {
            one.kill();
        }
        assert_eq!(broken.get(), 0);
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_02_a_stale_unparker_ends_no_park_of_the_next_greenlet() {
    run("rule_02_a_stale_unparker_ends_no_park_of_the_next_greenlet", || {
        let before = held();
        // Spawns a green thread that parks `times` times until it is unparked.
        let parks = |unparkers: &Rc<RefCell<Vec<Unparker>>>, times: usize| {
            let unparkers = unparkers.clone();
            spawn(move || {
                for _ in 0..times {
                    let parker = Parker::new(WaitReason::Park).unwrap();
                    unparkers.borrow_mut().push(parker.unparker());
                    parker.park(&mut Deadline::none()).unwrap();
                }
            })
        };
        sleep(SHORT);
        let stale = Rc::new(RefCell::new(Vec::new()));
        let old = parks(&stale, 5);
        let number = old.id();
        for _ in 0..5 {
            yield_now();
            let last = *stale.borrow().last().unwrap();
            last.unpark();
        }
        old.join().unwrap();
        assert_eq!(stale.borrow().len(), 5);
        // Reuses the control block, and parks as many times.
        let current = Rc::new(RefCell::new(Vec::new()));
        let new = parks(&current, 5);
        assert_eq!(new.id(), number);
        for park in 1..=5 {
            yield_now();
            stale.borrow().iter().for_each(|unparker| unparker.unpark());
            yield_now();
            yield_now();
            assert_eq!(current.borrow().len(), park, "a stale unparker has ended a park");
            let last = *current.borrow().last().unwrap();
            last.unpark();
        }
        new.join().unwrap();
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_02_a_stack_abandoned_by_a_shutdown_is_not_reused() {
    alone("rule_02_a_stack_abandoned_by_a_shutdown_is_not_reused", || {
        // All 200 green threads begin in one turn, however slow the machine is.
        greenhub::hub::set_turn_time(Duration::MAX);
        let (said, at) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (frame_at, ran) = (at.clone(), said.clone());
        keep_reports();
        spawn_n(move || {
            let frame = std::hint::black_box([7_usize; 64]);
            frame_at.set(std::hint::black_box(&frame).as_ptr().addr());
            // Swallows its kill.
            loop {
                ran.set(ran.get() + 1);
                drop(catch_unwind(|| sleep(LONG)));
            }
        });
        yield_now();
        let used = get_hub().stats().stacks_in_use;
        get_hub().shutdown(Some(SHORT)).unwrap();
        let runs = said.get();
        let others: Vec<_> = (0..200)
            .map(|_| {
                spawn(|| {
                    let frame = std::hint::black_box([0_usize; 64]);
                    sleep(SHORT);
                    std::hint::black_box(&frame).as_ptr().addr()
                })
            })
            .collect();
        yield_now();
        assert!(get_hub().stats().stacks_in_use >= used + 199, "the stack that was given up does not count as used");
        let smallest_stack = 64 << 10;
        for other in others {
            assert!(other.join().unwrap().abs_diff(at.get()) > smallest_stack / 2, "on the stack that was given up");
        }
        get_hub().trim_stacks();
        assert!(is_mapped(at.get()));
        assert_eq!(said.get(), runs, "the greenlet was entered again");
    });
}

#[test]
fn rule_02_the_end_of_an_os_thread_keeps_suspended_stacks_mapped() {
    keep_reports();
    let parked_frame = || {
        std::thread::spawn(|| {
            let at = Rc::new(Cell::new(0));
            let frame_at = at.clone();
            spawn_n(move || {
                let frame = std::hint::black_box([7_usize; 64]);
                frame_at.set(std::hint::black_box(&frame).as_ptr().addr());
                sleep(LONG);
            });
            sleep(SHORT);
            at.get()
        })
        .join()
        .unwrap()
    };
    let parked: Vec<_> = (0..10).map(|_| parked_frame()).collect();
    assert!(parked.into_iter().all(is_mapped), "a stack with a suspended root was unmapped");
}

/// Returns whether the address is mapped in this process.
fn is_mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    let bounds = |line: &str| {
        let (low, high) = line.split(' ').next()?.split_once('-')?;
        Some(usize::from_str_radix(low, 16).ok()?..usize::from_str_radix(high, 16).ok()?)
    };
    maps.lines().filter_map(bounds).any(|range| range.contains(&address))
}

/// An error with a destructor of the test's choice.
#[derive(Debug)]
struct Last(fn());

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the last one")
    }
}

impl Error for Last {}

impl Drop for Last {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn last(at_drop: fn()) -> GreenError {
    GreenError::custom(Last(at_drop))
}

#[test]
fn rule_02_the_target_of_a_second_kill_may_end_while_its_error_is_dropped() {
    run("rule_02_the_target_of_a_second_kill_may_end_while_its_error_is_dropped", || {
        let before = held();
        let target = Rc::new(spawn(|| {
            scope(|s| {
                s.spawn(|| sleep(LONG));
            });
        }));
        yield_now();
        yield_now();
        assert_eq!(target.kill(), KillOutcome::Scheduled);
        // Runs after the target has killed its child and while it waits for the end.
        let victim = target.clone();
        let killer = spawn(move || victim.kill_with(last(|| sleep(SHORT))));
        assert_eq!(killer.join().unwrap(), KillOutcome::Ended);
        let others: Vec<_> = (0..10).map(|_| spawn(yield_now)).collect();
        assert!(others.into_iter().all(|other| other.join().is_ok()));
        drop(target);
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_02_an_error_dropped_with_its_greenlet_may_park() {
    run("rule_02_an_error_dropped_with_its_greenlet_may_park", || {
        thread_local!(static ENDED: Cell<bool> = const { Cell::new(false) });
        keep_reports();
        let before = held();
        let slot = Rc::new(RefCell::new(None::<Rc<GreenThread<()>>>));
        let inner = slot.clone();
        let target = Rc::new(spawn(move || {
            let me = inner.take().unwrap();
            // Scheduled as a pending exit, and dropped after the body has ended.
            let _end = OnDrop(move || _ = me.kill_with(last(|| drop(catch_unwind(|| sleep(LONG))))));
            std::panic::resume_unwind(Box::new(()));
        }));
        *slot.borrow_mut() = Some(target.clone());
        yield_now();
        // The target is parked in that destructor; this error is dropped last.
        target.kill_with(last(|| {
            std::mem::forget(Greenlet::current());
            ENDED.set(with_timeout(SHORT, || sleep(LONG)).is_err());
        }));
        drop(target);
        while !ENDED.get() {
            sleep(SHORT);
        }
        assert_eq!(held(), before);
    });
}

// ---- 3 ------------------------------------------------------------------------------------------

#[test]
fn rule_03_a_shutdown_unwinds_every_park_and_a_thread_end_unwinds_none() {
    let test = "rule_03_a_shutdown_unwinds_every_park_and_a_thread_end_unwinds_none";
    if !is_child() {
        // Some park points set the lock patience, which is process-wide.
        return assert_succeeded(&rerun(test, |_| ()));
    }
    green::keep_reports();
    for point in PARK_POINTS {
        let end = |ends: fn(Box<dyn FnOnce() + Send>)| {
            let drops = SharedDrops::default();
            let inside = drops.clone();
            ends(Box::new(move || {
                for _ in 0..3 {
                    let inside = inside.one();
                    spawn_n(move || {
                        let _inside = inside;
                        (point.park)();
                    });
                }
                sleep(SHORT);
                let unstarted = inside.one();
                spawn_n(move || drop(unstarted));
                let delayed = inside.one();
                drop(spawn_after(LONG, move || drop(delayed)));
            }));
            drops.count()
        };
        let shut_down = end(|body| run("rule_03_a_shutdown_unwinds_every_park_and_a_thread_end_unwinds_none", body));
        assert_eq!(shut_down, 5, "{}", point.name);
        let implicit = end(|body| std::thread::spawn(body).join().unwrap());
        assert_eq!(implicit, 0, "{}", point.name);
    }
}

#[test]
fn rule_03_green_threads_that_wait_for_each_other_end_in_a_shutdown() {
    let drops = SharedDrops::default();
    let inside = drops.clone();
    run("rule_03_green_threads_that_wait_for_each_other_end_in_a_shutdown", move || {
        let slot = Rc::new(RefCell::new(None::<Rc<GreenThread<()>>>));
        // Waits for a green thread that ends after it; the third one waits for one that ends before it.
        let (one, later) = (inside.one(), slot.clone());
        spawn_n(move || {
            let _one = one;
            let later = later.take().unwrap();
            drop(later.wait());
            // Waits again with a pending exit.
            drop(later.wait());
        });
        let one = inside.one();
        let middle = Rc::new(spawn(move || {
            let _one = one;
            sleep(LONG);
        }));
        *slot.borrow_mut() = Some(middle.clone());
        let one = inside.one();
        spawn_n(move || {
            let _one = one;
            drop(middle.wait());
        });
        yield_now();
    });
    assert_eq!(drops.count(), 3);
}

#[test]
fn rule_03_destructors_in_a_shutdown_may_block_and_spawn() {
    let drops = SharedDrops::default();
    let inside = drops.clone();
    let begin = Instant::now();
    run("rule_03_destructors_in_a_shutdown_may_block_and_spawn", move || {
        let ends: [fn(); 5] = [
            || sleep(LONG),
            yield_now,
            || drop(spawn(|| panic!("begun in a shutdown")).join()),
            || _ = spawn_after(LONG, || ()).kill(),
            || drop(tpool::execute(|| 1)),
        ];
        for end in ends {
            // The destructors run in a parked, an unstarted and a linked green thread, and after a swallowed exit.
            let one = inside.one();
            let end_here = OnDrop(end);
            spawn_n(move || {
                let _both = (one, end_here);
                sleep(LONG);
            });
            let one = inside.one();
            spawn_n(move || {
                let _one = one;
                drop(catch_unwind(|| sleep(LONG)));
                end();
            });
        }
        let one = inside.one();
        let linked = spawn(|| sleep(LONG));
        linked.link(move |_| {
            let _one = one;
            yield_now();
        });
        yield_now();
        let one = inside.one();
        drop(spawn(move || drop(one)));
    });
    assert_eq!(drops.count(), 12);
    assert!(begin.elapsed() < Duration::from_secs(60), "a destructor has blocked for longer than the grace");
}

#[test]
fn rule_03_a_spawn_refused_in_a_shutdown_is_an_error_of_join() {
    let said = run("rule_03_a_spawn_refused_in_a_shutdown_is_an_error_of_join", || {
        let (sender, ends) = std::sync::mpsc::channel();
        let end: Box<dyn FnMut()> = Box::new(move || {
            let refused = spawn(|| 1);
            let now = refused.is_finished();
            let error = refused.join().unwrap_err();
            let _ = sender
                .send((now, matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::ThreadEnding)));
        });
        let end = OnDrop(end);
        spawn_n(move || {
            let _end = end;
            sleep(LONG);
        });
        yield_now();
        ends
    });
    assert_eq!(said.recv(), Ok((true, true)));
}

#[test]
fn rule_03_handles_may_outlive_the_green_threads_of_their_thread() {
    type Ended = GreenThread<OnDrop<fn()>>;
    thread_local! {
        static KEPT: RefCell<Vec<Ended>> = const { RefCell::new(Vec::new()) };
    }
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    run("rule_03_handles_may_outlive_the_green_threads_of_their_thread", || {
        // Initialized before the state of the OS thread, so destroyed after it.
        KEPT.with(|_| ());
        let value = || OnDrop((|| _ = DROPPED.fetch_add(1, Ordering::SeqCst)) as fn());
        let ended = spawn(value);
        let parked = spawn(move || {
            let value = value();
            sleep(LONG);
            value
        });
        let unstarted = spawn_after(LONG, value);
        yield_now();
        KEPT.with(|kept| kept.borrow_mut().extend([ended, parked, unstarted]));
    });
    assert_eq!(DROPPED.load(Ordering::SeqCst), 2);
}

#[test]
fn rule_03_nothing_begins_when_the_green_threads_are_gone() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    let dropped = SharedDrops::default();
    let inside = dropped.clone();
    run("rule_03_nothing_begins_when_the_green_threads_are_gone", move || {
        let one = inside.one();
        let unused = OnDrop(|| {
            spawn_n(|| BEGUN.fetch_add(1, Ordering::SeqCst));
            drop(catch_unwind(yield_now));
        });
        yield_now();
        // The hub is never built.
        use_hub_with(move || -> io::Result<Box<dyn Hub>> {
            let _both = (&one, &unused);
            Err(ErrorKind::Unsupported.into())
        })
        .unwrap();
    });
    assert_eq!((dropped.count(), BEGUN.load(Ordering::SeqCst)), (1, 0));
}

#[test]
fn rule_03_the_end_of_the_process_unwinds_nothing() {
    let test = "rule_03_the_end_of_the_process_unwinds_nothing";
    if is_child() {
        spawn_n(|| {
            let _end = OnDrop(|| println!("unwound"));
            sleep(LONG);
        });
        let ends_here = spawn(|| {
            let _end = OnDrop(|| println!("unwound"));
            sleep(SHORT);
            std::process::exit(7);
        });
        let _ = ends_here.join();
    }
    let output = rerun(test, |_| ());
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("unwound"), "{output:?}");
}

// ---- 4 ------------------------------------------------------------------------------------------

#[test]
fn rule_04_a_registration_keeps_its_descriptor_open() {
    let test = "rule_04_a_registration_keeps_its_descriptor_open";
    // A child process of another test may hold copies of the descriptors for a while.
    alone(test, || {
        let (reader, mut writer) = pipe();
        let heard = Rc::new(Cell::new(0));
        let to = heard.clone();
        // The registration is the only owner of the reader.
        let registration = get_hub().listen(reader, Interest::READ, move |_| to.set(to.get() + 1)).unwrap();
        sleep(SHORT);
        assert_eq!(heard.get(), 0);
        writer.write_all(b"x").unwrap();
        sleep(SHORT);
        assert!(heard.get() > 0);
        drop(registration);
        assert_eq!(writer.write_all(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);

        // The callback drops its own registration.
        let (reader, mut writer) = pipe();
        let slot = Rc::new(RefCell::new(None));
        let inner = slot.clone();
        let registration = get_hub().listen(reader, Interest::READ, move |_| drop(inner.take())).unwrap();
        *slot.borrow_mut() = Some(registration);
        writer.write_all(b"x").unwrap();
        sleep(SHORT);
        assert_eq!(writer.write_all(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

/// A record of the numbers that the hub watches.
#[derive(Clone, Default)]
struct Notes {
    /// The numbers that were watched and not forgotten since.
    known: Rc<RefCell<Vec<RawFd>>>,
    /// Whether a closed descriptor, or none, was lent.
    broken: Rc<Cell<bool>>,
}

impl Notes {
    /// Makes this OS thread use a hub with such a record.
    fn of_this_thread() -> Notes {
        let notes = Notes::default();
        use_tapped_hub(notes.clone());
        sleep(SHORT);
        notes
    }

    fn lent(&self, fd: BorrowedFd<'_>) {
        self.broken.set(self.broken.get() || rustix::io::fcntl_getfd(fd).is_err());
    }
}

impl Tap for Notes {
    fn watch(&mut self, hub: &mut dyn Hub, call: Watch<'_>) -> io::Result<()> {
        let number = call.key.fd();
        self.lent(call.fd);
        call.forward(hub)?;
        self.known.borrow_mut().push(number);
        Ok(())
    }

    fn forget(&mut self, hub: &mut dyn Hub, key: Key, fd: Option<BorrowedFd<'_>>) {
        // Without the descriptor, some hubs cannot deregister the open file.
        match fd {
            Some(fd) => self.lent(fd),
            None => self.broken.set(true),
        }
        self.known.borrow_mut().retain(|number| *number != key.fd());
        hub.forget(key, fd);
    }

    fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
        call.watched.iter().for_each(|(_, fd, _)| self.lent(fd));
        call.forward(hub)
    }
}

/// A descriptor that logs its drop.
struct Owned {
    fd: OwnedFd,
    notes: Notes,
    log: Log,
}

impl AsFd for Owned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let is_known = self.notes.known.borrow().contains(&self.fd.as_raw_fd());
        self.log.add(if is_known { "closed while the hub knows it" } else { "closed" });
    }
}

/// Ends a registration of the given descriptor; the closure makes it readable.
type End = fn(Owned, &mut dyn FnMut());

#[test]
fn rule_04_a_registration_is_forgotten_before_its_descriptor_is_closed() {
    let test = "rule_04_a_registration_is_forgotten_before_its_descriptor_is_closed";
    // A number closed too early must not belong to another test.
    alone(test, || {
        keep_reports();
        let ends: [End; 6] = [
            // Dropped without any event.
            |owned, _| {
                let registration = get_hub().listen(owned, Interest::READ, |_| ()).unwrap();
                sleep(SHORT);
                drop(registration);
            },
            // Dropped before the loop has polled.
            |owned, _| drop(get_hub().listen(owned, Interest::READ, |_| ()).unwrap()),
            // Dropped after its callback, while still ready.
            |owned, write| {
                let registration = get_hub().listen(owned, Interest::READ, |_| ()).unwrap();
                write();
                sleep(SHORT);
                drop(registration);
            },
            // Dropped by its own callback.
            |owned, write| {
                let slot = Rc::new(RefCell::new(None));
                let own = slot.clone();
                let registration = get_hub().listen(owned, Interest::READ, move |_| drop(own.take())).unwrap();
                slot.replace(Some(registration));
                write();
                sleep(SHORT);
            },
            // Deregistered by a panic of its callback.
            |owned, write| {
                let registration = get_hub().listen(owned, Interest::READ, |_| quiet_panic("on purpose")).unwrap();
                write();
                sleep(SHORT);
                // The panic has already deregistered it.
                std::mem::forget(registration);
            },
            // Dropped by a callback of the same turn.
            |owned, write| {
                let registration = get_hub().listen(owned, Interest::READ, |_| ()).unwrap();
                get_hub().schedule(Duration::ZERO, {
                    let slot = Cell::new(Some(registration));
                    move || drop(slot.take())
                });
                write();
                sleep(SHORT);
            },
        ];
        for (index, end) in ends.into_iter().enumerate() {
            let notes = Notes::of_this_thread();
            let before = notes.known.borrow().len();
            let log = Log::new();
            let (reader, mut writer) = pipe();
            let owned = Owned { fd: reader.into(), notes: notes.clone(), log: log.clone() };
            end(owned, &mut || writer.write_all(b"x").unwrap());
            log.is(&["closed"]);
            assert_eq!(notes.known.borrow().len(), before, "{index}: known");
            assert_eq!(writer.write_all(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            sleep(SHORT);
            assert!(!notes.broken.get(), "{index}: a closed descriptor was lent, or none");
        }
    });
}

#[test]
fn rule_04_a_failed_registration_drops_its_descriptor() {
    run("rule_04_a_failed_registration_drops_its_descriptor", || {
        let notes = Notes::of_this_thread();
        let log = Log::new();
        let owned = |fd: OwnedFd| Owned { fd, notes: notes.clone(), log: log.clone() };
        let (reader, _writer) = pipe();
        // A listener needs exactly one direction.
        let refused = get_hub().listen(owned(reader.into()), Interest::BOTH, |_| ());
        assert!(matches!(refused, Err(TrampolineError::Interest { .. })));
        log.is(&["closed"]);
        // A second listener for the same descriptor and direction.
        let (reader, _writer) = pipe();
        let shared = Rc::new(owned(reader.into()));
        let first = get_hub().listen(shared.clone(), Interest::READ, |_| ()).unwrap();
        let second = get_hub().listen(shared.clone(), Interest::READ, |_| ());
        assert!(matches!(second, Err(TrampolineError::SecondSimultaneous { .. })));
        assert_eq!(Rc::strong_count(&shared), 2, "the failed registration holds a reference");
        sleep(SHORT);
        drop(shared);
        log.is(&["closed"]);
        drop(first);
        log.is(&["closed", "closed"]);
        assert!(!notes.broken.get());
    });
}

// ---- 5 ------------------------------------------------------------------------------------------

#[test]
fn rule_05_a_reused_number_is_another_socket() {
    let test = "rule_05_a_reused_number_is_another_socket";
    alone(test, || {
        let read = |source: &Source, limit| {
            let mut buffer = [0; 16];
            source.read(Some(limit), |fd| Ok((rustix::io::read(fd, &mut buffer)?, ReadHint::Perhaps)))
        };
        let (reader, mut writer) = pipe();
        let number = reader.as_raw_fd();
        let old = Rc::new(Source::new(reader.into()).unwrap());
        // The socket has reported data, and a waiter waits for more.
        writer.write_all(b"x").unwrap();
        assert_eq!(read(&old, LONG).unwrap(), 1);
        let waits = old.clone();
        let waiter = spawn(move || read(&waits, LONG));
        yield_now();
        writer.write_all(b"y").unwrap();
        old.close();
        assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::NotConnected);

        let (reader, mut writer) = pipe();
        let reader = at_number(reader.into(), number);
        let new = Source::new(reader).unwrap();
        assert_eq!(read(&new, SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
        // Dropping the closed socket does not close the reused number.
        drop(old);
        writer.write_all(b"zz").unwrap();
        assert_eq!(read(&new, LONG).unwrap(), 2);
    });
}

/// Moves a file to a given number, which is free.
fn at_number(fd: OwnedFd, number: RawFd) -> OwnedFd {
    use std::os::fd::{FromRawFd, IntoRawFd};
    if fd.as_raw_fd() == number {
        return fd;
    }
    let from = fd.into_raw_fd();
    // SAFETY: the calls take plain numbers. The test is alone in its process and has found the number closed, so no
    // other object owns the new descriptor.
    unsafe {
        assert_eq!(libc::fcntl(number, libc::F_GETFD), -1, "the number is open");
        assert_eq!(libc::dup2(from, number), number);
        libc::close(from);
        OwnedFd::from_raw_fd(number)
    }
}

// ---- 6 ------------------------------------------------------------------------------------------

/// A hub that violates the contract.
struct Hostile {
    turn: u32,
    wait: fn(&mut Hostile, &mut Ready) -> io::Result<()>,
    log: Log,
}

impl Hub for Hostile {
    fn name(&self) -> &'static str {
        "hostile"
    }

    fn rearm(&self) -> Rearm {
        Rearm::Explicit
    }

    fn watch(&mut self, _: Key, _: BorrowedFd<'_>, _: Interest, _: Lease) -> io::Result<()> {
        Ok(())
    }

    fn forget(&mut self, _: Key, _: Option<BorrowedFd<'_>>) {
        quiet_panic("in forget");
    }

    fn wait(&mut self, _: &Watched, _: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        self.turn += 1;
        std::thread::sleep(Duration::from_micros(100));
        (self.wait)(self, ready)
    }

    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn now(&self) -> Time {
        // A clock that jumps back and forth.
        if self.turn % 3 == 2 { Time::monotonic() + LONG } else { Time::monotonic() }
    }
}

#[test]
fn rule_06_a_hostile_hub_cannot_break_the_loop() {
    let waits: [fn(&mut Hostile, &mut Ready) -> io::Result<()>; 5] = [
        |_, _| quiet_panic("in wait"),
        |_, _| Err(io::Error::other("no")),
        |_, ready| {
            for fd in [-1, 0, 1, 7, 1 << 20, RawFd::MAX] {
                for generation in [0, 1, 2, u32::MAX] {
                    ready.push(Key::new(fd, generation), Readiness::READ | Readiness::WRITE | Readiness::HANGUP);
                }
            }
            Ok(())
        },
        |hub, _| {
            // Calls of every kind back into the library.
            let (reader, _writer) = pipe();
            hub.log.add(trampoline(&reader, Interest::READ, None).is_err().to_string());
            hub.log.add(matches!(use_hub(None), Err(HubError::InMainloop)).to_string());
            hub.log.add(catch_unwind(|| sleep(SHORT)).is_err().to_string());
            hub.log.add(catch_unwind(|| scope(|_| ())).is_err().to_string());
            greenhub::park::notify_close(0);
            get_hub().schedule(Duration::ZERO, || ());
            spawn_n(|| ());
            let _ = get_hub().stats();
            Ok(())
        },
        |hub, _| {
            // After a few normal waits, panics with a payload that panics in its destructor.
            if hub.turn > 5 { quiet_panic(OnDrop(|| quiet_panic("again"))) } else { Ok(()) }
        },
    ];
    for (index, wait) in waits.into_iter().enumerate() {
        run("rule_06_a_hostile_hub_cannot_break_the_loop", move || {
            keep_reports();
            let log = Log::new();
            let to = log.clone();
            use_hub_with(move || Ok(Hostile { turn: 0, wait, log: to })).unwrap();
            let drops = Drops::default();
            let one = drops.one();
            let parked = spawn(move || {
                let _one = one;
                let (reader, _writer) = pipe();
                trampoline(&reader, Interest::READ, None).is_ok()
            });
            // The loop returns in every case, and another hub takes over.
            for _ in 0..10 {
                let _ = catch_unwind(|| sleep(Duration::from_micros(10)));
            }
            if index == 3 {
                assert!(log.len() >= 4 && log.all("true"), "{log:?}");
            }
            let _ = use_hub(None);
            spawn(|| sleep(SHORT)).join().unwrap();
            parked.kill();
            drop(parked);
            sleep(SHORT);
            assert_eq!(drops.count(), 1);
        });
    }
}

/// Makes the `name` of a hub panic or switch.
struct Nameless(fn() -> &'static str);

impl Tap for Nameless {
    fn name(&self, _: &dyn Hub) -> &'static str {
        (self.0)()
    }
}

#[test]
fn rule_06_a_hub_whose_name_panics_switches_or_is_empty_is_a_build_error() {
    run("rule_06_a_hub_whose_name_panics_switches_or_is_empty_is_a_build_error", || {
        let names: [fn() -> &'static str; 3] = [
            || quiet_panic("no name"),
            || {
                sleep(SHORT);
                "late"
            },
            || "",
        ];
        for name in names {
            use_tapped_hub(Nameless(name));
            // The loop itself is the first to need the hub.
            let error = spawn(|| sleep(SHORT)).join().unwrap_err();
            let GreenError::Loop(error) = error else { panic!("{error}") };
            assert!(matches!(error.hub_error(), Some(HubError::Build { .. })), "{error}");
        }
    });
}

// ---- 7 ------------------------------------------------------------------------------------------

#[test]
fn rule_07_replacing_a_hub_never_unwinds_main() {
    run("rule_07_replacing_a_hub_never_unwinds_main", || {
        // Inside the main loop, `use_hub` is an error.
        let said = Rc::new(RefCell::new(None));
        let to = said.clone();
        get_hub().schedule(Duration::ZERO, move || *to.borrow_mut() = Some(use_hub(None)));
        sleep(SHORT);
        assert!(matches!(said.take(), Some(Err(HubError::InMainloop))));

        let drops = Drops::default();
        let parked = |how: fn()| {
            let one = drops.one();
            spawn(move || {
                let _one = one;
                how();
            })
        };
        let on_hub = [
            parked(|| {
                let (reader, _writer) = pipe();
                drop(trampoline(&reader, Interest::READ, None));
            }),
            parked(|| sleep(LONG)),
        ];
        let waits = Rc::new(spawn(|| {
            yield_now();
            yield_now();
            8
        }));
        let survivor = spawn({
            let waits = waits.clone();
            move || waits.wait()
        });
        let (reader, _writer) = pipe();
        spawn_n(|| use_hub(None).unwrap());
        let _frame = OnDrop(|| assert!(!std::thread::panicking(), "main is unwound"));
        let error = trampoline(&reader, Interest::READ, None).unwrap_err();
        assert!(
            matches!(&error, TrampolineError::Loop(error) if error.kind() == LoopErrorKind::HubReplaced),
            "{error:?}"
        );
        assert_eq!(survivor.join().unwrap().unwrap(), 8);
        for one in on_hub {
            let error = one.join().unwrap_err();
            assert!(
                matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::HubReplaced),
                "{error:?}"
            );
        }
        assert_eq!(drops.count(), 2);
    });
}

// ---- 8 ------------------------------------------------------------------------------------------

#[test]
fn rule_08_a_swallowed_exit_comes_back_and_a_spent_timeout_does_not() {
    run("rule_08_a_swallowed_exit_comes_back_and_a_spent_timeout_does_not", || {
        let log = Log::new();
        let to = log.clone();
        let one = spawn(move || {
            for _ in 0..3 {
                let caught = catch_unwind(|| sleep(LONG));
                assert!(caught.is_err());
                to.add("swallowed");
            }
            // A scope, an offload and a trampoline are parks too.
            assert!(catch_unwind(|| scope(|_| ())).is_err());
            assert!(catch_unwind(|| tpool::execute(|| ())).is_err());
            let (reader, _writer) = pipe();
            assert!(catch_unwind(AssertUnwindSafe(|| trampoline(&reader, Interest::READ, None))).is_err());
            to.add("ends");
        });
        yield_now();
        one.kill();
        log.is(&["swallowed", "swallowed", "swallowed", "ends"]);
        one.join().unwrap();

        // A payload kept beyond its scope strikes no later wait.
        let kept = Rc::new(RefCell::new(None));
        let to = kept.clone();
        with_timeout(SHORT, move || *to.borrow_mut() = catch_unwind(|| sleep(LONG)).err()).unwrap();
        yield_now();
        sleep(SHORT);
        // Rethrown in another scope, it is not that scope's timeout.
        let foreign =
            catch_unwind(AssertUnwindSafe(|| with_timeout(LONG, || std::panic::resume_unwind(kept.take().unwrap()))));
        assert!(foreign.is_err());
        yield_now();
    });
}

// ---- 9 ------------------------------------------------------------------------------------------

#[test]
fn rule_09_nothing_switches_while_panicking() {
    run("rule_09_nothing_switches_while_panicking", || {
        let before = held();
        let log = Log::new();
        let to = log.clone();
        let bystander = Rc::new(spawn(move || {
            loop {
                to.add(if std::thread::panicking() { "panics" } else { "." });
                yield_now();
            }
        }));
        yield_now();
        let runs = log.len();
        let (reader, mut writer) = pipe();
        let source = Source::new(reader.into()).unwrap();
        let checked = Rc::new(Cell::new(false));
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let (log, checked, bystander) = (log.clone(), checked.clone(), bystander.clone());
            let _end = OnDrop(move || {
                let mut buffer = [0; 4];
                let mut read =
                    || source.read(Some(LONG), |fd| Ok((rustix::io::read(fd, &mut buffer)?, ReadHint::Perhaps)));
                // The wait lasts for the grace period at most.
                let begin = Instant::now();
                assert_eq!(read().unwrap_err().kind(), ErrorKind::TimedOut);
                sleep(LONG);
                yield_now();
                assert!(begin.elapsed() < Duration::from_secs(60));
                // Data that is available is still read.
                writer.write_all(b"x").unwrap();
                assert_eq!(read().unwrap(), 1);
                assert!(
                    matches!(spawn(|| ()).join(), Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::Panicking)
                );
                assert_eq!(tpool::execute(|| 3).unwrap(), 3);
                assert_eq!(bystander.kill(), KillOutcome::Scheduled);
                assert_eq!(log.len(), runs);
                checked.set(true);
            });
            quiet_panic(());
        }));
        assert!(caught.is_err() && checked.get());
        assert!(bystander.wait().unwrap_err().is_kill());
        assert!(!log.any("panics"));
        drop(bystander);
        assert_eq!(held(), before);
    });
}

// ---- 10 -----------------------------------------------------------------------------------------

#[test]
fn rule_10_a_body_run_in_place_starts_from_nothing() {
    run("rule_10_a_body_run_in_place_starts_from_nothing", || {
        keep_reports();
        let before = held();
        let places = Rc::new(RefCell::new(Vec::new()));
        let mut all = Vec::new();
        for round in 0..12 {
            let places = places.clone();
            let one = spawn(move || {
                let here = 0_u8;
                places.borrow_mut().push(std::ptr::from_ref(&here).addr());
                assert!(!std::thread::panicking());
                assert_eq!(greenhub::greenthread::current_name(), None);
                // No exit of the previous body is pending, and no mask is in force.
                yield_once_if(round % 2 == 0);
                match round % 4 {
                    0 => quiet_panic("a payload"),
                    1 => quiet_panic(OnDrop(|| quiet_panic("in a payload"))),
                    2 => drop(catch_unwind(|| with_timeout(Duration::ZERO, || drop(catch_unwind(yield_now))))),
                    _ => {}
                }
                OnDrop(|| quiet_panic("in a result"))
            });
            one.link(|_| quiet_panic("in a link"));
            all.push(one);
        }
        sleep(SHORT);
        for (round, one) in all.into_iter().enumerate() {
            assert!(one.is_finished());
            match one.join() {
                Ok(result) => std::mem::forget(result),
                Err(GreenError::Panic(_)) => assert!(round % 4 < 2),
                Err(error) => panic!("{error}"),
            }
        }
        assert!(reports().len() >= 12);
        assert_eq!(held(), before);

        // Bodies that end without a park share a stack.
        let places: Rc<RefCell<Vec<usize>>> = Rc::default();
        for _ in 0..10 {
            let places = places.clone();
            spawn_n(move || {
                let here = 0_u8;
                places.borrow_mut().push(std::ptr::from_ref(&here).addr());
            });
        }
        yield_now();
        let places = places.borrow();
        assert!(places.iter().all(|place| place.abs_diff(places[0]) < 16 << 10), "{places:x?}");
    });
}

fn yield_once_if(condition: bool) {
    if condition {
        yield_now();
    }
}

#[test]
fn rule_10_a_body_with_a_larger_stack_is_not_run_in_place() {
    fn dig(depth: usize) -> usize {
        let frame = std::hint::black_box([depth; 128]);
        if depth == 0 { frame[0] } else { dig(depth - 1) + frame[depth % 128] }
    }
    run("rule_10_a_body_with_a_larger_stack_is_not_run_in_place", || {
        let before = held();
        for round in 0..4 {
            spawn_n(|| ());
            let large = Builder::new().stack_size(8 << 20).spawn(move || dig(2000) + round).unwrap();
            spawn_n(|| ());
            assert!(large.join().unwrap() > 0);
        }
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_10_an_unclaimed_error_may_panic_in_drop() {
    run("rule_10_an_unclaimed_error_may_panic_in_drop", || {
        let slot = Rc::new(RefCell::new(None::<Greenlet>));
        let made = slot.clone();
        // The parent is parked on the hub, so it cannot receive the child's error.
        let parent = spawn(move || {
            *made.borrow_mut() = Some(Greenlet::new(|_| Err(last(|| quiet_panic("dropped")))));
            sleep(LONG);
        });
        yield_now();
        let child = slot.take().unwrap();
        let begun = child.clone();
        let switcher = spawn(move || drop(begun.switch(Payload::unit())));
        yield_now();
        assert!(child.is_dead());
        assert_eq!((switcher.kill(), parent.kill()), (KillOutcome::Ended, KillOutcome::Ended));
    });
}

// ---- 11 -----------------------------------------------------------------------------------------

#[test]
fn rule_11_a_kill_returns_to_the_killer() {
    run("rule_11_a_kill_returns_to_the_killer", || {
        let before = held();
        let log = Log::new();
        let to = log.clone();
        let target = spawn(move || {
            let _end = to.on_drop("unwound");
            sleep(LONG);
        });
        yield_now();
        assert_eq!(target.kill(), KillOutcome::Ended);
        drop(target);
        log.add("killer");
        // From a callback, the kill is scheduled.
        let to = log.clone();
        let target = Rc::new(spawn(move || {
            let _end = to.on_drop("unwound later");
            sleep(LONG);
        }));
        yield_now();
        let (to, victim) = (log.clone(), target.clone());
        get_hub().schedule(Duration::ZERO, move || to.add(format!("{:?}", victim.kill())));
        assert!(target.wait().unwrap_err().is_kill());
        log.is(&["unwound", "killer", "Scheduled", "unwound later"]);
        // Two green threads that kill each other.
        let slot = Rc::new(RefCell::new(None::<Rc<GreenThread<()>>>));
        let inner = slot.clone();
        let first = Rc::new(spawn(move || {
            yield_now();
            let other = inner.take().unwrap();
            let _end = OnDrop(|| _ = other.kill());
            other.kill();
            sleep(LONG);
        }));
        let victim = first.clone();
        let second = Rc::new(spawn(move || {
            let _end = OnDrop(|| _ = victim.kill());
            sleep(LONG);
        }));
        *slot.borrow_mut() = Some(second.clone());
        assert!(second.wait().unwrap_err().is_kill());
        assert!(first.wait().unwrap_err().is_kill());
        drop((target, first, second));
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_11_a_green_thread_that_drops_its_own_handle_is_detached() {
    run("rule_11_a_green_thread_that_drops_its_own_handle_is_detached", || {
        let before = held();
        let log = Log::new();
        let slot = Rc::new(RefCell::new(None::<GreenThread<OnDrop<fn()>>>));
        let (inner, to) = (slot.clone(), log.clone());
        *slot.borrow_mut() = Some(spawn(move || {
            drop(inner.take());
            sleep(SHORT);
            to.add("went on");
            OnDrop((|| ()) as fn())
        }));
        sleep(Duration::from_millis(20));
        log.is(&["went on"]);
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_11_dropping_a_last_handle_returns_when_another_greenlet_gets_the_outcome() {
    run("rule_11_dropping_a_last_handle_returns_when_another_greenlet_gets_the_outcome", || {
        let slot = Rc::new(RefCell::new(None::<Greenlet>));
        let made = slot.clone();
        let target = spawn(move || {
            let slow = OnDrop(|| sleep(LONG));
            let unstarted = Greenlet::new(move |_| {
                drop(slow);
                Ok(Payload::unit())
            });
            *made.borrow_mut() = Some(Greenlet::with_parent(&unstarted, |_| Err(GreenError::custom("failed"))));
            drop(unstarted);
            let away = Greenlet::new(|_| {
                sleep(LONG);
                Ok(Payload::unit())
            });
            away.switch(Payload::unit()).map(drop).unwrap_err().to_string()
        });
        yield_now();
        // The failure drops the body of the unstarted parent, whose destructor parks.
        let failed = slot.take().unwrap();
        let begun = failed.clone();
        let switcher = spawn(move || drop(begun.switch(Payload::unit())));
        yield_now();
        assert_eq!(switcher.kill(), KillOutcome::Ended);
        let dropper = spawn(move || drop(failed));
        assert_eq!(target.join().unwrap(), "failed");
        assert!(with_timeout(LONG, || dropper.join()).unwrap().is_ok());
    });
}

#[test]
fn rule_11_a_raw_switch_into_a_parked_greenlet_is_an_error() {
    run("rule_11_a_raw_switch_into_a_parked_greenlet_is_an_error", || {
        let (log, slot) = (Log::new(), Rc::new(RefCell::new(None::<Greenlet>)));
        let (slept, made) = (log.clone(), slot.clone());
        let parent = spawn(move || {
            let child = Greenlet::new(move |_| {
                sleep(SHORT);
                slept.add("slept");
                Ok(Payload::unit())
            });
            made.replace(Some(child.clone()));
            child.switch(Payload::unit()).map(drop)
        });
        yield_now();
        let child = slot.take().unwrap();
        for switch in [
            |child: &Greenlet| child.switch(Payload::unit()).map(drop),
            |child: &Greenlet| child.throw(GreenError::custom("thrown")).map(drop),
        ] {
            let error = switch(&child).unwrap_err();
            assert!(matches!(error, GreenError::Switch(GreenletError::Parked)), "{error:?}");
            log.is(&[]);
        }
        parent.join().unwrap().unwrap();
        log.is(&["slept"]);
    });
}

// ---- 12 -----------------------------------------------------------------------------------------

#[inline(never)]
fn dig_forever(depth: usize) -> usize {
    let frame = std::hint::black_box([depth; 64]);
    if depth == usize::MAX { 0 } else { dig_forever(depth + 1) + frame[depth % 64] }
}

#[test]
fn rule_12_an_overflow_hits_the_guard_page() {
    let test = "rule_12_an_overflow_hits_the_guard_page";
    if is_child() {
        for _ in 0..20 {
            spawn_n(|| sleep(LONG));
        }
        let digs = Builder::new().name("digger".into()).stack_size(100_000).spawn(|| dig_forever(0)).unwrap();
        println!("{:?}", digs.join());
        return;
    }
    let output = rerun(test, |_| ());
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{err}");
    assert!(err.contains("\ngreen thread \"digger\" (spawned at "), "{err}");
    assert!(err.contains("soundness.rs:"), "{err}");
    assert!(err.contains(") has overflowed its stack of 128 KiB\n"), "{err}");
}

#[test]
fn rule_12_an_overflow_of_an_unnamed_green_thread_reports_the_spawn_location() {
    let test = "rule_12_an_overflow_of_an_unnamed_green_thread_reports_the_spawn_location";
    if is_child() {
        println!("{:?}", spawn(|| dig_forever(0)).join());
        return;
    }
    let output = rerun(test, |_| ());
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{err}");
    assert!(err.contains("\ngreen thread (spawned at ") && err.contains("its stack of 256 KiB"), "{err}");
}

#[test]
fn rule_12_an_overflow_in_a_destructor_of_a_green_local_is_reported() {
    struct Digs;
    impl Drop for Digs {
        fn drop(&mut self) {
            println!("{}", dig_forever(0));
        }
    }
    greenhub::local::green_local!(static DIGS: Digs = Digs);
    let test = "rule_12_an_overflow_in_a_destructor_of_a_green_local_is_reported";
    if is_child() {
        println!("{:?}", spawn(|| DIGS.with(|_| ())).join());
        return;
    }
    let output = rerun(test, |_| ());
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{err}");
    assert!(err.contains("\na green thread that is ending has overflowed its stack of 256 KiB\n"), "{err}");
}

#[test]
fn rule_12_an_overflow_of_the_loop_is_reported_as_such() {
    let test = "rule_12_an_overflow_of_the_loop_is_reported_as_such";
    if is_child() {
        get_hub().schedule(Duration::ZERO, || println!("{}", dig_forever(0)));
        sleep(LONG);
    }
    let output = rerun(test, |_| ());
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{err}");
    assert!(err.contains("\nthe main loop has overflowed its stack of "), "{err}");
}

/// Panics on top of 16 KiB of frames.
#[inline(never)]
fn dig_and_panic(depth: usize) {
    let mut frame = [0_u8; 1000];
    std::hint::black_box(&mut frame);
    assert!(depth < 16, "on purpose");
    dig_and_panic(depth + 1);
    std::hint::black_box(&mut frame);
}

#[test]
fn rule_12_the_smallest_stack_has_room_for_a_panic_with_a_backtrace() {
    let test = "rule_12_the_smallest_stack_has_room_for_a_panic_with_a_backtrace";
    if is_child() {
        for _ in 0..3 {
            let panics = Builder::new().stack_size(1).spawn(|| dig_and_panic(0)).unwrap();
            assert!(panics.join().unwrap_err().to_string().contains("on purpose"));
        }
        return;
    }
    for backtrace in ["1", "full"] {
        let output = rerun(test, |command| _ = command.env("RUST_BACKTRACE", backtrace));
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(err.contains("dig_and_panic"), "{err}");
        assert_succeeded(&output);
    }
}

#[test]
fn rule_12_the_default_size_of_stacks_can_be_set() {
    let test = "rule_12_the_default_size_of_stacks_can_be_set";
    if !is_child() {
        return assert_succeeded(&rerun(test, |_| ()));
    }
    fn dig(depth: usize) -> usize {
        let frame = std::hint::black_box([depth; 128]);
        if depth == 0 { frame[0] } else { dig(depth - 1) + frame[depth % 128] }
    }
    run(test, || {
        assert_eq!(greenhub::greenthread::default_stack_size(), 256 << 10);
        spawn(|| ()).join().unwrap();
        greenhub::greenthread::set_default_stack_size(5 << 20).unwrap();
        assert_eq!(greenhub::greenthread::default_stack_size(), 8 << 20);
        // Needs more than the former default, also in place of a body with a smaller stack.
        for _ in 0..3 {
            spawn_n(|| ());
            assert!(spawn(|| dig(2000)).join().unwrap() > 0);
        }
        greenhub::greenthread::set_default_stack_size(1).unwrap();
        assert_eq!(greenhub::greenthread::default_stack_size(), 64 << 10);
        let error = greenhub::greenthread::set_default_stack_size(usize::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(greenhub::greenthread::default_stack_size(), 64 << 10);
        assert_eq!(Builder::new().stack_size(usize::MAX).spawn(|| ()).unwrap_err().kind(), ErrorKind::InvalidInput);
        greenhub::scope(|scope| {
            let refused = Builder::new().stack_size(usize::MAX).spawn_scoped(scope, || ());
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        });
    });
}

#[test]
fn rule_12_unguarded_stacks_need_the_unsafe_setter() {
    let test = "rule_12_unguarded_stacks_need_the_unsafe_setter";
    if !is_child() {
        return assert_succeeded(&rerun(test, |command| _ = command.env("GREENHUB_GUARD", "mprotect")));
    }
    let limit: usize = match std::fs::read_to_string("/proc/sys/vm/max_map_count") {
        Ok(limit) if limit.trim().len() <= 6 => limit.trim().parse().unwrap(),
        // With a very high or unknown limit, the test cannot reach it.
        _ => return,
    };
    run(test, move || {
        let parked = |count: usize| -> Vec<_> {
            let all: Vec<_> = (0..count).map(|_| Builder::new().stack_size(1).spawn(|| sleep(LONG)).unwrap()).collect();
            yield_now();
            all
        };
        let all = parked(limit);
        let refused = all.iter().filter(|one| one.is_finished()).count();
        assert!(refused > 0, "the limit of mappings was not met");
        let error = all.iter().find(|one| one.is_finished()).unwrap().wait().unwrap_err();
        assert!(matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::Stack), "{error:?}");
        // SAFETY: the bodies only sleep, so they do not overflow their stacks.
        unsafe { greenhub::greenthread::set_stack_policy(greenhub::greenthread::StackPolicy::Unguarded) };
        let more = parked(100);
        assert!(more.iter().all(|one| !one.is_finished()));
    });
}

// ---- 13 -----------------------------------------------------------------------------------------

#[test]
fn rule_13_a_child_never_wakes_its_parent() {
    let test = "rule_13_a_child_never_wakes_its_parent";
    if !is_child() {
        return assert_succeeded(&rerun(test, |_| ()));
    }
    // Parked before the fork: a sleeper, and a waiter on a descriptor.
    let (reader, mut writer) = pipe();
    spawn_n(move || {
        let _ = trampoline(&reader, Interest::READ, None);
        println!("the descriptor");
    });
    spawn_n(|| sleep(LONG));
    let remote = get_hub().remote();
    sleep(SHORT);
    let child = forked(|| {
        sleep(SHORT);
        // Another thread of the child wakes it repeatedly.
        let remote = remote.clone();
        let spawned = std::thread::spawn(move || {
            for _ in 0..20 {
                remote.spawn(|| ()).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        while !spawned.is_finished() {
            sleep(SHORT);
        }
        writer.write_all(b"x").unwrap();
        sleep(Duration::from_millis(20));
    });
    let waits = get_hub().stats().waits;
    sleep(Duration::from_millis(200));
    let waits = get_hub().stats().waits - waits;
    exits_with(child, 0);
    // The parent's own sleep, the child's write to the pipe, and the timer slack.
    assert!(waits < 10, "the parent's loop has waited {waits} times");
}

// ---- 14 -----------------------------------------------------------------------------------------

#[test]
fn rule_14_loop_exit_distinguishes_local_from_remote_waits() {
    run("rule_14_loop_exit_distinguishes_local_from_remote_waits", || {
        let never = Never::new();
        let error = never.0.wait().unwrap_err();
        let GreenError::Loop(error) = error else { panic!("{error:?}") };
        let exit = error.loop_exit().expect("nothing is left");
        assert_eq!(exit.parked.len(), 2, "{exit}");
        assert!(exit.parked.iter().all(|one| one.contains("soundness.rs")), "{exit}");
        assert_eq!(io::Error::from(error).kind(), ErrorKind::Deadlock);

        // A running job counts as a possible wake-up, and so does a remote on another OS thread.
        assert_eq!(tpool::execute(|| std::thread::sleep(Duration::from_millis(20))).ok(), Some(()));
        let remote = get_hub().remote();
        let never = Never::new();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            let ends = || get_hub().interrupt();
            remote.spawn(ends).unwrap();
        });
        let error = never.0.wait().unwrap_err();
        assert!(matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::Interrupted), "{error:?}");
        thread.join().unwrap();
    });
}

// ---- 16 -----------------------------------------------------------------------------------------

#[test]
fn rule_16_thread_locals_are_shared_across_a_park() {
    thread_local! {
        static DEPTH: Cell<u32> = const { Cell::new(0) };
    }
    run("rule_16_thread_locals_are_shared_across_a_park", || {
        // Used like a stack around a park, so the other green thread sees the change.
        let nested = || {
            DEPTH.set(DEPTH.get() + 1);
            yield_now();
            let seen = DEPTH.get();
            DEPTH.set(DEPTH.get() - 1);
            seen
        };
        let (one, other) = (spawn(nested), spawn(nested));
        assert_eq!((one.join().unwrap(), other.join().unwrap()), (2, 1));
        assert_eq!(DEPTH.get(), 0);
    });
}

// ---- 17 -----------------------------------------------------------------------------------------

/// A thread-local that counts dropped values.
struct Lent(&'static AtomicUsize);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn rule_17_a_shutdown_unwinds_a_park_inside_a_thread_local_in_time() {
    static GONE: AtomicUsize = AtomicUsize::new(0);
    static SEEN: AtomicUsize = AtomicUsize::new(usize::MAX);
    thread_local!(static LENT: Lent = const { Lent(&GONE) });
    run("rule_17_a_shutdown_unwinds_a_park_inside_a_thread_local_in_time", || {
        spawn_n(|| {
            LENT.with(|_lent| {
                let _end = OnDrop(|| SEEN.store(GONE.load(Ordering::SeqCst), Ordering::SeqCst));
                sleep(LONG);
            });
        });
        yield_now();
    });
    assert_eq!(SEEN.load(Ordering::SeqCst), 0);
    assert_eq!(GONE.load(Ordering::SeqCst), 1);
}

#[test]
fn rule_17_a_thread_local_whose_initializer_parks_is_initialized_twice() {
    static GONE: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LENT: Lent = {
            yield_now();
            Lent(&GONE)
        };
    }
    run("rule_17_a_thread_local_whose_initializer_parks_is_initialized_twice", || {
        let first = spawn(|| {
            LENT.with(|_lent| {
                // The second green thread initializes the thread-local too, and this value is dropped.
                yield_now();
                yield_now();
                GONE.load(Ordering::SeqCst)
            })
        });
        let second = spawn(|| LENT.with(|_| ()));
        assert_eq!(first.join().unwrap(), 1);
        second.join().unwrap();
    });
    assert_eq!(GONE.load(Ordering::SeqCst), 2);
}

/// A writer that discards its input and switches.
struct Slow<F>(F);

impl<F: Fn()> fmt::Write for Slow<F> {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        (self.0)();
        yield_now();
        Ok(())
    }
}

#[test]
fn a_formatter_may_switch_and_use_the_primitive_it_shows() {
    run("a_formatter_may_switch_and_use_the_primitive_it_shows", || {
        fn show<T: fmt::Debug>(shown: &T, used: impl Fn(&T)) {
            fmt::write(&mut Slow(|| used(shown)), format_args!("{shown:?}")).unwrap();
        }
        show(&Queue::<u32>::new(), |queue| assert!(queue.is_empty()));
        show(&Semaphore::new(1), |semaphore| assert!(!semaphore.locked()));
        show(&Event::<u32>::new(), |event| assert!(!event.ready()));
        show(&Pool::new(1, || Ok(7)), |pool| assert!(pool.is_empty()));
        show(&GreenPool::new(1), |pool| assert_eq!(pool.running(), 0));
        show(&Group::new(), |group| assert!(group.is_empty()));
    });
}
