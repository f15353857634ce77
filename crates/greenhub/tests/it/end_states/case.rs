//! The compared combinations: kind of socket × end × operation × mode × whether the operation begins first.

use std::net::Shutdown;

/// A kind of socket with its peer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Tcp,
    Unix,
    Udp,
    DatagramPair,
    /// A socket connected to a receiver that is bound to a path.
    DatagramNamed,
    TcpListener,
    UnixListener,
    TcpConnect,
    UnixConnect,
}

/// The end of a socket, or another event before or during the operation.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// No event.
    Open,
    /// The peer sends 5 bytes, or connects.
    Data,
    PeerClosed,
    /// The peer closes with unread data.
    Reset,
    /// The peer sends or connects, then closes.
    DataThenClosed,
    DataThenHalfClosed,
    DataThenOwn(Shutdown),
    Peer(Shutdown),
    Own(Shutdown),
    /// An error in the error queue that is also the pending error. For TCP, a timestamp in the queue and no error.
    ErrorQueue,
    /// The send buffers of both sides are full, and the own side has data to read.
    BuffersFull,
    /// The listener's queue is full. In the variants, the listener then accepts, is shut down or is closed.
    Full,
    FullThenAccepted,
    FullThenPeer(Shutdown),
    FullThenClosed,
}

/// An operation, called up to three times in a row.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Read,
    ReadVectored,
    Peek,
    ReceiveFrom,
    PeekFrom,
    Write,
    WriteVectored,
    /// Writes until an error.
    Fill,
    Accept,
    Connect,
    /// `poll(2)` for std, a trampoline for greenhub.
    WaitToRead,
    WaitToWrite,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Blocking,
    Nonblocking,
    /// Blocking with timeouts of a few milliseconds.
    Timeout,
}

/// One combination.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) end: End,
    pub(crate) op: Op,
    pub(crate) mode: Mode,
    /// Whether the operation blocks when the end comes.
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
            // The system notices room in the queue only at its retry after a second.
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
            // The system delivers datagrams to a local address at once, so that their sender's buffer never stays full.
            Kind::Udp => &[Read, Peek, ReceiveFrom, PeekFrom, Write, WaitToRead, WaitToWrite],
            Kind::DatagramPair | Kind::DatagramNamed => &[Read, ReceiveFrom, Write, Fill, WaitToRead, WaitToWrite],
            Kind::TcpListener | Kind::UnixListener => &[Accept, WaitToRead],
            Kind::TcpConnect | Kind::UnixConnect => &[Connect],
        }
    }

    /// Returns whether the operation always blocks until an event.
    fn blocks(self, op: Op) -> bool {
        !matches!(op, Op::Write | Op::WriteVectored | Op::WaitToWrite | Op::Connect)
    }
}

impl Case {
    /// Returns all cases of a kind.
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
                // It depends on scheduling whether a thread that a connection wakes accepts it before the shutdown.
                let races = op == Op::Accept && matches!(end, End::DataThenOwn(_));
                // Buffers are filled before the operation, and full buffers leave no room for the event.
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

    /// Returns whether the results of std and of greenhub agree.
    pub(crate) fn agree(&self, std: &str, green: &str) -> bool {
        std == green || std == "blocked" && self.result_of_another_try() == Some(green)
    }

    /// Returns the result of a new call where the system never wakes a call that already blocks.
    ///
    /// Greenhub retries the operation there, and so returns this result.
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
