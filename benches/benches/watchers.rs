//! gevent's watchers beside green threads: a timer that is started and stopped, and a byte that is sent back.

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::time::Duration;

use benches::{Stopwatch, scaled, timed};
use criterion::{Criterion, criterion_group, criterion_main};
use greenhub::Interest;
use greenhub::gevent::{Io, Run, Watcher, event_loop};
use greenhub::os::unix::net::UnixStream;

const LIMIT: Duration = Duration::from_secs(30);

fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("start and stop a timer");
    group.bench_function("watcher", |bencher| {
        let timer = event_loop().timer(LIMIT);
        timer.start(|_, ()| unreachable!("it is stopped")).expect("an open watcher");
        timer.stop();
        bencher.iter_custom(|count| {
            timed(count, || {
                timer.resume().expect("it has a callback");
                timer.stop();
            })
        });
    });
    group.bench_function("watcher, with a new callback", |bencher| {
        let timer = event_loop().timer(LIMIT);
        bencher.iter_custom(|count| {
            timed(count, || {
                timer.start(|_, ()| unreachable!("it is stopped")).expect("an open watcher");
                timer.stop();
            })
        });
    });
    group.bench_function("with_timeout", |bencher| {
        bencher.iter_custom(|count| timed(count, || greenhub::with_timeout(LIMIT, || black_box(()))));
    });
}

/// Returns the time of round trips between a green thread and `echo`, which gets the other end and a number of bytes.
fn round_trips<R: 'static>(count: u64, echo: impl FnOnce(StdStream) -> R) -> Duration {
    let (near, far) = StdStream::pair().expect("a pair of sockets");
    let echoing = echo(far);
    let mut near = UnixStream::from(OwnedFd::from(near));
    let asks = greenhub::spawn(move || {
        let watch = Stopwatch::start();
        for _ in 0..count {
            near.write_all(b"x").expect("the other end is open");
            near.read_exact(&mut [0]).expect("the byte comes back");
        }
        watch.elapsed()
    });
    let elapsed = asks.join().expect("no panic");
    drop(echoing);
    elapsed
}

fn echoes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a byte there and back");
    let mut bench = |name: &str, run: fn(u64) -> Duration| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let count = iterations.max(200);
                scaled(run(count), count, iterations)
            });
        });
    };
    bench("by a green thread", |count| {
        round_trips(count, |far| {
            let mut far = UnixStream::from(OwnedFd::from(far));
            greenhub::spawn(move || {
                let mut byte = [0];
                while far.read_exact(&mut byte).is_ok() {
                    far.write_all(&byte).expect("the other end is open");
                }
            })
        })
    });
    bench("between two watchers", between_watchers);
    bench("by a watcher", |count| {
        round_trips(count, |far| {
            far.set_nonblocking(true).expect("a socket");
            let far = Rc::new(far);
            let watcher = event_loop().io(Rc::clone(&far), Interest::READ).expect("a socket");
            let echo = move |_: &_, _| {
                let mut byte = [0];
                if (&*far).read_exact(&mut byte).is_ok() {
                    (&*far).write_all(&byte).expect("the other end is open");
                }
            };
            watcher.start(echo).expect("an open watcher");
            watcher
        })
    });
}

/// Returns the time of round trips between two watchers.
fn between_watchers(count: u64) -> Duration {
    let (near, far) = StdStream::pair().expect("a pair of sockets");
    let watcher = |end: StdStream, mut done: Box<dyn FnMut() -> bool>| {
        let end = Rc::new(end);
        let watcher = event_loop().io(Rc::clone(&end), Interest::READ).expect("a socket");
        let hand_back = move |watcher: &Io, _| {
            let mut byte = [0];
            (&*end).read_exact(&mut byte).expect("a byte is there");
            (&*end).write_all(&byte).expect("the other end is open");
            if done() {
                watcher.stop();
            }
        };
        watcher.start(hand_back).expect("an open watcher");
        watcher
    };
    let mut left = count;
    let first = near.try_clone().expect("a descriptor");
    let asks = move || {
        left -= 1;
        left == 0
    };
    let asking = watcher(near, Box::new(asks));
    let echoing = watcher(far, Box::new(|| false));
    echoing.set_counted(false);
    let watch = Stopwatch::start();
    (&first).write_all(b"x").expect("the other end is open");
    event_loop().run(Run::UntilIdle).expect("main is not embedded");
    drop((asking, echoing));
    watch.elapsed()
}

criterion_group!(benches, timers, echoes);
criterion_main!(benches);
