//! Waits of the types that mirror std, whose signatures have no place for an error of the main loop.

use std::time::{Duration, Instant};

use hub_core::{BiasedMutex, Deadline, Grace, LoopErrorKind};

use super::wait_queue::{Unserved, Wait};

/// The reason why a wait was given up.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum GraceError {
    TimedOut,
    /// The caller is panicking, and the panicking grace has passed.
    Panicking,
}

/// Attempts, waits for a grant, and attempts again, until there is a result. Switches.
///
/// The argument of the attempt says whether the caller holds a grant. If the loop is aborted or the hub is replaced,
/// the main greenlet waits again, at the end of the queue. A grant for all waiters that came before that stays valid.
///
/// While panicking nothing may switch: the attempt is repeated for the panicking grace.
///
/// # Panics
///
/// Panics if the caller may not wait, or if the main loop ends the wait of the main greenlet by an error.
#[inline]
#[track_caller]
pub(super) fn within<W: Wait<Payload = ()>, R>(
    timeout: Option<Duration>,
    state: &BiasedMutex<W::State>,
    attempt: impl FnMut(&mut W::State, bool) -> Option<R>,
) -> Result<R, GraceError> {
    within_grace::<W, R>(Grace::begin, timeout, state, attempt)
}

/// Like [`within`], with the grace that `begin` returns.
#[inline]
#[track_caller]
pub(super) fn within_grace<W: Wait<Payload = ()>, R>(
    begin: fn() -> Grace,
    timeout: Option<Duration>,
    state: &BiasedMutex<W::State>,
    mut attempt: impl FnMut(&mut W::State, bool) -> Option<R>,
) -> Result<R, GraceError> {
    let (mut deadline, mut granted) = (Deadline::from(timeout), false);
    loop {
        let waited = W::wait(state, &mut deadline, (), |state, ungranted| {
            attempt(state, ungranted.is_none() || granted).ok_or(())
        });
        let error = match waited {
            Ok(result) => return Ok(result),
            Err(Unserved::TimedOut(())) => return Err(GraceError::TimedOut),
            Err(Unserved::Failed(error, ungranted)) => {
                granted = W::GRANTS_ALL && ungranted.is_none();
                error
            }
        };
        match error.kind() {
            LoopErrorKind::Aborted | LoopErrorKind::HubReplaced => {}
            LoopErrorKind::Panicking => return block(&begin(), timeout, || attempt(&mut state.lock(), false)),
            _ => panic!("{}: {error}", W::CALL),
        }
    }
}

/// Like [`within`], without a timeout.
///
/// # Panics
///
/// Panics while panicking, if the whole grace was not enough. The message ends with the text of `reason`.
#[inline]
#[track_caller]
pub(super) fn until<W: Wait<Payload = ()>, R>(
    state: &BiasedMutex<W::State>,
    attempt: impl FnMut(&mut W::State, bool) -> Option<R>,
    reason: fn(&W::State) -> String,
) -> R {
    match within_grace::<W, R>(Grace::begin_whole, None, state, attempt) {
        Ok(result) => result,
        Err(_) => panic_ungranted::<W>(state, reason),
    }
}

/// Panics while the OS thread is panicking already. In a destructor that aborts the process.
#[cold]
#[track_caller]
fn panic_ungranted<W: Wait>(state: &BiasedMutex<W::State>, reason: fn(&W::State) -> String) -> ! {
    let reason = reason(&state.lock());
    panic!("a destructor cannot wait for {reason}");
}

/// Repeats the attempt between short sleeps of the OS thread: another OS thread may make it succeed.
#[cold]
pub(super) fn block<R>(
    grace: &Grace,
    timeout: Option<Duration>,
    mut attempt: impl FnMut() -> Option<R>,
) -> Result<R, GraceError> {
    const PIECE: Duration = Duration::from_millis(1);
    let left = grace.left();
    let (limit, late) = match timeout {
        Some(timeout) if timeout <= left => (timeout, GraceError::TimedOut),
        _ => (left, GraceError::Panicking),
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
        #[expect(clippy::disallowed_methods, reason = "no green thread can run during a panic")]
        std::thread::sleep(left.min(PIECE));
    }
}
