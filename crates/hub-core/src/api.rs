//! The public interface: the functions and types that programs use.

pub(crate) mod budget;
pub(crate) mod builder;
pub(crate) mod detection;
pub(crate) mod embed;
pub(crate) mod error_handler;
pub(crate) mod future;
pub(crate) mod green_local;
pub(crate) mod green_thread;
pub(crate) mod hook;
pub(crate) mod hub_ref;
pub(crate) mod kill;
pub(crate) mod link;
pub(crate) mod listing;
pub(crate) mod registration;
pub(crate) mod run_in_place;
pub(crate) mod scope;
pub(crate) mod shield;
pub(crate) mod signal;
pub(crate) mod sleep;
pub(crate) mod spawn;
pub(crate) mod stacks;
pub(crate) mod thread;
pub(crate) mod timer_handle;
pub(crate) mod use_hub;
pub(crate) mod waitable;
pub(crate) mod with_timeout;
