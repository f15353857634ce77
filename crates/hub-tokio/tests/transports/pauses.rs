//! Pauses of the read direction.

use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use hub_tokio::GreenTransport;
use tokio::io::{DuplexStream, duplex};

use crate::support::{ENDINGS, end_while_parked, on_each_hub, some_turns};

type Shared = Rc<GreenTransport<DuplexStream>>;

fn pair() -> (Shared, GreenTransport<DuplexStream>) {
    let (ours, theirs) = duplex(64);
    (Rc::new(GreenTransport::new(ours)), GreenTransport::new(theirs))
}

fn spawn_reader(transport: &Shared) -> greenhub::GreenThread<usize> {
    let transport = Rc::clone(transport);
    greenhub::spawn(move || (&*transport).read(&mut [0; 64]).unwrap())
}

#[test]
fn a_read_waits_for_as_many_resumes_as_pauses() {
    on_each_hub(|| {
        let (transport, mut peer) = pair();
        peer.write_all(b"data").unwrap();
        transport.pause();
        transport.pause();
        let reader = spawn_reader(&transport);
        for _ in 0..2 {
            some_turns();
            assert!(transport.is_paused() && !reader.is_finished());
            transport.resume();
        }
        assert!(!transport.is_paused());
        assert_eq!(reader.join().unwrap(), 4);
    });
}

#[test]
fn a_pause_holds_up_a_read_that_waits_already() {
    on_each_hub(|| {
        let (transport, mut peer) = pair();
        let reader = spawn_reader(&transport);
        some_turns();
        transport.pause();
        peer.write_all(b"data").unwrap();
        some_turns();
        assert!(!reader.is_finished());
        transport.resume();
        assert_eq!(reader.join().unwrap(), 4);
    });
}

#[test]
fn a_paused_read_times_out() {
    on_each_hub(|| {
        let (transport, mut peer) = pair();
        peer.write_all(b"data").unwrap();
        transport.pause();
        transport.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        assert_eq!((&*transport).read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::TimedOut);
        transport.resume();
        assert_eq!((&*transport).read(&mut [0; 64]).unwrap(), 4);
    });
}

#[test]
fn one_resume_too_many_takes_back_no_later_pause() {
    on_each_hub(|| {
        let (transport, mut peer) = pair();
        transport.resume();
        peer.write_all(b"one").unwrap();
        assert_eq!((&*transport).read(&mut [0; 64]).unwrap(), 3);
        transport.pause();
        peer.write_all(b"more").unwrap();
        let reader = spawn_reader(&transport);
        some_turns();
        assert!(!reader.is_finished());
        transport.resume();
        assert_eq!(reader.join().unwrap(), 4);
    });
}

#[test]
fn an_exit_ends_a_paused_read_and_loses_no_data() {
    on_each_hub(|| {
        for ending in ENDINGS {
            let (transport, mut peer) = pair();
            peer.write_all(b"data").unwrap();
            transport.pause();
            let reading = Rc::clone(&transport);
            end_while_parked(ending, move || drop((&*reading).read(&mut [0; 64])));
            transport.resume();
            assert_eq!((&*transport).read(&mut [0; 64]).unwrap(), 4, "{ending:?}");
        }
    });
}

#[test]
fn a_pause_holds_up_no_write() {
    on_each_hub(|| {
        let (transport, mut peer) = pair();
        transport.pause();
        (&*transport).write_all(b"out").unwrap();
        assert_eq!(peer.read(&mut [0; 64]).unwrap(), 3);
    });
}

#[test]
fn a_transport_that_is_dropped_while_paused_ends_its_stream() {
    on_each_hub(|| {
        let (transport, mut peer) = pair();
        transport.pause();
        let reader = spawn_reader(&transport);
        some_turns();
        reader.kill();
        drop(transport);
        assert_eq!(peer.read(&mut [0; 64]).unwrap(), 0);
        assert_eq!(peer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_resume_on_another_thread_wakes_the_reader() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let ours = std::sync::Arc::new(GreenTransport::new(ours));
        GreenTransport::new(theirs).write_all(b"data").unwrap();
        ours.pause();
        let reading = std::sync::Arc::clone(&ours);
        let reader = greenhub::spawn(move || (&*reading).read(&mut [0; 64]).unwrap());
        some_turns();
        assert!(!reader.is_finished());
        std::thread::spawn(move || ours.resume()).join().unwrap();
        assert_eq!(reader.join().unwrap(), 4);
    });
}
