//! Runs a program on the real main loop and records its trace.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use greenhub::greenthread::LinkId;
use greenhub::hub::{Timer, TimerHandle};
use greenhub::park::{ReadHint, Source, notify_opened};
use greenhub::thread::yield_now;
use greenhub::{
    Builder, GreenError, GreenThread, Interest, TrampolineError, get_hub, scope, sleep, spawn, spawn_after, spawn_n,
    trampoline, use_hub_with, with_timeout,
};

use super::program::{CAPACITY, Millis, NUMBERS, Op, PIPES, Program, Thread};
use super::virtual_hub::{Clock, VirtualHub};

const MESSAGE: usize = 4096;

/// Choices that the loop is free to make; the model takes them as input.
#[derive(Default, Debug)]
pub(crate) struct Choices {
    /// The descriptor numbers of each pipe's ends, the reader's first.
    pub(crate) pipes: Vec<[RawFd; 2]>,
    pub(crate) numbers: Vec<RawFd>,
    /// The pipe operations, by thread and number, that were tried before they parked.
    pub(crate) tried: HashSet<(Thread, usize)>,
    /// The pipe operations that were tried again after a park, each with the length of the trace at that time. Parking
    /// again without a retry is equally correct when another thread took the data.
    pub(crate) tried_again: HashSet<(Thread, usize, usize)>,
}

pub(crate) struct Outcome {
    pub(crate) trace: Vec<String>,
    pub(crate) choices: Choices,
    /// Descriptions of leaked objects.
    pub(crate) leaks: Vec<String>,
}

type Handle = Rc<GreenThread<Value>>;

struct World {
    program: Program,
    clock: Clock,
    trace: RefCell<Vec<String>>,
    handles: RefCell<HashMap<Thread, Handle>>,
    links: RefCell<HashMap<Thread, Vec<LinkId>>>,
    callbacks: RefCell<HashMap<usize, TimerHandle>>,
    pipes: Vec<[Source; 2]>,
    numbers: Vec<Rc<OwnedFd>>,
    fillers: RefCell<Vec<OwnedFd>>,
    choices: RefCell<Choices>,
    operations: RefCell<HashMap<Thread, usize>>,
    /// The number of live guards and results.
    alive: Cell<isize>,
}

/// Records the drop of a body, whether it ran or not.
struct Guard {
    world: Rc<World>,
    me: Thread,
    begun: Cell<bool>,
}

impl Guard {
    fn new(world: &Rc<World>, me: Thread) -> Guard {
        world.alive.set(world.alive.get() + 1);
        Guard { world: world.clone(), me, begun: Cell::new(false) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.world.alive.set(self.world.alive.get() - 1);
        self.world.log(self.me, if self.begun.get() { "gone" } else { "never run" });
    }
}

/// A result whose live instances are counted.
struct Value {
    world: Rc<World>,
    of: Thread,
}

impl Value {
    fn new(world: &Rc<World>, of: Thread) -> Value {
        world.alive.set(world.alive.get() + 1);
        Value { world: world.clone(), of }
    }
}

impl Clone for Value {
    fn clone(&self) -> Value {
        Value::new(&self.world, self.of)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.world.alive.set(self.world.alive.get() - 1);
    }
}

struct Callback {
    guard: Guard,
    ops: Vec<Op>,
}

/// Callbacks appear in the trace as threads with numbers from here up.
pub(crate) const CALLBACK: usize = 1000;

impl Timer for Callback {
    fn expired(&self) {
        assert!(!self.guard.begun.replace(true), "a callback ran twice");
        self.guard.world.log(self.guard.me, "begin");
        exec(&self.guard.world, self.guard.me, &self.ops);
    }
}

thread_local! {
    static REPORTS: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// Sends reports to the trace of the reporting OS thread's world.
pub(crate) fn take_reports() {
    greenhub::debug::set_report_stream(|report| {
        let error = match report {
            greenhub::debug::Report::Unhandled { error, .. } => error.clone(),
            greenhub::debug::Report::CallbackFailed { error, .. } => error.to_string(),
            other => other.to_string(),
        };
        REPORTS.with(|world| {
            if let Some(world) = &*world.borrow() {
                world.log(0, format!("reported: {error}"));
            }
        });
    });
}

pub(crate) fn run(program: &Program) -> io::Result<Outcome> {
    let clock = Clock::default();
    let hubs = clock.clone();
    use_hub_with(move || VirtualHub::new(hubs)).map_err(io::Error::other)?;
    get_hub().set_timer_slack(0, Duration::ZERO);
    sleep(Duration::ZERO);
    let before = get_hub().stats();
    let mut choices = Choices::default();
    let (mut pipes, mut numbers, mut fillers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PIPES {
        let (reader, writer) = io::pipe()?;
        rustix::pipe::fcntl_setpipe_size(&writer, CAPACITY * MESSAGE)?;
        choices.pipes.push([reader.as_raw_fd(), writer.as_raw_fd()]);
        pipes.push([Source::new(reader.into())?, Source::new(writer.into())?]);
    }
    for _ in 0..NUMBERS {
        let (reader, writer) = io::pipe()?;
        choices.numbers.push(reader.as_raw_fd());
        numbers.push(Rc::new(OwnedFd::from(reader)));
        fillers.push(OwnedFd::from(writer));
    }
    let world = Rc::new(World {
        program: program.clone(),
        clock,
        trace: RefCell::default(),
        handles: RefCell::default(),
        links: RefCell::default(),
        callbacks: RefCell::default(),
        pipes,
        numbers,
        fillers: RefCell::new(fillers),
        choices: RefCell::new(choices),
        operations: RefCell::default(),
        alive: Cell::new(0),
    });
    REPORTS.with(|reports| *reports.borrow_mut() = Some(world.clone()));
    exec(&world, 0, &program.with_epilogue());
    REPORTS.with(|reports| reports.borrow_mut().take());

    let after = get_hub().stats();
    let mut leaks = Vec::new();
    let mut same = |name: &str, before: usize, after: usize| {
        if before != after {
            leaks.push(format!("{name}: {before} before, {after} after"));
        }
    };
    same("greenlets", before.greenlets, after.greenlets);
    same("green threads", before.green_threads, after.green_threads);
    same("timers", before.timers, after.timers);
    same("readers", before.readers, after.readers);
    same("writers", before.writers, after.writers);
    same("ready", before.ready, after.ready);
    same("stacks in use", before.stacks_in_use, after.stacks_in_use);
    world.callbacks.borrow_mut().clear();
    same("values", 0, world.alive.get() as usize);
    same("references to the world", 1, Rc::strong_count(&world));
    let trace = world.trace.take();
    let choices = world.choices.take();
    Ok(Outcome { trace, choices, leaks })
}

impl World {
    fn log(&self, thread: Thread, event: impl std::fmt::Display) {
        self.trace.borrow_mut().push(format!("{} ms: {thread}: {event}", self.clock.millis()));
    }

    fn handle(&self, of: Thread) -> Option<Handle> {
        self.handles.borrow().get(&of).cloned()
    }
}

fn millis(millis: Millis) -> Duration {
    Duration::from_millis(millis)
}

fn result(result: &Result<Value, GreenError>) -> String {
    match result {
        Ok(value) => format!("result of {}", value.of),
        Err(error) => error.to_string(),
    }
}

fn body(world: &Rc<World>, me: Thread) -> impl FnOnce() -> Value + 'static {
    let guard = Guard::new(world, me);
    move || {
        let guard = guard;
        let world = &guard.world;
        assert!(!guard.begun.replace(true), "a green thread ran twice");
        world.log(me, "begin");
        exec(world, me, &world.program.bodies[me]);
        world.log(me, "end");
        Value::new(world, me)
    }
}

fn exec(world: &Rc<World>, me: Thread, ops: &[Op]) {
    for op in ops {
        step(world, me, op);
    }
}

fn step(world: &Rc<World>, me: Thread, op: &Op) {
    let log = |text: String| world.log(me, text);
    // Applies an operation to a handle and logs its outcome; the handle is kept meanwhile.
    let with = |of: Thread, name: &str, call: &dyn Fn(&Handle) -> String| match world.handle(of) {
        Some(handle) => log(format!("{name} {of}: {}", call(&handle))),
        None => log(format!("{name} {of}: no handle")),
    };
    match op {
        Op::Spawn(child) => {
            let green = match child % 2 {
                0 => spawn(body(world, *child)),
                _ => Builder::new().name("odd".into()).spawn(body(world, *child)).expect("a stack of the usual size"),
            };
            world.handles.borrow_mut().insert(*child, Rc::new(green));
        }
        Op::SpawnN(child) => spawn_n(body(world, *child)),
        Op::SpawnAfter(delay, child) => {
            let green = spawn_after(millis(*delay), body(world, *child));
            world.handles.borrow_mut().insert(*child, Rc::new(green));
        }
        Op::Sleep(time) => {
            sleep(millis(*time));
            log(format!("slept {time}"));
        }
        Op::Burn(time) => world.clock.advance(millis(*time)),
        Op::Yield => {
            yield_now();
            log("yielded".to_owned());
        }
        Op::Wait(of) => with(*of, "wait", &|handle| result(&handle.wait())),
        Op::Join(of) => {
            let handle = world.handles.borrow_mut().remove(of);
            let joined = match handle.map(Rc::try_unwrap) {
                None => "no handle".to_owned(),
                Some(Ok(green)) => result(&green.join()),
                Some(Err(shared)) => result(&shared.wait()),
            };
            log(format!("join {of}: {joined}"));
        }
        Op::Kill(of) => with(*of, "kill", &|handle| format!("{:?}", handle.kill())),
        Op::KillWith(of) => {
            with(*of, "kill", &|handle| format!("{:?}", handle.kill_with(GreenError::custom(format!("hit by {me}")))));
        }
        Op::Cancel(of) => with(*of, "cancel", &|handle| handle.cancel().to_string()),
        Op::Link(of) => with(*of, "link", &|handle| {
            let (linked, of) = (world.clone(), *of);
            let link = handle.link(move |how| linked.log(of, format!("link: {}", result(how))));
            world.links.borrow_mut().entry(of).or_default().push(link);
            "added".to_owned()
        }),
        Op::Unlink(of) => with(*of, "unlink", &|handle| {
            let link = world.links.borrow_mut().get_mut(of).and_then(Vec::pop);
            format!("{:?}", link.map(|link| handle.unlink(link)))
        }),
        Op::DropHandle(of) => {
            let handle = world.handles.borrow_mut().remove(of);
            drop(handle);
        }
        Op::Panic => resume_unwind(Box::new(format!("boom {me}"))),
        Op::Catch(ops) => {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| exec(world, me, ops))) {
                let cause = match payload.downcast::<String>() {
                    Ok(text) => *text,
                    Err(payload) if payload.is::<&'static str>() => "a scope".to_owned(),
                    Err(_) => "an exit".to_owned(),
                };
                log(format!("caught {cause}"));
            }
        }
        Op::Schedule(delay, number, ops) => {
            let callback = Callback { guard: Guard::new(world, CALLBACK + number), ops: ops.clone() };
            let handle = get_hub().schedule(millis(*delay), callback);
            world.callbacks.borrow_mut().insert(*number, handle);
        }
        Op::Unschedule(number) => {
            let handle = world.callbacks.borrow_mut().remove(number);
            log(format!("unschedule {number}: {:?}", handle.map(|handle| handle.cancel())));
        }
        Op::Timeout(limit, ops) => {
            let ran = with_timeout(millis(*limit), || exec(world, me, ops));
            log(format!("timeout {limit}: {}", if ran.is_ok() { "in time" } else { "expired" }));
        }
        Op::Scope(children, ops) => {
            scope(|s| {
                for child in children {
                    s.spawn(body(world, *child));
                }
                exec(world, me, ops);
            });
            log("scope: over".to_owned());
        }
        Op::Send(pipe, limit) => {
            let how = operation(world, me, &mut |tried| {
                world.pipes[*pipe][1].write(limit.map(millis), |fd| {
                    tried();
                    rustix::io::write(fd, &[0; MESSAGE]).map_err(io::Error::from)
                })
            });
            log(format!("send {pipe}: {how}"));
        }
        Op::Receive(pipe, limit) => {
            let how = operation(world, me, &mut |tried| {
                world.pipes[*pipe][0].read(limit.map(millis), |fd| {
                    tried();
                    let left = if me.is_multiple_of(2) { ReadHint::Likely } else { ReadHint::Perhaps };
                    Ok((rustix::io::read(fd, &mut [0; MESSAGE])?, left))
                })
            });
            log(format!("receive {pipe}: {how}"));
        }
        Op::CloseReader(pipe) => world.pipes[*pipe][0].close(),
        Op::CloseWriter(pipe) => world.pipes[*pipe][1].close(),
        Op::Trampoline(number, limit) => {
            let fd = world.numbers[*number].clone();
            let how = match trampoline(&*fd, Interest::READ, limit.map(millis)) {
                Ok(_) => "ready".to_owned(),
                Err(TrampolineError::SecondSimultaneous { .. }) => "taken".to_owned(),
                Err(TrampolineError::TimedOut { .. }) => "timed out".to_owned(),
                Err(TrampolineError::Closed { .. }) => "closed".to_owned(),
                Err(error) => error.to_string(),
            };
            log(format!("trampoline {number}: {how}"));
        }
        Op::Fill(number) => {
            rustix::io::write(&world.fillers.borrow()[*number], b"x").expect("room for a byte");
        }
        Op::Reuse(number) => {
            let (reader, writer) = io::pipe().expect("a pipe");
            let fd = world.numbers[*number].as_raw_fd();
            // SAFETY: Both numbers are open, and the descriptor at `fd` stays with its owner.
            let changed = unsafe { libc::dup2(reader.as_raw_fd(), fd) };
            assert_eq!(changed, fd, "the number is given to another file");
            world.fillers.borrow_mut()[*number] = writer.into();
            notify_opened(fd);
        }
    }
}

/// Performs a pipe operation, and records whether it was tried before it parked.
fn operation(world: &Rc<World>, me: Thread, perform: &mut dyn FnMut(&mut dyn FnMut()) -> io::Result<usize>) -> String {
    let number = {
        let mut operations = world.operations.borrow_mut();
        let count = operations.entry(me).or_default();
        *count += 1;
        *count
    };
    let waits = get_hub().stats().waits;
    let how = perform(&mut || {
        let mut choices = world.choices.borrow_mut();
        if get_hub().stats().waits == waits {
            choices.tried.insert((me, number));
        } else {
            choices.tried_again.insert((me, number, world.trace.borrow().len()));
        }
    });
    match how {
        Ok(0) => "end".to_owned(),
        Ok(MESSAGE) => "done".to_owned(),
        Ok(count) => format!("{count} bytes"),
        Err(error) => format!("{:?}", error.kind()),
    }
}
