//! The entries of the lists, as data with a text.

use std::backtrace::Backtrace;
use std::fmt;
use std::os::fd::RawFd;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::GreenletId;
use crate::base::wait_reason::WaitReason;
use crate::hub::Interest;
use crate::main_loop::Origin;

/// A greenlet of this OS thread, from [`greenlets`](crate::greenlets). Its text is one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GreenletInfo {
    /// Its id.
    pub id: GreenletId,
    /// The kind of greenlet.
    pub kind: GreenletKind,
    /// The name, if it has one.
    pub name: Option<String>,
    /// The location of its spawn or of its creation.
    pub made_at: Option<&'static Location<'static>>,
    /// The time since its creation, to about 20 ms.
    ///
    /// It counts from the turn of the loop in which the greenlet was spawned or made, or from the first turn. `None`
    /// without a hub, and for the main greenlet and the main loop.
    pub age: Option<Duration>,
    /// Its present state.
    pub state: GreenletState,
}

/// The kind of a greenlet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GreenletKind {
    /// The greenlet that the OS thread began with.
    Main,
    /// The main loop.
    MainLoop,
    /// A green thread.
    GreenThread,
    /// A plain greenlet, which the program switches to by hand.
    Plain,
}

/// The state of a greenlet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GreenletState {
    /// It runs: it is the caller of the listing.
    Running,
    /// It is in the run queue.
    Ready,
    /// It has not begun, and is in the run queue.
    Unstarted,
    /// It has not begun, and waits for its delay to pass.
    Delayed {
        /// The time until then; `None` if it only begins to count with the next turn.
        due_in: Option<Duration>,
    },
    /// It has switched to another greenlet by hand, or has resumed one.
    Switched,
    /// It is parked until a wake-up.
    Waiting {
        /// The reason of the wait.
        reason: WaitReason,
        /// The descriptor and the direction, if it waits for a descriptor.
        descriptor: Option<(RawFd, Interest)>,
        /// The type of the future, if it waits for one.
        future: Option<&'static str>,
        /// The time until a timer ends the wait, if it has one and that time is known.
        due_in: Option<Duration>,
    },
}

/// The target of a listener or of a timer, in [`ListenerInfo`] and [`TimerInfo`]. Its text is one line.
///
/// A backtrace, if there is one, follows in more lines.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TargetInfo {
    /// A greenlet.
    Greenlet {
        /// The id of the greenlet.
        id: GreenletId,
        /// Its name and the location of its spawn, if it has not ended.
        description: String,
    },
    /// A callback of the main loop.
    Callback {
        /// The location of the call of [`listen`](crate::HubRef::listen) or [`schedule`](crate::HubRef::schedule).
        made_at: &'static Location<'static>,
        /// The backtrace of that call.
        ///
        /// `None` unless [`hub_listener_stacks`](crate::hub_listener_stacks) or
        /// [`hub_timer_stacks`](crate::hub_timer_stacks) switched it on.
        stack: Option<Arc<Backtrace>>,
    },
    /// A future that has polled a [`Source`](crate::Source).
    Future,
}

/// A waiter for a descriptor, from [`listeners`](crate::listeners).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenerInfo {
    /// The descriptor.
    pub fd: RawFd,
    /// The direction, one of the two.
    pub interest: Interest,
    /// The target of the event.
    pub target: TargetInfo,
    /// Whether it waits behind another waiter for the same direction.
    pub queued: bool,
}

/// An armed timer, from [`timers`](crate::timers).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TimerInfo {
    /// The time until the timer is due.
    ///
    /// Zero if it is overdue, `None` if it only begins to count with the next turn.
    pub due_in: Option<Duration>,
    /// The effect of the timer.
    pub purpose: TimerPurpose,
    /// The target of the timer.
    pub target: TargetInfo,
}

/// The effect of a timer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TimerPurpose {
    /// Wakes a greenlet: its sleep is over, or its wait has timed out.
    Wake,
    /// Starts a green thread.
    Begin,
    /// Ends the scope of a [`with_timeout`](crate::with_timeout).
    Timeout,
    /// Calls a callback.
    Call,
}

impl From<Origin> for TargetInfo {
    fn from(origin: Origin) -> TargetInfo {
        TargetInfo::Callback { made_at: origin.at(), stack: origin.stack() }
    }
}

impl fmt::Display for GreenletInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, self.kind)?;
        if let Some(name) = &self.name {
            write!(f, " {name:?}")?;
        }
        if let Some(made_at) = self.made_at {
            let how = if self.kind == GreenletKind::GreenThread { "spawned" } else { "made" };
            write!(f, " ({how} at {made_at})")?;
        }
        if let Some(age) = self.age {
            write!(f, ", {age:.1?} old")?;
        }
        write!(f, ": {}", self.state)
    }
}

impl fmt::Display for GreenletKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GreenletKind::Main => "main greenlet",
            GreenletKind::MainLoop => "main loop",
            GreenletKind::GreenThread => "green thread",
            GreenletKind::Plain => "greenlet",
        })
    }
}

impl fmt::Display for GreenletState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            GreenletState::Running => f.write_str("running"),
            GreenletState::Ready => f.write_str("ready"),
            GreenletState::Unstarted => f.write_str("about to begin"),
            GreenletState::Delayed { due_in: Some(due_in) } => write!(f, "begins in {due_in:?}"),
            GreenletState::Delayed { due_in: None } => f.write_str("begins later"),
            GreenletState::Switched => f.write_str("switched to another"),
            GreenletState::Waiting { reason, descriptor, future, due_in } => {
                f.write_str(reason.as_str())?;
                if let Some((fd, interest)) = descriptor {
                    write!(f, " ({})", End { fd, interest })?;
                }
                if let Some(future) = future {
                    write!(f, " ({future})")?;
                }
                match due_in {
                    Some(due_in) => write!(f, ", {due_in:?} left"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// One direction of a descriptor.
struct End {
    fd: RawFd,
    interest: Interest,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.interest == Interest::WRITE { "writing to" } else { "reading from" };
        write!(f, "{how} {}", self.fd)
    }
}

impl fmt::Display for TargetInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetInfo::Greenlet { id, description } => write!(f, "{id} {description}"),
            TargetInfo::Future => f.write_str("a future"),
            TargetInfo::Callback { made_at, stack } => {
                write!(f, "callback made at {made_at}")?;
                stack.as_ref().map_or(Ok(()), |stack| write!(f, "\n{stack}"))
            }
        }
    }
}

impl fmt::Display for ListenerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued = if self.queued { ", behind another" } else { "" };
        write!(f, "{}{queued}: {}", End { fd: self.fd, interest: self.interest }, self.target)
    }
}

impl fmt::Display for TimerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.due_in {
            Some(due_in) => write!(f, "in {due_in:?}")?,
            None => f.write_str("from the next turn on")?,
        }
        let does = match self.purpose {
            TimerPurpose::Wake => "wakes",
            TimerPurpose::Begin => "begins",
            TimerPurpose::Timeout => "ends a timeout of",
            TimerPurpose::Call => "calls",
        };
        write!(f, " {does} {}", self.target)
    }
}
