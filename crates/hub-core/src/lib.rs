//! The hub trait, greenlets and the main loop of greenhub.

mod hub;
mod interest;
mod ready;
pub mod round;
mod time;
mod watched;

pub use hub::{Hub, HubDescriptor, Lease, Notify, Rearm};
pub use interest::{Interest, Readiness};
pub use ready::Ready;
pub use time::Time;
pub use watched::{Key, Watched};
