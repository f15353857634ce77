//! `select::Select`: waits for channels, events, green threads, descriptors and times together.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::green::{LONG, SHORT, held};
use crate::support::hubs::use_manual_clock;
use crate::support::random::{Moment, Rng};
use crate::support::run;
use greenhub::net::{TcpListener, TcpStream};
use greenhub::select::Select;
use greenhub::sync::{
    CancellationToken, CappedSemaphore, Channel, Event, Notify, Queue, Semaphore, broadcast, mpsc, oneshot, watch,
};
use greenhub::thread::yield_now;
use greenhub::{get_hub, scope, sleep, spawn, with_timeout};

/// Lets every ready green thread run until it waits.
fn settle() {
    (0..8).for_each(|_| yield_now());
}

/// Waits for `objects` and two silent pipes, and asserts that the object of this number is reported after `act`.
#[track_caller]
fn reports(select: &mut Select<'_>, number: usize, act: impl FnOnce() + 'static) {
    assert_eq!(select.try_ready().unwrap(), None);
    let green = spawn(act);
    assert_eq!(select.ready().unwrap(), number);
    assert_eq!(select.try_ready().unwrap(), Some(number));
    green.join().unwrap();
}

#[test]
fn the_channels_from_tokio_are_reported_when_they_become_ready() {
    run("the_channels_from_tokio_are_reported_when_they_become_ready", || {
        let before = held();
        let (one, value) = oneshot::channel();
        let (unheard, end) = oneshot::channel::<u8>();
        let (configure, mut configuration) = watch::channel(0);
        let (tell, mut told) = broadcast::channel(1);
        let (notify, token) = (Arc::new(Notify::new()), CancellationToken::new());
        {
            let mut select = Select::new();
            let numbers = [
                select.wait(&value),
                select.wait(&unheard),
                select.wait(&configuration),
                select.wait(&told),
                select.wait(&*notify),
                select.wait(&token),
            ];
            assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
            reports(&mut select, 0, move || one.send(1).unwrap());
            assert_eq!(value.try_recv(), Ok(1));
            select.remove(0);
            reports(&mut select, 1, move || drop(end));
            select.remove(1);
            reports(&mut select, 2, move || configure.send(2).unwrap());
            select.remove(2);
            reports(&mut select, 3, move || assert_eq!(tell.send(3).unwrap(), 1));
            select.remove(3);
            let own = notify.clone();
            reports(&mut select, 4, move || own.notify_one());
            assert!(notify.try_wait());
            let own = token.clone();
            reports(&mut select, 5, move || own.cancel());
        }
        assert_eq!(*configuration.borrow_and_update(), 2);
        assert_eq!(told.try_recv(), Ok(3));
        assert_eq!(held(), before);
    });
}

#[test]
fn each_kind_of_object_is_reported_when_it_becomes_ready() {
    run("each_kind_of_object_is_reported_when_it_becomes_ready", || {
        let before = held();
        let (sender, receiver) = mpsc::channel();
        let (rendezvous, meeting) = mpsc::sync_channel(0);
        let (queue, channel) = (Arc::new(Queue::bounded(0)), Arc::new(Channel::new()));
        let (event, semaphore) = (Arc::new(Event::new()), Arc::new(Semaphore::new(0)));
        let capped = Arc::new(CappedSemaphore::new(0, 1).unwrap());
        let (input, mut output) = greenhub::io::pipe().unwrap();
        let ending = Rc::new(spawn(|| sleep(LONG)));
        let mut select = Select::new();
        let numbers = [
            select.wait(&receiver),
            select.wait(&meeting),
            select.wait(&*queue),
            select.wait(&*channel),
            select.wait(&*event),
            select.wait(&*semaphore),
            select.wait(&*capped),
            select.wait(&ending),
            select.readable(&input),
        ];
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        reports(&mut select, 0, move || sender.send(1).unwrap());
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(select.ready().unwrap(), 0, "all senders are gone");
        select.remove(0);
        let meet = spawn(move || rendezvous.send(2).unwrap());
        assert_eq!(select.ready().unwrap(), 1);
        assert_eq!(meeting.try_recv(), Ok(2));
        meet.join().unwrap();
        select.remove(1);
        let own = queue.clone();
        let put = spawn(move || own.put(3).unwrap());
        assert_eq!(select.ready().unwrap(), 2);
        assert_eq!(queue.try_get().unwrap(), 3);
        put.join().unwrap();
        let own = channel.clone();
        let send = spawn(move || own.send(4).unwrap());
        assert_eq!(select.ready().unwrap(), 3);
        assert_eq!(channel.poll().unwrap().unwrap(), 4);
        send.join().unwrap();
        let own = event.clone();
        reports(&mut select, 4, move || own.send(()).unwrap());
        event.reset().unwrap();
        let own = semaphore.clone();
        reports(&mut select, 5, move || own.release());
        assert!(semaphore.try_acquire());
        let own = capped.clone();
        reports(&mut select, 6, move || own.release().unwrap());
        assert!(capped.try_acquire());
        let own = ending.clone();
        reports(&mut select, 7, move || _ = own.kill());
        select.remove(7);
        reports(&mut select, 8, move || output.write_all(b"x").unwrap());
        assert_eq!(select.try_ready().unwrap(), Some(8), "a wait takes nothing");
        (&input).read_exact(&mut [0]).unwrap();
        assert_eq!(select.ready().unwrap(), 8, "the end of the pipe");
        drop(select);
        assert_eq!((event.waiting(), queue.getting()), (0, 0));
        drop((ending, input));
        assert_eq!(held(), before);
    });
}

#[test]
fn a_closed_queue_is_ready() {
    run("a_closed_queue_is_ready", || {
        let queue = Arc::new(Queue::<u8>::new());
        let own = queue.clone();
        let mut select = Select::new();
        let number = select.wait(&*queue);
        reports(&mut select, number, move || own.close());
    });
}

#[test]
fn a_scoped_green_thread_and_a_writable_descriptor_are_reported() {
    run("a_scoped_green_thread_and_a_writable_descriptor_are_reported", || {
        scope(|scope| {
            let (_input, output) = greenhub::io::pipe().unwrap();
            let ended = scope.spawn(|| sleep(SHORT));
            let mut select = Select::new();
            let ends = select.wait(&ended);
            assert_eq!(select.ready().unwrap(), ends);
            select.remove(ends);
            let writes = select.writable(&output);
            assert_eq!(select.ready_timeout(LONG).unwrap(), writes);
        });
    });
}

#[test]
fn times_are_reported_in_order_and_stay_ready() {
    run("times_are_reported_in_order_and_stay_ready", || {
        let clock = use_manual_clock();
        let begun = clock.now();
        let mut select = Select::new();
        let (late, soon) = (select.after(SHORT * 2), select.after(SHORT));
        let never = select.after(Duration::MAX);
        assert_eq!(select.ready().unwrap(), soon);
        // Timers have slack.
        assert!((SHORT..SHORT * 2).contains(&(clock.now() - begun)));
        assert_eq!(select.try_ready().unwrap(), Some(soon));
        select.remove(soon);
        assert_eq!(select.ready().unwrap(), late);
        assert!(clock.now() - begun >= SHORT * 2);
        select.remove(late);
        select.remove(never);
        assert_eq!(select.try_ready().unwrap(), None);
    });
}

#[test]
fn a_point_in_time_is_reported_when_it_has_passed() {
    run("a_point_in_time_is_reported_when_it_has_passed", || {
        let deadline = Instant::now() + SHORT;
        let mut select = Select::new();
        let passed = select.at(deadline);
        assert_eq!(select.ready().unwrap(), passed);
        assert!(Instant::now() >= deadline);
    });
}

#[test]
fn a_limit_that_is_reached_is_an_error_of_the_kind_timed_out() {
    run("a_limit_that_is_reached_is_an_error_of_the_kind_timed_out", || {
        let (event, (input, _output)) = (Event::<()>::new(), greenhub::io::pipe().unwrap());
        for with_descriptor in [false, true] {
            let before = held();
            let mut select = Select::new();
            select.wait(&event);
            if with_descriptor {
                select.readable(&input);
            }
            let begun = Instant::now();
            assert_eq!(select.ready_timeout(SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
            assert!(begun.elapsed() >= SHORT);
            let ran = Rc::new(Cell::new(false));
            let other = ran.clone();
            spawn(move || other.set(true));
            assert_eq!(select.ready_timeout(Duration::ZERO).unwrap_err().kind(), ErrorKind::TimedOut);
            assert!(ran.get());
            assert!(with_timeout(SHORT, || select.ready()).is_err());
            assert_eq!(event.waiting(), 0, "a mark was left");
            assert_eq!(held(), before);
        }
        assert_eq!(Select::new().ready_timeout(SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn objects_that_are_always_ready_are_reported_equally_often() {
    run("objects_that_are_always_ready_are_reported_equally_often", || {
        let queues: [Queue<()>; 3] = std::array::from_fn(|_| Queue::new());
        let silent: [Event<()>; 7] = std::array::from_fn(|_| Event::new());
        queues.iter().for_each(|queue| queue.put(()).unwrap());
        let mut counts = [0; 3];
        for _ in 0..900 {
            let mut select = Select::new();
            let numbers = [select.wait(&queues[0]), select.wait(&queues[1])];
            silent.iter().for_each(|event| _ = select.wait(event));
            let last = select.wait(&queues[2]);
            let number = select.ready().unwrap();
            counts[[numbers[0], numbers[1], last].iter().position(|one| *one == number).unwrap()] += 1;
        }
        // 300 of each are expected, with a deviation of 14.
        assert!(counts.iter().all(|count| (200..400).contains(count)), "{counts:?}");
    });
}

#[test]
fn a_loop_over_ready_objects_lets_others_run() {
    run("a_loop_over_ready_objects_lets_others_run", || {
        let queue = Queue::new();
        queue.put(()).unwrap();
        let other = spawn(|| ());
        let mut rounds = 0;
        while !other.is_finished() {
            let mut select = Select::new();
            select.wait(&queue);
            select.ready().unwrap();
            rounds += 1;
            assert!(rounds < 10_000);
        }
    });
}

#[test]
fn a_waiting_getter_comes_before_a_select() {
    run("a_waiting_getter_comes_before_a_select", || {
        let queue = Arc::new(Queue::new());
        let (selecting, got) = (queue.clone(), Rc::new(Cell::new(None)));
        let own_got = got.clone();
        let selecter = spawn(move || {
            let mut select = Select::new();
            select.wait(&*selecting);
            select.ready().unwrap();
            own_got.set(selecting.try_get().ok());
        });
        yield_now();
        let getting = queue.clone();
        let getter = spawn(move || getting.get().unwrap());
        yield_now();
        queue.try_put(1).unwrap();
        assert_eq!(getter.join().unwrap(), 1);
        settle();
        assert!(!selecter.is_finished());
        queue.try_put(2).unwrap();
        selecter.join().unwrap();
        assert_eq!(got.get(), Some(2));
    });
}

#[test]
fn an_item_whose_select_is_killed_wakes_another_select() {
    run("an_item_whose_select_is_killed_wakes_another_select", || {
        for kind in 0..3 {
            let (queue, semaphore) = (Arc::new(Queue::new()), Arc::new(Semaphore::new(0)));
            let (sender, receiver) = mpsc::channel();
            let receiver = Rc::new(receiver);
            let selecters = [true, false].map(|dallies| {
                let (queue, semaphore, receiver) = (queue.clone(), semaphore.clone(), receiver.clone());
                let green = spawn(move || {
                    loop {
                        let mut select = Select::new();
                        select.wait(&*queue);
                        select.wait(&*semaphore);
                        select.wait(&*receiver);
                        let ready = select.ready().unwrap();
                        if dallies {
                            yield_now();
                        }
                        let done = match ready {
                            0 => queue.try_get().is_ok(),
                            1 => semaphore.try_acquire(),
                            _ => receiver.try_recv().is_ok(),
                        };
                        if done {
                            return;
                        }
                    }
                });
                yield_now();
                green
            });
            match kind {
                0 => queue.try_put(()).unwrap(),
                1 => semaphore.release(),
                _ => sender.send(()).unwrap(),
            }
            // Both marks are set. The kill strikes between the wait of the first one and its call for the item.
            selecters[0].kill();
            let [first, second] = selecters;
            assert!(first.join().unwrap_err().is_kill());
            second.join().unwrap();
        }
    });
}

#[test]
fn a_socket_that_is_closed_during_the_wait_is_reported() {
    run("a_socket_that_is_closed_during_the_wait_is_reported", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let (stream, never) = (Rc::new(stream), Event::<()>::new());
        let closing = stream.clone();
        spawn(move || closing.close());
        let mut select = Select::new();
        select.wait(&never);
        let number = select.readable(&*stream);
        assert_eq!(select.ready().unwrap(), number);
        assert!((&*stream).read(&mut [0]).is_err());
    });
}

#[test]
fn a_descriptor_with_another_waiter_is_refused() {
    run("a_descriptor_with_another_waiter_is_refused", || {
        let (input, _output) = greenhub::io::pipe().unwrap();
        let (input, event) = (Rc::new(input), Event::<()>::new());
        let reading = input.clone();
        let reader = spawn(move || (&*reading).read(&mut [0]));
        yield_now();
        let mut select = Select::new();
        select.wait(&event);
        select.readable(&*input);
        assert_eq!(select.ready().unwrap_err().kind(), ErrorKind::ResourceBusy);
        assert_eq!(event.waiting(), 0);
        reader.kill();
        // The failed wait has left nothing that ends this one.
        assert_eq!(select.ready_timeout(SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn the_same_object_may_be_added_twice() {
    run("the_same_object_may_be_added_twice", || {
        let (event, (input, mut output)) = (Arc::new(Event::new()), greenhub::io::pipe().unwrap());
        let mut select = Select::new();
        let events = [select.wait(&*event), select.wait(&*event)];
        let own = event.clone();
        spawn(move || own.send(()).unwrap());
        assert!(events.contains(&select.ready().unwrap()));
        let mut select = Select::new();
        let inputs = [select.readable(&input), select.readable(&input)];
        spawn(move || output.write_all(b"x").unwrap());
        assert!(inputs.contains(&select.ready().unwrap()));
    });
}

#[test]
fn a_select_of_nothing_panics() {
    run("a_select_of_nothing_panics", || {
        assert!(catch_unwind(AssertUnwindSafe(|| Select::new().ready())).is_err());
        let event = Event::<()>::new();
        let mut select = Select::new();
        let number = select.wait(&event);
        select.remove(number);
        assert!(catch_unwind(AssertUnwindSafe(|| select.remove(number))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| select.ready())).is_err());
        assert_eq!(format!("{select:?}"), "Select { operations: 0 }");
    });
}

#[test]
fn on_the_main_loop_only_try_ready_works() {
    run("on_the_main_loop_only_try_ready_works", || {
        let done = Rc::new(Cell::new(false));
        let own_done = done.clone();
        let _timer = get_hub().schedule(Duration::ZERO, move || {
            let (event, (input, _output)) = (Event::<()>::new(), greenhub::io::pipe().unwrap());
            for with_descriptor in [false, true] {
                let mut select = Select::new();
                select.wait(&event);
                if with_descriptor {
                    select.readable(&input);
                }
                assert_eq!(select.try_ready().unwrap(), None);
                assert!(select.ready().unwrap_err().to_string().contains("main loop"));
                assert_eq!(event.waiting(), 0);
            }
            own_done.set(true);
        });
        sleep(SHORT);
        assert!(done.get());
    });
}

#[test]
fn a_plain_os_thread_selects_among_objects_and_times_without_a_hub() {
    run("a_plain_os_thread_selects_among_objects_and_times_without_a_hub", || {
        let (event, other) = (Arc::new(Event::new()), Arc::new(Event::<()>::new()));
        let own = event.clone();
        let plain = std::thread::spawn(move || {
            let mut select = Select::new();
            select.wait(&*other);
            let (sent, long) = (select.wait(&*own), select.after(LONG));
            assert_eq!(select.ready().unwrap(), sent);
            select.remove(sent);
            select.remove(long);
            let soon = select.after(SHORT);
            assert_eq!(select.ready().unwrap(), soon);
            assert!(!greenhub::hub::has_hub());
        });
        sleep(SHORT);
        event.send(()).unwrap();
        plain.join().unwrap();
    });
}

/// The objects of a generated program, which hold numbered items.
struct Objects {
    queues: [Queue<usize>; 3],
    channel: Channel<usize>,
    receiver: mpsc::Receiver<usize>,
    semaphore: Semaphore,
}

impl Objects {
    /// Adds the objects of the mask to a select, and returns them by number.
    fn add<'a>(&'a self, mask: usize, select: &mut Select<'a>) -> Vec<usize> {
        let mut added = Vec::new();
        for object in (0..6).filter(|object| mask & 1 << object != 0) {
            let number = match object {
                0..3 => select.wait(&self.queues[object]),
                3 => select.wait(&self.channel),
                4 => select.wait(&self.receiver),
                _ => select.wait(&self.semaphore),
            };
            assert_eq!(number, added.len());
            added.push(object);
        }
        added
    }

    /// Takes an item without waiting. A permit is the item zero.
    fn take(&self, object: usize) -> Option<usize> {
        match object {
            0..3 => self.queues[object].try_get().ok(),
            3 => self.channel.poll().map(|item| item.unwrap()),
            4 => self.receiver.try_recv().ok(),
            _ => self.semaphore.try_acquire().then_some(0),
        }
    }
}

#[test]
fn random_selects_lose_no_item_and_no_wake_up() {
    run("random_selects_lose_no_item_and_no_wake_up", || {
        let mut taken_in_all = 0;
        for seed in 0..150 {
            let (mut random, before) = (Rng::with_seed(seed), held());
            let (sender, receiver) = mpsc::channel();
            let objects = Rc::new(Objects {
                queues: [Queue::bounded(0), Queue::bounded(1), Queue::new()],
                channel: Channel::new(),
                receiver,
                semaphore: Semaphore::new(0),
            });
            let (taken, permits) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
            let (mut sent, mut released) = (BTreeSet::new(), 0);
            // The green threads that put an item, with the item: of a killed one it may have arrived.
            let mut putters = Vec::new();
            // The selects and getters, each with the mask of its objects while it waits.
            let mut takers = Vec::new();
            for step in 1..80 {
                let (item, own) = (step, objects.clone());
                match random.usize(..10) {
                    0 => putters.push((item, spawn(move || own.queues[item % 3].put(item).unwrap()))),
                    1 => putters.push((item, spawn(move || own.channel.send(item).unwrap()))),
                    2 => {
                        sender.send(item).unwrap();
                        sent.insert(item);
                    }
                    3 => {
                        objects.semaphore.release();
                        released += 1;
                    }
                    4..=6 => {
                        let (mask, limit) = (random.usize(1..64), random.bool());
                        let (taken, permits) = (taken.clone(), permits.clone());
                        let waits = Rc::new(Cell::new(0));
                        let own_waits = waits.clone();
                        let green = spawn(move || {
                            for _ in 0..3 {
                                let mut select = Select::new();
                                let added = own.add(mask, &mut select);
                                own_waits.set(mask);
                                let ready = if limit { select.ready_timeout(SHORT) } else { select.ready() };
                                own_waits.set(0);
                                match ready.map(|number| own.take(added[number])) {
                                    Ok(Some(0)) => permits.set(permits.get() + 1),
                                    Ok(Some(item)) => taken.borrow_mut().push(item),
                                    Ok(None) => {}
                                    Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
                                }
                            }
                        });
                        takers.push((waits, green));
                    }
                    7 => {
                        let taken = taken.clone();
                        let green = spawn(move || {
                            if let Ok(item) = own.queues[item % 3].get_timeout(SHORT) {
                                taken.borrow_mut().push(item);
                            }
                        });
                        takers.push((Rc::new(Cell::new(0)), green));
                    }
                    8 if !takers.is_empty() => {
                        let victim = random.usize(..takers.len());
                        takers.swap_remove(victim).1.kill();
                    }
                    _ if !putters.is_empty() && random.usize(..4) == 0 => {
                        let (_, victim) = &putters[random.usize(..putters.len())];
                        victim.kill();
                    }
                    _ => {}
                }
                if random.bool() {
                    continue;
                }
                settle();
                for (waits, green) in takers.iter().filter(|(_, green)| !green.is_finished()) {
                    let mut select = Select::new();
                    objects.add(waits.get(), &mut select);
                    let ready = select.try_ready().unwrap();
                    assert_eq!(ready, None, "seed {seed}, step {step}: {:?} sleeps beside an item", green.id());
                }
            }
            takers.iter().for_each(|(_, green)| _ = green.kill());
            // Drains what is left, the items of waiting putters included.
            for object in 0..6 {
                while let Some(item) = objects.take(object) {
                    if item == 0 {
                        permits.set(permits.get() + 1)
                    } else {
                        taken.borrow_mut().push(item)
                    }
                    settle();
                }
            }
            settle();
            for (item, green) in putters {
                match green.join() {
                    Ok(()) => _ = sent.insert(item),
                    Err(error) => assert!(error.is_kill(), "{error}"),
                }
            }
            let all = taken.borrow();
            let once: BTreeSet<_> = all.iter().copied().collect();
            assert_eq!(once.len(), all.len(), "seed {seed}: an item came twice: {all:?}");
            assert!(once.is_superset(&sent), "seed {seed}: an item was lost: {sent:?}, {all:?}");
            assert_eq!(permits.get(), released, "seed {seed}: permits");
            taken_in_all += all.len();
            drop((all, takers, objects));
            assert_eq!(held(), before, "seed {seed}");
        }
        assert!(taken_in_all > 1500, "{taken_in_all}");
    });
}

#[test]
fn selects_on_two_hubs_and_plain_os_threads_take_each_item_once() {
    const ITEMS: usize = 600;
    run("selects_on_two_hubs_and_plain_os_threads_take_each_item_once", || {
        for capacity in [0, 1, 100] {
            let queues: Arc<[Queue<usize>; 3]> = Arc::new(std::array::from_fn(|_| Queue::bounded(capacity)));
            let (got, count) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicUsize::new(0)));
            let over = Arc::new(Event::new());
            let select_until_over = |seed: u64| {
                let (queues, got, count, over) = (queues.clone(), got.clone(), count.clone(), over.clone());
                move || {
                    let mut random = Rng::with_seed(seed);
                    loop {
                        let mut select = Select::new();
                        queues.iter().for_each(|queue| _ = select.wait(queue));
                        let ends = select.wait(&*over);
                        let ready = match random.usize(..3) {
                            0 => select.ready_timeout(random.moment()),
                            1 => with_timeout(random.moment(), || select.ready())
                                .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())),
                            _ => select.ready(),
                        };
                        let number = match ready {
                            Ok(number) if number == ends => return,
                            Ok(number) => number,
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::TimedOut);
                                continue;
                            }
                        };
                        if let Ok(item) = queues[number].try_get() {
                            assert!(got.lock().unwrap().insert(item), "{item} came twice");
                            count.fetch_add(1, SeqCst);
                        }
                    }
                }
            };
            let hubs: Vec<_> = (0..2)
                .map(|hub| {
                    let bodies: Vec<_> = (0..4).map(|n| select_until_over(10 * hub + n)).collect();
                    let mortal = select_until_over(10 * hub + 5);
                    std::thread::spawn(move || {
                        let mortal = spawn(mortal);
                        let greens: Vec<_> = bodies.into_iter().map(spawn).collect();
                        sleep(SHORT);
                        mortal.kill();
                        greens.into_iter().for_each(|green| green.join().unwrap());
                    })
                })
                .collect();
            let plain = {
                let (queues, got, count, over) = (queues.clone(), got.clone(), count.clone(), over.clone());
                std::thread::spawn(move || {
                    loop {
                        let mut select = Select::new();
                        queues.iter().for_each(|queue| _ = select.wait(queue));
                        let ends = select.wait(&*over);
                        match select.ready().unwrap() {
                            number if number == ends => return,
                            number => {
                                if let Ok(item) = queues[number].try_get() {
                                    assert!(got.lock().unwrap().insert(item), "{item} came twice");
                                    count.fetch_add(1, SeqCst);
                                }
                            }
                        }
                    }
                })
            };
            let putters: Vec<_> = (0..3)
                .map(|number| {
                    let queues = queues.clone();
                    std::thread::spawn(move || {
                        for item in (0..ITEMS).filter(|item| item % 3 == number) {
                            queues[item / 3 % 3].put(item).unwrap();
                        }
                    })
                })
                .collect();
            putters.into_iter().for_each(|putter| putter.join().unwrap());
            // Each item is received, without another put that would wake a select.
            while count.load(SeqCst) < ITEMS {
                sleep(Duration::from_micros(100));
            }
            over.send(()).unwrap();
            hubs.into_iter().for_each(|hub| hub.join().unwrap());
            plain.join().unwrap();
            assert_eq!(over.waiting(), 0);
        }
    });
}
