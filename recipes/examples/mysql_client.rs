//! The crate `mysql`, which can only block, on the OS threads of a pool.
//!
//! `cargo run -p recipes --example mysql_client -- epoll`. It needs the programs mariadbd and mariadb-install-db.
//!
//! A connection of `mysql` opens a socket of std, and its own pool waits on a lock of std. Both block all green threads
//! of the OS thread. In `tpool` only the calling green thread waits, and `pools::Pool` lends the connections.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use greenhub::pools::Pool;
use greenhub::{scope, tpool};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use recipes::server::{self, Server};
use recipes::web::AnyError;

/// The user that `mariadb-install-db` creates, without a password.
const USER: &str = "root";

/// The pool threads of the database alone, so that its queries and other jobs do not wait for each other.
pub(crate) static THREADS: tpool::Pool = tpool::Pool::new(10);

fn main() -> ExitCode {
    recipes::way::main(|| {
        let server = start()?;
        let pool = connections(&server, 10);
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

/// Starts mariadbd on a new database with a Unix socket.
pub(crate) fn start() -> Result<Server, AnyError> {
    let configure = |command: &mut Command, folder: &Path| {
        let option = |name: &str, file: &str| format!("--{name}={}", folder.join(file).display());
        let mut initialize = server::command("mariadb-install-db", folder);
        initialize.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        // If this fails, `mariadbd` ends without a database.
        let _ = initialize.arg(option("datadir", "data")).status();
        command.args(["--no-defaults", "--skip-networking"]);
        command.args([option("datadir", "data"), option("socket", "socket"), option("pid-file", "pid")]);
    };
    Server::start("mariadbd", "socket", configure, |server| UnixStream::connect(server.socket()).is_ok())
}

/// Returns a pool of at most `size` connections, each opened when it is needed.
pub(crate) fn connections(server: &Server, size: usize) -> Pool<Conn> {
    let options = OptsBuilder::new().socket(server.socket().to_str()).user(Some(USER));
    Pool::new(size, move || THREADS.execute_scoped(|| Conn::new(options.clone()))?.map_err(io::Error::other))
}

/// Runs `count` queries, each in a green thread, and returns the sum of their results. Switches.
pub(crate) fn double_all(pool: &Pool<Conn>, count: i64) -> Result<i64, AnyError> {
    scope(|scope| {
        let queries: Vec<_> = (1..=count).map(|number| scope.spawn(move || double(pool, number))).collect();
        queries.into_iter().map(|query| query.join()?).sum()
    })
}

/// Runs a query on a pool thread. Switches.
///
/// The job borrows the connection. An exit waits for the end of the query, so the connection is never returned in the
/// middle of one.
pub(crate) fn double(pool: &Pool<Conn>, number: i64) -> Result<i64, AnyError> {
    let mut connection = pool.item()?;
    let queried = THREADS.execute_scoped(|| connection.exec_first("SELECT 2 * ?", (number,)));
    Ok(queried.map_err(io::Error::from)??.ok_or("no row")?)
}
