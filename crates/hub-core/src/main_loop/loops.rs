//! The main loops of the process, for requests to all of them.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::remote::Mailbox;
use crate::base::fork::PerProcess;

/// The loops that were built in this process. An entry keeps no loop alive.
static LOOPS: PerProcess<Mutex<Vec<Weak<Mailbox>>>> = PerProcess::new();

fn lock() -> io::Result<MutexGuard<'static, Vec<Weak<Mailbox>>>> {
    Ok(LOOPS.get_or_make(Mutex::default)?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Enters the loop of an OS thread. A loop that was entered already stays so.
pub(super) fn enter(mailbox: &Arc<Mailbox>) -> io::Result<()> {
    let mut loops = lock()?;
    loops.retain(|other| other.strong_count() != 0 && other.as_ptr() != Arc::as_ptr(mailbox));
    loops.push(Arc::downgrade(mailbox));
    Ok(())
}

/// Returns the loops of all OS threads. Some of them may end at any moment.
pub(crate) fn all() -> Vec<Arc<Mailbox>> {
    lock().map(|loops| loops.iter().filter_map(Weak::upgrade).collect()).unwrap_or_default()
}
