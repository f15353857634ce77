//! Pipes and standard streams: std's behaviour, and which callers wait.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use crate::support::green::{SHORT, held, ticker};
use crate::support::{alone, is_child, rerun, run};
use greenhub::greenthread::KillOutcome;
use greenhub::io::{PipeReader, PipeWriter, pipe, stderr, stdin, stdout};
use greenhub::thread::yield_now;
use greenhub::{sleep, spawn, with_timeout};
use rustix::fs::{OFlags, fcntl_getfl};

/// More bytes than any pipe's capacity.
const MUCH: usize = 3 << 20;

fn much() -> Vec<u8> {
    (0..MUCH).map(|i| (i * 7 + i / 255) as u8).collect()
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

#[track_caller]
fn until(done: impl Fn() -> bool) {
    while !done() {
        sleep(Duration::from_micros(100));
    }
}

same_as_std! {
    fn a_pipe_carries_lines_as_they_come_and_ends() {
        let (reader, mut writer) = streams::pipe().unwrap();
        let (read, more) = sync::mpsc::channel();
        let peer = thread::spawn(move || {
            for line in ["one", "two\nthr", "ee\n"] {
                write!(writer, "{line}").unwrap();
                if line != "one" {
                    more.recv().unwrap();
                }
            }
        });
        let mut lines = BufReader::new(reader).lines();
        for line in ["onetwo", "three"] {
            assert_eq!(lines.next().unwrap().unwrap(), line);
            read.send(()).unwrap();
        }
        peer.join().unwrap();
        assert!(lines.next().is_none());
    }

    fn a_large_write_is_complete() {
        let (mut reader, mut writer) = streams::pipe().unwrap();
        let peer = thread::spawn(move || {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).unwrap();
            assert!(received == much(), "the received data differs from the written data");
        });
        writer.write_all(&much()).unwrap();
        drop(writer);
        peer.join().unwrap();
    }

    fn a_pipe_without_reader_is_broken() {
        let (reader, mut writer) = streams::pipe().unwrap();
        drop(reader);
        // A child process of another test may hold a copy of the descriptor for a moment.
        let error = loop {
            if let Err(error) = writer.write(b"x") {
                break error;
            }
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    fn clones_are_the_same_end() {
        let (reader, writer) = streams::pipe().unwrap();
        let mut also = writer.try_clone().unwrap();
        drop(writer);
        also.write_all(b"two").unwrap();
        drop(also);
        let mut text = String::new();
        let mut again = reader.try_clone().unwrap();
        (&reader).take(1).read_to_string(&mut text).unwrap();
        again.read_to_string(&mut text).unwrap();
        assert_eq!(text, "two");
    }

    fn pieces_go_as_one() {
        use std::io::{IoSlice, IoSliceMut};
        let (mut reader, mut writer) = streams::pipe().unwrap();
        assert_eq!(writer.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")]).unwrap(), 5);
        let (mut one, mut other) = ([0; 1], [0; 9]);
        let n = reader.read_vectored(&mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)]).unwrap();
        assert_eq!((n, one, &other[..4]), (5, *b"a", &b"bcde"[..]));
        assert_eq!(reader.read(&mut []).unwrap(), 0);
        assert_eq!(writer.write(&[]).unwrap(), 0);
    }
}

#[test]
fn reading_a_pipe_blocks_only_the_reader() {
    run("reading_a_pipe_blocks_only_the_reader", || {
        let (mut reader, mut writer) = pipe().unwrap();
        let reading = spawn(move || {
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            byte
        });
        let ticks = ticker();
        until(|| ticks.get() > 10);
        assert!(!reading.is_finished());
        writer.write_all(b"x").unwrap();
        assert_eq!(reading.join().unwrap(), *b"x");
    });
}

#[test]
fn closing_wakes_the_waiter_and_is_idempotent() {
    run("closing_wakes_the_waiter_and_is_idempotent", || {
        let (reader, _writer) = pipe().unwrap();
        let reader = Rc::new(reader);
        let waiting = Rc::clone(&reader);
        let reading = spawn(move || (&*waiting).read(&mut [0]));
        yield_now();
        reader.close();
        assert_eq!(reading.join().unwrap().unwrap_err().kind(), ErrorKind::NotConnected);
        reader.close();
        assert_eq!((&*reader).read(&mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn a_reused_number_is_not_closed_by_its_previous_owner() {
    let name = "a_reused_number_is_not_closed_by_its_previous_owner";
    // No other thread of this process opens a descriptor.
    alone(name, || {
        sleep(SHORT);
        let next = || rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 0).unwrap();
        let number = next().as_raw_fd();
        let (reader, writer) = pipe().unwrap();
        reader.close();
        let other = next();
        assert_eq!(other.as_raw_fd(), number, "`close` has not freed the number");
        reader.close();
        drop(reader);
        assert!(rustix::io::fcntl_getfd(&other).is_ok());
        // The end of the scope closes the descriptor.
        drop(other);
        let number = writer.as_raw_fd();
        {
            let _writer = writer;
        }
        // SAFETY: the number is only used to ask the system whether it is open.
        let gone = rustix::io::fcntl_getfd(unsafe { std::os::fd::BorrowedFd::borrow_raw(number) });
        assert_eq!(gone.unwrap_err(), rustix::io::Errno::BADF);
    });
}

#[test]
fn a_kill_leaves_a_pipe_usable() {
    run("a_kill_leaves_a_pipe_usable", || {
        let (reader, mut writer) = pipe().unwrap();
        let before = held();
        let reader = Rc::new(reader);
        let waiting = Rc::clone(&reader);
        let reading = spawn(move || (&*waiting).read(&mut [0]));
        yield_now();
        assert_eq!(reading.kill(), KillOutcome::Ended);
        assert!(with_timeout(SHORT, || (&*reader).read(&mut [0])).is_err());
        drop(reading);
        assert_eq!(held(), before);
        writer.write_all(b"x").unwrap();
        assert_eq!((&*reader).read(&mut [0]).unwrap(), 1);
    });
}

#[test]
fn a_read_of_a_blocking_pipe_parks_and_keeps_it_blocking() {
    run("a_read_of_a_blocking_pipe_parks_and_keeps_it_blocking", || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let elsewhere = reader.try_clone().unwrap();
        let mut reader = PipeReader::from(reader);
        let reading = spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        let ticks = ticker();
        for part in ["some ", "text"] {
            let before = ticks.get();
            until(|| ticks.get() > before + 5);
            assert!(!reading.is_finished());
            writer.write_all(part.as_bytes()).unwrap();
        }
        assert!(!is_nonblocking(&elsewhere));
        drop(writer);
        assert_eq!(reading.join().unwrap(), "some text");
    });
}

#[test]
fn a_large_write_to_a_blocking_pipe_blocks_only_the_writer() {
    run("a_large_write_to_a_blocking_pipe_blocks_only_the_writer", || {
        let (reader, writer) = std::io::pipe().unwrap();
        let elsewhere = writer.try_clone().unwrap();
        let mut writer = PipeWriter::from(writer);
        let mut reader = PipeReader::from(reader);
        let writing = spawn(move || writer.write_all(&much()).unwrap());
        let ticks = ticker();
        until(|| ticks.get() > 10);
        assert!(!writing.is_finished() && !is_nonblocking(&elsewhere));
        drop(elsewhere);
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        assert!(received == much(), "the received data differs from the written data");
        writing.join().unwrap();
    });
}

#[test]
fn a_pipe_converted_to_std_blocks_and_its_clone_stays_green() {
    run("a_pipe_converted_to_std_blocks_and_its_clone_stays_green", || {
        let (reader, writer) = pipe().unwrap();
        assert!(is_nonblocking(&reader));
        let mut clone = reader.try_clone().unwrap();
        let given = OwnedFd::from(reader);
        assert!(!is_nonblocking(&given));
        assert!(with_timeout(SHORT, || clone.read(&mut [0])).is_err());
        drop(writer);
        assert_eq!(clone.read(&mut [0]).unwrap(), 0);
    });
}

/// Replaces standard input by a pipe. Returns a duplicate of its reader, and its writer.
fn input() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::stdio::dup2_stdin(&reader).unwrap();
    (reader, writer)
}

#[test]
fn waiting_for_standard_input_blocks_only_the_reader() {
    let name = "waiting_for_standard_input_blocks_only_the_reader";
    alone(name, || {
        let (also, mut writer) = input();
        let ticks = ticker();
        let counted = Rc::clone(&ticks);
        spawn(move || {
            for part in ["one\ntw", "o\n", "three"] {
                let before = counted.get();
                until(|| counted.get() > before + 10);
                writer.write_all(part.as_bytes()).unwrap();
            }
        });
        let mut line = String::new();
        assert_eq!(stdin().read_line(&mut line).unwrap(), 4);
        assert!(ticks.get() > 10);
        let mut lines = stdin().lines();
        assert_eq!(lines.next().unwrap().unwrap(), "two");
        assert!(ticks.get() > 20);
        // A second reader waits for the lock holder.
        let other = spawn(|| stdin().read_line(&mut String::new()).unwrap());
        yield_now();
        assert_eq!(lines.next().unwrap().unwrap(), "three");
        assert!(lines.next().is_none() && !other.is_finished());
        drop(lines);
        assert_eq!(other.join().unwrap(), 0);
        assert!(!stdin().is_terminal());
        // The shared open file description is still in blocking mode.
        assert!(!is_nonblocking(&also) && !is_nonblocking(stdin()));
    });
}

#[test]
fn a_kill_leaves_standard_input_usable() {
    alone("a_kill_leaves_standard_input_usable", || {
        let (_also, mut writer) = input();
        let reading = spawn(|| stdin().read_line(&mut String::new()));
        sleep(SHORT);
        assert_eq!(reading.kill(), KillOutcome::Ended);
        writer.write_all(b"late").unwrap();
        drop(writer);
        assert_eq!(std::io::read_to_string(stdin()).unwrap(), "late");
    });
}

#[test]
fn a_lock_reports_whether_its_stream_is_a_terminal() {
    alone("a_lock_reports_whether_its_stream_is_a_terminal", || {
        // Both streams are pipes.
        assert!(!stdout().lock().is_terminal() && !stderr().lock().is_terminal());
        let Ok(terminal) = std::fs::File::options().read(true).write(true).open("/dev/ptmx") else {
            return eprintln!("no terminals here");
        };
        rustix::stdio::dup2_stdin(&terminal).unwrap();
        rustix::stdio::dup2_stderr(&terminal).unwrap();
        let found = [stdin().lock().is_terminal(), stderr().lock().is_terminal(), stdout().lock().is_terminal()];
        assert_eq!(found, [true, true, false]);
    });
}

#[test]
fn standard_input_may_be_a_file() {
    let name = "standard_input_may_be_a_file";
    if !is_child() {
        let input = std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/pipes.rs")).unwrap();
        let output = rerun(name, |command| {
            command.stdin(input);
        });
        assert!(output.status.success(), "{output:?}");
        return;
    }
    run(name, || {
        let first = stdin().lines().next().unwrap().unwrap();
        assert_eq!(first, include_str!("pipes.rs").lines().next().unwrap());
    });
}

#[test]
fn waiting_for_room_in_standard_output_blocks_only_the_writer() {
    alone("waiting_for_room_in_standard_output_blocks_only_the_writer", || {
        let (reader, writer) = std::io::pipe().unwrap();
        let before = rustix::io::dup(rustix::stdio::stdout()).unwrap();
        rustix::stdio::dup2_stdout(&writer).unwrap();
        let ticks = ticker();
        let counted = Rc::clone(&ticks);
        let mut reader = PipeReader::from(reader);
        let reading = spawn(move || {
            until(|| counted.get() > 10);
            let mut received = vec![0; MUCH];
            reader.read_exact(&mut received).unwrap();
            received
        });
        stdout().write_all(&much()).unwrap();
        assert!(ticks.get() > 10 && !is_nonblocking(&writer));
        rustix::stdio::dup2_stdout(before).unwrap();
        assert!(reading.join().unwrap() == much(), "the received data differs from the written data");
    });
}

#[test]
fn output_keeps_its_order_with_print() {
    let name = "output_keeps_its_order_with_print";
    // Standard output is a pipe in the first run and a file in the second.
    if !is_child() {
        let path = std::env::temp_dir().join(format!("greenhub-order-{}", std::process::id()));
        let output = rerun(name, |_| {});
        assert!(output.status.success(), "{output:?}");
        let file = std::fs::File::create(&path).unwrap();
        assert!(
            rerun(name, |command| {
                command.stdout(file);
            })
            .status
            .success()
        );
        let filed = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for printed in [output.stdout, filed] {
            let printed = String::from_utf8(printed).unwrap();
            assert!(printed.contains("[one two three\nfour five]"), "{printed}");
        }
        return;
    }
    run(name, || {
        // `write!` rather than `print!`, whose output the test harness captures.
        let mut std = std::io::stdout();
        write!(std, "[one ").unwrap();
        let mut lock = stdout().lock();
        let two = "two";
        write!(lock, "{two} ").unwrap();
        // The lock is reentrant, and its guards may be dropped in any order.
        let again = stdout().lock();
        writeln!(stdout(), "three").unwrap();
        drop(lock);
        let other = spawn(|| writeln!(stdout(), "five]").unwrap());
        yield_now();
        assert!(!other.is_finished());
        write!(std, "four ").unwrap();
        stdout().flush().unwrap();
        drop(again);
        other.join().unwrap();
        writeln!(stderr(), "to the other").unwrap();
    });
}
