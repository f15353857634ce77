//! The hub of an OS thread, and the contract for hubs of your own.
//!
//! A program meets a hub through [`HubRef`](crate::HubRef), the handle that [`get_hub`](crate::get_hub) returns. An
//! author of a hub implements [`Hub`], whose documentation lists the clauses of the contract; the crate `hub-testkit`
//! checks them.

/// Also at the root, for the calls of [`trampoline`](crate::trampoline).
#[doc(inline)]
pub use hub_core::hub::Interest;
pub use hub_core::hub::{
    Clocked, ForkAware, Hub, HubDescriptor, Key, Lease, ManualClock, Notify, Readiness, Ready, Rearm, Time, Watched,
    round, warn,
};
pub use hub_core::{
    Embedded, Ended, Hook, HubError, HubGone, HubId, InterruptOn, Listener, LoopError, LoopErrorKind, LoopExit, Phase,
    Registration, Remote, Stats, Timer, TimerHandle, Verdict, busy_poll_time, has_hub, interrupt_on,
    set_busy_poll_time, set_turn_time, turn_time,
};
