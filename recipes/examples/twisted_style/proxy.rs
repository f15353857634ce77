//! The handler of a connection: straight-line code over streams of Tokio.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Write};
use std::net::SocketAddr;
use std::time::Duration;

use hub_tokio::{GreenTransport, net};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::http::{Body, Request, Response, copy_body, copy_to_end};

/// The port of a server whose address names none.
const PORT: u16 = 80;

/// A connection to a server, with its address.
struct Server {
    address: String,
    stream: BufReader<GreenTransport<TcpStream>>,
}

/// The rules and the counts of all connections.
pub(crate) struct Proxy {
    /// The server of requests that name no other one.
    origin: Option<String>,
    /// The time without data after which a connection is closed.
    timeout: Duration,
    /// Whether each request is printed.
    prints: bool,
    open: watch::Sender<u64>,
    connections: Cell<u64>,
    requests: Cell<u64>,
}

/// A connection that is counted as open until this is dropped.
pub(crate) struct Open(watch::Sender<u64>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections, {} requests", self.connections.get(), self.requests.get())
    }
}

impl Proxy {
    pub(crate) fn new(origin: Option<String>, timeout: Duration, prints: bool) -> Proxy {
        let (connections, requests) = (Cell::new(0), Cell::new(0));
        Proxy { origin, timeout, prints, open: watch::Sender::new(0), connections, requests }
    }

    pub(crate) fn count_connection(&self) -> Open {
        self.connections.set(self.connections.get() + 1);
        self.open.send_modify(|open| *open += 1);
        Open(self.open.clone())
    }

    /// Waits until no connection is open.
    pub(crate) async fn wait_for_the_last(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Handles a connection. A client that breaks it off is no failure. Switches.
    pub(crate) fn handle(&self, client: &GreenTransport<TcpStream>, peer: SocketAddr) -> io::Result<()> {
        match self.handle_requests(client, peer) {
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            handled => handled,
        }
    }

    /// Handles the requests of a client, one after the other.
    fn handle_requests(&self, client: &GreenTransport<TcpStream>, peer: SocketAddr) -> io::Result<()> {
        client.set_read_timeout(Some(self.timeout))?;
        client.set_write_timeout(Some(self.timeout))?;
        let mut reader = BufReader::new(client);
        let mut server = None;
        loop {
            let request = match Request::read(&mut reader) {
                Ok(Some(request)) => request,
                // A client without another request, or one that says nothing for too long.
                Ok(None) => return Ok(()),
                Err(error) if is_timeout(&error) => return Ok(()),
                Err(error) => return refuse(client, "400 Bad Request", &error),
            };
            self.requests.set(self.requests.get() + 1);
            if self.prints {
                println!("{peer} {} {}", request.method, request.target);
            }
            if request.method == "CONNECT" {
                return self.tunnel(&mut reader, &request.target);
            }
            if !self.pass_on(&mut reader, &request, &mut server)? {
                return Ok(());
            }
        }
    }

    /// Passes a request and its response on. Returns whether the client may send another one.
    fn pass_on(
        &self,
        client: &mut BufReader<&GreenTransport<TcpStream>>,
        request: &Request,
        kept: &mut Option<Server>,
    ) -> io::Result<bool> {
        let Some((address, path)) = self.route(&request.target) else {
            let error = "the target is no http:// URI, and there is no --origin";
            return refuse(client.get_ref(), "400 Bad Request", &error).map(|()| false);
        };
        let (mut server, response) = match self.ask(client, request, &address, path, kept.take()) {
            Ok(asked) => asked,
            Err(error) => return refuse(client.get_ref(), "502 Bad Gateway", &error).map(|()| false),
        };
        let body = response.message.body;
        let is_persistent = request.message.is_persistent && body != Body::UntilEnd;
        let mut writer = *client.get_ref();
        writer.write_all(&response.head(is_persistent))?;
        copy_body(&mut server.stream, &mut writer, body)?;
        *kept = Some(server).filter(|_| response.message.is_persistent);
        Ok(is_persistent)
    }

    /// Sends a request to its server, over a kept connection if possible, and reads the head of the response.
    fn ask(
        &self,
        client: &mut BufReader<&GreenTransport<TcpStream>>,
        request: &Request,
        address: &str,
        path: &str,
        kept: Option<Server>,
    ) -> io::Result<(Server, Response)> {
        let kept = kept.filter(|server| server.address == address);
        // The server may close a kept connection at any time. A request without a body is then sent again.
        if let (Some(mut server), Body::Empty) = (kept, request.message.body)
            && let Ok(response) = exchange(client, request, path, &mut server)
        {
            return Ok((server, response));
        }
        let mut server = self.connect(address)?;
        let response = exchange(client, request, path, &mut server)?;
        Ok((server, response))
    }

    fn connect(&self, address: &str) -> io::Result<Server> {
        let stream = greenhub::with_timeout(self.timeout, || net::connect(address))
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")))??;
        stream.get_ref().set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(Server { address: address.to_owned(), stream: BufReader::new(stream) })
    }

    /// Returns the address of the server and the path there.
    fn route<'a>(&self, target: &'a str) -> Option<(String, &'a str)> {
        let Some(rest) = target.strip_prefix("http://") else {
            return self.origin.clone().filter(|_| target.starts_with('/')).map(|origin| (origin, target));
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        // A colon inside of brackets belongs to an address of IPv6.
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { authority.to_owned() } else { format!("{authority}:{PORT}") };
        Some((address, path))
    }

    /// Connects a client with a server, and passes everything on in both directions.
    fn tunnel(&self, client: &mut BufReader<&GreenTransport<TcpStream>>, address: &str) -> io::Result<()> {
        let server = match self.connect(address) {
            Ok(server) => server.stream.into_inner(),
            Err(error) => return refuse(client.get_ref(), "502 Bad Gateway", &error),
        };
        let mut to_client = *client.get_ref();
        to_client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n")?;
        greenhub::scope(|scope| {
            let back = scope.spawn(|| {
                copy_to_end(&mut BufReader::new(&server), &mut to_client)?;
                to_client.shutdown()
            });
            let there = copy_to_end(client, &mut &server).and_then(|()| server.shutdown());
            let back = back.join().unwrap_or_else(|error| Err(io::Error::other(error.to_string())));
            there.and(back)
        })
    }
}

/// Sends a request, and reads the head of the response.
fn exchange(
    client: &mut BufReader<&GreenTransport<TcpStream>>,
    request: &Request,
    path: &str,
    server: &mut Server,
) -> io::Result<Response> {
    let mut writer = server.stream.get_ref();
    writer.write_all(&request.head_for(path))?;
    if request.expects {
        let mut to_client = *client.get_ref();
        to_client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    copy_body(client, &mut writer, request.message.body)?;
    let response = Response::read(&mut server.stream, &request.method)?;
    response.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"))
}

/// Sends an error as a response, after which the connection is closed.
fn refuse(mut client: &GreenTransport<TcpStream>, status: &str, error: &dyn fmt::Display) -> io::Result<()> {
    let text = format!("{error}\n");
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n", text.len());
    client.write_all(format!("{head}Connection: close\r\n\r\n{text}").as_bytes())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}
