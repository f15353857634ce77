//! Other people's crates in green threads of [greenhub](https://docs.rs/greenhub).
//!
//! A library that works on any `Read + Write` needs no glue: rustls and tungstenite take a green
//! [`TcpStream`](greenhub::net::TcpStream) as it is. This crate is for libraries that open their own sockets. Each
//! module belongs to a feature, and no feature is on by default.
//!
//! | feature | module | for |
//! |---|---|---|
//! | `http-server` | `http` | an HTTP/1.1 server, over the parser of `httparse` and the types of `http` |
//! | `redis-1` | `redis` | redis 1: commands, pipelines and subscriptions over green sockets |
//! | `ureq-3` | `ureq` | ureq 3: agents over green sockets, with names from greenhub's resolver |
//! | `ureq-3-rustls` | `ureq` | the same, with TLS by rustls |
//!
//! A feature's name holds the major version of the foreign crate, so that a later version becomes a feature of its own.
//!
//! Like every library of greenhub, this crate never blocks an OS thread that has green threads, and prints nothing.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout))]

#[cfg(feature = "http-server")]
pub mod http;
#[cfg(feature = "redis-1")]
pub mod redis;
#[cfg(any(feature = "http-server", feature = "redis-1"))]
mod stream;
#[cfg(feature = "ureq-3")]
pub mod ureq;

#[cfg(any(feature = "http-server", feature = "redis-1"))]
pub use stream::Stream;

/// Compiles the program of the README.
#[cfg(all(doctest, feature = "http-server", feature = "ureq-3"))]
#[doc = include_str!("../README.md")]
struct Readme;
