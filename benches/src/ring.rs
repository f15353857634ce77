//! Messages in a ring of descriptors of which few are busy, over a bare hub and over green threads.
//!
//! Each place is an eventfd that hands out one message at a time, or a pipe. An eventfd takes one descriptor, where a
//! pipe takes two, and costs little per message, so the cost of waiting dominates. `peers/ring.h` does the same in C.
//! Both use the reads and writes of the C library.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use greenhub::hub::{Hub, Lease, Ready, Rearm, Watched};
use greenhub::park::{ReadHint, Source};
use greenhub::{Interest, sleep, spawn_n, trampoline};
use nix::errno::Errno;
use nix::unistd::{read, write};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::unix::AsyncFd;

use crate::Stopwatch;

/// A place of the ring.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An eventfd, each of whose messages is a count of one.
    Eventfd,
    /// A pipe, each of whose messages is a byte.
    Pipe,
}

/// The parameters of a run.
#[derive(Copy, Clone, Debug)]
pub struct Load {
    /// The number of registered descriptors.
    pub places: usize,
    /// The number of messages in the ring.
    pub busy: usize,
    /// The total number of messages to forward.
    pub messages: u64,
    /// The number of places that a message moves at a time. With 1 it visits each place in turn, with 0 the same places
    /// stay busy.
    pub step: usize,
    /// The places.
    pub kind: Kind,
}

impl Load {
    fn next(self, index: usize) -> usize {
        (index + self.step) % self.places
    }
}

/// The way in which the green threads wait. Each place has a green thread.
#[derive(Copy, Clone, Debug)]
pub enum By {
    /// By a [`Source`], which is registered once.
    Source,
    /// By [`trampoline`], which lends the descriptor for one wait.
    Trampoline,
}

/// Measures the processor time of the reads and writes without waits, a part of every other measurement.
///
/// # Errors
///
/// Returns the error of the system.
///
/// # Panics
///
/// Panics if a message is lost.
pub fn alone(load: Load) -> io::Result<Duration> {
    let places = places(load)?;
    start(load, |index| places[index].give())?;
    let mut left = load.messages;
    let mut round = 0;
    let watch = Stopwatch::start();
    loop {
        for message in 0..load.busy {
            let index = (message * (load.places / load.busy) + round * load.step) % load.places;
            assert!(places[index].take()?, "a message is lost");
            left -= 1;
            if left == 0 {
                return Ok(watch.elapsed());
            }
            places[load.next(index)].give()?;
        }
        round += 1;
    }
}

/// Measures the processor time of one epoll set without a runtime: level-triggered, a read and a write for each report.
///
/// # Errors
///
/// Returns the error of the system.
///
/// # Panics
///
/// Panics if a reported place has no message.
pub fn raw(load: Load) -> io::Result<Duration> {
    let places = places(load)?;
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    for (index, place) in places.iter().enumerate() {
        epoll::add(&set, place, EventData::new_u64(index as u64), EventFlags::IN)?;
    }
    start(load, |index| places[index].give())?;
    let mut left = load.messages;
    let mut events = Vec::with_capacity(1024);
    let watch = Stopwatch::start();
    loop {
        events.clear();
        epoll::wait(&set, spare_capacity(&mut events), None)?;
        for event in &events {
            let index = event.data.u64() as usize;
            assert!(places[index].take()?, "a message is lost");
            left -= 1;
            if left == 0 {
                return Ok(watch.elapsed());
            }
            places[load.next(index)].give()?;
        }
    }
}

/// Measures the processor time of Tokio's current-thread runtime. Each place has a task.
///
/// # Errors
///
/// Returns the error of the system.
///
/// # Panics
///
/// Panics if a place fails within a task.
pub fn tasks(load: Load) -> io::Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async move {
        let register = |place| {
            // SAFETY: a place returns the same descriptor each time, and keeps it open.
            let registered = unsafe { AsyncFd::register_with_interest(place, tokio::io::Interest::READABLE) };
            registered.map_err(io::Error::from)
        };
        let places: Arc<Vec<_>> = Arc::new(places(load)?.into_iter().map(register).collect::<io::Result<_>>()?);
        let left = Arc::new(AtomicU64::new(load.messages));
        let (end, over) = tokio::sync::oneshot::channel();
        let end = Arc::new(std::sync::Mutex::new(Some(end)));
        for index in 0..load.places {
            let (places, left, end) = (Arc::clone(&places), Arc::clone(&left), Arc::clone(&end));
            tokio::spawn(async move {
                let take = |place: &Place| place.take()?.then_some(()).ok_or(io::ErrorKind::WouldBlock.into());
                loop {
                    places[index].async_io(tokio::io::Interest::READABLE, take).await.expect("a message comes");
                    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        end.lock().expect("no panic").take().map(|end| end.send(Stopwatch::start()));
                        return;
                    }
                    places[load.next(index)].get_ref().give().expect("there is room");
                }
            });
        }
        // Let all tasks run until they wait.
        tokio::task::yield_now().await;
        start(load, |index| places[index].get_ref().give())?;
        let watch = Stopwatch::start();
        let stopped = over.await.map_err(io::Error::other)?;
        Ok(stopped.since(watch))
    })
}

/// Measures the processor time of a bare hub, called as the main loop calls it.
///
/// # Errors
///
/// Returns the error of the hub.
///
/// # Panics
///
/// Panics if a reported place has no message.
pub fn bare(mut hub: impl Hub, lease: Lease, load: Load) -> io::Result<Duration> {
    let places = places(load)?;
    let watch_again = lease == Lease::Wait || hub.rearm() == Rearm::Explicit;
    let mut watched = Watched::new();
    let mut index_of = Vec::new();
    for (index, fd) in places.iter().enumerate() {
        let key = watched.enter(fd.as_raw_fd());
        hub.watch(key, fd.as_fd(), Interest::READ, lease)?;
        // SAFETY: the places stay open until after the last wait.
        unsafe {
            watched.arm(key, Interest::READ);
            if lease == Lease::Life {
                watched.lend(key);
            }
        }
        index_of.resize(fd.as_raw_fd() as usize + 1, 0);
        index_of[fd.as_raw_fd() as usize] = index;
    }
    start(load, |index| places[index].give())?;
    let mut left = load.messages;
    let mut ready = Ready::new();
    let watch = Stopwatch::start();
    loop {
        ready.clear();
        hub.wait(&watched, None, &mut ready)?;
        for &(key, found) in ready.reports() {
            watched.disarm(key, found.directions());
            let index = index_of[key.fd() as usize];
            assert!(places[index].take()?, "a message is lost");
            left -= 1;
            if left == 0 {
                return Ok(watch.elapsed());
            }
            places[load.next(index)].give()?;
            if watch_again {
                hub.watch(key, places[index].as_fd(), Interest::READ, lease)?;
            }
            // SAFETY: the places stay open until after the last wait.
            unsafe { watched.arm(key, Interest::READ) };
        }
    }
}

/// Measures the processor time of green threads on the hub of the calling OS thread.
///
/// Switches, and leaves most of the green threads parked.
///
/// # Errors
///
/// Returns the error of the hub.
pub fn green(by: By, load: Load) -> io::Result<Duration> {
    let places = places(load)?;
    let over = Source::from_nonblocking(Place::new(Kind::Eventfd)?.reader);
    match by {
        By::Source => {
            let source = |place: Place| (Source::from_nonblocking(place.reader), place.writer);
            round(
                load,
                over,
                places.into_iter().map(source).collect(),
                |places: &Vec<(Source, Option<OwnedFd>)>, index| {
                    let (source, writer) = &places[index];
                    source.read(None, |fd| match take(fd, writer.is_some())? {
                        true => Ok(((), ReadHint::Perhaps)),
                        false => Err(io::ErrorKind::WouldBlock.into()),
                    })
                },
                |places, index| {
                    let (source, writer) = &places[index];
                    source.with(|reader| give(reader, writer.as_ref()))
                },
            )
        }
        By::Trampoline => round(
            load,
            over,
            places,
            |places: &Vec<Place>, index| {
                loop {
                    trampoline(&places[index], Interest::READ, None)?;
                    if places[index].take()? {
                        return Ok(());
                    }
                }
            },
            |places, index| places[index].give(),
        ),
    }
}

/// The state that the green threads of a ring share.
struct Ring<P> {
    places: Vec<P>,
    left: Cell<u64>,
    watch: Cell<Stopwatch>,
    outcome: Cell<Option<io::Result<Duration>>>,
    /// Readable when `outcome` is set.
    over: Source,
}

/// Runs a green thread for each place, which forwards the messages of the place.
fn round<P: 'static>(
    load: Load,
    over: Source,
    places: Vec<P>,
    receive: impl Fn(&Vec<P>, usize) -> io::Result<()> + Copy + 'static,
    send: impl Fn(&Vec<P>, usize) -> io::Result<()> + Copy + 'static,
) -> io::Result<Duration> {
    let ring = Rc::new(Ring {
        places,
        left: Cell::new(load.messages),
        watch: Cell::new(Stopwatch::start()),
        outcome: Cell::new(None),
        over,
    });
    for index in 0..load.places {
        let ring = Rc::clone(&ring);
        spawn_n(move || {
            let forward = || {
                let next = load.next(index);
                loop {
                    receive(&ring.places, index)?;
                    ring.left.set(ring.left.get() - 1);
                    if ring.left.get() == 0 {
                        return Ok(ring.watch.get().elapsed());
                    }
                    send(&ring.places, next)?;
                }
            };
            ring.outcome.set(Some(forward()));
            ring.over.with(|fd| give(fd, None)).expect("there is room");
        });
    }
    // Let all green threads run until they park or fail.
    sleep(Duration::ZERO);
    start(load, |index| send(&ring.places, index))?;
    ring.watch.set(Stopwatch::start());
    ring.over.wait(Interest::READ, None)?;
    ring.outcome.take().expect("the ring has ended")
}

/// A place: an eventfd, or the ends of a pipe.
#[derive(Debug)]
struct Place {
    reader: OwnedFd,
    /// The other end of a pipe.
    writer: Option<OwnedFd>,
}

impl Place {
    fn new(kind: Kind) -> io::Result<Place> {
        match kind {
            Kind::Eventfd => {
                let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
                Ok(Place { reader: eventfd(0, flags)?, writer: None })
            }
            Kind::Pipe => {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                Ok(Place { reader, writer: Some(writer) })
            }
        }
    }

    fn give(&self) -> io::Result<()> {
        give(self.reader.as_fd(), self.writer.as_ref())
    }

    /// Takes a message, and returns whether there was one.
    fn take(&self) -> io::Result<bool> {
        take(self.reader.as_fd(), self.writer.is_some())
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl AsRawFd for Place {
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

fn places(load: Load) -> io::Result<Vec<Place>> {
    (0..load.places).map(|_| Place::new(load.kind)).collect()
}

/// Sends the messages to places at equal distances.
fn start(load: Load, send: impl Fn(usize) -> io::Result<()>) -> io::Result<()> {
    (0..load.busy).try_for_each(|message| send(message * (load.places / load.busy)))
}

fn give(reader: BorrowedFd<'_>, writer: Option<&OwnedFd>) -> io::Result<()> {
    match writer {
        Some(writer) => write(writer, &[1])?,
        None => write(reader, &1u64.to_ne_bytes())?,
    };
    Ok(())
}

fn take(reader: BorrowedFd<'_>, is_pipe: bool) -> io::Result<bool> {
    let mut message = [0; 8];
    match read(reader, &mut message[..if is_pipe { 1 } else { 8 }]) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
