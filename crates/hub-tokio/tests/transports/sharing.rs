//! Several green threads, or OS threads, with one transport.

use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use hub_tokio::GreenTransport;
use tokio::io::{DuplexStream, duplex};

use crate::support::{on_each_hub, pattern, scripted, some_turns};

#[test]
fn a_second_simultaneous_reader_is_an_error() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let transport = Rc::new(GreenTransport::new(ours));
        let reading = Rc::clone(&transport);
        let reader = greenhub::spawn(move || (&*reading).read(&mut [0; 8]).unwrap());
        some_turns();
        let refused = (&*transport).read(&mut [0; 8]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
        assert!(refused.to_string().starts_with("second simultaneous read"), "{refused}");
        // The first reader is still woken.
        GreenTransport::new(theirs).write_all(b"data").unwrap();
        assert_eq!(reader.join().unwrap(), 4);
        assert_eq!((&*transport).read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn a_second_simultaneous_writer_is_an_error() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let transport = Rc::new(GreenTransport::new(stream));
        let writing = Rc::clone(&transport);
        let writer = greenhub::spawn(move || (&*writing).write(b"first").unwrap());
        some_turns();
        for refused in [(&*transport).write(b"second").map(drop), (&*transport).flush(), transport.shutdown()] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
            assert!(refused.to_string().starts_with("second simultaneous write"), "{refused}");
        }
        script.set_room(64);
        assert_eq!(writer.join().unwrap(), 5);
    });
}

#[test]
fn a_reader_and_a_writer_do_not_wait_for_each_other() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(8);
        let echo = greenhub::spawn(move || {
            let theirs = GreenTransport::new(theirs);
            std::io::copy(&mut &theirs, &mut &theirs)
        });
        let transport = Rc::new(GreenTransport::new(ours));
        let sent = pattern(2000);
        let (writing, data) = (Rc::clone(&transport), sent.clone());
        let writer = greenhub::spawn(move || {
            (&*writing).write_all(&data)?;
            writing.shutdown()
        });
        let mut received = Vec::new();
        (&*transport).read_to_end(&mut received).unwrap();
        assert_eq!(received, sent);
        writer.join().unwrap().unwrap();
        assert_eq!(echo.join().unwrap().unwrap(), 2000);
    });
}

#[test]
fn two_os_threads_read_and_write_one_transport() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let transport = Arc::new(GreenTransport::new(ours));
        let sent = pattern(20_000);
        let (writing, data) = (Arc::clone(&transport), sent.clone());
        let writer = thread::spawn(move || {
            greenhub::use_hub("poll").unwrap();
            let writer = greenhub::spawn(move || {
                data.chunks(77).try_for_each(|chunk| (&*writing).write_all(chunk))?;
                writing.shutdown()
            });
            writer.join().unwrap()
        });
        let echo = thread::spawn(move || {
            let theirs = GreenTransport::new(theirs);
            std::io::copy(&mut &theirs, &mut &theirs)
        });
        let mut received = Vec::new();
        (&*transport).read_to_end(&mut received).unwrap();
        assert!(received == sent);
        writer.join().unwrap().unwrap();
        assert_eq!(echo.join().unwrap().unwrap(), 20_000);
    });
}

#[test]
fn a_transport_may_move_to_another_os_thread() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let (mut ours, mut theirs) = (GreenTransport::new(ours), GreenTransport::new(theirs));
        theirs.write_all(b"one").unwrap();
        assert_eq!(ours.read(&mut [0; 64]).unwrap(), 3);
        let other = thread::spawn(move || {
            let mut rest = String::new();
            ours.read_to_string(&mut rest).unwrap();
            rest
        });
        theirs.write_all(b"two").unwrap();
        drop(theirs);
        assert_eq!(other.join().unwrap(), "two");
    });
}

#[test]
fn the_stream_can_be_reached() {
    on_each_hub(|| {
        let (ours, mut theirs) = duplex(64);
        let mut transport = GreenTransport::new(ours);
        let stream = std::ptr::from_ref(&*transport.get_ref());
        assert_eq!(stream, std::ptr::from_mut(transport.get_mut()).cast_const());
        let mut ours = transport.into_inner();
        greenhub::future::block_on(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            theirs.write_all(b"x").await.unwrap();
            assert_eq!(ours.read_u8().await.unwrap(), b'x');
        });
    });
}

#[test]
fn operations_wait_while_the_stream_is_lent() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let transport = Rc::new(GreenTransport::new(ours));
        let lent = transport.get_ref();
        let other = Rc::clone(&transport);
        let writer = greenhub::spawn(move || (&*other).write_all(b"data").unwrap());
        let other = Rc::clone(&transport);
        let second = greenhub::spawn(move || drop(other.get_ref()));
        some_turns();
        assert!(!writer.is_finished() && !second.is_finished());
        assert_eq!(transport.write_nowait(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(lent);
        writer.join().unwrap();
        second.join().unwrap();
        assert_eq!(GreenTransport::new(theirs).read(&mut [0; 8]).unwrap(), 4);
    });
}

#[test]
fn transports_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<GreenTransport<DuplexStream>>();
    check::<hub_tokio::LineTransport<DuplexStream>>();
    check::<hub_tokio::net::Listener>();
}
