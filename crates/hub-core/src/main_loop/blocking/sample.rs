//! Samples of a busy OS thread: the greenlet that runs on it.
//!
//! ```text
//! watchdog                      watched OS thread
//! IDLE ── ask: ASKED ── signal ──► handler: ASKED → FILLING, writes, → FILLED
//!      ◄──────── reads, → IDLE ──────────────────────────────────────┘
//! ```
//!
//! The watchdog sends again when an answer takes long. The first signal may then be answered while the second is on its
//! way, and the second finds no question. [`sample_signal`] tells the watchdog's signals from those of the program.
//!
//! Ground rules:
//! - The handler runs on the watched OS thread, at any point of any code. It takes no lock, allocates nothing, makes no
//!   system call, and writes to its [`SampleSlot`] alone. It reads words of its own OS thread that are written whole,
//!   and follows them only to objects that live as long as the words point there. Control blocks are never unmapped
//!   while their OS thread lives. A block points to a cell only while the cell runs ([`run_task`](crate::greenlet)
//!   fences the end of that).
//! - The handler alone writes a slot, between `ASKED` and `FILLED`. The watchdog alone reads it, from `FILLED` on. The
//!   state passes it from one to the other.
//! - `SLOT` points to a slot that lives: [`Sampling`] sets it, and clears it before it drops its share of the slot.
//! - The watchdog uses the heartbeat of the watched OS thread and sends signals to it. It may do both until it is
//!   joined, which is the first thing that happens at the end of that OS thread ([`local`](crate::greenlet)).

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libc::{c_void, sigaction, siginfo_t};

use super::sample_signal::{self, Recipient, Sender};
use super::snapshot::Snapshot;
use crate::base::fork::{self, PerProcess};
use crate::base::own_stack::own_stack;
use crate::greenlet::describe;
use crate::greenlet::local;
use crate::greenlet::run;

/// The signal of the watchdog. By default it is ignored, so a late one does no harm.
const SIGNAL: c_int = libc::SIGURG;

/// The longest name that is kept, in bytes.
const NAME: usize = 512;

/// The part of a loop's state that another OS thread may read. Only the loop writes it.
#[derive(Default)]
pub(crate) struct Heartbeat {
    turn: AtomicU64,
    /// Whether a call into the hub is in progress. It is a number, which is copied as it is.
    in_hub: AtomicU8,
}

impl Heartbeat {
    #[inline]
    pub(crate) fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn begin_turn(&self) {
        self.turn.store(self.turn() + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_in_hub(&self) -> bool {
        self.in_hub.load(Ordering::Relaxed) != 0
    }

    /// Begins a call into the hub. Returns the value for [`leave_hub`](Heartbeat::leave_hub).
    #[inline]
    pub(crate) fn enter_hub(&self) -> u8 {
        let outer = self.in_hub.load(Ordering::Relaxed);
        self.in_hub.store(1, Ordering::Relaxed);
        outer
    }

    #[inline]
    pub(crate) fn leave_hub(&self, outer: u8) {
        self.in_hub.store(outer, Ordering::Relaxed);
    }
}

const IDLE: u8 = 0;
const ASKED: u8 = 1;
const FILLING: u8 = 2;
const FILLED: u8 = 3;

/// The memory by which the handler passes a sample to the watchdog.
struct SampleSlot {
    state: AtomicU8,
    sample: UnsafeCell<Sample>,
    /// The stack that the OS thread began with.
    own_stack: Option<Range<usize>>,
}

// SAFETY: `state` says which OS thread may touch the sample, and passes it on with release and acquire.
unsafe impl Sync for SampleSlot {}

/// A sample: the greenlet that ran.
#[derive(Clone)]
pub(super) struct Sample {
    epoch: run::RunEpoch,
    name: [u8; NAME],
    len: usize,
    snapshot: Snapshot,
}

impl Sample {
    /// Returns whether it is the same greenlet, without a switch in between.
    pub(super) fn is_same(&self, other: &Sample) -> bool {
        self.epoch == other.epoch
    }

    /// Returns the name and origin of the greenlet.
    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(&self.name[..self.len]).into_owned()
    }

    /// Returns the calls that were in progress.
    pub(super) fn backtrace(&self) -> Option<String> {
        self.snapshot.backtrace()
    }

    fn push(&mut self, text: &[u8]) {
        for (place, byte) in self.name.iter_mut().skip(self.len).zip(text) {
            *place = *byte;
            self.len += 1;
        }
    }
}

thread_local! {
    /// The slot of this OS thread. It has no destructor, since a signal handler reads it.
    static SLOT: Cell<*const SampleSlot> = const { Cell::new(ptr::null()) };
}

/// The sampling of the OS thread that made it, for as long as it exists.
pub(super) struct Sampling {
    slot: Arc<SampleSlot>,
    generation: u32,
}

/// An OS thread and its loop, as the watchdog sees them.
pub(super) struct WatchedThread {
    slot: Arc<SampleSlot>,
    heartbeat: &'static Heartbeat,
    thread: Recipient,
}

impl Sampling {
    /// Installs the handler.
    pub(super) fn prepare() -> io::Result<Sampling> {
        handlers()?.lock().unwrap_or_else(PoisonError::into_inner).hold()?;
        let sample = Sample { epoch: run::RunEpoch::default(), name: [0; NAME], len: 0, snapshot: Snapshot::new() };
        let slot = Arc::new(SampleSlot {
            state: AtomicU8::new(IDLE),
            sample: UnsafeCell::new(sample),
            own_stack: own_stack(),
        });
        Ok(Sampling { slot, generation: fork::generation() })
    }

    /// Returns this OS thread for a watchdog.
    pub(super) fn watched(&self, heartbeat: &'static Heartbeat) -> io::Result<WatchedThread> {
        Ok(WatchedThread { slot: Arc::clone(&self.slot), heartbeat, thread: Recipient::this()? })
    }

    /// Makes this OS thread answer from now on, in place of an earlier sampling.
    pub(super) fn begin(&self) {
        SLOT.set(Arc::as_ptr(&self.slot));
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        // There may be a newer sampling.
        if SLOT.get() == Arc::as_ptr(&self.slot) {
            SLOT.set(ptr::null());
        }
        if self.generation == fork::generation()
            && let Ok(handlers) = handlers()
        {
            handlers.lock().unwrap_or_else(PoisonError::into_inner).release();
        }
    }
}

impl WatchedThread {
    /// Returns the number of the loop's turn, or `None` while it is in its hub.
    pub(super) fn turn(&self) -> Option<u64> {
        (!self.heartbeat.is_in_hub()).then(|| self.heartbeat.turn())
    }

    /// Returns a sample, if the OS thread answers within `timeout`.
    pub(super) fn sample(&self, timeout: Duration) -> Option<Sample> {
        const LOOK: Duration = Duration::from_micros(200);

        let state = &self.slot.state;
        // The answer to an earlier signal may have come late.
        let is_new = matches!(state.load(Ordering::Acquire), IDLE | FILLED);
        if is_new {
            state.store(ASKED, Ordering::Release);
        }
        // An earlier signal may have been lost, since a signal of the program was pending. Where the two cannot be told
        // apart, the program's signal was taken for it.
        if is_new || sample_signal::MARKED {
            self.thread.send(SIGNAL).ok()?;
        }
        let looks = timeout.as_micros().div_ceil(LOOK.as_micros());
        for _ in 0..looks {
            if state.load(Ordering::Acquire) == FILLED {
                // SAFETY: the slot is filled, and the handler does not touch it until it is asked again.
                let sample = unsafe { (*self.slot.sample.get()).clone() };
                state.store(IDLE, Ordering::Release);
                return Some(sample);
            }
            #[expect(clippy::disallowed_methods, reason = "the watchdog is an OS thread without green threads")]
            std::thread::sleep(LOOK);
        }
        None
    }
}

extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: `info` is what the system passed.
    let is_for_others = match unsafe { sample_signal::sender(info) } {
        Sender::Other => true,
        Sender::Watchdog => {
            answer(context);
            false
        }
        Sender::Unknown => !answer(context),
    };
    if is_for_others {
        pass_on(signal, info, context);
    }
}

/// Answers if this OS thread was asked and has not answered yet. Returns whether it did.
fn answer(context: *const c_void) -> bool {
    // SAFETY: `SLOT` is null or points to a slot that lives, by the ground rules.
    let slot = unsafe { SLOT.get().as_ref() };
    let asked =
        |slot: &&SampleSlot| slot.state.compare_exchange(ASKED, FILLING, Ordering::Acquire, Ordering::Relaxed).is_ok();
    let Some(slot) = slot.filter(asked) else { return false };
    // SAFETY: the state was ASKED and is FILLING now, so this OS thread owns the slot.
    let sample = unsafe { &mut *slot.sample.get() };
    sample.epoch = run::run_epoch();
    sample.len = 0;
    describe::write_running(&mut |text| sample.push(text));
    let bounds = local::running_stack().or_else(|| slot.own_stack.clone());
    // SAFETY: the context is the system's. The stack of the running greenlet is mapped, and the OS thread's own always
    // is.
    unsafe { sample.snapshot.take(context, bounds) };
    slot.state.store(FILLED, Ordering::Release);
    true
}

/// The handler in the former disposition of the signal.
static FORMER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
/// The flags in the former disposition, which say whether its handler takes three arguments.
static FORMER_FLAGS: AtomicI32 = AtomicI32::new(0);

/// Does what the former disposition would have done.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let former = FORMER.load(Ordering::Acquire);
    // The default disposition ignores the signal.
    if former == libc::SIG_DFL || former == libc::SIG_IGN {
        return;
    }
    // SAFETY: the address was installed as a handler of the type that its flags name. It is called as the system would
    // call it, with the arguments that the system passed.
    unsafe {
        if FORMER_FLAGS.load(Ordering::Relaxed) & libc::SA_SIGINFO != 0 {
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = std::mem::transmute(former);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(c_int) = std::mem::transmute(former);
            handler(signal);
        }
    }
}

/// The number of samplings in this process that need the handler, and the former disposition.
struct Handlers {
    wanted: usize,
    former: Option<sigaction>,
}

fn handlers() -> io::Result<&'static Mutex<Handlers>> {
    static HANDLERS: PerProcess<Mutex<Handlers>> = PerProcess::new();
    HANDLERS.get_or_make(|| Mutex::new(Handlers { wanted: 0, former: None }))
}

impl Handlers {
    fn hold(&mut self) -> io::Result<()> {
        if self.wanted == 0 {
            let former = action_now()?;
            // In a forked child this handler may be installed already, and `former` kept already.
            if !is_ours(&former) {
                FORMER_FLAGS.store(former.sa_flags, Ordering::Relaxed);
                FORMER.store(former.sa_sigaction, Ordering::Release);
                self.former = Some(former);
            }
            // SAFETY: all-zero bytes are a `sigaction`: a default action, no flags, an empty or zero mask.
            let mut new: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
            new.sa_sigaction = on_signal as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            // SAFETY: the record is a local variable. The handler has the type that `SA_SIGINFO` requires and is
            // async-signal-safe.
            if unsafe { libc::sigaction(SIGNAL, &raw const new, ptr::null_mut()) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        self.wanted += 1;
        Ok(())
    }

    fn release(&mut self) {
        self.wanted -= 1;
        if self.wanted == 0
            && let Some(former) = self.former.take()
            // A handler that was installed over this one calls it, and stays.
            && action_now().is_ok_and(|now| is_ours(&now))
        {
            // SAFETY: the system returned it as the action of this signal.
            let _ = unsafe { libc::sigaction(SIGNAL, &raw const former, ptr::null_mut()) };
        }
    }
}

fn action_now() -> io::Result<sigaction> {
    let mut now = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: the call only asks, and writes to `now`.
    if unsafe { libc::sigaction(SIGNAL, ptr::null(), now.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above succeeded, so it wrote `now`.
    Ok(unsafe { now.assume_init() })
}

fn is_ours(action: &sigaction) -> bool {
    action.sa_sigaction == on_signal as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    static HEARD: AtomicUsize = AtomicUsize::new(0);
    static PULSE: Heartbeat = Heartbeat { turn: AtomicU64::new(0), in_hub: AtomicU8::new(0) };

    extern "C" fn hear(_: c_int) {
        HEARD.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn a_late_watchdog_signal_is_not_passed_to_the_program() {
        // SAFETY: the handler adds to an atomic.
        unsafe { libc::signal(SIGNAL, hear as extern "C" fn(c_int) as usize) };
        let sampling = Sampling::prepare().unwrap();
        let watched = sampling.watched(&PULSE).unwrap();
        sampling.begin();
        let send = || {
            watched.thread.send(SIGNAL).unwrap();
            // A signal to the calling OS thread has arrived by now, except under valgrind, which delivers it with the
            // next call.
            std::thread::sleep(Duration::from_millis(1));
        };
        sampling.slot.state.store(ASKED, Ordering::Release);
        send();
        assert_eq!(sampling.slot.state.load(Ordering::Acquire), FILLED);
        if sample_signal::MARKED {
            send();
        }
        assert_eq!(HEARD.load(Ordering::Relaxed), 0);
        // The program's own signal is no answer, where the two can be told apart.
        sampling.slot.state.store(if sample_signal::MARKED { ASKED } else { IDLE }, Ordering::Release);
        // SAFETY: there is a handler.
        unsafe { libc::raise(SIGNAL) };
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(HEARD.load(Ordering::Relaxed), 1);
        drop(sampling);
        // SAFETY: no code waits for the signal any more.
        unsafe { libc::signal(SIGNAL, libc::SIG_DFL) };
    }
}
