//! The processors of this process, and the binding of OS threads to them.

use std::io;
use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Returns the processors that the process might use at the first call of this function.
///
/// An OS thread inherits the restriction of the thread that spawns it, so call this before any [`restrict_to`].
///
/// # Panics
///
/// Panics if the system does not tell the processors.
pub fn processors() -> &'static [usize] {
    static ALL: OnceLock<Vec<usize>> = OnceLock::new();
    ALL.get_or_init(|| {
        let allowed = sched_getaffinity(None).expect("the system tells");
        (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)).collect()
    })
}

/// Returns the processor of the load and the processor of the server, or `None` if there is only one.
#[must_use]
pub fn load_and_server() -> Option<(usize, usize)> {
    match *processors() {
        [load, .., server] => Some((load, server)),
        _ => None,
    }
}

/// Returns a set of processors.
#[must_use]
pub fn set_of(processors: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    processors.iter().for_each(|&processor| set.set(processor));
    set
}

/// Restricts the calling OS thread, and the threads and processes that it starts, to some processors.
///
/// # Errors
///
/// Returns the error of the system.
pub fn restrict_to(allowed: &[usize]) -> io::Result<()> {
    processors();
    Ok(sched_setaffinity(None, &set_of(allowed))?)
}
