//! The random programs.

use std::time::Duration;

use crate::support::random::Rng;
use greenhub::Interest;
use greenhub::gevent::Priority;

/// The number of socket pairs.
pub(super) const SOCKETS: usize = 2;

/// The turns after the last operation, in which the callbacks of each program come to rest.
pub(super) const TURNS_AT_THE_END: usize = 12;

/// A watcher of the programs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Of a socket, in these directions.
    Io(usize, Interest),
    /// With its delay and period in milliseconds.
    Timer(u64, u64),
    Async,
    Prepare,
    Check,
    Idle,
    /// The programs do not fork.
    Fork,
    /// Of `SIGWINCH`, which does nothing by default.
    Signal,
}

impl Kind {
    pub(super) fn is_phase(self) -> bool {
        matches!(self, Kind::Prepare | Kind::Check | Kind::Idle | Kind::Fork)
    }

    /// Returns whether an event that no wait has taken is kept for the next one.
    pub(super) fn keeps_events(self) -> bool {
        matches!(self, Kind::Async | Kind::Signal | Kind::Fork)
    }
}

/// The watchers of each program. An operation names its watcher by its place here.
pub(super) const WATCHERS: [Kind; 20] = [
    Kind::Io(0, Interest::READ),
    Kind::Io(0, Interest::READ),
    Kind::Io(0, Interest::WRITE),
    Kind::Io(0, Interest::BOTH),
    Kind::Io(1, Interest::READ),
    Kind::Io(1, Interest::BOTH),
    Kind::Timer(0, 0),
    Kind::Timer(2, 0),
    Kind::Timer(5, 0),
    Kind::Timer(1, 3),
    Kind::Timer(2, 2),
    Kind::Async,
    Kind::Async,
    Kind::Prepare,
    Kind::Check,
    Kind::Idle,
    Kind::Idle,
    Kind::Fork,
    Kind::Signal,
    Kind::Signal,
];

const PRIORITIES: [Priority; 5] =
    [Priority::Lowest, Priority::Low, Priority::Normal, Priority::High, Priority::Highest];

/// An operation of the main greenlet, or of a callback.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Starts a watcher. Its callback runs the operations when it is called first.
    Start(usize, Vec<Op>),
    Again(usize, Vec<Op>),
    Resume(usize),
    Stop(usize),
    Close(usize),
    /// Drops the handle.
    Drop(usize),
    Feed(usize),
    SetPriority(usize, Priority),
    SetCounted(usize, bool),
    /// Sends to an async watcher.
    Send(usize),
    /// Raises the signal.
    Raise,
    /// Makes a socket readable.
    Write(usize),
    /// Makes a socket unreadable.
    Drain(usize),
    /// Makes a socket unwritable.
    Fill(usize),
    /// Makes a socket writable.
    Empty(usize),
    /// Spawns a green thread with these waits.
    Spawn(Vec<Wait>),
    /// Cancels the wait for a watcher.
    Cancel(usize),
    /// Kills a green thread, by its number, from a queued callback.
    Kill(usize),
    /// Ends a callback.
    Panic,
    /// Moves the clock forward. Only of the main greenlet.
    Advance(Duration),
    /// Runs a turn. Only of the main greenlet.
    Turn,
}

/// A wait of a green thread.
#[derive(Clone, Debug)]
pub(super) enum Wait {
    /// For the event of one watcher.
    One(usize),
    /// Until a number of watchers are ready.
    Several(Vec<usize>, usize),
}

/// The operations of the main greenlet.
#[derive(Clone, Debug)]
pub(super) struct Program(pub(super) Vec<Op>);

impl Program {
    pub(super) fn random(seed: u64) -> Program {
        let mut random = Rng::with_seed(seed);
        // Few watchers, so that operations meet.
        let watchers: Vec<usize> = (0..random.usize(1..8)).map(|_| random.usize(..WATCHERS.len())).collect();
        let count = random.usize(5..50);
        Program((0..count).map(|_| Op::random(&mut random, &watchers, 0)).collect())
    }

    /// Returns the programs that lack one operation of this one, at any depth.
    pub(super) fn smaller(&self) -> impl Iterator<Item = Program> + use<> {
        smaller(&self.0).into_iter().map(Program)
    }
}

fn smaller(ops: &[Op]) -> Vec<Vec<Op>> {
    let mut all = Vec::new();
    // A half at once makes large programs small soon.
    if ops.len() > 8 {
        all.extend([ops[ops.len() / 2..].to_vec(), ops[..ops.len() / 2].to_vec()]);
    }
    for place in 0..ops.len() {
        let mut without = ops.to_vec();
        without.remove(place);
        all.push(without);
        let (Op::Start(watcher, script) | Op::Again(watcher, script)) = &ops[place] else { continue };
        for script in smaller(script) {
            let mut changed = ops.to_vec();
            changed[place] = match &ops[place] {
                Op::Start(..) => Op::Start(*watcher, script),
                _ => Op::Again(*watcher, script),
            };
            all.push(changed);
        }
    }
    all
}

impl Op {
    fn random(random: &mut Rng, watchers: &[usize], depth: usize) -> Op {
        let watcher = watchers[random.usize(..watchers.len())];
        let script = |random: &mut Rng| {
            let count = if depth == 2 { 0 } else { random.usize(..4) };
            (0..count).map(|_| Op::random(random, watchers, depth + 1)).collect()
        };
        match random.u8(..46) {
            0..8 => Op::Start(watcher, script(random)),
            8 => Op::Again(watcher, script(random)),
            9 | 10 => Op::Resume(watcher),
            11 | 12 => Op::Stop(watcher),
            13 => Op::Close(watcher),
            14 => Op::Drop(watcher),
            15 | 16 => Op::Feed(watcher),
            17 | 18 => Op::SetPriority(watcher, PRIORITIES[random.usize(..PRIORITIES.len())]),
            19 => Op::SetCounted(watcher, random.bool()),
            20 | 21 => Op::Send(watcher),
            22 | 23 => Op::Write(random.usize(..SOCKETS)),
            24 => Op::Drain(random.usize(..SOCKETS)),
            25 => Op::Fill(random.usize(..SOCKETS)),
            26 => Op::Empty(random.usize(..SOCKETS)),
            27..30 => {
                // Half of the green threads wait for the same watcher again and again.
                let same = random.bool().then_some(Wait::One(watcher));
                let mut wait = || same.clone().unwrap_or_else(|| Wait::random(random, watchers));
                let waits = [(); 3].map(|()| wait());
                Op::Spawn(waits.into())
            }
            30 | 31 => Op::Cancel(watcher),
            32 => Op::Kill(random.usize(..6)),
            44 | 45 => Op::Raise,
            33 if depth != 0 => Op::Panic,
            _ if depth != 0 => Op::Feed(watcher),
            33..36 => Op::Advance(Duration::from_millis(random.u64(1..8))),
            _ => Op::Turn,
        }
    }
}

impl Wait {
    fn random(random: &mut Rng, watchers: &[usize]) -> Wait {
        if random.bool() {
            return Wait::One(watchers[random.usize(..watchers.len())]);
        }
        let mut several = watchers.to_vec();
        random.shuffle(&mut several);
        several.sort_unstable();
        several.dedup();
        random.shuffle(&mut several);
        several.truncate(random.usize(1..4));
        let count = random.usize(1..=several.len());
        Wait::Several(several, count)
    }
}
