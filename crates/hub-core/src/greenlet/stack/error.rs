use std::ffi::OsString;
use std::io;

/// The reason why there is no stack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StackError {
    /// No class of stacks is that large.
    #[error("a stack of {size} bytes was asked for; the largest has {max} bytes")]
    TooLarge {
        /// The requested size, in bytes.
        size: usize,
        /// The largest size, in bytes.
        max: usize,
    },

    /// The system has no address space left, not even for one stack.
    #[error(
        "cannot reserve {bytes} bytes of address space for a stack of {size} bytes: {source}; use smaller \
         stacks, or raise the limit of address space (`ulimit -v`, or `vm.overcommit_ratio` if \
         `vm.overcommit_memory` is 2)"
    )]
    Map {
        /// The size of a stack, in bytes.
        size: usize,
        /// The size of the refused reservation, in bytes.
        bytes: usize,
        /// The error of the system.
        source: io::Error,
    },

    /// Another guard would exceed the limit of memory mappings of the process.
    #[error(
        "cannot guard another stack: {stacks} stacks take two memory mappings each, and the process may have {limit} \
         in all; raise `vm.max_map_count`, or use Linux 6.13 or later, where a guard takes no mapping"
    )]
    MappingLimit {
        /// The limit of mappings of the process.
        limit: usize,
        /// The number of stacks of the process with a guard that takes mappings.
        stacks: usize,
    },

    /// The system refused a guard for another reason.
    #[error("cannot guard a stack: {source}")]
    Guard {
        /// The error of the system.
        source: io::Error,
    },

    /// The environment names an unknown kind of guard.
    #[error("GREENHUB_GUARD is {value:?}; it must be \"advice\" or \"mprotect\"")]
    UnknownGuard {
        /// The value of the variable.
        value: OsString,
    },
}
