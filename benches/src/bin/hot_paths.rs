//! Does one thing many times, for tools that count instructions.
//!
//! `hot_paths WHAT COUNT`; `cargo bench --package benches --bench instructions` runs it under valgrind with two counts and
//! divides the difference.

use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str =
    "usage: hot_paths (yield1 | yield2 | yield1000 | spawn_join | spawn_n | timer | timer100k | socketpair) COUNT";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, count] = &arguments[..] else { return wrong() };
    let Ok(count) = count.parse() else { return wrong() };
    let run: fn(usize) = match what.as_str() {
        "yield1" => |count| yields(1, count),
        "yield2" => |count| yields(2, count),
        "yield1000" => |count| yields(1000, count),
        "spawn_join" => spawn_join,
        "spawn_n" => spawn_n,
        "timer" => |count| timer(0, count),
        "timer100k" => |count| timer(100_000, count),
        "socketpair" => socketpair,
        _ => return wrong(),
    };
    run(count);
    ExitCode::SUCCESS
}

fn wrong() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// `count` yields in all, by so many green threads.
fn yields(threads: usize, count: usize) {
    let each = count / threads;
    let yielding = move || (0..each).for_each(|_| greenhub::yield_now());
    let running: Vec<_> = (0..threads).map(|_| greenhub::spawn(yielding)).collect();
    for one in running {
        one.join().expect("yields only");
    }
}

/// `count` green threads spawned and joined, a thousand at a time.
fn spawn_join(count: usize) {
    let mut batch = Vec::with_capacity(1000);
    for _ in 0..count / 1000 {
        batch.extend((0..1000).map(|number| greenhub::spawn(move || number)));
        for (number, one) in batch.drain(..).enumerate() {
            assert_eq!(one.join().expect("returns only"), number);
        }
    }
}

/// `count` green threads without a handle, a thousand at a time.
fn spawn_n(count: usize) {
    for _ in 0..count / 1000 {
        (0..1000).for_each(|_| greenhub::spawn_n(|| ()));
        greenhub::spawn(|| ()).join().expect("returns only");
    }
}

/// `count` timeouts armed and cancelled while others are armed.
fn timer(others: u32, count: usize) {
    let hub = greenhub::get_hub();
    for number in 0..others {
        hub.schedule(Duration::from_secs(60 + u64::from(number % 600)), || ());
    }
    greenhub::sleep(Duration::from_millis(1));
    greenhub::spawn(move || {
        for _ in 0..count {
            greenhub::with_timeout(Duration::from_secs(30), || ()).expect("at once");
        }
    })
    .join()
    .expect("arms only");
    hub.abort();
}

/// `count` bytes sent through a socket pair and back.
fn socketpair(count: usize) {
    use std::io::{Read, Write};
    let (mut near, mut far) = greenhub::os::unix::net::UnixStream::pair().expect("a pair");
    let echo = greenhub::spawn(move || {
        let mut byte = [0];
        while far.read(&mut byte).expect("read") == 1 {
            far.write_all(&byte).expect("written");
        }
    });
    let mut byte = [7];
    for _ in 0..count {
        near.write_all(&byte).expect("written");
        near.read_exact(&mut byte).expect("read");
    }
    drop(near);
    echo.join().expect("ended");
}
