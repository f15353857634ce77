//! The hub trait, greenlets and the main loop of greenhub.
//!
//! Hubs are written against this crate. Programs use `greenhub`, which re-exports it; the examples of this
//! documentation are for such programs. The crate names no backend: an OS thread uses the hub given to
//! [`use_hub_with`], or the default hub of the facade. A program that names only items of this crate gets the facade's
//! hubs by `use greenhub as _;`.
//!
//! A function that may let other green threads run says "Switches" in its documentation. The other functions do not
//! switch, with one exception: the drop of a [`Greenlet`]'s last handle.
//!
//! # Where to read
//!
//! The modules of `src` are in layers. A module uses only its own layer and the layers below; `cargo xtask tidy` checks
//! this. From the bottom up:
//!
//! | layer | folder or file | contents | public |
//! |---|---|---|---|
//! | base | `base` | forks, OS threads of the library's own, reasons of waits | [`WaitReason`] |
//! | contract | [`hub`], `error`, `report`, `timer_queue` | the contract between a hub and the loop, with its own front page; errors, the report stream, the queue of timers | [`Hub`](hub::Hub), [`Interest`](hub::Interest), [`GreenError`], [`HubError`], [`LoopError`], [`Report`] |
//! | greenlet | `greenlet` | stacks, switches, exits, the run queue, the cells of green threads | [`Greenlet`], [`Payload`], [`is_exit`] |
//! | main_loop | `main_loop` | one turn after another; the table of descriptors, callbacks, mail from other OS threads, the blocking detector | [`Stats`], [`Listener`], [`Remote`] |
//! | wait | `wait` | waits for descriptors, for other OS threads, for jobs | [`trampoline()`], [`Source`], [`Parker`] |
//! | api | `api` | the functions and handles that programs use | [`spawn`], [`GreenThread`], [`sleep`], [`scope()`], [`with_timeout`], [`HubRef`], [`future`] |
//!
//! # Implementing a hub
//!
//! A [`Hub`](hub::Hub) wraps the system call and nothing else. This crate provides green threads, timers, listeners,
//! wake-ups from other OS threads, and closing. Below is a complete hub over poll(2), and a program that uses it:
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
//! [`Hub`](hub::Hub) lists the clauses of the contract. The crate `hub-testkit` checks them.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout))]

mod api;
mod base;
mod error;
mod greenlet;
pub mod hub;
mod main_loop;
mod report;
mod timer_queue;
mod wait;

pub use api::backtrace::{BacktraceError, backtrace_of};
pub use api::budget::consume_budget;
pub use api::builder::Builder;
pub use api::detection::hub_blocking_detection;
pub use api::dump::dump;
pub use api::dump_on::{DumpOn, dump_on};
pub use api::embed::Embedded;
pub use api::error_handler::Verdict;
pub use api::green_local::{AccessError, LocalKey};
pub use api::green_thread::{GreenThread, current_id, current_name};
pub use api::hook::Hook;
pub use api::hub_ref::{HubRef, get_hub, has_hub, try_get_hub};
pub use api::kill::{KillOutcome, kill};
pub use api::link::LinkId;
pub use api::listing::{
    GreenletInfo, GreenletKind, GreenletState, ListenerInfo, TargetInfo, TimerInfo, TimerPurpose, greenlets, listeners,
    timers,
};
#[cfg(feature = "metrics")]
pub use api::metrics::{describe_metrics, flush_metrics, publish_metrics};
pub use api::registration::Registration;
pub use api::scope::{Scope, ScopedGreenThread, scope};
pub use api::shield::shield;
pub use api::signal::{InterruptOn, interrupt_on};
pub use api::sleep::{sleep, try_sleep, yield_now};
pub use api::spawn::{spawn, spawn_after, spawn_after_local, spawn_n};
pub use api::stacks::{StackPolicy, default_stack_size, set_default_stack_size, set_stack_policy, stack_policy};
pub use api::thread::{Thread, ThreadId, current, park, park_timeout};
pub use api::timer_handle::TimerHandle;
pub use api::use_hub::use_hub_with;
pub use api::waitable::Waitable;
pub use api::with_timeout::with_timeout;
pub use base::id::{GreenletId, HubId};
pub use base::wait_reason::WaitReason;
pub use error::{
    ExitKind, GreenError, GreenletError, HubError, HubGone, JobError, Linked, LoopError, LoopErrorKind, LoopExit,
    Panic, Timeout, TrampolineError,
};
pub use greenlet::exit::{exit_kind, is_exit};
pub use greenlet::patience::{lock_patience, set_lock_patience};
pub use greenlet::payload::Payload;
pub use greenlet::raw::Greenlet;
pub use greenlet::run::{set_turn_time, throw_exit, turn_time};
#[cfg(feature = "tracing")]
pub use greenlet::spans::in_span;
pub use greenlet::unhandled::set_error_message;
pub use main_loop::deadline::Deadline;
pub use main_loop::hub_prevent_multiple_readers::hub_prevent_multiple_readers;
pub use main_loop::listener::{Listener, Timer};
pub use main_loop::parked::Parked;
pub use main_loop::read_hint::ReadHint;
pub use main_loop::remote::Remote;
pub use main_loop::{
    Phase, Stats, busy_poll_time, hub_listener_stacks, hub_timer_stacks, quiet_time, set_busy_poll_time, set_quiet_time,
};
pub use report::{Report, hub_exceptions, set_report_stream};
pub use wait::biased::{BiasedMutex, BiasedMutexGuard};
pub use wait::grace::{Grace, panicking_grace, set_panicking_grace};
pub use wait::notify::{notify_close, notify_opened};
pub use wait::parker::Parker;
pub use wait::ready_list::{LeftMark, ReadyList, ReadyMark, ReadyMarks};
pub use wait::shutdown::Ended;
pub use wait::source::{Source, SourceWaker};
pub use wait::thread_pool::ThreadPool;
pub use wait::trampoline::{Trampoline, trampoline, trampoline_any, trampoline_raw};
pub use wait::unparker::Unparker;

/// Futures on every hub, without a runtime.
///
/// [`block_on`](future::block_on) waits for a future in a green thread, and
/// [`defer_to_green_thread`](future::defer_to_green_thread) makes a future of a green thread. The module of this name
/// in `greenhub` has a table of all uses.
pub mod future {
    pub use crate::api::future::deferred::{Deferred, defer_to_green_thread};
    pub use crate::api::future::remote::RemoteDeferred;
    pub use crate::api::future::{block_in_place, block_on, spawn_future, try_block_on};
    pub use crate::wait::sleep_future::{Sleep, sleep};
}

/// The items for greenstd, hub-loop, hub-tokio and the facade alone.
///
/// These crates need them beside the public names. The items may change at any time.
#[doc(hidden)]
pub mod internal {
    pub use linkme;

    pub use crate::api::backtrace::capture_backtrace;
    pub use crate::api::capture::Capture;
    pub use crate::api::dump::capture_dump;
    pub use crate::api::hook::hook_shared;
    pub use crate::api::hub_ref::present_time;
    pub use crate::api::kill::{birth_of, kill_progress, request_exit, request_exit_with};
    pub use crate::api::listing::{greenlets_at_most, listeners_at_most, timers_at_most};
    #[cfg(feature = "metrics")]
    pub use crate::api::metrics::wait_for_recorder;
    pub use crate::api::registration::listen_shared;
    pub use crate::api::run_in_place::{run_in_place, run_in_place_at};
    pub use crate::api::shield::without_switching;
    pub use crate::api::signal::{SignalCallback, SignalLatch, SignalWait, latch_on, why_not_caught};
    pub use crate::api::sleep::yield_deferring_errors;
    pub use crate::api::spawn::{spawn_at, spawn_named_at};
    pub use crate::api::timer_handle::schedule_shared;
    pub use crate::api::use_hub::use_hub_descriptor;
    pub use crate::base::contain::drop_contained;
    pub use crate::base::dormant::while_idle;
    pub use crate::base::fork::PerProcess;
    pub use crate::base::os_thread::start_thread;
    pub use crate::greenlet::ask_owner::{ClosedOwner, ask_owner};
    pub use crate::greenlet::describe::describe_running;
    pub use crate::greenlet::exit::KillProgress;
    pub use crate::main_loop::DEFAULT_HUB;
    pub use crate::main_loop::callbacks::call_contained;
    pub use crate::main_loop::hub_prevent_multiple_readers::prevents_multiple_readers;
    pub use crate::main_loop::latch::{Latch, LatchWakeup};
    pub use crate::main_loop::signal_wait::Moment;
    pub use crate::report::report_failure;
    pub use crate::wait::grace::PiecewiseWait;
    pub use crate::wait::holder::Holder;
    pub use crate::wait::offload::{offload, offload_scoped};
    pub use crate::wait::shutdown::run_and_shutdown;
    pub use crate::wait::thread_pool::{end_threads, num_threads, set_num_threads};
    pub use crate::wait::unparker::unpark_under_lock;
}

/// Compiles the program of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
