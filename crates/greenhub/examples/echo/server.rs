//! The server: one green thread per listening socket, one per connection.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use greenhub::GreenThread;
use greenhub::net::{TcpListener, TcpStream};

use crate::{Failure, Run, add};

pub(crate) struct Server {
    listeners: Vec<Rc<TcpListener>>,
    addresses: Vec<SocketAddr>,
    acceptors: Vec<GreenThread<()>>,
    /// How many connections are open.
    open: Rc<Cell<usize>>,
}

impl Server {
    pub(crate) fn start(run: &Rc<Run>, address: SocketAddr, listeners: usize) -> Result<Server, Failure> {
        let failed = |error: io::Error| Failure::Run(format!("cannot listen on {address}: {error}"));
        let mut server =
            Server { listeners: Vec::new(), addresses: Vec::new(), acceptors: Vec::new(), open: Rc::default() };
        for _ in 0..listeners {
            let listener = Rc::new(TcpListener::bind(address).map_err(failed)?);
            server.addresses.push(listener.local_addr().map_err(failed)?);
            server.listeners.push(Rc::clone(&listener));
            let (run, open) = (Rc::clone(run), Rc::clone(&server.open));
            server.acceptors.push(greenhub::spawn(move || accept(&listener, &run, &open)));
        }
        Ok(server)
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.open.get()
    }

    /// Takes no more connections and ends those that are left.
    pub(crate) fn stop(self, run: &Run) {
        for listener in &self.listeners {
            listener.close();
        }
        for acceptor in self.acceptors {
            if let Err(error) = acceptor.join() {
                run.failed("accepting", &error);
            }
        }
    }
}

/// Accepts until the listener is closed; then waits for the connections.
fn accept(listener: &TcpListener, run: &Rc<Run>, open: &Rc<Cell<usize>>) {
    let mut serving: Vec<(Weak<TcpStream>, GreenThread<()>)> = Vec::new();
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => Rc::new(stream),
            Err(_) if run.stopping.get() => break,
            Err(error) => {
                run.failed("accepting a connection", &error);
                // Out of descriptors, for instance: the next try may be luckier, not the next thousand.
                greenhub::sleep(std::time::Duration::from_millis(10));
                continue;
            }
        };
        run.accepted.set(run.accepted.get() + 1);
        let closer = Rc::downgrade(&stream);
        let (of, open) = (Rc::clone(run), Rc::clone(open));
        let serve = greenhub::spawn(move || {
            open.set(open.get() + 1);
            if let Err(error) = echo(&stream, &of)
                && !of.stopping.get()
            {
                of.failed("serving a connection", &error);
            }
            open.set(open.get() - 1);
        });
        // A server that runs for long keeps no list of those that have ended.
        if serving.len() == serving.capacity() {
            for (_, ended) in serving.extract_if(.., |(_, serve)| serve.is_finished()) {
                join(run, ended);
            }
        }
        serving.push((closer, serve));
    }
    for (stream, serve) in serving {
        if let Some(stream) = stream.upgrade() {
            stream.close();
        }
        join(run, serve);
    }
}

/// One that panicked, or had no stack to begin on, is counted.
fn join(run: &Run, serve: GreenThread<()>) {
    if let Err(error) = serve.join() {
        run.failed("serving a connection", &error);
    }
}

/// Sends back what comes until the other side ends.
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
        // A connection with short messages, one of very many perhaps, keeps its small buffer.
        if length == buffer.len() && length < LARGE {
            buffer.resize(2 * length, 0);
        }
    }
}
