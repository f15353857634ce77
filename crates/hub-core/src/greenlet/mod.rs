//! Greenlets: who runs, on which stack, and how one gives way to another.
//!
//! In reading order: [`control`] (a block per greenlet), [`run`] (parking, waking, handing off),
//! [`switch`] (all calls into `context`), [`unwind`] (exits and panics), [`task`] (what a green thread runs),
//! [`raw`] (greenlets that are switched by hand, with a [`payload`]),
//! [`stack`] and [`overflow`] (memory), [`local`] (what a thread has of all this), [`spans`] (who is in which, for the
//! crate `tracing`).

pub(crate) mod control;
pub(crate) mod describe;
pub(crate) mod driver;
pub(crate) mod local;
pub(crate) mod locals;
mod overflow;
pub(crate) mod patience;
pub(crate) mod payload;
pub(crate) mod raw;
pub(crate) mod run;
#[cfg_attr(not(feature = "tracing"), path = "no_spans.rs")]
pub(crate) mod spans;
pub(crate) mod stack;
mod switch;
pub(crate) mod target;
pub(crate) mod task;
pub(crate) mod trace;
pub(crate) mod unhandled;
pub(crate) mod unwind;
