//! The hub `tokio`: a runtime that runs while the hub waits.

use std::cell::Cell;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenhub::future::{block_on, try_block_on};
use greenhub::hub::{LoopErrorKind, ManualClock};
use greenhub::net::{TcpListener, TcpStream};
use greenhub::park::{Deadline, Parker, WaitReason};
use greenhub::sync::Event;
use greenhub::thread::yield_now;
use greenhub::{GreenError, get_hub, sleep, spawn, use_hub, use_hub_with, with_timeout};
use hub_epoll::EpollHub;
use hub_tokio::TokioHub;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;

use crate::support::fork::{ends_well, forked, in_fork};
use crate::support::green::{keep_reports, reports};
use crate::support::{alone, assert_succeeded, in_child, is_child, open_descriptors, rerun, run};
use crate::{LONG, MILLISECOND, on_one_and_on_two, on_the_hub, runtime};

#[test]
fn the_context_is_entered_in_each_green_thread() {
    on_the_hub("the_context_is_entered_in_each_green_thread", || {
        let id = hub_tokio::handle().unwrap().id();
        assert_eq!(Handle::current().id(), id);
        let green = spawn(move || {
            assert_eq!(Handle::current().id(), id);
            sleep(MILLISECOND);
            assert_eq!(Handle::current().id(), id);
            block_on(tokio::spawn(async move { Handle::current().id() == id })).unwrap()
        });
        assert!(green.join().unwrap());
    });
}

#[test]
fn a_future_may_be_made_outside_of_a_poll() {
    on_the_hub("a_future_may_be_made_outside_of_a_poll", || {
        let start = Instant::now();
        spawn(|| block_on(tokio::time::sleep(MILLISECOND))).join().unwrap();
        assert!(start.elapsed() >= MILLISECOND);
        block_on(tokio::time::sleep(MILLISECOND));
    });
}

#[test]
fn a_task_ends_the_wait_of_a_green_thread_beside_a_task_that_never_sleeps() {
    on_the_hub("a_task_ends_the_wait_of_a_green_thread_beside_a_task_that_never_sleeps", || {
        let busy = tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        for _ in 0..3 {
            let parker = Parker::new(WaitReason::Event).unwrap();
            let unparker = parker.unparker();
            tokio::spawn(async move { unparker.unpark() });
            parker.park(&mut Deadline::none()).unwrap();
            assert_eq!(block_on(tokio::spawn(async { 7 })).unwrap(), 7);
        }
        busy.abort();
    });
}

#[test]
fn a_timer_of_tokio_fires_beside_green_threads_that_only_yield() {
    on_the_hub("a_timer_of_tokio_fires_beside_green_threads_that_only_yield", || {
        let done = Rc::new(Cell::new(false));
        let yielders = [(); 2].map(|()| {
            let done = Rc::clone(&done);
            spawn(move || {
                while !done.get() {
                    yield_now();
                }
            })
        });
        block_on(tokio::time::sleep(MILLISECOND));
        assert!(yielders.iter().all(|yielder| !yielder.is_finished()));
        done.set(true);
        yielders.into_iter().for_each(|yielder| yielder.join().unwrap());
    });
}

#[test]
fn green_threads_run_beside_tasks_that_only_yield() {
    on_the_hub("green_threads_run_beside_tasks_that_only_yield", || {
        let turns = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move {
                    loop {
                        turns.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            sleep(MILLISECOND);
        }
        assert!(turns.load(Ordering::Relaxed) > 0);
        tasks.iter().for_each(|task| task.abort());
    });
}

#[test]
fn a_blocking_call_in_a_task_is_refused() {
    on_the_hub("a_blocking_call_in_a_task_is_refused", || {
        let refused = tokio::spawn(async {
            let waited = Event::<()>::new().wait();
            let Err(GreenError::Loop(error)) = &waited else { panic!("{waited:?}") };
            (error.kind(), error.to_string())
        });
        let (kind, message) = block_on(refused).unwrap();
        assert_eq!(kind, LoopErrorKind::InMainloop);
        assert!(message.contains("`defer_to_green_thread`"), "{message}");
        let refused = tokio::spawn(async { get_hub().run_once(None).unwrap_err().kind() });
        assert_eq!(block_on(refused).unwrap(), LoopErrorKind::InMainloop);
    });
}

/// Calls itself until so much of the stack is in use.
#[inline(never)]
fn use_stack(top: usize, needed: usize) -> u8 {
    let frame = std::hint::black_box([1u8; 4096]);
    let used = top - frame.as_ptr().addr();
    if used < needed { frame[0].wrapping_add(use_stack(top, needed)) } else { frame[0] }
}

#[test]
fn a_task_has_as_much_stack_as_on_a_thread_of_tokio() {
    alone("a_task_has_as_much_stack_as_on_a_thread_of_tokio", || {
        use_hub("tokio").unwrap();
        let task = tokio::spawn(async {
            let top = [0_u8; 1];
            // Three quarters of the 2 MiB: an overflow would end the process.
            std::hint::black_box(use_stack(std::hint::black_box(&top).as_ptr().addr(), 3 << 19));
            7
        });
        assert_eq!(block_on(task).unwrap(), 7);
    });
}

#[test]
fn the_hub_is_chosen_by_each_of_its_names() {
    on_one_and_on_two("the_hub_is_chosen_by_each_of_its_names", || {
        for name in ["tokio", "twistedr", "asyncio"] {
            use_hub(name).unwrap();
            assert_eq!(get_hub().name(), "tokio");
            assert_eq!(block_on(tokio::spawn(async { 7 })).unwrap(), 7);
        }
    });
}

#[test]
fn a_task_spawns_and_kills_green_threads() {
    on_the_hub("a_task_spawns_and_kills_green_threads", || {
        let victim = Rc::new(spawn(|| sleep(LONG)));
        yield_now();
        let remote = get_hub().remote();
        let spawned = block_on(tokio::spawn(async move {
            let deferred = remote.defer(|| {
                sleep(MILLISECOND);
                7
            });
            deferred.unwrap().await
        }));
        assert_eq!(spawned.unwrap().unwrap(), 7);
        let local = tokio::task::LocalSet::new();
        let killer = Rc::clone(&victim);
        block_on(local.run_until(async move {
            killer.kill();
        }));
        while !victim.is_finished() {
            yield_now();
        }
    });
}

#[test]
fn sockets_of_both_kinds_serve_each_other() {
    on_the_hub("sockets_of_both_kinds_serve_each_other", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 100];
            for _ in 0..10 {
                stream.read_exact(&mut buffer).unwrap();
                stream.write_all(&buffer).unwrap();
            }
        });
        let client = tokio::spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            for number in 0..10 {
                stream.write_all(&[number; 100]).await.unwrap();
                let mut buffer = [0; 100];
                stream.read_exact(&mut buffer).await.unwrap();
                assert_eq!(buffer, [number; 100]);
            }
        });
        block_on(client).unwrap();
        server.join().unwrap();
    });
}

#[test]
fn a_reader_that_leaves_data_behind_is_woken_again() {
    on_the_hub("a_reader_that_leaves_data_behind_is_woken_again", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        writer.write_all(&[7; 1000]).unwrap();
        let green = spawn(move || {
            for _ in 0..10 {
                reader.read_exact(&mut [0; 100]).unwrap();
                // The hub sleeps in between, while the rest is unread.
                sleep(MILLISECOND);
            }
        });
        green.join().unwrap();
    });
}

#[test]
fn a_timer_or_a_task_of_tokio_is_no_deadlock() {
    in_fork(|| {
        use_hub("tokio").unwrap();
        // Longer than the time after which a deadlock is found.
        let pause = Duration::from_millis(1500);
        try_block_on(tokio::time::sleep(pause)).unwrap();
        let event = Arc::new(greenhub::sync::Semaphore::new(0));
        let sent = Arc::clone(&event);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            sent.release();
        });
        event.acquire().unwrap();
        // With neither, a wait that nothing can end is a deadlock.
        let waited = Event::<()>::new().wait();
        assert!(
            matches!(&waited, Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::LoopExit),
            "{waited:?}"
        );
    });
}

#[test]
fn a_nested_runtime_blocks_the_os_thread_and_works() {
    on_the_hub("a_nested_runtime_blocks_the_os_thread_and_works", || {
        let green = spawn(|| {
            let nested = runtime();
            nested.block_on(async { tokio::time::sleep(MILLISECOND).await });
            block_on(tokio::spawn(async { 7 })).unwrap()
        });
        assert_eq!(green.join().unwrap(), 7);
    });
}

#[test]
fn a_green_wait_inside_of_a_nested_runtime_stops_tasks_only() {
    run("a_green_wait_inside_of_a_nested_runtime_stops_tasks_only", || {
        keep_reports();
        use_hub("tokio").unwrap();
        let other = spawn(|| (0..3).map(|_| sleep(MILLISECOND)).count());
        let task = spawn(|| block_on(tokio::spawn(async { 7 })).unwrap());
        let nested = spawn(|| {
            runtime().block_on(async {
                // Longer than the time after which the hub tries again.
                sleep(MILLISECOND * 150);
                8
            })
        });
        sleep(MILLISECOND * 10);
        assert!(!nested.is_finished());
        assert_eq!(other.join().unwrap(), 3);
        assert_eq!(nested.join().unwrap(), 8);
        assert_eq!(task.join().unwrap(), 7);
        block_on(tokio::time::sleep(MILLISECOND));
        assert_eq!(block_on(tokio::spawn(async { 9 })).unwrap(), 9);
        let warnings = reports().iter().filter(|report| report.contains("another Tokio runtime")).count();
        assert_eq!(warnings, 1, "{:?}", reports());
    });
}

#[test]
fn the_hub_is_not_built_inside_of_a_runtime() {
    on_one_and_on_two("the_hub_is_not_built_inside_of_a_runtime", || {
        runtime().block_on(async {
            let refused = use_hub("tokio").unwrap_err().to_string();
            assert!(refused.contains("`hub_tokio::run_until`"), "{refused}");
            use_hub("epoll").unwrap();
            let green = spawn(|| sleep(MILLISECOND));
            green.join().unwrap();
        });
        use_hub("tokio").unwrap();
        assert_eq!(block_on(tokio::spawn(async { 7 })).unwrap(), 7);
    });
}

#[test]
fn a_shut_down_runtime_ends_waits_with_the_error_of_tokio() {
    on_the_hub("a_shut_down_runtime_ends_waits_with_the_error_of_tokio", || {
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let task = other.spawn(std::future::pending::<()>());
        let green = spawn(move || block_on(task).unwrap_err().is_cancelled());
        yield_now();
        other.shutdown_background();
        assert!(green.join().unwrap());
    });
}

#[test]
fn tasks_of_a_replaced_hub_are_cancelled() {
    run("tasks_of_a_replaced_hub_are_cancelled", || {
        use_hub("tokio").unwrap();
        let first = hub_tokio::handle().unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        use_hub("tokio").unwrap();
        assert_ne!(hub_tokio::handle().unwrap().id(), first.id());
        assert!(block_on(task).unwrap_err().is_cancelled());
        use_hub("poll").unwrap();
        assert!(hub_tokio::handle().is_none());
        assert!(Handle::try_current().is_err());
        assert_eq!(get_hub().name(), "poll");
    });
}

#[test]
fn a_hub_that_is_replaced_under_a_guard_of_the_program_is_contained() {
    run("a_hub_that_is_replaced_under_a_guard_of_the_program_is_contained", || {
        keep_reports();
        use_hub("tokio").unwrap();
        let other = runtime();
        let guard = other.enter();
        use_hub("tokio").unwrap();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(guard)));
        sleep(MILLISECOND);
        assert_eq!(block_on(tokio::spawn(async { 7 })).unwrap(), 7);
        assert!(reports().iter().any(|report| report.contains("held a guard")), "{:?}", reports());
    });
}

#[test]
fn an_os_thread_that_ends_drops_its_hub() {
    alone("an_os_thread_that_ends_drops_its_hub", || {
        let count = || {
            for _ in 0..20 {
                std::thread::spawn(|| {
                    use_hub("tokio").unwrap();
                    sleep(MILLISECOND);
                    block_on(tokio::spawn(async {})).unwrap();
                    let _pending = tokio::spawn(std::future::pending::<()>());
                })
                .join()
                .unwrap();
            }
            open_descriptors()
        };
        let before = count();
        assert_eq!(count(), before);
    });
}

#[test]
fn replaced_hubs_leave_no_descriptor_open() {
    alone("replaced_hubs_leave_no_descriptor_open", || {
        let count = || {
            for _ in 0..100 {
                use_hub("tokio").unwrap();
                sleep(Duration::ZERO);
                let _task = tokio::spawn(std::future::pending::<()>());
            }
            open_descriptors()
        };
        let before = count();
        assert_eq!(count(), before);
    });
}

#[test]
fn a_forked_child_has_a_runtime_of_its_own() {
    in_child(|| {
        use_hub("tokio").unwrap();
        let parents = hub_tokio::handle().unwrap().id();
        let task = tokio::spawn(async { 7 });
        let child = forked(|| {
            sleep(MILLISECOND);
            assert_ne!(hub_tokio::handle().unwrap().id(), parents);
            assert_eq!(Handle::current().id(), hub_tokio::handle().unwrap().id());
            block_on(tokio::time::sleep(MILLISECOND));
            assert_eq!(block_on(tokio::spawn(async { 8 })).unwrap(), 8);
        });
        ends_well(child);
        assert_eq!(block_on(task).unwrap(), 7);
        block_on(tokio::time::sleep(MILLISECOND));
    });
}

#[test]
fn blocking_threads_do_not_keep_the_process_alive() {
    const TEST: &str = "blocking_threads_do_not_keep_the_process_alive";
    if !is_child() {
        let start = Instant::now();
        let output = rerun(TEST, |_| {});
        assert!(output.status.success(), "{output:?}");
        assert!(start.elapsed() < LONG / 2);
        return;
    }
    // The end of the OS thread drops the hub.
    std::thread::spawn(|| {
        use_hub("tokio").unwrap();
        let began = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&began);
        let _job = tokio::task::spawn_blocking(move || {
            begins.store(true, Ordering::Relaxed);
            std::thread::sleep(LONG);
        });
        while !began.load(Ordering::Relaxed) {
            sleep(MILLISECOND);
        }
    })
    .join()
    .unwrap();
}

#[test]
fn the_runtime_installs_no_signal_handler() {
    alone("the_runtime_installs_no_signal_handler", || {
        let caught = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            status.lines().find(|line| line.starts_with("SigCgt")).unwrap().to_owned()
        };
        let before = caught();
        use_hub("tokio").unwrap();
        sleep(MILLISECOND);
        block_on(tokio::spawn(async {})).unwrap();
        assert_eq!(caught(), before);
    });
}

#[test]
fn an_ended_wait_drops_the_future_of_tokio() {
    on_the_hub("an_ended_wait_drops_the_future_of_tokio", || {
        let late = with_timeout(MILLISECOND, || block_on(tokio::time::sleep(LONG)));
        assert!(late.is_err());
        let green = spawn(|| block_on(tokio::time::sleep(LONG)));
        yield_now();
        green.kill();
        assert!(green.join().is_err());
    });
}

#[test]
fn a_panic_in_a_task_is_its_own() {
    on_the_hub("a_panic_in_a_task_is_its_own", || {
        let task = tokio::spawn(async { crate::support::green::quiet_panic("a panic") });
        let ended: Result<(), _> = block_on(task);
        assert!(ended.unwrap_err().is_panic());
        sleep(MILLISECOND);
    });
}

#[test]
fn the_variable_alone_enters_the_context_when_the_hub_is_built() {
    const TEST: &str = "the_variable_alone_enters_the_context_when_the_hub_is_built";
    if !is_child() {
        return assert_succeeded(&rerun(TEST, |command| _ = command.env("GREENHUB_HUB", "tokio")));
    }
    let early = catch_unwind(|| drop(tokio::spawn(async {})));
    assert!(early.is_err());
    let green = spawn(|| block_on(tokio::spawn(async { 7 })).unwrap());
    let _hub = get_hub();
    assert_eq!(block_on(tokio::spawn(async { 7 })).unwrap(), 7);
    assert_eq!(green.join().unwrap(), 7);
}

#[test]
fn sleeps_by_a_manual_clock_take_no_time_beside_timers_of_tokio() {
    run("sleeps_by_a_manual_clock_take_no_time_beside_timers_of_tokio", || {
        let clock = ManualClock::new();
        let driven = clock.clone();
        use_hub_with(move || Ok(driven.drive(TokioHub::over(EpollHub::new()?)?))).unwrap();
        sleep(LONG);
        assert!(clock.now().as_nanos() >= LONG.as_nanos() as u64);
        let start = Instant::now();
        block_on(tokio::time::sleep(MILLISECOND));
        assert!(start.elapsed() >= MILLISECOND);
        assert_eq!(block_on(tokio::spawn(async { 7 })).unwrap(), 7);
    });
}
