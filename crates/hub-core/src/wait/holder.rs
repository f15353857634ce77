//! The holder of a lock, for the message of a wait that cannot go on.

use crate::greenlet::control::State;
use crate::greenlet::{describe, local, run};

/// The greenlet that holds something, for a message.
///
/// Recording the holder is cheap, and releasing costs nothing.
///
/// ```
/// use hub_core::internal::Holder;
/// use std::time::Duration;
/// let sleeper = greenhub::spawn(|| {
///     let holder = Holder::current();
///     greenhub::spawn(move || holder.describe()).join()
/// });
/// let described = sleeper.join()??;
/// assert!(described.starts_with("green thread spawned at"), "{described}");
/// assert!(described.ends_with("waiting for a green thread"), "{described}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Holder(
    /// The address of the greenlet's control block, which is only compared; 0 on an OS thread without greenlets.
    usize,
);

impl Holder {
    /// No greenlet.
    pub const NOBODY: Holder = Holder(0);

    /// Returns the running greenlet.
    #[inline]
    #[must_use]
    pub fn current() -> Holder {
        Holder(run::running_address())
    }

    /// Describes the greenlet: its name, where it was spawned and what it waits for.
    ///
    /// That is known only for a living greenlet of the calling OS thread. The control block of an ended greenlet may
    /// belong to another one by now.
    #[must_use]
    pub fn describe(self) -> String {
        let found = local::try_get()
            .and_then(|local| local.controls.in_use().into_iter().find(|control| control.address() == self.0));
        match found {
            Some(control) if control == run::current() => format!("{} itself", describe::greenlet(control)),
            Some(control) if control.state() == State::Ready => {
                format!("{}, ready to run", describe::greenlet(control))
            }
            Some(control) => format!("{}, {}", describe::greenlet(control), control.doing().as_str()),
            None => "another OS thread".to_owned(),
        }
    }
}
