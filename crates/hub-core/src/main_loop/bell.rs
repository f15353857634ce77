//! The way for other OS threads to wake the loop: a descriptor that the hub watches, or the hub's own notifier.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::MainLoop;
use super::loops;
use super::remote::{Bell, Inbox};
use super::wakeup::{Wakeup, WakeupKind};

impl MainLoop {
    /// Sets how other OS threads wake the loop: by a descriptor that the hub watches, or by the notifier of a hub that
    /// refuses descriptors.
    pub(super) fn make_bell(&self) -> io::Result<()> {
        let Err(refused) = self.make_wakeup().and_then(|wakeup| self.watch_wakeup(wakeup)) else { return Ok(()) };
        // A hub that was dropped has no notifier.
        if self.slot.is_empty() {
            return Err(refused);
        }
        match self.with_hub("asking for its notifier", |hub| hub.notifier()).map_err(io::Error::from)? {
            Some(notifier) => self.wake_by(Bell::Notifier(notifier)),
            None => Err(refused),
        }
    }

    /// Creates the loop's wake-up descriptor, and makes other OS threads use it.
    pub(super) fn make_wakeup(&self) -> io::Result<Arc<Wakeup>> {
        let wakeup = Wakeup::new(WakeupKind::from_env()?)?;
        self.wake_by(Bell::Descriptor(wakeup.clone()))?;
        Ok(wakeup)
    }

    /// Registers the wake-up descriptor with the hub.
    pub(super) fn watch_wakeup(&self, wakeup: Arc<Wakeup>) -> io::Result<()> {
        self.wakeup.set(Some(self.listen_to_wakeup(wakeup)?));
        Ok(())
    }

    /// Makes other OS threads wake the loop by `bell`.
    fn wake_by(&self, bell: Bell) -> io::Result<()> {
        let inbox = self.inbox.get_or_init(|| Inbox::new(self.id()));
        inbox.renumber(self.id());
        inbox.replace_bell(bell)?;
        loops::enter(inbox.mailbox())
    }

    /// Returns the longest wait, if a signal that notifies the loop cannot end the wait.
    pub(super) fn longest_deaf_wait(&self) -> Option<Duration> {
        const LONGEST: Duration = Duration::from_millis(50);

        let is_deaf = self.wakeup.get().is_none() && self.inbox.get().is_some_and(Inbox::has_signals);
        is_deaf.then_some(LONGEST)
    }
}
