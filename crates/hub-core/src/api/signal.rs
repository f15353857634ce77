//! Signals that end the main loop, as Ctrl-C does in Eventlet.
//!
//! Ground rule: what runs in a handler is async-signal-safe: atomics, and one write to the loop's own wake-up
//! descriptor. It runs no code of a hub, which may be anybody's. It owns its part of the mailbox, which outlives
//! the thread it belongs to.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;

use signal_hook::SigId;
use signal_hook::low_level::{register, unregister};

use super::hub_ref::try_get_hub;
use crate::greenlet::local;
use crate::main_loop::remote::Mailbox;

/// While it exists, a signal interrupts the main loop of the thread that asked for it: the main greenlet's
/// wait ends with [`LoopError::Interrupted`](crate::LoopError::Interrupted), timers and descriptors stay, and
/// its next blocking call launches a new loop. Made by [`interrupt_on`].
///
/// Nothing of the program runs inside the signal handler. Several signals before the loop takes notice are
/// one. When it is dropped the signal does nothing any more: what a signal did before anybody asked for it
/// does not come back.
#[derive(Debug)]
#[must_use = "the signal interrupts nothing once this is dropped"]
pub struct InterruptOn {
    signal: c_int,
    id: SigId,
    mailbox: Arc<Mailbox>,
}

/// Has `signal` interrupt the main loop of this thread: with `SIGINT` a program leaves its blocking call on
/// Ctrl-C, instead of being killed by it. Does not switch.
///
/// The signal may be delivered to any thread of the process. Other parts of the program that use the
/// `signal-hook` crate are told of it as well. It does not keep a loop alive that has nothing else to wait
/// for.
///
/// A hub that cannot watch descriptors takes notice within 50 ms; any other at once.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{Interest, LoopError, TrampolineError, interrupt_on, trampoline};
/// const SIGINT: i32 = 2;
/// let _interrupt = interrupt_on(SIGINT)?;
/// # signal_hook::low_level::raise(SIGINT)?;
/// let (reader, _writer) = std::io::pipe()?;
/// let waited = trampoline(&reader, Interest::READ, None); // Ctrl-C is typed now
/// assert!(matches!(waited, Err(TrampolineError::Loop(LoopError::Interrupted))));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// If the hub cannot be built, if the system refuses the signal, and [`InvalidInput`](io::ErrorKind::InvalidInput)
/// for one that cannot or must not be caught (`SIGKILL`, `SIGSTOP`, `SIGILL`, `SIGFPE`, `SIGSEGV`).
pub fn interrupt_on(signal: c_int) -> io::Result<InterruptOn> {
    if signal_hook::consts::FORBIDDEN.contains(&signal) {
        let text = format!("signal {signal} cannot interrupt a loop: it cannot or must not be caught");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    try_get_hub()?;
    let mailbox = local::get().main_loop.mailbox().ok_or_else(|| {
        io::Error::other(format!("cannot interrupt a loop on signal {signal}: this thread has no hub"))
    })?;
    let interrupts = Arc::clone(&mailbox);
    // SAFETY: `Mailbox::interrupt_in_handler` is async-signal-safe: atomics, and one write to a descriptor of the
    // core's own. `signal-hook` keeps `errno` and drops the closure outside of handlers.
    let id = unsafe { register(signal, move || interrupts.interrupt_in_handler()) }?;
    mailbox.add_signal();
    Ok(InterruptOn { signal, id, mailbox })
}

impl InterruptOn {
    /// The signal.
    #[must_use]
    pub fn signal(&self) -> c_int {
        self.signal
    }
}

impl Drop for InterruptOn {
    fn drop(&mut self) {
        unregister(self.id);
        self.mailbox.remove_signal();
    }
}
