//! Tests that run over std and over greenhub.

/// Makes two tests of each function: one over std, whose threads are OS threads, and one over greenhub.
///
/// In the body, `fs`, `net`, `process`, `streams`, `unix`, `sync` and `thread` name the modules of either. `streams`
/// is the module `io`.
///
/// `TIMED_OUT` is the only error kind that differs. A socket timeout is `WouldBlock` in std on Unix, as the system
/// calls report it, and `TimedOut` in std on Windows. In greenhub it is `TimedOut` everywhere. A correct std program
/// accepts both.
#[allow(unused_macros, reason = "the test programs of single features do not use it")]
macro_rules! same_as_std {
    ($(fn $name:ident() $body:block)*) => {
        mod over_std {
            #[allow(unused_imports, reason = "a file uses some of them")]
            use {super::*, std::{fs, io as streams, net, os::unix::net as unix, process, sync, thread}};
            #[allow(dead_code, reason = "some files do not use it")]
            const TIMED_OUT: io::ErrorKind = io::ErrorKind::WouldBlock;
            $(#[test] fn $name() { crate::support::run(concat!("over_std::", stringify!($name)), || $body) })*
        }

        mod green {
            #[allow(unused_imports, reason = "a file uses some of them")]
            use {super::*, greenhub::{fs, io as streams, net, os::unix::net as unix, process, sync, thread}};
            #[allow(dead_code, reason = "some files do not use it")]
            const TIMED_OUT: io::ErrorKind = io::ErrorKind::TimedOut;
            $(#[test] fn $name() { crate::support::run(concat!("green::", stringify!($name)), || $body) })*
        }
    };
}
