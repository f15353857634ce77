//! may: a coroutine for each connection, on one worker.

use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, IntoRawFd};

use may::net::TcpListener;
use may::os::unix::net::UnixListener;

use super::{BUFFER, Listener, Service};

pub(super) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    may::config().set_workers(1);
    let server = may::go!(move || match listener {
        Listener::Tcp(listener) => {
            // SAFETY: `into_raw_fd` gives up the ownership of the open descriptor.
            let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
            accept_all(|| Ok(listener.accept()?.0), service)
        }
        Listener::Unix(listener) => {
            // SAFETY: as above.
            let listener = unsafe { UnixListener::from_raw_fd(listener.into_raw_fd()) };
            accept_all(|| Ok(listener.accept()?.0), service)
        }
    });
    server.join().map_err(|_| io::Error::other("the server has panicked"))?
}

fn accept_all<S: Read + Write + Send + 'static>(
    accept: impl Fn() -> io::Result<S>,
    service: Service,
) -> io::Result<()> {
    loop {
        let mut stream = accept()?;
        may::go!(move || {
            let mut buffer = [0; BUFFER];
            while let Ok(count @ 1..) = stream.read(&mut buffer)
                && stream.write_all(service.answer(&buffer[..count])).is_ok()
            {}
        });
    }
}
