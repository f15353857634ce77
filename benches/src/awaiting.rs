//! Ping-pong between two tasks of Tokio for each pair of sockets, and sockets of Tokio as blocking ones.

use std::io::{self, Read, Write};

use greenhub::future::block_on;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

/// Builds a current-thread runtime with timers and sockets.
///
/// # Panics
///
/// Panics if the system lacks descriptors.
#[must_use]
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Sends a message of `bytes` over each pair and back, `rounds` times, in tasks of the current runtime.
///
/// # Panics
///
/// Panics if a socket fails, or if a connection ends early.
pub async fn ping_pong<S>(pairs: Vec<(S, S)>, rounds: u64, bytes: usize)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let player = |(mut near, mut far): (S, S)| {
        tokio::spawn(async move {
            let mut message = vec![0; bytes];
            for _ in 0..rounds {
                far.read_exact(&mut message).await.expect("a message comes");
                far.write_all(&message).await.expect("the peer reads");
            }
        });
        tokio::spawn(async move {
            let mut message = vec![7; bytes];
            for _ in 0..rounds {
                near.write_all(&message).await.expect("a message is sent");
                near.read_exact(&mut message).await.expect("the message comes back");
            }
        })
    };
    let players: Vec<_> = pairs.into_iter().map(player).collect();
    for player in players {
        player.await.expect("no panic");
    }
}

/// A socket of Tokio, each of whose operations is one `block_on`.
#[derive(Debug)]
pub struct Awaited<S>(pub S);

impl<S: AsyncRead + Unpin> Read for Awaited<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        block_on(self.0.read(buffer))
    }
}

impl<S: AsyncWrite + Unpin> Write for Awaited<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        block_on(self.0.write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        block_on(self.0.flush())
    }
}
