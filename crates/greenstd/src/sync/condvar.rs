//! std's `Condvar`.

use std::fmt;
use std::sync::LockResult;
use std::time::{Duration, Instant};

use hub_core::{BiasedMutex, Grace, LoopError, WaitReason};

use super::attempt::{Late, within_grace};
use super::line::{Line, Wait};
use super::mutex::MutexGuard;
use super::poison;

/// std's `Condvar`, for green threads of one or more hubs and for plain OS threads, with a [`Mutex`](super::Mutex).
///
/// Those who wait are notified in the order in which they came. One that is killed after it was notified, and
/// before it has the mutex again, leaves the notification to the next. A kill or a timeout that strikes while it
/// waits does not poison the mutex, which it does not have then.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::{sync::{Arc, Condvar, Mutex}, thread};
/// let pair = Arc::new((Mutex::new(false), Condvar::new()));
/// let other = Arc::clone(&pair);
/// thread::spawn(move || {
///     *other.0.lock().unwrap() = true;
///     other.1.notify_one();
/// });
/// let ready = pair.1.wait_while(pair.0.lock().unwrap(), |ready| !*ready).unwrap();
/// assert!(*ready);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Condvar(BiasedMutex<Condition>);

struct Condition {
    waiting: Line,
    /// How often somebody was notified.
    notified: u64,
}

/// To be notified.
struct Notification;

impl Wait for Notification {
    type State = Condition;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Condition;

    fn line(state: &mut Condition) -> &mut Line {
        &mut state.waiting
    }

    fn pass_on(state: &mut Condition) {
        state.notify();
    }
}

impl Condition {
    fn notify(&mut self) {
        self.notified += 1;
        self.waiting.choose();
    }
}

impl Condvar {
    /// One that nobody waits for.
    #[must_use]
    pub const fn new() -> Condvar {
        Condvar(BiasedMutex::new(Condition { waiting: Line::new(), notified: 0 }))
    }

    /// Unlocks the mutex, waits to be notified, and locks it again. Switches. May return without a notification.
    ///
    /// # Errors
    ///
    /// If the mutex is poisoned; the guard is in the error.
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let (result, waited) = self.wait_within(None, guard);
        assert!(waited.is_ok(), "{}", LoopError::Panicking);
        result
    }

    /// Waits as long as `condition` holds. Switches.
    ///
    /// # Errors
    ///
    /// As [`wait`](Condvar::wait).
    ///
    /// # Panics
    ///
    /// As [`wait`](Condvar::wait), and if `condition` does.
    #[track_caller]
    pub fn wait_while<'a, T, F>(&self, guard: MutexGuard<'a, T>, mut condition: F) -> LockResult<MutexGuard<'a, T>>
    where
        F: FnMut(&mut T) -> bool,
    {
        let mut guard = guard;
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`wait`](Condvar::wait), for at most `timeout`, not counted the time until the mutex is locked again.
    /// While panicking it waits for the time of grace at most, which then counts as timed out. Switches.
    ///
    /// # Errors
    ///
    /// As [`wait`](Condvar::wait).
    ///
    /// # Panics
    ///
    /// As [`wait`](Condvar::wait).
    #[track_caller]
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let (result, waited) = self.wait_within(Some(timeout), guard);
        poison::map(result, |guard| (guard, WaitTimeoutResult(waited.is_err())))
    }

    /// Waits as long as `condition` holds, and for at most `timeout`. Switches.
    ///
    /// # Errors
    ///
    /// As [`wait`](Condvar::wait).
    ///
    /// # Panics
    ///
    /// As [`wait`](Condvar::wait), and if `condition` does.
    #[track_caller]
    pub fn wait_timeout_while<'a, T, F>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: F,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)>
    where
        F: FnMut(&mut T) -> bool,
    {
        let (begin, mut guard, mut is_late) = (Instant::now(), guard, false);
        loop {
            if !condition(&mut *guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            let left = timeout.saturating_sub(begin.elapsed());
            if is_late || left.is_zero() {
                return Ok((guard, WaitTimeoutResult(true)));
            }
            let waited;
            (guard, waited) = self.wait_timeout(guard, left)?;
            // It may be the time of grace that is over, and not `left`.
            is_late = waited.timed_out();
        }
    }

    #[track_caller]
    fn wait_within<'a, T>(
        &self,
        timeout: Option<Duration>,
        guard: MutexGuard<'a, T>,
    ) -> (LockResult<MutexGuard<'a, T>>, Result<(), Late>) {
        let mutex = guard.mutex();
        let (mut guard, mut before) = (Some(guard), None);
        // Without a limit there is no way to say that it was too late.
        let grace = if timeout.is_none() { Grace::begin_whole } else { Grace::begin };
        let waited = within_grace::<Notification, _>(grace, timeout, &self.0, |condition, chosen| {
            // Nobody can notify between the unlocking and the place in the line.
            drop(guard.take());
            let before = *before.get_or_insert(condition.notified);
            (chosen || condition.notified != before).then_some(())
        });
        let notified = Notified { condvar: self, notified: waited.is_ok() };
        let locked = mutex.lock();
        std::mem::forget(notified);
        (locked, waited)
    }

    /// Wakes the first of those who wait, if there is one. Does not switch.
    pub fn notify_one(&self) {
        self.0.lock().notify();
    }

    /// Wakes all who wait. Does not switch.
    pub fn notify_all(&self) {
        let mut condition = self.0.lock();
        condition.notified += 1;
        condition.waiting.choose_all();
    }
}

impl Default for Condvar {
    fn default() -> Condvar {
        Condvar::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}

/// What a green thread was told, until it has the mutex.
struct Notified<'a> {
    condvar: &'a Condvar,
    notified: bool,
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if self.notified {
            self.condvar.notify_one();
        }
    }
}

/// Whether a wait with a limit has timed out, std's `WaitTimeoutResult`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether it has.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}
