//! Green threads: greenlets whose parent is the hub.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::error::{GreenError, LoopError};
use crate::grace::Grace;
use crate::greenlet::control::{ControlRef, Doing, Kind, State};
use crate::greenlet::driver::Driver;
use crate::greenlet::local;
use crate::greenlet::run::{self, Interrupted, Refused, Waiter};
use crate::greenlet::stack;
use crate::greenlet::target::Target;
use crate::greenlet::task::{Task, TaskRef};
use crate::greenlet::unwind::{Exit, KillProgress};
use crate::thread::{self, Thread};
use crate::trace;

/// A handle of a green thread that returns a `T`. Eventlet's `GreenThread`, with the names of std's `JoinHandle` beside.
///
/// Dropping it detaches the green thread: it runs on, its result is dropped, and a failure that nobody
/// took is reported once. [`ignore_result`](GreenThread::ignore_result) detaches it without a report.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let green = hub_core::spawn(|| 6 * 7);
/// assert!(!green.is_finished());
/// assert_eq!(green.wait()?, 42); // as often as you like
/// assert!(green.is_finished());
/// assert_eq!(green.join()?, 42); // once, and takes the result
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct GreenThread<T> {
    pub(crate) task: Task<T>,
}

/// What [`kill`](GreenThread::kill) did.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kill {
    /// It has ended: its destructors have run.
    Ended,
    /// It had not begun, and never will; what it was to run was dropped.
    Cancelled,
    /// It will end when it runs next: the caller is the main loop or is panicking, or the target is in a
    /// [`shield`](crate::shield()) or in a wait that must not be left early.
    Scheduled,
    /// It has caught the exit a hundred times and lives on, which is reported once: see [`is_exit`](crate::is_exit).
    Refused,
    /// It was over before.
    Dead,
    /// With `panic = "abort"` nothing can be unwound.
    Unsupported,
}

/// Runs `f` in a new green thread, which begins when the caller next gives way. Eventlet's `spawn`. Never
/// switches, and allocates nothing in the long run.
///
/// Green threads begin in the order in which they were spawned. They stay on this thread, so `f` and its
/// result need not be `Send`.
///
/// A kill, a timeout or a link unwinds `f` like a panic. What calls [`catch_unwind`](std::panic::catch_unwind) in `f` has
/// to let it pass: see [`is_exit`](crate::is_exit).
///
/// # The end of the OS thread
///
/// A green thread that has not ended when its OS thread ends is abandoned: it never runs again, its destructors do not
/// run, its stack stays in memory, and it is [reported](crate::set_report_stream) once. It cannot be unwound then, for
/// the thread-locals that it may borrow are destroyed. [`HubRef::shutdown`](crate::HubRef::shutdown) unwinds it in time,
/// and an OS thread that was started by `greenhub::thread::os::spawn` does so by itself. At the end of the process
/// nothing is unwound or reported, as in std.
///
/// After the end of its OS thread's green threads, in a destructor of a thread-local, nothing begins any more: `f` is
/// dropped, and the handle gives [`LoopError::ThreadEnding`].
///
/// # Thread-locals: undefined behaviour
///
/// Other green threads of the OS thread run while one is parked, and use the same thread-locals. Four uses of
/// thread-locals are *undefined behaviour* although they are safe code. No crate can prevent them:
///
/// - *A call that switches in the initialiser of a thread-local.* A second green thread makes the value anew, and that of
///   the first is dropped while it is lent:
///
///   ```no_run
///   # use hub_core::{spawn, yield_now};
///   thread_local!(static V: Vec<u64> = { yield_now(); vec![7] }); // undefined behaviour
///   let (a, b) = (spawn(|| V.with(|v| { yield_now(); yield_now(); v[0] })), spawn(|| V.with(|v| v[0])));
///   # drop((a, b));
///   ```
///
///   Instead: do what switches first, and keep its result in a thread-local `OnceCell` that begins empty; or use
///   `green_local!`, of which each green thread has its own value.
/// - *A call that switches while a thread-local leads into a stack frame*, as within `set` of the crate `scoped_tls`. Two
///   green threads set and reset the pointer in turns, and it leads to a frame that is gone:
///
///   ```text
///   scoped_thread_local!(static KEY: String);
///   for _ in 0..2 { spawn(|| KEY.set(&String::new(), || yield_now())); } // undefined behaviour
///   ```
///
///   Instead: pass the reference as an argument; or keep an owned value, such as an `Rc`, in a `green_local!`.
/// - *A call that switches in the destructor of a thread-local.* The green threads that run then may be inside
///   [`LocalKey::with`](std::thread::LocalKey::with) of values that are destroyed:
///
///   ```no_run
///   # use hub_core::sleep;
///   struct Logs; impl Drop for Logs { fn drop(&mut self) { sleep(std::time::Duration::from_millis(1)) } }
///   thread_local!(static LOGS: Logs = const { Logs }); // undefined behaviour unless the end of the thread is noticed
///   ```
///
///   The end is noticed, and nothing switches, in an OS thread that was started by `greenhub::thread::os::spawn`, and on
///   Linux for every thread-local that was made before the first green thread. For others it mostly is, but nothing
///   promises that. Instead: start OS threads so, and give back by hand what takes a wait to give back.
///
/// - *A call that switches while another OS thread borrows a thread-local of this one*, as with `std::thread::scope` or
///   [`offload_scoped`](crate::offload_scoped()) within `with`. If this OS thread ends meanwhile, the green thread is
///   abandoned and the value destroyed, and the other OS thread goes on:
///
///   ```no_run
///   # use hub_core::{offload_scoped, spawn};
///   thread_local!(static V: Vec<u64> = vec![7]);
///   spawn(|| V.with(|v| offload_scoped(|| v.iter().sum::<u64>()).ok())); // undefined behaviour if this thread ends
///   ```
///
///   Instead: lend a clone, or keep an `Arc` in the thread-local and send a clone of that; or let the OS thread end by a
///   shutdown without a limit, which waits for the green thread.
///
/// Counters and flags that are set and reset around a call that switches are not undefined behaviour, but other green
/// threads see them.
///
/// If the result is never taken, a panic is [reported](crate::set_report_stream) once, and so is an `Err`, whatever its
/// type: with where the green thread was spawned, the type of the result, and the message if that is known. It is for
/// the common errors of std and of this crate, and for those of [`set_error_message`](crate::set_error_message).
/// [`ignore_result`](GreenThread::ignore_result) drops a handle without a report; a body that returns `()` has none
/// either. Only the result itself is looked at, not an `Err` within it, as in `Ok(Err(..))` or a tuple.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let green = hub_core::spawn(|| 6 * 7);
/// assert_eq!(green.join().unwrap(), 42);
/// # });
/// ```
#[track_caller]
#[inline]
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> GreenThread<T> {
    spawn_at(Location::caller(), f)
}

/// Like [`spawn`], with the place that reports and listings name as that of the spawning. Never switches.
///
/// For libraries that spawn on behalf of a caller from where `#[track_caller]` does not reach, such as a server.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let here = std::panic::Location::caller();
/// let green = hub_core::spawn_at(here, || ());
/// assert_eq!(green.spawned_at(), here);
/// # });
/// ```
#[inline]
pub fn spawn_at<T: 'static>(place: &'static Location<'static>, f: impl FnOnce() -> T + 'static) -> GreenThread<T> {
    let local = local::get();
    let task = Task::new(local, f, true, place);
    task.begin();
    GreenThread { task }
}

/// Runs `f` in a new green thread without a handle. Eventlet's `spawn_n`. Otherwise like [`spawn`].
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use std::cell::Cell;
/// use std::rc::Rc;
/// let ran = Rc::new(Cell::new(false));
/// let seen = Rc::clone(&ran);
/// hub_core::spawn_n(move || seen.set(true));
/// assert!(!ran.get());
/// hub_core::yield_now();
/// assert!(ran.get());
/// # });
/// ```
#[track_caller]
#[inline]
pub fn spawn_n<T: 'static>(f: impl FnOnce() -> T + 'static) {
    let local = local::get();
    let task = Task::new(local, f, false, Location::caller());
    task.begin();
}

/// Runs `f` at once, in the green thread that calls this, and returns the handle of a green thread that has ended so.
/// What `f` panics with is in the handle. May switch only where `f` does.
///
/// For pools that have no room for what one of their own spawns. An exit that reaches the caller within `f` goes on
/// when `f` is unwound.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let here = hub_core::current_id();
/// let green = hub_core::run_in_place(hub_core::current_id);
/// assert!(green.is_finished());
/// assert_eq!(green.join().unwrap(), here);
/// # });
/// ```
#[track_caller]
pub fn run_in_place<T: 'static>(f: impl FnOnce() -> T + 'static) -> GreenThread<T> {
    run_in_place_at(Location::caller(), f)
}

/// Like [`run_in_place`], with the place that reports name as that of the spawning. May switch only where `f` does.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let here = std::panic::Location::caller();
/// let green = hub_core::run_in_place_at(here, || ());
/// assert_eq!(green.spawned_at(), here);
/// # });
/// ```
pub fn run_in_place_at<T: 'static>(
    place: &'static Location<'static>,
    f: impl FnOnce() -> T + 'static,
) -> GreenThread<T> {
    let local = local::get();
    let task = Task::new(local, f, true, place);
    if let Some(control) = task.control() {
        task.forget_control();
        local.controls.give(control);
    }
    let me = run::current();
    let thrown = me.thrown();
    task.run();
    task.finish();
    let green = GreenThread { task };
    if run::has_to_exit(me) {
        // The caller ends, so the handle is of no use.
        task.discard();
        if me.thrown() != thrown {
            run::exit_again();
        }
        run::check_exit();
    }
    green
}

/// Has the greenlet with that [number](current_id) exit when it runs next, if it is a green thread that has not
/// ended; one that has not begun never does. False if there is none. Never switches by itself.
///
/// A number may be given to another greenlet when its own has ended.
pub fn interrupt(number: u32) -> bool {
    interrupt_with(number, GreenError::Exit)
}

/// How far the kill of the greenlet with that number has come, which has not ended. Never switches.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{KillProgress, interrupt, kill_progress, sleep, spawn, yield_now};
/// let green = spawn(|| sleep(std::time::Duration::from_secs(3600)));
/// yield_now();
/// let number = green.id().unwrap();
/// assert_eq!(kill_progress(number), KillProgress::None);
/// interrupt(number);
/// assert_eq!(kill_progress(number), KillProgress::Striking);
/// # });
/// ```
#[must_use]
pub fn kill_progress(number: u32) -> KillProgress {
    let target = local::try_get().and_then(|local| local.controls.get(number));
    target.map_or(KillProgress::None, ControlRef::kill_progress)
}

/// [`interrupt`] with an error of your choice, which those who wait for it get. Never switches by itself.
pub fn interrupt_with(number: u32, error: GreenError) -> bool {
    let target = local::try_get().and_then(|local| local.controls.get(number));
    let Some(target) = target.filter(|target| target.kind() == Kind::Thread && target.task().is_some()) else {
        return false;
    };
    run::interrupt(target, Exit::Kill(error), false);
    true
}

/// Runs `f` in a new green thread, not before `delay` has passed. Eventlet's `spawn_after`. Never switches.
///
/// It begins even if the spawner has ended; until then [`cancel`](GreenThread::cancel) takes it back.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use std::time::Duration;
/// let green = hub_core::spawn_after(Duration::from_millis(5), || "later");
/// assert!(!green.is_started());
/// assert_eq!(green.join()?, "later");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[track_caller]
pub fn spawn_after<T: 'static>(delay: Duration, f: impl FnOnce() -> T + 'static) -> GreenThread<T> {
    let task = Task::new(local::get(), f, true, Location::caller());
    begin_after(delay, task)
}

fn begin_after<T>(delay: Duration, task: Task<T>) -> GreenThread<T> {
    let local = local::get();
    match task.control() {
        Some(control) if !delay.is_zero() && !local.refuses_bodies() => {
            trace::spawned(*task);
            control.set_delayed();
            let target = Target::Start { greenlet: control.number(), ticket: control.ticket() };
            task.set_timer(local.main_loop.arm(delay, target));
        }
        _ => task.begin(),
    }
    GreenThread { task }
}

/// Like [`spawn_after`], but `f` is dropped instead of run if the green thread that calls this ends before.
/// Eventlet's `spawn_after_local`. The result is `None` in that case, and there as soon as that has ended.
/// Never switches.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use std::time::Duration;
/// let spawner = hub_core::spawn(|| hub_core::spawn_after_local(Duration::from_secs(3600), || "never"));
/// let green = spawner.join()?;
/// assert_eq!(green.join()?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[track_caller]
pub fn spawn_after_local<T: 'static>(delay: Duration, f: impl FnOnce() -> T + 'static) -> GreenThread<Option<T>> {
    let me = run::current();
    let spawner: Weak<()> = me.life();
    let link = Rc::new(Cell::new(None));
    let linked = Linked { life: spawner.clone(), link: link.clone(), to: me.task() };
    let body = move || {
        let alive = linked.life.upgrade().is_some();
        drop(linked);
        alive.then(f)
    };
    let green = begin_after(delay, Task::optional(local::get(), body, Location::caller()));
    if let Some(task) = me.task()
        && let Some(timer) = green.task.timer()
        && let Some(control) = green.task.control()
    {
        let target = Target::Start { greenlet: control.number(), ticket: control.ticket() };
        let begin = move || local::get().main_loop.bring_forward(timer, target);
        link.set(Some(task.add_link(Box::new(begin))));
    }
    green
}

/// The link by which the end of a spawner is told to what it has spawned for later.
struct Linked {
    /// Alive as long as the spawner.
    life: Weak<()>,
    link: Rc<Cell<Option<u64>>>,
    to: Option<TaskRef>,
}

impl Drop for Linked {
    fn drop(&mut self) {
        // The cell of the spawner exists while it is alive.
        if self.life.strong_count() != 0
            && let (Some(link), Some(task)) = (self.link.take(), self.to)
        {
            task.remove_link(link);
        }
    }
}

/// Lets other green threads run for at least `duration`. Eventlet's `sleep`; zero lets each that is ready
/// run once. Switches.
///
/// Called while panicking, it blocks the thread instead, for the time of
/// [`set_panicking_grace`](crate::set_panicking_grace) at most. In a destructor of a thread-local, when the thread's green
/// threads have ended, it blocks the thread like std's. In a callback of the main loop a sleep of zero does
/// nothing.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use std::time::{Duration, Instant};
/// let start = Instant::now();
/// let other = hub_core::spawn(|| hub_core::sleep(Duration::from_millis(10)));
/// hub_core::sleep(Duration::from_millis(10)); // both sleep at the same time
/// other.join()?;
/// assert!(start.elapsed() >= Duration::from_millis(10));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Panics
///
/// In a callback of the main loop, if the hub cannot be built, and in the main greenlet if the loop is
/// interrupted; with the message of the [`LoopError`]. A loop that is aborted ends the sleep early.
pub fn sleep(duration: Duration) {
    if duration.is_zero() && run::in_mainloop() {
        return;
    }
    let slept = if duration.is_zero() { run::yield_now() } else { sleep_for(duration) };
    let Err(error) = slept else { return };
    match *error {
        LoopError::Aborted => {}
        LoopError::ThreadEnding => std::thread::sleep(duration),
        LoopError::Panicking => {
            let grace = Grace::begin();
            std::thread::sleep(duration.min(grace.left()));
        }
        error => panic!("sleep: {error}"),
    }
}

fn sleep_for(duration: Duration) -> Result<(), Refused> {
    let main_loop = &local::get().main_loop;
    let mut left = duration;
    let mut until = None;
    loop {
        let waiter = Waiter::current(Doing::Sleep)?;
        let timer = ArmedTimer(main_loop.arm(left, Target::park(waiter)));
        if waiter.control().kind() == Kind::Main && until.is_none() {
            until = Some(main_loop.now() + left);
        }
        let woken = waiter.park();
        drop(timer);
        match woken {
            // The hub's timers are gone, the main greenlet's sleep is not over.
            Err(error) if matches!(*error, LoopError::HubReplaced) => {
                left = until.unwrap_or_default() - main_loop.now();
                if left.is_zero() {
                    return Ok(());
                }
            }
            other => return other.map(drop),
        }
    }
}

/// A timer that is taken back however the park ends.
struct ArmedTimer(crate::timer_queue::TimerId);

impl Drop for ArmedTimer {
    fn drop(&mut self) {
        local::get().main_loop.disarm(self.0);
    }
}

/// Lets every other green thread that is ready run once. std's `yield_now`; [`sleep`] of zero. Switches.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let other = hub_core::spawn(|| ());
/// hub_core::yield_now();
/// assert!(other.is_finished());
/// # });
/// ```
///
/// # Panics
///
/// As [`sleep`].
#[inline]
pub fn yield_now() {
    if let Err(refused) = run::yield_now() {
        yield_refused(refused);
    }
}

/// Counts an operation that is about to be served at once, and lets others run after many in a row. Tokio's
/// `consume_budget`. Switches then.
///
/// A loop over operations that never have to wait would keep all others of its OS thread waiting. Sockets, pipes,
/// channels and queues therefore call this before each operation; a primitive of one's own does the same. Green threads
/// that wait or yield have a new budget, of 16 operations at least. Where nothing may switch, as in the main loop and
/// while panicking, this returns at once.
///
/// Call it before the operation and without a lock: a kill or a timeout may strike here, and what was done before would
/// be lost.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let other = hub_core::spawn(|| ());
/// while !other.is_finished() {
///     hub_core::consume_budget()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// For the main greenlet: what the main loop has to tell it.
#[inline]
pub fn consume_budget() -> Result<(), Box<LoopError>> {
    if run::charge() { Ok(()) } else { run::operations_used_up() }
}

#[cold]
fn yield_refused(refused: Refused) {
    drop(refused);
    sleep(Duration::ZERO);
}

/// Ends `green`: [`GreenThread::kill`] as a function. Eventlet's `kill`. Switches, except in the main loop.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let green = hub_core::spawn(|| "never");
/// assert_eq!(hub_core::kill(&green), hub_core::Kill::Cancelled);
/// # });
/// ```
pub fn kill<T>(green: &GreenThread<T>) -> Kill {
    green.kill()
}

/// How a green thread is to be made, std's `thread::Builder`.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let green = hub_core::Builder::new().name("worker").stack_size(64 * 1024).spawn(|| 1)?;
/// assert_eq!(green.name().as_deref(), Some("worker"));
/// # green.join().unwrap();
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
    spawned_at: Option<&'static Location<'static>>,
}

impl Builder {
    /// A green thread without a name, with a stack of the default size.
    #[must_use]
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Gives it a name, for reports and listings.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Gives it a stack of at least `size` bytes; it is rounded up to a power of two, 64 KiB at least.
    #[must_use]
    pub fn stack_size(mut self, size: usize) -> Builder {
        self.stack_size = Some(size);
        self
    }

    /// Sets the place that reports and listings name as that of the spawning, as for [`spawn_at`].
    #[must_use]
    pub fn spawned_at(mut self, place: &'static Location<'static>) -> Builder {
        self.spawned_at = Some(place);
        self
    }

    /// Spawns it like [`spawn`]. Never switches.
    ///
    /// # Errors
    ///
    /// If no stack can be that large.
    #[track_caller]
    pub fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> io::Result<GreenThread<T>> {
        let local = local::get();
        let stack_size = self.stack_size.map(stack::round_up).transpose()?;
        let task = Task::new(local, f, true, self.spawned_at.unwrap_or(Location::caller()));
        if let Some(name) = &self.name {
            task.set_name(name);
        }
        if let Some(size) = stack_size {
            task.set_stack_size(size);
        }
        task.begin();
        Ok(GreenThread { task })
    }
}

impl<T> GreenThread<T> {
    /// Who it is, std's `thread`.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        thread::of(*self.task)
    }

    /// Waits for its end and takes the result. Switches, unless it has ended.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let fine = hub_core::spawn(|| "fine");
    /// assert_eq!(fine.join()?, "fine");
    /// let killed = hub_core::spawn(|| "never");
    /// killed.kill();
    /// assert!(killed.join().unwrap_err().is_exit());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// How it ended otherwise; for the main greenlet also what the main loop has to tell it.
    pub fn join(self) -> Result<T, GreenError> {
        wait_for(*self.task)?;
        self.task.take_result()
    }

    /// Waits for its end and copies the result, any number of times. Eventlet's `wait`. Switches, unless it
    /// has ended.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let green = hub_core::spawn(|| String::from("result"));
    /// assert_eq!(green.wait()?, "result");
    /// assert_eq!(green.wait()?, "result");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`join`](GreenThread::join), the same each time.
    pub fn wait(&self) -> Result<T, GreenError>
    where
        T: Clone,
    {
        wait_for(*self.task)?;
        self.task.see();
        self.task.look(Result::clone).unwrap_or(Err(GreenError::Taken))
    }

    /// Waits for its end and leaves the result where it is. Switches, unless it has ended.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let green = hub_core::spawn(|| panic!("not seen here"));
    /// green.wait_for_end()?;
    /// assert!(green.is_finished());
    /// assert!(green.join().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// If it cannot be waited for: by itself, or by the main greenlet when the main loop has something to tell.
    pub fn wait_for_end(&self) -> Result<(), GreenError> {
        wait_for(*self.task)
    }

    /// Drops the handle, and the result unseen: whatever comes of the green thread, it is not reported. Never switches.
    ///
    /// A panic is told by the panic hook of the program all the same.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// # hub_core::set_report_stream(|report| panic!("{report}"));
    /// use std::io::{self, Write};
    /// let (reader, mut writer) = io::pipe()?;
    /// drop(reader);
    /// hub_core::spawn(move || writer.write_all(b"the peer may have left")).ignore_result();
    /// hub_core::yield_now();
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn ignore_result(self) {
        self.task.see();
    }

    /// A number that no other living greenlet of its OS thread has. `None` if it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.task.control().map(|control| control.number())
    }

    /// Ends it: the call in which it blocks starts to unwind, its destructors run, and those who wait for it
    /// get [`GreenError::Exit`]. Eventlet's `kill`. Switches, except in the main loop.
    ///
    /// It has ended, or what this returns says why not. One that has not begun never does; what it was to run is
    /// dropped, and its links and waiters learn of it. Killing oneself starts to unwind at once. An exit that the target
    /// catches is thrown again when it next blocks, after a turn of the main loop; one that catches it a hundred times
    /// lives on ([`Kill::Refused`]). Code that calls [`catch_unwind`](std::panic::catch_unwind) in a loop tells an exit from
    /// a panic by [`is_exit`](crate::is_exit), whose example is a worker that does it right.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::Kill;
    /// use std::time::Duration;
    /// let green = hub_core::spawn(|| hub_core::sleep(Duration::from_secs(3600)));
    /// hub_core::yield_now();
    /// assert_eq!(green.kill(), Kill::Ended);
    /// assert_eq!(green.kill(), Kill::Dead);
    /// assert!(green.join().unwrap_err().is_exit());
    /// # });
    /// ```
    ///
    /// # Panics
    ///
    /// Never by itself.
    pub fn kill(&self) -> Kill {
        self.kill_with(GreenError::Exit)
    }

    /// Ends it with an error of your choice, which those who wait for it get. Otherwise like
    /// [`kill`](GreenThread::kill).
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::GreenError;
    /// let green = hub_core::spawn(|| 1);
    /// green.kill_with(GreenError::custom("shutting down"));
    /// assert_eq!(green.join().unwrap_err().to_string(), "shutting down");
    /// # });
    /// ```
    pub fn kill_with(&self, error: GreenError) -> Kill {
        end(*self.task, error)
    }

    /// Takes it back if it has not begun: it never runs, and those who wait for it get
    /// [`GreenError::Exit`]. Eventlet's `cancel`. False, and nothing happens, if it has. Never switches.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use std::time::Duration;
    /// let later = hub_core::spawn_after(Duration::from_secs(3600), || "never");
    /// assert!(later.cancel());
    /// let running = hub_core::spawn(|| hub_core::sleep(Duration::from_millis(1)));
    /// hub_core::yield_now();
    /// assert!(!running.cancel());
    /// # });
    /// ```
    pub fn cancel(&self) -> bool {
        if self.task.has_started() {
            return false;
        }
        matches!(end(*self.task, GreenError::Exit), Kill::Cancelled)
    }

    /// Whether it has ended. Eventlet's `dead`.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_done()
    }

    /// Whether it has begun.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.task.has_started()
    }

    /// Its name, if it was given one.
    #[must_use]
    pub fn name(&self) -> Option<Rc<str>> {
        self.task.name()
    }

    /// Where it was spawned.
    #[must_use]
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.task.spawned_at()
    }

    /// How much of its stack it has touched so far, in bytes and whole pages; what earlier users of the same
    /// stack touched counts too. `None` if it has no stack: it has not begun, or has ended.
    #[must_use]
    pub fn stack_high_water(&self) -> Option<usize> {
        self.task.control()?.stack_high_water()
    }
}

impl<T> Drop for GreenThread<T> {
    fn drop(&mut self) {
        self.task.release();
    }
}

impl<T> fmt::Debug for GreenThread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.task.control().map(|control| control.state()) {
            None => "finished",
            Some(State::Unstarted | State::Delayed) => "pending",
            Some(State::Running) => "running",
            Some(State::Ready) => "ready",
            Some(_) => "parked",
        };
        f.debug_struct("GreenThread").field("name", &self.task.describe()).field("state", &state).finish()
    }
}

/// Waits until a green thread has ended.
#[inline]
pub(crate) fn wait_for(task: TaskRef) -> Result<(), GreenError> {
    while !task.has_ended() {
        wait_once(task)?;
    }
    Ok(())
}

/// Parks until a green thread ends, or until there is another reason to look.
pub(crate) fn wait_once(task: TaskRef) -> Result<(), GreenError> {
    if task.control() == Some(run::current()) {
        return Err(GreenError::Deadlock);
    }
    let waiter = Waiter::current(Doing::Join)?;
    task.add_waiter(waiter);
    let place = Place { task, waiter };
    let woken = waiter.park();
    drop(place);
    woken?;
    Ok(())
}

/// A place among those who wait for a green thread; leaves it however the park ends.
struct Place {
    task: TaskRef,
    waiter: Waiter,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.task.remove_waiter(self.waiter);
    }
}

/// Ends a green thread.
pub(crate) fn end(task: TaskRef, error: GreenError) -> Kill {
    let Some(target) = task.control() else {
        return if task.is_done() { Kill::Dead } else { Kill::Cancelled };
    };
    let exit = Exit::Kill(error);
    if cfg!(panic = "abort") && task.has_started() {
        return Kill::Unsupported;
    }
    let refused = target.refused_kills();
    if target == run::current() {
        run::exit_now(exit);
        return if target.refused_kills() == refused { Kill::Scheduled } else { Kill::Refused };
    }
    let may_switch = !run::in_mainloop() && !local::get().main_loop.in_hub() && !local::has_ended();
    let at_once = may_switch && !std::thread::panicking();
    if let Some(timer) = task.take_timer() {
        local::get().main_loop.disarm(timer);
    }
    // The handle that the caller holds keeps the cell.
    if run::interrupt(target, exit, at_once) == Interrupted::Cancelled {
        return Kill::Cancelled;
    }
    loop {
        if task.is_done() {
            return Kill::Ended;
        }
        if target.refused_kills() != refused {
            return Kill::Refused;
        }
        // It has swallowed the exit, which is thrown again: what comes of it is known in a few turns.
        if !at_once || target.kill_progress() != KillProgress::Striking || run::yield_now().is_err() {
            return Kill::Scheduled;
        }
    }
}

/// The name of the running green thread, if it has one.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let green = hub_core::Builder::new().name("worker").spawn(hub_core::current_name)?;
/// assert_eq!(green.join()?.as_deref(), Some("worker"));
/// assert_eq!(hub_core::current_name(), None); // the main greenlet
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use]
pub fn current_name() -> Option<Rc<str>> {
    run::current().task()?.name()
}

/// A number of the running greenlet that no other living one of this thread has. Does not switch.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let here = hub_core::current_id();
/// assert_ne!(hub_core::spawn(hub_core::current_id).join()?, here);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use]
pub fn current_id() -> u32 {
    run::current().number()
}

thread_local! {
    static MAIN_LIFE: Cell<Option<Rc<()>>> = const { Cell::new(None) };
}

fn weak_of(life: &Cell<Option<Rc<()>>>) -> Weak<()> {
    let kept = life.take().unwrap_or_default();
    let weak = Rc::downgrade(&kept);
    life.set(Some(kept));
    weak
}

impl ControlRef {
    /// Something that lives as long as the greenlet.
    fn life(self) -> Weak<()> {
        match self.task() {
            Some(task) => task.life(),
            // The main greenlet and plain ones: as long as the thread.
            None => MAIN_LIFE.try_with(weak_of).unwrap_or_default(),
        }
    }
}
