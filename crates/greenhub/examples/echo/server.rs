//! The server: one green thread per listening socket, one per connection.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use greenhub::net::{ServeError, Served, StopServe, TcpListener, TcpStream, serve_until};
use greenhub::{GreenPool, GreenThread};

use crate::{Failure, Run, add};

pub(crate) struct Server {
    addresses: Vec<SocketAddr>,
    servers: Vec<GreenThread<Result<Served, ServeError>>>,
    stop: StopServe,
    pool: GreenPool,
}

impl Server {
    pub(crate) fn start(run: &Rc<Run>, address: SocketAddr, listeners: usize) -> Result<Server, Failure> {
        let failed = |error: io::Error| Failure::Run(format!("cannot listen on {address}: {error}"));
        let (stop, pool) = (StopServe::new(), GreenPool::new(usize::MAX));
        let (mut addresses, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..listeners {
            let listener = TcpListener::bind(address).map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            let (run, stop, pool) = (Rc::clone(run), stop.clone(), pool.clone());
            servers.push(greenhub::spawn(move || {
                serve_until(&stop, &listener, &pool, move |stream, _| {
                    run.accepted.set(run.accepted.get() + 1);
                    if let Err(error) = echo(&stream, &run)
                        && !run.stopping.get()
                    {
                        run.failed("serving a connection", &error);
                    }
                })
            }));
        }
        Ok(Server { addresses, servers, stop, pool })
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the number of open connections.
    pub(crate) fn connections(&self) -> usize {
        self.pool.running()
    }

    /// Stops accepting, and ends the open connections.
    pub(crate) fn stop(self, run: &Run) {
        self.stop.stop_within(Duration::ZERO);
        for server in self.servers {
            match server.join() {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => run.failed("serving", &error),
                Err(error) => run.failed("serving", &error),
            }
        }
    }
}

/// Sends received bytes back until the client ends the connection.
fn echo(stream: &TcpStream, run: &Run) -> io::Result<()> {
    const SMALL: usize = 512;
    const LARGE: usize = 64 * 1024;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; SMALL];
    loop {
        let mut peer = stream;
        let length = match peer.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(_) if run.stopping.get() => return Ok(()),
            other => other?,
        };
        peer.write_all(&buffer[..length])?;
        add(&run.served, length as u64);
        // Grow the buffer only for long messages: there may be many connections with short ones.
        if length == buffer.len() && length < LARGE {
            buffer.resize(2 * length, 0);
        }
    }
}
