//! The waker of a wait for a future, and the state of each OS thread for such waits.
//!
//! A wait has one waker for all its polls. The waker leads to a [`WakerSlot`], which holds the unparker of the present
//! park. Slots are pooled, but a slot returns to the pool only if nothing else holds its waker. So a waker that
//! outlives its wait leads to a slot that no other wait uses, and ends none.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Wake, Waker};

use crate::base::wait_reason::WaitReason;
use crate::error::LoopError;
use crate::greenlet::driver::{FutureWaits, InstallFutures, Installed};
use crate::greenlet::local;
use crate::greenlet::run;
use crate::main_loop::deadline::Deadline;
use crate::wait::biased::BiasedMutex;
use crate::wait::parker::Parker;
use crate::wait::unparker::Unparker;

/// The target of a waker.
struct WakerSlot {
    state: BiasedMutex<WaitState>,
}

#[derive(Default)]
struct WaitState {
    /// Whether the waker was woken since the last poll began.
    notified: bool,
    waiting: Option<Unparker>,
}

impl Wake for WakerSlot {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.notified = true;
        let waiting = state.waiting.take();
        // A hub's notifier is foreign code, which may wake this waker again.
        drop(state);
        if let Some(unparker) = waiting {
            unparker.unpark();
        }
    }
}

/// A slot with its waker.
struct Pair {
    slot: Arc<WakerSlot>,
    waker: Waker,
}

impl Pair {
    fn new() -> Pair {
        let slot = Arc::new(WakerSlot { state: BiasedMutex::default() });
        // The lock belongs to this OS thread, which uses it most, even if another one is the first to wake the waker.
        drop(slot.state.lock());
        Pair { waker: Waker::from(Arc::clone(&slot)), slot }
    }

    /// Returns whether nothing outside of this pair holds the slot.
    fn is_unshared(&self) -> bool {
        let unshared = Arc::strong_count(&self.slot) == 2;
        // The last holder elsewhere may have been on another OS thread. The fence orders its work before this.
        fence(Ordering::Acquire);
        unshared
    }
}

/// The state of an OS thread for waits for futures.
///
/// No foreign code runs while one of its cells is borrowed.
pub(crate) struct FutureTable {
    /// Unused slots. There are at most as many as waits took place at the same time, each much smaller than a stack.
    spare: RefCell<Vec<Pair>>,
    /// The last parks for futures, by the number of the greenlet.
    parks: RefCell<Vec<FuturePark>>,
    /// The number of greenlets in a park for a future.
    waiting: Cell<usize>,
}

/// The last park of a greenlet for a future.
#[derive(Copy, Clone, Default)]
struct FuturePark {
    /// The ticket tells a park that has not been woken from an old one.
    ticket: u64,
    future: &'static str,
    /// Whether the greenlet has not come back from the park.
    is_counted: bool,
}

impl InstallFutures for Installed {
    type Futures = FutureTable;
}

impl FutureWaits for FutureTable {
    fn new() -> FutureTable {
        FutureTable { spare: RefCell::default(), parks: RefCell::default(), waiting: Cell::new(0) }
    }

    fn type_name(&self, greenlet: u32, ticket: u64) -> Option<&'static str> {
        let park = *self.parks.borrow().get(greenlet as usize)?;
        (park.ticket == ticket).then_some(park.future)
    }

    fn any(&self) -> bool {
        self.waiting.get() != 0
    }

    fn forget(&self, greenlet: u32) {
        if let Some(park) = self.parks.borrow_mut().get_mut(greenlet as usize)
            && std::mem::take(&mut park.is_counted)
        {
            self.waiting.set(self.waiting.get() - 1);
        }
    }
}

/// A greenlet in a park for a future. `Drop` ends the count, however the park ends.
struct CountedPark<'a> {
    table: &'a FutureTable,
    greenlet: u32,
}

impl Drop for CountedPark<'_> {
    fn drop(&mut self) {
        self.table.forget(self.greenlet);
    }
}

impl FutureTable {
    /// Notes that a greenlet parks for a future.
    fn begin(&self, greenlet: u32, ticket: u64, future: &'static str) -> CountedPark<'_> {
        let (mut parks, index) = (self.parks.borrow_mut(), greenlet as usize);
        if parks.len() <= index {
            parks.resize(index + 1, FuturePark::default());
        }
        parks[index] = FuturePark { ticket, future, is_counted: true };
        self.waiting.set(self.waiting.get() + 1);
        CountedPark { table: self, greenlet }
    }
}

/// The waker of one wait.
pub(super) struct WaitWaker {
    /// `None` only while it is dropped.
    pair: Option<Pair>,
}

impl WaitWaker {
    /// Takes a waker out of the pool of this OS thread, or makes one. An OS thread without greenlets has no pool.
    #[inline]
    pub(super) fn take() -> WaitWaker {
        let spare = local::try_get().and_then(|local| local.futures.spare.borrow_mut().pop());
        WaitWaker { pair: Some(spare.unwrap_or_else(Pair::new)) }
    }

    #[inline]
    fn pair(&self) -> &Pair {
        match &self.pair {
            Some(pair) => pair,
            None => unreachable!("a waker is in use until it is dropped"),
        }
    }

    #[inline]
    pub(super) fn waker(&self) -> &Waker {
        &self.pair().waker
    }

    /// Waits until the waker is woken, on behalf of a future of the named type. Switches.
    ///
    /// A waker that was woken during the poll only lets the other green threads run: a future that always wakes itself
    /// must not keep them waiting.
    ///
    /// # Errors
    ///
    /// Returns an error where the caller may not wait, and the errors that the main loop has for the main greenlet.
    pub(super) fn wait(&self, future: &'static str) -> Result<(), LoopError> {
        let slot = &*self.pair().slot;
        if std::mem::take(&mut slot.state.lock().notified) {
            return let_others_run();
        }
        loop {
            let mut state = slot.state.lock();
            if std::mem::take(&mut state.notified) {
                return Ok(());
            }
            let Some(parker) = Parker::if_prepared(WaitReason::Future)? else {
                drop(state);
                Parker::prepare(WaitReason::Future)?;
                continue;
            };
            let unparker = parker.unparker();
            state.waiting = Some(unparker);
            drop(state);
            let mut counted = None;
            if let (Some(greenlet), Some(local)) = (unparker.wait.number(), local::try_get()) {
                counted = Some(local.futures.begin(greenlet, unparker.wait.ticket, future));
            }
            let parked = parker.park(&mut Deadline::none());
            drop(counted);
            match parked {
                // The next loop goes on.
                Err(error) if error.is_restart() => {}
                parked => _ = parked?,
            }
        }
    }

    /// Returns whether the waker was woken, and resets that.
    pub(super) fn take_notified(&self) -> bool {
        std::mem::take(&mut self.pair().slot.state.lock().notified)
    }
}

impl Drop for WaitWaker {
    #[inline]
    fn drop(&mut self) {
        let Some(pair) = self.pair.take() else { return };
        let unshared = pair.is_unshared();
        // A late wake-up finds no waiter.
        *pair.slot.state.lock() = WaitState::default();
        if unshared && let Some(local) = local::try_get() {
            local.futures.spare.borrow_mut().push(pair);
        }
    }
}

/// Lets the other green threads of this OS thread run once, or other OS threads if it has none. Switches.
fn let_others_run() -> Result<(), LoopError> {
    // Tells how this OS thread waits, and throws a pending exit.
    let parker = Parker::new(WaitReason::Future)?;
    match parker.unparker().wait.number() {
        Some(_) => {
            drop(parker);
            match run::yield_now() {
                Err(error) if error.is_restart() => Ok(()),
                yielded => yielded,
            }
        }
        None => {
            std::thread::yield_now();
            Ok(())
        }
    }
}
