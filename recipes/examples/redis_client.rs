//! redis's asynchronous client, unchanged, in green threads, with a server of its own.
//!
//! `cargo run -p recipes --example redis_client` takes the hub `tokio`. `-- explicit` runs it inside of a Tokio
//! program, `-- beside` on the default hub beside a runtime on another OS thread, and `-- epoll` without any runtime,
//! over a green socket. It needs the program redis-server.

use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::LazyLock;

use greenhub::future::{AsyncIo, block_on, spawn_future};
use greenhub::os::unix::net::UnixStream;
use greenhub::spawn;
use recipes::server::Server;
use recipes::web::AnyError;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig, Client, RedisConnectionInfo};

fn main() -> ExitCode {
    recipes::way::main(|| {
        let server = start()?;
        let connection = if tokio::runtime::Handle::try_current().is_ok() {
            connect(&server)?
        } else {
            connect_over_green_socket(&server)?
        };
        let waiter = spawn({
            let connection = connection.clone();
            move || pop(connection, "queue")
        });
        block_on(connection.clone().lpush::<_, _, ()>("queue", "an item"))?;
        println!("{}", waiter.join()??);
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

/// Connects over a socket of Tokio, whose runtime the hub drives or another OS thread. Switches.
pub(crate) fn connect(server: &Server) -> Result<MultiplexedConnection, AnyError> {
    let client = Client::open(format!("unix:{}", server.socket().display()))?;
    Ok(block_on(client.get_multiplexed_async_connection_with_config(&configuration()))?)
}

/// Connects over a green socket, on any hub, without a runtime. Switches.
pub(crate) fn connect_over_green_socket(server: &Server) -> Result<MultiplexedConnection, AnyError> {
    // The driver refers to it for as long as it runs.
    static INFORMATION: LazyLock<RedisConnectionInfo> = LazyLock::new(RedisConnectionInfo::default);
    let stream = AsyncIo::new(UnixStream::connect(server.socket())?);
    let (connection, driver) = block_on(MultiplexedConnection::new_with_config(&INFORMATION, stream, configuration()))?;
    spawn_future(driver);
    Ok(connection)
}

/// Returns a configuration without the library's timeout, which would need Tokio's timer, and would end a long `pop`.
///
/// `greenhub::with_timeout` limits a wait on every hub.
fn configuration() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_response_timeout(None)
}

/// Takes an item from a list, and waits while it is empty. Switches.
pub(crate) fn pop(mut connection: MultiplexedConnection, list: &str) -> Result<String, AnyError> {
    let (_list, item): (String, String) = block_on(connection.blpop(list, 0.0))?;
    Ok(item)
}
