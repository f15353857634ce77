//! The clients: each sends messages in a loop, receives each message back, and compares it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use greenhub::GreenThread;
use greenhub::net::TcpStream;

use crate::options::Options;
use crate::{Run, TIMEOUT, add};

/// Messages up to this size fit into the buffers of the sockets. A larger one needs a concurrent sender and receiver.
const MAX_BUFFERED: usize = 16 * 1024;

/// The number of concurrent connection attempts. More could overflow the queue of the listening socket.
const CONCURRENT_CONNECTS: usize = 64;

/// Opens all connections, counts those that fail, and returns the others.
pub(crate) fn connect(run: &Run, options: &Options, addresses: &[SocketAddr]) -> Vec<TcpStream> {
    let wanted = if addresses.is_empty() { 0 } else { options.connections() };
    let mut connected = Vec::with_capacity(wanted);
    let numbers: Vec<usize> = (0..wanted).collect();
    for batch in numbers.chunks(CONCURRENT_CONNECTS) {
        let connecting: Vec<(SocketAddr, GreenThread<io::Result<TcpStream>>)> = batch
            .iter()
            .map(|number| addresses[number % addresses.len()])
            .map(|address| (address, greenhub::spawn(move || connect_one(address))))
            .collect();
        for (address, one) in connecting {
            match one.join().map_err(io::Error::from).and_then(|result| result) {
                Ok(stream) => {
                    connected.push(stream);
                    run.connected.set(connected.len());
                }
                Err(error) => run.failed(&format!("connecting to {address}"), &error),
            }
        }
    }
    connected
}

fn connect_one(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Starts a green thread for each connection.
pub(crate) fn start(run: &Rc<Run>, connected: Vec<TcpStream>, bytes: usize) -> Vec<GreenThread<io::Result<()>>> {
    connected
        .into_iter()
        .zip(0..)
        .map(|(stream, number)| {
            let run = Rc::clone(run);
            greenhub::spawn(move || talk(&run, &stream, number, bytes))
        })
        .collect()
}

/// Joins all clients, and counts those that failed.
pub(crate) fn join(run: &Run, clients: Vec<GreenThread<io::Result<()>>>) {
    for client in clients {
        if let Err(error) = client.join().map_err(io::Error::from).and_then(|result| result) {
            run.failed("talking to the server", &error);
        }
    }
}

/// Exchanges messages until the run is over.
fn talk(run: &Run, stream: &TcpStream, number: u64, bytes: usize) -> io::Result<()> {
    let mut sent = vec![0; bytes];
    let mut received = vec![0; bytes];
    for round in 0.. {
        if run.stopping.get() {
            break;
        }
        fill(&mut sent, number << 32 | round);
        let begun = Instant::now();
        exchange(stream, &sent, &mut received)?;
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if received != sent {
            let at = received.iter().zip(&sent).position(|(got, expected)| got != expected);
            let text = format!("byte {} of a message came back altered", at.unwrap_or_default());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        add(&run.compared, 1);
        run.latencies.borrow_mut().saturating_record(nanos);
    }
    Ok(())
}

/// Sends a message and receives it back.
fn exchange(stream: &TcpStream, sent: &[u8], received: &mut [u8]) -> io::Result<()> {
    let (mut writer, mut reader) = (stream, stream);
    if sent.len() <= MAX_BUFFERED {
        writer.write_all(sent)?;
        return reader.read_exact(received);
    }
    greenhub::scope(|scope| {
        let writing = scope.spawn(|| writer.write_all(sent));
        let read = reader.read_exact(received);
        if read.is_err() {
            // Nothing more will be compared: end the sender, which may wait for the server.
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
        let written = writing.join().map_err(io::Error::from).and_then(|result| result);
        read.and(written)
    })
}

/// Fills a message with bytes that depend on the seed and the position.
fn fill(message: &mut [u8], seed: u64) {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    for part in message.chunks_mut(8) {
        // The linear congruential generator of Knuth's MMIX.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        part.copy_from_slice(&state.to_be_bytes()[..part.len()]);
    }
}
