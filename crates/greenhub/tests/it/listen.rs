//! `ListenOptions`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::support::closed_port::ClosedPort;
use crate::support::{self, alone};
use greenhub::net::{ListenOptions, TcpListener, TcpStream};

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn default_options_make_a_plain_listener() {
    support::run("default_options_make_a_plain_listener", || {
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
fn reuse_address_rebinds_an_address_at_once() {
    support::run("reuse_address_rebinds_an_address_at_once", || {
        let again = |_| {
            let listener = TcpListener::bind(ANY).unwrap();
            assert!(rustix::net::sockopt::socket_reuseaddr(&listener).unwrap());
            let address = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(address).unwrap();
            // The side that closes first keeps the address in use for a while.
            drop(listener.accept().unwrap());
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            drop((client, listener));
            let refused = ListenOptions::new().reuse_address(false).listen(address).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AddrInUse);
            ListenOptions::new().reuse_address(true).listen(address)
        };
        // Another program may bind the address first, but not each time.
        assert!((0..5).map(again).any(|listener| listener.is_ok()));
    });
}

#[test]
fn reuse_port_lets_listeners_share_a_port() {
    support::run("reuse_port_lets_listeners_share_a_port", || {
        let sharing = ListenOptions::new().reuse_port(true);
        // A port without another socket.
        let address = TcpListener::bind(ANY).unwrap().local_addr().unwrap();
        let one = sharing.listen(address).unwrap();
        let other = sharing.listen(address).unwrap();
        assert_eq!(other.local_addr().unwrap(), address);
        assert_eq!(TcpListener::bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        // Every connection is served, whichever listener gets it.
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
fn sharing_a_port_chosen_by_the_system_warns() {
    use std::sync::{Arc, Mutex};
    alone("sharing_a_port_chosen_by_the_system_warns", || {
        let reports = Arc::<Mutex<Vec<String>>>::default();
        let added = Arc::clone(&reports);
        let here = std::thread::current().id();
        greenhub::debug::set_report_stream(move |report| {
            if std::thread::current().id() == here {
                added.lock().unwrap().push(report.to_string());
            }
        });
        let sharing = ListenOptions::new().reuse_port(true);
        let one = sharing.listen(ANY).unwrap();
        assert_eq!(reports.lock().unwrap().len(), 1);
        assert!(reports.lock().unwrap()[0].contains("shares its port"), "{reports:?}");
        // No warning for a known port, for a port that is not shared, or for a cluster, which shares its own port.
        let _other = sharing.listen(one.local_addr().unwrap()).unwrap();
        let _own = ListenOptions::new().listen(ANY).unwrap();
        let server = greenhub::net::Cluster::new(2).serve(ANY, |_, _| ()).unwrap();
        server.stop().stop();
        server.join().unwrap();
        assert_eq!(reports.lock().unwrap().len(), 1, "{reports:?}");
    });
}

#[test]
fn the_backlog_limits_waiting_connections() {
    support::run("the_backlog_limits_waiting_connections", || {
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
fn only_v6_controls_whether_ipv4_connects_to_an_ipv6_address() {
    support::run("only_v6_controls_whether_ipv4_connects_to_an_ipv6_address", || {
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
        // At a port that an IPv4 socket has bound without listening.
        let closed = ClosedPort::new();
        let any = (Ipv6Addr::UNSPECIFIED, closed.address.port());
        let only = ListenOptions::new().only_v6(true).listen(any).unwrap();
        assert_eq!(TcpStream::connect(at(&only)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // The option is ignored for an IPv4 address.
        ListenOptions::new().only_v6(true).listen(ANY).unwrap();
    });
}
