//! Messages in a ring of descriptors of which few are busy, over a bare hub and over green threads.
//!
//! Each place is an eventfd that hands out one message at a time. An eventfd takes one descriptor, where a pipe would
//! take two, and costs little per message, so the cost of waiting dominates. `peers/ring.h` does the same in C. Both
//! use the reads and writes of the C library.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use greenhub::hub::{Hub, Lease, Ready, Rearm, Watched};
use greenhub::park::{ReadHint, Source};
use greenhub::{Interest, sleep, spawn_n, trampoline};
use nix::errno::Errno;
use nix::unistd::{read, write};
use rustix::event::{EventfdFlags, eventfd};

use crate::Stopwatch;

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
    start(load, |index| give(places[index].as_fd()))?;
    let mut left = load.messages;
    let mut round = 0;
    let watch = Stopwatch::start();
    loop {
        for message in 0..load.busy {
            let index = (message * (load.places / load.busy) + round * load.step) % load.places;
            assert!(take(places[index].as_fd())?, "a message is lost");
            left -= 1;
            if left == 0 {
                return Ok(watch.elapsed());
            }
            give(places[load.next(index)].as_fd())?;
        }
        round += 1;
    }
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
    start(load, |index| give(places[index].as_fd()))?;
    let mut left = load.messages;
    let mut ready = Ready::new();
    let watch = Stopwatch::start();
    loop {
        ready.clear();
        hub.wait(&watched, None, &mut ready)?;
        for &(key, found) in ready.reports() {
            watched.disarm(key, found.directions());
            let index = index_of[key.fd() as usize];
            let fd = places[index].as_fd();
            assert!(take(fd)?, "a message is lost");
            left -= 1;
            if left == 0 {
                return Ok(watch.elapsed());
            }
            give(places[load.next(index)].as_fd())?;
            if watch_again {
                hub.watch(key, fd, Interest::READ, lease)?;
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
    let over = Source::from_nonblocking(place()?);
    match by {
        By::Source => {
            let places = places.into_iter().map(Source::from_nonblocking).collect();
            round(
                load,
                over,
                places,
                |places: &Vec<Source>, index| {
                    places[index].read(None, |fd| match take(fd)? {
                        true => Ok(((), ReadHint::Perhaps)),
                        false => Err(io::ErrorKind::WouldBlock.into()),
                    })
                },
                |places, index| places[index].with(give),
            )
        }
        By::Trampoline => round(
            load,
            over,
            places,
            |places: &Vec<OwnedFd>, index| {
                loop {
                    trampoline(&places[index], Interest::READ, None)?;
                    if take(places[index].as_fd())? {
                        return Ok(());
                    }
                }
            },
            |places, index| give(places[index].as_fd()),
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
            ring.over.with(give).expect("there is room");
        });
    }
    // Let all green threads run until they park or fail.
    sleep(Duration::ZERO);
    start(load, |index| send(&ring.places, index))?;
    ring.watch.set(Stopwatch::start());
    ring.over.wait(Interest::READ, None)?;
    ring.outcome.take().expect("the ring has ended")
}

fn places(load: Load) -> io::Result<Vec<OwnedFd>> {
    (0..load.places).map(|_| place()).collect()
}

fn place() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE)?)
}

/// Sends the messages to places at equal distances.
fn start(load: Load, send: impl Fn(usize) -> io::Result<()>) -> io::Result<()> {
    (0..load.busy).try_for_each(|message| send(message * (load.places / load.busy)))
}

fn give(fd: BorrowedFd<'_>) -> io::Result<()> {
    write(fd, &1u64.to_ne_bytes())?;
    Ok(())
}

/// Takes a message, and returns whether there was one.
fn take(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match read(fd, &mut [0; 8]) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
