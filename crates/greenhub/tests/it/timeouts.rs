//! `with_timeout`: which waits a timeout strikes, and when.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support::green;
use crate::support::green::{
    Drops, KillOnDrop, LONG, Log, PARK_POINTS, SHORT, held, keep_reports, pipe, reports, wait_until_held,
};
use crate::support::{assert_succeeded, is_child, rerun, run};
use greenhub::park::Source;
use greenhub::thread::yield_now;
use greenhub::{
    GreenError, Interest, Timeout, Trampoline, TrampolineError, scope, sleep, spawn, spawn_n, trampoline, with_timeout,
};

#[test]
fn a_timeout_ends_the_wait_of_its_own_green_thread() {
    run("a_timeout_ends_the_wait_of_its_own_green_thread", || {
        let begin = Instant::now();
        let drops = Drops::default();
        let inside = drops.one();
        let timeout = with_timeout(SHORT, move || {
            let _inside = inside;
            sleep(LONG);
        })
        .unwrap_err();
        assert!(begin.elapsed() >= SHORT);
        assert_eq!(timeout.after(), Some(SHORT));
        assert_eq!(drops.count(), 1);
        // No other green thread is struck.
        let bystander = spawn(|| sleep(Duration::from_millis(20)));
        let struck = spawn(|| with_timeout(SHORT, || sleep(LONG)).is_err());
        assert!(struck.join().unwrap());
        bystander.join().unwrap();
    });
}

#[test]
fn a_timeout_without_a_duration_never_fires() {
    run("a_timeout_without_a_duration_never_fires", || {
        let before = held();
        let value = with_timeout(None, || {
            sleep(SHORT);
            // A timeout without a duration arms no timer.
            assert_eq!(held(), before);
            3
        });
        assert_eq!(value.unwrap(), 3);
    });
}

#[test]
fn a_zero_timeout_strikes_at_the_next_park() {
    run("a_zero_timeout_strikes_at_the_next_park", || {
        let parks: [fn(); 3] = [yield_now, || sleep(SHORT), || drop(spawn(|| ()).join())];
        for park in parks {
            let log = Log::new();
            let struck = with_timeout(Duration::ZERO, || {
                log.add("in between");
                spawn_n(|| ());
                park();
                log.add("never");
            });
            assert!(struck.is_err());
            log.is(&["in between"]);
            // The timeout is spent.
            yield_now();
        }
        assert_eq!(with_timeout(Duration::ZERO, || 5).unwrap(), 5);
        yield_now();
    });
}

#[test]
fn code_that_does_not_park_is_not_interrupted() {
    run("code_that_does_not_park_is_not_interrupted", || {
        let value = with_timeout(SHORT, || {
            std::thread::sleep(Duration::from_millis(20));
            "computed"
        });
        assert_eq!(value.unwrap(), "computed");
        sleep(SHORT);
        // The next park is struck.
        let log = Log::new();
        let struck = with_timeout(SHORT, || {
            yield_now();
            std::thread::sleep(Duration::from_millis(20));
            log.add("computed");
            sleep(LONG);
        });
        assert!(struck.is_err());
        log.is(&["computed"]);
    });
}

#[test]
fn a_timeout_ends_with_its_scope() {
    run("a_timeout_ends_with_its_scope", || {
        let before = held();
        let limit = Duration::from_millis(20);
        // The scope ends by a value, a panic, an exit and an outer timeout.
        with_timeout(limit, yield_now).unwrap();
        let panicked = catch_unwind(|| with_timeout(limit, || green::quiet_panic("out")));
        assert!(panicked.is_err());
        let killed = spawn(move || with_timeout(limit, || sleep(LONG)));
        yield_now();
        killed.kill();
        assert!(killed.join().unwrap_err().is_kill());
        let outer = with_timeout(SHORT, || with_timeout(limit, || sleep(LONG)));
        assert!(outer.is_err());
        assert_eq!(held(), before);
        // No timeout strikes later.
        sleep(Duration::from_millis(50));
    });
}

#[test]
fn a_scope_catches_its_own_timeout_only() {
    run("a_scope_catches_its_own_timeout_only", || {
        let log = Log::new();
        let outer = with_timeout(SHORT, || {
            let inner = with_timeout(LONG, || sleep(LONG));
            log.add("never");
            inner
        });
        assert_eq!(outer.unwrap_err().after(), Some(SHORT));
        log.is(&[]);
    });
}

#[test]
fn nested_timeouts_keep_their_identity() {
    run("nested_timeouts_keep_their_identity", || {
        // The inner timeout strikes first; the outer one stays pending.
        let mut caught = None;
        let outer = with_timeout(Duration::from_millis(20), || {
            let inner = with_timeout(SHORT, || sleep(LONG)).unwrap_err();
            assert_eq!(inner.after(), Some(SHORT));
            caught = Some(inner);
            sleep(LONG);
        })
        .unwrap_err();
        assert_eq!(outer.after(), Some(Duration::from_millis(20)));
        let inner = caught.unwrap();
        assert_ne!(outer, inner);
        assert_eq!(inner, inner.clone());

        // Both expire in one turn: the inner scope catches its own, and the outer one strikes after it.
        let log = Log::new();
        let outer = with_timeout(Duration::from_millis(6), || {
            let inner = with_timeout(SHORT, || {
                yield_now();
                std::thread::sleep(Duration::from_millis(20));
                sleep(LONG);
            });
            log.add(format!("inner {}", inner.is_err()));
            sleep(LONG);
            log.add("never");
        });
        assert!(outer.is_err());
        log.is(&["inner true"]);
    });
}

#[test]
fn the_first_timeout_to_expire_strikes() {
    run("the_first_timeout_to_expire_strikes", || {
        let outer = with_timeout(LONG, || with_timeout(SHORT, || with_timeout(LONG, || sleep(LONG)))).unwrap();
        assert_eq!(outer.unwrap_err().after(), Some(SHORT));
    });
}

#[test]
fn a_timeout_can_return_a_custom_error() {
    run("a_timeout_can_return_a_custom_error", || {
        let (reader, _writer) = pipe();
        let waited = Trampoline::new(&reader).read().timeout(SHORT).timeout_error(|| "the peer is asleep").wait();
        let error = waited.unwrap_err();
        assert!(matches!(error, TrampolineError::Custom(_)));
        assert_eq!(error.to_string(), "the peer is asleep");
        // The caller converts the timeout of a scope itself.
        let error = with_timeout(SHORT, || sleep(LONG)).map_err(|_| GreenError::custom("too slow")).unwrap_err();
        assert_eq!(error.to_string(), "too slow");
    });
}

#[test]
fn the_error_closure_of_a_timeout_is_dropped_with_its_wait() {
    run("the_error_closure_of_a_timeout_is_dropped_with_its_wait", || {
        let held = Rc::new(());
        let weak = Rc::downgrade(&held);
        let (reader, mut writer) = pipe();
        io::Write::write_all(&mut writer, b"x").unwrap();
        let make = move || {
            let _held = &held;
            "never made"
        };
        Trampoline::new(&reader).read().timeout(LONG).timeout_error(make).wait().unwrap();
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn with_timeout_gives_the_value_or_its_timeout() {
    run("with_timeout_gives_the_value_or_its_timeout", || {
        assert_eq!(with_timeout(LONG, || 1).unwrap(), 1);
        let waited = with_timeout(LONG, || {
            sleep(SHORT);
            2
        });
        assert_eq!(waited.unwrap(), 2);
        assert_eq!(with_timeout(SHORT, || sleep(LONG)).unwrap_err().after(), Some(SHORT));
    });
}

#[test]
fn with_timeout_lets_an_outer_timeout_through() {
    run("with_timeout_lets_an_outer_timeout_through", || {
        let drops = Drops::default();
        let outer = with_timeout(SHORT, || {
            let _one = drops.one();
            let _ = with_timeout(LONG, || {
                let _two = drops.one();
                sleep(LONG);
            });
            unreachable!("the inner scope caught the outer timeout");
        });
        let outer: Timeout = Result::<(), _>::unwrap_err(outer);
        assert_eq!(outer.after(), Some(SHORT));
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn every_timeout_becomes_an_io_error_of_kind_timed_out() {
    run("every_timeout_becomes_an_io_error_of_kind_timed_out", || {
        let (reader, _writer) = pipe();
        let scope = with_timeout(SHORT, || sleep(LONG)).unwrap_err();
        assert_eq!(io::Error::from(scope).kind(), ErrorKind::TimedOut);
        let waited = trampoline(&reader, Interest::READ, Some(SHORT)).unwrap_err();
        assert_eq!(io::Error::from(waited).kind(), ErrorKind::TimedOut);
        let custom = Trampoline::new(&reader).read().timeout(SHORT).timeout_error(|| "late").wait().unwrap_err();
        assert_eq!(io::Error::from(custom).kind(), ErrorKind::TimedOut);
        let source = Source::new(reader.into()).unwrap();
        let mut buffer = [0; 4];
        let read =
            source.read(Some(SHORT), |fd| Ok((rustix::io::read(fd, &mut buffer)?, greenhub::park::ReadHint::Nothing)));
        assert_eq!(read.unwrap_err().kind(), ErrorKind::TimedOut);
        // A timeout whose payload ends another green thread.
        let payload = Rc::new(RefCell::new(None));
        let to = payload.clone();
        with_timeout(SHORT, move || *to.borrow_mut() = catch_unwind(|| sleep(LONG)).err()).unwrap();
        let payload = payload.take().unwrap();
        let error = spawn(move || std::panic::resume_unwind(payload)).join().unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(io::Error::from(error).kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn the_text_of_a_timeout_names_its_duration() {
    run("the_text_of_a_timeout_names_its_duration", || {
        let text = |limit| with_timeout(limit, || sleep(LONG)).unwrap_err().to_string();
        assert_eq!(text(Duration::ZERO), "timed out after 0 seconds");
        assert_eq!(text(Duration::from_millis(5)), "timed out after 0.005 seconds");
        assert_eq!(text(Duration::from_micros(1500)), "timed out after 0.0015 seconds");
        assert_eq!(text(Duration::from_secs(1)), "timed out after 1 second");
    });
}

#[test]
fn a_timeout_of_an_ended_green_thread_is_silent() {
    run("a_timeout_of_an_ended_green_thread_is_silent", || {
        keep_reports();
        let before = held();
        // A green thread killed in its scope, and one that ends by itself.
        let killed = spawn(|| with_timeout(SHORT, || sleep(LONG)).is_err());
        yield_now();
        killed.kill();
        drop(killed);
        spawn(|| with_timeout(SHORT, yield_now)).join().unwrap().unwrap();
        // The green threads that reuse their control blocks are not struck.
        let successors: Vec<_> = (0..4).map(|_| spawn(|| sleep(Duration::from_millis(20)))).collect();
        for successor in successors {
            successor.join().unwrap();
        }
        assert_eq!(reports(), [] as [String; 0]);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_source_is_usable_after_a_timed_out_operation() {
    run("a_source_is_usable_after_a_timed_out_operation", || {
        let before = held();
        {
            let (reader, mut writer) = pipe();
            let source = Source::new(reader.into()).unwrap();
            let mut buffer = [0; 16];
            let mut read = |limit| {
                source.read(limit, |fd| Ok((rustix::io::read(fd, &mut buffer)?, greenhub::park::ReadHint::Nothing)))
            };
            for _ in 0..3 {
                assert!(with_timeout(SHORT, || read(None)).is_err());
                assert_eq!(read(Some(SHORT)).unwrap_err().kind(), ErrorKind::TimedOut);
            }
            io::Write::write_all(&mut writer, b"late").unwrap();
            assert_eq!(with_timeout(LONG, || read(Some(LONG))).unwrap().unwrap(), 4);
        }
        assert_eq!(held(), before);
    });
}

#[test]
fn a_timeout_at_every_park_point_leaks_nothing() {
    if !is_child() {
        return assert_succeeded(&rerun("a_timeout_at_every_park_point_leaks_nothing", |_| ()));
    }
    for point in PARK_POINTS {
        run("a_timeout_at_every_park_point_leaks_nothing", move || {
            let before = held();
            let drops = Drops::default();
            for in_main in [true, false] {
                let inside = drops.one();
                let body = move || {
                    with_timeout(Duration::from_millis(10), move || {
                        let _inside = inside;
                        (point.park)();
                        panic!("the closure continued after its park");
                    })
                };
                let struck: Result<(), Timeout> = if in_main { body() } else { spawn(body).join().unwrap() };
                assert_eq!(struck.unwrap_err().after(), Some(Duration::from_millis(10)), "{}", point.name);
            }
            assert_eq!(drops.count(), 2, "{}", point.name);
            wait_until_held(&before, point.name);
        });
    }
}

#[test]
fn a_caught_timeout_is_rethrown_while_its_scope_is_open() {
    run("a_caught_timeout_is_rethrown_while_its_scope_is_open", || {
        let log = Log::new();
        let struck = with_timeout(SHORT, || {
            assert!(catch_unwind(|| sleep(LONG)).is_err());
            log.add("swallowed");
            yield_now();
            log.add("never");
        });
        assert!(struck.is_err());
        // A body that swallows its timeout returns its value, and the timeout is spent.
        let value = with_timeout(SHORT, || catch_unwind(|| sleep(LONG)).is_err());
        assert!(value.unwrap());
        yield_now();
        log.is(&["swallowed"]);
    });
}

#[test]
fn a_timeout_around_a_scope_ends_its_children_first() {
    run("a_timeout_around_a_scope_ends_its_children_first", || {
        let before = held();
        let log = Log::new();
        // The timeout strikes while the scope joins, and while its closure blocks.
        for joins in [true, false] {
            let borrowed = Cell::new(0);
            let struck = with_timeout(SHORT, || {
                scope(|s| {
                    s.spawn(|| {
                        let _end = log.on_drop("child");
                        borrowed.set(borrowed.get() + 1);
                        sleep(LONG);
                    });
                    if !joins {
                        sleep(LONG);
                    }
                });
                log.add("never");
            });
            assert!(struck.is_err());
            assert_eq!(borrowed.get(), 1);
            log.add("struck");
        }
        log.is(&["child", "struck", "child", "struck"]);
        // A timeout inside the closure does not affect the scope's children.
        let value = scope(|s| {
            let child = s.spawn(|| {
                sleep(Duration::from_millis(20));
                4
            });
            assert!(with_timeout(SHORT, || sleep(LONG)).is_err());
            child.join().unwrap()
        });
        assert_eq!(value, 4);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_timeout_and_a_kill_at_once_end_as_killed() {
    run("a_timeout_and_a_kill_at_once_end_as_killed", || {
        let one = spawn(|| {
            let _ = with_timeout(SHORT, || {
                sleep(LONG);
            });
            panic!("the green thread continued after its kill");
        });
        yield_now();
        std::thread::sleep(Duration::from_millis(20));
        one.kill();
        assert!(one.join().unwrap_err().is_kill());
        // A timeout does not hide a swallowed kill that is still pending.
        let one = spawn(|| {
            let _ = catch_unwind(AssertUnwindSafe(|| sleep(LONG)));
            let _ = with_timeout(Duration::ZERO, yield_now);
            panic!("the green thread continued after its kill");
        });
        yield_now();
        one.kill();
        assert!(one.join().unwrap_err().is_kill());
    });
}

#[test]
fn a_timeout_ends_the_wait_and_not_its_target() {
    run("a_timeout_ends_the_wait_and_not_its_target", || {
        let other = KillOnDrop(spawn(|| {
            sleep(Duration::from_millis(20));
            6
        }));
        assert!(with_timeout(SHORT, || other.0.wait()).is_err());
        assert_eq!(other.0.wait().unwrap(), 6);
    });
}
