//! The messages of other OS threads, carried out by the loop.

use std::sync::Arc;
use std::time::Duration;

use super::MainLoop;
use super::remote::{Inbox, Mailbox, Message};
use crate::base::fork;
use crate::greenlet::control::Wake;
use crate::greenlet::exit::drop_contained;
use crate::greenlet::local::{self, Local};
use crate::greenlet::target::Target;
use crate::greenlet::task;

impl MainLoop {
    /// Returns the mailbox of this loop, if a hub was built.
    pub(crate) fn mailbox(&self) -> Option<Arc<Mailbox>> {
        self.inbox.get().map(|inbox| Arc::clone(inbox.mailbox()))
    }

    /// Carries out the messages of other OS threads. Returns false if there was no mail, not even a notice.
    #[inline]
    pub(crate) fn read_mail(&self) -> bool {
        match self.inbox.get() {
            Some(inbox) if inbox.has_mail() => {
                self.carry_out_mail(inbox);
                true
            }
            _ => false,
        }
    }

    /// Looks for more mail before a sleep of `timeout`, if nothing but mail and timers can end the sleep.
    #[cold]
    pub(super) fn finds_mail(&self, local: &Local, timeout: Option<Duration>) -> bool {
        let Some(inbox) = self.inbox.get() else { return false };
        let own = usize::from(self.wakeup.get().is_some());
        if self.descriptors.borrow().watched.len() > own
            || self.embedding.is_embedded()
            || self.embedding.longest_wait().is_some()
            || self.phases.any()
            || self.hub_may_wake(local)
        {
            return false;
        }
        self.busy_poll.finds(timeout, || inbox.has_mail())
    }

    #[inline(never)]
    fn carry_out_mail(&self, inbox: &Inbox) {
        // A callback may have forked: the child must not carry out the parent's messages as well.
        if let Err(error) = self.notice_fork() {
            self.stop_with(error);
        }
        self.standstill.stir();
        let mut messages = self.messages.take();
        inbox.take(&mut messages);
        if inbox.take_interrupt() {
            self.interrupt();
        }
        if inbox.take_signalled() {
            self.signal_waits.wake_all();
        }
        let generation = fork::generation();
        let mut dumps = Vec::new();
        for message in messages.drain(..) {
            match message {
                // An earlier message has forked. The spawns, dumps and stops behind it are the parent's.
                Message::Spawn(..) | Message::Dump(_) | Message::Stop if fork::generation() != generation => {
                    drop_contained(message)
                }
                Message::Spawn(place, run, future) => {
                    if let Some(future) = future {
                        self.foreign_futures.add(future);
                    }
                    task::spawn_detached(local::get(), run, place);
                }
                Message::Wake { greenlet, ticket } => self.tell(Target::Parked { greenlet, ticket }, Wake::Event),
                Message::Run(request) => request(),
                Message::Dump(request) => dumps.push(request),
                Message::Stop => self.abort(),
            }
        }
        *self.messages.borrow_mut() = messages;
        self.phases.note_mail();
        // Last, since user code may switch, and may fork: the rest is the parent's then.
        for request in dumps {
            if fork::generation() == generation {
                request.carry_out();
            }
        }
    }

    /// Sorts the mail from before a fork. Wake-ups, requests of this library and an interruption hold in both
    /// processes. A spawn, a dump and a stop are the parent's, and so are the futures that wait for results.
    ///
    /// No user code runs here except destructors: the loop is between two processes.
    pub(super) fn retain_mail_after_fork(&self) {
        self.foreign_futures.forget();
        let Some(inbox) = self.inbox.get() else { return };
        let mut messages = Vec::new();
        inbox.take(&mut messages);
        if inbox.take_interrupt() {
            self.interrupt();
        }
        if inbox.take_signalled() {
            // The next turn does it: a callback takes locks of primitives.
            inbox.mailbox().wake_signal_waits_in_handler();
        }
        for message in messages {
            match message {
                Message::Wake { greenlet, ticket } => self.tell(Target::Parked { greenlet, ticket }, Wake::Event),
                Message::Run(request) => request(),
                message @ (Message::Spawn(..) | Message::Dump(_) | Message::Stop) => drop_contained(message),
            }
        }
    }
}
