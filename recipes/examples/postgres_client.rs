//! tokio-postgres, unchanged, in green threads, with a server of its own.
//!
//! `cargo run -p recipes --example postgres_client` takes the hub `tokio`. `-- explicit` runs it inside of a Tokio
//! program, `-- beside` on the default hub beside a runtime on another OS thread, and `-- epoll` without any runtime,
//! over a green socket. It needs the programs postgres and initdb.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use greenhub::future::{AsyncIo, block_on, spawn_future};
use greenhub::os::unix::net::UnixStream;
use greenhub::spawn;
use recipes::server::{self, Server};
use recipes::web::AnyError;
use tokio_postgres::{Client, Config, NoTls};

/// The user that `initdb` creates.
const USER: &str = "greenhub";

fn main() -> ExitCode {
    recipes::way::main(|| {
        let server = start()?;
        let client = if tokio::runtime::Handle::try_current().is_ok() {
            connect(&server)?
        } else {
            connect_over_green_socket(&server)?
        };
        let waiter = spawn(move || double(&client, 21));
        println!("{}", waiter.join()??);
        Ok::<_, AnyError>(())
    })
}

/// Starts postgres on a new database with a Unix socket.
pub(crate) fn start() -> Result<Server, AnyError> {
    let configure = |command: &mut Command, folder: &Path| {
        let mut initialize = server::command("initdb", folder);
        initialize.args(["--no-sync", "--auth=trust", "--username", USER, "--pgdata"]).arg(folder.join("data"));
        // If this fails, `postgres` ends without a database.
        let _ = initialize.status();
        command.args(["-c", "listen_addresses=", "-F", "-k"]).arg(folder).arg("-D").arg(folder.join("data"));
    };
    // Before postgres is ready, it accepts each connection and then refuses it.
    let is_ready = |server: &Server| {
        let state = fs::read_to_string(server.folder().join("data/postmaster.pid")).unwrap_or_default();
        state.lines().last().is_some_and(|last| last.trim() == "ready")
    };
    Server::start("postgres", ".s.PGSQL.5432", configure, is_ready)
}

/// Connects over a socket of Tokio. The hub or another OS thread runs its runtime. Switches.
pub(crate) fn connect(server: &Server) -> Result<Client, AnyError> {
    let mut config = Config::new();
    config.host_path(server.folder()).user(USER).dbname("postgres");
    let (client, connection) = block_on(config.connect(NoTls))?;
    tokio::spawn(connection);
    Ok(client)
}

/// Connects over a green socket, on any hub, without a runtime. Switches.
pub(crate) fn connect_over_green_socket(server: &Server) -> Result<Client, AnyError> {
    let stream = AsyncIo::new(UnixStream::connect(server.socket())?);
    let mut config = Config::new();
    config.user(USER).dbname("postgres");
    let (client, connection) = block_on(config.connect_raw(stream, NoTls))?;
    spawn_future(connection);
    Ok(client)
}

/// Lets the server double a number, which takes a moment. Switches.
pub(crate) fn double(client: &Client, number: i32) -> Result<i32, AnyError> {
    let rows = block_on(client.query("SELECT $1::int4 * 2 FROM pg_sleep(0.05)", &[&number]))?;
    let row = rows.first().ok_or("no row")?;
    Ok(row.try_get(0)?)
}
