//! Sleeping and yielding.

use std::time::Duration;

use crate::base::wait_reason::WaitReason;
use crate::error::{LoopError, LoopErrorKind};
use crate::greenlet::control::Kind;
use crate::greenlet::driver::Driver;
use crate::greenlet::local;
use crate::greenlet::run::{self, Park};
use crate::greenlet::target::Target;
use crate::wait::grace::Grace;

/// Puts the green thread to sleep for at least `duration`. Eventlet's `sleep`. Switches.
///
/// Other green threads run meanwhile. A sleep of zero lets each ready green thread run once.
///
/// While panicking it blocks the OS thread, for at most the time of
/// [`set_panicking_grace`](crate::set_panicking_grace). In a destructor of a thread-local that runs after the OS
/// thread's green threads have ended, it blocks the OS thread like std's. In a callback of the main loop and in a poll
/// of a future a sleep of zero does nothing.
///
/// ```
/// use std::time::{Duration, Instant};
/// let start = Instant::now();
/// let other = greenhub::spawn(|| greenhub::sleep(Duration::from_millis(10)));
/// greenhub::sleep(Duration::from_millis(10)); // both sleep at the same time
/// other.join()?;
/// assert!(start.elapsed() >= Duration::from_millis(10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// Panics in a callback of the main loop, in a poll of a future, if the hub cannot be built or fails, and in the main
/// greenlet if the loop is interrupted. The message is that of the [`LoopError`], which [`try_sleep`] returns. A loop
/// that is aborted ends the sleep early.
#[track_caller]
pub fn sleep(duration: Duration) {
    match try_sleep(duration) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), LoopErrorKind::Aborted | LoopErrorKind::Panicking) => {}
        Err(error) => panic!("sleep: {error}"),
    }
}

/// Like [`sleep`], but returns an error where `sleep` panics. Switches.
///
/// Use it in the main greenlet of a program that ends on Ctrl-C.
///
/// ```
/// use greenhub::hub::{LoopErrorKind, interrupt_on};
/// use greenhub::thread::try_sleep;
/// use std::time::Duration;
/// const SIGINT: i32 = 2;
/// let _interrupt = interrupt_on(SIGINT)?;
/// # signal_hook::low_level::raise(SIGINT)?;
/// let interrupted = try_sleep(Duration::from_secs(3600)).unwrap_err(); // Ctrl-C is typed now
/// assert_eq!(interrupted.kind(), LoopErrorKind::Interrupted);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Returns an error in a callback of the main loop, in a poll of a future, and if the hub cannot be built or fails. A
/// sleep of zero does nothing in a callback and in a poll, and returns `Ok`. In the main greenlet, returns the error
/// with which the loop ended: `Interrupted` or `Aborted`. While panicking, returns `Panicking` if the
/// [grace](crate::set_panicking_grace) was too short for the whole sleep.
pub fn try_sleep(duration: Duration) -> Result<(), LoopError> {
    if duration.is_zero() && run::must_not_switch() {
        return Ok(());
    }
    let slept = if duration.is_zero() { run::yield_now() } else { sleep_for(duration) };
    slept.or_else(|error| block_instead(error, duration))
}

/// Blocks the OS thread instead if no green thread can run on it.
#[cold]
fn block_instead(refused: LoopError, duration: Duration) -> Result<(), LoopError> {
    // It counts the time until it is dropped.
    let grace = match refused.kind() {
        LoopErrorKind::ThreadEnding => None,
        LoopErrorKind::Panicking => Some(Grace::begin()),
        _ => return Err(refused),
    };
    let time = grace.as_ref().map_or(duration, |grace| duration.min(grace.left()));
    #[expect(clippy::disallowed_methods, reason = "no green thread can run during a panic, or after the last one")]
    std::thread::sleep(time);
    if time < duration { Err(refused) } else { Ok(()) }
}

fn sleep_for(duration: Duration) -> Result<(), LoopError> {
    let main_loop = &local::get().main_loop;
    let mut left = duration;
    let mut until = None;
    loop {
        let park = Park::current(WaitReason::Sleep)?;
        let timer = ArmedTimer(main_loop.arm(left, Target::park(park.waiter())));
        if park.control().kind() == Kind::Main && until.is_none() {
            until = Some(main_loop.now() + left);
        }
        let woken = park.park();
        drop(timer);
        match woken {
            // The hub's timers are gone, but the main greenlet's sleep is not over.
            Err(error) if error.kind() == LoopErrorKind::HubReplaced => {
                left = until.unwrap_or_default() - main_loop.now();
                if left.is_zero() {
                    return Ok(());
                }
            }
            other => return other.map(drop),
        }
    }
}

/// An armed timer. `Drop` disarms it, however the park ends.
struct ArmedTimer(crate::timer_queue::TimerId);

impl Drop for ArmedTimer {
    fn drop(&mut self) {
        local::get().main_loop.disarm(self.0);
    }
}

/// Lets every other ready green thread run once. std's `yield_now`. Switches.
///
/// The same as a [`sleep`] of zero.
///
/// ```
/// let other = greenhub::spawn(|| ());
/// greenhub::thread::yield_now();
/// assert!(other.is_finished());
/// ```
///
/// # Panics
///
/// The same as [`sleep`].
#[doc(alias = "idle")]
#[inline(always)]
#[track_caller]
pub fn yield_now() {
    if let Err(error) = run::yield_now() {
        end_refused_yield(error);
    }
}

/// Like [`yield_now`], but does nothing where it would panic. Exits and errors of the main loop wait for the next wait.
pub fn yield_deferring_errors() {
    if run::Mask::fits() {
        let _mask = run::Mask::new();
        // A refusal is no error of the main loop.
        let _ = run::yield_now();
    }
}

#[cold]
#[track_caller]
fn end_refused_yield(error: LoopError) {
    if run::must_not_switch() {
        return;
    }
    match block_instead(error, Duration::ZERO) {
        Ok(()) => {}
        Err(error) if error.kind() == LoopErrorKind::Aborted => {}
        Err(error) => panic!("yield_now: {error}"),
    }
}
