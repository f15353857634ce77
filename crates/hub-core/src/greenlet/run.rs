//! Who runs: the run queue, parking, waking, and the hand-off from one greenlet to the next.
//!
//! A greenlet that parks switches straight to the next ready one; only when none is ready, or the
//! budget of the turn is used up, does the switch go to the main loop. A wake-up only queues.
//!
//! Ground rules:
//! - `current` is set by whoever switches, before the jump; so the one who arrives finds itself there.
//! - A block is in the run queue exactly in the states Unstarted, Ready, Cancelled and Callback, once.
//! - A ticket is woken at most once: waking moves it on, and so does every other end of a park.
//! - Nothing of a `RefCell` or of a hub is borrowed when a greenlet is left.

mod turn;

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, compiler_fence};

use super::control::{ControlRef, Doing, Kind, State, Wake};
use super::driver::Driver;
use super::local::{self, Local};
use super::patience;
use super::spans::{self, Away};
use super::switch;
use super::task::TaskRef;
use super::unwind::{Exit, MOST_THROWS, throw};
use crate::error::{GreenError, LoopError};
use crate::report::{self, Report};
use crate::time::Stamp;
use crate::trace;
pub use turn::set_turn_time;
pub(crate) use turn::{charge, fire, operations_used_up, run_ready};

/// Why a greenlet cannot park. Boxed, so that the results of the hot paths fit into registers.
pub(crate) type Refused = Box<LoopError>;

/// The part of a thread's state that every switch touches: plain cells, no destructor, no lazy
/// initialisation.
///
/// The two counters are kept apart: side by side they would be changed together by one wide operation,
/// which stalls on the narrow one before.
#[repr(C)]
pub(crate) struct Thread {
    ready: Cell<usize>,
    current: Cell<Option<ControlRef>>,
    head: Cell<Option<ControlRef>>,
    tail: Cell<Option<ControlRef>>,
    /// How many more greenlets may run before the main loop looks at descriptors and timers again.
    /// Zero while there is no main loop.
    /// That is, in a slice of the turn.
    budget: Cell<usize>,
    /// Of how much the budget is what is left.
    granted: Cell<usize>,
    /// How many more operations are served at once before [`charge`] looks whether others have run.
    operations: Cell<u32>,
    /// How many ran by the budgets before.
    switches: Cell<u64>,
    /// The state of this thread, until it ends.
    pub(super) local: Cell<Option<NonNull<Local>>>,
    /// The state of this thread after its end, as far as anything of it is still needed.
    pub(super) late: Cell<Option<NonNull<Local>>>,
    /// The thread has ended or is ending: nothing is switched to any more.
    pub(super) ended: Cell<bool>,
    turn: turn::Turn,
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            ready: Cell::new(0),
            current: Cell::new(None),
            head: Cell::new(None),
            tail: Cell::new(None),
            budget: Cell::new(0),
            granted: Cell::new(0),
            operations: Cell::new(turn::OPERATIONS),
            switches: Cell::new(0),
            local: Cell::new(None),
            late: Cell::new(None),
            ended: Cell::new(false),
            turn: turn::Turn::new(),
        }
    };
}

/// This thread's part. Small enough to be inlined wherever it is used.
#[inline(always)]
pub(super) fn thread() -> &'static Thread {
    // SAFETY: a thread-local without destructor lives as long as its thread, which the reference cannot
    // leave: it is `!Send`, as `Thread` consists of cells.
    THREAD.with(|thread| unsafe { &*ptr::from_ref(thread) })
}

/// One park of one greenlet. Whoever holds it may end that park and no other.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Waiter {
    control: ControlRef,
    ticket: u64,
}

impl Waiter {
    /// The next park of the running greenlet.
    ///
    /// Throws the exit that is pending, if one is.
    ///
    /// # Errors
    ///
    /// Where parking is not possible: in the main loop, in a subscriber that is told something, while panicking, at the
    /// end of the thread.
    #[inline]
    pub(crate) fn current(doing: Doing) -> Result<Waiter, Refused> {
        let control = current();
        if control.kind() != Kind::Thread || control.exit.get() || trace::is_telling() || std::thread::panicking() {
            may_park(control, doing)?;
        }
        control.doing.set(doing);
        Ok(Waiter { control, ticket: control.ticket.get() })
    }

    /// Like [`current`](Waiter::current), but takes a fresh ticket, so a wake-up meant for an earlier, abandoned park
    /// cannot end this one. `None` if an exit is to be thrown first, by [`check_exit`]: the caller may hold a lock, and
    /// others may run before an exit that was swallowed is thrown again.
    #[inline]
    pub(crate) fn begin(doing: Doing) -> Result<Option<Waiter>, Refused> {
        let control = current();
        if (control.kind() != Kind::Thread || control.exit.get() || trace::is_telling() || std::thread::panicking())
            && !may_begin(control, doing)?
        {
            return Ok(None);
        }
        control.doing.set(doing);
        let ticket = control.ticket.get() + 1;
        control.ticket.set(ticket);
        Ok(Some(Waiter { control, ticket }))
    }

    #[inline]
    pub(crate) fn new(control: ControlRef, ticket: u64) -> Waiter {
        Waiter { control, ticket }
    }

    #[inline]
    pub(crate) fn control(self) -> ControlRef {
        self.control
    }

    #[inline]
    pub(crate) fn ticket(self) -> u64 {
        self.ticket
    }

    /// Ends the park. False if it has ended already. Never switches.
    #[inline]
    pub(crate) fn wake(self) -> bool {
        self.wake_with(Wake::Event)
    }

    /// Ends the park for a reason. False if it has ended already. Never switches.
    #[inline]
    pub(crate) fn wake_with(self, why: Wake) -> bool {
        let control = self.control;
        if control.ticket.get() != self.ticket {
            return false;
        }
        control.ticket.set(self.ticket + 1);
        control.wake.set(why);
        // One that has a ticket but does not park yet finds at its park that the ticket has moved.
        if control.state.get() == State::Parked {
            control.state.set(State::Ready);
            thread().push(control);
        }
        true
    }

    /// Parks the running greenlet until this ticket is woken. Switches.
    ///
    /// Throws the exit that has ended the park, unless a mask is in force. One that came after the park had ended is
    /// left for the next wait: what the park was woken for is kept.
    ///
    /// # Errors
    ///
    /// For the main greenlet: what the main loop has to tell it.
    #[inline(always)]
    pub(crate) fn park(self) -> Result<Wake, Refused> {
        self.park_until_entered()?;
        let wake = self.control.wake.get();
        if matches!(wake, Wake::Exit | Wake::Failed) {
            arrive_in_trouble(self.control)?;
        }
        Ok(wake)
    }

    /// Like [`park`](Waiter::park), but an exit only ends the park: the caller looks whether it was granted what it
    /// waits for, and throws by [`check_exit`] if not.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub(crate) fn park_deferring_exit(self) -> Result<Wake, Refused> {
        self.park_until_entered()?;
        let wake = self.control.wake.get();
        if wake == Wake::Failed {
            take_main_error(self.control)?;
        }
        Ok(wake)
    }

    #[inline(always)]
    fn park_until_entered(self) -> Result<(), Refused> {
        let me = self.control;
        debug_assert_eq!(current(), me, "only the running greenlet parks");
        if trace::is_telling() {
            may_leave(me, me.doing())?;
        }
        if me.ticket.get() == self.ticket && spans::exited_for(self) {
            me.state.set(State::Parked);
            thread().leave(me).inspect_err(|_| spans::entered(me))?;
            // Whoever ended the park moved the ticket on, so nothing late finds this greenlet.
            debug_assert_ne!(me.ticket.get(), self.ticket);
        }
        spans::entered(me);
        Ok(())
    }
}

/// For a greenlet that was entered again after it gave way: throws the exit that is pending unless a mask is in force.
#[inline]
pub(super) fn arrive(me: ControlRef) -> Result<Wake, Refused> {
    spans::entered(me);
    let wake = me.wake.get();
    if me.exit.get() || wake == Wake::Failed {
        arrive_in_trouble(me)?;
    }
    Ok(wake)
}

#[cold]
fn arrive_in_trouble(me: ControlRef) -> Result<(), Refused> {
    // The park is not taken down yet, so nothing else runs before this throw.
    throw_pending(me, None, |_| {});
    take_main_error(me)
}

/// Takes the error that the main loop left for `me`, if it is the main greenlet.
#[cold]
fn take_main_error(me: ControlRef) -> Result<(), Refused> {
    match me.kind() {
        Kind::Main if !me.is_masked() => Ok(local::get().main_loop.take_main_error()?),
        _ => Ok(()),
    }
}

#[cold]
fn may_park(me: ControlRef, doing: Doing) -> Result<(), Refused> {
    may_leave(me, doing)?;
    if me.kind() == Kind::Main {
        local::get().watch_for_end();
    }
    take_main_error(me)
}

/// False if an exit is to be thrown first.
#[cold]
fn may_begin(me: ControlRef, doing: Doing) -> Result<bool, Refused> {
    let may_throw = !in_mainloop() && !std::thread::panicking() && !local::has_ended();
    if has_to_exit(me) && may_throw && !patience::holds_exits(doing) {
        return Ok(false);
    }
    may_park(me, doing)?;
    if has_to_exit(me) {
        patience::begin(me, me.ticket.get() + 1);
    }
    Ok(true)
}

/// Whether the running greenlet may be left. Throws the exit that is pending, if one is.
pub(crate) fn may_leave(me: ControlRef, doing: Doing) -> Result<(), Refused> {
    // Before all others: an exit must not unwind a destructor of a thread-local.
    if thread().ended.get() {
        return Err(LoopError::ThreadEnding.into());
    }
    if me.kind() == Kind::Mainloop {
        return Err(LoopError::InMainloop { doing: doing.as_str() }.into());
    }
    if trace::is_telling() {
        return Err(LoopError::InMainloop { doing: "what a subscriber of `tracing` wants to wait for" }.into());
    }
    if std::thread::panicking() {
        return Err(LoopError::Panicking.into());
    }
    if !patience::holds_exits(doing) {
        throw_pending(me, None, take_turn);
    }
    Ok(())
}

/// Throws the exit that comes next, if there is one and nothing holds it back; instead of an earlier kill, `own`. One
/// that was swallowed before is thrown after `between`, and given up at some point.
fn throw_pending(me: ControlRef, mut own: Option<Exit>, between: impl Fn(ControlRef)) {
    let mut gave_way = false;
    while !me.is_masked()
        && let Some(throws) = me.throws()
    {
        if throws >= MOST_THROWS {
            give_up_exit(me);
        } else if throws != 0 && !gave_way {
            gave_way = true;
            between(me);
        } else if let Some(exit) = me.next_throw() {
            throw(own.take().filter(|_| exit.scope().is_none()).unwrap_or(exit));
        }
    }
}

/// Lets the main loop take a turn, and others run, before `me` goes on; returns at once where that is not possible.
fn take_turn(me: ControlRef) {
    if trace::is_telling() || local::get().main_loop.in_hub() {
        return;
    }
    spans::exited(me);
    let thread = thread();
    // Without a budget the way leads to the main loop, past those who are ready: they run in its next turn.
    thread.end_turn();
    // Where no loop can be launched this fails, and the exit is thrown at once.
    let _ = thread.give_way(me);
    spans::entered(me);
}

/// The greenlet catches its exit again and again, so it lives on.
#[cold]
fn give_up_exit(me: ControlRef) {
    let refused = me.give_up_exit();
    if let Some(exit) = refused {
        let greenlet = match (me.kind(), me.task()) {
            (_, Some(task)) => format!("the green thread {}", task.describe()),
            (Kind::Main, None) => "the main greenlet".to_owned(),
            _ => me.describe_raw().unwrap_or_else(|| "a greenlet".to_owned()),
        };
        report::tell(Report::Refused { greenlet, exit });
    }
    super::raw::release_dropper(me);
}

/// The running greenlet.
#[inline]
pub(crate) fn current() -> ControlRef {
    match thread().current.get() {
        Some(control) => control,
        None => local::get().main,
    }
}

/// The address of the block of the running greenlet; 0 if the thread has none.
#[inline]
pub(crate) fn running_address() -> usize {
    thread().current.get().map_or(0, ControlRef::address)
}

/// Whether the running greenlet is the main loop, which must not block, or a subscriber is told something, which must
/// not either.
#[inline]
pub(crate) fn in_mainloop() -> bool {
    trace::is_telling() || thread().current.get().is_some_and(|control| control.kind() == Kind::Mainloop)
}

/// Lets every other ready greenlet run once, then goes on. Switches.
#[inline]
pub(crate) fn yield_now() -> Result<(), Refused> {
    let me = Waiter::current(Doing::Yield)?.control;
    spans::exited(me);
    thread().give_way(me).inspect_err(|_| spans::entered(me))?;
    arrive(me).map(drop)
}

/// Queues a greenlet whose body has not begun; after the end or during the shutdown of its thread it never will.
#[inline]
pub(crate) fn start(control: ControlRef) {
    if local::get().refuses_bodies() {
        return refuse(control);
    }
    control.state.set(State::Unstarted);
    thread().push(control);
}

/// Queues a stand-in for a callback of the main loop, which keeps its place among the greenlets.
pub(crate) fn queue_callback(control: ControlRef) {
    control.state.set(State::Callback);
    thread().push(control);
}

/// Changes whenever another greenlet runs, or the same one once more.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Stretch {
    current: Option<u32>,
    ticket: u64,
    hand_offs: u64,
}

/// The present stretch. May be called in a signal handler of its thread.
pub(crate) fn stretch() -> Stretch {
    let thread = thread();
    let current = thread.current.get();
    Stretch {
        current: current.map(|current| current.number()),
        ticket: current.map_or(0, |current| current.ticket()),
        hand_offs: thread.hand_offs(),
    }
}

/// How many are in the run queue.
#[inline]
pub(crate) fn ready() -> usize {
    thread().ready.get()
}

/// Keeps the running greenlet from giving way, which is an error from now on. Returns what resumes it.
#[inline]
pub(crate) fn stop_hand_off() -> usize {
    let thread = thread();
    let budget = thread.budget.replace(0);
    thread.granted.set(thread.granted.get() - budget);
    budget
}

/// Undoes [`stop_hand_off`].
#[inline]
pub(crate) fn resume_hand_off(budget: usize) {
    let thread = thread();
    thread.granted.set(thread.granted.get() + budget);
    thread.budget.set(budget);
}

/// What [`interrupt`] did.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Interrupted {
    /// It had not begun, and never will.
    Cancelled,
    /// It was switched to and has run until its end or its next park.
    Ran,
    /// It will find the exit when it runs next.
    Later,
    /// A mask or a shield is in force, or the target waits for a lock; it finds the exit when that is over.
    HeldBack,
}

/// Makes a greenlet other than the running one exit.
///
/// If `at_once`, the running greenlet is queued and the target runs until its end or its next park;
/// otherwise the target is only woken. An exit that is pending for the running greenlet itself is thrown
/// then, after the target was woken; what the main loop has for the main greenlet waits for its next park.
pub(crate) fn interrupt(target: ControlRef, exit: Exit, at_once: bool) -> Interrupted {
    // Dropped at the end of all, for its destructor may switch.
    let _unneeded;
    // First of all, for it may change what the target does.
    let _away = (at_once && target.is_suspended()).then(Away::new);
    match target.state() {
        State::Unstarted => {
            if let Exit::Kill(error) = exit {
                cancel(target, error);
            }
            Interrupted::Cancelled
        }
        State::Delayed => {
            if let Exit::Kill(error) = exit {
                cancel(target, error);
                local::get().controls.give(target);
            }
            Interrupted::Cancelled
        }
        State::Free | State::Cancelled | State::Callback | State::Abandoned => Interrupted::Cancelled,
        // What has begun cannot be unwound.
        _ if cfg!(panic = "abort") => Interrupted::Later,
        State::Running => {
            target.set_exit(exit);
            Interrupted::Later
        }
        State::Ready => {
            let shielded = target.is_shielded_from(&exit);
            _unneeded = target.set_exit(exit);
            if !at_once {
                return Interrupted::Later;
            }
            if shielded {
                check_exit();
                return Interrupted::HeldBack;
            }
            check_exit();
            let left = thread().give_way(current());
            spans::back();
            check_exit();
            if left.is_ok() { Interrupted::Ran } else { Interrupted::Later }
        }
        State::Parked
            if !target.is_masked() && !target.is_shielded_from(&exit) && patience::holds_back(target, &exit) =>
        {
            if !target.has_pending_exit() {
                patience::begin(target, target.ticket());
            }
            _unneeded = target.set_exit(exit);
            if at_once {
                check_exit();
            }
            Interrupted::HeldBack
        }
        State::Parked | State::Switched => {
            let (masked, shielded) = (target.is_masked(), target.is_shielded_from(&exit));
            _unneeded = target.set_exit(exit);
            let me = current();
            if !at_once || masked || shielded || has_to_exit(me) {
                // A masked wait looks after those for whom it waits. Under a shield a wait goes on as if nothing were.
                if !shielded {
                    target.state.set(State::Parked);
                    Waiter::new(target, target.ticket()).wake_with(Wake::Exit);
                }
                if at_once {
                    check_exit();
                }
                return if masked || shielded { Interrupted::HeldBack } else { Interrupted::Later };
            }
            let thread = thread();
            target.ticket.set(target.ticket() + 1);
            target.wake.set(Wake::Exit);
            me.state.set(State::Ready);
            me.wake.set(Wake::Event);
            thread.push(me);
            // SAFETY: the target is suspended and in no queue, and no foreign code ran since that was seen; we are
            // queued.
            unsafe { thread.switch(me, target) };
            check_exit();
            Interrupted::Ran
        }
    }
}

#[cold]
fn refuse(control: ControlRef) {
    cancel(control, LoopError::ThreadEnding.into());
    local::get().controls.give(control);
}

/// Ends a green thread whose body has not begun: it stays queued with nothing to run.
fn cancel(target: ControlRef, error: GreenError) {
    target.state.set(State::Cancelled);
    let _span = spans::unentered(target);
    if let Some(task) = target.task.take() {
        // What is dropped may block, and the block be given to another greenlet meanwhile.
        task.forget_control();
        task.fail(error);
        task.finish();
    }
}

/// How often a greenlet was run from the queue.
pub(crate) fn switches() -> u64 {
    let thread = thread();
    thread.grant(thread.budget.get());
    thread.switches.get()
}

impl Thread {
    /// So many greenlets may run from now on. What ran before is in the difference, so that nobody has to count.
    #[inline]
    fn grant(&self, budget: usize) {
        let ran = self.granted.get() - self.budget.get();
        self.switches.set(self.switches.get() + ran as u64);
        self.granted.set(budget);
        self.budget.set(budget);
    }

    #[inline]
    fn push(&self, control: ControlRef) {
        control.next.set(None);
        match self.tail.replace(Some(control)) {
            Some(tail) => tail.next.set(Some(control)),
            None => self.head.set(Some(control)),
        }
        self.ready.set(self.ready.get() + 1);
    }

    /// Takes out `head`, which is the head of the queue.
    #[inline]
    fn pop(&self, head: ControlRef) {
        let next = head.next.take();
        self.head.set(next);
        if next.is_none() {
            self.tail.set(None);
        }
        self.ready.set(self.ready.get() - 1);
    }

    /// Takes out `head`, which is the head of the queue and does not run: charged to the turn, but not counted.
    fn pop_unrun(&self, head: ControlRef) {
        self.pop(head);
        if self.budget.get() != 0 {
            self.budget.set(self.budget.get() - 1);
            self.granted.set(self.granted.get() - 1);
        }
    }

    /// Queues the running greenlet behind those who are ready, and leaves it.
    #[inline]
    fn give_way(&self, me: ControlRef) -> Result<(), Refused> {
        if self.budget.get() == 0 && !self.renew() {
            self.mainloop()?;
        }
        me.state.set(State::Ready);
        me.wake.set(Wake::Event);
        self.push(me);
        self.leave(me)
    }

    /// Leaves the running greenlet, which is parked or queued, for whoever is next.
    #[inline]
    pub(super) fn leave(&self, me: ControlRef) -> Result<(), Refused> {
        if let Some(next) = self.head.get()
            && next.state.get() == State::Ready
            && (self.budget.get() != 0 || self.renew())
        {
            self.pop(next);
            self.budget.set(self.budget.get() - 1);
            if next == me {
                me.state.set(State::Running);
            } else {
                // SAFETY: `next` is suspended and was just taken out of the queue; `me` is parked or
                // queued.
                unsafe { self.switch(me, next) };
            }
            return Ok(());
        }
        self.leave_slowly(me)
    }

    #[cold]
    #[inline(never)]
    fn leave_slowly(&self, me: ControlRef) -> Result<(), Refused> {
        let local = local::get();
        let mainloop = match self.mainloop() {
            Ok(mainloop) => mainloop,
            Err(error) => {
                // Nobody will wake this park any more: it never happened, and nothing came of it.
                me.ticket.set(me.ticket.get() + 1);
                me.wake.set(Wake::Event);
                me.state.set(State::Running);
                return Err(error);
            }
        };
        while let Some(next) = self.head.get()
            && (self.budget.get() != 0 || self.renew())
        {
            match next.state() {
                State::Cancelled => {
                    self.pop_unrun(next);
                    local.controls.give(next);
                    continue;
                }
                State::Unstarted => {
                    // Without a stack the main loop tries again, and ends it if there is none.
                    if give_stack(local, next).is_err() {
                        break;
                    }
                }
                State::Ready => {}
                _ => break,
            }
            self.pop(next);
            self.budget.set(self.budget.get() - 1);
            if next == me {
                me.state.set(State::Running);
            } else {
                // SAFETY: `next` is suspended or fresh and was just taken out of the queue; `me` is
                // parked or queued.
                unsafe { self.switch(me, next) };
            }
            return Ok(());
        }
        // SAFETY: the main loop is suspended or fresh whenever another greenlet runs, and never queued.
        unsafe { self.switch(me, mainloop) };
        Ok(())
    }

    /// Leaves `me` and enters `next`. Returns when somebody enters `me`.
    ///
    /// # Safety
    ///
    /// `next` is suspended or fresh, in no queue, and not `me`. `me` is the running greenlet, in a
    /// state from which somebody will enter it.
    #[inline]
    pub(super) unsafe fn switch(&self, me: ControlRef, next: ControlRef) {
        next.state.set(State::Running);
        self.current.set(Some(next));
        let context = next.context.replace(0);
        debug_assert_ne!(context, 0, "entered twice");
        // SAFETY: the context was just taken out of its cell; control blocks are never unmapped while
        // their thread runs, so `save` is valid.
        unsafe { switch::jump(context, &raw const (*me.as_ptr()).context) };
    }

    /// The main loop, launched if it does not exist.
    fn mainloop(&self) -> Result<ControlRef, Refused> {
        let local = local::get();
        if local.main_loop.in_hub() {
            return Err(LoopError::InMainloop { doing: "what a hub or the order of a queue wants to wait for" }.into());
        }
        if let Some(mainloop) = local.mainloop.get() {
            return Ok(mainloop);
        }
        let stack = local.take_stack(None)?;
        let mainloop = local.controls.take(Kind::Mainloop, Stamp::NONE);
        mainloop.stack.set(Some(stack));
        mainloop.context.set(local::enter_stack(stack));
        mainloop.state.set(State::Switched);
        local.mainloop.set(Some(mainloop));
        Ok(mainloop)
    }
}

/// Lends a stack to a green thread that is about to begin.
#[inline]
fn give_stack(local: &Local, control: ControlRef) -> Result<(), LoopError> {
    let stack = local.take_stack(requested_size(control))?;
    control.stack.set(Some(stack));
    control.context.set(local::enter_stack(stack));
    Ok(())
}

/// For `root`: runs the greenlet that is current, and then as many as may run on the same stack.
/// Returns the context to enter next and where to keep the one of this stack. Never unwinds.
pub(super) fn run_current() -> (usize, *const Cell<usize>) {
    let local = local::get();
    let thread = thread();
    loop {
        let me = current();
        let size = requested_size(me);
        let next = match me.kind() {
            Kind::Thread => {
                run_task(me);
                None
            }
            Kind::Mainloop => {
                local.main_loop.run(local);
                local.mainloop.set(None);
                // The next blocking call launches a new loop.
                thread.end_turns();
                None
            }
            Kind::Raw => super::raw::run(me),
            Kind::Main => unreachable!("the main greenlet has the thread's own stack"),
        };
        me.drop_cold();
        let stack = me.stack.take().expect("whoever runs here was lent this stack");
        local.controls.give(me);

        let next = match next {
            // The main loop, which main has entered to end it.
            _ if thread.ended.get() => local.main,
            Some(next) => next,
            None => thread.successor(local, size).unwrap_or_else(|| thread.mainloop_after(local, size)),
        };
        if next.state() == State::Unstarted {
            next.state.set(State::Running);
            next.stack.set(Some(stack));
            thread.current.set(Some(next));
            continue;
        }
        next.state.set(State::Running);
        thread.current.set(Some(next));
        let context = next.context.replace(0);
        debug_assert_ne!(context, 0, "entered twice");
        // SAFETY: the body has returned, nothing of it is on the stack, and nobody can take the
        // stack before the jump leaves it.
        unsafe { local.stacks.give(stack) };
        // SAFETY: headers outlive the use of their stack and never move.
        return (context, unsafe { &raw const (*stack.as_ptr()).context });
    }
}

impl Thread {
    /// The main loop, after a greenlet that has ended. If there is none, it begins on the same stack.
    fn mainloop_after(&self, local: &Local, size: Option<usize>) -> ControlRef {
        if let Some(mainloop) = local.mainloop.get() {
            return mainloop;
        }
        // A stack of a size of its own may be too small for the loop and what it calls.
        if size.is_some()
            && let Ok(mainloop) = self.mainloop()
        {
            return mainloop;
        }
        let mainloop = local.controls.take(Kind::Mainloop, Stamp::NONE);
        mainloop.state.set(State::Unstarted);
        local.mainloop.set(Some(mainloop));
        mainloop
    }

    /// Who runs after a greenlet that has ended: a ready one, or one that has not begun and may use
    /// the same stack (it comes back in the state Unstarted). `None`: the main loop.
    #[inline]
    fn successor(&self, local: &Local, size: Option<usize>) -> Option<ControlRef> {
        while let Some(next) = self.head.get() {
            match next.state() {
                // The main greenlet must get what the end of the loop has for it, even if the budget
                // is used up and there is no loop to go to.
                _ if self.budget.get() == 0 && local.mainloop.get().is_some() && !self.renew() => return None,
                State::Cancelled => {
                    self.pop_unrun(next);
                    local.controls.give(next);
                    continue;
                }
                State::Ready => {}
                State::Unstarted => {
                    if requested_size(next) != size {
                        if give_stack(local, next).is_err() {
                            return None;
                        }
                        next.state.set(State::Ready);
                    }
                }
                _ => return None,
            }
            self.pop(next);
            match self.budget.get() {
                0 => self.switches.set(self.switches.get() + 1),
                budget => self.budget.set(budget - 1),
            }
            return Some(next);
        }
        None
    }
}

/// The stack size that a green thread was spawned with, if it was not the default.
#[inline]
fn requested_size(control: ControlRef) -> Option<usize> {
    control.task.get().and_then(TaskRef::stack_size)
}

fn run_task(me: ControlRef) {
    let Some(task) = me.task.get() else { return };
    spans::entered(me);
    task.run();
    me.task.set(None);
    // A signal handler that finds a cell here finds one that lives.
    compiler_fence(Ordering::SeqCst);
    // What was pending concerned the body; links and destructors may block again.
    me.clear_exits();
    me.drop_locals();
    task.finish();
}

/// Reports a callback that panicked; the loop goes on.
pub(crate) fn report_callback(doing: &'static str, error: GreenError) {
    report::tell(Report::CallbackFailed { doing, error });
}

impl Thread {
    /// For the main loop: runs the head of the queue, and those to whom it hands on. False if it is a callback that is
    /// for the next turn.
    #[inline(always)]
    fn run_head(&self, local: &Local, head: ControlRef) -> bool {
        match head.state() {
            State::Callback => {
                if !local.main_loop.callback_is_due() {
                    return false;
                }
                self.pop_unrun(head);
                local.controls.give(head);
                local.main_loop.run_callback();
                return true;
            }
            State::Cancelled => {
                self.pop_unrun(head);
                local.controls.give(head);
                return true;
            }
            State::Unstarted => {
                if let Err(error) = give_stack(local, head) {
                    self.pop_unrun(head);
                    cancel(head, error.into());
                    local.controls.give(head);
                    return true;
                }
            }
            _ => {}
        }
        let me = current();
        self.pop(head);
        self.budget.set(self.budget.get() - 1);
        me.state.set(State::Switched);
        // SAFETY: `head` is suspended or fresh and was just taken out of the queue; the main loop
        // is entered by whoever finds nothing to run.
        unsafe { self.switch(me, head) };
        true
    }

    /// The running greenlet, if the thread has one.
    pub(super) fn running(&self) -> Option<ControlRef> {
        self.current.get()
    }

    pub(super) fn set_current(&self, control: ControlRef) {
        self.current.set(Some(control));
    }

    pub(super) fn forget_late(&self) {
        self.late.set(None);
        self.current.set(None);
    }
}

/// Empties the run queue. The greenlets that were in it keep their states; nothing hands on to them any more.
pub(crate) fn clear_queue(local: &Local) {
    let thread = thread();
    thread.end_turns();
    while let Some(head) = thread.head.get() {
        thread.pop(head);
        if matches!(head.state(), State::Cancelled | State::Callback) {
            local.controls.give(head);
        }
    }
}

/// Lifts the shields of a greenlet. True if there were some.
pub(crate) fn lift_shields(target: ControlRef) -> bool {
    target.shields.replace(0) != 0
}

/// Gives those that wait for an abandoned greenlet `error` as its result.
pub(crate) fn end_abandoned(target: ControlRef, error: GreenError) {
    debug_assert_eq!(target.state(), State::Abandoned);
    if let Some(task) = target.task.take() {
        task.abandon(error);
    }
}

/// Lets the main loop of an ended thread return, so that its stack is free. Called by the main greenlet.
pub(super) fn end_mainloop(local: &Local) {
    if let Some(mainloop) = local.mainloop.get() {
        local.main.state.set(State::Switched);
        // SAFETY: the main loop is suspended and in no queue. It runs nothing else, for the queue is empty, and
        // returns, since the loop is closed; in an ended thread the greenlet that returns goes to main.
        unsafe { thread().switch(local.main, mainloop) };
    }
}

/// The thread ends on the stack of this greenlet, which is never left again: from now on it counts as a main one, which
/// is asked before each park whether it may.
pub(super) fn end_here(me: ControlRef) {
    me.kind.set(Kind::Main);
}

/// While it exists, exits of the running greenlet wait.
pub(crate) struct Mask {
    me: ControlRef,
}

impl Mask {
    pub(crate) fn new() -> Mask {
        let me = current();
        let masks = me.masks.get().checked_add(1).expect("masks are nested 255 deep");
        me.masks.set(masks);
        Mask { me }
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        self.me.masks.set(self.me.masks.get() - 1);
    }
}

/// While it exists, exits of the running greenlet wait, except those of scopes opened inside.
///
/// Unlike under a mask, an exit that waits does not end a park.
pub(crate) struct Shield {
    me: ControlRef,
}

impl Shield {
    /// `None` at the greatest depth: the shields around it hold back all that strikes from outside of them.
    pub(crate) fn new() -> Option<Shield> {
        let me = current();
        me.shields.set(me.shields.get().checked_add(1)?);
        Some(Shield { me })
    }
}

impl Drop for Shield {
    fn drop(&mut self) {
        // A shutdown may have lifted it.
        self.me.shields.set(self.me.shields.get().saturating_sub(1));
    }
}

/// Whether the running greenlet has to exit as soon as no mask is in force.
pub(crate) fn exit_is_pending() -> bool {
    current().has_pending_exit()
}

/// Whether an exit is pending for `me`, and neither a mask nor a shield holds it back.
pub(crate) fn has_to_exit(me: ControlRef) -> bool {
    !me.is_masked() && me.has_pending_exit()
}

/// The running greenlet kills itself: throws `exit`, unless something holds it back.
pub(crate) fn exit_now(exit: Exit) {
    let me = current();
    drop(me.set_exit(exit.clone()));
    if !std::thread::panicking() && !thread().ended.get() {
        throw_pending(me, Some(exit), take_turn);
    }
}

/// Throws the exit that is pending on, which was caught by code that is not the program's.
pub(crate) fn exit_again() {
    let me = current();
    if !me.is_masked()
        && !std::thread::panicking()
        && me.throws().is_some()
        && let Some(exit) = me.next_again()
    {
        throw(exit);
    }
}

/// Throws the exit that is pending, if one is and nothing holds it back.
pub(crate) fn check_exit() {
    let me = current();
    if !std::thread::panicking() && !thread().ended.get() {
        throw_pending(me, None, take_turn);
    }
}
