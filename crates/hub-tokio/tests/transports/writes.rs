//! Writes: when they return, and what ends them.

use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use hub_tokio::GreenTransport;
use tokio::io::duplex;

use crate::support::{ENDINGS, end_while_parked, on_each_hub, pattern, scripted, some_turns, until};

#[test]
fn a_write_returns_when_the_stream_has_flushed_it() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        script.set_room(64);
        script.set_flushes(false);
        let writer = greenhub::spawn(move || GreenTransport::new(stream).write(b"hello").unwrap());
        some_turns();
        assert_eq!((&**script.written.borrow(), writer.is_finished()), (&b"hello"[..], false));
        script.set_flushes(true);
        assert_eq!(writer.join().unwrap(), 5);
    });
}

#[test]
fn a_write_waits_for_a_slow_peer_and_lets_others_run() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(8);
        let sent = pattern(1000);
        let data = sent.clone();
        let writer = greenhub::spawn(move || GreenTransport::new(ours).write_all(&data));
        some_turns();
        assert!(!writer.is_finished());
        let mut received = Vec::new();
        GreenTransport::new(theirs).read_to_end(&mut received).unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(received, sent);
    });
}

#[test]
fn an_exit_ends_a_parked_write_that_accepted_nothing() {
    on_each_hub(|| {
        for ending in ENDINGS {
            let (stream, script) = scripted();
            let transport = Rc::new(GreenTransport::new(stream));
            let writing = Rc::clone(&transport);
            end_while_parked(ending, move || drop((&*writing).write(b"never")));
            script.set_room(64);
            assert_eq!((&*transport).write(b"next").unwrap(), 4, "{ending:?}");
            assert_eq!(&**script.written.borrow(), b"next", "{ending:?}");
        }
    });
}

#[test]
fn an_exit_during_the_flush_keeps_what_was_accepted() {
    on_each_hub(|| {
        for ending in ENDINGS {
            let (stream, script) = scripted();
            script.set_room(64);
            script.set_flushes(false);
            let transport = Rc::new(GreenTransport::new(stream));
            let writing = Rc::clone(&transport);
            end_while_parked(ending, move || drop((&*writing).write(b"accepted ")));
            // The next write flushes first.
            let writing = Rc::clone(&transport);
            let writer = greenhub::spawn(move || (&*writing).write(b"next").unwrap());
            some_turns();
            assert_eq!(&**script.written.borrow(), b"accepted ", "{ending:?}");
            script.set_flushes(true);
            assert_eq!(writer.join().unwrap(), 4);
            assert_eq!(&**script.written.borrow(), b"accepted next", "{ending:?}");
        }
    });
}

#[test]
fn a_write_timeout_fails_a_write_that_accepted_nothing() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let mut transport = GreenTransport::new(stream);
        transport.set_write_timeout(Some(Duration::from_millis(2))).unwrap();
        assert_eq!(transport.write(b"x").unwrap_err().kind(), ErrorKind::TimedOut);
        script.set_room(64);
        assert_eq!(transport.write(b"y").unwrap(), 1);
        assert_eq!(&**script.written.borrow(), b"y");
    });
}

#[test]
fn a_write_timeout_during_the_flush_returns_what_was_accepted() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        script.set_room(4);
        script.set_flushes(false);
        let mut transport = GreenTransport::new(stream);
        transport.set_write_timeout(Some(Duration::from_millis(2))).unwrap();
        assert_eq!(transport.write(b"hello").unwrap(), 4);
        // Nothing of these is accepted before the flush.
        assert_eq!(transport.write(b"o").unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(transport.flush().unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(transport.shutdown().unwrap_err().kind(), ErrorKind::TimedOut);
        script.set_flushes(true);
        transport.flush().unwrap();
        transport.shutdown().unwrap();
        assert_eq!(&**script.written.borrow(), b"hell");
    });
}

#[test]
fn a_flush_waits_for_the_stream_and_an_exit_ends_it() {
    on_each_hub(|| {
        for ending in ENDINGS {
            let (stream, script) = scripted();
            script.set_flushes(false);
            let transport = Rc::new(GreenTransport::new(stream));
            let flushing = Rc::clone(&transport);
            end_while_parked(ending, move || drop((&*flushing).flush()));
            let shutting = Rc::clone(&transport);
            end_while_parked(ending, move || drop(shutting.shutdown()));
            script.set_flushes(true);
            (&*transport).flush().unwrap();
            transport.shutdown().unwrap();
        }
    });
}

#[test]
fn a_shutdown_flushes_first() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        script.set_room(64);
        script.set_flushes(false);
        let transport = GreenTransport::new(stream);
        assert_eq!(transport.write_nowait(b"accepted").unwrap(), 8);
        let shutdown = greenhub::spawn(move || transport.shutdown());
        some_turns();
        assert!(!shutdown.is_finished());
        script.set_flushes(true);
        shutdown.join().unwrap().unwrap();
    });
}

#[test]
fn write_nowait_accepts_what_the_stream_does() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let mut transport = GreenTransport::new(stream);
        assert_eq!(transport.write_nowait(b"hello").unwrap_err().kind(), ErrorKind::WouldBlock);
        script.set_room(3);
        script.set_flushes(false);
        assert_eq!(transport.write_nowait(b"hello").unwrap(), 3);
        script.set_room(3);
        // It flushes first.
        assert_eq!(transport.write_nowait(b"lo").unwrap_err().kind(), ErrorKind::WouldBlock);
        script.set_flushes(true);
        assert_eq!(transport.write_nowait(b"lo").unwrap(), 2);
        transport.flush().unwrap();
        assert_eq!(&**script.written.borrow(), b"hello");
    });
}

#[test]
fn write_nowait_accepts_nothing_beside_a_waiting_writer() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let transport = Rc::new(GreenTransport::new(stream));
        let writing = Rc::clone(&transport);
        let writer = greenhub::spawn(move || (&*writing).write(b"first").unwrap());
        some_turns();
        assert_eq!(transport.write_nowait(b"second").unwrap_err().kind(), ErrorKind::WouldBlock);
        script.set_room(64);
        assert_eq!(writer.join().unwrap(), 5);
        assert_eq!(transport.write_nowait(b"second").unwrap(), 6);
        assert_eq!(&**script.written.borrow(), b"firstsecond");
    });
}

#[test]
fn on_the_main_loop_a_write_returns_what_was_accepted_without_a_wait() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        script.set_room(9);
        let transport = Rc::new(GreenTransport::new(stream));
        let results = Rc::new(RefCell::new(Vec::new()));
        let (seen, writing, flushes) = (Rc::clone(&results), Rc::clone(&transport), Rc::clone(&script));
        greenhub::get_hub().schedule_once(Duration::ZERO, move || {
            let mut seen = seen.borrow_mut();
            seen.push(writing.write_nowait(b"one").map_err(|error| error.kind()));
            flushes.set_flushes(false);
            // The flush is left to the next write.
            seen.push((&*writing).write(b"two").map_err(|error| error.kind()));
            seen.push((&*writing).write(b"six").map_err(|error| error.kind()));
        });
        until(|| !results.borrow().is_empty());
        let results = results.take();
        assert_eq!(results[..2], [Ok(3), Ok(3)]);
        assert!(results[2].is_err());
        script.set_flushes(true);
        assert_eq!((&*transport).write(b"six").unwrap(), 3);
        assert_eq!(&**script.written.borrow(), b"onetwosix");
    });
}

#[test]
fn pieces_are_written_in_order() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let mut ours = GreenTransport::new(ours);
        let mut sent = 0;
        while sent == 0 {
            sent = ours.write_vectored(&[IoSlice::new(b"one"), IoSlice::new(b"two")]).unwrap();
        }
        drop(ours);
        let mut received = String::new();
        GreenTransport::new(theirs).read_to_string(&mut received).unwrap();
        assert_eq!(received, "onetwo"[..sent]);
    });
}

#[test]
fn writes_that_never_wait_let_other_green_threads_run() {
    on_each_hub(|| {
        let other = greenhub::spawn(|| ());
        let mut transport = GreenTransport::new(tokio::io::sink());
        while !other.is_finished() {
            assert_eq!(transport.write(&[0; 8]).unwrap(), 8);
        }
    });
}
