//! The contract between a hub and the main loop: everything the author of a hub needs.
//!
//! In reading order: [`Hub`] with its numbered clauses; [`Rearm`] and [`Lease`], which say how long a descriptor is
//! watched and stays open; [`Interest`] and [`Readiness`]; [`Ready`], the buffer of reports; [`Watched`] and [`Key`],
//! the loop's table of descriptors; [`Time`] and [`round`]; [`HubDescriptor`], a hub as it is registered; [`Notify`];
//! [`ForkAware`]; [`warn`], for messages of a library below the hub; [`ManualClock`] and [`Clocked`].

mod contract;
mod descriptor;
mod fork_aware;
mod interest;
mod lease;
mod loop_waker;
mod manual_clock;
mod ready;
pub mod round;
mod time;
mod watched;

pub use self::contract::{Hub, Notify};
pub use self::descriptor::HubDescriptor;
pub use self::fork_aware::ForkAware;
pub use self::interest::{Interest, Readiness};
pub use self::lease::{Lease, Rearm};
pub(crate) use self::loop_waker::LoopWaker;
pub use self::manual_clock::{Clocked, ManualClock};
pub use self::ready::Ready;
pub(crate) use self::time::Stamp;
pub use self::time::Time;
pub use self::watched::{Key, Watched};
pub use crate::report::warn;
