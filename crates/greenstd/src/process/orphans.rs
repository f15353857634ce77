//! Children that nobody has any more.

use std::process::Child;
use std::sync::{Mutex, MutexGuard, TryLockError};

/// Reaped when they are seen to have ended, so that their numbers are free.
static ORPHANS: Mutex<Orphans> = Mutex::new(Orphans { parent: 0, children: Vec::new() });

struct Orphans {
    /// The process whose children they are.
    parent: u32,
    children: Vec<Child>,
}

/// Held for a moment only, in which another OS thread may fork: then the child of that never gets it.
fn orphans() -> Option<MutexGuard<'static, Orphans>> {
    let mut orphans = (0..1000).find_map(|_| match ORPHANS.try_lock() {
        Ok(orphans) => Some(orphans),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => {
            std::thread::yield_now();
            None
        }
    })?;
    let this = std::process::id();
    if orphans.parent != this {
        // Those of a process that was forked are none of ours; their numbers may be.
        *orphans = Orphans { parent: this, children: Vec::new() };
    }
    Some(orphans)
}

/// Takes a child of whom nobody will ask any more.
pub(super) fn adopt(child: Child) {
    if let Some(mut orphans) = orphans() {
        orphans.children.push(child);
    }
    reap();
}

/// Reaps those that have ended. What cannot be asked for was reaped by somebody else.
pub(super) fn reap() {
    if let Some(mut orphans) = orphans() {
        orphans.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}
