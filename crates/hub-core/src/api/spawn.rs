//! Makes green threads that run at once, or later.

use std::cell::Cell;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::green_thread::GreenThread;
use crate::greenlet::control::ControlRef;
use crate::greenlet::driver::Driver;
use crate::greenlet::local;
use crate::greenlet::run::{self};
use crate::greenlet::target::Target;
use crate::greenlet::task::{Task, TaskRef};
use crate::greenlet::trace;

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
/// dropped, and the handle gives [`LoopError::ThreadEnding`](crate::LoopError::ThreadEnding).
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
    let linked = SpawnerLink { life: spawner.clone(), link: link.clone(), to: me.task() };
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
        let begin = move || local::get().main_loop.fire_now(timer, target);
        link.set(Some(task.add_link(Box::new(begin))));
    }
    green
}

/// The link by which the end of a spawner is told to what it has spawned for later.
struct SpawnerLink {
    /// Alive as long as the spawner.
    life: Weak<()>,
    link: Rc<Cell<Option<u64>>>,
    to: Option<TaskRef>,
}

impl Drop for SpawnerLink {
    fn drop(&mut self) {
        // The cell of the spawner exists while it is alive.
        if self.life.strong_count() != 0
            && let (Some(link), Some(task)) = (self.link.take(), self.to)
        {
            task.remove_link(link);
        }
    }
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
