//! Lines.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use hub_tokio::{GreenTransport, LineTransport};
use tokio::io::{DuplexStream, duplex};

use crate::support::{ENDINGS, Scripted, end_while_parked, on_each_hub, scripted, some_turns};

fn lines_of(stream: DuplexStream) -> LineTransport<DuplexStream> {
    LineTransport::new(GreenTransport::new(stream))
}

/// Sends `data` in fragments, in a green thread.
fn send(data: &'static [u8], fragment: usize, pipe: usize) -> DuplexStream {
    let (ours, theirs) = duplex(pipe);
    greenhub::spawn(move || {
        let mut theirs = GreenTransport::new(theirs);
        data.chunks(fragment).try_for_each(|chunk| theirs.write_all(chunk))
    })
    .ignore_result();
    ours
}

#[test]
fn lines_come_without_their_ends_for_every_size_of_fragment() {
    on_each_hub(|| {
        for (fragment, pipe) in [(1, 1), (1, 64), (2, 3), (5, 64), (64, 64)] {
            let transport = lines_of(send(b"one\r\ntwo\n\r\n\nthr\ree\r\nrest", fragment, pipe));
            let lines: Vec<String> = transport.lines().collect::<Result<_, _>>().unwrap();
            assert_eq!(lines, ["one", "two", "", "", "thr\ree", "rest"], "fragments of {fragment}, a pipe of {pipe}");
        }
    });
}

#[test]
fn a_line_that_was_read_has_its_end_and_the_end_of_the_stream_is_empty() {
    on_each_hub(|| {
        let mut transport = lines_of(send(b"one\r\nrest", 64, 64));
        let mut line = String::new();
        assert_eq!(transport.read_line(&mut line).unwrap(), 5);
        assert_eq!(transport.read_line(&mut line).unwrap(), 4);
        assert_eq!(line, "one\r\nrest");
        for _ in 0..2 {
            assert_eq!(transport.read_line(&mut line).unwrap(), 0);
        }
    });
}

#[test]
fn a_sent_line_gets_its_end() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(3);
        let sender = greenhub::spawn(move || {
            let mut transport = lines_of(ours);
            transport.send_line("one")?;
            transport.send_line(b"two")
        });
        let mut received = String::new();
        GreenTransport::new(theirs).read_to_string(&mut received).unwrap();
        assert_eq!(received, "one\r\ntwo\r\n");
        sender.join().unwrap().unwrap();
    });
}

#[test]
fn an_exit_in_the_middle_of_a_line_loses_nothing() {
    on_each_hub(|| {
        for ending in ENDINGS {
            let (ours, theirs) = duplex(64);
            let mut theirs = GreenTransport::new(theirs);
            let transport = Rc::new(Mutex::new(lines_of(ours)));
            theirs.write_all(b"begun, ").unwrap();
            let reading = Rc::clone(&transport);
            end_while_parked(ending, move || {
                // A panic would poison the lock.
                let mut transport = reading.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                drop(transport.read_line(&mut String::new()));
            });
            theirs.write_all(b"completed\n").unwrap();
            let mut line = String::new();
            transport.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).read_line(&mut line).unwrap();
            assert_eq!(line, "begun, completed\n", "{ending:?}");
        }
    });
}

#[test]
fn a_timeout_in_the_middle_of_a_line_loses_nothing() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(64);
        let (mut transport, mut theirs) = (lines_of(ours), GreenTransport::new(theirs));
        transport.get_ref().set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let mut line = String::new();
        for part in ["one, ", "two, ", "three"] {
            theirs.write_all(part.as_bytes()).unwrap();
            assert_eq!(transport.read_line(&mut line).unwrap_err().kind(), ErrorKind::TimedOut);
            assert_eq!(line, "");
        }
        assert_eq!(transport.buffer(), b"one, two, three");
        theirs.write_all(b"\n").unwrap();
        transport.read_line(&mut line).unwrap();
        assert_eq!(line, "one, two, three\n");
    });
}

#[test]
fn a_loss_gives_the_rest_then_the_error_once_then_the_end() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let transport = LineTransport::new(GreenTransport::new(stream));
        script.read(Ok(b"one\nre".to_vec()));
        script.read(Ok(b"st".to_vec()));
        script.read(Err(ErrorKind::ConnectionReset.into()));
        let mut lines = transport.lines();
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        assert_eq!(lines.next().unwrap().unwrap(), "rest");
        assert_eq!(lines.next().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(lines.next().is_none() && lines.next().is_none());
    });
}

#[test]
fn a_line_over_the_limit_is_an_error_once_for_every_size_of_fragment() {
    on_each_hub(|| {
        for fragment in [1, 2, 7, 64] {
            let stream = send(b"exact\r\nexact\nlonger\nnext\n", fragment, 64);
            let mut lines = LineTransport::with_max_length(5, GreenTransport::new(stream)).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "exact");
            assert_eq!(lines.next().unwrap().unwrap(), "exact");
            assert_eq!(lines.next().unwrap().unwrap_err().kind(), ErrorKind::InvalidData);
            assert!(lines.next().is_none());
        }
    });
}

#[test]
fn a_line_without_an_end_is_not_read_beyond_the_limit() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let mut transport = LineTransport::with_max_length(10, GreenTransport::new(stream));
        for _ in 0..100 {
            script.read(Ok(vec![b'x'; 8]));
        }
        assert_eq!(transport.read_line(&mut String::new()).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(script.read_polls.get(), 2);
    });
}

#[test]
fn a_line_that_is_no_text_is_an_error_and_the_next_one_is_read() {
    on_each_hub(|| {
        let mut transport = lines_of(send(b"\xff\xfe\nnext\n", 64, 64));
        let mut line = String::from("before ");
        assert_eq!(transport.read_line(&mut line).unwrap_err().kind(), ErrorKind::InvalidData);
        transport.read_line(&mut line).unwrap();
        assert_eq!(line, "before next\n");
    });
}

#[test]
fn bytes_and_other_delimiters_are_read_beside_lines() {
    on_each_hub(|| {
        for fragment in [1, 64] {
            let mut transport = lines_of(send(b"length 5\nhello;next\nend", fragment, 64));
            let (mut line, mut body, mut field) = (String::new(), [0; 5], Vec::new());
            transport.read_line(&mut line).unwrap();
            transport.read_exact(&mut body).unwrap();
            assert_eq!(transport.read_until(b';', &mut field).unwrap(), 1);
            assert_eq!(transport.read_until(b';', &mut field).unwrap(), 8);
            assert_eq!((&*line, &body, &*field), ("length 5\n", b"hello", &b";next\nend"[..]));
            assert_eq!(transport.read(&mut [0; 8]).unwrap(), 0);
            assert_eq!(transport.read(&mut []).unwrap(), 0);
        }
    });
}

#[test]
fn a_search_for_another_delimiter_begins_anew() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let mut transport = LineTransport::new(GreenTransport::new(stream));
        transport.get_ref().set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        script.read(Ok(b"field;rest".to_vec()));
        assert_eq!(transport.read_line(&mut String::new()).unwrap_err().kind(), ErrorKind::TimedOut);
        let mut field = Vec::new();
        transport.read_until(b';', &mut field).unwrap();
        assert_eq!(field, b"field;");
    });
}

/// Sends `line` until it parks with half of it accepted, and ends it there.
fn send_in_part(transport: &mut LineTransport<Scripted>, line: &str) {
    let sent = greenhub::with_timeout(Duration::from_millis(5), || transport.send_line(line));
    assert!(sent.is_err());
}

#[test]
fn a_line_that_was_sent_in_part_is_completed_before_the_next() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let mut transport = LineTransport::new(GreenTransport::new(stream));
        script.set_room(4);
        send_in_part(&mut transport, "first");
        transport.get_ref().set_write_timeout(Some(Duration::from_millis(2))).unwrap();
        assert_eq!(transport.send_line("second").unwrap_err().kind(), ErrorKind::TimedOut);
        script.set_room(100);
        transport.write_all(b"raw").unwrap();
        transport.send_line("").unwrap();
        assert_eq!(String::from_utf8_lossy(&script.written.borrow()), "first\r\nsecond\r\nraw\r\n");
    });
}

#[test]
fn an_exit_during_the_flush_of_a_line_sends_no_byte_twice() {
    on_each_hub(|| {
        let (stream, script) = scripted();
        let mut transport = LineTransport::new(GreenTransport::new(stream));
        script.set_room(100);
        script.set_flushes(false);
        send_in_part(&mut transport, "first");
        script.set_flushes(true);
        transport.send_line("second").unwrap();
        assert_eq!(String::from_utf8_lossy(&script.written.borrow()), "first\r\nsecond\r\n");
    });
}

#[test]
fn long_lines_pass_whole() {
    on_each_hub(|| {
        let (ours, theirs) = duplex(1000);
        let lines: Vec<String> = [0, 1, 4096, 8191, 8192, 16 << 10].map(|length| "x".repeat(length)).into();
        let sent = lines.clone();
        let sender = greenhub::spawn(move || {
            let mut transport = lines_of(ours);
            sent.iter().try_for_each(|line| transport.send_line(line))
        });
        let received: io::Result<Vec<String>> = lines_of(theirs).lines().collect();
        assert!(received.unwrap() == lines);
        sender.join().unwrap().unwrap();
    });
}

#[test]
fn a_chat_passes_lines_between_its_members() {
    on_each_hub(|| {
        let members: Rc<Mutex<Vec<Rc<GreenTransport<DuplexStream>>>>> = Rc::default();
        let join = |members: &Rc<Mutex<Vec<Rc<GreenTransport<DuplexStream>>>>>| {
            let (client, server) = duplex(64);
            let (server, members) = (Rc::new(GreenTransport::new(server)), Rc::clone(members));
            members.lock().unwrap().push(Rc::clone(&server));
            greenhub::spawn(move || {
                for line in io::BufReader::new(&*server).lines() {
                    let line = line? + "\n";
                    let all = members.lock().unwrap().clone();
                    for member in all.iter().filter(|member| !Rc::ptr_eq(member, &server)) {
                        (&**member).write_all(line.as_bytes())?;
                    }
                }
                members.lock().unwrap().retain(|member| !Rc::ptr_eq(member, &server));
                io::Result::Ok(())
            })
            .ignore_result();
            lines_of(client)
        };
        let (mut one, mut other) = (join(&members), join(&members));
        one.send_line("hello").unwrap();
        let mut line = String::new();
        other.read_line(&mut line).unwrap();
        other.send_line("good day").unwrap();
        one.read_line(&mut line).unwrap();
        assert_eq!(line, "hello\ngood day\n");
        drop(one);
        some_turns();
        assert_eq!(members.lock().unwrap().len(), 1);
    });
}
