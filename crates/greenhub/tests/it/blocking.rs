//! The blocking detector reports a greenlet that holds the main loop for too long. Tests with signals run in their own
//! process.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::support::fork::{exits_with, forked};
use crate::support::green::{LONG, SHORT, pipe};
use crate::support::{alone, assert_succeeded, is_child, rerun, run};
use greenhub::debug::{Report, hub_blocking_detection, set_report_stream};
use greenhub::hub::set_turn_time;
use greenhub::thread::yield_now;
use greenhub::{Builder, Interest, get_hub, sleep, spawn, tpool};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

/// Much longer than the detector's resolution.
const TIMEOUT: Duration = Duration::from_secs(60);
const RESOLUTION: Duration = Duration::from_millis(40);

/// Returns the greenlets that are reported as blocking from now on, with the time for which each held the loop.
fn blockers() -> mpsc::Receiver<(String, Duration)> {
    let (reports, blocked) = mpsc::channel();
    set_report_stream(move |report| {
        if let Report::Blocked { name, held, .. } = report {
            let _ = reports.send((name.clone(), *held));
        }
    });
    blocked
}

/// Keeps the processor busy until a report's name contains `name`, and returns that report.
///
/// If the system does not schedule this process for long, the detector reports other greenlets too.
fn block_until_reported(blocked: &mpsc::Receiver<(String, Duration)>, name: &str) -> (String, Duration) {
    let begin = Instant::now();
    while begin.elapsed() < TIMEOUT {
        match blocked.try_recv() {
            Ok(report) if report.0.contains(name) => return report,
            _ => {}
        }
    }
    panic!("{name} was not reported")
}

#[test]
fn a_green_thread_that_never_yields_is_reported_while_it_runs() {
    alone("a_green_thread_that_never_yields_is_reported_while_it_runs", || {
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        sleep(SHORT);
        let selfish =
            Builder::new().name("selfish".into()).spawn(move || block_until_reported(&blocked, "selfish")).unwrap();
        let (name, held) = selfish.join().unwrap();
        assert!(name.contains("green thread \"selfish\" (spawned at ") && name.contains(file!()), "{name}");
        assert!(held >= RESOLUTION, "{held:?}");
    });
}

#[test]
fn a_call_that_blocks_the_os_thread_is_reported() {
    alone("a_call_that_blocks_the_os_thread_is_reported", || {
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        let reported = spawn(move || {
            // Each wait blocks the OS thread; the main greenlet may have been reported before.
            std::iter::from_fn(|| blocked.recv_timeout(TIMEOUT).ok())
                .any(|(name, _)| name.starts_with("green thread (spawned at "))
        });
        assert!(reported.join().unwrap());
    });
}

#[test]
fn each_blocking_period_is_reported_once() {
    alone("each_blocking_period_is_reported_once", || {
        let blocked = Rc::new(blockers());
        hub_blocking_detection(RESOLUTION).unwrap();
        let twice = Builder::new().name("twice".into()).spawn({
            let blocked = Rc::clone(&blocked);
            move || {
                let first = block_until_reported(&blocked, "twice").0;
                // Blocks for longer than the detector needed for the first report.
                std::thread::sleep(3 * RESOLUTION);
                assert!(blocked.try_recv().is_err(), "reported twice");
                yield_now();
                sleep(SHORT);
                (first, block_until_reported(&blocked, "twice").0)
            }
        });
        let (first, second) = twice.unwrap().join().unwrap();
        assert_eq!(first, second);
    });
}

#[test]
fn a_greenlet_that_yields_often_enough_is_not_reported() {
    alone("a_greenlet_that_yields_often_enough_is_not_reported", || {
        nothing_is_reported(|paces| {
            let stop = Rc::new(Cell::new(false));
            let busy: Vec<_> = (0..2)
                .map(|_| {
                    let (stop, paces) = (Rc::clone(&stop), Rc::clone(paces));
                    spawn(move || {
                        while !stop.get() {
                            paces.mark();
                            std::thread::sleep(Duration::from_millis(2));
                            paces.mark();
                            yield_now();
                        }
                    })
                })
                .collect();
            // Longer than the resolution, in which the loop never waits.
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(1500) {
                paces.mark();
                yield_now();
            }
            stop.set(true);
            busy.into_iter().for_each(|one| one.join().unwrap());
            // Neither a sleeping hub nor a job on a pool thread is reported.
            let long = Duration::from_millis(700);
            paces.mark();
            sleep(long);
            paces.mark_after(long);
            tpool::execute(move || std::thread::sleep(long)).unwrap();
            paces.mark_after(long);
        });
    });
}

/// The longest time that the OS thread went without a mark, minus intended pauses.
///
/// Each greenlet marks when it begins to run and before it switches. So no greenlet held the loop for more than three
/// such times.
struct Paces {
    last: Cell<Instant>,
    longest: Cell<Duration>,
}

impl Paces {
    fn mark(&self) {
        self.mark_after(Duration::ZERO);
    }

    fn mark_after(&self, pause: Duration) {
        let pace = self.last.replace(Instant::now()).elapsed().saturating_sub(pause);
        self.longest.set(self.longest.get().max(pace));
    }
}

/// Asserts that the detector reports nothing during `work`.
///
/// Repeats `work` if the system did not schedule this process for so long that a report would be right.
fn nothing_is_reported(work: fn(&Rc<Paces>)) {
    let resolution = Duration::from_millis(400);
    let blocked = blockers();
    hub_blocking_detection(resolution).unwrap();
    // On a machine that is always too busy, the test proves nothing.
    for _ in 0..10 {
        let paces = Rc::new(Paces { last: Cell::new(Instant::now()), longest: Cell::default() });
        yield_now();
        blocked.try_iter().for_each(drop);
        work(&paces);
        paces.mark();
        if paces.longest.get() < resolution / 3 {
            return assert_eq!(blocked.try_recv().ok(), None);
        }
    }
}

#[test]
fn many_short_runs_in_one_turn_are_not_reported() {
    alone("many_short_runs_in_one_turn_are_not_reported", || {
        set_turn_time(LONG);
        nothing_is_reported(|paces| {
            let run = || {
                let paces = Rc::clone(paces);
                spawn(move || {
                    paces.mark();
                    std::thread::sleep(Duration::from_millis(6));
                    paces.mark();
                })
            };
            // One turn of the loop, in which each green thread runs for a moment.
            let many: Vec<_> = (0..200).map(|_| run()).collect();
            many.into_iter().for_each(|one| one.join().unwrap());
        });
    });
}

#[test]
fn a_timer_that_runs_too_long_is_reported() {
    alone("a_timer_that_runs_too_long_is_reported", || {
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        let reported = Rc::new(Cell::new(None));
        let report = Rc::clone(&reported);
        get_hub()
            .schedule(Duration::from_millis(1), move || report.set(Some(block_until_reported(&blocked, "callback").0)));
        sleep(SHORT);
        let name = reported.take().expect("the timer has run");
        assert!(name.starts_with("a callback (made at ") && name.contains(file!()), "{name}");
    });
}

#[test]
fn a_listener_that_runs_too_long_is_reported() {
    alone("a_listener_that_runs_too_long_is_reported", || {
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        let reported = Rc::new(Cell::new(None));
        let report = Rc::clone(&reported);
        let (reader, writer) = pipe();
        let listener = move |_| {
            let name = report.take().unwrap_or_else(|| block_until_reported(&blocked, "callback").0);
            report.set(Some(name));
        };
        let registration = get_hub().listen(reader, Interest::READ, listener).unwrap();
        drop(writer);
        let name = loop {
            sleep(SHORT);
            if let Some(name) = reported.take() {
                break name;
            }
        };
        drop(registration);
        assert!(name.starts_with("a callback (made at ") && name.contains(file!()), "{name}");
    });
}

#[test]
fn a_blocking_main_greenlet_is_reported() {
    alone("a_blocking_main_greenlet_is_reported", || {
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        sleep(SHORT);
        assert_eq!(block_until_reported(&blocked, "main").0, "the main greenlet");
    });
}

/// Runs a test in its own process, with the variable that switches the detector on.
#[track_caller]
fn with_variable(name: &str, value: &str, test: impl FnOnce() + Send + 'static) {
    if is_child() {
        return run(name, test);
    }
    assert_succeeded(&rerun(name, |command| _ = command.env("GREENHUB_BLOCKING", value)));
}

/// Returns the number of detectors.
fn watchdogs() -> usize {
    let name = |task: io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is mounted");
    // The system shortens the name.
    tasks.filter_map(name).filter(|name| name.starts_with("greenhub-watch")).count()
}

/// Runs a green thread on a new OS thread with a hub.
fn on_os_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let on_thread = || {
        sleep(SHORT);
        Builder::new().name("selfish".into()).spawn(body).unwrap().join().unwrap()
    };
    std::thread::spawn(on_thread).join().unwrap()
}

#[test]
fn the_environment_switches_the_detector_on_for_each_os_thread() {
    with_variable("the_environment_switches_the_detector_on_for_each_os_thread", "0.04", || {
        let blocked = blockers();
        let (blocked, (_, held)) = on_os_thread(move || {
            let first = block_until_reported(&blocked, "selfish");
            (blocked, first)
        });
        assert!(held >= RESOLUTION, "{held:?}");
        on_os_thread(move || drop(block_until_reported(&blocked, "selfish")));
    });
}

#[test]
fn a_call_of_the_program_wins_over_the_environment() {
    with_variable("a_call_of_the_program_wins_over_the_environment", "0.04", || {
        hub_blocking_detection(None).unwrap();
        sleep(SHORT);
        assert_eq!(disposition(), libc::SIG_DFL);
        on_os_thread(|| {
            assert_ne!(disposition(), libc::SIG_DFL);
            hub_blocking_detection(None).unwrap();
            assert_eq!(disposition(), libc::SIG_DFL);
            let other = if get_hub().name() == "poll" { "select" } else { "poll" };
            greenhub::use_hub(other).unwrap();
            sleep(SHORT);
            assert_eq!(disposition(), libc::SIG_DFL, "a second hub does not read the variable again");
        });
    });
}

#[test]
fn the_environment_leaves_pool_threads_out() {
    with_variable("the_environment_leaves_pool_threads_out", "0.01", || {
        let with_hub = || {
            sleep(SHORT);
            watchdogs()
        };
        assert_eq!(tpool::Pool::new(1).execute_scoped(with_hub).unwrap(), 1, "that of the caller");
    });
}

#[test]
fn a_wrong_value_in_the_environment_is_reported_once() {
    with_variable("a_wrong_value_in_the_environment_is_reported_once", "soon", || {
        let (reports, reported) = mpsc::channel();
        set_report_stream(move |report| {
            let _ = get_hub();
            let _ = reports.send(report.to_string());
        });
        sleep(SHORT);
        on_os_thread(|| assert_eq!(disposition(), libc::SIG_DFL));
        let all: Vec<String> = reported.try_iter().collect();
        assert!(matches!(&all[..], [one] if one.contains("GREENHUB_BLOCKING=\"soon\"")), "{all:?}");
    });
}

#[test]
fn the_resolution_is_above_zero_and_may_be_far_below_a_second() {
    run("the_resolution_is_above_zero_and_may_be_far_below_a_second", || {
        let error = hub_blocking_detection(Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        hub_blocking_detection(Duration::from_nanos(1)).unwrap();
        hub_blocking_detection(Duration::MAX).unwrap();
        hub_blocking_detection(None).unwrap();
    });
}

fn os_threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("/proc is mounted").count()
}

/// Returns whether the process soon has this number of OS threads. A joined OS thread may stay listed for a moment.
fn wait_for_os_threads(threads: usize) -> bool {
    let begin = Instant::now();
    while os_threads() != threads {
        if begin.elapsed() > TIMEOUT {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

static RAISED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_urgent(_: i32) {
    RAISED.fetch_add(1, Ordering::Relaxed);
}

/// Returns the disposition of `SIGURG`.
fn disposition() -> libc::sighandler_t {
    // SAFETY: all-zero bytes are a valid `sigaction`. With a null pointer for the new action the call only reads.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(libc::SIGURG, std::ptr::null(), &mut now), 0);
        now.sa_sigaction
    }
}

#[test]
fn switching_the_detector_off_restores_threads_and_signal_handler() {
    alone("switching_the_detector_off_restores_threads_and_signal_handler", || {
        let blocked = blockers();
        sleep(SHORT);
        let threads = os_threads();
        assert_eq!(disposition(), libc::SIG_DFL);
        hub_blocking_detection(RESOLUTION).unwrap();
        // A second call changes the resolution, and starts no second detector.
        hub_blocking_detection(2 * RESOLUTION).unwrap();
        assert!(wait_for_os_threads(threads + 1));
        assert_ne!(disposition(), libc::SIG_DFL);
        hub_blocking_detection(None).unwrap();
        hub_blocking_detection(None).unwrap();
        assert_eq!(disposition(), libc::SIG_DFL);
        assert!(wait_for_os_threads(threads));
        // Discards the earlier reports.
        blocked.try_iter().for_each(drop);
        std::thread::sleep(5 * RESOLUTION);
        assert!(blocked.try_recv().is_err());
    });
}

#[test]
fn the_programs_own_signal_handler_is_chained_and_restored() {
    alone("the_programs_own_signal_handler_is_chained_and_restored", || {
        let own = SigHandler::Handler(on_urgent);
        // SAFETY: the handler only adds to an atomic, which is async-signal-safe.
        unsafe { sigaction(Signal::SIGURG, &SigAction::new(own, SaFlags::empty(), SigSet::empty())).unwrap() };
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        block_until_reported(&blocked, "main");
        // With a long resolution the detector sends no signal in the rest of the test. A pending signal would absorb
        // the program's own.
        hub_blocking_detection(LONG).unwrap();
        assert_eq!(RAISED.load(Ordering::Relaxed), 0, "the program's handler has run for a signal of the detector");
        raise(Signal::SIGURG).unwrap();
        assert_eq!(RAISED.load(Ordering::Relaxed), 1);
        hub_blocking_detection(None).unwrap();
        assert_eq!(disposition(), on_urgent as extern "C" fn(i32) as usize);
    });
}

#[test]
fn the_programs_own_signal_does_not_count_as_the_detectors() {
    alone("the_programs_own_signal_does_not_count_as_the_detectors", || {
        let own = SigHandler::Handler(on_urgent);
        // SAFETY: the handler only adds to an atomic, which is async-signal-safe.
        unsafe { sigaction(Signal::SIGURG, &SigAction::new(own, SaFlags::empty(), SigSet::empty())).unwrap() };
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGURG);
        mask.thread_block().unwrap();
        raise(Signal::SIGURG).unwrap();
        // The pending signal absorbs the detector's signals, which are lost.
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        std::thread::sleep(5 * RESOLUTION);
        mask.thread_unblock().unwrap();
        assert_eq!(RAISED.load(Ordering::Relaxed), 1);
        // The detector sends its signal again.
        block_until_reported(&blocked, "main");
        assert_eq!(RAISED.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn several_hubs_use_the_detector_at_once() {
    alone("several_hubs_use_the_detector_at_once", || {
        let blocked = blockers();
        let reported: Vec<Arc<AtomicUsize>> = (0..3).map(|_| Arc::default()).collect();
        let threads: Vec<_> = reported
            .iter()
            .enumerate()
            .map(|(number, reported)| {
                let reported = Arc::clone(reported);
                std::thread::spawn(move || {
                    hub_blocking_detection(RESOLUTION).unwrap();
                    let block = move || {
                        while reported.load(Ordering::Relaxed) == 0 {
                            std::hint::spin_loop();
                        }
                    };
                    Builder::new().name(format!("on {number}")).spawn(block).unwrap().join().unwrap();
                })
            })
            .collect();
        while reported.iter().any(|reported| reported.load(Ordering::Relaxed) == 0) {
            let (name, _) = blocked.recv_timeout(TIMEOUT).unwrap();
            if let Some(number) = (0..3).find(|number| name.contains(&format!("\"on {number}\""))) {
                reported[number].fetch_add(1, Ordering::Relaxed);
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(disposition(), libc::SIG_DFL, "a thread that has ended has left its detector on");
    });
}

#[test]
fn the_detector_ends_with_its_os_thread() {
    alone("the_detector_ends_with_its_os_thread", || {
        let threads = os_threads();
        std::thread::spawn(|| {
            hub_blocking_detection(Duration::from_millis(1)).unwrap();
            // A parked green thread is left, and is unwound after the detector is gone.
            drop(spawn(|| sleep(LONG)));
            yield_now();
        })
        .join()
        .unwrap();
        assert!(wait_for_os_threads(threads));
    });
}

#[test]
fn a_forked_child_starts_without_a_detector_and_may_start_one() {
    alone("a_forked_child_starts_without_a_detector_and_may_start_one", || {
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        sleep(SHORT);
        let child = forked(|| {
            assert_eq!(os_threads(), 1);
            hub_blocking_detection(RESOLUTION).unwrap();
            assert!(!block_until_reported(&blocked, "main").0.is_empty());
            hub_blocking_detection(None).unwrap();
            assert!(wait_for_os_threads(1));
        });
        exits_with(child, 0);
        block_until_reported(&blocked, "main");
    });
}

#[test]
fn a_thread_that_blocks_the_signal_is_not_reported() {
    alone("a_thread_that_blocks_the_signal_is_not_reported", || {
        let blocked = blockers();
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGURG);
        mask.thread_block().unwrap();
        hub_blocking_detection(RESOLUTION).unwrap();
        std::thread::sleep(5 * RESOLUTION);
        assert!(blocked.try_recv().is_err());
        mask.thread_unblock().unwrap();
        block_until_reported(&blocked, "main");
    });
}
