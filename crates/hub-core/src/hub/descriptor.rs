//! A hub as it is registered: its name, its availability, and its constructor.

use std::io;

use super::contract::Hub;

/// The name and the constructor of a hub, as a backend crate exports them.
///
/// Corresponds to Eventlet's hub module with `is_available` and `Hub`.
///
/// ```
/// # mod poll_hub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/poll_hub.rs")); }
/// # use poll_hub::PollHub;
/// use hub_core::HubDescriptor;
///
/// pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
///     name: "example.org:poll",
///     aliases: &["my-poll"],
///     available: || true,
///     build: || Ok(Box::new(PollHub::new()?)),
/// };
/// assert!(DESCRIPTOR.answers_to("my-poll"));
/// ```
#[derive(Copy, Clone, Debug)]
pub struct HubDescriptor {
    /// The canonical name. May contain `.`, `:` and `-`.
    pub name: &'static str,
    /// Other names that select this hub.
    pub aliases: &'static [&'static str],
    /// Returns whether this system can run the hub. Must not fail and must leave nothing behind.
    pub available: fn() -> bool,
    /// Makes a hub for the calling thread.
    pub build: fn() -> io::Result<Box<dyn Hub>>,
}

impl HubDescriptor {
    /// Returns whether `name` is this hub's name or one of its aliases.
    #[must_use]
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}
