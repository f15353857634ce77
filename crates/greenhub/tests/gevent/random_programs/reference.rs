//! The reference model: what the documentation promises of watchers and of the order of a turn.

use std::collections::VecDeque;

use super::program::{Kind, Op, Program, SOCKETS, TURNS_AT_THE_END, WATCHERS, Wait};
use greenhub::Interest;
use greenhub::gevent::Priority;

/// Quiet turns that may pass without a call of the hooks of idle turns: a hub may report a direction that is not
/// watched any more, once for each direction.
const LATE_IDLE_TURNS: usize = 2 * SOCKETS;

/// Returns the trace that a program must have. `idle_turns` says in which turns the loop has found itself idle.
pub(super) fn run(program: &Program, idle_turns: &[bool]) -> Vec<String> {
    let mut model = Model { idle_turns: idle_turns.iter().copied().collect(), ..Model::new() };
    for op in &program.0 {
        model.carry_out(op.clone());
        model.log(model.snapshot());
    }
    for _ in 0..TURNS_AT_THE_END {
        model.turn();
    }
    let is_alive = model.counted() != 0;
    model.log(format!("alive: {is_alive}"));
    model.trace
}

struct Watcher {
    kind: Kind,
    /// The handle and the waits that hold it.
    owners: usize,
    has_handle: bool,
    is_closed: bool,
    is_active: bool,
    is_counted: bool,
    is_pending: bool,
    /// The number of waits of the hub before the last call.
    called_after: Option<usize>,
    is_calling: bool,
    /// Whether it is active for waits for several objects alone.
    is_marked: bool,
    priority: Priority,
    callback: Option<Vec<Op>>,
    /// The armed deadline of a timer.
    deadline: Option<Deadline>,
    /// Whether an async watcher was sent to.
    is_latched: bool,
    waiter: Option<Waiter>,
    /// The waits for several objects.
    marks: Vec<Waiter>,
}

/// A deadline, and its place among equal ones.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Deadline(u64, usize);

/// A wait of a green thread, by its numbers.
#[derive(Copy, Clone, PartialEq, Eq)]
struct Waiter {
    green: usize,
    wait: usize,
}

#[derive(PartialEq, Eq)]
enum State {
    Unstarted,
    Ready,
    Waiting,
    Over,
}

struct Green {
    state: State,
    is_killed: bool,
    /// Whether its present wait was ended by the kill.
    is_unwound: bool,
    waits: VecDeque<Wait>,
    /// The number of the present wait.
    wait: usize,
    present: Option<Wait>,
    /// The end of a wait for one watcher.
    outcome: Option<&'static str>,
    /// The ready watchers of a wait for several, and those that were taken from there.
    ready: VecDeque<usize>,
    taken: Vec<usize>,
}

/// An entry of the queue of a turn. Calls from this turn wait for the next one, and so does everything behind them.
enum Entry {
    Main,
    Green(usize),
    Call(usize, Call),
}

enum Call {
    Expire(usize, Deadline),
    Cancel(usize, Waiter),
    Kill(usize),
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Latched {
    Async(usize),
    Signal,
}

struct Model {
    trace: Vec<String>,
    idle_turns: VecDeque<bool>,
    late_idle_turns: usize,
    watchers: Vec<Watcher>,
    greens: Vec<Green>,
    /// The active watchers, in the order of their starts.
    active: Vec<usize>,
    /// The pending watchers by priority, each with the number of its event.
    pending: [VecDeque<(usize, usize)>; 5],
    events: usize,
    queue: VecDeque<Entry>,
    turn: usize,
    waits: usize,
    now: u64,
    armed: usize,
    is_readable: [bool; SOCKETS],
    is_full: [bool; SOCKETS],
    /// The active async watchers in the order of their starts, and among them the signal once for its watchers.
    latched: Vec<Latched>,
    /// Whether the signal is caught, and whether it was raised since the last look.
    is_caught: bool,
    is_raised: bool,
    /// Whether the descriptor of what is latched was made, and whether it is readable.
    has_wakeup: bool,
    is_woken: bool,
    /// Whether a green thread has run since the last wait.
    has_run: bool,
    /// Whether a watcher was called since the last idle turn, not counting those of phases.
    is_busy: bool,
}

impl Model {
    fn new() -> Model {
        let watcher = |&kind| Watcher {
            kind,
            owners: 1,
            has_handle: true,
            is_closed: false,
            is_active: false,
            is_counted: kind != Kind::Signal,
            is_pending: false,
            called_after: None,
            is_calling: false,
            is_marked: false,
            priority: Priority::Normal,
            callback: None,
            deadline: None,
            is_latched: false,
            waiter: None,
            marks: Vec::new(),
        };
        Model {
            trace: Vec::new(),
            idle_turns: VecDeque::new(),
            late_idle_turns: 0,
            watchers: WATCHERS.iter().map(watcher).collect(),
            greens: Vec::new(),
            active: Vec::new(),
            pending: Default::default(),
            events: 0,
            queue: VecDeque::new(),
            turn: 0,
            waits: 0,
            now: 0,
            armed: 0,
            is_readable: [false; SOCKETS],
            is_full: [false; SOCKETS],
            latched: Vec::new(),
            is_caught: false,
            is_raised: false,
            has_wakeup: false,
            is_woken: false,
            has_run: false,
            is_busy: false,
        }
    }

    fn log(&mut self, event: String) {
        self.trace.push(event);
    }

    fn counted(&self) -> usize {
        self.watchers.iter().filter(|it| it.is_active && it.is_counted).count()
    }

    fn snapshot(&self) -> String {
        let shown = |is_so, name: &'static str| if is_so { name } else { "-" };
        let states = self.watchers.iter().map(|it| match it.has_handle {
            true => format!(
                "{}{}{}{}",
                shown(it.is_active, "a"),
                shown(it.is_pending, "p"),
                shown(it.is_counted, "c"),
                it.priority as u8
            ),
            false => "----".to_owned(),
        });
        let pending = self.watchers.iter().filter(|it| it.is_pending).count();
        format!("{} active {} pending {pending}", states.collect::<Vec<_>>().join(" "), self.counted())
    }

    /// Carries out an operation. Returns false if it ends its callback.
    fn carry_out(&mut self, op: Op) -> bool {
        match op {
            Op::Advance(by) => self.now += by.as_millis() as u64,
            Op::Turn => self.turn(),
            Op::Raise if self.is_caught => {
                if !std::mem::replace(&mut self.is_raised, true) {
                    self.is_woken |= self.has_wakeup;
                }
            }
            Op::Raise => {}
            Op::Write(socket) => self.is_readable[socket] = true,
            Op::Drain(socket) => self.is_readable[socket] = false,
            Op::Fill(socket) => self.is_full[socket] = true,
            Op::Empty(socket) => self.is_full[socket] = false,
            Op::Panic => return false,
            Op::Kill(green) if green < self.greens.len() => self.call_later(Call::Kill(green)),
            Op::Kill(_) => {}
            Op::Spawn(waits) => {
                self.queue.push_back(Entry::Green(self.greens.len()));
                self.greens.push(Green {
                    state: State::Unstarted,
                    is_killed: false,
                    is_unwound: false,
                    waits: waits.into(),
                    wait: 0,
                    present: None,
                    outcome: None,
                    ready: VecDeque::new(),
                    taken: Vec::new(),
                });
            }
            // A handle of an async watcher outlives it.
            Op::Send(number) if self.watchers[number].kind == Kind::Async => {
                if !std::mem::replace(&mut self.watchers[number].is_latched, true) {
                    self.is_woken |= self.has_wakeup;
                }
            }
            Op::Send(_) => {}
            Op::Drop(number) => {
                if std::mem::replace(&mut self.watchers[number].has_handle, false) {
                    self.release(number);
                }
            }
            Op::Start(number, _)
            | Op::Again(number, _)
            | Op::Resume(number)
            | Op::Stop(number)
            | Op::Close(number)
            | Op::Feed(number)
            | Op::SetPriority(number, _)
            | Op::SetCounted(number, _)
            | Op::Cancel(number) => {
                if self.watchers[number].has_handle
                    && let Some(result) = self.use_watcher(number, op)
                {
                    self.log(format!("use of {number}: {result}"));
                }
            }
        }
        true
    }

    fn use_watcher(&mut self, number: usize, op: Op) -> Option<String> {
        let watcher = &mut self.watchers[number];
        let result = match op {
            Op::Start(_, script) => self.start(number, script, None),
            Op::Again(_, script) => match watcher.kind {
                Kind::Timer(_, 0) if watcher.waiter.is_some() => Err("waited"),
                Kind::Timer(_, 0) if watcher.is_closed => Err("closed"),
                Kind::Timer(_, 0) => {
                    self.stop(number);
                    self.set_marks(number);
                    Ok(())
                }
                Kind::Timer(_, every) => self.start(number, script, Some(every)),
                _ => self.start(number, script, None),
            },
            Op::Resume(_) if watcher.is_closed => Err("closed"),
            Op::Resume(_) if watcher.waiter.is_some() => Err("waited"),
            Op::Resume(_) if watcher.callback.is_none() && !watcher.is_calling => Err("no callback"),
            Op::Resume(_) => {
                let started = self.activate(number, None);
                self.watchers[number].is_marked &= started.is_err();
                started
            }
            Op::SetPriority(..) if watcher.is_active => Err("active"),
            Op::SetPriority(_, priority) => {
                watcher.priority = priority;
                // An event that is kept for the next wait is in no queue.
                if self.is_queued(number) {
                    self.dequeue(number);
                    self.enqueue(number);
                }
                Ok(())
            }
            Op::Cancel(_) => {
                let waiter = watcher.waiter;
                if let Some(waiter) = waiter {
                    self.call_later(Call::Cancel(number, waiter));
                }
                return Some(waiter.is_some().to_string());
            }
            op => {
                match op {
                    Op::Stop(_) => {
                        self.stop(number);
                        self.set_marks(number);
                        self.end_wait(number, "stopped");
                    }
                    Op::Close(_) => self.close(number),
                    Op::Feed(_) => self.mark(number),
                    Op::SetCounted(_, is_counted) => watcher.is_counted = is_counted,
                    _ => unreachable!("{op:?}"),
                }
                return None;
            }
        };
        Some(result.err().unwrap_or("done").to_owned())
    }

    /// `again`: a timer begins anew with this delay.
    fn start(&mut self, number: usize, script: Vec<Op>, again: Option<u64>) -> Result<(), &'static str> {
        if self.watchers[number].waiter.is_some() {
            return Err("waited");
        }
        if again.is_some() {
            self.drop_event(number);
        }
        if let Some(every) = again
            && self.watchers[number].is_active
        {
            self.arm(number, self.now + every);
        } else {
            self.activate(number, again)?;
        }
        self.watchers[number].is_marked = false;
        self.watchers[number].callback = Some(script);
        Ok(())
    }

    fn activate(&mut self, number: usize, delay: Option<u64>) -> Result<(), &'static str> {
        let watcher = &mut self.watchers[number];
        if watcher.is_closed || watcher.is_active {
            return if watcher.is_closed { Err("closed") } else { Ok(()) };
        }
        watcher.is_active = true;
        let kind = watcher.kind;
        let is_first_of_signal = kind == Kind::Signal && self.active_of_signal().is_empty();
        self.active.push(number);
        match kind {
            Kind::Timer(after, _) => self.arm(number, self.now + delay.unwrap_or(after)),
            Kind::Async => {
                self.has_wakeup = true;
                self.latched.push(Latched::Async(number));
                self.look(Latched::Async(number));
            }
            Kind::Signal => {
                (self.is_caught, self.has_wakeup) = (true, true);
                if is_first_of_signal {
                    // A signal that came while no watcher was active is not delivered.
                    self.latched.push(Latched::Signal);
                    self.is_raised = false;
                }
            }
            _ => {}
        }
        // It was kept by a wait that was given up.
        if self.watchers[number].is_pending && !self.is_queued(number) {
            self.enqueue(number);
        }
        Ok(())
    }

    fn arm(&mut self, number: usize, due: u64) {
        self.armed += 1;
        let deadline = Deadline(due, self.armed);
        self.watchers[number].deadline = Some(deadline);
        if due == self.now {
            self.call_later(Call::Expire(number, deadline));
        }
    }

    fn stop(&mut self, number: usize) {
        self.end_watch(number);
        self.drop_event(number);
    }

    /// Drops an event that was not delivered.
    fn drop_event(&mut self, number: usize) {
        if self.watchers[number].waiter.is_none() || self.is_queued(number) {
            self.watchers[number].is_pending = false;
            self.dequeue(number);
        }
    }

    /// Ends the watch that was begun for waits. A wake-up that no wait has taken is kept.
    fn end_watch_for_waits(&mut self, number: usize) {
        self.look_for_wait(number);
        self.end_watch(number);
        self.dequeue(number);
        self.watchers[number].is_pending &= self.watchers[number].kind.keeps_events();
    }

    fn is_queued(&self, number: usize) -> bool {
        self.pending.iter().flatten().any(|(_, other)| *other == number)
    }

    fn dequeue(&mut self, number: usize) {
        self.pending.iter_mut().for_each(|queue| queue.retain(|(_, other)| *other != number));
    }

    fn enqueue(&mut self, number: usize) {
        self.events += 1;
        self.pending[self.watchers[number].priority as usize].push_back((self.events, number));
    }

    fn end_watch(&mut self, number: usize) {
        let watcher = &mut self.watchers[number];
        (watcher.is_marked, watcher.is_active, watcher.deadline) = (false, false, None);
        self.active.retain(|other| *other != number);
        let ends_signal = self.active_of_signal().is_empty();
        self.latched.retain(|latched| match *latched {
            Latched::Async(other) => other != number,
            Latched::Signal => !ends_signal,
        });
    }

    fn active_of_signal(&self) -> Vec<usize> {
        self.active.iter().copied().filter(|number| self.watchers[*number].kind == Kind::Signal).collect()
    }

    fn close(&mut self, number: usize) {
        self.watchers[number].is_closed = true;
        self.stop(number);
        self.set_marks(number);
        self.watchers[number].callback = None;
        self.end_wait(number, "closed");
    }

    /// Gives a handle up. The last one closes the watcher.
    fn release(&mut self, number: usize) {
        self.watchers[number].owners -= 1;
        if self.watchers[number].owners == 0 {
            self.close(number);
        }
        self.is_caught &= self.watchers.iter().any(|watcher| watcher.kind == Kind::Signal && watcher.owners != 0);
    }

    fn mark(&mut self, number: usize) {
        let watcher = &mut self.watchers[number];
        if !watcher.is_closed {
            watcher.is_pending = true;
            if !self.is_queued(number) {
                self.enqueue(number);
            }
        }
    }

    fn look(&mut self, latched: Latched) {
        match latched {
            Latched::Async(number) => {
                if std::mem::take(&mut self.watchers[number].is_latched) {
                    self.mark(number);
                }
            }
            Latched::Signal => {
                if std::mem::take(&mut self.is_raised) {
                    self.active_of_signal().into_iter().for_each(|number| self.mark(number));
                }
            }
        }
    }

    /// Looks at what has come for a wait that takes an event or ends.
    fn look_for_wait(&mut self, number: usize) {
        if self.watchers[number].kind == Kind::Signal {
            self.look(Latched::Signal);
        }
    }

    fn call_later(&mut self, call: Call) {
        self.queue.push_back(Entry::Call(self.turn, call));
    }

    fn end_wait(&mut self, number: usize, outcome: &'static str) {
        if let Some(waiter) = self.watchers[number].waiter {
            // An event that was delivered counts.
            if !self.watchers[number].is_pending || self.is_queued(number) {
                self.greens[waiter.green].outcome.get_or_insert(outcome);
            }
            self.wake(waiter.green);
        }
    }

    fn wake(&mut self, green: usize) {
        if self.greens[green].state == State::Waiting {
            self.greens[green].state = State::Ready;
            self.queue.push_back(Entry::Green(green));
        }
    }

    fn set_marks(&mut self, number: usize) {
        for waiter in std::mem::take(&mut self.watchers[number].marks) {
            self.greens[waiter.green].ready.push_back(number);
            self.wake(waiter.green);
        }
    }

    /// Runs the loop from the park of the main greenlet to its wake-up.
    fn turn(&mut self) {
        self.run_ready();
        self.mark_phase(Kind::Prepare);
        self.deliver();
        let has_reported = self.wait();
        self.waits += 1;
        self.fire();
        self.run_ready();
        self.mark_phase(Kind::Check);
        self.deliver();
        self.look_for_idle(has_reported);
        self.queue.push_back(Entry::Main);
        self.turn += 1;
        self.run_ready();
    }

    /// Runs the queue up to its end, the main greenlet, or a call from this turn.
    fn run_ready(&mut self) {
        loop {
            if matches!(self.queue.front(), Some(Entry::Call(turn, _)) if *turn == self.turn) {
                return;
            }
            let Some(entry) = self.queue.pop_front() else { return };
            match entry {
                Entry::Main => return,
                Entry::Green(green) => self.run_green(green),
                Entry::Call(_, call) => self.carry_out_call(call),
            }
        }
    }

    fn carry_out_call(&mut self, call: Call) {
        match call {
            Call::Expire(number, deadline) if self.watchers[number].deadline == Some(deadline) => {
                self.watchers[number].deadline = None;
                if let Kind::Timer(_, every) = self.watchers[number].kind
                    && every != 0
                {
                    let missed = (self.now - deadline.0) / every;
                    self.arm(number, deadline.0 + (missed + 1) * every);
                }
                self.mark(number);
            }
            Call::Cancel(number, waiter) if self.watchers[number].waiter == Some(waiter) => {
                self.end_wait(number, "cancelled");
            }
            Call::Kill(green) => match self.greens[green].state {
                State::Unstarted => self.greens[green].state = State::Over,
                State::Over => {}
                // A wait that has ended returns. The next one does not.
                State::Ready => self.greens[green].is_killed = true,
                State::Waiting => {
                    self.greens[green].is_unwound = true;
                    self.wake(green);
                }
            },
            Call::Expire(..) | Call::Cancel(..) => {}
        }
    }

    fn mark_phase(&mut self, kind: Kind) {
        for number in self.active.clone() {
            if self.watchers[number].kind == kind {
                self.mark(number);
            }
        }
    }

    /// Takes in the reports of the hub. Returns whether there are any.
    fn wait(&mut self) -> bool {
        let mut has_reported = false;
        for socket in 0..SOCKETS {
            let states = [(Interest::READ, self.is_readable[socket]), (Interest::WRITE, !self.is_full[socket])];
            for (direction, _) in states.into_iter().filter(|(_, is_ready)| *is_ready) {
                for number in self.active.clone() {
                    if let Kind::Io(of, events) = self.watchers[number].kind
                        && of == socket
                        && events.contains(direction)
                    {
                        self.mark(number);
                        has_reported = true;
                    }
                }
            }
        }
        if std::mem::take(&mut self.is_woken) {
            has_reported = true;
            self.latched.clone().into_iter().for_each(|latched| self.look(latched));
        }
        has_reported
    }

    /// Queues the timers that are due, in the order of their deadlines.
    fn fire(&mut self) {
        let queued = |deadline| {
            self.queue.iter().any(|it| matches!(it, Entry::Call(_, Call::Expire(_, other)) if *other == deadline))
        };
        let armed = (0..WATCHERS.len()).filter_map(|number| Some((self.watchers[number].deadline?, number)));
        let mut due: Vec<_> = armed.filter(|(due, _)| due.0 <= self.now && !queued(*due)).collect();
        due.sort_unstable();
        for (deadline, number) in due {
            self.queue.push_back(Entry::Call(self.turn.wrapping_sub(1), Call::Expire(number, deadline)));
        }
    }

    /// Marks the idle watchers if the loop has found itself idle.
    fn look_for_idle(&mut self, has_reported: bool) {
        let is_quiet = !std::mem::take(&mut self.has_run) && !has_reported && self.queue.is_empty();
        let is_idle = self.idle_turns.pop_front().unwrap_or_default();
        self.late_idle_turns = if is_quiet && !is_idle { self.late_idle_turns + 1 } else { 0 };
        if is_idle && !is_quiet {
            self.log("an idle turn that was not quiet".to_owned());
        }
        if self.late_idle_turns > LATE_IDLE_TURNS {
            self.log("quiet turns that were not idle".to_owned());
        }
        let has_idle = self.active.iter().any(|number| self.watchers[*number].kind == Kind::Idle);
        if is_idle && has_idle && !std::mem::take(&mut self.is_busy) {
            self.mark_phase(Kind::Idle);
        }
    }

    /// Calls the watchers that are pending now: those of a higher priority first.
    fn deliver(&mut self) {
        let last = self.events;
        let is_due = |queue: &&mut VecDeque<(usize, usize)>| queue.front().is_some_and(|(event, _)| *event <= last);
        while let Some((_, number)) = self.pending.iter_mut().rev().find(is_due).and_then(VecDeque::pop_front) {
            let turn = Some(self.waits);
            let has_been_called = std::mem::replace(&mut self.watchers[number].called_after, turn) == turn;
            if has_been_called && !self.watchers[number].kind.is_phase() {
                self.enqueue(number);
            } else {
                self.deliver_one(number);
            }
        }
    }

    fn deliver_one(&mut self, number: usize) {
        let watcher = &mut self.watchers[number];
        self.is_busy |= !watcher.kind.is_phase();
        let is_for_marks = watcher.is_marked;
        // An event of the program leaves a timer armed.
        if matches!(watcher.kind, Kind::Timer(..)) && watcher.deadline.is_none() {
            self.end_watch(number);
        }
        self.set_marks(number);
        self.stop_if_unmarked(number);
        let watcher = &mut self.watchers[number];
        if let Some(waiter) = watcher.waiter {
            return self.wake(waiter.green);
        }
        let Some(script) = watcher.callback.take_if(|_| !is_for_marks) else {
            watcher.is_pending &= watcher.kind.keeps_events();
            return;
        };
        watcher.is_pending = false;
        watcher.is_calling = true;
        self.log(format!("call of {number}"));
        let returned = script.into_iter().all(|op| self.carry_out(op));
        self.watchers[number].is_calling = false;
        if !returned && matches!(self.watchers[number].kind, Kind::Io(..)) {
            self.close(number);
        }
        let watcher = &mut self.watchers[number];
        if !watcher.is_closed {
            watcher.callback.get_or_insert_default();
        }
    }

    fn stop_if_unmarked(&mut self, number: usize) {
        if self.watchers[number].is_marked && self.watchers[number].marks.is_empty() {
            self.end_watch_for_waits(number);
        }
    }

    fn run_green(&mut self, number: usize) {
        if self.greens[number].state == State::Over {
            return;
        }
        self.has_run = true;
        while !self.greens[number].is_unwound {
            match self.greens[number].present {
                Some(Wait::One(watcher)) => self.take_event(number, watcher),
                Some(Wait::Several(..)) => {}
                None => {
                    let Some(next) = self.greens[number].waits.pop_front() else { break };
                    self.begin_wait(number, next);
                }
            }
            let Some(ended) = self.resume_wait(number) else {
                if self.greens[number].is_killed {
                    break;
                }
                return self.greens[number].state = State::Waiting;
            };
            self.leave_wait(number);
            self.log(format!("green {number}: {ended}"));
            self.release_all(number);
        }
        self.leave_wait(number);
        self.release_all(number);
        self.greens[number].state = State::Over;
        self.log(format!("green {number} is over"));
    }

    /// Takes the event of a wait for one watcher, unless an error has ended it.
    fn take_event(&mut self, number: usize, watcher: usize) {
        if self.greens[number].outcome.is_some() {
            return;
        }
        self.look_for_wait(watcher);
        if std::mem::take(&mut self.watchers[watcher].is_pending) {
            self.dequeue(watcher);
            self.greens[number].outcome = Some("event");
        }
    }

    /// Begins a wait. The watchers that are there are held during it.
    fn begin_wait(&mut self, number: usize, mut wait: Wait) {
        match &mut wait {
            Wait::One(watcher) if !self.watchers[*watcher].has_handle => wait = Wait::Several(Vec::new(), usize::MAX),
            Wait::One(_) => {}
            Wait::Several(watchers, _) => watchers.retain(|watcher| self.watchers[*watcher].has_handle),
        }
        let green = &mut self.greens[number];
        green.wait += 1;
        (green.outcome, green.ready, green.taken) = (None, VecDeque::new(), Vec::new());
        green.present = Some(wait.clone());
        let waiter = Waiter { green: number, wait: green.wait };
        match wait {
            Wait::One(watcher) => {
                self.watchers[watcher].owners += 1;
                let is_used = self.watchers[watcher].waiter.is_some() || self.watchers[watcher].is_active;
                match if is_used { Err("concurrent") } else { self.activate(watcher, None) } {
                    Ok(()) => self.watchers[watcher].waiter = Some(waiter),
                    Err(error) => self.greens[number].outcome = Some(error),
                }
            }
            Wait::Several(watchers, _) => {
                watchers.iter().for_each(|watcher| self.watchers[*watcher].owners += 1);
                for watcher in watchers {
                    let was_active = self.watchers[watcher].is_active;
                    if self.watchers[watcher].is_pending || self.activate(watcher, None).is_err() {
                        self.greens[number].ready.push_back(watcher);
                    } else {
                        self.watchers[watcher].is_marked |= !was_active;
                        self.watchers[watcher].marks.push(waiter);
                    }
                }
            }
        }
    }

    /// Returns the result of the present wait, if it has ended.
    fn resume_wait(&mut self, number: usize) -> Option<String> {
        let Some(Wait::Several(watchers, count)) = self.greens[number].present.clone() else {
            return self.greens[number].outcome.map(str::to_owned);
        };
        if count == usize::MAX {
            return Some("gone".to_owned());
        }
        loop {
            let taken = self.greens[number].taken.len();
            if taken == count || taken == watchers.len() {
                return Some(format!("{:?}", self.greens[number].taken));
            }
            let ready = self.greens[number].ready.pop_front()?;
            self.greens[number].taken.push(ready);
            self.stop_if_unmarked(ready);
            if self.watchers[ready].waiter.is_none() && !self.is_queued(ready) {
                self.watchers[ready].is_pending = false;
            }
        }
    }

    /// Ends the present wait, and stops the watchers that are active for it alone.
    fn leave_wait(&mut self, number: usize) {
        let waiter = Waiter { green: number, wait: self.greens[number].wait };
        match self.greens[number].present.clone() {
            Some(Wait::One(watcher)) if self.watchers[watcher].waiter == Some(waiter) => {
                let watcher_now = &mut self.watchers[watcher];
                watcher_now.waiter = None;
                if watcher_now.marks.is_empty() {
                    self.end_watch_for_waits(watcher);
                } else {
                    watcher_now.is_marked = watcher_now.is_active;
                    if watcher_now.is_pending && !self.is_queued(watcher) {
                        self.enqueue(watcher);
                    }
                }
            }
            Some(Wait::Several(watchers, _)) => {
                let taken = self.greens[number].taken.clone();
                for watcher in watchers.into_iter().filter(|watcher| !taken.contains(watcher)) {
                    self.watchers[watcher].marks.retain(|mark| *mark != waiter);
                    self.stop_if_unmarked(watcher);
                }
            }
            _ => {}
        }
    }

    fn release_all(&mut self, number: usize) {
        let held = match self.greens[number].present.take() {
            Some(Wait::One(watcher)) => vec![watcher],
            Some(Wait::Several(watchers, _)) => watchers,
            None => Vec::new(),
        };
        held.into_iter().for_each(|watcher| self.release(watcher));
    }
}
