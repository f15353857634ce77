//! Signals and the main loop.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::descriptors::{assert_no_waiters, ms, pair, read, read_within, source, stats, write};
use crate::support::{HANG, in_child};
use greenhub::hub::{LoopErrorKind, interrupt_on};
use greenhub::thread::{try_sleep, yield_now};
use greenhub::{get_hub, sleep, spawn};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;

/// Sends a signal to this process from another OS thread after the hub has gone to sleep; returns the time of sending.
fn send_soon(signal: Signal) -> std::thread::JoinHandle<Instant> {
    let this = Pid::this();
    std::thread::spawn(move || {
        std::thread::sleep(ms(50));
        let sent = Instant::now();
        kill(this, signal).expect("our own process");
        sent
    })
}

/// Runs a shell script that sends signals to this process.
fn shell(script: &str) -> std::process::Child {
    let script = script.replace("PID", &std::process::id().to_string());
    std::process::Command::new("/bin/sh").args(["-c", &script]).spawn().expect("a shell")
}

#[test]
fn an_interrupted_wait_is_not_an_error() {
    in_child(|| {
        // A handler without SA_RESTART interrupts the system call; this one does nothing else.
        extern "C" fn nothing(_: libc::c_int) {}
        let action = nix::sys::signal::SigAction::new(
            nix::sys::signal::SigHandler::Handler(nothing),
            nix::sys::signal::SaFlags::empty(),
            nix::sys::signal::SigSet::empty(),
        );
        // SAFETY: the handler does nothing.
        unsafe { nix::sys::signal::sigaction(Signal::SIGUSR1, &action) }.expect("a handler");
        // The signal must go to this OS thread, which waits.
        // SAFETY: `pthread_self` has no preconditions.
        let thread = unsafe { libc::pthread_self() } as usize;
        let sender = std::thread::spawn(move || {
            for _ in 0..5 {
                std::thread::sleep(ms(10));
                // SAFETY: the OS thread lives until it has joined this one.
                unsafe { libc::pthread_kill(thread as libc::pthread_t, libc::SIGUSR1) };
            }
        });
        let (here, there) = pair();
        let begin = Instant::now();
        let error = read_within(&here, 1, Some(ms(100))).expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= ms(100));
        sender.join().expect("no panic");
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"x");
    });
}

/// Whether the timer of [`a_stopped_and_continued_process_keeps_its_timers`] has fired.
static FIRED: AtomicBool = AtomicBool::new(false);
/// Whether that timer had fired when the process was continued.
static FIRED_BEFORE: AtomicBool = AtomicBool::new(false);

extern "C" fn on_continued(_: libc::c_int) {
    FIRED_BEFORE.store(FIRED.load(Ordering::SeqCst), Ordering::SeqCst);
}

#[test]
fn a_stopped_and_continued_process_keeps_its_timers() {
    in_child(|| {
        let handler = nix::sys::signal::SigHandler::Handler(on_continued);
        let (flags, mask) = (nix::sys::signal::SaFlags::empty(), nix::sys::signal::SigSet::empty());
        let action = nix::sys::signal::SigAction::new(handler, flags, mask);
        // SAFETY: the handler only uses atomics.
        unsafe { nix::sys::signal::sigaction(Signal::SIGCONT, &action) }.expect("a handler");
        // A slow shell may stop the process too late, but not in 20 attempts.
        let was_stopped_meanwhile = (0..20).any(|_| {
            FIRED.store(false, Ordering::SeqCst);
            FIRED_BEFORE.store(true, Ordering::SeqCst);
            let (here, there) = pair();
            let sleeper = spawn(move || {
                let begin = Instant::now();
                sleep(ms(120));
                FIRED.store(true, Ordering::SeqCst);
                write(&there, b"x").expect("the buffer has room");
                sleep(ms(100));
                (begin.elapsed(), there)
            });
            yield_now();
            let mut shell = shell("kill -STOP PID; sleep 0.3; kill -CONT PID");
            assert_eq!(read(&here, 8).expect("the read succeeds"), b"x");
            let error = read_within(&here, 8, Some(ms(30)));
            assert!(error.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut));
            let (slept, _there) = sleeper.join().expect("no panic");
            assert!(slept >= ms(220));
            assert!(shell.wait().expect("a shell").success());
            assert_eq!(stats().timers, 0);
            !FIRED_BEFORE.load(Ordering::SeqCst)
        });
        assert!(was_stopped_meanwhile);
    });
}

#[test]
fn ctrl_c_interrupts_an_idle_hub() {
    in_child(|| {
        let _ctrl_c = interrupt_on(libc::SIGINT).expect("a signal that can be caught");
        let (here, there) = pair();
        let sleeper = spawn(|| sleep(Duration::from_secs(3600)));
        let sender = send_soon(Signal::SIGINT);
        let error = read_within(&here, 1, Some(Duration::from_secs(60))).expect_err("the interruption ends the wait");
        let latency = sender.join().expect("no panic").elapsed();
        assert!(latency < Duration::from_secs(30), "{latency:?}");
        let cause = error.get_ref().expect("an error of ours").to_string();
        assert_eq!(cause, LoopErrorKind::Interrupted.to_string());
        assert_no_waiters();
        // The next blocking call restarts the loop and keeps its timers.
        assert_eq!(stats().timers, 1);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"x");
        sleeper.kill();
        assert!(sleeper.join().expect_err("killed here").is_kill());
        // A second signal interrupts as well.
        raise(Signal::SIGINT).expect("our own process");
        let error = read(&here, 1).expect_err("the interruption ends the wait");
        assert!(error.to_string().contains("interrupted"), "{error}");
    });
}

#[test]
fn ctrl_c_interrupts_a_hub_that_is_never_idle() {
    in_child(|| {
        let _ctrl_c = interrupt_on(libc::SIGINT).expect("a signal that can be caught");
        spawn(|| {
            loop {
                yield_now();
            }
        });
        let sender = send_soon(Signal::SIGINT);
        let error = spawn(|| sleep(Duration::from_secs(60))).join().expect_err("the interruption ends the wait");
        assert!(
            matches!(&error, greenhub::GreenError::Loop(error) if error.kind() == LoopErrorKind::Interrupted),
            "{error}"
        );
        sender.join().expect("no panic");
    });
}

#[test]
fn a_deregistered_interrupt_does_nothing() {
    in_child(|| {
        let ctrl_c = interrupt_on(libc::SIGINT).expect("a signal that can be caught");
        assert_eq!(ctrl_c.signal(), libc::SIGINT);
        drop(ctrl_c);
        raise(Signal::SIGINT).expect("our own process");
        sleep(ms(5));
    });
}

#[test]
fn two_signals_interrupt_each_for_itself() {
    in_child(|| {
        let interrupted = |signal| {
            raise(signal).expect("our own process");
            let error = try_sleep(Duration::from_secs(60)).expect_err("the interruption ends the wait");
            error.kind() == LoopErrorKind::Interrupted
        };
        let terminate = interrupt_on(libc::SIGTERM).expect("a signal that can be caught");
        let ctrl_c = interrupt_on(libc::SIGINT).expect("a signal that can be caught");
        assert!(interrupted(Signal::SIGTERM) && interrupted(Signal::SIGINT));
        // Both before the loop's next check count as one.
        raise(Signal::SIGTERM).expect("our own process");
        assert!(interrupted(Signal::SIGINT));
        try_sleep(ms(1)).expect("no signal is left");
        drop(terminate);
        assert!(interrupted(Signal::SIGINT));
        // The same signal twice is one interruption, and each value is dropped for itself.
        let again = interrupt_on(libc::SIGINT).expect("a signal that can be caught");
        drop(ctrl_c);
        assert!(interrupted(Signal::SIGINT));
        try_sleep(ms(1)).expect("no signal is left");
        drop(again);
        raise(Signal::SIGINT).expect("our own process");
        try_sleep(ms(1)).expect("nothing is interrupted any more");
    });
}

#[test]
fn a_signal_that_cannot_be_caught_is_an_invalid_argument() {
    in_child(|| {
        for signal in [libc::SIGKILL, libc::SIGSEGV] {
            assert_eq!(interrupt_on(signal).expect_err("not catchable").kind(), io::ErrorKind::InvalidInput);
        }
        assert!(interrupt_on(12345).is_err());
    });
}

#[test]
fn a_remote_interrupts_an_idle_hub() {
    in_child(|| {
        let remote = get_hub().remote();
        let sender = std::thread::spawn(move || remote.interrupt());
        let sleeper = spawn(|| sleep(Duration::from_secs(60)));
        let error = sleeper.join().expect_err("the interruption ends the wait");
        assert!(
            matches!(&error, greenhub::GreenError::Loop(error) if error.kind() == LoopErrorKind::Interrupted),
            "{error}"
        );
        sender.join().expect("no panic");
    });
}

#[test]
fn a_hub_with_a_registered_interrupt_sleeps_until_the_signal() {
    in_child(|| {
        let _ctrl_c = interrupt_on(libc::SIGINT).expect("a signal that can be caught");
        sleep(ms(1));
        let turns = stats().turns;
        sleep(ms(500));
        assert!(stats().turns - turns < 5);
    });
}

#[test]
fn an_interrupt_does_not_hide_a_loop_with_nothing_left() {
    in_child(|| {
        let _ctrl_c = interrupt_on(libc::SIGINT).expect("a signal that can be caught");
        let never = std::rc::Rc::new(std::cell::OnceCell::new());
        let waits = std::rc::Rc::clone(&never);
        let first = spawn(move || {
            let other: &greenhub::GreenThread<()> = waits.get().expect("the cell was set");
            other.wait()
        });
        let second = spawn(move || drop(first.wait()));
        never.set(second).expect("the cell is empty");
        let error = never.get().expect("the cell was set").wait().expect_err("the wait is a deadlock");
        assert!(
            matches!(&error, greenhub::GreenError::Loop(error) if error.kind() == LoopErrorKind::LoopExit),
            "{error}"
        );
    });
}

static REMOTE: std::sync::OnceLock<greenhub::hub::Remote> = std::sync::OnceLock::new();
static TOLD: AtomicBool = AtomicBool::new(false);

#[test]
fn a_signal_wakes_an_idle_hub() {
    in_child(|| {
        REMOTE.set(get_hub().remote()).expect("the cell is empty");
        // SAFETY: the handler uses an atomic and `notify`, which is async-signal-safe.
        let handler = unsafe {
            signal_hook::low_level::register(libc::SIGUSR1, || {
                TOLD.store(true, Ordering::SeqCst);
                if let Some(remote) = REMOTE.get() {
                    remote.notify();
                }
            })
        };
        handler.expect("a signal that can be caught");
        let hub = get_hub();
        let _long = hub.schedule(Duration::from_secs(60), || {});
        let sender = send_soon(Signal::SIGUSR1);
        // The hub may return for other events first.
        while !TOLD.load(Ordering::SeqCst) {
            hub.run_once(None).expect("the turn succeeds");
        }
        assert!(sender.join().expect("no panic").elapsed() < Duration::from_secs(30));
    });
}

#[test]
fn a_green_thread_notified_of_a_signal_may_block() {
    in_child(|| {
        let (receiver, sender) = UnixStream::pair().expect("a pair");
        signal_hook::low_level::pipe::register(libc::SIGUSR1, sender).expect("a signal that can be caught");
        let waiting = spawn(move || {
            let receiver = source(receiver);
            let mut count = 0;
            while count < 2 {
                count += read(&receiver, 1).expect("a byte for each signal").len();
                // The green thread blocks outside the handler, so others run meanwhile.
                sleep(ms(5));
            }
            count
        });
        let sender = send_soon(Signal::SIGUSR1);
        sleep(ms(1));
        sender.join().expect("no panic");
        raise(Signal::SIGUSR1).expect("our own process");
        assert_eq!(waiting.join().expect("no panic"), 2);
    });
}

#[test]
fn a_signal_does_not_end_the_wait_of_a_destructor() {
    struct Reads<'a>(&'a greenhub::park::Source, &'a std::cell::RefCell<Option<io::Result<Vec<u8>>>>);
    impl Drop for Reads<'_> {
        fn drop(&mut self) {
            self.1.replace(Some(read(self.0, 8)));
        }
    }
    in_child(|| {
        extern "C" fn nothing(_: libc::c_int) {}
        let action = nix::sys::signal::SigAction::new(
            nix::sys::signal::SigHandler::Handler(nothing),
            nix::sys::signal::SaFlags::empty(),
            nix::sys::signal::SigSet::empty(),
        );
        // SAFETY: the handler does nothing.
        unsafe { nix::sys::signal::sigaction(Signal::SIGUSR1, &action) }.expect("a handler");
        greenhub::greenthread::set_panicking_grace(HANG);
        // The signal must go to this OS thread, which waits.
        // SAFETY: `pthread_self` has no preconditions.
        let this = unsafe { libc::pthread_self() };
        let (here, there) = pair();
        let sender = std::thread::spawn(move || {
            for _ in 0..20 {
                std::thread::sleep(ms(1));
                // SAFETY: the OS thread lives, since it waits for the byte sent below.
                unsafe { libc::pthread_kill(this, libc::SIGUSR1) };
            }
            write(&there, b"x").expect("the buffer has room");
        });
        let result = std::cell::RefCell::new(None);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _reads = Reads(&here, &result);
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(unwound.is_err());
        assert_eq!(result.take().expect("was read").expect("the read succeeds"), b"x");
        sender.join().expect("no panic");
    });
}
