//! OS threads for jobs that block and cannot wait on a hub, such as name resolution.
//!
//! Threads are started when a job finds none idle, up to a bound, and end when they have been idle
//! for a while. They block the signals that other threads are to receive. A forked child has a pool of
//! its own.

use std::cell::Cell;
use std::collections::VecDeque;
use std::env;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::dormant::Dormant;
use crate::fork::{self, PerProcess};

/// Work for a thread that may block.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

const VARIABLE: &str = "EVENTLET_THREADPOOL_SIZE";
const DEFAULT_SIZE: NonZeroUsize = NonZeroUsize::new(20).unwrap();
const IDLE: Duration = Duration::from_secs(10);
/// Resolvers with their plug-ins need more than a small stack. Only touched pages are resident.
const STACK: usize = 1 << 20;

static CURRENT: PerProcess<Pool> = PerProcess::new();
/// The bound on threads; 0 until it is set or the first job asks the environment.
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// Queues `job` for the process's pool. Never waits for a thread to be free.
///
/// A panic of `job` goes no further than its thread, which then takes the next job.
///
/// # Errors
///
/// `EVENTLET_THREADPOOL_SIZE` is not a positive number, or the system refused a thread and there is
/// none that could run the job later. `job` is dropped.
pub(crate) fn submit(job: Job) -> io::Result<()> {
    let size = size()?;
    Pool::current()?.submit(job, size)
}

/// How many OS threads the process's pool has, and how many of its jobs are queued or running.
pub(crate) fn usage() -> (usize, usize) {
    CURRENT.get().map_or((0, 0), Pool::usage)
}

/// How many jobs of the process's pool are queued or running.
#[cfg(test)]
fn pending() -> usize {
    usage().1
}

/// Sets how many OS threads there are at most for jobs that block; before, `EVENTLET_THREADPOOL_SIZE` says so, or it is
/// 20. Holds from the next job on: those who are too many end when they have done theirs. Does not switch.
pub fn set_threads(size: NonZeroUsize) {
    SIZE.store(size.get(), Ordering::Relaxed);
}

/// Ends the OS threads for jobs that block: at once those that have nothing to do, the others when they have done
/// what they do and what is queued. Does not wait for them, and a later job starts new ones. Does not switch.
pub fn end_threads() {
    if let Some(pool) = CURRENT.get() {
        pool.end();
    }
}

/// Whether no job of the process's pool is queued or running. Waits for no lock.
fn is_idle() -> bool {
    CURRENT.get().is_none_or(|pool| pool.state.try_lock().is_ok_and(|state| state.pending == 0))
}

/// Whether this is an OS thread of the pool.
pub(crate) fn is_here() -> bool {
    HERE.get()
}

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

fn size() -> io::Result<NonZeroUsize> {
    if let Some(size) = NonZeroUsize::new(SIZE.load(Ordering::Relaxed)) {
        return Ok(size);
    }
    let asked = match env::var_os(VARIABLE) {
        None => DEFAULT_SIZE,
        Some(value) => parse_size(&value.to_string_lossy())?,
    };
    // Yields to a bound that was set meanwhile.
    let before = SIZE.compare_exchange(0, asked.get(), Ordering::Relaxed, Ordering::Relaxed);
    Ok(before.err().and_then(NonZeroUsize::new).unwrap_or(asked))
}

fn parse_size(value: &str) -> io::Result<NonZeroUsize> {
    value.trim().parse().map_err(|error| {
        let message = format!("{VARIABLE}={value:?} is no size for the pool of threads, which is 1 or more: {error}");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}

struct Pool {
    state: Mutex<State>,
    work: Condvar,
    idle: Duration,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// Threads that exist.
    workers: usize,
    /// Those of them that wait for work, or were told of some and are not up yet.
    idle: usize,
    /// Jobs that are queued or running.
    pending: usize,
    size: usize,
    /// How often the threads were told to end; those of before do.
    ends: u64,
}

impl Pool {
    fn new(idle: Duration) -> Pool {
        Pool { state: Mutex::default(), work: Condvar::new(), idle }
    }

    /// The pool of this process, not of the one that it was forked from.
    fn current() -> io::Result<&'static Pool> {
        CURRENT.get_or_make(|| Pool::new(IDLE))
    }

    fn submit(&'static self, job: Job, size: NonZeroUsize) -> io::Result<()> {
        let mut state = self.lock();
        state.size = size.get();
        // Each queued job has one of the idle threads coming for it.
        if state.idle <= state.queue.len() && state.workers < state.size {
            match self.start_worker(state.ends) {
                Ok(()) => state.workers += 1,
                // Somebody will come for the job, later.
                Err(_) if state.workers > 0 => {}
                Err(error) => {
                    // What a dropped job runs may submit another.
                    drop(state);
                    let message = format!("cannot start a thread for a job that blocks: {error}");
                    return Err(io::Error::new(error.kind(), message));
                }
            }
        }
        state.queue.push_back(job);
        state.pending += 1;
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    fn end(&self) {
        self.lock().ends += 1;
        self.work.notify_all();
    }

    fn usage(&self) -> (usize, usize) {
        let state = self.lock();
        (state.workers, state.pending)
    }

    #[cfg(test)]
    fn pending(&self) -> usize {
        self.usage().1
    }

    fn start_worker(&'static self, born: u64) -> io::Result<()> {
        // A thread begins with the mask of the one that starts it: so there is no moment in which
        // a signal could be delivered to it.
        let _masked = SignalsBlocked::new()?;
        thread::Builder::new().name("greenhub-pool".into()).stack_size(STACK).spawn(move || self.work(born)).map(drop)
    }

    fn work(&self, born: u64) {
        HERE.set(true);
        let generation = fork::generation();
        while let Some(job) = self.next_job(born) {
            run(job);
            if generation != fork::generation() {
                // The job has forked: this is the child, and the lock may be held by nobody.
                return;
            }
            self.lock().pending -= 1;
        }
    }

    /// `None`: the thread is one too many, and counted out.
    fn next_job(&self, born: u64) -> Option<Job> {
        let mut state = self.lock();
        if state.workers <= state.size {
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            state.idle += 1;
            let nothing = |state: &mut State| state.queue.is_empty() && state.ends == born;
            let dormant = Dormant::worker(is_idle);
            let waited = self.work.wait_timeout_while(state, self.idle, nothing);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            drop(dormant);
            state.idle -= 1;
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
        }
        state.workers -= 1;
        None
    }

    /// Nothing panics while it is locked; and if it did, the counts would still be right.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a panic of the job from the worker, and one of dropping what it panicked with.
fn run(job: Job) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(job))
        && let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        std::mem::forget(worse);
    }
}

/// Blocks every signal of the calling thread that is not about a fault of its own.
struct SignalsBlocked {
    before: SigSet,
}

impl SignalsBlocked {
    fn new() -> io::Result<SignalsBlocked> {
        use Signal::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
        let mut all = SigSet::all();
        // A blocked fault kills the process without its handler, which has something to report.
        for fault in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS] {
            all.remove(fault);
        }
        Ok(SignalsBlocked { before: all.thread_swap_mask(SigmaskHow::SIG_SETMASK)? })
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // The mask that the thread had cannot be refused.
        let _ = self.before.thread_set_mask();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::fork::tests::holds_in_child;
    use std::sync::mpsc;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(60);

    fn pool(idle: Duration) -> &'static Pool {
        Box::leak(Box::new(Pool::new(idle)))
    }

    fn size(size: usize) -> NonZeroUsize {
        NonZeroUsize::new(size).unwrap()
    }

    /// Waits for what other threads will bring about; a hang fails.
    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !holds() {
            assert!(begin.elapsed() < LONG, "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn jobs_run_on_no_more_threads_than_the_bound() {
        let pool = pool(LONG);
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let (done, results) = mpsc::channel();
        for _ in 0..30 {
            let done = done.clone();
            let job = move || {
                MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(2));
                RUNNING.fetch_sub(1, Ordering::SeqCst);
                done.send(()).unwrap();
            };
            pool.submit(Box::new(job), size(3)).unwrap();
        }
        for _ in 0..30 {
            results.recv_timeout(LONG).unwrap();
        }
        assert!(MOST.load(Ordering::SeqCst) <= 3);
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
            pool.submit(Box::new(job), size(4)).unwrap();
        }
        for _ in 0..4 {
            results.recv_timeout(LONG).unwrap();
        }
    }

    #[test]
    fn an_idle_thread_is_used_again() {
        let pool = pool(LONG);
        for _ in 0..5 {
            let (done, result) = mpsc::channel();
            pool.submit(Box::new(move || done.send(()).unwrap()), size(9)).unwrap();
            result.recv_timeout(LONG).unwrap();
            until("the worker is idle again", || pool.lock().idle == 1);
        }
        assert_eq!(pool.lock().workers, 1);
    }

    #[test]
    fn idle_threads_end() {
        let pool = pool(Duration::from_millis(1));
        pool.submit(Box::new(|| ()), size(1)).unwrap();
        until("the worker ends", || pool.lock().workers == 0);
        let (done, result) = mpsc::channel();
        pool.submit(Box::new(move || done.send(()).unwrap()), size(1)).unwrap();
        result.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn threads_above_a_lower_bound_end_after_their_job() {
        let pool = pool(LONG);
        let (hold, held) = mpsc::channel::<()>();
        pool.submit(Box::new(move || _ = held.recv()), size(2)).unwrap();
        let (hold_too, held) = mpsc::channel::<()>();
        pool.submit(Box::new(move || _ = held.recv()), size(2)).unwrap();
        assert_eq!(pool.lock().workers, 2);
        pool.submit(Box::new(|| ()), size(1)).unwrap();
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
        pool.submit(Box::new(|| std::panic::resume_unwind(Box::new(PanicsAgain))), size(1)).unwrap();
        let (done, result) = mpsc::channel();
        pool.submit(Box::new(move || done.send(()).unwrap()), size(1)).unwrap();
        result.recv_timeout(LONG).unwrap();
        assert_eq!(pool.lock().workers, 1);
    }

    #[test]
    fn queued_and_running_jobs_are_pending() {
        let pool = pool(LONG);
        let (hold, held) = mpsc::channel::<()>();
        pool.submit(Box::new(move || _ = held.recv()), size(1)).unwrap();
        pool.submit(Box::new(|| ()), size(1)).unwrap();
        until("one runs, one is queued", || pool.lock().queue.len() == 1);
        assert_eq!(pool.pending(), 2);
        drop(hold);
        until("nothing is pending", || pool.pending() == 0);
    }

    #[test]
    fn signals_are_left_to_other_threads() {
        let pool = pool(LONG);
        let (tell, told) = mpsc::channel();
        let job = move || {
            let mask = SigSet::thread_get_mask().unwrap();
            let blocked = [Signal::SIGINT, Signal::SIGCHLD, Signal::SIGSEGV].map(|signal| mask.contains(signal));
            tell.send(blocked).unwrap();
        };
        pool.submit(Box::new(job), size(1)).unwrap();
        assert_eq!(told.recv_timeout(LONG).unwrap(), [true, true, false]);
    }

    #[test]
    fn the_submitters_own_mask_is_as_before() {
        let before = SigSet::thread_get_mask().unwrap();
        pool(LONG).submit(Box::new(|| ()), size(1)).unwrap();
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
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
    fn nothing_of_the_parents_is_pending_in_a_child() {
        let (hold, held) = mpsc::channel::<()>();
        submit(Box::new(move || _ = held.recv())).unwrap();
        assert!(pending() > 0);
        assert!(holds_in_child(|| pending() == 0));
        drop(hold);
    }

    #[test]
    fn a_size_is_a_positive_number() {
        assert_eq!(parse_size("7").unwrap().get(), 7);
        assert_eq!(parse_size(" 7 ").unwrap().get(), 7);
        for wrong in ["", "0", "-1", "many", "99999999999999999999999"] {
            let error = parse_size(wrong).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("EVENTLET_THREADPOOL_SIZE={wrong:?}")), "{error}");
        }
    }
}
