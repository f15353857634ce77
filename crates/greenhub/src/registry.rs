//! The known hubs, and the choice among them by name, by environment or by default.

use std::env;
use std::sync::{PoisonError, RwLock};

use hub_core::HubError;
use hub_core::hub::HubDescriptor;

/// The environment variables that name the hub of every OS thread without a choice of its own. The first that is set
/// counts: `EVENTLET_HUB` may be meant for a Python program in the same environment.
const VARIABLES: [&str; 2] = ["GREENHUB_HUB", "EVENTLET_HUB"];

/// A hub of this project, compiled in or not.
struct Known {
    name: &'static str,
    aliases: &'static [&'static str],
    feature: &'static str,
    /// Whether the hub can work on the target system. If so, `NotCompiled` is the useful error, else `Unavailable`.
    exists_here: bool,
    /// `None` without the feature.
    descriptor: Option<HubDescriptor>,
}

const EPOLL_SYSTEM: bool = cfg!(any(target_os = "linux", target_os = "android"));

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

/// The hub under that of Tokio, which needs a pollable descriptor.
#[cfg(feature = "tokio")]
const UNDER_TOKIO: HubDescriptor = if KQUEUE_SYSTEM { hub_kqueue::DESCRIPTOR } else { hub_epoll::DESCRIPTOR };
#[cfg(feature = "tokio")]
const TOKIO: Option<HubDescriptor> = Some(HubDescriptor {
    name: "tokio",
    aliases: TOKIO_ALIASES,
    available: UNDER_TOKIO.available,
    build: || Ok(Box::new(hub_tokio::TokioHub::over((UNDER_TOKIO.build)()?)?)),
});
#[cfg(not(feature = "tokio"))]
const TOKIO: Option<HubDescriptor> = None;

const TOKIO_ALIASES: &[&str] = &["twistedr", "asyncio"];

/// The candidates for the default, the preferred one first.
static PREFERENCE: [Known; 4] = [
    Known { name: "epoll", aliases: &["epolls"], feature: "epoll", exists_here: EPOLL_SYSTEM, descriptor: EPOLL },
    Known { name: "kqueue", aliases: &[], feature: "kqueue", exists_here: KQUEUE_SYSTEM, descriptor: KQUEUE },
    Known { name: "poll", aliases: &[], feature: "poll", exists_here: cfg!(unix), descriptor: POLL },
    Known { name: "select", aliases: &["selects"], feature: "select", exists_here: cfg!(unix), descriptor: SELECT },
];

/// The hubs that are chosen by name only.
static ON_DEMAND: [Known; 2] = [
    Known {
        name: "libevent",
        aliases: &["pyevent"],
        feature: "libevent",
        exists_here: cfg!(unix),
        descriptor: LIBEVENT,
    },
    Known {
        name: "tokio",
        aliases: TOKIO_ALIASES,
        feature: "tokio",
        exists_here: EPOLL_SYSTEM || KQUEUE_SYSTEM,
        descriptor: TOKIO,
    },
];

/// The hubs that [`register_hub`] has added.
static REGISTERED: RwLock<Vec<HubDescriptor>> = RwLock::new(Vec::new());

#[linkme::distributed_slice(hub_core::internal::DEFAULT_HUB)]
static DEFAULT: fn() -> Result<HubDescriptor, HubError> = choose_by_default;

impl Known {
    fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    fn find(&self, variable: Option<&'static str>) -> Result<HubDescriptor, HubError> {
        if !self.exists_here {
            return Err(HubError::Unavailable { name: self.name.to_owned(), variable });
        }
        let descriptor = self.descriptor.ok_or_else(|| HubError::NotCompiled {
            name: self.name.to_owned(),
            feature: self.feature,
            variable,
        })?;
        available(descriptor, variable)
    }
}

/// Chooses the hub of the calling OS thread. Does not switch.
///
/// `Some` chooses a hub by name. `None` chooses the hub that the environment variable `GREENHUB_HUB` names or, without
/// the variable, Eventlet's `EVENTLET_HUB`; without both, the first available of epoll, kqueue, poll and select.
/// Eventlet's `use_hub`.
///
/// The names are `epoll`, `kqueue`, `poll`, `select`, `libevent`, `tokio`, Eventlet's spellings `epolls`, `selects`,
/// `pyevent`, `twistedr` and `asyncio`, and the names and aliases of hubs added by [`register_hub`]. `libevent` and
/// `tokio` need the features of these names. The hub is built when it is first needed; `tokio` is built by this call,
/// so that the context of its runtime is entered.
///
/// The call drops the current hub of the OS thread. Its timers, callbacks and registrations are discarded and its
/// system objects are closed. Green threads parked on it are unwound. If the main greenlet waits on it, the wait fails
/// with [`LoopErrorKind::HubReplaced`](crate::hub::LoopErrorKind::HubReplaced). Other OS threads keep their hubs.
///
/// ```
/// # #[cfg(feature = "epoll")] {
/// greenhub::use_hub("epoll")?;
/// assert_eq!(greenhub::get_hub().name(), "epoll");
/// # }
/// # Ok::<(), greenhub::hub::HubError>(())
/// ```
///
/// # Errors
///
/// - [`HubError::EmptyName`] if the name is empty or blank.
/// - [`HubError::Unknown`] if no hub has the name.
/// - [`HubError::NotCompiled`] if the feature of the hub is not enabled.
/// - [`HubError::Unavailable`] if this system cannot run the hub, such as `kqueue` on Linux.
/// - [`HubError::NoneAvailable`] if the default is asked for and there is none.
/// - [`HubError::InMainloop`] in a callback of the main loop.
/// - [`HubError::Embedded`] while the main greenlet embeds the loop.
/// - [`HubError::ThreadEnding`] if the OS thread is ending.
/// - [`HubError::Build`] if the hub is `tokio` and cannot be built.
///
/// After an error the current hub stays, except after a failed build.
#[doc(alias = "GREENHUB_HUB")]
#[doc(alias = "EVENTLET_HUB")]
#[doc(alias = "GEVENT_LOOP")]
#[doc(alias = "set_hub")]
pub fn use_hub<'name>(name: impl Into<Option<&'name str>>) -> Result<(), HubError> {
    let descriptor = match name.into() {
        Some(name) => find(name, None)?,
        None => choose_by_default()?,
    };
    hub_core::internal::use_hub_descriptor(Some(descriptor))?;
    if TOKIO.is_some_and(|tokio| tokio.name == descriptor.name) {
        // Code that runs before the first wait needs the context of the runtime.
        hub_core::try_get_hub()?;
    }
    Ok(())
}

/// Adds a hub to those that [`use_hub`] and `GREENHUB_HUB` find by name. Does not switch.
///
/// The hub is known on every OS thread of the process. It is never chosen by default. Its name and aliases may contain
/// `.`, `:` and `-`.
///
/// ```
/// use greenhub::hub::HubDescriptor;
/// use greenhub::{get_default_hub, get_hub, register_hub, use_hub};
///
/// let default = get_default_hub()?;
/// register_hub(HubDescriptor {
///     name: "example.org:mine",
///     aliases: &["mine"],
///     available: || true,
///     build: default.build, // for a hub of your own: || Ok(Box::new(MyHub::new()?))
/// })?;
/// use_hub("mine")?; // or GREENHUB_HUB=mine
/// assert_eq!(get_hub().name(), default.name);
/// # Ok::<(), greenhub::hub::HubError>(())
/// ```
///
/// # Errors
///
/// - [`HubError::Duplicate`] if the name or an alias is taken.
/// - [`HubError::EmptyName`] if the name or an alias is empty or blank.
pub fn register_hub(descriptor: HubDescriptor) -> Result<(), HubError> {
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    let mut names = vec![descriptor.name];
    names.extend(descriptor.aliases);
    for (i, &name) in names.iter().enumerate() {
        if name.trim().is_empty() {
            return Err(HubError::EmptyName { variable: None });
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

/// Returns the preferred hub of this system. Does not switch.
///
/// It is the first of epoll, kqueue, poll and select that is compiled in and available, whatever the environment says.
/// Eventlet's `get_default_hub`.
///
/// ```
/// match greenhub::get_default_hub() {
///     Ok(hub) => println!("the default hub is {}", hub.name),
///     Err(error) => println!("{error}"),
/// }
/// ```
///
/// # Errors
///
/// Returns [`HubError::NoneAvailable`] if no hub is compiled in and available.
pub fn get_default_hub() -> Result<&'static HubDescriptor, HubError> {
    let compiled = PREFERENCE.iter().filter_map(|known| known.descriptor.as_ref());
    compiled.into_iter().find(|descriptor| (descriptor.available)()).ok_or(HubError::NoneAvailable)
}

/// Returns the hub that the environment names, or the preferred one.
fn choose_by_default() -> Result<HubDescriptor, HubError> {
    for variable in VARIABLES {
        if let Some(name) = env::var_os(variable) {
            return find(&name.to_string_lossy(), Some(variable));
        }
    }
    get_default_hub().copied()
}

fn known() -> impl Iterator<Item = &'static Known> {
    PREFERENCE.iter().chain(&ON_DEMAND)
}

fn find(name: &str, variable: Option<&'static str>) -> Result<HubDescriptor, HubError> {
    if name.trim().is_empty() {
        return Err(HubError::EmptyName { variable });
    }
    if let Some(known) = known().find(|known| known.answers_to(name)) {
        return known.find(variable);
    }
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(&descriptor) = registered.iter().find(|descriptor| descriptor.answers_to(name)) {
        // The probe is foreign code: it may call `register_hub`, which takes the lock.
        drop(registered);
        return available(descriptor, variable);
    }
    let mut descriptors: Vec<HubDescriptor> = known().filter_map(|known| known.descriptor).collect();
    descriptors.extend_from_slice(&registered);
    // The probes are foreign code, as above.
    drop(registered);
    let usable: Vec<&str> = descriptors.iter().filter(|hub| (hub.available)()).map(|hub| hub.name).collect();
    let usable = if usable.is_empty() { "none".to_owned() } else { usable.join(", ") };
    let missing = known().filter(|known| known.exists_here && known.descriptor.is_none());
    Err(HubError::Unknown {
        name: name.to_owned(),
        usable,
        optional: missing.map(|known| known.name).collect(),
        variable,
    })
}

fn available(descriptor: HubDescriptor, variable: Option<&'static str>) -> Result<HubDescriptor, HubError> {
    if (descriptor.available)() {
        Ok(descriptor)
    } else {
        Err(HubError::Unavailable { name: descriptor.name.to_owned(), variable })
    }
}
