//! A call that panics names its caller, not a place in the library.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::support::in_child;
use greenhub::future::block_on;
use greenhub::hub::{Hub, interrupt_on};
use greenhub::net::UdpSocket;
use greenhub::select::Select;
use greenhub::sync::{Barrier, Condvar, Mutex, Once, OnceLock, RateLimiter, RwLock, mpsc};
use greenhub::thread::{park, park_timeout, yield_now};
use greenhub::time::{Interval, interval};
use greenhub::{get_hub, scope, sleep, spawn, use_hub_with};

thread_local! {
    static PLACE: Cell<Option<(&'static str, u32)>> = const { Cell::new(None) };
}

/// Asserts that `call` panics, and that the panic's place is in this file. Returns the message.
#[track_caller]
fn panics_here(name: &str, call: impl FnOnce()) -> String {
    PLACE.set(None);
    let former = std::panic::take_hook();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().expect("a place");
        // The hook borrows the name of the file.
        PLACE.set(Some((if place.file() == file!() { file!() } else { "elsewhere" }, place.line())));
        if place.file() != file!() {
            eprintln!("{panic}");
        }
    }));
    let panicked = catch_unwind(AssertUnwindSafe(call));
    std::panic::set_hook(former);
    assert_eq!(PLACE.get().map(|(file, _)| file), Some(file!()), "{name}");
    let payload = panicked.expect_err("a panic");
    payload
        .downcast::<String>()
        .map_or_else(|literal| literal.downcast_ref::<&str>().unwrap().to_string(), |text| *text)
}

/// Runs `call` in the main greenlet, which a signal interrupts.
fn interrupted(call: impl FnOnce()) {
    let sender = spawn(|| {
        yield_now();
        signal_hook::low_level::raise(libc::SIGTERM).expect("a signal");
    });
    call();
    drop(sender);
}

/// A call that waits.
type Call<'a> = Box<dyn Fn() + 'a>;

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn waits_with_the_signature_of_std_name_their_caller() {
    in_child(|| {
        let _interrupt = interrupt_on(libc::SIGTERM).expect("a signal that can be caught");
        // Keeps the loop alive.
        let sleeper = spawn(|| sleep(LONG));
        let (sender, receiver) = mpsc::channel::<()>();
        let (rendezvous, _kept) = mpsc::sync_channel::<()>(0);
        let mutex = Rc::new(Mutex::new(()));
        let lock = Rc::new(RwLock::new(()));
        let (held, hold) = (Rc::clone(&mutex), Rc::clone(&lock));
        let holder = spawn(move || {
            let _held = (held.lock().unwrap(), hold.write().unwrap());
            sleep(LONG);
        });
        yield_now();
        let other = Mutex::new(());
        let calls: [(&str, &str, Call<'_>); 16] = [
            ("sleep", "sleep", Box::new(|| sleep(LONG))),
            ("park", "park", Box::new(|| park())),
            ("park_timeout", "park", Box::new(|| park_timeout(LONG))),
            ("block_on", "block_on", Box::new(|| block_on(std::future::pending()))),
            ("Receiver::recv", "recv", Box::new(|| _ = receiver.recv())),
            ("Receiver::recv_timeout", "recv", Box::new(|| _ = receiver.recv_timeout(LONG))),
            ("SyncSender::send", "send", Box::new(|| _ = rendezvous.send(()))),
            ("Mutex::lock", "lock", Box::new(|| drop(mutex.lock()))),
            ("RwLock::read", "lock", Box::new(|| drop(lock.read()))),
            ("RwLock::write", "lock", Box::new(|| drop(lock.write()))),
            ("Condvar::wait", "wait", Box::new(|| drop(Condvar::new().wait(other.lock().unwrap())))),
            ("Barrier::wait", "wait", Box::new(|| _ = Barrier::new(2).wait())),
            ("Once::call_once", "once", Box::new(|| wait_for_once(|once| once.call_once(|| ())))),
            ("OnceLock::get_or_init", "once", Box::new(wait_for_once_lock)),
            ("Interval::next", "tick", Box::new(|| wait_for_the_second_tick(|ticks| _ = ticks.next()))),
            ("Interval::tick", "tick", Box::new(|| wait_for_the_second_tick(|ticks| _ = ticks.tick()))),
        ];
        for (name, prefix, call) in calls {
            let message = panics_here(name, || interrupted(call));
            assert_eq!(message, format!("{prefix}: the main loop was interrupted"), "{name}");
        }
        drop(sender);
        sleeper.kill();
        holder.kill();
    });
}

/// Calls `wait` for a `Once` whose initialization is still running in another green thread.
#[track_caller]
fn wait_for_once(wait: impl FnOnce(&Once)) {
    let once = Rc::new(Once::new());
    let begun = Rc::clone(&once);
    let begins = spawn(move || begun.call_once(|| sleep(LONG)));
    // The sender of the signal was spawned before and waits for one turn.
    yield_now();
    wait(&once);
    drop(begins);
}

fn wait_for_once_lock() {
    let once = Rc::new(OnceLock::new());
    let begun = Rc::clone(&once);
    let begins = spawn(move || _ = begun.get_or_init(|| sleep(LONG)));
    yield_now();
    once.get_or_init(|| ());
    drop(begins);
}

fn wait_for_the_second_tick(wait: impl FnOnce(&mut Interval)) {
    let mut ticks = interval(LONG);
    // The first one is due at once.
    ticks.tick();
    wait(&mut ticks);
}

#[test]
fn calls_without_a_hub_name_their_caller() {
    in_child(|| {
        let refuse = || Err::<Box<dyn Hub>, _>(std::io::Error::other("no hub today"));
        use_hub_with(refuse).expect("no hub yet");
        panics_here("get_hub", || drop(get_hub()));
        panics_here("sleep", || sleep(LONG));
    });
}

#[test]
fn calls_that_the_main_loop_refuses_name_their_caller() {
    in_child(|| {
        let (done, ended) = std::sync::mpsc::channel();
        let _timer = get_hub().schedule(Duration::ZERO, move || {
            panics_here("sleep", || sleep(LONG));
            panics_here("scope", || scope(|scope| _ = scope.spawn(|| ())));
            done.send(()).expect("the test waits");
        });
        sleep(Duration::from_millis(1));
        ended.try_recv().expect("the timer has fired");
    });
}

#[test]
fn conversions_and_borrows_of_closed_sockets_name_their_caller() {
    in_child(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.close();
        panics_here("AsFd::as_fd", || _ = socket.as_fd());
        panics_here("Select::readable", || _ = Select::new().readable(&socket));
        panics_here("Select::writable", || _ = Select::new().writable(&socket));
        panics_here("OwnedFd::from", || drop(OwnedFd::from(socket)));
        let (reader, _writer) = greenhub::io::pipe().expect("a pipe");
        reader.close();
        panics_here("AsFd::as_fd", || _ = reader.as_fd());
        panics_here("OwnedFd::from", || drop(OwnedFd::from(reader)));
    });
}

greenhub::local::green_local! {
    static BORROWED: RefCell<u8> = const { RefCell::new(0) };
}

#[test]
fn accesses_of_a_borrowed_value_name_their_caller() {
    in_child(|| {
        BORROWED.with_borrow_mut(|_| {
            panics_here("LocalKey::take", || _ = BORROWED.take());
            panics_here("LocalKey::replace", || _ = BORROWED.replace(1));
            panics_here("LocalKey::with_borrow", || BORROWED.with_borrow(|_| ()));
            panics_here("LocalKey::with_borrow_mut", || BORROWED.with_borrow_mut(|_| ()));
        });
    });
}

#[test]
fn calls_with_arguments_that_are_refused_name_their_caller() {
    let second = Duration::from_secs(1);
    in_child(|| {
        panics_here("RateLimiter::new", || _ = RateLimiter::new(0, second));
        panics_here("RateLimiter::new", || _ = RateLimiter::new(1, Duration::ZERO));
        panics_here("RateLimiter::with_burst", || _ = RateLimiter::new(1, second).with_burst(0));
        panics_here("Select::ready", || _ = Select::new().ready());
        panics_here("Select::remove", || Select::new().remove(0));
        panics_here("interval", || _ = interval(Duration::ZERO));
    });
}
