//! tungstenite without glue: its blocking WebSocket takes a green socket.
//!
//! `cargo run -p recipes --example tungstenite_echo -- epoll`

use std::net::SocketAddr;
use std::process::ExitCode;

use greenhub::net::{TcpListener, TcpStream};
use greenhub::{GreenThread, spawn, spawn_n};
use recipes::web::AnyError;
use tungstenite::handshake::HandshakeError;
use tungstenite::{Message, WebSocket, accept, client};

fn main() -> ExitCode {
    recipes::way::main(|| {
        let (address, _server) = serve(|text| text.to_uppercase())?;
        let mut socket = connect(address)?;
        for text in ["one", "two", "three"] {
            println!("{}", ask(&mut socket, text)?);
        }
        socket.close(None)?;
        Ok::<_, AnyError>(())
    })
}

/// Starts a server that answers each text with `answer`, which may block.
pub(crate) fn serve(
    answer: impl Fn(&str) -> String + Clone + 'static,
) -> Result<(SocketAddr, GreenThread<()>), AnyError> {
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

fn talk(stream: TcpStream, answer: impl Fn(&str) -> String) -> Result<(), AnyError> {
    let mut socket = accept(stream).map_err(failed)?;
    loop {
        match socket.read()? {
            Message::Text(text) => socket.send(Message::text(answer(&text)))?,
            Message::Close(_) => return Ok(socket.flush()?),
            _ => {}
        }
    }
}

/// Connects and does the handshake. Switches.
pub(crate) fn connect(address: SocketAddr) -> Result<WebSocket<TcpStream>, AnyError> {
    let (socket, _) = client(format!("ws://{address}/"), TcpStream::connect(address)?).map_err(failed)?;
    Ok(socket)
}

/// Sends a text, and returns the answer. Switches.
pub(crate) fn ask(socket: &mut WebSocket<TcpStream>, text: &str) -> Result<String, AnyError> {
    socket.send(Message::text(text))?;
    Ok(socket.read()?.into_text()?.as_str().to_owned())
}

/// A green socket never says "not now", so a handshake is never interrupted.
fn failed<R: tungstenite::handshake::HandshakeRole>(error: HandshakeError<R>) -> AnyError {
    error.to_string().into()
}
