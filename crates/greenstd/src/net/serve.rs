//! Servers: connections are accepted as long as a pool has room, and each is handled in a green thread of it.

mod stop;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use hub_core::{GreenError, GreenThread, LoopError, PiecewiseWait, TrampolineError};
use rustix::io::Errno;

pub use stop::StopServe;

use crate::greenpool::{GreenPool, Room};
use crate::group::{Group, GroupError};

/// What connections come from: [`TcpListener`](super::TcpListener), [`UnixListener`](crate::os::unix::net::UnixListener),
/// or something of your own around one of them.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::net::{Accept, Accepted, SocketAddr, TcpListener, TcpStream};
/// use std::io;
/// /// Has small messages sent at once.
/// #[derive(Debug)]
/// struct Prompt(TcpListener);
/// impl Accept for Prompt {
///     type Stream = TcpStream;
///     type Address = SocketAddr;
///     fn accept_if<T>(&self, admit: impl FnMut() -> Option<T>) -> io::Result<Option<Accepted<Prompt, T>>> {
///         let accepted = self.0.accept_if(admit)?;
///         if let Some((stream, ..)) = &accepted {
///             // It may be broken by now, which is its handler's to find out.
///             let _ = stream.set_nodelay(true);
///         }
///         Ok(accepted)
///     }
///     fn is_closed(&self) -> bool {
///         self.0.is_closed()
///     }
/// }
/// # let prompt = Prompt(TcpListener::bind("127.0.0.1:0")?);
/// # let _client = TcpStream::connect(prompt.0.local_addr()?)?;
/// # assert!(prompt.accept_if(|| Some(()))?.unwrap().0.nodelay()?);
/// # assert!(!prompt.is_closed() && prompt.accept_if(|| None::<()>)?.is_none());
/// # Ok::<(), io::Error>(()) }).unwrap();
/// ```
pub trait Accept: fmt::Debug {
    /// A connection.
    type Stream: 'static;
    /// Where it comes from.
    type Address: 'static;

    /// Waits for a connection, and takes it if `admit` gives something for it. `admit` is asked before each attempt, and
    /// what it gave is dropped when there was nothing to accept after all. `None`, with nothing accepted, if it gives
    /// nothing. Switches.
    ///
    /// # Errors
    ///
    /// The system's error. An error of the kind [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) concerns one
    /// connection, and ends no server.
    fn accept_if<T>(&self, admit: impl FnMut() -> Option<T>) -> io::Result<Option<Accepted<Self, T>>>;

    /// Whether it was closed, so that an error is no surprise.
    fn is_closed(&self) -> bool;
}

/// A connection, where it comes from, and what it was admitted with.
pub type Accepted<L, T> = (<L as Accept>::Stream, <L as Accept>::Address, T);

/// How a server has ended, if not by an error.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Served {
    /// Whether it was stopped, or its listener closed.
    pub end: ServeEnd,
    /// How many connections it has accepted.
    pub accepted: u64,
    /// How many handlers ran still when the time for them was over, and were killed.
    pub killed: usize,
    /// How many of the killed handlers still ran when the server returned: they [refused](hub_core::KillOutcome::Refused) the kill,
    /// or were in a [`shield`](hub_core::shield()) or a wait that must not be left early.
    pub left: usize,
}

/// Why a server has ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ServeEnd {
    /// By its [`StopServe`].
    Stopped,
    /// Its listener was closed.
    Closed,
}

/// Why a server has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The caller is a green thread of the pool: when the pool is full it would wait for itself.
    #[error("cannot serve from a green thread of the pool that is to run the handlers")]
    Inside,
    /// The listener is of no use any more.
    #[error("cannot accept connections: {0}")]
    Accept(#[source] io::Error),
    /// The caller cannot wait.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

impl From<ServeError> for io::Error {
    fn from(error: ServeError) -> io::Error {
        let kind = match error {
            ServeError::Inside => io::ErrorKind::Deadlock,
            ServeError::Accept(ref cause) => cause.kind(),
            ServeError::Loop(error) => return error.into(),
        };
        io::Error::new(kind, error)
    }
}

/// Accepts connections until the listener is closed, and calls `handler` with each in a green thread of `pool`.
/// Eventlet's `serve`. Switches.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::greenpool::GreenPool;
/// use greenstd::net::{TcpListener, TcpStream, serve};
/// use std::io::{Read, Write};
/// use std::rc::Rc;
/// let listener = Rc::new(TcpListener::bind("127.0.0.1:0")?);
/// let (address, closer) = (listener.local_addr()?, Rc::clone(&listener));
/// hub_core::spawn(move || {
///     let mut greeting = String::new();
///     TcpStream::connect(address)?.read_to_string(&mut greeting)?;
///     assert_eq!(greeting, "hello");
///     closer.close();
///     Ok::<(), std::io::Error>(())
/// });
/// let pool = GreenPool::new(1000);
/// let served = serve(&*listener, &pool, |mut stream, _peer| stream.write_all(b"hello"))?;
/// assert_eq!(served.accepted, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// This is [`serve_until`] without anybody who stops it.
///
/// # Errors
///
/// As there.
#[track_caller]
pub fn serve<L: Accept, R: 'static>(
    listener: &L,
    pool: &GreenPool,
    handler: impl Fn(L::Stream, L::Address) -> R + 'static,
) -> Result<Served, ServeError> {
    serve_until(&StopServe::new(), listener, pool, handler)
}

/// Accepts connections until `stop` says so or the listener is closed, and calls `handler` with each in a green thread
/// of `pool`. Switches.
///
/// While the pool is full nothing is accepted: connections wait in the queue of the system. Several servers may share a
/// pool, and a [`StopServe`]. The stream is the handler's, so it is closed when the handler has ended, in whichever way,
/// unless it was given away. A handler that panics or returns an `Err` is [reported](hub_core::spawn), and the server
/// goes on; so it does when one is killed.
///
/// A lack of descriptors or memory, and connections that have failed before they were accepted, end no server. Such an
/// error is [reported](hub_core::set_report_stream), once until a connection is accepted again. After a lack there is
/// another attempt when a pause is over, which grows from 5 milliseconds to a second; after a lost connection there is one
/// at once, unless many fail in a row.
///
/// When it is stopped, no more is accepted and the handlers are waited for: without a limit, or until a
/// [deadline](StopServe::stop_within) at which those that are left are killed. The server then returns when they have
/// ended, or as soon as only those are left that [refuse](hub_core::KillOutcome::Refused) the kill, and two seconds after the
/// deadline at the latest; [`Served::left`] counts them. The listener stays open, so it can be served again. If the caller is killed, or times out, the handlers run on.
///
/// With `panic = "abort"` nothing can be interrupted: there a stop takes effect after the next connection, and
/// handlers are waited for without a limit.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::greenpool::GreenPool;
/// use greenstd::net::{ServeEnd, StopServe, TcpListener, TcpStream, serve_until};
/// use std::io::Read;
/// use std::time::Duration;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let (pool, stop) = (GreenPool::new(1000), StopServe::new());
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let last_orders = stop.clone();
/// let served = serve_until(&stop, &listener, &pool, move |mut stream, _peer| {
///     last_orders.stop_within(Duration::from_millis(5));
///     stream.read(&mut [0]) // for ever: the client says nothing
/// })?;
/// assert_eq!((served.end, served.accepted, served.killed), (ServeEnd::Stopped, 1, 1));
/// # drop(client);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`ServeError::Accept`] if accepting fails in a way that will not pass; [`ServeError::Inside`] from a green thread of
/// the pool; if the caller cannot wait. The handlers run on.
#[track_caller]
pub fn serve_until<L: Accept, R: 'static>(
    stop: &StopServe,
    listener: &L,
    pool: &GreenPool,
    handler: impl Fn(L::Stream, L::Address) -> R + 'static,
) -> Result<Served, ServeError> {
    serve_at(Location::caller(), stop, listener, pool, handler)
}

/// [`serve_until`] on behalf of a caller at `called_at`, which is the spawn place of the handlers.
pub(super) fn serve_at<L: Accept, R: 'static>(
    called_at: &'static Location<'static>,
    stop: &StopServe,
    listener: &L,
    pool: &GreenPool,
    handler: impl Fn(L::Stream, L::Address) -> R + 'static,
) -> Result<Served, ServeError> {
    if pool.contains_current() {
        return Err(ServeError::Inside);
    }
    let handler = Rc::new(handler);
    let mut server = Server { called_at, listener, pool, handler, handlers: Group::new(), accepted: 0 };
    let end = {
        let stopped = Watch::new(called_at, stop, StopServe::wait);
        stopped.guard(|| server.accept_all(stop))?.unwrap_or(Ok(ServeEnd::Stopped))?
    };
    let (killed, left) = server.drain(stop)?;
    Ok(Served { end, accepted: server.accepted, killed, left })
}

struct Server<'a, L, F> {
    called_at: &'static Location<'static>,
    listener: &'a L,
    pool: &'a GreenPool,
    handler: Rc<F>,
    handlers: Group,
    accepted: u64,
}

/// How long handlers that were killed may take to end.
const UNWINDING: Duration = Duration::from_secs(2);

/// So many connections are accepted in one go before their handlers run.
const BURST: u64 = 64;

impl<L: Accept, F: Fn(L::Stream, L::Address) -> R + 'static, R: 'static> Server<'_, L, F> {
    fn accept_all(&mut self, stop: &StopServe) -> Result<ServeEnd, ServeError> {
        let mut pauses = Pauses::begin();
        while !stop.is_stopped() {
            let mut room = Some(self.pool.room()?);
            // A place that was granted is kept, also if the stop came before this green thread ran again.
            if stop.is_stopped() {
                break;
            }
            // A place is kept while there are connections, and not while one waits for the next.
            let accepted = self.listener.accept_if(|| room.take().or_else(|| self.pool.room_now()));
            match accepted {
                Ok(Some((stream, address, room))) => {
                    pauses = Pauses::begin();
                    self.accepted += 1;
                    self.handle(stream, address, room);
                    if self.accepted.is_multiple_of(BURST) {
                        hub_core::yield_now();
                    }
                }
                Ok(None) => {}
                Err(_) if self.listener.is_closed() => return Ok(ServeEnd::Closed),
                Err(error) => match Failure::of(&error) {
                    Some(failure) => {
                        drop(room);
                        pauses.next(self.listener, failure, error).map_err(ServeError::Accept)?;
                    }
                    None => return Err(ServeError::Accept(error)),
                },
            }
        }
        Ok(ServeEnd::Stopped)
    }

    fn handle(&self, stream: L::Stream, address: L::Address, room: Room) {
        let handler = Rc::clone(&self.handler);
        self.handlers.add(&room.spawn(self.called_at, move || handler(stream, address)));
    }

    /// Waits for the handlers, and kills those that are late. Returns how many, and how many of them are left.
    fn drain(&self, stop: &StopServe) -> Result<(usize, usize), ServeError> {
        // Handlers alone are members, and this is none.
        let failed = |error| match error {
            GroupError::Loop(error) => ServeError::from(error),
            error => unreachable!("a server waits for its handlers: {error}"),
        };
        let late = Watch::new(self.called_at, stop, StopServe::wait_for_deadline);
        if let Some(waited) = late.guard(|| self.handlers.wait_all())? {
            return waited.map(|()| (0, 0)).map_err(failed);
        }
        let killed = self.handlers.len();
        let left = self.handlers.kill_all_within(UNWINDING).map_err(failed)?;
        Ok((killed, left))
    }
}

/// A green thread that waits for something, as long as this is there.
struct Watch<'a> {
    stop: &'a StopServe,
    over: Rc<Cell<bool>>,
    green: GreenThread<()>,
}

impl<'a> Watch<'a> {
    fn new(called_at: &'static Location<'static>, stop: &'a StopServe, wait: fn(&StopServe, &Cell<bool>)) -> Watch<'a> {
        let over = Rc::new(Cell::new(false));
        let (own, seen) = (stop.clone(), Rc::clone(&over));
        Watch { stop, over, green: hub_core::spawn_at(called_at, move || wait(&own, &seen)) }
    }

    /// Runs `f`, unless what is waited for comes first: then `None`.
    fn guard<R>(&self, mut f: impl FnMut() -> R) -> Result<Option<R>, LoopError> {
        match self.green.with_link(&mut f) {
            Ok(value) => Ok(Some(value)),
            Err(linked) if linked.is_unsupported() => Ok(Some(f())),
            Err(linked) => match linked.error() {
                None => Ok(None),
                // It had no stack, for instance.
                Some(GreenError::Loop(error)) => Err(error.clone()),
                Some(_) => Err(LoopError::Aborted),
            },
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        // It ends by itself: this may be dropped by unwinding, and without unwinding nobody could end it.
        self.over.set(true);
        self.stop.look_again();
    }
}

/// Pauses between attempts to accept, ever longer.
pub(crate) struct Pauses {
    failures: u64,
    last: Option<Duration>,
    wait: PiecewiseWait,
}

impl Pauses {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);

    pub(crate) fn begin() -> Pauses {
        Pauses { failures: 0, last: None, wait: PiecewiseWait::begin() }
    }

    /// Reports the first of several failures, and pauses. Switches.
    ///
    /// # Errors
    ///
    /// `error`, where nothing may switch and the time of grace is used up.
    pub(crate) fn next<L: Accept>(&mut self, listener: &L, failure: Failure, error: io::Error) -> io::Result<()> {
        if self.wait.is_over() {
            return Err(error);
        }
        self.failures += 1;
        if self.failures == 1 {
            let longest = Pauses::LONGEST;
            hub_core::warn(format!(
                "{listener:?} cannot accept connections: {error}; tries again, with pauses of up to {longest:?}"
            ));
        }
        // Each has taken a connection, so others are not to wait for it. A failure that goes on and on is no matter of
        // connections.
        if failure == Failure::Connection && self.failures <= BURST {
            hub_core::yield_now();
            return Ok(());
        }
        let pause = self.last.map_or(Pauses::FIRST, |last| (last * 2).min(Pauses::LONGEST));
        self.last = Some(pause);
        hub_core::sleep(pause);
        Ok(())
    }
}

/// Why accepting has failed, if that ends no server.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// One connection is lost: the network, a firewall or the peer has ended it before it was accepted. accept(2) of
    /// Linux returns what was pending at the new socket.
    Connection,
    /// Something was lacking, which is a matter of time.
    Lack,
}

impl Failure {
    /// `None` if the listener is of no use any more.
    pub(crate) fn of(error: &io::Error) -> Option<Failure> {
        const LACKS: &[Errno] = &[Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::NOSPC];
        const CONNECTIONS: &[Errno] = &[
            Errno::CONNABORTED,
            Errno::CONNRESET,
            Errno::TIMEDOUT,
            Errno::INTR,
            Errno::PROTO,
            Errno::PERM,
            Errno::ACCESS,
            Errno::NETDOWN,
            Errno::NETUNREACH,
            Errno::NETRESET,
            Errno::HOSTDOWN,
            Errno::HOSTUNREACH,
            Errno::NOPROTOOPT,
            Errno::OPNOTSUPP,
            Errno::PROTONOSUPPORT,
            Errno::SOCKTNOSUPPORT,
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Errno::NONET,
        ];
        // A lack of the hub is a matter of time, too.
        let refused = match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(TrampolineError::Register(_, cause)) => cause,
            Some(TrampolineError::TimedOut(_)) => return Some(Failure::Connection),
            _ => error,
        };
        let is_one_of = |list: &[Errno]| list.iter().any(|errno| refused.raw_os_error() == Some(errno.raw_os_error()));
        if is_one_of(LACKS) {
            Some(Failure::Lack)
        } else if is_one_of(CONNECTIONS) || refused.kind() == io::ErrorKind::ConnectionAborted {
            Some(Failure::Connection)
        } else {
            None
        }
    }
}
