//! Asking a busy OS thread who runs on it.
//!
//! ```text
//! watchdog                      watched OS thread
//! IDLE ── ask: ASKED ── signal ──► handler: ASKED → FILLING, writes, → FILLED
//!      ◄──────── reads, → IDLE ──────────────────────────────────────┘
//! ```
//!
//! A signal that finds no signal was answered before it came: the watchdog asks again when an answer takes long, and
//! then the first signal may be answered while the second is sent. [`signal`] tells it from those of the program.
//!
//! Ground rules:
//! - The handler runs on the watched OS thread, at any point of any code. It takes no lock and no memory, makes no
//!   system call, and writes to its [`SampleSlot`] alone. It reads words of its own thread that are written whole, and
//!   follows them to what lives as long as they lead there: control blocks are never unmapped while their thread lives,
//!   and a block leads to a cell only while the cell runs ([`run_task`](crate::greenlet) fences the end of that).
//! - A slot is written by the handler alone, between `ASKED` and `FILLED`, and read by the watchdog alone, from `FILLED`
//!   on; the state passes it from one to the other.
//! - `HERE` leads to a slot that lives: [`Sampling`] sets it, and takes it back before it drops its share of the slot.
//! - The watchdog uses the pulse of the watched OS thread and sends signals to it. Both may be done until it is joined,
//!   which is the first thing that happens at the end of that OS thread ([`local`](crate::greenlet)).

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

use super::signal::{self, Asked, Sender};
use super::snapshot::Snapshot;
use crate::base::fork::{self, PerProcess};
use crate::greenlet::describe;
use crate::greenlet::local;
use crate::greenlet::run;

/// Ignored unless somebody wants it, so that one that comes late does no harm.
const SIGNAL: c_int = libc::SIGURG;

/// The longest name that is kept, in bytes.
const NAME: usize = 512;

/// What of a loop another OS thread may look at. The loop alone writes it.
#[derive(Default)]
pub(crate) struct Heartbeat {
    turn: AtomicU64,
    /// A call into the hub is under way. A number, which is copied as it is.
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

    /// A call into the hub begins. Returns what to restore when it has ended.
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

/// What goes from the handler to the watchdog.
struct SampleSlot {
    state: AtomicU8,
    sample: UnsafeCell<Sample>,
    /// The stack that the OS thread began with.
    own_stack: Option<Range<usize>>,
}

// SAFETY: `state` says who may touch the sample, and passes it on with release and acquire.
unsafe impl Sync for SampleSlot {}

/// Who ran when it was asked.
#[derive(Clone)]
pub(super) struct Sample {
    epoch: run::RunEpoch,
    name: [u8; NAME],
    len: usize,
    snapshot: Snapshot,
}

impl Sample {
    /// Whether it is the same greenlet, which has not given way in between.
    pub(super) fn is_same(&self, other: &Sample) -> bool {
        self.epoch == other.epoch
    }

    /// Its name and origin.
    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(&self.name[..self.len]).into_owned()
    }

    /// What it was doing.
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
    /// The slot of this thread. Without a destructor: a signal handler reads it.
    static HERE: Cell<*const SampleSlot> = const { Cell::new(ptr::null()) };
}

/// As long as it exists, the OS thread that made it answers.
pub(super) struct Sampling {
    slot: Arc<SampleSlot>,
    generation: u32,
}

/// An OS thread and its loop, as the watchdog sees them.
pub(super) struct WatchedThread {
    slot: Arc<SampleSlot>,
    pulse: &'static Heartbeat,
    thread: Asked,
}

impl Sampling {
    /// Puts the handler in place.
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

    /// This OS thread, for a watchdog.
    pub(super) fn watched(&self, pulse: &'static Heartbeat) -> io::Result<WatchedThread> {
        Ok(WatchedThread { slot: Arc::clone(&self.slot), pulse, thread: Asked::this()? })
    }

    /// Answers from now on, in place of any other.
    pub(super) fn begin(&self) {
        HERE.set(Arc::as_ptr(&self.slot));
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        // There may be a newer one.
        if HERE.get() == Arc::as_ptr(&self.slot) {
            HERE.set(ptr::null());
        }
        if self.generation == fork::generation()
            && let Ok(handlers) = handlers()
        {
            handlers.lock().unwrap_or_else(PoisonError::into_inner).release();
        }
    }
}

impl WatchedThread {
    /// The number of the loop's turn; none while it is in its hub.
    pub(super) fn turn(&self) -> Option<u64> {
        (!self.pulse.is_in_hub()).then(|| self.pulse.turn())
    }

    /// Who runs there, if the OS thread answers within `patience`.
    pub(super) fn sample(&self, patience: Duration) -> Option<Sample> {
        const LOOK: Duration = Duration::from_micros(200);

        let state = &self.slot.state;
        // An answer to an earlier signal may have come late.
        let is_new = matches!(state.load(Ordering::Acquire), IDLE | FILLED);
        if is_new {
            state.store(ASKED, Ordering::Release);
        }
        // The signal of an earlier signal may have been lost to one of the program's that was on its way. Where they
        // cannot be told apart, that one was taken for it.
        if is_new || signal::MARKED {
            self.thread.send(SIGNAL).ok()?;
        }
        let looks = patience.as_micros().div_ceil(LOOK.as_micros());
        for _ in 0..looks {
            if state.load(Ordering::Acquire) == FILLED {
                // SAFETY: filled, and the handler leaves it alone until it is asked again.
                let sample = unsafe { (*self.slot.sample.get()).clone() };
                state.store(IDLE, Ordering::Release);
                return Some(sample);
            }
            std::thread::sleep(LOOK);
        }
        None
    }
}

extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: it is what the system passed.
    let is_for_others = match unsafe { signal::sender(info) } {
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

/// Whether this OS thread has been asked and has not answered yet, which it does then.
fn answer(context: *const c_void) -> bool {
    // SAFETY: by the ground rules.
    let slot = unsafe { HERE.get().as_ref() };
    let asked =
        |slot: &&SampleSlot| slot.state.compare_exchange(ASKED, FILLING, Ordering::Acquire, Ordering::Relaxed).is_ok();
    let Some(slot) = slot.filter(asked) else { return false };
    // SAFETY: asked and not filled: it is ours.
    let sample = unsafe { &mut *slot.sample.get() };
    sample.epoch = run::run_epoch();
    sample.len = 0;
    describe::write_running(&mut |text| sample.push(text));
    let bounds = local::running_stack().or_else(|| slot.own_stack.clone());
    // SAFETY: the context is the system's; the stack of whoever runs is mapped, and the OS thread's own always is.
    unsafe { sample.snapshot.take(context, bounds) };
    slot.state.store(FILLED, Ordering::Release);
    true
}

/// What was done about the signal before: the handler, and whether it takes three arguments.
static FORMER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static FORMER_FLAGS: AtomicI32 = AtomicI32::new(0);

/// Does what would have been done without this handler.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let former = FORMER.load(Ordering::Acquire);
    // By default it is ignored.
    if former == libc::SIG_DFL || former == libc::SIG_IGN {
        return;
    }
    // SAFETY: the address was installed as a handler of the type that its flags name, and it is called as the system
    // would call it, with what the system passed.
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

/// How many in this process want the handler, and what was there before.
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
            // In a forked child it may be ours already; then so is what was kept.
            if !is_ours(&former) {
                FORMER_FLAGS.store(former.sa_flags, Ordering::Relaxed);
                FORMER.store(former.sa_sigaction, Ordering::Release);
                self.former = Some(former);
            }
            // SAFETY: all-zero bytes are a `sigaction`: a default action, no flags, an empty or zero mask.
            let mut new: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
            new.sa_sigaction = on_signal as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            // SAFETY: the mask is ours. The handler has the type that `SA_SIGINFO` asks for and keeps to what a handler
            // may do.
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
            // One that was installed over ours calls ours, and stays.
            && action_now().is_ok_and(|now| is_ours(&now))
        {
            // SAFETY: it is what the system gave as the action of this signal.
            let _ = unsafe { libc::sigaction(SIGNAL, &raw const former, ptr::null_mut()) };
        }
    }
}

/// The stack of this OS thread, where the system tells.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn own_stack() -> Option<Range<usize>> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut start, mut len) = (ptr::null_mut(), 0);
    // SAFETY: the first call writes the attributes, which the second reads and the third destroys.
    let found = unsafe {
        libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 && {
            let found = libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut len) == 0;
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            found
        }
    };
    found.then(|| start.addr()..start.addr() + len)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn own_stack() -> Option<Range<usize>> {
    None
}

fn action_now() -> io::Result<sigaction> {
    let mut now = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: only asks, and writes to `now`.
    if unsafe { libc::sigaction(SIGNAL, ptr::null(), now.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above succeeded, hence wrote it.
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
    fn a_signal_that_comes_after_its_answer_is_not_for_the_program() {
        // SAFETY: the handler adds to an atomic.
        unsafe { libc::signal(SIGNAL, hear as extern "C" fn(c_int) as usize) };
        let sampling = Sampling::prepare().unwrap();
        let watched = sampling.watched(&PULSE).unwrap();
        sampling.begin();
        let send = || {
            watched.thread.send(SIGNAL).unwrap();
            // To the calling thread, hence it has come; but for valgrind, which brings it with the next call.
            std::thread::sleep(Duration::from_millis(1));
        };
        sampling.slot.state.store(ASKED, Ordering::Release);
        send();
        assert_eq!(sampling.slot.state.load(Ordering::Acquire), FILLED);
        if signal::MARKED {
            send();
        }
        assert_eq!(HEARD.load(Ordering::Relaxed), 0);
        // The program's own is no answer, where they can be told apart.
        sampling.slot.state.store(if signal::MARKED { ASKED } else { IDLE }, Ordering::Release);
        // SAFETY: there is a handler.
        unsafe { libc::raise(SIGNAL) };
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(HEARD.load(Ordering::Relaxed), 1);
        drop(sampling);
        // SAFETY: nobody waits for it any more.
        unsafe { libc::signal(SIGNAL, libc::SIG_DFL) };
    }
}
