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
use greenhub::gevent::{Watcher, event_loop};
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

criterion_group!(benches, timers, echoes);
criterion_main!(benches);
