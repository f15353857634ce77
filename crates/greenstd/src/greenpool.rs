//! Green threads in pools of a bounded number, Eventlet's `greenpool`, and in groups, gevent's `pool`.

mod group;
mod in_order;
mod pool;

pub use group::Group;
pub use in_order::{GreenPile, Imap};
pub(crate) use pool::Admission;
pub use pool::GreenPool;
