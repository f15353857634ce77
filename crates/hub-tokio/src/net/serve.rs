//! Servers, which run a handler in a green thread for each connection.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hub_core::future::{sleep, try_block_on};
use hub_core::hub::warn;
use hub_core::internal::{KillProgress, kill_progress, request_exit, spawn_named_at};
use hub_core::{GreenError, GreenThread, GreenletId, LoopError, current_id};
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::{Listener, StopServe};
use crate::transport::{GreenTransport, unless, wait};

/// The first pause before another attempt to accept. Each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The running handlers of servers.
///
/// Handlers that have ended are removed. A clone is the same set, so a program keeps one to wait for the handlers.
/// Eventlet's `SpawnFactory`, from its years on Twisted.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use hub_tokio::net::{self, Handlers};
/// use std::io::Read;
/// greenhub::use_hub("tokio")?;
/// let listener = net::listen("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let handlers = Handlers::new();
/// let running = handlers.clone();
/// let server = greenhub::spawn(move || {
///     net::serve(&listener, &running, |mut transport, _| transport.read_to_end(&mut Vec::new()))
/// });
/// let client = net::connect(address)?;
/// while handlers.is_empty() {
///     greenhub::sleep(std::time::Duration::from_millis(1));
/// }
/// server.kill(); // accepts no more; its handlers go on
/// assert_eq!(handlers.len(), 1);
/// drop(client);
/// handlers.wait_all()?;
/// assert!(handlers.is_empty());
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
#[doc(alias = "SpawnFactory")]
pub struct Handlers(Rc<Running>);

#[derive(Default)]
struct Running {
    ids: RefCell<Vec<GreenletId>>,
    /// Notified when the last handler has ended.
    all_ended: Notify,
}

impl Handlers {
    /// Creates an empty set.
    #[must_use]
    pub fn new() -> Handlers {
        Handlers::default()
    }

    /// Returns the number of handlers that run. Does not switch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.ids.borrow().len()
    }

    /// Returns whether no handler runs. Does not switch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the green threads of the handlers that run. Does not switch.
    #[must_use]
    pub fn ids(&self) -> Vec<GreenletId> {
        self.0.ids.borrow().clone()
    }

    /// Waits until no handler runs. Switches if one does.
    ///
    /// A handler that panics has ended, too. Handlers that begin meanwhile are waited for.
    ///
    /// # Errors
    ///
    /// Returns [`GreenError::Deadlock`] in a handler of the set, and the error of the main loop where nothing may wait.
    pub fn wait_all(&self) -> Result<(), GreenError> {
        if self.0.ids.borrow().contains(&current_id()) {
            return Err(GreenError::Deadlock);
        }
        try_block_on(self.all_ended())?;
        Ok(())
    }

    /// Completes when no handler runs.
    async fn all_ended(&self) {
        loop {
            let all_ended = self.0.all_ended.notified();
            if self.is_empty() {
                return;
            }
            all_ended.await;
        }
    }

    /// Kills the handlers, and waits until all have ended, or those that are left refuse the kill. Switches.
    ///
    /// Waits for at most `limit`. Returns the number of killed handlers, and of those that are left.
    fn kill_all_within(&self, limit: Duration) -> Result<(usize, usize), LoopError> {
        let killed = self.ids().into_iter().filter(|&id| request_exit(id)).count();
        let begun = Instant::now();
        loop {
            let progress: Vec<_> = self.ids().into_iter().map(kill_progress).collect();
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() || progress.iter().all(|progress| *progress == KillProgress::Refused) {
                return Ok((killed, progress.len()));
            }
            // The outcome of a kill that is striking is known after a bounded number of turns.
            if progress.contains(&KillProgress::Striking) {
                hub_core::try_sleep(Duration::ZERO)?;
            } else {
                try_block_on(unless(sleep(left), self.all_ended()))?;
            }
        }
    }

    /// Adds a green thread until it ends. Does not switch.
    fn add<T: 'static>(&self, green: &GreenThread<T>) {
        let Some(id) = green.id() else { return };
        self.0.ids.borrow_mut().push(id);
        let running = Rc::clone(&self.0);
        green.link(move |_| {
            running.ids.borrow_mut().retain(|other| *other != id);
            if running.ids.borrow().is_empty() {
                running.all_ended.notify_waiters();
            }
        });
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handlers").field(&self.0.ids.borrow()).finish()
    }
}

/// The result of a server over Tokio's sockets that was stopped, from [`serve_until`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Served {
    /// The number of accepted connections.
    pub accepted: u64,
    /// The number of handlers that were killed at the deadline.
    pub killed: usize,
    /// The number of killed handlers that still ran when the server returned.
    ///
    /// They [refused](hub_core::KillOutcome::Refused) the kill, or were in a [`shield`](hub_core::shield()) or in a
    /// wait that must not be left early.
    pub left: usize,
}

/// Accepts connections, and handles each in a green thread of `handlers`. Switches.
///
/// The green thread has the peer's address as its name, and the caller's location as the place of its spawn.
///
/// It ends by an error, or by a kill or a timeout of the caller. The handlers go on then. The result of a handler is
/// dropped. A panic is reported. If the system lacks resources such as descriptors, it tries again with growing pauses.
/// Eventlet's `SimpleSpawnFactory`, from its years on Twisted. [`serve_until`] ends gracefully.
///
/// # Errors
///
/// Returns the error with which the listener can accept no more.
#[doc(alias = "SimpleSpawnFactory")]
#[track_caller]
pub fn serve<R>(
    listener: &Listener,
    handlers: &Handlers,
    handler: impl Fn(GreenTransport<TcpStream>, SocketAddr) -> R + 'static,
) -> io::Result<()> {
    serve_until(&StopServe::new(), listener, handlers, handler).map(drop)
}

/// Like [`serve`], until `stop` is stopped. Switches.
///
/// A stopped server accepts no more, and waits for the handlers of its own connections: without a limit, or until a
/// [deadline](StopServe::stop_within), at which it kills the remaining ones. Then it returns when all have ended, or
/// only handlers that refuse the kill are left, and at the latest two seconds after the deadline. The listener stays
/// open, and can be served again.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use hub_tokio::net::{self, Handlers, StopServe};
/// use std::io::Read;
/// use std::time::Duration;
/// greenhub::use_hub("tokio")?;
/// let listener = net::listen("127.0.0.1:0")?;
/// let client = net::connect(listener.local_addr()?)?;
/// let stop = StopServe::new();
/// let last_orders = stop.clone();
/// let served = net::serve_until(&stop, &listener, &Handlers::new(), move |mut transport, _peer| {
///     last_orders.stop_within(Duration::from_millis(5));
///     transport.read(&mut [0]) // forever: the client says nothing
/// })?;
/// assert_eq!((served.accepted, served.killed, served.left), (1, 1, 0));
/// # drop(client);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns the error with which the listener can accept no more, and an error if the caller cannot wait. The handlers
/// go on then.
#[track_caller]
pub fn serve_until<R>(
    stop: &StopServe,
    listener: &Listener,
    handlers: &Handlers,
    handler: impl Fn(GreenTransport<TcpStream>, SocketAddr) -> R + 'static,
) -> io::Result<Served> {
    run(Location::caller(), stop, listener, handlers, move |stream, peer| {
        drop(handler(GreenTransport::new(stream), peer))
    })
}

/// Like [`serve`], for connections that begin with a handshake. Switches.
///
/// `establish` makes the stream of the transport, such as a TLS session, in the green thread of the connection. If it
/// fails, `failed` is called, and `handler` is not.
///
/// ```no_run
/// use hub_tokio::net::{self, Handlers};
/// use std::io::Write;
/// use std::time::Duration;
/// # async fn handshake(stream: tokio::net::TcpStream) -> std::io::Result<tokio::net::TcpStream> { Ok(stream) }
/// let listener = net::listen("127.0.0.1:8443")?;
/// net::serve_established(
///     &listener,
///     &Handlers::new(),
///     |stream| async { tokio::time::timeout(Duration::from_secs(5), handshake(stream)).await? },
///     |mut transport, _peer| transport.write_all(b"hello"),
///     |error, peer| eprintln!("{peer}: {error}"),
/// )?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Returns the error with which the listener can accept no more.
#[track_caller]
pub fn serve_established<T, F, R>(
    listener: &Listener,
    handlers: &Handlers,
    establish: impl Fn(TcpStream) -> F + 'static,
    handler: impl Fn(GreenTransport<T>, SocketAddr) -> R + 'static,
    failed: impl Fn(io::Error, SocketAddr) + 'static,
) -> io::Result<()>
where
    F: Future<Output = io::Result<T>>,
{
    serve_established_until(&StopServe::new(), listener, handlers, establish, handler, failed).map(drop)
}

/// Like [`serve_established`], until `stop` is stopped. Switches.
///
/// The end is that of [`serve_until`]. A handshake belongs to the handler of its connection.
///
/// # Errors
///
/// Returns the errors of [`serve_until`].
#[track_caller]
pub fn serve_established_until<T, F, R>(
    stop: &StopServe,
    listener: &Listener,
    handlers: &Handlers,
    establish: impl Fn(TcpStream) -> F + 'static,
    handler: impl Fn(GreenTransport<T>, SocketAddr) -> R + 'static,
    failed: impl Fn(io::Error, SocketAddr) + 'static,
) -> io::Result<Served>
where
    F: Future<Output = io::Result<T>>,
{
    run(Location::caller(), stop, listener, handlers, move |stream, peer| {
        match wait(None, establish(stream)).and_then(|established| established) {
            Ok(stream) => drop(handler(GreenTransport::new(stream), peer)),
            Err(error) => failed(error, peer),
        }
    })
}

/// The time that killed handlers have to unwind.
const UNWINDING: Duration = Duration::from_secs(2);

/// Runs a server: `handle` in a green thread for each connection.
fn run(
    called_at: &'static Location<'static>,
    stop: &StopServe,
    listener: &Listener,
    handlers: &Handlers,
    handle: impl Fn(TcpStream, SocketAddr) + 'static,
) -> io::Result<Served> {
    // The set of the caller may have handlers of other servers.
    let own = Handlers::new();
    let handle = Rc::new(handle);
    let accepted = accept_all(stop, listener, |stream, peer| {
        let handle = Rc::clone(&handle);
        let name = peer.to_string();
        let green = spawn_named_at(called_at, Some(&name), move || handle(stream, peer));
        handlers.add(&green);
        own.add(&green);
    })?;
    let in_time = try_block_on(unless(stop.passes_deadline(), own.all_ended()))?;
    let (killed, left) = if in_time.is_some() { (0, 0) } else { own.kill_all_within(UNWINDING)? };
    Ok(Served { accepted, killed, left })
}

/// Accepts connections until the stop. Returns their number.
fn accept_all(stop: &StopServe, listener: &Listener, mut begin: impl FnMut(TcpStream, SocketAddr)) -> io::Result<u64> {
    let (mut count, mut pause) = (0, FIRST_PAUSE);
    while !stop.is_stopped() {
        let accepted = wait(None, async { unless(stop.stopped(), listener.accept_stream()).await.transpose() })?;
        match accepted {
            Ok(Some((stream, peer))) => {
                begin(stream, peer);
                count += 1;
                pause = FIRST_PAUSE;
            }
            Ok(None) => {}
            Err(error) if !may_pass(&error) => return Err(error),
            Err(error) => {
                if pause == FIRST_PAUSE {
                    warn(format!("{listener:?} cannot accept connections: {error}; tries again after a pause"));
                }
                try_block_on(unless(stop.stopped(), sleep(pause)))?;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }
    Ok(count)
}

/// Returns whether later connections may be accepted: the error concerns one connection, or a lack of resources.
fn may_pass(error: &io::Error) -> bool {
    const PASSING: &[Errno] = &[
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::PROTO,
        Errno::PERM,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::TIMEDOUT,
    ];
    Errno::from_io_error(error).is_some_and(|error| PASSING.contains(&error))
}
