//! A connection of an agent.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ::ureq::config::Config;
use ::ureq::unversioned::transport::time::Duration as AnyDuration;
use ::ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, ShutdownHandle, Transport};
use ::ureq::{Error, Timeout};
use greenhub::net::TcpStream;
use socket2::SockRef;

/// A transport over a green socket, as [`GreenConnector`](super::GreenConnector) opens it.
pub struct GreenTransport {
    /// Shared with the agent, whose shutdown ends the connection on any OS thread.
    socket: Arc<Socket>,
    buffers: LazyBuffers,
}

/// A socket that the agent can shut down.
struct Socket(TcpStream);

impl ShutdownHandle for Socket {
    fn shutdown(&self) {
        // Fails if the connection has ended, which is the aim.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl GreenTransport {
    /// Creates a transport over an open connection, with buffers of the sizes in `config`. Does not switch.
    ///
    /// It serves connectors that open connections in another way, such as a tunnel.
    #[must_use]
    pub fn new(stream: TcpStream, config: &Config) -> GreenTransport {
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        GreenTransport { socket: Arc::new(Socket(stream)), buffers }
    }

    /// Returns the handle by which the agent ends the connection.
    pub(super) fn shutdown_handle(&self) -> Weak<dyn ShutdownHandle> {
        Arc::downgrade(&self.socket) as Weak<dyn ShutdownHandle>
    }
}

impl Transport for GreenTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let limit = Limit::new(timeout.for_write())?;
        let mut stream = &self.socket.0;
        let mut output = &self.buffers.output()[..amount];
        while !output.is_empty() {
            stream.set_write_timeout(limit.left()?)?;
            match limit.apply(stream.write(output))? {
                Some(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Some(written) => output = &output[written..],
                None => {}
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let limit = Limit::new(timeout.for_read())?;
        let mut stream = &self.socket.0;
        let amount = loop {
            stream.set_read_timeout(limit.left()?)?;
            if let Some(amount) = limit.apply(stream.read(self.buffers.input_append_buf()))? {
                break amount;
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // The agent calls this under the lock of its pool. A green read may switch, and another green thread would
        // then block the OS thread at that lock. The socket itself never blocks.
        let peeked = SockRef::from(&self.socket.0).peek(&mut [std::mem::MaybeUninit::uninit()]);
        // Neither the end of the connection nor unexpected data leaves it usable.
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl fmt::Debug for GreenTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GreenTransport").field(&self.socket.0).finish()
    }
}

/// The time limit of one operation.
pub(super) struct Limit {
    begun: Instant,
    time: Option<Duration>,
    reason: Timeout,
}

impl Limit {
    /// Starts the time limit.
    ///
    /// # Errors
    ///
    /// Returns an error if no time is left.
    pub(super) fn new(timeout: NextTimeout) -> Result<Limit, Error> {
        let time = match timeout.after {
            AnyDuration::Exact(time) => Some(time),
            AnyDuration::NotHappening => None,
        };
        let limit = Limit { begun: Instant::now(), time, reason: timeout.reason };
        limit.left().map(|_| limit)
    }

    /// Returns the time that is left, `None` if there is no limit.
    ///
    /// # Errors
    ///
    /// Returns an error if no time is left.
    pub(super) fn left(&self) -> Result<Option<Duration>, Error> {
        let left = self.time.map(|time| time.saturating_sub(self.begun.elapsed()));
        if left.is_some_and(|left| left.is_zero()) { Err(Error::Timeout(self.reason)) } else { Ok(left) }
    }

    /// Converts the result of a read or write. Returns `None` if it must be repeated.
    fn apply(&self, result: io::Result<usize>) -> Result<Option<usize>, Error> {
        match result {
            Ok(amount) => Ok(Some(amount)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Error::Timeout(self.reason)),
            Err(error) => Err(error.into()),
        }
    }
}
