//! redis's blocking interface in green threads, over the adapter `redis-1`, with a pool of connections.
//!
//! `cargo run -p recipes --example redis_pool -- epoll`. It needs the program redis-server.

use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use greenhub::pools::Pool;
use greenhub::{scope, spawn};
use greenhub_adapters::redis::{Connection, PubSub, connect};
use recipes::server::Server;
use recipes::web::AnyError;
use redis::{Commands, ConnectionLike, RedisError};

fn main() -> ExitCode {
    recipes::way::main(|| {
        let server = start()?;
        let url = url(&server);
        let mut news = subscribe(&url, "news")?;
        let reader = spawn(move || news.get_message()?.get_payload::<String>());
        let pool = pool(&url, 10);
        println!("{}", add_all(&pool, "sum", 500)?);
        ask(&pool, |connection| connection.publish::<_, _, ()>("news", "done"))?;
        println!("{}", reader.join()??);
        Ok::<_, AnyError>(())
    })
}

/// Starts redis-server with a Unix socket.
pub(crate) fn start() -> Result<Server, AnyError> {
    let configure = |command: &mut Command, folder: &Path| {
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(folder.join("socket"));
    };
    Server::start("redis-server", "socket", configure, |server| StdStream::connect(server.socket()).is_ok())
}

/// Returns the URL of a server.
pub(crate) fn url(server: &Server) -> String {
    format!("redis+unix://{}", server.socket().display())
}

/// Returns a pool of at most `size` connections, each opened when it is needed.
pub(crate) fn pool(url: &str, size: usize) -> Pool<Connection> {
    let url = url.to_owned();
    Pool::new(size, move || connect(url.as_str(), Duration::from_secs(10)).map_err(std::io::Error::other))
}

/// Adds the numbers up to `count` to a key, each in a green thread, and returns the sum. Switches.
pub(crate) fn add_all(pool: &Pool<Connection>, key: &str, count: i64) -> Result<i64, AnyError> {
    scope(|scope| {
        let add = |number| scope.spawn(move || ask(pool, |connection| connection.incr(key, number)));
        let adders: Vec<_> = (1..=count).map(add).collect();
        adders.into_iter().try_for_each(|adder| adder.join()?.map(|_: i64| ()))
    })?;
    ask(pool, |connection| connection.get(key))
}

/// Lends a connection of the pool to `f`. Switches.
pub(crate) fn ask<T>(
    pool: &Pool<Connection>,
    f: impl FnOnce(&mut Connection) -> Result<T, RedisError>,
) -> Result<T, AnyError> {
    let mut connection = pool.item()?;
    let answered = f(&mut connection);
    if !connection.is_open() {
        // A broken one leaves the pool, which opens another in its place.
        drop(connection.into_inner());
    }
    Ok(answered?)
}

/// Opens a connection that receives the messages of a channel. Switches.
pub(crate) fn subscribe(url: &str, channel: &str) -> Result<PubSub, RedisError> {
    let mut subscribed = connect(url, Duration::from_secs(10))?.into_pub_sub();
    subscribed.subscribe(channel)?;
    Ok(subscribed)
}
