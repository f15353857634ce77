//! Random programs on the primitives of `sync`, with kills and timeouts at their waits: on one thread beside a model
//! that says who gets what and when, and on two hubs, of every two kinds, against what must hold at the end.

#[path = "support/green.rs"]
mod green;
#[path = "sync_random/hubs.rs"]
mod hubs;
#[path = "sync_random/items.rs"]
mod items;
#[path = "support/loops.rs"]
mod loops;
#[path = "sync_random/queue_model.rs"]
mod queue_model;
#[path = "support/random.rs"]
mod random;
#[path = "sync_random/storm.rs"]
mod storm;
mod support;
#[path = "sync_random/wake_model.rs"]
mod wake_model;
#[path = "sync_random/wakes.rs"]
mod wakes;
