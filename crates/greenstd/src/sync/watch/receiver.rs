use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use hub_core::{Deadline, LeftMark, ReadyMark, WaitReason, Waitable};

use super::{RecvError, RecvTimeoutError, Ref, Shared, State};
use crate::sync::close_wait::Close;
use crate::sync::wait_queue::{Wait, WaitQueue};

/// The receiving half of a [`channel`](super::channel).
///
/// A clone has seen what this receiver has seen.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The last change that this receiver has seen.
    seen: u64,
}

/// The wait for a change. It is for all waiters: there is nothing to regrant.
struct ChangeWait<T>(PhantomData<T>);

impl<T> Wait for ChangeWait<T> {
    type State = State<T>;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Channel;
    const CHARGED: bool = true;

    fn queue(state: &mut State<T>) -> &mut WaitQueue {
        &mut state.changing.queue
    }

    fn regrant(_: &mut State<T>) {}
}

impl<T> Receiver<T> {
    /// Returns a receiver that the caller has counted.
    pub(super) fn new(shared: Arc<Shared<T>>, seen: u64) -> Receiver<T> {
        Receiver { shared, seen }
    }

    /// Returns the present value, without marking it as seen. Does not switch.
    #[must_use]
    pub fn borrow(&self) -> Ref<T> {
        self.shared.state.lock().borrow(self.seen)
    }

    /// Returns the present value, and marks it as seen. Does not switch.
    pub fn borrow_and_update(&mut self) -> Ref<T> {
        let state = self.shared.state.lock();
        let seen = std::mem::replace(&mut self.seen, state.version);
        state.borrow(seen)
    }

    /// Returns true if the value has changed since this receiver saw one. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns [`RecvError::Closed`] if the present value was seen, and all senders are gone.
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        let state = self.shared.state.lock();
        let changed = state.version != self.seen;
        if !changed && state.senders == 0 { Err(RecvError::Closed) } else { Ok(changed) }
    }

    /// Marks the present value as seen. Does not switch.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.state.lock().version;
    }

    /// Waits until the value has changed, and marks it as seen. Switches.
    ///
    /// # Errors
    ///
    /// Returns [`RecvError::Closed`] if the present value was seen, and all senders are gone. Returns
    /// [`RecvError::Loop`] where the caller may not wait (in the main loop, while panicking), and if the main loop ends
    /// the wait of the main greenlet by an error.
    pub fn changed(&mut self) -> Result<(), RecvError> {
        self.changed_within(&mut Deadline::none()).map_err(RecvTimeoutError::without_limit)
    }

    /// Like [`changed`](Receiver::changed), for at most `timeout`. Switches.
    ///
    /// A timeout of zero lets other green threads run once.
    ///
    /// # Errors
    ///
    /// Returns [`RecvTimeoutError::TimedOut`] if the value did not change in time, or an error of
    /// [`changed`](Receiver::changed).
    pub fn changed_timeout(&mut self, timeout: Duration) -> Result<(), RecvTimeoutError> {
        self.changed_within(&mut Deadline::from(timeout))
    }

    fn changed_within(&mut self, deadline: &mut Deadline) -> Result<(), RecvTimeoutError> {
        let seen = self.seen;
        let changed = ChangeWait::wait(&self.shared.state, deadline, (), |state, _| {
            if state.version != seen {
                Ok(Some(state.version))
            } else if state.senders == 0 {
                Ok(None)
            } else {
                Err(())
            }
        })?;
        self.seen = changed.ok_or(RecvTimeoutError::Closed)?;
        Ok(())
    }

    /// Waits for a value for which `condition` returns true, and marks it as seen. Switches.
    ///
    /// It begins with the present value, and may miss values in between. Each value that `condition` gets is marked as
    /// seen. `condition` may wait.
    ///
    /// ```
    /// use greenhub::sync::watch;
    /// let (sender, mut receiver) = watch::channel(0);
    /// greenhub::thread::spawn(move || (1..=3).try_for_each(|n| sender.send(n)));
    /// assert_eq!(*receiver.wait_for(|&n| n >= 3)?, 3);
    /// # Ok::<(), watch::RecvError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`RecvError::Closed`] if all senders are gone, and `condition` returns false for the last value. Returns
    /// [`RecvError::Loop`] like [`changed`](Receiver::changed).
    pub fn wait_for(&mut self, condition: impl FnMut(&T) -> bool) -> Result<Ref<T>, RecvError> {
        self.wait_for_within(Deadline::none(), condition).map_err(RecvTimeoutError::without_limit)
    }

    /// Like [`wait_for`](Receiver::wait_for), for at most `timeout`. Switches.
    ///
    /// The time counts from the first wait on, over all waits. It does not interrupt `condition`.
    ///
    /// # Errors
    ///
    /// Returns [`RecvTimeoutError::TimedOut`] if there was no such value in time, or an error of
    /// [`wait_for`](Receiver::wait_for).
    pub fn wait_for_timeout(
        &mut self,
        timeout: Duration,
        condition: impl FnMut(&T) -> bool,
    ) -> Result<Ref<T>, RecvTimeoutError> {
        self.wait_for_within(Deadline::from(timeout), condition)
    }

    fn wait_for_within(
        &mut self,
        mut deadline: Deadline,
        mut condition: impl FnMut(&T) -> bool,
    ) -> Result<Ref<T>, RecvTimeoutError> {
        loop {
            // The condition is user code: it runs without the lock.
            let present = self.borrow_and_update();
            if condition(&present) {
                return Ok(present);
            }
            drop(present);
            self.changed_within(&mut deadline)?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.shared.state.lock().receivers += 1;
        Receiver { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.receivers -= 1;
        if state.is_closed() {
            state.closing.grant_all();
        }
    }
}

/// A receiver is ready when the value has changed, or all senders are gone. The change stays unseen.
impl<T> Waitable for Receiver<T> {
    fn is_ready(&self) -> bool {
        self.shared.state.lock().is_ready(self.seen)
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        let mut state = self.shared.state.lock();
        let is_ready = state.is_ready(self.seen);
        state.changing.leave(mark, is_ready)
    }

    fn take_back(&self, left: LeftMark) {
        self.shared.state.lock().changing.take_back(&left);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
