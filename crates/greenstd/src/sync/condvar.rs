//! std's `Condvar`.

use std::fmt;
use std::sync::LockResult;
use std::time::{Duration, Instant};

use hub_core::{BiasedMutex, Grace, LoopErrorKind, WaitReason};

use super::mutex::MutexGuard;
use super::poison;
use super::wait_infallible::{GraceError, within_grace};
use super::wait_queue::{Wait, WaitQueue};

/// A condition variable, std's `Condvar`, for use with a [`Mutex`](super::Mutex).
///
/// It serves green threads of one or more hubs and plain OS threads. Waiters are notified in FIFO order. A waiter that
/// an exit unwinds after its notification, but before it has the mutex again, passes the notification to the next
/// waiter. An exit that strikes during the wait does not poison the mutex: the waiter does not hold it then.
///
/// ```
/// use greenhub::thread;
/// use greenhub::sync::{Arc, Condvar, Mutex};
/// let pair = Arc::new((Mutex::new(false), Condvar::new()));
/// let other = Arc::clone(&pair);
/// thread::spawn(move || {
///     *other.0.lock().unwrap() = true;
///     other.1.notify_one();
/// });
/// let ready = pair.1.wait_while(pair.0.lock().unwrap(), |ready| !*ready).unwrap();
/// assert!(*ready);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Condvar(BiasedMutex<Condition>);

struct Condition {
    waiting: WaitQueue,
    /// The number of notifications so far.
    notified: u64,
}

/// The wait for a notification.
struct NotificationWait;

impl Wait for NotificationWait {
    type State = Condition;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Condition;

    fn queue(state: &mut Condition) -> &mut WaitQueue {
        &mut state.waiting
    }

    fn regrant(state: &mut Condition) {
        state.notify();
    }
}

impl Condition {
    fn notify(&mut self) {
        self.notified += 1;
        self.waiting.grant();
    }
}

impl Condvar {
    /// Creates a new condition variable which is ready to be waited on and notified.
    #[must_use]
    pub const fn new() -> Condvar {
        Condvar(BiasedMutex::new(Condition { waiting: WaitQueue::new(), notified: 0 }))
    }

    /// Unlocks the mutex, waits for a notification, and locks the mutex again. Switches.
    ///
    /// It may return without a notification.
    ///
    /// # Errors
    ///
    /// Returns an error if the mutex is poisoned; the error holds the guard.
    ///
    /// # Panics
    ///
    /// Like [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let (result, waited) = self.wait_within(None, guard);
        assert!(waited.is_ok(), "{}", LoopErrorKind::Panicking);
        result
    }

    /// Waits until `condition` returns false. Switches.
    ///
    /// # Errors
    ///
    /// Like [`wait`](Condvar::wait).
    ///
    /// # Panics
    ///
    /// Like [`wait`](Condvar::wait), and if `condition` panics.
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

    /// Waits for a notification, for at most `timeout`. Switches.
    ///
    /// The time to lock the mutex again is not counted. While panicking, the wait ends at the latest with the panicking
    /// grace, and that counts as timed out.
    ///
    /// # Errors
    ///
    /// Like [`wait`](Condvar::wait).
    ///
    /// # Panics
    ///
    /// Like [`wait`](Condvar::wait).
    #[track_caller]
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let (result, waited) = self.wait_within(Some(timeout), guard);
        poison::map(result, |guard| (guard, WaitTimeoutResult(waited.is_err())))
    }

    /// Waits until `condition` returns false, for at most `timeout`. Switches.
    ///
    /// # Errors
    ///
    /// Like [`wait`](Condvar::wait).
    ///
    /// # Panics
    ///
    /// Like [`wait`](Condvar::wait), and if `condition` panics.
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
        let (begin, mut guard, mut timed_out) = (Instant::now(), guard, false);
        loop {
            if !condition(&mut *guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            let left = timeout.saturating_sub(begin.elapsed());
            if timed_out || left.is_zero() {
                return Ok((guard, WaitTimeoutResult(true)));
            }
            let waited;
            (guard, waited) = self.wait_timeout(guard, left)?;
            // The panicking grace may be over, and not `left`.
            timed_out = waited.timed_out();
        }
    }

    #[track_caller]
    fn wait_within<'a, T>(
        &self,
        timeout: Option<Duration>,
        guard: MutexGuard<'a, T>,
    ) -> (LockResult<MutexGuard<'a, T>>, Result<(), GraceError>) {
        let mutex = guard.mutex();
        let (mut guard, mut before) = (Some(guard), None);
        // Without a timeout the signature cannot report the end of the grace: take the whole of it.
        let grace = if timeout.is_none() { Grace::begin_whole } else { Grace::begin };
        let waited = within_grace::<NotificationWait, _>(grace, timeout, &self.0, |condition, granted| {
            // Unlocks under the lock of the condition, so no notification can come before the waiter is in the queue.
            drop(guard.take());
            let before = *before.get_or_insert(condition.notified);
            (granted || condition.notified != before).then_some(())
        });
        let notified = PendingNotification { condvar: self, notified: waited.is_ok() };
        let locked = mutex.lock();
        std::mem::forget(notified);
        (locked, waited)
    }

    /// Wakes up the first waiter, if there is one. Does not switch.
    pub fn notify_one(&self) {
        self.0.lock().notify();
    }

    /// Wakes up all waiters. Does not switch.
    pub fn notify_all(&self) {
        let mut condition = self.0.lock();
        condition.notified += 1;
        condition.waiting.grant_all();
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

/// Holds a notification until its waiter has the mutex. `Drop` passes it to the next waiter.
struct PendingNotification<'a> {
    condvar: &'a Condvar,
    notified: bool,
}

impl Drop for PendingNotification<'_> {
    fn drop(&mut self) {
        if self.notified {
            self.condvar.notify_one();
        }
    }
}

/// Whether a wait with a timeout timed out, std's `WaitTimeoutResult`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Returns true if the wait was known to have timed out.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}
