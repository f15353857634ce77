//! Hubs with their own notifier: when it is requested, when it is called, and what it may do.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::bare_hub::{Bare, Bell, Counts};
use crate::support::hubs::{Tap, use_tapped_hub};
use crate::support::run;
use greenhub::hub::{Hub, Key, Lease, LoopErrorKind, Notify, Ready, Rearm, Watched, interrupt_on};
use greenhub::thread::yield_now;
use greenhub::{Interest, get_hub, spawn, use_hub, use_hub_with};

/// Gives the default hub a notifier that wakes nothing.
struct Silent(Arc<Bell>);

impl Tap for Silent {
    fn notifier(&mut self, _: &mut dyn Hub) -> Option<Arc<dyn Notify>> {
        self.0.counts.asked.fetch_add(1, Ordering::SeqCst);
        Some(self.0.clone())
    }
}

/// Waits on this OS thread until a signal, raised by another thread, interrupts the wait.
fn is_interrupted_by(signal: i32) {
    let _interrupt = interrupt_on(signal).expect("a signal that can be caught");
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        signal_hook::low_level::raise(signal).expect("a signal");
    });
    let sleeper = spawn(|| greenhub::sleep(Duration::from_secs(3600)));
    let error = sleeper.join().expect_err("the interrupt ends the sleep");
    assert!(
        matches!(&error, greenhub::GreenError::Loop(error) if error.kind() == LoopErrorKind::Interrupted),
        "{error}"
    );
    sender.join().expect("no panic");
}

#[test]
fn a_signal_interrupts_a_hub_without_descriptors_and_calls_no_notifier() {
    run("a_signal_interrupts_a_hub_without_descriptors_and_calls_no_notifier", || {
        let counts = Arc::<Counts>::default();
        let counted = Arc::clone(&counts);
        use_hub_with(move || Ok(Bare::new(&counted))).unwrap();
        is_interrupted_by(libc::SIGUSR1);
        assert_eq!(counts.asked.load(Ordering::SeqCst), 1);
        assert_eq!(counts.called.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_hub_with_a_notifier_checks_signals_only_while_one_is_registered() {
    run("a_hub_with_a_notifier_checks_signals_only_while_one_is_registered", || {
        use_hub_with(|| Ok(Bare::new(&Arc::default()))).unwrap();
        let turns = || {
            let before = get_hub().stats().turns;
            greenhub::sleep(Duration::from_millis(500));
            get_hub().stats().turns - before
        };
        assert!(turns() < 5);
        drop(interrupt_on(libc::SIGUSR2).expect("a signal that can be caught"));
        assert!(turns() < 5);
    });
}

#[test]
fn a_shutdown_drops_the_notifier() {
    run("a_shutdown_drops_the_notifier", || {
        let hub = Bare::new(&Arc::default());
        let notifier = Arc::downgrade(&hub.0);
        use_hub_with(move || Ok(hub)).unwrap();
        greenhub::sleep(Duration::from_millis(1));
        assert!(notifier.upgrade().is_some());
        get_hub().shutdown(None).unwrap();
        assert!(notifier.upgrade().is_none());
    });
}

#[test]
fn a_hub_without_descriptors_is_woken_by_its_notifier() {
    run("a_hub_without_descriptors_is_woken_by_its_notifier", || {
        let counts = Arc::<Counts>::default();
        let counted = Arc::clone(&counts);
        use_hub_with(move || Ok(Bare::new(&counted))).unwrap();
        let remote = get_hub().remote();
        let sleeper = Rc::new(spawn(|| greenhub::sleep(Duration::from_secs(3600))));
        let queue = Arc::new(greenhub::sync::Queue::new());
        let puts = Arc::clone(&queue);
        let waiting = Arc::clone(&counts);
        std::thread::spawn(move || {
            while waiting.waits.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            remote.spawn(move || puts.try_put(7).expect("the queue has room")).expect("the hub's OS thread lives");
        });
        assert_eq!(queue.get().expect("an item"), 7);
        assert!(counts.called.load(Ordering::SeqCst) >= 1);
        sleeper.kill();
    });
}

/// A notifier that ends the wait, then blocks until a channel is closed.
struct Stuck {
    bell: Arc<Bell>,
    ends: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Notify for Stuck {
    fn notify(&self) {
        self.bell.notify();
        let _ = self.ends.lock().unwrap().recv();
    }
}

/// A hub that watches no descriptors and has a `Stuck` notifier.
struct WithStuck(Bare, Arc<Stuck>);

impl Hub for WithStuck {
    fn name(&self) -> &'static str {
        "stuck"
    }

    fn rearm(&self) -> Rearm {
        self.0.rearm()
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        self.0.watch(key, fd, interest, lease)
    }

    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        self.0.forget(key, fd);
    }

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        self.0.wait(watched, timeout, ready)
    }

    fn after_fork(&mut self) -> io::Result<()> {
        self.0.after_fork()
    }

    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        Some(self.1.clone())
    }
}

#[test]
fn rule_06_a_blocked_notifier_does_not_block_the_loop() {
    run("rule_06_a_blocked_notifier_does_not_block_the_loop", || {
        let (end, ends) = std::sync::mpsc::channel();
        use_hub_with(move || {
            let bare = Bare::new(&Arc::default());
            let stuck = Stuck { bell: bare.0.clone(), ends: Mutex::new(ends) };
            Ok(WithStuck(bare, Arc::new(stuck)))
        })
        .unwrap();
        let remote = get_hub().remote();
        let queue = Arc::new(greenhub::sync::Queue::new());
        let puts = Arc::clone(&queue);
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            remote.spawn(move || puts.try_put(7).expect("the queue has room")).expect("the hub's OS thread lives");
        });
        assert_eq!(queue.get().expect("an item"), 7);
        // The notifier is replaced during its call.
        use_hub(None).unwrap();
        spawn(|| greenhub::sleep(Duration::from_millis(1))).join().unwrap();
        drop(end);
        other.join().unwrap();
    });
}

#[test]
fn a_signal_interrupts_a_hub_that_watches_descriptors_and_has_a_notifier() {
    run("a_signal_interrupts_a_hub_that_watches_descriptors_and_has_a_notifier", || {
        let counts = Arc::<Counts>::default();
        use_tapped_hub(Silent(Bare::new(&counts).0));
        is_interrupted_by(libc::SIGUSR2);
        assert_eq!(counts.called.load(Ordering::SeqCst), 0);
    });
}

/// A notifier that replaces its own hub, and records whether it is dropped during the call.
struct Replacing;

thread_local! {
    static IS_CALLED: Cell<bool> = const { Cell::new(false) };
}

static CALLS: AtomicUsize = AtomicUsize::new(0);
static DROPPED_WHILE_CALLED: AtomicBool = AtomicBool::new(false);

impl Notify for Replacing {
    fn notify(&self) {
        CALLS.fetch_add(1, Ordering::SeqCst);
        IS_CALLED.set(true);
        use_hub(None).expect("not in the main loop");
        let _ = get_hub();
        IS_CALLED.set(false);
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        if IS_CALLED.get() {
            DROPPED_WHILE_CALLED.store(true, Ordering::SeqCst);
        }
    }
}

/// A hub with a `Replacing` notifier.
struct Replaced(Bare);

impl Hub for Replaced {
    fn name(&self) -> &'static str {
        "replaced"
    }

    fn rearm(&self) -> Rearm {
        Rearm::Explicit
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        self.0.watch(key, fd, interest, lease)
    }

    fn forget(&mut self, _: Key, _: Option<BorrowedFd<'_>>) {}

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        self.0.wait(watched, timeout, ready)
    }

    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        Some(Arc::new(Replacing))
    }
}

#[test]
fn a_notifier_that_replaces_its_hub_lives_until_it_returns() {
    run("a_notifier_that_replaces_its_hub_lives_until_it_returns", || {
        use_hub_with(|| Ok(Replaced(Bare::new(&Arc::default())))).unwrap();
        let hub = get_hub();
        let remote = hub.remote();
        // The turn ends with a pending notice, for which the loop itself calls the notifier.
        let notifies = spawn(move || {
            loop {
                remote.notify();
                yield_now();
            }
        });
        let _ = catch_unwind(AssertUnwindSafe(|| hub.run_once(Some(Duration::ZERO))));
        assert_eq!(CALLS.load(Ordering::SeqCst), 1);
        assert!(!DROPPED_WHILE_CALLED.load(Ordering::SeqCst));
        notifies.kill();
    });
}
