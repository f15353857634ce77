//! Servers: connections in green threads of a pool, and the ends of a server.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::descriptors::until;
use crate::support::green;
use crate::support::green::{Drops, LONG, SHORT, keep_reports, quiet_panic, reports};
use crate::support::random::{Moment, Rng};
use greenhub::net::{
    Accept, Accepted, ServeEnd, ServeError, Served, StopServe, TcpListener, TcpStream, serve, serve_until,
};
use greenhub::os::unix::net::{UnixListener, UnixStream};
use greenhub::{GreenPool, GreenThread, TrampolineError};

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn listener() -> (Rc<TcpListener>, SocketAddr) {
    let listener = TcpListener::bind(ANY).unwrap();
    let address = listener.local_addr().unwrap();
    (Rc::new(listener), address)
}

/// Starts a server in a green thread.
fn start<R: 'static>(
    stop: &StopServe,
    listener: &Rc<TcpListener>,
    pool: &GreenPool,
    handler: impl Fn(TcpStream, SocketAddr) -> R + 'static,
) -> GreenThread<Result<Served, ServeError>> {
    let (stop, listener, pool) = (stop.clone(), Rc::clone(listener), pool.clone());
    greenhub::spawn(move || serve_until(&stop, &*listener, &pool, handler))
}

/// Blocks handlers until it is opened.
struct Gate {
    open: Rc<Cell<bool>>,
}

impl Gate {
    fn new() -> Gate {
        Gate { open: Rc::default() }
    }

    fn waiter(&self) -> impl Fn() + use<> {
        let open = Rc::clone(&self.open);
        move || {
            while !open.get() {
                greenhub::sleep(Duration::from_millis(1));
            }
        }
    }

    fn open(&self) {
        self.open.set(true);
    }
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut text = String::new();
    TcpStream::connect(address)?.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn each_connection_is_handled_in_a_green_thread_of_its_own() {
    support::run("each_connection_is_handled_in_a_green_thread_of_its_own", || {
        const MANY: usize = 100;
        let (listener, address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(MANY));
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (handlers, last) = (Rc::clone(&seen), stop.clone());
        let clients: Vec<_> = (0..MANY).map(|_| greenhub::spawn(move || ask(address).unwrap())).collect();
        let served = serve_until(&stop, &*listener, &pool, move |mut stream: TcpStream, peer| {
            assert_eq!(stream.peer_addr()?, peer);
            handlers.borrow_mut().push(greenhub::greenthread::current_id());
            // All handlers have begun before the first one continues.
            until(|| handlers.borrow().len() == MANY);
            last.stop();
            stream.write_all(b"served")
        });
        let served = served.unwrap();
        assert_eq!((served.end, served.accepted, served.killed), (ServeEnd::Stopped, MANY as u64, 0));
        for client in clients {
            assert_eq!(client.join().unwrap(), "served");
        }
        let mut handlers = seen.borrow().clone();
        handlers.sort_unstable();
        handlers.dedup();
        assert_eq!(handlers.len(), MANY);
    });
}

#[test]
fn a_unix_listener_is_served_alike() {
    support::run("a_unix_listener_is_served_alike", || {
        let path = std::env::temp_dir().join(format!("greenhub-serve-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let at = path.clone();
        let client = greenhub::spawn(move || {
            let mut text = String::new();
            UnixStream::connect(at)?.read_to_string(&mut text).map(|_| text)
        });
        let (stop, pool) = (StopServe::new(), GreenPool::new(1));
        let last = stop.clone();
        let served = serve_until(&stop, &listener, &pool, move |mut stream: UnixStream, _| {
            last.stop();
            stream.write_all(b"served")
        });
        std::fs::remove_file(path).unwrap();
        assert_eq!(served.unwrap().accepted, 1);
        assert_eq!(client.join().unwrap().unwrap(), "served");
    });
}

#[test]
fn the_connection_is_closed_after_its_handler() {
    support::run("the_connection_is_closed_after_its_handler", || {
        keep_reports();
        let (listener, address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(10));
        let ways = Cell::new(0);
        let server = start(&stop, &listener, &pool, move |stream: TcpStream, _| {
            ways.set(ways.get() + 1);
            match ways.get() {
                1 => Ok(()),
                2 => Err(io::Error::other("on purpose")),
                3 => {
                    stream.close();
                    Ok(())
                }
                _ => quiet_panic("on purpose"),
            }
        });
        for _ in 0..4 {
            assert_eq!(ask(address).unwrap(), "");
        }
        stop.stop();
        assert_eq!(server.join().unwrap().unwrap().accepted, 4);
    });
}

#[test]
fn a_failed_handler_is_reported_and_the_server_continues() {
    support::run("a_failed_handler_is_reported_and_the_server_continues", || {
        keep_reports();
        let (listener, address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(1));
        let count = Cell::new(0);
        let server = start(&stop, &listener, &pool, move |mut stream: TcpStream, _| {
            count.set(count.get() + 1);
            match count.get() {
                1 => Err(io::Error::other("no such page")),
                2 => quiet_panic("a bug"),
                _ => stream.write_all(b"served"),
            }
        });
        assert_eq!(ask(address).unwrap(), "");
        assert_eq!(ask(address).unwrap(), "");
        assert_eq!(ask(address).unwrap(), "served");
        stop.stop();
        assert_eq!(server.join().unwrap().unwrap().accepted, 3);
        let reported = reports();
        let [first, second] = &reported[..] else { panic!("{reported:?}") };
        assert!(first.contains("no such page"), "{first}");
        assert!(second.contains("a bug"), "{second}");
    });
}

#[test]
fn a_killed_handler_does_not_stop_the_server() {
    support::run("a_killed_handler_does_not_stop_the_server", || {
        keep_reports();
        let (listener, address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(1));
        let first = Cell::new(true);
        let server = start(&stop, &listener, &pool, move |mut stream: TcpStream, _| {
            if first.replace(false) {
                greenhub::sleep(LONG);
            }
            stream.write_all(b"served")
        });
        let client = greenhub::spawn(move || ask(address).unwrap());
        until(|| pool.running() == 1);
        greenhub::sleep(SHORT);
        pool.kill_all();
        assert_eq!(client.join().unwrap(), "");
        assert_eq!(ask(address).unwrap(), "served");
        stop.stop();
        assert_eq!(server.join().unwrap().unwrap().accepted, 2);
        assert_eq!(reports(), Vec::<String>::new());
    });
}

#[test]
fn nothing_is_accepted_while_the_pool_is_full() {
    support::run("nothing_is_accepted_while_the_pool_is_full", || {
        let (listener, address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(2));
        let (gate, begun) = (Gate::new(), Rc::new(Cell::new(0)));
        let (wait, count) = (gate.waiter(), Rc::clone(&begun));
        let server = start(&stop, &listener, &pool, move |mut stream: TcpStream, _| {
            count.set(count.get() + 1);
            wait();
            stream.write_all(b"served")
        });
        let clients: Vec<_> = (0..5).map(|_| greenhub::spawn(move || ask(address).unwrap())).collect();
        until(|| begun.get() == 2);
        greenhub::sleep(SHORT);
        assert_eq!((begun.get(), pool.running()), (2, 2));
        // The other connections stay in the listener's backlog, where the test accepts them.
        stop.stop();
        gate.open();
        let served = server.join().unwrap().unwrap();
        assert_eq!(served.accepted, 2);
        for _ in 0..3 {
            listener.accept().unwrap().0.write_all(b"served").unwrap();
        }
        for client in clients {
            assert_eq!(client.join().unwrap(), "served");
        }
    });
}

#[test]
fn a_permit_granted_together_with_the_stop_accepts_nothing() {
    support::run("a_permit_granted_together_with_the_stop_accepts_nothing", || {
        let (listener, address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(1));
        let (end, begun) = (Rc::new(greenhub::sync::Event::new()), Rc::new(Cell::new(false)));
        let (ended, seen) = (Rc::clone(&end), Rc::clone(&begun));
        let server = start(&stop, &listener, &pool, move |_: TcpStream, _| {
            seen.set(true);
            ended.wait().unwrap();
        });
        let clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        until(|| begun.get() && pool.waiting() == 1);
        // The ending handler grants the server a permit before the server sees the stop.
        end.send(()).unwrap();
        stop.stop();
        assert_eq!(server.join().unwrap().unwrap().accepted, 1);
        drop(clients);
    });
}

#[test]
fn an_idle_server_leaves_the_pool_to_others() {
    support::run("an_idle_server_leaves_the_pool_to_others", || {
        let (one, one_address) = listener();
        let (other, other_address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(1));
        let servers = [(one, "one"), (other, "other")].map(|(listener, text)| {
            start(&stop, &listener, &pool, move |mut stream: TcpStream, _| stream.write_all(text.as_bytes()))
        });
        for _ in 0..3 {
            assert_eq!(ask(other_address).unwrap(), "other");
            assert_eq!(ask(one_address).unwrap(), "one");
            assert_eq!(pool.spawn(|| "mine").unwrap().join().unwrap(), "mine");
        }
        until(|| pool.running() == 0);
        // The servers share one stop handle.
        stop.stop();
        assert_eq!(servers.map(|server| server.join().unwrap().unwrap().accepted), [3, 3]);
    });
}

#[test]
fn a_handler_can_stop_the_server_and_the_listener_stays_open() {
    support::run("a_handler_can_stop_the_server_and_the_listener_stays_open", || {
        let (listener, address) = listener();
        let pool = GreenPool::new(10);
        for _ in 0..2 {
            let stop = StopServe::new();
            let last = stop.clone();
            let client = greenhub::spawn(move || ask(address).unwrap());
            let served = serve_until(&stop, &*listener, &pool, move |_, _| last.stop()).unwrap();
            assert_eq!((served.end, served.accepted), (ServeEnd::Stopped, 1));
            assert_eq!(client.join().unwrap(), "");
        }
        assert_eq!(listener.local_addr().unwrap(), address);
    });
}

#[test]
fn another_thread_can_stop_an_idle_server() {
    support::run("another_thread_can_stop_an_idle_server", || {
        let (listener, _) = listener();
        let stop = StopServe::new();
        let elsewhere = stop.clone();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(SHORT);
            elsewhere.stop();
        });
        let served = serve_until(&stop, &*listener, &GreenPool::new(1), |_, _| ()).unwrap();
        assert_eq!((served.end, served.accepted, served.killed), (ServeEnd::Stopped, 0, 0));
        stopper.join().unwrap();
    });
}

#[test]
fn a_server_waiting_for_a_permit_can_be_stopped() {
    support::run("a_server_waiting_for_a_permit_can_be_stopped", || {
        let (listener, address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(1));
        let other = pool.spawn(|| greenhub::sleep(LONG)).unwrap();
        let server = start(&stop, &listener, &pool, |_, _| ());
        let _client = TcpStream::connect(address).unwrap();
        until(|| pool.waiting() == 1);
        stop.stop();
        // The server does not wait for other workers of the pool.
        assert_eq!(server.join().unwrap().unwrap().accepted, 0);
        assert_eq!((pool.waiting(), pool.running()), (0, 1));
        other.kill();
    });
}

#[test]
fn a_server_started_after_the_stop_returns_at_once() {
    support::run("a_server_started_after_the_stop_returns_at_once", || {
        let (listener, address) = listener();
        let stop = StopServe::new();
        stop.stop();
        let _client = TcpStream::connect(address).unwrap();
        let served = serve_until(&stop, &*listener, &GreenPool::new(1), |_, _| unreachable!()).unwrap();
        assert_eq!((served.end, served.accepted), (ServeEnd::Stopped, 0));
    });
}

#[test]
fn a_stopped_server_waits_for_its_handlers() {
    support::run("a_stopped_server_waits_for_its_handlers", || {
        let (listener, address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(10));
        let gate = Gate::new();
        let wait = gate.waiter();
        let server = start(&stop, &listener, &pool, move |mut stream: TcpStream, _| {
            wait();
            stream.write_all(b"served")
        });
        let clients: Vec<_> = (0..3).map(|_| greenhub::spawn(move || ask(address).unwrap())).collect();
        until(|| pool.running() == 3);
        stop.stop_within(LONG);
        greenhub::sleep(SHORT);
        assert!(!server.is_finished());
        gate.open();
        let served = server.join().unwrap().unwrap();
        assert_eq!((served.accepted, served.killed), (3, 0));
        for client in clients {
            assert_eq!(client.join().unwrap(), "served");
        }
    });
}

#[test]
fn handlers_still_running_at_the_deadline_are_killed() {
    support::run("handlers_still_running_at_the_deadline_are_killed", || {
        let (listener, address) = listener();
        let (stop, pool, drops) = (StopServe::new(), GreenPool::new(10), Drops::default());
        let held = drops.clone();
        let quick = Cell::new(true);
        let server = start(&stop, &listener, &pool, move |mut stream: TcpStream, _| {
            let _held = held.one();
            if !quick.replace(false) {
                greenhub::sleep(LONG);
            }
            stream.write_all(b"served")
        });
        let clients: Vec<_> = (0..4).map(|_| greenhub::spawn(move || ask(address).unwrap())).collect();
        until(|| drops.count() == 1 && pool.running() == 3);
        let other = pool.spawn(|| greenhub::sleep(LONG)).unwrap();
        let begun = Instant::now();
        stop.stop_within(SHORT);
        let served = server.join().unwrap().unwrap();
        assert!(begun.elapsed() >= SHORT);
        assert_eq!((served.end, served.accepted, served.killed), (ServeEnd::Stopped, 4, 3));
        // The killed handlers have ended, destructors included; another worker of the pool still runs.
        assert_eq!(drops.count(), 4);
        assert!(!other.is_finished());
        other.kill();
        let answers: Vec<String> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert_eq!(answers.iter().filter(|answer| *answer == "served").count(), 1);
    });
}

#[test]
fn a_deadline_can_be_shortened_and_not_extended() {
    support::run("a_deadline_can_be_shortened_and_not_extended", || {
        let (listener, address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(10));
        let server = start(&stop, &listener, &pool, |_, _| greenhub::sleep(LONG));
        let _client = TcpStream::connect(address).unwrap();
        until(|| pool.running() == 1);
        stop.stop();
        greenhub::sleep(SHORT);
        stop.stop_within(LONG);
        greenhub::sleep(SHORT);
        assert!(!server.is_finished());
        stop.stop_within(SHORT);
        stop.stop_within(LONG);
        stop.stop_within(Duration::MAX);
        assert_eq!(server.join().unwrap().unwrap().killed, 1);
    });
}

#[test]
fn closing_the_listener_ends_the_server() {
    support::run("closing_the_listener_ends_the_server", || {
        let (listener, address) = listener();
        let pool = GreenPool::new(10);
        let gate = Gate::new();
        let wait = gate.waiter();
        let (served_one, own_pool) = (Rc::clone(&listener), pool.clone());
        let server = greenhub::spawn(move || {
            serve(&*served_one, &own_pool, move |mut stream, _| {
                wait();
                stream.write_all(b"served")
            })
        });
        let client = greenhub::spawn(move || ask(address).unwrap());
        until(|| pool.running() == 1);
        listener.close();
        greenhub::sleep(SHORT);
        assert!(!server.is_finished(), "the server does not wait for its handlers");
        gate.open();
        let served = server.join().unwrap().unwrap();
        assert_eq!((served.end, served.accepted, served.killed), (ServeEnd::Closed, 1, 0));
        assert_eq!(client.join().unwrap(), "served");
    });
}

#[test]
fn killing_the_server_leaves_its_handlers_alone() {
    support::run("killing_the_server_leaves_its_handlers_alone", || {
        let (listener, address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(10));
        let gate = Gate::new();
        let wait = gate.waiter();
        let before = green::held();
        let server = start(&stop, &listener, &pool, move |mut stream: TcpStream, _| {
            wait();
            stream.write_all(b"served")
        });
        let client = greenhub::spawn(move || ask(address).unwrap());
        until(|| pool.running() == 1);
        server.kill();
        assert!(server.join().unwrap_err().is_kill());
        greenhub::sleep(SHORT);
        assert_eq!(pool.running(), 1);
        gate.open();
        assert_eq!(client.join().unwrap(), "served");
        pool.wait_all().unwrap();
        assert_eq!(green::held(), before);
        // The listener can be served again.
        stop.stop();
        assert_eq!(serve_until(&stop, &*listener, &pool, |_, _| ()).unwrap().accepted, 0);
    });
}

#[test]
fn a_timeout_around_the_server_ends_it_in_main_too() {
    support::run("a_timeout_around_the_server_ends_it_in_main_too", || {
        let (listener, _) = listener();
        let before = green::held();
        let timed = greenhub::with_timeout(SHORT, || serve(&*listener, &GreenPool::new(1), |_, _| ()));
        assert!(timed.is_err());
        assert_eq!(green::held(), before);
    });
}

#[test]
fn a_permanent_error_ends_the_server() {
    support::run("a_permanent_error_ends_the_server", || {
        let (listener, address) = listener();
        // A connected stream in the place of a listener.
        let client = TcpStream::connect(address).unwrap();
        let (_peer, _) = listener.accept().unwrap();
        let wrong = TcpListener::from(std::os::fd::OwnedFd::from(client));
        let error = serve(&wrong, &GreenPool::new(1), |_, _| ()).unwrap_err();
        let ServeError::Accept(cause) = &error else { panic!("{error:?}") };
        assert_eq!(cause.raw_os_error(), Some(libc::EINVAL));
        assert!(error.to_string().starts_with("cannot accept connections: "), "{error}");
        assert_eq!(io::Error::from(error).kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn serving_from_the_pool_of_the_handlers_is_an_error() {
    support::run("serving_from_the_pool_of_the_handlers_is_an_error", || {
        let (listener, _) = listener();
        let pool = GreenPool::new(1);
        let own = pool.clone();
        let inside = pool.spawn(move || serve(&*listener, &own, |_, _| ())).unwrap();
        let error = inside.join().unwrap().unwrap_err();
        assert!(matches!(error, ServeError::Inside));
        assert_eq!(io::Error::from(error).kind(), ErrorKind::Deadlock);
    });
}

#[test]
fn exhausted_descriptors_are_survived_and_reported_once() {
    const NAME: &str = "exhausted_descriptors_are_survived_and_reported_once";
    if !support::is_child() {
        let output = support::rerun(NAME, |_| {});
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    support::run(NAME, || {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        keep_reports();
        let (listener, address) = listener();
        let (stop, pool) = (StopServe::new(), GreenPool::new(10));
        let server = start(&stop, &listener, &pool, |mut stream: TcpStream, _| stream.write_all(b"served"));
        assert_eq!(ask(address).unwrap(), "served");
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        for episode in 1..=2 {
            let client = std::net::TcpStream::connect(address).unwrap();
            // Every number below this one is in use.
            let full = client.as_raw_fd() as u64 + 1;
            let plugs: Vec<_> =
                (support::open_descriptors() as u64..full).map(|_| client.try_clone().unwrap()).collect();
            setrlimit(Resource::RLIMIT_NOFILE, full, hard).unwrap();
            let before = greenhub::get_hub().stats().operations;
            until(|| reports().len() == episode);
            greenhub::sleep(Duration::from_millis(30));
            let attempts = greenhub::get_hub().stats().operations - before;
            assert!(attempts < 20, "{attempts} attempts: it spins");
            assert_eq!(reports().len(), episode, "{:?}", reports());
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            drop(plugs);
            let (mut client, mut text) = (TcpStream::from(client), String::new());
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "served");
        }
        stop.stop();
        assert_eq!(server.join().unwrap().unwrap().accepted, 3);
        assert!(reports()[0].contains("cannot accept connections"), "{:?}", reports());
        assert!(reports()[0].contains(&address.to_string()), "{:?}", reports());
    });
}

/// A listener whose first calls fail with the given errors.
#[derive(Debug)]
struct Failing {
    listener: TcpListener,
    errors: RefCell<Vec<io::Error>>,
}

impl Accept for Failing {
    type Stream = TcpStream;
    type Address = SocketAddr;

    fn accept_if<T>(&self, admit: impl FnMut() -> Option<T>) -> io::Result<Option<Accepted<Self, T>>> {
        match self.errors.borrow_mut().pop() {
            Some(error) => Err(error),
            None => self.listener.accept_if(admit),
        }
    }

    fn is_closed(&self) -> bool {
        self.listener.is_closed()
    }
}

#[test]
fn transient_accept_errors_are_survived() {
    support::run("transient_accept_errors_are_survived", || {
        keep_reports();
        // The errors of accept(2), except those that report an invalid listener.
        let passing = [
            libc::ENFILE,
            libc::EMFILE,
            libc::ENOMEM,
            libc::ENOBUFS,
            libc::ECONNABORTED,
            libc::ECONNRESET,
            libc::EINTR,
            libc::EPERM,
            libc::EACCES,
            libc::EPROTO,
            libc::ENETDOWN,
            libc::ENOPROTOOPT,
            libc::EHOSTDOWN,
            #[cfg(target_os = "linux")]
            libc::ENONET,
            libc::EHOSTUNREACH,
            libc::EOPNOTSUPP,
            libc::ENETUNREACH,
            libc::ESOCKTNOSUPPORT,
            libc::EPROTONOSUPPORT,
            libc::ETIMEDOUT,
        ];
        for errno in passing {
            let lack = || io::Error::from_raw_os_error(errno);
            // Returned by accept, and by the hub at the registration of the next wait.
            let errors = vec![TrampolineError::Register { fd: 3, error: Arc::new(lack()) }.into(), lack()];
            let failing = Failing { listener: TcpListener::bind(ANY).unwrap(), errors: RefCell::new(errors) };
            let address = failing.listener.local_addr().unwrap();
            let client = greenhub::spawn(move || ask(address).unwrap());
            let stop = StopServe::new();
            let last = stop.clone();
            let served = serve_until(&stop, &failing, &GreenPool::new(1), move |_, _| last.stop());
            assert_eq!(served.unwrap().accepted, 1);
            client.join().unwrap();
        }
        assert_eq!(reports().len(), passing.len(), "{:?}", reports());
    });
}

#[test]
fn lost_connections_do_not_hold_up_the_next_one() {
    support::run("lost_connections_do_not_hold_up_the_next_one", || {
        keep_reports();
        let errors = (0..60).map(|_| io::Error::from_raw_os_error(libc::ECONNABORTED)).collect();
        let failing = Failing { listener: TcpListener::bind(ANY).unwrap(), errors: RefCell::new(errors) };
        let address = failing.listener.local_addr().unwrap();
        let client = greenhub::spawn(move || ask(address).unwrap());
        let stop = StopServe::new();
        let last = stop.clone();
        let begin = Instant::now();
        let served = serve_until(&stop, &failing, &GreenPool::new(1), move |_, _| last.stop());
        assert_eq!(served.unwrap().accepted, 1);
        // A pause after every error would take 50 seconds.
        assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
        client.join().unwrap();
        assert_eq!(reports().len(), 1, "{:?}", reports());
    });
}

#[test]
fn an_invalid_listener_ends_the_server() {
    support::run("an_invalid_listener_ends_the_server", || {
        for errno in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EFAULT] {
            let errors = RefCell::new(vec![io::Error::from_raw_os_error(errno)]);
            let failing = Failing { listener: TcpListener::bind(ANY).unwrap(), errors };
            let error = serve(&failing, &GreenPool::new(1), |_, _| ()).unwrap_err();
            assert!(matches!(error, ServeError::Accept(cause) if cause.raw_os_error() == Some(errno)));
        }
    });
}

#[test]
fn a_pause_can_be_stopped() {
    support::run("a_pause_can_be_stopped", || {
        keep_reports();
        let listener = TcpListener::bind(ANY).unwrap();
        let errors = (0..1000).map(|_| io::Error::from_raw_os_error(libc::EMFILE)).collect();
        let failing = Failing { listener, errors: RefCell::new(errors) };
        let (stop, pool) = (StopServe::new(), GreenPool::new(1));
        let elsewhere = stop.clone();
        let stopper = greenhub::spawn(move || {
            greenhub::sleep(Duration::from_millis(50));
            elsewhere.stop();
        });
        assert_eq!(serve_until(&stop, &failing, &pool, |_, _| ()).unwrap().accepted, 0);
        stopper.join().unwrap();
        // Each pause is twice as long as the previous one.
        let attempts = 1000 - failing.errors.borrow().len();
        assert!((1..=6).contains(&attempts), "{attempts}");
        assert_eq!(pool.running(), 0);
    });
}

#[test]
fn handlers_run_while_connections_flood_in() {
    support::run("handlers_run_while_connections_flood_in", || {
        const MANY: usize = 300;
        let (listener, address) = listener();
        let clients: Vec<_> = (0..MANY).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let (stop, most) = (StopServe::new(), Rc::new(Cell::new(0)));
        let (last, seen, handled) = (stop.clone(), Rc::clone(&most), Cell::new(0));
        let pool = GreenPool::new(MANY);
        let watched = pool.clone();
        let served = serve_until(&stop, &*listener, &pool, move |_, _| {
            seen.set(seen.get().max(watched.running()));
            handled.set(handled.get() + 1);
            if handled.get() == MANY {
                last.stop();
            }
        });
        assert_eq!(served.unwrap().accepted, MANY as u64);
        assert!(most.get() <= 100, "{} were accepted before the first was handled", most.get());
        drop(clients);
    });
}

#[test]
fn a_stop_at_any_moment_loses_no_connection() {
    support::run("a_stop_at_any_moment_loses_no_connection", || {
        for round in 0..30 {
            let (listener, address) = listener();
            let stop = StopServe::new();
            let (elsewhere, (go, gone)) = (stop.clone(), mpsc::channel());
            let clients = std::thread::spawn(move || {
                let connect = |_| std::net::TcpStream::connect(address).unwrap();
                let clients: Vec<_> = (0..20).map(connect).collect();
                go.send(()).unwrap();
                clients.into_iter().filter(|mut client| client.read(&mut [0; 8]).is_ok_and(|n| n > 0)).count()
            });
            let stopper = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(40 * round));
                elsewhere.stop();
            });
            let pool = GreenPool::new(3);
            let served = serve_until(&stop, &*listener, &pool, |mut stream, _| stream.write_all(b"served")).unwrap();
            stopper.join().unwrap();
            gone.recv().unwrap();
            // Every accepted connection was answered; the others are still in the backlog.
            for _ in served.accepted..20 {
                listener.accept().unwrap().0.write_all(b"served").unwrap();
            }
            assert_eq!(clients.join().unwrap(), 20);
        }
    });
}

#[test]
fn servers_are_right_under_random_kills_and_stops() {
    support::run("servers_are_right_under_random_kills_and_stops", || {
        keep_reports();
        for seed in 0..60 {
            let mut random = Rng::with_seed(seed);
            let (listener, address) = listener();
            let (stop, pool) = (StopServe::new(), GreenPool::new(1 + random.usize(..4)));
            let before = green::held();
            let (begun, ended) = (Rc::new(Cell::new(0)), Drops::default());
            let (count, drops) = (Rc::clone(&begun), ended.clone());
            let pauses = [random.moment(), random.moment(), Duration::ZERO];
            let server = start(&stop, &listener, &pool, move |mut stream: TcpStream, _| {
                let _ended = drops.one();
                count.set(count.get() + 1);
                greenhub::sleep(pauses[count.get() % pauses.len()]);
                stream.write_all(b"served")
            });
            let clients: Vec<_> = (0..12)
                .map(|_| {
                    let delay = random.moment();
                    greenhub::spawn(move || {
                        greenhub::sleep(delay);
                        // A connection refused by the closed listener is an error.
                        ask(address).unwrap_or_default()
                    })
                })
                .collect();
            for _ in 0..random.usize(..4) {
                greenhub::sleep(random.moment());
                pool.kill_all();
            }
            greenhub::sleep(random.moment());
            match random.usize(..3) {
                0 => stop.stop(),
                1 => stop.stop_within(random.moment()),
                _ => listener.close(),
            }
            let served = server.join().unwrap().unwrap();
            drop(listener);
            let answers: Vec<String> = clients.into_iter().map(|client| client.join().unwrap()).collect();
            let answered = answers.iter().filter(|answer| *answer == "served").count() as u64;
            assert!(answers.iter().all(|answer| answer.is_empty() || answer == "served"), "seed {seed}: {answers:?}");
            // Every handler that began has ended, and every answer belongs to an accepted connection.
            assert_eq!((ended.count(), pool.running()), (begun.get(), 0), "seed {seed}");
            assert!(answered <= begun.get() as u64 && begun.get() as u64 <= served.accepted, "seed {seed}");
            assert!(served.accepted <= 12 && served.killed as u64 <= served.accepted - answered, "seed {seed}");
            assert_eq!(green::held(), before, "seed {seed}");
        }
        assert_eq!(reports(), Vec::<String>::new());
    });
}
