//! The channels of Tokio's names beside Tokio's: `oneshot`, `watch`, `broadcast` and `Notify`, with and without a wait.

use std::time::Duration;

use benches::both::{both_green, both_tasks, tokio_runtime};
use benches::{Contender, Stopwatch, scaled, timed};
use criterion::{Criterion, criterion_group, criterion_main};

/// The number of values that a channel of `broadcast` keeps.
const KEPT: usize = 16;

/// Measures the time that a future of Tokio takes.
fn in_task(future: impl Future<Output = ()>) -> Duration {
    tokio_runtime().block_on(async move {
        let watch = Stopwatch::start();
        future.await;
        watch.elapsed()
    })
}

/// Asks by `mpsc`, with a new `oneshot` for the answer.
fn greenhub_answers(rounds: u64) -> Duration {
    use greenhub::sync::{mpsc, oneshot};
    let (ask, asked) = mpsc::channel::<(u64, oneshot::Sender<u64>)>();
    let answers = move || {
        for (number, answer) in asked {
            answer.send(number).expect("the receiver lives");
        }
    };
    let asks = move || {
        for number in 0..rounds {
            let (answer, answered) = oneshot::channel();
            ask.send((number, answer)).expect("the receiver lives");
            assert_eq!(answered.recv().ok(), Some(number));
        }
    };
    both_green(asks, answers)
}

fn tokio_answers(rounds: u64) -> Duration {
    use tokio::sync::{mpsc, oneshot};
    let (ask, mut asked) = mpsc::unbounded_channel::<(u64, oneshot::Sender<u64>)>();
    let answers = async move {
        while let Some((number, answer)) = asked.recv().await {
            answer.send(number).expect("the receiver lives");
        }
    };
    let asks = async move {
        for number in 0..rounds {
            let (answer, answered) = oneshot::channel();
            ask.send((number, answer)).expect("the receiver lives");
            assert_eq!(answered.await, Ok(number));
        }
    };
    both_tasks(asks, answers)
}

fn greenhub_watch(rounds: u64) -> Duration {
    use greenhub::sync::watch::channel;
    let ((there, mut arrived), (back, mut returned)) = (channel(u64::MAX), channel(u64::MAX));
    let bounce = move || {
        while arrived.changed().is_ok() {
            let number = *arrived.borrow();
            back.send(number).expect("the receiver lives");
        }
    };
    let send = move || {
        for number in 0..rounds {
            there.send(number).expect("the receiver lives");
            returned.changed().expect("the sender lives");
            assert_eq!(*returned.borrow(), number);
        }
    };
    both_green(send, bounce)
}

fn tokio_watch(rounds: u64) -> Duration {
    use tokio::sync::watch::channel;
    let ((there, mut arrived), (back, mut returned)) = (channel(u64::MAX), channel(u64::MAX));
    let bounce = async move {
        while arrived.changed().await.is_ok() {
            let number = *arrived.borrow();
            back.send(number).expect("the receiver lives");
        }
    };
    let send = async move {
        for number in 0..rounds {
            there.send(number).expect("the receiver lives");
            returned.changed().await.expect("the sender lives");
            assert_eq!(*returned.borrow(), number);
        }
    };
    both_tasks(send, bounce)
}

fn greenhub_broadcast(rounds: u64) -> Duration {
    use greenhub::sync::broadcast::channel;
    let ((there, mut arrived), (back, mut returned)) = (channel(KEPT), channel(KEPT));
    let bounce = move || {
        while let Ok(number) = arrived.recv() {
            let number: u64 = number;
            back.send(number).expect("the receiver lives");
        }
    };
    let send = move || {
        for number in 0..rounds {
            there.send(number).expect("the receiver lives");
            assert_eq!(returned.recv().ok(), Some(number));
        }
    };
    both_green(send, bounce)
}

fn tokio_broadcast(rounds: u64) -> Duration {
    use tokio::sync::broadcast::channel;
    let ((there, mut arrived), (back, mut returned)) = (channel(KEPT), channel(KEPT));
    let bounce = async move {
        while let Ok(number) = arrived.recv().await {
            let number: u64 = number;
            back.send(number).expect("the receiver lives");
        }
    };
    let send = async move {
        for number in 0..rounds {
            there.send(number).expect("the receiver lives");
            assert_eq!(returned.recv().await.ok(), Some(number));
        }
    };
    both_tasks(send, bounce)
}

fn there_and_back(criterion: &mut Criterion) {
    let groups: [(&str, [Contender; 2]); 3] = [
        ("a question by mpsc, its answer by oneshot", [("greenhub", greenhub_answers), ("tokio", tokio_answers)]),
        ("a value of watch there and back", [("greenhub", greenhub_watch), ("tokio", tokio_watch)]),
        ("a value of broadcast there and back", [("greenhub", greenhub_broadcast), ("tokio", tokio_broadcast)]),
    ];
    for (group, contenders) in groups {
        bench(criterion, group, &contenders);
    }
}

fn greenhub_oneshot_ready(rounds: u64) -> Duration {
    use greenhub::sync::oneshot::channel;
    timed(rounds, || {
        let (sender, receiver) = channel();
        sender.send(1_u64).expect("the receiver lives");
        receiver.recv().expect("a value is there")
    })
}

fn tokio_oneshot_ready(rounds: u64) -> Duration {
    use tokio::sync::oneshot::channel;
    in_task(async move {
        for _ in 0..rounds {
            let (sender, receiver) = channel();
            sender.send(1_u64).expect("the receiver lives");
            assert_eq!(receiver.await, Ok(1));
        }
    })
}

fn greenhub_watch_ready(rounds: u64) -> Duration {
    let (sender, mut receiver) = greenhub::sync::watch::channel(0_u64);
    timed(rounds, || {
        sender.send(1).expect("the receiver lives");
        receiver.changed().expect("the value has changed");
        *receiver.borrow()
    })
}

fn tokio_watch_ready(rounds: u64) -> Duration {
    let (sender, mut receiver) = tokio::sync::watch::channel(0_u64);
    in_task(async move {
        for _ in 0..rounds {
            sender.send(1).expect("the receiver lives");
            receiver.changed().await.expect("the value has changed");
            assert_eq!(*receiver.borrow(), 1);
        }
    })
}

fn greenhub_broadcast_ready(rounds: u64) -> Duration {
    let (sender, mut receiver) = greenhub::sync::broadcast::channel(KEPT);
    timed(rounds, || {
        sender.send(1_u64).expect("the receiver lives");
        receiver.recv().expect("a value is there")
    })
}

fn tokio_broadcast_ready(rounds: u64) -> Duration {
    let (sender, mut receiver) = tokio::sync::broadcast::channel(KEPT);
    in_task(async move {
        for _ in 0..rounds {
            sender.send(1_u64).expect("the receiver lives");
            assert_eq!(receiver.recv().await.ok(), Some(1));
        }
    })
}

/// Sends one value to each of ten receivers.
fn greenhub_broadcast_ten(rounds: u64) -> Duration {
    let (sender, receiver) = greenhub::sync::broadcast::channel(KEPT);
    let mut receivers: Vec<_> = (0..10).map(|_| receiver.resubscribe()).collect();
    drop(receiver);
    timed(rounds, || {
        sender.send(1_u64).expect("the receivers live");
        receivers.iter_mut().map(|receiver| receiver.recv().expect("a value is there")).sum::<u64>()
    })
}

fn tokio_broadcast_ten(rounds: u64) -> Duration {
    let (sender, receiver) = tokio::sync::broadcast::channel(KEPT);
    let mut receivers: Vec<_> = (0..10).map(|_| receiver.resubscribe()).collect();
    drop(receiver);
    in_task(async move {
        for _ in 0..rounds {
            sender.send(1_u64).expect("the receivers live");
            for receiver in &mut receivers {
                assert_eq!(receiver.recv().await.ok(), Some(1));
            }
        }
    })
}

fn greenhub_notify_ready(rounds: u64) -> Duration {
    let notify = greenhub::sync::Notify::new();
    timed(rounds, || {
        notify.notify_one();
        notify.wait().expect("a permit is there");
    })
}

fn tokio_notify_ready(rounds: u64) -> Duration {
    let notify = tokio::sync::Notify::new();
    in_task(async move {
        for _ in 0..rounds {
            notify.notify_one();
            notify.notified().await;
        }
    })
}

fn ready(criterion: &mut Criterion) {
    let groups: [(&str, [Contender; 2]); 5] = [
        ("a oneshot made, sent and received", [("greenhub", greenhub_oneshot_ready), ("tokio", tokio_oneshot_ready)]),
        ("a value of watch that is there", [("greenhub", greenhub_watch_ready), ("tokio", tokio_watch_ready)]),
        (
            "a value of broadcast that is there",
            [("greenhub", greenhub_broadcast_ready), ("tokio", tokio_broadcast_ready)],
        ),
        (
            "a value of broadcast for ten receivers",
            [("greenhub", greenhub_broadcast_ten), ("tokio", tokio_broadcast_ten)],
        ),
        ("a permit of Notify that is there", [("greenhub", greenhub_notify_ready), ("tokio", tokio_notify_ready)]),
    ];
    for (group, contenders) in groups {
        bench(criterion, group, &contenders);
    }
}

/// Measures each contender in a sample of at least a thousand rounds, so that the start costs little.
fn bench(criterion: &mut Criterion, group: &str, contenders: &[Contender]) {
    let mut group = criterion.benchmark_group(group);
    for (name, run) in contenders {
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|iterations| {
                let rounds = iterations.max(1000);
                scaled(run(rounds), rounds, iterations)
            });
        });
    }
}

criterion_group!(benches, there_and_back, ready);
criterion_main!(benches);
