//! Calls that can return an error return an interruption of the main greenlet as one.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::support::in_child;
use greenhub::debug::set_report_stream;
use greenhub::future::try_block_on;
use greenhub::hub::{LoopError, LoopErrorKind, interrupt_on};
use greenhub::io::stdin;
use greenhub::net::{Accept, Accepted, Cluster, ServeError, SocketAddr, TcpListener, TcpStream, UdpSocket, serve};
use greenhub::os::unix::net::UnixStream;
use greenhub::process::Command;
use greenhub::sync::{Event, GetError, PutError, Queue, Semaphore, WaitError};
use greenhub::thread::{try_sleep, yield_now};
use greenhub::tpool::JobError;
use greenhub::{
    GreenError, GreenPool, Interest, TrampolineError, get_hub, select, sleep, spawn, spawn_n, tpool, trampoline,
};

const LONG: Duration = Duration::from_secs(3600);

/// Calls `wait` in the main greenlet, which a signal interrupts, and asserts that it returns the interruption.
#[track_caller]
fn is_interrupted(wait: impl FnOnce() -> Result<(), LoopError>) {
    let sender = spawn(|| {
        sleep(Duration::from_millis(5));
        signal_hook::low_level::raise(libc::SIGTERM).expect("a signal");
    });
    let error = wait().expect_err("interrupted");
    assert_eq!(error.kind(), LoopErrorKind::Interrupted, "{error}");
    sender.join().expect("no panic");
}

/// Runs `test` in a process of its own, whose main greenlet SIGTERM interrupts.
#[track_caller]
fn with_interrupts(test: impl FnOnce()) {
    in_child(|| {
        let _interrupt = interrupt_on(libc::SIGTERM).expect("a signal that can be caught");
        // Keeps the loop alive.
        spawn_n(|| sleep(LONG));
        test();
    });
}

fn of_io<T>(result: io::Result<T>) -> Result<(), LoopError> {
    result.map(drop).map_err(|error| LoopError::from_io_error(&error).unwrap_or_else(|| panic!("{error:?}")))
}

fn of_green<T>(result: Result<T, GreenError>) -> Result<(), LoopError> {
    match result {
        Err(GreenError::Loop(error)) => Err(error),
        other => panic!("{:?}", other.map(drop)),
    }
}

fn of_serve<T>(result: Result<T, ServeError>) -> Result<(), LoopError> {
    match result {
        Err(ServeError::Loop(error)) => Err(error),
        other => panic!("{:?}", other.map(drop)),
    }
}

#[test]
fn try_sleep_returns_the_interruption() {
    with_interrupts(|| is_interrupted(|| try_sleep(LONG)));
}

#[test]
fn try_sleep_returns_the_end_of_an_aborted_loop() {
    in_child(|| {
        spawn_n(|| get_hub().abort());
        assert_eq!(try_sleep(LONG).expect_err("aborted").kind(), LoopErrorKind::Aborted);
    });
}

#[test]
fn try_sleep_in_a_callback_returns_an_error() {
    in_child(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let _timer = get_hub().schedule(Duration::ZERO, move || {
            sender.send((try_sleep(LONG), try_sleep(Duration::ZERO))).expect("the test waits");
        });
        sleep(Duration::from_millis(1));
        let (long, none) = receiver.recv().expect("the timer has fired");
        assert_eq!(long.expect_err("refused").kind(), LoopErrorKind::InMainloop);
        none.expect("a sleep of zero does nothing in a callback");
    });
}

#[test]
fn sockets_and_pipes_return_the_interruption() {
    with_interrupts(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        is_interrupted(|| of_io(listener.accept()));
        let address = listener.local_addr().expect("an address");
        let mut stream = TcpStream::connect(address).expect("a listener");
        is_interrupted(|| of_io(stream.read(&mut [0])));
        is_interrupted(|| of_io(stream.write_all(&vec![0; 1 << 26])));
        is_interrupted(|| of_io(UnixStream::pair().and_then(|(mut one, _other)| one.read_exact(&mut [0]))));
        is_interrupted(|| of_io(UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.recv(&mut [0]))));
        is_interrupted(|| of_io(greenhub::io::pipe().and_then(|(mut reader, _writer)| reader.read(&mut [0]))));
        let (reader, _writer) = io::pipe().expect("a pipe");
        is_interrupted(|| match trampoline(&reader, Interest::READ, None) {
            Err(TrampolineError::Loop(error)) => Err(error),
            other => panic!("{other:?}"),
        });
        let mut waits = [select::PollFd::new(&reader, Interest::READ)];
        is_interrupted(|| of_io(select::poll(&mut waits, None)));
    });
}

#[test]
fn a_read_of_standard_input_that_waits_for_the_lock_returns_the_interruption() {
    with_interrupts(|| {
        let holder = spawn(|| {
            let _lock = stdin().lock();
            sleep(LONG);
        });
        yield_now();
        is_interrupted(|| of_io(stdin().read_line(&mut String::new())));
        is_interrupted(|| of_io(stdin().read(&mut [0])));
        is_interrupted(|| of_io((&stdin()).read_to_end(&mut Vec::new())));
        holder.kill();
        drop(stdin().lock());
    });
}

#[test]
fn primitives_return_the_interruption() {
    with_interrupts(|| {
        is_interrupted(|| of_green(Event::<()>::new().wait()));
        is_interrupted(|| of_green(Event::<()>::new().wait_timeout(LONG)));
        is_interrupted(|| Semaphore::new(0).acquire().map(drop));
        is_interrupted(|| match Semaphore::new(0).acquire_timeout(LONG) {
            Err(WaitError::Loop(error)) => Err(error),
            other => panic!("{:?}", other.map(drop)),
        });
        is_interrupted(|| match Queue::<()>::new().get() {
            Err(GetError::Loop(error)) => Err(error),
            other => panic!("{other:?}"),
        });
        let full = Queue::bounded(1);
        full.put(()).expect("the queue has room");
        is_interrupted(|| match full.put(()) {
            Err(PutError::Loop { error, .. }) => Err(error),
            other => panic!("{other:?}"),
        });
    });
}

#[test]
fn waits_for_green_threads_jobs_children_and_futures_return_the_interruption() {
    with_interrupts(|| {
        is_interrupted(|| of_green(spawn(|| sleep(LONG)).join()));
        is_interrupted(|| of_green(spawn(|| sleep(LONG)).wait()));
        is_interrupted(|| try_block_on(std::future::pending::<()>()));
        is_interrupted(|| get_hub().join(None).map(drop));
        let pool = GreenPool::new(1);
        pool.spawn(|| sleep(LONG)).expect("the pool has room");
        is_interrupted(|| pool.spawn(|| ()).map(drop));
        is_interrupted(|| match pool.wait_all() {
            Err(GreenError::Loop(error)) => Err(error),
            other => panic!("{other:?}"),
        });
        let mut child = Command::new("sleep").arg("3600").spawn().expect("a child");
        is_interrupted(|| of_io(child.wait()));
        child.kill().expect("our child");
        drop(child.wait());
        is_interrupted(|| match tpool::execute(|| std::thread::sleep(Duration::from_millis(500))) {
            Err(JobError::Io(error)) => of_io(Err::<(), _>(error)),
            other => panic!("{other:?}"),
        });
    });
}

#[test]
fn a_server_returns_the_interruption() {
    with_interrupts(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        is_interrupted(|| of_serve(serve(&listener, &GreenPool::new(10), |_, _| ())));
    });
}

#[test]
fn the_join_of_a_cluster_returns_the_interruption_and_its_os_threads_run_on() {
    with_interrupts(|| {
        let server = Cluster::new(2).serve("127.0.0.1:0", |mut stream, _| stream.write_all(b"hello")).expect("a port");
        let (address, stop) = (server.local_addr(), server.stop());
        is_interrupted(|| of_io(server.join()));
        let mut greeting = String::new();
        TcpStream::connect(address).and_then(|mut stream| stream.read_to_string(&mut greeting)).expect("a greeting");
        assert_eq!(greeting, "hello");
        stop.stop();
    });
}

#[test]
fn the_start_of_a_cluster_returns_the_interruption() {
    with_interrupts(|| {
        let (release, released) = std::sync::mpsc::channel();
        let released = std::sync::Mutex::new(released);
        let cluster = Cluster::new(1).setup(move |_| released.lock().unwrap().recv().map_err(io::Error::other));
        let sender = spawn(move || {
            sleep(Duration::from_millis(5));
            signal_hook::low_level::raise(libc::SIGTERM).expect("a signal");
            // The interruption comes before this timer.
            sleep(Duration::from_millis(5));
            release.send(())
        });
        let error = of_io(cluster.serve("127.0.0.1:0", |_, _| ())).expect_err("interrupted");
        assert_eq!(error.kind(), LoopErrorKind::Interrupted, "{error}");
        sender.join().expect("no panic").expect("the setup waits");
    });
}

#[test]
fn a_server_with_a_full_pool_returns_the_interruption() {
    with_interrupts(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let _client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a listener");
        is_interrupted(|| of_serve(serve(&listener, &GreenPool::new(1), |_, _| sleep(LONG))));
    });
}

/// A listener whose accept always fails with EMFILE.
#[derive(Debug)]
struct Exhausted;

impl Accept for Exhausted {
    type Stream = TcpStream;
    type Address = SocketAddr;

    fn accept_if<T>(&self, _: impl FnMut() -> Option<T>) -> io::Result<Option<Accepted<Exhausted, T>>> {
        Err(io::Error::from_raw_os_error(libc::EMFILE))
    }

    fn is_closed(&self) -> bool {
        false
    }
}

#[test]
fn a_server_that_pauses_returns_the_interruption() {
    with_interrupts(|| {
        set_report_stream(|_| ());
        is_interrupted(|| of_serve(serve(&Exhausted, &GreenPool::new(1), |_, _| ())));
    });
}

#[test]
fn a_system_error_holds_no_loop_error() {
    let refused =
        TcpStream::connect(crate::support::closed_port::ClosedPort::new().address).expect_err("nothing listens");
    assert!(LoopError::from_io_error(&refused).is_none());
    assert!(LoopError::from_io_error(&io::ErrorKind::TimedOut.into()).is_none());
}

#[test]
fn an_io_error_holds_the_error_of_a_hub_that_cannot_be_built() {
    let error = io::Error::from(greenhub::hub::HubError::NoneAvailable);
    let found = LoopError::from_io_error(&error).expect("an error of the loop");
    assert_eq!(found.kind(), LoopErrorKind::Hub);
}
