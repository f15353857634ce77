//! A task that sleeps among tasks of Tokio's current-thread runtime that never wait.

use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::unix_listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::{SLEEP, work};

/// A task that never waits, until the flag is set.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A name, and a function that makes a task.
type Kind = (&'static str, fn(Arc<AtomicBool>) -> Task);

/// The kinds of operations, in the order of the green threads.
pub(crate) const KINDS: [Kind; 4] = [
    ("socket", |stop| Box::pin(sockets(stop))),
    ("queue", |stop| Box::pin(queue(stop))),
    ("yield", |stop| Box::pin(yields(stop))),
    ("accept", |stop| Box::pin(accepts(stop))),
];

/// Returns the times between the wake-ups.
pub(crate) fn gaps(make: fn(Arc<AtomicBool>) -> Task, greedy: usize, time: Duration) -> Vec<Duration> {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let begun = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let all: Vec<_> = (0..greedy).map(|_| tokio::spawn(make(stop.clone()))).collect();
        let ticker = tokio::spawn(async move {
            let (mut gaps, mut last) = (Vec::new(), Instant::now());
            while begun.elapsed() < time {
                tokio::time::sleep(SLEEP).await;
                gaps.push(last.elapsed());
                last = Instant::now();
            }
            gaps
        });
        let gaps = ticker.await.expect("no panic");
        stop.store(true, Ordering::Relaxed);
        for one in all {
            one.await.expect("no panic");
        }
        gaps
    })
}

async fn sockets(stop: Arc<AtomicBool>) {
    let (mut near, mut far) = UnixStream::pair().expect("a pair");
    while !stop.load(Ordering::Relaxed) {
        near.write_all(&[7]).await.expect("there is room");
        far.read_exact(&mut [0]).await.expect("the byte was sent");
        work();
    }
}

async fn queue(stop: Arc<AtomicBool>) {
    let (put, mut get) = mpsc::channel(1);
    while !stop.load(Ordering::Relaxed) {
        put.send(7).await.expect("there is room");
        get.recv().await.expect("the item was put");
        work();
    }
}

async fn yields(stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        yield_now().await;
        work();
    }
}

async fn accepts(stop: Arc<AtomicBool>) {
    let (listener, address) = unix_listener().expect("a listener");
    listener.set_nonblocking(true).expect("a listener");
    let listener = UnixListener::from_std(listener).expect("the runtime takes the listener");
    while !stop.load(Ordering::Relaxed) {
        let connection = StdStream::connect_addr(&address).expect("the listener is bound");
        listener.accept().await.expect("a pending connection");
        drop(connection);
        work();
    }
}
