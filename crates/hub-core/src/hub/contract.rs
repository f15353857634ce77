//! The contract between the main loop and a hub: the system call and nothing else.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::interest::Interest;
use super::lease::{Lease, Rearm};
use super::ready::Ready;
use super::time::Time;
use super::watched::{Key, Watched};

/// An event multiplexer of the system: epoll, kqueue, poll, select, libevent, or yours. What a hub of Eventlet adds to
/// its `BaseHub`.
///
/// The loop owns everything else: who waits, generations, timers, the wake-up descriptor, closing.
/// A hub belongs to one thread and is called by the main loop or by a green thread that is about to
/// park, never by two at once and never from inside itself. A whole one is in the
/// [documentation of the crate](crate#implementing-a-hub).
///
/// # For implementors
///
/// The clauses are quoted by number by the conformance suite (`hub-testkit`). [`Watched`] is the
/// loop's table; *armed* means that somebody waits for that direction now.
///
/// 1. When `watch` returns `Ok`, a direction of `interest` that is ready or becomes ready MUST be
///    reported at least once by a later `wait`, even if `fd` was watched before and nothing new
///    arrived: `watch` looks again.
/// 2. A later `watch` under the same number MUST replace key, interest and lease, wider or narrower,
///    whatever file was there before.
/// 3. What [`rearm`](Hub::rearm) promises MUST hold for descriptors lent for life. Reporting one
///    direction MUST NOT silence the other.
/// 4. Nothing MUST be reported that was not asked for, except [`HANGUP`] and [`INVALID`].
/// 5. A hang-up or an error MUST be reported as READ, WRITE and END; a half close by the peer as READ
///    and END, not as WRITE.
/// 6. A hub that is not `Explicit` MUST report END together with the last data, or report again.
/// 7. The key that is reported MUST be that of the registration, or the current key of that number
///    where the system itself forgets at close.
/// 8. `watch` that returns an error MUST leave no trace: EBADF for a number that is no descriptor,
///    EPERM for a file that cannot be waited for, [`InvalidInput`] for a number too large,
///    [`Unsupported`] for what the hub cannot do. A hub that validates later reports INVALID at the
///    next `wait`. A regular file is EPERM or ready, never silent.
/// 9. A dead descriptor MUST NOT make `wait` spin or fail, nor cost another its report. It is
///    reported INVALID at most once, or stays silent.
/// 10. `forget` cannot fail, and MUST let go of the open file before it returns.
/// 11. `wait` MUST NOT return before `timeout` is over, except for a report, a notice, a signal or a
///     limit of the system; it rounds up; zero never sleeps; `None` and [`Duration::MAX`] do not
///     overflow.
/// 12. An interrupted `wait` MUST return `Ok` with nothing.
/// 13. A notice before or during `wait` MUST end it; many notices end few waits.
/// 14. Everything that is ready MUST be reported within a bounded number of waits; a batch may be
///     partial.
/// 15. `wait` MUST NOT run foreign code, panic, or allocate once `ready` has its size.
/// 16. `after_fork` is the first call in a child: it MUST leave an empty, working hub and MUST NOT
///     touch what the parent still uses. It MUST NOT close a number that may be another file's by now, which
///     [`ForkAware`](crate::ForkAware) sees to.
/// 17. [`pollable`](Hub::pollable) MUST be readable when `wait` with a zero timeout would report
///     something.
/// 18. A hang-up that nobody waits for MUST NOT make `wait` return for ever.
///
/// [`HANGUP`]: crate::Readiness::HANGUP
/// [`INVALID`]: crate::Readiness::INVALID
/// [`InvalidInput`]: io::ErrorKind::InvalidInput
/// [`Unsupported`]: io::ErrorKind::Unsupported
pub trait Hub {
    /// The canonical name, as in `EVENTLET_HUB`.
    fn name(&self) -> &'static str;

    /// How descriptors that are lent for life are heard of again. Constant for the life of the hub.
    fn rearm(&self) -> Rearm;

    /// Adds `fd` or replaces what was known under its number, and looks again even if nothing changed.
    ///
    /// # Errors
    ///
    /// What the system says; then nothing is registered.
    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()>;

    /// Lets go of a descriptor and of its open file. `None`: the number is closed, or another file's already; only
    /// what is kept about it here is to be dropped.
    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>);

    /// Sleeps until something is ready, a notice came or `timeout` is over (`None`: no limit), and
    /// collects what was found. May return early with nothing: the loop looks at its clock and
    /// comes again.
    ///
    /// # Errors
    ///
    /// Only what makes the hub unusable; the loop ends with it.
    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()>;

    /// Replaces every object of the system after a fork, in the child. The loop watches again what
    /// it wants.
    ///
    /// # Errors
    ///
    /// What the system says; the loop of the child ends with it.
    fn after_fork(&mut self) -> io::Result<()>;

    /// A wake-up of the hub's own, for a hub that cannot watch descriptors.
    ///
    /// The loop has the hub watch an eventfd or a pipe, and asks for a notifier only if [`watch`](Hub::watch) refuses
    /// that. A signal cannot end the wait of such a hub: while a signal is to
    /// [interrupt](crate::interrupt_on) the loop, its waits are cut into pieces of 50 ms.
    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        None
    }

    /// A descriptor that is readable whenever `wait` would return at once, for outer loops.
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The clock that deadlines refer to. It never goes backwards. Hubs that a thread uses one after
    /// another should count from the same beginning, since timeouts outlive a hub that is replaced.
    fn now(&self) -> Time {
        Time::monotonic()
    }
}

/// Ends a [`Hub::wait`] from another thread.
///
/// It is never called in a signal handler, so it may lock, allocate and run any code.
///
/// ```
/// use hub_core::Notify;
/// use std::sync::{Condvar, Mutex};
///
/// /// The hub waits until `rung` is true.
/// #[derive(Default)]
/// struct Bell {
///     rung: Mutex<bool>,
///     changed: Condvar,
/// }
///
/// impl Notify for Bell {
///     fn notify(&self) {
///         *self.rung.lock().unwrap() = true;
///         self.changed.notify_one();
///     }
/// }
/// # let bell = Bell::default();
/// # bell.notify();
/// # assert!(*bell.rung.lock().unwrap());
/// ```
pub trait Notify: Send + Sync {
    /// Ends the wait under way or, if there is none, the next one.
    fn notify(&self);
}

impl<H: Hub + ?Sized> Hub for Box<H> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn rearm(&self) -> Rearm {
        (**self).rearm()
    }
    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        (**self).watch(key, fd, interest, lease)
    }
    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        (**self).forget(key, fd);
    }
    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        (**self).wait(watched, timeout, ready)
    }
    fn after_fork(&mut self) -> io::Result<()> {
        (**self).after_fork()
    }
    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        (**self).notifier()
    }
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        (**self).pollable()
    }
    fn now(&self) -> Time {
        (**self).now()
    }
}
