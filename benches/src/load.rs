//! The load on a server: connections of one OS thread, over one epoll set.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{Errno, read, write};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// The bytes of a request and of its answer.
const BYTES: usize = 64;

/// The time after which a server that does not answer counts as hung.
const PATIENCE: Duration = Duration::from_secs(10);

/// The connections that are opened at a time, fewer than the shortest queue of a listener.
const BATCH: usize = 50;

/// The address of a server.
#[derive(Clone, Debug)]
pub enum Address {
    /// TCP over the loopback interface.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(UnixAddress),
}

impl Address {
    /// Connects to the server. Repeats that for a while if nothing listens at the address yet.
    fn connect(&self) -> io::Result<OwnedFd> {
        let begun = Instant::now();
        loop {
            match self.connect_once() {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                connected => return connected,
            }
        }
    }

    fn connect_once(&self) -> io::Result<OwnedFd> {
        match self {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_nodelay(true)?;
                Ok(stream.into())
            }
            Address::Unix(address) => Ok(UnixStream::connect_addr(address)?.into()),
        }
    }
}

/// The clients of a server: connections, each with one request under way.
#[derive(Debug)]
pub struct Clients {
    set: OwnedFd,
    /// By their numbers.
    streams: Vec<Option<OwnedFd>>,
}

impl Clients {
    /// Opens connections, and sends a request over each. The server has answered each of them once.
    ///
    /// # Errors
    ///
    /// Returns an error if the system lacks descriptors, or if the server does not answer.
    pub fn open(address: &Address, count: usize) -> io::Result<Clients> {
        let mut clients = Clients::new()?;
        let mut left = count;
        while left > 0 {
            let batch = left.min(BATCH);
            let opened = (0..batch).map(|_| clients.add(address, BYTES)).collect::<io::Result<Vec<_>>>()?;
            for fd in opened {
                let stream = clients.stream(fd);
                set_socket_timeout(stream, Timeout::Recv, Some(PATIENCE))?;
                expect(read(stream, &mut [0; BYTES]), BYTES)?;
                send(stream, BYTES)?;
            }
            left -= batch;
        }
        Ok(clients)
    }

    /// Sends a request for each answer during `time`. Returns the number of answers.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not answer.
    pub fn ask(&mut self, time: Duration) -> io::Result<u64> {
        let begun = Instant::now();
        let mut answers = 0;
        while begun.elapsed() < time {
            for fd in self.wait()? {
                let stream = self.stream(fd);
                expect(read(stream, &mut [0; BYTES]), BYTES)?;
                send(stream, BYTES)?;
                answers += 1;
            }
        }
        Ok(answers)
    }

    /// Opens connections for `time`, of which `at_once` are open. Each carries a byte there and back, and is closed.
    ///
    /// Returns the number of connections, at most `most`.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not answer.
    pub fn storm(address: &Address, at_once: usize, most: u64, time: Duration) -> io::Result<u64> {
        let mut clients = Clients::new()?;
        for _ in 0..at_once {
            clients.add(address, 1)?;
        }
        let begun = Instant::now();
        let mut closed = 0;
        while begun.elapsed() < time && closed < most {
            for fd in clients.wait()? {
                expect(read(clients.stream(fd), &mut [0; BYTES]), 1)?;
                clients.streams[fd as usize] = None;
                closed += 1;
                clients.add(address, 1)?;
            }
        }
        Ok(closed)
    }

    fn new() -> io::Result<Clients> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Clients { set, streams: Vec::new() })
    }

    /// Opens a connection, and sends `bytes`.
    fn add(&mut self, address: &Address, bytes: usize) -> io::Result<RawFd> {
        let stream = address.connect()?;
        let fd = stream.as_raw_fd();
        epoll::add(&self.set, stream.as_fd(), EventData::new_u64(fd.cast_unsigned().into()), EventFlags::IN)?;
        send(&stream, bytes)?;
        if self.streams.len() <= fd as usize {
            self.streams.resize_with(fd as usize + 1, || None);
        }
        self.streams[fd as usize] = Some(stream);
        Ok(fd)
    }

    /// Waits for answers. Returns the connections that have one.
    fn wait(&self) -> io::Result<Vec<RawFd>> {
        let limit = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let mut events: Vec<epoll::Event> = Vec::with_capacity(1024);
        match epoll::wait(&self.set, spare_capacity(&mut events), Some(&limit))? {
            0 => Err(no_answer()),
            _ => Ok(events.iter().map(|event| event.data.u64() as RawFd).collect()),
        }
    }

    fn stream(&self, fd: RawFd) -> &OwnedFd {
        self.streams[fd as usize].as_ref().expect("the connection is open")
    }
}

fn send(stream: &OwnedFd, bytes: usize) -> io::Result<()> {
    expect(write(stream, &[7; BYTES][..bytes]), bytes)
}

/// Requires that a system call has moved a whole message. Messages are so short that they travel in one piece.
fn expect(moved: Result<usize, Errno>, bytes: usize) -> io::Result<()> {
    match moved {
        Ok(moved) if moved == bytes => Ok(()),
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server has closed a connection")),
        Ok(moved) => Err(io::Error::other(format!("{moved} bytes instead of {bytes}"))),
        Err(Errno::AGAIN) => Err(no_answer()),
        Err(error) => Err(error.into()),
    }
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer for {} s", PATIENCE.as_secs()))
}

/// Requests an answer by HTTP once, so that the server has started.
///
/// # Errors
///
/// Returns an error if the server does not answer with success.
pub fn ask_by_http(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::from(Address::Tcp(address).connect()?);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    match &answer {
        b"HTTP/1.1 200" => Ok(()),
        _ => Err(io::Error::other(format!("the answer begins with {:?}", String::from_utf8_lossy(&answer)))),
    }
}
