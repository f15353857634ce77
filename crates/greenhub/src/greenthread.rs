//! Items for green threads beside the names of the root: exits, links, stacks.
//!
//! An *exit* is a kill, a timeout or a link. It unwinds the stack of its green thread as a panic does: see
//! [`exit_kind`], and [`is_exit`] with an example of a supervisor.

pub use hub_core::{
    ExitKind, GreenletId, KillOutcome, LinkId, Linked, Panic, ScopedGreenThread, StackPolicy, current_id, current_name,
    default_stack_size, exit_kind, is_exit, lock_patience, panicking_grace, set_default_stack_size, set_lock_patience,
    set_panicking_grace, set_stack_policy, stack_policy,
};
