//! An example that serves HTTP as a process of its own, and a directory for `cluster` to serve.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::example;

/// A directory for a test, which is removed at its end.
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

/// A server, which is killed if a test fails.
pub(crate) struct WebServer {
    process: Option<Child>,
    pub(crate) address: String,
    rest: BufReader<ChildStderr>,
}

impl WebServer {
    /// The example `cluster`.
    pub(crate) fn start(directory: &Path, arguments: &[&str]) -> WebServer {
        WebServer::run(example::command("cluster", arguments).arg(directory))
    }

    /// One that is not told yet where to listen.
    pub(crate) fn run(command: &mut Command) -> WebServer {
        let mut process = command.args(["--listen", "127.0.0.1:0"]).spawn().expect("it starts");
        let mut rest = BufReader::new(process.stderr.take().expect("piped"));
        let mut line = String::new();
        rest.read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.unwrap_or_else(|| panic!("no address: {line}")).to_owned();
        WebServer { process: Some(process), address, rest }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).expect("a server")
    }

    /// Everything that comes back on one connection.
    pub(crate) fn say(&self, requests: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(requests.as_bytes()).expect("it reads");
        let mut answers = String::new();
        stream.read_to_string(&mut answers).expect("text");
        answers
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(mut self) -> Output {
        let process = self.process.take().expect("it runs");
        kill_process(Pid::from_child(&process), Signal::INT).expect("it runs");
        let mut stderr = Vec::new();
        self.rest.read_to_end(&mut stderr).expect("a pipe");
        let output = process.wait_with_output().expect("a child");
        Output { stderr, ..output }
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
