//! Work for other OS threads, for which only the calling green thread waits.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::LoopError;
use crate::greenlet::control::Doing;
use crate::greenlet::local;
use crate::greenlet::run::Waiter;
use crate::pool;
use crate::remote::{Letter, Remote};

/// Runs `job` on a small pool of OS threads; only the calling green thread waits. Eventlet's `tpool.execute`.
/// Switches.
///
/// A caller that is killed or times out leaves at once; the job goes on and its result is dropped. While
/// panicking, and in an ending thread, the job runs on the calling thread.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let green = hub_core::spawn(|| "goes on meanwhile");
/// let sum = hub_core::offload(|| (1..=1000_u64).sum::<u64>())?; // on another OS thread
/// assert_eq!(sum, 500_500);
/// assert!(green.is_finished());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// If no OS thread can be had, or the loop cannot wait.
///
/// # Panics
///
/// If `job` does, with its payload.
pub fn offload<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    /// The result, and the ticket of the park that it ends.
    struct Slot<T> {
        result: Option<Result<T, Box<dyn Any + Send>>>,
        ticket: u64,
    }
    let mut waiter = match Waiter::current(Doing::Offload) {
        Ok(waiter) => waiter,
        Err(error) if matches!(*error, LoopError::Panicking | LoopError::ThreadEnding) => return Ok(job()),
        Err(error) => return Err((*error).into()),
    };
    let main_loop = &local::get().main_loop;
    main_loop.ensure_hub().map_err(io::Error::from)?;
    let mailbox = main_loop
        .mailbox()
        .ok_or_else(|| io::Error::other("cannot wait for another OS thread: this thread has no hub"))?;
    let slot = Arc::new(Mutex::new(Slot::<T> { result: None, ticket: waiter.ticket() }));
    let filled = Arc::clone(&slot);
    let greenlet = waiter.control().number();
    // While the job is pending the loop does not take the wait for hopeless.
    let pending = Remote::new(&mailbox);
    pool::submit(Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(job));
        let mut slot = filled.lock().unwrap_or_else(PoisonError::into_inner);
        slot.result = Some(result);
        let letter = Letter::Wake { greenlet, ticket: slot.ticket };
        drop(slot);
        drop(filled);
        // A hub that is gone has nobody who waits.
        drop(mailbox.post(letter));
        drop(pending);
    }))?;
    loop {
        waiter.park().map_err(|error| io::Error::from(*error))?;
        // Before the slot is locked: this may throw. An exit that a mask holds back ends a park too.
        let next = Waiter::current(Doing::Offload).map_err(|error| *error)?;
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.result.take() {
            Some(Ok(value)) => return Ok(value),
            Some(Err(payload)) => resume_unwind(payload),
            None => {
                slot.ticket = next.ticket();
                waiter = next;
            }
        }
    }
}
