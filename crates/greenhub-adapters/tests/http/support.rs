//! A server with a handler for each behaviour, and a client for raw bytes.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use greenhub::net::{Served, SocketAddr, StopServe, TcpListener, TcpStream};
use greenhub::{GreenPool, GreenThread, sleep, spawn};
use greenhub_adapters::http::{RequestBody, ResponseBody, Server};
use http::{Method, Request, Response, StatusCode};

/// The time after which a wait counts as hung.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The length of a body that does not fit into the buffers of a connection.
pub(crate) const LONG: usize = 16 << 20;

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A server that runs in a green thread.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stop: StopServe,
    /// The number of requests that have begun.
    pub(crate) begun: Rc<Cell<usize>>,
    thread: GreenThread<Served>,
}

impl Running {
    pub(crate) fn start(server: Server) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, stop) = (listener.local_addr().expect("bound"), StopServe::new());
        let begun = Rc::new(Cell::new(0));
        let (stopping, counter) = (stop.clone(), Rc::clone(&begun));
        let thread = spawn(move || {
            let pool = GreenPool::new(1000);
            let handler = move |request: Request<RequestBody<'_>>, _: &SocketAddr| {
                counter.set(counter.get() + 1);
                respond(request)
            };
            server.serve(&stopping, &listener, &pool, handler).expect("a server")
        });
        Running { address, stop, begun, thread }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream
    }

    /// Sends bytes, ends the output, and returns all that the server sends.
    pub(crate) fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes.as_ref()).expect("the server reads");
        stream.shutdown(Shutdown::Write).expect("the connection is open");
        rest(&mut stream)
    }

    /// Stops the server and waits for its end.
    pub(crate) fn end(self) -> Served {
        self.stop.stop();
        self.thread.join().expect("no panic")
    }
}

/// Returns what the server sends until it closes the connection.
pub(crate) fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the server closes the connection");
    String::from_utf8(bytes).expect("text")
}

/// Reads the head of a response, byte by byte.
pub(crate) fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).expect("text")
}

/// Reads a response that has a length.
pub(crate) fn response(stream: &mut TcpStream) -> (String, String) {
    let head = head(stream);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut body).expect("a body");
    (head, String::from_utf8(body).expect("text"))
}

/// Returns the status codes of responses that follow each other.
pub(crate) fn statuses(responses: &str) -> Vec<u16> {
    let codes = responses.split("HTTP/1.1 ").skip(1);
    codes.map(|rest| rest[..3].parse().expect("a status code")).collect()
}

/// Returns a request without a body.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The handler of all tests.
fn respond(request: Request<RequestBody<'_>>) -> Response<ResponseBody> {
    let (head, mut body) = request.into_parts();
    match head.uri.path() {
        "/hello" => Response::new("hello".into()),
        "/echo" => Response::new(body.to_vec().unwrap_or_else(|error| error.to_string().into_bytes()).into()),
        "/left" => Response::new(format!("{:?} bytes are left", body.left()).into()),
        "/method" => Response::new(head.method.to_string().into()),
        "/sleep" => {
            sleep(ms(50));
            Response::new("slept".into())
        }
        "/writer" => Response::new(ResponseBody::from_writer(|writer| {
            writer.write_all(b"one, ")?;
            writer.flush()?;
            writer.write_all(b"two")
        })),
        "/long-writer" => Response::new(ResponseBody::from_writer(|writer| {
            io::copy(&mut io::repeat(b'x').take(LONG as u64), writer).map(drop)
        })),
        "/failing-writer" => Response::new(ResponseBody::from_writer(|writer| {
            writer.write_all(b"one")?;
            writer.flush()?;
            Err(io::ErrorKind::Other.into())
        })),
        "/reader" => Response::new(ResponseBody::from_reader(&b"from a reader and more"[..], 13)),
        "/short-reader" => Response::new(ResponseBody::from_reader(&b"short"[..], 13)),
        "/long" => Response::new(vec![b'x'; LONG].into()),
        "/panic" => std::panic::resume_unwind(Box::new("a panic of a test")),
        "/closes" => with("connection", "close"),
        "/framing" => with("content-length", "1"),
        "/own-length" => {
            let mut response = with("content-length", "12345");
            *response.body_mut() = ().into();
            response
        }
        "/early-hints" => status(StatusCode::EARLY_HINTS),
        "/no-content" => status(StatusCode::NO_CONTENT),
        "/not-modified" => status(StatusCode::NOT_MODIFIED),
        _ if head.method == Method::OPTIONS => Response::new(head.uri.to_string().into()),
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn with(name: &'static str, value: &'static str) -> Response<ResponseBody> {
    Response::builder().header(name, value).body("a body".into()).expect("a valid header")
}

fn status(status: StatusCode) -> Response<ResponseBody> {
    Response::builder().status(status).body("a body".into()).expect("a valid status")
}
