//! Descriptors shared with other processes: no operation blocks the OS thread, whatever the other processes do.
//!
//! An OS thread stands in for the other process. It continues only while green threads run, so a blocked OS thread
//! makes the test hang.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::green::{LONG, SHORT};
use crate::support::run;
use greenhub::fs::File;
use greenhub::greenthread::KillOutcome;
use greenhub::io::{PipeReader, PipeWriter, pipe};
use greenhub::net::{TcpListener, TcpStream};
use greenhub::os::unix::net::{UnixListener, UnixStream};
use greenhub::thread::yield_now;
use greenhub::{sleep, spawn, with_timeout};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl};

/// The number of times a reader and its rival are woken for the same item.
const ROUNDS: usize = 2_000;

/// The number of connections in a test of accept.
const CONNECTIONS: usize = 300;

/// Counts the turns of a green thread on an OS thread.
#[derive(Clone)]
struct Beats(Arc<AtomicUsize>);

impl Beats {
    /// Starts to count on the calling OS thread.
    fn here() -> Beats {
        let beats = Beats(Arc::default());
        let counted = beats.clone();
        spawn(move || {
            loop {
                counted.0.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_micros(50));
            }
        });
        beats
    }

    /// Blocks another OS thread until the green thread has had two turns.
    fn wait(&self) {
        let before = self.0.load(Ordering::Relaxed);
        while self.0.load(Ordering::Relaxed) < before + 2 {
            thread::yield_now();
        }
    }
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

/// A named pipe that is removed on drop.
struct Fifo(PathBuf);

impl Fifo {
    fn new() -> Fifo {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("greenhub-shared-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Fifo(path)
    }

    /// Opens both ends with std.
    fn ends(&self) -> (fs::File, fs::File) {
        let path = self.0.clone();
        let reader = thread::spawn(move || fs::File::open(path).unwrap());
        let writer = fs::OpenOptions::new().write(true).open(&self.0).unwrap();
        (reader.join().unwrap(), writer)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

/// Opens a pseudoterminal, with only the line mode of its line discipline. Returns the terminal and its master.
fn terminal() -> (fs::File, fs::File) {
    let open = fs::OpenOptions::new().read(true).write(true).to_owned();
    let master = open.open("/dev/ptmx").unwrap();
    let mut name = [0; 64];
    // SAFETY: the descriptor is open, and the length is that of the buffer.
    let failed = unsafe {
        libc::grantpt(master.as_raw_fd()) != 0
            || libc::unlockpt(master.as_raw_fd()) != 0
            || libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr(), name.len()) != 0
    };
    assert!(!failed, "{}", io::Error::last_os_error());
    // SAFETY: `ptsname_r` succeeded, so the buffer holds a string that ends with a zero.
    let name = unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) }.to_str().unwrap();
    use std::os::unix::fs::OpenOptionsExt;
    let slave = open.clone().custom_flags(libc::O_NOCTTY).open(name).unwrap();
    // SAFETY: the descriptor is open, and `tcgetattr` fills in the settings before they are changed.
    unsafe {
        let mut settings = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(slave.as_raw_fd(), &mut settings), 0);
        settings.c_lflag &= !libc::ECHO;
        settings.c_oflag &= !libc::OPOST;
        assert_eq!(libc::tcsetattr(slave.as_raw_fd(), libc::TCSANOW, &settings), 0);
    }
    (slave, master)
}

/// Lets a green reader and a rival OS thread read from the same file until all items are read.
fn read_with_a_rival(mut green: impl Read + 'static, rival: OwnedFd, writer: OwnedFd, item: &'static [u8]) {
    let beats = Beats::here();
    let read = Arc::new(AtomicUsize::new(0));
    let (theirs, all) = (read.clone(), read.clone());
    let mut rival = fs::File::from(rival);
    let rival = thread::spawn(move || {
        let mut late = 0;
        loop {
            // The rival's read falls at any point between the green reader's poll and its read.
            rustix::event::poll(&mut [PollFd::new(&rival, PollFlags::IN)], None).unwrap();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_nanos(late) {
                std::hint::spin_loop();
            }
            late = (late + 173) % 40_000;
            // A terminal reports its end as an error.
            match rival.read(&mut [0; 64]) {
                Ok(n @ 1..) => theirs.fetch_add(n, Ordering::SeqCst),
                Ok(0) | Err(_) => return,
            };
        }
    });
    let feeder = thread::spawn(move || {
        let mut writer = fs::File::from(writer);
        for _ in 0..ROUNDS {
            beats.wait();
            writer.write_all(item).unwrap();
        }
        // Closing the master of a terminal discards unread data.
        while all.load(Ordering::SeqCst) < ROUNDS * item.len() {
            thread::sleep(Duration::from_millis(1));
        }
    });
    let green = spawn(move || {
        while let Ok(n @ 1..) = green.read(&mut [0; 64]) {
            read.fetch_add(n, Ordering::SeqCst);
        }
    });
    green.join().unwrap();
    feeder.join().unwrap();
    rival.join().unwrap();
}

#[test]
fn a_reader_that_loses_the_race_for_a_shared_pipe_blocks_only_itself() {
    run("a_reader_that_loses_the_race_for_a_shared_pipe_blocks_only_itself", || {
        let (reader, writer) = io::pipe().unwrap();
        let rival = reader.try_clone().unwrap();
        read_with_a_rival(PipeReader::from(reader), rival.into(), writer.into(), b"k");
    });
}

#[test]
fn a_reader_of_a_pipe_with_a_converted_clone_blocks_only_itself() {
    run("a_reader_of_a_pipe_with_a_converted_clone_blocks_only_itself", || {
        let (reader, writer) = pipe().unwrap();
        let rival = OwnedFd::from(reader.try_clone().unwrap());
        assert!(!is_nonblocking(&rival));
        read_with_a_rival(reader, rival, writer.into(), b"k");
    });
}

#[test]
fn a_reader_that_loses_the_race_for_a_named_pipe_blocks_only_itself() {
    run("a_reader_that_loses_the_race_for_a_named_pipe_blocks_only_itself", || {
        let fifo = Fifo::new();
        let (reader, writer) = fifo.ends();
        let rival = reader.try_clone().unwrap();
        let (number, green) = (reader.as_raw_fd(), File::from(reader));
        assert_eq!(green.as_raw_fd(), number);
        read_with_a_rival(green, OwnedFd::from(rival.try_clone().unwrap()), writer.into(), b"k");
        assert!(!is_nonblocking(&rival));
    });
}

#[test]
fn a_reader_that_loses_the_race_for_a_terminal_blocks_only_itself() {
    run("a_reader_that_loses_the_race_for_a_terminal_blocks_only_itself", || {
        let (slave, master) = terminal();
        let rival = slave.try_clone().unwrap();
        let mode = rival.try_clone().unwrap();
        read_with_a_rival(File::from(slave), rival.into(), master.into(), b"k\n");
        assert!(!is_nonblocking(&mode));
    });
}

#[test]
fn a_reader_that_loses_the_race_for_a_socket_blocks_only_itself() {
    run("a_reader_that_loses_the_race_for_a_socket_blocks_only_itself", || {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let rival = reader.try_clone().unwrap();
        // Read as a `File`, as standard input may be a socket.
        read_with_a_rival(File::from(OwnedFd::from(reader)), rival.into(), writer.into(), b"k");
    });
}

/// Lets a green writer and a rival OS thread write to the same file, while the main greenlet reads.
fn write_with_a_rival(mut green: impl Write + 'static, rival: OwnedFd, mut reader: impl Read, each: usize) {
    let rival = thread::spawn(move || fs::File::from(rival).write_all(&vec![b'r'; each]).unwrap());
    let green = spawn(move || {
        // With one large write and with vectored pieces.
        green.write_all(&vec![b'g'; each / 2]).unwrap();
        for piece in vec![b'g'; each - each / 2].chunks(5_000) {
            let mut written = 0;
            while written < piece.len() {
                let (one, other) = piece[written..].split_at((piece.len() - written) / 2);
                written += green.write_vectored(&[io::IoSlice::new(one), io::IoSlice::new(other)]).unwrap();
            }
        }
    });
    let (mut bytes, mut buffer) = ([0, 0], [0; 4096]);
    while bytes.iter().sum::<usize>() < each * 2 {
        let n = reader.read(&mut buffer).unwrap();
        let ours = buffer[..n].iter().filter(|byte| **byte == b'g').count();
        bytes[0] += ours;
        bytes[1] += n - ours;
    }
    assert_eq!(bytes, [each, each]);
    green.join().unwrap();
    rival.join().unwrap();
}

#[test]
fn a_writer_to_a_shared_pipe_blocks_only_itself() {
    run("a_writer_to_a_shared_pipe_blocks_only_itself", || {
        let (reader, writer) = io::pipe().unwrap();
        let rival = writer.try_clone().unwrap();
        write_with_a_rival(PipeWriter::from(writer), rival.into(), PipeReader::from(reader), 8 << 20);
    });
}

#[test]
fn a_writer_to_a_pipe_with_a_converted_clone_blocks_only_itself() {
    run("a_writer_to_a_pipe_with_a_converted_clone_blocks_only_itself", || {
        let (reader, writer) = pipe().unwrap();
        let rival = OwnedFd::from(writer.try_clone().unwrap());
        write_with_a_rival(writer, rival, reader, 8 << 20);
    });
}

#[test]
fn a_writer_to_a_shared_named_pipe_blocks_only_itself() {
    run("a_writer_to_a_shared_named_pipe_blocks_only_itself", || {
        let fifo = Fifo::new();
        let (reader, writer) = fifo.ends();
        let rival = writer.try_clone().unwrap();
        write_with_a_rival(File::from(writer), rival.into(), File::from(reader), 8 << 20);
    });
}

#[test]
fn a_writer_to_a_shared_terminal_blocks_only_itself() {
    run("a_writer_to_a_shared_terminal_blocks_only_itself", || {
        let (slave, master) = terminal();
        let rival = slave.try_clone().unwrap();
        // The master cannot be opened a second time.
        write_with_a_rival(File::from(slave), rival.into(), File::from(master), 1 << 18);
    });
}

#[test]
fn a_stopped_terminal_blocks_only_its_writer() {
    run("a_stopped_terminal_blocks_only_its_writer", || {
        let (slave, master) = terminal();
        let flow = |action| {
            // SAFETY: the descriptor is open.
            assert_eq!(unsafe { libc::tcflow(slave.as_raw_fd(), action) }, 0);
        };
        flow(libc::TCOOFF);
        let mut green = File::from(slave.try_clone().unwrap());
        let writing = spawn(move || green.write_all(b"go on").unwrap());
        sleep(SHORT * 3);
        assert!(!writing.is_finished());
        flow(libc::TCOON);
        let mut text = [0; 5];
        File::from(master).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"go on");
        writing.join().unwrap();
    });
}

#[test]
fn a_converted_named_pipe_blocks_and_its_clone_does_not() {
    run("a_converted_named_pipe_blocks_and_its_clone_does_not", || {
        let fifo = Fifo::new();
        let path = fifo.0.clone();
        let writer = thread::spawn(move || fs::OpenOptions::new().write(true).open(path).unwrap());
        let file = File::open(&fifo.0).unwrap();
        let _writer = writer.join().unwrap();
        assert!(is_nonblocking(&file));
        let mut clone = file.try_clone().unwrap();
        let given = OwnedFd::from(file);
        assert!(!is_nonblocking(&given) && is_nonblocking(&clone));
        assert!(with_timeout(SHORT, || clone.read(&mut [0])).is_err());
        // The last clone makes its own open file description blocking.
        let given = OwnedFd::from(clone);
        assert!(!is_nonblocking(given));
    });
}

#[test]
fn a_kill_ends_a_read_of_a_shared_terminal() {
    run("a_kill_ends_a_read_of_a_shared_terminal", || {
        let (slave, master) = terminal();
        for end in [&slave, &master] {
            let mut end = File::from(end.try_clone().unwrap());
            let reading = spawn(move || end.read(&mut [0]));
            sleep(SHORT);
            assert_eq!(reading.kill(), KillOutcome::Ended);
        }
    });
}

/// Connections go to the green `accept` and to a blocking rival.
fn accept_with_a_rival(
    accept: impl Fn() -> bool + 'static,
    rival: impl Fn() -> bool + Send + 'static,
    connect: impl Fn() -> Box<dyn Send> + Send + 'static,
) {
    let beats = Beats::here();
    let over = Arc::new(AtomicBool::new(false));
    let (theirs, ours) = (Arc::new(AtomicUsize::new(0)), Rc::new(std::cell::Cell::new(0)));
    let (counted, is_over) = (theirs.clone(), over.clone());
    let rival = thread::spawn(move || {
        while rival() && !is_over.load(Ordering::SeqCst) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let ended = Arc::new(AtomicBool::new(false));
    let is_ended = ended.clone();
    let client = thread::spawn(move || {
        for _ in 0..CONNECTIONS {
            beats.wait();
            drop(connect());
        }
        over.store(true, Ordering::SeqCst);
        // The rival blocks in accept until another connection comes.
        while !is_ended.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
            drop(connect());
        }
    });
    let counted = ours.clone();
    let accepting = spawn(move || {
        while accept() {
            counted.set(counted.get() + 1);
        }
    });
    while ours.get() + theirs.load(Ordering::SeqCst) < CONNECTIONS || !rival.is_finished() {
        sleep(SHORT);
    }
    accepting.kill();
    ended.store(true, Ordering::SeqCst);
    rival.join().unwrap();
    client.join().unwrap();
}

#[test]
fn accept_blocks_no_os_thread_after_a_clone_is_converted() {
    run("accept_blocks_no_os_thread_after_a_clone_is_converted", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let given = std::net::TcpListener::from(OwnedFd::from(listener.try_clone().unwrap()));
        assert!(!is_nonblocking(&given));
        accept_with_a_rival(
            move || listener.accept().is_ok(),
            move || given.accept().is_ok(),
            move || Box::new(std::net::TcpStream::connect(address)),
        );
    });
}

#[test]
fn unix_accept_blocks_no_os_thread_after_a_clone_is_converted() {
    run("unix_accept_blocks_no_os_thread_after_a_clone_is_converted", || {
        let path = std::env::temp_dir().join(format!("greenhub-shared-{}.socket", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let given = std::os::unix::net::UnixListener::from(OwnedFd::from(listener.try_clone().unwrap()));
        let there = path.clone();
        accept_with_a_rival(
            move || listener.accept().is_ok(),
            move || given.accept().is_ok(),
            move || Box::new(std::os::unix::net::UnixStream::connect(&there)),
        );
        fs::remove_file(path).unwrap();
    });
}

#[test]
fn accept_on_an_inherited_listener_set_to_blocking_blocks_no_os_thread() {
    run("accept_on_an_inherited_listener_set_to_blocking_blocks_no_os_thread", || {
        let given = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = given.local_addr().unwrap();
        let listener = TcpListener::from(given.try_clone().unwrap());
        given.set_nonblocking(false).unwrap();
        accept_with_a_rival(
            move || listener.accept().is_ok(),
            move || given.accept().is_ok(),
            move || Box::new(std::net::TcpStream::connect(address)),
        );
    });
}

#[test]
fn accept_on_a_shared_idle_listener_ends_on_timeout_kill_and_close() {
    run("accept_on_a_shared_idle_listener_ends_on_timeout_kill_and_close", || {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let _given = OwnedFd::from(listener.try_clone().unwrap());
        assert!(with_timeout(SHORT, || listener.accept()).is_err());
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        listener.set_nonblocking(false).unwrap();
        let other = listener.clone();
        let accepting = spawn(move || other.accept());
        yield_now();
        assert_eq!(accepting.kill(), KillOutcome::Ended);
        let other = listener.clone();
        let accepting = spawn(move || other.accept());
        let client = TcpStream::connect(address).unwrap();
        let (_, peer) = accepting.join().unwrap().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        let other = listener.clone();
        let accepting = spawn(move || other.accept().map(drop));
        yield_now();
        listener.close();
        assert_eq!(accepting.join().unwrap().unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn a_parent_serves_while_a_child_holds_a_clone_of_the_listener() {
    run("a_parent_serves_while_a_child_holds_a_clone_of_the_listener", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clone = OwnedFd::from(listener.try_clone().unwrap());
        let mut child = greenhub::process::Command::new("sleep").arg("1000").stdin(clone).spawn().unwrap();
        spawn(move || {
            let pool = greenhub::GreenPool::new(2);
            greenhub::net::serve(&listener, &pool, |mut stream, _| stream.write_all(b"hello"))
        });
        for _ in 0..10 {
            let mut text = String::new();
            with_timeout(LONG, || TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap()).unwrap();
            assert_eq!(text, "hello");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn a_socket_with_a_converted_clone_blocks_only_its_reader_and_writer() {
    run("a_socket_with_a_converted_clone_blocks_only_its_reader_and_writer", || {
        let (mut one, other) = UnixStream::pair().unwrap();
        let given = OwnedFd::from(one.try_clone().unwrap());
        assert!(!is_nonblocking(&given));
        assert!(with_timeout(SHORT, || one.read(&mut [0])).is_err());
        assert!(with_timeout(SHORT, || one.write_all(&vec![0; 16 << 20])).is_err());
        drop(other);
    });
}
