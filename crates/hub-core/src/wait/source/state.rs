//! The parts of a source that its operations, its handles and the requests of other OS threads share.
//!
//! Ground rules, and those of [`word`](super::word) and [`home`](super::home):
//! - The number is open from `new` on. It is closed by the caller to which the [`Word`] says so. Otherwise the drop of
//!   the last `Inner` closes it.
//! - A greenlet that a fork or the end of its OS thread has left behind stays [`Entered`] and counted as a waiter for
//!   ever, and so does an armed waker that a fork has left behind. So the last other operation on such a source, once
//!   it is closed, redirects its number to a dead file, which releases the source's own file; the number stays open. A
//!   live operation may use the file until it ends.
//! - After the source was marked closed, the hub that has the number registered is asked to deregister it. (A hub that
//!   finds an open source at home keeps it.) If that hub belongs to another OS thread, a request is sent there. The
//!   request is itself `Entered`, and so keeps the number open until it was carried out.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::home::{Busy, Home, Mover, Resident};
use super::word::{Closed, Entered, Flags, Numbered, Word};
use crate::error::TrampolineError;
use crate::greenlet::local;
use crate::hub::Interest;
use crate::main_loop::MainLoop;
use crate::main_loop::read_hint::ReadHint;
use crate::main_loop::remote::{Mailbox, Message};
use crate::main_loop::waker_table::{Era, Polled};

pub(super) struct Inner {
    pub(super) id: u64,
    fd: RawFd,
    word: Word,
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

impl Inner {
    /// Records an operation that has succeeded, or would block (`None`).
    #[inline]
    pub(super) fn operated(&self, main_loop: &MainLoop, direction: Interest, left: Option<ReadHint>) {
        if !left.is_some_and(|left| left.keeps_readiness(main_loop.rearm())) {
            main_loop.with_table(|table| table.used_up(self.fd, self.id, direction, left.is_none()));
        }
    }

    pub(super) fn new(fd: OwnedFd) -> Inner {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Inner { id: NEXT.fetch_add(1, Ordering::Relaxed), fd: fd.into_raw_fd(), word: Word::new(), home: Home::new() }
    }

    /// Returns the number, which may be closed.
    #[inline]
    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    #[inline]
    pub(super) fn flags(&self) -> Flags {
        self.word.flags()
    }

    /// Returns whether the source is marked as closed, see [`Word::is_closed`].
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.word.is_closed()
    }

    pub(super) fn set_nonblocking(&self, on: bool) {
        self.word.set_nonblocking(on);
    }

    pub(super) fn set_retrying(&self, on: bool) {
        self.word.set_retrying(on);
    }

    /// Begins an operation.
    ///
    /// # Errors
    ///
    /// Returns an error if the source was closed.
    #[inline]
    pub(super) fn enter(&self) -> io::Result<Entered<&Inner>> {
        Entered::open(self).map_err(|Closed| self.closed_error())
    }

    #[cold]
    pub(super) fn closed_error(&self) -> io::Error {
        TrampolineError::Closed { fd: self.fd }.into()
    }

    /// Ends the loan of the number by [`Entered::lend`].
    ///
    /// # Safety
    ///
    /// No borrow of the lent number is left, and none is made afterwards.
    pub(super) unsafe fn take_back(&self) {
        // SAFETY: by the contract.
        unsafe { self.word.take_back() };
    }

    /// Makes this OS thread's hub the home of the source, for a waiter that is counted in `era`. Fails if the source
    /// was closed.
    ///
    /// Returns false if the waiter must not park: the source was woken since the `wakes`th wake-up, when another hub
    /// was its home.
    #[inline(always)]
    pub(super) fn settle(
        self: &Arc<Self>,
        main_loop: &MainLoop,
        by: Mover,
        era: &mut Era,
        wakes: u32,
    ) -> io::Result<bool> {
        if self.home.hub() != main_loop.id().number() && !self.move_here(main_loop, by, era, wakes)? {
            return Ok(false);
        }
        if self.is_closed() {
            return Err(self.closed_error());
        }
        // Both loads are of one word, so this one sees no older value than that of `is_closed`. A waiter by number on
        // this OS thread has got the number from an `as_fd` that happened before, so it is seen as well.
        if self.flags().is_lent() {
            // A waiter by number has borrowed the number, and stays.
            // SAFETY: the number is this source's, which makes this loop, its home, give it up before it is closed.
            main_loop.with_table(|table| unsafe { table.adopt(self.fd, self.id) });
        }
        Ok(true)
    }

    #[cold]
    fn move_here(self: &Arc<Self>, main_loop: &MainLoop, by: Mover, era: &mut Era, wakes: u32) -> io::Result<bool> {
        main_loop.ensure_hub().map_err(io::Error::from)?;
        let Some(here) = main_loop.mailbox() else { return Err(self.closed_error()) };
        match self.home.move_to(main_loop.id().number(), here, by, era) {
            Ok(Some(before)) => self.post(&before, Request::Forget),
            Ok(None) => {}
            Err(Busy) => {
                let fd = self.fd;
                let text = format!("descriptor {fd} is waited for on another OS thread; use try_clone for one each");
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
        }
        // A later wake-up comes to this home.
        Ok(self.home.wakes() == wakes)
    }

    /// Wakes the waiters in `directions` on every OS thread, so that their operations are tried again.
    pub(super) fn wake(self: &Arc<Self>, directions: Interest) {
        if self.home.waiters() == 0 {
            return;
        }
        self.home.note_wake();
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

    /// Sends a request to the hub of another OS thread. A source whose number is gone has no registration and no
    /// waiter.
    pub(super) fn post(self: &Arc<Self>, mailbox: &Mailbox, request: Request) {
        let Some(source) = Entered::unless_gone(Arc::clone(self)) else { return };
        let request = ReleaseRequest { source, request };
        // A mailbox that is gone never runs its hub again, so no call is lent that hub's table any more. The message
        // comes back and is dropped.
        drop(mailbox.post(Message::Run(Box::new(move || request.carry_out(&local::get().main_loop)))));
    }
}

// SAFETY: `begin_poll` suspends an operation, which keeps the number open until `end_poll` resumes and ends it.
unsafe impl Polled for Inner {
    fn begin_poll(&self) -> Option<Era> {
        let entered = Entered::unless_gone(self)?;
        let era = self.home.begin_poll();
        entered.suspend();
        Some(era)
    }

    unsafe fn end_poll(&self, era: Era) {
        // SAFETY: `begin_poll` has suspended an operation on this source, and it is resumed once, by the contract.
        let _entered = unsafe { Entered::resume(self) };
        self.home.end_poll(era);
    }
}

impl AsRef<Inner> for Inner {
    #[inline]
    fn as_ref(&self) -> &Inner {
        self
    }
}

// SAFETY: a source has one word. The drop of `Inner` and `Entered::into_fd` close the number only as the word allows.
unsafe impl Numbered for Inner {
    #[inline]
    fn word(&self) -> &Word {
        &self.word
    }

    #[cold]
    unsafe fn close_number(&self) {
        // SAFETY: the number was open until now, and nothing else closes it, by the contract.
        drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
    }

    /// Releases the open file of a closed source if only greenlets that were left behind keep the number open.
    ///
    /// Every hub of this process has deregistered the number by then: a request to do so counts as an operation.
    #[cold]
    fn left_to(&self, others: u64) {
        let only_left_behind = |others: u64| others != 0 && others == self.home.left_behind().into();
        if !only_left_behind(others) {
            return;
        }
        let Some(entered) = Entered::unless_gone(self) else { return };
        // Another operation that began meanwhile comes here after this one.
        if entered.others().is_some_and(only_left_behind) && entered.set_released() {
            // Without a spare descriptor the file stays open.
            let _ = entered.lead_to_dead_file();
        }
    }
}

impl<R: Numbered + AsRef<Inner>> Entered<R> {
    #[inline]
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the number is open as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.inner().fd) }
    }

    #[inline]
    fn inner(&self) -> &Inner {
        self.source().as_ref()
    }

    /// Makes the number name a socket that is at its end in both directions.
    #[cold]
    fn lead_to_dead_file(&self) -> io::Result<()> {
        let (dead, _) = UnixStream::pair()?;
        // SAFETY: the number is open as long as `self` lives; `ManuallyDrop` leaves it to the source.
        let mut number = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.inner().fd) });
        #[cfg(not(target_vendor = "apple"))]
        rustix::io::dup3(&dead, &mut number, rustix::io::DupFlags::CLOEXEC)?;
        #[cfg(target_vendor = "apple")]
        {
            rustix::io::dup2(&dead, &mut number)?;
            rustix::io::fcntl_setfd(&*number, rustix::io::FdFlags::CLOEXEC)?;
        }
        Ok(())
    }

    /// Makes the hub of this OS thread deregister the number, and wakes the waiters.
    ///
    /// Returns false, and changes nothing, inside the hub's `wait`.
    fn forget_here(&self, main_loop: &MainLoop) -> bool {
        let source = self.inner();
        let is_known = main_loop.with_table(|table| {
            // A waiter by number borrows the number from this source, even if no hub has the source registered.
            if source.word.is_closed() && source.word.flags().is_lent() {
                // SAFETY: the number is this source's, and is given up below.
                unsafe { table.adopt(source.fd, source.id) };
            }
            table.knows(source.fd, source.id)
        });
        if is_known == Some(true) {
            main_loop.closed(source.fd, Some(self.fd()));
        }
        is_known.is_some()
    }
}

impl Entered<&Arc<Inner>> {
    /// Marks the source as closed. Makes the hub that has the number registered deregister it, and wakes the waiters.
    ///
    /// A second call does nothing.
    pub(super) fn close(&self) {
        // Before the requests: a hub that finds an open source at home keeps it registered.
        if self.source().word.close() {
            self.forget();
        }
    }

    fn forget(&self) {
        let source = *self.source();
        if let Some(local) = local::try_get()
            && !self.forget_here(&local.main_loop)
            && let Some(mailbox) = local.main_loop.mailbox()
        {
            source.post(&mailbox, Request::Forget);
        }
        // A caller that moves the source after this look is entered, and leaves when it finds the source closed.
        if source.home.hub() == 0 {
            return;
        }
        if let Some(mailbox) = source.home.resident()
            && !is_own_mailbox(&mailbox)
        {
            source.post(&mailbox, Request::Forget);
        }
    }

    /// Takes the number if this operation is the only one in progress. Otherwise returns the operation.
    ///
    /// # Safety
    ///
    /// This operation began on an open source and has closed it. Nothing borrows the number from the source.
    pub(super) unsafe fn into_fd(self) -> Result<OwnedFd, Self> {
        // If only this operation is in progress, every hub has carried out its request.
        // SAFETY: by the contract.
        if !unsafe { self.claim_alone() } {
            return Err(self);
        }
        // SAFETY: the number was open until now, and no hub has it registered. The word says that nothing else closes
        // it.
        Ok(unsafe { OwnedFd::from_raw_fd(self.source().fd) })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.word.flags().is_gone() {
            // SAFETY: the number was open until now, and this is the last reference. An OS thread that sets `GONE`
            // holds a reference, so its store happens before this load.
            drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
        }
    }
}

/// A request of another OS thread to a hub that has a source registered. It counts as an operation in progress.
struct ReleaseRequest {
    source: Entered<Arc<Inner>>,
    request: Request,
}

/// The kind of a request to the hub of another OS thread.
pub(super) enum Request {
    /// Deregister the source.
    Forget,
    /// Wake the waiters in these directions.
    Wake(Interest),
}

impl ReleaseRequest {
    fn carry_out(self, main_loop: &MainLoop) {
        let source = self.source.inner();
        if let Request::Wake(directions) = self.request {
            main_loop.wake_waiters(source.fd, source.id, directions);
            return;
        }
        // The source may have come back meanwhile. Only this OS thread can bring it back, so the answer stays true.
        let is_here = source.home.settled_hub() == main_loop.id().number();
        if !is_here || source.word.is_closed() {
            self.source.forget_here(main_loop);
        }
    }
}

/// A handle that wakes the waiters of a [`Source`](crate::Source) without keeping it open.
///
/// It is for operations on other handles of the same file that the system does not report.
#[derive(Clone, Debug)]
pub struct SourceWaker(pub(super) Weak<Inner>);

impl SourceWaker {
    /// Wakes the green threads and futures that wait in `directions`. Does not switch.
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

/// Returns whether a mailbox is that of the calling OS thread.
fn is_own_mailbox(mailbox: &Arc<Mailbox>) -> bool {
    let here = local::try_get().and_then(|local| local.main_loop.mailbox());
    here.is_some_and(|here| Arc::ptr_eq(&here, mailbox))
}
