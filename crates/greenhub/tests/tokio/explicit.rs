//! The main loop inside of a runtime of the program: `join` and `run_until`.

use std::cell::{Cell, OnceCell};
use std::future::{Future, pending, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use greenhub::future::{block_on, defer_to_green_thread, spawn_future};
use greenhub::hub::{LoopError, LoopErrorKind};
use greenhub::net::TcpListener;
use greenhub::os::unix::net::UnixStream;
use greenhub::sync::{Event, mpsc};
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn, use_hub, with_timeout};
use hub_tokio::{block_on_in, join, run_until};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::task::LocalSet;

use crate::support::fork::{ends_well, exit, exit_after, exits_with, fork_here};
use crate::support::green::OnDrop;
use crate::support::hubs::{default_hub, use_manual_clock};
use crate::support::{in_child, run};
use crate::{Count, LONG, MILLISECOND, on_one_and_on_two, runtime};

/// Runs a test on an OS thread of its own, and then on two at the same time, on a hub with a descriptor for outer
/// loops.
fn joined(name: &'static str, test: fn()) {
    on_one_and_on_two(name, move || {
        use_hub("epoll").unwrap();
        test();
    });
}

fn kind(error: &std::io::Error) -> LoopErrorKind {
    error.get_ref().and_then(|error| error.downcast_ref::<LoopError>()).expect("an error of the loop").kind()
}

#[test]
fn green_threads_and_tasks_run_beside_each_other() {
    joined("green_threads_and_tasks_run_beside_each_other", || {
        let greens: Vec<_> = (0..3)
            .map(|number| {
                spawn(move || {
                    sleep(MILLISECOND);
                    block_on(tokio::spawn(async move { number })).unwrap()
                })
            })
            .collect();
        let sum = runtime().block_on(run_until(async {
            let task = tokio::spawn(async {
                tokio::time::sleep(MILLISECOND).await;
                10
            });
            let ended =
                defer_to_green_thread(move || greens.into_iter().map(|green| green.join().unwrap()).sum::<i32>());
            task.await.unwrap() + ended.await.unwrap()
        }));
        assert_eq!(sum.unwrap(), 13);
        // The loop runs as before.
        sleep(MILLISECOND);
    });
}

#[test]
fn an_abort_and_a_remote_stop_end_the_join() {
    joined("an_abort_and_a_remote_stop_end_the_join", || {
        let runtime = runtime();
        spawn(|| get_hub().abort());
        runtime.block_on(join()).unwrap();
        let remote = get_hub().remote();
        let other = std::thread::spawn(move || {
            std::thread::sleep(MILLISECOND * 5);
            remote.stop().unwrap();
        });
        runtime.block_on(join()).unwrap();
        other.join().unwrap();
        // Between two turns, by a task.
        let _task = runtime.spawn(async {
            tokio::time::sleep(MILLISECOND).await;
            get_hub().abort();
        });
        runtime.block_on(join()).unwrap();
        spawn(|| get_hub().abort());
        let aborted = runtime.block_on(run_until(pending::<()>())).unwrap_err();
        assert_eq!(aborted.to_string(), "the main loop was aborted");
    });
}

#[test]
fn every_place_that_keeps_a_future_on_its_thread_can_join() {
    joined("every_place_that_keeps_a_future_on_its_thread_can_join", || {
        let multi = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        assert_eq!(multi.block_on(run_until(defer_to_green_thread(|| 1))).unwrap().unwrap(), 1);
        let (runtime, local) = (runtime(), LocalSet::new());
        assert_eq!(local.block_on(&runtime, run_until(defer_to_green_thread(|| 2))).unwrap().unwrap(), 2);
        let local = LocalSet::new();
        let output = local.block_on(&runtime, async {
            let joined = tokio::task::spawn_local(join());
            let output = defer_to_green_thread(|| {
                sleep(MILLISECOND);
                3
            })
            .await;
            get_hub().abort();
            joined.await.unwrap().unwrap();
            output
        });
        assert_eq!(output.unwrap(), 3);
    });
}

#[test]
fn a_blocking_call_of_the_runtimes_own_code_is_refused() {
    joined("a_blocking_call_of_the_runtimes_own_code_is_refused", || {
        runtime()
            .block_on(run_until(async {
                let waited = Event::<()>::new().wait().unwrap_err();
                let greenhub::GreenError::Loop(error) = &waited else { panic!("{waited:?}") };
                assert_eq!(error.kind(), LoopErrorKind::InMainloop);
                let slept = catch_unwind(AssertUnwindSafe(|| sleep(MILLISECOND)));
                let message = *slept.unwrap_err().downcast::<String>().unwrap();
                assert!(message.contains("do not call blocking functions from the main loop"), "{message}");
                sleep(Duration::ZERO);
            }))
            .unwrap();
    });
}

#[test]
fn a_kill_by_the_runtimes_own_code_is_scheduled() {
    joined("a_kill_by_the_runtimes_own_code_is_scheduled", || {
        runtime()
            .block_on(run_until(async {
                let count = Count::default();
                let drops = count.clone();
                let victim = spawn(move || {
                    let _guard = OnDrop(move || drops.add());
                    sleep(LONG);
                });
                tokio::time::sleep(MILLISECOND).await;
                victim.kill();
                assert_eq!(count.get(), 0);
                while !victim.is_finished() {
                    tokio::task::yield_now().await;
                }
                assert_eq!(count.get(), 1);
            }))
            .unwrap();
    });
}

#[test]
fn hubs_without_a_descriptor_are_refused_by_name() {
    on_one_and_on_two("hubs_without_a_descriptor_are_refused_by_name", || {
        for name in ["poll", "select", "tokio"] {
            use_hub(name).unwrap();
            let refused = runtime().block_on(join()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported);
            assert!(refused.to_string().contains(&format!("hub {name:?}")), "{refused}");
            sleep(MILLISECOND);
        }
    });
}

#[test]
fn a_second_join_is_refused() {
    joined("a_second_join_is_refused", || {
        let refused = runtime().block_on(run_until(async { join().await.unwrap_err() })).unwrap();
        assert_eq!(kind(&refused), LoopErrorKind::Embedded);
    });
}

#[test]
fn a_join_in_a_green_thread_and_in_a_callback_is_refused() {
    joined("a_join_in_a_green_thread_and_in_a_callback_is_refused", || {
        let runtime = runtime();
        let _context = runtime.enter();
        let poll_once = || {
            let Poll::Ready(Err(refused)) =
                Pin::new(&mut join()).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
            else {
                panic!("it joined")
            };
            kind(&refused)
        };
        assert_eq!(spawn(poll_once).join().unwrap(), LoopErrorKind::InMainloop);
        let (sender, receiver) = mpsc::channel();
        let _timer = get_hub().schedule_once(Duration::ZERO, move || sender.send(poll_once()).unwrap());
        assert_eq!(receiver.recv().unwrap(), LoopErrorKind::InMainloop);
    });
}

#[test]
fn outside_of_a_runtime_the_join_says_so() {
    joined("outside_of_a_runtime_the_join_says_so", || {
        let refused = block_on(join()).unwrap_err();
        assert!(refused.to_string().contains("no reactor running"), "{refused}");
        sleep(MILLISECOND);
    });
}

#[test]
fn a_join_that_is_dropped_between_polls_leaves_the_loop_usable() {
    joined("a_join_that_is_dropped_between_polls_leaves_the_loop_usable", || {
        let green = spawn(|| {
            sleep(MILLISECOND * 3);
            7
        });
        let runtime = runtime();
        for _ in 0..3 {
            runtime.block_on(async {
                let mut join = pin!(join());
                poll_fn(|context| {
                    assert!(join.as_mut().poll(context).is_pending());
                    Poll::Ready(())
                })
                .await;
            });
            sleep(MILLISECOND);
        }
        assert_eq!(green.join().unwrap(), 7);
    });
}

#[test]
fn green_threads_do_not_share_the_budget_of_one_task() {
    joined("green_threads_do_not_share_the_budget_of_one_task", || {
        const MESSAGES: usize = 10_000;
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        (0..MESSAGES).for_each(|number| sender.send(number).unwrap());
        let polls = runtime().block_on(run_until(defer_to_green_thread(move || {
            let mut polls = 0;
            for _ in 0..MESSAGES {
                let mut received = pin!(receiver.recv());
                block_on(poll_fn(|context| {
                    polls += 1;
                    received.as_mut().poll(context)
                }));
            }
            polls
        })));
        assert_eq!(polls.unwrap().unwrap(), MESSAGES);
    });
}

#[test]
fn a_timer_of_tokio_fires_beside_green_threads_that_only_yield() {
    joined("a_timer_of_tokio_fires_beside_green_threads_that_only_yield", || {
        let greens = [(); 2].map(|()| {
            spawn(|| {
                loop {
                    yield_now();
                }
            })
        });
        runtime().block_on(run_until(async { tokio::time::sleep(MILLISECOND * 5).await })).unwrap();
        greens.iter().for_each(|green| {
            green.kill();
        });
    });
}

#[test]
fn green_threads_that_only_yield_need_no_other_event() {
    joined("green_threads_that_only_yield_need_no_other_event", || {
        // More turns than one poll has.
        let greens = [(); 2].map(|()| spawn(|| (0..20_000).for_each(|_| yield_now())));
        let ended = defer_to_green_thread(|| greens.into_iter().for_each(|green| green.join().unwrap()));
        runtime().block_on(run_until(ended)).unwrap().unwrap();
    });
}

#[test]
fn green_threads_run_beside_tasks_that_only_yield() {
    joined("green_threads_run_beside_tasks_that_only_yield", || {
        let turns = Arc::new(AtomicUsize::new(0));
        let runtime = runtime();
        for _ in 0..100 {
            let turns = Arc::clone(&turns);
            runtime.spawn(async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
        }
        let slept = runtime.block_on(run_until(defer_to_green_thread(|| {
            for _ in 0..3 {
                sleep(MILLISECOND);
            }
            7
        })));
        assert_eq!(slept.unwrap().unwrap(), 7);
        assert!(turns.load(Ordering::Relaxed) > 0);
    });
}

#[test]
fn sockets_of_both_kinds_serve_each_other() {
    joined("sockets_of_both_kinds_serve_each_other", || {
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
        runtime()
            .block_on(run_until(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                for number in 0..10 {
                    stream.write_all(&[number; 100]).await.unwrap();
                    let mut buffer = [0; 100];
                    stream.read_exact(&mut buffer).await.unwrap();
                    assert_eq!(buffer, [number; 100]);
                }
            }))
            .unwrap();
        server.join().unwrap();
    });
}

#[test]
fn async_in_green_in_async_works_at_any_depth() {
    joined("async_in_green_in_async_works_at_any_depth", || {
        fn nested(depth: usize) -> Pin<Box<dyn Future<Output = usize>>> {
            Box::pin(async move {
                if depth == 0 {
                    tokio::time::sleep(MILLISECOND).await;
                    return 0;
                }
                let green = defer_to_green_thread(move || {
                    sleep(MILLISECOND);
                    block_on(nested(depth - 1))
                });
                1 + green.await.unwrap()
            })
        }
        assert_eq!(runtime().block_on(run_until(nested(5))).unwrap(), 5);
    });
}

#[test]
fn a_future_of_a_runtime_on_other_threads_works_on_any_hub() {
    on_one_and_on_two("a_future_of_a_runtime_on_other_threads_works_on_any_hub", || {
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = other.handle().clone();
        for hub in ["poll", "select", "epoll", "tokio"] {
            use_hub(hub).unwrap();
            let waits = [(); 3].map(|()| {
                let handle = handle.clone();
                spawn(move || {
                    block_on_in(&handle, async {
                        tokio::time::sleep(MILLISECOND).await;
                        Handle::current().id()
                    })
                })
            });
            for wait in waits {
                assert_eq!(wait.join().unwrap(), handle.id());
            }
        }
        let pending = spawn_future(other.spawn(pending::<()>()));
        yield_now();
        other.shutdown_background();
        assert!(pending.join().unwrap().unwrap_err().is_cancelled());
    });
}

/// Ends a wait of `block_on_in` by `end`, and returns whether the drop of its future could spawn a task.
fn drop_in_spawns(handle: &Handle, end: fn(&mut dyn FnMut())) -> bool {
    let spawned = Rc::new(Cell::new(false));
    let (seen, runtime) = (Rc::clone(&spawned), handle.clone());
    let green = spawn(move || {
        let mut wait = || {
            let seen = Rc::clone(&seen);
            block_on_in(&runtime, async move {
                let id = Handle::current().id();
                let _guard = OnDrop(move || {
                    // Without a context `tokio::spawn` panics, which ends the process during an exit.
                    seen.set(Handle::try_current().is_ok_and(|current| current.id() == id));
                    if seen.get() {
                        drop(tokio::spawn(async {}));
                    }
                });
                pending::<()>().await;
            });
        };
        end(&mut wait);
    });
    sleep(MILLISECOND * 3);
    green.kill();
    let _ended = green.join();
    spawned.get()
}

#[test]
fn an_ended_wait_drops_its_future_in_the_context_of_the_runtime() {
    on_one_and_on_two("an_ended_wait_drops_its_future_in_the_context_of_the_runtime", || {
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        for hub in ["poll", "select", "epoll", "tokio"] {
            use_hub(hub).unwrap();
            let killed: fn(&mut dyn FnMut()) = |wait| wait();
            assert!(drop_in_spawns(other.handle(), killed));
            let late: fn(&mut dyn FnMut()) = |wait| assert!(with_timeout(MILLISECOND, wait).is_err());
            assert!(drop_in_spawns(other.handle(), late));
        }
    });
}

/// The ID of the child in the parent, `None` in the child, and empty before the fork.
type Child = Rc<OnceCell<Option<Pid>>>;

/// Runs `fork` inside of a joined loop. In the child the loop must end with an error, and in the parent it goes on.
fn both_processes_go_on<F: Future>(fork: impl FnOnce(Child) -> F + 'static) {
    use_hub("epoll").unwrap();
    let parents = runtime();
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let echo = spawn(move || {
        let mut byte = [0];
        while far.read(&mut byte).unwrap() != 0 {
            far.write_all(&byte).unwrap();
        }
    });
    let child = Child::default();
    let seen = Rc::clone(&child);
    let ended = parents.block_on(run_until(async move {
        // The loop has run, so the runtime watches it.
        tokio::task::yield_now().await;
        fork(Rc::clone(&seen)).await;
        match seen.get().unwrap() {
            None => pending().await,
            Some(child) => exits_with(*child, 0),
        }
        tokio::time::sleep(MILLISECOND).await;
        let echoed = defer_to_green_thread(move || {
            sleep(MILLISECOND);
            near.write_all(b"x")?;
            near.read_exact(&mut [0])
        });
        echoed.await.unwrap().unwrap();
    }));
    if child.get().unwrap().is_some() {
        ended.unwrap();
        return echo.join().unwrap();
    }
    exit_after(|| {
        let error = ended.unwrap_err();
        assert!(error.to_string().contains("forked child"), "{error}");
        std::mem::forget(parents);
        sleep(MILLISECOND);
        let value = runtime().block_on(run_until(async {
            tokio::time::sleep(MILLISECOND).await;
            let green = defer_to_green_thread(|| {
                sleep(MILLISECOND);
                7
            });
            green.await.unwrap()
        }));
        assert_eq!(value.unwrap(), 7);
    });
}

#[test]
fn a_fork_in_the_future_of_a_joined_loop_leaves_both_processes_a_loop() {
    in_child(|| both_processes_go_on(|child| async move { child.set(fork_here()).unwrap() }));
}

#[test]
fn a_fork_in_a_green_thread_of_a_joined_loop_leaves_both_processes_a_loop() {
    in_child(|| {
        both_processes_go_on(|child| async move {
            let forking = defer_to_green_thread(move || {
                child.set(fork_here()).unwrap();
                sleep(MILLISECOND);
            });
            forking.await.unwrap();
        });
    });
}

#[test]
fn a_join_that_a_child_drops_leaves_that_of_its_parent() {
    in_child(|| {
        use_hub("epoll").unwrap();
        let parents = runtime();
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let green = spawn(move || UnixStream::from(OwnedFd::from(far)).read_exact(&mut [0]));
        parents.block_on(async {
            let mut joined = Box::pin(run_until(defer_to_green_thread(move || green.join())));
            poll_fn(|context| {
                assert!(joined.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            let Some(child) = fork_here() else {
                exit_after(|| {
                    drop(joined);
                    sleep(MILLISECOND);
                });
            };
            exits_with(child, 0);
            // While the loop sleeps: only its descriptor tells it of the byte.
            tokio::spawn(async move {
                tokio::time::sleep(MILLISECOND).await;
                near.write_all(b"x").unwrap();
            });
            joined.await.unwrap().unwrap().unwrap().unwrap();
        });
    });
}

#[test]
fn a_manual_clock_of_a_joined_loop_stands_until_the_program_moves_it() {
    run("a_manual_clock_of_a_joined_loop_stands_until_the_program_moves_it", || {
        let clock = use_manual_clock();
        let before = clock.now();
        let slept = runtime().block_on(run_until(async {
            let mut sleeper = pin!(defer_to_green_thread(|| sleep(LONG)));
            // The loop has run, and sleeps.
            tokio::time::sleep(MILLISECOND * 5).await;
            poll_fn(|context| {
                assert!(sleeper.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(clock.now(), before);
            clock.advance(LONG);
            // The loop sees the time in its next turn.
            spawn(|| ()).ignore_result();
            sleeper.await
        }));
        slept.unwrap().unwrap();
    });
}

#[test]
fn a_hub_builder_that_forks_leaves_no_runtime_to_the_child() {
    in_child(|| {
        thread_local! {
            static CHILD: Cell<Option<nix::unistd::Pid>> = const { Cell::new(None) };
        }
        greenhub::use_hub_with(|| {
            CHILD.set(fork_here());
            default_hub()
        })
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let joined = runtime.block_on(run_until(async { 7 }));
        match CHILD.get() {
            None => exit(i32::from(joined.map_err(|error| error.kind()) != Err(ErrorKind::Unsupported))),
            Some(child) => ends_well(child),
        }
        assert_eq!(joined.unwrap(), 7);
    });
}
