//! Items and permits between two hubs and plain OS threads. Waits without a limit are served as long as nothing is
//! lost; otherwise the test hangs.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use greenhub::sleep;
use greenhub::sync::{BoundedSemaphore, CappedSemaphore, GetError, PutError, Queue, mpsc};
use greenhub::thread::yield_now;

use super::storm::{Count, MOMENT, job, on_hub, patiently, pause, storms, until};
use crate::support::green::OnDrop;
use crate::support::green::in_time;
use crate::support::random::{Moment, Rng};

/// The outcome of the items. An item whose putter was unwound may or may not have arrived.
#[derive(Default)]
struct Fate {
    put: Mutex<BTreeSet<usize>>,
    refused: Mutex<BTreeSet<usize>>,
    /// Pairs of getter and item.
    got: Mutex<Vec<(usize, usize)>>,
}

impl Fate {
    fn put(&self, item: usize) {
        self.put.lock().unwrap().insert(item);
    }

    fn got(&self, getter: usize, item: usize) {
        self.got.lock().unwrap().push((getter, item));
    }

    fn check(&self) {
        let got = self.got.lock().unwrap();
        let once: BTreeSet<_> = got.iter().map(|(_, item)| *item).collect();
        assert_eq!(once.len(), got.len(), "an item came twice: {got:?}");
        assert!(once.is_superset(&self.put.lock().unwrap()), "an item was lost");
        assert!(once.is_disjoint(&self.refused.lock().unwrap()), "a refused item came");
        let getters: BTreeSet<_> = got.iter().map(|(getter, _)| *getter).collect();
        for getter in getters {
            for putter in 0..24 {
                let seen = got.iter().filter(|(by, item)| *by == getter && item / 100 == putter);
                assert!(seen.is_sorted(), "the items of putter {putter} came to getter {getter} out of order");
            }
        }
    }
}

/// `None` ends a getter.
type Items = Queue<Option<usize>>;

fn put_some(queue: &Items, fate: &Fate, putter: usize, random: &mut Rng) {
    for item in (0..8).map(|n| 100 * putter + n) {
        let done = match random.usize(..4) {
            0 => Some(queue.put_timeout(Some(item), random.moment())),
            1 => Some(queue.try_put(Some(item))),
            _ => patiently(random, || queue.put(Some(item))),
        };
        match done {
            Some(Ok(())) => fate.put(item),
            Some(Err(PutError::Full(back) | PutError::TimedOut(back))) => {
                _ = fate.refused.lock().unwrap().insert(back.unwrap())
            }
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

fn get_all(queue: &Items, fate: &Fate, getter: usize, random: &mut Rng) {
    loop {
        let got = match random.usize(..4) {
            0 => queue.get_timeout(random.moment()),
            1 => queue.try_get(),
            _ => patiently(random, || queue.get()).unwrap_or(Err(GetError::Empty)),
        };
        match got {
            Ok(item) => {
                let over = item.is_none_or(|item| {
                    fate.got(getter, item);
                    false
                });
                queue.task_done().unwrap();
                if over {
                    return;
                }
            }
            Err(GetError::Empty | GetError::TimedOut) => yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn items_of_a_queue_are_neither_lost_nor_duplicated_and_all_are_done() {
    storms("items_of_a_queue_are_neither_lost_nor_duplicated_and_all_are_done", |pair, seed| {
        let queue: Arc<Items> = Arc::new(Queue::bounded([0, 1, 3, usize::MAX][seed as usize % 4]));
        let (fate, putting, getting) = (Arc::new(Fate::default()), Count::default(), Count::default());
        let hubs = [0, 1].map(|hub| {
            let (queue, fate) = (queue.clone(), fate.clone());
            let counts: Vec<_> = (0..4).map(|_| (putting.one(), getting.one())).collect();
            on_hub(pair[hub], 2 * seed + hub as u64, 9, move || {
                let mut jobs = Vec::new();
                for (n, (puts, gets)) in counts.into_iter().enumerate() {
                    let number = 10 * hub + n;
                    let (own, own_fate) = (queue.clone(), fate.clone());
                    jobs.push(job(move |random| {
                        let _puts = puts;
                        put_some(&own, &own_fate, number, random);
                    }));
                    let (own, own_fate) = (queue.clone(), fate.clone());
                    jobs.push(job(move |random| {
                        let _gets = gets;
                        get_all(&own, &own_fate, number, random);
                    }));
                }
                jobs.push(job(move |_| queue.join().unwrap()));
                jobs
            })
        });
        // An immortal getter, so that every item is received.
        let (own, own_fate, gets) = (queue.clone(), fate.clone(), getting.one());
        let plain = std::thread::spawn(move || {
            let _gets = gets;
            while let Some(item) = own.get().unwrap() {
                own_fate.got(20, item);
                own.task_done().unwrap();
            }
            own.task_done().unwrap();
        });
        until(|| putting.get() == 0);
        // The last item must be received before the getters are sent their end.
        until(|| queue.len() + queue.putting() == 0);
        while getting.get() > 0 {
            let _ = queue.put_timeout(None, MOMENT);
        }
        plain.join().unwrap();
        while let Ok(item) = queue.try_get() {
            assert_eq!(item, None);
            queue.task_done().unwrap();
        }
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        assert_eq!((queue.unfinished(), queue.getting(), queue.putting()), (0, 0, 0));
        queue.join().unwrap();
        fate.check();
    });
}

/// Puts until the queue is closed.
fn put_until_closed(queue: &Queue<usize>, fate: &Fate, putter: usize, random: &mut Rng) {
    for item in (0..100).map(|n| 100 * putter + n) {
        let done = match random.usize(..4) {
            0 => Some(queue.put_timeout(item, random.moment())),
            1 => Some(queue.try_put(item)),
            _ => patiently(random, || queue.put(item)),
        };
        match done {
            Some(Ok(())) => fate.put(item),
            Some(Err(PutError::Full(back) | PutError::TimedOut(back))) => {
                assert_eq!(back, item);
                fate.refused.lock().unwrap().insert(back);
                pause(random);
            }
            Some(Err(PutError::Closed(back))) => {
                assert_eq!(back, item);
                fate.refused.lock().unwrap().insert(back);
                return;
            }
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

fn get_until_closed(queue: &Queue<usize>, fate: &Fate, getter: usize, random: &mut Rng) {
    loop {
        let got = match random.usize(..4) {
            0 => queue.get_timeout(random.moment()),
            1 => queue.try_get(),
            _ => patiently(random, || queue.get()).unwrap_or(Err(GetError::Empty)),
        };
        match got {
            Ok(item) => {
                fate.got(getter, item);
                queue.task_done().unwrap();
            }
            Err(GetError::Empty | GetError::TimedOut) => yield_now(),
            Err(GetError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn items_of_a_queue_that_is_closed_are_neither_lost_nor_duplicated() {
    storms("items_of_a_queue_that_is_closed_are_neither_lost_nor_duplicated", |pair, seed| {
        let queue: Arc<Queue<usize>> = Arc::new(Queue::bounded([0, 1, 3, usize::MAX][seed as usize % 4]));
        let fate = Arc::new(Fate::default());
        let hubs = [0, 1].map(|hub| {
            let (queue, fate) = (queue.clone(), fate.clone());
            on_hub(pair[hub], 2 * seed + hub as u64, 6, move || {
                let mut jobs = Vec::new();
                for number in (0..4).map(|n| 10 * hub + n) {
                    let (own, own_fate) = (queue.clone(), fate.clone());
                    jobs.push(job(move |random| put_until_closed(&own, &own_fate, number, random)));
                    let (own, own_fate) = (queue.clone(), fate.clone());
                    jobs.push(job(move |random| get_until_closed(&own, &own_fate, number, random)));
                }
                jobs
            })
        });
        let (own, own_fate) = (queue.clone(), fate.clone());
        let plain = std::thread::spawn(move || {
            while let Ok(item) = own.get() {
                own_fate.got(20, item);
                own.task_done().unwrap();
            }
        });
        let mut random = Rng::with_seed(seed);
        (0..4).for_each(|_| std::thread::sleep(random.moment()));
        if seed % 2 == 0 {
            queue.close();
        } else {
            queue.close_now().into_iter().for_each(|item| fate.got(21, item));
        }
        // The waits without a limit end.
        plain.join().unwrap();
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        queue.join().unwrap();
        assert_eq!((queue.len(), queue.unfinished(), queue.getting(), queue.putting()), (0, 0, 0, 0));
        fate.check();
    });
}

#[test]
fn items_of_an_unbounded_channel_are_neither_lost_nor_duplicated() {
    storms("items_of_an_unbounded_channel_are_neither_lost_nor_duplicated", |pair, seed| {
        let (sender, receiver) = mpsc::channel();
        let (fate, sending) = (Arc::new(Fate::default()), Count::default());
        let mut senders = [0, 1]
            .map(|hub| {
                let (sender, fate) = (sender.clone(), fate.clone());
                let counts: Vec<_> = (0..4).map(|_| sending.one()).collect();
                move || {
                    let one = |(n, sends)| {
                        let (sender, fate) = (sender.clone(), fate.clone());
                        job(move |random| {
                            let _sends = sends;
                            for item in (0..10).map(|item| 100 * (10 * hub + n) + item) {
                                sender.send(item).unwrap();
                                fate.put(item);
                                patiently(random, || sleep(MOMENT));
                            }
                        })
                    };
                    counts.into_iter().enumerate().map(one).collect::<Vec<_>>()
                }
            })
            .into_iter();
        let (far, near) = (senders.next().unwrap(), senders.next().unwrap());
        let far = on_hub(pair[0], 2 * seed, 4, far);
        let receiving = fate.clone();
        let near = on_hub(pair[1], 2 * seed + 1, 7, move || {
            let receiver = Rc::new(receiver);
            let receive = |n| {
                let (receiver, fate) = (receiver.clone(), receiving.clone());
                job(move |random| {
                    loop {
                        let received = match (n, random.usize(..3)) {
                            // An immortal receiver, which has to be woken.
                            (3, _) => receiver.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                            (_, 0) => receiver.recv_timeout(random.moment()),
                            _ => match patiently(random, || receiver.recv()) {
                                Some(received) => received.map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                                None => Err(mpsc::RecvTimeoutError::Timeout),
                            },
                        };
                        match received {
                            Ok(item) => fate.got(0, item),
                            Err(mpsc::RecvTimeoutError::Timeout) => {}
                            Err(mpsc::RecvTimeoutError::Disconnected) => return,
                        }
                    }
                })
            };
            let mut jobs: Vec<_> = (0..3).map(receive).collect();
            jobs.extend(near());
            jobs.push(receive(3));
            jobs
        });
        until(|| sending.get() == 0);
        // The last item must be received before the senders' end is visible.
        until(|| fate.got.lock().unwrap().len() >= fate.put.lock().unwrap().len());
        drop(sender);
        far.join().unwrap();
        near.join().unwrap();
        assert_eq!(
            fate.got.lock().unwrap().len(),
            fate.put.lock().unwrap().len(),
            "the counts of sent and received items differ"
        );
        fate.check();
    });
}

#[test]
fn an_item_for_a_killed_receiver_reaches_another() {
    storms("an_item_for_a_killed_receiver_reaches_another", |pair, seed| {
        const ITEMS: usize = 30;
        let (sender, receiver) = mpsc::channel();
        let received = Arc::new(AtomicUsize::new(0));
        let count = received.clone();
        let receiving = on_hub(pair[0], 2 * seed, 8, move || {
            let receiver = Rc::new(receiver);
            let receive = |n| {
                let (receiver, count) = (receiver.clone(), count.clone());
                job(move |random| {
                    // All but the last receiver may be killed or time out.
                    let mut receive =
                        || if n < 8 { patiently(random, || receiver.recv()) } else { Some(receiver.recv()) };
                    while let Some(Ok(())) = receive() {
                        count.fetch_add(1, SeqCst);
                    }
                })
            };
            (0..9).map(receive).collect()
        });
        let sending = on_hub(pair[1], 2 * seed + 1, 0, move || {
            vec![job(move |random| {
                for sent in 1..=ITEMS {
                    sender.send(()).unwrap();
                    // The next send waits for this receipt, since no other send would wake the remaining receivers.
                    while received.load(SeqCst) < sent {
                        sleep(MOMENT);
                    }
                    pause(random);
                }
            })]
        });
        sending.join().unwrap();
        receiving.join().unwrap();
    });
}

#[test]
fn a_bounded_semaphore_gets_its_permits_back() {
    storms("a_bounded_semaphore_gets_its_permits_back", |pair, seed| {
        let permits = 1 + seed as usize % 3;
        let (semaphore, holding) = (Arc::new(BoundedSemaphore::new(permits)), Count::default());
        let hubs = [0, 1].map(|hub| {
            let (semaphore, holding) = (semaphore.clone(), holding.clone());
            on_hub(pair[hub], 2 * seed + hub as u64, 6, move || {
                let use_some = |_| {
                    let (semaphore, holding) = (semaphore.clone(), holding.clone());
                    job(move |random| {
                        for _ in 0..10 {
                            let got = match random.usize(..4) {
                                0 => in_time(semaphore.acquire_timeout(random.moment())).is_some(),
                                1 => semaphore.try_acquire(),
                                _ => patiently(random, || semaphore.acquire().unwrap()).is_some(),
                            };
                            if !got {
                                continue;
                            }
                            let _back = OnDrop(|| semaphore.release().expect("the semaphore is below its limit"));
                            let _holds = holding.one();
                            assert!(holding.get() <= permits);
                            pause(random);
                        }
                    })
                };
                (0..6).map(use_some).collect()
            })
        });
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        assert_eq!((semaphore.balance(), holding.get()), (permits as isize, 0));
        assert!(semaphore.release().is_err(), "a permit was lost");
    });
}

#[test]
fn a_capped_semaphore_loses_and_creates_no_permit() {
    storms("a_capped_semaphore_loses_and_creates_no_permit", |pair, seed| {
        let limit = seed as usize % 3;
        let semaphore = Arc::new(CappedSemaphore::new(0, limit).unwrap());
        // Released; released or not, by unwound calls; acquired; not acquired. `working` counts the running jobs.
        let counts: Arc<[AtomicUsize; 4]> = Arc::default();
        let working = Count::default();
        // In every other storm, no releaser is killed or times out, so the count is exact.
        let struck_giving = seed % 2 == 0;
        let hubs = [0, 1].map(|hub| {
            let (semaphore, counts) = (semaphore.clone(), counts.clone());
            let works: Vec<_> = (0..8).map(|_| working.one()).collect();
            on_hub(pair[hub], 2 * seed + hub as u64, if struck_giving { 8 } else { 4 }, move || {
                let work = |(n, works)| {
                    let (semaphore, counts) = (semaphore.clone(), counts.clone());
                    job(move |random| {
                        let _works = works;
                        for _ in 0..8 {
                            if n < 4 {
                                let took = match random.usize(..4) {
                                    0 => in_time(semaphore.acquire_timeout(random.moment())).is_some(),
                                    1 => semaphore.try_acquire(),
                                    _ => patiently(random, || semaphore.acquire().unwrap()).is_some(),
                                };
                                counts[if took { 2 } else { 3 }].fetch_add(1, SeqCst);
                                continue;
                            }
                            counts[1].fetch_add(1, SeqCst);
                            let gave = match random.usize(..4) {
                                0 => Some(in_time(semaphore.release_timeout(random.moment())).is_some()),
                                1 => Some(semaphore.try_release()),
                                2 if struck_giving => patiently(random, || semaphore.release().unwrap()).map(|()| true),
                                _ => Some(semaphore.release().is_ok()),
                            };
                            if let Some(gave) = gave {
                                counts[0].fetch_add(gave.into(), SeqCst);
                                counts[1].fetch_sub(1, SeqCst);
                            }
                        }
                    })
                };
                works.into_iter().enumerate().map(work).collect()
            })
        });
        // Serves a job whose counterparts have ended, at both ends.
        while working.get() > 0 {
            counts[0].fetch_add(in_time(semaphore.release_timeout(MOMENT)).is_some().into(), SeqCst);
            counts[2].fetch_add(in_time(semaphore.acquire_timeout(MOMENT)).is_some().into(), SeqCst);
        }
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        let [given, perhaps, taken, missed] = [0, 1, 2, 3].map(|index| counts[index].load(SeqCst) as isize);
        let there = semaphore.balance();
        // A permit granted to a waiter that left stays beyond the limit. Each of the eight jobs is unwound once at
        // most.
        assert!((0..=limit as isize + missed + 8).contains(&there), "{there} of {limit}, {missed} did not come");
        assert!((given..=given + perhaps).contains(&(taken + there)), "{given}, {perhaps}; {taken}, {there}");
        assert!(struck_giving || perhaps == 0);
    });
}
