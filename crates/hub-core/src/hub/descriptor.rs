//! A hub as it is registered: its name, whether the system has it, and how it is built.

use std::io;

use super::contract::Hub;

/// What a backend crate exports: its name, and how to ask for it. Eventlet's hub module with `is_available` and `Hub`.
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
    /// Other spellings that find this hub.
    pub aliases: &'static [&'static str],
    /// Whether this system can run it. Must not fail and must leave nothing behind.
    pub available: fn() -> bool,
    /// Makes a hub for the calling thread.
    pub build: fn() -> io::Result<Box<dyn Hub>>,
}

impl HubDescriptor {
    /// Whether `name` is this hub's name or one of its aliases.
    #[must_use]
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}
