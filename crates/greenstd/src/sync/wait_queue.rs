//! A FIFO wait queue with direct hand-off.
//!
//! A primitive keeps its state under one lock, with one [`WaitQueue`] for each thing that is waited for. Beside the
//! primitive's own code, only the wake-up of a green thread of this OS thread and the `Ord` of a priority queue's items
//! run under that lock. A *grant* removes the first waiter and wakes it; another OS thread is woken when the lock is
//! released. The granted thing belongs to that waiter from then on, so no newcomer gets it. The one exception is an
//! unwinding caller, which cannot let the waiter run: it may take a lock that was handed over, and the waiter regains
//! its place. An exit or a deadline that comes after the grant does not undo it. A granted waiter whose wait fails,
//! because the main loop sends it an error, *regrants* the thing.
//!
//! A waiter may carry a *payload*. The payload goes to the granting side, or leaves the queue with the waiter.

use std::collections::VecDeque;
use std::fmt;

use hub_core::internal::unpark_under_lock;
use hub_core::{BiasedMutex, BiasedMutexGuard, Deadline, LoopError, Parked, Parker, Unparker, WaitReason};

/// Waiters in the order of arrival, each with its payload.
pub(crate) struct WaitQueue<P = ()> {
    /// The next waiter; `None` only if the queue is empty. A single waiter needs no allocation.
    first: Option<Entry<P>>,
    /// The other waiters, by ascending numbers. A waiter that left is a gap.
    rest: VecDeque<(u64, Option<(Unparker, P)>)>,
    gaps: usize,
    next: u64,
}

struct Entry<P> {
    number: u64,
    unparker: Unparker,
    payload: P,
}

impl<P> Default for WaitQueue<P> {
    fn default() -> WaitQueue<P> {
        WaitQueue::new()
    }
}

impl<P> fmt::Debug for WaitQueue<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WaitQueue").field(&self.len()).finish()
    }
}

impl WaitQueue {
    /// Removes the first waiter and wakes it. Returns false if the queue is empty.
    #[inline]
    pub(crate) fn grant(&mut self) -> bool {
        self.grant_payload().is_some()
    }

    pub(crate) fn grant_all(&mut self) {
        while self.grant() {}
    }
}

impl<P> WaitQueue<P> {
    pub(crate) const fn new() -> WaitQueue<P> {
        WaitQueue { first: None, rest: VecDeque::new(), gaps: 0, next: 0 }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Returns the number of waiters.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len() - self.gaps
    }

    /// Removes the first waiter, wakes it, and returns its payload.
    #[inline]
    pub(crate) fn grant_payload(&mut self) -> Option<P> {
        // The common case: no waiter.
        if self.is_empty() { None } else { self.grant_first() }
    }

    #[inline(never)]
    fn grant_first(&mut self) -> Option<P> {
        let granted = self.pop_first()?;
        if unpark_under_lock(granted.unparker) { Some(granted.payload) } else { self.grant_next(granted.payload) }
    }

    /// Grants the first waiter that still exists, after an abandoned one.
    #[cold]
    #[inline(never)]
    fn grant_next(&mut self, mut abandoned: P) -> Option<P> {
        loop {
            // This waiter was abandoned by a fork, or by the end of its OS thread. The payload still belongs to the
            // waiter, so it must not be dropped here.
            std::mem::forget(abandoned);
            let granted = self.pop_first()?;
            if unpark_under_lock(granted.unparker) {
                return Some(granted.payload);
            }
            abandoned = granted.payload;
        }
    }

    #[inline]
    fn pop_first(&mut self) -> Option<Entry<P>> {
        let first = self.first.take()?;
        if !self.rest.is_empty() {
            self.promote_next_waiter();
        }
        Some(first)
    }

    /// Moves the first waiter of `rest` to `first`.
    #[cold]
    fn promote_next_waiter(&mut self) {
        while let Some((number, entry)) = self.rest.pop_front() {
            if let Some((unparker, payload)) = entry {
                self.first = Some(Entry { number, unparker, payload });
                return;
            }
            self.gaps -= 1;
        }
    }

    /// Appends a waiter and returns its number.
    #[inline]
    fn push(&mut self, unparker: Unparker, payload: P) -> u64 {
        let number = self.next;
        self.next += 1;
        if self.first.is_none() {
            self.first = Some(Entry { number, unparker, payload });
        } else {
            self.rest.push_back((number, Some((unparker, payload))));
        }
        number
    }

    /// Puts a waiter back in its former place after a wake-up that it could not use.
    #[cold]
    fn rejoin(&mut self, number: u64, unparker: Unparker, payload: P) -> u64 {
        let mut entry = Entry { number, unparker, payload };
        if let Some(first) = &mut self.first {
            if number < first.number {
                std::mem::swap(first, &mut entry);
            }
            let index = self.rest.partition_point(|(other, _)| *other < entry.number);
            self.rest.insert(index, (entry.number, Some((entry.unparker, entry.payload))));
        } else {
            self.first = Some(entry);
        }
        number
    }

    /// Removes a waiter and returns its payload. Returns `None` if the waiter was granted before.
    #[cold]
    fn remove(&mut self, number: u64) -> Option<P> {
        if let Some(first) = self.first.take_if(|first| first.number == number) {
            self.promote_next_waiter();
            return Some(first.payload);
        }
        let index = self.rest.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, payload) = self.rest[index].1.take()?;
        self.gaps += 1;
        // Many waiters may come and go behind a waiter that stays. Bound the number of gaps.
        if self.gaps > self.rest.len() / 2 + 16 {
            self.rest.retain(|(_, entry)| entry.is_some());
            self.gaps = 0;
        }
        Some(payload)
    }
}

/// The end of a wait without a grant, with the payload. Each primitive converts it to its own error.
pub(crate) enum Unserved<P = ()> {
    /// The deadline has passed. Holds the payload.
    TimedOut(P),
    /// The wait cannot begin or go on. Holds the payload, unless the granting side took it before.
    Failed(LoopError, Option<P>),
}

/// A kind of wait of a primitive.
pub(crate) trait Wait {
    /// The state that the primitive's lock protects.
    type State;
    /// The payload of a waiter.
    type Payload;

    /// The reason of the wait, which reports show for a parked waiter.
    const REASON: WaitReason;
    /// The call that waits, by which the panic of a wait without an error names it.
    const CALL: &'static str = "wait";
    /// Whether a waiter that could not use its wake-up regains its place instead of going to the end.
    const KEEPS_PLACE: bool = true;
    /// Whether a grant wakes all waiters for something that is not used up. A waiter that is interrupted after such a
    /// grant keeps it and regrants nothing.
    const GRANTS_ALL: bool = false;
    /// Whether an attempt that may succeed at once is charged to the budget of operations. False where a destructor may
    /// rely on a free primitive: taking a free lock never switches.
    const CHARGED: bool = false;

    /// Whether the wait holds exits back for the lock patience. True exactly where `REASON` is [`WaitReason::Lock`]. An
    /// exit that ends the park is then thrown at once, because the next park would hold it back again.
    const DEFERS_EXITS: bool = false;

    /// Returns the queue of this kind of wait.
    fn queue(state: &mut Self::State) -> &mut WaitQueue<Self::Payload>;

    /// Passes a grant on that its waiter cannot use.
    fn regrant(state: &mut Self::State);

    /// Runs after a waiter has entered the queue with its payload.
    #[inline]
    fn enqueued(_: &mut Self::State) {}

    /// Attempts, waits for a grant, and attempts again, until there is a result or `deadline` has passed. Switches.
    ///
    /// The attempt gets the payload, and returns it if there is no result. After a grant it gets `None`: the granting
    /// side has taken the payload.
    ///
    /// A waiter that an exit unwinds leaves the queue, and its payload is dropped without the lock. If it was granted
    /// before, it goes on, and the exit strikes at its next wait. Only the lock tells which came first, because a
    /// wake-up of another OS thread may be under way.
    ///
    /// # Errors
    ///
    /// Returns [`Unserved::TimedOut`] if `deadline` passes first. Returns [`Unserved::Failed`] if the caller may not
    /// wait, and for an error that the main loop sends to the main greenlet. The caller is not in the queue then.
    #[inline]
    fn wait<R>(
        state: &BiasedMutex<Self::State>,
        deadline: &mut Deadline,
        payload: Self::Payload,
        mut attempt: impl FnMut(&mut Self::State, Option<Self::Payload>) -> Result<R, Self::Payload>,
    ) -> Result<R, Unserved<Self::Payload>> {
        if Self::CHARGED
            && let Err(error) = hub_core::consume_budget()
        {
            return Err(Unserved::Failed(error, Some(payload)));
        }
        let mut guard = state.lock();
        match attempt(&mut guard, Some(payload)) {
            Ok(result) => Ok(result),
            Err(back) => Self::wait_queued(state, guard, deadline, back, attempt),
        }
    }

    /// Like [`wait`](Wait::wait), after an attempt without a result under `guard`.
    #[inline]
    fn wait_queued<R>(
        state: &BiasedMutex<Self::State>,
        guard: BiasedMutexGuard<'_, Self::State>,
        deadline: &mut Deadline,
        back: Self::Payload,
        mut attempt: impl FnMut(&mut Self::State, Option<Self::Payload>) -> Result<R, Self::Payload>,
    ) -> Result<R, Unserved<Self::Payload>> {
        // Outlives the guard: the payload's destructor is user code and must run without the lock.
        let mut kept = Some(back);
        let mut guard = guard;
        let mut number = None;
        loop {
            let parker = match Parker::if_prepared(Self::REASON) {
                Ok(Some(parker)) => parker,
                Ok(None) => {
                    drop(guard);
                    if let Err(error) = Parker::prepare(Self::REASON) {
                        return Err(Unserved::Failed(error, kept));
                    }
                    guard = state.lock();
                    match attempt(&mut guard, kept.take()) {
                        Ok(result) => return Ok(result),
                        Err(back) => kept = Some(back),
                    }
                    continue;
                }
                Err(error) => return Err(Unserved::Failed(error, kept)),
            };
            let Some(payload) = kept.take() else { unreachable!("an attempt gives back what it got") };
            let queue = Self::queue(&mut guard);
            let stay = QueuedWaiter::<Self> {
                state,
                number: match number {
                    Some(number) if Self::KEEPS_PLACE => queue.rejoin(number, parker.unparker(), payload),
                    _ => queue.push(parker.unparker(), payload),
                },
            };
            number = Some(stay.number);
            Self::enqueued(&mut guard);
            drop(guard);
            let parked = match parker.park_deferring_exit(deadline) {
                Ok(parked) => parked,
                Err(error) => return Err(Unserved::Failed(error, stay.cancel())),
            };
            guard = state.lock();
            // Only a grant unparks. For any other end of the park, the queue tells whether a grant came first.
            if parked != Parked::Unparked
                && let Some(back) = Self::queue(&mut guard).remove(stay.number)
            {
                std::mem::forget(stay);
                if parked == Parked::TimedOut {
                    return Err(Unserved::TimedOut(back));
                }
                kept = Some(back);
                if Self::DEFERS_EXITS {
                    // The lock patience is over. Other green threads may run before the exit is thrown.
                    drop(guard);
                    hub_core::throw_exit();
                    guard = state.lock();
                    match attempt(&mut guard, kept.take()) {
                        Ok(result) => return Ok(result),
                        Err(back) => kept = Some(back),
                    }
                }
                // The next wait throws the exit. If a mask holds the exit back, the wait goes on in this place.
                continue;
            }
            std::mem::forget(stay);
            match attempt(&mut guard, None) {
                Ok(result) => return Ok(result),
                Err(back) => kept = Some(back),
            }
        }
    }
}

/// Holds a place in the queue. `Drop` removes the waiter, or regrants, however the wait ends.
struct QueuedWaiter<'a, W: Wait + ?Sized> {
    state: &'a BiasedMutex<W::State>,
    number: u64,
}

impl<W: Wait + ?Sized> QueuedWaiter<'_, W> {
    fn cancel(self) -> Option<W::Payload> {
        let payload = self.leave();
        std::mem::forget(self);
        payload
    }

    fn leave(&self) -> Option<W::Payload> {
        let mut guard = self.state.lock();
        let payload = W::queue(&mut guard).remove(self.number);
        if payload.is_none() {
            W::regrant(&mut guard);
        }
        payload
    }
}

impl<W: Wait + ?Sized> Drop for QueuedWaiter<'_, W> {
    fn drop(&mut self) {
        // The payload's destructor is user code: it runs without the lock.
        drop(self.leave());
    }
}
