//! Handles by which other OS threads reach a loop.

mod mailbox;

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Weak};

use crate::base::id::HubId;
use crate::error::HubGone;
use crate::main_loop::foreign_futures::ForeignFuture;

pub(crate) use self::mailbox::{Bell, Inbox, Mailbox, Message};

/// A handle to the hub of an OS thread, for use by any OS thread.
///
/// Green threads and most parts of a hub stay on its OS thread. A `Remote` is the entry from outside: it sends the hub
/// a closure to run there, wakes it, or ends its loop. The spawns and stops of one OS thread take effect in order. A
/// hub that is awake is reached without a system call. A sleeping hub is woken by one write, however many calls come in
/// until it is awake. The counterpart in gevent is the `async` watcher.
///
/// While any `Remote` of a hub exists, a loop without anything else to wait for goes on waiting, since the holder may
/// still send a message. No call blocks, and none switches to another green thread.
///
/// When the hub's OS thread has ended, a call that needs it returns [`HubGone`], and the others do nothing. The same
/// holds in a forked child: only the hub of the OS thread that called `fork` exists there.
///
/// ```
/// use greenhub::{Interest, get_hub, trampoline};
/// use std::io::Write;
/// let remote = get_hub().remote();
/// let (reader, mut writer) = std::io::pipe()?;
/// let other = std::thread::spawn(move || {
///     remote.spawn(move || writer.write_all(b"!").unwrap())?;
///     remote.stop()
/// });
/// let _ = trampoline(&reader, Interest::READ, None); // readable, or the loop was stopped
/// other.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "async_")]
#[doc(alias = "run_callback_threadsafe")]
pub struct Remote {
    mailbox: Arc<Mailbox>,
}

impl Remote {
    /// Returns a handle that counts as one of the users' handles.
    pub(crate) fn new(mailbox: &Arc<Mailbox>) -> Remote {
        mailbox.hold();
        Remote { mailbox: Arc::clone(mailbox) }
    }

    /// Returns a handle of a hub whose OS thread has ended.
    pub(crate) fn gone(hub: HubId) -> Remote {
        let inbox = Inbox::new(hub);
        inbox.close();
        Remote::new(inbox.mailbox())
    }

    /// Runs `f` in a new green thread of the hub.
    ///
    /// Returns without waiting for it. The closures of one OS thread start in the order in which it sent them. A panic
    /// of `f` ends its green thread and is reported there.
    ///
    /// # Errors
    ///
    /// Returns [`HubGone`] if the hub's OS thread has ended, or was left behind by a fork; `f` is dropped, on the
    /// calling OS thread. If the OS thread ends later but before `f` has started, `f` is abandoned like a green thread.
    /// A [shutdown](crate::HubRef::shutdown) that comes first drops `f`.
    #[track_caller]
    pub fn spawn(&self, f: impl FnOnce() + Send + 'static) -> Result<(), HubGone> {
        self.post_spawn(Location::caller(), f, None)
    }

    /// Like [`spawn`](Remote::spawn), for a `future` of the result.
    pub(crate) fn spawn_for(
        &self,
        place: &'static Location<'static>,
        f: impl FnOnce() + Send + 'static,
        future: Weak<dyn ForeignFuture>,
    ) -> Result<(), HubGone> {
        self.post_spawn(place, f, Some(future))
    }

    fn post_spawn(
        &self,
        place: &'static Location<'static>,
        f: impl FnOnce() + Send + 'static,
        future: Option<Weak<dyn ForeignFuture>>,
    ) -> Result<(), HubGone> {
        self.post(Message::Spawn(place, Box::new(f), future), "spawn a green thread on")
    }

    /// Ends the hub's sleep, or shortens its next one.
    ///
    /// Async-signal-safe, except for a hub that watches no descriptors: its own [`Notify`](crate::hub::Notify) is
    /// called, which may be any code. [`interrupt_on`](crate::interrupt_on) is safe for every hub.
    pub fn notify(&self) {
        self.mailbox.notify();
    }

    /// Ends the hub's main loop after its current turn, like [`HubRef::abort`](crate::HubRef::abort).
    ///
    /// A later blocking call on that OS thread starts it again.
    ///
    /// # Errors
    ///
    /// Returns [`HubGone`] if the hub's OS thread has ended, or was left behind by a fork.
    pub fn stop(&self) -> Result<(), HubGone> {
        self.post(Message::Stop, "stop")
    }

    /// Ends the hub's main loop with an interruption, like Ctrl-C.
    ///
    /// The OS thread's main greenlet gets the interruption.
    ///
    /// Several calls before the loop's next check count as one. Async-signal-safe where [`notify`](Remote::notify) is.
    pub fn interrupt(&self) {
        self.mailbox.interrupt();
    }

    /// Returns whether the hub's OS thread has ended, or was left behind by a fork. It may end at any moment after a
    /// false result.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.mailbox.is_gone()
    }

    /// Returns the id of the hub.
    #[must_use]
    pub fn hub_id(&self) -> HubId {
        self.mailbox.hub_id()
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    fn post(&self, message: Message, operation: &'static str) -> Result<(), HubGone> {
        self.mailbox.post(message).map_err(|_| HubGone { operation, hub: self.mailbox.hub_id() })
    }
}

impl Clone for Remote {
    fn clone(&self) -> Remote {
        Remote::new(&self.mailbox)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.mailbox.release();
    }
}

/// A job on another OS thread, which keeps the loop alive like a [`Remote`] until this is dropped.
pub(crate) struct PendingJob(Arc<Mailbox>);

impl PendingJob {
    pub(crate) fn new(mailbox: &Arc<Mailbox>) -> PendingJob {
        mailbox.hold_for_job();
        PendingJob(Arc::clone(mailbox))
    }
}

impl Drop for PendingJob {
    fn drop(&mut self) {
        self.0.release_for_job();
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("hub", &self.hub_id()).field("gone", &self.is_gone()).finish()
    }
}

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
