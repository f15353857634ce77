//! The combinations compared: kind of socket × end × operation × mode × whether the operation begins before the end.

use std::net::Shutdown;

/// A kind of socket, with what is at its other side.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Tcp,
    Unix,
    Udp,
    DatagramPair,
    /// Connected to a receiver that is bound to a path.
    DatagramNamed,
    TcpListener,
    UnixListener,
    TcpConnect,
    UnixConnect,
}

/// An end that a socket meets.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Nothing.
    Open,
    /// The peer sends 5 bytes, or connects.
    Data,
    PeerClosed,
    /// The peer closes, with data that it has not read.
    Reset,
    /// The peer sends or connects, then closes.
    DataThenClosed,
    DataThenHalfClosed,
    DataThenOwn(Shutdown),
    Peer(Shutdown),
    Own(Shutdown),
    /// An error in the queue of errors, and the same as the pending error. For TCP: a timestamp in that queue, and no error.
    ErrorQueue,
    /// Neither side can send any more, and the own side has data to read.
    BuffersFull,
    /// The queue of the listener is full; then it accepts, is shut down or closed.
    Full,
    FullThenAccepted,
    FullThenPeer(Shutdown),
    FullThenClosed,
}

/// A call, made up to three times in a row.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Read,
    ReadVectored,
    Peek,
    ReceiveFrom,
    PeekFrom,
    Write,
    WriteVectored,
    /// Writes until that fails.
    Fill,
    Accept,
    Connect,
    /// poll(2), here a trampoline.
    WaitToRead,
    WaitToWrite,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Blocking,
    Nonblocking,
    /// With timeouts of a few milliseconds.
    Timeout,
}

/// One combination.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) end: End,
    pub(crate) op: Op,
    pub(crate) mode: Mode,
    /// The operation blocks when the end comes.
    pub(crate) begun: bool,
}

const SHUTDOWNS: [Shutdown; 3] = [Shutdown::Read, Shutdown::Write, Shutdown::Both];

impl Kind {
    fn ends(self) -> Vec<End> {
        let shut = |end: fn(Shutdown) -> End| SHUTDOWNS.into_iter().map(end);
        let mut ends = vec![End::Open, End::PeerClosed];
        match self {
            Kind::Tcp | Kind::Unix => {
                ends.extend([End::Data, End::Reset, End::DataThenClosed, End::DataThenHalfClosed, End::BuffersFull]);
                ends.extend(shut(End::Peer).chain(shut(End::Own)).chain(shut(End::DataThenOwn)));
                if self == Kind::Tcp && cfg!(target_os = "linux") {
                    ends.push(End::ErrorQueue);
                }
            }
            Kind::Udp => {
                ends.extend([End::Data, End::DataThenClosed, End::ErrorQueue]);
                ends.extend(shut(End::Peer).chain(shut(End::Own)).chain(shut(End::DataThenOwn)));
            }
            Kind::DatagramPair => {
                ends.extend([End::Data, End::DataThenClosed, End::Reset, End::DataThenHalfClosed, End::BuffersFull]);
                ends.extend(shut(End::Peer).chain(shut(End::Own)).chain(shut(End::DataThenOwn)));
            }
            Kind::DatagramNamed => ends.extend(shut(End::Peer).chain(shut(End::Own))),
            Kind::TcpListener | Kind::UnixListener => {
                ends = vec![End::Open, End::Data, End::DataThenClosed];
                ends.extend(shut(End::Own).chain(shut(End::DataThenOwn)));
            }
            // Room in the queue is noticed only when the system asks again, after a second.
            Kind::TcpConnect => ends.extend(shut(End::Peer).chain([End::Full])),
            Kind::UnixConnect => {
                ends.extend([End::Full, End::FullThenAccepted, End::FullThenClosed]);
                ends.extend(shut(End::Peer).chain(shut(End::FullThenPeer)));
            }
        }
        ends
    }

    fn ops(self) -> &'static [Op] {
        use Op::*;
        match self {
            Kind::Tcp => &[Read, ReadVectored, Peek, Write, WriteVectored, Fill, WaitToRead, WaitToWrite],
            Kind::Unix => &[Read, ReadVectored, Write, WriteVectored, Fill, WaitToRead, WaitToWrite],
            // Room for datagrams to another address of this machine comes by itself.
            Kind::Udp => &[Read, Peek, ReceiveFrom, PeekFrom, Write, WaitToRead, WaitToWrite],
            Kind::DatagramPair | Kind::DatagramNamed => &[Read, ReceiveFrom, Write, Fill, WaitToRead, WaitToWrite],
            Kind::TcpListener | Kind::UnixListener => &[Accept, WaitToRead],
            Kind::TcpConnect | Kind::UnixConnect => &[Connect],
        }
    }

    /// Whether a waiter for that is sure to wait as long as nothing happens.
    fn blocks(self, op: Op) -> bool {
        !matches!(op, Op::Write | Op::WriteVectored | Op::WaitToWrite | Op::Connect)
    }
}

impl Case {
    /// Every case of a kind.
    pub(crate) fn all(kind: Kind) -> Vec<Case> {
        let mut all = Vec::new();
        for end in kind.ends() {
            for &op in kind.ops() {
                let full = matches!(end, End::FullThenAccepted | End::FullThenPeer(_) | End::FullThenClosed);
                let modes: &[Mode] = match op {
                    Op::WaitToRead | Op::WaitToWrite | Op::Connect => &[Mode::Blocking],
                    Op::Accept => &[Mode::Blocking, Mode::Nonblocking],
                    _ => &[Mode::Blocking, Mode::Nonblocking, Mode::Timeout],
                };
                for &mode in modes {
                    all.push(Case { kind, end, op, mode, begun: false });
                }
                // Whether a thread that is woken by a connection takes it before the shutdown is up to the system.
                let races = op == Op::Accept && matches!(end, End::DataThenOwn(_));
                // Buffers are filled before the operation, and full ones leave no room for the end.
                let comes = end != End::BuffersFull && (end, op) != (End::ErrorQueue, Op::Fill);
                if (kind.blocks(op) || full) && comes && !races {
                    all.push(Case { kind, end, op, mode: Mode::Blocking, begun: true });
                }
            }
        }
        all
    }

    pub(crate) fn name(&self) -> String {
        let Case { kind, end, op, mode, begun } = self;
        format!("{kind:?}/{end:?}/{op:?}/{mode:?}/{}", if *begun { "begun" } else { "fresh" })
    }

    /// Whether what std did and what was done here come to the same.
    pub(crate) fn agree(&self, std: &str, green: &str) -> bool {
        std == green || std == "blocked" && self.result_of_another_try() == Some(green)
    }

    /// Where the system never wakes a call that blocks already, a call that begins now returns this. Here the operation is
    /// tried again.
    fn result_of_another_try(&self) -> Option<&'static str> {
        let Case { kind, end, op, begun, .. } = self;
        match (kind, end, op, begun) {
            (Kind::DatagramNamed, End::Peer(Shutdown::Read | Shutdown::Both), Op::Fill, true)
            | (Kind::DatagramNamed, End::Own(Shutdown::Write | Shutdown::Both), Op::Fill, true) => {
                Some("BrokenPipe, BrokenPipe, BrokenPipe")
            }
            (Kind::UnixConnect, End::FullThenPeer(Shutdown::Read | Shutdown::Both), Op::Connect, true) => {
                Some("ConnectionRefused, ConnectionRefused, ConnectionRefused")
            }
            _ => None,
        }
    }
}
