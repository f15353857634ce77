//! Plain greenlets: switches by hand, as in Python's greenlet.

pub use hub_core::{Greenlet, GreenletError, Payload};
