//! Where a callback was made, for listings and reports.

use std::backtrace::Backtrace;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

static LISTENER_STACKS: AtomicBool = AtomicBool::new(false);
static TIMER_STACKS: AtomicBool = AtomicBool::new(false);

/// Whether callbacks that are registered from now on carry the stack at that place in [`listeners`](crate::listeners); off at first.
/// For the whole process. Eventlet's `hub_listener_stacks`. The place itself they always have. Green threads that
/// wait carry where they were spawned, for a stack with each wait would cost more than the wait. Does not switch.
pub fn hub_listener_stacks(enabled: bool) {
    LISTENER_STACKS.store(enabled, Ordering::Relaxed);
}

/// Whether callbacks that are scheduled from now on carry the stack at that place in [`timers`](crate::timers); off at first. For
/// the whole process. Eventlet's `hub_timer_stacks`. Otherwise as [`hub_listener_stacks`]. Does not switch.
pub fn hub_timer_stacks(enabled: bool) {
    TIMER_STACKS.store(enabled, Ordering::Relaxed);
}

/// Where a callback comes from.
#[derive(Clone)]
pub(crate) struct Origin {
    at: &'static Location<'static>,
    stack: Option<Arc<Backtrace>>,
}

impl Origin {
    #[track_caller]
    pub(crate) fn of_listener() -> Origin {
        Origin::here(&LISTENER_STACKS)
    }

    #[track_caller]
    pub(crate) fn of_timer() -> Origin {
        Origin::here(&TIMER_STACKS)
    }

    #[track_caller]
    fn here(stacks: &AtomicBool) -> Origin {
        let stack = stacks.load(Ordering::Relaxed).then(|| Arc::new(Backtrace::force_capture()));
        Origin { at: Location::caller(), stack }
    }
}

impl Origin {
    pub(crate) fn stack(&self) -> Option<Arc<Backtrace>> {
        self.stack.clone()
    }

    pub(crate) fn at(&self) -> &'static Location<'static> {
        self.at
    }
}
