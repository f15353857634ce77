//! Rule 6 of `docs/design.md`: a hub is safe third-party code, and may do anything in each of its methods.

use std::cell::{Cell, RefCell};
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::support::green::{LONG, Log, OnDrop, SHORT, keep_reports, pipe, quiet_panic};
use crate::support::hubs::{Tap, Tapped, Wait, Watch};
use crate::support::run;
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::greenthread::KillOutcome;
use greenhub::hub::{Hub, HubDescriptor, HubError, Key, LoopError, LoopErrorKind, Readiness, Ready, Time};
use greenhub::park::Source;
use greenhub::thread::yield_now;
use greenhub::{
    GreenError, GreenThread, Interest, TrampolineError, get_hub, register_hub, scope, sleep, spawn, trampoline,
    use_hub, use_hub_with,
};

/// Longer than any wait that a wake-up ends, so that a lost wake-up is a failure and not a hang.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A call of a hub.
enum Call<'a> {
    Build,
    Watch(Key),
    Forget,
    /// With the reports and the result, which the hook may change.
    Wait(&'a mut Ready, &'a mut io::Result<()>),
    Now(&'a mut Time),
    Pollable,
    Drop,
}

/// The methods of a hub, each of which a greenlet can cause to be called.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Method {
    Build,
    Watch,
    Forget,
    Wait,
    Now,
    Pollable,
    Drop,
}

impl Call<'_> {
    fn method(&self) -> Method {
        match self {
            Call::Build => Method::Build,
            Call::Watch(_) => Method::Watch,
            Call::Forget => Method::Forget,
            Call::Wait(..) => Method::Wait,
            Call::Now(_) => Method::Now,
            Call::Pollable => Method::Pollable,
            Call::Drop => Method::Drop,
        }
    }
}

type Hook = Box<dyn FnMut(Call<'_>)>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    /// The number of hubs that this OS thread has built.
    static BUILT: Cell<usize> = const { Cell::new(0) };
    /// The number of hubs that this OS thread has dropped.
    static DROPPED: Cell<usize> = const { Cell::new(0) };
}

/// Calls `hook` in every call of the hub, except in calls that the hook causes itself.
fn on_calls(hook: impl FnMut(Call<'_>) + 'static) {
    HOOK.set(Some(Box::new(hook)));
}

/// Calls `hook` in the next call of `method`, and in no other.
fn on_next(method: Method, hook: impl FnOnce() + 'static) {
    let mut hook = Some(hook);
    on_calls(move |call| {
        if call.method() == method
            && let Some(hook) = hook.take()
        {
            hook();
        }
    });
}

fn called(call: Call<'_>) {
    /// Puts the hook back, even if it panics.
    struct PutBack(Option<Hook>);
    impl Drop for PutBack {
        fn drop(&mut self) {
            let hook = self.0.take();
            HOOK.with_borrow_mut(|place| _ = place.get_or_insert_with(|| hook.expect("taken once")));
        }
    }
    // The hub of an ended OS thread may be dropped after the thread-local hook.
    if let Ok(Some(hook)) = HOOK.try_with(RefCell::take) {
        let mut hook = PutBack(Some(hook));
        hook.0.as_mut().expect("taken once")(call);
    }
}

/// Calls the hook first in each method of the hub.
struct Hooked;

impl Hooked {
    fn build() -> io::Result<Tapped<Hooked>> {
        BUILT.set(BUILT.get() + 1);
        called(Call::Build);
        Tapped::new(Hooked)
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        DROPPED.set(DROPPED.get() + 1);
        called(Call::Drop);
    }
}

impl Tap for Hooked {
    fn name(&self, _: &dyn Hub) -> &'static str {
        "hooked"
    }

    fn watch(&mut self, hub: &mut dyn Hub, call: Watch<'_>) -> io::Result<()> {
        called(Call::Watch(call.key));
        call.forward(hub)
    }

    fn forget(&mut self, hub: &mut dyn Hub, key: Key, fd: Option<BorrowedFd<'_>>) {
        called(Call::Forget);
        hub.forget(key, fd);
    }

    fn wait(&mut self, hub: &mut dyn Hub, mut call: Wait<'_>) -> io::Result<()> {
        let mut result = Ok(());
        called(Call::Wait(call.ready, &mut result));
        result?;
        // Limits the wait, so that the hook is called again without an event.
        if HOOK.with_borrow(Option::is_some) {
            call.timeout = Some(call.timeout.map_or(SHORT, |time| time.min(SHORT)));
        }
        call.forward(hub)
    }

    fn pollable<'hub>(&self, hub: &'hub dyn Hub) -> Option<BorrowedFd<'hub>> {
        called(Call::Pollable);
        hub.pollable()
    }

    fn now(&self, _: &dyn Hub) -> Time {
        let mut now = Time::monotonic();
        called(Call::Now(&mut now));
        now
    }
}

/// Makes this OS thread use [`Hooked`], which is built again when it is lost.
fn use_hooked_hub() -> Result<(), HubError> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let build = || Ok(Box::new(Hooked::build()?) as Box<dyn Hub>);
        register_hub(HubDescriptor { name: "tests.hooked", aliases: &[], available: || true, build }).unwrap();
    });
    use_hub("tests.hooked")
}

/// Runs a test on an OS thread with [`Hooked`], initially without a hook.
fn with_hooked(name: &str, test: impl FnOnce() + Send + 'static) {
    run(name, || {
        keep_reports();
        use_hooked_hub().unwrap();
        test();
        HOOK.take();
        // The main loop works again, whatever the hub did.
        spawn(|| sleep(SHORT)).join().unwrap();
    });
}

/// Causes a call of `method`.
fn cause_call(method: Method) {
    match method {
        Method::Watch => {
            let (reader, _writer) = pipe();
            let _ = trampoline(&reader, Interest::READ, Some(SHORT));
        }
        Method::Forget => {
            let (source, _writer) = registered_source();
            source.close();
        }
        Method::Wait => sleep(SHORT),
        Method::Now => _ = get_hub().now(),
        Method::Pollable => _ = get_hub().pollable(),
        Method::Drop => use_hooked_hub().unwrap(),
        Method::Build => {
            use_hooked_hub().unwrap();
            let (reader, _writer) = pipe();
            let _ = trampoline(&reader, Interest::READ, Some(SHORT));
        }
    }
}

/// Registers a source with the hub. The hook is suspended meanwhile.
fn registered_source() -> (Source, io::PipeWriter) {
    let hook = HOOK.take();
    let (reader, writer) = pipe();
    let source = Source::new(reader.into()).unwrap();
    source.wait(Interest::READ, Some(SHORT)).unwrap_err();
    HOOK.set(hook);
    (source, writer)
}

/// The methods that green threads call, and not the main loop.
const OF_GREENLETS: [Method; 6] =
    [Method::Build, Method::Watch, Method::Forget, Method::Now, Method::Pollable, Method::Drop];

/// Calls `hook` in the next call of `method`, which a green thread makes while others are ready.
///
/// # Panics
///
/// Panics if another green thread runs before the call has ended.
fn inside_call(method: Method, hook: impl FnOnce() + 'static) {
    // Builds the hub and starts the loop.
    sleep(SHORT);
    let log = Log::new();
    let (begun, ended) = (log.clone(), log.clone());
    on_next(method, move || {
        begun.add("begun");
        hook();
        ended.add("ended");
    });
    let calls = spawn(move || cause_call(method));
    let runs = log.clone();
    let bystander = spawn(move || runs.add("bystander"));
    calls.join().unwrap();
    bystander.join().unwrap();
    HOOK.take();
    let place = |entry: &str| log.position(entry).unwrap_or_else(|| panic!("not {entry} in {method:?}: {log:?}"));
    assert!(place("begun") + 1 == place("ended"), "another ran within {method:?}: {log:?}");
}

fn is_in_mainloop(error: &LoopError) -> bool {
    error.kind() == LoopErrorKind::InMainloop
}

#[track_caller]
fn assert_refused(wait: Result<impl Sized, TrampolineError>) {
    match wait {
        Err(TrampolineError::Loop(error)) if is_in_mainloop(&error) => {}
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("not refused"),
    }
}

#[test]
fn rule_06_a_hub_that_panics_is_dropped_and_rebuilt() {
    for method in [Method::Watch, Method::Forget, Method::Wait, Method::Now, Method::Pollable] {
        with_hooked("rule_06_a_hub_that_panics_is_dropped_and_rebuilt", move || {
            sleep(SHORT);
            let (source, _writer) = registered_source();
            assert_eq!((BUILT.get(), DROPPED.get()), (1, 0));
            on_next(method, || quiet_panic("on purpose"));
            match method {
                Method::Watch => {
                    let (reader, _writer) = pipe();
                    let error = trampoline(&reader, Interest::READ, Some(LONG)).unwrap_err();
                    assert!(
                        matches!(&error, TrampolineError::Loop(error) if error.kind() == LoopErrorKind::Panic),
                        "{error:?}"
                    );
                }
                Method::Forget => source.close(),
                // Main gets the error from the main loop.
                Method::Wait => assert!(catch_unwind(|| sleep(LONG)).is_err()),
                method => cause_call(method),
            }
            assert_eq!(DROPPED.get(), 1, "{method:?}");
            // The error of a panic in `now` comes with main's next wait.
            let _ = catch_unwind(|| sleep(SHORT));
            spawn(|| sleep(SHORT)).join().unwrap();
            assert_eq!((BUILT.get(), DROPPED.get()), (2, 1), "{method:?}");
        });
    }
}

#[test]
fn rule_06_a_listener_outlives_a_hub_that_panics_in_its_rearm() {
    with_hooked("rule_06_a_listener_outlives_a_hub_that_panics_in_its_rearm", || {
        let (reader, mut writer) = pipe();
        let called = Rc::new(Cell::new(0));
        let calls = Rc::clone(&called);
        let _registration = get_hub().listen(reader, Interest::READ, move |_| calls.set(calls.get() + 1)).unwrap();
        sleep(SHORT);
        on_next(Method::Watch, || quiet_panic("on purpose"));
        writer.write_all(b"x").unwrap();
        // Main gets the error from the main loop.
        assert!(catch_unwind(|| sleep(TIMEOUT)).is_err());
        HOOK.take();
        assert_eq!((called.get(), DROPPED.get()), (1, 1));
        // The next hub watches the listener, and the byte is still there.
        let begin = Instant::now();
        while called.get() < 3 && begin.elapsed() < TIMEOUT {
            sleep(SHORT);
        }
        assert!(called.get() >= 3, "called {} times", called.get());
    });
}

#[test]
fn rule_06_a_hub_whose_wait_fails_is_dropped_and_rebuilt() {
    with_hooked("rule_06_a_hub_whose_wait_fails_is_dropped_and_rebuilt", || {
        let (reader, mut writer) = pipe();
        let waiter = spawn(move || trampoline(&reader, Interest::READ, Some(TIMEOUT)));
        on_calls(|call| {
            if let Call::Wait(_, result) = call {
                *result = Err(io::Error::other("on purpose"));
            }
        });
        assert!(catch_unwind(|| sleep(LONG)).is_err());
        HOOK.take();
        assert_eq!((BUILT.get(), DROPPED.get()), (1, 1));
        // The failure did not wake the waiter.
        writer.write_all(b"x").unwrap();
        waiter.join().unwrap().unwrap();
        assert_eq!(BUILT.get(), 2);
    });
}

#[test]
fn rule_06_no_method_of_a_hub_switches_to_another_green_thread() {
    for method in OF_GREENLETS {
        with_hooked("rule_06_no_method_of_a_hub_switches_to_another_green_thread", move || {
            let parked = spawn(|| sleep(LONG));
            let (raw, child) = (Greenlet::new(|_| Ok(Payload::unit())), Greenlet::new(|_| Ok(Payload::unit())));
            yield_now();
            let hub = get_hub();
            inside_call(method, move || {
                assert!(catch_unwind(yield_now).is_err());
                assert!(catch_unwind(|| sleep(SHORT)).is_err());
                assert!(scope(|s| s.spawn(|| ()).join()).is_err());
                assert!(matches!(spawn(|| ()).join(), Err(GreenError::Loop(error)) if is_in_mainloop(&error)));
                assert!(raw.switch(Payload::unit()).is_err());
                assert!(child.throw(GreenError::Kill).is_err());
                assert!(!parked.is_finished());
                parked.kill();
                assert!(!parked.is_finished(), "it ends when the call has ended");
                assert!(hub.run_once(Some(SHORT)).is_err());
            });
        });
    }
}

#[test]
fn rule_06_no_method_of_a_hub_unwinds_a_greenlet_whose_last_handle_it_drops() {
    for method in OF_GREENLETS {
        with_hooked("rule_06_no_method_of_a_hub_unwinds_a_greenlet_whose_last_handle_it_drops", move || {
            let (unwound, back) = (Rc::new(Cell::new(false)), Greenlet::current());
            let to = unwound.clone();
            let suspended = Greenlet::new(move |_| {
                let _end = OnDrop(move || to.set(true));
                back.switch(Payload::unit())
            });
            suspended.switch(Payload::unit()).unwrap();
            let seen = unwound.clone();
            inside_call(method, move || {
                drop(suspended);
                assert!(!seen.get(), "it ends when the call has ended");
            });
            sleep(SHORT);
            assert!(unwound.get());
        });
    }
}

#[test]
fn rule_06_no_method_of_a_hub_waits_for_descriptors() {
    for method in OF_GREENLETS {
        with_hooked("rule_06_no_method_of_a_hub_waits_for_descriptors", move || {
            let (source, _writer) = registered_source();
            let hub = get_hub();
            inside_call(method, move || {
                // A ready descriptor is refused too.
                let (reader, mut writer) = pipe();
                writer.write_all(b"x").unwrap();
                assert_refused(trampoline(&reader, Interest::READ, Some(SHORT)));
                let any = [(reader.as_fd(), Interest::READ)];
                assert_refused(hub_core::trampoline_any(&any, &mut hub_core::Deadline::from(Some(SHORT))));
                let wait = source.wait(Interest::READ, Some(SHORT)).unwrap_err();
                assert_ne!(wait.kind(), io::ErrorKind::TimedOut, "{wait}");
                assert!(hub.listen(reader, Interest::READ, |_| ()).is_err());
            });
        });
    }
}

#[test]
fn rule_06_no_method_of_a_hub_replaces_the_hub() {
    for method in OF_GREENLETS {
        with_hooked("rule_06_no_method_of_a_hub_replaces_the_hub", move || {
            inside_call(method, || {
                assert!(matches!(use_hub(None), Err(HubError::InMainloop)));
                assert!(matches!(use_hooked_hub(), Err(HubError::InMainloop)));
            });
        });
    }
}

#[test]
fn rule_06_no_method_of_a_hub_shuts_its_os_thread_down() {
    for method in OF_GREENLETS {
        with_hooked("rule_06_no_method_of_a_hub_shuts_its_os_thread_down", move || {
            sleep(SHORT);
            let (hub, refused) = (get_hub(), Rc::new(Cell::new(false)));
            let to = refused.clone();
            // Called on the main greenlet, which alone may shut down elsewhere.
            on_next(method, move || to.set(hub.shutdown(Some(Duration::ZERO)).is_err()));
            cause_call(method);
            assert!(refused.get(), "{method:?}");
        });
    }
}

#[test]
fn rule_06_a_reentrant_call_does_not_find_the_hub() {
    for method in OF_GREENLETS {
        with_hooked("rule_06_a_reentrant_call_does_not_find_the_hub", move || {
            let (source, _writer) = registered_source();
            let hub = get_hub();
            inside_call(method, move || {
                assert_eq!(hub.pollable(), None);
                let _ = (hub.now(), hub.stats());
                source.close();
                greenhub::park::notify_close(0);
            });
        });
    }
}

#[test]
fn rule_06_a_hub_may_panic_when_it_is_dropped() {
    let on_drop = |call: Call<'_>| {
        if matches!(call, Call::Drop) {
            quiet_panic("on purpose");
        }
    };
    // Dropped because it is replaced, and because it has panicked.
    let ends: [fn(); 2] = [
        || use_hub(None).unwrap(),
        || {
            on_calls(|call| {
                if matches!(call, Call::Wait(..) | Call::Drop) {
                    quiet_panic("on purpose");
                }
            });
            assert!(catch_unwind(|| sleep(LONG)).is_err());
        },
    ];
    for end in ends {
        with_hooked("rule_06_a_hub_may_panic_when_it_is_dropped", move || {
            sleep(SHORT);
            on_calls(on_drop);
            end();
            assert_eq!(DROPPED.get(), 1);
        });
    }
    // Dropped at the end of its OS thread.
    let ends = move || {
        use_hooked_hub().unwrap();
        sleep(SHORT);
        on_calls(on_drop);
    };
    run("rule_06_a_hub_may_panic_when_it_is_dropped", ends);
    std::thread::spawn(ends).join().unwrap();
}

#[test]
fn rule_06_the_drop_of_a_lost_hub_may_not_build_another() {
    with_hooked("rule_06_the_drop_of_a_lost_hub_may_not_build_another", || {
        sleep(SHORT);
        let said = Rc::new(Cell::new(None));
        let to = said.clone();
        on_calls(move |call| match call {
            Call::Now(_) => quiet_panic("on purpose"),
            Call::Drop => {
                let replaced = matches!(use_hooked_hub(), Err(HubError::InMainloop));
                let waited = catch_unwind(|| sleep(SHORT)).is_err();
                to.set(Some((replaced, waited)));
            }
            _ => {}
        });
        let _ = get_hub().now();
        HOOK.take();
        assert_eq!(said.get(), Some((true, true)));
        assert!(catch_unwind(|| sleep(SHORT)).is_err(), "a sleep has succeeded after the panic of the hub");
    });
}

fn waiting_reader(reader: PipeReader, limit: Duration) -> GreenThread<Result<Readiness, TrampolineError>> {
    spawn(move || trampoline(&reader, Interest::READ, Some(limit)))
}

#[test]
fn rule_06_a_report_of_a_stale_or_unknown_key_wakes_no_waiter() {
    with_hooked("rule_06_a_report_of_a_stale_or_unknown_key_wakes_no_waiter", || {
        sleep(SHORT);
        let key = Rc::new(Cell::new(None::<Key>));
        let reports = Rc::new(Cell::new(0));
        let count = reports.clone();
        on_calls(move |call| match call {
            Call::Watch(watched) => key.set(Some(watched)),
            Call::Wait(ready, _) => {
                let Some(key) = key.get() else { return };
                let (number, generation) = (key.fd(), key.generation());
                for stale in [generation.wrapping_sub(1), generation.wrapping_add(1), !generation] {
                    ready.push(Key::new(number, stale), Readiness::READ | Readiness::INVALID);
                }
                ready.push(Key::new(number + 1, generation), Readiness::READ);
                ready.push(Key::new(!number, generation), Readiness::READ);
                count.set(count.get() + 1);
            }
            _ => {}
        });
        let (reader, _writer) = pipe();
        let waiter = waiting_reader(reader, Duration::from_millis(20));
        let error = waiter.join().unwrap().unwrap_err();
        assert!(matches!(error, TrampolineError::TimedOut { .. }), "{error:?}");
        assert!(reports.get() > 0);
    });
}

#[test]
fn rule_06_a_duplicate_report_wakes_once() {
    with_hooked("rule_06_a_duplicate_report_wakes_once", || {
        sleep(SHORT);
        let key = Rc::new(Cell::new(None::<Key>));
        on_calls(move |call| match call {
            Call::Watch(watched) => key.set(Some(watched)),
            Call::Wait(ready, _) => {
                let all = Readiness::READ | Readiness::WRITE | Readiness::HANGUP;
                key.get().into_iter().for_each(|key| (0..3).for_each(|_| ready.push(key, all)));
            }
            _ => {}
        });
        let (reader, _writer) = pipe();
        let waits = spawn(move || {
            trampoline(&reader, Interest::READ, Some(TIMEOUT)).unwrap();
            // A report must not end a park of another kind.
            let begin = std::time::Instant::now();
            sleep(Duration::from_millis(20));
            assert!(begin.elapsed() >= Duration::from_millis(20));
        });
        waits.join().unwrap();
    });
}

#[test]
fn rule_06_a_number_given_up_inside_watch_is_an_error() {
    with_hooked("rule_06_a_number_given_up_inside_watch_is_an_error", || {
        sleep(SHORT);
        on_calls(|call| {
            if let Call::Watch(key) = call {
                greenhub::park::notify_close(key.fd());
            }
        });
        let (reader, _writer) = pipe();
        let number = reader.as_raw_fd();
        let error = waiting_reader(reader, TIMEOUT).join().unwrap().unwrap_err();
        assert!(matches!(error, TrampolineError::Closed { fd } if fd == number), "{error:?}");
        assert_eq!(get_hub().stats().readers, 0);
    });
}

#[test]
fn rule_06_a_clock_that_goes_back_stays_at_its_latest_sample() {
    with_hooked("rule_06_a_clock_that_goes_back_stays_at_its_latest_sample", || {
        sleep(SHORT);
        let mut samples = 0;
        on_calls(move |call| {
            if let Call::Now(now) = call {
                samples += 1;
                if samples % 2 == 0 {
                    *now = Time::from_nanos(samples);
                }
            }
        });
        let mut last = get_hub().now();
        for round in 0..20 {
            if round % 4 == 0 {
                sleep(SHORT);
            }
            let now = get_hub().now();
            assert!(now >= last, "{now:?} after {last:?}");
            last = now;
        }
    });
}

#[test]
fn rule_06_timers_fire_when_the_clock_jumps_to_its_end() {
    with_hooked("rule_06_timers_fire_when_the_clock_jumps_to_its_end", || {
        let sleepers: Vec<_> = [SHORT * 10, LONG, LONG * 1000].map(|time| spawn(move || sleep(time))).into();
        // The timers are armed by the clock before the jump.
        sleep(SHORT);
        on_calls(move |call| {
            if let Call::Now(now) = call {
                *now = Time::from_nanos(u64::MAX - 1_000_000);
            }
        });
        // This sleep is due beyond the end of the clock.
        let late = spawn(|| sleep(LONG));
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
        assert_eq!(late.kill(), KillOutcome::Ended);
        HOOK.take();
        // The clock stays at its end, so the test needs a new hub.
        use_hooked_hub().unwrap();
    });
}

#[test]
fn rule_06_a_deadline_beyond_the_end_of_the_clock_is_that_end() {
    with_hooked("rule_06_a_deadline_beyond_the_end_of_the_clock_is_that_end", || {
        sleep(SHORT);
        on_calls(|call| {
            if let Call::Now(now) = call {
                *now = Time::from_nanos(u64::MAX - 1_000_000);
            }
        });
        // Main's sleep continues on the next hub with its deadline at the end of the clock, which never comes.
        let other = spawn(|| use_hooked_hub().unwrap());
        let slept = catch_unwind(|| sleep(LONG)).expect_err("the deadline has passed before the clock has reached it");
        let text = slept.downcast_ref::<String>().expect("a text");
        assert!(text.contains("block forever"), "{text}");
        other.join().unwrap();
        HOOK.take();
        // The clock stays at its end, so the test needs a new hub.
        use_hooked_hub().unwrap();
    });
}

#[test]
fn rule_06_no_builder_of_a_hub_switches_or_replaces_it() {
    run("rule_06_no_builder_of_a_hub_switches_or_replaces_it", || {
        let refused = Rc::new(Cell::new(None));
        let (to, log) = (refused.clone(), Log::new());
        let ran = log.clone();
        use_hub_with(move || {
            let waited = catch_unwind(AssertUnwindSafe(|| sleep(SHORT))).is_err();
            let replaced = matches!(use_hub(None), Err(HubError::InMainloop));
            let (reader, _writer) = pipe();
            let built = trampoline(&reader, Interest::READ, Some(SHORT));
            assert_eq!(ran.len(), 0, "another ran");
            to.set(Some((waited, replaced, built.is_err_and(|error| matches!(error, TrampolineError::Loop(_))))));
            Hooked::build()
        })
        .unwrap();
        let bystander = spawn(move || log.add("bystander"));
        // The loop, which would refuse by itself, does not exist yet.
        let (reader, mut writer) = pipe();
        writer.write_all(b"x").unwrap();
        assert_refused(trampoline(&reader, Interest::READ, Some(TIMEOUT)));
        trampoline(&reader, Interest::READ, Some(TIMEOUT)).unwrap();
        assert_eq!(refused.get(), Some((true, true, true)));
        assert_eq!(BUILT.get(), 1);
        bystander.join().unwrap();
    });
}
