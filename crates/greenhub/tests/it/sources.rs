//! The operations of a `Source`: how often they call the caller's closures, and which of them wait.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::support::descriptors::{fill, ms, pair, read, read_within, source, write};
use crate::support::hubs::use_manual_clock;
use crate::support::{in_child, limited};
use greenhub::debug::hub_prevent_multiple_readers;
use greenhub::greenthread::set_panicking_grace;
use greenhub::park::{ReadHint, Source};
use greenhub::thread::yield_now;
use greenhub::{Interest, get_hub, sleep, spawn};

/// Longer than any wait that a wake-up ends, so that a lost wake-up is a failure and not a hang.
const TIMEOUT: Duration = Duration::from_secs(60);

fn would_block<T>() -> io::Result<T> {
    Err(ErrorKind::WouldBlock.into())
}

/// Returns a connection whose first end the hub has registered and found empty.
fn registered_pair() -> (Source, Source) {
    let (here, there) = pair();
    read_within(&here, 1, Some(ms(1))).expect_err("nothing yet");
    (here, there)
}

/// Returns a connection whose second end is shut down for writing. The hub has reported the end of the stream to the
/// first.
fn ended_pair() -> (Source, Source) {
    let (here, there) = registered_pair();
    there.with(|fd| Ok(rustix::net::shutdown(fd, rustix::net::Shutdown::Write)?)).expect("the socket is connected");
    here.wait(Interest::READ, Some(TIMEOUT)).expect("the end is reported");
    here.set_nonblocking(true);
    (here, there)
}

#[test]
fn a_wait_that_no_operation_followed_finds_what_is_still_ready() {
    limited(|| {
        let (here, there) = registered_pair();
        write(&there, b"x").expect("the buffer has room");
        for direction in [Interest::READ, Interest::WRITE] {
            for _ in 0..3 {
                here.wait(direction, TIMEOUT).expect("it is still ready");
            }
        }
        // The byte is read without an operation of the source.
        here.with(|fd| Ok(rustix::io::read(fd, &mut [0; 8])?)).expect("a byte");
        let late = here.wait(Interest::READ, ms(1)).expect_err("nothing is left");
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        write(&there, b"x").expect("the buffer has room");
        here.wait(Interest::READ, TIMEOUT).expect("a new arrival");
    });
}

#[test]
fn read_or_end_does_not_ask_for_an_unreported_end() {
    limited(|| {
        let (here, _there) = registered_pair();
        here.set_nonblocking(true);
        let result = here.read_or_end::<()>(None, |_| would_block(), |_| panic!("no end was reported"));
        assert_eq!(result.expect_err("nothing there").kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn read_or_end_returns_data_without_asking_for_the_end() {
    limited(|| {
        let (here, _there) = ended_pair();
        let result = here.read_or_end(None, |_| Ok((7, ReadHint::Likely)), |_| panic!("there was data"));
        assert_eq!(result.expect("the read succeeds"), 7);
    });
}

#[test]
fn read_or_end_asks_for_a_reported_end_once() {
    limited(|| {
        let (here, _there) = ended_pair();
        let asked = Cell::new(0);
        let read = || {
            let end = |_: std::os::fd::BorrowedFd<'_>| {
                asked.set(asked.get() + 1);
                None
            };
            let result = here.read_or_end::<()>(None, |_| would_block(), end);
            assert_eq!(result.expect_err("nothing there").kind(), ErrorKind::WouldBlock);
            asked.get()
        };
        let first = read();
        assert_eq!(read(), first, "a reported end was asked for twice");
        // select(2) does not report the end of a stream.
        assert!(first == 1 || get_hub().name() == "select");
    });
}

#[test]
fn a_nonblocking_read_of_an_empty_source_returns_would_block() {
    limited(|| {
        let (here, _there) = registered_pair();
        here.set_nonblocking(true);
        let result = read_within(&here, 1, Some(TIMEOUT));
        assert_eq!(result.expect_err("nothing there").kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn an_interrupted_operation_is_tried_again() {
    limited(|| {
        let (here, _there) = pair();
        let calls = Cell::new(0);
        let interrupted = || {
            calls.set(calls.get() + 1);
            if calls.get() % 3 == 0 { Ok(()) } else { Err(io::Error::from(ErrorKind::Interrupted)) }
        };
        here.read(None, |_| interrupted().map(|()| ((), ReadHint::Likely))).expect("the operation is tried again");
        here.write(None, |_| interrupted()).expect("the operation is tried again");
        here.set_nonblocking(true);
        here.read(None, |_| interrupted().map(|()| ((), ReadHint::Likely))).expect("the operation is tried again");
        assert_eq!(calls.get(), 9);
    });
}

#[test]
fn an_operation_out_of_descriptors_yields_unless_nonblocking() {
    limited(|| {
        let (here, _there) = pair();
        for nonblocking in [false, true] {
            let ran = Rc::new(Cell::new(false));
            let runs = Rc::clone(&ran);
            let other = spawn(move || runs.set(true));
            here.set_nonblocking(nonblocking);
            let result = here.read::<()>(None, |_| Err(io::Error::from_raw_os_error(libc::EMFILE)));
            assert_eq!(result.expect_err("no descriptor").raw_os_error(), Some(libc::EMFILE));
            assert_eq!(ran.get(), !nonblocking);
            other.join().expect("no panic");
        }
    });
}

#[test]
fn set_retrying_changes_no_other_setting() {
    let (here, _there) = pair();
    assert!(!here.is_retrying());
    here.set_nonblocking(true);
    here.set_retrying(true);
    assert!(here.is_retrying());
    here.set_retrying(false);
    assert!(!here.is_retrying());
    assert!(here.is_nonblocking());
}

#[test]
fn into_fd_returns_the_same_number_under_any_setting() {
    let (here, _there) = pair();
    here.set_nonblocking(true);
    here.set_retrying(true);
    let number = here.as_raw_fd();
    assert_eq!(here.into_fd().expect("the source is open").as_raw_fd(), number);
}

/// Returns how often the waiting operation of `begin` calls its closure in one second without a report.
fn calls_in_a_quiet_second(begin: impl FnOnce(Rc<Cell<u32>>) + 'static) -> u32 {
    let calls = Rc::new(Cell::new(0));
    let counts = Rc::clone(&calls);
    let green = spawn(move || begin(counts));
    sleep(ms(100));
    let before = calls.get();
    sleep(Duration::from_secs(1));
    let calls = calls.get() - before;
    green.kill();
    calls
}

#[test]
fn only_writes_of_a_retrying_source_are_tried_without_a_report() {
    in_child(|| {
        use_manual_clock();
        let (here, _there) = pair();
        fill(&here);
        let here = Rc::new(here);
        let tried = |retrying: bool, writes: bool| {
            here.set_retrying(retrying);
            let here = Rc::clone(&here);
            calls_in_a_quiet_second(move |calls| {
                let count = || calls.set(calls.get() + 1);
                let _ = if writes {
                    here.write(None, |fd| {
                        count();
                        Ok(rustix::io::write(fd, b"x")?)
                    })
                } else {
                    here.read(None, |fd| {
                        count();
                        Ok((rustix::io::read(fd, &mut [0])?, ReadHint::Likely))
                    })
                };
            })
        };
        assert_eq!(tried(false, true), 0);
        assert_eq!(tried(true, false), 0);
        assert!(tried(true, true) > 10);
    });
}

#[test]
fn an_operation_waits_again_after_a_spurious_report() {
    in_child(|| {
        use_manual_clock();
        let (here, there) = pair();
        write(&there, b"x").expect("the buffer has room");
        let calls = Rc::new(Cell::new(0));
        let counts = Rc::clone(&calls);
        let reader = spawn(move || {
            here.read::<()>(None, |fd| {
                counts.set(counts.get() + 1);
                // After the report, the data is gone, as if another handle had read it first.
                if counts.get() == 2 {
                    let _ = rustix::io::read(fd, &mut [0]);
                }
                would_block()
            })
        });
        sleep(Duration::from_secs(1));
        assert_eq!(calls.get(), 2, "before the first report and after it");
        reader.kill();
    });
}

#[test]
fn a_retrying_write_is_refused_while_another_thread_waits() {
    limited(|| {
        let (here, there) = pair();
        let here = Arc::new(here);
        let waits = Arc::clone(&here);
        let waiter = spawn(move || read_within(&waits, 8, Some(TIMEOUT)));
        yield_now();
        let refused = std::thread::spawn(move || {
            here.set_retrying(true);
            fill(&here);
            here.write(Some(TIMEOUT), |fd| Ok(rustix::io::write(fd, b"x")?))
        });
        assert_eq!(refused.join().expect("no panic").expect_err("the call is refused").kind(), ErrorKind::ResourceBusy);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(waiter.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn a_wait_while_unwinding_leaves_the_readiness_for_the_next_read() {
    struct ReadsOne<'a>(&'a Source);
    impl Drop for ReadsOne<'_> {
        fn drop(&mut self) {
            assert_eq!(read_one(self.0), b'x');
        }
    }
    fn read_one(source: &Source) -> u8 {
        let mut byte = [0];
        let read = source.read(Some(TIMEOUT), |fd| Ok((rustix::io::read(fd, &mut byte)?, ReadHint::Likely)));
        assert_eq!(read.expect("the read succeeds"), 1);
        byte[0]
    }
    in_child(|| {
        set_panicking_grace(TIMEOUT);
        let (here, there) = registered_pair();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(ms(20));
            there.with(|fd| Ok(rustix::io::write(fd, b"xy")?)).expect("the buffer has room");
            there
        });
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _reads = ReadsOne(&here);
            resume_unwind(Box::new("on purpose"));
        }));
        assert!(unwound.is_err());
        let ran = Rc::new(Cell::new(false));
        let runs = Rc::clone(&ran);
        let other = spawn(move || runs.set(true));
        assert_eq!(read_one(&here), b'y');
        assert!(!ran.get(), "the read has waited");
        other.join().expect("no panic");
        drop(writer.join().expect("no panic"));
    });
}

#[test]
fn wake_does_not_wake_waiters_of_the_other_direction() {
    in_child(|| {
        hub_prevent_multiple_readers(false);
        let (here, _there) = pair();
        fill(&here);
        let here = Rc::new(here);
        let calls = Rc::new(Cell::new(0));
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let (here, calls) = (Rc::clone(&here), Rc::clone(&calls));
                spawn(move || {
                    here.write(None, |fd| {
                        calls.set(calls.get() + 1);
                        Ok(rustix::io::write(fd, b"x")?)
                    })
                })
            })
            .collect();
        sleep(ms(1));
        let before = calls.get();
        here.wake(Interest::READ);
        sleep(ms(1));
        assert_eq!(calls.get(), before);
        here.wake(Interest::WRITE);
        sleep(ms(1));
        assert_eq!(calls.get(), before + 3);
        writers.iter().for_each(|writer| _ = writer.kill());
    });
}

#[test]
fn a_wait_on_a_source_ends_a_stale_wait_under_its_number() {
    in_child(|| {
        let (old, _old_peer) = UnixStream::pair().expect("a pair");
        let number = old.as_raw_fd();
        // SAFETY: the wait ends with an error when the number is reused, which is the case under test.
        let stale = spawn(move || unsafe { greenhub::park::trampoline_raw(number, Interest::READ, Some(TIMEOUT)) });
        yield_now();
        let (new, peer) = UnixStream::pair().expect("a pair");
        // The library is not notified of the close.
        drop(old);
        let new = rustix::io::fcntl_dupfd_cloexec(&new, number).expect("a number");
        assert_eq!(new.as_raw_fd(), number);
        let (new, peer) = (source(new), source(peer));
        let reader = spawn(move || read(&new, 8));
        yield_now();
        assert_eq!(
            io::Error::from(stale.join().expect("no panic").expect_err("the descriptor is closed")).kind(),
            ErrorKind::NotConnected
        );
        write(&peer, b"x").expect("the buffer has room");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}
