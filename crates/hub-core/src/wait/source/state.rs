//! The parts of a source that its operations, its handles and the requests of other OS threads share.
//!
//! Ground rules, and those of [`word`](super::word) and [`home`](super::home):
//! - The number is open from `new` on. It is closed by the caller to which the [`Word`] says so. Otherwise the drop of
//!   the last `Inner` closes it.
//! - A greenlet that a fork or the end of its OS thread has left behind stays [`Entered`] and counted as a waiter for
//!   ever. So the close of such a source redirects its number to a dead file, which releases the source's own file; the
//!   number stays open. It does so only if all other operations are such waiters: a live one may use the file.
//! - After the source was marked closed, the hub that has the number registered is asked to deregister it. (A hub that
//!   finds an open source at home keeps it.) If that hub belongs to another thread, a request is sent there. The request
//!   is itself `Entered`, and so keeps the number open until it was carried out.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};

use super::home::{Home, Resident};
use super::word::{CLOSED, GONE, LENT, Word};
use crate::base::fork;
use crate::error::TrampolineError;
use crate::greenlet::local;
use crate::hub::Interest;
use crate::main_loop::MainLoop;
use crate::main_loop::remote::{Mailbox, Message};

pub(super) struct Inner {
    pub(super) id: u64,
    pub(super) fd: RawFd,
    /// The generation of forks in which the source was made.
    pub(super) generation: u32,
    pub(super) word: Word,
    pub(super) home: Home<Mailbox>,
}

impl Resident for Mailbox {
    fn is_gone(&self) -> bool {
        Mailbox::is_gone(self)
    }

    fn is_left_behind(&self) -> bool {
        Mailbox::is_left_behind(self)
    }
}

/// An operation in progress. It keeps the number open.
pub(super) struct Entered<'a>(pub(super) &'a Inner);

impl Inner {
    #[inline]
    pub(super) fn enter(&self) -> io::Result<Entered<'_>> {
        let flags = self.word.enter();
        let entered = Entered(self);
        if flags & CLOSED != 0 { Err(self.is_closed()) } else { Ok(entered) }
    }

    #[cold]
    pub(super) fn is_closed(&self) -> io::Error {
        TrampolineError::Closed(self.fd).into()
    }

    /// # Safety
    ///
    /// The word says that the caller has to close the number.
    #[cold]
    unsafe fn close_number(&self) {
        // SAFETY: the number was open until now, and nothing else closes it, by the contract.
        drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
    }

    /// Releases the open file of a closed source if greenlets that were left behind keep the number open forever.
    ///
    /// The caller is entered, and the hub of this thread has deregistered the number. If the hub of another thread has
    /// the number registered, that thread does this once its hub has deregistered it: a hub cannot deregister a file
    /// that the number no longer names.
    pub(super) fn close_if_left_behind(&self) {
        // A greenlet that was left behind is counted as a waiter for ever. Any other operation may be using the file.
        if self.word.others().is_none_or(|others| others == 0 || others != self.home.waiters().into()) {
            return;
        }
        let is_left_behind = match &self.home.resident() {
            Some(mailbox) if mailbox.is_gone() => true,
            Some(mailbox) if !is_own_mailbox(mailbox) => false,
            _ => self.generation != fork::generation(),
        };
        if is_left_behind {
            // Without a spare descriptor the file stays open.
            let _ = self.lead_to_dead_file();
        }
    }

    /// Makes the number name a socket that is at its end in both directions.
    #[cold]
    pub(super) fn lead_to_dead_file(&self) -> io::Result<()> {
        let (dead, _) = UnixStream::pair()?;
        // SAFETY: the number is open, since the caller is entered; `ManuallyDrop` leaves it to the source.
        let mut number = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.fd) });
        #[cfg(not(target_vendor = "apple"))]
        rustix::io::dup3(&dead, &mut number, rustix::io::DupFlags::CLOEXEC)?;
        #[cfg(target_vendor = "apple")]
        {
            rustix::io::dup2(&dead, &mut number)?;
            rustix::io::fcntl_setfd(&*number, rustix::io::FdFlags::CLOEXEC)?;
        }
        Ok(())
    }

    /// Makes the hub that has the number registered deregister it, and wakes the waiters. The caller is entered.
    pub(super) fn forget(self: &Arc<Self>) {
        if let Some(local) = local::try_get()
            && !self.forget_here(&local.main_loop)
            && let Some(mailbox) = local.main_loop.mailbox()
        {
            self.post(&mailbox, Request::Forget);
        }
        // A caller that moves the source after this look is entered, and leaves when it finds the source closed.
        if self.home.hub() == 0 {
            return;
        }
        if let Some(mailbox) = self.home.resident()
            && !is_own_mailbox(&mailbox)
        {
            self.post(&mailbox, Request::Forget);
        }
    }

    /// Wakes the waiters in `directions` on every thread, so that their operations are tried again.
    pub(super) fn wake(self: &Arc<Self>, directions: Interest) {
        if self.home.waiters() == 0 {
            return;
        }
        if let Some(local) = local::try_get()
            && !local.main_loop.wake_waiters(self.fd, self.id, directions)
            && let Some(mailbox) = local.main_loop.mailbox()
        {
            self.post(&mailbox, Request::Wake(directions));
        }
        if let Some(mailbox) = self.home.resident()
            && !is_own_mailbox(&mailbox)
        {
            self.post(&mailbox, Request::Wake(directions));
        }
    }

    /// Makes the hub of this thread deregister the number, and wakes the waiters. The caller is entered.
    ///
    /// Returns false, and changes nothing, inside the hub's `wait`.
    fn forget_here(&self, main_loop: &MainLoop) -> bool {
        let is_known = main_loop.with_table(|table| {
            // A waiter by number borrows the number from this source, even if no hub has the source registered.
            if self.word.is_closed() && self.word.has(LENT) {
                table.adopt(self.fd, self.id);
            }
            table.knows(self.fd, self.id)
        });
        if is_known == Some(true) {
            // SAFETY: the number is open, since the callers are entered.
            let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
            main_loop.closed(self.fd, Some(fd));
        }
        is_known.is_some()
    }

    /// Sends a request to the hub of another thread.
    pub(super) fn post(self: &Arc<Self>, mailbox: &Mailbox, request: Request) {
        self.word.enter();
        // A mailbox that is gone never runs its hub again, so no call is lent that hub's table any more. The message
        // comes back and is dropped.
        let request = ReleaseRequest { source: Arc::clone(self), request };
        drop(mailbox.post(Message::Run(Box::new(move || request.carry_out(&local::get().main_loop)))));
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.word.leave() {
            // SAFETY: the word says so.
            unsafe { self.0.close_number() };
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.word.has(GONE) {
            // SAFETY: the number was open until now, and this is the last reference. A thread that sets `GONE` holds a
            // reference, so its store happens before this load.
            drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
        }
    }
}

/// A request of another thread to a hub that has a source registered. It counts as an operation in progress.
pub(crate) struct ReleaseRequest {
    pub(super) source: Arc<Inner>,
    pub(super) request: Request,
}

/// The kind of a request to the hub of another thread.
pub(super) enum Request {
    /// Deregister the source.
    Forget,
    /// Wake the waiters in these directions.
    Wake(Interest),
}

impl ReleaseRequest {
    pub(crate) fn carry_out(self, main_loop: &MainLoop) {
        let source = &*self.source;
        if let Request::Wake(directions) = self.request {
            main_loop.wake_waiters(source.fd, source.id, directions);
            return;
        }
        // The source may have come back meanwhile. Only this thread can bring it back, so the answer stays true.
        let is_here = source.home.settled_hub() == main_loop.id().number();
        if !is_here || source.word.is_closed() {
            source.forget_here(main_loop);
        }
        if source.word.is_closed() {
            source.close_if_left_behind();
        }
    }
}

impl Drop for ReleaseRequest {
    fn drop(&mut self) {
        drop(Entered(&self.source));
    }
}

/// A handle that wakes the waiters of a [`Source`](crate::Source) without keeping it open.
///
/// It is for operations on other handles of the same file that the system does not report.
#[derive(Clone, Debug)]
pub struct SourceWaker(pub(super) Weak<Inner>);

impl SourceWaker {
    /// Wakes the green threads that wait in `directions`. Does not switch.
    ///
    /// It wakes them on any OS thread. Their operations are tried again.
    pub fn wake(&self, directions: Interest) {
        if let Some(source) = self.0.upgrade() {
            source.wake(directions);
        }
    }

    /// Returns whether the source was dropped.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// Returns whether a mailbox is that of the calling thread.
pub(super) fn is_own_mailbox(mailbox: &Arc<Mailbox>) -> bool {
    let here = local::try_get().and_then(|local| local.main_loop.mailbox());
    here.is_some_and(|here| Arc::ptr_eq(&here, mailbox))
}
