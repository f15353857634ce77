//! A main loop whose turns another loop of the same OS thread runs.

use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::task::Waker;

use super::hub_ref::HubRef;
use crate::error::LoopError;
use crate::greenlet::local;
use crate::hub::Time;

impl HubRef {
    /// Lets the main greenlet run the turns of the loop by hand. Does not switch.
    ///
    /// It is for a program with a loop of its own, and has to be called by the main greenlet. As long as the returned
    /// value lives, code of the main greenlet is code of the loop: it may spawn and wake green threads, but a call that
    /// blocks is refused with [`LoopErrorKind::InMainloop`](crate::LoopErrorKind::InMainloop). A sleep of zero does
    /// nothing, and a kill takes effect in the next turn. A timeout that began before strikes afterwards, since the
    /// program's own loop must not be unwound. The loop never ends by
    /// [`LoopErrorKind::LoopExit`](crate::LoopErrorKind::LoopExit), and its hub cannot be replaced.
    ///
    /// ```
    /// use std::time::Duration;
    /// let hub = greenhub::get_hub();
    /// let mut embedded = hub.embed()?;
    /// let green = greenhub::spawn(|| greenhub::sleep(Duration::from_millis(1)));
    /// while !green.is_finished() {
    ///     // A real program sleeps here until the descriptor is readable, the deadline has passed, or the waker is
    ///     // woken.
    ///     embedded.turn(std::task::Waker::noop())?;
    /// }
    /// drop(embedded);
    /// greenhub::sleep(Duration::from_millis(1)); // may block again
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`LoopErrorKind::InMainloop`](crate::LoopErrorKind::InMainloop) for any other greenlet,
    /// [`LoopErrorKind::Embedded`](crate::LoopErrorKind::Embedded) if the loop is embedded already, and
    /// [`LoopErrorKind::EmbedRefused`](crate::LoopErrorKind::EmbedRefused) within a [`scope`](crate::scope()), a
    /// shutdown or a call of the hub. Returns an error if the caller cannot wait, as in a poll of a future, and if the
    /// hub cannot be built.
    #[doc(alias = "join_reactor")]
    pub fn embed(&self) -> Result<Embedded, LoopError> {
        let local = local::get();
        let serial = local.main_loop.embed(local)?;
        Ok(Embedded { serial, not_send: PhantomData })
    }
}

/// The turns of a main loop that the main greenlet embeds, see [`HubRef::embed`].
///
/// When it is dropped, the main greenlet may block again.
#[derive(Debug)]
#[must_use = "the loop is embedded until this is dropped"]
pub struct Embedded {
    serial: u64,
    not_send: PhantomData<*mut ()>,
}

impl Embedded {
    /// Runs one turn, which does not sleep. Switches.
    ///
    /// Returns true if the next turn has work to do: a descriptor was reported, a green thread is ready, a hook is
    /// [due](crate::Hook::set_due), or there is a hook of idle turns. Returns false if the program may sleep. The next
    /// turn then has work when the first of these happens:
    ///
    /// - the descriptor of [`pollable`](Embedded::pollable) becomes readable: a descriptor is ready, or another OS
    ///   thread has sent something;
    /// - the time of [`next_deadline`](Embedded::next_deadline) is reached;
    /// - `waker` is woken: the program itself has made a green thread ready, armed a timer, scheduled a callback, made
    ///   a hook due or asked for the loop's end, or the hub has failed. The waker is woken once after each turn. It
    ///   must only make the program call this again.
    ///
    /// # Errors
    ///
    /// Returns the error with which the loop has ended, such as
    /// [`LoopErrorKind::Aborted`](crate::LoopErrorKind::Aborted). The next turn launches a new loop. Returns
    /// [`LoopErrorKind::InMainloop`](crate::LoopErrorKind::InMainloop) for any greenlet but the main one, and
    /// [`LoopErrorKind::EmbedRefused`](crate::LoopErrorKind::EmbedRefused) if the end of the OS thread's green threads
    /// has ended the embedding.
    pub fn turn(&mut self, waker: &Waker) -> Result<bool, LoopError> {
        let local = local::get();
        local.main_loop.embedded_turn(local, self.serial, waker)
    }

    /// Returns when the next turn has work, apart from descriptors and wake-ups.
    ///
    /// The time is by the hub's clock, [`HubRef::now`]. `None` stands for never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        local::get().main_loop.next_deadline()
    }

    /// Duplicates the descriptor that is readable when the next turn has work.
    ///
    /// Each later report or message is a new edge of it, for loops that are edge-triggered. A forked child asks anew
    /// after its first turn: the descriptor of before is that of the parent's hub.
    ///
    /// # Errors
    ///
    /// Returns [`Unsupported`](io::ErrorKind::Unsupported) with the name of the hub if that has no such descriptor:
    /// only epoll and kqueue have. Returns the error of the system, usually too many open files.
    pub fn pollable(&self) -> io::Result<OwnedFd> {
        local::get().main_loop.clone_pollable()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(local) = local::try_get() {
            local.main_loop.end_embedding_of(self.serial);
        }
    }
}
