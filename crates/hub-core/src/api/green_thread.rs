//! Green threads: greenlets whose parent is the hub.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use super::kill::{KillOutcome, end};
use super::thread::{self, Thread};
use crate::base::wait_reason::WaitReason;
use crate::error::GreenError;
use crate::greenlet::control::State;
use crate::greenlet::run::{self, Waiter};
use crate::greenlet::task::{Task, TaskRef};

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

/// Ends `green`: [`GreenThread::kill`] as a function. Eventlet's `kill`. Switches, except in the main loop.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let green = hub_core::spawn(|| "never");
/// assert_eq!(hub_core::kill(&green), hub_core::KillOutcome::Cancelled);
/// # });
/// ```
pub fn kill<T>(green: &GreenThread<T>) -> KillOutcome {
    green.kill()
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
    /// lives on ([`KillOutcome::Refused`]). Code that calls [`catch_unwind`](std::panic::catch_unwind) in a loop tells an exit from
    /// a panic by [`is_exit`](crate::is_exit), whose example is a worker that does it right.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::KillOutcome;
    /// use std::time::Duration;
    /// let green = hub_core::spawn(|| hub_core::sleep(Duration::from_secs(3600)));
    /// hub_core::yield_now();
    /// assert_eq!(green.kill(), KillOutcome::Ended);
    /// assert_eq!(green.kill(), KillOutcome::Dead);
    /// assert!(green.join().unwrap_err().is_exit());
    /// # });
    /// ```
    ///
    /// # Panics
    ///
    /// Never by itself.
    pub fn kill(&self) -> KillOutcome {
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
    pub fn kill_with(&self, error: GreenError) -> KillOutcome {
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
        matches!(end(*self.task, GreenError::Exit), KillOutcome::Cancelled)
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
    let waiter = Waiter::current(WaitReason::Join)?;
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
