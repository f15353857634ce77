//! Chooses the hub of the calling OS thread.

use std::io;

use crate::error::HubError;
use crate::greenlet::local;
use crate::hub::{Hub, HubDescriptor, ManualClock};
use crate::main_loop::{HubBuilder, default_builder};

/// Sets the hub of the calling OS thread to one of your own, built on first use. Does not switch.
///
/// The present hub is dropped: its timers, callbacks and descriptors are forgotten, and its system objects are closed.
/// Green threads that sleep, wait for a descriptor or with a limit, or have not begun because of a delay are unwound.
/// The main greenlet's wait returns [`LoopErrorKind::HubReplaced`](crate::LoopErrorKind::HubReplaced). Green threads
/// that are ready, or wait for events without a limit, live on.
///
/// `build` is called once. A hub that panics or whose wait fails is dropped, and blocking calls fail until another hub
/// is chosen. A hub that `use_hub` chose by name is rebuilt instead.
///
/// ```
/// let default = greenhub::get_default_hub()?;
/// greenhub::use_hub_with(default.build)?;
/// assert!(!greenhub::hub::has_hub());
/// assert_eq!(greenhub::get_hub().name(), default.name);
/// # Ok::<(), greenhub::hub::HubError>(())
/// ```
///
/// # Errors
///
/// Returns [`HubError::InMainloop`] from a callback, [`HubError::Embedded`] while the main greenlet
/// [embeds](crate::HubRef::embed) the loop, and [`HubError::ThreadEnding`] while the OS thread is ending. Nothing
/// changes then.
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

/// Sets the hub of the calling OS thread by descriptor. Does not switch.
///
/// The rules are those of [`use_hub_with`]. `None` restores the default choice. A hub that fails is rebuilt at the next
/// blocking call, and its waiters stay.
///
/// ```
/// let default = greenhub::get_default_hub()?;
/// hub_core::internal::use_hub_descriptor(Some(*default))?;
/// assert_eq!(greenhub::get_hub().name(), default.name);
/// # Ok::<(), greenhub::hub::HubError>(())
/// ```
///
/// # Errors
///
/// Returns [`HubError::InMainloop`] from a callback, [`HubError::Embedded`] while the main greenlet
/// [embeds](crate::HubRef::embed) the loop, and [`HubError::ThreadEnding`] while the OS thread is ending. Nothing
/// changes then.
pub fn use_hub_descriptor(descriptor: Option<HubDescriptor>) -> Result<(), HubError> {
    local::get().main_loop.replace_hub(descriptor.map(HubBuilder::from))
}

impl ManualClock {
    /// Chooses the default hub for the calling OS thread, on this clock. Does not switch.
    ///
    /// The rules are those of [`use_hub_with`](crate::use_hub_with).
    ///
    /// ```
    /// use greenhub::hub::ManualClock;
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// clock.use_default_hub()?;
    /// let late = greenhub::with_timeout(Duration::from_secs(60), || greenhub::sleep(Duration::from_secs(3600)));
    /// assert!(late.is_err());
    /// assert!(clock.now().as_nanos() >= 60 * 1_000_000_000);
    /// # Ok::<(), greenhub::hub::HubError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`use_hub_with`](crate::use_hub_with), and the error of the default choice, such as
    /// [`HubError::NoneAvailable`]. Nothing changes then.
    pub fn use_default_hub(&self) -> Result<(), HubError> {
        let HubBuilder { name, mut build } = default_builder()?;
        let clock = self.clone();
        let clocked = move || Ok(Box::new(clock.drive(build()?)) as Box<dyn Hub>);
        local::get().main_loop.replace_hub(Some(HubBuilder { name, build: Box::new(clocked) }))
    }
}
