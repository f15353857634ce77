//! The reference model: a plain state machine without stacks, clocks or descriptors.
//!
//! A thread is a stack of frames. It runs until it parks; a woken thread joins the end of the single ready queue.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::program::{CAPACITY, Millis, NUMBERS, Op, PIPES, Program, Thread};
use super::real::{CALLBACK, Choices};

#[derive(Clone, Debug, PartialEq)]
enum Payload {
    Kill(String),
    Timeout(u64),
    Panic(String),
    /// The panic of a scope with a panicked thread.
    Scope,
}

#[derive(Copy, Clone, PartialEq, Debug)]
enum Wake {
    Event,
    Deadline,
    Ready,
    Closed,
    Exit,
}

#[derive(Copy, Clone, PartialEq, Debug)]
enum State {
    Unstarted,
    Delayed,
    Ready,
    Running,
    Parked,
    Done,
}

#[derive(Copy, Clone, Debug)]
enum TimerTarget {
    Parked(Thread, u64),
    Start(Thread),
    Timeout(Thread, u64),
    Call(usize),
}

/// The waiters and state of one end of a pipe; a bare number is an end too.
#[derive(Default)]
struct End {
    fd: i32,
    waiter: Option<(Thread, u64)>,
    closed: bool,
    entered: usize,
}

impl End {
    fn is_open(&self) -> bool {
        !self.closed || self.entered > 0
    }
}

enum Frame<'p> {
    Ops(std::slice::Iter<'p, Op>),
    Catch,
    Timeout {
        limit: Millis,
        number: u64,
    },
    /// A handle that an operation keeps alive.
    Hold(Thread),
    /// An operation on an end of a pipe is in progress.
    Entered(usize),
    Scope(Vec<Thread>),
    Join {
        children: Vec<Thread>,
        payload: Option<Payload>,
        killing: bool,
        /// Whether an exit has ended children that would otherwise have continued.
        cut_short: bool,
    },
}

/// The continuation of a thread when it is entered again.
enum Then {
    Nothing,
    Begin,
    Say(String),
    Wait {
        of: Thread,
        call: &'static str,
    },
    Killed {
        of: Thread,
    },
    /// Throws the pending exit again, or the error with which the thread kills itself.
    Strike {
        own: Option<Payload>,
    },
    End(Transfer),
    Trampoline {
        number: usize,
        waiting: Waiting,
    },
    Scope {
        child: Thread,
    },
}

/// A waiter's registration at an end, and its timer.
struct Waiting {
    end: usize,
    ticket: u64,
    timer: Option<u64>,
}

struct Transfer {
    pipe: usize,
    sends: bool,
    limit: Deadline,
    waiting: Option<Waiting>,
}

#[derive(Copy, Clone)]
enum Deadline {
    None,
    After(Millis),
    Until(Millis),
}

struct Green<'p> {
    state: State,
    ticket: u64,
    wake: Wake,
    /// Whether the thread yielded without waiting, so that an exit at the end of the park loses no wake-up.
    gave_way: bool,
    /// The pending exits, each with the number of times it was thrown.
    exits: Vec<(Payload, u32)>,
    masks: u32,
    frames: Vec<Frame<'p>>,
    then: Then,
    timer: Option<u64>,
    waiters: Vec<(Thread, u64)>,
    links: Vec<u64>,
    added: Vec<u64>,
    result: Option<Result<(), Payload>>,
    seen: bool,
    handles: usize,
    operations: usize,
}

enum Flow {
    Next,
    Left,
    Switch(Thread),
    Throw(Payload),
}

enum Entry {
    Green(Thread),
    /// A callback, with the turn in which it was scheduled.
    Callback(u64, usize),
}

enum Callback {
    Immediate,
    Armed(u64),
}

pub(crate) struct Reference<'p> {
    program: &'p Program,
    choices: &'p Choices,
    trace: Vec<String>,
    now: Millis,
    turn: u64,
    /// Whether the turn ends before the queue is empty.
    turn_is_over: bool,
    greens: HashMap<Thread, Green<'p>>,
    /// Whether the program still has a handle, by thread.
    table: Vec<bool>,
    queue: VecDeque<Entry>,
    /// Timers whose delay starts at the loop's next reading of the clock, with their limits.
    fresh: Vec<(u64, Deadline)>,
    timers: BTreeMap<(Millis, u64), u64>,
    targets: HashMap<u64, TimerTarget>,
    next: u64,
    callbacks: HashMap<usize, (Callback, &'p [Op])>,
    /// Callbacks whose handle the program still has.
    named: Vec<usize>,
    /// The ends of pipes, reader and writer alternating, then the bare numbers.
    ends: Vec<End>,
    full: [usize; PIPES],
    filled: [bool; NUMBERS],
}

/// Returns the trace that the program must produce.
pub(crate) fn run(program: &Program, main: &[Op], choices: &Choices) -> Vec<String> {
    let fds = choices.pipes.iter().flatten().chain(&choices.numbers);
    let mut reference = Reference {
        program,
        choices,
        trace: Vec::new(),
        now: 0,
        turn: 1,
        turn_is_over: false,
        greens: HashMap::new(),
        table: vec![false; program.bodies.len() + 64],
        queue: VecDeque::new(),
        fresh: Vec::new(),
        timers: BTreeMap::new(),
        targets: HashMap::new(),
        next: 0,
        callbacks: HashMap::new(),
        named: Vec::new(),
        ends: fds.map(|&fd| End { fd, ..End::default() }).collect(),
        full: [0; PIPES],
        filled: [false; NUMBERS],
    };
    // The main greenlet's operations live only as long as this call.
    reference.run(main);
    reference.trace
}

fn say(payload: &Payload) -> String {
    match payload {
        Payload::Kill(text) => text.clone(),
        Payload::Panic(text) => format!("the green thread panicked: {text}"),
        Payload::Scope => "the green thread panicked: a scoped green thread panicked".to_owned(),
        Payload::Timeout(_) => "the green thread timed out: timed out".to_owned(),
    }
}

const KILLED: &str = "the green thread was killed";

impl<'p> Reference<'p> {
    fn log(&mut self, thread: Thread, event: impl std::fmt::Display) {
        self.trace.push(format!("{} ms: {thread}: {event}", self.now));
    }

    fn green(&mut self, of: Thread) -> &mut Green<'p> {
        self.greens.get_mut(&of).expect("the green thread was spawned")
    }

    // ---- the loop

    fn run(&mut self, main: &'p [Op]) {
        self.make(0, State::Running, 0);
        self.green(0).frames = vec![Frame::Ops(main.iter())];
        self.green(0).then = Then::Nothing;
        self.enter(0);
        loop {
            while !self.turn_is_over
                && let Some(entry) = self.queue.front()
            {
                match *entry {
                    Entry::Callback(turn, _) if turn == self.turn => break,
                    Entry::Callback(_, number) => {
                        self.queue.pop_front();
                        self.call(number);
                    }
                    Entry::Green(green) => {
                        self.queue.pop_front();
                        self.enter(green);
                    }
                }
                if self.green(0).state == State::Done {
                    return;
                }
            }
            self.turn_is_over = false;
            self.look();
            self.turn += 1;
            assert!(self.turn < 100_000, "the reference spins");
            self.fire();
        }
    }

    fn absorb(&mut self) {
        for (id, limit) in std::mem::take(&mut self.fresh) {
            let deadline = match limit {
                Deadline::After(delay) => self.now + delay,
                Deadline::Until(deadline) => deadline,
                Deadline::None => continue,
            };
            if self.targets.contains_key(&id) {
                // Numbers increase in the order of arming.
                self.timers.insert((deadline, id), id);
            }
        }
    }

    fn fire(&mut self) {
        self.absorb();
        while let Some((&(deadline, id), _)) = self.timers.first_key_value() {
            if deadline > self.now {
                return;
            }
            self.timers.remove(&(deadline, id));
            match self.targets.remove(&id) {
                Some(TimerTarget::Parked(green, ticket)) => {
                    self.wake(green, ticket, Wake::Deadline);
                }
                Some(TimerTarget::Start(green)) => {
                    self.green(green).state = State::Unstarted;
                    self.queue.push_back(Entry::Green(green));
                }
                Some(TimerTarget::Timeout(green, number)) => self.interrupt(green, Payload::Timeout(number)),
                Some(TimerTarget::Call(number)) => {
                    if let Some((callback, _)) = self.callbacks.get_mut(&number) {
                        *callback = Callback::Immediate;
                    }
                    self.queue.push_back(Entry::Callback(self.turn - 1, number));
                }
                None => {}
            }
        }
    }

    /// Polls the descriptors; if none is ready, advances the clock.
    fn look(&mut self) {
        let mut found: Vec<usize> = (0..self.ends.len()).filter(|&end| self.is_ready(end)).collect();
        found.retain(|&end| self.ends[end].waiter.is_some());
        found.sort_by_key(|&end| self.ends[end].fd);
        if self.queue.is_empty() {
            self.absorb();
            self.forget_disarmed();
            if found.is_empty() {
                let (&(deadline, _), _) = self.timers.first_key_value().expect("the main greenlet sleeps or runs");
                self.now = self.now.max(deadline);
            }
        }
        for end in found {
            if let Some((green, ticket)) = self.ends[end].waiter.take() {
                self.wake(green, ticket, Wake::Ready);
            }
        }
    }

    fn is_ready(&self, end: usize) -> bool {
        if end >= 2 * PIPES {
            return self.filled[end - 2 * PIPES];
        }
        let other_is_gone = !self.ends[end ^ 1].is_open();
        other_is_gone || if end.is_multiple_of(2) { self.full[end / 2] > 0 } else { self.full[end / 2] < CAPACITY }
    }

    fn arm(&mut self, limit: Deadline, target: TimerTarget) -> Option<u64> {
        if let Deadline::None = limit {
            return None;
        }
        self.next += 1;
        self.targets.insert(self.next, target);
        self.fresh.push((self.next, limit));
        Some(self.next)
    }

    fn disarm(&mut self, timer: Option<u64>) -> bool {
        timer.is_some_and(|timer| self.targets.remove(&timer).is_some())
    }

    fn forget_disarmed(&mut self) {
        let targets = &self.targets;
        self.timers.retain(|_, id| targets.contains_key(id));
    }

    fn wake(&mut self, green: Thread, ticket: u64, why: Wake) -> bool {
        let target = self.green(green);
        if target.ticket != ticket || target.state != State::Parked {
            return false;
        }
        target.ticket += 1;
        target.wake = why;
        target.state = State::Ready;
        self.queue.push_back(Entry::Green(green));
        true
    }

    // ---- beginnings and ends

    fn make(&mut self, id: Thread, state: State, handles: usize) {
        let green = Green {
            state,
            ticket: 0,
            wake: Wake::Event,
            gave_way: false,
            exits: Vec::new(),
            masks: 0,
            frames: Vec::new(),
            then: Then::Begin,
            timer: None,
            waiters: Vec::new(),
            links: Vec::new(),
            added: Vec::new(),
            result: None,
            seen: false,
            handles,
            operations: 0,
        };
        self.greens.insert(id, green);
    }

    fn spawn(&mut self, child: Thread, delay: Millis, handles: usize) {
        self.make(child, State::Unstarted, handles);
        self.table[child] = handles == 1;
        if delay == 0 {
            self.queue.push_back(Entry::Green(child));
        } else {
            self.green(child).state = State::Delayed;
            let timer = self.arm(Deadline::After(delay), TimerTarget::Start(child));
            self.green(child).timer = timer;
        }
    }

    fn finish(&mut self, id: Thread, result: Result<(), Payload>) {
        let text = match &result {
            Ok(()) => format!("result of {id}"),
            Err(payload) => say(payload),
        };
        let green = self.green(id);
        green.exits.clear();
        green.state = State::Done;
        green.result = Some(result);
        for _ in std::mem::take(&mut green.links) {
            self.log(id, format!("link: {text}"));
        }
        for (waiter, ticket) in std::mem::take(&mut self.green(id).waiters) {
            self.wake(waiter, ticket, Wake::Event);
        }
        self.free_if_unused(id);
    }

    fn release(&mut self, id: Thread) {
        self.green(id).handles -= 1;
        self.free_if_unused(id);
    }

    fn free_if_unused(&mut self, id: Thread) {
        let green = self.green(id);
        if green.handles == 0 && green.state == State::Done && !green.seen {
            green.seen = true;
            match green.result.clone() {
                Some(Err(payload)) if payload != Payload::Kill(KILLED.to_owned()) => {
                    let text = say(&payload);
                    self.log(0, format!("reported: {text}"));
                }
                _ => {}
            }
        }
    }

    /// Ends a thread that has not begun.
    fn cancel(&mut self, id: Thread, why: Payload) {
        self.log(id, "never run");
        self.queue.retain(|entry| !matches!(entry, Entry::Green(queued) if *queued == id));
        self.finish(id, Err(why));
    }

    /// Gives a thread an exit, without switching.
    fn interrupt(&mut self, id: Thread, why: Payload) {
        match self.green(id).state {
            State::Done => {}
            State::Unstarted | State::Delayed => self.cancel(id, why),
            _ => {
                self.set_exit(id, why);
                let ticket = self.green(id).ticket;
                self.wake(id, ticket, Wake::Exit);
            }
        }
    }

    fn set_exit(&mut self, id: Thread, why: Payload) {
        let exits = &mut self.green(id).exits;
        match why {
            Payload::Kill(_) if matches!(exits.first(), Some((Payload::Kill(_), _))) => {}
            Payload::Kill(_) => exits.insert(0, (why, 0)),
            _ => exits.push((why, 0)),
        }
    }

    /// Returns how often the pending exit, which the next park throws, has been thrown already.
    fn throws(&mut self, id: Thread) -> Option<u32> {
        let green = self.green(id);
        if green.masks == 0 { green.exits.first().map(|(_, throws)| *throws) } else { None }
    }

    /// Returns the exit that ends a wait, and counts the throw.
    fn pending(&mut self, id: Thread) -> Option<Payload> {
        self.throws(id)?;
        let (exit, throws) = self.green(id).exits.first_mut()?;
        *throws += 1;
        Some(exit.clone())
    }

    /// Throws a new exit before the park begins. An exit that was thrown before is thrown again after a turn of the
    /// loop.
    fn strike(&mut self, id: Thread, own: Option<Payload>) -> Option<Flow> {
        if self.throws(id)? == 0 {
            let exit = self.pending(id)?;
            return Some(Flow::Throw(own.unwrap_or(exit)));
        }
        self.turn_is_over = true;
        self.requeue(id, Then::Strike { own });
        Some(Flow::Left)
    }

    /// Returns whether a kill strikes when the thread runs next.
    fn is_struck(&mut self, id: Thread) -> bool {
        let green = self.green(id);
        let killed = matches!(green.exits.first(), Some((Payload::Kill(_), _)));
        killed && green.masks == 0 && green.state == State::Ready
    }

    /// Returns the exit thrown at the end of a park. A wake-up by an event keeps its outcome.
    fn thrown(&mut self, id: Thread) -> Option<Payload> {
        let green = self.green(id);
        if green.gave_way || green.wake == Wake::Exit { self.pending(id) } else { None }
    }

    fn call(&mut self, number: usize) {
        let Some((_, ops)) = self.callbacks.remove(&number) else { return };
        let me = CALLBACK + number;
        self.log(me, "begin");
        for op in ops {
            match self.op(me, op) {
                Flow::Next => {}
                Flow::Throw(payload) => {
                    let text = say(&payload);
                    self.log(0, format!("reported: {text}"));
                    break;
                }
                Flow::Left | Flow::Switch(_) => unreachable!("callbacks do not block"),
            }
        }
        self.log(me, "gone");
    }

    // ---- running

    fn enter(&mut self, id: Thread) {
        let mut next = Some(id);
        while let Some(id) = next {
            self.green(id).state = State::Running;
            next = self.go(id);
        }
    }

    /// Runs a thread until it leaves. Returns the thread it switched to.
    fn go(&mut self, id: Thread) -> Option<Thread> {
        let mut flow = self.resume(id);
        loop {
            flow = match flow {
                Flow::Left => return None,
                Flow::Switch(to) => return Some(to),
                Flow::Throw(payload) => self.unwind(id, payload)?,
                Flow::Next => match self.step(id) {
                    Some(flow) => flow,
                    None => {
                        if id != 0 {
                            self.log(id, "end");
                            self.log(id, "gone");
                        }
                        self.finish(id, Ok(()));
                        return None;
                    }
                },
            };
        }
    }

    fn resume(&mut self, id: Thread) -> Flow {
        let then = std::mem::replace(&mut self.green(id).then, Then::Nothing);
        // The end of a park, for any reason, removes the registrations of the wait.
        let mut due = None;
        match &then {
            Then::Wait { of, .. } | Then::Scope { child: of } => {
                self.green(*of).waiters.retain(|(waiter, _)| *waiter != id);
            }
            Then::End(Transfer { waiting: Some(waiting), .. }) | Then::Trampoline { waiting, .. } => {
                due = waiting.timer.and_then(|timer| self.timers.iter().find(|(_, id)| **id == timer));
                let due_at = due.map(|(&(deadline, _), _)| deadline);
                let (end, ticket, timer) = (waiting.end, waiting.ticket, waiting.timer);
                let armed = self.disarm(timer);
                if self.ends[end].waiter == Some((id, ticket)) {
                    self.ends[end].waiter = None;
                }
                return match self.thrown(id) {
                    Some(exit) => Flow::Throw(exit),
                    None => self.woken_at_end(id, then, due_at.filter(|_| armed)),
                };
            }
            _ => {}
        }
        let _ = due;
        let timer = self.green(id).timer.take();
        self.disarm(timer);
        if !matches!(then, Then::Begin)
            && let Some(exit) = self.thrown(id)
        {
            return match then {
                Then::Strike { own: Some(own) } => Flow::Throw(own),
                _ => Flow::Throw(exit),
            };
        }
        match then {
            Then::Nothing => Flow::Next,
            Then::Begin => {
                self.log(id, "begin");
                let ops = &self.program.bodies[id];
                self.green(id).frames.push(Frame::Ops(ops.iter()));
                Flow::Next
            }
            Then::Say(text) => {
                self.log(id, text);
                Flow::Next
            }
            Then::Wait { of, call } => self.wait(id, of, call),
            Then::Killed { of } if self.is_struck(of) => {
                self.requeue(id, Then::Killed { of });
                Flow::Left
            }
            Then::Killed { of } => {
                let how = if self.green(of).state == State::Done { "Ended" } else { "Scheduled" };
                self.log(id, format!("kill {of}: {how}"));
                Flow::Next
            }
            Then::Scope { child } => {
                let ended = self.green(child).state == State::Done;
                let exit_is_pending = !self.green(id).exits.is_empty();
                if let Some(Frame::Join { killing, .. }) = self.green(id).frames.last_mut() {
                    *killing |= !ended && !exit_is_pending;
                }
                Flow::Next
            }
            Then::Strike { .. } => unreachable!("nothing takes an exit back"),
            Then::End(_) | Then::Trampoline { .. } => unreachable!("handled above"),
        }
    }

    fn woken_at_end(&mut self, id: Thread, then: Then, due_at: Option<Millis>) -> Flow {
        let wake = self.green(id).wake;
        match then {
            Then::Trampoline { number, .. } => {
                let how = match wake {
                    Wake::Deadline => "timed out",
                    Wake::Closed => "closed",
                    _ => "ready",
                };
                self.log(id, format!("trampoline {number}: {how}"));
                Flow::Next
            }
            Then::End(mut transfer) => {
                if let Some(deadline) = due_at {
                    transfer.limit = Deadline::Until(deadline);
                }
                match wake {
                    Wake::Deadline => self.transferred(id, &transfer, "TimedOut"),
                    Wake::Closed => self.transferred(id, &transfer, "NotConnected"),
                    _ => {
                        let choice = (id, self.greens[&id].operations, self.trace.len());
                        self.transfer(id, transfer, self.choices.tried_again.contains(&choice))
                    }
                }
            }
            _ => unreachable!("not at an end"),
        }
    }

    fn step(&mut self, id: Thread) -> Option<Flow> {
        let frame = self.green(id).frames.last_mut()?;
        if let Frame::Ops(ops) = frame {
            return match ops.next() {
                Some(op) => Some(self.op(id, op)),
                None => {
                    self.green(id).frames.pop();
                    Some(Flow::Next)
                }
            };
        }
        match self.green(id).frames.pop()? {
            Frame::Ops(_) | Frame::Catch => {}
            Frame::Timeout { limit, number } => {
                self.end_timeout(id, number);
                self.log(id, format!("timeout {limit}: in time"));
            }
            Frame::Hold(of) => self.release(of),
            Frame::Entered(end) => self.ends[end].entered -= 1,
            Frame::Scope(children) => {
                self.green(id).masks += 1;
                self.green(id).frames.push(Frame::Join { children, payload: None, killing: false, cut_short: false });
            }
            Frame::Join { children, payload, killing, cut_short } => {
                return Some(self.join_scope(id, children, payload, killing, cut_short));
            }
        }
        Some(Flow::Next)
    }

    fn end_timeout(&mut self, id: Thread, number: u64) {
        if !self.disarm(Some(number)) {
            self.green(id).exits.retain(|(exit, _)| *exit != Payload::Timeout(number));
        }
    }

    /// Unwinds to the nearest catching frame. Returns `None` if the thread has ended.
    fn unwind(&mut self, id: Thread, payload: Payload) -> Option<Flow> {
        while let Some(frame) = self.green(id).frames.pop() {
            match frame {
                Frame::Ops(_) => {}
                Frame::Join { .. } => unreachable!("masked"),
                Frame::Catch => {
                    let cause = match payload {
                        Payload::Panic(text) => text,
                        Payload::Scope => "a scope".to_owned(),
                        Payload::Kill(_) | Payload::Timeout(_) => "an exit".to_owned(),
                    };
                    self.log(id, format!("caught {cause}"));
                    return Some(Flow::Next);
                }
                Frame::Timeout { limit, number } => {
                    self.end_timeout(id, number);
                    if payload == Payload::Timeout(number) {
                        self.log(id, format!("timeout {limit}: expired"));
                        return Some(Flow::Next);
                    }
                }
                Frame::Hold(of) => self.release(of),
                Frame::Entered(end) => self.ends[end].entered -= 1,
                Frame::Scope(children) => {
                    self.green(id).masks += 1;
                    let join = Frame::Join { children, payload: Some(payload), killing: true, cut_short: false };
                    self.green(id).frames.push(join);
                    return Some(Flow::Next);
                }
            }
        }
        self.log(id, "gone");
        self.finish(id, Err(payload));
        None
    }

    fn join_scope(
        &mut self,
        id: Thread,
        children: Vec<Thread>,
        payload: Option<Payload>,
        killing: bool,
        mut cut_short: bool,
    ) -> Flow {
        let open = children.iter().copied().find(|child| self.greens[child].state != State::Done);
        if let Some(child) = open {
            cut_short |= !self.green(id).exits.is_empty();
            if killing || cut_short {
                for child in &children {
                    self.interrupt(*child, Payload::Kill(KILLED.to_owned()));
                }
            }
            self.green(id).frames.push(Frame::Join { children, payload, killing, cut_short });
            let ticket = self.green(id).ticket;
            // A child is waited for even if it was cancelled just now.
            if self.green(child).state == State::Done {
                return Flow::Next;
            }
            self.green(child).waiters.push((id, ticket));
            return self.park(id, Then::Scope { child });
        }
        self.green(id).masks -= 1;
        let mut failed = false;
        for child in children {
            let green = self.green(child);
            failed |= !green.seen
                && !matches!(&green.result, Some(Ok(())))
                && green.result != Some(Err(Payload::Kill(KILLED.to_owned())));
            green.seen = true;
            self.release(child);
        }
        if let Some(payload) = payload {
            return Flow::Throw(payload);
        }
        if failed {
            return Flow::Throw(Payload::Scope);
        }
        if cut_short && let Some(struck) = self.strike(id, None) {
            return struck;
        }
        self.log(id, "scope: over");
        Flow::Next
    }

    fn park(&mut self, id: Thread, then: Then) -> Flow {
        let green = self.green(id);
        green.state = State::Parked;
        green.gave_way = false;
        green.then = then;
        Flow::Left
    }

    /// Puts the thread at the end of the queue.
    fn requeue(&mut self, id: Thread, then: Then) {
        let green = self.green(id);
        green.state = State::Ready;
        green.gave_way = true;
        green.wake = Wake::Event;
        green.then = then;
        self.queue.push_back(Entry::Green(id));
    }

    fn hold(&mut self, id: Thread, of: Thread) {
        self.green(of).handles += 1;
        self.green(id).frames.push(Frame::Hold(of));
    }

    fn wait(&mut self, id: Thread, of: Thread, call: &'static str) -> Flow {
        if let Some(result) = self.green(of).result.clone() {
            self.green(of).seen = true;
            let text = match result {
                Ok(()) => format!("result of {of}"),
                Err(payload) => say(&payload),
            };
            self.log(id, format!("{call} {of}: {text}"));
            return Flow::Next;
        }
        if let Some(struck) = self.strike(id, None) {
            return struck;
        }
        let ticket = self.green(id).ticket;
        self.green(of).waiters.push((id, ticket));
        self.park(id, Then::Wait { of, call })
    }

    fn kill(&mut self, id: Thread, of: Thread, why: Payload) -> Flow {
        let in_callback = id >= CALLBACK;
        let state = self.green(of).state;
        if state == State::Done {
            self.log(id, format!("kill {of}: Dead"));
            return Flow::Next;
        }
        if of == id {
            self.set_exit(id, why.clone());
            return self.strike(id, Some(why)).expect("just set");
        }
        let timer = match state {
            State::Delayed => self.green(of).timer.take(),
            _ => None,
        };
        self.disarm(timer);
        match state {
            State::Unstarted | State::Delayed => {
                self.cancel(of, why);
                self.log(id, format!("kill {of}: Cancelled"));
                Flow::Next
            }
            _ if in_callback => {
                self.interrupt(of, why);
                self.log(id, format!("kill {of}: Scheduled"));
                Flow::Next
            }
            // The killer has a pending exit: it strikes after the target is woken.
            State::Ready | State::Parked if self.throws(id).is_some() => {
                self.interrupt(of, why);
                self.hold(id, of);
                self.strike(id, None).expect("just seen")
            }
            State::Ready => {
                self.set_exit(of, why);
                self.hold(id, of);
                self.requeue(id, Then::Killed { of });
                Flow::Left
            }
            State::Parked if self.green(of).masks > 0 => {
                self.interrupt(of, why);
                self.log(id, format!("kill {of}: Scheduled"));
                Flow::Next
            }
            _ => {
                self.set_exit(of, why);
                let target = self.green(of);
                target.ticket += 1;
                target.wake = Wake::Exit;
                self.hold(id, of);
                self.requeue(id, Then::Killed { of });
                Flow::Switch(of)
            }
        }
    }

    fn op(&mut self, id: Thread, op: &'p Op) -> Flow {
        let named = match op {
            Op::Wait(of)
            | Op::Join(of)
            | Op::Kill(of)
            | Op::KillWith(of)
            | Op::Cancel(of)
            | Op::Link(of)
            | Op::Unlink(of) => Some((*of, self.table.get(*of).copied().unwrap_or(false))),
            _ => None,
        };
        if let Some((of, false)) = named {
            let call = match op {
                Op::Wait(_) => "wait",
                Op::Join(_) => "join",
                Op::Kill(_) | Op::KillWith(_) => "kill",
                Op::Cancel(_) => "cancel",
                Op::Link(_) => "link",
                _ => "unlink",
            };
            self.log(id, format!("{call} {of}: no handle"));
            return Flow::Next;
        }
        match op {
            Op::Spawn(child) => self.spawn(*child, 0, 1),
            Op::SpawnN(child) => self.spawn(*child, 0, 0),
            Op::SpawnAfter(delay, child) => self.spawn(*child, *delay, 1),
            Op::Sleep(time) => {
                if let Some(struck) = self.strike(id, None) {
                    return struck;
                }
                let then = Then::Say(format!("slept {time}"));
                if *time == 0 {
                    self.requeue(id, then);
                    return Flow::Left;
                }
                let ticket = self.green(id).ticket;
                let timer = self.arm(Deadline::After(*time), TimerTarget::Parked(id, ticket));
                self.green(id).timer = timer;
                return self.park(id, then);
            }
            Op::Burn(time) => self.now += time,
            Op::Yield => {
                if let Some(struck) = self.strike(id, None) {
                    return struck;
                }
                self.requeue(id, Then::Say("yielded".to_owned()));
                return Flow::Left;
            }
            Op::Wait(of) => {
                self.hold(id, *of);
                return self.wait(id, *of, "wait");
            }
            Op::Join(of) => {
                self.table[*of] = false;
                self.green(id).frames.push(Frame::Hold(*of));
                return self.wait(id, *of, "join");
            }
            Op::Kill(of) => return self.kill(id, *of, Payload::Kill(KILLED.to_owned())),
            Op::KillWith(of) => return self.kill(id, *of, Payload::Kill(format!("hit by {id}"))),
            Op::Cancel(of) => {
                let fresh = matches!(self.green(*of).state, State::Unstarted | State::Delayed);
                if fresh {
                    let timer = self.green(*of).timer.take();
                    self.disarm(timer);
                    self.cancel(*of, Payload::Kill(KILLED.to_owned()));
                }
                self.log(id, format!("cancel {of}: {fresh}"));
            }
            Op::Link(of) => {
                self.next += 1;
                let link = self.next;
                let green = self.green(*of);
                match green.result.clone() {
                    Some(result) => {
                        green.added.push(u64::MAX);
                        let text = result.map_or_else(|payload| say(&payload), |()| format!("result of {of}"));
                        self.log(*of, format!("link: {text}"));
                    }
                    None => {
                        green.links.push(link);
                        green.added.push(link);
                    }
                }
                self.log(id, format!("link {of}: added"));
            }
            Op::Unlink(of) => {
                let green = self.green(*of);
                let removed = green.added.pop().map(|link| {
                    let before = green.links.len();
                    green.links.retain(|other| *other != link);
                    green.links.len() != before
                });
                self.log(id, format!("unlink {of}: {removed:?}"));
            }
            Op::DropHandle(of) => {
                if self.table.get(*of).copied().unwrap_or(false) {
                    self.table[*of] = false;
                    self.release(*of);
                }
            }
            Op::Panic => return Flow::Throw(Payload::Panic(format!("boom {id}"))),
            Op::Catch(ops) => {
                self.green(id).frames.extend([Frame::Catch, Frame::Ops(ops.iter())]);
            }
            Op::Schedule(delay, number, ops) => {
                let callback = if *delay == 0 {
                    self.queue.push_back(Entry::Callback(self.turn, *number));
                    Callback::Immediate
                } else {
                    let armed = self.arm(Deadline::After(*delay), TimerTarget::Call(*number));
                    Callback::Armed(armed.expect("a limit"))
                };
                self.callbacks.insert(*number, (callback, ops));
                self.named.push(*number);
            }
            Op::Unschedule(number) => {
                let mut cancelled = None;
                if let Some(index) = self.named.iter().position(|named| named == number) {
                    self.named.remove(index);
                    cancelled = Some(self.unschedule(*number));
                }
                self.log(id, format!("unschedule {number}: {cancelled:?}"));
            }
            Op::Timeout(limit, ops) => {
                let number = self.next + 1;
                if *limit == 0 {
                    // A limit of zero has expired at once.
                    self.next = number;
                    self.set_exit(id, Payload::Timeout(number));
                } else {
                    self.arm(Deadline::After(*limit), TimerTarget::Timeout(id, number));
                }
                self.green(id).frames.extend([Frame::Timeout { limit: *limit, number }, Frame::Ops(ops.iter())]);
            }
            Op::Scope(children, ops) => {
                if let Some(struck) = self.strike(id, None) {
                    return struck;
                }
                for child in children {
                    self.spawn(*child, 0, 1);
                    self.table[*child] = false;
                }
                self.green(id).frames.extend([Frame::Scope(children.clone()), Frame::Ops(ops.iter())]);
            }
            Op::Send(pipe, limit) => return self.begin_transfer(id, *pipe, true, *limit),
            Op::Receive(pipe, limit) => return self.begin_transfer(id, *pipe, false, *limit),
            Op::CloseReader(pipe) => self.close(2 * pipe),
            Op::CloseWriter(pipe) => self.close(2 * pipe + 1),
            Op::Trampoline(number, limit) => {
                if let Some(struck) = self.strike(id, None) {
                    return struck;
                }
                let limit = limit.map_or(Deadline::None, Deadline::After);
                match self.take_place(id, 2 * PIPES + number, limit) {
                    Some(waiting) => return self.park(id, Then::Trampoline { number: *number, waiting }),
                    None => self.log(id, format!("trampoline {number}: taken")),
                }
            }
            Op::Fill(number) => self.filled[*number] = true,
            Op::Reuse(number) => {
                self.filled[*number] = false;
                self.wake_closed(2 * PIPES + number);
            }
        }
        Flow::Next
    }

    fn unschedule(&mut self, number: usize) -> bool {
        let Some((callback, _)) = self.callbacks.remove(&number) else { return false };
        if let Callback::Armed(timer) = callback {
            self.disarm(Some(timer));
        }
        self.log(CALLBACK + number, "never run");
        true
    }

    // ---- descriptors

    fn take_place(&mut self, id: Thread, end: usize, limit: Deadline) -> Option<Waiting> {
        if self.ends[end].waiter.is_some() {
            return None;
        }
        let ticket = self.green(id).ticket;
        self.ends[end].waiter = Some((id, ticket));
        let timer = self.arm(limit, TimerTarget::Parked(id, ticket));
        Some(Waiting { end, ticket, timer })
    }

    fn wake_closed(&mut self, end: usize) {
        if let Some((green, ticket)) = self.ends[end].waiter.take() {
            self.wake(green, ticket, Wake::Closed);
        }
    }

    fn close(&mut self, end: usize) {
        if !self.ends[end].closed {
            self.ends[end].closed = true;
            self.wake_closed(end);
        }
    }

    fn begin_transfer(&mut self, id: Thread, pipe: usize, sends: bool, limit: Option<Millis>) -> Flow {
        let green = self.green(id);
        green.operations += 1;
        let tried = self.choices.tried.contains(&(id, self.greens[&id].operations));
        let transfer = Transfer { pipe, sends, limit: limit.map_or(Deadline::None, Deadline::After), waiting: None };
        let end = 2 * pipe + usize::from(sends);
        if self.ends[end].closed {
            return self.transferred(id, &transfer, "NotConnected");
        }
        self.ends[end].entered += 1;
        self.green(id).frames.push(Frame::Entered(end));
        self.transfer(id, transfer, tried)
    }

    /// Tries the transfer, then parks.
    fn transfer(&mut self, id: Thread, mut transfer: Transfer, tries: bool) -> Flow {
        let (pipe, end) = (transfer.pipe, 2 * transfer.pipe + usize::from(transfer.sends));
        let other_is_open = self.ends[end ^ 1].is_open();
        if tries {
            let how = match transfer.sends {
                true if !other_is_open => Some("BrokenPipe"),
                true if self.full[pipe] < CAPACITY => {
                    self.full[pipe] += 1;
                    Some("done")
                }
                false if self.full[pipe] > 0 => {
                    self.full[pipe] -= 1;
                    Some("done")
                }
                false if !other_is_open => Some("end"),
                _ => None,
            };
            if let Some(how) = how {
                return self.transferred(id, &transfer, how);
            }
        }
        if self.ends[end].closed {
            return self.transferred(id, &transfer, "NotConnected");
        }
        if let Some(struck) = self.strike(id, None) {
            return struck;
        }
        match self.take_place(id, end, transfer.limit) {
            Some(waiting) => {
                transfer.waiting = Some(waiting);
                self.park(id, Then::End(transfer))
            }
            None => self.transferred(id, &transfer, "ResourceBusy"),
        }
    }

    fn transferred(&mut self, id: Thread, transfer: &Transfer, how: &str) -> Flow {
        let call = if transfer.sends { "send" } else { "receive" };
        self.log(id, format!("{call} {}: {how}", transfer.pipe));
        Flow::Next
    }
}
