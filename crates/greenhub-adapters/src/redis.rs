//! redis 1 over green sockets.
//!
//! A [`Connection`] implements redis's [`ConnectionLike`](::redis::ConnectionLike), so its commands, pipelines, scripts
//! and transactions work as over redis's own `Connection`, which would block the OS thread. A command parks the green
//! thread that sends it. [`PubSub`] receives the messages of channels.
//!
//! ```no_run
//! use redis::Commands;
//! use std::time::Duration;
//! let mut connection = greenhub_adapters::redis::connect("redis://127.0.0.1/", Duration::from_secs(5))?;
//! let _: () = connection.set("answer", 42)?;
//! assert_eq!(connection.get::<_, i64>("answer")?, 42);
//! # Ok::<(), redis::RedisError>(())
//! ```
//!
//! A connection serves one green thread at a time. A green [`Pool`](greenhub::pools::Pool) of them serves many.

mod connection;
mod pub_sub;

pub use connection::{Connection, connect};
pub use pub_sub::PubSub;
