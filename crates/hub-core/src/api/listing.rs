//! Lists of the greenlets, listeners and timers of this OS thread's hub.

mod info;

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::greenlet::control::{ControlRef, Kind, State};
use crate::greenlet::describe;
use crate::greenlet::local::{self, Local};
use crate::greenlet::target::Target;
use crate::greenlet::task::TaskRef;
use crate::hub::Interest;
use crate::main_loop::inventory::DescriptorWait;

pub use self::info::{GreenletInfo, GreenletKind, GreenletState, ListenerInfo, TargetInfo, TimerInfo, TimerPurpose};

/// Returns all greenlets of this OS thread that have not ended. Does not switch.
///
/// They are in the order of their ids. Builds no hub.
///
/// ```
/// use greenhub::{Builder, sleep};
/// use greenhub::debug::GreenletState;
/// use std::time::Duration;
/// let sleeper = Builder::new().name("sleeper".into()).spawn(|| sleep(Duration::from_secs(60)))?;
/// sleep(Duration::from_millis(1));
/// let all = greenhub::debug::greenlets();
/// let found = all.iter().find(|one| Some(one.id) == sleeper.id()).unwrap();
/// assert_eq!(found.name.as_deref(), Some("sleeper"));
/// assert!(matches!(found.state, GreenletState::Waiting { due_in: Some(_), .. }));
/// assert!(found.to_string().contains("sleeping"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "print_run_info")]
#[doc(alias = "dump_stacks")]
#[must_use]
pub fn greenlets() -> Vec<GreenletInfo> {
    local::try_get().map(list_greenlets).unwrap_or_default()
}

/// Returns all descriptor waiters of this OS thread's hub. Does not switch.
///
/// Readers come first, then writers, each in the order of the descriptors' numbers. Builds no hub.
///
/// ```
/// use greenhub::{Interest, get_hub};
/// let (reader, _writer) = std::io::pipe()?;
/// let _registration = get_hub().listen(reader, Interest::READ, |_| ())?;
/// let listeners = greenhub::debug::listeners();
/// assert_eq!(listeners.len(), 1);
/// assert_eq!(listeners[0].interest, Interest::READ);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn listeners() -> Vec<ListenerInfo> {
    local::try_get().map(list_listeners).unwrap_or_default()
}

/// Returns the armed timers of this OS thread, the next one first. Does not switch.
///
/// Timers that only begin to count with the next turn are last. Builds no hub.
///
/// ```
/// use greenhub::get_hub;
/// use greenhub::debug::TimerPurpose;
/// use std::time::Duration;
/// get_hub().schedule(Duration::from_secs(5), || println!("late"));
/// let timers = greenhub::debug::timers();
/// assert_eq!(timers[0].purpose, TimerPurpose::Call);
/// assert!(timers[0].to_string().contains(file!()));
/// ```
#[must_use]
pub fn timers() -> Vec<TimerInfo> {
    local::try_get().map(list_timers).unwrap_or_default()
}

fn list_greenlets(local: &Local) -> Vec<GreenletInfo> {
    let due: HashMap<(u32, u64), Duration> = {
        let timers = local.main_loop.armed_timers().into_iter();
        timers.filter_map(|(due_in, target)| Some((park_of(target)?, due_in?))).collect()
    };
    let descriptors: HashMap<(u32, u64), (RawFd, Interest)> = {
        let waits = local.main_loop.descriptor_waits().into_iter();
        waits.filter_map(|wait| Some((park_of(wait.target)?, (wait.fd, wait.interest)))).collect()
    };
    let state = |control: ControlRef| {
        let park = (control.number(), control.ticket());
        let due_in = due.get(&park).copied();
        match control.state() {
            State::Unstarted => Some(GreenletState::Unstarted),
            State::Ready => Some(GreenletState::Ready),
            State::Running => Some(GreenletState::Running),
            State::Switched => Some(GreenletState::Switched),
            State::Delayed => Some(GreenletState::Delayed { due_in }),
            State::Parked => {
                let descriptor = descriptors.get(&park).copied();
                let future = describe::future(local, control);
                Some(GreenletState::Waiting { reason: control.reason(), descriptor, future, due_in })
            }
            State::Free | State::Cancelled | State::Callback | State::Abandoned => None,
        }
    };
    let all = local.controls.in_use().into_iter();
    all.filter_map(|control| {
        Some(GreenletInfo {
            id: control.id(),
            kind: match control.kind() {
                Kind::Main => GreenletKind::Main,
                Kind::MainLoop => GreenletKind::MainLoop,
                Kind::Thread => GreenletKind::GreenThread,
                Kind::Raw => GreenletKind::Plain,
            },
            name: control.with_task(TaskRef::name).flatten().map(|name| name.to_string()),
            age: match control.kind() {
                Kind::Thread | Kind::Raw => local.main_loop.age(control.born()),
                Kind::Main | Kind::MainLoop => None,
            },
            made_at: control.with_task(TaskRef::spawned_at).or_else(|| control.made_at()),
            state: state(control)?,
        })
    })
    .collect()
}

/// Returns the park that a timer or a descriptor ends, or the start of a delayed green thread.
fn park_of(target: Target) -> Option<(u32, u64)> {
    match target {
        Target::Parked { greenlet, ticket } | Target::Start { greenlet, ticket } => Some((greenlet, ticket)),
        _ => None,
    }
}

fn list_listeners(local: &Local) -> Vec<ListenerInfo> {
    let waits = local.main_loop.descriptor_waits().into_iter();
    let mut listeners: Vec<ListenerInfo> = waits
        .filter_map(|DescriptorWait { fd, interest, target, queued }| {
            Some(ListenerInfo { fd, interest, target: target_of(local, target)?, queued })
        })
        .collect();
    // The sort is stable: a queued listener stays behind the first one.
    listeners.sort_by_key(|listener| (listener.interest == Interest::WRITE, listener.fd));
    listeners
}

fn list_timers(local: &Local) -> Vec<TimerInfo> {
    let armed = local.main_loop.armed_timers().into_iter();
    let mut timers: Vec<TimerInfo> = armed
        .filter_map(|(due_in, target)| {
            let purpose = match target {
                Target::Vacant => return None,
                Target::Parked { .. } | Target::Waker { .. } => TimerPurpose::Wake,
                Target::Start { .. } => TimerPurpose::Begin,
                Target::Timeout { .. } | Target::Patience { .. } => TimerPurpose::Timeout,
                Target::Call(_) => TimerPurpose::Call,
            };
            Some(TimerInfo { due_in, purpose, target: target_of(local, target)? })
        })
        .collect();
    timers.sort_by_key(|timer| timer.due_in.unwrap_or(Duration::MAX));
    timers
}

fn target_of(local: &Local, target: Target) -> Option<TargetInfo> {
    match target {
        Target::Vacant => None,
        Target::Parked { greenlet, .. }
        | Target::Start { greenlet, .. }
        | Target::Timeout { greenlet, .. }
        | Target::Patience { greenlet, .. } => {
            let control = local.controls.get(greenlet)?;
            Some(TargetInfo::Greenlet { id: control.id(), description: describe::greenlet(control) })
        }
        Target::Call(number) => local.main_loop.origin_of(number).map(TargetInfo::from),
        Target::Waker { .. } => Some(TargetInfo::Future),
    }
}
