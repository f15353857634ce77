//! The mailbox of a loop: messages from other OS threads, and the wake-up of the loop.
//!
//! The whole state is one word, `head`:
//!
//! ```text
//!  EMPTY ──prepare_sleep──▶ SLEEPING ──post: message, ring─▶ messages ──take──▶ EMPTY
//!    │  ◀───────woke───────    └──────notify: NOTICE, ring──▶ NOTICE ──take──▶ EMPTY
//!    └──post──▶ messages   └──notify──▶ NOTICE              anything ──close──▶ GONE
//! ```
//!
//! The poster that replaces SLEEPING rings, once. Every other poster finds mail and does not ring. So there is at most
//! one ring for each sleep. A ring that is put off may come after another event has ended the sleep; it costs a turn of
//! the loop then. The state is a word instead of a lock, because `notify_in_handler` runs in signal handlers, and
//! because a fork could leave the lock held by an OS thread that the child does not have.
//!
//! Ground rules:
//!
//! 1. `head` is a mark (EMPTY, NOTICE, SLEEPING, GONE) or the newest node of a list. Each node points to the next older
//!    one; the oldest points to EMPTY or NOTICE.
//! 2. A node belongs to its poster until the exchange that puts it into `head` succeeds, then to the list. Lists are
//!    only taken whole, by the swap in `take` or `close`: one taker per list.
//! 3. [`Inbox`] is the loop's side. It is neither `Send` nor `Sync` nor `Clone`, and nothing else puts EMPTY or
//!    SLEEPING into `head`, takes lists, or changes `bell`.
//! 4. A poster reads `bell` only if it counted itself in `ringing` *before* it exchanged SLEEPING for another value,
//!    and until it has counted itself out. The inbox changes `bell` only while `head` is not SLEEPING and after it saw
//!    `ringing` at zero. No poster can then begin to read it: that takes SLEEPING in `head`, which only the inbox puts
//!    there.
//! 5. After a fork `ringing` is not trusted until `replace_bell`: the fork may have left posters behind that counted
//!    themselves in. Until then no poster rings, so none counts.
//! 6. The notifier of a hub is foreign code: it may use the mailbox, replace the hub, or never return. So it is called
//!    through a reference of the caller's own, uncounted and with `bell` free, and never in a signal handler.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Arc, Weak};

use crate::base::dormant::Sleep;
use crate::base::fork;
use crate::base::id::HubId;
use crate::base::sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, UnsafeCell, yield_now};
use crate::hub::Notify;
use crate::main_loop::dump_request::DumpRequest;
use crate::main_loop::foreign_futures::ForeignFuture;
use crate::main_loop::wakeup::Wakeup;

/// A request of another OS thread to a loop.
pub(crate) enum Message {
    /// Run the closure in a new green thread, which was spawned at that location. A future may wait for its result.
    Spawn(&'static Location<'static>, Box<dyn FnOnce() + Send>, Option<Weak<dyn ForeignFuture>>),
    /// Wake a greenlet, if it still waits with that ticket.
    Wake { greenlet: u32, ticket: u64 },
    /// Run the closure between two greenlets. It is this library's own, and does not switch.
    Run(Box<dyn FnOnce() + Send>),
    /// Report the greenlets of the loop's OS thread. This calls user code, which may switch.
    Dump(Arc<DumpRequest>),
    /// End the loop.
    Stop,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Spawn(..) => f.write_str("Spawn"),
            Message::Wake { greenlet, ticket } => write!(f, "Wake({greenlet}, {ticket})"),
            Message::Run(_) => f.write_str("Run"),
            Message::Dump(_) => f.write_str("Dump"),
            Message::Stop => f.write_str("Stop"),
        }
    }
}

/// The means to end the sleep of a loop.
#[derive(Clone)]
pub(crate) enum Bell {
    /// The loop's own descriptor, which its hub watches.
    Descriptor(Arc<Wakeup>),
    /// The notifier of a hub that watches no descriptors.
    Notifier(Arc<dyn Notify>),
}

impl Bell {
    pub(crate) fn ring(&self) {
        match self {
            Bell::Descriptor(wakeup) => wakeup.notify(),
            Bell::Notifier(notifier) => notifier.notify(),
        }
    }
}

struct Node {
    message: Message,
    next: *mut Node,
}

// No node has such an address: nodes are aligned to at least 4 bytes, and not null.
const EMPTY: *mut Node = ptr::null_mut();
const NOTICE: *mut Node = ptr::without_provenance_mut(1);
const SLEEPING: *mut Node = ptr::without_provenance_mut(2);
const GONE: *mut Node = ptr::without_provenance_mut(3);
const _: () = assert!(mem::align_of::<Node>() >= 4);

fn is_node(head: *mut Node) -> bool {
    head.addr() > GONE.addr()
}

/// The posters' side of a mailbox. Any OS thread may hold and use it.
pub(crate) struct Mailbox {
    head: AtomicPtr<Node>,
    interrupted: AtomicBool,
    /// Whether a handler has asked to wake the waits for signals.
    signalled: AtomicBool,
    /// The number of users' handles. They keep an otherwise finished loop waiting.
    users: AtomicUsize,
    /// A lower bound of the handles that pending jobs hold.
    jobs: AtomicUsize,
    /// The number of signals whose handlers notify this loop.
    signals: AtomicUsize,
    ringing: AtomicUsize,
    bell: UnsafeCell<Option<Bell>>,
    /// The generation of forks in which `bell` was made.
    generation: AtomicU32,
    /// The number by which `fork` knows the loop's OS thread.
    thread: u64,
    /// The number of the hub.
    hub: AtomicU64,
}

// SAFETY: `head` points to nodes, whose messages are `Send`, and by rule 2 each node has one owner at a time. The
// content of `bell` is `Send + Sync`, and rule 4 separates reads from changes.
unsafe impl Send for Mailbox {}
// SAFETY: as above.
unsafe impl Sync for Mailbox {}

impl Mailbox {
    /// Returns the id of the loop's hub.
    pub(crate) fn hub_id(&self) -> HubId {
        HubId::new(self.hub.load(Relaxed))
    }

    /// Posts a message, and wakes the loop if it sleeps. Returns the message if it will never be read.
    pub(crate) fn post(&self, message: Message) -> Result<(), Message> {
        if let Some(ring) = self.deliver(message)? {
            ring.now();
        }
        Ok(())
    }

    /// Posts a message. If the loop sleeps, returns the bell, which the caller has to ring. Returns the message if it
    /// will never be read.
    pub(crate) fn post_silently(&self, message: Message) -> Result<Option<Bell>, Message> {
        Ok(self.deliver(message)?.and_then(Ring::bell))
    }

    fn deliver(&self, message: Message) -> Result<Option<Ring<'_>>, Message> {
        if self.is_left_behind() {
            return Err(message);
        }
        let node = Box::into_raw(Box::new(Node { message, next: EMPTY }));
        let on_top = |below| {
            // SAFETY: the node is not in `head` yet, so this OS thread still owns it (rule 2).
            unsafe { (*node).next = below };
            node
        };
        match self.put(on_top) {
            Ok(ring) => Ok(ring),
            // SAFETY: the node comes from `into_raw` above. It never got into `head`, so this OS thread still owns it
            // (rule 2).
            Err(Gone) => Err(unsafe { Box::from_raw(node) }.message),
        }
    }

    /// Wakes the loop if it sleeps, else shortens its next sleep.
    ///
    /// Async-signal-safe unless the bell is the notifier of a hub: it uses atomics, and at most one write.
    pub(crate) fn notify(&self) {
        if let Ok(Some(ring)) = self.put(notice) {
            ring.now();
        }
    }

    /// Ends the loop with an interruption. Async-signal-safe where [`notify`](Mailbox::notify) is.
    pub(crate) fn interrupt(&self) {
        self.interrupted.store(true, Release);
        self.notify();
    }

    /// Ends the loop with an interruption, from a signal handler. Async-signal-safe.
    ///
    /// It does not ring the notifier of a hub. A loop without another bell checks for interruptions by itself, see
    /// [`has_signals`](Inbox::has_signals).
    pub(crate) fn interrupt_in_handler(&self) {
        self.interrupted.store(true, Release);
        self.notify_in_handler();
    }

    /// Makes the loop wake its waits for signals, from a signal handler. Async-signal-safe.
    ///
    /// It does not ring the notifier of a hub, like [`interrupt_in_handler`](Mailbox::interrupt_in_handler).
    pub(crate) fn wake_signal_waits_in_handler(&self) {
        self.signalled.store(true, Release);
        self.notify_in_handler();
    }

    fn notify_in_handler(&self) {
        if let Ok(Some(ring)) = self.put(notice) {
            ring.now_in_handler();
        }
    }

    /// Adds a signal whose handler notifies this loop.
    pub(crate) fn add_signal(&self) {
        self.signals.fetch_add(1, Relaxed);
    }

    /// Removes such a signal.
    pub(crate) fn remove_signal(&self) {
        self.signals.fetch_sub(1, Relaxed);
    }

    /// Returns whether messages are never read: the loop has ended, or a fork left its OS thread behind.
    pub(crate) fn is_gone(&self) -> bool {
        self.head.load(Acquire) == GONE || self.is_left_behind()
    }

    /// Returns whether a fork left the loop's OS thread behind.
    pub(crate) fn is_left_behind(&self) -> bool {
        fork::left_behind(self.generation.load(Relaxed), self.thread)
    }

    /// Returns the number of users' handles.
    pub(crate) fn users(&self) -> usize {
        self.users.load(Acquire)
    }

    /// Returns whether all handles belong to pending jobs.
    pub(crate) fn only_jobs_hold(&self) -> bool {
        // In this order, since a job that ends releases its handle first.
        let jobs = self.jobs.load(Acquire);
        self.users() <= jobs
    }

    /// Adds a pending job, which holds a handle.
    pub(crate) fn hold_for_job(&self) {
        self.jobs.fetch_add(1, Relaxed);
        self.hold();
    }

    /// Removes a pending job and its handle.
    pub(crate) fn release_for_job(&self) {
        self.release();
        self.jobs.fetch_sub(1, Release);
    }

    /// Adds a user's handle.
    pub(crate) fn hold(&self) {
        self.users.fetch_add(1, Relaxed);
    }

    /// Removes a user's handle. The last removal wakes the loop, which may have waited for nothing else.
    pub(crate) fn release(&self) {
        if self.users.fetch_sub(1, Release) == 1 {
            self.notify();
        }
    }

    /// Replaces `head` by `top(head)`. Returns the duty to ring if the loop slept, and an error if the loop is gone.
    fn put(&self, top: impl Fn(*mut Node) -> *mut Node) -> Result<Option<Ring<'_>>, Gone> {
        let mut head = self.head.load(Acquire);
        loop {
            if head == GONE {
                return Err(Gone);
            }
            let (below, ring) = if head == SLEEPING { (EMPTY, self.ring()) } else { (head, None) };
            match self.head.compare_exchange(head, top(below), AcqRel, Acquire) {
                Ok(_) => return Ok(ring),
                Err(now) => head = now,
            }
        }
    }

    /// Counts the caller in (rule 4). `None` after a fork: the bell is the parent's, and the loop checks for mail once
    /// it has replaced the bell. Called only after SLEEPING was seen, so a loop that has replaced the bell and gone to
    /// sleep is never missed.
    fn ring(&self) -> Option<Ring<'_>> {
        self.is_current().then(|| {
            self.ringing.fetch_add(1, Relaxed);
            Ring(self)
        })
    }

    fn is_current(&self) -> bool {
        self.generation.load(Relaxed) == fork::generation()
    }
}

impl Sleep for Mailbox {
    fn lasts(&self, _ticket: u64) -> bool {
        let head = self.head.load(Acquire);
        head == EMPTY || head == SLEEPING
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("hub", &self.hub_id()).field("users", &self.users()).finish_non_exhaustive()
    }
}

/// Returns the value of `head` after a notice. It is exchanged even where it changes nothing: the exchange orders the
/// poster's earlier stores before the loop's next check.
fn notice(below: *mut Node) -> *mut Node {
    if below == EMPTY { NOTICE } else { below }
}

/// The error of a put into a mailbox whose loop has ended.
struct Gone;

/// A poster that is counted in `ringing` until this is dropped. Only the poster whose exchange replaced SLEEPING rings.
#[must_use]
struct Ring<'a>(&'a Mailbox);

impl Ring<'_> {
    fn now(self) {
        let notifier = self.0.bell.with(|bell| {
            // SAFETY: by rule 4: the poster was counted in before SLEEPING was replaced, and is not yet out.
            match unsafe { &*bell } {
                Some(Bell::Descriptor(wakeup)) => {
                    wakeup.notify();
                    None
                }
                Some(Bell::Notifier(notifier)) => Some(Arc::clone(notifier)),
                None => None,
            }
        });
        drop(self);
        if let Some(notifier) = notifier {
            notifier.notify();
        }
    }

    /// Returns the bell. The loop may sleep until it is rung.
    ///
    /// Another event may end the sleep, and the inbox may then replace the bell. The loop does not sleep again before
    /// it has read the mail, so the ring is not needed any more.
    fn bell(self) -> Option<Bell> {
        // SAFETY: by rule 4: the poster was counted in before SLEEPING was replaced, and is not yet out. A clone runs
        // no foreign code.
        self.0.bell.with(|bell| unsafe { (*bell).clone() })
    }

    /// Like `now`, but without a reference of the caller's own, whose drop may run foreign code (rule 6).
    fn now_in_handler(self) {
        self.0.bell.with(|bell| {
            // SAFETY: by rule 4: the poster was counted in before SLEEPING was replaced, and is not yet out.
            if let Some(Bell::Descriptor(wakeup)) = unsafe { &*bell } {
                wakeup.notify();
            }
        });
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        self.0.ringing.fetch_sub(1, Release);
    }
}

/// Moves the messages of a list that was swapped out of `head` to the end of `into`, oldest first.
fn collect(mut head: *mut Node, into: &mut Vec<Message>) {
    let start = into.len();
    while is_node(head) {
        // SAFETY: the node was made by `into_raw` in `post`. The list was swapped out, so only this call has it (rule
        // 2).
        let node = unsafe { Box::from_raw(head) };
        head = node.next;
        into.push(node.message);
    }
    into[start..].reverse();
}

/// The loop's side of a [`Mailbox`]. Dropping it closes the mailbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    mailbox: Arc<Mailbox>,
    /// An inbox stays on the loop's OS thread (rule 3).
    here: PhantomData<*mut ()>,
}

impl Inbox {
    /// Creates an open mailbox for the hub `hub` of the calling OS thread. Nothing rings until
    /// [`replace_bell`](Inbox::replace_bell).
    pub(crate) fn new(hub: HubId) -> Inbox {
        let mailbox = Mailbox {
            head: AtomicPtr::new(EMPTY),
            interrupted: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            users: AtomicUsize::new(0),
            jobs: AtomicUsize::new(0),
            signals: AtomicUsize::new(0),
            ringing: AtomicUsize::new(0),
            bell: UnsafeCell::new(None),
            generation: AtomicU32::new(fork::generation()),
            thread: fork::this_thread(),
            hub: AtomicU64::new(hub.number()),
        };
        Inbox { mailbox: Arc::new(mailbox), here: PhantomData }
    }

    /// Assigns the mailbox to another hub of the same OS thread.
    pub(crate) fn renumber(&self, hub: HubId) {
        self.mailbox.hub.store(hub.number(), Relaxed);
    }

    /// Returns the posters' side, which does not count as a user's handle.
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Returns whether there are messages or a notice, by one load.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        let head = self.mailbox.head.load(Relaxed);
        head == NOTICE || is_node(head)
    }

    /// Moves all messages to the end of `into`, oldest first. Returns whether there were any, or a notice.
    pub(crate) fn take(&self, into: &mut Vec<Message>) -> bool {
        if !self.has_mail() {
            return false;
        }
        collect(self.mailbox.head.swap(EMPTY, AcqRel), into);
        true
    }

    /// Returns whether [`Mailbox::interrupt`] was called since the last call of this. Call it after
    /// [`take`](Inbox::take) has returned true.
    pub(crate) fn take_interrupt(&self) -> bool {
        self.mailbox.interrupted.load(Acquire) && self.mailbox.interrupted.swap(false, AcqRel)
    }

    /// Returns whether a handler has asked to wake the waits for signals, once for each request. Call it after
    /// [`take`](Inbox::take) has returned true.
    pub(crate) fn take_signalled(&self) -> bool {
        self.mailbox.signalled.load(Acquire) && self.mailbox.signalled.swap(false, AcqRel)
    }

    /// Makes posters ring from here on. Returns false if there is mail: the loop must not sleep then.
    pub(crate) fn prepare_sleep(&self) -> bool {
        let prepared = self.mailbox.head.compare_exchange(EMPTY, SLEEPING, AcqRel, Relaxed);
        prepared.map_or_else(|head| head == SLEEPING, |_| true)
    }

    /// Returns whether the handlers of signals notify this loop.
    pub(crate) fn has_signals(&self) -> bool {
        self.mailbox.signals.load(Relaxed) != 0
    }

    /// Rings for posters that found the loop awake: an outer loop that waits for this one has to run it again.
    pub(crate) fn ring(&self) {
        // SAFETY: only the inbox changes the bell, and this is the inbox (rule 3); a clone runs no foreign code.
        let bell = self.mailbox.bell.with(|bell| unsafe { (*bell).clone() });
        if let Some(bell) = bell {
            bell.ring();
        }
    }

    /// Ends the sleep, for whatever reason: posters need not ring any more.
    pub(crate) fn woke(&self) {
        if self.mailbox.head.load(Acquire) == SLEEPING {
            // This fails if mail came in between.
            let _ = self.mailbox.head.compare_exchange(SLEEPING, EMPTY, AcqRel, Acquire);
        }
    }

    /// Makes posters ring `bell` from now on, and drops the previous one. The messages stay.
    ///
    /// A forked child calls this before it sleeps, which ends the time in which no poster rings.
    ///
    /// # Errors
    ///
    /// Returns an error if forks could not be noticed from here on; nothing has changed then.
    pub(crate) fn replace_bell(&self, bell: Bell) -> io::Result<()> {
        fork::install()?;
        self.woke();
        self.change_bell(Some(bell));
        self.mailbox.generation.store(fork::generation(), Relaxed);
        Ok(())
    }

    /// Removes the bell: nothing rings until the next one is set. The messages stay.
    pub(crate) fn remove_bell(&self) {
        self.woke();
        self.change_bell(None);
    }

    /// Refuses messages from now on, and returns the unread ones.
    pub(crate) fn close(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        collect(self.mailbox.head.swap(GONE, AcqRel), &mut messages);
        self.change_bell(None);
        messages
    }

    /// Replaces the bell. `head` is not SLEEPING.
    fn change_bell(&self, bell: Option<Bell>) {
        let mailbox = &self.mailbox;
        debug_assert!(mailbox.head.load(Relaxed) != SLEEPING);
        if mailbox.is_current() {
            // This is short: a counted poster has at most one write before it.
            while mailbox.ringing.load(Acquire) != 0 {
                yield_now();
            }
        } else {
            mailbox.ringing.store(0, Relaxed);
        }
        let old = mailbox.bell.with_mut(|current| {
            // SAFETY: rules 3 and 4: this is the inbox, `head` is not SLEEPING, and no poster is counted in (or, by
            // rule 5, the counted posters do not exist in this process).
            mem::replace(unsafe { &mut *current }, bell)
        });
        drop(old);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.close();
    }
}
