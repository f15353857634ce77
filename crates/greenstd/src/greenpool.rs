//! Pools with a bounded number of green threads, Eventlet's `greenpool`.

mod in_order;
mod pool;

pub use in_order::{GreenPile, Imap};
pub(crate) use pool::Admission;
pub use pool::{GreenPool, WaitallError};
