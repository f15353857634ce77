//! Green threads for Rust over pluggable event hubs.

pub use hub_core::*;

#[cfg(feature = "epoll")]
#[linkme::distributed_slice(hub_core::DEFAULT_HUB)]
static DEFAULT: fn() -> Result<HubDescriptor, HubError> = || Ok(hub_epoll::DESCRIPTOR);
