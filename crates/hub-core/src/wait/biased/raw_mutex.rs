//! A lock without a value and without a guard: parking_lot's, or one built from loom's parts in a model.
//!
//! Ground rule: only a caller that has locked it unlocks it.

#[cfg(not(loom))]
pub(super) use self::real::RawMutex;

#[cfg(not(loom))]
mod real {
    use parking_lot::lock_api::RawMutex as _;

    pub(in super::super) struct RawMutex(parking_lot::RawMutex);

    impl RawMutex {
        pub(in super::super) const fn new() -> RawMutex {
            RawMutex(parking_lot::RawMutex::INIT)
        }

        #[inline]
        pub(in super::super) fn lock(&self) {
            self.0.lock();
        }

        /// # Safety
        ///
        /// The caller has locked it.
        #[inline]
        pub(in super::super) unsafe fn unlock(&self) {
            // SAFETY: the caller has locked it, by the contract.
            unsafe { self.0.unlock() };
        }
    }
}

#[cfg(loom)]
pub(super) struct RawMutex {
    locked: loom::sync::Mutex<bool>,
    unlocked: loom::sync::Condvar,
}

#[cfg(loom)]
impl RawMutex {
    pub(super) fn new() -> RawMutex {
        RawMutex { locked: loom::sync::Mutex::new(false), unlocked: loom::sync::Condvar::new() }
    }

    pub(super) fn lock(&self) {
        let mut locked = self.locked.lock().unwrap();
        while *locked {
            locked = self.unlocked.wait(locked).unwrap();
        }
        *locked = true;
    }

    /// # Safety
    ///
    /// The same as for the other `RawMutex`.
    pub(super) unsafe fn unlock(&self) {
        *self.locked.lock().unwrap() = false;
        self.unlocked.notify_one();
    }
}
