//! Reads: when they take data, and what ends them.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use greenhub::hub::{LoopError, LoopErrorKind};
use hub_tokio::GreenTransport;
use tokio::io::duplex;

use crate::support::{ENDINGS, end_while_parked, on_each_hub, pattern, scripted, some_turns, until};

#[test]
fn nothing_is_read_before_a_reader_waits() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        script.read(Ok(pattern(100)));
        let mut transport = GreenTransport::new(stream);
        some_turns();
        assert_eq!(script.read_polls.get(), 0);
        assert_eq!(transport.read(&mut [0; 8]).unwrap(), 8);
    });
}

#[test]
fn a_sender_is_held_up_while_nothing_reads() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let (mut ours, theirs) = (GreenTransport::new(ours), GreenTransport::new(theirs));
        let sent = pattern(1000);
        assert_eq!(theirs.write_nowait(&sent).unwrap(), 64);
        some_turns();
        assert_eq!(theirs.write_nowait(&sent[64..]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(ours.read(&mut [0; 10]).unwrap(), 10);
        some_turns();
        // Only what was read has left the pipe.
        assert_eq!(theirs.write_nowait(&sent[64..]).unwrap(), 10);
    });
}

#[test]
fn reading_goes_on_only_during_the_wait() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let transport = Rc::new(GreenTransport::new(stream));
        let reading = Rc::clone(&transport);
        let reader = greenhub::spawn(move || (&*reading).read(&mut [0; 4]).unwrap());
        some_turns();
        assert!(script.read_polls.get() > 0);
        script.read(Ok(pattern(4)));
        assert_eq!(reader.join().unwrap(), 4);
        let polls = script.read_polls.get();
        script.read(Ok(pattern(4)));
        some_turns();
        assert_eq!(script.read_polls.get(), polls);
    });
}

#[test]
fn other_green_threads_run_while_a_reader_waits() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let reader = greenhub::spawn(move || {
            let mut received = Vec::new();
            GreenTransport::new(ours).read_to_end(&mut received).unwrap();
            received
        });
        let mut theirs = GreenTransport::new(theirs);
        for byte in b"hello" {
            some_turns();
            theirs.write_all(&[*byte]).unwrap();
        }
        drop(theirs);
        assert_eq!(reader.join().unwrap(), b"hello");
    });
}

#[test]
fn an_exit_ends_a_parked_read_and_loses_no_data() {
    on_each_hub(|| {
        for ending in ENDINGS {
            let (ours, theirs) = duplex(64);
            let transport = Rc::new(GreenTransport::new(ours));
            let reading = Rc::clone(&transport);
            end_while_parked(ending, move || drop((&*reading).read(&mut [0; 64])));
            GreenTransport::new(theirs).write_all(b"kept").unwrap();
            let mut received = Vec::new();
            (&*transport).read_to_end(&mut received).unwrap();
            assert_eq!(received, b"kept", "{ending:?}");
        }
    });
}

#[test]
fn a_kill_of_a_woken_reader_loses_no_data() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let transport = Rc::new(GreenTransport::new(ours));
        let reading = Rc::clone(&transport);
        let received = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&received);
        let reader = greenhub::spawn(move || {
            let mut buffer = [0; 64];
            let n = (&*reading).read(&mut buffer).unwrap();
            sink.borrow_mut().extend_from_slice(&buffer[..n]);
        });
        some_turns();
        // It wakes the reader, which has not run by the time of the kill.
        assert_eq!(GreenTransport::new(theirs).write_nowait(b"kept").unwrap(), 4);
        reader.kill();
        // A read that was woken before the kill returns.
        let ended = reader.join();
        (&*transport).read_to_end(&mut received.borrow_mut()).unwrap();
        assert_eq!(&**received.borrow(), b"kept", "{ended:?}");
    });
}

#[test]
fn a_read_timeout_ends_the_wait_and_loses_no_data() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let mut ours = GreenTransport::new(ours);
        ours.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        assert_eq!(ours.read_timeout().unwrap(), Some(Duration::from_millis(5)));
        for _ in 0..3 {
            assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        }
        GreenTransport::new(theirs).write_all(b"late").unwrap();
        let mut received = String::new();
        ours.read_to_string(&mut received).unwrap();
        assert_eq!(received, "late");
    });
}

#[test]
fn a_read_without_a_wait_does_not_time_out() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let mut ours = GreenTransport::new(ours);
        ours.set_read_timeout(Some(Duration::from_nanos(1))).unwrap();
        GreenTransport::new(theirs).write_all(b"early").unwrap();
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 5);
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn a_timeout_of_zero_is_refused() {
    let transport = GreenTransport::new(duplex(1).0);
    for refused in [transport.set_read_timeout(Some(Duration::ZERO)), transport.set_write_timeout(Some(Duration::ZERO))]
    {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(transport.read_timeout().unwrap(), None);
    assert_eq!(transport.write_timeout().unwrap(), None);
    transport.set_write_timeout(Some(Duration::MAX)).unwrap();
    assert!(transport.write_timeout().unwrap() > Some(Duration::from_secs(1 << 30)));
    transport.set_write_timeout(None).unwrap();
    assert_eq!(transport.write_timeout().unwrap(), None);
}

#[test]
fn a_read_into_nothing_does_not_wait() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        assert_eq!(GreenTransport::new(stream).read(&mut []).unwrap(), 0);
        assert_eq!(script.read_polls.get(), 0);
    });
}

#[test]
fn on_the_main_loop_a_read_succeeds_only_without_a_wait() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let (ours, mut theirs) = (Rc::new(GreenTransport::new(ours)), GreenTransport::new(theirs));
        theirs.write_all(b"ready").unwrap();
        let results = Rc::new(RefCell::new(Vec::new()));
        let (seen, reading) = (Rc::clone(&results), Rc::clone(&ours));
        greenhub::get_hub().schedule_once(Duration::ZERO, move || {
            for _ in 0..2 {
                seen.borrow_mut().push((&*reading).read(&mut [0; 8]));
            }
        });
        until(|| results.borrow().len() == 2);
        let refused = results.borrow_mut().pop().unwrap().unwrap_err();
        let refused = refused.get_ref().and_then(|error| error.downcast_ref::<LoopError>());
        assert_eq!(refused.map(LoopError::kind), Some(LoopErrorKind::InMainloop));
        assert_eq!(results.borrow_mut().pop().unwrap().unwrap(), 5);
        theirs.write_all(b"more").unwrap();
        assert_eq!((&*ours).read(&mut [0; 8]).unwrap(), 4);
    });
}

#[test]
fn reads_that_never_wait_let_other_green_threads_run() {
    on_each_hub(|| {
        let other = greenhub::spawn(|| ());
        let mut transport = GreenTransport::new(tokio::io::repeat(7));
        while !other.is_finished() {
            assert_eq!(transport.read(&mut [0; 8]).unwrap(), 8);
        }
    });
}

#[test]
fn a_stream_is_read_whole_with_fragments_of_every_size() {
    on_each_hub(|| {
        let sent = pattern(500);
        for (pipe, fragment) in [(1, 1), (1, 64), (2, 1), (3, 7), (64, 1), (64, 64), (1000, 1), (1000, 1000)] {
            let (ours, theirs) = duplex(pipe);
            let data = sent.clone();
            let writer = greenhub::spawn(move || {
                let mut theirs = GreenTransport::new(theirs);
                data.chunks(fragment).try_for_each(|chunk| theirs.write_all(chunk))
            });
            let (mut ours, mut received, mut buffer) = (GreenTransport::new(ours), Vec::new(), vec![0; fragment]);
            loop {
                match ours.read(&mut buffer).unwrap() {
                    0 => break,
                    n => received.extend_from_slice(&buffer[..n]),
                }
            }
            assert_eq!(received, sent, "a pipe of {pipe}, fragments of {fragment}");
            writer.join().unwrap().unwrap();
        }
    });
}
