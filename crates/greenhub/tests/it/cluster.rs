//! `Cluster`: one server on several OS threads.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use crate::support::green::quiet_panic;
use crate::support::{is_child, rerun, run};
use greenhub::net::{Cluster, ListenOptions, ServeEnd, ServeError, TcpListener, TcpStream};

const ANY: &str = "127.0.0.1:0";

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut text = String::new();
    TcpStream::connect(address)?.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn all_threads_serve_one_address_with_hubs_of_their_own() {
    run("all_threads_serve_one_address_with_hubs_of_their_own", || {
        let seen: Arc<Mutex<HashSet<ThreadId>>> = Arc::default();
        let own = seen.clone();
        let server = Cluster::new(3).serve(ANY, move |mut stream, _| {
            own.lock().unwrap().insert(std::thread::current().id());
            stream.write_all(std::thread::current().name().unwrap_or("?").as_bytes())
        });
        let server = server.unwrap();
        assert_eq!(server.threads(), 3);
        let mut names = HashSet::new();
        let mut asked = 0;
        while names.len() < 3 {
            assert!(asked < 2000, "the system gives all to {names:?}");
            names.insert(ask(server.local_addr()).unwrap());
            asked += 1;
        }
        assert_eq!(names, ["serve-0", "serve-1", "serve-2"].map(String::from).into());
        assert!(!seen.lock().unwrap().contains(&std::thread::current().id()));
        server.stop().stop();
        let ends = server.join().unwrap();
        assert_eq!(ends.len(), 3);
        let accepted: u64 = ends
            .into_iter()
            .map(|end| {
                let served = end.unwrap();
                assert_eq!((served.end, served.killed), (ServeEnd::Stopped, 0));
                served.accepted
            })
            .sum();
        assert_eq!(accepted, asked);
    });
}

#[test]
fn a_stop_waits_for_handlers_and_kills_those_that_take_too_long() {
    run("a_stop_waits_for_handlers_and_kills_those_that_take_too_long", || {
        let server = Cluster::new(2)
            .serve(ANY, |mut stream, _| {
                stream.write_all(b"+").unwrap();
                stream.read(&mut [0])
            })
            .unwrap();
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(server.local_addr()).unwrap()).collect();
        for mut client in &clients {
            client.read_exact(&mut [0]).unwrap();
        }
        server.stop().stop_within(Duration::from_millis(20));
        let killed: usize = server.join().unwrap().into_iter().map(|end| end.unwrap().killed).sum();
        assert_eq!(killed, 20);
    });
}

#[test]
fn a_panic_in_a_handler_ends_only_its_connection() {
    let test = "a_panic_in_a_handler_ends_only_its_connection";
    if !is_child() {
        let output = rerun(test, |_| ());
        return assert!(output.status.success(), "{output:?}");
    }
    let reported = Arc::new(AtomicUsize::new(0));
    let count = reported.clone();
    greenhub::debug::set_report_stream(move |_| _ = count.fetch_add(1, Ordering::SeqCst));
    run(test, move || {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let server = Cluster::new(2).serve(ANY, move |mut stream, _| {
            if counted.fetch_add(1, Ordering::SeqCst) & 1 == 0 {
                quiet_panic("every other");
            }
            stream.write_all(b"hello").unwrap();
        });
        let server = server.unwrap();
        for number in 0..20 {
            assert_eq!(ask(server.local_addr()).unwrap(), if number % 2 == 0 { "" } else { "hello" });
        }
        server.stop().stop();
        assert!(server.join().unwrap().iter().all(Result::is_ok));
        assert_eq!(reported.load(Ordering::SeqCst), 10);
    });
}

#[test]
fn a_panic_of_an_os_thread_outside_of_a_handler_is_its_result() {
    let test = "a_panic_of_an_os_thread_outside_of_a_handler_is_its_result";
    run(test, || {
        struct PanicsWhenDropped;
        impl Drop for PanicsWhenDropped {
            fn drop(&mut self) {
                quiet_panic("the drop of the handler");
            }
        }
        let captured = PanicsWhenDropped;
        let server = Cluster::new(2).serve(ANY, move |_, _| _ = &captured).unwrap();
        server.stop().stop();
        let ends = server.join().unwrap();
        // The last OS thread drops the handler.
        let failed: Vec<_> = ends.into_iter().filter_map(Result::err).collect();
        let [ServeError::Panic(panic)] = &failed[..] else { panic!("{failed:?}") };
        assert_eq!(panic.to_string(), "the drop of the handler");
        assert!(failed[0].to_string().ends_with("panicked: the drop of the handler"), "{}", failed[0]);
    });
}

#[test]
fn at_most_the_allowed_connections_are_handled_at_a_time() {
    run("at_most_the_allowed_connections_are_handled_at_a_time", || {
        const CLIENTS: usize = 12;
        let most = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        let connected = Arc::new(AtomicUsize::new(0));
        let (own, waiting) = (most.clone(), connected.clone());
        let server = Cluster::new(1)
            .connections(2)
            .serve(ANY, move |mut stream, _| {
                let now = own.0.fetch_add(1, Ordering::SeqCst) + 1;
                own.1.fetch_max(now, Ordering::SeqCst);
                // Waits until two handlers run and all other clients have connected.
                while own.1.load(Ordering::SeqCst) < 2 || waiting.load(Ordering::SeqCst) < CLIENTS {
                    greenhub::sleep(Duration::from_millis(1));
                }
                greenhub::sleep(Duration::from_millis(5));
                own.0.fetch_sub(1, Ordering::SeqCst);
                stream.write_all(b"done")
            })
            .unwrap();
        let address = server.local_addr();
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
        connected.store(CLIENTS, Ordering::SeqCst);
        for client in &mut clients {
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "done");
        }
        assert_eq!(most.1.load(Ordering::SeqCst), 2);
        server.stop().stop();
        server.join().unwrap();
    });
}

#[test]
fn each_thread_is_set_up_before_it_serves() {
    run("each_thread_is_set_up_before_it_serves", || {
        let numbers: Arc<Mutex<Vec<usize>>> = Arc::default();
        let own = numbers.clone();
        let server = Cluster::new(2)
            .setup(move |number| {
                own.lock().unwrap().push(number);
                greenhub::use_hub("poll").map_err(io::Error::other)
            })
            .serve(ANY, |mut stream, _| stream.write_all(greenhub::get_hub().name().as_bytes()))
            .unwrap();
        assert_eq!(ask(server.local_addr()).unwrap(), "poll");
        numbers.lock().unwrap().sort_unstable();
        assert_eq!(*numbers.lock().unwrap(), [0, 1]);
        server.stop().stop();
        server.join().unwrap();
    });
}

#[test]
fn a_failed_setup_of_one_thread_is_an_error_of_serve() {
    run("a_failed_setup_of_one_thread_is_an_error_of_serve", || {
        let refused = Cluster::new(3)
            .setup(
                |number| if number == 1 { Err(io::Error::other("setup of the second thread failed")) } else { Ok(()) },
            )
            .serve(ANY, |_, _| ());
        assert_eq!(refused.unwrap_err().to_string(), "setup of the second thread failed");
        let panicked = Cluster::new(2)
            .setup(|number| if number == 0 { quiet_panic("setup of the first thread failed") } else { Ok(()) })
            .serve(ANY, |_, _| ());
        assert!(panicked.unwrap_err().to_string().contains("panicked"));
    });
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    run("an_address_that_is_taken_is_an_error", || {
        let taken = TcpListener::bind(ANY).unwrap();
        let error = Cluster::new(2).serve(taken.local_addr().unwrap(), |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    });
}

#[test]
fn an_address_of_another_cluster_is_an_error() {
    run("an_address_of_another_cluster_is_an_error", || {
        let server = Cluster::new(2).serve(ANY, |_, _| ()).unwrap();
        let address = server.local_addr();
        let error = Cluster::new(2).serve(address, |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        server.stop().stop();
        server.join().unwrap();
        let next = Cluster::new(2).serve(address, |_, _| ()).unwrap();
        next.stop().stop();
        next.join().unwrap();
    });
}

#[test]
fn clusters_that_allow_it_share_an_address() {
    run("clusters_that_allow_it_share_an_address", || {
        let start = |address: SocketAddr, name: &'static str| {
            let cluster = Cluster::new(1).listen_options(ListenOptions::new().reuse_port(true));
            cluster.serve(address, move |mut stream, _| stream.write_all(name.as_bytes())).unwrap()
        };
        let old = start(ANY.parse().unwrap(), "old");
        let new = start(old.local_addr(), "new");
        assert_eq!(new.local_addr(), old.local_addr());
        let mut names = HashSet::new();
        for _ in 0..2000 {
            names.insert(ask(new.local_addr()).unwrap());
            if names.len() == 2 {
                break;
            }
        }
        assert_eq!(names, ["old", "new"].map(String::from).into());
        for server in [old, new] {
            server.stop().stop();
            server.join().unwrap();
        }
    });
}

#[test]
fn the_default_is_one_thread_per_processor() {
    run("the_default_is_one_thread_per_processor", || {
        let server = Cluster::new(0).serve(ANY, |_, _| ()).unwrap();
        assert_eq!(server.threads(), std::thread::available_parallelism().unwrap().get());
        server.stop().stop();
        let threads = server.threads();
        assert_eq!(threads, server.join().unwrap().len());
    });
}
