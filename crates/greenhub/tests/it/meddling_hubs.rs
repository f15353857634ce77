//! Hubs that call back into the library, or change its state, from inside their own methods.

use std::cell::{Cell, RefCell};
use std::io::{self, PipeReader, PipeWriter, Write, pipe};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use crate::support::green::quiet_panic;
use crate::support::poll_hub::PollHub;
use crate::support::{alone, run};
use greenhub::debug::hub_prevent_multiple_readers;
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::hub::{Hub, HubDescriptor, Key, Lease, LoopErrorKind, Ready, Rearm, Time, Watched};
use greenhub::park::{ReadHint, Source, notify_close};
use greenhub::{
    GreenThread, Interest, Trampoline, TrampolineError, get_hub, register_hub, sleep, spawn, trampoline, use_hub,
    use_hub_with,
};

const SHORT: Duration = Duration::from_millis(5);

type Hook = RefCell<Option<Box<dyn FnOnce()>>>;

/// Instructions for the hubs of an OS thread, and a record of their calls.
#[derive(Default)]
struct Script {
    /// Called once, by the next `watch`; if `only` is set, by the next `watch` of that descriptor.
    on_watch: Hook,
    only: Cell<Option<RawFd>>,
    /// Called once, by the next `now`.
    on_now: Hook,
    refuse_watch: Cell<Option<RawFd>>,
    fail_wait: Cell<bool>,
    /// The descriptors passed to `watch`, oldest first.
    watched: RefCell<Vec<RawFd>>,
    /// The keys passed to `watch`.
    keys: RefCell<Vec<Key>>,
    /// The part of `keys` that was lent to the last `wait`.
    lent: RefCell<Vec<Key>>,
    /// A closed descriptor that was lent to `wait`.
    dead: Cell<Option<RawFd>>,
}

thread_local! {
    static SCRIPT: Script = Script::default();
}

fn on_watch(hook: impl FnOnce() + 'static) {
    SCRIPT.with(|script| script.on_watch.replace(Some(Box::new(hook))));
}

fn call(hook: fn(&Script) -> &Hook) {
    let hook = SCRIPT.with(|script| hook(script).take());
    if let Some(hook) = hook {
        hook();
    }
}

/// A `PollHub` that follows the thread's `Script`.
struct Meddling {
    hub: PollHub,
    rearm: Rearm,
}

impl Meddling {
    fn new(rearm: Rearm) -> io::Result<Meddling> {
        Ok(Meddling { hub: PollHub::new()?, rearm })
    }
}

impl Hub for Meddling {
    fn name(&self) -> &'static str {
        "meddling"
    }

    fn rearm(&self) -> Rearm {
        self.rearm
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        let refused = SCRIPT.with(|script| {
            script.watched.borrow_mut().push(key.fd());
            script.keys.borrow_mut().push(key);
            script.refuse_watch.take_if_it_is(key.fd())
        });
        if SCRIPT.with(|script| script.only.get().is_none_or(|only| only == key.fd())) {
            call(|script| &script.on_watch);
        }
        if refused {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.hub.watch(key, fd, interest, lease)
    }

    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        self.hub.forget(key, fd);
    }

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        let dead = watched.iter().find(|(_, fd, _)| rustix::io::fcntl_getfd(fd).is_err());
        SCRIPT.with(|script| script.dead.set(script.dead.get().or(dead.map(|(key, ..)| key.fd()))));
        SCRIPT.with(|script| {
            let keys = script.keys.borrow();
            script.lent.replace(keys.iter().copied().filter(|&key| watched.fd(key).is_some()).collect());
        });
        if SCRIPT.with(|script| script.fail_wait.replace(false)) {
            return Err(io::Error::other("lost"));
        }
        self.hub.wait(watched, timeout, ready)
    }

    fn after_fork(&mut self) -> io::Result<()> {
        self.hub.after_fork()
    }

    fn now(&self) -> Time {
        call(|script| &script.on_now);
        Time::monotonic()
    }
}

trait TakeIf {
    fn take_if_it_is(&self, fd: RawFd) -> bool;
}

impl TakeIf for Cell<Option<RawFd>> {
    fn take_if_it_is(&self, fd: RawFd) -> bool {
        let is = self.get() == Some(fd);
        if is {
            self.set(None);
        }
        is
    }
}

/// Runs a test on an OS thread with a meddling hub, and checks that the hub was lent no closed descriptor.
fn meddled_with(name: &str, test: impl FnOnce() + Send + 'static) {
    run(name, || meddle(test));
}

/// Like [`meddled_with`], in a process of its own that allows several waiters on one descriptor.
fn meddled_with_and_queueing(name: &str, test: impl FnOnce() + Send + 'static) {
    alone(name, || {
        hub_prevent_multiple_readers(false);
        meddle(test);
    });
}

fn meddle(test: impl FnOnce()) {
    use_hub_with(|| Meddling::new(Rearm::Explicit)).unwrap();
    test();
    sleep(SHORT);
    assert_eq!(SCRIPT.with(|script| script.dead.get()), None, "a closed descriptor was lent to the hub");
}

/// Returns a pipe that holds one byte.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"x").unwrap();
    (reader, writer)
}

fn wait_for(reader: &Rc<PipeReader>) -> GreenThread<bool> {
    let reader = Rc::clone(reader);
    spawn(move || trampoline(&*reader, Interest::READ, None).is_ok())
}

#[test]
fn a_hub_that_has_a_number_given_up_and_fails_leaves_its_next_owner_alone() {
    run("a_hub_that_has_a_number_given_up_and_fails_leaves_its_next_owner_alone", || {
        use_rebuilt_hub(Rearm::Explicit);
        let (reader, _writer) = full_pipe();
        let number = reader.as_raw_fd();
        // The watch of the listener after its call.
        let fails = move |_: greenhub::hub::Readiness| {
            on_watch(move || {
                notify_close(number);
                quiet_panic("the hub");
            });
        };
        let registration = get_hub().listen(reader, Interest::READ, fails).unwrap();
        sleep_until_the_hub_fails();
        drop(registration);
        let (reader, _writer) = pipe().unwrap();
        assert_eq!(reader.as_raw_fd(), number, "the number is used again");
        let waited = trampoline(&reader, Interest::READ, SHORT).unwrap_err();
        assert!(matches!(waited, TrampolineError::TimedOut { .. }), "{waited}");
    });
}

#[test]
fn a_wake_up_by_the_hub_reaches_the_greenlet_that_is_about_to_park() {
    meddled_with("a_wake_up_by_the_hub_reaches_the_greenlet_that_is_about_to_park", || {
        let (reader, _writer) = pipe().unwrap();
        let source = Source::new(reader.into()).unwrap();
        let waker = source.waker();
        on_watch(move || waker.wake(Interest::READ));
        source.wait(Interest::READ, Duration::from_secs(30)).expect("the wake-up was not lost");
    });
}

#[test]
fn a_wait_inside_watch_fails_the_outer_wait_and_leaves_no_trace() {
    meddled_with("a_wait_inside_watch_fails_the_outer_wait_and_leaves_no_trace", || {
        let waits = spawn(|| {
            trampoline(&full_pipe().0, Interest::READ, None).unwrap();
            let (reader, _writer) = pipe().unwrap();
            on_watch(|| drop(catch_unwind(|| sleep(SHORT))));
            let refused = trampoline(&reader, Interest::READ, None).unwrap_err();
            assert!(
                matches!(&refused, TrampolineError::Loop(error) if error.kind() == LoopErrorKind::InMainloop),
                "{refused}"
            );
            let late = trampoline(&reader, Interest::READ, Some(SHORT)).unwrap_err();
            assert!(matches!(late, TrampolineError::TimedOut { .. }), "{late}");
        });
        waits.join().unwrap();
    });
}

#[test]
fn set_parent_inside_now_does_not_disturb_a_switch() {
    meddled_with("set_parent_inside_now_does_not_disturb_a_switch", || {
        let (reader, _writer) = full_pipe();
        let parent = Greenlet::new(|_| Ok(Payload::unit()));
        let child = Greenlet::new(move |_| {
            trampoline(&reader, Interest::READ, None).unwrap();
            Ok(Payload::unit())
        });
        child.set_parent(&parent).unwrap();
        drop(parent);
        // Starts a turn in which the time has not been read yet.
        spawn(|| ()).join().unwrap();
        let (moved, main) = (child.clone(), Greenlet::current());
        SCRIPT.with(|script| script.on_now.replace(Some(Box::new(move || moved.set_parent(&main).unwrap()))));
        child.switch(Payload::unit()).unwrap();
    });
}

#[test]
fn a_listener_deregistered_inside_watch_is_not_called_again() {
    meddled_with("a_listener_deregistered_inside_watch_is_not_called_again", || {
        let (reader, _writer) = full_pipe();
        let registration = Rc::new(RefCell::new(None));
        let called = Rc::new(Cell::new(0));
        let listen = {
            let (registration, called) = (Rc::clone(&registration), Rc::clone(&called));
            move |_| {
                called.set(called.get() + 1);
                let registration = Rc::clone(&registration);
                // Runs in the rearm that follows this call.
                on_watch(move || drop(registration.take()));
            }
        };
        registration.replace(Some(get_hub().listen(reader, Interest::READ, listen).unwrap()));
        sleep(SHORT);
        sleep(SHORT);
        assert_eq!(called.get(), 1);
    });
}

#[test]
fn queued_waiters_survive_a_listener_added_in_the_same_batch() {
    meddled_with_and_queueing("queued_waiters_survive_a_listener_added_in_the_same_batch", || {
        let ((first, mut wake_first), (second, mut wake_second)) = (pipe().unwrap(), pipe().unwrap());
        assert!(first.as_raw_fd() < second.as_raw_fd(), "poll(2) would report them in another order");
        let second = Rc::new(second);
        let waiting = [wait_for(&second), wait_for(&second)];
        let kept = Rc::new(RefCell::new(None));
        let _first = {
            let (second, kept) = (Rc::clone(&second), Rc::clone(&kept));
            let listen_too = move |_| {
                if kept.borrow().is_none() {
                    let made = get_hub().listen(Rc::clone(&second), Interest::READ, |_| ());
                    kept.replace(made.ok());
                }
            };
            get_hub().listen(first, Interest::READ, listen_too).unwrap()
        };
        sleep(SHORT);
        wake_first.write_all(b"x").unwrap();
        wake_second.write_all(b"x").unwrap();
        sleep(SHORT);
        kept.take();
        for waiter in waiting {
            assert!(waiter.join().unwrap());
        }
    });
}

#[test]
fn waiters_queued_behind_a_refused_watch_are_served() {
    meddled_with_and_queueing("waiters_queued_behind_a_refused_watch_are_served", || {
        let (reader, mut writer) = pipe().unwrap();
        let reader = Rc::new(reader);
        let waiting: Vec<_> = (0..4).map(|_| wait_for(&reader)).collect();
        sleep(SHORT);
        SCRIPT.with(|script| script.refuse_watch.set(Some(reader.as_raw_fd())));
        writer.write_all(b"x").unwrap();
        for waiter in waiting {
            // A refused watch wakes its waiter with readiness as a hint.
            assert!(waiter.join().unwrap());
        }
    });
}

/// Makes this OS thread use a hub that is rebuilt when it is lost.
fn use_rebuilt_hub(rearm: Rearm) {
    static REGISTERED: Once = Once::new();
    fn build(rearm: Rearm) -> io::Result<Box<dyn Hub>> {
        Ok(Box::new(Meddling::new(rearm)?))
    }
    REGISTERED.call_once(|| {
        let register = |name, build| register_hub(HubDescriptor { name, aliases: &[], available: || true, build });
        register("tests.meddling", || build(Rearm::Level)).unwrap();
        register("tests.explicit", || build(Rearm::Explicit)).unwrap();
    });
    use_hub(if rearm == Rearm::Level { "tests.meddling" } else { "tests.explicit" }).unwrap();
}

/// Makes the hub fail, and builds the next one.
fn lose_the_hub() {
    SCRIPT.with(|script| script.fail_wait.set(true));
    sleep_until_the_hub_fails();
    sleep(SHORT);
}

/// Sleeps again and again: on a slow machine, a sleep may end before the call of the hub that fails.
fn sleep_until_the_hub_fails() {
    while catch_unwind(|| sleep(SHORT)).is_ok() {}
}

/// Returns how often a source is watched that waits when its hub is lost, and twice after that.
fn watches_after_a_loss(rearm: Rearm) -> usize {
    use_rebuilt_hub(rearm);
    let (reader, mut writer) = pipe().unwrap();
    let number = reader.as_raw_fd();
    let source = Source::new(reader.into()).unwrap();
    let done = Rc::new(Cell::new(0));
    let reads = spawn({
        let done = Rc::clone(&done);
        move || {
            for count in 1..=3 {
                let read = source.read(None, |fd| Ok((rustix::io::read(fd, &mut [0; 8])?, ReadHint::Nothing)));
                assert_eq!(read.unwrap(), 1);
                done.set(count);
            }
        }
    });
    sleep(SHORT);
    SCRIPT.with(|script| script.watched.take());
    lose_the_hub();
    for count in 1..=3 {
        writer.write_all(b"x").unwrap();
        while done.get() < count {
            sleep(SHORT);
        }
    }
    reads.join().unwrap();
    SCRIPT.with(|script| script.watched.borrow().iter().filter(|&&watched| watched == number).count())
}

#[test]
fn a_new_level_triggered_hub_watches_a_waiting_source_once() {
    run("a_new_level_triggered_hub_watches_a_waiting_source_once", || {
        assert_eq!(watches_after_a_loss(Rearm::Level), 1);
    });
}

#[test]
fn a_new_explicit_hub_watches_a_source_for_each_wait() {
    run("a_new_explicit_hub_watches_a_source_for_each_wait", || {
        assert_eq!(watches_after_a_loss(Rearm::Explicit), 3);
    });
}

#[test]
fn a_new_hub_is_lent_a_borrowed_descriptor_for_its_wait_only() {
    run("a_new_hub_is_lent_a_borrowed_descriptor_for_its_wait_only", || {
        use_rebuilt_hub(Rearm::Level);
        let (reader, mut writer) = pipe().unwrap();
        let (number, reader) = (reader.as_raw_fd(), Rc::new(reader));
        let waits = wait_for(&reader);
        sleep(SHORT);
        let is_lent = || SCRIPT.with(|script| script.lent.borrow().iter().any(|key| key.fd() == number));
        lose_the_hub();
        assert!(is_lent());
        writer.write_all(b"x").unwrap();
        assert!(waits.join().unwrap());
        sleep(SHORT);
        assert!(!is_lent());
    });
}

#[test]
fn a_wait_inside_a_mark_does_not_end_the_wait_that_builds_the_next_hub() {
    run("a_wait_inside_a_mark_does_not_end_the_wait_that_builds_the_next_hub", || {
        use_rebuilt_hub(Rearm::Explicit);
        let (refused, _writer) = pipe().unwrap();
        let number = refused.as_raw_fd();
        let (ready, _ready_writer) = full_pipe();
        let refused = spawn(move || {
            let mark = move || _ = trampoline(&ready, Interest::READ, None).unwrap();
            Trampoline::new(&refused).read().mark_as_closed(mark).wait()
        });
        sleep(SHORT);
        SCRIPT.with(|script| script.fail_wait.set(true));
        sleep_until_the_hub_fails();
        // The next hub refuses the waiter of the last one, whose mark then runs within the wait below.
        SCRIPT.with(|script| script.refuse_watch.set(Some(number)));
        let (idle, _idle_writer) = pipe().unwrap();
        trampoline(&idle, Interest::READ, None).expect_err("the mark has used up the park");
        assert!(matches!(refused.join().unwrap(), Err(TrampolineError::Closed { .. })));
        let stats = get_hub().stats();
        assert_eq!((stats.readers, stats.writers), (0, 0));
    });
}

#[test]
fn a_number_released_inside_the_watch_of_a_new_hub_is_watched_again() {
    run("a_number_released_inside_the_watch_of_a_new_hub_is_watched_again", || {
        use_rebuilt_hub(Rearm::Level);
        let (reader, writer) = pipe().unwrap();
        let number = reader.as_raw_fd();
        let source = Rc::new(Source::new(reader.into()).unwrap());
        let waits = spawn({
            let source = Rc::clone(&source);
            move || source.wait(Interest::READ, None)
        });
        sleep(SHORT);
        // The failed wait drops the hub. The next hub closes the source from inside its `watch`.
        SCRIPT.with(|script| script.only.set(Some(number)));
        on_watch({
            let source = Rc::clone(&source);
            move || source.close()
        });
        SCRIPT.with(|script| script.fail_wait.set(true));
        sleep_until_the_hub_fails();
        let _ = catch_unwind(|| sleep(SHORT));
        assert!(waits.join().unwrap().is_err(), "closed");
        drop((source, writer));
        let pipes: Vec<_> = (0..4).map(|_| full_pipe()).collect();
        let again = pipes.iter().map(|(reader, _)| reader).find(|reader| reader.as_raw_fd() == number);
        let Some(again) = again else { return eprintln!("the number is not reused") };
        SCRIPT.with(|script| script.watched.take());
        trampoline(again, Interest::READ, Some(Duration::from_secs(60))).unwrap();
        assert!(SCRIPT.with(|script| script.watched.borrow().contains(&number)));
    });
}
