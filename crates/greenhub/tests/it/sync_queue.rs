//! The queues and `Channel`: no item is lost or duplicated, and waiters are served in order of arrival.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::support::green;
use crate::support::green::{Log, SHORT, held, in_time, quiet_panic};
use crate::support::random::{Moment, Rng};
use crate::support::run;
use greenhub::hub::LoopErrorKind;
use greenhub::sync::{Channel, GetError, LifoQueue, LightQueue, PriorityQueue, PutError, Queue, TooManyTasksDone};
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenThread, get_hub, sleep, spawn, with_timeout};

const ZERO: Duration = Duration::ZERO;

fn bounded<T>(capacity: usize) -> Arc<Queue<T>> {
    Arc::new(Queue::bounded(capacity))
}

/// Lets every ready green thread run until it waits.
fn settle() {
    (0..5).for_each(|_| yield_now());
}

/// Spawns a green thread that gets one item.
fn getter<T: 'static>(queue: &Arc<Queue<T>>) -> GreenThread<T> {
    let queue = queue.clone();
    let green = spawn(move || queue.get().unwrap());
    yield_now();
    green
}

/// Spawns a green thread that puts one item.
fn putter<T: 'static>(queue: &Arc<Queue<T>>, item: T) -> GreenThread<()> {
    let queue = queue.clone();
    let green = spawn(move || queue.put(item).unwrap());
    yield_now();
    green
}

fn drain<T>(queue: &LightQueue<T>) -> Vec<T> {
    std::iter::from_fn(|| queue.try_get().ok()).collect()
}

#[test]
fn first_in_first_out_and_a_put_with_room_does_not_switch() {
    run("first_in_first_out_and_a_put_with_room_does_not_switch", || {
        let (queue, log) = (bounded(2), Log::new());
        let (getting, logs) = (queue.clone(), log.clone());
        let green = spawn(move || {
            logs.add("gets");
            let pair = (getting.get().unwrap(), getting.get().unwrap());
            logs.add("got");
            pair
        });
        yield_now();
        log.is(&["gets"]);
        queue.put(1).unwrap();
        queue.put(2).unwrap();
        log.is(&["gets"]);
        assert_eq!(green.join().unwrap(), (1, 2));
    });
}

#[test]
fn a_put_beyond_the_limit_waits_for_a_get() {
    run("a_put_beyond_the_limit_waits_for_a_get", || {
        let (queue, log) = (bounded(2), Log::new());
        let (putting, logs) = (queue.clone(), log.clone());
        let green = spawn(move || {
            for name in ["a", "b", "c"] {
                putting.put(name).unwrap();
                logs.add(name);
            }
        });
        settle();
        log.is(&["a", "b"]);
        assert!(queue.is_full());
        assert_eq!(queue.get().unwrap(), "a");
        log.is(&["a", "b"]);
        settle();
        log.is(&["a", "b", "c"]);
        green.join().unwrap();
        assert_eq!(drain(&queue), ["b", "c"]);
    });
}

#[test]
fn a_queue_without_limit_is_never_full() {
    let queue = LightQueue::<usize>::new();
    for item in 0..10_000 {
        queue.try_put(item).unwrap();
        assert!(!queue.is_full());
    }
    assert_eq!((queue.capacity(), queue.len()), (None, 10_000));
}

#[test]
fn a_queue_of_size_zero_is_empty_and_full() {
    run("a_queue_of_size_zero_is_empty_and_full", || {
        let queue = bounded(0);
        let check = || assert!(queue.is_empty() && queue.is_full());
        check();
        let green = putter(&queue, 1);
        check();
        assert_eq!(queue.get().unwrap(), 1);
        check();
        green.join().unwrap();
        let green = getter(&queue);
        check();
        queue.put(2).unwrap();
        check();
        assert_eq!(green.join().unwrap(), 2);
    });
}

/// Passes two words from a sender to a receiver; the log records the order in which they continue.
fn meet(receiver_first: bool) -> Log {
    let (channel, log) = (Arc::new(Channel::new()), Log::new());
    let (sender, sends) = (channel.clone(), log.clone());
    let (receiver, receives) = (channel, log.clone());
    let send = move || {
        for word in ["hello", "world"] {
            sends.add(format!("sending {word}"));
            sender.send(word).unwrap();
            sends.add(format!("sent {word}"));
        }
    };
    let receive = move || {
        receives.add("waiting");
        for _ in 0..2 {
            receives.add(receiver.wait().unwrap());
        }
    };
    let both = if receiver_first { (spawn(receive), spawn(send)) } else { (spawn(send), spawn(receive)) };
    both.0.join().unwrap();
    both.1.join().unwrap();
    log
}

#[test]
fn a_receiver_runs_before_an_earlier_sender_continues() {
    run("a_receiver_runs_before_an_earlier_sender_continues", || {
        meet(false).is(&["sending hello", "waiting", "hello", "sent hello", "sending world", "world", "sent world"]);
    });
}

#[test]
fn an_earlier_receiver_runs_before_the_sender_continues() {
    run("an_earlier_receiver_runs_before_the_sender_continues", || {
        meet(true).is(&["waiting", "sending hello", "hello", "sent hello", "sending world", "world", "sent world"]);
    });
}

#[test]
fn a_timed_out_wait_leaves_nothing_behind() {
    run("a_timed_out_wait_leaves_nothing_behind", || {
        for capacity in 0..3 {
            let (queue, before) = (bounded(capacity), held());
            let begin = Instant::now();
            assert!(matches!(queue.get_timeout(SHORT), Err(GetError::TimedOut)));
            assert!(begin.elapsed() >= SHORT);
            (0..capacity).for_each(|item| queue.try_put(item).unwrap());
            let begin = Instant::now();
            assert!(matches!(queue.put_timeout(99, SHORT), Err(PutError::TimedOut(99))));
            assert!(begin.elapsed() >= SHORT);
            assert!(with_timeout(SHORT, || queue.put(98)).is_err());
            assert_eq!((queue.len(), queue.getting(), queue.putting()), (capacity, 0, 0));
            assert_eq!(drain(&queue), (0..capacity).collect::<Vec<_>>());
            assert_eq!(held(), before);
        }
    });
}

#[test]
fn a_zero_timeout_expires_in_the_next_turn() {
    run("a_zero_timeout_expires_in_the_next_turn", || {
        let (queue, log) = (bounded(1), Log::new());
        let logs = log.clone();
        spawn(move || logs.add("ran"));
        assert!(matches!(queue.get_timeout(ZERO), Err(GetError::TimedOut)));
        log.is(&["ran"]);
        queue.put_timeout(1, ZERO).unwrap();
        let logs = log.clone();
        spawn(move || logs.add("ran"));
        assert!(matches!(queue.put_timeout(2, ZERO), Err(PutError::TimedOut(2))));
        log.is(&["ran", "ran"]);
    });
}

#[test]
fn the_try_forms_return_full_or_empty() {
    for capacity in 0..3 {
        let queue = bounded(capacity);
        assert!(matches!(queue.try_get(), Err(GetError::Empty)));
        (0..capacity).for_each(|item| queue.try_put(item).unwrap());
        assert!(matches!(queue.try_put(99), Err(PutError::Full(99))));
    }
    assert!(!greenhub::hub::has_hub());
}

#[test]
fn try_forms_on_the_main_loop_serve_waiting_green_threads() {
    run("try_forms_on_the_main_loop_serve_waiting_green_threads", || {
        for capacity in [0, 1] {
            let queue = bounded(capacity);
            let green = getter(&queue);
            let giver = queue.clone();
            let _timer = get_hub().schedule(ZERO, move || giver.try_put(10).unwrap());
            assert_eq!(green.join().unwrap(), 10);
            (0..capacity).for_each(|_| queue.try_put(5).unwrap());
            let green = putter(&queue, 5);
            let (taker, taken) = (queue.clone(), Rc::new(Cell::new(0)));
            let own_taken = taken.clone();
            let _timer = get_hub().schedule(ZERO, move || own_taken.set(taker.try_get().unwrap()));
            green.join().unwrap();
            assert_eq!(taken.get(), 5);
        }
    });
}

#[test]
fn on_the_main_loop_and_while_panicking_a_wait_is_refused() {
    run("on_the_main_loop_and_while_panicking_a_wait_is_refused", || {
        green::keep_reports();
        let full = bounded(0);
        let refusals = Rc::new(RefCell::new(Vec::new()));
        let (queue, own_refusals) = (full.clone(), refusals.clone());
        let try_all = move || {
            let mut own_refusals = own_refusals.borrow_mut();
            own_refusals.push(queue.get().err().unwrap().to_string());
            match queue.put(7) {
                Err(PutError::Loop { error, item: Some(7) }) => own_refusals.push(error.to_string()),
                other => panic!("{other:?}"),
            }
        };
        let timer = try_all.clone();
        let _timer = get_hub().schedule(ZERO, timer);
        sleep(SHORT);
        let green = spawn(move || {
            let _waits = green::OnDrop(try_all);
            quiet_panic("on purpose");
        });
        assert!(green.join().is_err());
        let refusals = refusals.borrow();
        assert_eq!(refusals.len(), 4, "{refusals:?}");
        assert!(refusals[..2].iter().all(|text| text.contains("main loop")), "{refusals:?}");
        assert!(refusals[2..].iter().all(|text| text.contains("while panicking")), "{refusals:?}");
        assert_eq!((full.getting(), full.putting()), (0, 0));
    });
}

#[test]
fn items_skip_getters_that_have_left_and_reach_the_others_in_order() {
    run("items_skip_getters_that_have_left_and_reach_the_others_in_order", || {
        for capacity in [0, 1, 100] {
            let (queue, got) = (bounded(capacity), Rc::new(RefCell::new(Vec::new())));
            let getters: Vec<_> = (0..20)
                .map(|number| {
                    let (queue, got) = (queue.clone(), got.clone());
                    spawn(move || {
                        let item: i32 = queue.get().unwrap();
                        got.borrow_mut().push((number, item));
                    })
                })
                .collect();
            settle();
            for left in getters.iter().step_by(2) {
                left.kill();
            }
            (0..10).for_each(|item| queue.try_put(item).unwrap());
            settle();
            assert_eq!(*got.borrow(), (0..10).map(|item| (2 * item + 1, item)).collect::<Vec<_>>());
            assert_eq!((queue.len(), queue.getting()), (0, 0));
        }
    });
}

#[test]
fn a_timed_out_getter_takes_no_item() {
    run("a_timed_out_getter_takes_no_item", || {
        for capacity in [0, 1] {
            let queue = bounded(capacity);
            let gone = queue.clone();
            let gone = spawn(move || gone.get_timeout(SHORT).is_err());
            let live = getter(&queue);
            assert!(gone.join().unwrap());
            queue.put("hi").unwrap();
            assert_eq!(live.join().unwrap(), "hi");
        }
    });
}

#[test]
fn a_getter_killed_after_its_grant_gets_the_item() {
    run("a_getter_killed_after_its_grant_gets_the_item", || {
        for capacity in [0, 1] {
            let queue = bounded(capacity);
            let (first, second) = (getter(&queue), getter(&queue));
            queue.try_put("hi").unwrap();
            assert_eq!(queue.getting(), 1);
            first.kill();
            assert_eq!(first.join().unwrap(), "hi");
            assert!(!second.is_finished());
            queue.try_put("next").unwrap();
            assert_eq!(second.join().unwrap(), "next");
        }
    });
}

#[test]
fn a_newcomer_takes_neither_a_granted_item_nor_granted_room() {
    run("a_newcomer_takes_neither_a_granted_item_nor_granted_room", || {
        let queue = bounded(1);
        let green = getter(&queue);
        // The item is granted to the getter, which has not run yet.
        queue.put(1).unwrap();
        assert!(matches!(queue.try_get(), Err(GetError::Empty)));
        assert!(matches!(queue.get_timeout(ZERO), Err(GetError::TimedOut)));
        assert_eq!(green.join().unwrap(), 1);
        let green = getter(&queue);
        queue.put(2).unwrap();
        let newcomer = getter(&queue);
        assert_eq!(green.join().unwrap(), 2);
        queue.put(3).unwrap();
        assert_eq!(newcomer.join().unwrap(), 3);
        queue.put(4).unwrap();
        let green = putter(&queue, 5);
        assert_eq!(queue.try_get().unwrap(), 4);
        assert!(matches!(queue.try_put(6), Err(PutError::Full(6))));
        green.join().unwrap();
        assert_eq!(drain(&queue), [5]);
    });
}

#[test]
fn a_getter_whose_putter_left_stays_first_waiters() {
    run("a_getter_whose_putter_left_stays_first_waiters", || {
        let queue = bounded(0);
        let (first, second) = (getter(&queue), getter(&queue));
        let leaving = queue.clone();
        let leaving = spawn(move || leaving.put(0));
        // The putter grants its item to the first getter, and is killed before that getter runs.
        let killer = spawn(move || leaving.kill());
        settle();
        killer.join().unwrap();
        assert_eq!((queue.putting(), queue.getting()), (0, 2));
        queue.put(1).unwrap();
        queue.put(2).unwrap();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 2));
    });
}

#[test]
fn an_item_put_before_a_due_timeout_is_thrown_is_received() {
    run("an_item_put_before_a_due_timeout_is_thrown_is_received", || {
        let queue = bounded(1);
        let putting = queue.clone();
        // All is due at once: the putter runs when the getter's timeout has expired, but has not been thrown yet.
        spawn(move || {
            sleep(SHORT);
            putting.put(1)
        });
        let getting = queue.clone();
        let green = spawn(move || with_timeout(SHORT, || getting.get()));
        yield_now();
        std::thread::sleep(SHORT * 4);
        assert_eq!(green.join().unwrap().unwrap().unwrap(), 1);
        assert_eq!(queue.len(), 0);
    });
}

#[test]
fn the_item_of_an_ended_putter_is_delivered() {
    run("the_item_of_an_ended_putter_is_delivered", || {
        let queue = bounded(1);
        putter(&queue, "left").join().unwrap();
        let green = putter(&queue, "taken in later");
        assert_eq!(queue.get().unwrap(), "left");
        // The item has moved into the queue already, so the kill comes too late.
        green.kill();
        green.join().unwrap();
        assert_eq!(queue.get().unwrap(), "taken in later");
    });
}

#[test]
fn the_item_of_a_killed_putter_is_not_taken_in() {
    run("the_item_of_a_killed_putter_is_not_taken_in", || {
        for capacity in [0, 1] {
            let queue = bounded(capacity);
            (0..capacity).for_each(|_| queue.try_put("there").unwrap());
            let green = putter(&queue, "killed");
            assert_eq!(queue.putting(), 1);
            green.kill();
            assert!(green.join().unwrap_err().is_kill());
            assert_eq!((queue.putting(), queue.len()), (0, capacity));
            assert_eq!(drain(&queue), vec!["there"; capacity]);
        }
    });
}

#[test]
fn the_item_of_a_killed_putter_may_use_the_queue_in_drop() {
    run("the_item_of_a_killed_putter_may_use_the_queue_in_drop", || {
        struct Item(Arc<Queue<Item>>, Rc<Cell<bool>>);
        impl Drop for Item {
            fn drop(&mut self) {
                self.1.set(self.0.is_full());
            }
        }
        let (queue, asked) = (bounded(0), Rc::new(Cell::new(false)));
        let green = putter(&queue, Item(queue.clone(), asked.clone()));
        green.kill();
        assert!(green.join().is_err());
        assert!(asked.get());
    });
}

#[test]
fn the_item_of_a_put_that_times_out_at_once_may_use_the_queue_in_drop() {
    run("the_item_of_a_put_that_times_out_at_once_may_use_the_queue_in_drop", || {
        struct Looks(Rc<LightQueue<Looks>>, Rc<Cell<Option<usize>>>);
        impl Drop for Looks {
            fn drop(&mut self) {
                self.1.set(Some(self.0.len()));
            }
        }
        let (queue, seen) = (Rc::new(LightQueue::bounded(0)), Rc::new(Cell::new(None)));
        let item = Looks(queue.clone(), seen.clone());
        assert!(with_timeout(ZERO, || queue.put(item).is_ok()).is_err());
        assert_eq!(seen.get(), Some(0));
    });
}

#[test]
fn items_leave_in_queue_order_whichever_getter_runs_first() {
    run("items_leave_in_queue_order_whichever_getter_runs_first", || {
        let queue = bounded(0);
        let first = getter(&queue);
        queue.try_put("the first").unwrap();
        let putting = queue.clone();
        let putter = std::thread::spawn(move || putting.put("the second").unwrap());
        while queue.putting() == 0 {
            std::thread::yield_now();
        }
        // The woken getter is guaranteed an item, but not a particular one.
        assert_eq!(queue.try_get().unwrap(), "the first");
        assert_eq!(first.join().unwrap(), "the second");
        putter.join().unwrap();
    });
}

#[test]
fn a_try_put_does_not_overtake_a_waiting_put() {
    run("a_try_put_does_not_overtake_a_waiting_put", || {
        let queue = bounded(0);
        let left = Rc::new(RefCell::new(Vec::new()));
        let getters: Vec<_> = (0..2)
            .map(|_| {
                let (queue, left) = (queue.clone(), left.clone());
                spawn(move || {
                    let item = queue.get().unwrap();
                    left.borrow_mut().push(item);
                })
            })
            .collect();
        yield_now();
        let putting = queue.clone();
        // Puts from another OS thread, so that the getters do not run in between.
        let putter = std::thread::spawn(move || putting.put("waits").unwrap());
        while queue.putting() == 0 {
            std::thread::yield_now();
        }
        queue.try_put("never waits").unwrap();
        // The two getters may run in either order.
        getters.into_iter().for_each(|green| green.join().unwrap());
        assert_eq!(*left.borrow(), ["waits", "never waits"]);
        putter.join().unwrap();
    });
}

#[test]
fn getters_and_putters_are_served_in_order_of_arrival() {
    run("getters_and_putters_are_served_in_order_of_arrival", || {
        for capacity in 0..3 {
            let queue = bounded(capacity);
            let getters: Vec<_> = (0..10).map(|_| getter(&queue)).collect();
            (0..10).for_each(|item| queue.put(item).unwrap());
            let got: Vec<_> = getters.into_iter().map(|green| green.join().unwrap()).collect();
            assert_eq!(got, (0..10).collect::<Vec<_>>());
            let putters: Vec<_> = (0..10).map(|item| putter(&queue, item)).collect();
            let got: Vec<_> = (0..10).map(|_| queue.get().unwrap()).collect();
            assert_eq!(got, (0..10).collect::<Vec<_>>());
            putters.into_iter().for_each(|green| green.join().unwrap());
        }
    });
}

#[test]
fn waiting_getters_and_putters_are_counted() {
    run("waiting_getters_and_putters_are_counted", || {
        let queue = bounded(0);
        let getters: Vec<_> = (0..3).map(|_| getter(&queue)).collect();
        assert_eq!((queue.getting(), queue.putting()), (3, 0));
        (0..3).for_each(|item| queue.put(item).unwrap());
        getters.into_iter().for_each(|green| _ = green.join().unwrap());
        assert_eq!((queue.getting(), queue.putting()), (0, 0));
        let putters: Vec<_> = (0..3).map(|item| putter(&queue, item)).collect();
        assert_eq!((queue.getting(), queue.putting()), (0, 3));
        (0..3).for_each(|_| _ = queue.get().unwrap());
        assert_eq!((queue.getting(), queue.putting()), (0, 0));
        putters.into_iter().for_each(|green| green.join().unwrap());
    });
}

#[test]
fn growing_lets_waiting_putters_in() {
    run("growing_lets_waiting_putters_in", || {
        for size in [Some(4), None] {
            let queue = bounded(1);
            queue.put(0).unwrap();
            let putters: Vec<_> = (1..4).map(|item| putter(&queue, item)).collect();
            assert_eq!((queue.len(), queue.putting()), (1, 3));
            queue.resize(size);
            assert_eq!((queue.len(), queue.putting(), queue.capacity()), (4, 0, size));
            putters.into_iter().for_each(|green| green.join().unwrap());
            assert_eq!(drain(&queue), [0, 1, 2, 3]);
        }
    });
}

#[test]
fn shrinking_keeps_the_items() {
    let queue = bounded(5);
    (0..5).for_each(|item| queue.try_put(item).unwrap());
    queue.resize(2);
    assert_eq!((queue.len(), queue.is_full()), (5, true));
    assert_eq!(drain(&queue), [0, 1, 2, 3, 4]);
}

#[test]
fn join_waits_until_every_item_is_done() {
    run("join_waits_until_every_item_is_done", || {
        let queue = bounded(10);
        queue.join().unwrap();
        (0..3).for_each(|item| queue.put(item).unwrap());
        let joining = queue.clone();
        let joined = spawn(move || joining.join().unwrap());
        for _ in 0..3 {
            queue.get().unwrap();
            settle();
            assert!(!joined.is_finished());
            queue.task_done().unwrap();
        }
        joined.join().unwrap();
        assert_eq!(queue.unfinished(), 0);
    });
}

#[test]
fn reporting_more_done_than_was_put_is_an_error() {
    let queue = bounded(1);
    assert!(matches!(queue.task_done(), Err(TooManyTasksDone { .. })));
    queue.try_put(1).unwrap();
    queue.task_done().unwrap();
    assert!(matches!(queue.task_done(), Err(TooManyTasksDone { .. })));
}

#[test]
fn a_put_after_a_finished_join_is_unfinished_again() {
    run("a_put_after_a_finished_join_is_unfinished_again", || {
        let queue = bounded(1);
        queue.put(1).unwrap();
        queue.task_done().unwrap();
        queue.join().unwrap();
        assert_eq!(queue.get().unwrap(), 1);
        queue.put(2).unwrap();
        let joining = queue.clone();
        let joined = spawn(move || joining.join().unwrap());
        settle();
        assert!(!joined.is_finished());
        queue.task_done().unwrap();
        joined.join().unwrap();
    });
}

#[test]
fn an_item_for_a_waiting_getter_goes_through_the_order() {
    run("an_item_for_a_waiting_getter_goes_through_the_order", || {
        let queue = Arc::new(PriorityQueue::new());
        let getting = queue.clone();
        let green = spawn(move || getting.get().unwrap());
        yield_now();
        (1..=3).rev().for_each(|item| queue.put(item).unwrap());
        assert_eq!(green.join().unwrap(), 1);
        let queue = Arc::new(LifoQueue::new());
        let getting = queue.clone();
        let green = spawn(move || getting.get().unwrap());
        yield_now();
        (1..=3).for_each(|item| queue.put(item).unwrap());
        assert_eq!(green.join().unwrap(), 3);
    });
}

#[test]
fn stacks_and_priorities_keep_their_order() {
    let (lifo, smallest) = (LifoQueue::new(), PriorityQueue::new());
    for item in [3, 1, 2] {
        lifo.try_put(item).unwrap();
        smallest.try_put(item).unwrap();
    }
    let three = |get: &dyn Fn() -> i32| [get(), get(), get()];
    assert_eq!(three(&|| lifo.try_get().unwrap()), [2, 1, 3]);
    assert_eq!(three(&|| smallest.try_get().unwrap()), [1, 2, 3]);
}

thread_local! {
    /// Called by each comparison of [`Compared`] on this OS thread.
    static WHILE_COMPARING: Cell<fn()> = const { Cell::new(|| ()) };
}

#[derive(PartialEq, Eq, Debug)]
struct Compared(u32);

impl PartialOrd for Compared {
    fn partial_cmp(&self, other: &Compared) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Compared {
    fn cmp(&self, other: &Compared) -> std::cmp::Ordering {
        WHILE_COMPARING.get()();
        self.0.cmp(&other.0)
    }
}

/// Returns whether an operation panics when every comparison calls `misdeed`.
fn panics_by(misdeed: fn(), operation: impl FnOnce()) -> bool {
    WHILE_COMPARING.set(misdeed);
    let result = catch_unwind(AssertUnwindSafe(operation));
    WHILE_COMPARING.set(|| ());
    result.is_err()
}

/// Puts and gets while every comparison calls `misdeed`.
#[track_caller]
fn survives(queue: &PriorityQueue<Compared>, misdeed: fn()) {
    queue.put(Compared(2)).unwrap();
    queue.put(Compared(3)).unwrap();
    assert!(panics_by(misdeed, || queue.put(Compared(1)).unwrap()), "a put");
    assert!(panics_by(misdeed, || queue.try_put(Compared(0)).unwrap()), "an attempt to put");
    assert!(panics_by(misdeed, || drop(queue.get())), "a get");
    assert!(panics_by(misdeed, || drop(queue.try_get())), "an attempt to get");
    assert_eq!((queue.len(), queue.unfinished()), (4, 4));
    let mut left: Vec<u32> = (0..4).map(|_| queue.try_get().unwrap().0).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 1, 2, 3]);
    (0..4).for_each(|_| queue.task_done().unwrap());
    queue.join().unwrap();
}

#[test]
fn a_comparison_that_panics_or_waits_loses_no_item() {
    run("a_comparison_that_panics_or_waits_loses_no_item", || {
        let ran = Rc::new(Cell::new(0));
        let misdeeds: [fn(); 3] = [|| quiet_panic("compared"), yield_now, || sleep(SHORT)];
        for misdeed in misdeeds {
            let queue = Arc::new(PriorityQueue::new());
            let (other, count) = (queue.clone(), ran.clone());
            // Finds the lock held if it runs during a comparison.
            let green = spawn(move || count.set(count.get() + other.len()));
            survives(&queue, misdeed);
            assert_eq!(ran.get(), 0, "another green thread ran");
            green.join().unwrap();
        }
    });
}

#[test]
fn a_comparison_that_uses_the_queue_panics_and_does_not_hang() {
    static BIASED: LazyLock<PriorityQueue<Compared>> = LazyLock::new(PriorityQueue::new);
    static SHARED: LazyLock<PriorityQueue<Compared>> = LazyLock::new(PriorityQueue::new);
    run("a_comparison_that_uses_the_queue_panics_and_does_not_hang", || {
        survives(&BIASED, || assert!(BIASED.len() > 9));
        survives(&BIASED, || drop(BIASED.put_timeout(Compared(9), ZERO)));
        // The use by a second OS thread ends the lock's bias towards one OS thread.
        assert!(SHARED.is_empty() && std::thread::spawn(|| SHARED.is_empty()).join().unwrap());
        survives(&SHARED, || assert!(SHARED.len() > 9));
        survives(&SHARED, || drop(SHARED.get()));
    });
}

#[test]
fn a_getter_is_woken_for_an_item_whose_comparison_panics() {
    run("a_getter_is_woken_for_an_item_whose_comparison_panics", || {
        let queue = Arc::new(PriorityQueue::<Compared>::new());
        let getters = [(); 2].map(|()| queue.clone()).map(|queue| spawn(move || queue.get().unwrap().0));
        yield_now();
        queue.put(Compared(2)).unwrap();
        assert!(panics_by(|| quiet_panic("compared"), || queue.put(Compared(1)).unwrap()));
        settle();
        assert!(getters.iter().all(GreenThread::is_finished));
        assert_eq!(getters.into_iter().map(|getter| getter.join().unwrap()).sum::<u32>(), 3);
    });
}

#[test]
fn a_comparison_that_panics_in_a_get_keeps_the_item_of_a_putter() {
    run("a_comparison_that_panics_in_a_get_keeps_the_item_of_a_putter", || {
        let queue = Arc::new(PriorityQueue::bounded(2));
        (2..4).for_each(|n| queue.put(Compared(n)).unwrap());
        let other = queue.clone();
        let putter = spawn(move || other.put(Compared(1)).is_ok());
        yield_now();
        // The item leaves without a comparison; only then does the putter's item enter.
        assert!(!panics_by(|| quiet_panic("compared"), || assert_eq!(queue.get().unwrap(), Compared(2))));
        assert_eq!(queue.len(), 2);
        // The panic belongs to the putter's own call.
        assert!(putter.join().is_err());
        let left = [queue.get().unwrap(), queue.get().unwrap()];
        assert!(left.contains(&Compared(1)) && left.contains(&Compared(3)));
    });
}

#[test]
fn an_interrupt_by_a_getter_reaches_main() {
    run("an_interrupt_by_a_getter_reaches_main", || {
        let (first, second) = (bounded(1), bounded::<i32>(1));
        let getting = first.clone();
        spawn(move || {
            getting.get().unwrap();
            get_hub().interrupt();
        });
        yield_now();
        first.put(1).unwrap();
        assert!(matches!(second.get(), Err(GetError::Loop(error)) if error.kind() == LoopErrorKind::Interrupted));
        assert_eq!(second.getting(), 0);
    });
}

#[test]
fn debug_output_shows_size_items_and_waiters() {
    run("debug_output_shows_size_items_and_waiters", || {
        let queue = bounded(2);
        (0..2).for_each(|item| queue.put(item).unwrap());
        let green = putter(&queue, 3);
        let text = format!("{queue:?}");
        assert_eq!(text, "Queue { capacity: Some(2), items: 2, getting: 0, putting: 1, closed: false, unfinished: 2 }");
        queue.get().unwrap();
        green.join().unwrap();
        let light = LightQueue::<()>::new();
        assert_eq!(
            format!("{light:?}"),
            "LightQueue { capacity: None, items: 0, getting: 0, putting: 0, closed: false }"
        );
    });
}

#[test]
fn a_channel_gives_values_and_errors_in_order() {
    run("a_channel_gives_values_and_errors_in_order", || {
        let channel = Channel::bounded(3);
        channel.send(1).unwrap();
        channel.send_error(GreenError::custom("two")).unwrap();
        channel.send(3).unwrap();
        assert_eq!(channel.wait().unwrap(), 1);
        assert_eq!(channel.wait().unwrap_err().to_string(), "two");
        assert_eq!(in_time(channel.wait_timeout(SHORT)), Some(3));
        assert_eq!(in_time(channel.wait_timeout(SHORT)), None);
    });
}

#[test]
fn an_interrupted_sender_takes_its_value_back_and_receivers_are_counted() {
    run("an_interrupted_sender_takes_its_value_back_and_receivers_are_counted", || {
        let channel = Arc::new(Channel::new());
        assert!(with_timeout(SHORT, || channel.send(1)).is_err());
        assert_eq!((channel.sending(), channel.waiting()), (0, 0));
        let waiting = channel.clone();
        let green = spawn(move || waiting.wait().unwrap());
        yield_now();
        assert_eq!((channel.sending(), channel.waiting()), (0, 1));
        channel.send(2).unwrap();
        assert_eq!(green.join().unwrap(), 2);
    });
}

/// The outcome of the items of a random program. An item whose putter was unwound may or may not have arrived.
#[derive(Default, Debug)]
struct Fate {
    put: BTreeSet<usize>,
    refused: BTreeSet<usize>,
    got: Vec<usize>,
}

/// Puts eight increasing items through every form of `put`.
fn put_some(queue: &LightQueue<usize>, number: usize, random: &mut Rng, fate: &RefCell<Fate>) {
    for item in (0..8).map(|item| number * 100 + item) {
        let done = match random.usize(..4) {
            0 => Ok(queue.put(item)),
            1 => Ok(queue.put_timeout(item, random.moment())),
            2 => Ok(queue.try_put(item)),
            _ => with_timeout(random.moment(), || queue.put(item)),
        };
        match done {
            Ok(Ok(())) => _ = fate.borrow_mut().put.insert(item),
            Ok(Err(PutError::Full(back) | PutError::TimedOut(back))) => _ = fate.borrow_mut().refused.insert(back),
            Ok(Err(error)) => panic!("{error:?}"),
            Err(_) => {}
        }
    }
}

/// Gets up to eight items through every form of `get`.
fn get_some(queue: &LightQueue<usize>, random: &mut Rng, fate: &RefCell<Fate>) {
    for _ in 0..8 {
        let got = match random.usize(..4) {
            0 => Ok(queue.get()),
            1 => Ok(queue.get_timeout(random.moment())),
            2 => Ok(queue.try_get()),
            _ => with_timeout(random.moment(), || queue.get()),
        };
        if let Ok(Ok(item)) = got {
            fate.borrow_mut().got.push(item);
        }
        if random.usize(..4) == 0 {
            yield_now();
        }
    }
}

#[test]
fn random_puts_gets_kills_and_timeouts_lose_and_duplicate_no_item() {
    run("random_puts_gets_kills_and_timeouts_lose_and_duplicate_no_item", || {
        let mut arrived = 0;
        for seed in 0..120 {
            let mut random = Rng::with_seed(seed);
            let (queue, before) = (Arc::new(LightQueue::bounded(random.usize(..4))), held());
            let fate = Rc::new(RefCell::new(Fate::default()));
            let mut greens = Vec::new();
            for number in 0..12 {
                let (queue, fate, mut random) = (queue.clone(), fate.clone(), random.fork());
                greens.push(spawn(move || match number % 2 {
                    0 => put_some(&queue, number, &mut random, &fate),
                    _ => get_some(&queue, &mut random, &fate),
                }));
            }
            for _ in 0..6 {
                sleep(random.moment());
                greens[random.usize(..12)].kill();
            }
            // Gives waiters whose counterpart was killed time to proceed.
            sleep(Duration::from_millis(1));
            let nothing_there = queue.len() + queue.putting() == 0;
            assert!(
                queue.getting() == 0 || nothing_there,
                "seed {seed}: a getter waits although there is an item: {queue:?}"
            );
            for green in greens {
                green.kill();
                if let Err(error) = green.join() {
                    assert!(error.is_kill(), "{error}");
                }
            }
            assert_eq!((queue.getting(), queue.putting()), (0, 0), "seed {seed}");
            let mut fate = fate.take();
            fate.got.extend(drain(&queue));
            assert_eq!(queue.len(), 0);
            let got: BTreeSet<_> = fate.got.iter().copied().collect();
            assert_eq!(got.len(), fate.got.len(), "seed {seed}: an item came twice: {fate:?}");
            assert!(got.is_superset(&fate.put), "seed {seed}: an item was lost: {fate:?}");
            assert!(got.is_disjoint(&fate.refused), "seed {seed}: a refused item came: {fate:?}");
            for number in 0..12 {
                let of_one = fate.got.iter().filter(|item| **item / 100 == number);
                assert!(of_one.is_sorted(), "seed {seed}: out of order: {fate:?}");
            }
            assert_eq!(held(), before, "seed {seed}");
            arrived += got.len();
        }
        assert!(arrived > 1000, "{arrived}");
    });
}

/// Sends eight increasing values and errors through every form of `send`.
fn send_some(channel: &Channel<usize>, number: usize, random: &mut Rng, fate: &RefCell<Fate>) {
    for item in (0..8).map(|item| number * 100 + item) {
        let send = || match item % 3 {
            0 => channel.send_error(GreenError::custom(item.to_string())),
            _ => channel.send(item),
        };
        match random.usize(..2) {
            0 => send().unwrap(),
            _ => match with_timeout(random.moment(), send) {
                Ok(sent) => sent.unwrap(),
                Err(_) => continue,
            },
        }
        fate.borrow_mut().put.insert(item);
    }
}

/// Receives up to eight values or errors through every form of `wait`.
fn receive_some(channel: &Channel<usize>, random: &mut Rng, fate: &RefCell<Fate>) {
    for _ in 0..8 {
        let received = match random.usize(..3) {
            0 => channel.wait().map(Some),
            1 => match channel.wait_timeout(random.moment()) {
                Err(GreenError::TimedOut) => Ok(None),
                received => received.map(Some),
            },
            _ => with_timeout(random.moment(), || channel.wait().map(Some)).unwrap_or(Ok(None)),
        };
        let item = match received {
            Ok(value) => value.inspect(|value| assert_ne!(value % 3, 0)),
            Err(error) => {
                let item = error.to_string().parse().expect("the error is an item");
                assert_eq!(item % 3, 0);
                Some(item)
            }
        };
        fate.borrow_mut().got.extend(item);
    }
}

#[test]
fn random_channel_ends_under_kills_and_timeouts_lose_and_duplicate_no_item() {
    run("random_channel_ends_under_kills_and_timeouts_lose_and_duplicate_no_item", || {
        let mut arrived = 0;
        for seed in 0..80 {
            let mut random = Rng::with_seed(seed);
            let (channel, before) = (Rc::new(Channel::bounded(random.usize(..3))), held());
            let fate = Rc::new(RefCell::new(Fate::default()));
            let greens: Vec<_> = (0..12)
                .map(|number| {
                    let (channel, fate, mut random) = (channel.clone(), fate.clone(), random.fork());
                    spawn(move || match number % 2 {
                        0 => send_some(&channel, number, &mut random, &fate),
                        _ => receive_some(&channel, &mut random, &fate),
                    })
                })
                .collect();
            for _ in 0..6 {
                sleep(random.moment());
                greens[random.usize(..12)].kill();
            }
            sleep(Duration::from_millis(1));
            assert!(channel.waiting() == 0 || channel.sending() == 0, "seed {seed}: both wait: {channel:?}");
            for green in greens {
                green.kill();
                if let Err(error) = green.join() {
                    assert!(error.is_kill(), "seed {seed}: {error}");
                }
            }
            assert_eq!((channel.waiting(), channel.sending()), (0, 0), "seed {seed}");
            // The remaining items are in the buffer.
            let mut fate = fate.take();
            loop {
                match channel.wait_timeout(ZERO) {
                    Err(GreenError::TimedOut) => break,
                    Ok(item) => fate.got.push(item),
                    Err(error) => fate.got.push(error.to_string().parse().expect("the error is an item")),
                }
            }
            let got: BTreeSet<_> = fate.got.iter().copied().collect();
            assert_eq!(got.len(), fate.got.len(), "seed {seed}: an item came twice: {fate:?}");
            assert!(got.is_superset(&fate.put), "seed {seed}: an item was lost: {fate:?}");
            for number in 0..12 {
                let of_one = fate.got.iter().filter(|item| **item / 100 == number);
                assert!(of_one.is_sorted(), "seed {seed}: out of order: {fate:?}");
            }
            assert_eq!(held(), before, "seed {seed}");
            arrived += got.len();
        }
        assert!(arrived > 700, "{arrived}");
    });
}

#[test]
fn items_cross_hubs_and_plain_threads_and_none_is_lost() {
    const EACH: usize = 300;
    for capacity in [0, 1, 10] {
        let queue = Arc::new(Queue::<usize>::bounded(capacity));
        let (got, left) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicUsize::new(6 * EACH)));
        let name = "items_cross_hubs_and_plain_threads_and_none_is_lost";
        let (shared, all) = (queue.clone(), got.clone());
        run(name, move || {
            let mut threads = Vec::new();
            for thread in 0..3 {
                let (queue, got, left) = (shared.clone(), all.clone(), left.clone());
                threads.push(std::thread::spawn(move || {
                    let (puts, gets) = (queue.clone(), queue);
                    let put = move |number: usize| {
                        for item in (0..EACH).map(|item| number * EACH + item) {
                            let mut item = Some(item);
                            while let Some(again) = item.take() {
                                match puts.put_timeout(again, Duration::from_micros(300)) {
                                    Ok(()) => {}
                                    Err(PutError::TimedOut(back)) => item = Some(back),
                                    Err(error) => panic!("{error}"),
                                }
                            }
                        }
                    };
                    let get = move || {
                        while left.load(Ordering::SeqCst) > 0 {
                            if let Ok(item) = gets.get_timeout(Duration::from_micros(300)) {
                                assert!(got.lock().unwrap().insert(item), "{item} came twice");
                                left.fetch_sub(1, Ordering::SeqCst);
                                gets.task_done().unwrap();
                            }
                        }
                    };
                    if thread == 0 {
                        // An OS thread without green threads.
                        let other = std::thread::spawn(get);
                        put(0);
                        put(1);
                        assert!(!greenhub::hub::has_hub());
                        return other.join().unwrap();
                    }
                    let one = put.clone();
                    let greens = [spawn(move || one(2 * thread)), spawn(move || put(2 * thread + 1)), spawn(get)];
                    greens.into_iter().for_each(|green| green.join().unwrap());
                }));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(got.lock().unwrap().len(), 6 * EACH);
        assert!(queue.is_empty());
        queue.join().unwrap();
    }
}
