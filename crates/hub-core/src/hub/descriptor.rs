//! A hub as it is registered: its name, its availability, and its constructor.

use std::io;

use super::contract::Hub;

/// The name and the constructor of a hub, as a backend crate exports them.
///
/// Corresponds to Eventlet's hub module with `is_available` and `Hub`.
///
/// ```
/// use greenhub::hub::{HubDescriptor, ManualClock};
///
/// /// The default hub, on a clock that only the hub moves.
/// const DESCRIPTOR: HubDescriptor = HubDescriptor {
///     name: "example.org:virtual",
///     aliases: &["virtual"],
///     available: || greenhub::get_default_hub().is_ok(),
///     build: || {
///         let default = greenhub::get_default_hub().map_err(std::io::Error::other)?;
///         Ok(Box::new(ManualClock::new().drive((default.build)()?)))
///     },
/// };
/// assert!(DESCRIPTOR.answers_to("virtual"));
/// greenhub::register_hub(DESCRIPTOR)?;
/// greenhub::use_hub("virtual")?;
/// greenhub::sleep(std::time::Duration::from_secs(3600));
/// # Ok::<(), greenhub::hub::HubError>(())
/// ```
#[derive(Copy, Clone, Debug)]
pub struct HubDescriptor {
    /// The canonical name. May contain `.`, `:` and `-`.
    pub name: &'static str,
    /// Other names that select this hub.
    pub aliases: &'static [&'static str],
    /// Returns whether this system can run the hub. Must not fail and must leave nothing behind.
    pub available: fn() -> bool,
    /// Makes a hub for the calling OS thread.
    pub build: fn() -> io::Result<Box<dyn Hub>>,
}

impl HubDescriptor {
    /// Returns whether `name` is this hub's name or one of its aliases.
    #[must_use]
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}
