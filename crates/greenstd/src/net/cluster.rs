//! A server on several OS threads, each with a hub and a listener of its own.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::panic::Location;
use std::sync::Arc;
use std::thread;

use super::addr::each_address;
use super::serve::serve_at;
use super::{ListenOptions, ServeError, Served, StopServe, TcpListener, TcpStream, ToSocketAddrs};
use crate::greenpool::GreenPool;
use crate::sync::mpsc;
use crate::thread::os;

/// How a server runs on several OS threads: each has a hub, a pool of green threads and a listener of its own at one
/// address, over which the system spreads the connections (`SO_REUSEPORT`). All call one handler. A green thread stays on
/// the OS thread that has accepted its connection.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::net::{Cluster, TcpStream};
/// use std::io::{Read, Write};
/// # let cluster = Cluster::new(2).setup(|_| Ok(doctest::run(|| ())));
/// # let _ = stringify! {
/// let cluster = Cluster::new(2);
/// # };
/// let server = cluster.serve("127.0.0.1:0", |mut stream, _peer| stream.write_all(b"hello"))?;
/// let mut greeting = String::new();
/// TcpStream::connect(server.local_addr())?.read_to_string(&mut greeting)?;
/// assert_eq!(greeting, "hello");
/// server.stop().stop();
/// let accepted: u64 = server.join()?.into_iter().map(|thread| thread.unwrap().accepted).sum();
/// assert_eq!(accepted, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Cluster {
    threads: usize,
    connections: usize,
    options: ListenOptions,
    setup: Arc<Setup>,
}

type Setup = dyn Fn(usize) -> io::Result<()> + Send + Sync;

impl Cluster {
    /// With so many OS threads; 0 is one for each processor that the process may use. Each handles up to 1,000
    /// connections at a time, as Eventlet's servers do.
    #[must_use]
    pub fn new(threads: usize) -> Cluster {
        let setup = Arc::new(|_| Ok(()));
        Cluster { threads, connections: 1000, options: ListenOptions::new(), setup }
    }

    /// How many connections each OS thread handles at a time; the others wait.
    #[must_use]
    pub fn connections(self, each: usize) -> Cluster {
        Cluster { connections: each, ..self }
    }

    /// How the listeners listen. Whether they share the address is not asked.
    #[must_use]
    pub fn listen_options(self, options: ListenOptions) -> Cluster {
        Cluster { options, ..self }
    }

    /// What each OS thread does before it serves, with its number from 0: choose its hub, for instance.
    #[must_use]
    pub fn setup(self, setup: impl Fn(usize) -> io::Result<()> + Send + Sync + 'static) -> Cluster {
        Cluster { setup: Arc::new(setup), ..self }
    }

    /// Listens at an address and starts the OS threads, which call `handler` with each connection. Returns when all of
    /// them are ready. Switches.
    ///
    /// A handler that fails or panics ends no other handler, as with [`serve_until`](super::serve_until). An OS thread that
    /// fails as a whole is [reported](hub_core::set_report_stream), and the others get its connections.
    ///
    /// # Errors
    ///
    /// If the address cannot be had, or shared; if an OS thread cannot be started, or its setup fails. Nothing runs then.
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
        let options = self.options.reuse_port(true);
        let first = each_address(address, |address| options.listen_at(&address))?;
        let address = first.local_addr()?;
        let others = (1..count).map(|_| options.listen_at(&address));
        let listeners = std::iter::once(Ok(first)).chain(others).collect::<io::Result<Vec<_>>>()?;

        let called_at = Location::caller();
        let (handler, stop) = (Arc::new(handler), StopServe::new());
        let (ready, readiness) = mpsc::channel();
        let (running, ends) = mpsc::channel::<()>();
        let mut server = ClusterServer { address, stop, threads: Vec::with_capacity(count), ends };
        let mut started = Ok(());
        for (number, listener) in listeners.into_iter().enumerate() {
            let (setup, connections, stop) = (Arc::clone(&self.setup), self.connections, server.stop.clone());
            let (handler, ready, running) = (Arc::clone(&handler), ready.clone(), running.clone());
            let body = move || {
                // A thread without a hub could not serve.
                let hub = || hub_core::try_get_hub().map(drop).map_err(io::Error::from);
                let prepared = setup(number).and_then(|()| hub());
                let failed = prepared.is_err();
                // Nobody listens if another has failed already.
                let _ = ready.send(prepared);
                drop(ready);
                (!failed).then(|| serve_one(called_at, number, &stop, &listener, connections, handler))
            };
            // Told when its green threads have ended, so that a join waits for them too.
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
        // What is left of them is the threads'.
        drop((ready, running));
        // One whose setup panics says nothing.
        let ready = started.and_then(|()| readiness.iter().try_fold(0, |ready, one| one.map(|()| ready + 1)));
        match ready {
            Ok(ready) if ready == count => Ok(server),
            Ok(_) => server.give_up(io::Error::other("the setup of a thread of the server panicked")),
            Err(error) => server.give_up(error),
        }
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
        hub_core::warn(format!("thread {number} of a server ends, the others go on: {error}"));
    }
    served
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("threads", &self.threads)
            .field("connections", &self.connections)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A server of a [`Cluster`]. It runs on when this is dropped.
#[derive(Debug)]
pub struct ClusterServer {
    address: SocketAddr,
    stop: StopServe,
    threads: Vec<thread::JoinHandle<Ended>>,
    /// Gets nothing: it ends when all of them have.
    ends: mpsc::Receiver<()>,
}

/// How a thread has ended; `None` if it was not set up.
type Ended = Option<Result<Served, ServeError>>;

/// How an OS thread of a server has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThreadError {
    /// It could not serve any more.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// It panicked outside of a handler, with this payload.
    #[error("a thread of the server panicked")]
    Panicked(Box<dyn Any + Send>),
}

impl ClusterServer {
    /// Where it listens, which tells the port if any was to be taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// How many OS threads it has.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// What stops it, from any thread.
    #[must_use]
    pub fn stop(&self) -> StopServe {
        self.stop.clone()
    }

    /// Waits for the end of all OS threads: how each of them has ended. Switches.
    ///
    /// # Errors
    ///
    /// If the caller cannot wait.
    pub fn join(self) -> io::Result<Vec<Result<Served, ThreadError>>> {
        let ended = self.join_all()?.into_iter().filter_map(|thread| match thread {
            Ok(ended) => ended.map(|served| served.map_err(ThreadError::Serve)),
            Err(payload) => Some(Err(ThreadError::Panicked(payload))),
        });
        Ok(ended.collect())
    }

    /// Some threads could not be started.
    fn give_up(self, error: io::Error) -> io::Result<ClusterServer> {
        self.stop.stop();
        self.join_all()?;
        Err(error)
    }

    fn join_all(self) -> io::Result<Vec<thread::Result<Ended>>> {
        // The last thing that they do.
        let Err(mpsc::RecvError) = self.ends.recv() else { unreachable!("nobody sends") };
        let threads = self.threads;
        let join = move || threads.into_iter().map(thread::JoinHandle::join).collect();
        // Without a hub there are no green threads to keep waiting.
        if hub_core::try_get_hub().is_ok() { Ok(hub_core::offload(join)?) } else { Ok(join()) }
    }
}
