//! The identifiers of greenlets and hubs.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// Identifies a greenlet among the living ones of its OS thread.
///
/// The text is a number, as reports, listings and the console show it. After the greenlet has ended, another one of
/// the OS thread may get the same id, so an id may be kept only while its greenlet lives. Making an id allocates
/// nothing. [`ThreadId`](crate::ThreadId) is for a longer use: it is unique in the process forever.
///
/// ```
/// use greenhub::greenthread::{GreenletId, current_id};
/// let green = greenhub::spawn(current_id);
/// let id: GreenletId = green.id().unwrap();
/// assert_eq!(id.to_string().parse(), Ok(id));
/// assert_eq!(green.wait()?, id);
/// assert_eq!(green.id(), None); // it has ended
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GreenletId(u32);

impl GreenletId {
    #[inline]
    pub(crate) fn new(number: u32) -> GreenletId {
        GreenletId(number)
    }

    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for GreenletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for GreenletId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<GreenletId, ParseIntError> {
        text.parse().map(GreenletId)
    }
}

/// Identifies a hub. No other hub of the process has or had the same id. The text is a number.
///
/// ```
/// use greenhub::hub::HubId;
/// let id: HubId = greenhub::get_hub().id();
/// assert_eq!(greenhub::get_hub().remote().hub_id(), id);
/// let other = std::thread::spawn(|| greenhub::get_hub().id());
/// assert_ne!(other.join().unwrap(), id);
/// ```
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HubId(u64);

impl HubId {
    #[inline]
    pub(crate) fn new(number: u64) -> HubId {
        HubId(number)
    }

    #[inline]
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
