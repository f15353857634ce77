//! Takes stock of the loop, for [`crate::listing`].

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::time::Duration;

use super::MainLoop;
use super::callback_table::Callback;
use crate::descriptors::Told;
use crate::greenlet::control::{ControlRef, Kind, State};
use crate::greenlet::local::Local;
use crate::greenlet::task::TaskRef;
use crate::interest::Interest;
use crate::listing::{GreenletInfo, GreenletKind, GreenletState, ListenerInfo, TimerInfo, TimerPurpose, Who};

impl MainLoop {
    pub(crate) fn list_greenlets(&self, local: &Local) -> Vec<GreenletInfo> {
        let now = self.time_here();
        let due: HashMap<(u32, u64), Duration> = {
            let timers = self.timers.borrow();
            let parks = timers.iter().filter_map(|(_, deadline, told)| match told {
                Told::Parked { greenlet, ticket } | Told::Start { greenlet, ticket } => {
                    Some(((greenlet, ticket), deadline? - now?))
                }
                _ => None,
            });
            parks.collect()
        };
        let descriptors: HashMap<(u32, u64), (RawFd, Interest)> = {
            let descriptors = self.descriptors.borrow();
            let parks = descriptors.waiting().filter_map(|(fd, interest, told)| match told {
                Told::Parked { greenlet, ticket } => Some(((greenlet, ticket), (fd, interest))),
                _ => None,
            });
            parks.collect()
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
                    Some(GreenletState::Waiting { doing: control.doing(), descriptor, due_in })
                }
                State::Free | State::Cancelled | State::Callback | State::Abandoned => None,
            }
        };
        let all = local.controls.in_use().into_iter();
        all.filter_map(|control| {
            let task = control.task();
            Some(GreenletInfo {
                number: control.number(),
                kind: match control.kind() {
                    Kind::Main => GreenletKind::Main,
                    Kind::Mainloop => GreenletKind::MainLoop,
                    Kind::Thread => GreenletKind::GreenThread,
                    Kind::Raw => GreenletKind::Plain,
                },
                name: task.and_then(TaskRef::name).map(|name| name.to_string()),
                age: now
                    .filter(|_| matches!(control.kind(), Kind::Thread | Kind::Raw))
                    .map(|_| self.age(control.born())),
                made_at: task.map(TaskRef::spawned_at).or_else(|| control.made_at()),
                state: state(control)?,
            })
        })
        .collect()
    }

    /// Without the loop's own wake-up descriptor.
    pub(crate) fn list_listeners(&self, local: &Local) -> Vec<ListenerInfo> {
        let own = self.wakeup.get().map(|wakeup| Told::Call(wakeup.number()));
        let waiting: Vec<(RawFd, Interest, Told, bool)> = {
            let descriptors = self.descriptors.borrow();
            let first = descriptors.first_in_line().map(|(fd, interest, told)| (fd, interest, told, false));
            let queued = descriptors.queued().map(|(fd, interest, told)| (fd, interest, told, true));
            first.chain(queued).filter(|&(_, _, told, _)| Some(told) != own).collect()
        };
        let mut listeners: Vec<ListenerInfo> = waiting
            .into_iter()
            .filter_map(|(fd, interest, told, queued)| {
                Some(ListenerInfo { fd, interest, who: self.who(local, told)?, queued })
            })
            .collect();
        // Stable: who queues stays behind whom it waits for.
        listeners.sort_by_key(|listener| (listener.interest == Interest::WRITE, listener.fd));
        listeners
    }

    pub(crate) fn list_timers(&self, local: &Local) -> Vec<TimerInfo> {
        let now = self.time_here();
        let armed: Vec<(Option<Duration>, Told)> = {
            let timers = self.timers.borrow();
            timers.iter().map(|(_, deadline, told)| (deadline.zip(now).map(|(at, now)| at - now), told)).collect()
        };
        let immediate: Vec<Told> = {
            let callbacks = self.callbacks.borrow();
            callbacks.immediate().map(|id| Told::Call(id.number())).collect()
        };
        let all = immediate.into_iter().map(|told| (Some(Duration::ZERO), told)).chain(armed);
        let mut timers: Vec<TimerInfo> = all
            .filter_map(|(due_in, told)| {
                let purpose = match told {
                    Told::Nobody => return None,
                    Told::Parked { .. } => TimerPurpose::Wake,
                    Told::Start { .. } => TimerPurpose::Begin,
                    Told::Timeout { .. } | Told::Patience { .. } => TimerPurpose::Timeout,
                    Told::Call(_) => TimerPurpose::Call,
                };
                Some(TimerInfo { due_in, purpose, who: self.who(local, told)? })
            })
            .collect();
        timers.sort_by_key(|timer| timer.due_in.unwrap_or(Duration::MAX));
        timers
    }

    fn who(&self, local: &Local, told: Told) -> Option<Who> {
        match told {
            Told::Nobody => None,
            Told::Parked { greenlet, .. }
            | Told::Start { greenlet, .. }
            | Told::Timeout { greenlet, .. }
            | Told::Patience { greenlet, .. } => {
                let control = local.controls.get(greenlet)?;
                Some(Who::Greenlet { number: greenlet, description: describe(control) })
            }
            Told::Call(number) => {
                let callbacks = self.callbacks.borrow();
                match callbacks.get(callbacks.id(number)?)? {
                    Callback::Listener { origin, .. } | Callback::Timer { origin, .. } => Some(origin.clone().into()),
                    Callback::Closed { .. } => None,
                }
            }
        }
    }
}

/// A greenlet in words: its kind, its name and where it was spawned.
pub(crate) fn describe(control: ControlRef) -> String {
    if let Some(task) = control.task() {
        return format!("green thread {}", task.describe());
    }
    match control.kind() {
        Kind::Main => "the main greenlet".to_owned(),
        _ => control.describe_raw().unwrap_or_else(|| "a green thread that tells of its end".to_owned()),
    }
}
