//! The cases: one property each, with the clause of [`hub_core::Hub`] that it holds.

pub mod lifecycle;
pub mod readiness;
pub mod registration;
pub mod traffic;
pub mod waiting;

use hub_core::{Hub, Lease};

use crate::fixture::Make;

/// Both ways of lending.
const LEASES: [Lease; 2] = [Lease::Wait, Lease::Life];

/// One case, over a hub that is chosen at run time.
///
/// ```
/// use hub_core::Hub;
/// use hub_testkit::cases;
///
/// let case = cases::ALL.iter().find(|case| case.name == "data_is_reported").unwrap();
/// (case.run)(&|| Ok(Box::new(hub_epoll::EpollHub::new()?) as Box<dyn Hub>));
/// ```
#[derive(Copy, Clone, Debug)]
pub struct Case {
    /// The name of its function and of its test.
    pub name: &'static str,
    /// The case; it panics if the hub fails it.
    pub run: fn(Make<'_, Box<dyn Hub>>),
}

/// Every case of the suite.
pub const ALL: &[Case] = crate::__each_case! { __table () };
