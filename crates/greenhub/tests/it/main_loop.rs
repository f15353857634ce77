//! The main loop: when it runs, when it ends, which failures it survives, and how an outer loop drives it.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::descriptors::is_readable;
use crate::support::green::{keep_reports, reports};
use crate::support::hubs;
use crate::support::hubs::Calls;
use crate::support::{in_child, limited};
use greenhub::debug::hub_exceptions;
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::hub::{Listener, LoopError, LoopErrorKind, LoopExit, Readiness};
use greenhub::park::notify_close;
use greenhub::{
    Builder, GreenError, GreenThread, HubRef, Interest, TrampolineError, get_hub, sleep, spawn, spawn_n, trampoline,
    use_hub_with,
};
use hub_core::hub::HubDescriptor;
use hub_core::internal::use_hub_descriptor;

const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);

/// Selects the hub under test with a clock that advances only while every green thread waits.
fn use_manual_clock() -> HubRef {
    hubs::use_manual_clock();
    get_hub()
}

/// Waits for an event that never comes, and returns the error that ends the wait.
fn wait_for_nothing() -> LoopError {
    let (reader, _writer) = io::pipe().unwrap();
    match trampoline(&reader, Interest::READ, None) {
        Err(TrampolineError::Loop(error)) => error,
        other => panic!("an empty pipe is not {other:?}"),
    }
}

/// Returns a flag and a closure that sets it.
fn flag() -> (Rc<Cell<bool>>, impl Fn() + Clone + 'static) {
    let flag = Rc::new(Cell::new(false));
    let set = flag.clone();
    (flag, move || set.set(true))
}

fn message(panicked: std::thread::Result<()>) -> String {
    let payload = panicked.expect_err("the call panics");
    payload.downcast_ref::<String>().expect("a message").clone()
}

#[test]
fn the_loop_starts_at_the_first_blocking_call() {
    limited(|| {
        let hub = get_hub();
        spawn_n(|| ());
        assert!(!hub.is_running());
        sleep(Duration::ZERO);
        assert!(hub.is_running());
    });
}

#[test]
fn others_run_while_main_sleeps() {
    limited(|| {
        let (ran, set) = flag();
        spawn_n(move || {
            sleep(Duration::ZERO);
            set();
        });
        sleep(SHORT);
        assert!(ran.get());
    });
}

#[test]
fn a_program_that_never_blocks_never_polls() {
    limited(|| {
        let waits = Arc::new(AtomicUsize::new(0));
        let seen = waits.clone();
        std::thread::spawn(move || {
            let calls = Calls::default();
            let look = calls.clone();
            use_hub_with(move || look.hub()).unwrap();
            let hub = get_hub();
            spawn_n(|| ());
            hub.schedule(Duration::ZERO, || ());
            assert_eq!(hub.stats().turns, 0);
            assert!(!hub.is_running());
            COUNT_AT_EXIT.set(Some(Exit(calls, seen)));
        })
        .join()
        .unwrap();
        assert_eq!(waits.load(Ordering::Relaxed), 0);
    });

    thread_local! {
        /// Dropped with the other thread-locals of the OS thread, the hub among them.
        static COUNT_AT_EXIT: RefCell<Option<Exit>> = const { RefCell::new(None) };
    }
    struct Exit(Calls, Arc<AtomicUsize>);
    impl Drop for Exit {
        fn drop(&mut self) {
            self.1.store(self.0.waits.get(), Ordering::Relaxed);
        }
    }
}

#[test]
fn a_blocking_call_on_the_main_loop_is_an_error() {
    limited(|| {
        let (reader, _writer) = io::pipe().unwrap();
        let green = Rc::new(spawn(|| sleep(LONG)));
        let waited = Rc::new(RefCell::new(None));
        let seen = waited.clone();
        get_hub().schedule(Duration::ZERO, move || {
            let trampoline = trampoline(&reader, Interest::READ, None).map(drop);
            let join = green.wait();
            let slept = catch_unwind(|| sleep(SHORT));
            *seen.borrow_mut() = Some((trampoline, join, slept));
        });
        sleep(SHORT);
        let (trampoline, join, slept) = waited.take().expect("the callback ran");
        assert!(
            matches!(&trampoline, Err(TrampolineError::Loop(error)) if error.kind() == LoopErrorKind::InMainloop),
            "{trampoline:?}"
        );
        assert!(matches!(&join, Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::InMainloop), "{join:?}");
        let slept = message(slept);
        assert!(slept.contains("do not call blocking functions from the main loop"), "{slept}");
        assert_eq!(get_hub().stats().readers, 0);
    });
}

#[test]
fn a_zero_sleep_on_the_main_loop_does_nothing() {
    limited(|| {
        let (after, set) = flag();
        get_hub().schedule(Duration::ZERO, move || {
            sleep(Duration::ZERO);
            set();
        });
        sleep(Duration::ZERO);
        assert!(after.get());
    });
}

#[test]
fn running_the_loop_from_inside_itself_is_an_error() {
    limited(|| {
        let hub = get_hub();
        let errors = Rc::new(RefCell::new(Vec::new()));
        let seen = errors.clone();
        hub.schedule(Duration::ZERO, move || {
            let run = get_hub().run_once(None).unwrap_err();
            let enter = wait_for_nothing();
            seen.borrow_mut().extend([run, enter]);
        });
        sleep(SHORT);
        let errors = errors.take();
        assert!(errors.iter().all(|error| error.kind() == LoopErrorKind::InMainloop), "{errors:?}");
        assert_ne!(errors[0].to_string(), errors[1].to_string());
        assert!(hub.is_running());
        sleep(SHORT);
    });
}

#[test]
fn a_failing_timer_is_reported_and_the_others_fire() {
    limited(|| {
        keep_reports();
        let hub = get_hub();
        let ((first, set_first), (last, set_last)) = (flag(), flag());
        hub.schedule(SHORT, set_first);
        hub.schedule(SHORT, || panic!("the timer in between"));
        hub.schedule(SHORT, set_last);
        let start = Instant::now();
        sleep(4 * SHORT);
        assert!(start.elapsed() >= 4 * SHORT);
        assert!(first.get() && last.get());
        let reports = reports();
        assert!(reports.len() == 1 && reports[0].contains("the timer in between"), "{reports:?}");
    });
}

/// A descriptor that records its own drop.
struct Held(OwnedFd, Rc<Cell<bool>>);

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.1.set(true);
    }
}

#[test]
fn a_failing_listener_is_reported_and_its_descriptor_dropped() {
    limited(|| {
        keep_reports();
        let hub = get_hub();
        let (reader, mut writer) = io::pipe().unwrap();
        let dropped = Rc::new(Cell::new(false));
        let calls = Rc::new(Cell::new(0));
        let count = calls.clone();
        let fail = move |_: Readiness| {
            count.set(count.get() + 1);
            panic!("the listener");
        };
        let failed = hub.listen(Held(reader.into(), dropped.clone()), Interest::READ, fail).unwrap();
        writer.write_all(b"x").unwrap();
        sleep(SHORT);
        assert_eq!(calls.get(), 1);
        assert!(dropped.get());
        assert_eq!(hub.stats().readers, 0);
        let reports = reports();
        assert!(reports.len() == 1 && reports[0].contains("the listener"), "{reports:?}");

        // Dropping the failed registration does not affect a new listener on the same number.
        let (reader, mut writer) = io::pipe().unwrap();
        let (called, call) = flag();
        let _next = hub.listen(reader, Interest::READ, move |_: Readiness| call()).unwrap();
        drop(failed);
        writer.write_all(b"x").unwrap();
        sleep(SHORT);
        assert!(called.get());
    });
}

#[test]
fn a_failing_listener_leaves_the_one_of_the_other_direction() {
    limited(|| {
        keep_reports();
        let hub = get_hub();
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Rc::new(near);
        let (wrote, write) = flag();
        fill(&near);
        let _writer = hub.listen(RcFd(near.clone()), Interest::WRITE, move |_: Readiness| write()).unwrap();
        let _reader = hub.listen(RcFd(near), Interest::READ, |_: Readiness| panic!("the listener")).unwrap();
        far.write_all(b"x").unwrap();
        sleep(SHORT);
        assert_eq!((hub.stats().readers, hub.stats().writers), (0, 1));
        assert!(!wrote.get());
        drain(&mut far);
        sleep(SHORT);
        assert!(wrote.get());
    });
}

struct RcFd(Rc<UnixStream>);

impl AsFd for RcFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Writes until the socket's buffer is full.
fn fill(mut stream: &UnixStream) {
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[0; 4096]).is_ok() {}
}

fn drain(stream: &mut UnixStream) {
    stream.set_nonblocking(true).unwrap();
    while io::Read::read(stream, &mut [0; 65536]).is_ok() {}
}

#[test]
fn a_failing_reader_does_not_wake_the_writer_of_its_descriptor() {
    limited(|| {
        keep_reports();
        let (near, mut far) = UnixStream::pair().unwrap();
        fill(&near);
        let near = Rc::new(near);
        let (woken, wake) = flag();
        let stream = near.clone();
        spawn_n(move || {
            trampoline(&*stream, Interest::WRITE, None).unwrap();
            wake();
        });
        let reader = spawn(move || {
            trampoline(&*near, Interest::READ, None).unwrap();
            panic!("the reader");
        });
        sleep(SHORT);
        far.write_all(b"x").unwrap();
        assert!(matches!(reader.join(), Err(GreenError::Panic(_))));
        sleep(SHORT);
        assert!(!woken.get());
        assert_eq!(get_hub().stats().writers, 1);
        drain(&mut far);
        sleep(SHORT);
        assert!(woken.get());
    });
}

#[test]
fn silenced_reports_stay_silent_on_every_path() {
    in_child(|| {
        keep_reports();
        let fail_everywhere = || {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(b"x").unwrap();
            let listen = |_: Readiness| panic!("a listener");
            let _listener = get_hub().listen(reader, Interest::READ, listen).unwrap();
            get_hub().schedule(Duration::ZERO, || panic!("a callback"));
            get_hub().schedule(SHORT, || panic!("a timer"));
            spawn_n(|| panic!("a green thread"));
            drop(spawn(|| Err::<(), _>("an error")));
            let linked = spawn(|| ());
            linked.link(|_| panic!("a link"));
            sleep(4 * SHORT);
        };
        hub_exceptions(false);
        fail_everywhere();
        assert_eq!(reports(), [""; 0]);
        hub_exceptions(true);
        fail_everywhere();
        assert_eq!(reports().len(), 6, "{:?}", reports());
    });
}

#[test]
fn the_loop_restarts_after_a_system_error_with_its_timers() {
    limited(|| {
        let hub = use_manual_clock();
        let ((fired, fire), (called, call)) = (flag(), flag());
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Rc::new(near);
        hub.schedule(4 * SHORT, fire);
        // The manual clock stands still while a descriptor is readable.
        let listened = near.clone();
        let listener = move |_: Readiness| {
            assert_eq!(io::Read::read(&mut &*listened, &mut [0]).unwrap(), 1);
            call();
        };
        let _listener = hub.listen(RcFd(near), Interest::READ, listener).unwrap();
        let interrupted = hub.clone();
        hub.schedule(SHORT, move || interrupted.interrupt());
        assert!(wait_for_nothing().kind() == LoopErrorKind::Interrupted);
        assert!(!hub.is_running());
        assert!(!fired.get());
        far.write_all(b"x").unwrap();
        sleep(6 * SHORT);
        assert!(hub.is_running() && hub.is_current());
        assert!(fired.get() && called.get());
    });
}

#[test]
fn an_interrupt_reaches_main_at_its_next_yield() {
    limited(|| {
        for pause in [greenhub::thread::yield_now, || sleep(Duration::ZERO)] {
            get_hub().interrupt();
            let yielded = catch_unwind(|| (0..20_000).for_each(|_| pause()));
            let message = *yielded.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains("interrupted"), "{message}");
        }
    });
}

#[test]
fn green_threads_of_a_dead_loop_end_in_the_new_one() {
    limited(|| {
        let hub = use_manual_clock();
        let green = spawn(|| sleep(10 * SHORT));
        let interrupted = hub.clone();
        hub.schedule(SHORT, move || interrupted.interrupt());
        assert!(wait_for_nothing().kind() == LoopErrorKind::Interrupted);
        assert!(!green.is_finished());

        let (reader, _writer) = io::pipe().unwrap();
        let start = hub.now();
        let waited = trampoline(&reader, Interest::READ, Some(12 * SHORT));
        assert!(matches!(waited, Err(TrampolineError::TimedOut { .. })), "{waited:?}");
        assert!(hub.now() >= start + 12 * SHORT);
        assert!(green.is_finished());
    });
}

#[test]
fn abort_ends_the_loop_after_the_turn() {
    limited(|| {
        let hub = get_hub();
        let (after, set) = flag();
        let aborted = hub.clone();
        let running = Rc::new(Cell::new(false));
        let seen = running.clone();
        spawn_n(move || {
            aborted.abort();
            seen.set(aborted.is_running());
        });
        spawn_n(set);
        assert!(wait_for_nothing().kind() == LoopErrorKind::Aborted);
        assert!(running.get() && after.get());
        assert!(!hub.is_running());

        sleep(Duration::ZERO);
        assert!(hub.is_running());
        hub.abort_wait().unwrap();
        assert!(!hub.is_running());
    });
}

#[test]
fn abort_discards_the_timers() {
    limited(|| {
        let hub = use_manual_clock();
        let (fired, fire) = flag();
        hub.schedule(10 * SHORT, fire.clone());
        let aborted = hub.clone();
        hub.schedule(SHORT, move || {
            aborted.schedule(Duration::ZERO, fire.clone());
            aborted.abort();
        });
        let asleep = spawn(|| sleep(10 * SHORT));
        assert!(wait_for_nothing().kind() == LoopErrorKind::Aborted);
        assert_eq!(hub.stats().timers, 0);
        sleep(12 * SHORT);
        assert!(!fired.get());
        assert!(matches!(asleep.join(), Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::Aborted));
    });
}

#[test]
fn an_open_timeout_survives_an_abort() {
    limited(|| {
        let hub = get_hub();
        let never = Rc::new(spawn(|| drop(wait_for_nothing())));
        let green = spawn(move || greenhub::with_timeout(4 * SHORT, || never.wait()).is_err());
        sleep(Duration::ZERO);
        hub.abort_wait().unwrap();
        assert!(green.join().unwrap());
    });
}

#[test]
fn a_hub_works_again_after_abort() {
    limited(|| {
        let hub = get_hub();
        sleep(SHORT);
        hub.abort_wait().unwrap();
        let green = spawn(|| sleep(SHORT));
        sleep(2 * SHORT);
        green.join().unwrap();
        assert!(hub.is_current() && hub.is_running());
    });
}

#[test]
fn waiting_for_abort_inside_the_loop_is_an_error() {
    limited(|| {
        let hub = get_hub();
        let result = Rc::new(RefCell::new(None));
        let (aborted, seen) = (hub.clone(), result.clone());
        hub.schedule(Duration::ZERO, move || *seen.borrow_mut() = Some(aborted.abort_wait()));
        let aborted = hub.clone();
        let green = spawn(move || aborted.abort_wait());
        sleep(SHORT);
        assert!(matches!(result.take(), Some(Err(error)) if error.kind() == LoopErrorKind::InMainloop));
        assert!(matches!(green.join().unwrap(), Err(error) if error.kind() == LoopErrorKind::InMainloop));
        assert!(hub.is_running());
    });
}

#[test]
fn aborting_a_loop_that_never_ran_returns_at_once() {
    limited(|| {
        let hub = get_hub();
        hub.abort();
        hub.abort_wait().unwrap();
        assert_eq!(hub.stats().turns, 0);
        // The abort does not affect a later loop.
        let (reader, _writer) = io::pipe().unwrap();
        let waited = trampoline(&reader, Interest::READ, Some(SHORT));
        assert!(matches!(waited, Err(TrampolineError::TimedOut { .. })), "{waited:?}");
    });
}

#[test]
fn abort_does_not_wait_for_far_timers() {
    limited(|| {
        let hub = get_hub();
        hub.schedule(LONG, || ());
        let start = Instant::now();
        sleep(Duration::ZERO);
        hub.abort_wait().unwrap();
        assert!(start.elapsed() < LONG / 2);
    });
}

/// Returns two green threads, "left" and "right", that wait for each other.
pub(crate) fn deadlock() -> [Rc<GreenThread<()>>; 2] {
    let other: [Rc<OnceCell<Rc<GreenThread<()>>>>; 2] = Default::default();
    let spawn_one = |name: &str, other: &Rc<OnceCell<Rc<GreenThread<()>>>>| {
        let other = other.clone();
        Rc::new(Builder::new().name(name.into()).spawn(move || drop(other.get().unwrap().clone().wait())).unwrap())
    };
    let left = spawn_one("left", &other[1]);
    let right = spawn_one("right", &other[0]);
    let _ = other[0].set(left.clone());
    let _ = other[1].set(right.clone());
    [left, right]
}

#[test]
fn main_gets_loop_exit_when_nothing_can_wake_it() {
    limited(|| {
        let [left, _right] = deadlock();
        let Err(GreenError::Loop(error)) = left.wait() else { panic!("main waits forever") };
        let LoopExit { parked, .. } = error.loop_exit().expect("nothing is left");
        assert_eq!(parked.len(), 2, "{parked:?}");
        for (line, name) in parked.iter().zip(["left", "right"]) {
            assert!(line.contains(name) && line.contains("main_loop.rs") && line.contains("waiting for"), "{line}");
        }
        sleep(SHORT);
        left.kill();
        sleep(SHORT);
        assert!(left.is_finished());
    });
}

#[test]
fn a_wait_that_has_ended_does_not_prevent_loop_exit() {
    limited(|| {
        // The OS thread of the harness could have ended this wait. It cannot end those below.
        let (sender, receiver) = greenhub::sync::mpsc::channel();
        let sends = spawn(move || sender.send(1).is_ok());
        assert_eq!(receiver.recv(), Ok(1));
        assert!(sends.join().unwrap());
        let [left, _right] = deadlock();
        assert!(matches!(left.wait(), Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::LoopExit));
    });
}

#[test]
fn a_remote_handle_keeps_main_waiting() {
    limited(|| {
        let remote = get_hub().remote();
        let [left, _right] = deadlock();
        let main = std::thread::current().id();
        let start = Instant::now();
        let other = std::thread::spawn(move || {
            std::thread::sleep(4 * SHORT);
            remote.spawn(move || assert_eq!(std::thread::current().id(), main)).unwrap();
            std::thread::sleep(4 * SHORT);
        });
        // `LoopExit` is reported only after the remote handle is dropped.
        assert!(matches!(left.wait(), Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::LoopExit));
        assert!(start.elapsed() >= 8 * SHORT);
        other.join().unwrap();
    });
}

#[test]
fn a_panic_in_one_green_thread_is_not_seen_by_another() {
    limited(|| {
        struct Blocks;
        impl Drop for Blocks {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
                sleep(SHORT);
            }
        }
        let seen = Rc::new(Cell::new(false));
        let look = seen.clone();
        let observer = spawn(move || {
            for _ in 0..10 {
                look.set(look.get() | std::thread::panicking());
                sleep(Duration::ZERO);
            }
        });
        let failing = spawn(|| {
            let _blocks = Blocks;
            sleep(Duration::ZERO);
            panic!("of one");
        });
        let caught = spawn(|| {
            let caught = catch_unwind(|| panic!("of another"));
            sleep(SHORT);
            caught.unwrap_err().downcast_ref::<&str>().copied()
        });
        assert!(matches!(failing.join(), Err(GreenError::Panic(panic)) if panic.message() == "of one"));
        assert_eq!(caught.join().unwrap(), Some("of another"));
        observer.join().unwrap();
        assert!(!seen.get());
    });
}

#[test]
fn an_idle_hub_uses_no_processor_time() {
    limited(|| {
        let hub = get_hub();
        sleep(SHORT);
        let (waits, used) = (hub.stats().waits, processor_time());
        sleep(Duration::from_millis(500));
        let used = processor_time() - used;
        assert!(hub.stats().waits - waits <= 3);
        assert!(used < Duration::from_millis(25), "{used:?}");
    });

    fn processor_time() -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }
}

#[test]
fn descriptors_are_served_while_green_threads_keep_yielding() {
    limited(|| {
        let hub = get_hub();
        let stop = Rc::new(Cell::new(false));
        for _ in 0..3 {
            let stop = stop.clone();
            spawn_n(move || {
                while !stop.get() {
                    greenhub::thread::yield_now();
                }
            });
        }
        // Zero-delay callbacks that reschedule themselves.
        fn again(hub: &HubRef, stop: &Rc<Cell<bool>>) {
            let (hub, stop) = (hub.clone(), stop.clone());
            hub.clone().schedule(Duration::ZERO, move || {
                if !stop.get() {
                    again(&hub, &stop);
                }
            });
        }
        again(&hub, &stop);
        let (reader, mut writer) = io::pipe().unwrap();
        let served = spawn(move || trampoline(&reader, Interest::READ, None).is_ok());
        let (fired, fire) = flag();
        hub.schedule(SHORT, fire);
        writer.write_all(b"x").unwrap();
        assert!(served.join().unwrap());
        while !fired.get() {
            greenhub::thread::yield_now();
        }
        stop.set(true);
    });
}

// ---- hubs that fail ---------------------------------------------------------------------------

thread_local! {
    static CALLS: Calls = Calls::default();
}

/// Selects a hub that is rebuilt after a failure.
fn use_hub_with_hooks() -> (HubRef, Calls) {
    let descriptor = HubDescriptor {
        name: "counted",
        aliases: &[],
        available: || true,
        build: || Ok(Box::new(CALLS.with(Calls::clone).hub()?)),
    };
    use_hub_descriptor(Some(descriptor)).unwrap();
    (get_hub(), CALLS.with(Calls::clone))
}

#[test]
fn a_wait_that_fails_reaches_main_and_the_next_call_builds_a_new_hub() {
    limited(|| {
        let (hub, calls) = use_hub_with_hooks();
        let (fired, fire) = flag();
        hub.schedule(SHORT, fire);
        let (reader, mut writer) = io::pipe().unwrap();
        let green = spawn(move || trampoline(&reader, Interest::READ, None).is_ok());
        sleep(Duration::ZERO);
        calls.in_wait.set(Some(Box::new(|| Err(io::Error::from_raw_os_error(libc::ENOMEM)))));
        let error = wait_for_nothing();
        assert_eq!(error.io_error().and_then(io::Error::raw_os_error), Some(libc::ENOMEM), "{error:?}");
        assert!(error.to_string().contains("\"counted\""), "{error}");
        assert!(!hub.is_running());
        sleep(2 * SHORT);
        assert!(fired.get());
        // A waiter of the failed hub waits on the new one.
        writer.write_all(b"x").unwrap();
        assert!(green.join().unwrap());
    });
}

#[test]
fn a_hub_that_panics_reaches_main_and_the_next_call_builds_a_new_one() {
    limited(|| {
        let (hub, calls) = use_hub_with_hooks();
        let remote = hub.remote();
        let (called, call) = flag();
        let (reader, mut writer) = io::pipe().unwrap();
        let _listener = hub.listen(reader, Interest::READ, move |_: Readiness| call()).unwrap();
        calls.in_wait.set(Some(Box::new(|| panic!("out of order"))));
        let error = wait_for_nothing();
        assert_eq!(error.kind(), LoopErrorKind::Panic);
        assert!(error.to_string().starts_with("the hub \"counted\" panicked while waiting"), "{error}");
        assert!(error.to_string().ends_with("out of order"), "{error}");
        writer.write_all(b"x").unwrap();
        sleep(SHORT);
        assert!(called.get());
        // A remote handle reaches the new hub.
        let green = spawn(|| drop(wait_for_nothing()));
        sleep(Duration::ZERO);
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || remote.spawn(move || done.send(()).unwrap()).unwrap()).join().unwrap();
        while is_done.try_recv().is_err() {
            hub.run_once(None).unwrap();
        }
        green.kill();
        assert_eq!(hub.stats().readers, 1, "the listener, and nothing of the hub that failed");
    });
}

#[test]
fn a_hub_that_panics_does_not_keep_a_dead_loop_waiting() {
    limited(|| {
        let (_hub, calls) = use_hub_with_hooks();
        calls.in_wait.set(Some(Box::new(|| panic!("out of order"))));
        assert!(wait_for_nothing().kind() == LoopErrorKind::Panic);
        let [left, _right] = deadlock();
        assert!(matches!(left.wait(), Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::LoopExit));
    });
}

#[test]
fn a_failed_hub_from_use_hub_with_stays_an_error_until_use_hub() {
    limited(|| {
        let calls = Calls::default();
        let look = calls.clone();
        use_hub_with(move || look.hub()).unwrap();
        calls.in_wait.set(Some(Box::new(|| panic!("out of order"))));
        assert!(wait_for_nothing().kind() == LoopErrorKind::Panic);
        let error = wait_for_nothing();
        assert!(error.kind() == LoopErrorKind::Hub && error.to_string().contains("use_hub_with"), "{error}");
        let look = calls.clone();
        use_hub_with(move || look.hub()).unwrap();
        sleep(SHORT);
    });
}

#[test]
fn a_wait_inside_a_hub_call_is_the_blocking_error() {
    limited(|| {
        let (_hub, calls) = use_hub_with_hooks();
        let errors = Rc::new(RefCell::new(Vec::new()));
        for in_watch in [false, true] {
            let seen = errors.clone();
            let victim = Rc::new(spawn(|| sleep(LONG)));
            sleep(Duration::ZERO);
            let trick = move || {
                let slept = message(catch_unwind(|| sleep(SHORT)));
                let yielded = in_watch.then(|| message(catch_unwind(greenhub::thread::yield_now)));
                let joined = victim.wait().unwrap_err().to_string();
                let ran = get_hub().run_once(None).unwrap_err().to_string();
                let (reader, _writer) = io::pipe().unwrap();
                let listened = get_hub().listen(reader, Interest::READ, |_: Readiness| ()).unwrap_err().to_string();
                let chosen = use_hub_with(|| Calls::default().hub()).unwrap_err().to_string();
                let raw = Greenlet::new(Ok).switch(Payload::unit()).map(drop).unwrap_err().to_string();
                victim.kill();
                seen.borrow_mut().push(raw);
                seen.borrow_mut().extend([wait_for_nothing().to_string(), slept, joined, ran, listened, chosen]);
                seen.borrow_mut().extend(yielded);
                Ok(())
            };
            let place = if in_watch { &calls.in_watch } else { &calls.in_wait };
            place.set(Some(Box::new(trick)));
            let (reader, _writer) = io::pipe().unwrap();
            // The nested call's failure may end the outer wait early; readiness is only a hint.
            let _ = trampoline(&reader, Interest::READ, Some(SHORT));
            let waited = trampoline(&reader, Interest::READ, Some(SHORT));
            assert!(matches!(waited, Err(TrampolineError::TimedOut { .. })), "the hub goes on: {waited:?}");
        }
        let errors = errors.take();
        assert_eq!(errors.len(), 15);
        assert!(errors.iter().all(|error| error.contains("main loop")), "{errors:#?}");
    });
}

// ---- from outside -----------------------------------------------------------------------------

#[test]
fn a_notice_before_run_once_keeps_it_from_sleeping() {
    limited(|| {
        let hub = get_hub();
        let _long = hub.schedule(Duration::from_secs(3600), || ());
        // The notice arrives after the caller's last check and before its turn.
        hub.remote().notify();
        hub.run_once(None).unwrap();
        hub.remote().notify();
        hub.run_once(None).unwrap();
    });
}

#[test]
fn run_once_runs_one_turn() {
    limited(|| {
        let hub = use_manual_clock();
        let (fired, fire) = flag();
        let armed_at = hub.now();
        hub.schedule(2 * SHORT, fire);
        assert!(hub.next_deadline().unwrap() >= armed_at + 2 * SHORT);
        let turns = hub.stats().turns;
        hub.run_once(Some(Duration::ZERO)).unwrap();
        assert!(!fired.get());
        assert!(hub.stats().turns - turns <= 2);
        while !fired.get() {
            hub.run_once(None).unwrap();
        }
        assert_eq!(hub.next_deadline(), None);
    });
}

#[test]
fn run_once_waits_no_longer_than_its_limit() {
    limited(|| {
        let hub = get_hub();
        hub.schedule(LONG, || ());
        let start = Instant::now();
        hub.run_once(Some(SHORT)).unwrap();
        assert!(start.elapsed() >= SHORT && start.elapsed() < LONG / 2);
    });
}

#[test]
fn run_once_is_for_the_main_greenlet() {
    limited(|| {
        let green = spawn(|| get_hub().run_once(Some(Duration::ZERO)));
        assert!(matches!(green.join().unwrap(), Err(error) if error.kind() == LoopErrorKind::InMainloop));
    });
}

#[test]
fn run_once_with_nothing_to_wait_for_is_a_loop_exit() {
    limited(|| {
        assert!(matches!(get_hub().run_once(None), Err(error) if error.kind() == LoopErrorKind::LoopExit));
    });
}

#[test]
fn a_ready_greenlet_is_due_at_once_for_an_outer_loop() {
    limited(|| {
        let hub = get_hub();
        hub.schedule(LONG, || ());
        hub.run_once(Some(Duration::ZERO)).unwrap();
        assert!(hub.next_deadline().unwrap() > hub.now());
        spawn_n(|| ());
        assert!(hub.next_deadline().unwrap() <= hub.now());
    });
}

#[test]
fn an_outer_loop_sees_a_ready_descriptor() {
    limited(|| {
        let hub = get_hub();
        let (reader, mut writer) = io::pipe().unwrap();
        let green = spawn(move || trampoline(&reader, Interest::READ, None).is_ok());
        hub.run_once(Some(Duration::ZERO)).unwrap();
        if hub.pollable().is_some() {
            assert!(!is_readable(hub.pollable().expect("the hub has a descriptor"), Duration::ZERO));
            writer.write_all(b"x").unwrap();
            assert!(is_readable(hub.pollable().expect("the hub has a descriptor"), LONG));
        } else {
            writer.write_all(b"x").unwrap();
        }
        while !green.is_finished() {
            hub.run_once(Some(Duration::ZERO)).unwrap();
        }
        assert!(green.join().unwrap());
    });
}

#[test]
fn an_outer_loop_is_woken_by_other_threads() {
    limited(|| {
        let hub = get_hub();
        let remote = hub.remote();
        hub.run_once(Some(Duration::ZERO)).unwrap();
        if hub.pollable().is_none() {
            return;
        }
        for _ in 0..100 {
            let (done, is_done) = std::sync::mpsc::channel();
            let remote = remote.clone();
            let other = std::thread::spawn(move || remote.spawn(move || done.send(()).unwrap()).unwrap());
            while is_done.try_recv().is_err() {
                assert!(
                    hub.next_deadline().is_some()
                        || is_readable(hub.pollable().expect("the hub has a descriptor"), LONG)
                );
                hub.run_once(Some(Duration::ZERO)).unwrap();
            }
            other.join().unwrap();
        }
    });
}

#[test]
fn run_once_returns_the_failure_of_its_turn() {
    limited(|| {
        let hub = get_hub();
        let interrupted = hub.clone();
        hub.schedule(Duration::ZERO, move || interrupted.interrupt());
        let run = catch_unwind(AssertUnwindSafe(|| hub.run_once(Some(Duration::ZERO))));
        assert!(matches!(&run, Ok(Err(error)) if error.kind() == LoopErrorKind::Interrupted));
        hub.run_once(Some(Duration::ZERO)).unwrap();
    });
}

#[test]
fn a_listener_is_closed_when_the_hub_refuses_to_rearm_it() {
    struct Refused {
        calls: Calls,
        closed: Rc<Cell<u32>>,
    }
    impl Listener for Refused {
        fn ready(&self, _fd: RawFd, _what: Readiness) {
            // The next watch is the rearm after this call.
            self.calls.in_watch.set(Some(Box::new(|| Err(io::ErrorKind::StorageFull.into()))));
        }
        fn closed(&self, _fd: RawFd) {
            self.closed.set(self.closed.get() + 1);
        }
    }
    limited(|| {
        let (calls, closed) = (Calls::default(), Rc::new(Cell::new(0)));
        let hub = calls.clone();
        use_hub_with(move || hub.hub()).unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let listener = Refused { calls, closed: Rc::clone(&closed) };
        let _registration = get_hub().listen(reader, Interest::READ, listener).unwrap();
        writer.write_all(b"x").unwrap();
        sleep(SHORT);
        assert_eq!(closed.get(), 1);
    });
}

#[test]
fn a_number_released_inside_the_hub_leaves_no_trace() {
    limited(|| {
        let calls = Calls::default();
        let hub = calls.clone();
        use_hub_with(move || hub.hub()).unwrap();
        sleep(SHORT);
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let fd = reader.as_raw_fd();
        calls.in_watch.set(Some(Box::new(move || {
            notify_close(fd);
            Ok(())
        })));
        let waited = trampoline(&reader, Interest::READ, Some(LONG));
        assert!(matches!(waited, Err(TrampolineError::Closed { .. })), "{waited:?}");
        trampoline(&reader, Interest::READ, Some(LONG)).expect("no waiter of the number is left");
    });
}
