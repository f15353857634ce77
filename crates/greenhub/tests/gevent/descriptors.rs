//! Watchers of descriptors.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, PipeReader, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::support::green::quiet_panic;
use crate::support::{alone, run};
use crate::{LONG, Log, SHORT, settle, unexpected};
use greenhub::debug::{Report, hub_exceptions};
use greenhub::gevent::{Io, Run, WaitError, Watcher, WatcherError, event_loop, iwait};
use greenhub::hub::{Readiness, Verdict};
use greenhub::os::unix::net::UnixStream as GreenStream;
use greenhub::thread::yield_now;
use greenhub::{Interest, TrampolineError, get_hub, sleep, spawn, trampoline};

/// Returns a pipe whose reader is watched with `watcher`.
fn watched_pipe() -> (Rc<PipeReader>, std::io::PipeWriter, Io) {
    let (reader, writer) = pipe().unwrap();
    let reader = Rc::new(reader);
    let watcher = event_loop().io(Rc::clone(&reader), Interest::READ).unwrap();
    (reader, writer, watcher)
}

fn read_byte(reader: &PipeReader) -> u8 {
    let mut byte = [0];
    (&mut &*reader).read_exact(&mut byte).unwrap();
    byte[0]
}

#[test]
fn the_callback_gets_the_readiness() {
    run("the_callback_gets_the_readiness", || {
        let (_reader, mut writer, watcher) = watched_pipe();
        let log = Log::new();
        let events = log.clone();
        watcher
            .start(move |watcher, readiness| {
                events.push(readiness.contains(Readiness::READ));
                watcher.stop();
            })
            .unwrap();
        writer.write_all(b"x").unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), [true]);
    });
}

#[test]
fn a_descriptor_that_stays_ready_is_told_in_each_turn() {
    run("a_descriptor_that_stays_ready_is_told_in_each_turn", || {
        let (reader, mut writer, watcher) = watched_pipe();
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        watcher
            .start(move |watcher, _| {
                count.set(count.get() + 1);
                if count.get() == 5 {
                    watcher.stop();
                }
            })
            .unwrap();
        writer.write_all(b"x").unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(calls.get(), 5);
        assert_eq!(read_byte(&reader), b'x');
    });
}

#[test]
fn two_watchers_of_one_direction_are_both_told() {
    run("two_watchers_of_one_direction_are_both_told", || {
        let (reader, mut writer, first) = watched_pipe();
        let second = event_loop().io(Rc::clone(&reader), Interest::READ).unwrap();
        let log = Log::new();
        for (name, watcher) in [("first", &first), ("second", &second)] {
            let log = log.clone();
            watcher
                .start(move |watcher, _| {
                    log.push(name);
                    watcher.stop();
                })
                .unwrap();
        }
        writer.write_all(b"x").unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), ["first", "second"]);
    });
}

#[test]
fn reading_and_writing_of_one_socket_are_independent() {
    run("reading_and_writing_of_one_socket_are_independent", || {
        let (here, mut there) = UnixStream::pair().unwrap();
        let here = Rc::new(here);
        let reads = event_loop().io(Rc::clone(&here), Interest::READ).unwrap();
        let writes = event_loop().io(Rc::clone(&here), Interest::WRITE).unwrap();
        let log = Log::new();
        let (read, written) = (log.clone(), log.clone());
        reads
            .start(move |watcher, _| {
                read.push("read");
                watcher.stop();
            })
            .unwrap();
        writes
            .start(move |watcher, _| {
                written.push("write");
                watcher.stop();
            })
            .unwrap();
        settle();
        assert_eq!(log.take(), ["write"]);
        assert!(reads.is_active());
        there.write_all(b"x").unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), ["read"]);
    });
}

#[test]
fn one_watcher_of_both_directions_is_told_of_each() {
    run("one_watcher_of_both_directions_is_told_of_each", || {
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(b"x").unwrap();
        let watcher = event_loop().io(here, Interest::BOTH).unwrap();
        let log = Log::new();
        let events = log.clone();
        watcher
            .start(move |watcher, readiness| {
                events.push(readiness.contains(Readiness::READ) && readiness.contains(Readiness::WRITE));
                watcher.stop();
            })
            .unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), [true], "both in one event");
    });
}

#[test]
fn the_events_change_only_while_the_watcher_is_stopped() {
    run("the_events_change_only_while_the_watcher_is_stopped", || {
        let (here, _there) = UnixStream::pair().unwrap();
        let watcher = event_loop().io(here, Interest::READ).unwrap();
        watcher.start(|_, _| ()).unwrap();
        let refused = watcher.set_events(Interest::WRITE).unwrap_err();
        assert!(matches!(refused, WatcherError::Active { setting: "events" }), "{refused}");
        watcher.stop();
        watcher.set_events(Interest::WRITE).unwrap();
        assert_eq!(watcher.events(), Interest::WRITE);
        assert_eq!(watcher.wait(LONG).unwrap(), Readiness::WRITE);
    });
}

#[test]
fn a_watcher_of_nothing_is_refused() {
    run("a_watcher_of_nothing_is_refused", || {
        let (reader, _writer) = pipe().unwrap();
        let refused = event_loop().io(reader, Interest::NONE).unwrap_err();
        assert!(matches!(refused, WatcherError::Refused(TrampolineError::Interest { .. })), "{refused}");
    });
}

#[test]
fn a_callback_that_panics_closes_its_watcher() {
    alone("a_callback_that_panics_closes_its_watcher", || {
        hub_exceptions(false);
        let (_reader, mut writer, watcher) = watched_pipe();
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        watcher
            .start(move |_, _| {
                count.set(count.get() + 1);
                quiet_panic("the callback");
            })
            .unwrap();
        writer.write_all(b"x").unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(calls.get(), 1);
        assert!(matches!(watcher.start(|_, _| ()), Err(WatcherError::Closed)));
    });
}

#[test]
fn a_green_thread_and_a_watcher_do_not_share_a_direction() {
    run("a_green_thread_and_a_watcher_do_not_share_a_direction", || {
        let (reader, mut writer, watcher) = watched_pipe();
        let waits = Rc::clone(&reader);
        let waiting = spawn(move || trampoline(&*waits, Interest::READ, None));
        sleep(SHORT);
        let refused = watcher.start(|_, _| ()).unwrap_err();
        assert!(matches!(refused, WatcherError::Refused(TrampolineError::SecondSimultaneous { .. })), "{refused}");
        writer.write_all(b"x").unwrap();
        waiting.join().unwrap().unwrap();
        read_byte(&reader);
        watcher.start(|_, _| ()).unwrap();
        let refused = trampoline(&*reader, Interest::READ, None).unwrap_err();
        assert!(matches!(refused, TrampolineError::SecondSimultaneous { .. }), "{refused}");
    });
}

#[test]
fn a_refused_second_direction_leaves_the_first_one_unwatched() {
    run("a_refused_second_direction_leaves_the_first_one_unwatched", || {
        let (here, _there) = UnixStream::pair().unwrap();
        let here = Rc::new(here);
        let fd = here.as_raw_fd();
        let registration = greenhub::get_hub().listen(Rc::clone(&here), Interest::WRITE, |_| ()).unwrap();
        let watcher = event_loop().io(Rc::clone(&here), Interest::BOTH).unwrap();
        assert!(watcher.start(|_, _| ()).is_err());
        assert!(!watcher.is_active());
        drop(registration);
        watcher.start(|watcher, _| watcher.stop()).unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(here.as_raw_fd(), fd);
    });
}

#[test]
fn a_watcher_keeps_its_descriptor_open() {
    run("a_watcher_keeps_its_descriptor_open", || {
        let (reader, mut writer) = pipe().unwrap();
        let watcher = event_loop().io(reader, Interest::READ).unwrap();
        writer.write_all(b"x").expect("the watcher holds the reader");
        drop(watcher);
        writer.write_all(b"x").expect_err("the reader is gone");
    });
}

#[test]
fn a_pending_watcher_that_is_dropped_closes_its_descriptor_in_the_next_turn() {
    run("a_pending_watcher_that_is_dropped_closes_its_descriptor_in_the_next_turn", || {
        let (reader, mut writer) = pipe().unwrap();
        let io = event_loop().io(reader, Interest::READ).unwrap();
        io.start(|_, _| unexpected("called after the drop")).unwrap();
        io.feed(Readiness::READ);
        drop(io);
        get_hub().run_once(Duration::ZERO).unwrap();
        assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_descriptor_that_is_about_to_be_closed_tells_its_watchers() {
    run("a_descriptor_that_is_about_to_be_closed_tells_its_watchers", || {
        let (reader, _writer, watcher) = watched_pipe();
        assert!(!event_loop().closing_fd(reader.as_raw_fd()), "no watcher is active");
        let log = Log::new();
        let calls = log.clone();
        watcher
            .start(move |watcher, _| {
                calls.push(());
                watcher.close();
            })
            .unwrap();
        assert!(event_loop().closing_fd(reader.as_raw_fd()));
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn an_idle_watcher_of_a_descriptor_does_not_delay_timers() {
    run("an_idle_watcher_of_a_descriptor_does_not_delay_timers", || {
        let (_reader, _writer, watcher) = watched_pipe();
        watcher.start(|_, _| ()).unwrap();
        let waits = greenhub::get_hub().stats().waits;
        for _ in 0..20 {
            event_loop().timer(SHORT).wait(None).unwrap();
        }
        assert!(greenhub::get_hub().stats().waits - waits <= 100, "the loop sleeps until each timer");
        assert!(!watcher.is_pending());
        assert!(watcher.wait(Duration::ZERO).is_err());
    });
}

/// An owner of a descriptor that runs code of the program when it is asked for it.
struct Asked(std::io::PipeReader, Box<dyn Fn()>);

impl AsFd for Asked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (self.1)();
        self.0.as_fd()
    }
}

#[test]
fn an_owner_of_a_descriptor_may_use_the_loop_when_it_is_asked() {
    run("an_owner_of_a_descriptor_may_use_the_loop_when_it_is_asked", || {
        let (reader, _writer) = pipe().unwrap();
        let (other, _other_writer) = pipe().unwrap();
        let other = Rc::new(event_loop().io(other, Interest::READ).unwrap());
        let started = Rc::clone(&other);
        let ask = move || {
            event_loop().closing_fd(1000);
            started.stop();
            started.start(|_, _| ()).unwrap();
        };
        let io = event_loop().io(Asked(reader, Box::new(ask)), Interest::READ).unwrap();
        io.start(|_, _| ()).unwrap();
        assert!(io.is_active() && other.is_active());
        assert_eq!(event_loop().counts().active, 2);
    });
}

#[test]
fn a_start_that_panics_leaves_the_watcher_stopped() {
    run("a_start_that_panics_leaves_the_watcher_stopped", || {
        let (reader, _writer) = pipe().unwrap();
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        let ask = move || {
            count.set(count.get() + 1);
            if count.get() == 3 {
                quiet_panic("the owner of the descriptor");
            }
        };
        let io = event_loop().io(Asked(reader, Box::new(ask)), Interest::BOTH).unwrap();
        while asked.get() < 3 {
            let started = catch_unwind(AssertUnwindSafe(|| io.start(|_, _| ())));
            assert!(started.is_err() || asked.get() < 3);
        }
        assert!(!io.is_active());
        assert_eq!(event_loop().counts().active, 0);
        assert!(!event_loop().run(Run::NoWait).unwrap());
        drop(io);
        assert_eq!(event_loop().counts().active, 0);
    });
}

#[test]
fn an_owner_that_closes_its_watcher_during_the_start_is_obeyed() {
    run("an_owner_that_closes_its_watcher_during_the_start_is_obeyed", || {
        let (reader, _writer) = pipe().unwrap();
        let own: Rc<RefCell<Option<Rc<Io>>>> = Rc::default();
        let slot = Rc::clone(&own);
        let close = move || slot.take().into_iter().for_each(|io| io.close());
        let io = Rc::new(event_loop().io(Asked(reader, Box::new(close)), Interest::READ).unwrap());
        own.replace(Some(Rc::clone(&io)));
        assert!(matches!(io.start(|_, _| ()), Err(WatcherError::Closed)));
        assert!(!event_loop().run(Run::NoWait).unwrap());
    });
}

/// Returns a socket that is connected to a peer that keeps silent, and the peer.
fn green_socket() -> (Rc<GreenStream>, GreenStream) {
    let (socket, peer) = GreenStream::pair().unwrap();
    (Rc::new(socket), peer)
}

fn is_of_a_closed_owner(error: &WatcherError) -> bool {
    matches!(error, WatcherError::Refused(TrampolineError::Closed { .. }))
}

#[test]
fn a_watcher_of_a_closed_socket_is_refused() {
    run("a_watcher_of_a_closed_socket_is_refused", || {
        let (socket, _peer) = green_socket();
        socket.close();
        let error = event_loop().io(Rc::clone(&socket), Interest::READ).unwrap_err();
        assert!(is_of_a_closed_owner(&error), "{error}");
        let error = get_hub().listen(Rc::clone(&socket), Interest::READ, |_| ()).unwrap_err();
        assert!(matches!(error, TrampolineError::Closed { .. }), "{error}");
        let error = trampoline(&*socket, Interest::READ, SHORT).unwrap_err();
        assert!(matches!(error, TrampolineError::Closed { .. }), "{error}");
    });
}

#[test]
fn a_watcher_whose_socket_was_closed_cannot_start() {
    run("a_watcher_whose_socket_was_closed_cannot_start", || {
        let (socket, _peer) = green_socket();
        let io = event_loop().io(Rc::clone(&socket), Interest::READ).unwrap();
        let shown = format!("{io:?}");
        socket.close();
        assert_eq!(format!("{io:?}"), shown);
        let error = io.start(|_, _| ()).unwrap_err();
        assert!(is_of_a_closed_owner(&error), "{error}");
        let error = io.wait(LONG).unwrap_err();
        assert!(matches!(&error, WaitError::Watcher(error) if is_of_a_closed_owner(error)), "{error}");
        // It is given at once: a wait for it returns at once.
        assert!(std::ptr::eq(iwait([&io], None).next().unwrap().unwrap(), &io));
        let error = io.set_events(Interest::WRITE).unwrap_err();
        assert!(is_of_a_closed_owner(&error), "{error}");
        assert_eq!(event_loop().counts().active, 0);
    });
}

#[test]
fn an_owner_that_switches_leaves_the_panics_of_others_as_they_are() {
    run("an_owner_that_switches_leaves_the_panics_of_others_as_they_are", || {
        let (socket, _peer) = green_socket();
        socket.close();
        let closed = Rc::clone(&socket);
        // The first question is the one that is answered by another green thread's panic, if they are mixed up.
        let asks = move || {
            let (reader, _writer) = pipe().unwrap();
            let owner = Asked(reader, Box::new(|| sleep(SHORT)));
            drop(event_loop().io(owner, Interest::READ).unwrap());
            event_loop().io(Rc::clone(&closed), Interest::READ).unwrap_err()
        };
        let asking = [spawn(asks.clone()), spawn(asks)];
        yield_now();
        let payload = catch_unwind(AssertUnwindSafe(|| _ = socket.as_fd())).unwrap_err();
        assert!(payload.downcast_ref::<String>().unwrap().contains("its owner was closed"));
        for green in asking {
            assert!(is_of_a_closed_owner(&green.join().unwrap()));
        }
        let payload = catch_unwind(AssertUnwindSafe(|| _ = socket.as_fd())).unwrap_err();
        assert!(payload.is::<String>(), "no question is left");
    });
}

#[test]
fn the_close_of_a_socket_ends_the_wait_of_its_watcher() {
    run("the_close_of_a_socket_ends_the_wait_of_its_watcher", || {
        let (socket, _peer) = green_socket();
        let io = Rc::new(event_loop().io(Rc::clone(&socket), Interest::READ).unwrap());
        let waiting = Rc::clone(&io);
        let waiter = spawn(move || waiting.wait(None));
        sleep(Duration::ZERO);
        socket.close();
        let error = waiter.join().unwrap().unwrap_err();
        assert!(matches!(error, WaitError::Closed), "{error}");
        assert!(matches!(io.start(|_, _| ()), Err(WatcherError::Closed)));
    });
}

#[test]
fn the_report_names_a_watcher_that_has_closed_its_socket() {
    run("the_report_names_a_watcher_that_has_closed_its_socket", || {
        let (socket, peer) = green_socket();
        let io = event_loop().io(Rc::clone(&socket), Interest::READ).unwrap();
        let shown = format!("{io:?}");
        let reports = Log::new();
        let log = reports.clone();
        get_hub().set_error_handler(Some(move |report: &Report| {
            log.push(report.to_string());
            Verdict::Silent
        }));
        io.start(move |_, _| {
            socket.close();
            quiet_panic("a callback")
        })
        .unwrap();
        (&peer).write_all(b"x").unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        let reports = reports.take();
        let number = shown.split("fd: ").nth(1).unwrap().split(',').next().unwrap();
        assert!(matches!(&reports[..], [report] if report.contains(&format!("fd: {number},"))), "{reports:?}");
    });
}
