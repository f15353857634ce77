//! The crate `postgres`, which can only block, on the OS threads of a pool.
//!
//! `cargo run -p recipes --example postgres_pool -- epoll`. It needs the programs postgres and initdb.
//!
//! `postgres` drives a private runtime on the OS thread of its caller, so it blocks all green threads there. In
//! `tpool` only the calling green thread waits. Each job costs some microseconds for the way to the pool thread and
//! back, which a query over a socket exceeds many times.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use greenhub::pools::Pool;
use greenhub::{scope, tpool};
use postgres::{Client, Config, NoTls};
use recipes::server::{self, Server};
use recipes::web::AnyError;

/// The user that `initdb` creates.
const USER: &str = "greenhub";

/// The pool threads of the database alone, so that its queries and other jobs do not wait for each other.
static THREADS: tpool::Pool = tpool::Pool::new(10);

fn main() -> ExitCode {
    recipes::way::main(|| {
        let server = start()?;
        let pool = clients(&server, 10);
        let begun = Instant::now();
        println!("{}", double_all(&pool, 500)?);
        println!("500 queries in {:?}", begun.elapsed());
        let begun = Instant::now();
        for _ in 0..1000 {
            THREADS.execute_scoped(|| ()).map_err(io::Error::from)?;
        }
        println!("a job that does nothing: {:?}", begun.elapsed() / 1000);
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

/// Returns a pool of at most `size` clients, each connected when it is needed.
pub(crate) fn clients(server: &Server, size: usize) -> Pool<Client> {
    let mut config = Config::new();
    config.host_path(server.folder()).user(USER).dbname("postgres");
    Pool::new(size, move || THREADS.execute_scoped(|| config.connect(NoTls))?.map_err(io::Error::other))
}

/// Runs `count` queries, each in a green thread, and returns the sum of their results. Switches.
pub(crate) fn double_all(pool: &Pool<Client>, count: i32) -> Result<i64, AnyError> {
    scope(|scope| {
        let queries: Vec<_> = (1..=count).map(|number| scope.spawn(move || double(pool, number))).collect();
        queries.into_iter().map(|query| Ok(i64::from(query.join()??))).sum()
    })
}

/// Runs a query on a pool thread. Switches.
///
/// The job borrows the client. An exit waits for the end of the query, so the client is never returned in the middle of
/// one.
pub(crate) fn double(pool: &Pool<Client>, number: i32) -> Result<i32, AnyError> {
    let mut client = pool.item()?;
    let queried = THREADS.execute_scoped(|| client.query_one("SELECT 2 * $1::int4", &[&number]));
    Ok(queried.map_err(io::Error::from)??.try_get(0)?)
}
