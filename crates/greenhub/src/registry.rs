//! Which hubs there are, and which one a name or the environment means.

use std::env;
use std::sync::{PoisonError, RwLock};

use hub_core::{HubDescriptor, HubError};

/// Names the hub of every thread that chooses none itself.
const VARIABLE: &str = "EVENTLET_HUB";

/// A hub of this project, whether compiled in or not.
struct Known {
    name: &'static str,
    aliases: &'static [&'static str],
    feature: &'static str,
    /// Whether this kind of system has it at all: then it is worth compiling in.
    exists_here: bool,
    descriptor: Option<HubDescriptor>,
}

const KQUEUE_SYSTEM: bool = cfg!(any(
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "dragonfly"
));

#[cfg(feature = "epoll")]
const EPOLL: Option<HubDescriptor> = Some(hub_epoll::DESCRIPTOR);
#[cfg(not(feature = "epoll"))]
const EPOLL: Option<HubDescriptor> = None;
#[cfg(feature = "kqueue")]
const KQUEUE: Option<HubDescriptor> = Some(hub_kqueue::DESCRIPTOR);
#[cfg(not(feature = "kqueue"))]
const KQUEUE: Option<HubDescriptor> = None;
#[cfg(feature = "poll")]
const POLL: Option<HubDescriptor> = Some(hub_poll::DESCRIPTOR);
#[cfg(not(feature = "poll"))]
const POLL: Option<HubDescriptor> = None;
#[cfg(feature = "select")]
const SELECT: Option<HubDescriptor> = Some(hub_select::DESCRIPTOR);
#[cfg(not(feature = "select"))]
const SELECT: Option<HubDescriptor> = None;

#[cfg(feature = "libevent")]
const LIBEVENT: Option<HubDescriptor> = Some(hub_libevent::DESCRIPTOR);
#[cfg(not(feature = "libevent"))]
const LIBEVENT: Option<HubDescriptor> = None;

/// Those that are chosen when nobody chooses, the preferred one first.
static PREFERENCE: [Known; 4] = [
    Known {
        name: "epoll",
        aliases: &["epolls"],
        feature: "epoll",
        exists_here: cfg!(any(target_os = "linux", target_os = "android")),
        descriptor: EPOLL,
    },
    Known { name: "kqueue", aliases: &[], feature: "kqueue", exists_here: KQUEUE_SYSTEM, descriptor: KQUEUE },
    Known { name: "poll", aliases: &[], feature: "poll", exists_here: cfg!(unix), descriptor: POLL },
    Known { name: "select", aliases: &["selects"], feature: "select", exists_here: cfg!(unix), descriptor: SELECT },
];

/// Those that have to be asked for.
static ON_DEMAND: [Known; 2] = [
    Known {
        name: "libevent",
        aliases: &["pyevent"],
        feature: "libevent",
        exists_here: cfg!(unix),
        descriptor: LIBEVENT,
    },
    Known { name: "tokio", aliases: &[], feature: "tokio", exists_here: cfg!(unix), descriptor: None },
];

/// Hubs of others.
static REGISTERED: RwLock<Vec<HubDescriptor>> = RwLock::new(Vec::new());

#[linkme::distributed_slice(hub_core::DEFAULT_HUB)]
static DEFAULT: fn() -> Result<HubDescriptor, HubError> = choose_by_default;

impl Known {
    fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    fn find(&self) -> Result<HubDescriptor, HubError> {
        if !self.exists_here {
            return Err(HubError::Unavailable { name: self.name.to_owned() });
        }
        let descriptor = self
            .descriptor
            .ok_or_else(|| HubError::NotCompiled { name: self.name.to_owned(), feature: self.feature })?;
        available(descriptor)
    }
}

/// Chooses the hub of the calling thread, by name or, with `None`, by default: what the environment variable
/// `EVENTLET_HUB` names, else the first available of epoll, kqueue, poll, select. Eventlet's `use_hub`. Does not
/// switch.
///
/// Names are `epoll`, `kqueue`, `poll`, `select`, `libevent`, `tokio`, Eventlet's own spellings `epolls`, `selects`
/// and `pyevent`, and whatever [`register_hub`] made known. `libevent` needs the feature of that name; `tokio` has no
/// feature yet and is an error that says so. A name given here beats the environment. The hub is built when it is first
/// needed.
///
/// The present hub is dropped: its timers and descriptors are forgotten, its system objects closed, green threads
/// parked on it are unwound, and the main greenlet, if it waits there, gets
/// [`LoopError::HubReplaced`](hub_core::LoopError::HubReplaced). Other threads keep theirs.
///
/// ```
/// # #[cfg(feature = "epoll")] {
/// greenhub::use_hub("epoll")?;
/// assert_eq!(greenhub::get_hub().name(), "epoll");
/// # }
/// # Ok::<(), greenhub::HubError>(())
/// ```
///
/// # Errors
///
/// If the name is empty or blank, is that of no hub, or of one that is not compiled in or that this system cannot
/// run; from a callback of the main loop. Then nothing changes.
pub fn use_hub<'name>(name: impl Into<Option<&'name str>>) -> Result<(), HubError> {
    let descriptor = match name.into() {
        Some(name) => find(name, false)?,
        None => choose_by_default()?,
    };
    hub_core::use_hub_descriptor(Some(descriptor))
}

/// Makes a hub of your own known to [`use_hub`] and to `EVENTLET_HUB`, on every thread of the process. Its names may
/// contain `.`, `:` and `-`. It is never chosen by default. Does not switch.
///
/// ```
/// # #[cfg(feature = "poll")] {
/// use greenhub::{HubDescriptor, get_hub, register_hub, use_hub};
/// # use hub_poll::PollHub;
///
/// register_hub(HubDescriptor {
///     name: "example.org:poll",
///     aliases: &["my-poll"],
///     available: || true,
///     build: || Ok(Box::new(PollHub::new()?)),
/// })?;
/// use_hub("my-poll")?; // EVENTLET_HUB=my-poll chooses it, too
/// get_hub();
/// # }
/// # Ok::<(), greenhub::HubError>(())
/// ```
///
/// # Errors
///
/// [`HubError::Duplicate`] if its name or an alias is taken; [`HubError::EmptyName`] if one is empty or blank.
pub fn register_hub(descriptor: HubDescriptor) -> Result<(), HubError> {
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    let mut names = vec![descriptor.name];
    names.extend(descriptor.aliases);
    for (i, &name) in names.iter().enumerate() {
        if name.trim().is_empty() {
            return Err(HubError::EmptyName { from_environment: false });
        }
        let is_taken = known().any(|known| known.answers_to(name))
            || registered.iter().any(|other| other.answers_to(name))
            || names[..i].contains(&name);
        if is_taken {
            return Err(HubError::Duplicate { name: name.to_owned() });
        }
    }
    registered.push(descriptor);
    Ok(())
}

/// The hub that is preferred on this system: the first of epoll, kqueue, poll and select that is compiled in and
/// available. Never libevent, and never what `EVENTLET_HUB` says. Eventlet's `get_default_hub`. Does not switch.
///
/// ```
/// match greenhub::get_default_hub() {
///     Ok(hub) => println!("threads that choose nothing wait by {}", hub.name),
///     Err(error) => println!("{error}"),
/// }
/// ```
///
/// # Errors
///
/// [`HubError::NoneAvailable`].
pub fn get_default_hub() -> Result<&'static HubDescriptor, HubError> {
    let compiled = PREFERENCE.iter().filter_map(|known| known.descriptor.as_ref());
    compiled.into_iter().find(|descriptor| (descriptor.available)()).ok_or(HubError::NoneAvailable)
}

/// What the environment asks for, else what is preferred.
fn choose_by_default() -> Result<HubDescriptor, HubError> {
    match env::var_os(VARIABLE) {
        Some(name) => find(&name.to_string_lossy(), true),
        None => get_default_hub().copied(),
    }
}

fn known() -> impl Iterator<Item = &'static Known> {
    PREFERENCE.iter().chain(&ON_DEMAND)
}

fn find(name: &str, from_environment: bool) -> Result<HubDescriptor, HubError> {
    if name.trim().is_empty() {
        return Err(HubError::EmptyName { from_environment });
    }
    if let Some(known) = known().find(|known| known.answers_to(name)) {
        return known.find();
    }
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(&descriptor) = registered.iter().find(|descriptor| descriptor.answers_to(name)) {
        // What the probe does is not ours: it may register a hub.
        drop(registered);
        return available(descriptor);
    }
    let names: Vec<&str> = known().map(|known| known.name).chain(registered.iter().map(|it| it.name)).collect();
    Err(HubError::Unknown { name: name.to_owned(), known: names.join(", "), from_environment })
}

fn available(descriptor: HubDescriptor) -> Result<HubDescriptor, HubError> {
    if (descriptor.available)() {
        Ok(descriptor)
    } else {
        Err(HubError::Unavailable { name: descriptor.name.to_owned() })
    }
}
