//! The reports of one wait: what the hub has pushed, and the targets found for it.

use std::cell::RefCell;

use super::descriptors::Descriptors;
use crate::greenlet::control::Reported;
use crate::greenlet::control::arena::Controls;
use crate::greenlet::target::Target;
use crate::hub::{Interest, Key, Ready, Rearm};

/// A target with its readiness, and the key and the direction of its place in the table.
pub(super) type Report = (Target, Reported, Key, Interest);

/// How many reports before its own the slot of a report is prefetched.
const AHEAD: usize = 4;

/// Two buffers, which keep their memory from one wait to the next.
#[derive(Default)]
pub(super) struct Reports {
    ready: RefCell<Ready>,
    collected: RefCell<Vec<Report>>,
}

impl Reports {
    /// Takes the buffer out for a wait of the hub.
    pub(super) fn take_ready(&self) -> Ready {
        self.ready.take()
    }

    /// Puts the buffer back after the wait.
    pub(super) fn put_ready(&self, ready: Ready) {
        *self.ready.borrow_mut() = ready;
    }

    /// Returns whether the last wait has reported nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.borrow().reports().is_empty()
    }

    /// Takes all reports of the wait in. Returns the targets, and whether there were reports.
    ///
    /// [`put_collected`](Reports::put_collected) gets the buffer of the targets back.
    #[inline]
    pub(super) fn collect(
        &self,
        descriptors: &mut Descriptors,
        controls: &Controls,
        rearm: Rearm,
    ) -> (Vec<Report>, bool) {
        let mut collected = self.collected.take();
        let mut ready = self.ready.borrow_mut();
        let reports = ready.reports();
        let any = !reports.is_empty();
        for (index, &(key, readiness)) in reports.iter().enumerate() {
            if let Some(&(soon, _)) = reports.get(index + AHEAD) {
                descriptors.prefetch(soon);
            }
            let first = collected.len();
            descriptors.report(key, readiness, rearm, &mut collected);
            if let Some(&(target, ..)) = collected.get(first) {
                target.prefetch(controls);
            }
        }
        ready.clear();
        (collected, any)
    }

    /// Puts the buffer of the targets back.
    pub(super) fn put_collected(&self, mut collected: Vec<Report>) {
        collected.clear();
        *self.collected.borrow_mut() = collected;
    }
}
