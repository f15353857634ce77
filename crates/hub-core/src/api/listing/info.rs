//! What a hub holds, as data with text.

use std::backtrace::Backtrace;
use std::fmt;
use std::os::fd::RawFd;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::base::wait_reason::WaitReason;
use crate::hub::Interest;
use crate::main_loop::Origin;

/// A greenlet of this OS thread, from [`greenlets`](crate::greenlets). Its text is one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GreenletInfo {
    /// Its [number](crate::current_id), by which [`interrupt`](crate::interrupt) ends it. When it has ended another may
    /// have it.
    pub number: u32,
    /// What sort it is of.
    pub kind: GreenletKind,
    /// The name that it was given.
    pub name: Option<String>,
    /// Where it was spawned or made.
    pub made_at: Option<&'static Location<'static>>,
    /// For how long it has existed, to about 20 ms: since the turn of the loop in which it was spawned or made, or since
    /// the first turn if there was none yet. Not of the main greenlet and of the main loop, and once there is a hub.
    pub age: Option<Duration>,
    /// What it does.
    pub state: GreenletState,
}

/// Sorts of greenlets.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GreenletKind {
    /// The one that the OS thread began with.
    Main,
    /// The main loop.
    MainLoop,
    /// A green thread.
    GreenThread,
    /// A plain greenlet, which is switched to by hand.
    Plain,
}

/// What a greenlet does.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GreenletState {
    /// It is the one that asks.
    Running,
    /// It runs when its turn comes.
    Ready,
    /// It has not begun, and does when its turn comes.
    Unstarted,
    /// It has not begun, and does when its time has come.
    Delayed {
        /// In what time that is, unless it only begins to count with the next turn.
        due_in: Option<Duration>,
    },
    /// It has switched to another greenlet by hand, or to whoever it resumed.
    Switched,
    /// It is parked until somebody or something wakes it.
    Waiting {
        /// For what.
        doing: WaitReason,
        /// The descriptor, if it waits for one, and the direction.
        descriptor: Option<(RawFd, Interest)>,
        /// In what time it no longer waits, if it has a timer of which that is known.
        due_in: Option<Duration>,
    },
}

/// Who is told of a descriptor or a timer. Its text says where it comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Who {
    /// A greenlet.
    Greenlet {
        /// Its number.
        number: u32,
        /// Name and origin, if it has not ended.
        description: String,
    },
    /// A callback of the main loop.
    Callback {
        /// Where it was given to [`listen`](crate::HubRef::listen) or [`schedule`](crate::HubRef::schedule).
        made_at: &'static Location<'static>,
        /// The stack at that place, if [`hub_listener_stacks`](crate::hub_listener_stacks) or [`hub_timer_stacks`](crate::hub_timer_stacks) asked for it.
        stack: Option<Arc<Backtrace>>,
    },
}

/// Somebody who waits for a descriptor, from [`listeners`](crate::listeners).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenerInfo {
    /// The descriptor.
    pub fd: RawFd,
    /// The direction, one of the two.
    pub interest: Interest,
    /// Who is told.
    pub who: Who,
    /// It waits behind another for the same.
    pub queued: bool,
}

/// A timer that is armed, from [`timers`](crate::timers).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TimerInfo {
    /// In what time it is due; zero if it is overdue. `None` if it only begins to count with the next turn.
    pub due_in: Option<Duration>,
    /// What it does.
    pub purpose: TimerPurpose,
    /// To whom.
    pub who: Who,
}

/// What timers do.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TimerPurpose {
    /// Wakes a greenlet: its sleep or its wait is over.
    Wake,
    /// Has a green thread begin.
    Begin,
    /// Ends the scope of a [`with_timeout`](crate::with_timeout).
    Timeout,
    /// Calls a callback.
    Call,
}

impl From<Origin> for Who {
    fn from(origin: Origin) -> Who {
        Who::Callback { made_at: origin.at(), stack: origin.stack() }
    }
}

impl fmt::Display for GreenletInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.kind)?;
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
            GreenletState::Waiting { doing, descriptor, due_in } => {
                f.write_str(doing.as_str())?;
                if let Some((fd, interest)) = descriptor {
                    write!(f, " ({})", End { fd, interest })?;
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

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Greenlet { number, description } => write!(f, "{number} {description}"),
            Who::Callback { made_at, stack } => {
                write!(f, "callback made at {made_at}")?;
                stack.as_ref().map_or(Ok(()), |stack| write!(f, "\n{stack}"))
            }
        }
    }
}

impl fmt::Display for ListenerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued = if self.queued { ", behind another" } else { "" };
        write!(f, "{}{queued}: {}", End { fd: self.fd, interest: self.interest }, self.who)
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
        write!(f, " {does} {}", self.who)
    }
}
