//! `StopServe::on_signals`: signals that stop servers.
//!
//! Signals concern the whole process. So each test runs in a process of its own.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::support::bare_hub::Bare;
use crate::support::descriptors::ms;
use crate::support::fork::{ends_well, exit_after, fork_here};
use crate::support::in_child;
use greenhub::hub::{LoopErrorKind, has_hub};
use greenhub::net::{Cluster, ServeEnd, Served, SocketAddr, StopServe, TcpListener, TcpStream, serve_until};
use greenhub::signal::{SIGINT, SIGTERM};
use greenhub::thread::yield_now;
use greenhub::{GreenPool, get_hub, sleep, spawn, use_hub_with};
use signal_hook::low_level::raise;

const LONG: Duration = Duration::from_secs(3600);

fn stopped_by_signals(grace: Duration) -> StopServe {
    StopServe::on_signals([SIGINT, SIGTERM], grace).expect("signals that can be caught")
}

fn send(signal: i32) {
    raise(signal).expect("a signal");
}

/// Serves with a handler that answers each byte, and runs `client` in another green thread.
fn serve_beside(stop: &StopServe, client: impl FnOnce(SocketAddr) + 'static) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let client = spawn(move || client(address));
    let served = serve_until(stop, &listener, &GreenPool::new(10), |mut stream: TcpStream, _| {
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|count| count == 1) && stream.write_all(&byte).is_ok() {}
    });
    client.join().expect("no panic");
    served.expect("the server ends without an error")
}

/// Connects, and returns when the handler runs.
fn greeted(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).expect("a connection");
    answer(&mut client).expect("the handler runs");
    client
}

fn answer(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(b"x")?;
    client.read_exact(&mut [0])
}

#[test]
fn the_first_signal_ends_the_accepting_and_lets_handlers_finish() {
    in_child(|| {
        let served = serve_beside(&stopped_by_signals(LONG), |address| {
            let mut client = greeted(address);
            send(SIGTERM);
            sleep(ms(20));
            answer(&mut client).expect("the handler goes on");
        });
        assert_eq!((served.end, served.accepted, served.killed), (ServeEnd::Stopped, 1, 0));
    });
}

#[test]
fn handlers_are_killed_at_the_deadline() {
    in_child(|| {
        let begin = Instant::now();
        let served = serve_beside(&stopped_by_signals(ms(30)), |address| {
            let mut client = greeted(address);
            send(SIGINT);
            assert_eq!(client.read(&mut [0]).expect("the end"), 0);
        });
        assert_eq!((served.end, served.killed, served.left), (ServeEnd::Stopped, 1, 0));
        assert!(begin.elapsed() >= ms(30));
    });
}

#[test]
fn a_second_signal_kills_the_handlers_at_once() {
    for second in [SIGINT, SIGTERM] {
        in_child(|| {
            let stop = stopped_by_signals(LONG);
            let seen = stop.clone();
            let served = serve_beside(&stop, move |address| {
                let mut client = greeted(address);
                send(SIGINT);
                seen.wait().expect("the signal comes");
                answer(&mut client).expect("the handler goes on");
                send(second);
                assert_eq!(client.read(&mut [0]).expect("the end"), 0);
            });
            assert_eq!((served.accepted, served.killed), (1, 1));
        });
    }
}

#[test]
fn a_signal_gives_a_stop_without_a_limit_its_deadline() {
    in_child(|| {
        let stop = stopped_by_signals(ms(5));
        let by_hand = stop.clone();
        let served = serve_beside(&stop, move |address| {
            let mut client = greeted(address);
            by_hand.stop();
            sleep(ms(20));
            answer(&mut client).expect("the handler goes on");
            send(SIGINT);
            assert_eq!(client.read(&mut [0]).expect("the end"), 0);
        });
        assert_eq!(served.killed, 1);
    });
}

#[test]
fn a_signal_before_the_server_stops_it_when_it_begins() {
    in_child(|| {
        let stop = stopped_by_signals(LONG);
        send(SIGTERM);
        let served = serve_beside(&stop, |_| ());
        assert_eq!((served.end, served.accepted), (ServeEnd::Stopped, 0));
    });
}

#[test]
fn without_a_signal_nothing_is_left_when_the_server_has_ended() {
    in_child(|| {
        let stop = stopped_by_signals(LONG);
        let by_hand = stop.clone();
        let served = serve_beside(&stop, move |address| {
            drop(greeted(address));
            by_hand.stop();
        });
        assert_eq!((served.accepted, served.killed), (1, 0));
        assert!(get_hub().join(None).expect("nothing is left"));
    });
}

#[test]
fn servers_of_one_handle_are_stopped_by_one_signal() {
    in_child(|| {
        let stop = stopped_by_signals(LONG);
        let other = stop.clone();
        let other = spawn(move || serve_beside(&other, |_| ()));
        let served = serve_beside(&stop, |_| {
            sleep(ms(5));
            send(SIGTERM);
        });
        assert_eq!([served.end, other.join().expect("no panic").end], [ServeEnd::Stopped; 2]);
    });
}

#[test]
fn a_signal_ends_the_wait_of_the_main_greenlet_and_is_seen_without_a_wait() {
    in_child(|| {
        let stop = stopped_by_signals(LONG);
        spawn(|| {
            sleep(ms(5));
            send(SIGINT);
        });
        assert!(!stop.is_stopped());
        stop.wait().expect("the signal comes");
        let other = stopped_by_signals(LONG);
        send(SIGINT);
        assert!(other.is_stopped());
    });
}

#[test]
fn a_wait_for_the_stop_keeps_the_loop_alive() {
    in_child(|| {
        let stop = stopped_by_signals(LONG);
        let waiter = spawn(move || stop.wait());
        assert!(!get_hub().join(ms(50)).expect("the limit is reached"));
        send(SIGTERM);
        assert!(get_hub().join(None).expect("nothing is left"));
        waiter.join().expect("no panic").expect("the signal has come");
    });
}

#[test]
fn a_handle_without_a_server_neither_builds_a_hub_nor_keeps_a_loop_alive() {
    in_child(|| {
        let stop = stopped_by_signals(LONG);
        assert!(!has_hub());
        let error = get_hub().run_once(None).expect_err("nothing is left");
        assert_eq!(error.kind(), LoopErrorKind::LoopExit);
        drop(stop);
        send(SIGINT);
    });
}

#[test]
fn a_signal_before_a_fork_stops_the_servers_of_parent_and_child() {
    in_child(|| {
        let stop = stopped_by_signals(LONG);
        let waiter = spawn(move || stop.wait());
        yield_now();
        send(SIGTERM);
        let child = fork_here();
        let stopped = || waiter.join().expect("no panic").expect("the signal has come");
        match child {
            Some(child) => {
                stopped();
                ends_well(child);
            }
            None => exit_after(stopped),
        }
    });
}

#[test]
fn a_hub_without_descriptors_notices_the_signal() {
    in_child(|| {
        use_hub_with(|| Ok(Bare::default())).expect("no hub yet");
        let stop = stopped_by_signals(LONG);
        let sender = std::thread::spawn(|| {
            std::thread::sleep(ms(50));
            send(SIGTERM);
        });
        stop.wait().expect("the signal comes");
        sender.join().expect("no panic");
    });
}

#[test]
fn an_exit_of_the_server_ends_its_callback() {
    in_child(|| {
        let stop = stopped_by_signals(LONG);
        let own = stop.clone();
        let server = spawn(move || serve_beside(&own, |_| ()));
        yield_now();
        assert!(!server.is_finished());
        server.kill();
        assert!(server.join().expect_err("killed").is_kill());
        assert!(get_hub().join(None).expect("nothing is left"));
        send(SIGINT);
        assert!(stop.is_stopped());
    });
}

#[test]
fn a_cluster_is_stopped_by_a_signal_and_a_second_one_kills_its_handlers() {
    in_child(|| {
        let stop = stopped_by_signals(LONG);
        let cluster = Cluster::new(2).stop_with(stop.clone());
        let server = cluster.serve("127.0.0.1:0", |mut stream, _| {
            let mut byte = [0];
            while stream.read(&mut byte).is_ok_and(|count| count == 1) && stream.write_all(&byte).is_ok() {}
        });
        let server = server.expect("a free port");
        let mut client = greeted(server.local_addr());
        send(SIGTERM);
        stop.wait().expect("the signal comes");
        answer(&mut client).expect("the handler goes on");
        send(SIGTERM);
        let ends: Vec<Served> = server.join().expect("a join").into_iter().map(|end| end.expect("no error")).collect();
        assert_eq!(ends.len(), 2);
        assert_eq!(ends.iter().map(|served| served.killed).sum::<usize>(), 1);
        assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    });
}

#[test]
fn signals_that_cannot_be_caught_are_refused() {
    for signals in [&[][..], &[libc::SIGKILL]] {
        let error = StopServe::on_signals(signals.iter().copied(), LONG).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
