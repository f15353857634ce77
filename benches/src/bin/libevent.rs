//! Messages that go round through many pipes, of which few are busy: libevent by hand beside the hub over it.
//!
//! `libevent [REPETITIONS]` prints the least and the median processor time for each message, in nanoseconds, over the
//! repetitions, which take turns. "By hand" is one persistent event for each pipe, in a base with the same settings as
//! the hub's; "as it comes" is `event_base_new`, whose timers are coarse. Each message is one read and one write.

use std::cell::Cell;
use std::ffi::{c_int, c_short, c_void};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::ptr;

use benches::Stopwatch;
use hub_core::{Hub, Interest, Lease, Ready, Watched};
use hub_epoll::EpollHub;
use hub_libevent::LibeventHub;
use libevent_sys as sys;

/// How many pipes have a message.
const BUSY: usize = 100;

/// How many messages are handed on in all.
const MESSAGES: usize = 200_000;

/// A ring: what is read from one pipe is written to the next.
struct Ring {
    readers: Vec<PipeReader>,
    writers: Vec<PipeWriter>,
    left: Cell<usize>,
}

impl Ring {
    fn new(pipes: usize) -> Ring {
        let (readers, writers) = (0..pipes).map(|_| pipe().expect("a pipe")).unzip();
        Ring { readers, writers, left: Cell::new(MESSAGES) }
    }

    fn start(&self) {
        let apart = self.writers.len() / BUSY;
        for mut writer in self.writers.iter().step_by(apart).take(BUSY) {
            writer.write_all(b"x").expect("room");
        }
    }

    /// Hands on the message of a pipe.
    fn hand_on(&self, index: usize) {
        (&self.readers[index]).read_exact(&mut [0]).expect("a message");
        self.left.set(self.left.get().saturating_sub(1));
        if !self.is_over() {
            let next = (index + 1) % self.writers.len();
            (&self.writers[next]).write_all(b"x").expect("room");
        }
    }

    fn is_over(&self) -> bool {
        self.left.get() == 0
    }
}

/// libevent by hand.
fn by_hand(pipes: usize, precise: bool) -> f64 {
    struct Place<'a> {
        ring: &'a Ring,
        index: usize,
    }

    unsafe extern "C" fn ready(_fd: c_int, _what: c_short, place: *mut c_void) {
        // SAFETY: the places outlive the loop.
        let place = unsafe { &*place.cast::<Place<'_>>() };
        place.ring.hand_on(place.index);
    }

    let ring = Ring::new(pipes);
    // SAFETY: the functions are called in the library's order, with what they returned, on one thread.
    unsafe {
        let config = sys::event_config_new();
        if precise {
            sys::event_config_set_flag(config, sys::event_base_config_flag_EVENT_BASE_FLAG_PRECISE_TIMER as c_int);
        }
        let base = sys::event_base_new_with_config(config);
        sys::event_config_free(config);
        assert!(!base.is_null());
        let places: Vec<Place<'_>> = (0..pipes).map(|index| Place { ring: &ring, index }).collect();
        let events: Vec<_> = places
            .iter()
            .map(|place| {
                let fd = ring.readers[place.index].as_raw_fd();
                let what = (sys::EV_READ | sys::EV_PERSIST) as c_short;
                let event = sys::event_new(base, fd, what, Some(ready), ptr::from_ref(place).cast_mut().cast());
                assert_eq!(sys::event_add(event, ptr::null()), 0);
                event
            })
            .collect();
        ring.start();
        let watch = Stopwatch::start();
        while !ring.is_over() {
            sys::event_base_loop(base, sys::EVLOOP_ONCE as c_int);
        }
        let time = watch.elapsed();
        events.into_iter().for_each(|event| sys::event_free(event));
        sys::event_base_free(base);
        per_message(time)
    }
}

/// A hub, driven as the main loop does it.
fn hub(pipes: usize, mut hub: impl Hub) -> f64 {
    let ring = Ring::new(pipes);
    let mut watched = Watched::new();
    let mut place = Vec::new();
    for (index, reader) in ring.readers.iter().enumerate() {
        let key = watched.enter(reader.as_raw_fd());
        hub.watch(key, reader.as_fd(), Interest::READ, Lease::Life).expect("a pipe is watched");
        // SAFETY: the ring, and so the pipe, outlives the table.
        unsafe {
            watched.arm(key, Interest::READ);
            watched.lend(key);
        }
        place.resize(key.fd() as usize + 1, 0);
        place[key.fd() as usize] = index;
    }
    ring.start();
    let mut ready = Ready::new();
    let watch = Stopwatch::start();
    while !ring.is_over() {
        ready.clear();
        hub.wait(&watched, None, &mut ready).expect("a wait");
        for &(key, found) in ready.reports() {
            watched.disarm(key, found.directions());
            ring.hand_on(place[key.fd() as usize]);
            // SAFETY: as above.
            unsafe { watched.arm(key, Interest::READ) };
        }
    }
    per_message(watch.elapsed())
}

fn per_message(time: std::time::Duration) -> f64 {
    time.as_nanos() as f64 / MESSAGES as f64
}

type Case = (&'static str, fn(usize) -> f64);

const CASES: &[Case] = &[
    ("libevent by hand", |pipes| by_hand(pipes, true)),
    ("libevent as it comes", |pipes| by_hand(pipes, false)),
    ("hub-libevent", |pipes| hub(pipes, LibeventHub::new().expect("a hub"))),
    ("hub-epoll", |pipes| hub(pipes, EpollHub::new().expect("a hub"))),
];

fn main() -> ExitCode {
    let repetitions = match std::env::args().nth(1).map_or(Ok(5), |word| word.parse::<usize>()) {
        Ok(repetitions @ 1..) => repetitions,
        _ => {
            eprintln!("usage: libevent [REPETITIONS]");
            return ExitCode::from(2);
        }
    };
    // A pipe takes two descriptors, and most systems stop at 20,000 or a little more.
    for pipes in [100, 1000, 9900] {
        println!("{BUSY} busy pipes of {pipes}");
        let mut times = vec![Vec::new(); CASES.len()];
        for _ in 0..repetitions {
            for ((_, run), times) in CASES.iter().zip(&mut times) {
                times.push(run(pipes));
            }
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let by_hand = median(&mut times[0]);
        for ((name, _), times) in CASES.iter().zip(&mut times) {
            let median = median(times);
            println!("  {name:<22} {:>6.0} / {median:>6.0} ns  ({:.2})", times[0], median / by_hand);
        }
    }
    ExitCode::SUCCESS
}
