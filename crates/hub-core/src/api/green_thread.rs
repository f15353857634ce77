//! Green threads: greenlets whose parent is the hub.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use super::thread::{self, Thread};
use crate::base::id::GreenletId;
use crate::base::wait_reason::WaitReason;
use crate::error::GreenError;
use crate::greenlet::control::State;
use crate::greenlet::control::Waiter;
use crate::greenlet::run::{self, Park};
use crate::greenlet::task::{Task, TaskRef};

/// A handle to a green thread that returns a `T`. Eventlet's `GreenThread`.
///
/// The methods of std's `JoinHandle` exist under their names. Dropping the handle detaches the green thread: it runs
/// on, its result is dropped, and a failure whose result was never taken is reported once.
/// [`ignore_result`](GreenThread::ignore_result) detaches it without a report.
///
/// ```
/// let green = greenhub::spawn(|| 6 * 7);
/// assert!(!green.is_finished());
/// assert_eq!(green.wait()?, 42); // as often as you like
/// assert!(green.is_finished());
/// assert_eq!(green.join()?, 42); // once, and takes the result
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "JoinHandle")]
#[doc(alias = "AsyncResult")]
pub struct GreenThread<T> {
    pub(crate) task: Task<T>,
}

impl<T> GreenThread<T> {
    /// Returns the [`Thread`] of this green thread. std's `thread`.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        thread::of(&self.task)
    }

    /// Waits for the green thread to finish and returns its result. Switches, unless it has ended.
    ///
    /// ```
    /// let fine = greenhub::spawn(|| "fine");
    /// assert_eq!(fine.join()?, "fine");
    /// let killed = greenhub::spawn(|| "never");
    /// killed.kill();
    /// assert!(killed.join().unwrap_err().is_kill());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error with which the green thread ended. For the main greenlet also the error of the main loop, if
    /// that ends the wait.
    pub fn join(self) -> Result<T, GreenError> {
        wait_for(&self.task)?;
        self.task.take_result()
    }

    /// Waits for the green thread to finish and returns a clone of its result. Switches, unless it has ended.
    ///
    /// May be called any number of times. Eventlet's `wait`.
    ///
    /// ```
    /// let green = greenhub::spawn(|| String::from("result"));
    /// assert_eq!(green.wait()?, "result");
    /// assert_eq!(green.wait()?, "result");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`join`](GreenThread::join), on each call.
    #[doc(alias = "get")]
    pub fn wait(&self) -> Result<T, GreenError>
    where
        T: Clone,
    {
        wait_for(&self.task)?;
        self.task.see();
        self.task.look(Result::clone).unwrap_or(Err(GreenError::Taken))
    }

    /// Waits for the green thread to finish and leaves the result in place. Switches, unless it has ended.
    ///
    /// ```
    /// let green = greenhub::spawn(|| panic!("not seen here"));
    /// green.wait_for_end()?;
    /// assert!(green.is_finished());
    /// assert!(green.join().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`GreenError::Deadlock`] if the green thread waits for itself. For the main greenlet also the error of
    /// the main loop, if that ends the wait.
    pub fn wait_for_end(&self) -> Result<(), GreenError> {
        wait_for(&self.task)
    }

    /// Drops the handle and the result, without a report of a failure. Does not switch.
    ///
    /// The program's panic hook still runs for a panic.
    ///
    /// ```
    /// # greenhub::debug::set_report_stream(|report| panic!("{report}"));
    /// use std::io::{self, Write};
    /// let (reader, mut writer) = io::pipe()?;
    /// drop(reader);
    /// greenhub::spawn(move || writer.write_all(b"the peer may have left")).ignore_result();
    /// greenhub::thread::yield_now();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ignore_result(self) {
        self.task.see();
    }

    /// Returns the id of the green thread, or `None` if it has ended.
    #[must_use]
    pub fn id(&self) -> Option<GreenletId> {
        self.task.control().map(|control| control.id())
    }

    /// Returns whether the green thread has ended. Eventlet's `dead`.
    #[doc(alias = "dead")]
    #[doc(alias = "ready")]
    #[doc(alias = "successful")]
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_done()
    }

    /// Returns whether the green thread has begun.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.task.has_started()
    }

    /// Returns the name of the green thread, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<Rc<str>> {
        self.task.name()
    }

    /// Returns the location where the green thread was spawned.
    #[must_use]
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.task.spawned_at()
    }

    /// Returns the touched part of the stack in bytes, in whole pages.
    ///
    /// Pages that earlier users of the same stack touched count too. `None` if it has no stack, because it has not
    /// begun or has ended.
    #[must_use]
    pub fn stack_high_water(&self) -> Option<usize> {
        self.task.control()?.stack_high_water()
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
pub(crate) fn wait_for(task: &TaskRef) -> Result<(), GreenError> {
    while !task.has_ended() {
        wait_once(task)?;
    }
    Ok(())
}

/// Parks until a green thread ends, or until a wake-up for another reason.
pub(crate) fn wait_once(task: &TaskRef) -> Result<(), GreenError> {
    if task.control() == Some(run::current()) {
        return Err(GreenError::Deadlock);
    }
    let park = Park::current(WaitReason::Join)?;
    let waiter = park.waiter();
    task.add_waiter(waiter);
    let entry = JoinEntry { task, waiter };
    let woken = park.park();
    drop(entry);
    woken?;
    Ok(())
}

/// The entry of a waiter in the list of a green thread's waiters. `Drop` removes it, however the park ends.
struct JoinEntry<'a> {
    task: &'a TaskRef,
    waiter: Waiter,
}

impl Drop for JoinEntry<'_> {
    fn drop(&mut self) {
        self.task.remove_waiter(self.waiter);
    }
}

/// Returns the name of the running green thread, if it has one.
///
/// ```
/// let green = greenhub::Builder::new().name("worker".into()).spawn(greenhub::greenthread::current_name)?;
/// assert_eq!(green.join()?.as_deref(), Some("worker"));
/// assert_eq!(greenhub::greenthread::current_name(), None); // the main greenlet
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn current_name() -> Option<Rc<str>> {
    run::current().with_task(TaskRef::name).flatten()
}

/// Returns the id of the running greenlet. Does not switch.
///
/// ```
/// let here = greenhub::greenthread::current_id();
/// assert_ne!(greenhub::spawn(greenhub::greenthread::current_id).join()?, here);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "get_ident")]
#[must_use]
pub fn current_id() -> GreenletId {
    run::current().id()
}
