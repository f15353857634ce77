//! The blocking parts of std for green threads, under the same names.
//!
//! Signatures and kinds of errors are those of std. A call that would block parks the calling green thread; the other
//! green threads of the OS thread go on. This crate names no hub; programs use it through `greenhub`.
//!
//! "Switches" in the documentation of a call says that other green threads may run before it returns. Such a call may
//! switch even if it could return at once: after many calls in a row it yields.
//!
//! # std, item by item
//!
//! | std | here | difference |
//! |---|---|---|
//! | `net::TcpStream`, `TcpListener`, `UdpSocket` | [`net`] | see below; the backlog of a listener is 4096 (std: 128); `Incoming` ends when the listener is closed; no `into_incoming`, which is unstable in std |
//! | `net::ToSocketAddrs` | [`net::ToSocketAddrs`] | a trait of its own with the same implementors: names are looked up on another OS thread, or by a custom [`net::Resolver`], and cached for 5 seconds |
//! | `net::SocketAddr`, `IpAddr`, … , `Shutdown` | [`net`] | none: std's own types |
//! | `os::unix::net::UnixStream`, `UnixListener`, `UnixDatagram` | [`os::unix::net`] | see below; calls on a full receiver or listener are repeated with pauses of up to 64 ms; `Incoming` ends when the listener is closed |
//! | `os::unix::net::SocketAddr` | [`os::unix::net::SocketAddr`] | none: std's own type |
//! | `os::fd` | [`os::fd`] | none |
//! | `io::Read`, `Write`, `BufReader`, `copy`, … | [`io`] | none: std's own |
//! | `io::pipe`, `PipeReader`, `PipeWriter` | [`io::pipe`] | `close(&self)` is new |
//! | `io::stdin`, `Stdin`, `StdinLock` | [`io::stdin`] | its own buffer beside std's; the lock is not reentrant |
//! | `io::stdout`, `stderr` and their locks | [`io::stdout`] | unbuffered, but each `write!` is written as one piece; in order with `print!`, which is std's own and blocks |
//! | `io::IsTerminal` | `is_terminal` of each | a method, because the trait is sealed |
//! | `fs`: its functions, `File`, `OpenOptions`, `DirBuilder`, `ReadDir`, `DirEntry` | [`fs`] | run on other OS threads, which costs some 20 µs each |
//! | `fs::Metadata`, `Permissions`, `FileType`, `FileTimes` | [`fs`] | none: std's own |
//! | `os::unix::fs`, `os::unix::prelude` | [`os::unix`] | `OpenOptionsExt`, `DirBuilderExt` and `DirEntryExt` are traits of their own, implemented for the green types; the prelude has no `JoinHandleExt` |
//! | `process::Command`, `Child`, `ChildStdin`, … | [`process`] | `wait_timeout` and `close(&self)` are new; `as_std_mut` for the rest; a child whose last waiter was unwound is reaped later |
//! | `process::Stdio`, `ExitStatus`, `Output`, `exit`, … | [`process`] | none: std's own; green pipes, files and standard outputs become `Stdio` |
//! | `os::unix::process::CommandExt`, `ExitStatusExt` | [`os::unix::process`] | `pre_exec` and `groups` by way of `as_std_mut`; `ExitStatusExt` is std's own |
//! | `time` | [`time`] | none: std's own; `interval`, `sleep_until` and `timeout_at` are new |
//! | `thread::spawn` | [`thread::spawn`] | a green thread of this OS thread: requires no `Send`, begins when the caller switches; [`thread::os::spawn`] starts an OS thread that unwinds its green threads at its end, and whose `join` parks |
//! | `thread::JoinHandle` | [`thread::JoinHandle`] | is `GreenThread`: `join` returns a `GreenError`, whose `into_panic` returns the payload of a panic |
//! | `thread::Builder` | [`thread::Builder`] | stacks are smaller (256 KiB), and their size is a power of two; `spawned_at` is new |
//! | `thread::scope`, `Scope` | [`thread::scope`] | a panic of the scope's closure kills the children before they are joined |
//! | `thread::ScopedJoinHandle` | [`thread::ScopedJoinHandle`] | is `ScopedGreenThread`: `join` returns a `GreenError` |
//! | `thread::sleep`, `yield_now` | [`thread`] | let other green threads run |
//! | `thread::current`, `Thread`, `ThreadId` | [`thread::current`] | main has no name; no `ThreadId` of std |
//! | `thread::park`, `park_timeout`, `Thread::unpark` | [`thread::park`] | none |
//! | `panic::catch_unwind` | std's own | catches exits, too, which must be resumed: see [`is_exit`](hub_core::is_exit) |
//! | `thread::available_parallelism`, `panicking` | [`thread`] | none: std's own |
//! | `sync::Mutex`, `MutexGuard` | [`sync::Mutex`] | see below |
//! | `sync::RwLock` and its guards | [`sync::RwLock`] | see below; a reader waits behind a waiting writer |
//! | `sync::Condvar` | [`sync::Condvar`] | see below; `WaitTimeoutResult` is a type of its own |
//! | `sync::Barrier` | [`sync::Barrier`] | see below; a waiter that an exit unwinds takes its arrival back |
//! | `sync::Once`, `OnceLock`, `LazyLock` | [`sync::Once`], [`sync::OnceLock`], [`sync::LazyLock`] | see below; `OnceState` is a type of its own |
//! | `sync::mpsc` | [`sync::mpsc`] | see below; std's own errors |
//! | `sync::Arc`, `Weak`, `atomic`, `PoisonError`, … | [`sync`] | none: std's own |
//!
//! Items of std that this crate does not have:
//!
//! | std | instead |
//! |---|---|
//! | `thread::sleep_ms`, `park_timeout_ms` | deprecated in std |
//! | `thread::LocalKey`, `thread_local!` | [`green_local!`]; std's own, which all green threads of an OS thread share |
//! | `thread::Result` | `Result<T, GreenError>` |
//! | `TcpListener::set_only_v6`, `only_v6` | deprecated in std |
//! | `thread::Builder::spawn_unchecked` | `spawn_scoped`, which is safe; a green thread that borrows without a scope may be abandoned when its OS thread ends |
//! | `sync::ONCE_INIT`, `Condvar::wait_timeout_ms` | deprecated in std |
//! | `FromRawFd` of sockets, files and pipes | `From<OwnedFd>`, which transfers the ownership of the descriptor |
//! | `Read`, `Write` and `Seek` for `Arc<fs::File>` | implemented for `&File`, hence for `&*file`; the orphan rule allows only std to implement them for an `Arc` |
//! | `os::linux::net::TcpStreamExt` | the option is set on `as_fd()`, by a crate such as `socket2` |
//! | unstable items | –, but for `TcpStream::set_linger` and `linger` |
//! | `print!`, `eprintln!`, … | std's own; `writeln!` to [`io::stdout`] and [`io::stderr`] parks while there is no room |
//! | `fs::File::lock` and its kin | newer than the oldest Rust that is supported; [`tpool::execute`] with `into_std` |
//! | `fs::soft_link` | deprecated in std; [`os::unix::fs::symlink`] |
//! | `Path::exists`, `metadata`, `read_dir`, … | the functions of [`fs`]; std's own block the OS thread |
//! | `os::unix::fs::chroot`, `fchown` | std's own, which do not wait for a disk |
//!
//! Eventlet's names beside those of std: [`net::serve`], [`net::ListenOptions`] and [`net::ConnectOptions`],
//! [`greenpool`], [`tpool`], the events, queues and semaphores of [`sync`], [`pools`], [`local`], and the green
//! `select` and `poll` of [`select`]. From gevent: [`Group`](greenpool::Group). From Tokio: the channels
//! [`oneshot`](sync::oneshot), [`watch`](sync::watch) and [`broadcast`](sync::broadcast), [`sync::Notify`] and
//! [`sync::CancellationToken`].
//!
//! [`future::AsyncIo`] gives green sockets and pipes to asynchronous code: Tokio's traits, those of the crate `futures`
//! and hyper's, each by a feature.
//!
//! # All of `sync`
//!
//! - Waiters are granted in FIFO order, and a newcomer never gets what was granted to a waiter. Waiters on different OS
//!   threads may run in another order. Items of queues and channels leave in their own order, so a granted waiter is
//!   sure of one item, not of a particular one.
//! - An [exit](hub_core::is_exit) that unwinds out of a guard or a closure poisons as a panic does. An exit that
//!   strikes in a wait does not poison. A wait returns what it was granted, and an exit after the grant strikes at the
//!   next wait.
//! - Where no green thread may wait (in the main loop, while panicking, when nothing can ever wake main) a wait panics
//!   if its signature has no error. Destructors that run while unwinding should use the `try_` forms: a lock that does
//!   not become free within [`set_panicking_grace`](hub_core::set_panicking_grace) aborts the process.
//!
//! # All sockets
//!
//! - A timeout is an error of the kind [`TimedOut`](std::io::ErrorKind::TimedOut); std returns `WouldBlock` on Unix.
//!   The timeout counts for each call from its beginning.
//! - A second green thread that waits in the same direction is refused with
//!   [`ResourceBusy`](std::io::ErrorKind::ResourceBusy), unless `hub_prevent_multiple_readers` is off. A green thread
//!   of another OS thread is refused in any case. With `try_clone` each green thread has its own handle.
//! - `close(&self)` is new: it wakes the waiters.
//! - For the system the descriptor is always non-blocking. `set_nonblocking` changes the behaviour of the operations,
//!   not the mode of the descriptor.
//! - `from_std` and `into_std` convert between std and this crate, with timeouts and mode.
//! - They are `Send + Sync`. A socket that is used on another OS thread is watched by that OS thread's hub.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout))]
// The loom models of hub-core build without the rest; `tests/wait_queue_model.rs` includes the wait queue by itself.
#![cfg(not(loom))]

#[macro_use]
mod macros;
mod exclusive;
mod handle;
mod killed;
mod socket;
mod stream;

pub mod debug;
pub mod fs;
pub mod future;
pub mod greenpool;
pub mod io;
pub mod local;
#[doc(alias = "monkey_patch")]
#[doc(alias = "wrap_ssl")]
pub mod net;
pub mod os;
pub mod pools;
pub mod process;
pub mod select;
pub mod signal;
pub mod sync;
pub mod thread;
pub mod time;
pub mod tpool;

/// Compiles the program of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
