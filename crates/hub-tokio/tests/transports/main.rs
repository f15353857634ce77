//! The transports, on every hub that runs them: a stream that needs no reactor runs on each.

#![cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]

mod ends;
mod lines;
mod model;
mod net;
mod pauses;
mod reads;
mod sharing;
mod support;
mod tls;
mod writes;
