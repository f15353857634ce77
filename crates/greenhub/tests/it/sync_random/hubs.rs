//! Each primitive between the hubs of two OS threads, for every pair of hub kinds.

use std::sync::{Arc, mpsc as plain};

use greenhub::sync::{Channel, Condvar, Event, Notify, Queue, Semaphore, broadcast, mpsc, oneshot, watch};
use greenhub::{get_hub, spawn, sync, use_hub};

use super::storm::pairs;
use crate::support::run;

#[test]
fn each_primitive_works_between_any_two_kinds_of_hub() {
    const ROUNDS: usize = 20;

    /// The giving and the taking side.
    type Sides = [Box<dyn FnOnce() + Send>; 2];
    type Make = fn() -> Sides;

    fn both<P: Send + Sync + 'static>(shared: P, give: fn(&P, usize), take: fn(&P, usize)) -> Sides {
        let shared = Arc::new(shared);
        let other = shared.clone();
        [
            Box::new(move || (0..ROUNDS).for_each(|round| give(&shared, round))),
            Box::new(move || (0..ROUNDS).for_each(|round| take(&other, round))),
        ]
    }

    let ways: [(&str, Make); 10] = [
        ("queue", || {
            both(
                Queue::bounded(0),
                |queue, round| queue.put(round).unwrap(),
                |queue, round| {
                    assert_eq!(queue.get().unwrap(), round);
                },
            )
        }),
        ("channel", || {
            both(
                Channel::new(),
                |channel, round| channel.send(round).unwrap(),
                |channel, round| {
                    assert_eq!(channel.wait().unwrap(), round);
                },
            )
        }),
        ("event", || {
            let pair = (Event::new(), Event::new());
            both(
                pair,
                |(there, back), round| {
                    there.send(round).unwrap();
                    assert_eq!(back.wait().unwrap(), round);
                    back.reset().unwrap();
                },
                |(there, back), round| {
                    assert_eq!(there.wait().unwrap(), round);
                    there.reset().unwrap();
                    back.send(round).unwrap();
                },
            )
        }),
        ("semaphore", || {
            let pair = (Semaphore::new(0), Semaphore::new(0));
            both(
                pair,
                |(there, back), _| {
                    there.release();
                    back.acquire().unwrap();
                },
                |(there, back), _| {
                    there.acquire().unwrap();
                    back.release();
                },
            )
        }),
        ("mutex and condition", || {
            let pair = (sync::Mutex::new(0), Condvar::new());
            both(
                pair,
                |(turns, condvar), round| {
                    let mut turns = condvar.wait_while(turns.lock().unwrap(), |turns| *turns != 2 * round).unwrap();
                    *turns += 1;
                    condvar.notify_one();
                },
                |(turns, condvar), round| {
                    let mut turns = condvar.wait_while(turns.lock().unwrap(), |turns| *turns != 2 * round + 1).unwrap();
                    *turns += 1;
                    condvar.notify_one();
                },
            )
        }),
        ("oneshot", || {
            let pairs = || -> (Vec<_>, Vec<_>) { (0..ROUNDS).map(|_| oneshot::channel()).unzip() };
            let ((asks, asked), (answers, answered)) = (pairs(), pairs());
            [
                Box::new(move || {
                    for (round, (ask, answered)) in asks.into_iter().zip(answered).enumerate() {
                        ask.send(round).unwrap();
                        assert_eq!(answered.recv().unwrap(), round);
                    }
                }),
                Box::new(move || {
                    for (asked, answer) in asked.into_iter().zip(answers) {
                        answer.send(asked.recv().unwrap()).unwrap();
                    }
                }),
            ]
        }),
        ("watch", || {
            let ((there, mut arrives), (back, mut returns)) = (watch::channel(0), watch::channel(0));
            [
                Box::new(move || {
                    for round in 1..=ROUNDS {
                        there.send(round).unwrap();
                        returns.wait_for(|returned| *returned == round).unwrap();
                    }
                }),
                Box::new(move || {
                    for round in 1..=ROUNDS {
                        arrives.changed().unwrap();
                        assert_eq!(*arrives.borrow(), round);
                        back.send(round).unwrap();
                    }
                }),
            ]
        }),
        ("broadcast", || {
            let ((there, mut arrives), (back, mut returns)) = (broadcast::channel(1), broadcast::channel(1));
            [
                Box::new(move || {
                    for round in 0..ROUNDS {
                        there.send(round).unwrap();
                        assert_eq!(returns.recv().unwrap(), round);
                    }
                }),
                Box::new(move || {
                    for round in 0..ROUNDS {
                        assert_eq!(arrives.recv().unwrap(), round);
                        back.send(round).unwrap();
                    }
                }),
            ]
        }),
        ("notify", || {
            let pair = (Notify::new(), Notify::new());
            both(
                pair,
                |(there, back), _| {
                    there.notify_one();
                    back.wait().unwrap();
                },
                |(there, back), _| {
                    there.wait().unwrap();
                    back.notify_one();
                },
            )
        }),
        ("mpsc", || {
            let (sender, receiver) = mpsc::sync_channel(0);
            let receiver = sync::Mutex::new(receiver);
            both(
                (sender, receiver),
                |(sender, _), round| sender.send(round).unwrap(),
                |(_, receiver), round| {
                    assert_eq!(receiver.lock().unwrap().recv().unwrap(), round);
                },
            )
        }),
    ];
    for pair in pairs() {
        for turned in [false, true] {
            for (name, make) in ways {
                run(&format!("{name}, {pair:?}, turned: {turned}"), move || {
                    let mut sides = make();
                    if turned {
                        sides.reverse();
                    }
                    let (tell, ended) = plain::channel();
                    for (side, hub) in sides.into_iter().zip(pair) {
                        let tell = tell.clone();
                        std::thread::spawn(move || {
                            use_hub(hub).unwrap();
                            let ended = spawn(side).join().is_ok();
                            assert_eq!(get_hub().name(), hub);
                            tell.send(ended).unwrap();
                        });
                    }
                    drop(tell);
                    assert_eq!(ended.iter().collect::<Vec<_>>(), [true, true], "{name}, {pair:?}");
                });
            }
        }
    }
}
