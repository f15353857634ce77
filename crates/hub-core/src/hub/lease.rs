//! The promises about a descriptor: how often a hub reports it, and how long the loop keeps it open.

/// How a descriptor lent for [life](Lease::Life) reports again after a report.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Rearm {
    /// Each new arrival is reported; an earlier one is not repeated.
    ///
    /// Edge-triggered epoll, kqueue with `EV_CLEAR` and multishot polls are of this kind.
    Automatic,
    /// A reported direction is silent until the next [`Hub::watch`](crate::hub::Hub::watch) (poll, select).
    Explicit,
    /// A direction that is still ready is reported again, as long as it is armed. A direction that is reported while it
    /// is not armed is silent until the next [`Hub::watch`](crate::hub::Hub::watch) (level-triggered epoll, libevent).
    Level,
}

/// The time for which the loop lends a descriptor to a hub.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Lease {
    /// Until the requested directions are no longer armed. The number may then be closed and reused without
    /// a call of [`Hub::forget`](crate::hub::Hub::forget), so a report without a waiter must never come twice.
    Wait,
    /// Until [`Hub::forget`](crate::hub::Hub::forget). The loop closes no such descriptor without that call.
    Life,
}
