//! Random programs on the primitives of `sync`, with kills and timeouts at their waits. On one OS thread they are
//! compared with a model of the order of service. On two hubs, of every pair of kinds, they are checked against
//! invariants at the end.

mod hubs;
mod items;
mod message_model;
mod messages;
mod queue_model;
mod rates;
mod storm;
mod wake_model;
mod wakes;
