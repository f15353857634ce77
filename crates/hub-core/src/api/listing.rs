//! Lists of the greenlets, listeners and timers of this OS thread's hub.

mod first;
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

use self::first::First;
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
    greenlets_at_most(usize::MAX, |_| true).0
}

/// Returns the first `most` of the [`greenlets`] whose kind `is_listed` accepts, and the number of the others.
///
/// This and the functions like it are for lists that are requested from outside, which should not hold up the program:
/// each of the others costs one look at it, and no memory. Does not switch.
#[must_use]
pub fn greenlets_at_most(most: usize, is_listed: impl Fn(GreenletKind) -> bool) -> (Vec<GreenletInfo>, usize) {
    local::try_get().map(|local| list_greenlets(local, most, is_listed)).unwrap_or_default()
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
    let mut listeners = listeners_at_most(Interest::READ, usize::MAX).0;
    listeners.extend(listeners_at_most(Interest::WRITE, usize::MAX).0);
    listeners
}

/// Returns the first `most` of the [`listeners`] for one direction, and the number of the others. Does not switch.
#[must_use]
pub fn listeners_at_most(direction: Interest, most: usize) -> (Vec<ListenerInfo>, usize) {
    local::try_get().map(|local| list_listeners(local, direction, most)).unwrap_or_default()
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
    timers_at_most(usize::MAX).0
}

/// Returns the first `most` of the [`timers`], and the number of the others. Does not switch.
#[must_use]
pub fn timers_at_most(most: usize) -> (Vec<TimerInfo>, usize) {
    local::try_get().map(|local| list_timers(local, most)).unwrap_or_default()
}

fn list_greenlets(local: &Local, most: usize, is_listed: impl Fn(GreenletKind) -> bool) -> (Vec<GreenletInfo>, usize) {
    let mut all = local.controls.blocks().filter(|control| has_not_ended(control.state()) && is_listed(kind(*control)));
    let listed: Vec<ControlRef> = all.by_ref().take(most).collect();
    let omitted = all.count();
    // The numbers ascend, so the ends of other parks need not be kept.
    let last = listed.last().map_or(0, |last| last.number());
    let mut due: HashMap<(u32, u64), Duration> = HashMap::new();
    local.main_loop.for_each_timer(|due_in, target| {
        if let Some((park, due_in)) = park_of(target).filter(|(greenlet, _)| *greenlet <= last).zip(due_in) {
            due.insert(park, due_in);
        }
    });
    let mut descriptors: HashMap<(u32, u64), (RawFd, Interest)> = HashMap::new();
    local.main_loop.for_each_descriptor_wait(|wait| {
        if let Some(park) = park_of(wait.target).filter(|(greenlet, _)| *greenlet <= last) {
            descriptors.insert(park, (wait.fd, wait.interest));
        }
    });
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
    let info = |control: ControlRef| {
        Some(GreenletInfo {
            id: control.id(),
            kind: kind(control),
            name: control.with_task(TaskRef::name).flatten().map(|name| name.to_string()),
            age: match control.kind() {
                Kind::Thread | Kind::Raw => local.main_loop.age(control.born()),
                Kind::Main | Kind::MainLoop => None,
            },
            made_at: control.with_task(TaskRef::spawned_at).or_else(|| control.made_at()),
            state: state(control)?,
        })
    };
    (listed.into_iter().filter_map(info).collect(), omitted)
}

/// Returns whether the block with this state is in use by a greenlet that has not ended.
fn has_not_ended(state: State) -> bool {
    !matches!(state, State::Free | State::Cancelled | State::Callback | State::Abandoned)
}

fn kind(control: ControlRef) -> GreenletKind {
    match control.kind() {
        Kind::Main => GreenletKind::Main,
        Kind::MainLoop => GreenletKind::MainLoop,
        Kind::Thread => GreenletKind::GreenThread,
        Kind::Raw => GreenletKind::Plain,
    }
}

/// Returns the park that a timer or a descriptor ends, or the start of a delayed green thread.
fn park_of(target: Target) -> Option<(u32, u64)> {
    match target {
        Target::Parked { greenlet, ticket } | Target::Start { greenlet, ticket } => Some((greenlet, ticket)),
        _ => None,
    }
}

fn list_listeners(local: &Local, direction: Interest, most: usize) -> (Vec<ListenerInfo>, usize) {
    let mut first = First::new(most);
    local.main_loop.for_each_descriptor_wait(|wait| {
        if wait.interest == direction && has_info(local, wait.target) {
            // A queued listener comes later, and stays behind the first one.
            first.push(wait.fd, wait);
        }
    });
    let (waits, omitted) = first.into_sorted();
    let info = |DescriptorWait { fd, interest, target, queued }| {
        Some(ListenerInfo { fd, interest, target: target_of(local, target)?, queued })
    };
    (waits.into_iter().filter_map(info).collect(), omitted)
}

fn list_timers(local: &Local, most: usize) -> (Vec<TimerInfo>, usize) {
    let mut first = First::new(most);
    local.main_loop.for_each_timer(|due_in, target| {
        if has_info(local, target) {
            first.push(due_in.unwrap_or(Duration::MAX), (due_in, target));
        }
    });
    let (timers, omitted) = first.into_sorted();
    let info = |(due_in, target)| {
        let purpose = match target {
            Target::Vacant => return None,
            Target::Parked { .. } | Target::Waker { .. } => TimerPurpose::Wake,
            Target::Start { .. } => TimerPurpose::Begin,
            Target::Timeout { .. } | Target::Patience { .. } => TimerPurpose::Timeout,
            Target::Call(_) => TimerPurpose::Call,
        };
        Some(TimerInfo { due_in, purpose, target: target_of(local, target)? })
    };
    (timers.into_iter().filter_map(info).collect(), omitted)
}

/// Returns whether [`target_of`] returns a description, without making one.
fn has_info(local: &Local, target: Target) -> bool {
    match target {
        Target::Vacant => false,
        Target::Parked { greenlet, .. }
        | Target::Start { greenlet, .. }
        | Target::Timeout { greenlet, .. }
        | Target::Patience { greenlet, .. } => local.controls.get(greenlet).is_some(),
        Target::Call(number) => local.main_loop.origin_of(number).is_some(),
        Target::Waker { .. } => true,
    }
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
