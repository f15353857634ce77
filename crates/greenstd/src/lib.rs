//! The blocking parts of the standard library, green: under the same names, with the same signatures and the
//! same kinds of errors. A call that would block parks the calling green thread; the other green threads of the
//! OS thread go on. This crate names no hub; programs use it through `greenhub`.
//!
//! | std | here | difference |
//! |---|---|---|
//! | `net::TcpStream`, `TcpListener`, `UdpSocket` | [`net`] | see below; a listener lets more connections wait (4096, std 128); `Incoming` ends when the listener is closed; no `into_incoming`, which is unstable in std |
//! | `net::ToSocketAddrs` | [`net::ToSocketAddrs`] | a trait of its own with the same implementors: names are looked up on another OS thread |
//! | `net::SocketAddr`, `IpAddr`, … , `Shutdown` | [`net`] | none: std's own types |
//! | `os::unix::net::UnixStream`, `UnixListener`, `UnixDatagram` | [`os::unix::net`] | see below; a full receiver or listener is tried again with pauses of up to 64 ms |
//! | `os::fd` | [`os::fd`] | none |
//! | `io` | [`io`] | none: std's traits; standard input blocks the OS thread |
//! | `time` | [`time`] | none |
//! | `thread::spawn` | [`thread::spawn`] | a green thread of this OS thread: asks for no `Send`, begins when the caller gives way |
//! | `thread::JoinHandle` | [`thread::JoinHandle`] | is `GreenThread`: `join` returns a `GreenError` instead of the payload of a panic; no `thread()` |
//! | `thread::Builder` | [`thread::Builder`] | stacks are smaller, and their size is a power of two |
//! | `thread::scope` | [`thread::scope`] | leaving it by a panic kills the children before they are joined |
//! | `thread::sleep`, `yield_now` | [`thread`] | let other green threads run |
//! | `thread::current` | [`thread::current`] | an id may be given again after its green thread has ended |
//! | `thread::park`, `unpark` | – | not there |
//! | `thread::available_parallelism`, `panicking` | [`thread`] | none |
//!
//! All sockets:
//!
//! - A timeout is an error of the kind [`TimedOut`](std::io::ErrorKind::TimedOut); std says `WouldBlock` on Unix.
//!   It counts for each call from its beginning.
//! - A second green thread that waits in the same direction is refused with
//!   [`ResourceBusy`](std::io::ErrorKind::ResourceBusy), unless `hub_prevent_multiple_readers` allows it. With
//!   `try_clone` each has a handle of its own.
//! - `close(&self)` is new: it wakes whoever waits.
//! - For the system the descriptor is non-blocking. `set_nonblocking` says what operations do, not what the
//!   system is told.
//! - `from_std` and `into_std` change between std and this crate, with timeouts and mode.
//! - They are `Send + Sync`. A socket that is used on another OS thread is watched by that thread's hub.
//! - `FromRawFd` is missing: `From<OwnedFd>` says who owns the number.

#![forbid(unsafe_code)]

#[macro_use]
mod macros;
mod socket;

pub mod io;
pub mod net;
pub mod os;
pub mod thread;
pub mod time;
