//! Hubs and forks: the child gets a new hub, and does not disturb the parent's.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use crate::support::descriptors::{
    assert_no_waiters, ms, pair, read, read_within, reports_arrivals, source, stats, until, write,
};
use crate::support::fork::{ends_well, exits_with, forked};
use crate::support::hubs::{Calls, Tap, Wait, use_tapped_hub};
use crate::support::{in_child, open_descriptors};
use greenhub::hub::{Hub, Readiness, has_hub};
use greenhub::park::{Deadline, Parker, ReadHint, Source, WaitReason};
use greenhub::sync::{Mutex, Queue};
use greenhub::thread::yield_now;
use greenhub::tpool::{execute, execute_scoped};
use greenhub::{Interest, get_hub, sleep, spawn, trampoline, use_hub, with_timeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn both_processes_work_when_forked_before_first_use() {
    in_child(|| {
        assert!(!has_hub());
        let (here, there) = UnixStream::pair().expect("a pair");
        let child = forked(|| {
            let there = source(there.try_clone().expect("a copy"));
            assert_eq!(read(&there, 8).expect("the read succeeds"), b"ping");
            sleep(ms(1));
            write(&there, b"pong").expect("the buffer has room");
        });
        let here = source(here);
        write(&here, b"ping").expect("the buffer has room");
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"pong");
        ends_well(child);
    });
}

#[test]
fn both_processes_work_when_forked_after_use() {
    in_child(|| {
        let (here, there) = pair();
        sleep(ms(1));
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        there.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        let child = forked(|| {
            assert_eq!(read(&there, 8).expect("the read succeeds"), b"ping");
            let (left, right) = pair();
            let reader = spawn(move || read(&left, 8));
            yield_now();
            write(&right, b"x").expect("the buffer has room");
            assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
            write(&there, b"pong").expect("the buffer has room");
        });
        write(&here, b"ping").expect("the buffer has room");
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"pong");
        ends_well(child);
        // The parent's hub still serves its earlier registrations.
        let peer = spawn(move || {
            sleep(ms(5));
            write(&there, b"more").expect("the buffer has room")
        });
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"more");
        peer.join().expect("no panic");
    });
}

#[test]
fn a_child_does_not_disturb_the_hub_of_its_parent() {
    in_child(|| {
        let (here, there) = pair();
        let (own, own_peer) = pair();
        for source in [&here, &own] {
            source.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        }
        let child = forked(|| {
            // Closes a socket that the parent's hub watches, before any turn of the child's loop.
            here.close();
            for _ in 0..100 {
                write(&own_peer, b"x").expect("the buffer has room");
                assert_eq!(read(&own, 8).expect("the read succeeds"), b"x");
                own.wait(Interest::READ, Some(Duration::from_micros(100))).expect_err("nothing more");
            }
            let remote = get_hub().remote();
            for _ in 0..100 {
                remote.notify();
                sleep(Duration::from_micros(100));
            }
        });
        let turns = stats().turns;
        // Long enough for the child to finish.
        sleep(ms(300));
        // An arrival at a file that both processes have open is reported to both.
        let most = if reports_arrivals() { 110 } else { 10 };
        assert!(stats().turns - turns <= most, "{} turns for one sleep", stats().turns - turns);
        ends_well(child);
        let peer = spawn(move || {
            sleep(ms(1));
            write(&there, b"x").expect("the buffer has room");
            there
        });
        assert_eq!(
            read_within(&here, 8, Some(Duration::from_secs(60))).expect("the descriptor is still watched"),
            b"x"
        );
        drop(peer.join());
    });
}

#[test]
fn a_child_does_not_wake_the_waker_of_its_parents_loop() {
    #[derive(Default)]
    struct Wakes(AtomicUsize);
    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    /// Sets the waker of the loop in the waits of the parent. Makes a green thread ready in those of the child.
    struct RunsTasks {
        waker: Waker,
        is_child: bool,
    }
    impl Tap for RunsTasks {
        fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
            if self.is_child {
                drop(spawn(|| ()));
            } else {
                call.watched.wake_by(&self.waker);
            }
            call.forward(hub)
        }
        fn after_fork(&mut self, hub: &mut dyn Hub) -> io::Result<()> {
            self.is_child = true;
            hub.after_fork()
        }
    }
    in_child(|| {
        let wakes = Arc::new(Wakes::default());
        use_tapped_hub(RunsTasks { waker: Waker::from(Arc::clone(&wakes)), is_child: false });
        sleep(ms(1));
        let before = wakes.0.load(Ordering::Relaxed);
        let child = forked(|| {
            get_hub().run_once(Duration::ZERO).expect("a loop");
            assert_eq!(wakes.0.load(Ordering::Relaxed), before);
            assert_eq!(Arc::strong_count(&wakes), 2, "the loop keeps the waker");
        });
        exits_with(child, 0);
    });
}

#[test]
fn a_child_that_closes_at_once_leaves_the_parents_waiter_alone() {
    in_child(|| {
        let (here, there) = pair();
        let here = Rc::new(here);
        let reader = Rc::new(spawn({
            let here = Rc::clone(&here);
            move || read(&here, 8).map_err(|error| error.kind())
        }));
        yield_now();
        // The source is registered until it is closed.
        sleep(ms(1));
        let child = forked(|| {
            here.close();
            let (left, _right) = pair();
            trampoline(&left, Interest::READ, Some(ms(1))).expect_err("nothing comes");
            assert_eq!(reader.wait().expect("no panic"), Err(std::io::ErrorKind::NotConnected));
        });
        ends_well(child);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(reader.wait().expect("no panic"), Ok(b"x".to_vec()));
    });
}

#[test]
fn green_threads_and_their_timers_live_on_in_the_child() {
    in_child(|| {
        let (here, there) = pair();
        let reader = spawn(move || read(&here, 8));
        let sleeper = spawn(|| {
            sleep(ms(50));
            "slept"
        });
        let calls: Rc<RefCell<usize>> = Rc::default();
        let (listened, listened_peer) = UnixStream::pair().expect("a pair");
        let number = listened.as_raw_fd();
        let registration = {
            let calls = Rc::clone(&calls);
            get_hub().listen(listened, Interest::READ, move |_: Readiness| {
                *calls.borrow_mut() += 1;
                let mut byte = [0_u8];
                // SAFETY: the registration owns the descriptor, and the buffer has one byte.
                let got = unsafe { libc::read(number, byte.as_mut_ptr().cast(), 1) };
                assert_eq!(got, 1);
            })
        }
        .expect("the hub accepts the listener");
        sleep(ms(1));
        let child = forked(|| {
            write(&there, b"child").expect("the buffer has room");
            assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"child");
            assert_eq!(sleeper.join().expect("no panic"), "slept");
            assert_eq!(stats().timers, 0);
            std::io::Write::write_all(&mut &listened_peer, b"x").expect("the buffer has room");
            until(|| *calls.borrow() == 1);
            drop(registration);
            assert_no_waiters();
        });
        // Blocks the OS thread, because the parent would read the data through its copies of the descriptors.
        exits_with(child, 0);
    });
}

#[test]
fn a_lock_keeps_its_holder_and_waiters_in_the_child() {
    in_child(|| {
        let (mutex, queue) = (Arc::new(Mutex::new(0)), Arc::new(Queue::bounded(1)));
        let (locks, gets) = (mutex.clone(), queue.clone());
        let holder = spawn(move || {
            let mut guard = locks.lock().expect("no poison");
            *guard += gets.get().expect("an item");
        });
        let locks = mutex.clone();
        let waiter = spawn(move || *locks.lock().expect("no poison"));
        yield_now();
        let child = forked(|| {
            assert!(mutex.try_lock().is_err());
            queue.put(7).expect("the queue has room");
            assert_eq!(waiter.wait().expect("no panic"), 7);
            assert_eq!(*mutex.lock().expect("no poison"), 7);
        });
        // The parent's lock is still held.
        ends_well(child);
        assert!(mutex.try_lock().is_err());
        queue.put(1).expect("the queue has room");
        holder.join().expect("no panic");
        assert_eq!(waiter.join().expect("no panic"), 1);
        assert_eq!(*mutex.try_lock().expect("the lock is free"), 1);
    });
}

/// Starts an OS thread, and returns it with the path of its status file.
fn tracked<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (PathBuf, std::thread::JoinHandle<T>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        sender.send(std::fs::read_link("/proc/thread-self").unwrap_or_default()).expect("a receiver waits");
        work()
    });
    (PathBuf::from("/proc").join(receiver.recv().expect("a place")).join("status"), thread)
}

/// Waits until an OS thread has been asleep for a while.
fn until_asleep<T>((status, _): &(PathBuf, std::thread::JoinHandle<T>)) {
    // A system without the status file counts as asleep.
    let asleep = || std::fs::read_to_string(status).map_or(true, |status| status.contains("State:\tS"));
    let mut times = 0;
    while times < 20 {
        std::thread::sleep(ms(1));
        times = if asleep() { times + 1 } else { 0 };
    }
}

#[test]
fn thousands_of_left_behind_waiters_are_skipped() {
    in_child(|| {
        let queue = Arc::new(Queue::new());
        let gets = Arc::clone(&queue);
        let other = tracked(move || {
            for _ in 0..5000 {
                let gets = Arc::clone(&gets);
                spawn(move || gets.get().map(drop));
            }
            sleep(Duration::from_secs(3600));
        });
        until(|| queue.getting() == 5000);
        until_asleep(&other);
        let child = forked(|| {
            // On a stack of the default size.
            spawn(move || queue.try_put(())).join().expect("no overflow").expect("the queue has room");
        });
        ends_well(child);
    });
}

#[test]
fn waiters_of_other_os_threads_are_skipped_in_the_child() {
    in_child(|| {
        let (mutex, queue) = (Arc::new(Mutex::new(0)), Arc::new(Queue::new()));
        let guard = mutex.lock().expect("no poison");
        let (locks, gets) = (mutex.clone(), queue.clone());
        let locker = tracked(move || *locks.lock().expect("no poison"));
        let getter = tracked(move || gets.get().expect("an item"));
        while queue.getting() == 0 {
            std::thread::yield_now();
        }
        // A running OS thread might hold a lock of this program, which the child could never acquire.
        for thread in [&locker, &getter] {
            until_asleep(thread);
        }
        let guard = Cell::new(Some(guard));
        let child = forked(|| {
            drop(guard.take());
            queue.put(1).expect("the queue has room");
            let all = with_timeout(Duration::from_secs(60), || {
                *mutex.lock().expect("no poison") += 1;
                queue.get().expect("the item")
            });
            assert_eq!(all.expect("no timeout"), 1);
        });
        ends_well(child);
        drop(guard.take());
        queue.put(1).expect("the queue has room");
        locker.1.join().expect("no panic");
        getter.1.join().expect("no panic");
    });
}

#[test]
fn a_waiter_for_a_parents_job_is_woken_with_an_error_in_the_child() {
    in_child(|| {
        let ((end, ends), (end_too, ends_too)) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
        // Both jobs begin before the fork: a running OS thread might hold a lock that the child could never acquire.
        let (begin, begun) = std::sync::mpsc::channel();
        let begin_too = begin.clone();
        let own = spawn(move || {
            execute(move || {
                begin.send(()).expect("a receiver waits");
                ends.recv().is_ok()
            })
        });
        let borrowing = spawn(move || {
            let (ends_too, mut ended) = (std::sync::Mutex::new(ends_too), false);
            execute_scoped(|| {
                begin_too.send(()).expect("a receiver waits");
                let _ = ends_too.lock().map(|ends| ends.recv().is_ok());
                ended = true;
            })
            .map(|()| ended)
        });
        yield_now();
        begun.iter().take(2).for_each(drop);
        sleep(ms(20));
        let (own, borrowing) = (Cell::new(Some(own)), Cell::new(Some(borrowing)));
        let child = forked(|| {
            let (own, borrowing) =
                (own.take().expect("the value was not taken"), borrowing.take().expect("the value was not taken"));
            let errors = [own.join().expect("no kill").err(), borrowing.join().expect("no kill").err()];
            for error in errors {
                assert!(error.expect("left behind").to_string().contains("in the parent"));
            }
            assert_eq!(execute(|| 7).expect("a new pool"), 7);
        });
        ends_well(child);
        drop((end, end_too));
        own.take().expect("the value was not taken").join().expect("no kill").expect("no panic");
        assert!(borrowing.take().expect("the value was not taken").join().expect("no kill").expect("no panic"));
    });
}

#[test]
fn a_wait_that_only_a_lost_thread_could_end_is_a_loop_exit() {
    // A forked child has one OS thread, so no other can end the waits.
    in_child(|| {
        yield_now();
        let child = forked(|| {
            let (mutex, queue) = (Arc::new(Mutex::new(())), Queue::<u32>::new());
            let holder = mutex.clone();
            let holder = spawn(move || {
                let _guard = holder.lock();
                greenhub::thread::park();
            });
            yield_now();
            let error = queue.get().expect_err("no putter").to_string();
            assert!(error.contains("block forever") && error.contains("waiting to be unparked"), "{error}");
            let locked = catch_unwind(AssertUnwindSafe(|| drop(mutex.lock()))).expect_err("never unlocked");
            assert!(locked.downcast::<String>().expect("the payload is a string").contains("block forever"));
            // The error ends only that wait: the lock works afterwards.
            holder.thread().unpark();
            drop(mutex.lock());
        });
        ends_well(child);
    });
}

#[test]
fn remote_calls_of_the_parent_do_not_run_in_the_child() {
    in_child(|| {
        let (here, there) = pair();
        let there = Rc::new(there);
        let raw = there.as_raw_fd();
        sleep(ms(1));
        let remote = get_hub().remote();
        remote
            .spawn(move || {
                // SAFETY: the number stays open until the end of the test.
                let sent = unsafe { libc::write(raw, b"x".as_ptr().cast(), 1) };
                assert_eq!(sent, 1);
            })
            .expect("the hub's OS thread lives");
        let child = forked(|| sleep(ms(5)));
        ends_well(child);
        sleep(ms(1));
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"x", "done once");
    });
}

#[test]
fn a_child_has_as_many_descriptors_as_its_parent() {
    in_child(|| {
        let (here, there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        let before = open_descriptors();
        let child = forked(|| {
            sleep(ms(1));
            // The child leaks the inherited event base of libevent, or the runtime.
            let before = before + if matches!(get_hub().name(), "libevent" | "tokio") { 4 } else { 0 };
            assert_eq!(open_descriptors(), before);
            here.close();
            there.close();
            assert_eq!(open_descriptors(), before - 2);
        });
        ends_well(child);
    });
}

#[test]
fn a_child_whose_hub_fails_to_restart_leaves_the_parents_hub() {
    in_child(|| {
        let (here, there) = pair();
        let (own, own_peer) = pair();
        for source in [&here, &own] {
            source.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        }
        let child = forked(|| {
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
            setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("a lower limit");
            let error = own.wait(Interest::READ, Some(ms(1))).expect_err("no descriptor is free");
            assert_ne!(error.kind(), io::ErrorKind::TimedOut);
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("the limit of before");
            here.close();
            for _ in 0..100 {
                write(&own_peer, b"x").expect("the buffer has room");
                assert_eq!(read(&own, 8).expect("the read succeeds"), b"x");
                own.wait(Interest::READ, Some(Duration::from_micros(100))).expect_err("nothing more");
            }
            let remote = get_hub().remote();
            for _ in 0..100 {
                remote.notify();
                sleep(Duration::from_micros(100));
            }
        });
        let turns = stats().turns;
        // Long enough for the child to finish.
        sleep(ms(300));
        // An arrival at a file that both processes have open is reported to both.
        let most = if reports_arrivals() { 110 } else { 10 };
        assert!(stats().turns - turns <= most, "{} turns for one sleep", stats().turns - turns);
        ends_well(child);
        let peer = spawn(move || {
            sleep(ms(1));
            write(&there, b"x").expect("the buffer has room");
            there
        });
        assert_eq!(
            read_within(&here, 8, Some(Duration::from_secs(60))).expect("the descriptor is still watched"),
            b"x"
        );
        drop(peer.join());
    });
}

/// Returns the open file under a number.
fn file_at(number: RawFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{number}")).ok()
}

/// Closes all descriptors but the standard ones, as a daemon does, and opens files under their numbers.
fn close_all_and_open_others() -> Vec<(RawFd, PathBuf, std::os::fd::OwnedFd)> {
    for number in 3..256 {
        // SAFETY: the test does not use the owners of these numbers any more. The library must cope with the loss of
        // its descriptors: that is the subject of the test.
        unsafe { libc::close(number) };
    }
    let files = (0..20).map(|_| std::fs::File::open("/dev/null").expect("the file exists"));
    files
        .map(|file| {
            let number = file.as_raw_fd();
            (number, file_at(number).expect("the number is open"), file.into())
        })
        .collect()
}

#[track_caller]
fn assert_still_open(files: Vec<(RawFd, PathBuf, std::os::fd::OwnedFd)>) {
    for (number, file, _owned) in &files {
        assert_eq!(file_at(*number).as_ref(), Some(file), "descriptor {number}");
    }
}

/// Uses the hub as a program does: timers, descriptors, and wake-ups from another OS thread.
fn uses_everything() {
    sleep(ms(1));
    let (here, there) = pair();
    let reader = spawn(move || read(&here, 8));
    yield_now();
    write(&there, b"x").expect("the buffer has room");
    assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
    let remote = get_hub().remote();
    let queue = Arc::new(Queue::new());
    let puts = Arc::clone(&queue);
    let other = std::thread::spawn(move || {
        std::thread::sleep(ms(10));
        remote.spawn(move || puts.try_put(7).expect("the queue has room")).expect("the hub's OS thread lives");
    });
    assert_eq!(queue.get().expect("an item"), 7);
    other.join().expect("no panic");
}

#[test]
fn a_child_that_closed_all_descriptors_builds_a_new_hub_and_closes_no_file() {
    in_child(|| {
        uses_everything();
        let child = forked(|| {
            let files = close_all_and_open_others();
            uses_everything();
            use_hub(None).expect("not in the main loop");
            uses_everything();
            assert_still_open(files);
        });
        ends_well(child);
        uses_everything();
    });
}

#[test]
fn a_grandchild_that_closes_all_descriptors_closes_no_file() {
    in_child(|| {
        sleep(ms(1));
        // The grandchild closes its inherited descriptors of the child's hub.
        let child = forked(|| {
            uses_everything();
            let grandchild = forked(|| {
                let files = close_all_and_open_others();
                uses_everything();
                assert_still_open(files);
            });
            exits_with(grandchild, 0);
        });
        ends_well(child);
    });
}

#[test]
fn a_grandchild_closes_no_file_that_its_parent_has_opened() {
    in_child(|| {
        sleep(ms(1));
        let child = forked(|| {
            // The child's loop has taken no turn, so its hub still has the numbers of the first process.
            let files = close_all_and_open_others();
            let grandchild = forked(|| {
                uses_everything();
                assert_still_open(files);
            });
            exits_with(grandchild, 0);
        });
        ends_well(child);
    });
}

#[test]
fn close_in_a_child_closes_a_socket_that_another_thread_waited_for() {
    in_child(|| {
        let (here, there) = pair();
        let here = Arc::new(here);
        let waits = Arc::clone(&here);
        let number = here.as_raw_fd();
        let other = tracked(move || read(&waits, 8));
        until_asleep(&other);
        let file = file_at(number).expect("the number is open");
        let child = forked(|| {
            here.close();
            assert_ne!(file_at(number), Some(file));
            assert_eq!(read(&here, 1).expect_err("the descriptor is closed").kind(), io::ErrorKind::NotConnected);
            uses_everything();
        });
        ends_well(child);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(other.1.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn close_in_a_child_closes_a_socket_that_another_thread_has_polled() {
    in_child(|| {
        let (here, there) = pair();
        let here = Arc::new(here);
        let number = here.as_raw_fd();
        let polled = Arc::clone(&here);
        let ((has_polled, until_polled), (release, until_released)) = (mpsc::channel(), mpsc::channel::<()>());
        let other = std::thread::spawn(move || {
            let mut cx = Context::from_waker(Waker::noop());
            let polled =
                polled.poll(Interest::READ, &mut cx, |fd| Ok((rustix::io::read(fd, &mut [0; 8])?, ReadHint::Perhaps)));
            has_polled.send(polled.is_pending()).expect("the test waits");
            until_released.recv().expect_err("the test ends");
        });
        assert!(until_polled.recv().expect("no panic"));
        let file = file_at(number).expect("the number is open");
        let child = forked(|| {
            here.close();
            assert_ne!(file_at(number), Some(file));
            uses_everything();
        });
        ends_well(child);
        drop(release);
        other.join().expect("no panic");
        drop(there);
    });
}

#[test]
fn close_in_a_child_keeps_a_lent_descriptor_open() {
    in_child(|| {
        let (here, there) = pair();
        let here = Arc::new(here);
        let waits = Arc::clone(&here);
        let other = tracked(move || read(&waits, 8));
        until_asleep(&other);
        let lent = here.as_fd();
        let file = file_at(lent.as_raw_fd()).expect("the number is open");
        let child = forked(|| {
            here.close();
            assert_eq!(file_at(lent.as_raw_fd()), Some(file));
        });
        ends_well(child);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(other.1.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn an_unparker_of_a_lost_thread_is_left_behind_in_the_child() {
    in_child(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            let parker = Parker::new(WaitReason::Event).expect("no loop");
            sender.send(parker.unparker()).expect("a receiver waits");
            parker.park(&mut Deadline::none())
        });
        let unparker = receiver.recv().expect("the other side waits");
        sleep(ms(1));
        assert!(!unparker.is_left_behind());
        let child = forked(|| {
            assert!(unparker.is_left_behind());
            let own = Parker::new(WaitReason::Event).expect("no loop");
            assert!(!own.unparker().is_left_behind());
        });
        ends_well(child);
        unparker.unpark();
        other.join().expect("no panic").expect("the waiter returns");
    });
}

#[test]
fn close_in_a_child_closes_a_socket_that_moved_to_its_hub() {
    in_child(|| {
        let (here, there) = pair();
        let here = Arc::new(here);
        let waits = Arc::clone(&here);
        let number = here.as_raw_fd();
        let other = tracked(move || read(&waits, 8));
        until_asleep(&other);
        let file = file_at(number).expect("the number is open");
        let child = forked(|| {
            read_within(&here, 8, Some(ms(1))).expect_err("nothing comes");
            here.close();
            assert_ne!(file_at(number), Some(file));
        });
        ends_well(child);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(other.1.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn close_in_a_child_closes_a_socket_that_another_thread_of_the_child_waits_for() {
    in_child(|| {
        let (here, there) = pair();
        let here = Arc::new(here);
        let (waits, in_the_child) = (Arc::clone(&here), Arc::clone(&here));
        let number = here.as_raw_fd();
        let other = tracked(move || read(&waits, 8));
        until_asleep(&other);
        let file = file_at(number).expect("the number is open");
        let in_the_child = Cell::new(Some(in_the_child));
        let child = forked(|| {
            let waits = in_the_child.take().expect("the value was not taken");
            let reader = tracked(move || read(&waits, 8));
            until_asleep(&reader);
            here.close();
            let read = reader.1.join().expect("no panic");
            assert_eq!(read.expect_err("the descriptor is closed").kind(), io::ErrorKind::NotConnected);
            assert_ne!(file_at(number), Some(file));
        });
        ends_well(child);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(other.1.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn a_drop_in_a_child_closes_a_socket_that_another_thread_waited_for() {
    in_child(|| {
        let (here, there) = pair();
        let number = here.as_raw_fd();
        let here: &Source = Box::leak(Box::new(here));
        let other = tracked(move || read(here, 8));
        until_asleep(&other);
        let child = forked(|| {
            // SAFETY: the box was leaked above. In the child no other thread refers to it.
            drop(unsafe { Box::from_raw(ptr::from_ref(here).cast_mut()) });
            assert_eq!(file_at(number), None);
        });
        ends_well(child);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(other.1.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn a_late_release_request_in_a_child_keeps_a_socket_that_is_in_use_again() {
    in_child(|| {
        let (here, there) = pair();
        let here = Arc::new(here);
        // The library notices forks once the hub exists.
        sleep(ms(1));
        let child = forked(|| {
            read_within(&here, 8, Some(ms(1))).expect_err("nothing yet");
            let reads = Arc::clone(&here);
            let late = std::thread::spawn(move || read_within(&reads, 8, Some(ms(1)))).join().expect("no panic");
            late.expect_err("nothing yet");
            // This hub has had no turn since. So it receives the request to release the socket while it waits for the
            // socket again.
            let other = spawn(move || {
                sleep(ms(5));
                write(&there, b"x").expect("the buffer has room");
            });
            assert_eq!(read_within(&here, 8, Some(Duration::from_secs(60))).expect("the read succeeds"), b"x");
            other.join().expect("no panic");
        });
        ends_well(child);
    });
}

#[test]
fn a_socket_that_another_thread_waited_for_is_free_in_the_child() {
    in_child(|| {
        let (here, there) = pair();
        let here = Arc::new(here);
        let waits = Arc::clone(&here);
        let other = tracked(move || read(&waits, 8));
        until_asleep(&other);
        let child = forked(|| {
            for _ in 0..2 {
                // The OS threads take turns with the socket.
                let reads = Arc::clone(&here);
                let late = std::thread::spawn(move || read_within(&reads, 8, Some(ms(1)))).join().expect("no panic");
                assert_eq!(late.expect_err("nothing comes").kind(), io::ErrorKind::TimedOut);
                let late = read_within(&here, 8, Some(ms(1))).expect_err("nothing comes");
                assert_eq!(late.kind(), io::ErrorKind::TimedOut);
            }
        });
        ends_well(child);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(other.1.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[cfg(feature = "console")]
#[test]
fn a_child_that_drops_a_console_leaves_the_path_to_its_parent() {
    in_child(|| {
        let path = std::env::temp_dir().join(format!("greenhub-fork-console-{}", std::process::id()));
        let console = Cell::new(Some(greenhub::debug::console(&path).expect("a console")));
        sleep(ms(1));
        let child = forked(|| drop(console.take()));
        ends_well(child);
        assert!(path.exists());
        greenhub::os::unix::net::UnixStream::connect(&path).expect("the server still listens");
        console.take().expect("the value was not taken").stop();
        assert!(!path.exists());
    });
}

/// Records the drop of the hub, and whether `after_fork` was called before.
struct Mortal {
    afresh: bool,
    dropped: Rc<Cell<Option<bool>>>,
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.dropped.set(Some(self.afresh));
    }
}

impl Tap for Mortal {
    fn after_fork(&mut self, hub: &mut dyn Hub) -> io::Result<()> {
        self.afresh = true;
        hub.after_fork()
    }
}

#[test]
fn a_child_counts_the_calls_that_register_its_waiters_again() {
    in_child(|| {
        let calls = Calls::default();
        use_tapped_hub(calls.clone());
        let (here, there) = pair();
        let reader = spawn(move || read(&here, 8));
        yield_now();
        let child = forked(|| {
            let before = calls.watches.get();
            sleep(ms(1));
            assert!(calls.watches.get() > before);
            assert_eq!(stats().watches, calls.watches.get() as u64);
        });
        ends_well(child);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn use_hub_in_a_child_does_not_drop_the_parents_hub_in_the_parent() {
    in_child(|| {
        let dropped = Rc::new(Cell::new(None));
        use_tapped_hub(Mortal { afresh: false, dropped: Rc::clone(&dropped) });
        sleep(ms(1));
        let child = forked(|| {
            use_hub(None).expect("not in the main loop");
            assert_eq!(dropped.get(), Some(true));
            sleep(ms(1));
        });
        ends_well(child);
        assert_eq!(dropped.get(), None);
    });
}

#[test]
fn closing_a_socket_of_another_thread_in_a_child_does_not_spin_its_hub() {
    in_child(|| {
        let listener = Arc::new(greenhub::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
        let address = listener.local_addr().expect("an address");
        // The library notices forks once the hub exists.
        sleep(ms(1));
        let child = forked(|| {
            let accepts = Arc::clone(&listener);
            let (parked, is_parked) = std::sync::mpsc::channel();
            let (closed, is_closed) = std::sync::mpsc::channel();
            let other = std::thread::spawn(move || {
                let green = spawn(move || accepts.accept().map(drop));
                yield_now();
                sleep(ms(1));
                parked.send(()).expect("a receiver");
                // The loop processes the close later.
                is_closed.recv().expect("a sender");
                green.join().expect("no panic").expect_err("the descriptor is closed");
                // The listener is still open in the parent, so this connection stays in its queue.
                drop(std::net::TcpStream::connect(address).expect("the server listens"));
                let before = stats().turns;
                sleep(ms(200));
                stats().turns - before
            });
            is_parked.recv().expect("a sender");
            listener.close();
            closed.send(()).expect("a receiver");
            let turns = other.join().expect("no panic");
            assert!(turns < 50, "{turns} turns for one sleep");
        });
        ends_well(child);
    });
}
