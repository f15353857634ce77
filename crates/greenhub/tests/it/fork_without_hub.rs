//! Forks at moments without a hub, within a batch of mail, and in a hub that then fails.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::fork::{ends_well, exit, fork_here, forked};
use crate::support::hubs::{Tap, Wait, default_hub, use_tapped_hub};
use crate::support::in_child;
use greenhub::hub::Hub;
use greenhub::park::Source;
use greenhub::{Interest, get_hub, sleep, spawn, spawn_n, tpool, use_hub_with, with_timeout};

const SHORT: Duration = Duration::from_millis(1);

/// Replaces the hub, and builds none in its place.
fn lose_the_hub() {
    use_hub_with(default_hub).unwrap();
}

#[test]
fn a_body_sent_before_a_fork_without_a_hub_runs_in_the_parent_alone() {
    in_child(|| {
        let remote = get_hub().remote();
        lose_the_hub();
        let runs = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&runs);
        let sent = std::thread::spawn(move || remote.spawn(move || _ = count.fetch_add(1, Ordering::Relaxed)));
        sent.join().unwrap().unwrap();
        let in_the_child = Arc::clone(&runs);
        let child = forked(move || {
            sleep(SHORT);
            assert_eq!(in_the_child.load(Ordering::Relaxed), 0);
        });
        ends_well(child);
        // The child may have ended before the loop of the parent had a turn.
        sleep(SHORT);
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_wait_for_a_job_of_the_parent_ends_in_a_child_without_a_hub() {
    in_child(|| {
        sleep(SHORT);
        let job = spawn(|| tpool::execute(|| std::thread::sleep(Duration::from_millis(300))));
        sleep(Duration::from_millis(20));
        lose_the_hub();
        let child = forked(move || {
            let waited = with_timeout(Duration::from_secs(20), || job.join());
            assert!(waited.is_ok(), "the job never ends in the child");
        });
        ends_well(child);
    });
}

#[test]
fn another_os_thread_wakes_a_child_that_was_forked_without_a_hub() {
    in_child(|| {
        let (sender, receiver) = greenhub::sync::mpsc::channel();
        let green = spawn(move || receiver.recv());
        sleep(Duration::from_millis(5));
        lose_the_hub();
        let child = forked(move || {
            let other = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                sender.send(7)
            });
            let received = with_timeout(Duration::from_secs(20), || green.join());
            assert_eq!(received.expect("the receiver is woken").unwrap(), Ok(7));
            other.join().unwrap().unwrap();
        });
        ends_well(child);
    });
}

#[test]
fn the_rest_of_a_batch_of_mail_is_that_of_the_parent() {
    in_child(|| {
        let (reader, _writer) = io::pipe().unwrap();
        let source = Arc::new(Source::new(reader.into()).unwrap());
        source.wait(Interest::READ, SHORT).unwrap_err();
        let child = Rc::new(Cell::new(None));
        let (waits, forks) = (Arc::clone(&source), Rc::clone(&child));
        spawn_n(move || {
            let mark = move || forks.set(Some(fork_here()));
            let waited = greenhub::Trampoline::new(waits.as_fd()).read().mark_as_closed(mark).wait();
            waited.expect_err("the source is closed");
        });
        sleep(SHORT);
        let runs = Arc::new(AtomicUsize::new(0));
        let (remote, closes, count) = (get_hub().remote(), Arc::clone(&source), Arc::clone(&runs));
        let other = std::thread::spawn(move || {
            closes.close();
            remote.spawn(move || _ = count.fetch_add(1, Ordering::Relaxed))
        });
        // No turn until both are in the mail.
        other.join().unwrap().unwrap();
        sleep(Duration::from_millis(5));
        match child.get().expect("the close has forked") {
            None => exit(i32::from(runs.load(Ordering::Relaxed) != 0)),
            Some(child) => ends_well(child),
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    });
}

thread_local! {
    /// The place of this process in the last test: the child of the parent, or `None` in the child.
    static CHILD: Cell<Option<nix::unistd::Pid>> = const { Cell::new(None) };
    static FORKS: Cell<bool> = const { Cell::new(false) };
    static DROPS: Cell<u32> = const { Cell::new(0) };
}

/// Forks in a wait, and fails there in the child.
struct ForksAndFails;

impl Drop for ForksAndFails {
    fn drop(&mut self) {
        let _ = DROPS.try_with(|drops| drops.set(drops.get() + 1));
    }
}

impl Tap for ForksAndFails {
    fn wait(&mut self, hub: &mut dyn Hub, wait: Wait<'_>) -> io::Result<()> {
        if FORKS.take() {
            CHILD.set(fork_here());
            if CHILD.get().is_none() {
                return Err(io::Error::other("failed in the child"));
            }
        }
        wait.forward(hub)
    }
}

#[test]
fn a_hub_that_fails_in_a_child_is_not_dropped_there() {
    in_child(|| {
        use_tapped_hub(ForksAndFails);
        sleep(SHORT);
        FORKS.set(true);
        let slept = std::panic::catch_unwind(|| sleep(Duration::from_millis(20)));
        match CHILD.get() {
            // The drop would change kernel objects that it shares with the parent's hub.
            None => exit(i32::from(slept.is_ok() || DROPS.get() != 0)),
            Some(child) => {
                assert!(slept.is_ok());
                ends_well(child);
            }
        }
    });
}
