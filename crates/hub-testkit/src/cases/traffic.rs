//! A case with random traffic, which compares the reports with poll(2).

use std::time::Duration;

use fastrand::Rng;
use hub_core::hub::{Hub, Interest, Key};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use crate::fixture::{self, Driver, File, Make};

/// A socket as a program uses it: each direction has a waiter of its own.
struct Socket {
    near: File,
    far: File,
    key: Key,
    parked: Interest,
}

/// Clauses 1 and 3: readers and writers park, leave and park again in random order, always after a call that would have
/// blocked. Each waiter gets a report once its direction is ready.
pub fn every_waiter_is_served_in_random_traffic<H: Hub>(make: Make<'_, H>) {
    for seed in 1..=4 {
        let mut random = Rng::with_seed(seed);
        let mut driver = Driver::new(make);
        let mut sockets: Vec<Socket> = (0..4).map(|_| socket(&mut driver)).collect();
        for step in 0..1000 {
            let index = random.usize(..sockets.len());
            act(&mut driver, &mut sockets[index], random.usize(..16));
            let due: Vec<(Key, Interest)> = sockets.iter().map(|socket| (socket.key, due(socket))).collect();
            if random.usize(..3) == 0 {
                let mut reports = Vec::new();
                for _ in 0..3 {
                    reports.extend(driver.wait(Some(Duration::ZERO)));
                }
                for (key, due) in due {
                    let found = reports.iter().filter(|(reported, _)| *reported == key);
                    let reported = found.fold(Interest::NONE, |all, (_, found)| all | found.directions());
                    assert!(
                        reported.contains(due),
                        "seed {seed}, step {step}: {due:?} is due, reported is {reported:?}"
                    );
                    for socket in sockets.iter_mut().filter(|socket| socket.key == key) {
                        socket.parked = socket.parked.without(reported);
                    }
                }
            }
        }
    }
}

/// Performs one random action on a socket.
fn act<H: Hub>(driver: &mut Driver<H>, socket: &mut Socket, action: usize) {
    match action {
        0..4 => {
            fixture::drain(&socket.near);
            driver.park(socket.key, Interest::READ);
            socket.parked |= Interest::READ;
        }
        4..7 => {
            fixture::fill(&socket.near);
            driver.park(socket.key, Interest::WRITE);
            socket.parked |= Interest::WRITE;
        }
        7..10 => {
            // A full buffer holds data already.
            let _ = rustix::io::write(&*socket.far, b"x");
        }
        10..13 => fixture::drain(&socket.far),
        13 => leave(driver, socket, Interest::READ),
        14 => leave(driver, socket, Interest::WRITE),
        _ => {
            driver.forget(socket.key);
            *socket = self::socket(driver);
        }
    }
}

/// Removes a waiter, as an exit does.
fn leave<H: Hub>(driver: &mut Driver<H>, socket: &mut Socket, interest: Interest) {
    driver.disarm(socket.key, interest);
    socket.parked = socket.parked.without(interest);
}

fn socket<H: Hub>(driver: &mut Driver<H>) -> Socket {
    let (near, far) = fixture::pair();
    let key = driver.enter(&near);
    driver.lend(key);
    Socket { near, far, key, parked: Interest::NONE }
}

/// Returns the directions that have a waiter and are ready now.
fn due(socket: &Socket) -> Interest {
    let mut fds = [PollFd::new(&*socket.near, PollFlags::IN | PollFlags::OUT)];
    retry_on_intr(|| poll(&mut fds, Some(&Timespec::default()))).expect("poll succeeds");
    let ready = fds[0].revents();
    let of = |flag, interest| if ready.contains(flag) { interest } else { Interest::NONE };
    (of(PollFlags::IN, Interest::READ) | of(PollFlags::OUT, Interest::WRITE)) & socket.parked
}
