//! Tests that hold for std and for this project alike.

/// Makes two tests of each function: one over std, in which `thread` are OS threads, and one over greenhub. In the
/// body `fs`, `io`, `net`, `process`, `unix`, `sync` and `thread` mean the modules of either; `TIMED_OUT` is the one kind of error that differs.
macro_rules! same_as_std {
    ($(fn $name:ident() $body:block)*) => {
        mod over_std {
            #[allow(unused_imports, reason = "not each file uses all")]
            use {super::*, std::fs, std::io, std::net, std::os::unix::net as unix, std::process, std::sync, std::thread};
            #[allow(dead_code, reason = "not each file uses it")]
            const TIMED_OUT: io::ErrorKind = io::ErrorKind::WouldBlock;
            $(#[test] fn $name() { support::run(concat!("over_std::", stringify!($name)), || $body) })*
        }

        mod green {
            #[allow(unused_imports, reason = "not each file uses all")]
            use {super::*, greenhub::fs, greenhub::io, greenhub::net, greenhub::os::unix::net as unix, greenhub::process, greenhub::sync, greenhub::thread};
            #[allow(dead_code, reason = "not each file uses it")]
            const TIMED_OUT: io::ErrorKind = io::ErrorKind::TimedOut;
            $(#[test] fn $name() { support::run(concat!("green::", stringify!($name)), || $body) })*
        }
    };
}
