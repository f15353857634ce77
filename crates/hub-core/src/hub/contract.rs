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

/// An event multiplexer: epoll, kqueue, poll, select, libevent, or your own.
///
/// Corresponds to the methods that a hub of Eventlet adds to its `BaseHub`. The main loop owns everything else:
/// waiters, generations, timers, the wake-up descriptor, and closing.
///
/// A hub belongs to one OS thread. The main loop calls it, or a green thread that is about to park. Calls never overlap
/// and are never nested. The [documentation of the crate](crate#implementing-a-hub) contains a complete hub.
///
/// # For implementors
///
/// The conformance suite (`hub-testkit`) quotes the clauses by number. [`Watched`] is the loop's table. A direction is
/// *armed* while a waiter waits for it.
///
/// 1. When `watch` returns `Ok`, a direction of `interest` that is ready or becomes ready MUST be reported at least
///    once by a later `wait`, even if `fd` was watched before and nothing new arrived: `watch` looks again.
/// 2. A later `watch` under the same number MUST replace key, interest and lease, wider or narrower, whatever file was
///    there before.
/// 3. A hub MUST keep the promise of its [`rearm`](Hub::rearm) for descriptors lent for life. A report of one direction
///    MUST NOT silence the other.
/// 4. A direction that was not asked for MUST NOT be reported, except as [`HANGUP`] or [`INVALID`].
/// 5. A hang-up or an error MUST be reported as READ, WRITE and END; a half close by the peer as READ and END, not as
///    WRITE.
/// 6. A hub that is not `Explicit` MUST report END together with the last data, or report again.
/// 7. The key that is reported MUST be that of the registration, or the current key of that number where the system
///    itself removes a registration at close.
/// 8. `watch` that returns an error MUST leave no trace: EBADF for a number that is no descriptor, EPERM for a file
///    that cannot be waited for, [`InvalidInput`] for a number too large, [`Unsupported`] for an operation that the hub
///    lacks. A hub that validates later reports INVALID at the next `wait`. A regular file is EPERM or ready, never
///    silent.
/// 9. A dead descriptor MUST NOT make `wait` spin or fail, nor cost another its report. It is reported INVALID at most
///    once, or stays silent.
/// 10. `forget` cannot fail, and MUST release the open file before it returns.
/// 11. `wait` MUST NOT return before `timeout` is over, except for a report, a notice, a signal, a limit of the system
///     or the waker of clause 19. It rounds `timeout` up. A `timeout` of zero MUST NOT sleep. `None` and
///     [`Duration::MAX`] MUST NOT overflow.
/// 12. An interrupted `wait` MUST return `Ok` without a report. With a zero timeout a hub that is `pollable` looks
///     again instead (clause 17).
/// 13. A notice before or during `wait` MUST end it. Many notices MUST end only a few waits.
/// 14. Everything that is ready MUST be reported within a bounded number of waits; a batch may be partial.
/// 15. `wait` MUST NOT panic, or allocate once `ready` has its size. Foreign code that it runs is subject to clause 19.
/// 16. `after_fork` is the first call in a child: it MUST leave an empty, working hub and MUST NOT touch system
///     objects that the parent still uses. It MUST NOT close a number that may be another file's by now.
///     [`ForkAware`](crate::hub::ForkAware) keeps the last rule.
/// 17. [`pollable`](Hub::pollable) MUST be readable when `wait` with a zero timeout would make a report. In a hub that
///     has it, a `wait` with a zero timeout that makes no report MUST leave nothing to report, even if it drops a whole
///     batch of events: an outer loop then sleeps until something new makes the descriptor readable.
/// 18. A hang-up without a waiter MUST NOT make `wait` return forever.
/// 19. A hub whose `wait` runs foreign code, such as tasks of a runtime, MUST ask for a wake-up by
///     [`Watched::wake_by`] before it runs any, and MUST return soon after that waker was woken.
///
/// [`HANGUP`]: crate::hub::Readiness::HANGUP
/// [`INVALID`]: crate::hub::Readiness::INVALID
/// [`InvalidInput`]: io::ErrorKind::InvalidInput
/// [`Unsupported`]: io::ErrorKind::Unsupported
#[doc(alias = "BaseHub")]
#[doc(alias = "reactor")]
pub trait Hub {
    /// Returns the canonical name, as in `GREENHUB_HUB`.
    fn name(&self) -> &'static str;

    /// Returns how a descriptor lent for life reports again. Constant for the life of the hub.
    fn rearm(&self) -> Rearm;

    /// Adds `fd`, or replaces the registration under its number.
    ///
    /// Looks at the descriptor again even if nothing changed.
    ///
    /// # Errors
    ///
    /// Returns the error of the system, or one of the errors in clause 8. Nothing is registered then.
    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()>;

    /// Removes the registration and releases the open file.
    ///
    /// `fd` is `None` if the number is closed, or belongs to another file already. The hub then drops only its own
    /// record.
    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>);

    /// Sleeps until a descriptor is ready, a notice arrives or `timeout` elapses.
    ///
    /// The reports go to `ready`. A `timeout` of `None` sets no limit. The call may return early with no report:
    /// the loop checks its clock and calls again.
    ///
    /// # Errors
    ///
    /// Returns an error only if the hub has become unusable. The loop ends with that error.
    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()>;

    /// Replaces every system object of the hub, in a forked child.
    ///
    /// The loop calls [`watch`](Hub::watch) again for its descriptors.
    ///
    /// # Errors
    ///
    /// Returns the error of the system. The loop of the child ends with that error.
    fn after_fork(&mut self) -> io::Result<()>;

    /// Returns the notifier of a hub that cannot watch descriptors.
    ///
    /// By default the loop watches an eventfd or a pipe. It asks for a notifier only if [`watch`](Hub::watch) refuses
    /// that descriptor. A signal cannot end the wait of a hub with a notifier: while a signal is set to
    /// [interrupt](crate::interrupt_on) the loop, its waits are cut into pieces of 50 ms.
    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        None
    }

    /// Returns a descriptor for outer loops.
    ///
    /// The descriptor is readable whenever `wait` would return at once.
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns whether code that the hub runs may make a green thread ready.
    ///
    /// Reports, timers and notices do not count. The loop asks when nothing else could wake the main greenlet, before
    /// it takes the wait for a [deadlock](crate::LoopErrorKind::LoopExit). A hub that runs tasks or timers of a runtime
    /// returns true while it has any.
    fn may_wake(&self) -> bool {
        false
    }

    /// Returns whether code in [`wait`](Hub::wait) may complete a future of the program. Constant for the life of the
    /// hub.
    ///
    /// If so, the loop does not take a wait for a deadlock while a green thread waits for a future.
    fn completes_futures(&self) -> bool {
        false
    }

    /// Returns the stack size that the code in [`wait`](Hub::wait) needs, in bytes. Constant for the life of the hub.
    ///
    /// The main loop runs on a stack of at least this size. Zero, the default, stands for the default size of stacks.
    fn stack_size(&self) -> usize {
        0
    }

    /// Returns the time of the clock that deadlines refer to. It never goes backwards.
    ///
    /// Hubs that one OS thread uses in succession should count from the same beginning, because timeouts outlive a
    /// replaced hub.
    fn now(&self) -> Time {
        Time::monotonic()
    }
}

/// Ends a [`Hub::wait`] from another OS thread.
///
/// The loop never calls it in a signal handler, so it may lock, allocate and run any code.
///
/// ```
/// use greenhub::hub::Notify;
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
    /// Ends the current wait or, if there is none, the next one.
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
    fn may_wake(&self) -> bool {
        (**self).may_wake()
    }
    fn completes_futures(&self) -> bool {
        (**self).completes_futures()
    }
    fn stack_size(&self) -> usize {
        (**self).stack_size()
    }
    fn now(&self) -> Time {
        (**self).now()
    }
}
