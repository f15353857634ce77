//! The OS threads that the library starts.

use std::cell::Cell;
use std::io;
use std::thread;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// Resolvers with plug-ins need more than a small stack. Only touched pages are resident.
const STACK: usize = 1 << 20;

thread_local! {
    static OF_LIBRARY: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether the calling OS thread was started by [`start_thread`], and receives no signals.
pub(crate) fn is_of_library() -> bool {
    OF_LIBRARY.get()
}

/// Starts an OS thread that receives no signals.
///
/// # Errors
///
/// Returns an error if the system cannot start an OS thread.
pub fn start_thread(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // An OS thread inherits the mask of the OS thread that starts it, so it never has a moment in which a signal could
    // be delivered to it.
    let _masked = SignalsBlocked::new()?;
    let marked = move || {
        OF_LIBRARY.set(true);
        body();
    };
    thread::Builder::new().name(name).stack_size(STACK).spawn(marked).map(drop)
}

/// Blocks every signal of the calling OS thread, except those of its own faults.
struct SignalsBlocked {
    before: SigSet,
}

impl SignalsBlocked {
    fn new() -> io::Result<SignalsBlocked> {
        use Signal::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
        let mut all = SigSet::all();
        // A blocked fault would kill the process without running its handler, which reports stack overflows.
        for fault in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS] {
            all.remove(fault);
        }
        Ok(SignalsBlocked { before: all.thread_swap_mask(SigmaskHow::SIG_SETMASK)? })
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // Restoring the former mask cannot fail.
        let _ = self.before.thread_set_mask();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_started_thread_blocks_all_signals_but_those_of_its_own_faults() {
        let (sender, receiver) = mpsc::channel();
        let body = move || {
            let mask = SigSet::thread_get_mask().unwrap();
            let blocked = [Signal::SIGINT, Signal::SIGCHLD, Signal::SIGSEGV].map(|signal| mask.contains(signal));
            sender.send((blocked, is_of_library())).unwrap();
        };
        start_thread("greenhub-test".to_owned(), body).unwrap();
        assert_eq!(receiver.recv().unwrap(), ([true, true, false], true));
        assert!(!is_of_library());
    }

    #[test]
    fn starting_a_thread_leaves_the_mask_of_the_caller_as_it_is() {
        let before = SigSet::thread_get_mask().unwrap();
        start_thread("greenhub-test".to_owned(), || ()).unwrap();
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
