//! A connection for messages.

use std::collections::VecDeque;
use std::time::Duration;

use ::redis::{Cmd, Msg, PushKind, RedisResult, ToRedisArgs, Value, cmd};

use super::Connection;

/// A connection that receives the messages of channels, as redis's `PubSub` does.
///
/// ```no_run
/// use std::time::Duration;
/// let connection = greenhub_adapters::redis::connect("redis://127.0.0.1/", Duration::from_secs(5))?;
/// let mut news = connection.into_pub_sub();
/// news.subscribe("news")?;
/// let message = news.get_message()?; // parks this green thread
/// println!("{}: {}", message.get_channel_name(), message.get_payload::<String>()?);
/// # Ok::<(), redis::RedisError>(())
/// ```
///
/// It owns the connection, which is closed when this is dropped.
#[derive(Debug)]
pub struct PubSub {
    connection: Connection,
    /// Messages that came before a confirmation.
    waiting: VecDeque<Msg>,
    /// The number of confirmations that the server has to send.
    unconfirmed: usize,
}

/// A value from the server.
enum Event {
    Message(Msg),
    Confirmation,
    Other,
}

impl PubSub {
    pub(super) fn new(connection: Connection) -> PubSub {
        PubSub { connection, waiting: VecDeque::new(), unconfirmed: 0 }
    }

    /// Subscribes to a channel or to several. Switches until the server has confirmed it.
    ///
    /// # Errors
    ///
    /// Returns the errors of the connection, and that of the server, which ends all subscriptions.
    pub fn subscribe(&mut self, channels: impl ToRedisArgs) -> RedisResult<()> {
        self.request("SUBSCRIBE", &channels)
    }

    /// Subscribes to the channels of a pattern or of several. Switches until the server has confirmed it.
    ///
    /// # Errors
    ///
    /// Like [`subscribe`](PubSub::subscribe).
    pub fn psubscribe(&mut self, patterns: impl ToRedisArgs) -> RedisResult<()> {
        self.request("PSUBSCRIBE", &patterns)
    }

    /// Ends the subscription to channels. Switches until the server has confirmed it.
    ///
    /// # Errors
    ///
    /// Like [`subscribe`](PubSub::subscribe).
    pub fn unsubscribe(&mut self, channels: impl ToRedisArgs) -> RedisResult<()> {
        self.request("UNSUBSCRIBE", &channels)
    }

    /// Ends the subscription to patterns. Switches until the server has confirmed it.
    ///
    /// # Errors
    ///
    /// Like [`subscribe`](PubSub::subscribe).
    pub fn punsubscribe(&mut self, patterns: impl ToRedisArgs) -> RedisResult<()> {
        self.request("PUNSUBSCRIBE", &patterns)
    }

    /// Waits for the next message. Switches.
    ///
    /// A wait that is left early, by a timeout or by an [exit](greenhub::greenthread::is_exit), loses no message.
    ///
    /// # Errors
    ///
    /// Returns the errors of the connection. That of a [timeout](PubSub::set_read_timeout) is one for which
    /// [`is_timeout`](::redis::RedisError::is_timeout) returns true.
    pub fn get_message(&mut self) -> RedisResult<Msg> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Ok(message);
            }
            self.receive()?;
        }
    }

    /// Sets the time limit of each wait for a piece of a message; `None`, the default, is no limit. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error for a timeout of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> RedisResult<()> {
        self.connection.set_read_timeout(timeout)
    }

    fn request(&mut self, name: &str, arguments: &impl ToRedisArgs) -> RedisResult<()> {
        let count = arguments.num_of_args();
        if count == 0 {
            // The server would end all subscriptions, with any number of confirmations.
            return Ok(());
        }
        let command: Cmd = cmd(name).arg(arguments).clone();
        self.connection.send(&command.get_packed_command(), 0)?;
        self.unconfirmed += count;
        while self.unconfirmed > 0 {
            self.receive()?;
        }
        Ok(())
    }

    /// Receives a value and keeps it. Switches before, but not after it has arrived.
    fn receive(&mut self) -> RedisResult<()> {
        match event(self.connection.read()?) {
            Ok(Event::Message(message)) => self.waiting.push_back(message),
            Ok(Event::Confirmation) => self.unconfirmed = self.unconfirmed.saturating_sub(1),
            Ok(Event::Other) => {}
            Err(error) => {
                self.connection.close();
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Returns the meaning of a value, which has one form in version 2 of the protocol and another one in version 3.
fn event(value: Value) -> RedisResult<Event> {
    const CONFIRMATIONS: [&[u8]; 4] = [b"subscribe", b"psubscribe", b"unsubscribe", b"punsubscribe"];
    let is_confirmation = match &value {
        Value::ServerError(error) => return Err(error.clone().into()),
        Value::Push { kind, .. } => {
            matches!(kind, PushKind::Subscribe | PushKind::PSubscribe | PushKind::Unsubscribe | PushKind::PUnsubscribe)
        }
        Value::Array(parts) => {
            matches!(parts.first(), Some(Value::BulkString(kind)) if CONFIRMATIONS.contains(&kind.as_slice()))
        }
        _ => false,
    };
    if is_confirmation {
        return Ok(Event::Confirmation);
    }
    Ok(Msg::from_owned_value(value).map_or(Event::Other, Event::Message))
}
