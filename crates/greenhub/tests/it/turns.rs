//! The order of green threads when every turn of the loop is cut as early as possible.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::iter;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::descriptors::{ms, stats};
use crate::support::hubs::use_manual_clock;
use crate::support::in_child;
use greenhub::hub::{ManualClock, set_turn_time};
use greenhub::park::{Deadline, Parked, Parker, WaitReason};
use greenhub::sync::Event;
use greenhub::thread::yield_now;
use greenhub::{Interest, get_hub, sleep, spawn, trampoline};

/// Selects the green threads that yield once after they have run.
#[derive(Copy, Clone)]
struct Yields {
    readers: bool,
    sleepers: bool,
}

/// Cuts every turn at its second reading of the clock, with the shortest slices.
fn cut_turns() -> ManualClock {
    let clock = use_manual_clock();
    set_turn_time(Duration::ZERO);
    let other = spawn(|| (0..100).for_each(|_| yield_now()));
    (0..100).for_each(|_| yield_now());
    other.join().expect("no panic");
    clock
}

/// Runs `readers` green threads woken by a report and, behind them in the same turn, `sleepers` woken by timers.
/// Returns the order: `r` is a reader, `y` a reader after its yield, a digit a sleeper, `z` a sleeper after its yield.
fn order(clock: &ManualClock, readers: usize, sleepers: usize, yields: Yields) -> String {
    let order = Rc::new(RefCell::new(String::new()));
    let mut writers = Vec::new();
    for _ in 0..readers {
        let (reader, writer) = io::pipe().expect("a pipe");
        writers.push(writer);
        let order = Rc::clone(&order);
        spawn(move || {
            trampoline(&reader, Interest::READ, None).expect("the descriptor becomes readable");
            order.borrow_mut().push('r');
            if yields.readers {
                yield_now();
                order.borrow_mut().push('y');
            }
        });
    }
    for number in 0..sleepers {
        let order = Rc::clone(&order);
        spawn(move || {
            sleep(ms(1) + Duration::from_micros(number as u64));
            order.borrow_mut().push_str(&number.to_string());
            if yields.sleepers {
                yield_now();
                order.borrow_mut().push('z');
            }
        });
    }
    // Lets every green thread reach its wait.
    for _ in 0..4 {
        yield_now();
    }
    writers.iter_mut().for_each(|writer| writer.write_all(b"x").expect("the buffer has room"));
    // The timers are late when the loop sees the reports.
    clock.advance(ms(5));
    sleep(ms(50));
    order.take()
}

/// Returns the order required by the rule. The first turn is cut after two hand-offs, since the first reading of the
/// clock starts its time. Each later turn runs one unreached sleeper, then one of the others.
fn expected(readers: usize, sleepers: usize, yields: Yields) -> String {
    let mut order = String::new();
    let mut queue: VecDeque<_> = iter::repeat_n('r', readers).chain(('0'..).take(sleepers)).collect();
    let mut run = |next: Option<char>, queue: &mut VecDeque<char>| {
        order.extend(next);
        match next {
            Some('r') if yields.readers => queue.push_back('y'),
            Some('0'..='9') if yields.sleepers => queue.push_back('z'),
            _ => {}
        }
    };
    for _ in 0..2 {
        let next = queue.pop_front();
        run(next, &mut queue);
    }
    let mut due = VecDeque::new();
    // Without readers, the sleepers are first in the queue.
    if readers > 0 {
        due.extend(queue.iter().copied().filter(char::is_ascii_digit));
        queue.retain(|one| !one.is_ascii_digit());
    }
    while !(due.is_empty() && queue.is_empty()) {
        run(due.pop_front(), &mut queue);
        let next = queue.pop_front();
        run(next, &mut queue);
    }
    order
}

#[test]
fn a_cut_turn_alternates_due_sleepers_with_the_other_green_threads() {
    in_child(|| {
        let clock = cut_turns();
        for readers in 0..5 {
            for sleepers in 0..5 {
                for (in_readers, in_sleepers) in [(false, false), (false, true), (true, false), (true, true)] {
                    let yields = Yields { readers: in_readers, sleepers: in_sleepers };
                    let expected = expected(readers, sleepers, yields);
                    assert_eq!(
                        order(&clock, readers, sleepers, yields),
                        expected,
                        "{readers} readers, {sleepers} sleepers"
                    );
                }
            }
        }
    });
}

#[test]
fn the_hub_waits_after_five_cut_turns() {
    in_child(|| {
        let _clock = cut_turns();
        // A timer that is not due changes nothing.
        spawn(|| sleep(Duration::from_secs(3600)));
        spawn(|| (0..1000).for_each(|_| yield_now()));
        yield_now();
        let before = stats();
        (0..200).for_each(|_| yield_now());
        let (turns, waits) = (stats().turns - before.turns, stats().waits - before.waits);
        assert!(turns >= 100, "{turns} turns");
        assert!(waits.abs_diff(turns / 5) <= 1, "{waits} waits in {turns} turns");
    });
}

#[test]
fn a_sleeper_left_by_a_cut_turn_runs_before_later_ones() {
    in_child(|| {
        let clock = cut_turns();
        let order = Rc::new(RefCell::new(String::new()));
        let (reader, mut writer) = io::pipe().expect("a pipe");
        for (number, time) in [(0, ms(1)), (1, ms(2)), (2, ms(10))] {
            let order = Rc::clone(&order);
            spawn(move || {
                sleep(time);
                order.borrow_mut().push_str(&number.to_string());
            });
        }
        let (advances, reads) = (clock.clone(), Rc::clone(&order));
        spawn(move || {
            trampoline(&reader, Interest::READ, None).expect("the descriptor becomes readable");
            reads.borrow_mut().push('r');
            // The last sleeper is due when the turn is cut, between the other two.
            advances.advance(ms(20));
        });
        (0..4).for_each(|_| yield_now());
        writer.write_all(b"x").expect("the buffer has room");
        clock.advance(ms(5));
        sleep(ms(50));
        assert_eq!(*order.borrow(), "r012");
    });
}

#[test]
fn a_turn_cut_after_its_sleepers_keeps_the_other_green_threads() {
    const EACH: usize = 10;
    in_child(|| {
        let clock = use_manual_clock();
        // The time of the turn is up at the end of a slice of many hand-offs, which no clock has shortened.
        set_turn_time(Duration::from_secs(3600));
        let ended = Rc::new(Cell::new(0));
        let mut writers = Vec::new();
        for _ in 0..EACH {
            let (reader, writer) = io::pipe().expect("a pipe");
            writers.push(writer);
            let ended = Rc::clone(&ended);
            spawn(move || {
                trampoline(&reader, Interest::READ, None).expect("the descriptor becomes readable");
                set_turn_time(Duration::ZERO);
                (0..20).for_each(|_| yield_now());
                ended.set(ended.get() + 1);
            });
        }
        for _ in 0..EACH {
            let ended = Rc::clone(&ended);
            spawn(move || {
                sleep(ms(1));
                ended.set(ended.get() + 1);
            });
        }
        // Every green thread reaches its wait, and the sleeps begin.
        get_hub().run_once(Some(Duration::ZERO)).expect("a turn");
        writers.iter_mut().for_each(|writer| writer.write_all(b"x").expect("the buffer has room"));
        clock.advance(ms(5));
        sleep(ms(50));
        assert_eq!(ended.get(), 2 * EACH);
    });
}

#[test]
fn cancelled_green_threads_count_in_a_cut_turn() {
    in_child(|| {
        let clock = cut_turns();
        let order = Rc::new(RefCell::new(String::new()));
        let events = [(); 2].map(|()| Rc::new(Event::new()));
        for (name, event) in ['a', 'b'].into_iter().zip(&events) {
            let (order, event) = (Rc::clone(&order), Rc::clone(event));
            spawn(move || {
                event.wait().expect("the event was sent");
                order.borrow_mut().push(name);
            });
        }
        for number in 0..2 {
            let order = Rc::clone(&order);
            spawn(move || {
                sleep(ms(1) + Duration::from_micros(number));
                order.borrow_mut().push_str(&number.to_string());
            });
        }
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let reader = Rc::new(reader);
        let [first, second] = events;
        let reads = Rc::clone(&reader);
        // Queues the first green thread, a cancelled one and the second one, before the sleepers are due.
        let listens = move |_| {
            assert_eq!(rustix::io::read(&reads, &mut [0; 8]), Ok(1));
            first.send(()).expect("the receiver lives");
            spawn(|| ()).kill();
            second.send(()).expect("the receiver lives");
        };
        let _listens = get_hub().listen(reader, Interest::READ, listens).expect("the hub accepts the listener");
        (0..4).for_each(|_| yield_now());
        writer.write_all(b"x").expect("the buffer has room");
        clock.advance(ms(5));
        sleep(ms(50));
        assert_eq!(*order.borrow(), "a0b1");
    });
}

#[test]
fn a_green_thread_woken_by_mail_after_a_cut_turn_runs() {
    in_child(|| {
        let clock = cut_turns();
        for sleepers in 1..4 {
            let (parked, unparker) = mpsc::channel();
            let woken = spawn(move || {
                let parker = Parker::new(WaitReason::Event).expect("no loop");
                parked.send(parker.unparker()).expect("a receiver");
                parker.park(&mut Deadline::none()).expect("the park succeeds")
            });
            let mut writers = Vec::new();
            let unparker = Rc::new(unparker);
            for number in 0..2 {
                let (reader, writer) = io::pipe().expect("a pipe");
                writers.push(writer);
                let unparker = Rc::clone(&unparker);
                spawn(move || {
                    trampoline(&reader, Interest::READ, None).expect("the descriptor becomes readable");
                    // The turn is cut after the second reader, and the next one begins with the mail.
                    if number == 1 {
                        let unparker = unparker.recv().expect("the waiter is parked");
                        std::thread::spawn(move || unparker.unpark()).join().expect("no panic");
                    }
                });
            }
            (0..sleepers).for_each(|_| _ = spawn(|| sleep(ms(1))));
            (0..4).for_each(|_| yield_now());
            writers.iter_mut().for_each(|writer| writer.write_all(b"x").expect("the buffer has room"));
            clock.advance(ms(5));
            sleep(ms(50));
            assert_eq!(woken.join().expect("no panic"), Parked::Unparked);
        }
    });
}
