//! `AsyncIo` over green sockets and pipes, and the `Sleep` of futures, without the traits of any ecosystem.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::support::counting::allocations;
use crate::support::descriptors::{assert_no_waiters, ms, stats};
use crate::support::hubs::use_manual_clock;
use crate::support::{HANG, run};
use greenhub::future::{AsyncIo, PollRead, PollWrite, block_on, sleep, spawn_future};
use greenhub::net::{TcpListener, TcpStream};
use greenhub::os::unix::net::{UnixListener, UnixStream};
use greenhub::process::Command;
use greenhub::thread::yield_now;
use greenhub::{get_hub, kill, spawn, with_timeout};

/// Polls a future once.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

/// Counts its wake-ups.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Count>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

async fn read_to_end<S: PollRead>(io: &mut AsyncIo<S>) -> std::io::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
    loop {
        match io.read(&mut buffer).await? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

async fn write_all<S: PollWrite>(io: &mut AsyncIo<S>, mut data: &[u8]) -> std::io::Result<()> {
    while !data.is_empty() {
        let n = io.write(data).await?;
        data = &data[n..];
    }
    Ok(())
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("the listener has an address");
    let client = spawn(move || TcpStream::connect(address).expect("a listener"));
    let (server, _) = listener.accept().expect("a client");
    (client.join().expect("no panic"), server)
}

/// More than the buffers of a connection take, so that the writer waits many times.
const MUCH: usize = 8 << 20;

/// Sends `MUCH` from one end to the other, each in a green thread of its own.
fn transfers<W: PollWrite + 'static, R: PollRead + 'static>(writer: W, reader: R) {
    let data: Vec<u8> = (0..MUCH).map(|i| (i / 7) as u8).collect();
    let expected = data.clone();
    let sent = spawn_future(async move {
        let mut writer = AsyncIo::new(writer);
        write_all(&mut writer, &data).await.expect("a reader");
        writer.get_ref().end_write().expect("the socket is connected");
        writer
    });
    let received = spawn_future(async move { read_to_end(&mut AsyncIo::new(reader)).await.expect("a writer") });
    assert!(received.join().expect("no panic") == expected, "the data differs");
    drop(sent.join().expect("no panic"));
    assert_no_waiters();
}

#[test]
fn a_tcp_stream_transfers_more_than_its_buffers() {
    run("a_tcp_stream_transfers_more_than_its_buffers", || {
        let (here, there) = tcp_pair();
        transfers(here, there);
    });
}

#[test]
fn a_unix_stream_transfers_more_than_its_buffers() {
    run("a_unix_stream_transfers_more_than_its_buffers", || {
        let (here, there) = UnixStream::pair().expect("a pair");
        transfers(here, there);
    });
}

#[test]
fn a_pipe_transfers_more_than_its_buffer() {
    run("a_pipe_transfers_more_than_its_buffer", || {
        let (reader, writer) = greenhub::io::pipe().expect("a pipe");
        transfers(writer, reader);
    });
}

#[test]
fn a_shared_pipe_transfers_more_than_its_buffer() {
    run("a_shared_pipe_transfers_more_than_its_buffer", || {
        // Not made non-blocking, because another process might have them.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let reader = greenhub::io::PipeReader::from(OwnedFd::from(reader));
        transfers(greenhub::io::PipeWriter::from(OwnedFd::from(writer)), reader);
    });
}

#[test]
fn the_pipes_of_a_child_transfer_more_than_their_buffers() {
    run("the_pipes_of_a_child_transfer_more_than_their_buffers", || {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program `cat` starts");
        transfers(
            child.stdin.take().expect("standard input is piped"),
            child.stdout.take().expect("standard output is piped"),
        );
        assert!(child.wait().expect("a child").success());
    });
}

#[test]
fn end_write_leaves_the_reading_half_of_a_socket_open() {
    run("end_write_leaves_the_reading_half_of_a_socket_open", || {
        for (here, mut there) in [tcp_pair(), tcp_pair()] {
            let mut here = AsyncIo::new(here);
            let peer = spawn(move || {
                let mut text = String::new();
                there.read_to_string(&mut text).expect("the end");
                there.write_all(format!("{text}, answered").as_bytes()).expect("the other half is open");
            });
            let text = block_on(async {
                write_all(&mut here, b"asked").await?;
                here.get_ref().end_write()?;
                read_to_end(&mut here).await
            });
            assert_eq!(text.expect("an answer"), b"asked, answered");
            peer.join().expect("no panic");
        }
    });
}

#[test]
fn a_listener_accepts_for_a_future() {
    run("a_listener_accepts_for_a_future", || {
        let mut listener = AsyncIo::new(TcpListener::bind("127.0.0.1:0").expect("a port"));
        let address = listener.get_ref().local_addr().expect("the listener has an address");
        let accepted = spawn_future(async move { listener.accept().await.expect("a client") });
        yield_now();
        let client = TcpStream::connect(address).expect("a listener");
        let (stream, peer) = accepted.join().expect("no panic");
        assert_eq!(
            (peer, stream.local_addr().expect("the connection is open")),
            (client.local_addr().expect("the connection is open"), address)
        );
    });
}

#[test]
fn a_unix_listener_accepts_for_a_future() {
    run("a_unix_listener_accepts_for_a_future", || {
        let path = std::env::temp_dir().join(format!("greenhub-async-io-{}", std::process::id()));
        let mut listener = AsyncIo::new(UnixListener::bind(&path).expect("a free path"));
        let accepted = spawn_future(async move { listener.accept().await.expect("a client").0 });
        yield_now();
        let mut client = UnixStream::connect(&path).expect("a listener");
        client.write_all(b"hello").expect("the buffer has room");
        let mut buffer = [0; 5];
        accepted.join().expect("no panic").read_exact(&mut buffer).expect("the read succeeds");
        assert_eq!(&buffer, b"hello");
        std::fs::remove_file(path).expect("the socket");
    });
}

#[test]
fn closing_a_listener_ends_the_accept_of_a_future() {
    run("closing_a_listener_ends_the_accept_of_a_future", || {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").expect("a port"));
        let mut accepting = AsyncIo::new(Rc::clone(&listener));
        let accepted = spawn_future(async move { accepting.accept().await.map(drop) });
        yield_now();
        listener.close();
        let error = accepted.join().expect("no panic").expect_err("the descriptor is closed");
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_listener_that_is_shut_down_ends_the_accept_of_a_future() {
    run("a_listener_that_is_shut_down_ends_the_accept_of_a_future", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let other = std::os::fd::AsFd::as_fd(&listener).try_clone_to_owned().expect("a copy");
        let mut accepting = AsyncIo::new(listener);
        let accepted = spawn_future(async move { accepting.accept().await.map(drop) });
        yield_now();
        rustix::net::shutdown(&other, rustix::net::Shutdown::Both).expect("the descriptor is a listener");
        let error = accepted.join().expect("no panic").expect_err("shut down");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    });
}

#[test]
fn a_closed_stream_ends_the_read_of_a_future() {
    run("a_closed_stream_ends_the_read_of_a_future", || {
        let (here, _there) = UnixStream::pair().expect("a pair");
        let here = Arc::new(here);
        let mut reading = AsyncIo::new(Arc::clone(&here));
        let read = spawn_future(async move { reading.read(&mut [0]).await });
        yield_now();
        std::thread::spawn(move || here.close()).join().expect("no panic");
        assert_eq!(
            read.join().expect("no panic").expect_err("the descriptor is closed").kind(),
            ErrorKind::NotConnected
        );
    });
}

#[test]
fn shutdown_for_reading_ends_the_read_of_a_future() {
    run("shutdown_for_reading_ends_the_read_of_a_future", || {
        let (here, _there) = UnixStream::pair().expect("a pair");
        let here = Rc::new(here);
        let mut reading = AsyncIo::new(Rc::clone(&here));
        let read = spawn_future(async move { reading.read(&mut [0]).await });
        yield_now();
        here.shutdown(Shutdown::Read).expect("the socket is connected");
        assert_eq!(read.join().expect("no panic").expect("the end"), 0);
    });
}

#[test]
fn a_drop_makes_room_for_a_reading_green_thread() {
    run("a_drop_makes_room_for_a_reading_green_thread", || {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let here = Rc::new(here);
        let mut io = AsyncIo::new(Rc::clone(&here));
        let (count, mut buffer) = (Arc::new(Count::default()), [0; 8]);
        let waker = Waker::from(Arc::clone(&count));
        assert!(poll_once(pin!(io.read(&mut buffer)), &waker).is_pending());
        let refused = (&*here).read(&mut buffer).expect_err("a future reads");
        assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
        drop(io);
        there.write_all(b"x").expect("the buffer has room");
        assert_eq!((&*here).read(&mut buffer).expect("the read succeeds"), 1);
        drop(waker);
        yield_now();
        assert_eq!((count.0.load(Ordering::SeqCst), Arc::strong_count(&count)), (1, 1));
    });
}

/// Drops one of two adapters of a stream after both have polled in one direction, and returns the read of the other
/// one.
fn reads_after_a_drop(drop_one: impl FnOnce(AsyncIo<Rc<UnixStream>>)) -> usize {
    let (here, mut there) = UnixStream::pair().expect("a pair");
    let here = Rc::new(here);
    let mut first = AsyncIo::new(Rc::clone(&here));
    assert!(poll_once(pin!(first.read(&mut [0])), Waker::noop()).is_pending());
    let mut second = AsyncIo::new(here);
    let read = spawn_future(async move { second.read(&mut [0; 8]).await });
    yield_now();
    drop_one(first);
    yield_now();
    there.write_all(b"x").expect("the buffer has room");
    let read = with_timeout(HANG, || read.join()).expect("the drop of one adapter cancelled the read of the other");
    read.expect("no panic").expect("the read succeeds")
}

#[test]
fn the_drop_of_an_adapter_leaves_another_one_of_its_direction_pending() {
    run("the_drop_of_an_adapter_leaves_another_one_of_its_direction_pending", || {
        assert_eq!(reads_after_a_drop(drop), 1);
        assert_eq!(reads_after_a_drop(|first| drop(first.into_inner())), 1);
    });
}

#[test]
fn into_inner_cancels_a_pending_read() {
    run("into_inner_cancels_a_pending_read", || {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let mut io = AsyncIo::new(here);
        assert!(poll_once(pin!(io.read(&mut [0])), Waker::noop()).is_pending());
        let mut here = io.into_inner();
        assert_no_waiters();
        there.write_all(b"x").expect("the buffer has room");
        assert_eq!(here.read(&mut [0; 8]).expect("the read succeeds"), 1);
    });
}

#[test]
fn the_drop_of_one_half_leaves_the_other_pending() {
    run("the_drop_of_one_half_leaves_the_other_pending", || {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let here = Rc::new(here);
        let mut reading = AsyncIo::new(Rc::clone(&here));
        let writing = AsyncIo::new(here);
        let read = spawn_future(async move { reading.read(&mut [0; 8]).await });
        yield_now();
        drop(writing);
        there.write_all(b"x").expect("the buffer has room");
        assert_eq!(read.join().expect("no panic").expect("the read succeeds"), 1);
    });
}

#[test]
fn a_poll_is_refused_while_a_green_thread_reads() {
    run("a_poll_is_refused_while_a_green_thread_reads", || {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let here = Rc::new(here);
        let reading = Rc::clone(&here);
        let reader = spawn(move || (&*reading).read(&mut [0; 8]));
        yield_now();
        let mut io = AsyncIo::new(here);
        assert_eq!(block_on(io.read(&mut [0])).expect_err("a second reader").kind(), ErrorKind::ResourceBusy);
        there.write_all(b"x").expect("the buffer has room");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), 1);
    });
}

#[test]
fn a_kill_drops_a_pending_read() {
    run("a_kill_drops_a_pending_read", || {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let here = Rc::new(here);
        let mut io = AsyncIo::new(Rc::clone(&here));
        let reader = spawn(move || block_on(io.read(&mut [0])));
        yield_now();
        assert_eq!(stats().readers, 1);
        kill(&reader);
        assert_no_waiters();
        there.write_all(b"x").expect("the buffer has room");
        assert_eq!((&*here).read(&mut [0; 8]).expect("the read succeeds"), 1);
    });
}

#[test]
fn a_timeout_leaves_a_stream_usable() {
    run("a_timeout_leaves_a_stream_usable", || {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let mut io = AsyncIo::new(here);
        let mut buffer = [0; 8];
        assert!(with_timeout(ms(5), || block_on(io.read(&mut buffer))).is_err());
        there.write_all(b"x").expect("the buffer has room");
        assert_eq!(block_on(io.read(&mut buffer)).expect("the read succeeds"), 1);
    });
}

#[test]
fn timeouts_and_the_nonblocking_mode_do_not_concern_polls() {
    run("timeouts_and_the_nonblocking_mode_do_not_concern_polls", || {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        here.set_nonblocking(true).expect("the socket is open");
        here.set_read_timeout(Some(ms(1))).expect("the socket is open");
        let mut io = AsyncIo::new(here);
        let read = spawn_future(async move { io.read(&mut [0; 8]).await });
        greenhub::sleep(ms(20));
        there.write_all(b"x").expect("the buffer has room");
        assert_eq!(read.join().expect("no panic").expect("the read succeeds"), 1);
    });
}

#[test]
fn a_stream_may_move_to_another_thread_between_two_polls() {
    run("a_stream_may_move_to_another_thread_between_two_polls", || {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let mut io = AsyncIo::new(here);
        assert!(poll_once(pin!(io.read(&mut [0])), Waker::noop()).is_pending());
        let other = std::thread::spawn(move || block_on(io.read(&mut [0; 8])).expect("the read succeeds"));
        there.write_all(b"x").expect("the buffer has room");
        assert_eq!(other.join().expect("no panic"), 1);
        // The number is closed once this thread's hub has deregistered it.
        crate::support::descriptors::until(|| there.write_all(b"x").is_err());
    });
}

#[test]
fn a_stream_dropped_on_another_thread_is_disarmed() {
    run("a_stream_dropped_on_another_thread_is_disarmed", || {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let here = Arc::new(here);
        let mut io = AsyncIo::new(Arc::clone(&here));
        assert!(poll_once(pin!(io.read(&mut [0])), Waker::noop()).is_pending());
        std::thread::spawn(move || drop(io)).join().expect("no panic");
        crate::support::descriptors::until(|| stats().readers == 0);
        there.write_all(b"x").expect("the buffer has room");
        assert_eq!((&*here).read(&mut [0; 8]).expect("the read succeeds"), 1);
    });
}

#[test]
fn a_round_trip_of_futures_allocates_nothing_once_warm() {
    run("a_round_trip_of_futures_allocates_nothing_once_warm", || {
        let (here, there) = UnixStream::pair().expect("a pair");
        let mut there = AsyncIo::new(there);
        let echo = spawn_future(async move {
            let mut buffer = [0; 64];
            loop {
                match there.read(&mut buffer).await.expect("a peer") {
                    0 => return,
                    n => assert_eq!(there.write(&buffer[..n]).await.expect("the buffer has room"), n),
                }
            }
        });
        let mut here = AsyncIo::new(here);
        let mut round = || {
            block_on(async {
                here.write(b"ping").await.expect("the buffer has room");
                assert_eq!(here.read(&mut [0; 64]).await.expect("an echo"), 4);
            });
        };
        (0..100).for_each(|_| round());
        let before = allocations();
        (0..1000).for_each(|_| round());
        assert_eq!(allocations() - before, 0);
        drop(here);
        echo.join().expect("no panic");
    });
}

#[test]
fn a_busy_stream_lets_other_green_threads_run() {
    run("a_busy_stream_lets_other_green_threads_run", || {
        let (here, there) = tcp_pair();
        let stopped = Rc::new(std::cell::Cell::new(false));
        let stop = Rc::clone(&stopped);
        let mut here = AsyncIo::new(here);
        let mut there = AsyncIo::new(there);
        // Each operation succeeds at once, so nothing but the budget lets the other one in.
        let busy = spawn_future(async move {
            let mut buffer = [0; 1];
            while !stopped.get() {
                here.write(b"x").await.expect("the buffer has room");
                while there.read(&mut buffer).await.expect("the read succeeds") == 0 {}
            }
        });
        spawn(move || stop.set(true));
        busy.join().expect("no panic");
    });
}

#[test]
fn a_sleep_ends_at_its_time_by_the_clock_of_the_hub() {
    run("a_sleep_ends_at_its_time_by_the_clock_of_the_hub", || {
        let clock = use_manual_clock();
        let begun = clock.now();
        block_on(sleep(Duration::from_secs(3600)));
        assert!(clock.now() - begun >= Duration::from_secs(3600));
        block_on(sleep(Duration::ZERO));
    });
}

#[test]
fn a_dropped_sleep_has_no_timer() {
    run("a_dropped_sleep_has_no_timer", || {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        for _ in 0..100 {
            let mut sleep = pin!(sleep(Duration::from_secs(3600)));
            assert!(poll_once(sleep.as_mut(), &waker).is_pending());
            assert!(poll_once(sleep, &waker).is_pending());
            assert_eq!(stats().timers, 1);
        }
        assert_eq!(stats().timers, 0);
        drop(waker);
        assert_eq!((count.0.load(Ordering::SeqCst), Arc::strong_count(&count)), (0, 1));
    });
}

#[test]
fn another_waker_of_a_sleep_replaces_the_first() {
    run("another_waker_of_a_sleep_replaces_the_first", || {
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let mut sleep = pin!(sleep(ms(20)));
        assert!(poll_once(sleep.as_mut(), &Waker::from(Arc::clone(&first))).is_pending());
        assert!(poll_once(sleep.as_mut(), &Waker::from(Arc::clone(&second))).is_pending());
        while second.0.load(Ordering::SeqCst) == 0 {
            greenhub::sleep(ms(1));
        }
        assert_eq!(first.0.load(Ordering::SeqCst), 0);
        assert!(poll_once(sleep.as_mut(), Waker::noop()).is_ready());
    });
}

#[test]
fn a_sleep_outlives_a_change_of_hub_and_an_abort() {
    run("a_sleep_outlives_a_change_of_hub_and_an_abort", || {
        let begun = Instant::now();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut sleep = pin!(sleep(ms(50)));
        assert!(poll_once(sleep.as_mut(), &waker).is_pending());
        greenhub::use_hub("poll").expect("a hub");
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        if poll_once(sleep.as_mut(), &waker).is_pending() {
            yield_now();
            get_hub().abort_wait().expect("main waits");
            while count.0.load(Ordering::SeqCst) == 1 {
                yield_now();
            }
            block_on(sleep);
        }
        assert!(begun.elapsed() >= ms(50));
    });
}

#[test]
fn a_sleep_may_move_to_another_thread() {
    run("a_sleep_may_move_to_another_thread", || {
        let begun = Instant::now();
        let mut sleep = Box::pin(sleep(ms(20)));
        assert!(poll_once(sleep.as_mut(), Waker::noop()).is_pending());
        std::thread::spawn(move || block_on(sleep)).join().expect("no panic");
        assert!(begun.elapsed() >= ms(20));
        crate::support::descriptors::until(|| stats().timers == 0);
    });
}

#[test]
fn sleeps_end_in_the_order_of_their_deadlines() {
    run("sleeps_end_in_the_order_of_their_deadlines", || {
        let _clock = use_manual_clock();
        let order = Rc::new(std::cell::RefCell::new(Vec::new()));
        let sleepers: Vec<_> = [30, 10, 20]
            .map(|time| {
                let order = Rc::clone(&order);
                spawn_future(async move {
                    sleep(ms(time)).await;
                    order.borrow_mut().push(time);
                })
            })
            .into();
        sleepers.into_iter().for_each(|sleeper| sleeper.join().expect("no panic"));
        assert_eq!(*order.borrow(), [10, 20, 30]);
    });
}
