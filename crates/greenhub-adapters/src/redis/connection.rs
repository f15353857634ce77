//! A connection for commands.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use ::redis::{
    Cmd, ConnectionAddr, ConnectionLike, ErrorKind, IntoConnectionInfo, Parser, RedisConnectionInfo, RedisResult,
    Value, cmd, pipe,
};
use greenhub::net::{ConnectOptions, TcpStream};
use greenhub::os::unix::net::UnixStream;

use super::PubSub;
use crate::Stream;

/// A connection to a redis server. A request parks the calling green thread.
///
/// A request that is left early, by a timeout of a read or by an [exit](greenhub::greenthread::is_exit), does not spoil
/// the connection: the next request skips the late response. A write that is left early does, since the server may have
/// received a part of a command. [`is_open`](ConnectionLike::is_open) returns false then, and each further request
/// fails with [`NotConnected`](io::ErrorKind::NotConnected).
pub struct Connection {
    stream: Box<dyn Stream>,
    parser: Parser,
    db: i64,
    /// The number of responses that the server has to send.
    owed: usize,
    is_open: bool,
}

/// Connects to the server of a URL or of another description. Switches.
///
/// `timeout` limits the time for the connection and its first commands together, without the look-up of a name. It does
/// not limit later requests: see [`set_read_timeout`](Connection::set_read_timeout).
///
/// # Errors
///
/// Returns the errors of the connection, those of the server, and an error of the kind
/// [`InvalidClientConfig`](ErrorKind::InvalidClientConfig) for an address with TLS: [`Connection::new`] takes a session
/// of TLS.
pub fn connect(server: impl IntoConnectionInfo, timeout: impl Into<Option<Duration>>) -> RedisResult<Connection> {
    let (server, timeout) = (server.into_connection_info()?, timeout.into());
    let begun = Instant::now();
    let stream: Box<dyn Stream> = match server.addr() {
        ConnectionAddr::Tcp(host, port) => Box::new(connect_tcp(host, *port, timeout)?),
        ConnectionAddr::Unix(path) => Box::new(UnixStream::connect(path)?),
        _ => {
            let what = "no connection of this kind: open a session of TLS, and give it to `Connection::new`";
            return Err((ErrorKind::InvalidClientConfig, what).into());
        }
    };
    let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
    if left.is_some_and(|left| left.is_zero()) {
        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
    }
    stream.set_read_timeout(left)?;
    stream.set_write_timeout(left)?;
    let connection = Connection::from_box(stream, server.redis_settings())?;
    connection.set_read_timeout(None)?;
    connection.set_write_timeout(None)?;
    Ok(connection)
}

fn connect_tcp(host: &str, port: u16, timeout: Option<Duration>) -> io::Result<TcpStream> {
    let options = ConnectOptions::new();
    let stream = timeout.map_or(options, |timeout| options.timeout(timeout)).connect((host, port))?;
    // Each request is a single write.
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Connection {
    /// Creates a connection over an open stream, and logs in as `settings` say. Switches.
    ///
    /// # Errors
    ///
    /// Returns the errors of the stream, and those of the server.
    pub fn new(stream: impl Stream + 'static, settings: &RedisConnectionInfo) -> RedisResult<Connection> {
        Connection::from_box(Box::new(stream), settings)
    }

    fn from_box(stream: Box<dyn Stream>, settings: &RedisConnectionInfo) -> RedisResult<Connection> {
        let mut connection = Connection { stream, parser: Parser::new(), db: settings.db(), owed: 0, is_open: true };
        let mut setup = pipe();
        if settings.protocol().supports_resp3() {
            let hello = setup.cmd("HELLO").arg(3);
            if let Some(password) = settings.password() {
                hello.arg("AUTH").arg(settings.username().unwrap_or("default")).arg(password);
            }
        } else if let Some(password) = settings.password() {
            setup.cmd("AUTH").arg(settings.username()).arg(password);
        }
        if settings.db() != 0 {
            setup.cmd("SELECT").arg(settings.db());
        }
        if !setup.is_empty() {
            // redis's error of a pipeline would not tell a wrong password from another failure.
            let values = connection.req_packed_commands(&setup.get_packed_pipeline(), 0, setup.len())?;
            for value in values {
                if let Value::ServerError(error) = value {
                    return Err(error.into());
                }
            }
        }
        Ok(connection)
    }

    /// Sets the read timeout. Does not switch.
    ///
    /// It limits each wait for a piece of a response; `None`, the default, is no limit. A blocking command such as
    /// `BLPOP` has a limit of its own, which should be the shorter one.
    ///
    /// # Errors
    ///
    /// Returns an error for a timeout of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> RedisResult<()> {
        Ok(self.stream.set_read_timeout(timeout)?)
    }

    /// Sets the write timeout. Does not switch.
    ///
    /// It limits each single write; `None`, the default, is no limit.
    ///
    /// # Errors
    ///
    /// Returns an error for a timeout of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> RedisResult<()> {
        Ok(self.stream.set_write_timeout(timeout)?)
    }

    /// Converts the connection to one that receives the messages of channels. Does not switch.
    #[must_use]
    pub fn into_pub_sub(self) -> PubSub {
        PubSub::new(self)
    }

    /// Sends bytes to which the server answers with a number of responses. Switches.
    pub(super) fn send(&mut self, bytes: &[u8], responses: usize) -> RedisResult<()> {
        if !self.is_open {
            let error = "an earlier request has failed, so the connection cannot be used any more";
            return Err(io::Error::new(io::ErrorKind::NotConnected, error).into());
        }
        // An exit may unwind the write, too.
        self.is_open = false;
        self.stream.write_all(bytes)?;
        self.is_open = true;
        self.owed += responses;
        Ok(())
    }

    /// Reads the next value, of any kind. Switches.
    ///
    /// The parser keeps the part of a value that had arrived before an error or an exit.
    pub(super) fn read(&mut self) -> RedisResult<Value> {
        let mut reader = Reader { stream: &mut *self.stream, failed: None };
        let read = self.parser.parse_value(&mut reader);
        let is_usable = read.is_ok() || reader.failed.is_some_and(is_temporary);
        self.is_open &= is_usable;
        read
    }

    /// Makes the connection useless after a failure that leaves its state unknown. Does not switch.
    pub(super) fn close(&mut self) {
        self.is_open = false;
        // Fails if the connection has ended, which is the aim.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Reads the first of the last `own` responses that the server owes. Switches.
    fn response(&mut self, own: usize) -> RedisResult<Value> {
        loop {
            let value = self.read()?;
            // A push is no response: a message of a channel, or an invalidation.
            if matches!(value, Value::Push { .. }) {
                continue;
            }
            let is_own = self.owed <= own;
            self.owed = self.owed.saturating_sub(1);
            if is_own {
                return Ok(value);
            }
        }
    }
}

/// Returns whether the connection can be used after an error of a read.
fn is_temporary(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::Interrupted | io::ErrorKind::ResourceBusy)
}

/// A reader that remembers the kind of its error, which redis's errors do not reveal.
struct Reader<'a> {
    stream: &'a mut dyn Stream,
    failed: Option<io::ErrorKind>,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer);
        self.failed = read.as_ref().err().map(io::Error::kind);
        read
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.send(command, 1)?;
        self.response(1)
    }

    fn req_command(&mut self, command: &Cmd) -> RedisResult<Value> {
        let packed = command.get_packed_command();
        if command.is_no_response() {
            return self.send(&packed, 0).map(|()| Value::Nil);
        }
        self.req_packed_command(&packed)
    }

    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        let all = offset + count;
        self.send(commands, all)?;
        let mut values = Vec::with_capacity(count);
        let mut refused = None;
        for index in 0..all {
            let value = self.response(all - index)?;
            match value {
                // The first `offset` responses tell whether the server has queued the commands of a transaction. The
                // rest has to be read before the error is returned.
                Value::ServerError(error) if index < offset => refused = refused.or(Some(error)),
                value if index >= offset => values.push(value),
                _ => {}
            }
        }
        refused.map_or(Ok(values), |error| Err(error.into()))
    }

    fn get_db(&self) -> i64 {
        self.db
    }

    fn check_connection(&mut self) -> bool {
        cmd("PING").exec(self).is_ok()
    }

    fn is_open(&self) -> bool {
        self.is_open
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Connection");
        fields.field("db", &self.db).field("owed", &self.owed).field("is_open", &self.is_open).finish_non_exhaustive()
    }
}
