//! Plain greenlets: the semantics of Python's greenlets, with types.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::green::{keep_reports, reports};
use greenhub::greenlet::{Greenlet, GreenletError, Payload};
use greenhub::hub::LoopErrorKind;
use greenhub::local::green_local;
use greenhub::park::{Deadline, Parker, Unparker, WaitReason};
use greenhub::sync::Event;
use greenhub::{GreenError, Interest, TrampolineError, get_hub, shield, sleep, spawn, trampoline, with_timeout};

/// A short wait, but longer than any switch.
const SHORT: Duration = Duration::from_millis(5);

type Outcome = Result<Payload, GreenError>;

fn test(name: &str, body: impl FnOnce() + Send + 'static) {
    support::run(name, body);
}

fn value<T: 'static>(outcome: Outcome) -> T {
    match outcome.expect("a value").downcast() {
        Ok(value) => value,
        Err(payload) => panic!("a value of another type: {payload:?}"),
    }
}

fn text(value: &'static str) -> Payload {
    Payload::new(value)
}

fn error(words: &'static str) -> GreenError {
    GreenError::custom(words)
}

/// Returns the message of a custom error or of a panic.
fn words(outcome: Outcome) -> String {
    match outcome {
        Err(GreenError::Custom(error)) => error.to_string(),
        Err(GreenError::Panic(panic)) => panic.to_string(),
        other => panic!("not an error in words: {other:?}"),
    }
}

fn is_exit(outcome: Outcome) -> bool {
    matches!(outcome, Ok(payload) if payload.is_kill())
}

/// Panics without a printed message.
fn quiet_panic(message: &str) -> ! {
    std::panic::resume_unwind(Box::new(message.to_owned()))
}

type Log = Rc<RefCell<Vec<String>>>;

fn note(log: &Log, entry: impl Into<String>) {
    log.borrow_mut().push(entry.into());
}

/// Adds an entry to the log when it is dropped.
struct Noted(Log, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        note(&self.0, self.1);
    }
}

/// Returns a greenlet that has switched to main, and logs when it is unwound or ends.
fn suspended(log: &Log, name: &'static str) -> Greenlet {
    let main = Greenlet::main();
    let noted = Noted(log.clone(), name);
    let greenlet = Greenlet::with_parent(&main.clone(), move |_| {
        let _noted = noted;
        main.switch(Payload::unit())
    });
    value::<()>(greenlet.switch(Payload::unit()));
    greenlet
}

/// A value that counts how often it is dropped, of a size and an alignment of choice.
struct Counted<T> {
    drops: Rc<Cell<usize>>,
    _rest: T,
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        self.drops.set(self.drops.get() + 1);
    }
}

/// Passes values with this content around, and checks that each is dropped once, where its owner drops it.
fn pass_around<T: Copy + 'static>(rest: T) {
    let drops = Rc::new(Cell::new(0));
    let counted = || Payload::new(Counted { drops: Rc::clone(&drops), _rest: rest });
    let main = Greenlet::current();
    let echoes = Greenlet::new(move |mut value| {
        loop {
            value = main.switch(value)?;
        }
    });
    let back = echoes.switch(counted()).unwrap();
    let back = back.downcast::<String>().expect_err("another type");
    assert!(back.is::<Counted<T>>() && drops.get() == 0);
    drop(back.downcast::<Counted<T>>().expect("the type that was sent"));
    assert_eq!(drops.get(), 1);
    drop(echoes.switch(counted()).unwrap());
    assert_eq!(drops.get(), 2, "a payload drops its value");
    drop(echoes);
    drop(counted());
    assert_eq!(drops.get(), 3);
}

#[test]
fn a_large_value_is_copied_less_than_five_times_on_the_stack() {
    test("a_large_value_is_copied_less_than_five_times_on_the_stack", || {
        const SIZE: usize = 56 << 10;
        greenhub::thread::Builder::new()
            .stack_size(6 * SIZE)
            .spawn(|| {
                let greenlet = Greenlet::new(|_| Ok(Payload::new([1_u8; SIZE])));
                assert_eq!(value::<[u8; SIZE]>(greenlet.switch(Payload::unit()))[SIZE - 1], 1);
            })
            .unwrap()
            .join()
            .unwrap();
    });
}

#[test]
fn the_memory_of_a_value_is_freed_though_its_destructor_panics() {
    struct Panics([u8; 4096]);
    impl Drop for Panics {
        fn drop(&mut self) {
            // Runs no panic hook, which would allocate.
            resume_unwind(Box::new(self.0[0]));
        }
    }
    // The count is that of the process.
    support::alone("the_memory_of_a_value_is_freed_though_its_destructor_panics", || {
        let (_, before) = support::counting::allocated();
        for _ in 0..10 {
            assert!(catch_unwind(|| drop(Payload::new(Panics([1; 4096])))).is_err());
        }
        let (_, after) = support::counting::allocated();
        assert!(after - before < 4096, "{} bytes are lost", after - before);
    });
}

#[test]
fn values_of_every_size_and_alignment_arrive_and_are_dropped_once() {
    #[derive(Copy, Clone)]
    #[repr(align(64))]
    struct Aligned(#[expect(dead_code, reason = "only its layout counts")] u8);

    test("values_of_every_size_and_alignment_arrive_and_are_dropped_once", || {
        pass_around(());
        pass_around(1_u8);
        pass_around([1_usize; 3]);
        pass_around(Aligned(1));
        assert_eq!(value::<()>(Ok(Payload::unit())), ());
        assert_eq!(value::<u128>(Ok(Payload::new(u128::MAX))), u128::MAX);
    });
}

#[test]
fn the_main_greenlet_has_no_parent() {
    test("the_main_greenlet_has_no_parent", || {
        let main = Greenlet::main();
        assert_eq!(main, Greenlet::current());
        assert_eq!(main.parent(), None);
        let other = Greenlet::new(Ok);
        assert_eq!(main.set_parent(&other), Err(GreenletError::Main));
        assert_eq!(main.parent(), None);
        assert!(main.is_started() && !main.is_dead());
    });
}

#[test]
fn the_creator_is_the_parent() {
    test("the_creator_is_the_parent", || {
        let outer = Greenlet::new(|_| {
            let inner = Greenlet::new(Ok);
            assert_eq!(inner.parent(), Some(Greenlet::current()));
            Ok(Payload::unit())
        });
        assert_eq!(outer.parent(), Some(Greenlet::main()));
        value::<()>(outer.switch(Payload::unit()));
        let chosen = Greenlet::with_parent(&outer, Ok);
        assert_eq!(chosen.parent(), Some(outer));
    });
}

#[test]
fn is_started_and_is_dead_follow_the_state() {
    test("is_started_and_is_dead_follow_the_state", || {
        let main = Greenlet::main();
        let greenlet = Greenlet::new(move |_| {
            let me = Greenlet::current();
            assert!(me.is_started() && !me.is_dead() && me.is_current());
            main.switch(Payload::unit())
        });
        assert!(!greenlet.is_started() && !greenlet.is_dead() && !greenlet.is_current());
        value::<()>(greenlet.switch(Payload::unit()));
        assert!(greenlet.is_started() && !greenlet.is_dead() && !greenlet.is_current());
        value::<()>(greenlet.switch(Payload::unit()));
        assert!(greenlet.is_started() && greenlet.is_dead() && !greenlet.is_current());
    });
}

#[test]
fn the_debug_text_names_the_state() {
    test("the_debug_text_names_the_state", || {
        let main = Greenlet::main();
        assert_eq!(format!("{main:?}"), "Greenlet(main current active started)");
        let greenlet = Greenlet::new(move |_| {
            assert_eq!(format!("{:?}", Greenlet::current()), "Greenlet(current active started)");
            assert_eq!(format!("{main:?}"), "Greenlet(main suspended active started)");
            main.switch(Payload::unit())
        });
        assert_eq!(format!("{greenlet:?}"), "Greenlet(pending)");
        value::<()>(greenlet.switch(Payload::unit()));
        assert_eq!(format!("{greenlet:?}"), "Greenlet(suspended active started)");
        value::<()>(greenlet.switch(Payload::unit()));
        assert_eq!(format!("{greenlet:?}"), "Greenlet(dead)");
    });
}

#[test]
fn a_handle_that_outlives_its_thread_is_dead() {
    struct Last(RefCell<Option<Greenlet>>);
    impl Drop for Last {
        fn drop(&mut self) {
            let Some(main) = self.0.take() else { return };
            assert_eq!(format!("{main:?}"), "Greenlet(main (thread exited) dead)");
            assert!(
                matches!(main.switch(Payload::unit()), Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::ThreadEnding)
            );
            drop(main);
            SEEN.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    static SEEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    thread_local! {
        static LAST: Last = const { Last(RefCell::new(None)) };
    }
    test("a_handle_that_outlives_its_thread_is_dead", || {
        // Initialized before the library's thread-locals, and so destroyed after them.
        LAST.with(|_| ());
        let main = Greenlet::main();
        LAST.with(|last| *last.0.borrow_mut() = Some(main));
    });
    assert!(SEEN.load(std::sync::atomic::Ordering::Relaxed));
}

#[test]
fn a_switch_to_the_current_greenlet_returns_the_value() {
    test("a_switch_to_the_current_greenlet_returns_the_value", || {
        assert_eq!(value::<i32>(Greenlet::main().switch(Payload::new(3))), 3);
        let greenlet = Greenlet::new(|_| Greenlet::current().switch(Payload::new(4)));
        assert_eq!(value::<i32>(greenlet.switch(Payload::unit())), 4);
    });
}

#[test]
fn a_switch_returns_from_the_pending_switch_of_its_target() {
    test("a_switch_returns_from_the_pending_switch_of_its_target", || {
        let main = Greenlet::main();
        let greenlet = Greenlet::new(move |first| {
            let mut sum = value::<i32>(Ok(first));
            loop {
                sum += value::<i32>(main.switch(Payload::new(sum)));
            }
        });
        assert_eq!(value::<i32>(greenlet.switch(Payload::new(1))), 1);
        assert_eq!(value::<i32>(greenlet.switch(Payload::new(2))), 3);
        assert_eq!(value::<i32>(greenlet.switch(Payload::new(3))), 6);
    });
}

/// Lets another greenlet switch to `inner`, a child of `outer`, and returns the outcome that `outer` gets.
fn inner_entered_by_another(inner_body: impl FnOnce(Payload) -> Outcome + 'static) -> Outcome {
    let inner = Rc::new(RefCell::new(None));
    let main = Greenlet::main();
    let (inner_out, main_out) = (Rc::clone(&inner), main.clone());
    let outer = Greenlet::new(move |_| {
        *inner_out.borrow_mut() = Some(Greenlet::new(inner_body));
        let outcome = main_out.switch(text("made"));
        match outcome {
            Err(error) => Ok(Payload::new(("outer", Err::<Payload, _>(error)))),
            Ok(value) => Ok(Payload::new(("outer", Ok::<_, GreenError>(value)))),
        }
    });
    assert_eq!(value::<&str>(outer.switch(Payload::unit())), "made");
    let inner = inner.take().expect("the greenlet was made");
    let switcher = Greenlet::new(move |_| inner.switch(Payload::unit()));
    let (who, outcome) = value::<(&str, Outcome)>(switcher.switch(Payload::unit()));
    assert_eq!(who, "outer");
    assert!(!switcher.is_dead(), "the switcher was resumed");
    outcome
}

#[test]
fn the_result_goes_to_the_parent_not_to_the_last_switcher() {
    test("the_result_goes_to_the_parent_not_to_the_last_switcher", || {
        assert_eq!(value::<&str>(inner_entered_by_another(|_| Ok(text("result")))), "result");
    });
}

#[test]
fn a_panic_goes_to_the_parent() {
    test("a_panic_goes_to_the_parent", || {
        let outcome = inner_entered_by_another(|_| quiet_panic("from the inner one"));
        assert!(matches!(&outcome, Err(GreenError::Panic(_))));
        assert_eq!(words(outcome), "from the inner one");
        assert_eq!(words(inner_entered_by_another(|_| Err(error("returned")))), "returned");
    });
}

#[test]
fn an_exit_is_returned_to_the_parent() {
    test("an_exit_is_returned_to_the_parent", || {
        let log = Log::default();
        let greenlet = suspended(&log, "unwound");
        assert!(is_exit(greenlet.kill()));
        assert!(greenlet.is_dead());
        assert_eq!(*log.borrow(), ["unwound"]);
        // An exit that a body returns, or that a greenlet throws into itself, is returned too.
        assert!(is_exit(Greenlet::new(|_| Err(GreenError::Kill)).switch(Payload::unit())));
        assert!(is_exit(Greenlet::new(|_| Greenlet::current().kill()).switch(Payload::unit())));
    });
}

#[test]
fn an_exit_of_the_main_greenlet_is_an_error() {
    test("an_exit_of_the_main_greenlet_is_an_error", || {
        assert!(matches!(Greenlet::main().kill(), Err(GreenError::Kill)));
        let main = Greenlet::main();
        let greenlet = Greenlet::new(move |_| main.kill());
        assert!(matches!(greenlet.switch(Payload::unit()), Err(GreenError::Kill)));
    });
}

#[test]
fn a_greenlet_that_catches_its_exit_returns_its_own_value() {
    test("a_greenlet_that_catches_its_exit_returns_its_own_value", || {
        let main = Greenlet::main();
        let greenlet = Greenlet::new(move |_| {
            let caught = catch_unwind(AssertUnwindSafe(|| main.switch(Payload::unit())));
            assert!(caught.is_err());
            Ok(text("mine"))
        });
        value::<()>(greenlet.switch(Payload::unit()));
        assert_eq!(value::<&str>(greenlet.kill()), "mine");
        assert!(greenlet.is_dead());
    });
}

#[test]
fn a_new_parent_gets_the_result() {
    test("a_new_parent_gets_the_result", || {
        let log = Log::default();
        let child = suspended(&log, "child");
        let (child_in, main) = (child.clone(), Greenlet::main());
        let adopter = Greenlet::new(move |_| {
            child_in.set_parent(&Greenlet::current()).unwrap();
            let got = value::<&str>(child_in.switch(text("through the child")));
            main.switch(Payload::new(("adopter", got)))
        });
        assert_eq!(value::<(&str, &str)>(adopter.switch(Payload::unit())), ("adopter", "through the child"));
        assert!(child.is_dead());
        assert_eq!(child.parent(), Some(adopter));
    });
}

#[test]
fn a_result_starts_an_unstarted_parent() {
    test("a_result_starts_an_unstarted_parent", || {
        let parent = Greenlet::new(|value_of_child| Ok(Payload::new(value::<i32>(Ok(value_of_child)) * 2)));
        let child = Greenlet::with_parent(&parent, |_| Ok(Payload::new(21)));
        assert_eq!(value::<i32>(child.switch(Payload::unit())), 42);
        assert!(parent.is_dead() && child.is_dead());
    });
}

#[test]
fn an_error_passes_through_an_unstarted_parent() {
    test("an_error_passes_through_an_unstarted_parent", || {
        let log = Log::default();
        let (ran, body) = (log.clone(), Noted(log.clone(), "body dropped"));
        let parent = Greenlet::new(move |_| {
            let _body = body;
            note(&ran, "ran");
            Ok(Payload::unit())
        });
        let child = Greenlet::with_parent(&parent, |_| Err(error("upward")));
        assert_eq!(words(child.switch(Payload::unit())), "upward");
        assert!(parent.is_dead());
        assert_eq!(*log.borrow(), ["body dropped"]);
    });
}

fn dead() -> Greenlet {
    let greenlet = Greenlet::new(Ok);
    value::<()>(greenlet.switch(Payload::unit()));
    assert!(greenlet.is_dead());
    greenlet
}

#[test]
fn a_switch_to_a_dead_greenlet_reaches_its_living_ancestor() {
    test("a_switch_to_a_dead_greenlet_reaches_its_living_ancestor", || {
        let greenlet = dead();
        assert_eq!(value::<i32>(greenlet.switch(Payload::new(5))), 5);
        let below = Greenlet::with_parent(&greenlet, Ok);
        assert_eq!(value::<i32>(below.switch(Payload::new(6))), 6);
        assert!(below.is_dead());
        let from_elsewhere = Greenlet::new(move |_| below.switch(Payload::new(7)));
        assert_eq!(value::<i32>(from_elsewhere.switch(Payload::unit())), 7);
        assert!(!from_elsewhere.is_dead());
    });
}

#[test]
fn an_error_thrown_into_a_dead_greenlet_reaches_its_ancestor() {
    test("an_error_thrown_into_a_dead_greenlet_reaches_its_ancestor", || {
        assert_eq!(words(dead().throw(error("thrown"))), "thrown");
        let greenlet = dead();
        let from_elsewhere = Greenlet::new(move |_| greenlet.throw(error("from elsewhere")));
        assert_eq!(words(from_elsewhere.switch(Payload::unit())), "from elsewhere");
        assert!(!from_elsewhere.is_dead());
    });
}

#[test]
fn an_exit_thrown_into_a_dead_greenlet_is_returned() {
    test("an_exit_thrown_into_a_dead_greenlet_is_returned", || {
        let greenlet = dead();
        assert!(is_exit(greenlet.kill()));
        assert!(greenlet.is_dead());
    });
}

#[test]
fn a_switch_to_a_dead_greenlet_reaches_its_new_parent() {
    test("a_switch_to_a_dead_greenlet_reaches_its_new_parent", || {
        let greenlet = dead();
        let echo = Greenlet::new(|first| Ok(Payload::new(("echo", value::<i32>(Ok(first))))));
        greenlet.set_parent(&echo).unwrap();
        assert_eq!(value::<(&str, i32)>(greenlet.switch(Payload::new(8))), ("echo", 8));
    });
}

#[test]
fn an_error_is_thrown_at_the_pending_switch() {
    test("an_error_is_thrown_at_the_pending_switch", || {
        let main = Greenlet::main();
        let greenlet = Greenlet::new(move |_| {
            let thrown = words(main.switch(Payload::unit()));
            Ok(Payload::new(format!("caught {thrown}")))
        });
        value::<()>(greenlet.switch(Payload::unit()));
        assert_eq!(value::<String>(greenlet.throw(error("an error"))), "caught an error");
        assert_eq!(words(Greenlet::main().throw(error("at oneself"))), "at oneself");
    });
}

#[test]
fn throwing_into_an_unstarted_greenlet_drops_its_body() {
    test("throwing_into_an_unstarted_greenlet_drops_its_body", || {
        for exit in [false, true] {
            let log = Log::default();
            let (ran, body) = (log.clone(), Noted(log.clone(), "body dropped"));
            let greenlet = Greenlet::new(move |_| {
                let _body = body;
                note(&ran, "ran");
                Ok(Payload::unit())
            });
            if exit {
                assert!(is_exit(greenlet.kill()));
            } else {
                assert_eq!(words(greenlet.throw(error("never begins"))), "never begins");
            }
            assert!(greenlet.is_dead());
            assert_eq!(*log.borrow(), ["body dropped"]);
        }
    });
}

#[test]
fn a_thrown_error_survives_a_panic_caught_on_the_way() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            quiet_panic("in a destructor");
        }
    }
    test("a_thrown_error_survives_a_panic_caught_on_the_way", || {
        keep_reports();
        let body = Panics;
        let greenlet = Greenlet::new(move |_| {
            let _body = body;
            Ok(Payload::unit())
        });
        assert_eq!(words(greenlet.throw(error("the error"))), "the error");
        let reports = reports();
        assert_eq!(reports.len(), 1);
        assert!(reports[0].contains("in a destructor"), "{reports:?}");
    });
}

#[test]
fn a_cycle_of_parents_is_refused() {
    test("a_cycle_of_parents_is_refused", || {
        let first = Greenlet::new(Ok);
        let second = Greenlet::with_parent(&first, Ok);
        let third = Greenlet::with_parent(&second, Ok);
        for descendant in [&first, &second, &third] {
            assert_eq!(first.set_parent(descendant), Err(GreenletError::Cycle));
            assert_eq!(first.parent(), Some(Greenlet::main()));
        }
        assert_eq!(third.set_parent(&first), Ok(()));
        assert_eq!(third.parent(), Some(first));
    });
}

#[test]
fn dropping_the_last_handle_unwinds_before_it_returns() {
    test("dropping_the_last_handle_unwinds_before_it_returns", || {
        let log = Log::default();
        let before = get_hub().stats();
        let greenlet = suspended(&log, "unwound");
        let other = greenlet.clone();
        drop(greenlet);
        note(&log, "a handle is left");
        drop(other);
        note(&log, "dropped");
        assert_eq!(*log.borrow(), ["a handle is left", "unwound", "dropped"]);
        let after = get_hub().stats();
        assert_eq!((after.greenlets, after.stacks_in_use), (before.greenlets, before.stacks_in_use));
    });
}

#[test]
fn a_greenlet_parked_on_the_hub_is_unwound_with_its_last_handle() {
    test("a_greenlet_parked_on_the_hub_is_unwound_with_its_last_handle", || {
        for ready in [false, true] {
            let log = Log::default();
            let noted = Noted(log.clone(), "unwound");
            let greenlet = Greenlet::new(move |_| {
                let _noted = noted;
                loop {
                    if ready { greenhub::thread::yield_now() } else { sleep(Duration::from_secs(3600)) }
                }
            });
            let outcome = with_timeout(Duration::from_millis(1), || greenlet.switch(Payload::unit()));
            assert!(outcome.is_err());
            note(&log, "parked");
            drop(greenlet);
            note(&log, "dropped");
            assert_eq!(*log.borrow(), ["parked", "unwound", "dropped"]);
        }
        assert_eq!(get_hub().stats().timers, 0);
    });
}

#[test]
fn a_greenlet_that_swallows_its_drop_is_unwound_again() {
    test("a_greenlet_that_swallows_its_drop_is_unwound_again", || {
        let log = Log::default();
        let (main, inside) = (Greenlet::main(), log.clone());
        let greenlet = Greenlet::new(move |_| {
            let caught = catch_unwind(AssertUnwindSafe(|| main.switch(Payload::unit())));
            assert!(caught.is_err());
            note(&inside, "caught");
            let _noted = Noted(inside.clone(), "unwound");
            main.switch(Payload::unit())?;
            note(&inside, "went on");
            Ok(Payload::unit())
        });
        value::<()>(greenlet.switch(Payload::unit()));
        drop(greenlet);
        note(&log, "dropped");
        assert_eq!(*log.borrow(), ["caught", "unwound", "dropped"]);
    });
}

#[test]
fn a_panic_while_dropped_is_reported() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            let _ = catch_unwind(|| quiet_panic("a panic of its own stays inside"));
        }
    }
    test("a_panic_while_dropped_is_reported", || {
        keep_reports();
        let main = Greenlet::main();
        let greenlet = Greenlet::new(move |_| {
            let _panics = Panics;
            let caught = catch_unwind(AssertUnwindSafe(|| main.switch(Payload::unit())));
            assert!(caught.is_err());
            quiet_panic("instead of the exit");
        });
        value::<()>(greenlet.switch(Payload::unit()));
        drop(greenlet);
        let first_reports = reports();
        assert_eq!(first_reports.len(), 1, "{first_reports:?}");
        assert!(
            first_reports[0].contains("instead of the exit") && first_reports[0].contains("greenlets.rs"),
            "{first_reports:?}"
        );
        // An exit is not reported as a failure.
        drop(suspended(&Log::default(), "quiet"));
        assert_eq!(reports(), first_reports);
    });
}

#[test]
fn dropping_an_unstarted_greenlet_drops_its_body() {
    test("dropping_an_unstarted_greenlet_drops_its_body", || {
        let log = Log::default();
        let (ran, body) = (log.clone(), Noted(log.clone(), "body dropped"));
        let greenlet = Greenlet::new(move |_| {
            let _body = body;
            note(&ran, "ran");
            Ok(Payload::unit())
        });
        drop(greenlet);
        assert_eq!(*log.borrow(), ["body dropped"]);
    });
}

#[test]
fn a_process_ends_cleanly_with_suspended_greenlets() {
    const NAME: &str = "a_process_ends_cleanly_with_suspended_greenlets";
    if support::is_child() {
        // Returns a suspended greenlet whose frame holds another one, `depth` levels deep.
        fn nest(depth: usize) -> Greenlet {
            let main = Greenlet::main();
            let greenlet = Greenlet::new(move |_| {
                let _inner = (depth > 0).then(|| nest(depth - 1));
                main.switch(Payload::unit())
            });
            value::<()>(greenlet.switch(Payload::unit()));
            greenlet
        }
        thread_local! {
            static KEPT: RefCell<Vec<Greenlet>> = const { RefCell::new(Vec::new()) };
        }
        KEPT.with_borrow_mut(|kept| kept.extend((0..50).map(|_| nest(3))));
        std::mem::forget(nest(3));
        return;
    }
    let output = support::rerun(NAME, |_| {});
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_shutdown_unwinds_the_suspended_greenlets() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    struct Counts(Arc<AtomicUsize>, std::thread::ThreadId);
    impl Drop for Counts {
        fn drop(&mut self) {
            let here = self.1 == std::thread::current().id();
            self.0.fetch_add(usize::from(here), Ordering::Relaxed);
        }
    }
    let unwound = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&unwound);
    test("a_shutdown_unwinds_the_suspended_greenlets", move || {
        for _ in 0..10 {
            let (main, counts) = (Greenlet::main(), Counts(counter.clone(), std::thread::current().id()));
            let greenlet = Greenlet::new(move |_| {
                let _counts = counts;
                main.switch(Payload::unit())
            });
            value::<()>(greenlet.switch(Payload::unit()));
            std::mem::forget(greenlet);
        }
    });
    assert_eq!(unwound.load(Ordering::Relaxed), 10);
}

#[test]
fn a_hundred_thousand_greenlets_leak_nothing() {
    test("a_hundred_thousand_greenlets_leak_nothing", || {
        let before = get_hub().stats();
        let values = Rc::new(());
        for round in 0..100_000 {
            let (main, kept) = (Greenlet::main(), values.clone());
            let greenlet = Greenlet::new(move |first| {
                let _kept = kept;
                main.switch(first)
            });
            let _: Rc<()> = value(greenlet.switch(Payload::new(values.clone())));
            match round % 4 {
                0 => value::<()>(greenlet.switch(Payload::unit())),
                1 => assert!(is_exit(greenlet.kill())),
                2 => assert_eq!(words(greenlet.throw(error("thrown"))), "thrown"),
                _ => {}
            }
        }
        let after = get_hub().stats();
        assert_eq!(after.greenlets, before.greenlets);
        assert_eq!(after.stacks_in_use, before.stacks_in_use);
        assert!(after.stacks_idle <= before.stacks_idle + 64, "stacks were not reused: {after:?}");
        assert_eq!(Rc::strong_count(&values), 1);
    });
}

#[test]
fn a_long_chain_of_parents_is_dropped() {
    test("a_long_chain_of_parents_is_dropped", || {
        let chain = || (0..200_000).fold(Greenlet::new(Ok), |last, _| Greenlet::with_parent(&last, Ok));
        drop(chain());
        let last = chain();
        // Each greenlet of the chain ends without having started.
        assert_eq!(words(last.throw(error("to the top"))), "to the top");
        assert_eq!(value::<i32>(last.switch(Payload::new(9))), 9);
        drop(last);
        assert_eq!(get_hub().stats().greenlets, 1);
    });
}

#[test]
fn a_switch_in_a_destructor_keeps_its_order() {
    struct Switches(Log, Greenlet);
    impl Drop for Switches {
        fn drop(&mut self) {
            note(&self.0, "destructor begins");
            let got = value::<&str>(self.1.switch(text("from the destructor")));
            note(&self.0, got);
        }
    }
    test("a_switch_in_a_destructor_keeps_its_order", || {
        let log = Log::default();
        let inside = log.clone();
        let greenlet = Greenlet::new(move |first| {
            note(&inside, value::<&str>(Ok(first)));
            Ok(text("back in the destructor"))
        });
        let switches = Switches(log.clone(), greenlet);
        note(&log, "before");
        drop(switches);
        note(&log, "after");
        assert_eq!(
            *log.borrow(),
            ["before", "destructor begins", "from the destructor", "back in the destructor", "after"]
        );
    });
}

#[test]
fn no_switch_happens_while_a_greenlet_unwinds() {
    struct Tries(Rc<Cell<Option<Outcome>>>, Greenlet);
    impl Drop for Tries {
        fn drop(&mut self) {
            assert!(std::thread::panicking());
            self.0.set(Some(self.1.switch(Payload::unit())));
        }
    }
    test("no_switch_happens_while_a_greenlet_unwinds", || {
        let tried = Rc::new(Cell::new(None));
        let (main, inside) = (Greenlet::main(), tried.clone());
        let other = Greenlet::new(Ok);
        let target = other.clone();
        let greenlet = Greenlet::new(move |_| {
            let _tries = Tries(inside, target);
            main.switch(Payload::unit())
        });
        value::<()>(greenlet.switch(Payload::unit()));
        drop(greenlet);
        assert!(matches!(tried.take(), Some(Err(GreenError::Loop(error))) if error.kind() == LoopErrorKind::Panicking));
        assert!(!other.is_started());
        // The panicking state belongs to the greenlet: main is not panicking here.
        assert!(!std::thread::panicking());
        value::<()>(other.switch(Payload::unit()));
    });
}

#[test]
fn greenlets_held_by_an_unwinding_greenlet_unwind_after_it() {
    test("greenlets_held_by_an_unwinding_greenlet_unwind_after_it", || {
        let log = Log::default();
        let before = get_hub().stats().greenlets;
        let (main, inside) = (Greenlet::main(), log.clone());
        let inner = suspended(&log, "inner");
        let outer = Greenlet::new(move |_| {
            let _inner = inner;
            let _noted = Noted(inside, "outer");
            main.switch(Payload::unit())
        });
        value::<()>(outer.switch(Payload::unit()));
        drop(outer);
        note(&log, "dropped");
        assert_eq!(*log.borrow(), ["outer", "inner", "dropped"]);
        assert_eq!(get_hub().stats().greenlets, before);
    });
}

/// An iterator over the values that a greenlet yields.
struct Generator<T> {
    greenlet: Greenlet,
    asker: Rc<RefCell<Option<Greenlet>>>,
    of: std::marker::PhantomData<T>,
}

struct Yielder<T>(Rc<RefCell<Option<Greenlet>>>, std::marker::PhantomData<T>);

impl<T: 'static> Yielder<T> {
    fn give(&self, value: T) {
        let asker = self.0.take().expect("a greenlet asks");
        asker.switch(Payload::new(Some(value))).expect("asked again");
    }
}

impl<T: 'static> Generator<T> {
    fn new(body: impl FnOnce(&Yielder<T>) + 'static) -> Generator<T> {
        let asker = Rc::new(RefCell::new(None));
        let yielder = Yielder(asker.clone(), std::marker::PhantomData);
        let greenlet = Greenlet::with_parent(&Greenlet::main(), move |_| {
            body(&yielder);
            let last = yielder.0.take().expect("a greenlet asks");
            Greenlet::current().set_parent(&last).expect("no cycle");
            Ok(Payload::new(None::<T>))
        });
        Generator { greenlet, asker, of: std::marker::PhantomData }
    }
}

impl<T: 'static> Iterator for Generator<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.greenlet.is_dead() {
            return None;
        }
        *self.asker.borrow_mut() = Some(Greenlet::current());
        value(self.greenlet.switch(Payload::unit()))
    }
}

#[test]
fn nested_generators_yield_in_order() {
    fn permutations(items: Vec<u8>) -> Generator<Vec<u8>> {
        Generator::new(move |yielder| {
            if items.len() <= 1 {
                return yielder.give(items);
            }
            for index in 0..items.len() {
                let mut rest = items.clone();
                let first = rest.remove(index);
                for mut tail in permutations(rest) {
                    tail.insert(0, first);
                    yielder.give(tail);
                }
            }
        })
    }
    test("nested_generators_yield_in_order", || {
        let all: Vec<Vec<u8>> = permutations(vec![1, 2, 3, 4]).collect();
        assert_eq!(all.len(), 24);
        assert!(all.is_sorted(), "{all:?}");
        assert_eq!((all[0].as_slice(), all[23].as_slice()), (&[1, 2, 3, 4][..], &[4, 3, 2, 1][..]));

        let pairs = Generator::<u32>::new(|yielder| {
            for n in 1..5u32 {
                for m in Generator::<u32>::new(move |inner| [n, n * n].into_iter().for_each(|v| inner.give(v))) {
                    yielder.give(m);
                }
            }
        });
        assert_eq!(pairs.collect::<Vec<_>>(), [1, 1, 2, 4, 3, 9, 4, 16]);

        // A generator that is dropped early is unwound.
        let mut half = permutations(vec![1]);
        assert_eq!(half.next(), Some(vec![1]));
        drop(half);
        assert_eq!(get_hub().stats().greenlets, 1);
    });
}

#[test]
fn a_greenlet_keeps_its_parent_alive() {
    test("a_greenlet_keeps_its_parent_alive", || {
        let log = Log::default();
        let parent = suspended(&log, "parent unwound");
        let child = Greenlet::with_parent(&parent, Ok);
        drop(parent);
        assert!(log.borrow().is_empty(), "the parent was unwound while its child held it");
        // The child's result goes to the parent, which returns it to main.
        assert_eq!(value::<&str>(child.switch(text("by way of the parent"))), "by way of the parent");
        assert_eq!(*log.borrow(), ["parent unwound"]);

        let parent = suspended(&log, "second parent unwound");
        let child = Greenlet::with_parent(&parent, Ok);
        drop(parent);
        drop(child);
        assert_eq!(log.borrow()[1..], ["second parent unwound"]);
    });
}

#[test]
fn values_are_dropped_once_across_switches() {
    /// Switches in its destructor if that is possible.
    struct Nested(#[allow(dead_code)] Option<Box<Nested>>, Rc<Cell<usize>>);
    impl Drop for Nested {
        fn drop(&mut self) {
            let dropped = self.1.clone();
            dropped.set(dropped.get() + 1);
            if !std::thread::panicking() {
                let me = Greenlet::current();
                let greenlet = Greenlet::new(move |first| me.switch(first));
                value::<()>(greenlet.switch(Payload::unit()));
            }
        }
    }
    test("values_are_dropped_once_across_switches", || {
        for way in 0..4 {
            let dropped = Rc::new(Cell::new(0));
            let nested = (0..1000).fold(None, |inner, _| Some(Box::new(Nested(inner, dropped.clone()))));
            let payload = Payload::new(nested);
            match way {
                // Returned.
                0 => drop(Greenlet::new(Ok).switch(payload)),
                // Dropped by the body.
                1 => drop(
                    Greenlet::new(|first| {
                        drop(first);
                        Ok(Payload::unit())
                    })
                    .switch(payload),
                ),
                // Held by a frame that is unwound.
                2 => {
                    let greenlet = Greenlet::new(|first| {
                        let _held = first;
                        Greenlet::main().switch(Payload::unit())
                    });
                    value::<()>(greenlet.switch(payload));
                    drop(greenlet);
                }
                // Switched to a greenlet that is parked on the hub.
                _ => {
                    let greenlet = Greenlet::new(|_| {
                        sleep(Duration::from_millis(1));
                        Ok(Payload::unit())
                    });
                    let parked = greenlet.clone();
                    spawn(move || drop(parked.switch(Payload::unit())));
                    greenhub::thread::yield_now();
                    assert!(matches!(greenlet.switch(payload), Err(GreenError::Switch(GreenletError::Parked))));
                    sleep(Duration::from_millis(3));
                }
            }
            assert_eq!(dropped.get(), 1000, "way {way}");
        }
    });
}

#[test]
fn values_of_a_killed_greenlet_may_block_in_their_destructors() {
    struct Sleeps(Log);
    impl Drop for Sleeps {
        fn drop(&mut self) {
            sleep(Duration::from_millis(1));
            note(&self.0, "slept");
        }
    }
    test("values_of_a_killed_greenlet_may_block_in_their_destructors", || {
        let log = Log::default();
        let left = Sleeps(log.clone());
        let greenlet = Greenlet::new(move |_| {
            let main = Greenlet::main();
            assert!(catch_unwind(AssertUnwindSafe(|| main.switch(Payload::unit()))).is_err());
            Ok(Payload::new(left))
        });
        value::<()>(greenlet.switch(Payload::unit()));
        drop(greenlet);
        note(&log, "dropped");
        assert_eq!(*log.borrow(), ["slept", "dropped"]);
    });
}

#[test]
fn a_body_that_blocks_parks_on_the_hub() {
    test("a_body_that_blocks_parks_on_the_hub", || {
        let log = Log::default();
        let (inside, beside) = (log.clone(), log.clone());
        spawn(move || note(&beside, "green thread"));
        let greenlet = Greenlet::new(move |_| {
            sleep(Duration::from_millis(1));
            note(&inside, "slept");
            Ok(text("result"))
        });
        assert_eq!(value::<&str>(greenlet.switch(Payload::unit())), "result");
        assert_eq!(*log.borrow(), ["green thread", "slept"]);
    });
}

#[test]
fn a_switch_to_a_greenlet_parked_on_the_hub_is_an_error() {
    test("a_switch_to_a_greenlet_parked_on_the_hub_is_an_error", || {
        let greenlet = Greenlet::new(|_| {
            sleep(Duration::from_millis(2));
            Ok(text("undisturbed"))
        });
        let target = greenlet.clone();
        let green = spawn(move || {
            value::<&str>({
                target.set_parent(&Greenlet::current()).unwrap();
                target.switch(Payload::unit())
            })
        });
        greenhub::thread::yield_now();
        for outcome in [greenlet.switch(Payload::unit()), greenlet.throw(error("no")), greenlet.kill()] {
            assert!(matches!(outcome, Err(GreenError::Switch(GreenletError::Parked))));
        }
        assert_eq!(green.join().unwrap(), "undisturbed");
    });
}

#[test]
fn a_parent_parked_on_the_hub_is_not_woken_by_a_result() {
    test("a_parent_parked_on_the_hub_is_not_woken_by_a_result", || {
        keep_reports();
        let dropped = Rc::new(());
        let kept = dropped.clone();
        // Main is the parent of both greenlets, and sleeps while they end.
        let good = Greenlet::new(move |_| Ok(Payload::new(kept)));
        let bad = Greenlet::new(|_| Err(error("no waiter")));
        let first = spawn(move || drop(good.switch(Payload::unit())));
        let second = spawn(move || drop(bad.switch(Payload::unit())));
        let clock = std::time::Instant::now();
        sleep(Duration::from_millis(20));
        assert!(clock.elapsed() >= Duration::from_millis(20));
        assert_eq!(Rc::strong_count(&dropped), 1);
        let reports = reports();
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(reports[0].contains("no waiter"));
        first.kill();
        second.kill();
    });
}

#[test]
fn the_main_loop_and_its_callbacks_cannot_switch() {
    test("the_main_loop_and_its_callbacks_cannot_switch", || {
        struct Call(RefCell<Option<Box<dyn FnOnce()>>>);
        impl greenhub::hub::Timer for Call {
            fn expired(&self) {
                if let Some(call) = self.0.take() {
                    call();
                }
            }
        }
        let greenlet = Greenlet::new(|_| Ok(text("ran")));
        let (target, tried) = (greenlet.clone(), Rc::new(RefCell::new(None)));
        let (result, made) = (tried.clone(), Rc::new(RefCell::new(None)));
        let made_in = made.clone();
        let call = move || {
            *result.borrow_mut() = Some(target.switch(Payload::unit()));
            // A greenlet created in the main loop has the main loop as its parent.
            *made_in.borrow_mut() = Some(Greenlet::new(Ok));
        };
        get_hub().schedule(Duration::from_millis(1), Call(RefCell::new(Some(Box::new(call)))));
        sleep(Duration::from_millis(5));
        assert!(
            matches!(tried.take(), Some(Err(GreenError::Loop(error))) if error.kind() == LoopErrorKind::InMainloop)
        );
        assert!(!greenlet.is_started());
        let orphan: Greenlet = made.take().expect("the greenlet was made");
        assert_eq!(orphan.parent(), None);
        let green = spawn(move || drop(orphan.switch(Payload::unit())));
        sleep(Duration::from_millis(1));
        assert!(!green.is_finished(), "the result woke the green thread instead of going to the main loop");
        green.kill();
    });
}

#[test]
fn a_switch_to_the_main_loop_is_an_error() {
    test("a_switch_to_the_main_loop_is_an_error", || {
        let found = Rc::new(RefCell::new(None));
        let finds = found.clone();
        get_hub().schedule(Duration::ZERO, move || *finds.borrow_mut() = Some(Greenlet::current()));
        while found.borrow().is_none() {
            sleep(SHORT);
        }
        let main_loop = found.take().expect("the main loop was found");
        let refused = main_loop.switch(Payload::unit());
        assert!(matches!(refused, Err(GreenError::Switch(GreenletError::MainLoop))), "{refused:?}");
        sleep(SHORT);
    });
}

#[test]
fn the_main_loop_keeps_its_parent() {
    test("the_main_loop_keeps_its_parent", || {
        let found = Rc::new(RefCell::new(None));
        let finds = found.clone();
        get_hub().schedule(Duration::ZERO, move || *finds.borrow_mut() = Some(Greenlet::current()));
        while found.borrow().is_none() {
            sleep(SHORT);
        }
        let main_loop: Greenlet = found.take().expect("the main loop was found");
        let refused = main_loop.set_parent(&Greenlet::new(Ok)).expect_err("the main loop keeps its parent");
        assert_eq!(refused, GreenletError::MainLoopParent);
        assert_eq!(refused.to_string(), "the main loop cannot be given another parent");
    });
}

#[test]
fn a_greenlet_dropped_in_a_callback_is_unwound_later() {
    test("a_greenlet_dropped_in_a_callback_is_unwound_later", || {
        struct Drops(RefCell<Option<Greenlet>>, Log);
        impl greenhub::hub::Timer for Drops {
            fn expired(&self) {
                drop(self.0.take());
                note(&self.1, "callback over");
            }
        }
        let log = Log::default();
        let greenlet = suspended(&log, "unwound");
        get_hub().schedule(Duration::from_millis(1), Drops(RefCell::new(Some(greenlet)), log.clone()));
        while log.borrow().len() < 2 {
            sleep(Duration::from_millis(1));
        }
        assert_eq!(*log.borrow(), ["callback over", "unwound"]);
    });
}

#[test]
fn a_greenlet_dropped_while_panicking_is_unwound_later() {
    test("a_greenlet_dropped_while_panicking_is_unwound_later", || {
        let log = Log::default();
        let greenlet = suspended(&log, "unwound");
        let inside = log.clone();
        let caught = catch_unwind(AssertUnwindSafe(move || {
            let _caught = Noted(inside, "panicking");
            let _greenlet = greenlet;
            quiet_panic("main");
        }));
        assert!(caught.is_err());
        note(&log, "caught");
        greenhub::thread::yield_now();
        assert_eq!(*log.borrow(), ["panicking", "caught", "unwound"]);
    });
}

#[test]
fn a_greenlet_dropped_by_a_panicking_result_is_unwound() {
    test("a_greenlet_dropped_by_a_panicking_result_is_unwound", || {
        struct Panics(#[expect(dead_code, reason = "dropped while the destructor unwinds")] Greenlet);
        impl Drop for Panics {
            fn drop(&mut self) {
                quiet_panic("the destructor of a result");
            }
        }
        let log = Log::default();
        let (end, panics) = (Rc::new(Event::new()), Panics(suspended(&log, "unwound")));
        let ends = end.clone();
        let greenlet = Greenlet::new(move |_| {
            let _ = ends.wait();
            Ok(Payload::new(panics))
        });
        // The timeout ends the switch of main, which takes no result any more.
        assert!(with_timeout(SHORT, || drop(greenlet.switch(Payload::unit()))).is_err());
        end.send(()).unwrap();
        greenhub::thread::yield_now();
        assert!(greenlet.is_dead());
        assert_eq!(*log.borrow(), ["unwound"]);
    });
}

#[test]
fn a_greenlet_dropped_while_panicking_lives_on_with_a_new_handle() {
    test("a_greenlet_dropped_while_panicking_lives_on_with_a_new_handle", || {
        struct Resumes(Rc<Event<()>>, Rc<RefCell<Option<Greenlet>>>);
        impl Drop for Resumes {
            fn drop(&mut self) {
                let _ = self.0.send(());
                while self.1.borrow().is_none() {
                    sleep(SHORT);
                }
            }
        }
        green_local!(static RESUMES: RefCell<Option<Resumes>> = RefCell::new(None));
        let (resume, made) = (Rc::new(Event::new()), Rc::new(RefCell::new(None)));
        let (resumed, makes) = (resume.clone(), made.clone());
        // Parks on the hub, and makes a handle of itself when it is resumed.
        let parked = Greenlet::new(move |_| {
            let _ = resumed.wait();
            *makes.borrow_mut() = Some(Greenlet::current());
            sleep(Duration::from_secs(3600));
            Ok(Payload::unit())
        });
        // The timeout ends the switch, but not the park.
        assert!(with_timeout(SHORT, || drop(parked.switch(Payload::unit()))).is_err());
        let resumes = Resumes(resume, made.clone());
        let panics = Greenlet::new(move |_| {
            let _parked = parked;
            // Its destructor runs when this body has been unwound.
            RESUMES.with(|place| *place.borrow_mut() = Some(resumes));
            quiet_panic("drops the last handle")
        });
        assert_eq!(words(panics.switch(Payload::unit())), "drops the last handle");
        let handle: Greenlet = made.take().expect("made before the end");
        assert!(!handle.is_dead());
    });
}

#[test]
fn a_greenlet_that_drops_its_own_last_handle_runs_on() {
    test("a_greenlet_that_drops_its_own_last_handle_runs_on", || {
        let log = Log::default();
        let child: Rc<RefCell<Option<Greenlet>>> = Rc::default();
        let (inside, of_child) = (log.clone(), child.clone());
        let greenlet = Greenlet::new(move |_| {
            let _noted = Noted(inside.clone(), "unwound");
            let main = Greenlet::main();
            main.switch(Payload::unit())?;
            // The ended child held the last handle of this greenlet.
            of_child.take().expect("a child").set_parent(&main).expect("no cycle");
            note(&inside, "runs on");
            sleep(Duration::from_millis(1));
            note(&inside, "slept");
            main.switch(Payload::unit())
        });
        value::<()>(greenlet.switch(Payload::unit()));
        let last = Greenlet::with_parent(&greenlet, Ok);
        *child.borrow_mut() = Some(last.clone());
        drop(greenlet);
        value::<()>(last.switch(Payload::unit()));
        // The greenlet has switched away without a handle, so no switch can resume it.
        note(&log, "back");
        greenhub::thread::yield_now();
        assert_eq!(*log.borrow(), ["runs on", "slept", "back", "unwound"]);
        assert_eq!(get_hub().stats().greenlets, 2, "a greenlet other than main and its loop is left");
    });
}

#[test]
fn a_greenlet_whose_last_handle_dies_with_a_greenlet_that_it_drops_runs_on() {
    test("a_greenlet_whose_last_handle_dies_with_a_greenlet_that_it_drops_runs_on", || {
        let log = Log::default();
        let slot: Rc<RefCell<Option<(Greenlet, Greenlet)>>> = Rc::default();
        let (inside, slot_inside) = (log.clone(), slot.clone());
        let dropper = Greenlet::new(move |_| {
            let _noted = Noted(inside.clone(), "dropper unwound");
            let main = Greenlet::main();
            main.switch(Payload::unit())?;
            let (child, victim) = slot_inside.take().expect("the slot is filled");
            child.set_parent(&main).expect("no cycle");
            drop(victim);
            note(&inside, "runs on");
            sleep(Duration::from_millis(1));
            note(&inside, "slept");
            main.switch(Payload::unit())
        });
        value::<()>(dropper.switch(Payload::unit()));
        let child = Greenlet::with_parent(&dropper, Ok);
        // The child and a frame of the victim hold the dropper.
        let victim = Greenlet::with_parent(&Greenlet::main(), {
            let (held, noted) = (dropper, Noted(log.clone(), "victim unwound"));
            move |_| {
                let (_held, _noted) = (held, noted);
                Greenlet::main().switch(Payload::unit())
            }
        });
        value::<()>(victim.switch(Payload::unit()));
        *slot.borrow_mut() = Some((child.clone(), victim));
        value::<()>(child.switch(Payload::unit()));
        note(&log, "back");
        greenhub::thread::yield_now();
        assert_eq!(*log.borrow(), ["victim unwound", "runs on", "slept", "back", "dropper unwound"]);
    });
}

#[test]
fn green_threads_switch_and_are_parents() {
    test("green_threads_switch_and_are_parents", || {
        let green = spawn(|| {
            let me = Greenlet::current();
            assert_eq!(me.parent(), None);
            assert_eq!(me.set_parent(&Greenlet::main()), Err(GreenletError::GreenThread));
            let partner = Greenlet::new(move |first| me.switch(first));
            assert_eq!(value::<i32>(partner.switch(Payload::new(1))), 1);
            value::<i32>(partner.switch(Payload::new(2)))
        });
        assert_eq!(green.join().unwrap(), 2);
    });
}

#[test]
fn a_killed_green_thread_unwinds_from_its_switch() {
    test("a_killed_green_thread_unwinds_from_its_switch", || {
        let log = Log::default();
        let inside = log.clone();
        let green = spawn(move || {
            let _noted = Noted(inside, "unwound");
            let sleeper = Greenlet::new(|_| {
                sleep(Duration::from_secs(3600));
                Ok(Payload::unit())
            });
            sleeper.switch(Payload::unit()).map(drop)
        });
        greenhub::thread::yield_now();
        assert_eq!(green.kill(), greenhub::greenthread::KillOutcome::Ended);
        assert_eq!(*log.borrow(), ["unwound"]);
        greenhub::thread::yield_now();
        assert_eq!(get_hub().stats().greenlets, 2, "a greenlet other than main and its loop is left");
    });
}

#[test]
fn a_timeout_ends_a_switch() {
    test("a_timeout_ends_a_switch", || {
        let greenlet = Greenlet::new(|_| {
            sleep(Duration::from_millis(30));
            Ok(text("late"))
        });
        let outcome = with_timeout(Duration::from_millis(2), || greenlet.switch(Payload::unit()));
        assert!(outcome.is_err());
        assert!(!greenlet.is_dead());
        sleep(Duration::from_millis(40));
        assert!(greenlet.is_dead(), "the timeout ended the greenlet");
    });
}

#[test]
fn a_switch_that_cannot_return_gets_loop_exit() {
    test("a_switch_that_cannot_return_gets_loop_exit", || {
        let me = Rc::new(Cell::new(None));
        let waits = me.clone();
        let stuck = Rc::new(spawn(move || {
            waits.set(Some(Greenlet::current()));
            // This switch never returns, because no greenlet switches back here.
            Greenlet::with_parent(&Greenlet::main(), |_| Greenlet::main().switch(Payload::unit()))
                .switch(Payload::unit())
                .is_ok()
        }));
        let joined = stuck.clone();
        let greenlet = Greenlet::new(move |_| Ok(Payload::new(joined.wait())));
        // The green thread's partner switches to main first, and this switch returns its unit.
        value::<()>(greenlet.switch(Payload::unit()));
        match Greenlet::new(move |_| Ok(Payload::new(stuck.wait()))).switch(Payload::unit()) {
            Err(GreenError::Loop(error)) => {
                let exit = error.loop_exit().expect("nothing is left");
                assert!(exit.parked.iter().any(|who| who.contains("a greenlet made at")), "{exit:?}");
            }
            other => panic!("{other:?}"),
        }
        assert!(me.take().is_some_and(|stuck| stuck.is_started()));
    });
}

#[test]
fn an_interrupt_reaches_the_main_greenlet_in_a_switch() {
    test("an_interrupt_reaches_the_main_greenlet_in_a_switch", || {
        let greenlet = Greenlet::new(|_| {
            get_hub().interrupt();
            sleep(Duration::from_millis(1));
            Ok(Payload::unit())
        });
        let outcome = greenlet.switch(Payload::unit());
        assert!(
            matches!(&outcome, Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::Interrupted),
            "{outcome:?}"
        );
        sleep(Duration::from_millis(5));
        assert!(greenlet.is_dead(), "the greenlet did not go on in the next loop");
    });
}

/// Begins a wait, leaks its parker, and returns the unparker.
fn forgotten_wait() -> Unparker {
    let parker = Parker::new(WaitReason::Event).unwrap();
    let unparker = parker.unparker();
    std::mem::forget(parker);
    unparker
}

/// Returns whether a sleep lasts although another green thread calls all of `stale` meanwhile.
fn sleeps_on_despite(stale: &[Unparker]) -> bool {
    let stale = stale.to_vec();
    spawn(move || stale.into_iter().for_each(Unparker::unpark));
    let begin = Instant::now();
    sleep(SHORT);
    begin.elapsed() >= SHORT
}

#[test]
fn a_switch_outdates_the_tickets_of_earlier_waits() {
    test("a_switch_outdates_the_tickets_of_earlier_waits", || {
        let main = Greenlet::main();
        let greenlet = Greenlet::new(move |_| {
            let stale = forgotten_wait();
            main.switch(Payload::unit())?;
            Ok(Payload::new(sleeps_on_despite(&[stale])))
        });
        greenlet.switch(Payload::unit()).unwrap();
        assert!(value::<bool>(greenlet.switch(Payload::unit())));
    });
}

#[test]
fn a_drop_that_unwinds_a_greenlet_outdates_the_tickets_of_earlier_waits() {
    test("a_drop_that_unwinds_a_greenlet_outdates_the_tickets_of_earlier_waits", || {
        for waits_between in [false, true] {
            let greenlet = suspended(&Log::default(), "unwound");
            let stale = forgotten_wait();
            if waits_between {
                sleep(Duration::from_micros(1));
            }
            drop(greenlet);
            assert!(sleeps_on_despite(&[stale]));
        }
    });
}

#[test]
fn a_greenlet_unwound_by_a_drop_has_no_ticket_of_an_earlier_wait() {
    green_local! {
        static LAST: Cell<Option<Sleeps>> = Cell::new(None);
    }
    struct Sleeps([Unparker; 2], Rc<Cell<Option<bool>>>);
    impl Drop for Sleeps {
        fn drop(&mut self) {
            self.1.set(Some(sleeps_on_despite(&self.0)));
        }
    }
    test("a_greenlet_unwound_by_a_drop_has_no_ticket_of_an_earlier_wait", || {
        let lasted = Rc::new(Cell::new(None));
        let notes = Rc::clone(&lasted);
        let greenlet = Greenlet::new(move |_| {
            let before = forgotten_wait();
            let parker = Parker::new(WaitReason::Event).unwrap();
            LAST.with(|last| last.set(Some(Sleeps([before, parker.unparker()], notes))));
            parker.park(&mut Deadline::none()).unwrap();
            Ok(Payload::unit())
        });
        let outcome = with_timeout(SHORT, || greenlet.switch(Payload::unit()));
        assert!(outcome.is_err());
        drop(greenlet);
        assert_eq!(lasted.get(), Some(true));
    });
}

#[test]
fn a_drop_ended_by_a_timeout_is_not_ended_again() {
    test("a_drop_ended_by_a_timeout_is_not_ended_again", || {
        green_local! {
            static LAST: Cell<Option<Blocks>> = Cell::new(None);
        }
        struct Blocks(Rc<Cell<bool>>);
        impl Drop for Blocks {
            fn drop(&mut self) {
                sleep(4 * SHORT);
                self.0.set(true);
            }
        }
        let ended = Rc::new(Cell::new(false));
        let ends = Rc::clone(&ended);
        let main = Greenlet::main();
        let greenlet = Greenlet::new(move |_| {
            LAST.with(|last| last.set(Some(Blocks(ends))));
            main.switch(Payload::unit())
        });
        greenlet.switch(Payload::unit()).unwrap();
        let _ = with_timeout(SHORT, || drop(greenlet));
        assert!(!ended.get(), "the timeout did not end the wait of the drop");
        let (reader, _writer) = std::io::pipe().unwrap();
        let waited = trampoline(&reader, Interest::READ, Some(16 * SHORT));
        assert!(matches!(waited, Err(TrampolineError::TimedOut { .. })), "{waited:?}");
        assert!(ended.get());
    });
}

#[test]
fn dropping_the_last_handle_runs_no_other_greenlet() {
    test("dropping_the_last_handle_runs_no_other_greenlet", || {
        let log = Log::default();
        let greenlet = suspended(&log, "unwound");
        let other = log.clone();
        let other = spawn(move || note(&other, "another ran"));
        drop(greenlet);
        note(&log, "dropped");
        other.join().unwrap();
        assert_eq!(*log.borrow(), ["unwound", "dropped", "another ran"]);
    });
}

#[test]
fn a_greenlet_dropped_in_a_shielded_wait_is_unwound_after_it() {
    test("a_greenlet_dropped_in_a_shielded_wait_is_unwound_after_it", || {
        for masked in [false, true] {
            let log = Log::default();
            let noted = Noted(log.clone(), "unwound");
            let inside = log.clone();
            let (go, goes) = std::sync::mpsc::channel::<()>();
            let shared = Rc::new(Event::new());
            let event = Rc::clone(&shared);
            let greenlet = Greenlet::new(move |_| {
                let _noted = noted;
                if masked {
                    // A scoped job borrows, so its wait holds the exit back.
                    greenhub::tpool::execute_scoped(move || _ = goes.recv()).unwrap();
                } else {
                    shield(|| event.wait()).unwrap();
                }
                note(&inside, "the wait is over");
                loop {
                    sleep(Duration::from_secs(3600));
                }
            });
            let outcome = with_timeout(SHORT, || greenlet.switch(Payload::unit()));
            assert!(outcome.is_err());
            drop(greenlet);
            sleep(SHORT);
            note(&log, "dropped");
            drop(go);
            shared.send(()).unwrap();
            let begin = Instant::now();
            while log.borrow().len() < 3 && begin.elapsed() < Duration::from_secs(60) {
                sleep(Duration::from_millis(1));
            }
            assert_eq!(*log.borrow(), ["dropped", "the wait is over", "unwound"], "masked: {masked}");
        }
    });
}

#[test]
fn handles_of_one_greenlet_are_equal() {
    test("handles_of_one_greenlet_are_equal", || {
        let one = Greenlet::new(|_| Ok(Payload::unit()));
        let other = Greenlet::new(|_| Ok(Payload::unit()));
        assert!(one == one.clone());
        assert!(one != other);
    });
}

#[test]
fn a_payload_has_the_type_of_its_value() {
    let payload = Payload::new(7);
    assert!(payload.is::<i32>());
    assert!(!payload.is::<u32>());
    assert!(!payload.is_kill());
}

mod random {
    //! Random switches, throws, ends, reparentings and drops among ten greenlets, compared with a model.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicIsize, Ordering};

    use super::*;
    use crate::support::greenlet_model::{Message, Model, Status};
    use crate::support::random::{Rng, seeds};

    const LIVING: usize = 10;

    /// The number of existing values. Outlives the OS thread.
    type Count = Arc<AtomicIsize>;

    /// A value with a destructor.
    struct Counted(u64, Count);

    impl Counted {
        fn new(number: u64, count: &Count) -> Counted {
            count.fetch_add(1, Ordering::Relaxed);
            Counted(number, count.clone())
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Relaxed);
        }
    }

    struct World {
        model: RefCell<Model>,
        table: RefCell<Vec<Option<Greenlet>>>,
        /// Whether the body of each greenlet was dropped.
        gone: RefCell<Vec<bool>>,
        expected: RefCell<(usize, Message)>,
        random: RefCell<Rng>,
        steps: Cell<usize>,
        numbers: Cell<u64>,
        values: Count,
        seed: u64,
    }

    /// A value that a body owns.
    struct Body(usize, Rc<World>, #[allow(dead_code, reason = "counts")] Counted);

    impl Drop for Body {
        fn drop(&mut self) {
            self.1.gone.borrow_mut()[self.0] = true;
        }
    }

    /// How a body ends.
    enum End {
        Return(u64),
        Fail(u64),
        Panic(u64),
    }

    impl World {
        fn below(&self, limit: usize) -> usize {
            self.random.borrow_mut().usize(..limit)
        }

        fn number(&self) -> u64 {
            self.numbers.set(self.numbers.get() + 1);
            self.numbers.get()
        }

        fn in_table(&self) -> usize {
            let model = self.model.borrow();
            let all: Vec<usize> = (0..model.all.len()).filter(|&id| model.all[id].in_table).collect();
            drop(model);
            all[self.below(all.len())]
        }

        fn handle(&self, of: usize) -> Greenlet {
            self.table.borrow()[of].clone().expect("in the table")
        }

        /// Compares the state of all greenlets with the model.
        fn check(&self) {
            let model = self.model.borrow();
            for (id, one) in model.all.iter().enumerate().skip(1) {
                let seed = self.seed;
                assert_eq!(self.gone.borrow()[id], one.status == Status::Dead, "seed {seed}: {id} in {model:?}");
                if let Some(handle) = &self.table.borrow()[id] {
                    assert_eq!(handle.is_dead(), one.status == Status::Dead, "seed {seed}: {id} in {model:?}");
                    assert_eq!(handle.is_started(), one.status != Status::Unstarted, "seed {seed}: {id}");
                    assert_eq!(handle.is_current(), one.status == Status::Running, "seed {seed}: {id}");
                }
            }
        }

        fn expect(&self, (greenlet, message): (usize, Message)) {
            *self.expected.borrow_mut() = (greenlet, message);
        }

        fn arrived(&self, me: usize, outcome: Outcome) {
            let message = match outcome {
                Ok(payload) if payload.is_kill() => Message::Exited,
                Ok(payload) => Message::Value(payload.downcast::<Counted>().expect("a counted value").0),
                Err(GreenError::Kill) => Message::Exit,
                Err(GreenError::Custom(error)) => Message::Error(error.to_string().parse().expect("a number")),
                Err(GreenError::Panic(panic)) => Message::Panic(panic.message().parse().expect("a number")),
                Err(other) => panic!("seed {}: {me} got {other}", self.seed),
            };
            assert_eq!((me, message), *self.expected.borrow(), "seed {}", self.seed);
        }

        /// Performs one random step as greenlet `me`. Returns an end for the caller to perform.
        fn step(self: &Rc<World>, me: usize) -> Option<End> {
            self.check();
            if self.steps.get() == 0 {
                return Some(End::Return(self.number()));
            }
            self.steps.set(self.steps.get() - 1);
            match self.below(16) {
                0 | 1 => {
                    let model = self.model.borrow();
                    let living = model.all.iter().filter(|one| one.status != Status::Dead).count();
                    drop(model);
                    if living < LIVING {
                        let parent = if self.below(2) == 0 { me } else { self.in_table() };
                        self.make(me, parent);
                    }
                }
                2 => {
                    let (child, parent) = (self.in_table(), self.in_table());
                    if child != 0 {
                        // These temporary handles are clones of the handles in the table.
                        let (child_handle, parent_handle) = (self.handle(child), self.handle(parent));
                        let allowed = child_handle.set_parent(&parent_handle).is_ok();
                        assert_eq!(self.model.borrow_mut().set_parent(child, parent), allowed, "seed {}", self.seed);
                    }
                }
                3 => {
                    let of = self.in_table();
                    if of != 0 {
                        self.model.borrow_mut().drop_handle(of);
                        let handle = self.table.borrow_mut()[of].take();
                        drop(handle);
                    }
                }
                4 => return Some(End::Return(self.number())),
                5 if me != 0 => {
                    let number = self.number();
                    return Some(if self.below(2) == 0 { End::Fail(number) } else { End::Panic(number) });
                }
                6 => self.switch(me, Message::Error(self.number())),
                7 => self.switch(me, Message::Exit),
                _ => self.switch(me, Message::Value(self.number())),
            }
            None
        }

        fn switch(&self, me: usize, message: Message) {
            let to = self.in_table();
            let handle = self.handle(to);
            self.expect(self.model.borrow_mut().switch(to, message.clone()));
            let outcome = match message {
                Message::Value(number) => handle.switch(Payload::new(Counted::new(number, &self.values))),
                Message::Error(number) => handle.throw(GreenError::custom(number.to_string())),
                _ => handle.kill(),
            };
            self.arrived(me, outcome);
            self.model.borrow_mut().back();
            drop(handle);
        }

        fn make(self: &Rc<World>, me: usize, parent: usize) {
            let id = self.model.borrow_mut().make(parent);
            self.gone.borrow_mut().push(false);
            let body = Body(id, self.clone(), Counted::new(0, &self.values));
            let run = move |first| {
                let body = body;
                let (me, world) = (body.0, &body.1);
                world.arrived(me, Ok(first));
                loop {
                    let Some(end) = world.step(me) else { continue };
                    let (message, outcome) = match end {
                        End::Return(number) => {
                            (Message::Value(number), Ok(Payload::new(Counted::new(number, &world.values))))
                        }
                        End::Fail(number) => (Message::Error(number), Err(GreenError::custom(number.to_string()))),
                        End::Panic(number) => (Message::Panic(number), Ok(Payload::unit())),
                    };
                    world.expect(world.model.borrow_mut().finish(message.clone()));
                    if let Message::Panic(number) = message {
                        quiet_panic(&number.to_string());
                    }
                    return outcome;
                }
            };
            let greenlet =
                if parent == me { Greenlet::new(run) } else { Greenlet::with_parent(&self.handle(parent), run) };
            self.table.borrow_mut().push(Some(greenlet));
        }
    }

    fn play(seed: u64, values: &Count) {
        let world = Rc::new(World {
            model: RefCell::new(Model::new()),
            table: RefCell::new(vec![Some(Greenlet::main())]),
            gone: RefCell::new(vec![false]),
            expected: RefCell::new((0, Message::Exited)),
            random: RefCell::new(Rng::with_seed(seed)),
            steps: Cell::new(400),
            numbers: Cell::new(0),
            values: values.clone(),
            seed,
        });
        while world.steps.get() != 0 {
            // The main greenlet does not end.
            let _ = world.step(0);
        }
        world.check();
        let made = world.table.borrow().len();
        for id in 1..made {
            let handle = world.table.borrow_mut()[id].take();
            if let Some(handle) = handle {
                world.model.borrow_mut().drop_handle(id);
                drop(handle);
                world.check();
            }
        }
        world.model.borrow_mut().end_doomed();
        greenhub::thread::yield_now();
        world.check();
        let left = world.model.borrow().all.iter().skip(1).filter(|one| one.status != Status::Dead).count();
        if left == 0 {
            assert!(get_hub().stats().greenlets <= 2, "a greenlet other than main and its loop is left");
        }
    }

    #[test]
    fn random_switches_match_the_model() {
        for seed in seeds(300, 50) {
            let values = Count::default();
            let inside = values.clone();
            // A greenlet in a reference cycle is unwound by the shutdown at the end of the test.
            test("random_switches_match_the_model", move || play(seed, &inside));
            assert_eq!(values.load(Ordering::Relaxed), 0, "seed {seed}: values were dropped other than once");
        }
    }
}
