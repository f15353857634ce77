//! Random sequences of calls on both sides of a connection, each call with a short timeout.
//!
//! The variable `GREENHUB_SEEDS` sets the number of sequences for each kind of socket.

use std::net::Shutdown;
use std::sync::Arc;

use super::case::{Kind, Mode, Op};
use super::sockets::{Socket, SocketPath, green, os, word};
use crate::support::random::{Rng, seeds};

const KINDS: [Kind; 4] = [Kind::Tcp, Kind::Unix, Kind::Udp, Kind::DatagramPair];

/// A difference counts if it occurs in this many runs: the TCP stack of the system has its own timing.
const ROUNDS: usize = 4;

/// One step, on one of two sides.
#[derive(Copy, Clone, Debug)]
enum Step {
    Call(Op),
    Shut(Shutdown),
    Clone,
    Close,
}

fn steps(kind: Kind, random: &mut Rng) -> Vec<(usize, Step)> {
    let reads: &[Op] = match kind {
        Kind::Tcp => &[Op::Read, Op::Peek, Op::ReadVectored],
        Kind::Unix => &[Op::Read, Op::ReadVectored],
        Kind::Udp => &[Op::Read, Op::Peek],
        _ => &[Op::Read],
    };
    let step = |random: &mut Rng| match random.usize(..20) {
        0 => Step::Shut(Shutdown::Read),
        1 => Step::Shut(Shutdown::Write),
        2 => Step::Shut(Shutdown::Both),
        3 => Step::Close,
        4 => Step::Clone,
        5 if kind == Kind::Unix || kind == Kind::DatagramPair => Step::Call(Op::Fill),
        5..=11 => Step::Call(Op::Write),
        _ => Step::Call(reads[random.usize(..reads.len())]),
    };
    (0..4 + random.usize(..12)).map(|_| (random.usize(..2), step(random))).collect()
}

/// Returns the outcome of each step.
fn play((one, other): (Box<dyn Socket>, Box<dyn Socket>), steps: &[(usize, Step)]) -> Vec<String> {
    let mut sides = [Some(one), Some(other)];
    sides.iter().flatten().for_each(|side| side.set(Mode::Timeout).unwrap());
    let mut play_one = |&(number, step): &(usize, Step)| {
        let side = &mut sides[number];
        let Some(socket) = side else { return "closed".to_owned() };
        match step {
            Step::Call(op) => word(socket.call(op)),
            Step::Shut(how) => word(socket.shut(how).map(|()| 0)),
            Step::Clone => {
                *side = Some(socket.copy());
                "cloned".to_owned()
            }
            Step::Close => {
                *side = None;
                "closes".to_owned()
            }
        }
    };
    steps.iter().map(&mut play_one).collect()
}

/// Compares random sequences of calls with std.
pub(crate) fn compare() {
    let seeds = seeds(60, 100);
    let mut differences = Vec::new();
    for kind in KINDS {
        for seed in seeds.clone() {
            let steps = steps(kind, &mut Rng::with_seed(seed));
            let difference = |_| {
                let path = Arc::new(SocketPath::new());
                let std = play(os::pair(kind, &path), &steps);
                let green = play(green::pair(kind, &path), &steps);
                (std != green).then(|| format!("{kind:?}, seed {seed}: {steps:?}\nstd   {std:?}\ngreen {green:?}"))
            };
            // Counts the last difference if every round had one.
            if let Some(Some(difference)) = (0..ROUNDS).map(difference).take_while(Option::is_some).nth(ROUNDS - 1) {
                differences.push(difference);
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
