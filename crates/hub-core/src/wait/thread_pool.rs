//! Pools of OS threads for jobs that block and cannot wait on a hub, such as name resolution.
//!
//! Each kind of job has a pool of its own, so slow jobs of one kind do not delay those of another. A pool starts a
//! OS thread when a job finds no idle one, up to a bound. An OS thread ends when it has been idle for a while. The OS
//! threads block the signals that other OS threads should receive. A forked child starts with empty pools.
//!
//! While jobs wait for a busy pool, the pool has a monitor: one more OS thread, which reports jobs that are queued for
//! long. The pool threads cannot do this, because each may be stuck in its job. A caller would need a timer for each
//! job.

use std::cell::Cell;
use std::collections::VecDeque;
use std::env;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::shutdown::run_and_shutdown;
use crate::base::dormant::Dormant;
use crate::base::fork::{self, PerProcess};
use crate::base::os_thread::start_thread;
use crate::base::pool_usage::PoolUsage;
use crate::main_loop::meter;
use crate::report;

/// A job, which may block its OS thread.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

const VARIABLE: &str = "EVENTLET_THREADPOOL_SIZE";
const DEFAULT_SIZE: usize = 20;
const IDLE: Duration = Duration::from_secs(10);
/// The time after which a queued job is reported.
const LATE: Duration = Duration::from_secs(1);
/// The time that an ending OS thread waits for the green threads of its jobs.
const LIMIT: Duration = Duration::from_secs(10);
/// The value of [`ThreadPool::size`] until the first job reads the environment.
const UNSET: usize = usize::MAX;

/// The pool of `tpool::execute`.
pub(crate) static JOBS: ThreadPool = ThreadPool::named("greenhub-pool", UNSET);

/// Sets the maximum number of OS threads for `tpool::execute`. Does not switch.
///
/// The default is `EVENTLET_THREADPOOL_SIZE`, or else 20. The setting applies from the next job on: surplus OS threads
/// end after their job.
pub fn set_num_threads(size: NonZeroUsize) {
    JOBS.size.store(size.get().min(UNSET - 1), Ordering::Relaxed);
}

/// Returns the maximum number of OS threads for `tpool::execute`. Does not switch.
///
/// # Errors
///
/// Returns an error if `EVENTLET_THREADPOOL_SIZE` is not a number.
pub fn num_threads() -> io::Result<usize> {
    JOBS.size()
}

/// Ends the OS threads of `tpool::execute`. Does not switch.
///
/// Idle OS threads end at once, the others after their job and the queued jobs. The call does not wait for them. A
/// later job starts new OS threads.
pub fn end_threads() {
    JOBS.end();
}

/// Returns whether this is an OS thread of a pool.
pub(crate) fn is_here() -> bool {
    HERE.get()
}

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// A pool of OS threads for jobs that block.
///
/// Only the green thread that submits a job waits for it. An OS thread is started when a job finds no idle one and the
/// pool has fewer OS threads than its size. Further jobs are queued. A job that is queued for more than a second is
/// [reported](crate::set_report_stream), once. An OS thread that has been idle for ten seconds ends.
///
/// Dropping the pool ends its OS threads: idle OS threads at once, the others after their job and the queued jobs. The
/// drop does not wait for them. A forked child starts with an empty pool.
///
/// ```
/// use greenhub::tpool::Pool;
/// let images = Pool::new(4); // slow work that must not keep other jobs waiting
/// let sum = images.execute(|| (1..=1000_u64).sum::<u64>())?;
/// assert_eq!(sum, 500_500);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "threadpool")]
#[doc(alias = "ThreadPoolExecutor")]
pub struct ThreadPool {
    name: &'static str,
    size: AtomicUsize,
    threads: PerProcess<Arc<Threads>>,
}

impl ThreadPool {
    /// Creates a pool of at most `size` OS threads. None is started before the first job.
    ///
    /// With a size of 0 each job runs on the OS thread of its caller, and blocks it.
    #[must_use]
    pub const fn new(size: usize) -> ThreadPool {
        // `UNSET` itself is no size; one OS thread less is as good as no bound.
        ThreadPool::named("greenhub-own", if size == UNSET { UNSET - 1 } else { size })
    }

    /// Like [`new`](ThreadPool::new), with a name for the OS threads.
    #[must_use]
    pub const fn named(name: &'static str, size: usize) -> ThreadPool {
        ThreadPool { name, size: AtomicUsize::new(size), threads: PerProcess::new() }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the maximum number of OS threads.
    ///
    /// # Errors
    ///
    /// Returns an error if `EVENTLET_THREADPOOL_SIZE` is not a number.
    fn size(&self) -> io::Result<usize> {
        let size = self.size.load(Ordering::Relaxed);
        if size != UNSET {
            return Ok(size);
        }
        let asked = match env::var_os(VARIABLE) {
            None => DEFAULT_SIZE,
            Some(value) => parse_size(&value.to_string_lossy())?,
        };
        // A bound that was set meanwhile wins.
        let before = self.size.compare_exchange(UNSET, asked, Ordering::Relaxed, Ordering::Relaxed);
        Ok(before.err().unwrap_or(asked))
    }

    /// Returns whether jobs run on the OS thread of the caller, because the size is 0. Warns once if the environment
    /// says so.
    ///
    /// # Errors
    ///
    /// The same as [`size`](ThreadPool::size).
    pub(crate) fn runs_in_caller(&self) -> io::Result<bool> {
        static WARNED: AtomicBool = AtomicBool::new(false);
        let none = self.size()? == 0;
        if none && std::ptr::eq(self, &JOBS) && !WARNED.swap(true, Ordering::Relaxed) {
            report::warn(format!("{VARIABLE} is 0: each job runs on the OS thread of its caller, and blocks it"));
        }
        Ok(none)
    }

    /// Queues `job`. Never waits for a free OS thread.
    ///
    /// A panic of `job` does not leave its OS thread. After each job the OS thread calls `after`, and takes another job
    /// if that returns true.
    ///
    /// # Errors
    ///
    /// Returns an error if the size cannot be determined, or if the system refuses an OS thread and the pool has none
    /// that could run the job later. `job` is dropped.
    pub(crate) fn submit(&self, job: Job, after: fn() -> bool) -> io::Result<()> {
        let size = self.size()?;
        let usage = PoolUsage::of_process()?;
        self.threads.get_or_make(|| Arc::new(Threads::new(self.name, IDLE, usage)))?.submit(job, after, size)
    }

    fn end(&self) {
        if let Some(threads) = self.threads.get() {
            threads.end();
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("name", &self.name).finish_non_exhaustive()
    }
}

fn parse_size(value: &str) -> io::Result<usize> {
    value.trim().parse().map_err(|error| {
        let message = format!("{VARIABLE}={value:?} is not a number of OS threads: {error}");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}

/// The state that the OS threads of a pool share with the submitters of jobs.
struct Threads {
    name: &'static str,
    idle: Duration,
    late: Duration,
    usage: &'static PoolUsage,
    /// The number of queued jobs, and of those that were not reported yet. The table of dormant OS threads reads them
    /// without the lock.
    queued: AtomicUsize,
    unreported: AtomicUsize,
    state: Mutex<State>,
    work: Condvar,
    /// Wakes the monitor.
    congested: Condvar,
}

struct Queued {
    job: Job,
    since: Instant,
    reported: bool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    /// The number of OS threads.
    workers: usize,
    /// The number of idle OS threads, including those that were notified and have not woken up yet.
    idle: usize,
    size: usize,
    /// The number of calls of `end`. An OS thread that was started before the last one ends.
    ends: u64,
    monitor: Monitor,
}

#[derive(Default)]
enum Monitor {
    #[default]
    Absent,
    /// The monitor wakes by itself when the first queued job becomes late.
    Watching,
    /// The monitor has nothing to watch, and has to be notified of the next job.
    Resting,
}

impl State {
    /// Returns the age of the first job that was not reported yet.
    fn oldest(&self) -> Option<Duration> {
        self.queue.iter().find(|queued| !queued.reported).map(|queued| queued.since.elapsed())
    }

    /// Marks the jobs that were queued for `late` as reported, and returns their number.
    fn take_late(&mut self, late: Duration) -> usize {
        let new = self.queue.iter_mut().filter(|queued| !queued.reported && queued.since.elapsed() >= late);
        new.map(|queued| queued.reported = true).count()
    }
}

impl Threads {
    fn new(name: &'static str, idle: Duration, usage: &'static PoolUsage) -> Threads {
        Threads {
            name,
            idle,
            late: LATE,
            usage,
            queued: AtomicUsize::new(0),
            unreported: AtomicUsize::new(0),
            state: Mutex::default(),
            work: Condvar::new(),
            congested: Condvar::new(),
        }
    }

    fn submit(self: &Arc<Self>, job: Job, after: fn() -> bool, size: usize) -> io::Result<()> {
        let mut state = self.lock();
        state.size = size;
        // Each queued job has one idle OS thread on its way.
        let mut has_thread = state.idle > state.queue.len();
        if !has_thread && state.workers < size {
            let born = state.ends;
            match self.start("", move |threads| threads.work(born, after)) {
                Ok(()) => {
                    has_thread = true;
                    state.workers += 1;
                    self.usage.threads.fetch_add(1, Ordering::Relaxed);
                }
                // A busy OS thread takes the job later.
                Err(_) if state.workers > 0 => {}
                Err(error) => {
                    // The destructor of the job may submit another one.
                    drop(state);
                    let message = format!("cannot start an OS thread for a job that blocks: {error}");
                    return Err(io::Error::new(error.kind(), message));
                }
            }
        }
        state.queue.push_back(Queued { job, since: Instant::now(), reported: false });
        self.usage.jobs.fetch_add(1, Ordering::Relaxed);
        self.usage.queued.fetch_add(1, Ordering::Relaxed);
        self.queued.fetch_add(1, Ordering::Release);
        self.unreported.fetch_add(1, Ordering::Release);
        if !has_thread {
            self.have_monitored(&mut state);
        }
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Makes sure that queued jobs are reported when they become late. If no monitor can be started, they are not.
    fn have_monitored(self: &Arc<Self>, state: &mut State) {
        match state.monitor {
            Monitor::Watching => {}
            Monitor::Resting => self.congested.notify_one(),
            Monitor::Absent => {
                if self.start("-mon", |threads| threads.monitor()).is_ok() {
                    state.monitor = Monitor::Watching;
                }
            }
        }
    }

    fn end(&self) {
        self.lock().ends += 1;
        self.work.notify_all();
        self.congested.notify_all();
    }

    fn start(self: &Arc<Self>, suffix: &str, body: impl FnOnce(&Arc<Threads>) + Send + 'static) -> io::Result<()> {
        let threads = Arc::clone(self);
        start_thread(format!("{}{suffix}", self.name), move || run_and_shutdown(Some(LIMIT), || body(&threads)))
    }

    fn work(self: &Arc<Self>, born: u64, after: fn() -> bool) {
        HERE.set(true);
        let generation = fork::generation();
        while let Some(queued) = self.next_job(born) {
            meter::record_pool_wait(self.name, || queued.since.elapsed());
            run(queued.job);
            if generation != fork::generation() {
                // The job has forked, and this is the child, where the holder of the lock may not exist.
                return;
            }
            self.usage.jobs.fetch_sub(1, Ordering::Release);
            if !after() && self.leave(after) {
                break;
            }
        }
        self.usage.threads.fetch_sub(1, Ordering::Relaxed);
    }

    /// Removes the calling OS thread, which cannot take another job. Returns false if no other OS thread could take a
    /// queued job.
    fn leave(self: &Arc<Self>, after: fn() -> bool) -> bool {
        let mut state = self.lock();
        if state.queue.len() > state.idle {
            let born = state.ends;
            if self.start("", move |threads| threads.work(born, after)).is_ok() {
                // The new OS thread replaces this one.
                self.usage.threads.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            if state.workers == 1 {
                return false;
            }
        }
        state.workers -= 1;
        true
    }

    /// Returns the next job. Returns `None` if the OS thread is surplus, which is then removed.
    fn next_job(self: &Arc<Self>, born: u64) -> Option<Queued> {
        let mut state = self.lock();
        if state.workers <= state.size {
            if let Some(job) = self.take_first(&mut state) {
                return Some(job);
            }
            state.idle += 1;
            let nothing = |state: &mut State| state.queue.is_empty() && state.ends == born;
            let threads = Arc::clone(self);
            let dormant = Dormant::worker(move || threads.queued.load(Ordering::Acquire) == 0);
            let waited = self.work.wait_timeout_while(state, self.idle, nothing);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            drop(dormant);
            state.idle -= 1;
            if let Some(job) = self.take_first(&mut state) {
                return Some(job);
            }
        }
        state.workers -= 1;
        None
    }

    /// Takes the first queued job, for an OS thread that is awake.
    fn take_first(&self, state: &mut State) -> Option<Queued> {
        let queued = state.queue.pop_front()?;
        self.usage.queued.fetch_sub(1, Ordering::Relaxed);
        self.queued.fetch_sub(1, Ordering::Release);
        self.unreported.fetch_sub(usize::from(!queued.reported), Ordering::Release);
        Some(queued)
    }

    /// Reports late jobs, until no job was queued for a while.
    fn monitor(self: &Arc<Self>) {
        let mut state = self.lock();
        let ends = state.ends;
        loop {
            let age = state.oldest();
            if age.is_some_and(|age| age >= self.late) {
                let (late, size) = (state.take_late(self.late), state.size);
                self.unreported.fetch_sub(late, Ordering::Release);
                drop(state);
                report::warn(late_jobs(late, self.late, size, self.name));
                // Jobs that become late soon after are reported together.
                #[expect(clippy::disallowed_methods, reason = "the monitor is an OS thread without green threads")]
                thread::sleep(self.late);
                state = self.lock();
                continue;
            }
            let pause = match age {
                Some(age) => self.late.saturating_sub(age),
                None if state.queue.is_empty() && state.ends != ends => break,
                None => {
                    state.monitor = Monitor::Resting;
                    self.idle
                }
            };
            let threads = Arc::clone(self);
            let dormant = Dormant::worker(move || threads.unreported.load(Ordering::Acquire) == 0);
            let waited = self.congested.wait_timeout(state, pause);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            drop(dormant);
            state.monitor = Monitor::Watching;
            if age.is_none() && state.queue.is_empty() && timeout.timed_out() {
                break;
            }
        }
        state.monitor = Monitor::Absent;
    }

    /// Locks the state. Nothing panics under the lock, and if it did, the counts would still be right.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn late_jobs(late: usize, after: Duration, size: usize, name: &str) -> String {
    let jobs = if late == 1 { "a job has".to_owned() } else { format!("{late} jobs have") };
    format!("{jobs} waited for {after:?} for one of the {size} OS threads of {name}, all of which are busy")
}

/// Runs a job. Contains its panic, and a panic of the payload's destructor.
pub(crate) fn run(job: Job) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(job))
        && let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        std::mem::forget(worse);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::fork::tests::holds_in_child;
    use crate::base::pool_usage;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(60);

    fn pool(idle: Duration) -> Arc<Threads> {
        Arc::new(Threads::new("test", idle, Box::leak(Box::default())))
    }

    fn submit(job: Job) -> io::Result<()> {
        JOBS.submit(job, || true)
    }

    /// Returns the number of the process's jobs that are queued or running.
    fn pending() -> usize {
        pool_usage::count(|usage| &usage.jobs)
    }

    impl Threads {
        fn pending(&self) -> usize {
            self.usage.jobs.load(Ordering::Relaxed)
        }
    }

    /// Waits until other OS threads have made `holds` true; a hang fails.
    fn until(expectation: &str, mut holds: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !holds() {
            assert!(begin.elapsed() < LONG, "{expectation}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn jobs_run_on_no_more_threads_than_the_bound() {
        let pool = pool(LONG);
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MAX: AtomicUsize = AtomicUsize::new(0);
        let (done, results) = mpsc::channel();
        for _ in 0..30 {
            let done = done.clone();
            let job = move || {
                MAX.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(2));
                RUNNING.fetch_sub(1, Ordering::SeqCst);
                done.send(()).unwrap();
            };
            pool.submit(Box::new(job), || true, 3).unwrap();
        }
        for _ in 0..30 {
            results.recv_timeout(LONG).unwrap();
        }
        assert!(MAX.load(Ordering::SeqCst) <= 3);
        assert_eq!(pool.lock().workers, 3);
    }

    #[test]
    fn jobs_that_wait_for_each_other_get_a_thread_each() {
        let pool = pool(LONG);
        let barrier: &'static _ = Box::leak(Box::new(std::sync::Barrier::new(4)));
        let (done, results) = mpsc::channel();
        for _ in 0..4 {
            let done = done.clone();
            let job = move || {
                barrier.wait();
                done.send(()).unwrap();
            };
            pool.submit(Box::new(job), || true, 4).unwrap();
        }
        for _ in 0..4 {
            results.recv_timeout(LONG).unwrap();
        }
    }

    #[test]
    fn an_idle_thread_is_reused() {
        let pool = pool(LONG);
        for _ in 0..5 {
            let (done, result) = mpsc::channel();
            pool.submit(Box::new(move || done.send(()).unwrap()), || true, 9).unwrap();
            result.recv_timeout(LONG).unwrap();
            until("the worker is idle again", || pool.lock().idle == 1);
        }
        assert_eq!(pool.lock().workers, 1);
    }

    #[test]
    fn idle_threads_end() {
        let pool = pool(Duration::from_millis(1));
        pool.submit(Box::new(|| ()), || true, 1).unwrap();
        until("the worker ends", || pool.lock().workers == 0);
        let (done, result) = mpsc::channel();
        pool.submit(Box::new(move || done.send(()).unwrap()), || true, 1).unwrap();
        result.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn threads_above_a_lower_bound_end_after_their_job() {
        let pool = pool(LONG);
        let (hold, held) = mpsc::channel::<()>();
        pool.submit(Box::new(move || _ = held.recv()), || true, 2).unwrap();
        let (hold_too, held) = mpsc::channel::<()>();
        pool.submit(Box::new(move || _ = held.recv()), || true, 2).unwrap();
        assert_eq!(pool.lock().workers, 2);
        pool.submit(Box::new(|| ()), || true, 1).unwrap();
        drop((hold, hold_too));
        until("one worker is left", || pool.lock().workers == 1 && pool.pending() == 0);
    }

    #[test]
    fn a_panicking_job_leaves_its_thread_to_the_next() {
        struct PanicsAgain;
        impl Drop for PanicsAgain {
            fn drop(&mut self) {
                std::panic::resume_unwind(Box::new(()));
            }
        }
        let pool = pool(LONG);
        pool.submit(Box::new(|| std::panic::resume_unwind(Box::new(PanicsAgain))), || true, 1).unwrap();
        let (done, result) = mpsc::channel();
        pool.submit(Box::new(move || done.send(()).unwrap()), || true, 1).unwrap();
        result.recv_timeout(LONG).unwrap();
        assert_eq!(pool.lock().workers, 1);
    }

    #[test]
    fn jobs_queued_behind_an_ending_thread_get_another() {
        let pool = pool(LONG);
        let (hold, held) = mpsc::channel::<()>();
        let (done, results) = mpsc::channel();
        pool.submit(Box::new(move || _ = held.recv()), || false, 1).unwrap();
        for n in 0..4 {
            let done = done.clone();
            pool.submit(Box::new(move || done.send(n).unwrap()), || false, 1).unwrap();
        }
        drop(hold);
        let mut ran: Vec<i32> = (0..4).map(|_| results.recv_timeout(LONG).unwrap()).collect();
        ran.sort_unstable();
        assert_eq!(ran, [0, 1, 2, 3]);
        until("all threads end", || pool.lock().workers == 0 && pool.usage.threads.load(Ordering::SeqCst) == 0);
    }

    #[test]
    fn queued_and_running_jobs_are_pending() {
        let pool = pool(LONG);
        let (hold, held) = mpsc::channel::<()>();
        pool.submit(Box::new(move || _ = held.recv()), || true, 1).unwrap();
        pool.submit(Box::new(|| ()), || true, 1).unwrap();
        until("one runs, one is queued", || pool.lock().queue.len() == 1);
        assert_eq!(pool.pending(), 2);
        drop(hold);
        until("nothing is pending", || pool.pending() == 0);
    }

    #[test]
    fn a_forked_child_has_a_pool_of_its_own_that_works() {
        submit(Box::new(|| ())).unwrap();
        assert!(holds_in_child(|| {
            let (done, result) = mpsc::channel();
            submit(Box::new(move || done.send(()).unwrap())).is_ok() && result.recv_timeout(LONG).is_ok()
        }));
    }

    #[test]
    fn an_own_pool_starts_empty_in_a_forked_child() {
        static OWN: ThreadPool = ThreadPool::new(1);
        let (hold, held) = mpsc::channel::<()>();
        OWN.submit(Box::new(move || _ = held.recv()), || true).unwrap();
        OWN.submit(Box::new(|| ()), || true).unwrap();
        assert!(holds_in_child(|| {
            let (done, result) = mpsc::channel();
            OWN.submit(Box::new(move || done.send(()).unwrap()), || true).is_ok() && result.recv_timeout(LONG).is_ok()
        }));
        drop(hold);
    }

    #[test]
    fn jobs_of_the_parent_are_not_pending_in_a_child() {
        let (hold, held) = mpsc::channel::<()>();
        submit(Box::new(move || _ = held.recv())).unwrap();
        assert!(pending() > 0);
        assert!(holds_in_child(|| pending() == 0));
        drop(hold);
    }

    #[test]
    fn a_size_is_a_number() {
        assert_eq!(parse_size("7").unwrap(), 7);
        assert_eq!(parse_size(" 7 ").unwrap(), 7);
        assert_eq!(parse_size("0").unwrap(), 0);
        for wrong in ["", "-1", "many", "99999999999999999999999"] {
            let error = parse_size(wrong).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("EVENTLET_THREADPOOL_SIZE={wrong:?}")), "{error}");
        }
    }
}
