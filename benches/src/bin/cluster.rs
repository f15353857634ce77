//! Compares the responses per second of a server on one OS thread and on two. Each response takes processor time.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use greenhub::net::{Cluster, TcpStream};

/// The processor time of a response.
const WORK: Duration = Duration::from_micros(100);
const CLIENTS: usize = 64;
const RUN: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let counts: Vec<f64> = [1, 2, 1, 2].map(responses_per_second).into();
    println!("1 OS thread: {:.0} and {:.0} responses per second", counts[0], counts[2]);
    println!("2 OS threads: {:.0} and {:.0} responses per second", counts[1], counts[3]);
    println!("ratio: {:.2}", (counts[1] + counts[3]) / (counts[0] + counts[2]));
    ExitCode::SUCCESS
}

fn responses_per_second(threads: usize) -> f64 {
    let server = Cluster::new(threads).serve("127.0.0.1:0", serve).expect("a port");
    let (address, responses, over) =
        (server.local_addr(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (responses, over) = (Arc::clone(&responses), Arc::clone(&over));
            greenhub::spawn(move || {
                let mut stream = TcpStream::connect(address).expect("the server listens");
                while !over.load(Ordering::Relaxed) {
                    stream.write_all(b"?").expect("the peer reads");
                    stream.read_exact(&mut [0]).expect("the server responds");
                    responses.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    greenhub::sleep(RUN);
    over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no panic"));
    let rate = responses.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    server.stop().stop();
    drop(server.join().expect("the main greenlet can wait"));
    rate
}

fn serve(mut stream: TcpStream, _: std::net::SocketAddr) {
    while stream.read_exact(&mut [0]).is_ok() {
        let begun = Instant::now();
        while begun.elapsed() < WORK {
            std::hint::spin_loop();
        }
        if stream.write_all(b"!").is_err() {
            return;
        }
    }
}
