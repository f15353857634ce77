//! Letters from other threads to a loop, and who wakes it.
//!
//! The whole state is one word, `head`:
//!
//! ```text
//!  EMPTY ──prepare_sleep──▶ SLEEPING ──post: letter, ring──▶ letters ──take──▶ EMPTY
//!    │  ◀───────woke───────    └──────notify: NOTICE, ring──▶ NOTICE ──take──▶ EMPTY
//!    └──post──▶ letters    └──notify──▶ NOTICE              anything ──close──▶ GONE
//! ```
//!
//! The poster that replaces SLEEPING rings, once; every other poster finds mail there and does not ring. So
//! there is at most one ring per sleep, and none for a loop that is awake. A word instead of a lock,
//! because `interrupt_in_handler` runs in signal handlers, and because a fork would leave a lock held by a
//! thread that the child does not have.
//!
//! Ground rules:
//!
//! 1. `head` is a mark (EMPTY, NOTICE, SLEEPING, GONE) or the newest node of a list. Each node leads
//!    to the next older one; the oldest leads to EMPTY or NOTICE.
//! 2. A node belongs to its poster until the exchange that puts it into `head` succeeds, then to the
//!    list. Lists are only taken whole, by the swap in `take` or `close`: one taker per list.
//! 3. [`Inbox`] is the loop's side. It is neither `Send` nor `Sync` nor `Clone`, and nothing else puts
//!    EMPTY or SLEEPING into `head`, takes lists, or changes `bell`.
//! 4. `bell` is read by a poster that counted itself in `ringing` *before* it exchanged SLEEPING for
//!    something else, and until it has counted itself out. It is changed by the inbox while `head`
//!    is not SLEEPING and after it saw `ringing` at zero. No poster can then begin to read it: that
//!    takes SLEEPING in `head`, which only the inbox puts there.
//! 5. `ringing` is not believed after a fork until `replace_bell`: posters that counted themselves in
//!    may have been left behind. Until then no poster rings, so none counts.
//! 6. The notifier of a hub is foreign code: it may use the mailbox, replace the hub, or never return. So it
//!    is called through a reference of the caller's own, uncounted and with `bell` free, and never in a
//!    signal handler.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::panic::Location;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::base::dormant::Sleep;
use crate::base::fork;
use crate::base::sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, UnsafeCell, yield_now};
use crate::hub::Notify;
use crate::main_loop::wakeup::Wakeup;

/// What another thread asks of a loop.
pub(crate) enum Message {
    /// Run it in a new green thread, which was asked for at that place.
    Spawn(&'static Location<'static>, Box<dyn FnOnce() + Send>),
    /// Make a greenlet ready, if it still waits with that ticket.
    Wake { greenlet: u32, ticket: u64 },
    /// Run it between two greenlets. It is this library's own, and does not switch.
    Run(Box<dyn FnOnce() + Send>),
    /// End the loop.
    Stop,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Spawn(..) => f.write_str("Spawn"),
            Message::Wake { greenlet, ticket } => write!(f, "Wake({greenlet}, {ticket})"),
            Message::Run(_) => f.write_str("Run"),
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
    fn ring(&self) {
        match self {
            Bell::Descriptor(wakeup) => wakeup.notify(),
            Bell::Notifier(notifier) => notifier.notify(),
        }
    }
}

struct Node {
    letter: Message,
    next: *mut Node,
}

// No node has such an address: nodes are aligned to more than 4 bytes, and not null.
const EMPTY: *mut Node = ptr::null_mut();
const NOTICE: *mut Node = ptr::without_provenance_mut(1);
const SLEEPING: *mut Node = ptr::without_provenance_mut(2);
const GONE: *mut Node = ptr::without_provenance_mut(3);
const _: () = assert!(mem::align_of::<Node>() >= 4);

fn is_node(head: *mut Node) -> bool {
    head.addr() > GONE.addr()
}

/// The posters' side: any thread may hold and use it.
pub(crate) struct Mailbox {
    head: AtomicPtr<Node>,
    interrupted: AtomicBool,
    /// Handles in users' hands. They keep an otherwise finished loop waiting.
    users: AtomicUsize,
    /// How many of the handles belong to pending jobs, at least.
    jobs: AtomicUsize,
    /// How many signals interrupt this loop.
    signals: AtomicUsize,
    ringing: AtomicUsize,
    bell: UnsafeCell<Option<Bell>>,
    /// The fork generation that `bell` was made in.
    generation: AtomicU32,
    /// The token of the loop's thread.
    thread: u64,
    /// The hub's number.
    hub: AtomicU64,
}

// SAFETY: `head` leads to nodes, whose letters are `Send`, and by rule 2 each is in one hand at a
// time. `bell` is `Send + Sync` inside, and rule 4 keeps readers and changes apart.
unsafe impl Send for Mailbox {}
// SAFETY: as above.
unsafe impl Sync for Mailbox {}

impl Mailbox {
    /// The hub that this leads to.
    pub(crate) fn hub_id(&self) -> u64 {
        self.hub.load(Relaxed)
    }

    /// Leaves a letter and wakes the loop if it sleeps. The letter comes back if nobody will read it.
    pub(crate) fn post(&self, letter: Message) -> Result<(), Message> {
        if self.is_left_behind() {
            return Err(letter);
        }
        let node = Box::into_raw(Box::new(Node { letter, next: EMPTY }));
        let on_top = |below| {
            // SAFETY: not in `head` yet, so still ours (rule 2).
            unsafe { (*node).next = below };
            node
        };
        if self.put(on_top, Ring::now) {
            return Ok(());
        }
        // SAFETY: from `into_raw` above; it never got into `head`, so it is still ours (rule 2).
        Err(unsafe { Box::from_raw(node) }.letter)
    }

    /// Wakes the loop if it sleeps, else makes its next sleep a short one. Async-signal-safe unless the bell is
    /// the notifier of a hub: atomics, and one write at most.
    pub(crate) fn notify(&self) {
        self.put(notice, Ring::now);
    }

    /// Has the loop end with an interruption. Async-signal-safe as [`notify`](Mailbox::notify) is.
    pub(crate) fn interrupt(&self) {
        self.interrupted.store(true, Release);
        self.notify();
    }

    /// Has the loop end with an interruption, from a signal handler. Async-signal-safe. Does not ring the notifier
    /// of a hub: a loop that has no other bell looks for interruptions by itself, see
    /// [`has_signals`](Inbox::has_signals).
    pub(crate) fn interrupt_in_handler(&self) {
        self.interrupted.store(true, Release);
        self.put(notice, Ring::now_in_handler);
    }

    /// Counts a signal that interrupts this loop.
    pub(crate) fn add_signal(&self) {
        self.signals.fetch_add(1, Relaxed);
    }

    /// Counts it out again.
    pub(crate) fn remove_signal(&self) {
        self.signals.fetch_sub(1, Relaxed);
    }

    /// Whether nobody will read what is posted: the loop has ended, or a fork left its thread behind.
    pub(crate) fn is_gone(&self) -> bool {
        self.head.load(Acquire) == GONE || self.is_left_behind()
    }

    /// Whether a fork left the loop's thread behind.
    pub(crate) fn is_left_behind(&self) -> bool {
        fork::left_behind(self.generation.load(Relaxed), self.thread)
    }

    /// How many handles users hold.
    pub(crate) fn users(&self) -> usize {
        self.users.load(Acquire)
    }

    /// Whether all handles belong to pending jobs.
    pub(crate) fn only_jobs_hold(&self) -> bool {
        // In this order: a job that ends gives its handle back first.
        let jobs = self.jobs.load(Acquire);
        self.users() <= jobs
    }

    /// Counts a pending job, which holds a handle.
    pub(crate) fn hold_for_job(&self) {
        self.jobs.fetch_add(1, Relaxed);
        self.hold();
    }

    /// Counts it out again.
    pub(crate) fn release_for_job(&self) {
        self.release();
        self.jobs.fetch_sub(1, Release);
    }

    /// Counts a handle in a user's hands.
    pub(crate) fn hold(&self) {
        self.users.fetch_add(1, Relaxed);
    }

    /// Counts it out again. The last one wakes the loop, which may have waited for nothing else.
    pub(crate) fn release(&self) {
        if self.users.fetch_sub(1, Release) == 1 {
            self.notify();
        }
    }

    /// Replaces what is in `head` by `top` of it, and calls `ring` if the loop slept; false if the loop is gone.
    fn put<'a>(&'a self, top: impl Fn(*mut Node) -> *mut Node, ring: fn(Ring<'a>)) -> bool {
        let mut head = self.head.load(Acquire);
        loop {
            if head == GONE {
                return false;
            }
            let (below, counted) = if head == SLEEPING { (EMPTY, self.ring()) } else { (head, None) };
            match self.head.compare_exchange(head, top(below), AcqRel, Acquire) {
                Ok(_) => {
                    if let Some(counted) = counted {
                        ring(counted);
                    }
                    return true;
                }
                Err(now) => head = now,
            }
        }
    }

    /// Counts the caller in (rule 4). `None` after a fork: the bell is the parent's, and the loop
    /// looks for mail when it has replaced it. Asked only after SLEEPING was seen, so a loop that
    /// has replaced it and gone to sleep is never missed.
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

/// The value of `head` after a notice. Exchanged even where it changes nothing: the exchange is what orders the
/// poster's earlier stores before the loop's next look.
fn notice(below: *mut Node) -> *mut Node {
    if below == EMPTY { NOTICE } else { below }
}

/// A poster that is counted in `ringing`, and is out again when this is dropped. Rung only by the poster whose exchange
/// replaced SLEEPING.
struct Ring<'a>(&'a Mailbox);

impl Ring<'_> {
    fn now(self) {
        let notifier = self.0.bell.with(|bell| {
            // SAFETY: rule 4: counted in before SLEEPING was replaced, and not yet out.
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

    /// The same without a reference of the caller's own, whose drop may run foreign code (rule 6).
    fn now_in_handler(self) {
        self.0.bell.with(|bell| {
            // SAFETY: rule 4: counted in before SLEEPING was replaced, and not yet out.
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

/// Moves the letters of a list that was swapped out of `head` to the end of `into`, oldest first.
fn collect(mut head: *mut Node, into: &mut Vec<Message>) {
    let start = into.len();
    while is_node(head) {
        // SAFETY: made by `into_raw` in `post`; swapped out, so only this call has the list (rule 2).
        let node = unsafe { Box::from_raw(head) };
        head = node.next;
        into.push(node.letter);
    }
    into[start..].reverse();
}

/// The loop's side of a [`Mailbox`]. Dropping it closes the mailbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    mailbox: Arc<Mailbox>,
    /// Belongs to the loop's thread (rule 3).
    here: PhantomData<*mut ()>,
}

impl Inbox {
    /// An open mailbox for the hub numbered `hub` of the calling thread. Nothing rings until
    /// [`replace_bell`](Inbox::replace_bell).
    pub(crate) fn new(hub: u64) -> Inbox {
        let mailbox = Mailbox {
            head: AtomicPtr::new(EMPTY),
            interrupted: AtomicBool::new(false),
            users: AtomicUsize::new(0),
            jobs: AtomicUsize::new(0),
            signals: AtomicUsize::new(0),
            ringing: AtomicUsize::new(0),
            bell: UnsafeCell::new(None),
            generation: AtomicU32::new(fork::generation()),
            thread: fork::this_thread(),
            hub: AtomicU64::new(hub),
        };
        Inbox { mailbox: Arc::new(mailbox), here: PhantomData }
    }

    /// The same mailbox, for another hub of the same thread.
    pub(crate) fn renumber(&self, hub: u64) {
        self.mailbox.hub.store(hub, Relaxed);
    }

    /// For posters. Not counted among the users' handles.
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Whether there are letters or a notice: one load.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        let head = self.mailbox.head.load(Relaxed);
        head == NOTICE || is_node(head)
    }

    /// Moves all letters to the end of `into`, oldest first; whether there were any, or a notice.
    pub(crate) fn take(&self, into: &mut Vec<Message>) -> bool {
        if !self.has_mail() {
            return false;
        }
        collect(self.mailbox.head.swap(EMPTY, AcqRel), into);
        true
    }

    /// Whether [`Mailbox::interrupt`] was called since this was asked last. To be asked after
    /// [`take`](Inbox::take) found something.
    pub(crate) fn take_interrupt(&self) -> bool {
        self.mailbox.interrupted.load(Acquire) && self.mailbox.interrupted.swap(false, AcqRel)
    }

    /// From here on, posters ring. False if there is mail: then do not sleep.
    pub(crate) fn prepare_sleep(&self) -> bool {
        let prepared = self.mailbox.head.compare_exchange(EMPTY, SLEEPING, AcqRel, Relaxed);
        prepared.map_or_else(|head| head == SLEEPING, |_| true)
    }

    /// Whether signals interrupt this loop.
    pub(crate) fn has_signals(&self) -> bool {
        self.mailbox.signals.load(Relaxed) != 0
    }

    /// Rings in place of posters that found the loop awake: an outer loop that waits for this one has to let it
    /// run again.
    pub(crate) fn ring(&self) {
        // SAFETY: only the inbox changes it, which is here (rule 3); no foreign code runs in a clone.
        let bell = self.mailbox.bell.with(|bell| unsafe { (*bell).clone() });
        if let Some(bell) = bell {
            bell.ring();
        }
    }

    /// The sleep is over, whatever ended it: posters need not ring any more.
    pub(crate) fn woke(&self) {
        if self.mailbox.head.load(Acquire) == SLEEPING {
            // Fails if mail came in between.
            let _ = self.mailbox.head.compare_exchange(SLEEPING, EMPTY, AcqRel, Acquire);
        }
    }

    /// Rings `bell` from now on, and drops the one before. A child does so before it sleeps, and with
    /// it ends the time in which nobody rings. The letters stay.
    ///
    /// # Errors
    ///
    /// Forks could not be noticed from here on; nothing has changed.
    pub(crate) fn replace_bell(&self, bell: Bell) -> io::Result<()> {
        fork::install()?;
        self.woke();
        self.change_bell(Some(bell));
        self.mailbox.generation.store(fork::generation(), Relaxed);
        Ok(())
    }

    /// Lets go of the bell: nothing rings until the next one is given. The letters stay.
    pub(crate) fn remove_notifier(&self) {
        self.woke();
        self.change_bell(None);
    }

    /// Refuses letters from now on, and returns those that nobody has read.
    pub(crate) fn close(&self) -> Vec<Message> {
        let mut letters = Vec::new();
        collect(self.mailbox.head.swap(GONE, AcqRel), &mut letters);
        self.change_bell(None);
        letters
    }

    /// `head` is not SLEEPING.
    fn change_bell(&self, bell: Option<Bell>) {
        let mailbox = &self.mailbox;
        debug_assert!(mailbox.head.load(Relaxed) != SLEEPING);
        if mailbox.is_current() {
            // Not for long: a poster that is counted in has one write before it.
            while mailbox.ringing.load(Acquire) != 0 {
                yield_now();
            }
        } else {
            mailbox.ringing.store(0, Relaxed);
        }
        let old = mailbox.bell.with_mut(|current| {
            // SAFETY: rules 3 and 4: this is the inbox, `head` is not SLEEPING, nobody is counted in
            // (or, rule 5, those who are do not exist in this process).
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
