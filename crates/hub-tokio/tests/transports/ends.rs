//! The ends of connections: clean ones, and losses.

use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use hub_tokio::GreenTransport;
use tokio::io::duplex;

use crate::support::{on_each_hub, pattern, scripted, some_turns};

fn reset() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::CONNRESET.raw_os_error())
}

#[test]
fn a_clean_end_is_empty_for_ever() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let mut ours = GreenTransport::new(ours);
        GreenTransport::new(theirs).write_all(b"you said hello. BYE").unwrap();
        let mut received = String::new();
        assert_eq!(ours.read_to_string(&mut received).unwrap(), 19);
        assert_eq!(received, "you said hello. BYE");
        for _ in 0..2 {
            assert_eq!(ours.read_to_string(&mut received).unwrap(), 0);
            assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
        }
    });
}

#[test]
fn a_stream_is_not_read_after_its_end() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let mut transport = GreenTransport::new(stream);
        script.read(Ok(Vec::new()));
        script.read(Ok(b"past the end".to_vec()));
        for _ in 0..2 {
            assert_eq!(transport.read(&mut [0; 64]).unwrap(), 0);
        }
        assert_eq!(script.read_polls.get(), 1);
    });
}

#[test]
fn a_number_of_bytes_is_read_or_the_rest_at_the_end() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(3);
        let writer = greenhub::spawn(move || GreenTransport::new(theirs).write_all(b"you said hello. BYE"));
        let ours = GreenTransport::new(ours);
        let read = |n| {
            let mut bytes = Vec::new();
            (&ours).take(n).read_to_end(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(read(9), "you said ");
        assert_eq!(read(999), "hello. BYE");
        assert_eq!((read(9), read(1)), (String::new(), String::new()));
        writer.join().unwrap().unwrap();
    });
}

#[test]
fn data_comes_before_the_error_which_comes_once_before_the_end() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let mut transport = GreenTransport::new(stream);
        script.read(Ok(b"one".to_vec()));
        script.read(Ok(b"two".to_vec()));
        script.read(Err(reset()));
        let mut buffer = [0; 64];
        assert_eq!(transport.read(&mut buffer).unwrap(), 3);
        assert_eq!(transport.read(&mut buffer).unwrap(), 3);
        assert_eq!(transport.read(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionReset);
        for _ in 0..3 {
            assert_eq!(transport.read(&mut buffer).unwrap(), 0);
        }
    });
}

#[test]
fn reading_all_keeps_the_data_before_an_error() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let mut transport = GreenTransport::new(stream);
        script.read(Ok(pattern(100)));
        script.read(Err(reset()));
        let mut received = Vec::new();
        assert_eq!(transport.read_to_end(&mut received).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(received, pattern(100));
        assert_eq!(transport.read_to_end(&mut received).unwrap(), 0);
    });
}

#[test]
fn a_temporary_error_ends_nothing() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        script.set_room(64);
        let mut transport = GreenTransport::new(stream);
        for kind in [ErrorKind::TimedOut, ErrorKind::WouldBlock] {
            script.read(Err(kind.into()));
            assert_eq!(transport.read(&mut [0; 8]).unwrap_err().kind(), kind);
        }
        script.read(Ok(b"goes on".to_vec()));
        assert_eq!(transport.read(&mut [0; 8]).unwrap(), 7);
        assert_eq!(transport.write(b"this too").unwrap(), 8);
    });
}

#[test]
fn a_timeout_of_the_system_is_a_loss() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        script.set_room(64);
        let mut transport = GreenTransport::new(stream);
        let lost = || io::Error::from_raw_os_error(rustix::io::Errno::TIMEDOUT.raw_os_error());
        script.read(Err(lost()));
        assert_eq!(transport.read(&mut [0; 8]).unwrap_err().raw_os_error(), lost().raw_os_error());
        assert_eq!(transport.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(transport.write(b"x").unwrap_err().raw_os_error(), lost().raw_os_error());
    });
}

#[test]
fn a_write_after_a_loss_gives_its_reason_each_time() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        script.set_room(64);
        let mut transport = GreenTransport::new(stream);
        script.read(Err(io::Error::new(ErrorKind::ConnectionAborted, "the peer has left")));
        assert!(transport.read(&mut [0; 8]).is_err());
        for _ in 0..2 {
            for refused in [
                transport.write(b"x").map(drop),
                transport.write_nowait(b"x").map(drop),
                transport.flush(),
                transport.shutdown(),
            ] {
                let refused = refused.unwrap_err();
                assert_eq!(
                    (refused.kind(), &*refused.to_string()),
                    (ErrorKind::ConnectionAborted, "the peer has left")
                );
            }
        }
        assert_eq!(script.written.borrow().len(), 0);
    });
}

#[test]
fn a_loss_that_a_reader_finds_wakes_a_waiting_writer_with_its_reason() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let transport = Rc::new(GreenTransport::new(stream));
        let writing = Rc::clone(&transport);
        let writer = greenhub::spawn(move || (&*writing).write_all(b"never accepted"));
        some_turns();
        assert!(!writer.is_finished());
        script.read(Err(reset()));
        assert_eq!((&*transport).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_loss_wakes_a_waiting_writer() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(4);
        let writer = greenhub::spawn(move || GreenTransport::new(ours).write_all(&pattern(100)));
        some_turns();
        assert!(!writer.is_finished());
        drop(theirs);
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_loss_wakes_a_writer_that_waits_for_the_flush() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        script.set_room(64);
        script.set_flushes(false);
        let writer = greenhub::spawn(move || GreenTransport::new(stream).write_all(b"accepted"));
        some_turns();
        assert!(!writer.is_finished());
        script.fail_writes(ErrorKind::ConnectionReset);
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_failed_write_leaves_the_data_that_can_be_read() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let mut transport = GreenTransport::new(stream);
        script.fail_writes(ErrorKind::BrokenPipe);
        assert_eq!(transport.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        script.read(Ok(b"before".to_vec()));
        script.read(Ok(Vec::new()));
        let mut received = String::new();
        transport.read_to_string(&mut received).unwrap();
        assert_eq!(received, "before");
    });
}

#[test]
fn the_first_reason_of_a_failed_write_stays() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let mut transport = GreenTransport::new(stream);
        script.fail_writes(ErrorKind::ConnectionReset);
        assert_eq!(transport.write(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
        script.fail_writes(ErrorKind::BrokenPipe);
        script.read(Err(ErrorKind::ConnectionAborted.into()));
        assert_eq!(transport.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert_eq!(transport.write(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(transport.flush().unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_half_closed_connection_goes_on_in_the_other_direction() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let server = greenhub::spawn(move || {
            let mut theirs = GreenTransport::new(theirs);
            let mut request = String::new();
            theirs.read_to_string(&mut request)?;
            theirs.write_all(request.to_uppercase().as_bytes())
        });
        let mut ours = GreenTransport::new(ours);
        ours.write_all(b"request").unwrap();
        ours.shutdown().unwrap();
        let mut response = String::new();
        ours.read_to_string(&mut response).unwrap();
        assert_eq!(response, "REQUEST");
        server.join().unwrap().unwrap();
    });
}
