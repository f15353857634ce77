//! Chooses the hub of the calling thread.

use std::io;

use crate::error::HubError;
use crate::greenlet::local;
use crate::hub::{Hub, HubDescriptor};
use crate::main_loop::HubBuilder;

/// Chooses a hub of your own for the calling thread. It is built when it is first needed.
///
/// The present hub is dropped: its timers and descriptors are forgotten, its system objects closed,
/// green threads parked on it are unwound, and the main greenlet, if it waits there, gets
/// [`LoopError::HubReplaced`](crate::LoopError::HubReplaced). Green threads that are ready or wait for events live on.
///
/// `build` is called once. A hub that panics or whose wait fails is let go of, and blocking calls fail from
/// then on until another is chosen; [`use_hub_descriptor`] names one that is built anew instead. Does not
/// switch.
///
/// ```
/// # mod poll_hub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/poll_hub.rs")); }
/// # use poll_hub::PollHub;
/// hub_core::use_hub_with(PollHub::new)?;
/// assert!(!hub_core::has_hub());
/// assert_eq!(hub_core::get_hub().name(), "poll");
/// # Ok::<(), hub_core::HubError>(())
/// ```
///
/// # Errors
///
/// [`HubError::InMainloop`] from a callback; then nothing changes.
pub fn use_hub_with<H: Hub + 'static>(build: impl FnOnce() -> io::Result<H> + 'static) -> Result<(), HubError> {
    let mut build = Some(build);
    let again = move || match build.take() {
        Some(build) => Ok(Box::new(build()?) as Box<dyn Hub>),
        None => Err(io::Error::other("a hub from use_hub_with is built once: call use_hub_with again")),
    };
    local::get()
        .main_loop
        .replace_hub(Some(HubBuilder { name: "given to use_hub_with".to_owned(), build: Box::new(again) }))
}

/// Chooses a hub by descriptor for the calling thread, under the rules of [`use_hub_with`]. `None`
/// leaves the choice to the default. A hub that fails is built anew at the next call that blocks; whoever
/// waits stays.
///
/// ```
/// # mod poll_hub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/poll_hub.rs")); }
/// # use poll_hub::PollHub;
/// use hub_core::HubDescriptor;
///
/// const POLL: HubDescriptor = HubDescriptor {
///     name: "poll",
///     aliases: &[],
///     available: || true,
///     build: || Ok(Box::new(PollHub::new()?)),
/// };
/// hub_core::use_hub_descriptor(Some(POLL))?;
/// assert_eq!(hub_core::get_hub().name(), "poll");
/// # Ok::<(), hub_core::HubError>(())
/// ```
///
/// # Errors
///
/// [`HubError::InMainloop`] from a callback; then nothing changes.
pub fn use_hub_descriptor(descriptor: Option<HubDescriptor>) -> Result<(), HubError> {
    local::get().main_loop.replace_hub(descriptor.map(HubBuilder::from))
}
