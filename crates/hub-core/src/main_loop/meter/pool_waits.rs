//! The times that jobs were queued, until the recorder gets them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::publisher::publish;
use super::series;
use crate::base::fork::PerProcess;

/// The number of waits that are kept until the recorder gets all of them.
const MOST_WAITS: usize = 1024;

/// A pool's name, and the time that a job was queued there.
type PoolWait = (&'static str, Duration);

static WAITS: PerProcess<Mutex<Vec<PoolWait>>> = PerProcess::new();

/// Notes the time that a job was queued in the pool of that name. The next publication of any loop has it.
pub(super) fn note(pool: &'static str, waited: Duration) {
    let Ok(waits) = WAITS.get_or_make(Mutex::default) else { return };
    let mut waits = waits.lock().unwrap_or_else(PoisonError::into_inner);
    waits.push((pool, waited));
    if waits.len() >= MOST_WAITS {
        let full = std::mem::take(&mut *waits);
        drop(waits);
        publish(move || series::record_pool_waits(&full));
    }
}

/// Calls the recorder with all waits that were noted.
pub(super) fn record() {
    let Some(waits) = WAITS.get() else { return };
    let waits = std::mem::take(&mut *waits.lock().unwrap_or_else(PoisonError::into_inner));
    series::record_pool_waits(&waits);
}
