//! A hub whose wait runs code of others: its wake-ups, its stack, and what counts as a deadlock.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use greenhub::future::try_block_on;
use greenhub::hub::{Hub, LoopErrorKind};
use greenhub::sync::Event;
use greenhub::thread::yield_now;
use greenhub::{GreenError, get_hub, scope, sleep, spawn, try_get_hub};

use crate::support::fork::in_fork;
use crate::support::green::OnDrop;
use crate::support::hubs::{Tap, Wait, use_tapped_hub};
use crate::support::{alone, run};

/// A waker that counts.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn loop_error(error: &GreenError) -> LoopErrorKind {
    match error {
        GreenError::Loop(error) => error.kind(),
        other => panic!("{other:?}"),
    }
}

/// The code of a task, which runs once in the hub's wait.
type Task = Rc<Cell<Option<Box<dyn FnOnce()>>>>;

/// A hub that runs a task in its wait, and returns without a report if the task wakes it.
struct RunsTasks {
    task: Task,
    may_wake: bool,
    /// The numbers of wake-ups before the task ran, and after it.
    woken: Rc<Cell<Option<(usize, usize)>>>,
}

impl Tap for RunsTasks {
    fn name(&self, _: &dyn Hub) -> &'static str {
        "runs-tasks"
    }
    fn may_wake(&self, _: &dyn Hub) -> bool {
        self.may_wake
    }
    fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
        // The loop only sleeps when no green thread is ready.
        if call.timeout == Some(Duration::ZERO) {
            return call.forward(hub);
        }
        let Some(task) = self.task.take() else { return call.forward(hub) };
        let wakes = Arc::new(Wakes::default());
        call.watched.wake_by(&Waker::from(Arc::clone(&wakes)));
        let before = wakes.0.load(Ordering::Relaxed);
        task();
        let after = wakes.0.load(Ordering::Relaxed);
        self.woken.set(Some((before, after)));
        if after == 0 { call.forward(hub) } else { Ok(()) }
    }
}

/// Makes this OS thread use a hub that runs `task`. Returns the numbers of its wake-ups.
fn use_hub_with_task(may_wake: bool, task: impl FnOnce() + 'static) -> Rc<Cell<Option<(usize, usize)>>> {
    let woken = Rc::new(Cell::new(None));
    let task: Box<dyn FnOnce()> = Box::new(task);
    use_tapped_hub(RunsTasks { task: Rc::new(Cell::new(Some(task))), may_wake, woken: Rc::clone(&woken) });
    woken
}

#[test]
fn a_wake_up_in_a_wait_wakes_the_waker_of_the_hub() {
    run("a_wake_up_in_a_wait_wakes_the_waker_of_the_hub", || {
        let event = Rc::new(Event::new());
        let sent = Rc::clone(&event);
        let woken = use_hub_with_task(true, move || sent.send(7).unwrap());
        assert_eq!(event.wait().unwrap(), 7);
        assert_eq!(woken.get(), Some((0, 1)));
    });
}

#[test]
fn a_wait_wakes_its_waker_once() {
    run("a_wait_wakes_its_waker_once", || {
        let events = Rc::new([Event::new(), Event::new()]);
        let sent = Rc::clone(&events);
        let woken = use_hub_with_task(true, move || sent.iter().for_each(|event| event.send(7).unwrap()));
        let greens: Vec<_> = (0..2)
            .map(|number| {
                let events = Rc::clone(&events);
                spawn(move || events[number].wait().unwrap())
            })
            .collect();
        for green in greens {
            assert_eq!(green.join().unwrap(), 7);
        }
        assert_eq!(woken.get(), Some((0, 1)));
    });
}

#[test]
fn a_spawn_in_a_wait_wakes_the_waker_of_the_hub() {
    run("a_spawn_in_a_wait_wakes_the_waker_of_the_hub", || {
        let event = Rc::new(Event::new());
        let sent = Rc::clone(&event);
        let woken = use_hub_with_task(true, move || drop(spawn(move || sent.send(7).unwrap())));
        assert_eq!(event.wait().unwrap(), 7);
        assert_eq!(woken.get(), Some((0, 1)));
    });
}

#[test]
fn a_timer_that_is_armed_in_a_wait_shortens_the_wait() {
    run("a_timer_that_is_armed_in_a_wait_shortens_the_wait", || {
        let event = Rc::new(Event::new());
        let sent = Rc::clone(&event);
        let woken = use_hub_with_task(true, move || {
            let _timer = get_hub().schedule_once(Duration::from_millis(1), move || sent.send(7).unwrap());
        });
        // Without the wake-up, the wait would last for an hour.
        let _sleeper = spawn(|| sleep(Duration::from_secs(3600)));
        assert_eq!(event.wait().unwrap(), 7);
        assert_eq!(woken.get(), Some((0, 1)));
    });
}

#[test]
fn an_abort_in_a_wait_ends_the_wait() {
    run("an_abort_in_a_wait_ends_the_wait", || {
        let woken = use_hub_with_task(true, || get_hub().abort());
        // The abort ends the sleep.
        sleep(Duration::from_secs(3600));
        assert_eq!(woken.get(), Some((0, 1)));
    });
}

#[test]
fn a_hub_that_may_wake_the_main_greenlet_is_waited_for() {
    /// The first wait of the hub without a task would be taken for a deadlock.
    struct WakesLater(Rc<Event<u32>>, bool, u32);

    impl Tap for WakesLater {
        fn may_wake(&self, _: &dyn Hub) -> bool {
            self.1
        }
        fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
            if call.timeout == Some(Duration::ZERO) {
                return call.forward(hub);
            }
            assert_eq!(call.timeout.is_none(), self.1, "the limit of the wait is {:?}", call.timeout);
            if !self.1 {
                return call.forward(hub);
            }
            self.2 += 1;
            if self.2 == 3 {
                call.watched.wake_by(Waker::noop());
                self.0.send(7).unwrap();
            }
            Ok(())
        }
    }

    in_fork(|| {
        for (may_wake, expected) in [(true, Ok(7)), (false, Err(LoopErrorKind::LoopExit))] {
            let event = Rc::new(Event::new());
            use_tapped_hub(WakesLater(Rc::clone(&event), may_wake, 0));
            let waited = event.wait().map_err(|error| loop_error(&error));
            assert_eq!(waited, expected);
        }
    });
}

#[test]
fn a_hub_that_completes_futures_is_waited_for_while_one_is_awaited() {
    /// Completes a future in its third wait.
    struct Completes {
        completes: bool,
        waits: u32,
        waker: Rc<Cell<Option<Waker>>>,
    }

    impl Tap for Completes {
        fn completes_futures(&self, _: &dyn Hub) -> bool {
            self.completes
        }
        fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
            if call.timeout == Some(Duration::ZERO) || !self.completes {
                return call.forward(hub);
            }
            self.waits += 1;
            if self.waits == 3 {
                call.watched.wake_by(Waker::noop());
                self.waker.take().expect("the future is awaited").wake();
            }
            Ok(())
        }
    }

    in_fork(|| {
        for completes in [true, false] {
            let waker = Rc::new(Cell::new(None));
            use_tapped_hub(Completes { completes, waits: 0, waker: Rc::clone(&waker) });
            let mut is_pending = false;
            let awaited = try_block_on(poll_fn(|context| {
                if std::mem::replace(&mut is_pending, true) {
                    return Poll::Ready(7);
                }
                waker.set(Some(context.waker().clone()));
                Poll::Pending
            }));
            let expected = if completes { Ok(7) } else { Err(LoopErrorKind::LoopExit) };
            assert_eq!(awaited.map_err(|error| error.kind()), expected);
        }
    });
}

#[test]
fn an_abandoned_wait_for_a_future_keeps_no_loop_waiting() {
    /// A hub that may complete futures, and completes none.
    struct Claims;

    impl Tap for Claims {
        fn completes_futures(&self, _: &dyn Hub) -> bool {
            true
        }
    }

    in_fork(|| {
        use_tapped_hub(Claims);
        // It catches each exit, so that the shutdown abandons it.
        let _refuses = spawn(|| {
            loop {
                let _ = catch_unwind(|| try_block_on(std::future::pending::<()>()));
            }
        });
        greenhub::thread::yield_now();
        let ended = get_hub().shutdown(Duration::ZERO).unwrap();
        use_tapped_hub(Claims);
        let waited = Event::<u32>::new().wait().map_err(|error| loop_error(&error));
        assert_eq!((ended.abandoned, waited), (1, Err(LoopErrorKind::LoopExit)));
    });
}

#[test]
fn an_early_return_with_a_ready_green_thread_is_no_deadlock() {
    /// Wakes a green thread instead of sleeping.
    struct WakesAtOnce(Rc<Event<u32>>);

    impl Tap for WakesAtOnce {
        fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
            match call.timeout {
                Some(Duration::ZERO) => call.forward(hub),
                _ => {
                    let _ = self.0.send(7);
                    Ok(())
                }
            }
        }
    }

    in_fork(|| {
        let event = Rc::new(Event::new());
        use_tapped_hub(WakesAtOnce(Rc::clone(&event)));
        let green = spawn(move || event.wait().unwrap());
        assert_eq!(green.join().unwrap(), 7);
    });
}

/// A hub whose wait needs a large stack.
struct NeedsStack(Rc<Cell<usize>>);

const NEEDED: usize = 700 << 10;

/// Calls itself until so much of the stack is in use.
#[inline(never)]
fn use_stack(top: usize) -> u8 {
    let frame = std::hint::black_box([1u8; 4096]);
    let used = top - frame.as_ptr().addr();
    if used < NEEDED { frame[0].wrapping_add(use_stack(top)) } else { frame[0] }
}

impl Tap for NeedsStack {
    fn stack_size(&self, _: &dyn Hub) -> usize {
        1 << 20
    }
    fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
        let top = std::ptr::from_ref(&call).addr();
        std::hint::black_box(use_stack(top));
        self.0.set(self.0.get() + 1);
        call.forward(hub)
    }
}

#[test]
fn the_main_loop_gets_the_stack_that_its_hub_asks_for() {
    alone("the_main_loop_gets_the_stack_that_its_hub_asks_for", || {
        let waits = Rc::new(Cell::new(0));
        use_tapped_hub(NeedsStack(Rc::clone(&waits)));
        let _ = get_hub();
        sleep(Duration::from_millis(1));
        assert!(waits.get() > 0);
    });
}

#[test]
fn a_loop_that_began_before_its_hub_was_built_gets_the_stack_too() {
    alone("a_loop_that_began_before_its_hub_was_built_gets_the_stack_too", || {
        let waits = Rc::new(Cell::new(0));
        use_tapped_hub(NeedsStack(Rc::clone(&waits)));
        spawn(greenhub::thread::yield_now).join().unwrap();
        assert!(!greenhub::hub::has_hub(), "nothing has waited yet");
        sleep(Duration::from_millis(1));
        assert!(waits.get() > 0);
    });
}

#[test]
fn a_loop_that_is_launched_after_an_ended_green_thread_gets_the_stack_too() {
    alone("a_loop_that_is_launched_after_an_ended_green_thread_gets_the_stack_too", || {
        let waits = Rc::new(Cell::new(0));
        use_tapped_hub(NeedsStack(Rc::clone(&waits)));
        for _ in 0..3 {
            let _ = get_hub();
            let ender = spawn(|| get_hub().abort());
            assert_eq!(get_hub().run_once(None).unwrap_err().kind(), LoopErrorKind::Aborted);
            ender.join().unwrap();
            spawn(|| ()).join().unwrap();
            sleep(Duration::from_millis(1));
        }
        assert!(waits.get() > 2);
    });
}

#[test]
fn ready_green_threads_leave_the_loop_its_turn_when_it_changes_its_stack() {
    alone("ready_green_threads_leave_the_loop_its_turn_when_it_changes_its_stack", || {
        const BUSY: usize = 100;
        use_tapped_hub(NeedsStack(Rc::default()));
        let ran = Rc::new(Cell::new(0));
        let runs = Rc::clone(&ran);
        let sleeper = spawn(move || {
            sleep(Duration::from_millis(1));
            runs.get()
        });
        greenhub::thread::yield_now();
        let busy: Vec<_> = (0..BUSY)
            .map(|_| {
                let ran = Rc::clone(&ran);
                spawn(move || {
                    std::thread::sleep(Duration::from_micros(200));
                    ran.set(ran.get() + 1);
                })
            })
            .collect();
        assert!(sleeper.join().unwrap() < BUSY);
        busy.into_iter().for_each(|green| green.join().unwrap());
    });
}

#[test]
fn a_single_turn_goes_on_after_the_loop_has_changed_its_stack() {
    alone("a_single_turn_goes_on_after_the_loop_has_changed_its_stack", || {
        let waits = Rc::new(Cell::new(0));
        spawn(greenhub::thread::yield_now).join().unwrap();
        use_tapped_hub(NeedsStack(Rc::clone(&waits)));
        get_hub().run_once(Duration::ZERO).unwrap();
        assert!(waits.get() > 0);
    });
}

/// A hub that asks for a stack that no system has.
struct NeedsTooMuch;

impl Tap for NeedsTooMuch {
    fn stack_size(&self, _: &dyn Hub) -> usize {
        1 << 46
    }
}

#[test]
fn a_scope_ends_although_no_loop_can_be_launched() {
    alone("a_scope_ends_although_no_loop_can_be_launched", || {
        sleep(Duration::ZERO);
        let (never, ended) = (Event::<()>::new(), Cell::new(0));
        scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    let _end = OnDrop(|| ended.set(ended.get() + 1));
                    let _ = never.wait();
                });
            }
            yield_now();
            use_tapped_hub(NeedsTooMuch);
            assert!(try_get_hub().is_ok());
        });
        assert_eq!(ended.get(), 2);
    });
}
