//! An HTTP server example in its own process, and a directory for `cluster` to serve.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::example;

/// A temporary directory, removed when it is dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("greenhub-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("room for a directory");
        Directory(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.0.join(name), content).expect("room for a file");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server in its own process.
pub(crate) struct WebServer {
    process: example::Server,
    pub(crate) address: String,
}

impl WebServer {
    /// Starts the example `cluster`.
    pub(crate) fn start(directory: &Path, arguments: &[&str]) -> WebServer {
        WebServer::run(example::command("cluster", arguments).arg(directory))
    }

    /// Starts `command`, which must not name an address yet, on a free port.
    pub(crate) fn run(command: &mut Command) -> WebServer {
        let process = example::Server::start(command.args(["--listen", "127.0.0.1:0"]));
        let address = process.greeting.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.unwrap_or_else(|| panic!("no address: {}", process.greeting)).to_owned();
        WebServer { process, address }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).expect("a server")
    }

    /// Sends `requests` on one connection, and returns everything that comes back.
    pub(crate) fn request(&self, requests: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(requests.as_bytes()).expect("the peer reads");
        let mut answers = String::new();
        stream.read_to_string(&mut answers).expect("the peer sends UTF-8");
        answers
    }

    pub(crate) fn interrupt(self) -> Output {
        self.process.interrupt()
    }
}
