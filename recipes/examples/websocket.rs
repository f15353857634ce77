//! async-tungstenite, unchanged, over green sockets, on any hub and without a runtime: a WebSocket server that echoes.
//!
//! `cargo run -p recipes --example websocket -- epoll`

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use async_tungstenite::tungstenite::{Error, Message};
use async_tungstenite::{WebSocketStream, accept_async, client_async};
use futures_util::StreamExt;
use greenhub::future::{AsyncIo, block_on};
use greenhub::net::{TcpListener, TcpStream};
use greenhub::{GreenThread, spawn, spawn_n};
use recipes::web::AnyError;

fn main() -> ExitCode {
    recipes::way::main(|| {
        let (address, _server) = serve(|text| text.to_uppercase())?;
        let mut client = Client::connect(address)?;
        for text in ["one", "two", "three"] {
            println!("{}", client.ask(text)?);
        }
        client.close()?;
        Ok::<_, AnyError>(())
    })
}

/// Starts a server that responds to each text with `answer`, which may block.
pub(crate) fn serve<A>(answer: A) -> io::Result<(SocketAddr, GreenThread<()>)>
where
    A: Fn(&str) -> String + Clone + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let answer = answer.clone();
            // A client that breaks the connection off is no failure of the server.
            spawn_n(move || drop(talk(stream, answer)));
        }
    });
    Ok((address, server))
}

/// Talks to one client in straight-line code, in which each step of the library is one `block_on`.
fn talk(stream: TcpStream, answer: impl Fn(&str) -> String) -> Result<(), Error> {
    let mut socket = block_on(accept_async(AsyncIo::new(stream)))?;
    while let Some(message) = block_on(socket.next()) {
        if let Message::Text(text) = message? {
            block_on(socket.send(answer(text.as_str()).into()))?;
        }
    }
    Ok(())
}

/// A connection to the server.
#[derive(Debug)]
pub(crate) struct Client(WebSocketStream<AsyncIo<TcpStream>>);

impl Client {
    /// Connects. Switches.
    pub(crate) fn connect(address: SocketAddr) -> Result<Client, Error> {
        let stream = AsyncIo::new(TcpStream::connect(address)?);
        let (socket, _response) = block_on(client_async(format!("ws://{address}/"), stream))?;
        Ok(Client(socket))
    }

    /// Sends a text and returns the next one. Switches.
    pub(crate) fn ask(&mut self, text: &str) -> Result<String, Error> {
        block_on(async {
            self.0.send(text.into()).await?;
            match self.0.next().await {
                Some(message) => Ok(message?.to_text()?.to_owned()),
                None => Err(Error::ConnectionClosed),
            }
        })
    }

    /// Closes the connection, and waits until the server has done so, too. Switches.
    pub(crate) fn close(mut self) -> Result<(), Error> {
        block_on(async {
            self.0.close(None).await?;
            while let Some(message) = self.0.next().await {
                message?;
            }
            Ok(())
        })
    }
}
