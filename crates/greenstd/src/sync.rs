//! std's `sync`, green, and what Eventlet adds to it.
//!
//! One type serves green threads of one hub, green threads of different hubs, and plain OS threads: a green thread
//! parks, an OS thread without green threads blocks itself. Whoever waits is served in the order in which they
//! came. A wake-up never switches.

mod line;
