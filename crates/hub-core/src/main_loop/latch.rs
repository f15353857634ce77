//! Flags that other OS threads and signal handlers set for a loop.
//!
//! Ground rules:
//! - [`Latch::set`] is async-signal-safe. It uses atomics, and writes at most once to a descriptor of the core's own.
//! - The flag is set before the descriptor is looked for, and [`LatchWakeup::open`] makes the descriptor before its
//!   caller looks at flags, with a fence in between on either side. So a flag that is set without a write is seen.
//! - The descriptor belongs to one process. Until a forked child has made its own, `set` only sets the flag there.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

use super::wakeup::{Wakeup, WakeupKind};
use crate::base::fork::PerProcess;
use crate::hub::Notify;

/// The descriptor that becomes readable when a [`Latch`] of a loop is set.
#[derive(Debug)]
pub struct LatchWakeup {
    wakeup: PerProcess<OnceLock<Arc<Wakeup>>>,
    /// Whether a latch was set since the last [`drain`](LatchWakeup::drain).
    has_rung: AtomicBool,
}

impl LatchWakeup {
    /// Makes a value without a descriptor.
    #[must_use]
    pub fn new() -> Arc<LatchWakeup> {
        Arc::new(LatchWakeup { wakeup: PerProcess::new(), has_rung: AtomicBool::new(false) })
    }

    /// Returns the descriptor of this process, and makes it if needed. Only the OS thread of the loop calls it, which
    /// then looks at all latches.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses the descriptor.
    pub fn open(&self) -> io::Result<Rc<dyn AsFd>> {
        let wakeup = self.wakeup.get_or_make(OnceLock::new)?;
        if wakeup.get().is_none() {
            // Only this OS thread sets it.
            let _ = wakeup.set(Wakeup::new(WakeupKind::from_env()?)?);
        }
        fence(Ordering::SeqCst);
        wakeup
            .get()
            .map(|wakeup| Rc::new(Arc::clone(wakeup)) as Rc<dyn AsFd>)
            .ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// Makes the descriptor unreadable. The caller then looks at all latches.
    pub fn drain(&self) {
        self.drain_around(|| ());
    }

    /// Calls `between` between the two steps of a drain.
    #[inline]
    fn drain_around(&self, between: impl FnOnce()) {
        // In this order: a latch that is set in between has written for the next drain, which clears its mark. And both
        // before the look at the latches: a latch that is set from then on is found by the next one.
        if let Some(wakeup) = self.get() {
            wakeup.drain();
        }
        between();
        self.has_rung.store(false, Ordering::SeqCst);
    }

    /// Returns whether a latch was set since the last [`drain`](LatchWakeup::drain). The caller then drains.
    #[must_use]
    pub fn has_rung(&self) -> bool {
        self.has_rung.load(Ordering::SeqCst)
    }

    /// Returns the descriptor, if this process has made it.
    fn get(&self) -> Option<&Wakeup> {
        self.wakeup.get()?.get().map(Arc::as_ref)
    }
}

/// A flag that any OS thread and any signal handler sets, and that wakes a loop.
#[derive(Debug)]
pub struct Latch {
    is_set: AtomicBool,
    wakeup: Arc<LatchWakeup>,
}

impl Latch {
    /// Makes a flag that is not set.
    #[must_use]
    pub fn new(wakeup: Arc<LatchWakeup>) -> Arc<Latch> {
        Arc::new(Latch { is_set: AtomicBool::new(false), wakeup })
    }

    /// Sets the flag, and wakes the loop if it was not set.
    ///
    /// Async-signal-safe except for `errno`, which the caller saves.
    pub fn set(&self) {
        if self.is_set.swap(true, Ordering::SeqCst) {
            return;
        }
        self.wakeup.has_rung.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if let Some(wakeup) = self.wakeup.get() {
            wakeup.notify();
        }
    }

    /// Clears the flag. Returns whether it was set.
    pub fn take(&self) -> bool {
        // The plain load keeps a look at many latches from writing to each.
        self.is_set.load(Ordering::SeqCst) && self.is_set.swap(false, Ordering::SeqCst)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    impl LatchWakeup {
        fn over(wakeup: Arc<Wakeup>) -> Arc<LatchWakeup> {
            let latches = LatchWakeup::new();
            latches.wakeup.get_or_make(OnceLock::new).unwrap().set(wakeup).unwrap();
            latches
        }
    }

    fn is_readable(fd: &dyn AsFd) -> bool {
        let fd = fd.as_fd();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn a_latch_is_taken_once_and_makes_the_descriptor_readable_until_a_drain() {
        let wakeup = LatchWakeup::new();
        let latch = Latch::new(Arc::clone(&wakeup));
        let fd = wakeup.open().unwrap();
        latch.set();
        latch.set();
        assert!(is_readable(&*fd));
        wakeup.drain();
        assert!(!is_readable(&*fd));
        assert!(latch.take() && !latch.take());
    }

    #[test]
    fn a_latch_that_is_set_often_writes_once() {
        for (kind, one) in
            [(WakeupKind::Eventfd, &1_u64.to_ne_bytes()[..]), (WakeupKind::Pipe, &1_u64.to_ne_bytes()[..1])]
        {
            let latches = LatchWakeup::over(Wakeup::new(kind).unwrap());
            let latch = Latch::new(Arc::clone(&latches));
            let fd = latches.open().unwrap();
            for _ in 0..3 {
                (0..100_000).for_each(|_| latch.set());
                let mut buffer = [0; 64];
                let written = rustix::io::read(&*fd, &mut buffer).unwrap();
                assert_eq!(&buffer[..written], one, "{kind:?}");
                latches.drain();
                assert!(latch.take());
            }
        }
    }

    #[test]
    fn a_latch_that_is_set_during_a_drain_leaves_no_mark_without_a_readable_descriptor() {
        let wakeup = LatchWakeup::new();
        let latch = Latch::new(Arc::clone(&wakeup));
        let fd = wakeup.open().unwrap();
        wakeup.drain_around(|| latch.set());
        assert!(latch.take());
        assert!(!wakeup.has_rung() || is_readable(&*fd));
        wakeup.drain();
        assert!(!wakeup.has_rung() && !is_readable(&*fd));
    }

    #[test]
    fn a_latch_that_is_set_before_there_is_a_descriptor_stays_set() {
        let wakeup = LatchWakeup::new();
        let latch = Latch::new(Arc::clone(&wakeup));
        latch.set();
        assert!(!is_readable(&*wakeup.open().unwrap()));
        assert!(latch.take());
    }
}
