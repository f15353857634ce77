//! Single turns: for a caller that runs them one by one, and for another loop of the OS thread that embeds this one.

use std::task::Waker;
use std::time::Duration;

use super::MainLoop;
use crate::base::wait_reason::WaitReason;
use crate::error::{LoopError, LoopErrorKind};
use crate::greenlet::local::{self, Local};
use crate::greenlet::run::{self, Park};

impl MainLoop {
    /// Runs one turn, which sleeps at most `limit`, then returns to the main greenlet. Switches.
    pub(crate) fn run_once(&self, limit: Option<Duration>) -> Result<(), LoopError> {
        let park = Park::current(WaitReason::RunOnce)?;
        if park.control() != local::get().main {
            return Err(LoopError::in_mainloop(WaitReason::RunOnce.as_str()));
        }
        self.ensure_hub()?;
        let single = self.embedding.request_single_turn(limit, park.waiter());
        let parked = park.park();
        drop(single);
        // A caller that waits in place of the loop is woken like the loop.
        if let Some(inbox) = self.inbox.get()
            && !inbox.prepare_sleep()
        {
            inbox.ring();
        }
        parked.map(drop)
    }

    /// Begins to be embedded by the main greenlet. Returns the serial number of the embedding.
    ///
    /// # Errors
    ///
    /// Returns an error for any other greenlet, if the loop is embedded already, if the main greenlet may not wait or
    /// has lent its frame to others, and if no hub can be built.
    pub(crate) fn embed(&self, local: &Local) -> Result<u64, LoopError> {
        let main = local.main;
        if self.embedding.is_embedded() {
            return Err(LoopErrorKind::Embedded.into());
        }
        if run::current() != main {
            return Err(LoopError::in_mainloop("embedding the loop"));
        }
        run::may_leave(main, WaitReason::RunOnce)?;
        let lends = main.is_masked() || local.main_scopes.get() != 0 || local.refuses_bodies();
        if lends || self.heartbeat.is_in_hub() {
            return Err(LoopErrorKind::EmbedRefused.into());
        }
        self.ensure_hub()?;
        Ok(self.embedding.begin())
    }

    /// Returns whether the main greenlet embeds the loop.
    pub(crate) fn is_embedded(&self) -> bool {
        self.embedding.is_embedded()
    }

    /// Ends the embedding that [`embed`](MainLoop::embed) has begun with this serial number, if it has not ended.
    pub(crate) fn end_embedding_of(&self, serial: u64) {
        if self.embedding.is_current(serial) {
            self.end_embedding();
        }
    }

    /// Ends the present embedding.
    pub(crate) fn end_embedding(&self) {
        self.embedding.end();
        self.drop_waker();
    }

    /// Runs one turn of an embedded loop, without a sleep. Switches.
    ///
    /// Returns whether the next turn has work to do. If not, `waker` is woken when it has some that no descriptor and
    /// no timer reports.
    pub(crate) fn embedded_turn(&self, local: &Local, serial: u64, waker: &Waker) -> Result<bool, LoopError> {
        if !self.embedding.is_current(serial) {
            return Err(LoopErrorKind::EmbedRefused.into());
        }
        if run::current() != local.main || self.heartbeat.is_in_hub() {
            return Err(LoopError::in_mainloop("a turn of the embedded loop"));
        }
        run::set_asleep(false);
        let turn = self.embedding.begin_turn();
        let turned = self.run_once(Some(Duration::ZERO));
        drop(turn);
        turned?;
        let has_work = self.embedding.has_reported() || run::ready() != 0 || self.phases.forbid_sleep();
        if has_work || self.ending.is_requested() {
            return Ok(true);
        }
        run::set_asleep(true);
        self.call_waker(|own| {
            own.begin_wait();
            own.set(waker);
        });
        Ok(false)
    }
}
