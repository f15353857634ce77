//! Chooses the hub of the calling thread.

use std::io;

use crate::error::HubError;
use crate::greenlet::local;
use crate::hub::{Hub, HubDescriptor};
use crate::main_loop::HubBuilder;

/// Sets the hub of the calling thread to one of your own, built on first use. Does not switch.
///
/// The present hub is dropped: its timers and descriptors are forgotten, and its system objects are closed. Green
/// threads that sleep or wait for a descriptor on it are unwound. The main greenlet's wait returns
/// [`LoopError::HubReplaced`](crate::LoopError::HubReplaced). Green threads that are ready or wait for events live on.
///
/// `build` is called once. A hub that panics or whose wait fails is dropped, and blocking calls fail until another hub
/// is chosen. [`use_hub_descriptor`] sets a hub that is rebuilt instead.
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
/// Returns [`HubError::InMainloop`] from a callback; then nothing changes.
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

/// Sets the hub of the calling thread by descriptor. Does not switch.
///
/// The rules are those of [`use_hub_with`]. `None` restores the default choice. A hub that fails is rebuilt at the next
/// blocking call, and its waiters stay.
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
/// Returns [`HubError::InMainloop`] from a callback; then nothing changes.
pub fn use_hub_descriptor(descriptor: Option<HubDescriptor>) -> Result<(), HubError> {
    local::get().main_loop.replace_hub(descriptor.map(HubBuilder::from))
}
