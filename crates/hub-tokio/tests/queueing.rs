//! Several readers and writers of one direction. The setting that allows them is process-wide.

#![cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]

#[path = "transports/support.rs"]
#[allow(dead_code, reason = "the other program uses the rest")]
mod support;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;

use hub_tokio::{GreenTransport, net};
use tokio::io::duplex;

use support::{on_each_hub, on_tokio, scripted, some_turns, until};

#[test]
fn readers_get_their_turns_in_order() {
    greenhub::debug::hub_prevent_multiple_readers(false);
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let (ours, mut theirs) = (Rc::new(GreenTransport::new(ours)), GreenTransport::new(theirs));
        let order = Rc::new(RefCell::new(Vec::new()));
        let readers: Vec<_> = (0..4)
            .map(|number| {
                let (reading, order) = (Rc::clone(&ours), Rc::clone(&order));
                greenhub::spawn(move || {
                    let mut byte = [0];
                    assert_eq!((&*reading).read(&mut byte).unwrap(), 1);
                    order.borrow_mut().push((number, byte[0]));
                })
            })
            .collect();
        some_turns();
        // Kills a reader in the middle of the queue, and the reader that waits for data.
        readers[1].kill();
        readers[0].kill();
        theirs.write_all(b"ab").unwrap();
        until(|| readers[2..].iter().all(greenhub::GreenThread::is_finished));
        assert_eq!(*order.borrow(), [(2, b'a'), (3, b'b')]);
    });
}

#[test]
fn writers_get_their_turns_in_order() {
    greenhub::debug::hub_prevent_multiple_readers(false);
    on_each_hub(|| {
        let (stream, script) = scripted();
        let transport = Rc::new(GreenTransport::new(stream));
        let writers = ["one ", "two ", "three"].map(|text| {
            let writing = Rc::clone(&transport);
            greenhub::spawn(move || (&*writing).write_all(text.as_bytes()).unwrap())
        });
        some_turns();
        script.set_room(64);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!(&**script.written.borrow(), b"one two three");
    });
}

#[test]
fn a_queued_reader_times_out() {
    greenhub::debug::hub_prevent_multiple_readers(false);
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let ours = Rc::new(GreenTransport::new(ours));
        let reading = Rc::clone(&ours);
        let first = greenhub::spawn(move || (&*reading).read(&mut [0; 8]).unwrap());
        some_turns();
        ours.set_read_timeout(Some(std::time::Duration::from_millis(2))).unwrap();
        assert_eq!((&*ours).read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        GreenTransport::new(theirs).write_all(b"data").unwrap();
        assert_eq!(first.join().unwrap(), 4);
    });
}

#[test]
fn acceptors_get_their_turns() {
    greenhub::debug::hub_prevent_multiple_readers(false);
    on_tokio(|| {
        let listener = Rc::new(net::listen("127.0.0.1:0").unwrap());
        let acceptors = [(); 2].map(|()| {
            let accepting = Rc::clone(&listener);
            greenhub::spawn(move || accepting.accept().map(drop))
        });
        some_turns();
        for _ in 0..2 {
            drop(net::connect(listener.local_addr().unwrap()).unwrap());
        }
        acceptors.into_iter().for_each(|acceptor| acceptor.join().unwrap().unwrap());
    });
}
