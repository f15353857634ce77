//! greenhub: a green thread for each connection.

use std::io::{self, Read, Write};

use greenhub::net::{Cluster, ListenOptions, TcpListener};
use greenhub::os::unix::net::UnixListener;
use greenhub::spawn_n;

use super::{BUFFER, Listener, Service};

pub(super) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    match listener {
        Listener::Tcp(listener) => {
            let listener = TcpListener::from(listener);
            accept_all(|| Ok(listener.accept()?.0), service)
        }
        Listener::Unix(listener) => {
            let listener = UnixListener::from(listener);
            accept_all(|| Ok(listener.accept()?.0), service)
        }
    }
}

/// Serves on several OS threads, each of which has a listener of its own at `address`.
pub(super) fn cluster(address: &str, service: Service, threads: usize) -> io::Result<()> {
    // The address is reserved by a socket that allows it.
    let cluster = Cluster::new(threads).listen_options(ListenOptions::new().reuse_port(true));
    let server = cluster.serve(address, move |stream, _| answer_all(stream, service))?;
    server.join().map(drop)
}

fn accept_all<S: Read + Write + 'static>(accept: impl Fn() -> io::Result<S>, service: Service) -> io::Result<()> {
    loop {
        let stream = accept()?;
        spawn_n(move || answer_all(stream, service));
    }
}

fn answer_all(mut stream: impl Read + Write, service: Service) {
    let mut buffer = [0; BUFFER];
    while let Ok(count @ 1..) = stream.read(&mut buffer)
        && stream.write_all(service.answer(&buffer[..count])).is_ok()
    {}
}
