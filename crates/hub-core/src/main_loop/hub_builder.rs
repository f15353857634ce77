//! The construction of an OS thread's hub: its own choice, or the default of the facade.

use std::io;

use linkme::distributed_slice;

use crate::error::HubError;
use crate::hub::{Hub, HubDescriptor};

/// The recipe of a hub, which is built on first use.
pub(crate) struct HubBuilder {
    pub(crate) name: String,
    pub(crate) build: Box<dyn FnMut() -> io::Result<Box<dyn Hub>>>,
}

/// The default choice of a hub, for OS threads that have chosen none. The facade sets it.
///
/// At most one element is expected; the first is used. Without an element an OS thread has to call
/// [`use_hub_with`](crate::use_hub_with). `#[linkme::distributed_slice(hub_core::internal::DEFAULT_HUB)]` adds an
/// element; programs leave that to `greenhub`.
#[distributed_slice]
pub static DEFAULT_HUB: [fn() -> Result<HubDescriptor, HubError>];

pub(crate) fn default_builder() -> Result<HubBuilder, HubError> {
    let choose = DEFAULT_HUB.first().ok_or(HubError::NoneAvailable)?;
    Ok(HubBuilder::from(choose()?))
}

impl From<HubDescriptor> for HubBuilder {
    fn from(descriptor: HubDescriptor) -> HubBuilder {
        HubBuilder { name: descriptor.name.to_owned(), build: Box::new(descriptor.build) }
    }
}
