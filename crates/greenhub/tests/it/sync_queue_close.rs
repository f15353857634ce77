//! Closed queues: what is left is delivered or returned, and every waiter ends with its item or without one.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::support::green::{SHORT, held, quiet_panic};
use crate::support::run;
use greenhub::hub::LoopErrorKind;
use greenhub::sync::{GetError, LifoQueue, LightQueue, PriorityQueue, PutError, Queue};
use greenhub::thread::yield_now;
use greenhub::{GreenThread, get_hub, sleep, spawn};

fn bounded<T>(capacity: usize) -> Arc<Queue<T>> {
    Arc::new(Queue::bounded(capacity))
}

/// Lets every ready green thread run until it waits.
fn settle() {
    (0..5).for_each(|_| yield_now());
}

fn getter<T: 'static>(queue: &Arc<Queue<T>>) -> GreenThread<Result<T, GetError>> {
    let queue = queue.clone();
    let green = spawn(move || queue.get());
    yield_now();
    green
}

fn putter<T: 'static>(queue: &Arc<Queue<T>>, item: T) -> GreenThread<Result<(), PutError<T>>> {
    let queue = queue.clone();
    let green = spawn(move || queue.put(item));
    yield_now();
    green
}

#[test]
fn a_closed_queue_delivers_its_items_and_then_ends_the_getters() {
    run("a_closed_queue_delivers_its_items_and_then_ends_the_getters", || {
        let queue = bounded(3);
        (0..3).for_each(|item| queue.put(item).unwrap());
        assert!(!queue.is_closed());
        queue.close();
        assert!(queue.is_closed());
        assert_eq!((queue.get().unwrap(), queue.try_get().unwrap()), (0, 1));
        assert_eq!(queue.get_timeout(SHORT).unwrap(), 2);
        assert!(matches!(queue.get(), Err(GetError::Closed)));
        assert!(matches!(queue.try_get(), Err(GetError::Closed)));
        assert!(matches!(queue.get_timeout(SHORT), Err(GetError::Closed)));
        queue.close();
        assert!(matches!(queue.get(), Err(GetError::Closed)));
    });
}

#[test]
fn a_closed_queue_refuses_every_put_and_returns_the_item() {
    run("a_closed_queue_refuses_every_put_and_returns_the_item", || {
        for capacity in 0..3 {
            let queue = bounded(capacity);
            queue.close();
            assert!(matches!(queue.put(1), Err(PutError::Closed(1))));
            assert!(matches!(queue.try_put(2), Err(PutError::Closed(2))));
            assert!(matches!(queue.put_timeout(3, SHORT), Err(PutError::Closed(3))));
            assert_eq!((queue.len(), queue.unfinished()), (0, 0));
        }
    });
}

#[test]
fn close_ends_all_waiting_getters() {
    run("close_ends_all_waiting_getters", || {
        for capacity in 0..3 {
            let (queue, before) = (bounded::<u8>(capacity), held());
            let getters: Vec<_> = (0..3).map(|_| getter(&queue)).collect();
            queue.close();
            for green in getters {
                assert!(matches!(green.join().unwrap(), Err(GetError::Closed)));
            }
            assert_eq!(queue.getting(), 0);
            assert_eq!(held(), before);
        }
    });
}

#[test]
fn close_returns_the_items_of_waiting_putters_to_them() {
    run("close_returns_the_items_of_waiting_putters_to_them", || {
        for capacity in 0..3 {
            let queue = bounded(capacity);
            (0..capacity).for_each(|item| queue.put(item).unwrap());
            let putters: Vec<_> = (10..13).map(|item| putter(&queue, item)).collect();
            queue.close();
            assert_eq!(queue.putting(), 0);
            for (item, green) in (10..13).zip(putters) {
                assert!(matches!(green.join().unwrap(), Err(PutError::Closed(back)) if back == item));
            }
            assert_eq!((queue.len(), queue.unfinished()), (capacity, capacity));
            (0..capacity).for_each(|item| assert_eq!(queue.get().unwrap(), item));
            assert!(matches!(queue.get(), Err(GetError::Closed)));
        }
    });
}

#[test]
fn a_put_that_has_met_a_getter_is_completed_by_close() {
    run("a_put_that_has_met_a_getter_is_completed_by_close", || {
        let queue = bounded(0);
        let (first, second) = (getter(&queue), getter(&queue));
        let (putting, closing) = (queue.clone(), queue.clone());
        // The putter grants the first getter, which has not run when the queue is closed.
        let put = spawn(move || putting.put("met"));
        spawn(move || closing.close());
        assert!(put.join().unwrap().is_ok());
        assert_eq!(first.join().unwrap().unwrap(), "met");
        assert!(matches!(second.join().unwrap(), Err(GetError::Closed)));
    });
}

#[test]
fn a_getter_that_was_granted_an_item_gets_it_after_close() {
    run("a_getter_that_was_granted_an_item_gets_it_after_close", || {
        let queue = bounded(1);
        let (granted, other) = (getter(&queue), getter(&queue));
        queue.try_put(1).unwrap();
        queue.close();
        // The item belongs to the granted getter.
        assert!(matches!(queue.try_get(), Err(GetError::Closed)));
        granted.kill();
        assert_eq!(granted.join().unwrap().unwrap(), 1);
        assert!(matches!(other.join().unwrap(), Err(GetError::Closed)));
    });
}

#[test]
fn a_kill_after_close_does_not_undo_the_end_of_a_wait() {
    run("a_kill_after_close_does_not_undo_the_end_of_a_wait", || {
        let queue = bounded::<u8>(0);
        let green = getter(&queue);
        queue.close();
        green.kill();
        assert!(matches!(green.join().unwrap(), Err(GetError::Closed)));
        let queue = bounded(0);
        let green = putter(&queue, 7);
        queue.close();
        green.kill();
        assert!(matches!(green.join().unwrap(), Err(PutError::Closed(7))));
    });
}

#[test]
fn a_limit_that_passes_after_close_does_not_undo_the_end_of_a_wait() {
    run("a_limit_that_passes_after_close_does_not_undo_the_end_of_a_wait", || {
        let (empty, full) = (bounded::<u8>(0), bounded(0));
        let (getting, putting) = (empty.clone(), full.clone());
        let get = spawn(move || getting.get_timeout(SHORT));
        let put = spawn(move || putting.put_timeout(7, SHORT));
        yield_now();
        empty.close();
        full.close();
        std::thread::sleep(SHORT * 2);
        assert!(matches!(get.join().unwrap(), Err(GetError::Closed)));
        assert!(matches!(put.join().unwrap(), Err(PutError::Closed(7))));
    });
}

#[test]
fn a_put_of_main_that_an_interrupt_ends_after_close_returns_its_item() {
    run("a_put_of_main_that_an_interrupt_ends_after_close_returns_its_item", || {
        let queue = bounded(0);
        let closing = queue.clone();
        spawn(move || {
            // The wake-up of another OS thread still lies in the mailbox when the interrupt comes.
            std::thread::spawn(move || closing.close()).join().unwrap();
            get_hub().interrupt();
        });
        match queue.put(7) {
            Err(PutError::Loop { error, item: Some(7) }) => assert_eq!(error.kind(), LoopErrorKind::Interrupted),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn close_now_returns_the_items_in_order_and_ends_the_join() {
    run("close_now_returns_the_items_in_order_and_ends_the_join", || {
        let queue = bounded(3);
        (0..3).for_each(|item| queue.put(item).unwrap());
        let put = putter(&queue, 3);
        let joining = queue.clone();
        let joined = spawn(move || joining.join().unwrap());
        // The worker of the first item does not report it done.
        assert_eq!(queue.get().unwrap(), 0);
        assert!(put.join().unwrap().is_ok());
        let late = putter(&queue, 4);
        assert_eq!(queue.close_now(), [1, 2, 3]);
        assert!(matches!(late.join().unwrap(), Err(PutError::Closed(4))));
        settle();
        assert!(!joined.is_finished(), "an item is in work");
        queue.task_done().unwrap();
        joined.join().unwrap();
        assert!(queue.task_done().is_err());
        assert!(matches!(queue.get(), Err(GetError::Closed)));
        assert!(queue.close_now().is_empty());
    });
}

#[test]
fn close_now_takes_the_item_of_a_granted_getter_that_has_not_run() {
    run("close_now_takes_the_item_of_a_granted_getter_that_has_not_run", || {
        let queue = bounded(1);
        let (granted, waiting) = (getter(&queue), getter(&queue));
        queue.try_put("left").unwrap();
        assert_eq!(queue.close_now(), ["left"]);
        for green in [granted, waiting] {
            assert!(matches!(green.join().unwrap(), Err(GetError::Closed)));
        }
        queue.join().unwrap();
    });
}

#[test]
fn close_now_keeps_the_order_of_stacks_and_priorities() {
    let (lifo, smallest) = (LifoQueue::new(), PriorityQueue::new());
    for item in [3, 1, 2] {
        lifo.try_put(item).unwrap();
        smallest.try_put(item).unwrap();
    }
    assert_eq!(lifo.close_now(), [2, 1, 3]);
    assert_eq!(smallest.close_now(), [1, 2, 3]);
}

#[test]
fn items_that_close_now_drops_may_use_the_queue() {
    struct Item(Arc<LightQueue<Item>>);
    impl Drop for Item {
        fn drop(&mut self) {
            assert!(self.0.is_closed() && self.0.is_empty());
        }
    }
    let queue = Arc::new(LightQueue::new());
    (0..3).for_each(|_| assert!(queue.try_put(Item(queue.clone())).is_ok()));
    assert_eq!(queue.close_now().len(), 3);
    assert!(matches!(queue.try_put(Item(queue.clone())), Err(PutError::Closed(_))));
}

#[test]
fn a_comparison_that_panics_in_close_now_leaves_the_queue_closed() {
    #[derive(PartialEq, Eq)]
    struct Panics;
    impl PartialOrd for Panics {
        fn partial_cmp(&self, other: &Panics) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Panics {
        fn cmp(&self, _: &Panics) -> std::cmp::Ordering {
            quiet_panic("compared")
        }
    }
    run("a_comparison_that_panics_in_close_now_leaves_the_queue_closed", || {
        let queue = Rc::new(PriorityQueue::new());
        for _ in 0..4 {
            let put = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.try_put(Panics)));
            assert!(put.is_err() || queue.len() == 1);
        }
        let closed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.close_now()));
        assert!(closed.is_err());
        assert!(queue.is_closed() && queue.is_empty());
        queue.join().unwrap();
        assert!(matches!(queue.get(), Err(GetError::Closed)));
    });
}

#[test]
fn close_on_the_main_loop_ends_the_waiters() {
    run("close_on_the_main_loop_ends_the_waiters", || {
        let queue = bounded::<u8>(0);
        let closing = queue.clone();
        let _timer = get_hub().schedule(Duration::ZERO, move || closing.close());
        assert!(matches!(queue.get(), Err(GetError::Closed)));
    });
}

#[test]
fn close_ends_the_waits_of_other_hubs_and_of_plain_os_threads() {
    run("close_ends_the_waits_of_other_hubs_and_of_plain_os_threads", || {
        let (empty, full) = (bounded::<u8>(1), bounded(0));
        let (own_empty, own_full) = (empty.clone(), full.clone());
        let plain = std::thread::spawn(move || matches!(own_empty.get(), Err(GetError::Closed)));
        let green = std::thread::spawn(move || {
            spawn(move || matches!(own_full.put(1), Err(PutError::Closed(1)))).join().unwrap()
        });
        while empty.getting() + full.putting() < 2 {
            sleep(Duration::from_micros(100));
        }
        empty.close();
        full.close();
        assert!(plain.join().unwrap() && green.join().unwrap());
    });
}

#[test]
fn the_errors_of_a_closed_queue_convert_to_io_errors() {
    let queue = Queue::<u8>::new();
    queue.close();
    let (put, get) = (queue.try_put(1).unwrap_err(), queue.try_get().unwrap_err());
    assert_eq!(
        (put.to_string(), get.to_string()),
        ("the queue is closed".into(), "the queue is closed and empty".into())
    );
    assert_eq!(io::Error::from(put).kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(io::Error::from(get).kind(), io::ErrorKind::UnexpectedEof);
}
