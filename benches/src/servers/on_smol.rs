//! smol: a task for each connection, on one OS thread.

use std::io;

use smol::LocalExecutor;
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use smol::net::TcpListener;
use smol::net::unix::UnixListener;

use super::{BUFFER, Listener, Service};

pub(super) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(accept_all(&executor, listener, service)))
}

async fn accept_all(executor: &LocalExecutor<'_>, listener: Listener, service: Service) -> io::Result<()> {
    match listener {
        Listener::Tcp(listener) => {
            let listener = TcpListener::try_from(listener)?;
            loop {
                executor.spawn(answer_all(listener.accept().await?.0, service)).detach();
            }
        }
        Listener::Unix(listener) => {
            let listener = UnixListener::try_from(listener)?;
            loop {
                executor.spawn(answer_all(listener.accept().await?.0, service)).detach();
            }
        }
    }
}

async fn answer_all(mut stream: impl AsyncRead + AsyncWrite + Unpin, service: Service) {
    let mut buffer = [0; BUFFER];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await
        && stream.write_all(service.answer(&buffer[..count])).await.is_ok()
    {}
}
