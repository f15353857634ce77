//! The wake-up descriptor of a loop: the hub is lent it for life, and its number is given up before it is closed.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::hubs::{Calls, Tap, Tapped, Wait, Watch, default_hub};
use crate::support::poll_hub::PollHub;
use crate::support::{alone, run};
use greenhub::hub::{Hub, HubDescriptor, Key, Lease, Notify, Ready, Rearm, Watched, set_busy_poll_time};
use greenhub::sync::{Event, mpsc};
use greenhub::{Interest, TrampolineError, register_hub, sleep, spawn, trampoline, use_hub, use_hub_with};

const SHORT: Duration = Duration::from_millis(5);

thread_local! {
    static FAIL_WAIT: Cell<bool> = const { Cell::new(false) };
    static REFUSE_WATCH: Cell<bool> = const { Cell::new(false) };
    /// The keys and the leases of all watches of this OS thread, oldest first.
    static WATCHED: RefCell<Vec<(Key, Lease)>> = const { RefCell::new(Vec::new()) };
}

struct Recorder;

impl Tap for Recorder {
    fn name(&self, _: &dyn Hub) -> &'static str {
        "bells"
    }
    fn watch(&mut self, hub: &mut dyn Hub, call: Watch<'_>) -> io::Result<()> {
        WATCHED.with_borrow_mut(|watched| watched.push((call.key, call.lease)));
        if REFUSE_WATCH.take() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        call.forward(hub)
    }
    fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
        if FAIL_WAIT.take() {
            return Err(io::Error::other("lost"));
        }
        call.forward(hub)
    }
    fn notifier(&mut self, _: &mut dyn Hub) -> Option<Arc<dyn Notify>> {
        Some(Arc::new(Silent))
    }
}

/// The notifier of a hub that no other OS thread wakes.
struct Silent;

impl Notify for Silent {
    fn notify(&self) {}
}

/// Makes this OS thread use a recorder, and another one after each that fails.
fn use_recorders() {
    let build = || Ok(Box::new(Tapped::new(Recorder)?) as Box<dyn Hub>);
    register_hub(HubDescriptor { name: "bells", aliases: &[], available: || true, build }).unwrap();
    use_hub("bells").unwrap();
}

/// Waits for a pipe whose number was that of the bell `former`, and returns the lease under which the hub watches it.
fn lease_of_a_pipe_with_the_number_of(former: Key) -> Lease {
    // Other OS threads keep the bell open until they have the next one.
    sleep(SHORT);
    let pipes: Vec<_> = (0..8).map(|_| io::pipe().unwrap()).collect();
    let reader = pipes.iter().map(|(reader, _)| reader).find(|reader| reader.as_raw_fd() == former.fd());
    let reader = reader.expect("no pipe has the number");
    let waited = trampoline(reader.as_fd(), Interest::READ, SHORT);
    assert!(matches!(waited, Err(TrampolineError::TimedOut { .. })), "{waited:?}");
    WATCHED.with_borrow(|watched| {
        let (key, lease) = *watched.iter().rfind(|(key, _)| key.fd() == former.fd()).expect("the pipe is watched");
        assert_ne!(key, former, "the pipe has the key of the bell");
        lease
    })
}

#[test]
fn a_hub_that_repeats_its_reports_watches_the_bell_once() {
    alone("a_hub_that_repeats_its_reports_watches_the_bell_once", || {
        set_busy_poll_time(None);
        if default_hub().unwrap().rearm() == Rearm::Explicit {
            return;
        }
        let calls = Calls::default();
        let counted = calls.clone();
        use_hub_with(move || counted.hub()).unwrap();
        let (sender, receiver) = mpsc::channel();
        let (answers, answered) = mpsc::channel();
        let other = std::thread::spawn(move || {
            for message in 0..5 {
                std::thread::sleep(SHORT);
                sender.send(message).unwrap();
                answered.recv().unwrap();
            }
        });
        let received = spawn(move || receiver.iter().inspect(|_| answers.send(()).unwrap()).collect::<Vec<i32>>());
        assert_eq!(received.join().unwrap(), [0, 1, 2, 3, 4]);
        assert!(calls.waits.get() > 2, "the loop has not slept");
        assert_eq!(calls.watches.get(), 1);
        other.join().unwrap();
    });
}

#[test]
fn the_number_of_the_bell_of_a_failed_hub_is_lent_to_the_next_file_for_one_wait() {
    alone("the_number_of_the_bell_of_a_failed_hub_is_lent_to_the_next_file_for_one_wait", || {
        use_recorders();
        spawn(|| sleep(SHORT)).join().unwrap();
        let (bell, lease) = WATCHED.with_borrow(|watched| watched[0]);
        assert_eq!(lease, Lease::Life);
        FAIL_WAIT.set(true);
        assert!(spawn(|| sleep(SHORT)).join().unwrap_err().to_string().contains("lost"));
        assert_eq!(lease_of_a_pipe_with_the_number_of(bell), Lease::Wait);
    });
}

#[test]
fn the_number_of_a_bell_that_the_hub_refuses_is_lent_to_the_next_file_for_one_wait() {
    alone("the_number_of_a_bell_that_the_hub_refuses_is_lent_to_the_next_file_for_one_wait", || {
        use_recorders();
        REFUSE_WATCH.set(true);
        spawn(|| sleep(SHORT)).join().unwrap();
        let (bell, lease) = WATCHED.with_borrow(|watched| watched[0]);
        assert_eq!(lease, Lease::Life);
        assert_eq!(lease_of_a_pipe_with_the_number_of(bell), Lease::Wait);
    });
}

/// Whether a [`Forgetful`] hub has refused the wake-up descriptor.
static HAS_REFUSED: AtomicBool = AtomicBool::new(false);

/// A hub that is asked to watch a descriptor after each report, and refuses the wake-up descriptor once.
struct Forgetful(PollHub);

impl Hub for Forgetful {
    fn name(&self) -> &'static str {
        "forgetful"
    }

    fn rearm(&self) -> Rearm {
        Rearm::Explicit
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        if REFUSE_WATCH.take() {
            HAS_REFUSED.store(true, Ordering::SeqCst);
            return Err(io::ErrorKind::OutOfMemory.into());
        }
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
}

#[test]
fn a_loop_whose_hub_refuses_to_watch_the_bell_again_ends_with_an_error() {
    run("a_loop_whose_hub_refuses_to_watch_the_bell_again_ends_with_an_error", || {
        let build = || Ok(Box::new(Forgetful(PollHub::new()?)) as Box<dyn Hub>);
        register_hub(HubDescriptor { name: "forgetful", aliases: &[], available: || true, build }).unwrap();
        use_hub("forgetful").unwrap();
        let (sender, receiver) = mpsc::channel();
        let received = Arc::new(Event::new());
        let result = Arc::clone(&received);
        spawn(move || result.send([receiver.recv(), receiver.recv()]));
        spawn(|| sleep(SHORT)).join().unwrap();
        REFUSE_WATCH.set(true);
        let other = std::thread::spawn(move || {
            std::thread::sleep(SHORT);
            sender.send(1).unwrap();
            while !HAS_REFUSED.load(Ordering::SeqCst) {
                std::thread::sleep(SHORT);
            }
            sender.send(2).unwrap();
        });
        let lost = received.wait().unwrap_err().to_string();
        assert!(lost.contains("forgetful") && lost.contains("memory"), "{lost}");
        assert_eq!(received.wait().unwrap(), [Ok(1), Ok(2)], "the next hub watches another bell");
        other.join().unwrap();
    });
}
