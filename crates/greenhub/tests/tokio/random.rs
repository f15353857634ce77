//! Random programs of tasks and green threads that send to, wake, kill, time out and drop each other.
//!
//! The programs are checked against a ledger of messages and against invariants: a message is delivered exactly once,
//! or its sender is told; a request is answered or its caller is told; no permit of a semaphore is lost; a body that
//! was not killed runs to its end; in the end no green thread and no task is left. The programs run in both modes.
//! `GREENHUB_SEEDS` sets the number of programs.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::Write;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use futures_util::future::{Either, select};
use greenhub::future::{block_on, defer_to_green_thread};
use greenhub::greenthread::KillOutcome;
use greenhub::sync::Semaphore;
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenThread, get_hub, sleep, spawn, use_hub, with_timeout};
use hub_tokio::run_until;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};

use crate::runtime;
use crate::support::green::{keep_reports, reports};
use crate::support::random::{Moment, Rng, seeds};
use crate::support::run;

/// The green threads of a program, and as many tasks.
const ACTORS: usize = 4;

/// The time after which a program counts as hung.
const LIMIT: Duration = Duration::from_secs(60);

thread_local! {
    /// The running program of this OS thread. Tasks reach it here, since they hold only what is `Send`.
    static WORLD: RefCell<Rc<World>> = RefCell::default();
}

fn world() -> Rc<World> {
    WORLD.with_borrow(Rc::clone)
}

/// The shared state of a program.
#[derive(Default)]
struct World {
    actors: RefCell<Vec<Actor>>,
    /// The inboxes of green threads and tasks, for senders.
    senders: RefCell<Vec<mpsc::Sender<Request>>>,
    /// The inboxes of bodies that have ended, with the messages that were not taken.
    closed_inboxes: RefCell<Vec<mpsc::Receiver<Request>>>,
    messages: RefCell<Vec<Entry>>,
    permits: Arc<Semaphore>,
    released: Cell<usize>,
    acquired: Cell<usize>,
    /// Bodies that have not ended.
    running: Cell<usize>,
    /// Notified at the end of each body.
    ended: Notify,
    /// Becomes true when the program ends, and ends all waits.
    end: RefCell<Option<watch::Receiver<bool>>>,
}

/// The fate of a message.
#[derive(Default, Debug)]
struct Entry {
    outcome: SendOutcome,
    taken: usize,
    dropped: usize,
}

#[derive(Default, Debug, PartialEq, Eq)]
enum SendOutcome {
    /// The sender has not been told, since it left its wait.
    #[default]
    Abandoned,
    Accepted,
    Refused,
}

/// A message, whose sender may wait for an answer.
struct Request {
    number: usize,
    answer: Option<oneshot::Sender<usize>>,
}

impl Request {
    fn new(answer: Option<oneshot::Sender<usize>>) -> Request {
        let world = world();
        let mut messages = world.messages.borrow_mut();
        messages.push(Entry::default());
        Request { number: messages.len() - 1, answer }
    }

    /// Takes the message out of an inbox, and answers it.
    fn take(mut self) {
        world().messages.borrow_mut()[self.number].taken += 1;
        if let Some(answer) = self.answer.take() {
            // The caller may have left.
            let _ = answer.send(self.number * 2);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        world().messages.borrow_mut()[self.number].dropped += 1;
    }
}

/// The inbox of a body, which returns it to the world.
struct Inbox {
    receiver: Option<mpsc::Receiver<Request>>,
    /// Whether later senders are refused.
    closes: bool,
}

impl Inbox {
    async fn receive(&mut self) {
        if let Some(request) = unless_ended(self.receiver.as_mut().expect("the body runs").recv()).await {
            request.expect("the world has a sender").take();
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut receiver = self.receiver.take().expect("dropped once");
        if self.closes {
            receiver.close();
        }
        world().closed_inboxes.borrow_mut().push(receiver);
    }
}

/// Counts a body from its spawn to its end.
struct Running;

impl Running {
    fn begin() -> Running {
        let world = world();
        world.running.set(world.running.get() + 1);
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let world = world();
        world.running.set(world.running.get() - 1);
        world.ended.notify_one();
    }
}

/// A body that other bodies may end.
struct Actor {
    body: Body,
    /// Whether a kill or an abort was requested before the end.
    was_stopped: Cell<bool>,
    /// Whether the body has performed all its steps.
    completed: Cell<bool>,
}

#[derive(Clone)]
enum Body {
    Green(Rc<GreenThread<()>>),
    Task(Rc<JoinHandle<()>>),
}

impl Body {
    fn is_finished(&self) -> bool {
        match self {
            Body::Green(green) => green.is_finished(),
            Body::Task(task) => task.is_finished(),
        }
    }
}

/// Ends a random actor.
fn kill_or_abort(index: usize) {
    let world = world();
    let body = {
        let actors = world.actors.borrow();
        let Some(actor) = actors.get(index) else { return };
        if !actor.body.is_finished() {
            actor.was_stopped.set(true);
        }
        actor.body.clone()
    };
    match &body {
        Body::Green(green) => {
            let outcome = green.kill();
            let ended = matches!(outcome, KillOutcome::Ended | KillOutcome::Cancelled | KillOutcome::Dead);
            assert!(ended || outcome == KillOutcome::Scheduled, "{outcome:?}");
            assert!(!ended || green.is_finished(), "{outcome:?}");
        }
        Body::Task(task) => task.abort(),
    }
}

/// Awaits a future, or the end of the program.
async fn unless_ended<F: Future>(future: F) -> Option<F::Output> {
    let mut end = world().end.borrow().clone().expect("the program runs");
    let ended = pin!(end.wait_for(|end| *end));
    match select(pin!(future), ended).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// Sends a message to a random actor. Awaits the answer too if `asks`.
async fn send(to: usize, asks: bool) {
    let (answer, answered) = if asks {
        let (answer, answered) = oneshot::channel();
        (Some(answer), Some(answered))
    } else {
        (None, None)
    };
    let sender = world().senders.borrow()[to].clone();
    let request = Request::new(answer);
    let number = request.number;
    let Some(sent) = unless_ended(sender.send(request)).await else { return };
    world().messages.borrow_mut()[number].outcome =
        if sent.is_ok() { SendOutcome::Accepted } else { SendOutcome::Refused };
    let accepted = sent.is_ok();
    drop(sent);
    if let Some(answered) = answered
        && let Some(answer) = unless_ended(answered).await
    {
        // An answer that does not come is an error: its sender was dropped.
        assert!(accepted || answer.is_err());
        assert!(answer.is_err() || answer == Ok(number * 2));
        let world = world();
        let entry = &world.messages.borrow()[number];
        assert_eq!((entry.taken, entry.dropped), (usize::from(answer.is_ok()), 1), "{entry:?}");
    }
}

/// A step that green threads and tasks have in common.
async fn exchange(inbox: &mut Option<Inbox>, mut rng: Rng) {
    match (rng.u8(..6), inbox) {
        (0..2, Some(inbox)) => inbox.receive().await,
        (2, _) => tokio::time::sleep(rng.moment()).await,
        (3, _) => tokio::task::yield_now().await,
        _ => send(rng.usize(..2 * ACTORS), rng.bool()).await,
    }
}

/// Runs the steps of a green thread.
fn act_green(inbox: &mut Option<Inbox>, mut rng: Rng, depth: usize) {
    for _ in 0..rng.usize(1..8) {
        let (step, limit) = (exchange(inbox, rng.fork()), rng.moment());
        match rng.u8(..15) {
            0..3 => block_on(step),
            3..5 => _ = with_timeout(limit, || block_on(step)),
            5 => _ = block_on(tokio::time::timeout(limit, step)),
            6 => {
                let child = rng.fork();
                let task = tokio::spawn(task_child(child, depth + 1));
                await_task(task, &mut rng, |wait| with_timeout(limit, || block_on(wait)).ok());
            }
            7 if depth < 3 => {
                let child = rng.fork();
                let mut deferred = defer_to_green_thread(green_child(child, depth + 1));
                if rng.bool() {
                    deferred = deferred.kill_on_drop();
                }
                match rng.u8(..3) {
                    0 => block_on(deferred).unwrap(),
                    1 => _ = with_timeout(limit, || block_on(deferred).unwrap()),
                    _ => drop(deferred),
                }
            }
            8..10 => {
                let world = world();
                if world.permits.acquire_timeout(limit).is_ok() {
                    world.acquired.set(world.acquired.get() + 1);
                }
            }
            10 => release(),
            11 => kill_or_abort(rng.usize(..2 * ACTORS)),
            12 => sleep(limit),
            // More turns than a poll of a joined loop has.
            13 => (0..rng.u8(..)).for_each(|_| yield_now()),
            _ => yield_now(),
        }
    }
}

/// Runs the steps of a task.
async fn act_task(inbox: &mut Option<Inbox>, mut rng: Rng, depth: usize) {
    for _ in 0..rng.usize(1..8) {
        let (step, limit) = (exchange(inbox, rng.fork()), rng.moment());
        match rng.u8(..11) {
            0..4 => step.await,
            4..6 => _ = tokio::time::timeout(limit, step).await,
            6 if depth < 3 => {
                let child = rng.fork();
                let deferred = get_hub().remote().defer(green_child(child, depth + 1)).unwrap();
                match rng.u8(..3) {
                    0 => deferred.await.unwrap(),
                    1 => _ = tokio::time::timeout(limit, async { deferred.await.unwrap() }).await,
                    _ => drop(deferred),
                }
            }
            7 if depth < 3 => {
                let child = rng.fork();
                let task = tokio::spawn(task_child(child, depth + 1));
                let waited = rng.bool();
                if waited {
                    assert_unless_cancelled(task.await);
                } else {
                    task.abort();
                }
            }
            8 => release(),
            9 => kill_or_abort(rng.usize(..2 * ACTORS)),
            _ => tokio::task::yield_now().await,
        }
    }
}

/// Returns the body of a green thread without an inbox.
fn green_child(rng: Rng, depth: usize) -> impl FnOnce() + Send {
    let running = Running::begin();
    move || {
        let _running = running;
        act_green(&mut None, rng, depth);
    }
}

/// Returns the body of a task without an inbox.
fn task_child(rng: Rng, depth: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let running = Running::begin();
    Box::pin(async move {
        let _running = running;
        act_task(&mut None, rng, depth).await;
    })
}

/// Waits for a task, aborts it, or lets it run on.
fn await_task(
    task: JoinHandle<()>,
    rng: &mut Rng,
    within: impl FnOnce(JoinHandle<()>) -> Option<Result<(), JoinError>>,
) {
    match rng.u8(..4) {
        0 => assert_unless_cancelled(block_on(task)),
        1 => within(task).into_iter().for_each(assert_unless_cancelled),
        2 => {
            task.abort();
            assert_unless_cancelled(block_on(task));
        }
        _ => drop(task),
    }
}

#[track_caller]
fn assert_unless_cancelled(ended: Result<(), JoinError>) {
    assert!(ended.as_ref().err().is_none_or(JoinError::is_cancelled), "{ended:?}");
}

fn release() {
    let world = world();
    world.released.set(world.released.get() + 1);
    world.permits.release();
}

/// Begins a green thread or a task with an inbox.
fn begin(index: usize, inbox: mpsc::Receiver<Request>, mut rng: Rng) -> Actor {
    let mut inbox = Some(Inbox { receiver: Some(inbox), closes: rng.bool() });
    let running = Running::begin();
    let complete = move || world().actors.borrow()[index].completed.set(true);
    let body = if index < ACTORS {
        Body::Green(Rc::new(spawn(move || {
            let _running = running;
            act_green(&mut inbox, rng, 0);
            complete();
        })))
    } else {
        Body::Task(Rc::new(tokio::spawn(async move {
            let _running = running;
            act_task(&mut inbox, rng, 0).await;
            complete();
        })))
    };
    Actor { body, was_stopped: Cell::new(false), completed: Cell::new(false) }
}

/// Waits until every body has ended.
///
/// The wait has no timer: a wake-up that is lost must not be made good by the next poll of this future.
async fn all_have_ended(world: &World) {
    while world.running.get() != 0 {
        world.ended.notified().await;
    }
}

/// Runs one program.
async fn run_program(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let before = get_hub().stats().green_threads;
    let (end, receiver) = watch::channel(false);
    let permits = Arc::new(Semaphore::new(0));
    let world = Rc::new(World { end: RefCell::new(Some(receiver)), permits, ..World::default() });
    WORLD.set(Rc::clone(&world));
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..2 * ACTORS).map(|_| mpsc::channel(rng.usize(1..4))).unzip();
    world.senders.replace(senders);
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let actor = begin(index, inbox, rng.fork());
        world.actors.borrow_mut().push(actor);
    }
    for _ in 0..rng.usize(1..30) {
        match rng.u8(..30) {
            0 => tokio::time::sleep(rng.moment()).await,
            1 => kill_or_abort(rng.usize(..2 * ACTORS)),
            _ => tokio::task::yield_now().await,
        }
    }
    // From now on no wait has to last, so a lost wake-up is a hang.
    end.send_replace(true);
    all_have_ended(&world).await;
    for (index, actor) in world.actors.take().into_iter().enumerate() {
        check_end(actor, index, seed).await;
    }
    // The hub and the runtime count a body as ended shortly after it has dropped its variables.
    while get_hub().stats().green_threads != before || Handle::current().metrics().num_alive_tasks() != 0 {
        tokio::task::yield_now().await;
    }
    check_ledger(&world, seed);
    WORLD.take();
}

/// Checks the result of a body that has ended.
async fn check_end(actor: Actor, index: usize, seed: u64) {
    let completed = actor.completed.get();
    let was_killed = match actor.body {
        Body::Green(green) => match green.wait() {
            Ok(_) => false,
            Err(GreenError::Kill) => true,
            Err(error) => panic!("seed {seed}: actor {index}: {error}"),
        },
        Body::Task(task) => match Rc::into_inner(task).expect("no body runs").await {
            Ok(()) => false,
            Err(error) if error.is_cancelled() => true,
            Err(error) => panic!("seed {seed}: actor {index}: {error}"),
        },
    };
    assert!(actor.was_stopped.get() || !was_killed, "seed {seed}: nothing has stopped actor {index}");
    assert_ne!(was_killed, completed, "seed {seed}: actor {index}");
}

/// Checks the ledger when every body has ended.
fn check_ledger(world: &World, seed: u64) {
    let inboxes = world.closed_inboxes.take();
    for mut inbox in inboxes {
        while let Ok(request) = inbox.try_recv() {
            request.take();
        }
    }
    for (number, entry) in world.messages.borrow().iter().enumerate() {
        let taken = match entry.outcome {
            SendOutcome::Accepted => 1..=1,
            SendOutcome::Refused | SendOutcome::Abandoned => 0..=0,
        };
        assert!(taken.contains(&entry.taken) && entry.dropped == 1, "seed {seed}: message {number}: {entry:?}");
    }
    let rest = std::iter::from_fn(|| world.permits.try_acquire().then_some(())).count();
    assert_eq!(world.released.get(), world.acquired.get() + rest, "seed {seed}");
    assert_eq!(reports(), [""; 0], "seed {seed}");
}

/// Runs a program for each seed. A seed whose program hangs is printed, and the process aborted.
fn run_programs(drive: impl Fn(u64)) {
    keep_reports();
    let (begin, begun) = std::sync::mpsc::channel();
    let watchdog = std::thread::spawn(move || abort_at_a_hang(&begun));
    for seed in seeds(1000, 4) {
        begin.send(seed).unwrap();
        drive(seed);
    }
    drop(begin);
    watchdog.join().unwrap();
}

/// Aborts the process with the last seed if that is not followed by another in time.
fn abort_at_a_hang(begun: &std::sync::mpsc::Receiver<u64>) {
    let mut last = 0;
    loop {
        match begun.recv_timeout(LIMIT) {
            Ok(seed) => last = seed,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                // The harness captures `eprintln!` until the end of the test, which never comes.
                let _ = writeln!(std::io::stderr(), "the program of seed {last} hangs");
                std::process::abort();
            }
        }
    }
}

#[test]
fn random_programs_on_the_hub_tokio_keep_the_invariants() {
    run("random_programs_on_the_hub_tokio_keep_the_invariants", || {
        use_hub("tokio").unwrap();
        run_programs(|seed| block_on(run_program(seed)));
    });
}

#[test]
fn random_programs_in_a_joined_loop_keep_the_invariants() {
    run("random_programs_in_a_joined_loop_keep_the_invariants", || {
        use_hub("epoll").unwrap();
        let runtime = runtime();
        run_programs(|seed| runtime.block_on(run_until(run_program(seed))).unwrap());
    });
}
