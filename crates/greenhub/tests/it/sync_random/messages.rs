//! Messages, notifications and cancellations between two hubs and plain OS threads. Waits without a limit end as long
//! as nothing is lost; otherwise the test hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use greenhub::sleep;
use greenhub::sync::{CancellationToken, Notify, broadcast, oneshot, watch};
use greenhub::thread::yield_now;

use super::storm::{Count, MOMENT, job, on_hub, patiently, pause, storms, until};
use crate::support::green::in_time;
use crate::support::random::{Moment, Rng};

#[test]
fn every_value_is_received_or_counted_as_missed() {
    storms("every_value_is_received_or_counted_as_missed", |pair, seed| {
        const VALUES: u64 = 200;
        let (sender, receiver) = broadcast::channel(1 << (seed % 5));
        let hubs = [0, 1].map(|hub| {
            let receivers: Vec<_> = (0..6).map(|_| receiver.resubscribe()).collect();
            on_hub(pair[hub], 2 * seed + hub as u64, 4, move || {
                let receive = |mut receiver: broadcast::Receiver<u64>| {
                    job(move |random| {
                        let (mut next, mut missed) = (0, 0);
                        loop {
                            let received = match random.usize(..4) {
                                0 => match receiver.recv_timeout(random.moment()) {
                                    Err(broadcast::RecvTimeoutError::TimedOut) => continue,
                                    Err(broadcast::RecvTimeoutError::Closed) => break,
                                    Err(broadcast::RecvTimeoutError::Lagged(missed)) => Err(missed),
                                    received => Ok(received.unwrap()),
                                },
                                _ => match patiently(random, || receiver.recv()) {
                                    None => continue,
                                    Some(Err(broadcast::RecvError::Closed)) => break,
                                    Some(Err(broadcast::RecvError::Lagged(missed))) => Err(missed),
                                    Some(received) => Ok(received.unwrap()),
                                },
                            };
                            match received {
                                Ok(value) => {
                                    assert_eq!(value, next, "a value was lost or came twice");
                                    next += 1;
                                }
                                Err(lag) => {
                                    assert!(lag > 0);
                                    next += lag;
                                    missed += lag;
                                }
                            }
                            if random.usize(..8) == 0 {
                                pause(random);
                            }
                        }
                        assert_eq!(next, VALUES, "{missed} were missed");
                    })
                };
                receivers.into_iter().map(receive).collect()
            })
        });
        let mut random = Rng::with_seed(seed);
        for value in 0..VALUES {
            sender.send(value).unwrap();
            if random.usize(..4) == 0 {
                std::thread::sleep(random.moment() / 4);
            }
        }
        drop(receiver);
        let last = sender.clone();
        drop(sender);
        drop(last);
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
    });
}

#[test]
fn every_receiver_sees_the_last_value_and_no_modification_is_lost() {
    storms("every_receiver_sees_the_last_value_and_no_modification_is_lost", |pair, seed| {
        let (sender, receiver) = watch::channel(0_u64);
        let (done, begun) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let hubs = [0, 1].map(|hub| {
            let senders: Vec<_> = (0..4).map(|_| sender.clone()).collect();
            let receivers: Vec<_> = (0..4).map(|_| receiver.clone()).collect();
            let (done, begun) = (done.clone(), begun.clone());
            on_hub(pair[hub], 2 * seed + hub as u64, 4, move || {
                let send = |sender: watch::Sender<u64>| {
                    let (done, begun) = (done.clone(), begun.clone());
                    job(move |random| {
                        for _ in 0..10 {
                            let switches = random.bool();
                            begun.fetch_add(1, SeqCst);
                            let sent = patiently(random, || {
                                sender.send_modify(|value| {
                                    if switches {
                                        yield_now();
                                    }
                                    *value += 1;
                                });
                            });
                            // An exit that strikes in the closure changes nothing, and one that comes later is none of
                            // this call.
                            match sent {
                                Some(()) => done.fetch_add(1, SeqCst),
                                None => begun.fetch_sub(1, SeqCst),
                            };
                            pause(random);
                        }
                    })
                };
                let receive = |mut receiver: watch::Receiver<u64>| {
                    job(move |random| {
                        let mut last = 0;
                        loop {
                            match random.usize(..3) {
                                0 => match receiver.changed_timeout(random.moment()) {
                                    Err(watch::RecvTimeoutError::TimedOut) => continue,
                                    Err(watch::RecvTimeoutError::Closed) => break,
                                    changed => changed.unwrap(),
                                },
                                _ => match patiently(random, || receiver.changed()) {
                                    None => continue,
                                    Some(Err(watch::RecvError::Closed)) => break,
                                    Some(changed) => changed.unwrap(),
                                },
                            }
                            let value = *receiver.borrow();
                            assert!(value >= last, "{value} came after {last}");
                            last = value;
                        }
                        assert_eq!(*receiver.borrow(), last, "the last change was not seen");
                    })
                };
                let jobs = senders.into_iter().map(send);
                jobs.chain(receivers.into_iter().map(receive)).collect()
            })
        });
        drop(sender);
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        let (value, done, begun) = (*receiver.borrow(), done.load(SeqCst), begun.load(SeqCst));
        // A kill between the modification and its count leaves it begun.
        assert!((done..=begun).contains(&value), "{value} of {done} to {begun}");
    });
}

#[test]
fn each_notification_of_one_reaches_one_waiter() {
    storms("each_notification_of_one_reaches_one_waiter", |pair, seed| {
        const NOTIFICATIONS: usize = 60;
        let (notify, taken) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let hubs = [0, 1].map(|hub| {
            let (notify, taken) = (notify.clone(), taken.clone());
            on_hub(pair[hub], 2 * seed + hub as u64, 6, move || {
                let wait = |n| {
                    let (notify, taken) = (notify.clone(), taken.clone());
                    job(move |random| {
                        while taken.load(SeqCst) < NOTIFICATIONS {
                            let waited = match (n, random.usize(..4)) {
                                (0..6, 0) => in_time(notify.wait_timeout(random.moment())).is_some(),
                                (0..6, 1) => notify.try_wait(),
                                (0..6, _) => patiently(random, || notify.wait().unwrap()).is_some(),
                                // The others are never killed and have no timeout.
                                _ => notify.wait().is_ok(),
                            };
                            if waited {
                                taken.fetch_add(1, SeqCst);
                            }
                            yield_now();
                        }
                    })
                };
                (0..8).map(wait).collect()
            })
        });
        let mut random = Rng::with_seed(seed);
        for sent in 1..=NOTIFICATIONS {
            notify.notify_one();
            // The next notification waits until this one was taken, so it cannot replace a lost one.
            until(|| taken.load(SeqCst) >= sent);
            assert_eq!(taken.load(SeqCst), sent, "a notification was taken twice");
            if random.usize(..4) == 0 {
                std::thread::sleep(random.moment());
            }
        }
        // Waiters that are left, and those that wait once more, are let go.
        while hubs.iter().any(|hub| !hub.is_finished()) {
            notify.notify_waiters();
            std::thread::sleep(MOMENT);
        }
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        assert!(!notify.try_wait());
    });
}

#[test]
fn each_oneshot_value_is_received_or_comes_back_or_is_dropped_once() {
    storms("each_oneshot_value_is_received_or_comes_back_or_is_dropped_once", |pair, seed| {
        let (values, received) = (Count::default(), Count::default());
        let (jobs, ends): (Vec<_>, Vec<_>) = (0..2).map(|_| (0..10).map(|_| oneshot::channel()).unzip()).unzip();
        let (jobs, mut ends): (Vec<Vec<_>>, Vec<Vec<_>>) = (jobs, ends);
        // Each hub receives what the other one sends.
        ends.reverse();
        let hubs: Vec<_> = jobs.into_iter().zip(ends).enumerate().collect();
        let hubs = hubs.into_iter().map(|(hub, (senders, receivers))| {
            let (values, received) = (values.clone(), received.clone());
            on_hub(pair[hub], 2 * seed + hub as u64, 10, move || {
                let send = |sender: oneshot::Sender<_>| {
                    let values = values.clone();
                    job(move |random| {
                        pause(random);
                        if random.usize(..4) == 0 {
                            let _ = sender.closed_timeout(random.moment());
                        }
                        let value = values.one();
                        if random.usize(..8) > 0 {
                            let is_closed = sender.is_closed();
                            let sent = sender.send(value);
                            assert!(sent.is_err() || !is_closed);
                        }
                    })
                };
                let receive = |(n, receiver): (usize, oneshot::Receiver<_>)| {
                    let received = received.clone();
                    job(move |random| {
                        let got = match (n, random.usize(..3)) {
                            (0..5, 0) => receiver.recv_timeout(random.moment()).ok(),
                            (0..5, _) => patiently(random, || receiver.recv()).and_then(Result::ok),
                            // The other waits end by the value or the end of the sender.
                            _ => receiver.recv().ok(),
                        };
                        if let Some(value) = got {
                            let _received = received.one();
                            assert!(receiver.recv().is_err(), "a second value");
                            drop(value);
                        }
                    })
                };
                let receives = receivers.into_iter().enumerate().map(receive).collect::<Vec<_>>();
                let mut all: Vec<_> = receives;
                all.extend(senders.into_iter().map(send));
                all
            })
        });
        hubs.collect::<Vec<_>>().into_iter().for_each(|hub| hub.join().unwrap());
        assert_eq!((values.get(), received.get()), (0, 0));
    });
}

#[test]
fn a_cancellation_ends_every_wait_and_closure_below() {
    storms("a_cancellation_ends_every_wait_and_closure_below", |pair, seed| {
        let root = CancellationToken::new();
        let (cancelled, inside) = (Arc::new(AtomicUsize::new(0)), Count::default());
        let hubs = [0, 1].map(|hub| {
            let (root, cancelled, inside) = (root.clone(), cancelled.clone(), inside.clone());
            on_hub(pair[hub], 2 * seed + hub as u64, 4, move || {
                let wait = |n: usize| {
                    let (token, cancelled, inside) = (root.child_token(), cancelled.clone(), inside.clone());
                    job(move |random| {
                        while !token.is_cancelled() {
                            let child = token.child_token();
                            match random.usize(..4) {
                                0 => _ = in_time(child.wait_timeout(random.moment())),
                                1 => _ = patiently(random, || child.wait().unwrap()),
                                _ => {
                                    let (moment, runs) = (random.moment(), inside.clone());
                                    let ran = child.run_until_cancelled(|| {
                                        let _runs = runs.one();
                                        if n.is_multiple_of(2) { sleep(moment) } else { child.wait().unwrap() }
                                    });
                                    assert!(ran.is_some() || token.is_cancelled());
                                }
                            }
                        }
                        cancelled.fetch_add(1, SeqCst);
                    })
                };
                (0..8).map(wait).collect()
            })
        });
        std::thread::sleep(MOMENT * (seed % 16) as u32);
        root.cancel();
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        // Four waiters of each hub are never killed.
        assert!(cancelled.load(SeqCst) >= 8);
        assert_eq!(inside.get(), 0);
    });
}
