//! Waiting as the types of std do, which have no error for it.

use std::time::{Duration, Instant};

use hub_core::{BiasedMutex, Deadline, Grace, LoopError};

use super::line::{Ended, Wait};

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
/// A main greenlet that is called away, since its loop was aborted or its hub replaced, waits again at the end; one
/// that was chosen before, for what is for all, is told so.
/// While panicking nothing may switch: the attempt is repeated for the time of grace.
///
/// # Panics
///
/// Where nobody may wait, and with what the main loop has to tell the main greenlet.
#[inline]
#[track_caller]
pub(super) fn within<W: Wait<Brought = ()>, R>(
    timeout: Option<Duration>,
    state: &BiasedMutex<W::State>,
    attempt: impl FnMut(&mut W::State, bool) -> Option<R>,
) -> Result<R, Late> {
    within_grace::<W, R>(Grace::begin, timeout, state, attempt)
}

/// As [`within`], with the grace that `begin` gives.
#[inline]
#[track_caller]
pub(super) fn within_grace<W: Wait<Brought = ()>, R>(
    begin: fn() -> Grace,
    timeout: Option<Duration>,
    state: &BiasedMutex<W::State>,
    mut attempt: impl FnMut(&mut W::State, bool) -> Option<R>,
) -> Result<R, Late> {
    let (mut limit, mut chosen) = (Deadline::from(timeout), false);
    loop {
        let waited =
            W::wait(state, &mut limit, (), |state, unchosen| attempt(state, unchosen.is_none() || chosen).ok_or(()));
        let error = match waited {
            Ok(result) => return Ok(result),
            Err(Ended::Late(())) => return Err(Late::TimedOut),
            Err(Ended::Failed(error, unchosen)) => {
                chosen = W::FOR_ALL && unchosen.is_none();
                error
            }
        };
        match *error {
            LoopError::Aborted | LoopError::HubReplaced => {}
            LoopError::Panicking => return block(&begin(), timeout, || attempt(&mut state.lock(), false)),
            error => panic!("{error}"),
        }
    }
}

/// As [`within`], without a limit.
///
/// # Panics
///
/// While panicking, if the whole time of grace was not enough: with what `reason` says then.
#[inline]
#[track_caller]
pub(super) fn until<W: Wait<Brought = ()>, R>(
    state: &BiasedMutex<W::State>,
    attempt: impl FnMut(&mut W::State, bool) -> Option<R>,
    reason: fn(&W::State) -> String,
) -> R {
    match within_grace::<W, R>(Grace::begin_whole, None, state, attempt) {
        Ok(result) => result,
        Err(_) => give_up::<W>(state, reason),
    }
}

/// In a destructor that unwinds: the process is about to be aborted.
#[cold]
#[track_caller]
fn give_up<W: Wait>(state: &BiasedMutex<W::State>, reason: fn(&W::State) -> String) -> ! {
    let reason = reason(&state.lock());
    panic!("a destructor cannot wait for {reason}");
}

/// Blocks the OS thread in short pieces: what is waited for may come from another.
#[cold]
pub(super) fn block<R>(
    grace: &Grace,
    timeout: Option<Duration>,
    mut attempt: impl FnMut() -> Option<R>,
) -> Result<R, Late> {
    const PIECE: Duration = Duration::from_millis(1);
    let left = grace.left();
    let (limit, late) = match timeout {
        Some(timeout) if timeout <= left => (timeout, Late::TimedOut),
        _ => (left, Late::Panicking),
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
