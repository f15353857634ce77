//! Messages, turns and events between two green threads on one OS thread and on two, and primitives without contention,
//! compared with std, tokio and may.

use std::sync;
use std::sync::Arc;
use std::time::Duration;

use benches::both::{both_green, both_tasks, both_threads, tokio_runtime};
use benches::{Contender, Stopwatch, scaled, timed};
use criterion::{Criterion, criterion_group, criterion_main};

/// Returns the number of rounds of a sample: enough that the start costs little.
fn rounds(iterations: u64) -> u64 {
    iterations.max(1000)
}

fn greenhub_channel(rounds: u64) -> Duration {
    use greenhub::sync::mpsc::channel;
    let ((there, arrived), (back, returned)) = (channel(), channel());
    let watch = Stopwatch::start();
    let bounce = greenhub::spawn(move || arrived.iter().try_for_each(|number: u64| back.send(number)));
    let send = greenhub::spawn(move || {
        for number in 0..rounds {
            there.send(number).expect("the receiver lives");
            assert_eq!(returned.recv(), Ok(number));
        }
    });
    send.join().expect("no panic");
    bounce.join().expect("no panic").expect("the receiver lives");
    watch.elapsed()
}

fn may_channel(rounds: u64) -> Duration {
    use may::sync::mpsc::channel;
    let ((there, arrived), (back, returned)) = (channel(), channel());
    let watch = Stopwatch::start();
    let bounce = may::go!(move || arrived.iter().try_for_each(|number: u64| back.send(number)));
    let send = may::go!(move || {
        for number in 0..rounds {
            there.send(number).expect("the receiver lives");
            assert_eq!(returned.recv(), Ok(number));
        }
    });
    send.join().expect("no panic");
    bounce.join().expect("no panic").expect("the receiver lives");
    watch.elapsed()
}

fn tokio_channel(rounds: u64) -> Duration {
    use tokio::sync::mpsc::unbounded_channel as channel;
    let ((there, mut arrived), (back, mut returned)) = (channel(), channel());
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async move {
        let watch = Stopwatch::start();
        let bounce = tokio::spawn(async move {
            while let Some(number) = arrived.recv().await {
                let number: u64 = number;
                back.send(number).expect("the receiver lives");
            }
        });
        let send = tokio::spawn(async move {
            for number in 0..rounds {
                there.send(number).expect("the receiver lives");
                assert_eq!(returned.recv().await, Some(number));
            }
        });
        send.await.expect("no panic");
        bounce.await.expect("no panic");
        watch.elapsed()
    })
}

fn smol_channel(rounds: u64) -> Duration {
    use smol::channel::unbounded as channel;
    let ((there, arrived), (back, returned)) = (channel(), channel());
    let executor = smol::LocalExecutor::new();
    let watch = Stopwatch::start();
    let bounce = executor.spawn(async move {
        while let Ok(number) = arrived.recv().await {
            let number: u64 = number;
            back.send(number).await.expect("the receiver lives");
        }
    });
    let send = executor.spawn(async move {
        for number in 0..rounds {
            there.send(number).await.expect("the receiver lives");
            assert_eq!(returned.recv().await, Ok(number));
        }
    });
    smol::future::block_on(executor.run(async {
        send.await;
        bounce.await;
    }));
    watch.elapsed()
}

/// Sends between two OS threads, as a program without green threads does.
fn std_channel(rounds: u64) -> Duration {
    use sync::mpsc::channel;
    let ((there, arrived), (back, returned)) = (channel(), channel());
    let watch = Stopwatch::start();
    let bounce = std::thread::spawn(move || arrived.iter().try_for_each(|number: u64| back.send(number)));
    for number in 0..rounds {
        there.send(number).expect("the receiver lives");
        assert_eq!(returned.recv(), Ok(number));
    }
    drop(there);
    bounce.join().expect("no panic").expect("the receiver lives");
    watch.elapsed()
}

/// Sends by tokio's channel between two green threads, which wait for its futures.
fn greenhub_future(rounds: u64) -> Duration {
    use greenhub::future::block_on;
    use tokio::sync::mpsc::unbounded_channel as channel;
    let ((there, mut arrived), (back, mut returned)) = (channel::<u64>(), channel());
    let bounce = move || {
        while let Some(number) = block_on(arrived.recv()) {
            back.send(number).expect("the receiver lives");
        }
    };
    let send = move || {
        for number in 0..rounds {
            there.send(number).expect("the receiver lives");
            assert_eq!(block_on(returned.recv()), Some(number));
        }
    };
    both_green(send, bounce)
}

fn greenhub_queue(rounds: u64) -> Duration {
    use greenhub::sync::Queue;
    let queues = Arc::new((Queue::new(), Queue::new()));
    let other = Arc::clone(&queues);
    let bounce =
        move || (0..rounds).for_each(|_| other.1.put(other.0.get().expect("one comes")).expect("there is room"));
    let send = move || {
        for number in 0..rounds {
            queues.0.put(number).expect("there is room");
            assert_eq!(queues.1.get().ok(), Some(number));
        }
    };
    both_green(send, bounce)
}

/// Sends between the green threads of two OS threads: each message wakes a hub.
fn greenhub_across(rounds: u64) -> Duration {
    use greenhub::sync::mpsc::channel;
    let ((there, arrived), (back, returned)) = (channel(), channel());
    let in_green = |body: Box<dyn FnOnce() + Send>| move || greenhub::spawn(body).join().expect("no panic");
    let bounce = move || arrived.iter().try_for_each(|number: u64| back.send(number)).expect("the receiver lives");
    let send = move || {
        for number in 0..rounds {
            there.send(number).expect("the receiver lives");
            assert_eq!(returned.recv(), Ok(number));
        }
    };
    both_threads(in_green(Box::new(send)), in_green(Box::new(bounce)))
}

fn tokio_across(rounds: u64) -> Duration {
    use tokio::sync::mpsc::unbounded_channel as channel;
    let ((there, mut arrived), (back, mut returned)) = (channel(), channel::<u64>());
    let bounce = async move {
        while let Some(number) = arrived.recv().await {
            back.send(number).expect("the receiver lives");
        }
    };
    let send = async move {
        for number in 0..rounds {
            there.send(number).expect("the receiver lives");
            assert_eq!(returned.recv().await, Some(number));
        }
    };
    both_threads(|| tokio_runtime().block_on(send), || tokio_runtime().block_on(bounce))
}

fn greenhub_event(rounds: u64) -> Duration {
    use greenhub::sync::Event;
    let events = Arc::new((Event::new(), Event::new()));
    let other = Arc::clone(&events);
    let answer = move || {
        for _ in 0..rounds {
            let number = other.0.wait().expect("the event is sent");
            other.0.reset().expect("the event was sent");
            other.1.send(number).expect("the event was reset");
        }
    };
    let ask = move || {
        for number in 0..rounds {
            events.0.send(number).expect("the event was reset");
            assert_eq!(events.1.wait().ok(), Some(number));
            events.1.reset().expect("the event was sent");
        }
    };
    both_green(ask, answer)
}

fn greenhub_notify(rounds: u64) -> Duration {
    use greenhub::sync::Notify;
    let pair = Arc::new((Notify::new(), Notify::new()));
    let other = Arc::clone(&pair);
    let answer = move || {
        for _ in 0..rounds {
            other.0.wait().expect("a notification comes");
            other.1.notify_one();
        }
    };
    let ask = move || {
        for _ in 0..rounds {
            pair.0.notify_one();
            pair.1.wait().expect("a notification comes");
        }
    };
    both_green(ask, answer)
}

fn tokio_notify(rounds: u64) -> Duration {
    let pair = Arc::new((tokio::sync::Notify::new(), tokio::sync::Notify::new()));
    let other = Arc::clone(&pair);
    let answer = async move {
        for _ in 0..rounds {
            other.0.notified().await;
            other.1.notify_one();
        }
    };
    let ask = async move {
        for _ in 0..rounds {
            pair.0.notify_one();
            pair.1.notified().await;
        }
    };
    both_tasks(ask, answer)
}

/// Takes turns by a mutex and a condition variable of the given library.
macro_rules! turns {
    ($sync:path, $both:expr, $rounds:expr) => {{
        use $sync as here;
        let rounds = $rounds;
        let shared = Arc::new((here::Mutex::new(0_u64), here::Condvar::new()));
        let player = |side: u64| {
            let shared = Arc::clone(&shared);
            move || {
                let mut turn = shared.0.lock().expect("no poison");
                for _ in 0..rounds {
                    turn = shared.1.wait_while(turn, |turn| *turn % 2 != side).expect("no poison");
                    *turn += 1;
                    shared.1.notify_one();
                }
            }
        };
        $both(player(0), player(1))
    }};
}

fn greenhub_turns(rounds: u64) -> Duration {
    turns!(greenhub::sync, both_green, rounds)
}

fn std_turns(rounds: u64) -> Duration {
    turns!(sync, both_threads, rounds)
}

fn there_and_back(criterion: &mut Criterion, group: &str, contenders: &[Contender]) {
    let mut group = criterion.benchmark_group(group);
    for (name, run) in contenders {
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|iterations| {
                let rounds = rounds(iterations);
                scaled(run(rounds), rounds, iterations)
            });
        });
    }
}

fn channels(criterion: &mut Criterion) {
    may::config().set_workers(1);
    there_and_back(
        criterion,
        "a message there and back",
        &[
            ("greenhub", greenhub_channel),
            ("greenhub, Queue", greenhub_queue),
            ("greenhub, tokio's channel", greenhub_future),
            ("tokio", tokio_channel),
            ("may", may_channel),
            ("smol", smol_channel),
            ("std, two OS threads", std_channel),
            ("greenhub, two OS threads", greenhub_across),
            ("tokio, two OS threads", tokio_across),
        ],
    );
    there_and_back(
        criterion,
        "an event there and back",
        &[("greenhub", greenhub_event), ("greenhub, Notify", greenhub_notify), ("tokio, Notify", tokio_notify)],
    );
    there_and_back(
        criterion,
        "a turn by Condvar there and back",
        &[("greenhub", greenhub_turns), ("std, two OS threads", std_turns)],
    );
}

/// Sends and then receives in one thread, so that no receive waits.
fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a message that is there when it is asked for");
    group.bench_function("greenhub, mpsc", |bencher| {
        let (sender, receiver) = greenhub::sync::mpsc::channel();
        bencher.iter_custom(|count| {
            timed(count, || {
                sender.send(1_u64).expect("the receiver is there");
                receiver.recv()
            })
        });
    });
    group.bench_function("std, mpsc", |bencher| {
        let (sender, receiver) = sync::mpsc::channel();
        bencher.iter_custom(|count| {
            timed(count, || {
                sender.send(1_u64).expect("the receiver is there");
                receiver.recv()
            })
        });
    });
    group.bench_function("tokio, mpsc", |bencher| {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        bencher.iter_custom(|count| {
            timed(count, || {
                sender.send(1_u64).expect("the receiver is there");
                receiver.try_recv()
            })
        });
    });
    group.bench_function("greenhub, Queue", |bencher| {
        let queue = greenhub::sync::Queue::new();
        bencher.iter_custom(|count| {
            timed(count, || {
                queue.put(1_u64).expect("there is room");
                queue.get().expect("an item")
            })
        });
    });
}

/// Waits for a future that is ready at once.
fn futures(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a future that is ready");
    group.bench_function("greenhub", |bencher| {
        // In a green thread, as in a program that has some.
        bencher.iter_custom(|count| {
            let waits = move || timed(count, || greenhub::future::block_on(std::future::ready(1_u64)));
            greenhub::spawn(waits).join().expect("no panic")
        });
    });
    group.bench_function("futures, executor", |bencher| {
        bencher.iter_custom(|count| timed(count, || futures_executor::block_on(std::future::ready(1_u64))));
    });
    group.bench_function("tokio, current thread", |bencher| {
        let runtime = tokio_runtime();
        bencher.iter_custom(|count| timed(count, || runtime.block_on(std::future::ready(1_u64))));
    });
}

fn locks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("locked and unlocked, free");
    group.bench_function("greenhub, Mutex", |bencher| {
        let mutex = greenhub::sync::Mutex::new(0_u64);
        bencher.iter_custom(|count| timed(count, || *mutex.lock().expect("no poison") += 1));
    });
    group.bench_function("greenhub, Mutex that two OS threads have used", |bencher| {
        let mutex = greenhub::sync::Mutex::new(0_u64);
        std::thread::scope(|scope| scope.spawn(|| drop(mutex.lock())).join().expect("no panic"));
        bencher.iter_custom(|count| timed(count, || *mutex.lock().expect("no poison") += 1));
    });
    group.bench_function("std, Mutex", |bencher| {
        let mutex = sync::Mutex::new(0_u64);
        bencher.iter_custom(|count| timed(count, || *mutex.lock().expect("no poison") += 1));
    });
    group.bench_function("greenhub, RwLock, to read", |bencher| {
        let lock = greenhub::sync::RwLock::new(1_u64);
        bencher.iter_custom(|count| timed(count, || *lock.read().expect("no poison")));
    });
    group.bench_function("std, RwLock, to read", |bencher| {
        let lock = sync::RwLock::new(1_u64);
        bencher.iter_custom(|count| timed(count, || *lock.read().expect("no poison")));
    });
    group.bench_function("tokio, RwLock, to read", |bencher| {
        let lock = tokio::sync::RwLock::new(1_u64);
        bencher.iter_custom(|count| timed(count, || *lock.try_read().expect("no writer")));
    });
    group.bench_function("greenhub, RwLock, to write", |bencher| {
        let lock = greenhub::sync::RwLock::new(1_u64);
        bencher.iter_custom(|count| timed(count, || *lock.write().expect("no poison") += 1));
    });
    group.bench_function("std, RwLock, to write", |bencher| {
        let lock = sync::RwLock::new(1_u64);
        bencher.iter_custom(|count| timed(count, || *lock.write().expect("no poison") += 1));
    });
    group.bench_function("greenhub, Semaphore", |bencher| {
        let semaphore = greenhub::sync::Semaphore::new(1);
        bencher.iter_custom(|count| {
            timed(count, || {
                semaphore.acquire().expect("a free permit");
                semaphore.release();
            })
        });
    });
    group.bench_function("tokio, Semaphore", |bencher| {
        let semaphore = tokio::sync::Semaphore::new(1);
        bencher.iter_custom(|count| timed(count, || drop(semaphore.try_acquire().expect("a free permit"))));
    });
}

criterion_group!(benches, channels, messages, futures, locks);
criterion_main!(benches);
