//! Generates and shrinks random programs.

use crate::support::random::Rng;

/// A green thread, by its index in the program; 0 is the main greenlet.
pub(crate) type Thread = usize;
/// Milliseconds of the virtual clock.
pub(crate) type Millis = u64;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Spawn(Thread),
    SpawnN(Thread),
    SpawnAfter(Millis, Thread),
    Sleep(Millis),
    /// Computes: advances the clock without switching.
    Burn(Millis),
    Yield,
    Wait(Thread),
    Join(Thread),
    Kill(Thread),
    KillWith(Thread),
    Cancel(Thread),
    Link(Thread),
    /// Removes the link that was added last to that green thread.
    Unlink(Thread),
    DropHandle(Thread),
    Panic,
    /// Runs the operations and catches any unwinding out of them.
    Catch(Vec<Op>),
    /// Schedules a callback of the main loop, with its number and its operations, none of which blocks.
    Schedule(Millis, usize, Vec<Op>),
    Unschedule(usize),
    Timeout(Millis, Vec<Op>),
    /// Spawns the green threads in a scope, runs the operations, and joins.
    Scope(Vec<Thread>, Vec<Op>),
    Send(usize, Option<Millis>),
    Receive(usize, Option<Millis>),
    CloseReader(usize),
    CloseWriter(usize),
    /// Waits until a bare descriptor number is readable.
    Trampoline(usize, Option<Millis>),
    /// Makes a bare number readable.
    Fill(usize),
    /// Moves a bare number to another file, which is not readable.
    Reuse(usize),
}

/// A program: the operations of each green thread.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Program {
    pub(crate) bodies: Vec<Vec<Op>>,
}

/// The number of pipes in a program.
pub(crate) const PIPES: usize = 3;
/// The number of bare descriptor numbers in a program.
pub(crate) const NUMBERS: usize = 2;
/// The capacity of a pipe, in messages.
pub(crate) const CAPACITY: usize = 2;

/// The set of operations that a program may contain.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    Threads,
    Timeouts,
    Pipes,
    Everything,
}

/// The state of the generator: the green threads, callbacks and operations still to be written.
struct Writer {
    random: Rng,
    layer: Layer,
    threads: usize,
    spawned: usize,
    callbacks: usize,
    left: usize,
}

impl Program {
    pub(crate) fn random(seed: u64, layer: Layer) -> Program {
        let mut random = Rng::with_seed(seed);
        let threads = 2 + random.usize(..8);
        let left = 10 + random.usize(..50);
        let mut writer = Writer { random, layer, threads, spawned: 0, callbacks: 0, left };
        let mut bodies = vec![Vec::new()];
        // A body is written after the body of its spawner, so each green thread has an earlier spawner.
        let mut next = 0;
        while next <= writer.spawned {
            let length = 3 + writer.random.usize(..8);
            let body = writer.body(next, length, 0);
            bodies[next] = body;
            bodies.resize(writer.spawned + 1, Vec::new());
            next += 1;
        }
        Program { bodies }
    }

    /// Returns slightly smaller programs: with a run of operations removed, or a nested one unwrapped.
    pub(crate) fn smaller(&self) -> Vec<Program> {
        let mut all = Vec::new();
        for (thread, body) in self.bodies.iter().enumerate() {
            for shorter in shorter(body) {
                let mut program = self.clone();
                program.bodies[thread] = shorter;
                all.push(program);
            }
        }
        all
    }
}

fn shorter(ops: &[Op]) -> Vec<Vec<Op>> {
    let mut all = Vec::new();
    let mut chunk = ops.len();
    while chunk > 0 {
        for start in (0..ops.len()).step_by(chunk) {
            let mut less = ops.to_vec();
            less.drain(start..(start + chunk).min(ops.len()));
            all.push(less);
        }
        chunk /= 2;
    }
    for (index, op) in ops.iter().enumerate() {
        let (Op::Catch(inner) | Op::Timeout(_, inner) | Op::Scope(_, inner) | Op::Schedule(_, _, inner)) = op else {
            continue;
        };
        let mut unwrapped = ops.to_vec();
        unwrapped.splice(index..=index, inner.iter().cloned());
        all.push(unwrapped);
        for less in shorter(inner) {
            let mut program = ops.to_vec();
            match &mut program[index] {
                Op::Catch(inner) | Op::Timeout(_, inner) | Op::Scope(_, inner) | Op::Schedule(_, _, inner) => {
                    *inner = less;
                }
                _ => unreachable!("nested operations stay nested"),
            }
            all.push(program);
        }
    }
    all
}

impl Writer {
    fn body(&mut self, me: Thread, length: usize, depth: usize) -> Vec<Op> {
        let mut ops = Vec::new();
        for _ in 0..length {
            // The main greenlet spawns first, so that the operations after it have a target.
            if me == 0 && depth == 0 && ops.len() < 2 && self.spawned < self.threads {
                ops.push(self.spawn());
                continue;
            }
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            let op = self.op(me, depth);
            ops.push(op);
        }
        ops
    }

    fn millis(&mut self) -> Millis {
        [0, 1, 1, 2, 2, 3, 5, 8][self.random.usize(..8)]
    }

    fn limit(&mut self) -> Option<Millis> {
        (self.random.usize(..3) == 0).then(|| 1 + self.millis())
    }

    fn any_thread(&mut self) -> Thread {
        1 + self.random.usize(..self.threads)
    }

    /// Returns a green thread to wait for. It is always a later one, so waits form no cycle.
    fn later_thread(&mut self, me: Thread) -> Thread {
        me + 1 + self.random.usize(..self.threads)
    }

    fn spawn(&mut self) -> Op {
        self.spawned += 1;
        let child = self.spawned;
        match self.random.usize(..8) {
            0 => Op::SpawnN(child),
            1 | 2 => Op::SpawnAfter(self.millis(), child),
            _ => Op::Spawn(child),
        }
    }

    fn quiet_ops(&mut self) -> Vec<Op> {
        (0..1 + self.random.usize(..3)).map(|_| self.quiet()).collect()
    }

    /// Generates an operation that never blocks.
    fn quiet(&mut self) -> Op {
        match self.random.usize(..11) {
            0 | 1 if self.spawned < self.threads => self.spawn(),
            0..=2 => Op::Kill(self.any_thread()),
            3 => Op::KillWith(self.any_thread()),
            4 => Op::Cancel(self.any_thread()),
            5 => Op::Link(self.any_thread()),
            6 => Op::Unlink(self.any_thread()),
            7 => Op::DropHandle(self.any_thread()),
            8 => self.schedule(),
            9 if self.callbacks > 0 => Op::Unschedule(self.random.usize(..self.callbacks)),
            9 => Op::Burn(1 + self.millis()),
            _ => Op::Panic,
        }
    }

    fn schedule(&mut self) -> Op {
        if self.left == 0 || self.callbacks > 6 {
            return Op::Burn(1);
        }
        self.left -= 1;
        let number = self.callbacks;
        self.callbacks += 1;
        Op::Schedule(self.millis(), number, self.quiet_ops())
    }

    fn nested(&mut self, me: Thread, depth: usize) -> Vec<Op> {
        let length = 1 + self.random.usize(..4);
        self.body(me, length, depth + 1)
    }

    fn op(&mut self, me: Thread, depth: usize) -> Op {
        let pick = self.random.usize(..100);
        if pick < 25 && self.layer >= Layer::Pipes {
            return self.pipe_op();
        }
        if pick < 37 && self.layer >= Layer::Timeouts && depth < 4 {
            let limit = self.millis();
            return Op::Timeout(limit, self.nested(me, depth));
        }
        if pick < 43 && self.layer >= Layer::Everything && depth < 3 {
            let mut children = Vec::new();
            while self.spawned < self.threads && children.len() < 3 {
                self.spawned += 1;
                children.push(self.spawned);
                if self.random.usize(..2) == 0 {
                    break;
                }
            }
            return Op::Scope(children, self.nested(me, depth));
        }
        match self.random.usize(..32) {
            0..=4 if self.spawned < self.threads => self.spawn(),
            0..=7 => Op::Sleep(self.millis()),
            8..=11 => Op::Yield,
            12..=14 => Op::Wait(self.later_thread(me)),
            15 | 16 => Op::Join(self.later_thread(me)),
            17..=20 => Op::Kill(self.any_thread()),
            21 => Op::KillWith(self.any_thread()),
            22 => Op::Cancel(self.any_thread()),
            23 => Op::Link(self.any_thread()),
            24 => Op::DropHandle(self.any_thread()),
            25..=27 if depth < 4 => Op::Catch(self.nested(me, depth)),
            28 => self.schedule(),
            // A panic here would skip the remaining operations of the main greenlet.
            29 if me == 0 && depth == 0 => Op::Yield,
            29 => Op::Panic,
            30 => Op::Burn(1 + self.millis()),
            _ => match self.quiet() {
                Op::Panic => Op::Yield,
                op => op,
            },
        }
    }

    fn pipe_op(&mut self) -> Op {
        let pipe = self.random.usize(..PIPES);
        let closing = self.layer >= Layer::Everything;
        match self.random.usize(..14) {
            0..=3 => Op::Send(pipe, self.limit()),
            4..=8 => Op::Receive(pipe, self.limit()),
            9 if closing => Op::CloseReader(pipe),
            10 if closing => Op::CloseWriter(pipe),
            11 => Op::Fill(self.random.usize(..NUMBERS)),
            12 if closing => Op::Reuse(self.random.usize(..NUMBERS)),
            _ => Op::Trampoline(self.random.usize(..NUMBERS), self.limit()),
        }
    }
}

impl Program {
    /// Returns the main greenlet's operations, followed by the end of every green thread.
    pub(crate) fn with_epilogue(&self) -> Vec<Op> {
        const LONG: Millis = 1_000_000;
        let others = 1..self.bodies.len();
        // The main greenlet cannot be killed, so its waits have a limit.
        let body = Op::Timeout(LONG, self.bodies[0].clone());
        let mut ops = vec![Op::Catch(vec![body]), Op::Sleep(LONG)];
        ops.extend(others.clone().map(Op::Kill));
        ops.extend((0..PIPES).flat_map(|pipe| [Op::CloseReader(pipe), Op::CloseWriter(pipe)]));
        // A green thread that still waits may wake up and run `Reuse`, so one fill of each number is not enough.
        for _ in 0..20 {
            ops.extend((0..NUMBERS).map(Op::Fill));
            ops.push(Op::Sleep(10));
        }
        ops.push(Op::Sleep(LONG));
        ops.extend(others.map(Op::DropHandle));
        ops.extend([Op::Yield, Op::Yield]);
        ops
    }
}
