//! Listening with options.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::support::nobody::Nobody;
use crate::support::{self, alone};
use greenhub::net::{ListenOptions, TcpListener, TcpStream};

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn without_options_it_is_a_plain_listener() {
    support::run("without_options_it_is_a_plain_listener", || {
        assert_eq!(ListenOptions::default(), ListenOptions::new());
        let listener = ListenOptions::new().listen(ANY).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap().0.write_all(b"x").unwrap();
        assert_eq!(client.read(&mut [0; 2]).unwrap(), 1);
        let error = ListenOptions::new().listen(listener.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn an_address_is_used_again_at_once_unless_that_is_turned_off() {
    support::run("an_address_is_used_again_at_once_unless_that_is_turned_off", || {
        let again = |_| {
            let listener = TcpListener::bind(ANY).unwrap();
            assert!(rustix::net::sockopt::socket_reuseaddr(&listener).unwrap());
            let address = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(address).unwrap();
            // The side that closes first keeps the address busy for a while.
            drop(listener.accept().unwrap());
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            drop((client, listener));
            let refused = ListenOptions::new().reuse_address(false).listen(address).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AddrInUse);
            ListenOptions::new().reuse_address(true).listen(address)
        };
        // Another program may get it first, but not each time.
        assert!((0..5).map(again).any(|listener| listener.is_ok()));
    });
}

#[test]
fn a_port_can_be_shared_by_those_who_say_so() {
    support::run("a_port_can_be_shared_by_those_who_say_so", || {
        let sharing = ListenOptions::new().reuse_port(true);
        // A port that no other socket has.
        let address = TcpListener::bind(ANY).unwrap().local_addr().unwrap();
        let one = sharing.listen(address).unwrap();
        let other = sharing.listen(address).unwrap();
        assert_eq!(other.local_addr().unwrap(), address);
        assert_eq!(TcpListener::bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        // Whoever of them gets the connections, none is lost.
        for listener in [one, other] {
            greenhub::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    stream.write_all(b"x").unwrap();
                }
            });
        }
        for _ in 0..20 {
            assert_eq!(TcpStream::connect(address).unwrap().read(&mut [0; 2]).unwrap(), 1);
        }
    });
}

#[test]
fn a_port_that_the_system_chooses_is_shared_with_a_warning() {
    use std::sync::{Arc, Mutex};
    alone("a_port_that_the_system_chooses_is_shared_with_a_warning", || {
        let reports = Arc::<Mutex<Vec<String>>>::default();
        let told = Arc::clone(&reports);
        let here = std::thread::current().id();
        greenhub::set_report_stream(move |report| {
            if std::thread::current().id() == here {
                told.lock().unwrap().push(report.to_string());
            }
        });
        let sharing = ListenOptions::new().reuse_port(true);
        let one = sharing.listen(ANY).unwrap();
        assert_eq!(reports.lock().unwrap().len(), 1);
        assert!(reports.lock().unwrap()[0].contains("shares its port"), "{reports:?}");
        // Neither where the port is known, nor where it is not shared, nor for a cluster, which shares it within itself.
        let _other = sharing.listen(one.local_addr().unwrap()).unwrap();
        let _own = ListenOptions::new().listen(ANY).unwrap();
        let server = greenhub::net::Cluster::new(2).serve(ANY, |_, _| ()).unwrap();
        server.stop().stop();
        server.join().unwrap();
        assert_eq!(reports.lock().unwrap().len(), 1, "{reports:?}");
    });
}

#[test]
fn so_many_connections_wait_as_the_backlog_says() {
    support::run("so_many_connections_wait_as_the_backlog_says", || {
        let wait_at = |listener: &TcpListener| {
            let address = listener.local_addr().unwrap();
            let waiting: Vec<_> = (0..40).map_while(|_| TcpStream::connect_timeout(&address, SHORT).ok()).collect();
            waiting.len()
        };
        let few = wait_at(&ListenOptions::new().backlog(3).listen(ANY).unwrap());
        assert!((3..=6).contains(&few), "{few}");
        assert_eq!(wait_at(&ListenOptions::new().backlog(50).listen(ANY).unwrap()), 40);
        assert_eq!(wait_at(&ListenOptions::new().backlog(u32::MAX).listen(ANY).unwrap()), 40);
    });
}

#[test]
fn an_address_of_ipv6_is_for_ipv4_too_unless_that_is_turned_off() {
    support::run("an_address_of_ipv6_is_for_ipv4_too_unless_that_is_turned_off", || {
        let any = (Ipv6Addr::UNSPECIFIED, 0);
        let both = match ListenOptions::new().only_v6(false).listen(any) {
            Ok(both) => both,
            // A system without IPv6.
            Err(error) if TcpListener::bind(any).is_err() => return eprintln!("no IPv6 here: {error}"),
            Err(error) => panic!("{error}"),
        };
        let at =
            |listener: &TcpListener| SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        TcpStream::connect(at(&both)).unwrap();
        // At the port of one who has it for IPv4, and does not listen.
        let nobody = Nobody::new();
        let any = (Ipv6Addr::UNSPECIFIED, nobody.address.port());
        let only = ListenOptions::new().only_v6(true).listen(any).unwrap();
        assert_eq!(TcpStream::connect(at(&only)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // The option is none of theirs.
        ListenOptions::new().only_v6(true).listen(ANY).unwrap();
    });
}
