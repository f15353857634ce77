//! Servers, which accept connections while a pool has room, and handle each in a green thread of the pool.

mod stop;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use hub_core::internal::{PiecewiseWait, spawn_named_at};
use hub_core::{GreenError, GreenThread, LoopError, LoopErrorKind, Panic, TrampolineError};
use rustix::io::Errno;

pub use stop::StopServe;

use crate::greenpool::Group;
use crate::greenpool::{Admission, GreenPool};

/// A source of connections, such as [`TcpListener`](super::TcpListener).
///
/// [`UnixListener`](crate::os::unix::net::UnixListener) is another one. A program may implement it for a type that
/// wraps one of them.
///
/// ```
/// use greenhub::net::{Accept, Accepted, SocketAddr, TcpListener, TcpStream};
/// use std::io;
/// /// Sends small messages at once.
/// #[derive(Debug)]
/// struct Prompt(TcpListener);
/// impl Accept for Prompt {
///     type Stream = TcpStream;
///     type Address = SocketAddr;
///     fn accept_if<T>(&self, admit: impl FnMut() -> Option<T>) -> io::Result<Option<Accepted<Prompt, T>>> {
///         let accepted = self.0.accept_if(admit)?;
///         if let Some((stream, ..)) = &accepted {
///             // The connection may be broken by now; its handler will find that out.
///             let _ = stream.set_nodelay(true);
///         }
///         Ok(accepted)
///     }
///     fn is_closed(&self) -> bool {
///         self.0.is_closed()
///     }
///     fn peer_name(address: &SocketAddr) -> Option<String> {
///         TcpListener::peer_name(address)
///     }
/// }
/// # let prompt = Prompt(TcpListener::bind("127.0.0.1:0")?);
/// # let _client = TcpStream::connect(prompt.0.local_addr()?)?;
/// # assert!(prompt.accept_if(|| Some(()))?.unwrap().0.nodelay()?);
/// # assert!(!prompt.is_closed() && prompt.accept_if(|| None::<()>)?.is_none());
/// # Ok::<(), io::Error>(())
/// ```
pub trait Accept: fmt::Debug {
    /// The type of a connection.
    type Stream: 'static;
    /// The type of the peer's address.
    type Address: 'static;

    /// Waits for a connection, and accepts it if `admit` returns a ticket for it. Switches.
    ///
    /// `admit` is called before each attempt. Its ticket is dropped if there was nothing to accept after all. If
    /// `admit` returns `None`, nothing is accepted, and this returns `None`.
    ///
    /// # Errors
    ///
    /// Returns the system's error. An error of the kind [`ConnectionAborted`](io::ErrorKind::ConnectionAborted)
    /// concerns one connection, and ends no server.
    fn accept_if<T>(&self, admit: impl FnMut() -> Option<T>) -> io::Result<Option<Accepted<Self, T>>>;

    /// Returns true if the listener was closed, which explains an error.
    fn is_closed(&self) -> bool;

    /// Returns the name for the handler's green thread, usually the peer's address.
    ///
    /// The default is no name.
    fn peer_name(address: &Self::Address) -> Option<String> {
        let _ = address;
        None
    }
}

/// A connection, the peer's address, and the ticket of its admission.
pub type Accepted<L, T> = (<L as Accept>::Stream, <L as Accept>::Address, T);

/// The result of a server over green sockets that ended without an error.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Served {
    /// The cause of the end.
    pub end: ServeEnd,
    /// The number of accepted connections.
    pub accepted: u64,
    /// The number of handlers that were killed at the deadline.
    pub killed: usize,
    /// The number of killed handlers that still ran when the server returned. They
    /// [refused](hub_core::KillOutcome::Refused) the kill, or were in a [`shield`](hub_core::shield()) or in a wait
    /// that must not be left early.
    pub left: usize,
}

/// The cause of a server's end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ServeEnd {
    /// Its [`StopServe`] was stopped.
    Stopped,
    /// Its listener was closed.
    Closed,
}

/// The reason why a server failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The caller is a green thread of the pool: with a full pool it would wait for itself.
    #[error("cannot serve from a green thread of the pool that is to run the handlers")]
    Inside,
    /// The listener cannot accept any more.
    #[error("cannot accept connections: {0}")]
    Accept(#[source] io::Error),
    /// An OS thread of a [`Cluster`](super::Cluster) panicked outside of a handler.
    #[error("an OS thread of the server panicked: {0}")]
    Panic(Panic),
    /// The caller cannot wait, or the main loop has ended its wait: it was interrupted by a signal, for example.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

impl ServeError {
    /// Converts an error of an accept: errors of the main loop become [`Loop`](ServeError::Loop).
    fn from_accept_error(error: io::Error) -> ServeError {
        LoopError::from_io_error(&error).map_or(ServeError::Accept(error), ServeError::Loop)
    }
}

impl From<ServeError> for io::Error {
    fn from(error: ServeError) -> io::Error {
        let kind = match error {
            ServeError::Inside => io::ErrorKind::Deadlock,
            ServeError::Accept(ref cause) => cause.kind(),
            ServeError::Panic(_) => io::ErrorKind::Other,
            ServeError::Loop(error) => return error.into(),
        };
        io::Error::new(kind, error)
    }
}

/// Accepts connections until the listener is closed. Switches.
///
/// It handles each connection in a green thread of `pool`.
///
/// Eventlet's `serve`.
///
/// ```
/// use greenhub::GreenPool;
/// use greenhub::net::{TcpListener, TcpStream, serve};
/// use std::io::{Read, Write};
/// use std::rc::Rc;
/// let listener = Rc::new(TcpListener::bind("127.0.0.1:0")?);
/// let (address, closer) = (listener.local_addr()?, Rc::clone(&listener));
/// greenhub::spawn(move || {
///     let mut greeting = String::new();
///     TcpStream::connect(address)?.read_to_string(&mut greeting)?;
///     assert_eq!(greeting, "hello");
///     closer.close();
///     Ok::<(), std::io::Error>(())
/// });
/// let pool = GreenPool::new(1000);
/// let served = serve(&*listener, &pool, |mut stream, _peer| stream.write_all(b"hello"))?;
/// assert_eq!(served.accepted, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// This is [`serve_until`] with a handle that is never stopped.
///
/// # Errors
///
/// Like [`serve_until`].
#[doc(alias = "StreamServer")]
#[track_caller]
#[doc(alias = "serve_forever")]
pub fn serve<L: Accept, R: 'static>(
    listener: &L,
    pool: &GreenPool,
    handler: impl Fn(L::Stream, L::Address) -> R + 'static,
) -> Result<Served, ServeError> {
    serve_until(&StopServe::new(), listener, pool, handler)
}

/// Accepts connections until `stop` is stopped or the listener is closed. Switches.
///
/// It calls `handler` with each connection in a green thread of `pool`. The green thread has the name of the
/// [peer](Accept::peer_name), and the caller's location as the place of its spawn. While the pool is full nothing is
/// accepted: connections wait in the backlog of the system. Several servers may share a pool, and a [`StopServe`]. The
/// handler owns the stream, so the stream is closed when the handler ends, unless it was moved elsewhere. A handler
/// that panics or returns an `Err` is [reported](hub_core::spawn), and the server goes on. It also goes on when a
/// handler is killed.
///
/// A lack of descriptors or memory ends no server, nor does a connection that failed before it was accepted. Such an
/// error is [reported](hub_core::set_report_stream) once, until a connection is accepted again. After a lack, the next
/// attempt follows a pause, which grows from 5 milliseconds to a second. After a lost connection the next attempt
/// follows at once, unless many fail in a row.
///
/// A stopped server accepts no more and waits for the handlers: without a limit, or until a
/// [deadline](StopServe::stop_within) at which the remaining ones are killed. Then it returns when all have ended, or
/// only handlers that [refuse](hub_core::KillOutcome::Refused) the kill are left, and at the latest two seconds after
/// the deadline; [`Served::left`] counts the rest. The listener stays open and can be served again. If an
/// [exit](hub_core::is_exit) unwinds the caller, the handlers run on.
///
/// With `panic = "abort"` nothing can be interrupted. There a stop takes effect after the next connection, and the
/// server waits for its handlers without a limit.
///
/// ```
/// use greenhub::GreenPool;
/// use greenhub::net::{ServeEnd, StopServe, TcpListener, TcpStream, serve_until};
/// use std::io::Read;
/// use std::time::Duration;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let (pool, stop) = (GreenPool::new(1000), StopServe::new());
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let last_orders = stop.clone();
/// let served = serve_until(&stop, &listener, &pool, move |mut stream, _peer| {
///     last_orders.stop_within(Duration::from_millis(5));
///     stream.read(&mut [0]) // forever: the client says nothing
/// })?;
/// assert_eq!((served.end, served.accepted, served.killed), (ServeEnd::Stopped, 1, 1));
/// # drop(client);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns [`ServeError::Accept`] if accepting fails permanently, and [`ServeError::Inside`] from a green thread of the
/// pool. Returns [`ServeError::Loop`] if the caller cannot wait, and if the main loop ends the wait of the main
/// greenlet: after a signal of [`interrupt_on`](hub_core::interrupt_on), for example. The handlers run on.
#[track_caller]
pub fn serve_until<L: Accept, R: 'static>(
    stop: &StopServe,
    listener: &L,
    pool: &GreenPool,
    handler: impl Fn(L::Stream, L::Address) -> R + 'static,
) -> Result<Served, ServeError> {
    serve_at(Location::caller(), stop, listener, pool, handler)
}

/// Like [`serve_until`], for a caller at `called_at`, which is the spawn location of the handlers.
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
    // Before the first connection is accepted, and until the handlers have ended.
    let _obeying = stop.obey_signals()?;
    let server = Server { called_at, listener, pool, handler, handlers: Group::new(), accepted: 0 };
    let served = server.run(stop)?;
    // The watchers end now. If the OS thread ended first, they would be reported as abandoned.
    hub_core::internal::yield_deferring_errors();
    Ok(served)
}

struct Server<'a, L, F> {
    called_at: &'static Location<'static>,
    listener: &'a L,
    pool: &'a GreenPool,
    handler: Rc<F>,
    handlers: Group,
    accepted: u64,
}

/// The time that killed handlers have to unwind.
const UNWINDING: Duration = Duration::from_secs(2);

/// The number of connections that are accepted in a row before their handlers run.
const BURST: u64 = 64;

impl<L: Accept, F: Fn(L::Stream, L::Address) -> R + 'static, R: 'static> Server<'_, L, F> {
    fn run(mut self, stop: &StopServe) -> Result<Served, ServeError> {
        let end = {
            let stopped = Watch::new(self.called_at, stop, StopServe::wait_or_over);
            stopped.guard(|| self.accept_all(stop))?.unwrap_or(Ok(ServeEnd::Stopped))?
        };
        let (killed, left) = self.drain(stop)?;
        Ok(Served { end, accepted: self.accepted, killed, left })
    }

    fn accept_all(&mut self, stop: &StopServe) -> Result<ServeEnd, ServeError> {
        let mut pauses = Pauses::begin();
        while !stop.is_stopped() {
            let mut admission = Some(self.pool.admit()?);
            // A permit that was granted is kept, even if the stop came before this green thread ran again.
            if stop.is_stopped() {
                break;
            }
            // A permit is held while there are connections, but not during the wait for the next one.
            let accepted = self.listener.accept_if(|| admission.take().or_else(|| self.pool.try_admit()));
            match accepted {
                Ok(Some((stream, address, admission))) => {
                    pauses = Pauses::begin();
                    self.accepted += 1;
                    self.handle(stream, address, admission);
                    if self.accepted.is_multiple_of(BURST) {
                        hub_core::try_sleep(Duration::ZERO)?;
                    }
                }
                Ok(None) => {}
                Err(_) if self.listener.is_closed() => return Ok(ServeEnd::Closed),
                Err(error) => match Failure::of(&error) {
                    Some(failure) => {
                        drop(admission);
                        pauses.next(self.listener, failure, error).map_err(ServeError::from_accept_error)?;
                    }
                    None => return Err(ServeError::from_accept_error(error)),
                },
            }
        }
        Ok(ServeEnd::Stopped)
    }

    fn handle(&self, stream: L::Stream, address: L::Address, admission: Admission) {
        let (handler, name) = (Rc::clone(&self.handler), L::peer_name(&address));
        self.handlers.add(&admission.spawn(self.called_at, name.as_deref(), move || handler(stream, address)));
    }

    /// Waits for the handlers, and kills the late ones. Returns how many were killed, and how many are left.
    fn drain(&self, stop: &StopServe) -> Result<(usize, usize), ServeError> {
        // Only handlers are members of the group, and the caller is none.
        let failed = |error| match error {
            GreenError::Loop(error) => ServeError::from(error),
            error => unreachable!("a server waits for its handlers: {error}"),
        };
        let late = Watch::new(self.called_at, stop, StopServe::wait_for_deadline);
        if let Some(waited) = late.guard(|| self.handlers.wait_all())? {
            return waited.map(|()| (0, 0)).map_err(failed);
        }
        let killed = self.handlers.len();
        let left = self.handlers.kill_all_timeout(UNWINDING).map_err(failed)?;
        Ok((killed, left))
    }
}

/// A green thread that waits for a stop or a deadline until this is dropped.
struct Watch<'a> {
    stop: &'a StopServe,
    over: Rc<Cell<bool>>,
    green: GreenThread<()>,
}

impl<'a> Watch<'a> {
    fn new(called_at: &'static Location<'static>, stop: &'a StopServe, wait: fn(&StopServe, &Cell<bool>)) -> Watch<'a> {
        let over = Rc::new(Cell::new(false));
        let (own, seen) = (stop.clone(), Rc::clone(&over));
        let green = spawn_named_at(called_at, Some("server: stop"), move || wait(&own, &seen));
        Watch { stop, over, green }
    }

    /// Runs `f`. Returns `None` if the watched event comes first.
    fn guard<R>(&self, mut f: impl FnMut() -> R) -> Result<Option<R>, LoopError> {
        match self.green.with_link(&mut f) {
            Ok(value) => Ok(Some(value)),
            Err(linked) if linked.is_unsupported() => Ok(Some(f())),
            Err(linked) => match linked.error() {
                None => Ok(None),
                // For example, the green thread had no stack.
                Some(GreenError::Loop(error)) => Err(error.clone()),
                Some(_) => Err(LoopErrorKind::Aborted.into()),
            },
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.green.cancel() {
            // The watcher ends by itself: this may be dropped while unwinding, and without unwinding nothing could kill
            // it.
            self.over.set(true);
            self.stop.wake_watchers();
        }
    }
}

/// The growing pauses between attempts to accept.
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

    /// Reports the first failure in a row, and pauses. Switches.
    ///
    /// # Errors
    ///
    /// Returns `error` where nothing may switch and the panicking grace is used up. Returns the error of the main loop
    /// if the loop refuses or ends the pause.
    pub(crate) fn next<L: Accept>(&mut self, listener: &L, failure: Failure, error: io::Error) -> io::Result<()> {
        if self.wait.is_over() {
            return Err(error);
        }
        self.failures += 1;
        if self.failures == 1 {
            let longest = Pauses::LONGEST;
            hub_core::hub::warn(format!(
                "{listener:?} cannot accept connections: {error}; tries again, with pauses of up to {longest:?}{}",
                remedy(&error)
            ));
        }
        // Each failure has removed a connection from the backlog, so the next attempt follows at once. Too many
        // failures in a row have another cause.
        if failure == Failure::Connection && self.failures <= BURST {
            return hub_core::try_sleep(Duration::ZERO).map_err(io::Error::from);
        }
        let pause = self.last.map_or(Pauses::FIRST, |last| (last * 2).min(Pauses::LONGEST));
        self.last = Some(pause);
        hub_core::try_sleep(pause).map_err(io::Error::from)
    }
}

/// Returns what helps against a failure to accept, if that is known.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(code) if code == Errno::MFILE.raw_os_error() => {
            "; raise the limit of open files (`ulimit -n`), or give the pool fewer places"
        }
        Some(code) if code == Errno::NFILE.raw_os_error() => "; raise the system's limit of open files (`fs.file-max`)",
        _ => "",
    }
}

/// A failure to accept that ends no server.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// One connection is lost: the network, a firewall or the peer ended it before it was accepted. Linux's accept(2)
    /// returns the pending error of the new socket.
    Connection,
    /// A resource is lacking for now.
    Lack,
}

impl Failure {
    /// Classifies an error. Returns `None` if the listener cannot accept any more.
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
        // A lack inside the hub passes, too.
        let refused = match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(TrampolineError::Register { error, .. }) => error,
            Some(TrampolineError::TimedOut { .. }) => return Some(Failure::Connection),
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
