//! A program to look at: an echo server with clients, a queue with workers, and a console at the path that is given.
//!
//! `cargo run --example demo -- /tmp/demo` in one terminal, `greenhub-top /tmp/demo` in another.

use std::error::Error;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use greenhub::net::{TcpListener, TcpStream, serve};
use greenhub::sync::Queue;
use greenhub::{Builder, GreenPool, sleep, tpool};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("the path of the console is missing")?;
    let _console = greenhub::debug::console(path)?;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    Builder::new().name("server".into()).spawn(move || {
        let pool = GreenPool::new(100);
        serve(&listener, &pool, |mut stream: TcpStream, _| {
            let mut bytes = [0; 64];
            // The client ends the connection.
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                if stream.write_all(&bytes[..count]).is_err() {
                    return;
                }
            }
        })
    })?;
    for number in 1..=5_u64 {
        Builder::new().name(format!("client {number}")).spawn(move || -> io::Result<()> {
            let mut stream = TcpStream::connect(address)?;
            loop {
                stream.write_all(b"hello")?;
                stream.read_exact(&mut [0; 5])?;
                sleep(Duration::from_millis(100 * number));
            }
        })?;
    }

    let jobs = Rc::new(Queue::bounded(10));
    for number in 1..=2 {
        let jobs = Rc::clone(&jobs);
        Builder::new().name(format!("worker {number}")).spawn(move || {
            while let Ok(time) = jobs.get() {
                // A computation, which would block the loop here.
                let _ = tpool::execute(move || std::thread::sleep(time));
            }
        })?;
    }
    loop {
        jobs.put(Duration::from_millis(30))?;
        sleep(Duration::from_millis(250));
    }
}
