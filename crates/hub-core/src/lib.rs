//! The hub trait, greenlets and the main loop of greenhub.
//!
//! Hubs are written against this crate, programs against `greenhub`, which re-exports it. It names no backend: a thread
//! uses the hub that [`use_hub_with`] gave it, or the one that a facade chooses through [`DEFAULT_HUB`].
//!
//! A function that may let other green threads run says "Switches" in its documentation; the others do not, but for
//! the drop of a [`Greenlet`]'s last handle.
//!
//! # Where to read
//!
//! The files of `src`, in reading order:
//!
//! | module | what it is about | public |
//! |---|---|---|
//! | `hub` | the contract between a hub and the loop | [`Hub`], [`HubDescriptor`], [`Rearm`], [`Lease`], [`Notify`] |
//! | `interest`, `ready`, `watched` | what a hub is asked, what it answers, what it may look at | [`Interest`], [`Readiness`], [`Ready`], [`Watched`], [`Key`] |
//! | `time`, `round` | its clock, and timeouts in the units of system calls | [`Time`], [`round`] |
//! | `clock` | a clock that a test moves by hand | [`ManualClock`], [`Clocked`] |
//! | `greenlet` | stacks, switches, exits: who runs | [`Greenlet`], [`Payload`], [`is_exit`] |
//! | `stacks` | settings for stacks | [`set_default_stack_size`], [`StackPolicy`] |
//! | `main_loop` | one turn after another | [`Stats`], [`hub_prevent_multiple_readers`] |
//! | `current` | the hub of this thread | [`HubRef`], [`get_hub`], [`use_hub_with`] |
//! | `timer_queue` | what is armed, in order of its deadlines | – |
//! | `descriptors`, `trampoline`, `source` | who waits for which descriptor, and how | [`trampoline()`], [`trampoline_any`], [`Trampoline`], [`Source`] |
//! | `listener` | callbacks of the loop | [`Listener`], [`Timer`] |
//! | `wakeup`, `remote`, `signal`, `fork` | what comes from outside of the thread | [`Remote`], [`interrupt_on`] |
//! | `grace` | waits of destructors that unwind, which block the OS thread | [`set_panicking_grace`], [`Grace`], [`PiecewiseWait`] |
//! | `parker`, `limit`, `holder`, `dormant` | waits that any thread may end, for locks and queues, and what if none is left to end them | [`Parker`], [`Unparker`], [`Limit`], [`Holder`] |
//! | `thread` | who a green thread is, and std's `park` | [`Thread`], [`current()`], [`park()`] |
//! | `pool`, `offload`, `leftover` | OS threads for what can only block | [`offload()`], [`ThreadPool`] |
//! | `green_thread`, `scope`, `timeout`, `shield` | what programs call | [`spawn`], [`GreenThread`], [`sleep`], [`scope()`], [`with_timeout`], [`shield()`] |
//! | `shutdown` | the ordered end of a thread's green threads | [`Ended`], [`run_and_shutdown`] |
//! | `blocking` | who holds the loop for too long | [`hub_blocking_detection`] |
//! | `trace` | events and spans for the crate `tracing`, with the feature of that name | `in_span` |
//! | `listing` | what a hub holds, to look at | [`greenlets`], [`listeners`], [`timers`] |
//! | `error`, `report`, `unhandled` | what can go wrong, and where it is told if nobody asks | [`GreenError`], [`HubError`], [`LoopError`], [`Report`] |
//!
//! # Implementing a hub
//!
//! A [`Hub`] is the system call and nothing else: green threads, timers, listeners, wake-ups from other
//! threads and closing come with this crate. This is a whole one, over poll(2), and a program that uses it:
//!
//! ```
#![doc = include_str!("../tests/support/poll_hub.rs")]
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     hub_core::use_hub_with(PollHub::new)?;
//!     let (reader, mut writer) = io::pipe()?;
//!     let green = hub_core::spawn(move || {
//!         hub_core::sleep(Duration::from_millis(1));
//!         io::Write::write_all(&mut writer, b"x")
//!     });
//!     hub_core::trampoline(&reader, Interest::READ, Some(Duration::from_secs(10)))?;
//!     green.join()??;
//!     assert_eq!(hub_core::get_hub().name(), "poll");
//!     Ok(())
//! }
//! ```
//!
//! The clauses that it has to keep are listed at [`Hub`], and the crate `hub-testkit` checks them.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod biased;
mod blocking;
mod clock;
mod current;
mod descriptors;
mod detection;
mod dormant;
mod doubt;
mod error;
mod fork;
mod fork_aware;
mod grace;
mod green_local;
mod green_thread;
mod greenlet;
mod holder;
mod hub;
mod interest;
mod leftover;
mod limit;
mod link;
mod listener;
mod listing;
mod main_loop;
mod offload;
mod os_thread;
mod parker;
mod pool;
mod reach;
mod ready;
mod remote;
mod report;
pub mod round;
mod scope;
mod shield;
mod shutdown;
mod signal;
mod source;
mod stacks;
mod sync;
mod thread;
mod time;
mod timeout;
mod timer_queue;
mod trace;
mod trampoline;
mod unhandled;
mod wakeup;
mod watched;

pub use biased::{BiasedMutex, BiasedMutexGuard};
pub use clock::{Clocked, ManualClock};
pub use current::{HubRef, Registration, TimerHandle, get_hub, has_hub, try_get_hub, use_hub_descriptor, use_hub_with};
pub use detection::hub_blocking_detection;
pub use error::{
    GreenError, HubError, HubGone, JobError, Linked, LoopError, LoopExit, RawError, Timeout, TrampolineError,
};
pub use fork_aware::ForkAware;
pub use grace::{Grace, PiecewiseWait, panicking_grace, set_panicking_grace};
pub use green_local::{AccessError, LocalKey};
pub use green_thread::{
    Builder, GreenThread, Kill, consume_budget, current_id, current_name, interrupt, interrupt_with, kill,
    kill_progress, run_in_place, run_in_place_at, sleep, spawn, spawn_after, spawn_after_local, spawn_at, spawn_n,
    yield_now,
};
pub use greenlet::patience::{lock_patience, set_lock_patience};
pub use greenlet::payload::Payload;
pub use greenlet::raw::Greenlet;
pub use greenlet::run::set_turn_time;
#[cfg(feature = "tracing")]
pub use greenlet::spans::in_span;
pub use greenlet::unwind::{ExitKind, KillProgress, exit_kind, is_exit};
pub use holder::Holder;
pub use hub::{Hub, HubDescriptor, Lease, Notify, Rearm};
pub use interest::{Interest, Readiness};
pub use limit::Limit;
pub use link::LinkId;
/// What fills [`DEFAULT_HUB`].
pub use linkme;
pub use listener::{Listener, Timer};
pub use listing::{
    GreenletInfo, GreenletKind, GreenletState, ListenerInfo, TimerInfo, TimerPurpose, Who, greenlets, listeners, timers,
};
pub use main_loop::{
    DEFAULT_HUB, Stats, hub_listener_stacks, hub_prevent_multiple_readers, hub_timer_stacks, set_quiet_time,
};
pub use offload::{offload, offload_scoped};
pub use parker::{Doing, Parked, Parker, Unparker, throw_exit};
pub use pool::{ThreadPool, end_threads, set_threads};
pub use ready::Ready;
pub use remote::Remote;
pub use report::{Report, hub_exceptions, set_report_stream, warn};
pub use scope::{Scope, ScopedGreenThread, scope};
pub use shield::{shield, without_switching};
pub use shutdown::{Ended, run_and_shutdown};
pub use signal::{InterruptOn, interrupt_on};
pub use source::{Left, Source, SourceWaker};
pub use stacks::{StackPolicy, default_stack_size, set_default_stack_size, set_stack_policy};
pub use thread::{Thread, ThreadId, current, park, park_timeout};
pub use time::Time;
pub use timeout::with_timeout;
pub use trampoline::{Trampoline, notify_close, notify_opened, trampoline, trampoline_any, trampoline_raw};
pub use unhandled::set_error_message;
pub use watched::{Key, Watched};
#[doc(hidden)]
pub use {dormant::while_idle, fork::PerProcess, os_thread::start_thread};

/// The program of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
