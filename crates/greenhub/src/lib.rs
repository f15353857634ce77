//! Green threads for Rust over pluggable event hubs.
//!
//! Code reads as if it blocked. Underneath, a call that would block registers with the hub of its OS thread (epoll
//! on Linux) and lets another green thread run. Plain sequential code serves a hundred thousand connections from one
//! OS thread. There is no `async` and no runtime to start: the main loop launches itself at the first call that
//! blocks.
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
//! The [guide](https://github.com/greenhub/greenhub/blob/main/docs/book/src/SUMMARY.md) begins with a first server, and
//! explains hubs, the main loop and every message.
//!
//! # What switches
//!
//! A green thread runs until it blocks, sleeps, waits or yields. Nothing preempts it. Every function that may let other
//! green threads run says "Switches" in its documentation: reading, writing, accepting, connecting, [`sleep`],
//! [`GreenThread::join`] and [`wait`](GreenThread::wait), [`kill`](GreenThread::kill), [`trampoline`], the end of a
//! [`scope`], [`tpool::execute`], [`block_on`](future::block_on), [`Greenlet::switch`](greenlet::Greenlet::switch).
//! [`spawn`] does not switch, and neither does any call that wakes another green thread. Nothing switches inside a poll
//! of a future, unless [`block_in_place`](future::block_in_place) allows it.
//!
//! A call that need not wait usually returns without a switch. After 16 such calls in a row the next one yields first,
//! so a reader with a fast peer or a full queue cannot starve the other green threads
//! ([`consume_budget`](park::consume_budget)). Taking a free lock never switches.
//!
//! Blocking calls of std (its own `net`, `fs`, `process`, `Mutex`, `sleep`) block the whole OS thread.
//!
//! # Limits of waits
//!
//! A call that mirrors one of std has std's signature and results. The others take their limit in one of three forms:
//!
//! - A [`Duration`](std::time::Duration), if the call always has a limit. Its name ends with `_timeout`.
//! - An `impl Into<Option<Duration>>`, if the limit may be absent: `None`, `Some(limit)` and `limit` are all accepted.
//! - A `&mut` [`Deadline`](park::Deadline), in the calls of [`park`] from which primitives are made. A primitive that
//!   is woken without a grant waits again, and its deadline has not moved.
//!
//! A limit that was reached is an error of the variant or kind `TimedOut`, beside the variants for a closed object and
//! for a caller that cannot wait. Each of these errors converts to an `io::Error` of the kind
//! [`TimedOut`](std::io::ErrorKind::TimedOut). Where a call that waits has a sibling named `try_`, the sibling does not
//! wait. It says "not now" by `None`, `false`, `Empty` or `Full`.
//!
//! ```
//! use greenhub::sync::{GetError, Queue};
//! use greenhub::{Interest, TrampolineError, trampoline};
//! use std::time::Duration;
//! let queue: Queue<()> = Queue::new();
//! assert!(matches!(queue.try_get(), Err(GetError::Empty)));
//! assert!(matches!(queue.get_timeout(Duration::from_millis(1)), Err(GetError::TimedOut)));
//! let (reader, _writer) = std::io::pipe()?;
//! let waited = trampoline(&reader, Interest::READ, Duration::from_millis(1));
//! assert!(matches!(waited, Err(TrampolineError::TimedOut { .. })));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! These are all the exceptions:
//!
//! | calls | difference |
//! |---|---|
//! | [`Mutex::try_lock_for`](sync::Mutex::try_lock_for), [`RwLock::try_read_for`](sync::RwLock::try_read_for) and [`try_write_for`](sync::RwLock::try_write_for) | have parking_lot's names, and wait. std's `TryLockError` has no variant for a limit, so `WouldBlock` says that it was reached |
//! | [`try_sleep`](thread::try_sleep), [`Interval::try_tick`](time::Interval::try_tick), [`try_block_on`](future::try_block_on), [`Group::try_wait_all`](greenpool::Group::try_wait_all) | wait. They return an error where `sleep`, `tick` and `block_on` panic, and where `wait_all` waits for the other members |
//! | [`with_timeout`] | returns a [`Timeout`], which has this one cause |
//! | [`Trampoline::wait`] | returns `Custom` with the error of [`timeout_error`](Trampoline::timeout_error), if one was set |
//! | [`Parker::park`](park::Parker::park), [`park_deferring_exit`](park::Parker::park_deferring_exit) | return [`Parked::TimedOut`](park::Parked::TimedOut): the primitive that calls them looks for a grant first |
//! | [`ReadyList::next`](park::ReadyList::next), [`next_with`](park::ReadyList::next_with) | return `None`: a wait for several objects, which is made of it, returns those that were ready |
//! | [`select`](mod@select), [`Child::wait_timeout`](process::Child::wait_timeout), [`HubRef::join`] | return what their models return: no ready entry, `None`, and `false` |
//! | [`GreenPool::kill_all_timeout`], [`Group::kill_all_timeout`](greenpool::Group::kill_all_timeout), [`HubRef::shutdown`] | end green threads within the limit, and return how many are left. [`run_and_shutdown`](thread::os::run_and_shutdown) returns the result of its closure |
//! | `iwait`, `wait`, `joinall` and `killall` of `gevent` (feature `loop`) | return the objects that are ready, and the number of green threads that are left |
//! | [`HubRef::run_once`] | limits the sleep of a turn, which has no result |
//! | [`StopServe::stop_within`](net::StopServe::stop_within) | does not wait. The time limits the handlers of a server |
//!
//! # Where to read on
//!
//! | to | see |
//! |---|---|
//! | run code concurrently | [`spawn`], [`GreenThread`], [`scope`], [`Builder`], [`sleep`] |
//! | use sockets | [`net`], [`os::unix::net`]; `greenstd` lists the differences from std |
//! | run a server, and stop it | [`net::serve_until`], [`net::ListenOptions`] |
//! | connect from a given local address | [`net::ConnectOptions`] |
//! | use more than one processor | [`net::Cluster`], [`thread::os`] |
//! | end an OS thread with its green threads | [`thread::os::spawn`], [`HubRef::shutdown`] |
//! | replace name resolution | [`net::Resolver`] |
//! | use files, pipes, standard input | [`fs`], [`io`] |
//! | start child processes and talk to them | [`process`] |
//! | limit how long an operation takes | [`with_timeout`], [`timeout_at`](time::timeout_at), the timeouts of sockets |
//! | do something at regular times | [`time::interval`] |
//! | supervise jobs that panic | [`is_exit`](greenthread::is_exit), whose example is a supervisor; [`exit_kind`](greenthread::exit_kind) |
//! | ask green threads to stop, or end them together | [`sync::CancellationToken`] |
//! | pass values between green threads, hubs and OS threads | [`sync`], whose first page lists the channels and queues |
//! | clean up despite a kill, a timeout or a link | [`shield`], which also lists where exits are delivered |
//! | bound concurrency | [`GreenPool`], [`GreenPile`](greenpool::GreenPile) |
//! | limit a rate | [`sync::RateLimiter`] |
//! | observe the end of a green thread, or share it | [`GreenThread::link`], [`with_link`](GreenThread::with_link) |
//! | join or kill several green threads | [`Group`](greenpool::Group) |
//! | run blocking code on a pool of OS threads | [`tpool`] |
//! | wait for a future, or make one of a green thread | [`future`] |
//! | give a green socket to asynchronous code, such as hyper | [`future::AsyncIo`] |
//! | keep a value per green thread | [`green_local!`](local::green_local) |
//! | wait for a descriptor of your own | [`trampoline`], [`HubRef::listen`], [`Source`](park::Source) |
//! | wait for several descriptors at once | [`select`] |
//! | wait for channels, events, descriptors and times together | [`Select`](select::Select) |
//! | react to descriptors, timers, signals, child processes and files by callbacks | `gevent` (feature `loop`): gevent's event loop with its watchers |
//! | choose a hub | [`use_hub`], `GREENHUB_HUB`, [`get_default_hub`] |
//! | write a hub | [`Hub`](hub::Hub), [`use_hub_with`], [`register_hub`]; the crate `hub-testkit` checks it |
//! | wake a hub from another OS thread | [`HubRef::remote`] |
//! | wait for Ctrl-C or another signal | [`signal`] |
//! | end the wait of the main greenlet on Ctrl-C | [`interrupt_on`](hub::interrupt_on) |
//! | redirect reports of unhandled panics and failures | [`set_report_stream`](debug::set_report_stream) |
//! | inspect a running hub | [`debug`], [`HubRef::stats`] |
//! | test timeouts without waiting | [`ManualClock`](hub::ManualClock) |
//! | write a synchronization primitive | [`Parker`](park::Parker), [`BiasedMutex`](park::BiasedMutex) |
//! | switch by hand | [`Greenlet`](greenlet::Greenlet) |
//!
//! A program that names only items of `hub-core` gets these hubs, too, if it says `use greenhub as _;`.
//!
//! # Choosing a hub
//!
//! Each OS thread has a hub of its own, built at its first use. The first of these rules that applies decides:
//!
//! 1. The OS thread chose a hub: [`use_hub`]`("epoll")` chooses by name, [`use_hub_with`]`(MyHub::new)` a hub of your
//!    own. `use_hub(None)` withdraws the choice.
//! 2. The environment variable `GREENHUB_HUB` names a hub. If it is not set, Eventlet's `EVENTLET_HUB` does.
//! 3. The default is the first of epoll, kqueue, poll and select that is compiled in and available:
//!    [`get_default_hub`].
//!
//! A name that is empty, unknown, not compiled in or not available is an error, which says which variable it was read
//! from. No other hub is chosen in its place, and an empty `GREENHUB_HUB` does not lead to `EVENTLET_HUB`.
//! I/O returns the error as an `io::Error`, [`try_get_hub`] as a [`HubError`](hub::HubError). [`sleep`] and [`get_hub`]
//! panic with its message.
//!
//! ```
//! # #[cfg(feature = "epoll")] {
//! greenhub::use_hub("epoll")?;
//! assert_eq!(greenhub::get_hub().name(), "epoll");
//! # }
//! assert!(greenhub::use_hub("nonsense").is_err());
//! # Ok::<(), greenhub::hub::HubError>(())
//! ```
//!
//! | name | alias | feature | system | how to reach it |
//! |---|---|---|---|---|
//! | `epoll` | `epolls` | `epoll` (default) | Linux, Android | no choice, `use_hub("epoll")`, `GREENHUB_HUB=epoll` |
//! | `kqueue` | | `kqueue` (default) | FreeBSD, OpenBSD, DragonFly, macOS, iOS | no choice, or by name |
//! | `poll` | | `poll` (default) | Unix | by name; no choice, if neither of the above is compiled in and available |
//! | `select` | `selects` | `select` (default) | Unix; descriptors below `FD_SETSIZE` | by name; no choice, if none of the above is |
//! | `libevent` | `pyevent` | `libevent` | Unix with libevent | by name |
//! | `tokio` | `twistedr`, `asyncio` | `tokio` | those of `epoll` and `kqueue` | by name |
//! | any other | | – | – | by name, after [`register_hub`] |
//! | of your own | | – | – | [`use_hub_with`]`(MyHub::new)`, which needs no name |
//!
//! # Environment
//!
//! These variables change what a program does. A call of the program goes before them.
//!
//! | variable | sets |
//! |---|---|
//! | `GREENHUB_HUB`, or else `EVENTLET_HUB` | the name of the hub: [`use_hub`] |
//! | `GREENHUB_BLOCKING` | the blocking detector, by its resolution in seconds: [`debug::hub_blocking_detection`] |
//! | `EVENTLET_THREADPOOL_SIZE` | the number of OS threads of the default pool: [`tpool::set_num_threads`] |
//!
//! # Features
//!
//! The first seven features bring in the hubs. A program without any of them needs [`use_hub_with`] or
//! [`register_hub`]; otherwise its first blocking call fails with
//! [`HubError::NoneAvailable`](hub::HubError::NoneAvailable).
//!
//! - `epoll` (default): epoll(7), on Linux and Android. Elsewhere the feature compiles, and the hub is not available.
//! - `kqueue` (default): kqueue(2), on FreeBSD, OpenBSD, DragonFly, macOS and iOS. Elsewhere the feature compiles, and
//!   the hub is not available.
//! - `poll` (default): poll(2), on every Unix.
//! - `select` (default): select(2), on every Unix, for descriptors below `FD_SETSIZE`, usually 1024.
//! - `libevent`: libevent, on Unix. A build needs libevent 2.1 with its headers, and pkg-config.
//! - `libevent-bundled`: as `libevent`, with libevent 2.1.12 built from source and linked statically. A build needs
//!   cmake 3, a C compiler and libclang.
//! - `tokio`: a hub that runs a Tokio runtime while it waits, over epoll or kqueue; see the crate `hub-tokio`.
//! - `loop`: gevent's event loop as the module `gevent`: watchers with callbacks and priorities, waits for them, and
//!   `iwait`, `wait`, `joinall` and `killall`. It works over every hub, and brings in the crate `hub-loop`.
//! - `backtrace`: backtraces of parked green threads, by [`debug::backtrace_of`] and [`debug::dump`] and in reports of
//!   deadlocks. [`Report::Blocked`](debug::Report::Blocked) has that of the green thread that holds the main loop. The
//!   feature works on Linux on x86-64 and 64-bit ARM, and brings in `framehop`, `object` and `backtrace`.
//! - `console`: `debug::console`, which serves a console on a Unix socket that only the user of the program can open.
//!   Its clients list green threads, show their backtraces, and can kill them.
//! - `tracing`: events and spans for the crate [`tracing`](https://docs.rs/tracing), under the target `greenhub`; see
//!   below.
//! - `metrics`: `debug::publish_metrics` publishes the numbers of each hub and the latency of its loop to the recorder
//!   of the crate [`metrics`](https://docs.rs/metrics). It brings in that crate and two others.
//! - `tokio-io`: Tokio's `AsyncRead` and `AsyncWrite` for [`future::AsyncIo`]. It brings in these traits alone, no
//!   runtime.
//! - `futures-io`: `AsyncRead` and `AsyncWrite` of the crate `futures` for [`future::AsyncIo`].
//! - `hyper-io`: hyper's `Read` and `Write` for [`future::AsyncIo`], with `future::GreenExecutor` and
//!   `future::GreenTimer`.
//!
//! ## Events and spans
//!
//! With the feature `tracing` this crate emits an event for
//!
//! - the spawn and the end of each green thread (`DEBUG`),
//! - each hub that is built (`INFO`),
//! - the start and the end of each main loop (`DEBUG`),
//! - the error that ends a wait of the main greenlet (`WARN`),
//! - every [`Report`](debug::Report) (`ERROR` or `WARN`). The [report stream](debug::set_report_stream) still receives
//!   it, too.
//!
//! Each green thread has a span `green_thread` (`DEBUG`) with its `number`, `name` and `spawned_at`. The parent is the
//! span in which the green thread is spawned. The span is entered while the green thread runs, exited while it waits,
//! and closed after it has ended, so events that are emitted in the green thread belong to it.
//!
//! `debug::in_span` enters a span of your own across calls that switch. Neither a guard of `Span::enter` nor one of
//! `tracing::subscriber::set_default` may be held across such a call, because these guards belong to the OS thread.
//!
//! A subscriber runs on the stack of the green thread that emits the event. It must not block on green I/O: while it
//! handles an event of this crate, blocking calls return an error, as in a callback of the main loop. This crate emits
//! no events for the subscriber's own actions in that time.

#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout))]

pub mod future;
pub mod greenlet;
pub mod greenthread;
pub mod hub;
pub mod park;
mod registry;

/// Compiles the programs of the README as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use greenstd::greenpool::GreenPool;
pub use greenstd::{
    debug, fs, greenpool, io, local, net, os, pools, process, select, signal, sync, thread, time, tpool,
};
pub use hub_core::hub::Interest;
pub use hub_core::{
    Builder, GreenError, GreenThread, HubRef, Timeout, Trampoline, TrampolineError, get_hub, kill, scope, shield,
    sleep, spawn, spawn_after, spawn_after_local, spawn_n, trampoline, try_get_hub, use_hub_with, with_timeout,
};
#[cfg(feature = "loop")]
#[doc(inline)]
pub use hub_loop as gevent;
pub use registry::{get_default_hub, register_hub, use_hub};
