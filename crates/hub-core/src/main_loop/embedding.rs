//! The request for a single turn, and whether the main greenlet embeds the loop.

use std::cell::Cell;
use std::time::Duration;

use crate::greenlet::control::Waiter;
use crate::greenlet::run::{self, Shield};

/// The single turn that is requested, and the embedding of the loop.
#[derive(Default)]
pub(super) struct Embedding {
    /// The longest wait of the requested turn, and the park to end after it.
    request: Cell<Option<(Option<Duration>, Waiter)>>,
    /// Whether the hub reported a descriptor in the last single turn.
    reported: Cell<bool>,
    /// The serial number of the present embedding; 0 if there is none.
    embedded: Cell<u64>,
    /// The serial number of the last embedding.
    last: Cell<u64>,
    /// The shield of a main greenlet that embeds the loop: the loop of the program must not be unwound.
    shield: Cell<Option<Shield>>,
}

impl Embedding {
    /// Requests a single turn that waits at most `limit`, and then ends the park of `waiter`.
    ///
    /// The request is forgotten when the returned value is dropped, however the park ends.
    pub(super) fn request_single_turn(&self, limit: Option<Duration>, waiter: Waiter) -> SingleTurn<'_> {
        self.request.set(Some((limit, waiter)));
        SingleTurn(self)
    }

    /// Returns the longest wait of the requested turn. Returns `None` if no single turn is requested.
    #[inline(always)]
    pub(super) fn longest_wait(&self) -> Option<Option<Duration>> {
        self.request.get().map(|(limit, _)| limit)
    }

    /// Returns the timeout of a turn, which is shorter if a single turn is requested that asks for it.
    #[inline(always)]
    pub(super) fn limited(&self, timeout: Option<Duration>, had_mail: bool) -> Option<Duration> {
        let Some(limit) = self.longest_wait() else { return timeout };
        // The caller checks its own state between turns. A notice that arrived just before this turn must not be slept
        // over.
        let limit = if had_mail { Some(Duration::ZERO) } else { limit };
        match (timeout, limit) {
            (Some(timeout), Some(limit)) => Some(timeout.min(limit)),
            (timeout, limit) => timeout.or(limit),
        }
    }

    /// Forbids the requested turn to wait.
    #[cold]
    pub(super) fn forbid_wait(&self) {
        if let Some((_, waiter)) = self.request.get() {
            self.request.set(Some((Some(Duration::ZERO), waiter)));
        }
    }

    /// Ends the requested turn, in which the hub has reported a descriptor or not. Returns the park to end.
    #[inline(always)]
    pub(super) fn end_single_turn(&self, reported: bool) -> Option<Waiter> {
        let (_, waiter) = self.request.take()?;
        self.reported.set(reported);
        Some(waiter)
    }

    /// Returns whether the hub reported a descriptor in the last single turn.
    pub(super) fn has_reported(&self) -> bool {
        self.reported.get()
    }

    /// Returns whether the main greenlet embeds the loop.
    pub(super) fn is_embedded(&self) -> bool {
        self.embedded.get() != 0
    }

    /// Returns whether `serial` is that of the present embedding.
    pub(super) fn is_current(&self, serial: u64) -> bool {
        self.embedded.get() == serial
    }

    /// Begins an embedding, between two turns. Returns its serial number.
    pub(super) fn begin(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.embedded.set(self.last.get());
        self.shield.set(Shield::new());
        run::set_between_turns(true);
        self.last.get()
    }

    /// Ends the embedding.
    pub(super) fn end(&self) {
        self.embedded.set(0);
        drop(self.shield.take());
        run::set_between_turns(false);
        run::set_asleep(false);
    }

    /// Begins a turn of the embedded loop, in which the main greenlet may park.
    pub(super) fn begin_turn(&self) -> EmbeddedTurn<'_> {
        run::set_between_turns(false);
        EmbeddedTurn(self)
    }
}

/// A turn of an embedded loop. `Drop` ends it, also if an exit unwinds the turn.
pub(super) struct EmbeddedTurn<'a>(&'a Embedding);

impl Drop for EmbeddedTurn<'_> {
    fn drop(&mut self) {
        run::set_between_turns(self.0.is_embedded());
    }
}

/// A requested turn. `Drop` forgets the request.
pub(super) struct SingleTurn<'a>(&'a Embedding);

impl Drop for SingleTurn<'_> {
    fn drop(&mut self) {
        self.0.request.set(None);
    }
}
