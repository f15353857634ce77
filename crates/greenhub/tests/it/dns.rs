//! Name resolution: the resolver that is asked, the number of lookups, and the cache.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::support;
use crate::support::alone;
use crate::support::fork::{exits_with, forked};
use crate::support::green::{LONG, quiet_panic};
use crate::support::random;
use greenhub::net::{
    CachedResolver, Resolver, SystemResolver, TcpListener, TcpStream, ToSocketAddrs, UdpSocket, set_resolver,
};

type Lookup = fn() -> io::Result<Vec<SocketAddr>>;

/// A resolver that follows a script, and answers after a pause.
///
/// After the script, it answers the lookup number `n` with `127.0.0.n`.
#[derive(Clone, Default)]
struct Fake(Arc<Script>);

#[derive(Default)]
struct Script {
    asked: Mutex<Vec<String>>,
    first: Mutex<Vec<Lookup>>,
    pause: AtomicUsize,
}

impl Fake {
    /// Returns a fake with these answers to its first lookups.
    fn first(does: &[Lookup]) -> Fake {
        let fake = Fake::slow();
        *fake.0.first.lock().unwrap() = does.iter().rev().copied().collect();
        fake
    }

    /// Returns a fake that pauses before each answer.
    fn slow() -> Fake {
        let fake = Fake::default();
        fake.0.pause.store(10, Ordering::Relaxed);
        fake
    }

    fn asked(&self) -> Vec<String> {
        self.0.asked.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.asked().len()
    }
}

impl Resolver for Fake {
    fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let pause = self.0.pause.load(Ordering::Relaxed) as u64;
        let number = {
            let mut asked = self.0.asked.lock().unwrap();
            asked.push(host.to_owned());
            asked.len() as u8
        };
        greenhub::sleep(Duration::from_millis(pause));
        let next = self.0.first.lock().unwrap().pop();
        next.unwrap_or(|| Ok(Vec::new()))().map(|mut addresses| {
            addresses.push(address(number));
            addresses
        })
    }
}

/// Returns the address with which a fake answers the lookup of that number.
fn address(number: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, number), 0).into()
}

#[test]
fn numeric_addresses_need_no_resolver() {
    alone("numeric_addresses_need_no_resolver", || {
        let fake = Fake::default();
        set_resolver(fake.clone());
        let ran = Rc::new(Cell::new(false));
        let runs = Rc::clone(&ran);
        greenhub::spawn(move || runs.set(true));
        for text in ["127.0.0.1:80", "[::1]:80", "[fe80::1%1]:80"] {
            assert_eq!(text.to_socket_addrs().unwrap().next(), text.parse().ok());
            assert_eq!(text.to_owned().to_socket_addrs().unwrap().count(), 1);
        }
        assert_eq!(("127.0.0.1", 80).to_socket_addrs().unwrap().count(), 1);
        assert_eq!(("::1".to_owned(), 80).to_socket_addrs().unwrap().count(), 1);
        assert_eq!((Ipv4Addr::LOCALHOST, 80).to_socket_addrs().unwrap().count(), 1);
        for wrong in ["127.0.0.1", "host", "host:", "host:http", "host:65536", ""] {
            assert_eq!(wrong.to_socket_addrs().unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong:?}");
        }
        assert_eq!(fake.asked(), Vec::<String>::new());
        assert!(!ran.get(), "the lookup has switched");
    });
}

#[test]
fn a_custom_resolver_is_asked_for_every_name() {
    alone("a_custom_resolver_is_asked_for_every_name", || {
        let fake = Fake::default();
        set_resolver(fake.clone());
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("one.test", port)).unwrap();
        assert_eq!(client.peer_addr().unwrap(), (Ipv4Addr::new(127, 0, 0, 1), port).into());
        let client = TcpStream::connect(format!("two.test:{port}")).unwrap();
        assert_eq!(client.peer_addr().unwrap(), (Ipv4Addr::new(127, 0, 0, 2), port).into());
        let bound = TcpListener::bind("three.test:0").unwrap().local_addr().unwrap();
        assert_eq!(bound.ip(), Ipv4Addr::new(127, 0, 0, 3));
        let bound = UdpSocket::bind("four.test:0").unwrap().local_addr().unwrap();
        assert_eq!(bound.ip(), Ipv4Addr::new(127, 0, 0, 4));
        // The setting holds on other OS threads too.
        let other = std::thread::spawn(|| ("five.test".to_owned(), 5).to_socket_addrs().unwrap().next());
        assert_eq!(other.join().unwrap(), Some((Ipv4Addr::new(127, 0, 0, 5), 5).into()));
        assert_eq!(fake.asked(), ["one.test", "two.test", "three.test", "four.test", "five.test"]);
    });
}

#[test]
fn others_run_while_a_resolver_waits() {
    alone("others_run_while_a_resolver_waits", || {
        set_resolver(Fake::slow());
        let ran = Rc::new(Cell::new(false));
        let runs = Rc::clone(&ran);
        greenhub::spawn(move || runs.set(true));
        assert_eq!("one.test:1".to_socket_addrs().unwrap().count(), 1);
        assert!(ran.get());
    });
}

#[test]
fn a_name_without_addresses_is_an_error_of_the_call() {
    alone("a_name_without_addresses_is_an_error_of_the_call", || {
        struct Nothing;
        impl Resolver for Nothing {
            fn resolve(&self, _: &str) -> io::Result<Vec<SocketAddr>> {
                Ok(Vec::new())
            }
        }
        set_resolver(Nothing);
        assert_eq!(TcpStream::connect("one.test:1").unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn the_error_of_the_resolver_reaches_the_caller() {
    alone("the_error_of_the_resolver_reaches_the_caller", || {
        set_resolver(Fake::first(&[|| Err(io::Error::new(ErrorKind::NotFound, "no such host: one.test"))]));
        let error = TcpStream::connect("one.test:1").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "no such host: one.test"));
    });
}

#[test]
fn the_system_resolver_finds_loopback_addresses_for_localhost() {
    support::run("the_system_resolver_finds_loopback_addresses_for_localhost", || {
        for _ in 0..2 {
            let found = "localhost:7".to_socket_addrs().unwrap();
            assert!(found.into_iter().all(|address| address.ip().is_loopback() && address.port() == 7));
        }
        assert!(SystemResolver.resolve("localhost").unwrap().iter().all(|address| address.ip().is_loopback()));
    });
}

#[test]
fn an_unknown_name_is_the_same_error_as_in_std() {
    support::run("an_unknown_name_is_the_same_error_as_in_std", || {
        let too_long = "x".repeat(100);
        for host in [too_long.as_str(), "zero\0"] {
            let expected = std::net::ToSocketAddrs::to_socket_addrs(&(host, 1)).unwrap_err();
            let error = (host, 1).to_socket_addrs().unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (expected.kind(), expected.to_string()));
        }
    });
}

#[test]
fn concurrent_calls_for_a_name_share_one_lookup() {
    support::run("concurrent_calls_for_a_name_share_one_lookup", || {
        let fake = Fake::slow();
        let cached = Arc::new(CachedResolver::new(fake.clone()).ttl(Duration::ZERO));
        let askers: Vec<_> = ["one", "two", "one", "one", "two"]
            .map(|host| {
                let cached = Arc::clone(&cached);
                greenhub::spawn(move || cached.resolve(host).unwrap())
            })
            .into();
        let found: Vec<_> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
        let [one, two] = [1, 2].map(|number| vec![address(number)]);
        assert_eq!(found, [&one, &two, &one, &one, &two].map(Vec::clone));
        assert_eq!(fake.asked(), ["one", "two"]);
        // With a TTL of zero, answers are not cached.
        cached.resolve("one").unwrap();
        assert_eq!(fake.count(), 3);
    });
}

#[test]
fn os_threads_share_one_lookup() {
    support::run("os_threads_share_one_lookup", || {
        let fake = Fake::slow();
        fake.0.pause.store(200, Ordering::Relaxed);
        // The TTL serves threads that ask after the answer.
        let cached = Arc::new(CachedResolver::new(fake.clone()).ttl(LONG));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let cached = Arc::clone(&cached);
                std::thread::spawn(move || cached.resolve("one").unwrap())
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), [address(1)]);
        }
        assert_eq!(fake.count(), 1);
    });
}

#[test]
fn a_name_is_cached_until_its_ttl_expires() {
    support::run("a_name_is_cached_until_its_ttl_expires", || {
        let fake = Fake::default();
        let cached = CachedResolver::new(fake.clone()).ttl(LONG);
        for _ in 0..3 {
            assert_eq!(cached.resolve("one").unwrap(), [address(1)]);
        }
        assert_eq!(cached.resolve("two").unwrap(), [address(2)]);
        cached.clear();
        assert_eq!(cached.resolve("one").unwrap(), [address(3)]);

        let fake = Fake::default();
        let cached = CachedResolver::new(fake.clone()).ttl(Duration::from_millis(20));
        cached.resolve("one").unwrap();
        greenhub::sleep(Duration::from_millis(21));
        assert_eq!(cached.resolve("one").unwrap(), [address(2)]);
        assert_eq!(CachedResolver::new(fake).ttl(Duration::MAX).resolve("one").unwrap(), [address(3)]);
    });
}

#[test]
fn the_cache_evicts_the_oldest_name_beyond_its_capacity() {
    support::run("the_cache_evicts_the_oldest_name_beyond_its_capacity", || {
        // A plain list is the model: its oldest entry is evicted first.
        for capacity in 0..4 {
            let mut random = random::Rng::with_seed(capacity as u64 + 1);
            let fake = Fake::default();
            let cached = CachedResolver::new(fake.clone()).ttl(LONG).capacity(capacity);
            let mut expected: Vec<String> = Vec::new();
            let mut known: Vec<String> = Vec::new();
            for _ in 0..200 {
                let host = format!("host-{}", random.usize(..5));
                cached.resolve(&host).unwrap();
                if !known.contains(&host) {
                    expected.push(host.clone());
                    known.push(host);
                    if known.len() > capacity {
                        known.remove(0);
                    }
                }
            }
            assert_eq!(fake.asked(), expected, "capacity {capacity}");
        }
    });
}

#[test]
fn an_error_reaches_all_waiters_and_is_not_cached() {
    support::run("an_error_reaches_all_waiters_and_is_not_cached", || {
        let failures: [Lookup; 2] = [
            || Err(io::Error::new(ErrorKind::NotFound, "no such host")),
            || Err(io::Error::from_raw_os_error(libc::EMFILE)),
        ];
        let fake = Fake::first(&failures);
        let cached = Arc::new(CachedResolver::new(fake.clone()).ttl(LONG));
        for failure in failures {
            let askers: Vec<_> = (0..3)
                .map(|_| {
                    let cached = Arc::clone(&cached);
                    greenhub::spawn(move || cached.resolve("one").unwrap_err())
                })
                .collect();
            let expected = failure().unwrap_err();
            for asker in askers {
                let error = asker.join().unwrap();
                assert_eq!(error.kind(), expected.kind());
                assert_eq!(error.raw_os_error(), expected.raw_os_error());
                assert_eq!(error.to_string(), expected.to_string());
            }
        }
        assert_eq!(fake.count(), 2);
        assert_eq!(cached.resolve("one").unwrap(), [address(3)]);
    });
}

#[test]
fn a_killed_lookup_is_taken_over_by_the_next_waiter() {
    support::run("a_killed_lookup_is_taken_over_by_the_next_waiter", || {
        let fake = Fake::slow();
        let cached = Arc::new(CachedResolver::new(fake.clone()));
        let askers: Vec<_> = (0..3)
            .map(|_| {
                let cached = Arc::clone(&cached);
                greenhub::spawn(move || cached.resolve("one").unwrap())
            })
            .collect();
        greenhub::thread::yield_now();
        assert_eq!(fake.count(), 1);
        askers[0].kill();
        let found: Vec<_> = askers.into_iter().map(|asker| asker.join()).collect();
        assert!(found[0].as_ref().unwrap_err().is_kill());
        assert_eq!(found[1].as_ref().unwrap(), &[address(2)]);
        assert_eq!(found[2].as_ref().unwrap(), &[address(2)]);
        assert_eq!(fake.count(), 2);
    });
}

#[test]
fn kill_ends_a_waiter_of_a_shared_lookup() {
    support::run("kill_ends_a_waiter_of_a_shared_lookup", || {
        let fake = Fake::slow();
        let cached = Arc::new(CachedResolver::new(fake.clone()));
        let [first, second] = [(), ()].map(|()| {
            let cached = Arc::clone(&cached);
            greenhub::spawn(move || cached.resolve("one").unwrap())
        });
        greenhub::thread::yield_now();
        second.kill();
        assert!(second.join().unwrap_err().is_kill());
        assert_eq!(first.join().unwrap(), [address(1)]);
        assert_eq!(fake.count(), 1);
    });
}

#[test]
fn a_panic_of_the_resolver_reaches_only_its_caller() {
    support::run("a_panic_of_the_resolver_reaches_only_its_caller", || {
        let fake = Fake::first(&[|| quiet_panic("on purpose")]);
        let cached = Arc::new(CachedResolver::new(fake.clone()));
        let [first, second] = [(), ()].map(|()| {
            let cached = Arc::clone(&cached);
            greenhub::spawn(move || cached.resolve("one").unwrap())
        });
        assert!(first.join().is_err());
        assert_eq!(second.join().unwrap(), [address(2)]);
    });
}

#[test]
fn a_caller_that_cannot_wait_does_not_fail_other_waiters() {
    support::run("a_caller_that_cannot_wait_does_not_fail_other_waiters", || {
        let callers: Lookup = || Err(greenhub::hub::LoopError::from(greenhub::hub::LoopErrorKind::Aborted).into());
        let fake = Fake::first(&[callers]);
        let cached = Arc::new(CachedResolver::new(fake.clone()));
        let [first, second] = [(), ()].map(|()| {
            let cached = Arc::clone(&cached);
            greenhub::spawn(move || cached.resolve("one"))
        });
        assert!(first.join().unwrap().is_err());
        assert_eq!(second.join().unwrap().unwrap(), [address(2)]);
    });
}

#[test]
fn a_forked_child_repeats_a_pending_lookup() {
    alone("a_forked_child_repeats_a_pending_lookup", || {
        let fake = Fake::slow();
        fake.0.pause.store(LONG.as_millis() as usize, Ordering::Relaxed);
        let cached = Arc::new(CachedResolver::new(fake.clone()));
        let (parked, is_parked) = mpsc::channel();
        let (over, is_over) = mpsc::channel::<()>();
        let asker = {
            let cached = Arc::clone(&cached);
            std::thread::spawn(move || {
                let asker = greenhub::spawn(move || cached.resolve("one"));
                greenhub::thread::yield_now();
                parked.send(()).unwrap();
                let _ = is_over.recv();
                asker.kill();
                asker.join().is_err()
            })
        };
        is_parked.recv().unwrap();
        assert_eq!(fake.count(), 1);
        fake.0.pause.store(0, Ordering::Relaxed);
        let child = forked(|| assert_eq!(cached.resolve("one").unwrap(), [address(2)]));
        exits_with(child, 0);
        drop(over);
        assert!(asker.join().unwrap());
    });
}
