//! Requests by HTTP over kept connections, sent by `wrk`.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use benches::children;
use benches::figures::{Figures, skip};
use benches::load::{Address, ask_by_http};
use benches::peers::{Peer, is_installed};
use benches::processors::load_and_server;

use crate::contender::{Contender, Cost, Family, Server, print, reserved};

const GROUP: &str = "a request by HTTP, 100 connections";

/// The shortest run of wrk.
const WRK: [&str; 3] = ["-t1", "-c100", "-d1s"];

pub(crate) fn measure_all(figures: &Figures) -> io::Result<()> {
    // The lack of a second processor was printed before.
    let Some((load, server)) = load_and_server() else { return Ok(()) };
    if !is_installed("wrk", "-v")? {
        skip(GROUP, "no `wrk`: apt-get install wrk");
        return Ok(());
    }
    let this = Contender::this;
    let mut contenders = vec![
        this("greenhub", "greenhub", "hyper")?,
        this("greenhub-adapters", "greenhub", "adapters")?,
        this("greenhub, without hyper", "greenhub", "http")?,
        this("tokio", "tokio", "hyper")?,
        this("raw epoll, without hyper", "epoll", "http")?,
    ];
    contenders.extend(Contender::peer(Peer::GO, &["serve", "http"])?);
    for contender in contenders.iter().filter(|contender| figures.wants(GROUP, contender.name)) {
        let started = Server::start(contender, Family::Tcp, &[server]);
        print(figures, GROUP, contender.name, started.and_then(|server| cost(server, load)))?;
    }
    if !figures.wants(GROUP, "nginx") {
        return Ok(());
    }
    if !is_installed("nginx", "-v")? {
        skip("nginx", "no `nginx`: apt-get install nginx-light");
        return Ok(());
    }
    let folder = Folder::new()?;
    print(figures, GROUP, "nginx", start_nginx(&folder.0, server).and_then(|server| cost(server, load)))
}

/// Runs `wrk` on the processor `load`.
fn cost(mut server: Server, load: usize) -> io::Result<Cost> {
    let Address::Tcp(address) = server.address else { return Err(io::ErrorKind::Unsupported.into()) };
    server.explained(|_| ask_by_http(address))?;
    server.cost(|_| {
        let mut wrk = Command::new("wrk");
        let output = children::output(wrk.args(WRK).arg(url(address)), &[load], Duration::from_secs(20))?;
        requests(&output).ok_or_else(|| io::Error::other(format!("wrk: {output}")))
    })
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}

/// Returns the number of requests in the output of `wrk`, or `None` if some of them failed.
fn requests(output: &str) -> Option<u64> {
    let failed = ["Non-2xx", "Socket errors"].iter().any(|words| output.contains(words));
    let line = output.lines().find(|line| line.contains(" requests in "))?;
    line.split_whitespace().next()?.parse().ok().filter(|_| !failed)
}

/// Starts nginx with one process.
fn start_nginx(folder: &Path, processor: usize) -> io::Result<Server> {
    let (reserved, address) = reserved()?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {kind}; "))
        .collect();
    let configuration = format!(
        "daemon off; master_process off; pid pid; error_log stderr error;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         access_log off; keepalive_requests 1000000000; {temporary}\n\
         server {{ listen {address} reuseport; location / {{ return 200 'Hello, world!'; }} }}\n\
         }}\n"
    );
    fs::write(folder.join("nginx.conf"), configuration)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "stderr"]);
    command.stdin(Stdio::from(reserved)).stderr(Stdio::null());
    Server::start_at(&mut command, Address::Tcp(address), &[processor])
}

/// A folder for the files of nginx. Dropping it removes the folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("greenhub-bench-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
