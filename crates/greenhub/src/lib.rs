//! Green threads for Rust over pluggable event hubs.
//!
//! Code reads as if it blocked. Underneath, a call that would block registers with the hub of its OS thread (epoll
//! on Linux) and lets another green thread run, so plain sequential code serves a hundred thousand connections
//! from one thread. There is no `async` and no runtime to start: the main loop launches itself at the first call
//! that blocks.
//!
//! ```no_run
//! use greenhub::net::TcpListener;
//! use std::io::{self, Read, Write};
//!
//! fn main() -> io::Result<()> {
//!     let listener = TcpListener::bind("127.0.0.1:7000")?;
//!     loop {
//!         let (mut peer, _) = listener.accept()?; // parks main; the loop launches itself here
//!         greenhub::spawn(move || -> io::Result<()> {
//!             let mut buf = [0; 4096];
//!             loop {
//!                 let n = peer.read(&mut buf)?;
//!                 if n == 0 { return Ok(()) }
//!                 peer.write_all(&buf[..n])?;
//!             }
//!         });
//!     }
//! }
//! ```
//!
//! # What switches
//!
//! A green thread runs until it blocks, sleeps, waits or yields; nothing interrupts it in between. Every function
//! that may let others run says "Switches" in its documentation: reading, writing, accepting, connecting,
//! [`sleep`], [`GreenThread::join`] and [`wait`](GreenThread::wait), [`kill`](GreenThread::kill), [`trampoline`],
//! the end of a [`scope`], [`offload`], [`Greenlet::switch`]. [`spawn`] does not, nor does anything that wakes others.
//! A call that could be served at once mostly is, without a switch; but after 16 in a row the next one lets others run
//! first, so that nobody who reads from a fast peer or a full queue keeps the others waiting ([`consume_budget`]). Taking
//! a free lock never switches.
//! Calls of std that block (its own `net`, `fs`, `process`, `Mutex`, `sleep`) block the whole OS thread.
//!
//! # Where to read on
//!
//! | to | see |
//! |---|---|
//! | run things side by side | [`spawn`], [`GreenThread`], [`scope`], [`Builder`], [`sleep`] |
//! | use sockets | [`net`], [`os::unix::net`]; what differs from std is listed in `greenstd` |
//! | run a server, and stop it | [`net::serve_until`], [`net::ListenOptions`] |
//! | connect from an address of one's choice | [`net::ConnectOptions`] |
//! | use more than one processor | [`net::Cluster`], [`thread::os`] |
//! | end an OS thread with its green threads | [`thread::os::spawn`], [`HubRef::shutdown`] |
//! | look names up in your own way | [`net::Resolver`] |
//! | use files, pipes, standard input | [`fs`], [`io`] |
//! | start other programs and talk to them | [`process`] |
//! | limit how long something takes | [`with_timeout`], the timeouts of sockets |
//! | survive the panics of jobs, and still be killed | [`is_exit`], whose example is such a supervisor; [`exit_kind`] |
//! | give something back though a kill or a timeout comes | [`shield`], which also lists where exits strike |
//! | bound how much runs at once | [`GreenPool`], [`GreenPile`] |
//! | learn of an end, end together | [`GreenThread::link`], [`with_link`](GreenThread::with_link) |
//! | wait for many, end many | [`Group`] |
//! | do what can only block the OS thread | [`tpool`] |
//! | have a value for each green thread | [`green_local!`] |
//! | wait for a descriptor of your own | [`trampoline`], [`HubRef::listen`], [`Source`] |
//! | wait for many at once | [`select`] |
//! | choose a hub | [`use_hub`], `EVENTLET_HUB`, [`get_default_hub`] |
//! | bring a hub of your own | [`Hub`], [`use_hub_with`], [`register_hub`]; the crate `hub-testkit` checks it |
//! | wake a hub from another thread | [`HubRef::remote`] |
//! | leave a wait on Ctrl-C | [`interrupt_on`] |
//! | learn what failed where nobody asked | [`set_report_stream`] |
//! | look into a hub that runs | [`debug`], [`HubRef::stats`] |
//! | test what sleeps, without the time | [`ManualClock`] |
//! | make a primitive that waits | [`Parker`], [`BiasedMutex`] |
//! | switch by hand | [`Greenlet`] |
//!
//! Examples that say `hub_core::` are about names that are here too.
//!
//! # Choosing a hub
//!
//! Each OS thread has a hub of its own, made at its first use. Which one it is, in this order:
//!
//! 1. What the thread chose: [`use_hub`]`("epoll")` by name, [`use_hub_with`]`(MyHub::new)` for one of your own.
//! 2. What the environment variable `EVENTLET_HUB` names, for every thread that chose none. `use_hub(None)` goes back
//!    to that.
//! 3. The first of epoll, kqueue, poll and select that is compiled in and that the system has: [`get_default_hub`].
//!
//! A name that is empty, unknown, not compiled in or not available is an error that says so; nothing else is chosen
//! in its place. I/O returns it as an `io::Error`; [`sleep`] and [`get_hub`] panic with its message, [`try_get_hub`]
//! does not.
//!
//! ```
//! # #[cfg(feature = "epoll")] {
//! greenhub::use_hub("epoll")?;
//! assert_eq!(greenhub::get_hub().name(), "epoll");
//! # }
//! assert!(greenhub::use_hub("nonsense").is_err());
//! # Ok::<(), greenhub::HubError>(())
//! ```
//!
//! | name | alias | feature | system | |
//! |---|---|---|---|---|
//! | `epoll` | `epolls` | `epoll` (default) | Linux, Android | by default |
//! | `kqueue` | | `kqueue` (default) | BSD, macOS | by default |
//! | `poll` | | `poll` (default) | Unix | where neither epoll nor kqueue is |
//! | `select` | `selects` | `select` (default) | Unix | the last resort; descriptors below 1024 |
//! | `libevent` | `pyevent` | `libevent` | where libevent is | only by name |
//! | `tokio` | | `tokio` | where Tokio is | not there yet; only by name |
//! | any other | | – | – | [`register_hub`] makes it known; only by name |
//!
//! # Features
//!
//! The first six bring in one hub each. Without any of these a program needs [`use_hub_with`], or its first blocking call fails with
//! [`HubError::NoneAvailable`].
//!
//! - `epoll` (default): epoll(7), on Linux and Android; elsewhere it compiles and is not available.
//! - `kqueue` (default): kqueue(2), on BSD but for NetBSD and on macOS; elsewhere it compiles and is not available.
//! - `poll` (default): poll(2), on every Unix.
//! - `select` (default): select(2), on every Unix, for descriptors below `FD_SETSIZE`, mostly 1024.
//! - `libevent`: libevent, on Unix; a build needs libevent 2.1 with its headers, and pkg-config.
//! - `libevent-bundled`: `libevent`, with libevent 2.1.12 built along and linked statically; a build needs cmake 3, a C
//!   compiler and libclang.
//! - `backtrace`: [`Report::Blocked`] has a backtrace of the green thread that holds its loop; on Linux on x86-64 and
//!   64-bit ARM. It brings in `framehop`, `object` and `backtrace`.
//! - `tracing`: events for the crate [`tracing`](https://docs.rs/tracing), under the target `greenhub`: each green thread
//!   when it is spawned and when it has ended (`DEBUG`), hubs that are built (`INFO`), loops that begin and end (`DEBUG`),
//!   what the main greenlet's wait ends with (`WARN`), and every [`Report`] (`ERROR` or `WARN`), which goes to the
//!   [stream](set_report_stream) as well. And a span `green_thread` (`DEBUG`) for each green thread, with its `number`,
//!   `name` and `spawned_at`, a child of the one in which it is spawned: it is entered while the green thread runs and
//!   exited while it waits, so that whatever is told there is told of it, and closed when the green thread has ended.
//!   For a span of one's own that lasts across calls which switch there is `debug::in_span`. A guard of `Span::enter`
//!   must not be held across such a call, nor one of `tracing::subscriber::set_default`: they belong to the OS thread.
//!   A subscriber runs on the stack of whoever tells it something, and must not block on green I/O: what blocks while
//!   this crate tells it something gives an error instead, as in a callback of the main loop. What it does meanwhile is
//!   not told.

mod registry;

/// The programs of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use registry::{get_default_hub, register_hub, use_hub};

pub use greenstd::{
    debug, fs, green_local, greenpool, group, io, local, net, os, pools, process, select, sync, thread, time, tpool,
};

// What Eventlet has at its top, and gevent.
pub use greenstd::greenpool::{GreenPile, GreenPool};
pub use greenstd::group::Group;

// Green threads.
pub use hub_core::{
    BiasedMutex, BiasedMutexGuard, Builder, Deadline, ExitKind, GreenError, GreenThread, KillOutcome, LinkId, Linked,
    Parked, Parker, Scope, ScopedGreenThread, Timeout, Unparker, WaitReason, consume_budget, current_id, current_name,
    exit_kind, is_exit, kill, scope, set_quiet_time, shield, sleep, spawn, spawn_after, spawn_after_local, spawn_n,
    with_timeout, yield_now,
};

// Stacks.
pub use hub_core::{StackPolicy, default_stack_size, set_default_stack_size, set_stack_policy};

// The hub of a thread.
pub use hub_core::{
    Ended, Grace, HubError, HubGone, HubRef, InterruptOn, LoopError, LoopExit, Registration, Remote, Report, Stats,
    TimerHandle, get_hub, has_hub, hub_exceptions, hub_prevent_multiple_readers, interrupt_on, lock_patience,
    panicking_grace, set_error_message, set_lock_patience, set_panicking_grace, set_report_stream, set_turn_time,
    try_get_hub, use_hub_with,
};

// Waiting for descriptors, and for what other threads do.
pub use hub_core::{
    JobError, Listener, ReadHint, Source, SourceWaker, Timer, Trampoline, TrampolineError, notify_close, notify_opened,
    offload, trampoline, trampoline_any, trampoline_raw,
};

// What a hub of one's own is made of.
pub use hub_core::{
    Clocked, ForkAware, Hub, HubDescriptor, Interest, Key, Lease, ManualClock, Notify, Readiness, Ready, Rearm, Time,
    Watched, round,
};

// Greenlets.
pub use hub_core::{Greenlet, GreenletError, Payload};
