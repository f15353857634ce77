//! A server on several OS threads, each with its own hub and listener.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::panic::Location;
use std::sync::Arc;
use std::thread;

use hub_core::Panic;

use super::addr::each_address;
use super::serve::serve_at;
use super::{ListenOptions, ServeError, Served, StopServe, TcpListener, TcpStream, ToSocketAddrs};
use crate::greenpool::GreenPool;
use crate::sync::oneshot::{self, RecvError};
use crate::thread::os;

/// The settings of a server on several OS threads.
///
/// Each OS thread has its own hub, pool of green threads and listener. All listeners share one address, and the system
/// spreads the connections over them (`SO_REUSEPORT`). All OS threads call one handler. A green thread stays on the OS
/// thread that accepted its connection.
///
/// ```
/// use greenhub::net::{Cluster, TcpStream};
/// use std::io::{Read, Write};
/// let cluster = Cluster::new(2);
/// let server = cluster.serve("127.0.0.1:0", |mut stream, _peer| stream.write_all(b"hello"))?;
/// let mut greeting = String::new();
/// TcpStream::connect(server.local_addr())?.read_to_string(&mut greeting)?;
/// assert_eq!(greeting, "hello");
/// server.stop().stop();
/// let accepted: u64 = server.join()?.into_iter().map(|thread| thread.unwrap().accepted).sum();
/// assert_eq!(accepted, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing is served before `serve`"]
pub struct Cluster {
    threads: usize,
    connections: usize,
    options: ListenOptions,
    /// `None` for one of its own for each server.
    stop: Option<StopServe>,
    setup: Arc<Setup>,
}

type Setup = dyn Fn(usize) -> io::Result<()> + Send + Sync;

impl Cluster {
    /// Creates a cluster of that many OS threads.
    ///
    /// Each handles up to 1,000 connections at a time, as Eventlet's servers do. With 0 there is one OS thread for each
    /// processor available to the process.
    pub fn new(threads: usize) -> Cluster {
        let setup = Arc::new(|_| Ok(()));
        Cluster { threads, connections: 1000, options: ListenOptions::new(), stop: None, setup }
    }

    /// Limits the connections that each OS thread handles at a time. Further ones wait.
    pub fn connections(self, each: usize) -> Cluster {
        Cluster { connections: each, ..self }
    }

    /// Sets the options of the listeners.
    ///
    /// They share the address with each other in any case. With [`reuse_port`](ListenOptions::reuse_port) they also
    /// share it with other listeners that allow it, such as those of a process that is to be replaced. Without it, an
    /// address with a listener is an error: a second server that is started by mistake would take half of the
    /// connections.
    pub fn listen_options(self, options: ListenOptions) -> Cluster {
        Cluster { options, ..self }
    }

    /// Sets the handle that stops the server, for example one that [signals](StopServe::on_signals) stop.
    ///
    /// [`ClusterServer::stop`] returns a clone of it. Without this call, each server has a handle of its own. A start
    /// that fails after it has started an OS thread stops the handle.
    ///
    /// ```
    /// use greenhub::net::{Cluster, StopServe};
    /// use greenhub::signal::{SIGINT, SIGTERM};
    /// use std::io::Write;
    /// use std::time::Duration;
    /// let stop = StopServe::on_signals([SIGINT, SIGTERM], Duration::from_secs(10))?;
    /// let cluster = Cluster::new(2).stop_with(stop);
    /// let server = cluster.serve("127.0.0.1:0", |mut stream, _peer| stream.write_all(b"hello"))?;
    /// # signal_hook::low_level::raise(SIGTERM)?;
    /// assert_eq!(server.join()?.len(), 2); // `kill` was called now
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stop_with(self, stop: StopServe) -> Cluster {
        Cluster { stop: Some(stop), ..self }
    }

    /// Sets the closure that each OS thread runs first, for example to choose its hub.
    ///
    /// Its argument is the number of the OS thread, from 0.
    pub fn setup(self, setup: impl Fn(usize) -> io::Result<()> + Send + Sync + 'static) -> Cluster {
        Cluster { setup: Arc::new(setup), ..self }
    }

    /// Listens at an address and starts the OS threads. Switches.
    ///
    /// The OS threads call `handler` with each connection. The call returns when all of them are ready. A handler that
    /// fails or panics ends no other handler, as with [`serve_until`](super::serve_until). An OS thread that fails as a
    /// whole is [reported](hub_core::set_report_stream), and the others get its connections.
    ///
    /// # Errors
    ///
    /// Returns an error if the address cannot be bound or has a listener already, if an OS thread cannot be started, if
    /// its setup fails, or if its hub cannot be built. Nothing runs then. Returns an error if the caller cannot wait,
    /// and if the main loop ends the wait of the main greenlet: after a signal of
    /// [`interrupt_on`](hub_core::interrupt_on), for example.
    /// [`LoopError::from_io_error`](hub_core::LoopError::from_io_error) returns the loop's error. The OS threads are
    /// stopped then, and may end after the call.
    #[track_caller]
    pub fn serve<R: 'static>(
        &self,
        address: impl ToSocketAddrs,
        handler: impl Fn(TcpStream, SocketAddr) -> R + Send + Sync + 'static,
    ) -> io::Result<ClusterServer> {
        let count = match self.threads {
            0 => thread::available_parallelism().map_or(1, NonZeroUsize::get),
            threads => threads,
        };
        let address = each_address(address, |address| self.options.address_to_share(address))?;
        let options = self.options.reuse_port(true);
        let listeners = (0..count).map(|_| options.listen_at(&address)).collect::<io::Result<Vec<_>>>()?;

        let called_at = Location::caller();
        let (handler, stop) = (Arc::new(handler), self.stop.clone().unwrap_or_default());
        // The OS threads share the sender, which the last one of them drops.
        let (running, ended) = oneshot::channel();
        let running = Arc::new(running);
        let mut server = ClusterServer { address, stop, threads: Vec::with_capacity(count), ended };
        let mut readiness = Vec::with_capacity(count);
        let mut started = Ok(());
        for (number, listener) in listeners.into_iter().enumerate() {
            let (setup, connections, stop) = (Arc::clone(&self.setup), self.connections, server.stop.clone());
            let (handler, running) = (Arc::clone(&handler), Arc::clone(&running));
            let (ready, is_ready) = oneshot::channel();
            readiness.push(is_ready);
            let body = move || {
                // An OS thread without a hub could not serve.
                let hub = || hub_core::try_get_hub().map(drop).map_err(io::Error::from);
                let prepared = setup(number).and_then(|()| hub());
                let failed = prepared.is_err();
                // The receiver is gone if another OS thread has failed already.
                let _ = ready.send(prepared);
                (!failed).then(|| serve_one(called_at, number, &stop, &listener, connections, handler))
            };
            // `running` is dropped after the green threads have ended, so that a join waits for them, too.
            let thread = move || {
                let _running = running;
                os::run_and_shutdown(Some(os::SHUTDOWN_LIMIT), body)
            };
            started = thread::Builder::new()
                .name(format!("serve-{number}"))
                .spawn(thread)
                .map(|thread| server.threads.push(thread));
            if started.is_err() {
                break;
            }
        }
        drop(running);
        let ready = started.and_then(|()| readiness.into_iter().try_for_each(|ready| wait_for_setup(&ready)));
        match ready {
            Ok(()) => Ok(server),
            Err(error) => {
                server.stop.stop();
                // If this wait ends early as well, the first error is the one that matters.
                let _ = server.join_all();
                Err(error)
            }
        }
    }
}

/// Waits until an OS thread is ready, and returns the error of its setup.
fn wait_for_setup(ready: &oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    match ready.recv() {
        Ok(prepared) => prepared,
        // A setup that panics sends nothing.
        Err(RecvError::Closed) => Err(io::Error::other("the setup of an OS thread of the server panicked")),
        Err(RecvError::Loop(error)) => Err(error.into()),
    }
}

fn serve_one<R: 'static>(
    called_at: &'static Location<'static>,
    number: usize,
    stop: &StopServe,
    listener: &TcpListener,
    connections: usize,
    handler: Arc<impl Fn(TcpStream, SocketAddr) -> R + 'static>,
) -> Result<Served, ServeError> {
    let pool = GreenPool::new(connections);
    let served = serve_at(called_at, stop, listener, &pool, move |stream, peer| handler(stream, peer));
    if let Err(error) = &served {
        hub_core::hub::warn(format!("OS thread {number} of a server ends, the others go on: {error}"));
    }
    served
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("threads", &self.threads)
            .field("connections", &self.connections)
            .field("options", &self.options)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// A running server of a [`Cluster`]. Dropping it does not stop the server.
#[derive(Debug)]
pub struct ClusterServer {
    address: SocketAddr,
    stop: StopServe,
    threads: Vec<thread::JoinHandle<ThreadEnd>>,
    /// Receives nothing: it is closed when all OS threads have ended.
    ended: oneshot::Receiver<()>,
}

/// The end of an OS thread, or `None` if its setup failed.
type ThreadEnd = Option<Result<Served, ServeError>>;

impl ClusterServer {
    /// Returns the address at which the server listens.
    ///
    /// The port is the one that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of OS threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Returns a handle that stops the server from any OS thread.
    #[must_use]
    pub fn stop(&self) -> StopServe {
        self.stop.clone()
    }

    /// Waits until all OS threads have ended, and returns the result of each. Switches.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller cannot wait, and if the main loop ends the wait of the main greenlet: after a
    /// signal of [`interrupt_on`](hub_core::interrupt_on), for example.
    /// [`LoopError::from_io_error`](hub_core::LoopError::from_io_error) returns the loop's error. The OS threads run on
    /// then, and a handle that [`stop`](ClusterServer::stop) has returned before still stops them.
    pub fn join(self) -> io::Result<Vec<Result<Served, ServeError>>> {
        let ended = self.join_all()?.into_iter().filter_map(|thread| match thread {
            Ok(ended) => ended,
            Err(payload) => Some(Err(ServeError::Panic(Panic::new(payload)))),
        });
        Ok(ended.collect())
    }

    fn join_all(self) -> io::Result<Vec<thread::Result<ThreadEnd>>> {
        // Dropping the sender is the last action of each OS thread.
        match self.ended.recv() {
            Err(RecvError::Closed) => {}
            Err(RecvError::Loop(error)) => return Err(error.into()),
            Ok(()) => unreachable!("no value is ever sent"),
        }
        let threads = self.threads;
        let join = move || threads.into_iter().map(thread::JoinHandle::join).collect();
        // Without a hub there are no green threads that a blocking join would delay.
        if hub_core::try_get_hub().is_ok() { Ok(hub_core::internal::offload(join)?) } else { Ok(join()) }
    }
}
