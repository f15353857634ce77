//! monoio on its epoll driver: a task for each connection. Its reads and writes take the buffer, so it only echoes.

use std::io;

use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, UnixListener};
use monoio::{LegacyDriver, RuntimeBuilder};

use super::{BUFFER, Listener};

pub(super) fn serve(listener: Listener) -> io::Result<()> {
    RuntimeBuilder::<LegacyDriver>::new().build()?.block_on(accept_all(listener))
}

async fn accept_all(listener: Listener) -> io::Result<()> {
    match listener {
        Listener::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            loop {
                monoio::spawn(echo_all(listener.accept().await?.0));
            }
        }
        Listener::Unix(listener) => {
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            loop {
                monoio::spawn(echo_all(listener.accept().await?.0));
            }
        }
    }
}

async fn echo_all(mut stream: impl AsyncReadRent + AsyncWriteRent) {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let (count, request) = stream.read(buffer).await;
        if matches!(count, Ok(0) | Err(_)) {
            return;
        }
        let (written, request) = stream.write_all(request).await;
        if written.is_err() {
            return;
        }
        buffer = request;
    }
}
