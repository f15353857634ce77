//! What a hub and the loop promise each other about a descriptor.

/// How a descriptor that is lent for [life](Lease::Life) is heard of again after a report.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Rearm {
    /// Each new arrival is reported, what was reported before is not (edge-triggered epoll, kqueue
    /// with `EV_CLEAR`, multishot polls).
    Automatic,
    /// A reported direction is silent until [`Hub::watch`](crate::Hub::watch) (poll, select).
    Explicit,
    /// Whatever is still ready is reported again, as long as the direction is armed. A direction
    /// that is reported while it is not armed is silent until [`Hub::watch`](crate::Hub::watch) (level-triggered epoll, libevent).
    Level,
}

/// For how long the loop lends a descriptor to a hub.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Lease {
    /// Until the directions that were asked for are no longer armed. The number may be closed and
    /// reused behind everybody's back afterwards, so a report that nobody waits for must never
    /// come twice.
    Wait,
    /// Until [`Hub::forget`](crate::Hub::forget): the loop closes no such descriptor without that call.
    Life,
}
