//! Ping-pong between two green threads for each pair of sockets, on one hub.

use std::io::{Read, Write};

use greenhub::{spawn, spawn_n};

/// Sends a message of `bytes` over each pair and back, `rounds` times.
///
/// Switches.
///
/// # Panics
///
/// Panics if a socket fails, or if a connection ends early.
pub fn ping_pong<S: Read + Write + 'static>(pairs: Vec<(S, S)>, rounds: u64, bytes: usize) {
    let player = |(mut near, mut far): (S, S)| {
        spawn_n(move || {
            let mut message = vec![0; bytes];
            for _ in 0..rounds {
                far.read_exact(&mut message).expect("a message comes");
                far.write_all(&message).expect("the peer reads");
            }
        });
        spawn(move || {
            let mut message = vec![7; bytes];
            for _ in 0..rounds {
                near.write_all(&message).expect("a message is sent");
                near.read_exact(&mut message).expect("the message comes back");
            }
        })
    };
    let players: Vec<_> = pairs.into_iter().map(player).collect();
    for player in players {
        player.join().expect("no panic");
    }
}
