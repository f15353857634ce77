use std::ffi::OsString;
use std::io;

/// Why there is no stack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StackError {
    /// No class of stacks is that large.
    #[error("a stack of {size} bytes was asked for; the largest has {max} bytes")]
    TooLarge {
        /// What was asked for, in bytes.
        size: usize,
        /// The largest size, in bytes.
        max: usize,
    },

    /// The system gave no address space, not even for one stack.
    #[error(
        "cannot reserve {bytes} bytes of address space for a stack of {size} bytes: {source}; smaller stacks help, \
         or a higher limit where address space is limited (`ulimit -v`, `vm.overcommit_memory=2`)"
    )]
    Map {
        /// The size of a stack, in bytes.
        size: usize,
        /// What the system refused, in bytes.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },

    /// Every guard would take memory mappings that the process may not have.
    #[error(
        "cannot guard another stack: {stacks} stacks take two memory mappings each, and the process may have {limit} \
         in all; raise `vm.max_map_count`, or use Linux 6.13 or later, where a guard takes no mapping"
    )]
    MappingLimit {
        /// How many mappings the process may have.
        limit: usize,
        /// How many stacks of the process have a guard that takes mappings.
        stacks: usize,
    },

    /// The system refused a guard for another reason.
    #[error("cannot guard a stack: {source}")]
    Guard {
        /// What the system said.
        source: io::Error,
    },

    /// The environment asks for a kind of guard that does not exist.
    #[error("GREENHUB_GUARD is {value:?}; it may be \"advice\" or \"mprotect\"")]
    UnknownGuard {
        /// The value of the variable.
        value: OsString,
    },
}
