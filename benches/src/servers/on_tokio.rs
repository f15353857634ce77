//! tokio: a task for each connection, on its current-thread or on its multi-thread runtime.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;

use super::{BUFFER, Listener, Service};

/// Serves on the multi-thread runtime with `workers`, or on the current-thread runtime without them.
pub(super) fn serve(listener: Listener, service: Service, workers: Option<usize>) -> io::Result<()> {
    let runtime = match workers {
        Some(workers) => Builder::new_multi_thread().worker_threads(workers).enable_io().build()?,
        None => Builder::new_current_thread().enable_io().build()?,
    };
    // In a task, because `block_on` of the multi-thread runtime runs its future on an OS thread that is no worker.
    runtime.block_on(async move { tokio::spawn(accept_all(listener, service)).await? })
}

async fn accept_all(listener: Listener, service: Service) -> io::Result<()> {
    match listener {
        Listener::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            loop {
                tokio::spawn(answer_all(listener.accept().await?.0, service));
            }
        }
        Listener::Unix(listener) => {
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            loop {
                tokio::spawn(answer_all(listener.accept().await?.0, service));
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
