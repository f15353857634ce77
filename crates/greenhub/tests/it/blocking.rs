//! Who holds the loop for too long is reported. What touches signals runs in a process of its own.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::support::green::{LONG, SHORT, pipe};
use crate::support::{in_child, is_child, run};
use greenhub::debug::hub_blocking_detection;
use greenhub::{Builder, Interest, Report, get_hub, set_report_stream, sleep, spawn, tpool, yield_now};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

/// Much longer than what is detected.
const PATIENCE: Duration = Duration::from_secs(60);
const RESOLUTION: Duration = Duration::from_millis(40);

/// Runs `test`, the body of the test `name`, in a process of its own.
fn alone(name: &str, test: fn()) {
    if is_child() {
        return run("alone", test);
    }
    let output = in_child(name, |_| ());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Who was reported as blocking, from now on.
fn blockers() -> mpsc::Receiver<(String, Duration)> {
    let (told, blocked) = mpsc::channel();
    set_report_stream(move |report| {
        if let Report::Blocked { name, held, .. } = report {
            let _ = told.send((name.clone(), *held));
        }
    });
    blocked
}

/// Keeps the processor busy until it is reported with this in its name, and says how.
///
/// Where the system takes the processor away for long, others are reported too.
fn block_until_told(blocked: &mpsc::Receiver<(String, Duration)>, who: &str) -> (String, Duration) {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        match blocked.try_recv() {
            Ok(told) if told.0.contains(who) => return told,
            _ => {}
        }
    }
    panic!("{who} was not reported")
}

#[test]
fn a_green_thread_that_never_gives_way_is_reported_while_it_runs() {
    alone("a_green_thread_that_never_gives_way_is_reported_while_it_runs", || {
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        sleep(SHORT);
        let selfish = Builder::new().name("selfish").spawn(move || block_until_told(&blocked, "selfish")).unwrap();
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
        let told = spawn(move || {
            // Each wait blocks the OS thread; the main greenlet may have been reported before.
            std::iter::from_fn(|| blocked.recv_timeout(PATIENCE).ok())
                .any(|(name, _)| name.starts_with("green thread (spawned at "))
        });
        assert!(told.join().unwrap());
    });
}

#[test]
fn it_is_reported_once_for_each_time() {
    alone("it_is_reported_once_for_each_time", || {
        let blocked = Rc::new(blockers());
        hub_blocking_detection(RESOLUTION).unwrap();
        let twice = Builder::new().name("twice").spawn({
            let blocked = Rc::clone(&blocked);
            move || {
                let first = block_until_told(&blocked, "twice").0;
                // Goes on for as long as it took, and more.
                std::thread::sleep(3 * RESOLUTION);
                assert!(blocked.try_recv().is_err(), "told twice");
                yield_now();
                sleep(SHORT);
                (first, block_until_told(&blocked, "twice").0)
            }
        });
        let (first, second) = twice.unwrap().join().unwrap();
        assert_eq!(first, second);
    });
}

#[test]
fn who_gives_way_often_enough_is_not_reported() {
    alone("who_gives_way_often_enough_is_not_reported", || {
        nobody_is_reported(|paces| {
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
            // Longer than the resolution, without any wait of the loop.
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(1500) {
                paces.mark();
                yield_now();
            }
            stop.set(true);
            busy.into_iter().for_each(|one| one.join().unwrap());
            // Nor is a hub that sleeps, or a job elsewhere.
            let long = Duration::from_millis(700);
            paces.mark();
            sleep(long);
            paces.mark_after(long);
            tpool::execute(move || std::thread::sleep(long)).unwrap();
            paces.mark_after(long);
        });
    });
}

/// How long the OS thread has gone without a mark, beyond what is said there: whoever runs marks when it begins and
/// before it gives way, so nobody has held the loop for more than three such times.
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

/// Has the detector watch `work`, again if the system has taken the processor away for so long that it may report it.
fn nobody_is_reported(work: fn(&Rc<Paces>)) {
    let resolution = Duration::from_millis(400);
    let blocked = blockers();
    hub_blocking_detection(resolution).unwrap();
    // A machine that never leaves it alone shows nothing.
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
fn many_that_run_side_by_side_are_told_from_one() {
    alone("many_that_run_side_by_side_are_told_from_one", || {
        nobody_is_reported(|paces| {
            let run = || {
                let paces = Rc::clone(paces);
                spawn(move || {
                    paces.mark();
                    std::thread::sleep(Duration::from_millis(6));
                    paces.mark();
                })
            };
            // One turn of the loop, in which each runs for a moment.
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
        let told = Rc::new(Cell::new(None));
        let tell = Rc::clone(&told);
        get_hub().schedule(Duration::from_millis(1), move || tell.set(Some(block_until_told(&blocked, "callback").0)));
        sleep(SHORT);
        let name = told.take().expect("the timer has run");
        assert!(name.starts_with("a callback (made at ") && name.contains(file!()), "{name}");
    });
}

#[test]
fn a_listener_that_runs_too_long_is_reported() {
    alone("a_listener_that_runs_too_long_is_reported", || {
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        let told = Rc::new(Cell::new(None));
        let tell = Rc::clone(&told);
        let (reader, writer) = pipe();
        let listener = move |_| {
            let name = tell.take().unwrap_or_else(|| block_until_told(&blocked, "callback").0);
            tell.set(Some(name));
        };
        let registration = get_hub().listen(reader, Interest::READ, listener).unwrap();
        drop(writer);
        let name = loop {
            sleep(SHORT);
            if let Some(name) = told.take() {
                break name;
            }
        };
        drop(registration);
        assert!(name.starts_with("a callback (made at ") && name.contains(file!()), "{name}");
    });
}

#[test]
fn the_main_greenlet_is_reported_too() {
    alone("the_main_greenlet_is_reported_too", || {
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        sleep(SHORT);
        assert_eq!(block_until_told(&blocked, "main").0, "the main greenlet");
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
    std::fs::read_dir("/proc/self/task").expect("proc").count()
}

/// Whether there are so many OS threads, or soon will be: one that was joined may be listed for a moment.
fn comes_to(threads: usize) -> bool {
    let begin = Instant::now();
    while os_threads() != threads {
        if begin.elapsed() > PATIENCE {
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

/// What is done about the signal.
fn disposition() -> libc::sighandler_t {
    // SAFETY: all-zero bytes are a `sigaction`, and the call only asks.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(libc::SIGURG, std::ptr::null(), &mut now), 0);
        now.sa_sigaction
    }
}

#[test]
fn switched_off_it_leaves_nothing_behind() {
    alone("switched_off_it_leaves_nothing_behind", || {
        let blocked = blockers();
        sleep(SHORT);
        let threads = os_threads();
        assert_eq!(disposition(), libc::SIG_DFL);
        hub_blocking_detection(RESOLUTION).unwrap();
        // Again, with another resolution: there is one.
        hub_blocking_detection(2 * RESOLUTION).unwrap();
        assert!(comes_to(threads + 1));
        assert_ne!(disposition(), libc::SIG_DFL);
        hub_blocking_detection(None).unwrap();
        hub_blocking_detection(None).unwrap();
        assert_eq!(disposition(), libc::SIG_DFL);
        assert!(comes_to(threads));
        // What was told before.
        blocked.try_iter().for_each(drop);
        std::thread::sleep(5 * RESOLUTION);
        assert!(blocked.try_recv().is_err());
    });
}

#[test]
fn the_programs_own_handler_is_called_and_comes_back() {
    alone("the_programs_own_handler_is_called_and_comes_back", || {
        let own = SigHandler::Handler(on_urgent);
        // SAFETY: the handler adds to an atomic.
        unsafe { sigaction(Signal::SIGURG, &SigAction::new(own, SaFlags::empty(), SigSet::empty())).unwrap() };
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        block_until_told(&blocked, "main");
        // Another one, which asks nothing so soon: one signal that waits takes a second one in.
        hub_blocking_detection(LONG).unwrap();
        assert_eq!(RAISED.load(Ordering::Relaxed), 0, "what the detector asks is not for the program");
        raise(Signal::SIGURG).unwrap();
        assert_eq!(RAISED.load(Ordering::Relaxed), 1);
        hub_blocking_detection(None).unwrap();
        assert_eq!(disposition(), on_urgent as extern "C" fn(i32) as usize);
    });
}

#[test]
fn the_programs_own_signal_is_no_answer() {
    alone("the_programs_own_signal_is_no_answer", || {
        let own = SigHandler::Handler(on_urgent);
        // SAFETY: the handler adds to an atomic.
        unsafe { sigaction(Signal::SIGURG, &SigAction::new(own, SaFlags::empty(), SigSet::empty())).unwrap() };
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGURG);
        mask.thread_block().unwrap();
        raise(Signal::SIGURG).unwrap();
        // What the detector sends while this one waits is taken in by it, and lost.
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        std::thread::sleep(5 * RESOLUTION);
        mask.thread_unblock().unwrap();
        assert_eq!(RAISED.load(Ordering::Relaxed), 1);
        // It asks again.
        block_until_told(&blocked, "main");
        assert_eq!(RAISED.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn several_hubs_use_it_at_once() {
    alone("several_hubs_use_it_at_once", || {
        let blocked = blockers();
        let told: Vec<Arc<AtomicUsize>> = (0..3).map(|_| Arc::default()).collect();
        let threads: Vec<_> = told
            .iter()
            .enumerate()
            .map(|(number, told)| {
                let told = Arc::clone(told);
                std::thread::spawn(move || {
                    hub_blocking_detection(RESOLUTION).unwrap();
                    let block = move || {
                        while told.load(Ordering::Relaxed) == 0 {
                            std::hint::spin_loop();
                        }
                    };
                    Builder::new().name(format!("on {number}")).spawn(block).unwrap().join().unwrap();
                })
            })
            .collect();
        while told.iter().any(|told| told.load(Ordering::Relaxed) == 0) {
            let (name, _) = blocked.recv_timeout(PATIENCE).unwrap();
            if let Some(number) = (0..3).find(|number| name.contains(&format!("\"on {number}\""))) {
                told[number].fetch_add(1, Ordering::Relaxed);
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(disposition(), libc::SIG_DFL, "threads that end switch theirs off");
    });
}

#[test]
fn a_detector_ends_with_its_thread() {
    alone("a_detector_ends_with_its_thread", || {
        let threads = os_threads();
        std::thread::spawn(|| {
            hub_blocking_detection(Duration::from_millis(1)).unwrap();
            // Some are left parked, and are unwound after the detector is gone.
            drop(spawn(|| sleep(LONG)));
            yield_now();
        })
        .join()
        .unwrap();
        assert!(comes_to(threads));
    });
}

#[test]
fn a_forked_child_has_none_and_may_have_its_own() {
    alone("a_forked_child_has_none_and_may_have_its_own", || {
        let blocked = blockers();
        hub_blocking_detection(RESOLUTION).unwrap();
        sleep(SHORT);
        // SAFETY: the only other thread is the watchdog, which waits nearly always and holds no lock of the allocator then;
        // the child ends by `_exit`.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let alone = os_threads() == 1;
                let own =
                    hub_blocking_detection(RESOLUTION).is_ok() && !block_until_told(&blocked, "main").0.is_empty();
                let off = hub_blocking_detection(None).is_ok() && comes_to(1);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(if alone && own && off { 0 } else { 1 }) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None).unwrap();
                assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
            }
        }
        block_until_told(&blocked, "main");
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
        block_until_told(&blocked, "main");
    });
}
