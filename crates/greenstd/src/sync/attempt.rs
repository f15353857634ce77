//! Waiting for what an attempt may bring: how the types of std wait.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use hub_core::{Limit, LoopError};

use super::line::{Line, Wait, lock};

/// A line that is made when somebody first waits in it: a [`Line`] cannot be made in a constant.
#[derive(Debug)]
pub(super) struct Places(Option<Line>);

impl Places {
    pub(super) const fn new() -> Places {
        Places(None)
    }

    pub(super) fn line(&mut self) -> &mut Line {
        self.0.get_or_insert_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(Line::is_empty)
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Line::len)
    }

    /// Wakes the first. False if nobody waits.
    pub(super) fn choose(&mut self) -> bool {
        self.0.as_mut().is_some_and(Line::choose)
    }

    pub(super) fn choose_all(&mut self) {
        while self.choose() {}
    }
}

/// Why an attempt was given up.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Late {
    TimedOut,
    /// The green thread is unwinding, and the time of grace has passed.
    Panicking,
}

/// Attempts, waits to be chosen, and attempts again, until there is a result. The attempt is told whether the
/// caller was chosen. Switches.
///
/// A main greenlet that is called away, since its loop was aborted or its hub replaced, waits again at the end.
/// While panicking nothing may switch: the attempt is repeated for the time of grace.
///
/// # Panics
///
/// Where nobody may wait, and with what the main loop has to tell the main greenlet.
#[track_caller]
pub(super) fn within<S, R>(
    timeout: Option<Duration>,
    state: &Mutex<S>,
    wait: &Wait<S>,
    mut attempt: impl FnMut(&mut S, bool) -> Option<R>,
) -> Result<R, Late> {
    let mut limit = Limit::from(timeout);
    let mut chosen = false;
    loop {
        let mut guard = lock(state);
        if let Some(result) = attempt(&mut guard, chosen) {
            return Ok(result);
        }
        chosen = match wait.wait(state, guard, &mut limit) {
            Ok(true) => true,
            Ok(false) => return Err(Late::TimedOut),
            Err(LoopError::Panicking) => return with_grace(timeout, || attempt(&mut lock(state), false)),
            Err(LoopError::Aborted | LoopError::HubReplaced) => false,
            Err(error) => panic!("{error}"),
        };
    }
}

/// As [`within`], without a limit.
///
/// # Panics
///
/// While panicking, if the time of grace was not enough.
#[track_caller]
pub(super) fn until<S, R>(state: &Mutex<S>, wait: &Wait<S>, attempt: impl FnMut(&mut S, bool) -> Option<R>) -> R {
    match within(None, state, wait, attempt) {
        Ok(result) => result,
        Err(_) => panic!("{}", LoopError::Panicking),
    }
}

/// Blocks the OS thread in short pieces: what is waited for may come from another.
fn with_grace<R>(timeout: Option<Duration>, mut attempt: impl FnMut() -> Option<R>) -> Result<R, Late> {
    const PIECE: Duration = Duration::from_millis(1);
    let grace = hub_core::panicking_grace();
    let (limit, late) = match timeout {
        Some(timeout) if timeout <= grace => (timeout, Late::TimedOut),
        _ => (grace, Late::Panicking),
    };
    let begin = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return Ok(result);
        }
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(late);
        }
        std::thread::sleep(left.min(PIECE));
    }
}
