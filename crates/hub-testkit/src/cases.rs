//! The cases: each checks one property, and quotes the clause of [`hub_core::hub::Hub`] that demands it.

pub mod foreign;
pub mod lifecycle;
pub mod readiness;
pub mod registration;
pub mod traffic;
pub mod waiting;

use hub_core::hub::{Hub, Lease};

use crate::fixture::Make;

/// Both kinds of leases.
const LEASES: [Lease; 2] = [Lease::Wait, Lease::Life];

/// A case over a hub that is chosen at run time.
///
/// ```
/// use hub_core::hub::Hub;
/// use hub_testkit::cases;
///
/// let case = cases::ALL.iter().find(|case| case.name == "readable_descriptors_are_reported").unwrap();
/// (case.run)(&|| Ok(Box::new(hub_epoll::EpollHub::new()?) as Box<dyn Hub>));
/// ```
#[derive(Copy, Clone, Debug)]
pub struct Case {
    /// The name of the case's function and test.
    pub name: &'static str,
    /// The case. It panics if the hub violates the clause.
    pub run: fn(Make<'_, Box<dyn Hub>>),
}

/// Every case of the suite, but the one of clause 19.
pub const ALL: &[Case] = crate::__each_case! { __table () };
