//! The holder of a lock, for the message of a wait that cannot go on.

use crate::greenlet::control::State;
use crate::greenlet::{describe, local, run};

/// The greenlet that holds a lock or runs an initializer, for error messages.
///
/// A lock records its holder when it is locked. The record is not erased when the lock is unlocked.
///
/// ```
/// use hub_core::internal::Holder;
/// use std::time::Duration;
/// let joiner = greenhub::spawn(|| {
///     let holder = Holder::current();
///     greenhub::spawn(move || holder.describe()).join()
/// });
/// let described = joiner.join()??;
/// assert!(described.starts_with("green thread spawned at"), "{described}");
/// assert!(described.ends_with("waiting for a green thread"), "{described}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Holder(
    /// The address of the greenlet's control block, for comparisons only. It is 0 on an OS thread without greenlets.
    usize,
);

impl Holder {
    /// No greenlet.
    pub const NONE: Holder = Holder(0);

    /// Returns the running greenlet. Does not switch.
    #[inline]
    #[must_use]
    pub fn current() -> Holder {
        Holder(run::running_address())
    }

    /// Describes the greenlet: its name, where it was spawned and what it waits for.
    ///
    /// Returns "another OS thread" if no greenlet of the calling OS thread has this control block. The control block of
    /// an ended greenlet may belong to another greenlet by now. Does not switch.
    #[must_use]
    pub fn describe(self) -> String {
        let elsewhere = || "another OS thread".to_owned();
        let Some(local) = local::try_get() else { return elsewhere() };
        match local.controls.in_use().into_iter().find(|control| control.address() == self.0) {
            Some(control) if control == run::current() => format!("{} itself", describe::greenlet(control)),
            Some(control) if control.state() == State::Ready => {
                format!("{}, ready to run", describe::greenlet(control))
            }
            Some(control) => format!("{}, {}", describe::greenlet(control), describe::wait(local, control)),
            None => elsewhere(),
        }
    }
}
