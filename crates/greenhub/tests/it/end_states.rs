//! The results of socket operations after every kind of end, compared with std.
//!
//! The oracle runs the same calls of std on OS threads of a child process. The kernel's state of a thread shows that it
//! blocks, and a blocked thread ends with the process. A combination that differs is tried again with more time. Then
//! the test names it: kind of socket, end, operation, mode, and whether the operation began before the end.

mod case;
mod green;
mod oracle;
mod random;
mod sockets;

use std::collections::HashMap;
use std::time::Duration;

use self::case::{Case, Kind};
use crate::support;

/// A difference counts if it occurs this many times.
const ROUNDS: u32 = 3;

/// That many differences are not a matter of timing.
const MANY: usize = 30;

/// Compares every case of one kind of socket.
fn compare(name: &'static str, kind: Kind) {
    if support::is_child() {
        return oracle::answer(kind);
    }
    support::run(name, move || {
        let mut open = Case::all(kind);
        assert!(!open.is_empty());
        let mut differences = Vec::new();
        for round in 0..ROUNDS {
            let blocked_after = Duration::from_millis(150) * 4_u32.pow(round);
            let expected: HashMap<String, String> = oracle::ask(name, &open, blocked_after);
            let found = green::run(&open, &expected, blocked_after);
            differences.clear();
            open.retain(|case| {
                let (expected, found) = (&expected[&case.name()], &found[&case.name()]);
                let differs = !case.agree(expected, found);
                if differs {
                    differences.push(format!("{}: std {expected}, green {found}", case.name()));
                }
                differs
            });
            if open.is_empty() {
                return;
            }
            if open.len() > MANY {
                break;
            }
        }
        panic!("hub {}:\n{}", greenhub::get_hub().name(), differences.join("\n"));
    });
}

macro_rules! compared {
    ($($name:ident: $kind:ident;)*) => {$(
        #[test]
        fn $name() {
            compare(stringify!($name), Kind::$kind);
        }
    )*};
}

compared! {
    the_ends_of_a_tcp_stream_are_those_of_std: Tcp;
    the_ends_of_a_unix_stream_are_those_of_std: Unix;
    the_ends_of_a_udp_socket_are_those_of_std: Udp;
    the_ends_of_a_pair_of_unix_datagram_sockets_are_those_of_std: DatagramPair;
    the_ends_of_a_unix_datagram_socket_with_a_name_are_those_of_std: DatagramNamed;
    the_ends_of_a_tcp_listener_are_those_of_std: TcpListener;
    the_ends_of_a_unix_listener_are_those_of_std: UnixListener;
    the_ends_of_a_tcp_connection_attempt_are_those_of_std: TcpConnect;
    the_ends_of_a_unix_connection_attempt_are_those_of_std: UnixConnect;
}

#[test]
fn random_ends_of_sockets_have_the_results_of_std() {
    support::run("random_ends_of_sockets_have_the_results_of_std", random::compare);
}
