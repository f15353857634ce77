//! How the hub of a thread is made: as the thread chose, or as the facade chooses for it.

use std::io;

use linkme::distributed_slice;

use crate::error::HubError;
use crate::hub::{Hub, HubDescriptor};

/// How a hub is made when it is first needed.
pub(crate) struct HubBuilder {
    pub(crate) name: String,
    pub(crate) build: Box<dyn FnMut() -> io::Result<Box<dyn Hub>>>,
}

/// Who picks a hub for threads that chose none: the facade puts its choice in here.
///
/// One element at most is expected; the first is used. Without one, a thread has to call
/// [`use_hub_with`](crate::use_hub_with). An element is added with `#[linkme::distributed_slice(hub_core::DEFAULT_HUB)]`; programs leave
/// that to `greenhub`.
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
