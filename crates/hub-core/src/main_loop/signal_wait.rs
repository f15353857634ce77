//! The waits of greenlets for signals, and callbacks after signals.
//!
//! A signal handler only sets a flag in the mailbox of the loop. The loop then wakes every wait and calls every
//! callback, and each of them checks whether its signal has arrived.
//!
//! Handlers run in the order of their registration. The handler of a loop has to run after the one that sets the flag,
//! or a waiter could check the flag too early. So each wait says when its flag was registered, and a handler that is
//! older is replaced. Otherwise it stays until the end of the OS thread: `signal-hook` takes a lock of the process for
//! each change, and a fork may leave that lock held in the child.
//!
//! Ground rule: the code that runs in a handler is async-signal-safe, and owns what it uses, as in `api/signal.rs`.

use std::cell::RefCell;
use std::ffi::c_int;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use signal_hook::SigId;
use signal_hook::low_level::{register, unregister};

use super::remote::Mailbox;
use crate::greenlet::control::Waiter;

/// The greenlets of a loop that wait for signals, and the callbacks.
#[derive(Default)]
pub(super) struct SignalWaits {
    waiters: RefCell<Vec<Waiter>>,
    callbacks: RefCell<Vec<(Moment, Callback)>>,
    handlers: RefCell<Vec<Handler>>,
}

/// A callback, whose name is the moment of its addition.
type Callback = Rc<dyn Fn()>;

/// A handler that notifies the loop.
struct Handler {
    signal: c_int,
    id: SigId,
    /// A moment before its registration.
    registered: Moment,
}

/// A moment in the order of registrations.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Moment(u64);

impl Moment {
    /// Returns the present moment, which is later than all before.
    #[must_use]
    pub fn now() -> Moment {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Moment(NEXT.fetch_add(1, Ordering::SeqCst))
    }
}

impl SignalWaits {
    /// Makes a handler of `signal` notify the loop of `mailbox`, after the handlers that were registered by `flagged`.
    pub(super) fn watch(&self, signal: c_int, flagged: Moment, mailbox: &Arc<Mailbox>) -> io::Result<()> {
        let mut handlers = self.handlers.borrow_mut();
        let present = handlers.iter().position(|handler| handler.signal == signal);
        if present.is_some_and(|index| handlers[index].registered > flagged) {
            return Ok(());
        }
        let (registered, mailbox) = (Moment::now(), Arc::clone(mailbox));
        // SAFETY: `Mailbox::wake_signal_waits_in_handler` is async-signal-safe: it uses atomics, and writes once to a
        // descriptor of the core's own. `signal-hook` preserves `errno` and drops the closure outside of handlers.
        let id = unsafe { register(signal, move || mailbox.wake_signal_waits_in_handler()) }?;
        handlers.push(Handler { signal, id, registered });
        if let Some(index) = present {
            unregister(handlers.swap_remove(index).id);
        }
        Ok(())
    }

    /// Removes the handlers.
    pub(super) fn close(&self) {
        for handler in self.handlers.take() {
            unregister(handler.id);
        }
    }

    /// Adds a wait, until the returned value is dropped, however the park ends.
    pub(super) fn begin(&self, waiter: Waiter) -> SignalPark<'_> {
        self.waiters.borrow_mut().push(waiter);
        SignalPark { waits: self, waiter }
    }

    /// Adds a callback, until [`remove`](SignalWaits::remove) gets the returned moment. It must not switch or panic.
    pub(super) fn add(&self, callback: Rc<dyn Fn()>) -> Moment {
        let added = Moment::now();
        self.callbacks.borrow_mut().push((added, callback));
        added
    }

    pub(super) fn remove(&self, added: Moment) {
        let mut callbacks = self.callbacks.borrow_mut();
        let removed = callbacks.iter().position(|(other, _)| *other == added).map(|index| callbacks.remove(index));
        // The destructor may be that of a value that other code shares.
        drop(callbacks);
        drop(removed);
    }

    /// Returns whether a greenlet waits for a signal, or a callback does.
    pub(super) fn any(&self) -> bool {
        !self.waiters.borrow().is_empty() || !self.callbacks.borrow().is_empty()
    }

    /// Ends all waits, and calls the callbacks. Does not switch.
    pub(super) fn wake_all(&self) {
        for waiter in self.waiters.take() {
            waiter.wake();
        }
        let callbacks = self.callbacks.borrow().clone();
        for (_, callback) in callbacks {
            callback();
        }
    }
}

/// A parked wait for a signal. `Drop` removes it.
pub(super) struct SignalPark<'a> {
    waits: &'a SignalWaits,
    waiter: Waiter,
}

impl Drop for SignalPark<'_> {
    fn drop(&mut self) {
        self.waits.waiters.borrow_mut().retain(|other| *other != self.waiter);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::id::HubId;
    use crate::main_loop::remote::Inbox;

    #[test]
    fn a_handler_is_registered_again_only_for_a_younger_flag() {
        let (waits, inbox) = (SignalWaits::default(), Inbox::new(HubId::new(1)));
        let registered = |flagged| {
            waits.watch(libc::SIGURG, flagged, inbox.mailbox()).unwrap();
            let handlers = waits.handlers.borrow();
            assert_eq!(handlers.len(), 1);
            handlers[0].registered
        };
        let old = Moment::now();
        let first = registered(old);
        assert!(first > old);
        assert_eq!(registered(old), first);
        let young = Moment::now();
        let second = registered(young);
        assert!(second > young);
        assert_eq!([registered(old), registered(young)], [second; 2]);
        waits.close();
        assert!(waits.handlers.borrow().is_empty());
    }

    #[test]
    fn a_callback_is_called_until_it_is_removed() {
        let (waits, calls) = (SignalWaits::default(), Rc::new(RefCell::new(Vec::new())));
        let add = |name| {
            let calls = Rc::clone(&calls);
            waits.add(Rc::new(move || calls.borrow_mut().push(name)))
        };
        let (first, second) = (add("first"), add("second"));
        waits.wake_all();
        waits.remove(first);
        waits.wake_all();
        assert!(waits.any());
        waits.remove(second);
        waits.wake_all();
        assert!(!waits.any());
        assert_eq!(*calls.borrow(), ["first", "second", "second"]);
    }
}
