//! Random programs over a transport, against the bytes that its stream has seen.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use fastrand::Rng;
use greenhub::GreenThread;
use hub_tokio::GreenTransport;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use crate::support::{Mode, POLLABLE, in_modes, some_turns};

const SEEDS: u64 = 2000;
const STEPS: usize = 40;

/// A pipe that records what it accepts, flushes only sometimes, and is sometimes pending without a reason.
struct Recorded {
    pipe: DuplexStream,
    log: Rc<Log>,
}

struct Log {
    accepted: RefCell<Vec<u8>>,
    rng: RefCell<Rng>,
}

impl Log {
    /// Decides to be pending with a wake-up.
    fn holds_up(&self, cx: &Context<'_>) -> bool {
        let held_up = self.rng.borrow_mut().u8(..4) == 0;
        if held_up {
            cx.waker().wake_by_ref();
        }
        held_up
    }
}

impl AsyncRead for Recorded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.log.holds_up(cx) { Poll::Pending } else { Pin::new(&mut self.pipe).poll_read(cx, buffer) }
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.log.holds_up(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.pipe).poll_write(cx, data).map_ok(|n| {
            self.log.accepted.borrow_mut().extend_from_slice(&data[..n]);
            n
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.log.holds_up(cx) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.log.holds_up(cx) { Poll::Pending } else { Pin::new(&mut self.pipe).poll_shutdown(cx) }
    }
}

/// One of two ends, with the green threads that operate on it.
struct End {
    transport: Rc<GreenTransport<Recorded>>,
    log: Rc<Log>,
    /// The bytes that reads have returned.
    received: Rc<RefCell<Vec<u8>>>,
    /// The bytes that writes have returned as accepted. The bytes of a write that an exit unwound are missing.
    reported: Rc<Cell<usize>>,
    lost_reports: Cell<bool>,
    reader: RefCell<Option<GreenThread<()>>>,
    writer: RefCell<Option<GreenThread<()>>>,
    pauses: Cell<usize>,
}

impl End {
    fn new(pipe: DuplexStream, rng: &mut Rng) -> End {
        let log = Rc::new(Log { accepted: RefCell::default(), rng: RefCell::new(rng.fork()) });
        let transport = Rc::new(GreenTransport::new(Recorded { pipe, log: Rc::clone(&log) }));
        End {
            transport,
            log,
            received: Rc::default(),
            reported: Rc::default(),
            lost_reports: Cell::new(false),
            reader: RefCell::default(),
            writer: RefCell::default(),
            pauses: Cell::new(0),
        }
    }

    /// Returns the next bytes of the endless stream that this end sends: they follow what was accepted.
    fn next_bytes(log: &Log, n: usize) -> Vec<u8> {
        let begin = log.accepted.borrow().len();
        (begin..begin + n).map(|index| (index * 31 + index / 251) as u8).collect()
    }

    /// Does something at random.
    fn step(&self, rng: &mut Rng) {
        match rng.u8(..10) {
            0 | 1 if is_free(&self.reader) => self.read(rng),
            2 | 3 if is_free(&self.writer) => self.write(rng),
            4 => self.kill(&self.reader, rng),
            5 => self.kill(&self.writer, rng),
            6 => {
                self.transport.pause();
                self.pauses.set(self.pauses.get() + 1);
            }
            7 => {
                self.transport.resume();
                self.pauses.set(self.pauses.get().saturating_sub(1));
            }
            8 if is_free(&self.writer) => {
                let data = End::next_bytes(&self.log, rng.usize(1..20));
                if let Ok(n) = self.transport.write_nowait(&data) {
                    self.reported.set(self.reported.get() + n);
                }
            }
            _ => {
                self.transport.set_read_timeout(timeout(rng)).unwrap();
                self.transport.set_write_timeout(timeout(rng)).unwrap();
            }
        }
        assert_eq!(self.transport.is_paused(), self.pauses.get() != 0);
    }

    fn read(&self, rng: &mut Rng) {
        let (transport, received) = (Rc::clone(&self.transport), Rc::clone(&self.received));
        let (size, count) = (rng.usize(1..20), rng.usize(1..4));
        let read = move || {
            for _ in 0..count {
                let mut buffer = vec![0; size];
                // An error is a timeout.
                let n = (&*transport).read(&mut buffer).unwrap_or(0);
                received.borrow_mut().extend_from_slice(&buffer[..n]);
            }
        };
        let limit = rng.bool().then(|| Duration::from_nanos(rng.u64(..50_000)));
        *self.reader.borrow_mut() = Some(greenhub::spawn(move || limited(limit, read)));
    }

    fn write(&self, rng: &mut Rng) {
        let (transport, log, reported) = (Rc::clone(&self.transport), Rc::clone(&self.log), Rc::clone(&self.reported));
        let (size, count) = (rng.usize(1..30), rng.usize(1..4));
        let write = move || {
            for _ in 0..count {
                // An error is a timeout. Nothing was accepted then.
                let before = log.accepted.borrow().len();
                let n = (&*transport).write(&End::next_bytes(&log, size)).unwrap_or(0);
                assert_eq!(log.accepted.borrow().len() - before, n);
                reported.set(reported.get() + n);
            }
        };
        let limit = rng.bool().then(|| Duration::from_nanos(rng.u64(..50_000)));
        if limit.is_some() {
            self.lost_reports.set(true);
        }
        *self.writer.borrow_mut() = Some(greenhub::spawn(move || limited(limit, write)));
    }

    fn kill(&self, green: &RefCell<Option<GreenThread<()>>>, rng: &mut Rng) {
        let Some(victim) = green.take() else { return };
        if rng.bool() {
            // It may be woken by then, and not have run.
            some_turns();
        }
        if !victim.is_finished() {
            self.lost_reports.set(true);
        }
        victim.kill();
        victim.ignore_result();
    }

    /// Ends what runs, and the write direction.
    fn finish(&self, rng: &mut Rng) {
        self.kill(&self.writer, rng);
        self.kill(&self.reader, rng);
        self.transport.set_read_timeout(None).unwrap();
        self.transport.set_write_timeout(None).unwrap();
        while self.transport.is_paused() {
            self.transport.resume();
        }
        let (transport, received) = (Rc::clone(&self.transport), Rc::clone(&self.received));
        *self.reader.borrow_mut() = Some(greenhub::spawn(move || {
            let mut rest = Vec::new();
            (&*transport).read_to_end(&mut rest).unwrap();
            received.borrow_mut().extend_from_slice(&rest);
        }));
        let transport = Rc::clone(&self.transport);
        *self.writer.borrow_mut() = Some(greenhub::spawn(move || transport.shutdown().unwrap()));
    }

    fn join(&self) {
        for green in [&self.reader, &self.writer] {
            green.take().expect("`finish` has begun both").join().unwrap();
        }
    }
}

fn is_free(green: &RefCell<Option<GreenThread<()>>>) -> bool {
    green.borrow().as_ref().is_none_or(GreenThread::is_finished)
}

fn timeout(rng: &mut Rng) -> Option<Duration> {
    rng.bool().then(|| Duration::from_nanos(rng.u64(1..50_000)))
}

fn limited(limit: Option<Duration>, f: impl FnOnce()) {
    match limit {
        None => f(),
        Some(limit) => drop(greenhub::with_timeout(limit, f)),
    }
}

fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let (one, other) = duplex(rng.usize(1..40));
    let ends = [End::new(one, &mut rng), End::new(other, &mut rng)];
    for _ in 0..STEPS {
        ends[usize::from(rng.bool())].step(&mut rng);
        if rng.bool() {
            greenhub::sleep(Duration::ZERO);
        }
    }
    ends.iter().for_each(|end| end.finish(&mut rng));
    ends.iter().for_each(End::join);
    for (from, to) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
        let (accepted, received) = (from.log.accepted.borrow(), to.received.borrow());
        assert_eq!(*accepted, *received, "seed {seed}");
        assert!(from.reported.get() <= accepted.len(), "seed {seed}");
        assert!(from.lost_reports.get() || from.reported.get() == accepted.len(), "seed {seed}");
    }
}

/// More seeds are tried by `TRANSPORT_SEEDS=20 cargo test -p hub-tokio --release random_programs`.
fn factor() -> u64 {
    std::env::var("TRANSPORT_SEEDS").map_or(1, |factor| factor.parse().expect("a factor"))
}

#[test]
fn random_programs_lose_double_and_reorder_no_byte() {
    in_modes(&[Mode::Hub(POLLABLE), Mode::Hub("tokio"), Mode::CurrentThread], || (0..SEEDS * factor()).for_each(run));
}
