//! A web site on a green server, which records the requests.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use greenhub::net::{TcpListener, TcpStream};

/// The time that each answer takes, so that concurrent requests overlap.
const PAUSE: Duration = Duration::from_millis(5);

/// The server's answer to a request for a page.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Sends these bytes, and closes the connection.
    Bytes(Vec<u8>),
    /// Sends nothing, and keeps the connection open.
    Silence,
}

/// Returns an HTML page with these links.
pub(crate) fn links(targets: &[&str]) -> Answer {
    let body: String = targets.iter().map(|target| format!("<a href=\"{target}\">there</a>\n")).collect();
    html(&body)
}

pub(crate) fn html(body: &str) -> Answer {
    answer(&format!("200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}", body.len()), body)
}

/// Returns a status line with further headers, and a body that ends with the connection.
pub(crate) fn answer(head: &str, body: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 {head}\r\n\r\n{body}").into_bytes())
}

/// A site that an OS thread serves until the process ends.
pub(crate) struct Site {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    paths: Vec<String>,
    most_at_once: usize,
}

impl Site {
    /// Starts a site with these pages. Other paths are answered with 404.
    pub(crate) fn serve<P: Into<String>>(pages: impl IntoIterator<Item = (P, Answer)>) -> Site {
        let pages: HashMap<String, Answer> = pages.into_iter().map(|(path, answer)| (path.into(), answer)).collect();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (sender, address) = mpsc::channel();
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            sender.send(listener.local_addr().expect("the listener has an address")).expect("a receiver waits");
            let served = Rc::new((pages, Cell::new(0), RefCell::new(Vec::new())));
            for stream in listener.incoming() {
                let (stream, served, seen) = (stream.expect("a client"), Rc::clone(&served), Arc::clone(&noted));
                greenhub::spawn(move || {
                    let (pages, at_once, silent) = &*served;
                    at_once.set(at_once.get() + 1);
                    let kept = serve_one(stream, pages, at_once.get(), &seen);
                    at_once.set(at_once.get() - 1);
                    silent.borrow_mut().extend(kept.ok().flatten());
                });
            }
        });
        Site { address: address.recv().expect("the server begins"), seen }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the requested paths, sorted.
    pub(crate) fn requested(&self) -> Vec<String> {
        let mut paths = self.seen.lock().expect("no holder has panicked").paths.clone();
        paths.sort_unstable();
        paths
    }

    /// Returns the largest number of requests served at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.seen.lock().expect("no holder has panicked").most_at_once
    }
}

/// Answers one request. Returns the connection if it is to stay open.
fn serve_one(
    stream: TcpStream,
    pages: &HashMap<String, Answer>,
    at_once: usize,
    seen: &Mutex<Seen>,
) -> io::Result<Option<TcpStream>> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request)? == 0 {
            return Ok(None);
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let answer = pages.get(&path).cloned().unwrap_or_else(|| self::answer("404 Not Found", "there is no such page"));
    {
        let mut seen = seen.lock().expect("no holder has panicked");
        seen.paths.push(path);
        seen.most_at_once = seen.most_at_once.max(at_once);
    }
    greenhub::sleep(PAUSE);
    let mut stream = reader.into_inner();
    match answer {
        Answer::Bytes(bytes) => stream.write_all(&bytes).map(|()| None),
        Answer::Silence => Ok(Some(stream)),
    }
}
