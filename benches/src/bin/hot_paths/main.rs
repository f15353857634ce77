//! Performs an operation a number of times, for tools that count: `hot_paths PATH COUNT`. Prints its allocations.
//!
//! `cargo xtask costs` runs this program with two counts under valgrind and under strace. It divides the differences by
//! the difference of the counts, and compares the counts per operation with a table.

mod allocations;

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use benches::awaiting::runtime;
use greenhub::future::{block_on, defer_to_green_thread};
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::os::unix::net::UnixStream;
use greenhub::sync::{Mutex, Notify, Queue, broadcast, mpsc, oneshot, watch};

const USAGE: &str = "usage: hot_paths (switch | yield1 | yield2 | yield1000 | spawn_join | spawn_n | timer | timer100k | sleep | channel | queue | mpsc_ready | queue_ready | oneshot | watch | broadcast | notify | mutex | across | echo | echo1000 | raw_echo | raw_echo1000 | tokio_echo | tokio_peer | tokio_task | joined_echo | joined_peer | joined_task) COUNT";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, count] = &arguments[..] else { return wrong() };
    let Ok(count) = count.parse() else { return wrong() };
    let run: fn(usize) = match path.as_str() {
        "switch" => switch,
        "yield1" => |count| yields(1, count),
        "yield2" => |count| yields(2, count),
        "yield1000" => |count| yields(1000, count),
        "spawn_join" => spawn_join,
        "spawn_n" => spawn_n,
        "timer" => |count| timer(0, count),
        "timer100k" => |count| timer(100_000, count),
        "sleep" => sleep,
        "channel" => channel,
        "queue" => queue,
        "mpsc_ready" => mpsc_ready,
        "queue_ready" => queue_ready,
        "oneshot" => oneshot,
        "watch" => watch,
        "broadcast" => broadcast,
        "notify" => notify,
        "mutex" => mutex,
        "across" => across,
        "echo" => |count| echo(1, count),
        "echo1000" => |count| echo(1000, count),
        "raw_echo" => |count| raw_echo(1, count),
        "raw_echo1000" => |count| raw_echo(1000, count),
        "tokio_echo" => |count| implicit(move || echo(1, count)),
        "tokio_peer" => |count| implicit(move || peer(count)),
        "tokio_task" => |count| implicit(move || task(count)),
        "joined_echo" => |count| joined(move || echo(1, count)),
        "joined_peer" => |count| joined(move || peer(count)),
        "joined_task" => |count| joined(move || task(count)),
        _ => return wrong(),
    };
    // The tools slow the program down. Without a time limit its turns are the same as without the tools.
    greenhub::hub::set_turn_time(Duration::MAX);
    run(count);
    println!("allocations: {}", allocations::count());
    ExitCode::SUCCESS
}

fn wrong() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// Switches to a greenlet and back `count` times.
fn switch(count: usize) {
    let main = Greenlet::main();
    let bounce = Greenlet::new(move |mut payload| {
        loop {
            payload = main.switch(payload)?;
        }
    });
    for _ in 0..count {
        bounce.switch(Payload::unit()).expect("the greenlet is alive");
    }
}

/// Yields `count` times in all, in the given number of green threads.
fn yields(threads: usize, count: usize) {
    let each = count / threads;
    let yielding = move || (0..each).for_each(|_| greenhub::thread::yield_now());
    let running: Vec<_> = (0..threads).map(|_| greenhub::spawn(yielding)).collect();
    for one in running {
        one.join().expect("no panic");
    }
}

/// Spawns and joins `count` green threads, a thousand at a time.
fn spawn_join(count: usize) {
    let mut batch = Vec::with_capacity(1000);
    for _ in 0..count / 1000 {
        batch.extend((0..1000).map(|number| greenhub::spawn(move || number)));
        for (number, one) in batch.drain(..).enumerate() {
            assert_eq!(one.join().expect("no panic"), number);
        }
    }
}

/// Spawns `count` green threads without a handle, a thousand at a time.
fn spawn_n(count: usize) {
    for _ in 0..count / 1000 {
        (0..1000).for_each(|_| greenhub::spawn_n(|| ()));
        greenhub::spawn(|| ()).join().expect("no panic");
    }
}

/// Arms and cancels `count` timeouts while others are armed.
fn timer(others: u32, count: usize) {
    let hub = greenhub::get_hub();
    for number in 0..others {
        hub.schedule(Duration::from_secs(60 + u64::from(number % 600)), || ());
    }
    greenhub::sleep(Duration::from_millis(1));
    greenhub::spawn(move || {
        for _ in 0..count {
            greenhub::with_timeout(Duration::from_secs(30), || ()).expect("no timeout");
        }
    })
    .join()
    .expect("no panic");
    hub.abort();
}

/// Sleeps for one nanosecond `count` times, each with a turn of the main loop.
fn sleep(count: usize) {
    (0..count).for_each(|_| greenhub::sleep(Duration::from_nanos(1)));
}

/// Sends `count` messages between two green threads and back.
fn channel(count: usize) {
    let ((there, arrived), (back, returned)) = (mpsc::channel(), mpsc::channel());
    let bounce = greenhub::spawn(move || arrived.iter().try_for_each(|number: usize| back.send(number)));
    let send = greenhub::spawn(move || {
        for number in 0..count {
            there.send(number).expect("the receiver lives");
            assert_eq!(returned.recv(), Ok(number));
        }
    });
    send.join().expect("no panic");
    bounce.join().expect("no panic").expect("the receiver lives");
}

/// Passes `count` items between two green threads and back, by queues.
fn queue(count: usize) {
    let queues = Arc::new((Queue::new(), Queue::new()));
    let other = Arc::clone(&queues);
    let bounce =
        greenhub::spawn(move || (0..count).try_for_each(|_| other.1.put(other.0.get().expect("the queue is open"))));
    let send = greenhub::spawn(move || {
        for number in 0..count {
            queues.0.put(number).expect("the queue is open");
            assert_eq!(queues.1.get().ok(), Some(number));
        }
    });
    send.join().expect("no panic");
    bounce.join().expect("no panic").expect("the queue is open");
}

/// Sends and receives `count` messages in one green thread, so that no receive waits.
fn mpsc_ready(count: usize) {
    let (sender, receiver) = mpsc::channel();
    for number in 0..count {
        sender.send(number).expect("the receiver lives");
        assert_eq!(receiver.recv(), Ok(number));
    }
}

/// Puts and gets `count` items in one green thread, so that no get waits.
fn queue_ready(count: usize) {
    let queue = Queue::new();
    for number in 0..count {
        queue.put(number).expect("the queue is open");
        assert_eq!(queue.get().ok(), Some(number));
    }
}

/// Makes `count` channels for one value, and sends and receives the value of each.
fn oneshot(count: usize) {
    for number in 0..count {
        let (sender, receiver) = oneshot::channel();
        sender.send(number).expect("the receiver lives");
        assert_eq!(receiver.recv().ok(), Some(number));
    }
}

/// Sends `count` values, and borrows each.
fn watch(count: usize) {
    let (sender, mut receiver) = watch::channel(count);
    for number in 0..count {
        sender.send(number).expect("the receiver lives");
        assert_eq!(*receiver.borrow_and_update(), number);
    }
}

/// Sends `count` values to one receiver.
fn broadcast(count: usize) {
    let (sender, mut receiver) = broadcast::channel(16);
    for number in 0..count {
        sender.send(number).expect("the receiver lives");
        assert_eq!(receiver.recv().ok(), Some(number));
    }
}

/// Stores and takes `count` permits.
fn notify(count: usize) {
    let notify = Notify::new();
    for _ in 0..count {
        notify.notify_one();
        notify.wait().expect("a permit is stored");
    }
}

/// Sends `count` messages between the green threads of two OS threads and back. Both loops sleep for each message.
fn across(count: usize) {
    greenhub::hub::set_busy_poll_time(None);
    let ((there, arrived), (back, returned)) = (mpsc::channel(), mpsc::channel());
    let other = std::thread::spawn(move || {
        let bounce = greenhub::spawn(move || arrived.iter().try_for_each(|number: usize| back.send(number)));
        bounce.join().expect("no panic").expect("the receiver lives");
    });
    let send = greenhub::spawn(move || {
        for number in 0..count {
            there.send(number).expect("the receiver lives");
            assert_eq!(returned.recv(), Ok(number));
        }
    });
    send.join().expect("no panic");
    other.join().expect("no panic");
}

/// Locks and unlocks a free mutex `count` times.
fn mutex(count: usize) {
    let counter = Mutex::new(0);
    (0..count).for_each(|_| *counter.lock().expect("no poison") += 1);
    assert_eq!(counter.into_inner().expect("no poison"), count);
}

/// Sends `count` messages of a byte in all over the given number of socket pairs and back.
fn echo(pairs: usize, count: usize) {
    let sockets = benches::unix_pairs(pairs).expect("enough descriptors").into_iter();
    let sockets = sockets.map(|(near, far)| (UnixStream::from(near), UnixStream::from(far)));
    benches::green::ping_pong(sockets.collect(), (count / pairs) as u64, 1);
}

/// Does what [`echo`] does by a loop of system calls, without green threads.
fn raw_echo(pairs: usize, count: usize) {
    benches::raw::ping_pong(benches::unix_pairs(pairs).expect("enough descriptors"), (count / pairs) as u64, 1);
}

/// Runs green threads on the hub `tokio`.
fn implicit(run: impl FnOnce() + 'static) {
    greenhub::use_hub("tokio").expect("the hub is compiled in");
    greenhub::spawn(run).join().expect("no panic");
}

/// Runs green threads inside a runtime of the program.
fn joined(run: impl FnOnce() + 'static) {
    greenhub::use_hub("epoll").expect("the hub is compiled in");
    let ran = runtime().block_on(hub_tokio::run_until(defer_to_green_thread(run)));
    ran.expect("the loop joins the runtime").expect("no panic");
}

/// Sends `count` messages of a byte to another OS thread and back. The loop sleeps until the descriptor is ready.
fn peer(count: usize) {
    let (near, far) = std::os::unix::net::UnixStream::pair().expect("enough descriptors");
    let bounce = std::thread::spawn(move || {
        let mut message = [0];
        for _ in 0..count {
            (&far).read_exact(&mut message).expect("a message comes");
            (&far).write_all(&message).expect("the peer reads");
        }
    });
    let mut near = UnixStream::from(std::os::fd::OwnedFd::from(near));
    for _ in 0..count {
        near.write_all(&[7]).expect("a message is sent");
        near.read_exact(&mut [0]).expect("the message comes back");
    }
    bounce.join().expect("no panic");
}

/// Wakes a task, and waits until the task wakes this green thread, `count` times.
fn task(count: usize) {
    let (ask, answer) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (asked, answering) = (Arc::clone(&ask), Arc::clone(&answer));
    let task = tokio::spawn(async move {
        loop {
            asked.notified().await;
            answering.notify_one();
        }
    });
    for _ in 0..count {
        ask.notify_one();
        block_on(answer.notified());
    }
    task.abort();
}
