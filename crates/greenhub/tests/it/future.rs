//! Waits of green threads for futures.

mod deferred;
mod gate;
mod polls;
mod random;

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn, ready};
use std::panic::catch_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::support::counting::allocations as allocations_so_far;
use crate::support::descriptors::until;
use crate::support::fork::{ends_well, forked};
use crate::support::green::{Drops, LONG, OnDrop, SHORT, held, quiet_panic};
use crate::support::{alone, in_child, run};
use futures_channel::oneshot;
use futures_util::FutureExt;
use gate::Gate;
use greenhub::debug::{GreenletState, greenlets};
use greenhub::future::{block_on, defer_to_green_thread, spawn_future, try_block_on};
use greenhub::greenthread::{KillOutcome, current_id, set_panicking_grace};
use greenhub::hub::{LoopErrorKind, has_hub};
use greenhub::park::WaitReason;
use greenhub::thread::yield_now;
use greenhub::{get_hub, shield, sleep, spawn, use_hub, with_timeout};

/// Runs a test on an OS thread of its own, and then on two at the same time.
fn on_one_and_on_two(name: &'static str, test: fn()) {
    run(name, test);
    let both = [(); 2].map(|()| std::thread::spawn(move || run(name, test)));
    both.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A future that wakes itself in its first `rounds` polls.
fn self_waking(mut rounds: usize) -> impl Future<Output = ()> {
    poll_fn(move |cx| {
        if rounds == 0 {
            return Poll::Ready(());
        }
        rounds -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

#[test]
fn a_future_that_is_ready_neither_switches_nor_waits() {
    on_one_and_on_two("a_future_that_is_ready_neither_switches_nor_waits", || {
        let other = spawn(|| ());
        for round in 0..1000 {
            assert_eq!(block_on(ready(round)), round);
            assert_eq!(try_block_on(async { round }).unwrap(), round);
        }
        assert!(!other.is_started());
        assert!(!has_hub(), "a wait builds the hub");
        other.join().unwrap();
        let before = get_hub().stats();
        block_on(async {});
        let after = get_hub().stats();
        assert_eq!((before.switches, before.turns), (after.switches, after.turns));
    });
}

#[test]
fn a_future_that_has_failed_returns_its_error_without_a_switch() {
    on_one_and_on_two("a_future_that_has_failed_returns_its_error_without_a_switch", || {
        let other = spawn(|| ());
        let (sender, receiver) = oneshot::channel::<()>();
        drop(sender);
        assert_eq!(block_on(receiver), Err(oneshot::Canceled));
        assert!(!other.is_started());
    });
}

#[test]
fn a_wake_up_during_the_poll_is_not_lost() {
    on_one_and_on_two("a_wake_up_during_the_poll_is_not_lost", || {
        let gate = Gate::new();
        let mut wait = gate.wait();
        let mut polls = 0;
        block_on(poll_fn(|cx| {
            polls += 1;
            let polled = Pin::new(&mut wait).poll(cx);
            if polls == 1 {
                let gate = gate.clone();
                std::thread::spawn(move || gate.open()).join().unwrap();
            }
            polled
        }));
        assert_eq!(polls, 2);
    });
}

#[test]
fn a_later_wake_up_ends_the_wait() {
    on_one_and_on_two("a_later_wake_up_ends_the_wait", || {
        type Open = fn(Gate);
        let wakers: [(&str, Open); 4] = [
            ("a green thread", |gate| _ = spawn(move || gate.open())),
            ("a green thread after a while", |gate| {
                spawn(move || {
                    sleep(SHORT);
                    gate.open();
                });
            }),
            ("a callback of the hub", |gate| _ = get_hub().schedule(SHORT, move || gate.open())),
            ("another OS thread", |gate| {
                std::thread::spawn(move || {
                    gate.block_until_polled();
                    std::thread::sleep(SHORT);
                    gate.open();
                });
            }),
        ];
        for (waker, begin) in wakers {
            let gate = Gate::new();
            begin(gate.clone());
            block_on(gate.wait());
            assert_eq!(gate.polls(), 2, "{waker}");
            let gate = Gate::new();
            let green = spawn_future(gate.wait());
            yield_now();
            assert!(!green.is_finished());
            begin(gate.clone());
            green.join().unwrap();
            assert_eq!(gate.polls(), 2, "{waker}");
        }
    });
}

#[test]
fn a_future_that_wakes_itself_lets_others_run_before_each_poll() {
    on_one_and_on_two("a_future_that_wakes_itself_lets_others_run_before_each_poll", || {
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        let other = spawn(move || {
            loop {
                counted.set(counted.get() + 1);
                yield_now();
            }
        });
        let mut seen = Vec::new();
        let mut rounds = 0;
        block_on(poll_fn(|cx| {
            seen.push(turns.get());
            rounds += 1;
            cx.waker().wake_by_ref();
            if rounds > 5 { Poll::Ready(()) } else { Poll::Pending }
        }));
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        other.kill();
    });
}

#[test]
fn a_future_that_always_wakes_itself_starves_neither_timers_nor_kills() {
    on_one_and_on_two("a_future_that_always_wakes_itself_starves_neither_timers_nor_kills", || {
        assert!(with_timeout(SHORT, || block_on(self_waking(usize::MAX))).is_err());
        let green = spawn_future(self_waking(usize::MAX));
        sleep(SHORT);
        assert_eq!(green.kill(), KillOutcome::Ended);
    });
}

#[test]
fn a_kill_drops_the_future_on_the_stack_of_its_green_thread() {
    on_one_and_on_two("a_kill_drops_the_future_on_the_stack_of_its_green_thread", || {
        let dropped_by = Rc::new(Cell::new(None));
        let seen = Rc::clone(&dropped_by);
        let held_by_future = OnDrop(move || seen.set(Some(current_id())));
        let green = spawn_future(async move {
            let _held = held_by_future;
            pending::<()>().await;
        });
        yield_now();
        let id = green.id().unwrap();
        assert_eq!(green.kill(), KillOutcome::Ended);
        assert_eq!(dropped_by.get(), Some(id));
        assert!(green.join().unwrap_err().is_kill());
    });
}

#[test]
fn a_timeout_drops_the_future_and_a_late_wake_up_disturbs_no_other_wait() {
    on_one_and_on_two("a_timeout_drops_the_future_and_a_late_wake_up_disturbs_no_other_wait", || {
        let (gate, drops) = (Gate::new(), Drops::default());
        let one = drops.one();
        let wait = gate.wait();
        let future = async move {
            let _one = one;
            wait.await;
        };
        let waiter = spawn({
            let drops = drops.clone();
            move || {
                assert!(with_timeout(SHORT, || block_on(future)).is_err());
                assert_eq!(drops.count(), 1);
                let next = Gate::new();
                // The waits that follow must not be ended by the waker of the first.
                assert!(with_timeout(4 * SHORT, || block_on(next.wait())).is_err());
                assert_eq!(next.polls(), 1);
                assert!(with_timeout(4 * SHORT, || greenhub::thread::park()).is_err());
            }
        });
        while drops.count() == 0 {
            sleep(SHORT / 5);
        }
        while !waiter.is_finished() {
            gate.waker().wake_by_ref();
            sleep(SHORT / 5);
        }
        waiter.join().unwrap();
        assert_eq!(gate.polls(), 1);
    });
}

#[test]
fn a_waker_that_outlives_its_wait_ends_no_other_wait() {
    on_one_and_on_two("a_waker_that_outlives_its_wait_ends_no_other_wait", || {
        let mut kept: Vec<Waker> = Vec::new();
        for round in 1..=20 {
            let gate = Gate::new();
            let green = spawn_future(gate.wait());
            yield_now();
            kept.iter().for_each(Waker::wake_by_ref);
            let wakers = kept.clone();
            std::thread::spawn(move || wakers.into_iter().for_each(Waker::wake)).join().unwrap();
            sleep(Duration::ZERO);
            assert_eq!((gate.polls(), green.is_finished()), (1, false), "round {round}");
            kept.push(gate.waker());
            gate.open();
            green.join().unwrap();
            assert_eq!(gate.polls(), 2);
        }
    });
}

#[test]
fn a_wake_up_without_progress_polls_again_and_waits_on() {
    on_one_and_on_two("a_wake_up_without_progress_polls_again_and_waits_on", || {
        let gate = Gate::new();
        let green = spawn_future(gate.wait());
        for polls in 1..5 {
            yield_now();
            assert_eq!((gate.polls(), green.is_finished()), (polls, false));
            gate.wake();
        }
        gate.open();
        green.join().unwrap();
    });
}

#[test]
fn main_waits_on_after_an_abort() {
    on_one_and_on_two("main_waits_on_after_an_abort", || {
        let gate = Gate::new();
        let (opener, remote) = (gate.clone(), get_hub().remote());
        let other = std::thread::spawn(move || {
            opener.block_until_polled();
            // Each stop ends the loop in which main waits by then.
            for _ in 0..3 {
                std::thread::sleep(SHORT);
                remote.stop().unwrap();
            }
            std::thread::sleep(SHORT);
            opener.open();
        });
        block_on(gate.wait());
        assert_eq!(gate.polls(), 2);
        other.join().unwrap();
    });
}

#[test]
fn main_waits_on_after_its_hub_was_replaced() {
    run("main_waits_on_after_its_hub_was_replaced", || {
        let gate = Gate::new();
        let opener = gate.clone();
        spawn(move || {
            use_hub("select").unwrap();
            use_hub("poll").unwrap();
            sleep(SHORT);
            opener.open();
        });
        block_on(gate.wait());
        assert_eq!((gate.polls(), get_hub().name()), (2, "poll"));
    });
}

#[test]
fn an_error_for_main_drops_the_future_and_is_returned() {
    on_one_and_on_two("an_error_for_main_drops_the_future_and_is_returned", || {
        let drops = Drops::default();
        let one = drops.one();
        spawn(|| get_hub().interrupt());
        let error = try_block_on(async move {
            let _one = one;
            pending::<()>().await;
        })
        .unwrap_err();
        assert_eq!((error.kind(), drops.count()), (LoopErrorKind::Interrupted, 1));
        spawn(|| get_hub().interrupt());
        let payload = catch_unwind(|| block_on(pending::<()>())).unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), "block_on: the main loop was interrupted");
    });
}

#[test]
fn a_wait_that_nothing_can_end_is_a_loop_exit_that_names_the_future() {
    // A forked child has one OS thread, so no other can end the waits.
    in_child(|| {
        yield_now();
        let child = forked(|| {
            // It may complete any future.
            if get_hub().name() == "tokio" {
                return;
            }
            spawn_future(pending::<u8>());
            let error = try_block_on(pending::<()>()).unwrap_err();
            assert_eq!(error.kind(), LoopErrorKind::LoopExit);
            let parked = &error.loop_exit().unwrap().parked;
            assert_eq!(parked.len(), 1);
            assert!(parked[0].ends_with("waiting for a future (core::future::pending::Pending<u8>)"), "{parked:?}");
        });
        ends_well(child);
    });
}

#[test]
fn a_listing_shows_the_type_of_the_future_of_the_present_wait_alone() {
    on_one_and_on_two("a_listing_shows_the_type_of_the_future_of_the_present_wait_alone", || {
        let gate = Gate::new();
        let wait = gate.wait();
        let green = spawn(move || {
            block_on(wait);
            sleep(LONG);
        });
        yield_now();
        let state = || greenlets().into_iter().find(|one| Some(one.id) == green.id()).unwrap().state;
        let GreenletState::Waiting { reason: WaitReason::Future, future: Some(name), .. } = state() else {
            panic!("{:?}", state())
        };
        assert_eq!(name, std::any::type_name::<gate::Wait>());
        assert_eq!(state().to_string(), format!("waiting for a future ({name})"));
        gate.open();
        yield_now();
        assert!(matches!(state(), GreenletState::Waiting { reason: WaitReason::Sleep, future: None, .. }));
        green.kill();
    });
}

#[test]
fn on_the_main_loop_a_future_is_polled_once() {
    on_one_and_on_two("on_the_main_loop_a_future_is_polled_once", || {
        let (tell, hear) = mpsc::channel();
        get_hub().schedule(Duration::ZERO, move || {
            let gate = Gate::new();
            let mut polls = 0;
            let restless = poll_fn(|cx| {
                polls += 1;
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            });
            let restless = try_block_on(restless).unwrap_err();
            let errors =
                [try_block_on(gate.wait()).unwrap_err(), restless].map(|error| (error.kind(), error.to_string()));
            tell.send((errors, gate.polls(), polls, try_block_on(ready(7)).unwrap())).unwrap();
        });
        sleep(SHORT);
        let (errors, pending_polls, restless_polls, value) = hear.recv().unwrap();
        for (kind, text) in errors {
            assert_eq!(kind, LoopErrorKind::InMainloop);
            let expected = "do not call blocking functions from the main loop: waiting for a future needs a green thread; \
                 spawn one, or await `defer_to_green_thread`";
            assert_eq!(text, expected);
        }
        assert_eq!((pending_polls, restless_polls, value), (1, 1, 7));
    });
}

#[test]
fn a_plain_os_thread_blocks() {
    // The OS thread has used nothing of the library.
    let plain = std::thread::spawn(|| {
        let gate = Gate::new();
        let opener = gate.clone();
        let other = std::thread::spawn(move || {
            opener.block_until_polled();
            std::thread::sleep(SHORT);
            opener.open();
        });
        block_on(gate.wait());
        block_on(self_waking(3));
        other.join().unwrap();
        assert!(!has_hub() && greenlets().is_empty(), "the wait has made greenlets");
        gate.polls()
    });
    assert_eq!(plain.join().unwrap(), 2);
}

#[test]
fn two_hubs_talk_through_futures() {
    run("two_hubs_talk_through_futures", || {
        use tokio::sync::mpsc::unbounded_channel as channel;
        const ROUNDS: u32 = 500;
        let ((there, mut arrived), (back, mut returned)) = (channel(), channel());
        let other = std::thread::spawn(move || {
            run("two_hubs_talk_through_futures", move || {
                let bounce = spawn(move || {
                    while let Some(number) = block_on(arrived.recv()) {
                        back.send(number + 1_u32).unwrap();
                    }
                });
                bounce.join().unwrap();
            });
        });
        let send = spawn(move || {
            for number in 0..ROUNDS {
                there.send(number).unwrap();
                assert_eq!(block_on(returned.recv()), Some(number + 1));
            }
        });
        send.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn many_green_threads_wait_for_one_shared_future() {
    on_one_and_on_two("many_green_threads_wait_for_one_shared_future", || {
        let results: [(Option<i32>, _); 2] = [(Some(7), Ok(7)), (None, Err(oneshot::Canceled))];
        for (sent, expected) in results {
            let (sender, receiver) = oneshot::channel();
            let shared = receiver.shared();
            let waiters: Vec<_> = (0..10).map(|_| spawn_future(shared.clone())).collect();
            yield_now();
            // One waiter leaves; the others are not disturbed.
            assert_eq!(waiters[0].kill(), KillOutcome::Ended);
            match sent {
                Some(value) => sender.send(value).unwrap(),
                None => drop(sender),
            }
            for (index, waiter) in waiters.into_iter().enumerate().skip(1) {
                assert_eq!(waiter.join().unwrap(), expected, "{index}");
            }
            // The output, and also an error, is kept for later waiters.
            assert_eq!(block_on(shared.clone()), expected);
            assert_eq!(block_on(shared), expected);
        }
    });
}

/// Waits in a green thread for a future that waits for a green thread, and so on.
fn nest(depth: u32) -> u32 {
    if depth == 0 {
        sleep(SHORT);
        return 0;
    }
    block_on(async move {
        let inner = defer_to_green_thread(move || nest(depth - 1));
        let other = defer_to_green_thread(yield_now);
        other.await.unwrap();
        inner.await.unwrap() + 1
    })
}

#[test]
fn futures_and_green_threads_nest() {
    on_one_and_on_two("futures_and_green_threads_nest", || {
        assert_eq!(nest(5), 5);
        let before = held();
        assert_eq!(nest(5), 5);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_panic_of_the_future_ends_the_wait_and_harms_no_later_one() {
    on_one_and_on_two("a_panic_of_the_future_ends_the_wait_and_harms_no_later_one", || {
        let drops = Drops::default();
        for polls in 1..4 {
            let (one, gate) = (drops.one(), Gate::new());
            let wait = gate.wait();
            let mut left = polls;
            let mut wait = Box::pin(wait);
            let failing = poll_fn(move |cx| {
                let _one = &one;
                let _ = wait.as_mut().poll(cx);
                left -= 1;
                if left == 0 { quiet_panic("on purpose") } else { Poll::<()>::Pending }
            });
            let green = spawn_future(failing);
            while !green.is_finished() {
                yield_now();
                gate.wake();
            }
            let error = green.join().unwrap_err();
            assert_eq!(error.into_panic().downcast_ref(), Some(&"on purpose"));
            assert_eq!(drops.count(), polls);
            assert!(with_timeout(SHORT, || block_on(pending::<()>())).is_err());
        }
    });
}

#[test]
fn a_shield_defers_a_kill_until_the_future_is_ready() {
    on_one_and_on_two("a_shield_defers_a_kill_until_the_future_is_ready", || {
        let (gate, done) = (Gate::new(), Rc::new(Cell::new(0)));
        let (wait, steps) = (gate.wait(), Rc::clone(&done));
        let green = spawn(move || {
            shield(|| block_on(wait));
            steps.set(1);
            block_on(pending::<()>());
            steps.set(2);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        sleep(SHORT);
        assert_eq!((done.get(), gate.polls()), (0, 1));
        gate.open();
        assert!(green.join().unwrap_err().is_kill());
        assert_eq!((done.get(), gate.polls()), (1, 2));
    });
}

#[test]
fn while_panicking_another_os_thread_may_complete_the_future() {
    alone("while_panicking_another_os_thread_may_complete_the_future", || {
        set_panicking_grace(Duration::from_secs(60));
        let results = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&results);
        let other = spawn(|| ());
        let unwinding = spawn(move || {
            let _last = OnDrop(move || {
                let gate = Gate::new();
                let opener = gate.clone();
                let opening = std::thread::spawn(move || {
                    std::thread::sleep(SHORT);
                    opener.open();
                });
                seen.borrow_mut().push(try_block_on(gate.wait()).map_err(|error| error.kind()));
                opening.join().unwrap();
                seen.borrow_mut().push(try_block_on(self_waking(3)).map_err(|error| error.kind()));
                set_panicking_grace(SHORT);
                seen.borrow_mut().push(try_block_on(pending()).map_err(|error| error.kind()));
            });
            quiet_panic("on purpose");
        });
        drop(other);
        assert!(unwinding.join().is_err());
        assert_eq!(*results.borrow(), [Ok(()), Ok(()), Err(LoopErrorKind::Panicking)]);
    });
}

#[test]
fn a_wait_allocates_nothing_once_warm() {
    run("a_wait_allocates_nothing_once_warm", || {
        use tokio::sync::Notify;
        const ROUNDS: usize = 10_000;
        let (ask, answer) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let (asked, answering) = (Rc::clone(&ask), Rc::clone(&answer));
        let other = spawn(move || {
            loop {
                block_on(asked.notified());
                answering.notify_one();
            }
        });
        let round = || {
            assert_eq!(block_on(ready(1)), 1);
            block_on(self_waking(2));
            ask.notify_one();
            block_on(answer.notified());
            // Waits within waits.
            block_on(async { block_on(ready(())) });
        };
        (0..ROUNDS).for_each(|_| round());
        let before = allocations_so_far();
        (0..ROUNDS).for_each(|_| round());
        assert_eq!(allocations_so_far() - before, 0);
        other.kill();
    });
}

#[test]
fn a_future_is_polled_on_in_a_forked_child() {
    in_child(|| {
        let (gate, polls) = (Gate::new(), Rc::new(Cell::new(0)));
        let mut child = None;
        let opener = gate.clone();
        let other = spawn(move || {
            sleep(SHORT);
            opener.open();
        });
        // The parent forks in the first poll of its second wait: both processes poll the same future on.
        block_on(self_waking(1));
        let mut wait = gate.wait();
        let counted = Rc::clone(&polls);
        let is_child = block_on(poll_fn(|cx| {
            counted.set(counted.get() + 1);
            let polled = Pin::new(&mut wait).poll(cx);
            if counted.get() == 1 {
                // SAFETY: the process has two OS threads, of which the other one only waits for the end of the test.
                child = match unsafe { nix::unistd::fork() }.unwrap() {
                    nix::unistd::ForkResult::Parent { child } => Some(child),
                    nix::unistd::ForkResult::Child => None,
                };
            }
            polled.map(|()| child.is_none())
        }));
        let both_polls = polls.get() == 2;
        if is_child {
            crate::support::fork::exit(i32::from(!both_polls || other.join().is_err()));
        }
        assert!(both_polls);
        ends_well(child.unwrap());
        other.join().unwrap();
        // A child in which the waiter is a green thread of the parent.
        let gate = Gate::new();
        let green = spawn_future(gate.wait());
        yield_now();
        let child = forked(|| {
            gate.open();
            until(|| green.is_finished());
        });
        ends_well(child);
        gate.open();
        green.join().unwrap();
    });
}
