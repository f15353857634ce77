//! `sync::CancellationToken`: a request to stop, for a tree of waiters.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::support::green::{LONG, Log, SHORT, call_on_main_loop, held, keep_reports, quiet_panic, reports};
use crate::support::run;
use greenhub::park::{Deadline, ReadyList, Waitable};
use greenhub::sync::{CancellationToken, WaitError};
use greenhub::thread::yield_now;
use greenhub::{get_hub, shield, sleep, spawn, with_timeout};

#[test]
fn a_cancellation_ends_all_waits_in_order() {
    run("a_cancellation_ends_all_waits_in_order", || {
        let (token, log) = (CancellationToken::new(), Log::new());
        for number in 0..3 {
            let (token, log) = (token.clone(), log.clone());
            spawn(move || {
                token.wait().unwrap();
                log.add(number.to_string());
            });
        }
        yield_now();
        token.cancel();
        log.is(&[]);
        yield_now();
        log.is(&["0", "1", "2"]);
        token.wait().unwrap();
        token.wait_timeout(Duration::ZERO).unwrap();
        assert!(token.is_cancelled());
    });
}

#[test]
fn a_wait_with_a_timeout_ends_without_a_cancellation() {
    run("a_wait_with_a_timeout_ends_without_a_cancellation", || {
        let (token, before) = (CancellationToken::new(), held());
        assert!(matches!(token.wait_timeout(SHORT), Err(WaitError::TimedOut)));
        assert!(with_timeout(SHORT, || token.wait()).is_err());
        assert!(!token.is_cancelled());
        assert_eq!(held(), before);
    });
}

#[test]
fn a_cancellation_goes_down_the_tree_and_not_up() {
    run("a_cancellation_goes_down_the_tree_and_not_up", || {
        let root = CancellationToken::new();
        let (left, right) = (root.child_token(), root.child_token());
        let leaf = left.child_token();
        left.cancel();
        assert_eq!([&root, &left, &right, &leaf].map(CancellationToken::is_cancelled), [false, true, false, true]);
        root.cancel();
        assert!(right.is_cancelled());
    });
}

#[test]
fn the_child_of_a_cancelled_token_is_cancelled() {
    let token = CancellationToken::new();
    token.cancel();
    assert!(token.child_token().child_token().is_cancelled());
}

#[test]
fn a_token_without_handles_passes_a_cancellation_on() {
    let root = CancellationToken::new();
    let leaf = root.child_token().child_token().child_token();
    root.cancel();
    assert!(leaf.is_cancelled());
}

#[test]
fn a_token_outlives_its_parent() {
    let root = CancellationToken::new();
    let leaf = root.child_token();
    drop(root);
    assert!(!leaf.is_cancelled());
    leaf.cancel();
    assert!(leaf.is_cancelled());
}

#[test]
fn a_chain_longer_than_the_stack_is_cancelled_and_dropped() {
    run("a_chain_longer_than_the_stack_is_cancelled_and_dropped", || {
        let chain = || {
            let root = CancellationToken::new();
            let leaf = (0..100_000).fold(root.clone(), |token, _| token.child_token());
            (root, leaf)
        };
        spawn(move || {
            let (root, leaf) = chain();
            root.cancel();
            assert!(leaf.is_cancelled());
            drop((root, leaf));
            let (root, leaf) = chain();
            drop(root);
            drop(leaf);
        })
        .join()
        .unwrap();
    });
}

#[test]
fn children_that_ended_are_forgotten() {
    run("children_that_ended_are_forgotten", || {
        let root = CancellationToken::new();
        let children: Vec<_> = (0..1000).map(|_| root.child_token()).collect();
        let kept = children[500].clone();
        assert!(format!("{root:?}").contains("children: 1000"), "{root:?}");
        drop(children);
        assert!(format!("{root:?}").contains("children: 1 "), "{root:?}");
        root.cancel();
        assert!(kept.is_cancelled());
    });
}

#[test]
fn a_guard_cancels_at_its_end_unless_it_is_disarmed() {
    run("a_guard_cancels_at_its_end_unless_it_is_disarmed", || {
        let token = CancellationToken::new();
        let disarmed = token.clone().drop_guard().disarm();
        assert!(!disarmed.is_cancelled());
        let guard = token.clone().drop_guard();
        let killed = spawn(move || {
            let _guard = guard;
            sleep(LONG);
        });
        yield_now();
        assert!(!token.is_cancelled());
        killed.kill();
        assert!(token.is_cancelled());
    });
}

#[test]
fn a_closure_that_ends_first_returns_its_value() {
    run("a_closure_that_ends_first_returns_its_value", || {
        let (token, before) = (CancellationToken::new(), held());
        let value = token.run_until_cancelled(|| {
            sleep(SHORT);
            7
        });
        assert_eq!(value, Some(7));
        assert_eq!(held(), before, "the watcher has ended");
        token.cancel();
        sleep(SHORT);
    });
}

#[test]
fn a_cancellation_unwinds_a_closure_at_its_wait() {
    run("a_cancellation_unwinds_a_closure_at_its_wait", || {
        let (token, log, before) = (CancellationToken::new(), Log::new(), held());
        let other = token.clone();
        spawn(move || other.cancel());
        let value = token.run_until_cancelled(|| {
            let _dropped = log.on_drop("dropped");
            log.add("waits");
            sleep(LONG);
            log.add("goes on");
        });
        assert_eq!(value, None);
        log.is(&["waits", "dropped"]);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_cancellation_by_another_os_thread_unwinds_a_closure() {
    run("a_cancellation_by_another_os_thread_unwinds_a_closure", || {
        let root = CancellationToken::new();
        let (token, other) = (root.child_token(), root.clone());
        let thread = std::thread::spawn(move || other.cancel());
        assert_eq!(token.run_until_cancelled(|| sleep(LONG)), None);
        thread.join().unwrap();
    });
}

#[test]
fn a_closure_is_not_run_by_a_cancelled_token() {
    run("a_closure_is_not_run_by_a_cancelled_token", || {
        let token = CancellationToken::new();
        token.cancel();
        assert_eq!(token.run_until_cancelled(|| unreachable!("it is cancelled")), None::<()>);
    });
}

#[test]
fn a_closure_that_waits_no_more_returns_its_value_despite_a_cancellation() {
    run("a_closure_that_waits_no_more_returns_its_value_despite_a_cancellation", || {
        let token = CancellationToken::new();
        let value = token.run_until_cancelled(|| {
            yield_now();
            token.cancel();
            7
        });
        assert_eq!(value, Some(7));
        // The exit does not strike after the end of its scope.
        sleep(SHORT);
    });
}

#[test]
fn a_closure_that_cancels_its_own_token_is_unwound_at_its_next_wait() {
    run("a_closure_that_cancels_its_own_token_is_unwound_at_its_next_wait", || {
        let token = CancellationToken::new();
        let value = token.run_until_cancelled(|| {
            token.cancel();
            sleep(LONG);
        });
        assert_eq!(value, None);
    });
}

#[test]
fn each_of_nested_scopes_catches_its_own_cancellation() {
    run("each_of_nested_scopes_catches_its_own_cancellation", || {
        let (outer, inner) = (CancellationToken::new(), CancellationToken::new());
        let (first, second) = (inner.clone(), outer.clone());
        spawn(move || {
            first.cancel();
            sleep(SHORT);
            second.cancel();
        });
        let inside = Cell::new(false);
        let value = outer.run_until_cancelled(|| {
            inside.set(inner.run_until_cancelled(|| sleep(LONG)).is_none());
            sleep(LONG);
        });
        assert_eq!((value, inside.get()), (None, true));
    });
}

#[test]
fn an_outer_cancellation_ends_the_inner_scope_too() {
    run("an_outer_cancellation_ends_the_inner_scope_too", || {
        let (outer, before) = (CancellationToken::new(), held());
        let inner = outer.child_token();
        let cancels = outer.clone();
        spawn(move || cancels.cancel());
        let returned = outer.run_until_cancelled(|| inner.run_until_cancelled(|| sleep(LONG)));
        assert!(matches!(returned, None | Some(None)));
        assert_eq!(held(), before);
    });
}

#[test]
fn a_shield_in_a_closure_holds_the_cancellation_back() {
    run("a_shield_in_a_closure_holds_the_cancellation_back", || {
        let token = CancellationToken::new();
        let (cancels, shielded) = (token.clone(), Cell::new(false));
        spawn(move || cancels.cancel());
        let value = token.run_until_cancelled(|| {
            shield(|| {
                sleep(SHORT);
                shielded.set(true);
            });
            sleep(LONG);
        });
        assert_eq!((value, shielded.get()), (None, true));
    });
}

#[test]
fn a_panic_of_a_closure_reaches_the_caller_and_ends_the_watcher() {
    run("a_panic_of_a_closure_reaches_the_caller_and_ends_the_watcher", || {
        let (token, before) = (CancellationToken::new(), held());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            token.run_until_cancelled(|| {
                yield_now();
                quiet_panic("it fails")
            })
        }));
        assert!(caught.is_err());
        assert_eq!(held(), before);
    });
}

#[test]
fn a_kill_of_a_caller_ends_its_closure_and_the_watcher() {
    run("a_kill_of_a_caller_ends_its_closure_and_the_watcher", || {
        let (token, log, before) = (CancellationToken::new(), Log::new(), held());
        let (own, logs) = (token.clone(), log.clone());
        let green = spawn(move || {
            own.run_until_cancelled(move || {
                let _dropped = logs.on_drop("dropped");
                sleep(LONG);
            })
        });
        yield_now();
        green.kill();
        log.is(&["dropped"]);
        assert!(green.join().unwrap_err().is_kill());
        assert_eq!(held(), before);
    });
}

#[test]
fn a_callback_of_the_main_loop_runs_a_closure_that_does_not_wait() {
    run("a_callback_of_the_main_loop_runs_a_closure_that_does_not_wait", || {
        let (token, before) = (CancellationToken::new(), held());
        let (own, value) = (token.clone(), Rc::new(Cell::new(None)));
        let sets = value.clone();
        call_on_main_loop(move || sets.set(own.run_until_cancelled(|| 7)));
        sleep(SHORT);
        assert_eq!(value.get(), Some(7));
        assert_eq!(held(), before);
    });
}

#[test]
fn a_shutdown_unwinds_closures_and_watchers_in_any_order() {
    run("a_shutdown_unwinds_closures_and_watchers_in_any_order", || {
        keep_reports();
        let (token, log) = (CancellationToken::new(), Log::new());
        for _ in 0..3 {
            let (token, log) = (token.clone(), log.clone());
            spawn(move || {
                let _dropped = log.on_drop("dropped");
                token.run_until_cancelled(|| sleep(LONG))
            });
        }
        yield_now();
        yield_now();
        assert!(get_hub().shutdown(LONG).unwrap().is_complete());
        log.is(&["dropped"; 3]);
        assert_eq!(reports(), Vec::<String>::new());
    });
}

#[test]
fn closures_that_do_not_wait_leave_no_watcher() {
    run("closures_that_do_not_wait_leave_no_watcher", || {
        let (token, before) = (CancellationToken::new(), held());
        let green_threads = get_hub().stats().green_threads;
        for n in 0..1000 {
            assert_eq!(token.run_until_cancelled(|| n), Some(n));
        }
        assert_eq!(get_hub().stats().green_threads, green_threads);
        assert_eq!(held(), before);
    });
}

#[test]
fn many_closures_under_one_token_are_all_ended() {
    run("many_closures_under_one_token_are_all_ended", || {
        let (token, before) = (CancellationToken::new(), held());
        let greens: Vec<_> = (0..200)
            .map(|_| token.clone())
            .map(|token| spawn(move || token.run_until_cancelled(|| sleep(LONG)).is_none()))
            .collect();
        yield_now();
        token.cancel();
        assert!(greens.into_iter().all(|green| green.join().unwrap()));
        assert_eq!(held(), before);
    });
}

#[test]
fn a_token_is_ready_for_a_wait_for_several_objects_when_it_is_cancelled() {
    run("a_token_is_ready_for_a_wait_for_several_objects_when_it_is_cancelled", || {
        let (root, list) = (CancellationToken::new(), ReadyList::new());
        let (token, other) = (root.child_token(), CancellationToken::new());
        let left = [token.leave(list.mark(0)), other.leave(list.mark(1))];
        spawn(move || root.cancel());
        assert_eq!(list.next(&mut Deadline::none()).unwrap(), Some(0));
        let [mark, unset] = left;
        token.take_back(mark);
        other.take_back(unset);
        other.cancel();
        assert_eq!(list.next(&mut Deadline::from(Some(Duration::ZERO))).unwrap(), None, "its mark was taken back");
        assert!(token.is_ready());
    });
}
