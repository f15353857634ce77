//! Random programs on the primitives of `sync`, with kills and timeouts at their waits: on one thread beside a model
//! that says who gets what and when, and on two hubs, of every two kinds, against what must hold at the end.

mod hubs;
mod items;
mod queue_model;
mod storm;
mod wake_model;
mod wakes;
