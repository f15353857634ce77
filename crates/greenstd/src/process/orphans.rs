//! Children that nobody has any more.

use std::process::Child;
use std::sync::{Mutex, MutexGuard, TryLockError};

/// Reaped when they are seen to have ended, so that their numbers are free.
static ORPHANS: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Held for a moment only, in which another OS thread may fork: then the child of that never gets it.
fn orphans() -> Option<MutexGuard<'static, Vec<Child>>> {
    for _ in 0..1000 {
        match ORPHANS.try_lock() {
            Ok(orphans) => return Some(orphans),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

/// Takes a child of whom nobody will ask any more.
pub(super) fn adopt(child: Child) {
    if let Some(mut orphans) = orphans() {
        orphans.push(child);
    }
    reap();
}

/// Reaps those that have ended. What cannot be asked for was reaped by somebody else.
pub(super) fn reap() {
    if let Some(mut orphans) = orphans() {
        orphans.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}
