//! Signals that end the main loop, as Ctrl-C does in Eventlet, signals that green threads wait for, and signals that
//! set a flag of a loop.
//!
//! Ground rule: the code that runs in a handler is async-signal-safe. It uses atomics, and writes once to a descriptor
//! of the core's own. It runs no code of a hub, which is foreign code. It owns what it uses: its part of the mailbox or
//! its latch, which outlive the OS thread of the loop.

use std::ffi::c_int;
use std::io;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use signal_hook::SigId;
use signal_hook::low_level::{register, unregister};

use super::hub_ref::try_get_hub;
use crate::error::LoopError;
use crate::greenlet::local;
use crate::main_loop::deadline::Deadline;
use crate::main_loop::latch::Latch;
use crate::main_loop::remote::Mailbox;
use crate::main_loop::signal_wait::Moment;

/// A signal that interrupts the main loop while this value exists. Made by [`interrupt_on`].
///
/// The loop is that of the OS thread that called [`interrupt_on`]. The main greenlet's wait returns
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

/// Makes `signal` interrupt the main loop of this OS thread. Does not switch.
///
/// For several signals, call it once for each. Each value that it returns stands for its own signal, and the drop of
/// one leaves the others as they are.
///
/// With `SIGINT` a program leaves its blocking call on Ctrl-C, instead of being killed by it. A program that is to end
/// in order waits for the signal in a green thread instead: see `greenhub::signal`.
///
/// The signal may be delivered to any OS thread of the process. Other users of the `signal-hook` crate in the program
/// get it as well. It does not keep a loop alive that has nothing else to wait for.
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
/// A program that ends its wait on Ctrl-C and on `SIGTERM`, the signal of `kill` and of most service managers:
///
/// ```
/// use greenhub::hub::{LoopErrorKind, interrupt_on};
/// use greenhub::thread::try_sleep;
/// use std::time::Duration;
/// const SIGINT: i32 = 2;
/// const SIGTERM: i32 = 15;
/// let _interrupts = [interrupt_on(SIGINT)?, interrupt_on(SIGTERM)?];
/// for signal in [SIGTERM, SIGINT] {
/// #   signal_hook::low_level::raise(signal)?;
///     let error = try_sleep(Duration::MAX).unwrap_err(); // the signal arrives now
///     assert_eq!(error.kind(), LoopErrorKind::Interrupted, "signal {signal}");
/// }
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
        io::Error::other(format!("cannot interrupt a loop on signal {signal}: this OS thread has no hub"))
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

/// A wait of the calling greenlet for signals. While it exists, their handlers wake the loop.
///
/// The handlers only wake the loop. The caller registers handlers that set flags first, and then notes the
/// [`Moment`]. It checks the flags after [`begin`](SignalWait::begin) and after each park.
///
/// A loop with a parked wait is not at a standstill.
#[derive(Debug)]
pub struct SignalWait {
    mailbox: Arc<Mailbox>,
    /// The loop is that of this OS thread.
    not_send: PhantomData<*mut ()>,
}

impl SignalWait {
    /// Begins a wait for `signals`, whose flags were registered by `flagged`. Builds the hub if there is none. Does not
    /// switch.
    ///
    /// # Errors
    ///
    /// Returns an error if the hub cannot be built, or the system refuses a signal.
    pub fn begin(signals: impl IntoIterator<Item = c_int>, flagged: Moment) -> Result<SignalWait, LoopError> {
        let mailbox = local::get().main_loop.watch_signals(signals, flagged)?;
        Ok(SignalWait { mailbox, not_send: PhantomData })
    }

    /// Parks until one of the signals has come, or until the deadline. Returns false at the deadline. Switches.
    ///
    /// It may return before a signal has come.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller cannot wait, and the error with which the main loop ends the wait of the main
    /// greenlet.
    pub fn park(&self, deadline: &mut Deadline) -> Result<bool, LoopError> {
        local::get().main_loop.wait_for_signal(deadline)
    }
}

impl Drop for SignalWait {
    fn drop(&mut self) {
        self.mailbox.remove_signal();
    }
}

/// A callback after signals, which the main loop of this OS thread calls while this value exists.
///
/// The rules are those of [`SignalWait`]: the callback checks the flags, and the caller does so after
/// [`begin`](SignalCallback::begin). A loop with a callback is not at a standstill.
#[derive(Debug)]
pub struct SignalCallback {
    added: Moment,
    /// Makes the handlers notify the loop.
    _wait: SignalWait,
}

impl SignalCallback {
    /// Begins to call `callback` after `signals`, whose flags were registered by `flagged`. Builds the hub if there is
    /// none. Does not switch.
    ///
    /// The callback may be called after another signal, too. It must not switch or panic.
    ///
    /// # Errors
    ///
    /// Returns an error if the hub cannot be built, or the system refuses a signal.
    pub fn begin(
        signals: impl IntoIterator<Item = c_int>,
        flagged: Moment,
        callback: Rc<dyn Fn()>,
    ) -> Result<SignalCallback, LoopError> {
        let wait = SignalWait::begin(signals, flagged)?;
        Ok(SignalCallback { added: local::get().main_loop.add_signal_callback(callback), _wait: wait })
    }
}

impl Drop for SignalCallback {
    fn drop(&mut self) {
        if let Some(local) = local::try_get() {
            local.main_loop.remove_signal_callback(self.added);
        }
    }
}

/// Returns the reason why no program can or may catch `signal`.
#[must_use]
pub fn why_not_caught(signal: c_int) -> Option<&'static str> {
    if signal_hook::consts::FORBIDDEN.contains(&signal) {
        Some("it cannot or must not be caught; choose another one, such as SIGTERM or SIGUSR1")
    } else if !(1..=LAST_SIGNAL).contains(&signal) {
        Some("there is no such signal; take a number from the constants of the system, such as SIGTERM")
    } else {
        None
    }
}

/// The largest number that a signal has on any architecture of the system.
const LAST_SIGNAL: c_int = if cfg!(any(target_os = "linux", target_os = "android")) {
    if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 127 } else { 64 }
} else {
    127
};

/// A signal that sets a latch while this value exists. Made by [`latch_on`].
#[derive(Debug)]
#[must_use = "the signal sets nothing once this is dropped"]
pub struct SignalLatch(SigId);

/// Makes `signal` set `latch`, beside everything else that it does. Does not switch.
///
/// # Errors
///
/// Returns an error if the system refuses the signal, and [`InvalidInput`](io::ErrorKind::InvalidInput) for a signal
/// that [cannot be caught](why_not_caught).
pub fn latch_on(signal: c_int, latch: Arc<Latch>) -> io::Result<SignalLatch> {
    if let Some(reason) = why_not_caught(signal) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("signal {signal}: {reason}")));
    }
    // SAFETY: `Latch::set` is async-signal-safe: it uses atomics, and writes once to a descriptor of the core's own.
    // `signal-hook` preserves `errno` and drops the closure, which owns the latch, outside of handlers.
    let id = unsafe { register(signal, move || latch.set()) }?;
    Ok(SignalLatch(id))
}

impl Drop for SignalLatch {
    fn drop(&mut self) {
        unregister(self.0);
    }
}
