//! The cells of green threads: the body of a green thread, and afterwards its result.
//!
//! `spawn` writes a cell, which has no stack. The green thread gets a stack when it begins. A cell lives until the
//! green thread has ended and no handle is left. Cells are pooled in size classes.
//!
//! - [`cell`]: the layout of a cell, the references to it, the facts in its header; [`pool`]: its memory;
//! - [`new`]: new cells, and the start of their greenlets; [`handle`]: the values that keep a cell;
//! - [`life`]: from the closure to the freed cell; [`waiters`]: waiters and links; [`untaken`]: results never taken.
//!
//! Ground rules:
//! - `bits` describes the content of the body: the closure until `STARTED`, nothing while it runs, the result while
//!   `RESULT` is set. Only [`life`], [`Task`] and the functions of the vtable read or write the body.
//! - A cell is freed by the code that clears the last of `HANDLE`, `ALIVE` and `PINNED`.
//! - A [`TaskRef`] is not `Clone`. Safe code gets a reference to one, from a value that keeps the cell: a
//!   [`TaskHandle`] has the bit `HANDLE`, and `TaskSlot::with` and [`WeakTask::with`] pin the cell during a call.
//! - Foreign code (closures, destructors, links, the text of errors) runs while `HANDLE`, `ALIVE` or a pin keeps
//!   the cell, or when nothing else refers to it any more. The value it works on was moved out of the body, or is lent
//!   and stays: `looks`, or a `RESULT` that was cleared, prevents it from being taken.

pub(super) mod cell;
pub(super) mod handle;
mod life;
pub(super) mod new;
pub(super) mod pool;
mod untaken;
mod waiters;

pub(crate) use self::cell::TaskRef;
pub(crate) use self::handle::{Task, TaskHandle, WeakTask};
pub(crate) use self::new::{NewTask, spawn_detached};
