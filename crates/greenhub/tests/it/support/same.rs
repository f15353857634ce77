//! Tests that hold for std and for this project alike.

/// Makes two tests of each function: one over std, in which `thread` are OS threads, and one over greenhub. In the
/// body `fs`, `net`, `process`, `streams`, `unix`, `sync` and `thread` mean the modules of either, `streams`
/// being `io`.
///
/// `TIMED_OUT` is the one kind of error that differs: a timeout of a socket is `WouldBlock` in std on Unix (what the
/// system calls say there; on Windows std says `TimedOut`), and `TimedOut` in greenhub everywhere. A program that is
/// right with std accepts both.
#[allow(unused_macros, reason = "the programs for the features compare nothing")]
macro_rules! same_as_std {
    ($(fn $name:ident() $body:block)*) => {
        mod over_std {
            #[allow(unused_imports, reason = "not each file uses all")]
            use {super::*, std::{fs, io as streams, net, os::unix::net as unix, process, sync, thread}};
            #[allow(dead_code, reason = "not each file uses it")]
            const TIMED_OUT: io::ErrorKind = io::ErrorKind::WouldBlock;
            $(#[test] fn $name() { crate::support::run(concat!("over_std::", stringify!($name)), || $body) })*
        }

        mod green {
            #[allow(unused_imports, reason = "not each file uses all")]
            use {super::*, greenhub::{fs, io as streams, net, os::unix::net as unix, process, sync, thread}};
            #[allow(dead_code, reason = "not each file uses it")]
            const TIMED_OUT: io::ErrorKind = io::ErrorKind::TimedOut;
            $(#[test] fn $name() { crate::support::run(concat!("green::", stringify!($name)), || $body) })*
        }
    };
}
