//! Signals that end the main loop, as Ctrl-C does in Eventlet.
//!
//! Ground rule: the code that runs in a handler is async-signal-safe. It uses atomics, and writes once to the loop's
//! own wake-up descriptor. It runs no code of a hub, which is foreign code. It owns its part of the mailbox, which
//! outlives the OS thread of the loop.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;

use signal_hook::SigId;
use signal_hook::low_level::{register, unregister};

use super::hub_ref::try_get_hub;
use crate::greenlet::local;
use crate::main_loop::remote::Mailbox;

/// A signal that interrupts the main loop while this value exists. Made by [`interrupt_on`].
///
/// The loop is that of the thread that called [`interrupt_on`]. The main greenlet's wait returns
/// [`LoopErrorKind::Interrupted`](crate::LoopErrorKind::Interrupted), timers and descriptors stay, and its next
/// blocking call launches a new loop.
///
/// No code of the program runs inside the signal handler. Several signals before the loop's next check count as one.
/// After the drop the signal does nothing: the disposition that it had before [`interrupt_on`] does not come back.
#[derive(Debug)]
#[must_use = "the signal interrupts nothing once this is dropped"]
pub struct InterruptOn {
    signal: c_int,
    id: SigId,
    mailbox: Arc<Mailbox>,
}

/// Makes `signal` interrupt the main loop of this thread. Does not switch.
///
/// With `SIGINT` a program leaves its blocking call on Ctrl-C, instead of being killed by it.
///
/// The signal may be delivered to any thread of the process. Other users of the `signal-hook` crate in the program get
/// it as well. It does not keep a loop alive that has nothing else to wait for.
///
/// A hub that cannot watch descriptors notices the signal within 50 ms, any other hub at once.
///
/// ```
/// use greenhub::{Interest, TrampolineError, trampoline};
/// use greenhub::hub::{LoopErrorKind, interrupt_on};
/// const SIGINT: i32 = 2;
/// let _interrupt = interrupt_on(SIGINT)?;
/// # signal_hook::low_level::raise(SIGINT)?;
/// let (reader, _writer) = std::io::pipe()?;
/// let waited = trampoline(&reader, Interest::READ, None); // Ctrl-C is typed now
/// let Err(TrampolineError::Loop(error)) = waited else { panic!("{waited:?}") };
/// assert_eq!(error.kind(), LoopErrorKind::Interrupted);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns an error if the hub cannot be built or the system refuses the signal, and
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a signal that cannot or must not be caught (`SIGKILL`, `SIGSTOP`,
/// `SIGILL`, `SIGFPE`, `SIGSEGV`).
#[doc(alias = "signal_handler")]
#[doc(alias = "KeyboardInterrupt")]
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
    // SAFETY: `Mailbox::interrupt_in_handler` is async-signal-safe: it uses atomics, and writes once to a descriptor of
    // the core's own. `signal-hook` preserves `errno` and drops the closure outside of handlers.
    let id = unsafe { register(signal, move || interrupts.interrupt_in_handler()) }?;
    mailbox.add_signal();
    Ok(InterruptOn { signal, id, mailbox })
}

impl InterruptOn {
    /// Returns the number of the signal.
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
