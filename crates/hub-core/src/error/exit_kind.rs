//! The kinds of exits.

use std::fmt;

/// The limit of throws of one exit. Code that catches it each time does not intend to end.
pub(crate) const MAX_THROWS: u32 = 100;

/// The reason why a green thread unwinds, other than a panic.
#[doc(alias = "GreenletExit")]
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ExitKind {
    /// The whole green thread is killed: by [`kill`](crate::GreenThread::kill), by its scope, group or pool, or by the
    /// end of its loop.
    Kill,
    /// A [`with_timeout`](crate::with_timeout) around the wait has run out.
    Timeout,
    /// The green thread of a [`with_link`](crate::GreenThread::with_link) around the wait has ended.
    Link,
}

impl fmt::Display for ExitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ExitKind::Kill => "kill",
            ExitKind::Timeout => "timeout",
            ExitKind::Link => "link",
        })
    }
}
