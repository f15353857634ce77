//! Green locals: each green thread has its own value.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use crate::support::green::{Drops, LONG, Log, SHORT, held, keep_reports, quiet_panic, reports};
use crate::support::run;
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::greenthread::current_id;
use greenhub::local::{AccessError, green_local};
use greenhub::thread::yield_now;
use greenhub::{sleep, spawn, spawn_n, with_timeout};

green_local! {
    static NUMBER: Cell<u32> = Cell::new(7);
    static LIST: RefCell<Vec<u32>> = RefCell::new(vec![1]);
    /// Values to be dropped with the green thread.
    static KEPT: RefCell<Vec<Box<dyn std::any::Any>>> = RefCell::default()
}

#[test]
fn a_value_belongs_to_its_green_thread_and_survives_switches() {
    run("a_value_belongs_to_its_green_thread_and_survives_switches", || {
        NUMBER.set(1);
        let greens: Vec<_> = (10..20)
            .map(|n| {
                spawn(move || {
                    assert_eq!(NUMBER.get(), 7);
                    NUMBER.set(n);
                    yield_now();
                    LIST.with_borrow_mut(|list| list.push(n));
                    sleep(SHORT);
                    (NUMBER.get(), LIST.take())
                })
            })
            .collect();
        for (n, green) in (10..).zip(greens) {
            assert_eq!(green.join().unwrap(), (n, vec![1, n]));
        }
        assert_eq!((NUMBER.get(), LIST.with_borrow(Vec::clone)), (1, vec![1]));
    });
}

#[test]
fn the_initializer_runs_once_per_green_thread_at_first_use() {
    thread_local! {
        static MADE: Cell<u32> = const { Cell::new(0) };
    }
    green_local! {
        static VALUE: Cell<u32> = {
            MADE.set(MADE.get() + 1);
            Cell::new(MADE.get())
        };
    }
    run("the_initializer_runs_once_per_green_thread_at_first_use", || {
        assert_eq!(MADE.get(), 0);
        assert_eq!((VALUE.get(), VALUE.get()), (1, 1));
        let green = spawn(|| {
            assert_eq!(MADE.get(), 1);
            (VALUE.get(), VALUE.get())
        });
        assert_eq!(green.join().unwrap(), (2, 2));
        // A first `set` does not run the initializer.
        spawn(|| VALUE.set(9)).join().unwrap();
        assert_eq!(MADE.get(), 2);
    });
}

#[test]
fn values_are_replaced_set_and_taken_in_place() {
    run("values_are_replaced_set_and_taken_in_place", || {
        assert_eq!(NUMBER.replace(3), 7);
        NUMBER.set(4);
        assert_eq!((NUMBER.take(), NUMBER.get()), (4, 0));
        LIST.set(vec![2, 3]);
        assert_eq!(LIST.replace(vec![4]), [2, 3]);
        assert_eq!(LIST.with(|list| list.borrow().len()), 1);
        assert_eq!(NUMBER.try_with(Cell::get), Ok(0));
    });
}

#[test]
fn values_are_dropped_with_their_green_thread_however_it_ends() {
    run("values_are_dropped_with_their_green_thread_however_it_ends", || {
        keep_reports();
        let (drops, before) = (Drops::default(), held());
        let keep = |drops: &Drops| {
            let one = Box::new(drops.one());
            move || KEPT.with_borrow_mut(|kept| kept.push(one))
        };
        for _ in 0..100 {
            spawn(keep(&drops)).join().unwrap();
        }
        assert_eq!(drops.count(), 100);
        let value = keep(&drops);
        let panicking = spawn(move || -> () {
            value();
            quiet_panic("ends");
        });
        assert!(panicking.join().is_err());
        assert_eq!(drops.count(), 101);
        let value = keep(&drops);
        let killed = spawn(move || {
            value();
            sleep(LONG);
        });
        yield_now();
        assert_eq!(drops.count(), 101);
        killed.kill();
        assert_eq!(drops.count(), 102);
        // A timeout caught inside the body does not end the green thread.
        let value = keep(&drops);
        let timed = spawn(move || {
            assert!(
                with_timeout(SHORT, || {
                    value();
                    sleep(LONG);
                })
                .is_err()
            );
            KEPT.with_borrow(Vec::len)
        });
        assert_eq!(timed.join().unwrap(), 1);
        assert_eq!(drops.count(), 103);
        let value = keep(&drops);
        let plain = Greenlet::new(move |payload| {
            value();
            Ok(payload)
        });
        plain.switch(Payload::unit()).unwrap();
        assert_eq!(drops.count(), 104);
        drop((killed, plain));
        assert_eq!(reports(), [""; 0]);
        assert_eq!(held(), before);
    });
}

#[test]
fn main_the_loop_and_spawn_n_threads_have_their_own_values() {
    run("main_the_loop_and_spawn_n_threads_have_their_own_values", || {
        NUMBER.set(1);
        let seen: Rc<RefCell<Vec<u32>>> = Rc::default();
        for n in 2..5 {
            let seen = seen.clone();
            spawn_n(move || {
                seen.borrow_mut().push(NUMBER.replace(n));
                yield_now();
                seen.borrow_mut().push(NUMBER.get());
            });
        }
        yield_now();
        yield_now();
        assert_eq!(*seen.borrow(), [7, 7, 7, 2, 3, 4]);
        assert_eq!(NUMBER.get(), 1);
        // The main loop has its own value too.
        let to = seen.clone();
        let _timer = greenhub::get_hub().schedule(Duration::ZERO, move || to.borrow_mut().push(NUMBER.get()));
        sleep(SHORT);
        assert_eq!(seen.borrow().last(), Some(&7));
    });
}

#[test]
fn a_plain_greenlet_has_its_own_values() {
    run("a_plain_greenlet_has_its_own_values", || {
        NUMBER.set(1);
        let greenlet = Greenlet::new(|_| {
            let first = NUMBER.replace(2);
            Ok(Payload::new((first, NUMBER.get())))
        });
        let seen = greenlet
            .switch(Payload::unit())
            .expect("a result")
            .downcast::<(u32, u32)>()
            .expect("the payload has two numbers");
        assert_eq!(seen, (7, 2));
        assert_eq!(NUMBER.get(), 1);
    });
}

#[test]
fn a_value_of_an_os_thread_is_dropped_at_its_end() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Counts;
    impl Drop for Counts {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::SeqCst);
        }
    }
    green_local! {
        static COUNTS: Counts = Counts;
    }
    std::thread::spawn(|| {
        COUNTS.with(|_| ());
        assert!(!greenhub::hub::has_hub());
    })
    .join()
    .unwrap();
    assert_eq!(DROPPED.load(Ordering::SeqCst), 1);
    // Green threads that are left at the end are unwound by a shutdown, and abandoned without one.
    let ends = || {
        COUNTS.with(|_| ());
        drop(spawn(|| {
            COUNTS.with(|_| ());
            sleep(LONG);
        }));
        yield_now();
    };
    greenhub::thread::os::spawn(ends).join().unwrap();
    assert_eq!(DROPPED.load(Ordering::SeqCst), 3);
    std::thread::spawn(ends).join().unwrap();
    assert_eq!(DROPPED.load(Ordering::SeqCst), 4);
}

#[test]
fn numbers_of_living_green_threads_are_distinct() {
    run("numbers_of_living_green_threads_are_distinct", || {
        let greens: Vec<_> = (0..100)
            .map(|_| {
                spawn(|| {
                    yield_now();
                    current_id()
                })
            })
            .collect();
        let given: HashSet<_> = greens.iter().map(|green| green.id().unwrap()).collect();
        yield_now();
        let mut seen: HashSet<_> = greens.into_iter().map(|green| green.join().unwrap()).collect();
        assert_eq!(seen, given);
        seen.insert(current_id());
        assert_eq!(seen.len(), 101);
    });
}

/// Calls its closure when it is dropped.
struct AtEnd(Box<dyn Fn()>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn at_end(f: impl Fn() + 'static) {
    KEPT.with_borrow_mut(|kept| kept.push(Box::new(AtEnd(Box::new(f)))));
}

#[test]
fn a_destructor_may_block_and_waiters_wait_for_it() {
    run("a_destructor_may_block_and_waiters_wait_for_it", || {
        let (log, before) = (Log::new(), held());
        let seen = log.clone();
        let green = spawn(move || {
            at_end(move || {
                assert_eq!(spawn(|| 1).join().unwrap(), 1);
                sleep(SHORT);
                seen.add("slept");
            });
        });
        green.join().unwrap();
        log.is(&["slept"]);
        // Killed while its destructor blocks.
        let seen = log.clone();
        let green = spawn(move || {
            at_end(move || {
                seen.add("begins");
                sleep(LONG);
                seen.add("unreached");
            });
            "result"
        });
        yield_now();
        yield_now();
        assert!(!green.is_finished());
        green.kill();
        assert_eq!(green.join().unwrap(), "result");
        log.is(&["slept", "begins"]);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_destructor_gets_an_access_error_and_may_panic() {
    run("a_destructor_gets_an_access_error_and_may_panic", || {
        let (log, before) = (Log::new(), held());
        let seen = log.clone();
        let green = spawn(move || {
            NUMBER.set(1);
            at_end(move || {
                // An earlier key still has its value. The own key is gone, and an unused key is not initialized.
                seen.add(format!("{:?}", NUMBER.try_with(Cell::get)));
                seen.add(format!("{:?}", KEPT.try_with(|_| ())));
                seen.add(format!("{:?}", LIST.try_with(|_| ())));
            });
            at_end(|| quiet_panic("contained"));
            "result"
        });
        assert_eq!(green.join().unwrap(), "result");
        log.is(&["Ok(1)", &format!("{:?}", Err::<(), _>(error())), &format!("{:?}", Err::<(), _>(error()))]);
        assert_eq!(held(), before);
    });
}

/// Returns the error of an access to a destroyed value.
fn error() -> AccessError {
    let result = Rc::new(Cell::new(None));
    let to = result.clone();
    spawn(move || at_end(move || to.set(KEPT.try_with(|_| ()).err()))).join().unwrap();
    result.get().unwrap()
}

#[test]
fn an_initial_value_may_use_its_key_and_block() {
    green_local! {
        static DEEP: Cell<u32> = {
            yield_now();
            if FIRST.replace(false) {
                DEEP.set(5);
            }
            Cell::new(6)
        };
        static FIRST: Cell<bool> = Cell::new(true);
    }
    run("an_initial_value_may_use_its_key_and_block", || {
        assert_eq!(DEEP.get(), 5);
        assert_eq!(DEEP.get(), 5);
    });
}

#[test]
fn a_value_used_in_a_link_is_dropped() {
    run("a_value_used_in_a_link_is_dropped", || {
        let (drops, before) = (Drops::default(), held());
        let one = RefCell::new(Some(drops.one()));
        let green = spawn(|| ());
        green.link(move |_| {
            let one = one.take();
            let _ = KEPT.try_with(|kept| kept.borrow_mut().push(Box::new(one)));
        });
        green.join().unwrap();
        yield_now();
        assert_eq!(drops.count(), 1);
        assert_eq!(held(), before);
    });
}
