//! Spawns green threads, at once or after a delay.

use std::cell::Cell;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::green_thread::GreenThread;
use crate::greenlet::control::ControlRef;
use crate::greenlet::driver::Driver;
use crate::greenlet::local;
use crate::greenlet::run;
use crate::greenlet::target::Target;
use crate::greenlet::task::{self, NewTask, TaskRef, WeakTask};
use crate::greenlet::trace;

/// Spawns a green thread that runs `f`. Eventlet's `spawn`. Does not switch.
///
/// The green thread begins when the caller next waits or yields. Green threads begin in the order in which they were
/// spawned. They stay on this OS thread, so `f` and its result need not be `Send`. Cells and stacks are reused, so in
/// the long run a spawn allocates nothing.
///
/// A kill, a timeout or a link unwinds `f` like a panic. Code in `f` that calls
/// [`catch_unwind`](std::panic::catch_unwind) has to let that unwinding pass: see [`is_exit`](crate::is_exit).
///
/// # The end of the OS thread
///
/// A green thread that has not ended when its OS thread ends is abandoned. It never runs again, its destructors do not
/// run, its stack stays in memory, and it is [reported](crate::set_report_stream) once. It cannot be unwound then,
/// because the thread-locals that it may borrow are destroyed. [`HubRef::shutdown`](crate::HubRef::shutdown) unwinds it
/// in time. An OS thread that was started by `greenhub::thread::os::spawn` calls that by itself. At the end of the
/// process nothing is unwound or reported, as in std.
///
/// In a destructor of a thread-local that runs after the OS thread's green threads have ended, no green thread begins:
/// `f` is dropped, and the handle returns [`LoopErrorKind::ThreadEnding`](crate::LoopErrorKind::ThreadEnding).
///
/// # Thread-locals: undefined behaviour
///
/// While a green thread is parked, other green threads of its OS thread run and use the same thread-locals. Four uses
/// of thread-locals are *undefined behaviour* although they are safe code. No crate can prevent them:
///
/// - *A call that switches in the initialiser of a thread-local.* A second green thread initialises the value again,
///   and the value of the first is dropped while it is borrowed:
///
///   ```no_run
///   # use greenhub::{spawn, thread::yield_now};
///   thread_local!(static V: Vec<u64> = { yield_now(); vec![7] }); // undefined behaviour
///   let (a, b) = (spawn(|| V.with(|v| { yield_now(); yield_now(); v[0] })), spawn(|| V.with(|v| v[0])));
///   # drop((a, b));
///   ```
///
///   Instead: call the function that switches first, and keep its result in a thread-local `OnceCell` that begins
///   empty; or use `green_local!`, which has a value for each green thread.
/// - *A call that switches while a thread-local points into a stack frame*, as within `set` of the crate `scoped_tls`.
///   Two green threads set and reset the pointer in turns, and it points to a frame that no longer exists:
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
///   # use greenhub::sleep;
///   struct Logs; impl Drop for Logs { fn drop(&mut self) { sleep(std::time::Duration::from_millis(1)) } }
///   thread_local!(static LOGS: Logs = const { Logs }); // undefined behaviour unless the thread's end is noticed
///   ```
///
///   An OS thread that was started by `greenhub::thread::os::spawn` notices its end in time, and nothing switches. So
///   does every OS thread on Linux, for the thread-locals that were initialised before the first green thread. In other
///   cases the end is mostly noticed, but without a guarantee. Instead: start OS threads with that function, and
///   release by an explicit call whatever takes a wait to release.
/// - *A call that switches while another OS thread borrows a thread-local of this one*, as with `std::thread::scope` or
///   `tpool::execute_scoped` within `with`. If this OS thread ends meanwhile, the green thread is
///   abandoned and the value is destroyed, while the other OS thread still uses it:
///
///   ```no_run
///   # use greenhub::{spawn, tpool};
///   thread_local!(static V: Vec<u64> = vec![7]);
///   // Undefined behaviour if this OS thread ends meanwhile.
///   spawn(|| V.with(|v| tpool::execute_scoped(|| v.iter().sum::<u64>()).ok()));
///   ```
///
///   Instead: lend a clone; or keep an `Arc` in the thread-local and send a clone of it; or end the OS thread by a
///   shutdown without a limit, which waits for the green thread.
///
/// Counters and flags that are set and reset around a call that switches are not undefined behaviour, but other green
/// threads see the changed value.
///
/// # Reports of failures
///
/// If the result is never taken, a panic is [reported](crate::set_report_stream) once, and so is an `Err` of any type.
/// The report names the location of the spawn, the type of the result, and the message if it is known. The message is
/// known for the common errors of std and of this crate, and for the types given to
/// [`set_error_message`](crate::set_error_message). [`ignore_result`](GreenThread::ignore_result) drops a handle
/// without a report. A closure that returns `()` has no result to report. Only the result itself is inspected, not an
/// `Err` within it, as in `Ok(Err(..))` or a tuple.
///
/// # Examples
///
/// ```
/// let green = greenhub::spawn(|| 6 * 7);
/// assert_eq!(green.join().unwrap(), 42);
/// ```
#[doc(alias = "start_soon")]
#[track_caller]
#[inline]
pub fn spawn<F, T>(f: F) -> GreenThread<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    spawn_at(Location::caller(), f)
}

/// Like [`spawn`], with `place` as the location of the spawn. Does not switch.
///
/// Reports and listings show the location.
///
/// It is for libraries that spawn on behalf of a caller whose location `#[track_caller]` cannot give, such as a server.
///
/// ```
/// let here = std::panic::Location::caller();
/// let green = hub_core::internal::spawn_at(here, || ());
/// assert_eq!(green.spawned_at(), here);
/// ```
#[inline]
pub fn spawn_at<T: 'static>(place: &'static Location<'static>, f: impl FnOnce() -> T + 'static) -> GreenThread<T> {
    let local = local::get();
    GreenThread { task: NewTask::new(local, f, place).begin() }
}

/// Like [`spawn_at`], with a name.
#[inline]
pub fn spawn_named_at<T: 'static>(
    place: &'static Location<'static>,
    name: Option<&str>,
    f: impl FnOnce() -> T + 'static,
) -> GreenThread<T> {
    let task = NewTask::new(local::get(), f, place);
    if let Some(name) = name {
        task.set_name(name);
    }
    GreenThread { task: task.begin() }
}

/// Spawns a green thread without a handle. Eventlet's `spawn_n`. Otherwise like [`spawn`].
///
/// It pays for many short green threads whose results are not needed. A spawn and the run of an empty closure take
/// about 220 instructions, and 240 with a handle and a join. For a green thread that waits, the difference is lost in
/// its waits.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// let ran = Rc::new(Cell::new(false));
/// let seen = Rc::clone(&ran);
/// greenhub::spawn_n(move || seen.set(true));
/// assert!(!ran.get());
/// greenhub::thread::yield_now();
/// assert!(ran.get());
/// ```
#[doc(alias = "spawn_raw")]
#[track_caller]
#[inline]
pub fn spawn_n<F, T>(f: F)
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let local = local::get();
    task::spawn_detached(local, f, Location::caller());
}

/// Spawns a green thread that begins once `delay` has passed. Eventlet's `spawn_after`. Does not switch.
///
/// It begins even if the spawner has ended. Before it begins, [`cancel`](GreenThread::cancel) cancels it.
///
/// ```
/// use std::time::Duration;
/// let green = greenhub::spawn_after(Duration::from_millis(5), || "later");
/// assert!(!green.is_started());
/// assert_eq!(green.join()?, "later");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "spawn_later")]
#[doc(alias = "call_after")]
#[doc(alias = "call_after_global")]
#[doc(alias = "start_later")]
#[track_caller]
pub fn spawn_after<F, T>(delay: Duration, f: F) -> GreenThread<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let task = NewTask::new(local::get(), f, Location::caller());
    begin_after(delay, task)
}

fn begin_after<T>(delay: Duration, task: NewTask<T>) -> GreenThread<T> {
    let local = local::get();
    let task = match task.control() {
        Some(control) if !delay.is_zero() && !local.refuses_bodies() => {
            trace::spawned(&task);
            let task = task.delay();
            let target = Target::Start { greenlet: control.number(), ticket: control.ticket() };
            task.set_timer(local.main_loop.arm(delay, target));
            run::rouse();
            task
        }
        _ => task.begin(),
    };
    GreenThread { task }
}

/// Like [`spawn_after`], but drops `f` if the spawner ends first. Does not switch.
///
/// The spawner is the green thread that calls this. If it ends before the delay has passed, the result is `None`, and
/// it is available as soon as the spawner has ended. A spawner of another kind counts as alive as long as its OS
/// thread. Eventlet's `spawn_after_local`.
///
/// ```
/// use std::time::Duration;
/// let spawner = greenhub::spawn(|| greenhub::spawn_after_local(Duration::from_secs(3600), || "never"));
/// let green = spawner.join()?;
/// assert_eq!(green.join()?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "call_after_local")]
#[track_caller]
pub fn spawn_after_local<F, T>(delay: Duration, f: F) -> GreenThread<Option<T>>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let me = run::current();
    let link = Rc::new(Cell::new(None));
    let linked = SpawnerLink { spawner: Spawner::of(me), link: link.clone() };
    let body = move || {
        let alive = linked.spawner.is_alive();
        drop(linked);
        alive.then(f)
    };
    let green = begin_after(delay, NewTask::optional(local::get(), body, Location::caller()));
    if let (Some(timer), Some(control)) = (green.task.timer(), green.task.control()) {
        let target = Target::Start { greenlet: control.number(), ticket: control.ticket() };
        let begin = move |_: &TaskRef| local::get().main_loop.fire_now(timer, target);
        link.set(me.with_task(|task| task.add_link(Box::new(begin))));
    }
    green
}

/// The link by which the end of a spawner starts, and so drops, a delayed child.
struct SpawnerLink {
    spawner: Spawner,
    link: Rc<Cell<Option<u64>>>,
}

impl Drop for SpawnerLink {
    fn drop(&mut self) {
        if let (Some(link), Spawner::GreenThread(task)) = (self.link.take(), &self.spawner) {
            task.with(|task| task.remove_link(link));
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

/// The greenlet that has spawned a delayed child.
enum Spawner {
    GreenThread(WeakTask),
    /// The main greenlet or a plain greenlet, which counts as alive as long as its OS thread.
    Other(Weak<()>),
}

impl Spawner {
    fn of(greenlet: ControlRef) -> Spawner {
        match greenlet.with_task(TaskRef::downgrade) {
            Some(task) => Spawner::GreenThread(task),
            None => Spawner::Other(MAIN_LIFE.try_with(weak_of).unwrap_or_default()),
        }
    }

    fn is_alive(&self) -> bool {
        match self {
            Spawner::GreenThread(task) => task.is_alive(),
            Spawner::Other(life) => life.strong_count() != 0,
        }
    }
}
