//! Jobs on other OS threads, for which only the calling green thread waits.
//!
//! Ground rules:
//! - A job that borrows is given to the pool with its lifetime erased. From then on `offload_scoped` neither returns
//!   nor unwinds before [`Done`] says that the job, its borrows and the job's handle to the result are gone. The wait
//!   is masked. If the loop cannot wait, the wait blocks the OS thread. In a forked child the job does not exist: its
//!   OS thread is the parent's.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::leftover;
use super::thread_pool::{self, JOBS, Job, ThreadPool};
use crate::base::fork;
use crate::base::wait_reason::WaitReason;
use crate::error::{JobError, Panic, payload_text};
use crate::greenlet::exit::{Payload, drop_contained};
use crate::greenlet::local;
use crate::greenlet::run::{Mask, Park};
use crate::greenlet::task::TaskRef;
use crate::greenlet::unhandled::{self, LostError};
use crate::main_loop::remote::{Mailbox, Message, PendingJob};
use crate::report::{self, Report};

/// Runs `job` on an OS thread of the default pool, and waits for it. Eventlet's `tpool.execute`. Switches.
///
/// Only the calling green thread waits. An exit strikes at once: the job goes on, and its result is dropped. An `Err`
/// or a panic that is dropped this way is [reported](crate::set_report_stream), as that of a green thread is: see
/// [`spawn`](crate::spawn). The job runs on the calling OS thread while panicking, after the end of the OS thread's
/// green threads, within another job, and with `EVENTLET_THREADPOOL_SIZE=0`.
///
/// The job may block, wait like a main greenlet, and spawn green threads, which run on its OS thread. The OS thread
/// takes its next job only when they have ended. If nothing can wake them, they are reported and killed.
///
/// ```
/// let green = greenhub::spawn(|| "goes on meanwhile");
/// let sum = greenhub::tpool::execute(|| (1..=1000_u64).sum::<u64>())?; // on another OS thread
/// assert_eq!(sum, 500_500);
/// assert!(green.is_finished());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns [`JobError::Panic`] if `job` panics, and [`JobError::Io`] if no OS thread can be started or the loop
/// cannot wait. In a forked child the wait for a job of the parent returns [`JobError::Io`]: the job goes on in the
/// parent alone.
#[track_caller]
pub fn offload<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, JobError> {
    execute(&JOBS, job, unhandled::error_with_message_in)
}

/// Runs `job`. `find` returns the error in a result that the caller does not take.
#[track_caller]
fn execute<T: Send + 'static>(
    pool: &ThreadPool,
    job: impl FnOnce() -> T + Send + 'static,
    find: fn(&T) -> Option<LostError>,
) -> Result<T, JobError> {
    let called_at = Location::caller();
    let Some((mut park, mailbox)) = begin(pool)? else { return run_inline(job) };
    let caller = park.control().with_task(TaskRef::spawned_at);
    let origin = JobOrigin { pool: pool.name(), called_at, caller };
    let slot = Arc::new(Mutex::new(Slot::<T> { result: None, ticket: park.ticket(), origin, find }));
    let filled = Arc::clone(&slot);
    let greenlet = park.control().number();
    // While the job is pending the loop does not take the wait for hopeless.
    let pending = PendingJob::new(&mailbox);
    let process = fork::generation();
    let job: Job = Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(job));
        let mut slot = filled.lock().unwrap_or_else(PoisonError::into_inner);
        slot.result = Some(result);
        let message = Message::Wake { greenlet, ticket: slot.ticket };
        drop(slot);
        drop(filled);
        // A hub that is gone has no waiter.
        drop(mailbox.post(message));
        drop(pending);
    });
    pool.submit(job, leftover::finish)?;
    loop {
        park.park_deferring_exit()?;
        if fork::generation() != process {
            // In this process nothing ends the job, and nothing unlocks a mutex that its OS thread has locked.
            let outcome = slot.try_lock().ok().and_then(|mut slot| slot.result.take());
            return outcome.ok_or_else(left_behind)?.map_err(panicked);
        }
        // An exit may have come first while the wake-up of a finished job was on its way.
        let mut result = slot.lock().unwrap_or_else(PoisonError::into_inner).result.take();
        if result.is_none() {
            // This throws the exit, unless it is held back. The slot is not locked meanwhile, so the job may end.
            park = Park::current(WaitReason::Offload)?;
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            slot.ticket = park.ticket();
            result = slot.result.take();
        }
        if let Some(outcome) = result {
            return outcome.map_err(panicked);
        }
    }
}

/// The result of a job, and the ticket of the park that its end wakes. Shared by the job and its caller.
struct Slot<T: 'static> {
    result: Option<Outcome<T>>,
    ticket: u64,
    origin: JobOrigin,
    find: fn(&T) -> Option<LostError>,
}

/// The origin of a job, for reports.
struct JobOrigin {
    pool: &'static str,
    called_at: &'static Location<'static>,
    /// The location where the calling green thread was spawned.
    caller: Option<&'static Location<'static>>,
}

impl<T: 'static> Drop for Slot<T> {
    fn drop(&mut self) {
        let Some(outcome) = self.result.take() else { return };
        // The caller has left, and this may run while it unwinds.
        if let Some((error, result)) = failure_in(&outcome, self.find) {
            report::tell(Report::JobFailed { job: self.origin.describe(), error, result });
        }
        drop_contained(outcome);
    }
}

impl JobOrigin {
    fn describe(&self) -> String {
        let JobOrigin { pool, called_at, caller } = self;
        match caller {
            Some(caller) => format!("{pool}, called at {called_at} by the green thread spawned at {caller}"),
            None => format!("{pool}, called at {called_at}"),
        }
    }
}

/// Returns the text of the failure, and the type of the result if it is an `Err`.
fn failure_in<T>(outcome: &Outcome<T>, find: fn(&T) -> Option<LostError>) -> Option<(String, Option<&'static str>)> {
    match outcome {
        Err(payload) => Some((format!("it panicked: {}", payload_text(payload.as_ref())), None)),
        Ok(value) => {
            let error = unhandled::contained_in(value, find)?;
            Some((error.text(), Some(error.result)))
        }
    }
}

/// Like [`offload`], for a job that borrows. Switches.
///
/// The wait is not left early: it returns the job's result, and an exit strikes at the next wait. A
/// [shutdown](crate::HubRef::shutdown) waits for it up to its limit.
///
/// If the OS thread of the caller ends before the job, the job goes on. So a job must not borrow the value of a
/// thread-local: see [`spawn`](crate::spawn).
///
/// ```
/// # use greenhub as _;
/// let mut numbers = vec![3, 1, 2];
/// hub_core::internal::offload_scoped(|| numbers.sort())?;
/// assert_eq!(numbers, [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The borrowed values have to outlive the call, and be usable by other OS threads:
///
/// ```compile_fail,E0277
/// let here = std::rc::Rc::new(1);
/// hub_core::internal::offload_scoped(|| *here);
/// ```
///
/// # Errors
///
/// Returns [`JobError::Panic`] if `job` panics. Returns [`JobError::Io`] if no OS thread can be started, or if no
/// loop could wait; the job has not run then. In a forked child the wait for a job of the parent returns
/// [`JobError::Io`] as well.
pub fn offload_scoped<T: Send>(job: impl FnOnce() -> T + Send) -> Result<T, JobError> {
    execute_scoped(&JOBS, job)
}

fn execute_scoped<T: Send>(pool: &ThreadPool, job: impl FnOnce() -> T + Send) -> Result<T, JobError> {
    let Some((park, mailbox)) = begin(pool)? else { return run_inline(job) };
    let mask = Mask::new();
    let result = Arc::new(Mutex::new(None));
    let done = Arc::new(Done::new());
    let pending = PendingJob::new(&mailbox);
    let greenlet = park.control().number();
    let notice = DoneNotice { done: Arc::clone(&done), mailbox, greenlet, _pending: pending };
    let work = Work { job, result: Arc::clone(&result), notice };
    let work: Box<dyn FnOnce() + Send + '_> = Box::new(move || work.run());
    // SAFETY: only the lifetime is erased. `submit` drops a job that it refuses before it returns, and does not unwind
    // once it has accepted a job. An accepted job notifies `done` when it has run or is dropped, as its last action
    // after everything borrowed is gone. `wait` never unwinds, and returns only then or in a forked child, where the
    // job does not exist.
    let work = unsafe { std::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Job>(work) };
    pool.submit(work, leftover::finish)?;
    let result = match done.wait(park) {
        Ok(()) => result.lock().unwrap_or_else(PoisonError::into_inner).take(),
        Err(LeftBehind) => return Err(left_behind()),
    };
    drop(mask);
    match result {
        Some(outcome) => outcome.map_err(panicked),
        None => Err(io::Error::other("the job was dropped before it had run").into()),
    }
}

impl ThreadPool {
    /// Runs `job` on an OS thread of this pool, and waits for it. Switches.
    ///
    /// Like `tpool::execute`, which uses the default pool: an exit strikes at once, the job goes on, and its failure is
    /// reported. The job runs on the calling OS thread while panicking, after the end of the OS thread's green threads,
    /// and within a job of any pool.
    ///
    /// # Errors
    ///
    /// The same as `tpool::execute`.
    #[track_caller]
    pub fn execute<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, JobError> {
        execute(self, job, unhandled::error_with_message_in)
    }

    /// Like [`execute`](ThreadPool::execute), for a job that does I/O. Switches.
    ///
    /// If the caller has left, the report of the job's error has its message, whatever `T` is.
    ///
    /// ```
    /// let pool = greenhub::tpool::Pool::new(1);
    /// let metadata = pool.execute_io(|| std::fs::metadata("."))?;
    /// assert!(metadata.is_dir());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error of `job`, and the errors of [`execute`](ThreadPool::execute).
    #[track_caller]
    pub fn execute_io<T: Send + 'static>(&self, job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        execute(self, job, unhandled::io_error_in)?
    }

    /// Like [`execute`](ThreadPool::execute), for a job that borrows. Switches.
    ///
    /// The wait is not left early: it returns the job's result, and an exit strikes at the next wait.
    ///
    /// ```
    /// let pool = greenhub::tpool::Pool::new(1);
    /// let mut numbers = vec![3, 1, 2];
    /// pool.execute_scoped(|| numbers.sort())?;
    /// assert_eq!(numbers, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The same as `tpool::execute_scoped`.
    pub fn execute_scoped<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T, JobError> {
        execute_scoped(self, job)
    }

    /// Runs `job` on an OS thread of this pool without waiting for it. Does not switch.
    ///
    /// A panic of `job` ends only the job. With a pool of size 0 the job runs before this returns.
    ///
    /// ```
    /// let pool = greenhub::tpool::Pool::new(1);
    /// let (done, is_done) = std::sync::mpsc::channel();
    /// pool.start(move || done.send(()).unwrap())?;
    /// is_done.recv().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if no OS thread can be started; `job` is dropped.
    pub fn start(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        if self.runs_in_caller()? {
            thread_pool::run(Box::new(job));
            return Ok(());
        }
        self.submit(Box::new(job), leftover::finish)
    }
}

/// Returns the error of a job that has panicked.
fn panicked(payload: Box<dyn Any + Send>) -> JobError {
    JobError::Panic(Panic::new(payload))
}

/// Returns the error in a forked child: the job runs in the parent.
fn left_behind() -> JobError {
    io::Error::other("the process was forked while the job ran, which goes on in the parent alone").into()
}

/// Runs the job on the calling OS thread. An exit of the caller passes through.
fn run_inline<T>(job: impl FnOnce() -> T) -> Result<T, JobError> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|payload| match payload.downcast::<Payload>() {
        Ok(exit) => resume_unwind(exit),
        Err(payload) => panicked(payload),
    })
}

/// Returns the first park of a caller and the mailbox of its OS thread. `None` if the job has to run on the calling
/// OS thread.
fn begin(pool: &ThreadPool) -> Result<Option<(Park, Arc<Mailbox>)>, JobError> {
    if thread_pool::is_here() || pool.runs_in_caller()? {
        return Ok(None);
    }
    let park = match Park::current(WaitReason::Offload) {
        Ok(park) => park,
        Err(error) if error.forbids_waits() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let main_loop = &local::get().main_loop;
    main_loop.ensure_hub().map_err(io::Error::from)?;
    let mailbox = main_loop.mailbox();
    let mailbox =
        mailbox.ok_or_else(|| io::Error::other("cannot wait for another OS thread: this thread has no hub"))?;
    Ok(Some((park, mailbox)))
}

/// A job that borrows. Its fields are dropped in this order, whether it has run or not.
struct Work<F, T> {
    job: F,
    result: Arc<Mutex<Option<Outcome<T>>>>,
    notice: DoneNotice,
}

type Outcome<T> = Result<T, Box<dyn Any + Send>>;

impl<F: FnOnce() -> T, T> Work<F, T> {
    fn run(self) {
        let Work { job, result, notice } = self;
        let outcome = catch_unwind(AssertUnwindSafe(job));
        *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        drop(result);
        drop(notice);
    }
}

/// Notifies the caller when it is dropped. Borrows nothing.
struct DoneNotice {
    done: Arc<Done>,
    mailbox: Arc<Mailbox>,
    greenlet: u32,
    _pending: PendingJob,
}

impl Drop for DoneNotice {
    fn drop(&mut self) {
        let mut state = self.done.lock();
        state.over = true;
        let message = Message::Wake { greenlet: self.greenlet, ticket: state.ticket };
        drop(state);
        self.done.changed.notify_one();
        // A hub that is gone wakes no greenlet. A caller that waits without the loop was notified above.
        drop(self.mailbox.post(message));
    }
}

/// The process was forked, and the job belongs to the parent.
struct LeftBehind;

/// The completion of a job that borrows.
struct Done {
    state: Mutex<DoneState>,
    changed: Condvar,
}

struct DoneState {
    over: bool,
    /// The ticket of the park that the completion wakes; before the first park 0, which no park has.
    ticket: u64,
}

impl Done {
    fn new() -> Done {
        Done { state: Mutex::new(DoneState { over: false, ticket: 0 }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, DoneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the job to finish. Returns `LeftBehind` in a forked child, where it never will.
    ///
    /// It is called under a mask and never unwinds.
    fn wait(&self, mut park: Park) -> Result<(), LeftBehind> {
        let process = fork::generation();
        loop {
            if fork::generation() != process {
                // No OS thread of this process uses what the job borrows.
                let over = self.state.try_lock().is_ok_and(|state| state.over);
                return if over { Ok(()) } else { Err(LeftBehind) };
            }
            let mut state = self.lock();
            if state.over {
                return Ok(());
            }
            state.ticket = park.ticket();
            drop(state);
            match park.park().and_then(|_| Park::current(WaitReason::Offload)) {
                Ok(next) => park = next,
                Err(_) => {
                    drop(self.changed.wait_while(self.lock(), |state| !state.over));
                    return Ok(());
                }
            }
        }
    }
}
