//! The cost of ureq, redis and rustls in a green thread, beside the same calls in an OS thread of std.
//!
//! `cargo run --release -p recipes --example costs -- epoll`. It needs the program redis-server.
//!
//! One caller makes one call after another, and asks the same server in both cases. So a line has the cost of a call
//! whose answer is awaited, and says nothing of many calls at once.

#[allow(dead_code, clippy::duplicate_mod, reason = "a program of its own, which is tested as well")]
#[path = "rustls_https.rs"]
mod rustls_https;

use std::io::{Read, Write};
use std::net::TcpStream as StdTcpStream;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use greenhub::GreenPool;
use greenhub::net::{SocketAddr, StopServe, TcpListener};
use greenhub::sync::oneshot;
use greenhub::thread::os;
use greenhub_adapters::http::Server as HttpServer;
use http::Response;
use recipes::server::Server;
use recipes::web::AnyError;
use redis::Commands;
use rustls::{ClientConnection, StreamOwned};
use rustls_https::{Identity, NAME};

const ROUNDS: usize = 5;

fn main() -> ExitCode {
    recipes::way::main(|| {
        for cost in measure(2000)? {
            let ratio = cost.green.as_secs_f64() / cost.plain.as_secs_f64();
            println!("{}: {:?}, in an OS thread {:?}, {ratio:.2} times", cost.call, cost.green, cost.plain);
        }
        Ok::<_, AnyError>(())
    })
}

/// The time of one call, here and in an OS thread: the best of some rounds.
pub(crate) struct Cost {
    pub(crate) call: &'static str,
    pub(crate) green: Duration,
    pub(crate) plain: Duration,
}

/// Makes so many calls of each kind in a round. Switches.
pub(crate) fn measure(calls: u32) -> Result<[Cost; 3], AnyError> {
    let url = format!("http://{}/", start_http()?);
    let (green, plain) = (greenhub_adapters::ureq::agent(ureq::config::Config::default()), ureq::agent());
    let request = compare(
        "a request of ureq",
        calls,
        {
            let url = url.clone();
            move || get(&green, &url)
        },
        move || get(&plain, &url),
    )?;
    let server = start_redis()?;
    let url = format!("redis+unix://{}", server.socket().display());
    let mut green = greenhub_adapters::redis::connect(url.as_str(), Duration::from_secs(10))?;
    let mut plain = redis::Client::open(url)?.get_connection()?;
    let command =
        compare("a command of redis", calls, || Ok(green.incr("green", 1)?), move || Ok(plain.incr("plain", 1)?))?;
    let (identity, address) = start_https()?;
    let mut green = rustls_https::connect(&identity, address)?;
    let connection = ClientConnection::new(identity.client, NAME.try_into()?)?;
    let mut plain = StreamOwned::new(connection, StdTcpStream::connect(address)?);
    let session = compare("a request over TLS", calls, || ask(&mut green), move || ask(&mut plain))?;
    Ok([request, command, session])
}

/// Starts an HTTP server on an OS thread of its own.
fn start_http() -> Result<SocketAddr, AnyError> {
    let (bound, address) = oneshot::channel();
    os::spawn(move || -> Result<(), AnyError> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let _ = bound.send(listener.local_addr()?);
        HttpServer::new().serve(&StopServe::new(), &listener, &GreenPool::new(10), |_, _| Response::new("hello\n"))?;
        Ok(())
    });
    Ok(address.recv()?)
}

/// Starts a server of HTTPS on an OS thread of its own.
fn start_https() -> Result<(Identity, SocketAddr), AnyError> {
    let (ready, started) = oneshot::channel();
    os::spawn(move || -> Result<(), AnyError> {
        let identity = Identity::new()?;
        let (address, server) = rustls_https::serve(&identity, || "hello\n".to_owned())?;
        let _ = ready.send((identity, address));
        Ok(server.join()?)
    });
    Ok(started.recv()?)
}

/// Starts redis-server with a Unix socket.
fn start_redis() -> Result<Server, AnyError> {
    let configure = |command: &mut Command, folder: &Path| {
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(folder.join("socket"));
    };
    Server::start("redis-server", "socket", configure, |server| StdUnixStream::connect(server.socket()).is_ok())
}

fn get(agent: &ureq::Agent, url: &str) -> Result<(), AnyError> {
    agent.get(url).call()?.body_mut().read_to_string()?;
    Ok(())
}

/// Sends a request over a kept session, and reads the response.
fn ask(session: &mut (impl Read + Write)) -> Result<(), AnyError> {
    session.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (mut response, mut length) = ([0; 1024], 0);
    while !response[..length].ends_with(b"hello\n") {
        match session.read(&mut response[length..])? {
            0 => return Err("the session has ended early".into()),
            count => length += count,
        }
    }
    Ok(())
}

fn compare(
    call: &'static str,
    calls: u32,
    mut green: impl FnMut() -> Result<(), AnyError>,
    mut plain: impl FnMut() -> Result<(), AnyError> + Send + 'static,
) -> Result<Cost, AnyError> {
    let mut cost = Cost { call, green: Duration::MAX, plain: Duration::MAX };
    for _ in 0..ROUNDS {
        cost.green = cost.green.min(time(calls, &mut green)?);
        let timed = os::spawn(move || (time(calls, &mut plain), plain)).join();
        let (measured, back) = timed.map_err(|_| "the OS thread has panicked")?;
        plain = back;
        cost.plain = cost.plain.min(measured?);
    }
    Ok(cost)
}

/// Returns the time of one call.
fn time(calls: u32, call: &mut impl FnMut() -> Result<(), AnyError>) -> Result<Duration, AnyError> {
    let begun = Instant::now();
    for _ in 0..calls {
        call()?;
    }
    Ok(begun.elapsed() / calls)
}
