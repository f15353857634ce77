//! smol, unchanged, in green threads of any hub: its timers and sockets have a reactor on an OS thread of their own.
//!
//! `cargo run -p recipes --example smol_beside -- epoll`

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::{AsyncReadExt, AsyncWriteExt};
use greenhub::future::block_on;
use greenhub::{get_hub, spawn};
use recipes::web::AnyError;
use smol::net::{TcpListener, TcpStream};

fn main() -> ExitCode {
    recipes::way::main(|| {
        let timers: Vec<_> = (1..=3).map(|number| spawn(move || pause(Duration::from_millis(number)))).collect();
        timers.into_iter().try_for_each(|timer| timer.join())?;
        println!("three timers of smol");
        println!("{}", String::from_utf8_lossy(&echo(b"a message through sockets of smol")?));
        println!("smol waited for {}", ask_from_smol(|| "a green thread")?);
        Ok::<_, AnyError>(())
    })
}

/// Waits for a timer of smol. Switches.
pub(crate) fn pause(duration: Duration) {
    block_on(smol::Timer::after(duration));
}

/// Sends a message through sockets of smol, and returns what comes back. Switches.
pub(crate) fn echo(message: &[u8]) -> io::Result<Vec<u8>> {
    let listener = block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let server = spawn(move || -> io::Result<()> {
        let (mut stream, _) = block_on(listener.accept())?;
        let mut received = Vec::new();
        block_on(stream.read_to_end(&mut received))?;
        block_on(stream.write_all(&received))
    });
    let mut stream = block_on(TcpStream::connect(address))?;
    block_on(stream.write_all(message))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut echoed = Vec::new();
    block_on(stream.read_to_end(&mut echoed))?;
    server.join().map_err(io::Error::other)??;
    Ok(echoed)
}

/// Lets smol's `block_on`, on another OS thread, wait for a green thread of this one. Switches.
///
/// In a green thread smol's `block_on` would block all of them.
pub(crate) fn ask_from_smol<T: Send + 'static>(question: impl FnOnce() -> T + Send + 'static) -> Result<T, AnyError> {
    let remote = get_hub().remote();
    let answered = greenhub::tpool::execute(move || Ok(smol::block_on(remote.defer(question)?)?));
    answered.map_err(|error| error.to_string())?
}
