//! Servers, which run a handler in a green thread for each connection.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hub_core::future::try_block_on;
use hub_core::hub::warn;
use hub_core::{GreenError, GreenletId, current_id, sleep};
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::Listener;
use crate::transport::{GreenTransport, wait};

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
    /// Notified when the last one has ended.
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
        let running = &*self.0;
        if running.ids.borrow().contains(&current_id()) {
            return Err(GreenError::Deadlock);
        }
        try_block_on(async {
            loop {
                let all_ended = running.all_ended.notified();
                if running.ids.borrow().is_empty() {
                    return;
                }
                all_ended.await;
            }
        })?;
        Ok(())
    }

    /// Runs `handler` in a green thread of the set. Never switches.
    fn spawn(&self, handler: impl FnOnce() + 'static) {
        let green = hub_core::spawn(handler);
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

/// Accepts connections, and runs a handler in a green thread of `handlers` for each. Switches.
///
/// It ends by an error, or by a kill or a timeout of the caller. The handlers go on then. The result of a handler is
/// dropped. A panic is reported. If the system lacks resources such as descriptors, it tries again with growing pauses.
/// Eventlet's `SimpleSpawnFactory`, from its years on Twisted.
///
/// # Errors
///
/// Returns the error with which the listener can accept no more.
#[doc(alias = "SimpleSpawnFactory")]
pub fn serve<R>(
    listener: &Listener,
    handlers: &Handlers,
    handler: impl Fn(GreenTransport<TcpStream>, SocketAddr) -> R + 'static,
) -> io::Result<()> {
    let handler = Rc::new(handler);
    accept_all(listener, |stream, peer| {
        let handler = Rc::clone(&handler);
        handlers.spawn(move || drop(handler(GreenTransport::new(stream), peer)));
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
    let hooks = Rc::new((establish, handler, failed));
    accept_all(listener, |stream, peer| {
        let hooks = Rc::clone(&hooks);
        handlers.spawn(move || {
            let (establish, handler, failed) = &*hooks;
            match wait(None, establish(stream)).and_then(|established| established) {
                Ok(stream) => drop(handler(GreenTransport::new(stream), peer)),
                Err(error) => failed(error, peer),
            }
        });
    })
}

fn accept_all(listener: &Listener, mut begin: impl FnMut(TcpStream, SocketAddr)) -> io::Result<()> {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept_stream() {
            Ok((stream, peer)) => {
                begin(stream, peer);
                pause = FIRST_PAUSE;
            }
            Err(error) if !may_pass(&error) => return Err(error),
            Err(error) => {
                if pause == FIRST_PAUSE {
                    warn(format!("{listener:?} cannot accept connections: {error}; tries again after a pause"));
                }
                sleep(pause);
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }
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
