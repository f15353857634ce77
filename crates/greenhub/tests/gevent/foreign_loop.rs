//! A program with a loop of its own over poll(2), which runs this loop a turn at a time.

use std::cell::Cell;
use std::io::{Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{HANG, run};
use crate::{LONG, Log, SHORT};
use greenhub::gevent::{Priority, Watcher, event_loop};
use greenhub::hub::Embedded;
use greenhub::os::unix::net::UnixStream;
use greenhub::{Interest, get_hub, sleep, spawn};

/// A waker that counts.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The loop of the program.
struct ForeignLoop {
    embedded: Embedded,
    /// Not on each hub.
    pollable: Option<OwnedFd>,
    wakes: Arc<Wakes>,
    /// The wake-ups that were answered by a turn.
    answered: usize,
}

impl ForeignLoop {
    fn new() -> ForeignLoop {
        let embedded = get_hub().embed().unwrap();
        let pollable = embedded.pollable().ok();
        ForeignLoop { embedded, pollable, wakes: Arc::default(), answered: 0 }
    }

    /// Runs a turn. Returns whether the next one has work to do.
    fn turn(&mut self) -> bool {
        self.answered = self.wakes.count();
        self.embedded.turn(&Waker::from(Arc::clone(&self.wakes))).unwrap()
    }

    /// Runs turns until none has anything to do.
    fn settle(&mut self) {
        while self.turn() {}
    }

    /// Runs a turn, and sleeps until the next one or an event of the program's own. Returns whether there is one.
    fn iterate(&mut self, own: BorrowedFd<'_>) -> bool {
        let has_work = self.turn() || self.answered != self.wakes.count();
        // A loop without this descriptor is looked at again and again.
        let longest = if self.pollable.is_some() { HANG / 4 } else { SHORT };
        let deadline = self.embedded.next_deadline().map_or(LONG, |deadline| deadline - get_hub().now());
        let sleep = if has_work { Duration::ZERO } else { deadline.min(longest) };
        let mut fds = vec![PollFd::new(&own, PollFlags::IN)];
        fds.extend(self.pollable.iter().map(|pollable| PollFd::new(pollable, PollFlags::IN)));
        let began = Instant::now();
        // It returns early by less than a millisecond at the most.
        let found = poll(&mut fds, Some(&Timespec::try_from(sleep).unwrap())).unwrap();
        assert!(found != 0 || sleep < HANG / 4, "the loop was not told of its work for {:?}", began.elapsed());
        !fds[0].revents().is_empty()
    }
}

#[test]
fn a_foreign_poll_loop_drives_watchers_timers_and_green_threads() {
    run("a_foreign_poll_loop_drives_watchers_timers_and_green_threads", || {
        let log = Log::new();
        let (own, mut to_own) = pipe().unwrap();
        let (reader, mut to_reader) = pipe().unwrap();
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut program = ForeignLoop::new();

        let reader = Rc::new(reader);
        let io = event_loop().io(Rc::clone(&reader), Interest::READ).unwrap();
        let reads = log.clone();
        io.start(move |io, _| {
            (&*reader).read_exact(&mut [0]).unwrap();
            reads.push("io");
            io.stop();
        })
        .unwrap();
        let ticks = log.clone();
        let ticker = event_loop().repeating(SHORT, SHORT);
        ticker
            .start(move |ticker, ()| {
                ticks.push("tick");
                ticker.stop();
            })
            .unwrap();
        let wake_up = event_loop().async_();
        let (handle, sends) = (wake_up.handle(), log.clone());
        wake_up.start(move |_, ()| sends.push("async")).unwrap();
        let (fed, feeds) = (Rc::new(event_loop().timer(LONG)), log.clone());
        fed.start(move |_, ()| feeds.push("fed")).unwrap();
        let (waited, events) = (event_loop().timer(3 * SHORT), log.clone());
        let waiting = spawn(move || {
            waited.wait(None).unwrap();
            events.push("green thread with a watcher");
        });
        let slept = log.clone();
        let sleeping = spawn(move || {
            sleep(2 * SHORT);
            slept.push("green thread with a sleep");
        });
        let received = log.clone();
        let receiving = spawn(move || {
            UnixStream::from(OwnedFd::from(far)).read_exact(&mut [0]).unwrap();
            received.push("green thread with a socket");
        });

        let other = std::thread::spawn(move || {
            for write in [
                &mut (|| to_reader.write_all(b"x").unwrap()) as &mut dyn FnMut(),
                &mut || handle.send(),
                &mut || near.write_all(b"x").unwrap(),
                &mut || to_own.write_all(b"x").unwrap(),
            ] {
                std::thread::sleep(2 * SHORT);
                write();
            }
            (to_reader, to_own, near)
        });
        let has_own_event = Cell::new(false);
        while log.len() < 8 {
            if program.iterate(own.as_fd()) && !has_own_event.replace(true) {
                // A handler of the program, between two turns.
                log.push("own");
                fed.feed(());
            }
        }
        drop(other.join().unwrap());
        let mut log = log.take();
        log.sort_unstable();
        let green = ["green thread with a sleep", "green thread with a socket", "green thread with a watcher"];
        assert_eq!(log, [&["async", "fed"], &green[..], &["io", "own", "tick"]].concat());
        drop(program);
        for green in [waiting, sleeping, receiving] {
            green.join().unwrap();
        }
    });
}

#[test]
fn a_watcher_that_is_fed_between_turns_wakes_the_waker() {
    run("a_watcher_that_is_fed_between_turns_wakes_the_waker", || {
        let log = Log::new();
        let timer = event_loop().timer(LONG);
        let calls = log.clone();
        timer.start(move |_, ()| calls.push(())).unwrap();
        let mut program = ForeignLoop::new();
        program.settle();
        assert_eq!(program.wakes.count(), 0);
        timer.feed(());
        assert_eq!(program.wakes.count(), 1);
        program.settle();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn a_turn_that_leaves_a_fed_watcher_asks_for_another_one() {
    run("a_turn_that_leaves_a_fed_watcher_asks_for_another_one", || {
        let log = Log::new();
        let fed = Rc::new(event_loop().timer(LONG));
        let calls = log.clone();
        fed.start(move |_, ()| calls.push("fed")).unwrap();
        let (check, feeds, feeder) = (event_loop().check(), log.clone(), Rc::clone(&fed));
        check.set_priority(Priority::Lowest).unwrap();
        let mut program = ForeignLoop::new();
        program.settle();
        check
            .start(move |check, ()| {
                feeds.push("check");
                feeder.feed(());
                check.stop();
            })
            .unwrap();
        let mut has_work = false;
        while log.len() == 0 {
            has_work = program.turn();
        }
        assert!(has_work, "the fed watcher was not called");
        program.settle();
        assert_eq!(log.take(), ["check", "fed"]);
    });
}

#[test]
fn an_idle_watcher_asks_for_turns_until_it_is_stopped() {
    run("an_idle_watcher_asks_for_turns_until_it_is_stopped", || {
        let log = Log::new();
        let mut program = ForeignLoop::new();
        program.settle();
        let (idle, calls) = (event_loop().idle(), log.clone());
        idle.start(move |idle, ()| {
            calls.push(());
            if calls.len() == 3 {
                idle.stop();
            }
        })
        .unwrap();
        assert_eq!(program.wakes.count(), 1, "it is started between two turns");
        program.settle();
        assert_eq!(log.len(), 3);
    });
}
