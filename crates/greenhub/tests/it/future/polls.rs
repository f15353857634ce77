//! Nothing switches in a poll of a future, unless `block_in_place` allows it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::future::{pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::support::green::{Drops, LONG, OnDrop, SHORT, pipe, quiet_panic};
use crate::support::run;
use greenhub::future::{block_in_place, block_on, spawn_future, try_block_on};
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::greenthread::{KillOutcome, is_exit};
use greenhub::hub::{LoopErrorKind, has_hub};
use greenhub::park::{Deadline, Parker, ReadHint, Source, WaitReason, consume_budget};
use greenhub::process::Command;
use greenhub::sync::{Barrier, Condvar, Event, Mutex, Queue, Semaphore, mpsc};
use greenhub::thread::{park, yield_now};
use greenhub::{
    GreenPool, Interest, fs, get_hub, scope, shield, sleep, spawn, tpool, trampoline, use_hub, with_timeout,
};

use super::on_one_and_on_two;

/// Calls `f` in a poll of a future, and returns its result.
fn in_poll<R>(f: impl FnOnce() -> R) -> R {
    let mut f = Some(f);
    block_on(poll_fn(|_| Poll::Ready(f.take().expect("one poll")())))
}

/// Tells whether another green thread has run since it was made.
struct Other(Rc<Cell<bool>>);

impl Other {
    fn new() -> Other {
        let ran = Rc::new(Cell::new(false));
        let seen = Rc::clone(&ran);
        spawn(move || seen.set(true));
        Other(ran)
    }

    fn has_run(&self) -> bool {
        self.0.get()
    }
}

/// Returns the text of an error.
fn text<T, E: Display>(result: Result<T, E>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

/// Returns the text of the panic of a call that has no error to return.
fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    let payload: Box<dyn Any + Send> = catch_unwind(AssertUnwindSafe(f)).map(|_| ()).expect_err("the call is refused");
    assert!(!is_exit(&payload));
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

/// A call that waits, made in a poll. Returns the text of its refusal.
type Refused = (&'static str, fn() -> String);

/// Every kind of wait.
const WAITS: &[Refused] = &[
    ("sleep", || panic_of(|| sleep(SHORT))),
    ("park", || panic_of(park)),
    ("join", || text(spawn(|| ()).join())),
    ("wait", || text(spawn(|| ()).wait())),
    ("scope", || panic_of(|| scope(|_| unreachable!("a scope was opened")))),
    ("trampoline", || text(trampoline(&pipe().0, Interest::READ, None))),
    ("a read", || {
        let (reader, _writer) = pipe();
        let source = Source::new(reader.into()).unwrap();
        text(source.read(None, |fd| Ok((rustix::io::read(fd, &mut [0; 8])?, ReadHint::Nothing))))
    }),
    ("tpool::execute", || text(tpool::execute(|| unreachable!("a job was run")))),
    ("tpool::execute_scoped", || text(tpool::execute_scoped(|| unreachable!("a job was run")))),
    ("fs", || text(fs::read("/proc/self/stat"))),
    ("a lock", || {
        let mutex = Arc::new(Mutex::new(()));
        let guard = mutex.lock().unwrap();
        let refused = panic_of(|| drop(mutex.lock()));
        drop(guard);
        refused
    }),
    ("a queue", || text(Queue::<()>::new().get())),
    ("a channel", || {
        let (_sender, receiver) = mpsc::channel::<()>();
        panic_of(|| receiver.recv())
    }),
    ("an event", || text(Event::<()>::new().wait())),
    ("a semaphore", || text(Semaphore::new(0).acquire())),
    ("a condition", || {
        let mutex = Mutex::new(());
        panic_of(|| drop(Condvar::new().wait(mutex.lock().unwrap())))
    }),
    ("a barrier", || panic_of(|| Barrier::new(2).wait())),
    ("a full pool", || {
        let pool = GreenPool::new(1);
        let green = pool.spawn(|| sleep(LONG)).unwrap();
        let refused = text(pool.spawn(|| ()));
        green.kill();
        refused
    }),
    ("a child", || {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let refused = text(child.wait());
        child.kill().unwrap();
        while child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        refused
    }),
    ("run_once", || text(get_hub().run_once(None))),
    ("shutdown", || text(get_hub().shutdown(SHORT))),
    ("a plain greenlet", || text(Greenlet::new(|_| Ok(Payload::default())).switch(Payload::default()))),
    ("a parker", || text(Parker::new(WaitReason::Event).map(|parker| parker.park(&mut Deadline::none())))),
    ("block_on", || panic_of(|| block_on(pending::<()>()))),
    ("try_block_on", || text(try_block_on(pending::<()>()))),
];

#[test]
fn each_kind_of_wait_is_refused_in_a_poll_and_nothing_switches() {
    run("each_kind_of_wait_is_refused_in_a_poll_and_nothing_switches", || {
        for in_green_thread in [false, true] {
            let check = move || {
                for (what, wait) in WAITS {
                    let other = Other::new();
                    let refused = in_poll(wait);
                    assert!(
                        refused.contains("do not call blocking functions in a poll of a future"),
                        "{what}: {refused:?}"
                    );
                    assert!(!other.has_run(), "{what}");
                    // The same call waits outside.
                    yield_now();
                    assert!(other.has_run(), "{what}");
                }
            };
            if in_green_thread { spawn(check).join().unwrap() } else { check() }
        }
    });
}

#[test]
fn the_refusal_says_what_was_done_and_what_helps() {
    run("the_refusal_says_what_was_done_and_what_helps", || {
        // A thread without greenlets would block.
        sleep(Duration::from_millis(1));
        let error = in_poll(|| try_block_on(pending::<()>())).unwrap_err();
        assert_eq!(error.kind(), LoopErrorKind::InPoll);
        assert_eq!(
            error.to_string(),
            "do not call blocking functions in a poll of a future: waiting for a future would let other green threads \
             run before the poll returns; await it, run it with `defer_to_green_thread`, or allow it with `block_in_place`"
        );
        let slept = in_poll(|| panic_of(|| sleep(SHORT)));
        assert!(
            slept.starts_with("sleep: do not call blocking functions in a poll of a future: sleeping would"),
            "{slept}"
        );
    });
}

#[test]
fn calls_that_need_not_wait_work_in_a_poll_without_a_switch() {
    on_one_and_on_two("calls_that_need_not_wait_work_in_a_poll_without_a_switch", || {
        sleep(Duration::from_millis(1));
        let other = Other::new();
        in_poll(|| {
            let (mutex, queue, (sender, receiver)) = (Mutex::new(0), Queue::new(), mpsc::channel());
            let (reader, writer) = pipe();
            let (reader, writer) = (Source::new(reader.into()).unwrap(), Source::new(writer.into()).unwrap());
            for round in 0..100 {
                yield_now();
                sleep(Duration::ZERO);
                consume_budget().unwrap();
                *mutex.lock().unwrap() += 1;
                queue.put(round).unwrap();
                assert_eq!(queue.get().unwrap(), round);
                sender.send(round).unwrap();
                assert_eq!(receiver.recv(), Ok(round));
                assert_eq!(block_on(ready(round)), round);
                writer.write(None, |fd| Ok(rustix::io::write(fd, b"x")?)).unwrap();
                reader.read(None, |fd| Ok((rustix::io::read(fd, &mut [0; 8])?, ReadHint::Nothing))).unwrap();
            }
        });
        assert!(!other.has_run());
    });
}

#[test]
fn a_kill_in_a_poll_is_scheduled() {
    on_one_and_on_two("a_kill_in_a_poll_is_scheduled", || {
        let drops = Drops::default();
        let one = drops.one();
        let target = spawn(move || {
            let _one = one;
            sleep(LONG);
        });
        yield_now();
        let other = Other::new();
        assert_eq!(in_poll(|| target.kill()), KillOutcome::Scheduled);
        assert_eq!((drops.count(), other.has_run()), (0, false));
        assert!(target.join().unwrap_err().is_kill());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_green_thread_that_kills_itself_in_a_poll_ends_at_its_next_wait() {
    on_one_and_on_two("a_green_thread_that_kills_itself_in_a_poll_ends_at_its_next_wait", || {
        let steps = Rc::new(RefCell::new(Vec::new()));
        for ready_at_once in [false, true] {
            let (log, own) = (Rc::clone(&steps), Rc::new(RefCell::new(None)));
            let handle = Rc::clone(&own);
            let green = spawn(move || {
                block_on(poll_fn(|_| {
                    let handle = handle.borrow();
                    let green: &Rc<greenhub::GreenThread<()>> = handle.as_ref().unwrap();
                    log.borrow_mut().push(format!("{:?}", green.kill()));
                    // Neither a refused wait nor a lock throws the exit.
                    assert_eq!(try_block_on(pending::<()>()).unwrap_err().kind(), LoopErrorKind::InPoll);
                    greenhub::park::throw_exit();
                    if ready_at_once { Poll::Ready(()) } else { Poll::Pending }
                }));
                log.borrow_mut().push("ready".to_owned());
                yield_now();
                log.borrow_mut().push("not reached".to_owned());
            });
            let green = Rc::new(green);
            *own.borrow_mut() = Some(Rc::clone(&green));
            assert!(green.wait_for_end().is_ok());
            own.take();
            assert!(Rc::into_inner(green).unwrap().join().unwrap_err().is_kill());
        }
        assert_eq!(*steps.borrow(), ["Scheduled", "Scheduled", "ready"]);
    });
}

#[test]
fn a_timeout_strikes_after_the_poll() {
    on_one_and_on_two("a_timeout_strikes_after_the_poll", || {
        // Due from its beginning, inside the poll: its scope ends before anything can be struck.
        let inside = in_poll(|| {
            with_timeout(Duration::ZERO, || {
                yield_now();
                try_block_on(pending::<()>()).map_err(|error| error.kind())
            })
        });
        assert_eq!(inside.unwrap(), Err(LoopErrorKind::InPoll));
        // Due from its beginning, around the poll.
        let mut polls = 0;
        let around = with_timeout(Duration::ZERO, || {
            block_on(poll_fn(|_| {
                polls += 1;
                yield_now();
                Poll::<()>::Pending
            }));
        });
        assert!(around.is_err());
        assert_eq!(polls, 1);
        // A shield inside changes nothing.
        assert_eq!(in_poll(|| shield(|| try_block_on(pending::<()>()))).unwrap_err().kind(), LoopErrorKind::InPoll);
    });
}

#[test]
fn the_last_handle_of_a_greenlet_dropped_in_a_poll_is_no_switch() {
    on_one_and_on_two("the_last_handle_of_a_greenlet_dropped_in_a_poll_is_no_switch", || {
        let drops = Drops::default();
        let one = drops.one();
        let greenlet = Greenlet::new(move |_| {
            let _one = one;
            // No handle to itself lies on its stack.
            let parent = Greenlet::current().parent().unwrap();
            parent.switch(Payload::default())
        });
        greenlet.switch(Payload::default()).unwrap();
        let other = Other::new();
        in_poll(|| drop(greenlet));
        assert_eq!((drops.count(), other.has_run()), (0, false));
        while drops.count() == 0 {
            yield_now();
        }
    });
}

#[test]
fn block_in_place_allows_waits_and_only_inside() {
    on_one_and_on_two("block_in_place_allows_waits_and_only_inside", || {
        let other = Other::new();
        let refused = || try_block_on(pending::<()>()).unwrap_err().kind();
        in_poll(|| {
            assert_eq!(refused(), LoopErrorKind::InPoll);
            let value = block_in_place(|| {
                sleep(SHORT);
                scope(|s| s.spawn(yield_now).join().unwrap());
                // A poll inside is a poll again.
                in_poll(|| {
                    assert_eq!(refused(), LoopErrorKind::InPoll);
                    block_in_place(yield_now);
                    assert_eq!(refused(), LoopErrorKind::InPoll);
                });
                yield_now();
                7
            });
            assert_eq!((value, other.has_run()), (7, true));
            assert_eq!(refused(), LoopErrorKind::InPoll);
            // Also if it unwinds.
            let caught = catch_unwind(|| block_in_place(|| quiet_panic("on purpose")));
            assert!(caught.is_err());
            assert_eq!(refused(), LoopErrorKind::InPoll);
        });
        // Outside of a poll it only calls the closure.
        block_in_place(|| sleep(Duration::from_millis(1)));
        in_poll(|| assert_eq!(refused(), LoopErrorKind::InPoll));
    });
}

#[test]
fn a_blocking_call_in_a_handler_parks_its_own_connection_alone() {
    on_one_and_on_two("a_blocking_call_in_a_handler_parks_its_own_connection_alone", || {
        let slow = Arc::new(Queue::new());
        let handler = |name: &'static str, from: Arc<Queue<u32>>| async move {
            let received = block_in_place(|| from.get().unwrap());
            format!("{name} {received}")
        };
        let first = spawn_future(handler("first", Arc::clone(&slow)));
        let filled = Queue::new();
        filled.put(2).unwrap();
        let second = spawn_future(handler("second", Arc::new(filled)));
        assert_eq!(second.join().unwrap(), "second 2");
        assert!(!first.is_finished());
        slow.put(1).unwrap();
        assert_eq!(first.join().unwrap(), "first 1");
    });
}

#[test]
fn a_kill_in_block_in_place_unwinds_the_poll() {
    on_one_and_on_two("a_kill_in_block_in_place_unwinds_the_poll", || {
        let drops = Drops::default();
        let (outer, inner) = (drops.one(), drops.one());
        let green = spawn_future(async move {
            let _outer = outer;
            block_in_place(|| {
                let _inner = inner;
                sleep(LONG);
            });
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Ended);
        assert_eq!(drops.count(), 2);
        let late = with_timeout(SHORT, || block_on(async { block_in_place(|| sleep(LONG)) }));
        assert!(late.is_err());
        sleep(Duration::from_millis(1));
    });
}

#[test]
fn the_drop_of_the_future_is_part_of_the_poll() {
    on_one_and_on_two("the_drop_of_the_future_is_part_of_the_poll", || {
        // A thread without greenlets would block.
        sleep(Duration::from_millis(1));
        let refused = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&refused);
        let on_drop = OnDrop(move || log.borrow_mut().push(try_block_on(pending::<()>()).unwrap_err().kind()));
        // Dropped after the last poll, not in it.
        let mut held = Some(on_drop);
        block_on(poll_fn(move |_| {
            let _held = &mut held;
            Poll::Ready(())
        }));
        assert_eq!(*refused.borrow(), [LoopErrorKind::InPoll]);
        sleep(Duration::from_millis(1));
    });
}

#[test]
fn waits_work_after_a_poll_that_panicked_or_was_refused() {
    on_one_and_on_two("waits_work_after_a_poll_that_panicked_or_was_refused", || {
        let panicked = catch_unwind(|| block_on(async { quiet_panic("on purpose") }));
        assert!(panicked.is_err());
        sleep(Duration::from_millis(1));
        let refused = catch_unwind(|| block_on(async { sleep(SHORT) }));
        assert!(refused.is_err());
        sleep(Duration::from_millis(1));
        // The exit of a killed green thread leaves nothing behind in its control block.
        let green = spawn_future(pending::<()>());
        yield_now();
        green.kill();
        spawn(|| sleep(Duration::from_millis(1))).join().unwrap();
    });
}

#[test]
fn a_green_thread_spawned_in_a_poll_may_wait() {
    on_one_and_on_two("a_green_thread_spawned_in_a_poll_may_wait", || {
        let spawned = in_poll(|| spawn(|| sleep(SHORT)));
        spawned.join().unwrap();
    });
}

#[test]
fn the_first_green_thread_of_an_os_thread_may_be_spawned_in_a_poll() {
    // The OS thread has no greenlets when the poll begins: the first call in it makes the main greenlet.
    let thread = std::thread::spawn(|| {
        greenhub::thread::os::run_and_shutdown(None, || {
            let spawned = in_poll(|| {
                let first = block_in_place(|| 1);
                let spawned = spawn(move || {
                    sleep(Duration::from_millis(1));
                    first
                });
                assert_eq!(try_block_on(pending::<()>()).unwrap_err().kind(), LoopErrorKind::InPoll);
                block_in_place(|| sleep(Duration::from_millis(1)));
                assert_eq!(try_block_on(pending::<()>()).unwrap_err().kind(), LoopErrorKind::InPoll);
                spawned
            });
            assert_eq!(spawned.join().unwrap(), 1);
            sleep(Duration::from_millis(1));
        });
    });
    thread.join().unwrap();
    // Within `block_in_place`, it is made outside of the poll, which goes on after it.
    let thread = std::thread::spawn(|| {
        greenhub::thread::os::run_and_shutdown(None, || {
            in_poll(|| {
                assert!(!has_hub());
                block_in_place(|| sleep(Duration::from_millis(1)));
                assert_eq!(try_block_on(pending::<()>()).unwrap_err().kind(), LoopErrorKind::InPoll);
            });
            sleep(Duration::from_millis(1));
        });
    });
    thread.join().unwrap();
}

#[test]
fn a_hub_may_be_replaced_in_a_poll() {
    run("a_hub_may_be_replaced_in_a_poll", || {
        let sleeper = spawn(|| sleep(LONG));
        yield_now();
        let other = Other::new();
        in_poll(|| use_hub("poll").unwrap());
        assert!(!other.has_run());
        assert!(sleeper.join().is_err());
        assert_eq!(get_hub().name(), "poll");
    });
}

#[test]
fn guards_of_tokio_leave_in_the_order_in_which_they_were_entered() {
    on_one_and_on_two("guards_of_tokio_leave_in_the_order_in_which_they_were_entered", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let handle = runtime.handle().clone();
        let refused = [1, 2].map(|_| {
            let handle = handle.clone();
            spawn(move || {
                block_on(poll_fn(|_| {
                    let _entered = handle.enter();
                    // Without the refusal, the guards of the two green threads would be dropped out of order.
                    Poll::Ready(panic_of(|| sleep(SHORT)))
                }))
            })
        });
        for green in refused {
            assert!(green.join().unwrap().contains("in a poll"));
        }
        assert_eq!(runtime.block_on(async { 5 }), 5);
    });
}

#[test]
fn an_exit_caught_in_a_poll_goes_on() {
    run("an_exit_caught_in_a_poll_goes_on", || {
        let caught = Rc::new(Cell::new(0));
        let seen = Rc::clone(&caught);
        let green = spawn_future(async move {
            let waited = catch_unwind(|| block_in_place(|| sleep(LONG)));
            seen.set(1);
            resume_unwind(waited.unwrap_err());
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Ended);
        assert_eq!(caught.get(), 1);
    });
}
