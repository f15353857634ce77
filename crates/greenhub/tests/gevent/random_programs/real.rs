//! Runs a program on the loop.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal as Number, raise};

use super::program::{Kind, Op, Program, SOCKETS, TURNS_AT_THE_END, WATCHERS, Wait};
use crate::support::green::{OnDrop, quiet_panic};
use crate::support::hubs::{self, Tap, Tapped};
use greenhub::debug::Report;
use greenhub::gevent::{
    Async, Check, Fork, Idle, Io, Loop, Prepare, Priority, Run, Signal, Timer, WaitError, Waitable, Watcher,
    WatcherError, event_loop, wait,
};
use greenhub::hub::{Hub, ManualClock, Phase, Readiness, Verdict};
use greenhub::{GreenError, GreenThread, get_hub, spawn, use_hub_with};

/// The events of a program.
pub(super) struct Outcome {
    pub(super) trace: Vec<String>,
    /// For each turn, whether the loop has called the hooks of idle turns.
    pub(super) idle_turns: Vec<bool>,
}

/// Runs a program on a new hub.
pub(super) fn run(program: &Program) -> Outcome {
    let world = World::new();
    let idle_turns = Rc::new(RefCell::new(Vec::new()));
    for op in &program.0 {
        world.carry_out(op, &idle_turns);
        world.log(world.snapshot());
    }
    // Callbacks without operations are called until nothing changes.
    for _ in 0..TURNS_AT_THE_END {
        world.carry_out(&Op::Turn, &idle_turns);
    }
    let mut trace = world.trace.take();
    let is_alive = event_loop().run(Run::NoWait).expect("main is not embedded");
    trace.push(format!("alive: {is_alive}"));
    world.end();
    Outcome { trace, idle_turns: idle_turns.take() }
}

/// A watcher with the methods that differ between the kinds.
trait Tested: Watcher + Waitable + Sized + 'static {
    fn event() -> Self::Event;

    fn again(&self, callback: impl FnMut(&Self, Self::Event) + 'static) -> Result<(), WatcherError> {
        self.start(callback)
    }
}

impl Tested for Io {
    fn event() -> Readiness {
        Readiness::READ
    }
}

impl Tested for Timer {
    fn event() {}

    fn again(&self, callback: impl FnMut(&Timer, ()) + 'static) -> Result<(), WatcherError> {
        Timer::again(self, callback)
    }
}

impl Tested for Async {
    fn event() {}
}

impl Tested for Prepare {
    fn event() {}
}

impl Tested for Check {
    fn event() {}
}

impl Tested for Idle {
    fn event() {}
}

impl Tested for Fork {
    fn event() {}
}

impl Tested for Signal {
    fn event() {}
}

/// A watcher of any kind.
trait Object {
    fn start(&self, callback: Box<dyn FnMut()>) -> Result<(), WatcherError>;
    fn again(&self, callback: Box<dyn FnMut()>) -> Result<(), WatcherError>;
    fn resume(&self) -> Result<(), WatcherError>;
    fn stop(&self);
    fn close(&self);
    fn feed(&self);
    fn set_priority(&self, priority: Priority) -> Result<(), WatcherError>;
    fn set_counted(&self, is_counted: bool);
    fn cancel_wait(&self) -> bool;
    fn wait(&self) -> Result<(), WaitError>;
    fn state(&self) -> String;
    fn waitable(&self) -> &dyn Waitable;
}

impl<W: Tested> Object for W {
    fn start(&self, mut callback: Box<dyn FnMut()>) -> Result<(), WatcherError> {
        Watcher::start(self, move |_, _| callback())
    }
    fn again(&self, mut callback: Box<dyn FnMut()>) -> Result<(), WatcherError> {
        Tested::again(self, move |_, _| callback())
    }
    fn resume(&self) -> Result<(), WatcherError> {
        Watcher::resume(self)
    }
    fn stop(&self) {
        Watcher::stop(self);
    }
    fn close(&self) {
        Watcher::close(self);
    }
    fn feed(&self) {
        Watcher::feed(self, W::event());
    }
    fn set_priority(&self, priority: Priority) -> Result<(), WatcherError> {
        Watcher::set_priority(self, priority)
    }
    fn set_counted(&self, is_counted: bool) {
        Watcher::set_counted(self, is_counted);
    }
    fn cancel_wait(&self) -> bool {
        Watcher::cancel_wait(self, GreenError::custom("by the program"))
    }
    fn wait(&self) -> Result<(), WaitError> {
        Watcher::wait(self, None).map(drop)
    }
    fn state(&self) -> String {
        let shown = |is_so, name| if is_so { name } else { '-' };
        let flags = [
            shown(self.is_active(), 'a'),
            shown(self.is_pending(), 'p'),
            shown(self.is_counted(), 'c'),
            char::from(b'0' + self.priority() as u8),
        ];
        flags.into_iter().collect()
    }
    fn waitable(&self) -> &dyn Waitable {
        self
    }
}

/// A socket that watchers share.
struct Shared(Rc<(UnixStream, UnixStream)>);

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

struct World {
    event_loop: Loop,
    clock: ManualClock,
    /// Each with its peer.
    sockets: Vec<Rc<(UnixStream, UnixStream)>>,
    watchers: Vec<RefCell<Option<Rc<dyn Object>>>>,
    handles: Vec<Option<greenhub::gevent::AsyncHandle>>,
    greens: RefCell<Vec<Rc<GreenThread<()>>>>,
    trace: RefCell<Vec<String>>,
}

impl World {
    fn new() -> Rc<World> {
        let clock = ManualClock::new();
        // A time of zero stands for a clock that was not read.
        clock.advance(Duration::from_secs(1));
        let sockets: Vec<_> = (0..SOCKETS).map(|_| Rc::new(UnixStream::pair().expect("descriptors"))).collect();
        for end in sockets.iter().flat_map(|pair| [&pair.0, &pair.1]) {
            end.set_nonblocking(true).expect("a socket");
        }
        let numbers = sockets.iter().map(|pair| pair.0.as_raw_fd()).collect();
        let driven = clock.clone();
        use_hub_with(move || Ok(driven.drive(Tapped::new(Sorted(numbers))?))).expect("not in the main loop");
        let hub = get_hub();
        hub.set_timer_slack(0, Duration::ZERO);
        hub.set_error_handler(Some(|_: &Report| Verdict::Silent));
        let event_loop = event_loop();
        let mut handles = Vec::new();
        let watchers = WATCHERS.iter().map(|kind| {
            let millis = Duration::from_millis;
            let mut handle = None;
            let watcher: Rc<dyn Object> = match *kind {
                Kind::Io(socket, events) => {
                    Rc::new(event_loop.io(Shared(Rc::clone(&sockets[socket])), events).expect("an open socket"))
                }
                Kind::Timer(after, 0) => Rc::new(event_loop.timer(millis(after))),
                Kind::Timer(after, every) => Rc::new(event_loop.repeating(millis(after), millis(every))),
                Kind::Async => {
                    let watcher = event_loop.async_();
                    handle = Some(watcher.handle());
                    Rc::new(watcher)
                }
                Kind::Prepare => Rc::new(event_loop.prepare()),
                Kind::Check => Rc::new(event_loop.check()),
                Kind::Idle => Rc::new(event_loop.idle()),
                Kind::Fork => Rc::new(event_loop.fork()),
                Kind::Signal => Rc::new(event_loop.signal(Number::SIGWINCH as i32).expect("it can be caught")),
            };
            handles.push(handle);
            RefCell::new(Some(watcher))
        });
        let watchers = watchers.collect();
        // The first turn launches the main loop.
        hub.run_once(Duration::ZERO).expect("main is not embedded");
        Rc::new(World {
            event_loop,
            clock,
            sockets,
            watchers,
            handles,
            greens: RefCell::default(),
            trace: RefCell::default(),
        })
    }

    fn log(&self, event: String) {
        self.trace.borrow_mut().push(event);
    }

    fn watcher(&self, number: usize) -> Option<Rc<dyn Object>> {
        self.watchers[number].borrow().clone()
    }

    /// Returns the states of all watchers, and the counters.
    fn snapshot(&self) -> String {
        let states = (0..WATCHERS.len()).map(|number| self.watcher(number).map_or("----".to_owned(), |it| it.state()));
        let counts = self.event_loop.counts();
        format!("{} active {} pending {}", states.collect::<Vec<_>>().join(" "), counts.active, counts.pending)
    }

    /// Returns a callback that runs `script` when it is called first.
    fn callback(self: &Rc<Self>, number: usize, script: &[Op]) -> Box<dyn FnMut()> {
        let (world, mut script) = (Rc::clone(self), script.to_vec());
        Box::new(move || {
            world.log(format!("call of {number}"));
            for op in std::mem::take(&mut script) {
                world.carry_out(&op, &Rc::default());
            }
        })
    }

    fn carry_out(self: &Rc<Self>, op: &Op, idle_turns: &Rc<RefCell<Vec<bool>>>) {
        match op {
            Op::Advance(by) => self.clock.advance(*by),
            Op::Turn => self.turn(idle_turns),
            Op::Raise => raise(Number::SIGWINCH).expect("the handler returns"),
            Op::Write(socket) => _ = (&self.sockets[*socket].1).write(b"x"),
            Op::Drain(socket) => drain(&self.sockets[*socket].0),
            Op::Empty(socket) => drain(&self.sockets[*socket].1),
            Op::Fill(socket) => {
                let mut socket = &self.sockets[*socket].0;
                while socket.write(&[0; 1 << 14]).is_ok() {}
                while socket.write(&[0]).is_ok() {}
            }
            Op::Spawn(waits) => self.spawn(waits.clone()),
            Op::Kill(green) => {
                let victim = self.greens.borrow().get(*green).cloned();
                if let Some(victim) = victim {
                    self.event_loop.run_callback(move || _ = victim.kill());
                }
            }
            Op::Panic => quiet_panic("by the program"),
            Op::Drop(number) => drop(self.watchers[*number].take()),
            Op::Send(number) => self.handles[*number].iter().for_each(|handle| handle.send()),
            op => self.use_watcher(op),
        }
    }

    /// Carries out an operation on a watcher, and logs its result.
    fn use_watcher(self: &Rc<Self>, op: &Op) {
        let (Op::Start(number, _)
        | Op::Again(number, _)
        | Op::Resume(number)
        | Op::Stop(number)
        | Op::Close(number)
        | Op::Feed(number)
        | Op::SetPriority(number, _)
        | Op::SetCounted(number, _)
        | Op::Cancel(number)) = op
        else {
            unreachable!("the caller has carried out {op:?}")
        };
        let Some(watcher) = self.watcher(*number) else { return };
        let result = match op {
            Op::Start(_, script) => named(watcher.start(self.callback(*number, script))),
            Op::Again(_, script) => named(watcher.again(self.callback(*number, script))),
            Op::Resume(_) => named(watcher.resume()),
            Op::SetPriority(_, priority) => named(watcher.set_priority(*priority)),
            Op::Cancel(_) => watcher.cancel_wait().to_string(),
            Op::Stop(_) => return watcher.stop(),
            Op::Close(_) => return watcher.close(),
            Op::Feed(_) => return watcher.feed(),
            Op::SetCounted(_, is_counted) => return watcher.set_counted(*is_counted),
            _ => return,
        };
        self.log(format!("use of {number}: {result}"));
    }

    fn turn(&self, idle_turns: &RefCell<Vec<bool>>) {
        let is_idle = Rc::new(Cell::new(false));
        let idle = Rc::clone(&is_idle);
        let hook = get_hub().hook(Phase::Idle, move || idle.set(true));
        get_hub().run_once(Duration::ZERO).expect("main is not embedded");
        drop(hook);
        idle_turns.borrow_mut().push(is_idle.get());
    }

    fn spawn(self: &Rc<Self>, waits: Vec<Wait>) {
        let number = self.greens.borrow().len();
        let world = Rc::clone(self);
        let green = spawn(move || {
            let last = Rc::clone(&world);
            let _guard = OnDrop(move || last.log(format!("green {number} is over")));
            for one in waits {
                let ended = match one {
                    Wait::One(watcher) => world.wait_for_one(watcher),
                    Wait::Several(watchers, count) => world.wait_for_several(&watchers, count),
                };
                world.log(format!("green {number}: {ended}"));
            }
        });
        self.greens.borrow_mut().push(Rc::new(green));
    }

    fn wait_for_one(&self, number: usize) -> String {
        let Some(watcher) = self.watcher(number) else { return "gone".to_owned() };
        match watcher.wait() {
            Ok(()) => "event",
            Err(WaitError::ConcurrentUse) => "concurrent",
            Err(WaitError::Stopped) => "stopped",
            Err(WaitError::Closed) => "closed",
            Err(WaitError::Cancelled(_)) => "cancelled",
            Err(WaitError::Watcher(error)) => return named(Err(error)),
            Err(error) => return error.to_string(),
        }
        .to_owned()
    }

    fn wait_for_several(&self, numbers: &[usize], count: usize) -> String {
        let held: Vec<_> = numbers.iter().filter_map(|&number| Some((number, self.watcher(number)?))).collect();
        let ready = wait(held.iter().map(|(_, watcher)| watcher.waitable()), None, count).expect("a green thread");
        let number = |found: &dyn Waitable| {
            let place = held.iter().position(|(_, watcher)| std::ptr::addr_eq(watcher.waitable(), found));
            held[place.expect("one of them")].0
        };
        format!("{:?}", ready.into_iter().map(number).collect::<Vec<_>>())
    }

    /// Ends everything, and checks that nothing is left.
    fn end(self: Rc<Self>) {
        let greens = self.greens.take();
        greens.iter().for_each(|green| _ = green.kill());
        for watcher in &self.watchers {
            // A program may have started it anew.
            if let Some(watcher) = watcher.take() {
                watcher.close();
            }
        }
        // The ends of green threads come to rest.
        get_hub().run_once(Duration::ZERO).expect("main is not embedded");
        assert!(!self.event_loop.run(Run::UntilIdle).expect("main is not embedded"), "something is alive in the end");
        let counts = self.event_loop.counts();
        assert_eq!((counts.active, counts.pending, counts.depth), (0, 0, 0), "left in the end");
        assert_eq!(get_hub().stats().timers, 0, "timers are left in the end");
        let sockets = self.sockets.clone();
        assert_eq!(Rc::try_unwrap(self).map(drop).map_err(|world| Rc::strong_count(&world)), Ok(()), "callbacks leak");
        assert!(sockets.iter().all(|socket| Rc::strong_count(socket) == 1), "descriptors leak");
    }
}

/// Returns the variant of an error.
fn named(result: Result<(), WatcherError>) -> String {
    match result {
        Ok(()) => "done".to_owned(),
        Err(WatcherError::Closed) => "closed".to_owned(),
        Err(WatcherError::Active { .. }) => "active".to_owned(),
        Err(WatcherError::Waited) => "waited".to_owned(),
        Err(WatcherError::NoCallback) => "no callback".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn drain(mut socket: &UnixStream) {
    let mut buffer = vec![0; 1 << 16];
    let error = loop {
        if let Err(error) = socket.read(&mut buffer) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

/// Sorts the reports of a hub, whose order is not specified: these sockets come first, in this order.
struct Sorted(Vec<RawFd>);

impl Tap for Sorted {
    fn wait(&mut self, hub: &mut dyn Hub, call: hubs::Wait<'_>) -> std::io::Result<()> {
        let mut found = greenhub::hub::Ready::new();
        hub.wait(call.watched, call.timeout, &mut found)?;
        let mut reports = found.reports().to_vec();
        reports.sort_by_key(|(key, _)| self.0.iter().position(|&fd| fd == key.fd()).unwrap_or(self.0.len()));
        reports.into_iter().for_each(|(key, readiness)| call.ready.push(key, readiness));
        Ok(())
    }
}
