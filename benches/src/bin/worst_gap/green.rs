//! A main greenlet that sleeps among green threads that never wait.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use benches::unix_listener;
use greenhub::os::unix::net::{UnixListener, UnixStream};
use greenhub::sync::Queue;

use crate::{SLEEP, work};

/// One round of a green thread that never waits.
type Operation = Box<dyn FnMut()>;

/// A name, and a function that makes an operation.
type Kind = (&'static str, fn() -> Operation);

/// The kinds of operations, in the order of the tasks.
pub(crate) const KINDS: [Kind; 4] =
    [("socket", socket), ("queue", queue), ("yield", || Box::new(greenhub::thread::yield_now)), ("accept", accept)];

/// Returns the times between the wake-ups.
pub(crate) fn gaps(make: fn() -> Operation, greedy: usize, time: Duration) -> Vec<Duration> {
    let begun = Instant::now();
    let stop = Rc::new(Cell::new(false));
    let all: Vec<_> = (0..greedy)
        .map(|_| {
            let (stop, mut operation) = (stop.clone(), make());
            greenhub::spawn(move || {
                while !stop.get() {
                    operation();
                    work();
                }
            })
        })
        .collect();
    let (mut gaps, mut last) = (Vec::new(), Instant::now());
    while begun.elapsed() < time {
        greenhub::sleep(SLEEP);
        gaps.push(last.elapsed());
        last = Instant::now();
    }
    stop.set(true);
    all.into_iter().for_each(|one| one.join().expect("no panic"));
    gaps
}

/// Returns an operation that sends a byte over a pair of sockets and reads it, so that the read need not wait.
fn socket() -> Operation {
    let (mut near, mut far) = UnixStream::pair().expect("a pair");
    Box::new(move || {
        near.write_all(&[7]).expect("there is room");
        far.read_exact(&mut [0]).expect("the byte was sent");
    })
}

fn queue() -> Operation {
    let queue = Queue::new();
    Box::new(move || {
        queue.put(7).expect("there is room");
        queue.get().expect("the item was put");
    })
}

/// Returns an operation that opens a connection before it accepts it, so that the accept need not wait.
fn accept() -> Operation {
    let (listener, address) = unix_listener().expect("a listener");
    let listener = UnixListener::from(listener);
    Box::new(move || {
        let connection = StdStream::connect_addr(&address).expect("the listener is bound");
        listener.accept().expect("a pending connection");
        drop(connection);
    })
}
