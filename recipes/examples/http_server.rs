//! A web server in straight-line code, over the adapter `http-server`, with a graceful stop by Ctrl-C or `kill`.
//!
//! `cargo run -p recipes --example http_server -- epoll`, then `curl http://127.0.0.1:8000/`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use greenhub::GreenPool;
use greenhub::net::{SocketAddr, StopServe, TcpListener};
use greenhub::signal::{SIGINT, SIGTERM};
use greenhub_adapters::http::{RequestBody, ResponseBody, Server};
use http::{Method, Request, Response, StatusCode};
use recipes::web::AnyError;

fn main() -> ExitCode {
    recipes::way::main(|| {
        recipes::descriptors::raise_limit();
        let listener = TcpListener::bind("127.0.0.1:8000")?;
        println!("http://{}/", listener.local_addr()?);
        let stop = StopServe::on_signals([SIGINT, SIGTERM], Duration::from_secs(10))?;
        let served = run(&listener, &stop)?;
        println!("{} connections, {} of them broken off", served.accepted, served.killed);
        Ok::<_, AnyError>(())
    })
}

/// Serves until `stop` is stopped. Switches.
pub(crate) fn run(
    listener: &TcpListener,
    stop: &StopServe,
) -> Result<greenhub::net::Served, greenhub::net::ServeError> {
    let server = Server::new().methods([Method::GET, Method::HEAD, Method::POST]).max_body(10 << 20);
    server.serve(stop, listener, &GreenPool::new(10_000), respond)
}

fn respond(request: Request<RequestBody<'_>>, peer: &SocketAddr) -> Response<ResponseBody> {
    let (head, mut body) = request.into_parts();
    match (head.method, head.uri.path()) {
        (Method::POST, "/length") => match io::copy(&mut body, &mut io::sink()) {
            Ok(length) => Response::new(length.to_string().into()),
            // The server answers in place of the handler.
            Err(_) => Response::new(().into()),
        },
        (Method::POST, "/echo") => Response::new(body.to_vec().unwrap_or_default().into()),
        (_, "/") => Response::new("hello\n".into()),
        (_, "/peer") => Response::new(format!("{peer}\n").into()),
        // Sent in chunks while it is made.
        (_, "/numbers") => Response::new(ResponseBody::from_writer(|writer| {
            for number in 0..1000 {
                writeln!(writer, "{number}")?;
            }
            Ok(())
        })),
        (_, "/zeros") => Response::new(ResponseBody::from_reader(io::repeat(0), 1 << 20)),
        _ => {
            let mut response = Response::new("there is no such page\n".into());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}
