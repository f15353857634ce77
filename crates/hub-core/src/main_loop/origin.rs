//! The origin of a callback, for listings and reports.

use std::backtrace::Backtrace;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

static LISTENER_STACKS: AtomicBool = AtomicBool::new(false);
static TIMER_STACKS: AtomicBool = AtomicBool::new(false);

/// Sets whether new listeners carry a backtrace of their registration. Does not switch.
///
/// [`listeners`](crate::listeners) shows it. It is off by default, and applies to the whole process. The location of
/// the registration is always recorded. Waiting green threads carry only the location of their spawn, since a backtrace
/// for each wait would cost more than the wait. Eventlet's `hub_listener_stacks`.
pub fn hub_listener_stacks(enabled: bool) {
    LISTENER_STACKS.store(enabled, Ordering::Relaxed);
}

/// Sets whether new timers carry a backtrace of the call that scheduled them. Does not switch.
///
/// [`timers`](crate::timers) shows it. Otherwise like [`hub_listener_stacks`]. Eventlet's `hub_timer_stacks`.
pub fn hub_timer_stacks(enabled: bool) {
    TIMER_STACKS.store(enabled, Ordering::Relaxed);
}

/// The origin of a callback: the location, and the backtrace if it is switched on.
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
