//! One interface over the sockets of std and of greenhub.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendFlags, Shutdown as Half};

use super::case::{Case, End, Kind, Mode, Op};

const PIECE: usize = 1 << 16;
const TIMEOUT: Duration = Duration::from_millis(4);

/// A socket of either family.
pub(crate) trait Socket: AsFd + Send + Sync {
    fn call(&self, op: Op) -> io::Result<usize>;
    fn shut(&self, how: Shutdown) -> io::Result<()> {
        shut_down(self, how)
    }
    fn copy(&self) -> Box<dyn Socket>;
    fn set(&self, mode: Mode) -> io::Result<()>;
}

/// A function that makes one call of a socket operation.
pub(crate) type MakeCall = fn(&dyn Fn() -> io::Result<usize>) -> io::Result<usize>;

/// A case whose sockets are set up.
pub(crate) struct Scene {
    pub(crate) case: Case,
    near: Box<dyn Socket>,
    /// A second handle of `near`.
    own: Box<dyn Socket>,
    far: Option<Box<dyn Socket>>,
    /// Clients, and connections that keep a queue full.
    others: Vec<std::os::fd::OwnedFd>,
    path: Arc<SocketPath>,
}

/// The results of one case, in words.
#[derive(Clone, Default)]
pub(crate) struct Results(Arc<Mutex<Vec<String>>>);

impl Results {
    fn add(&self, result: String) {
        self.0.lock().unwrap().push(result);
    }

    pub(crate) fn words(&self, blocked: bool) -> String {
        let mut words = self.0.lock().unwrap().clone();
        if blocked {
            words.push("blocked".to_owned());
        }
        words.join(", ")
    }
}

/// Returns a result as a word that is the same for both families.
pub(crate) fn word(result: io::Result<usize>) -> String {
    match result {
        Ok(n) => format!("{n}"),
        // A socket timeout is `WouldBlock` in std on Unix.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => "WouldBlock".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// A path whose file is removed on drop.
pub(crate) struct SocketPath(pub(crate) PathBuf);

impl SocketPath {
    pub(crate) fn new() -> SocketPath {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("greenhub-end-{}-{number}", std::process::id()));
        // An earlier process of the same number may have been killed before it could remove its sockets.
        drop(std::fs::remove_file(&path));
        SocketPath(path)
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn poll_for(fd: impl AsFd, flags: PollFlags) -> io::Result<usize> {
    loop {
        match poll(&mut [PollFd::new(&fd, flags)], None) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map(|_| 0).map_err(Into::into),
        }
    }
}

fn trampoline_for(fd: impl AsFd, interest: greenhub::Interest) -> io::Result<usize> {
    greenhub::trampoline(&fd, interest, None).map(|_| 0).map_err(Into::into)
}

impl Scene {
    /// Returns the operation as a closure for a separate thread. `make` makes the call.
    pub(crate) fn operation(&self, results: Results, make: MakeCall) -> impl FnOnce() + Send + use<> {
        let (near, op) = (self.near.copy(), self.case.op);
        move || {
            for _ in 0..3 {
                results.add(word(make(&|| near.call(op))));
            }
        }
    }

    /// Causes the end.
    pub(crate) fn end(&mut self) {
        match self.case.end {
            End::Open | End::Full | End::BuffersFull => {}
            End::Data => self.send(),
            End::PeerClosed | End::Reset | End::FullThenClosed => self.far = None,
            End::DataThenClosed => {
                self.send();
                self.far = None;
                self.others.clear();
            }
            End::DataThenHalfClosed => {
                self.send();
                self.far().shut(Shutdown::Write).unwrap();
            }
            End::DataThenOwn(how) => {
                self.send();
                self.own.shut(how).unwrap();
            }
            End::Peer(how) | End::FullThenPeer(how) => self.far().shut(how).unwrap(),
            End::Own(how) => self.own.shut(how).unwrap(),
            End::ErrorQueue if self.case.kind == Kind::Tcp => assert_eq!(self.own.call(Op::Write).unwrap(), 5),
            End::ErrorQueue => {
                self.far = None;
                self.own.call(Op::Write).unwrap();
            }
            End::FullThenAccepted => drop(self.far().call(Op::Accept).unwrap()),
        }
    }

    fn far(&self) -> &dyn Socket {
        self.far.as_deref().expect("the peer is open")
    }

    fn send(&mut self) {
        match self.case.kind {
            Kind::TcpListener => {
                self.others.push(std::net::TcpStream::connect(tcp_address(&*self.near)).unwrap().into());
            }
            Kind::UnixListener => {
                self.others.push(std::os::unix::net::UnixStream::connect(&self.path.0).unwrap().into());
            }
            _ => assert_eq!(self.far().call(Op::Write).unwrap(), 5),
        }
    }

    /// Prepares the socket, before the operation and the end.
    fn prepare(&mut self) {
        match self.case.end {
            // The peer then closes with unread data.
            End::Reset => assert_eq!(self.own.call(Op::Write).unwrap(), 5),
            End::ErrorQueue if self.case.kind == Kind::Tcp => {
                let timestamps = libc::SOF_TIMESTAMPING_TX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
                set_option(self.own.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPING, timestamps as libc::c_int);
            }
            End::ErrorQueue => set_option(self.own.as_fd(), libc::IPPROTO_IP, libc::IP_RECVERR, 1),
            End::BuffersFull => {
                fill(self.own.as_fd());
                fill(self.far().as_fd());
            }
            End::Full | End::FullThenAccepted | End::FullThenClosed | End::FullThenPeer(_) => {
                rustix::net::listen(self.far().as_fd(), 0).unwrap();
                self.others.push(match self.case.kind {
                    Kind::TcpConnect => std::net::TcpStream::connect(tcp_address(self.far())).unwrap().into(),
                    _ => std::os::unix::net::UnixStream::connect(&self.path.0).unwrap().into(),
                });
            }
            _ => {}
        }
        self.near.set(self.case.mode).unwrap();
    }
}

fn tcp_address(listener: &dyn Socket) -> std::net::SocketAddr {
    rustix::net::getsockname(listener.as_fd()).unwrap().try_into().unwrap()
}

fn set_option(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    // SAFETY: the socket is open, and the value has the given size.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), 4) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

/// Sends until there has been no room for some time, because data in transit makes room as it arrives.
fn fill(socket: BorrowedFd<'_>) {
    const LOOKS: usize = 5;
    let mut without_room = 0;
    while without_room < LOOKS {
        match rustix::net::send(socket, &[0; 1 << 10], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => without_room = 0,
            Err(rustix::io::Errno::AGAIN) => {
                without_room += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("cannot fill the buffers of a socket: {error}"),
        }
    }
}

macro_rules! stream {
    ($name:ty, $wait:ident($($read:tt)*) ($($write:tt)*), $peek:expr) => {
        impl Socket for $name {
            fn call(&self, op: Op) -> io::Result<usize> {
                let mut buffer = [0; 64];
                match op {
                    Op::Read => (&mut &*self).read(&mut buffer),
                    Op::ReadVectored => (&mut &*self).read_vectored(&mut [IoSliceMut::new(&mut buffer)]),
                    Op::Peek => $peek(self, &mut buffer),
                    Op::Write => (&mut &*self).write(b"hello"),
                    Op::WriteVectored => (&mut &*self).write_vectored(&[IoSlice::new(b"hel"), IoSlice::new(b"lo")]),
                    Op::Fill => {
                        let data = vec![0; PIECE];
                        loop {
                            let _written = (&mut &*self).write(&data)?;
                        }
                    }
                    Op::WaitToRead => $wait(self, $($read)*),
                    Op::WaitToWrite => $wait(self, $($write)*),
                    _ => unreachable!("{op:?} of a stream"),
                }
            }
            fn shut(&self, how: Shutdown) -> io::Result<()> {
                self.shutdown(how)
            }
            fn copy(&self) -> Box<dyn Socket> {
                Box::new(self.try_clone().unwrap())
            }
            fn set(&self, mode: Mode) -> io::Result<()> {
                let timeout = (mode == Mode::Timeout).then_some(TIMEOUT);
                self.set_read_timeout(timeout)?;
                self.set_write_timeout(timeout)?;
                self.set_nonblocking(mode == Mode::Nonblocking)
            }
        }
    };
}

macro_rules! datagrams {
    ($name:ty, $wait:ident($($read:tt)*) ($($write:tt)*), $peek:expr, $peek_from:expr, $shut:expr) => {
        impl Socket for $name {
            fn call(&self, op: Op) -> io::Result<usize> {
                let mut buffer = [0; 64];
                match op {
                    Op::Read => self.recv(&mut buffer),
                    Op::ReceiveFrom => self.recv_from(&mut buffer).map(|(n, _)| n),
                    Op::Peek => $peek(self, &mut buffer),
                    Op::PeekFrom => $peek_from(self, &mut buffer),
                    Op::Write => self.send(b"hello"),
                    Op::Fill => loop {
                        self.send(b"hello")?;
                    },
                    Op::WaitToRead => $wait(self, $($read)*),
                    Op::WaitToWrite => $wait(self, $($write)*),
                    _ => unreachable!("{op:?} of a datagram socket"),
                }
            }
            fn shut(&self, how: Shutdown) -> io::Result<()> {
                $shut(self, how)
            }
            fn copy(&self) -> Box<dyn Socket> {
                Box::new(self.try_clone().unwrap())
            }
            fn set(&self, mode: Mode) -> io::Result<()> {
                let timeout = (mode == Mode::Timeout).then_some(TIMEOUT);
                self.set_read_timeout(timeout)?;
                self.set_write_timeout(timeout)?;
                self.set_nonblocking(mode == Mode::Nonblocking)
            }
        }
    };
}

macro_rules! listener {
    ($name:ty, $wait:ident($($read:tt)*)) => {
        impl Socket for $name {
            fn call(&self, op: Op) -> io::Result<usize> {
                match op {
                    Op::Accept => self.accept().map(|_| 0),
                    Op::WaitToRead => $wait(self, $($read)*),
                    _ => unreachable!("{op:?} of a listener"),
                }
            }
            fn copy(&self) -> Box<dyn Socket> {
                Box::new(self.try_clone().unwrap())
            }
            fn set(&self, mode: Mode) -> io::Result<()> {
                self.set_nonblocking(mode == Mode::Nonblocking)
            }
        }
    };
}

/// A client of a listener. It holds a duplicate of the listener as its descriptor until it has connected.
macro_rules! connector {
    ($name:ident, $address:ty, $connect:expr) => {
        struct $name(std::fs::File, $address);

        impl AsFd for $name {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl Socket for $name {
            fn call(&self, op: Op) -> io::Result<usize> {
                assert_eq!(op, Op::Connect);
                $connect(&self.1).map(|_| 0)
            }
            fn copy(&self) -> Box<dyn Socket> {
                Box::new($name(self.0.try_clone().unwrap(), self.1.clone()))
            }
            fn set(&self, _mode: Mode) -> io::Result<()> {
                Ok(())
            }
        }
    };
}

/// Defines the sockets and the scenes of one family: std or greenhub.
macro_rules! family {
    ($family:ident: $net:path, $unix:path, $wait:ident($($read:tt)*) ($($write:tt)*)) => {
        pub(crate) mod $family {
            use super::*;
            use {$net as net, $unix as unix};

            stream!(net::TcpStream, $wait($($read)*) ($($write)*), net::TcpStream::peek);
            stream!(unix::UnixStream, $wait($($read)*) ($($write)*), |_: &_, _: &mut _| unreachable!());
            datagrams!(
                net::UdpSocket, $wait($($read)*) ($($write)*), net::UdpSocket::peek,
                |socket: &net::UdpSocket, buffer: &mut [u8]| socket.peek_from(buffer).map(|(n, _)| n),
                |socket: &net::UdpSocket, how| shut_down(socket, how)
            );
            datagrams!(
                unix::UnixDatagram, $wait($($read)*) ($($write)*), |_: &_, _: &mut _| unreachable!(),
                |_: &_, _: &mut _| unreachable!(), unix::UnixDatagram::shutdown
            );
            listener!(net::TcpListener, $wait($($read)*));
            listener!(unix::UnixListener, $wait($($read)*));
            connector!(TcpConnector, std::net::SocketAddr, |address: &std::net::SocketAddr| {
                net::TcpStream::connect(address)
            });
            connector!(UnixConnector, Arc<SocketPath>, |path: &Arc<SocketPath>| unix::UnixStream::connect(&path.0));

            fn boxed(near: impl Socket + 'static, far: impl Socket + 'static) -> (Box<dyn Socket>, Box<dyn Socket>) {
                (Box::new(near), Box::new(far))
            }

            /// Returns a kind of socket and its other side.
            pub(crate) fn pair(kind: Kind, path: &Arc<SocketPath>) -> (Box<dyn Socket>, Box<dyn Socket>) {
                const ANY: &str = "127.0.0.1:0";
                match kind {
                    Kind::Tcp => {
                        let listener = net::TcpListener::bind(ANY).unwrap();
                        let near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                        boxed(near, listener.accept().unwrap().0)
                    }
                    Kind::Unix => {
                        let (near, far) = unix::UnixStream::pair().unwrap();
                        boxed(near, far)
                    }
                    Kind::Udp => {
                        let (near, far) = (net::UdpSocket::bind(ANY).unwrap(), net::UdpSocket::bind(ANY).unwrap());
                        near.connect(far.local_addr().unwrap()).unwrap();
                        far.connect(near.local_addr().unwrap()).unwrap();
                        boxed(near, far)
                    }
                    Kind::DatagramPair => {
                        let (near, far) = unix::UnixDatagram::pair().unwrap();
                        boxed(near, far)
                    }
                    Kind::DatagramNamed => {
                        let far = unix::UnixDatagram::bind(&path.0).unwrap();
                        let near = unix::UnixDatagram::unbound().unwrap();
                        near.connect(&path.0).unwrap();
                        boxed(near, far)
                    }
                    // The clients connect later.
                    Kind::TcpListener => {
                        boxed(net::TcpListener::bind(ANY).unwrap(), net::TcpListener::bind(ANY).unwrap())
                    }
                    Kind::UnixListener => {
                        let (spare, _) = unix::UnixStream::pair().unwrap();
                        boxed(unix::UnixListener::bind(&path.0).unwrap(), spare)
                    }
                    Kind::TcpConnect => {
                        let listener = net::TcpListener::bind(ANY).unwrap();
                        let address = listener.local_addr().unwrap();
                        boxed(TcpConnector(std::fs::File::open("/dev/null").unwrap(), address), listener)
                    }
                    Kind::UnixConnect => {
                        let listener = unix::UnixListener::bind(&path.0).unwrap();
                        boxed(UnixConnector(std::fs::File::open("/dev/null").unwrap(), Arc::clone(path)), listener)
                    }
                }
            }

            /// Sets a case up.
            pub(crate) fn scene(case: Case) -> Scene {
                let path = Arc::new(SocketPath::new());
                let (near, far) = pair(case.kind, &path);
                let own = near.copy();
                let mut scene = Scene { case, near, own, far: Some(far), others: Vec::new(), path };
                scene.prepare();
                scene
            }
        }
    };
}

fn shut_down(socket: impl AsFd, how: Shutdown) -> io::Result<()> {
    let half = match how {
        Shutdown::Read => Half::Read,
        Shutdown::Write => Half::Write,
        Shutdown::Both => Half::Both,
    };
    Ok(rustix::net::shutdown(socket, half)?)
}

family!(os: std::net, std::os::unix::net, poll_for(PollFlags::IN) (PollFlags::OUT));
family!(green: greenhub::net, greenhub::os::unix::net, trampoline_for(greenhub::Interest::READ) (greenhub::Interest::WRITE));
