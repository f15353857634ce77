//! The loop in a forked child: the kernel objects of its hub are the parent's, and so are most messages.

use std::io;

use super::MainLoop;
use super::callback_table::Callback;
use super::reach;
use crate::base::fork;
use crate::base::wait_reason::WaitReason;
use crate::error::LoopError;
use crate::greenlet::control::State;
use crate::greenlet::control::Waiter;
use crate::greenlet::debugger;
use crate::greenlet::exit::drop_contained;
use crate::greenlet::local;
use crate::greenlet::run;

impl MainLoop {
    /// Resets the hub after a fork. Called before every use of a hub: in a child it shares kernel objects with the
    /// parent's.
    #[inline]
    pub(super) fn notice_fork(&self) -> Result<(), LoopError> {
        if fork::is_forked() { self.after_fork() } else { Ok(()) }
    }

    /// In a child, replaces the wake-up descriptor and resets the hub, then registers all waiters again. Pool jobs are
    /// the parent's. Without a hub the rest is due all the same: the next hub is built for this process.
    #[cold]
    fn after_fork(&self) -> Result<(), LoopError> {
        // After a fork inside the hub, the caller of the hub resets it later.
        if self.heartbeat.is_in_hub() || !fork::take_forked() {
            return Ok(());
        }
        debugger::after_fork(local::get().controls.list());
        let hub = self.slot.name();
        let has_hub = !self.slot.is_empty();
        self.phases.note_fork();
        if !run::is_between_turns() {
            // The waker of an earlier wait wakes the runtime of the parent's hub. Between two turns it is the embedding
            // program's.
            self.drop_waker();
        }
        let parents_wakeup = self.take_parents_wakeup();
        let reset = if has_hub { self.reset_after_fork(parents_wakeup.is_some()) } else { Ok(()) };
        if reset.is_err() {
            // The hub is leaked: its kernel objects, or some of them, are the parent's. The next call that blocks
            // builds another hub.
            std::mem::forget(self.slot.remove());
            self.clock.reset();
            if let Some(wakeup) = self.wakeup.take() {
                self.unlisten(wakeup);
            }
        }
        drop_contained(parents_wakeup);
        self.retain_mail_after_fork();
        wake_all(WaitReason::Offload);
        let reachable = reach::register_again(|| self.mailbox());
        self.queue_all_wakers();
        // Also after a failure: the registrations are the parent's.
        let waiting = self.descriptors.borrow_mut().unwatch_all();
        reset.and(reachable).map_err(|error| LoopError::wait_failed(hub, error))?;
        if !has_hub {
            return Ok(());
        }
        waiting.into_iter().try_for_each(|(key, interest)| self.watch_again(key, interest))
    }

    /// Removes the parent's wake-up descriptor from the tables. The hub is not notified: by now the number may name any
    /// file of the child.
    fn take_parents_wakeup(&self) -> Option<Callback> {
        let callback = self.wakeup.take().and_then(|id| self.callbacks.borrow_mut().remove(id));
        if let Some(Callback::Listener { key, .. }) = &callback {
            let mut descriptors = self.descriptors.borrow_mut();
            if descriptors.watched.is_current(*key) {
                descriptors.retire(key.fd());
            }
        }
        callback
    }

    fn reset_after_fork(&self, had_wakeup: bool) -> io::Result<()> {
        // Before the hub is called: a shared wake-up descriptor would wake the parent.
        let own = if had_wakeup { Some(self.make_wakeup()?) } else { None };
        self.with_hub("resetting it in a child process", |hub| hub.after_fork()).map_err(io::Error::from)??;
        own.map_or_else(|| self.make_bell(), |wakeup| self.watch_wakeup(wakeup))
    }
}

/// Wakes all greenlets that wait for `reason`, so that they check again.
fn wake_all(reason: WaitReason) {
    for control in local::get().controls.in_use() {
        if control.state() == State::Parked && control.reason() == reason {
            Waiter::new(control, control.ticket()).wake();
        }
    }
}
