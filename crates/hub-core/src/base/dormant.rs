//! Dormant OS threads: they do nothing until another OS thread of this process wakes them.
//!
//! A main greenlet that waits for a lock or a queue is lost if no other OS thread can serve it. A pool thread that
//! waits for work cannot serve it, nor can an OS thread that itself waits for a lock or a queue. Each such OS thread
//! therefore enters the table before it sleeps, and leaves it before it does anything else. An OS thread whose loop or
//! whole execution has stood still for a while compares the table with the system's list of OS threads.
//!
//! The comparison is exact. No OS thread can leave the table while the table is locked. An OS thread outside the table
//! counts as awake, including an OS thread that enters at this moment. A waker that ended before the list was read has
//! left a trace: a message, a queued job, or an ended wait. No OS thread of the table can remove the trace while the
//! table is locked, so the traces are checked after the list was read. A queued job keeps only idle OS threads of its
//! own pool awake: behind OS threads that wait for each other it never starts.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fork::PerProcess;
use super::unwind::Frames;
use super::wait_reason::WaitReason;

/// The wait of an OS thread, as seen from another OS thread.
pub(crate) trait Sleep: Send + Sync {
    /// Returns whether the sleep with that ticket has not been woken yet.
    fn lasts(&self, ticket: u64) -> bool;
}

/// Marks the calling OS thread as dormant until it is dropped.
#[must_use = "the OS thread counts as awake again once this is dropped"]
pub(crate) struct Dormant {
    number: u64,
}

/// The state of all other OS threads of the process.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Others {
    /// There are no others, except OS threads of this library that wait for work.
    Idle,
    /// All OS threads wait for each other, the caller included. Contains a line for each wait. Returned only once.
    Deadlocked(Vec<String>),
    /// At least one is awake, or the state is unknown, or the deadlock was already reported.
    Awake,
}

/// The wait of an OS thread.
#[derive(Clone)]
pub(crate) enum Waits {
    /// The OS thread waits as a whole.
    Thread(WaitReason),
    /// Each of its greenlets waits.
    Greenlets(Vec<GreenletWait>),
}

/// The wait of a greenlet, as a text for reports.
#[derive(Clone, Debug)]
pub(crate) struct GreenletWait {
    /// The greenlet and the reason.
    pub(crate) text: String,
    /// The calls in progress, with the feature `backtrace`.
    pub(crate) backtrace: Option<Frames>,
}

impl fmt::Display for GreenletWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        let Some(backtrace) = &self.backtrace else { return Ok(()) };
        write!(f, "\n{}", backtrace.to_string().trim_end())
    }
}

enum Role {
    /// Waits for work of this library. The closure returns whether there is none.
    Worker(Box<dyn Fn() -> bool + Send>),
    /// Waits for other OS threads, in that sleep.
    Waiter { waits: Waits, sleep: Arc<dyn Sleep>, ticket: u64 },
}

struct Entry {
    /// Unique among the entries of this process and its ancestors.
    number: u64,
    thread: system::Id,
    role: Role,
    /// Whether the OS thread is temporarily not dormant.
    awake: bool,
}

#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    /// Whether the current deadlock was reported.
    reported: bool,
}

static TABLE: PerProcess<Mutex<Table>> = PerProcess::new();
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The time that an OS thread stands still before it first compares the table. The interval doubles up to
/// `LONGEST_LOOK`.
pub(crate) const FIRST_LOOK: Duration = Duration::from_secs(1);
pub(crate) const LONGEST_LOOK: Duration = Duration::from_secs(16);

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dormant {
    /// Enters an OS thread of this library that waits for work.
    ///
    /// The OS thread counts as awake once `is_idle` returns false. `is_idle` must not take a lock that is held while
    /// the value is dropped.
    pub(crate) fn worker(is_idle: impl Fn() -> bool + Send + 'static) -> Dormant {
        Dormant::enter(|| Role::Worker(Box::new(is_idle)))
    }

    /// Enters an OS thread that only another OS thread can wake from `sleep`.
    pub(crate) fn waiter(waits: Waits, sleep: Arc<dyn Sleep>, ticket: u64) -> Dormant {
        Dormant::enter(|| Role::Waiter { waits, sleep, ticket })
    }

    fn enter(role: impl FnOnce() -> Role) -> Dormant {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Without an entry the OS thread counts as awake, which errs on the safe side.
        if let Some(thread) = system::this_thread()
            && let Ok(table) = TABLE.get_or_make(Mutex::default)
        {
            lock(table).entries.push(Entry { number, thread, role: role(), awake: false });
        }
        Dormant { number }
    }

    /// Compares the table with the OS threads of the process.
    pub(crate) fn others(&self) -> Others {
        let Some(mut table) = TABLE.get().map(lock) else { return Others::Awake };
        let all = match table.others_wait(self.number) {
            None => return Others::Awake,
            Some(false) => return Others::Idle,
            Some(true) => table.deadlock(),
        };
        drop(table);
        all.map_or(Others::Awake, |all| Others::Deadlocked(describe(all)))
    }

    /// Returns a line for each wait if no OS thread is awake. The caller counts, and may be the only one. Returned only
    /// once.
    pub(crate) fn deadlock(&self) -> Option<Vec<String>> {
        let mut table = lock(TABLE.get()?);
        table.others_wait(self.number)?;
        let all = table.deadlock()?;
        drop(table);
        Some(describe(all))
    }

    /// Counts the OS thread as awake or dormant, without clearing a reported deadlock.
    pub(crate) fn set_awake(&self, awake: bool) {
        let Some(table) = TABLE.get() else { return };
        if let Some(entry) = lock(table).entries.iter_mut().find(|entry| entry.number == self.number) {
            entry.awake = awake;
        }
    }
}

impl Drop for Dormant {
    fn drop(&mut self) {
        let Some(table) = TABLE.get() else { return };
        let mut table = lock(table);
        // The entry is missing if the process was forked in between.
        let Some(index) = table.entries.iter().position(|entry| entry.number == self.number) else { return };
        let entry = table.entries.swap_remove(index);
        table.reported &= matches!(entry.role, Role::Worker(_));
        drop(table);
        drop(entry);
    }
}

/// Runs `wait`, and marks the calling OS thread of this library as idle meanwhile.
pub fn while_idle<R>(wait: impl FnOnce() -> R) -> R {
    let _dormant = Dormant::worker(|| true);
    wait()
}

impl Table {
    /// Returns whether any other OS thread waits for others.
    ///
    /// Returns `None` if one of them is awake, or the caller itself, whose entry has the number `caller`.
    fn others_wait(&self, caller: u64) -> Option<bool> {
        let others = system::other_threads()?;
        let asleep =
            |thread: &system::Id| self.entries.iter().any(|entry| entry.thread == *thread && entry.is_asleep());
        let caller = self.entries.iter().find(|entry| entry.number == caller)?;
        if !others.iter().all(asleep) || !caller.is_asleep() {
            return None;
        }
        let waits = |thread: &system::Id| self.entries.iter().any(|entry| entry.thread == *thread && entry.is_waiter());
        Some(others.iter().any(waits))
    }

    /// Returns the waits of each OS thread, only once for a deadlock.
    fn deadlock(&mut self) -> Option<Vec<(system::Id, Waits)>> {
        if std::mem::replace(&mut self.reported, true) {
            return None;
        }
        self.entries.sort_unstable_by_key(|entry| entry.thread);
        Some(self.entries.iter().filter_map(|entry| Some((entry.thread, entry.waits()?.clone()))).collect())
    }
}

/// Returns a line for each wait.
///
/// The caller does not hold the table: to look up the names of calls takes up to seconds, and every OS thread that
/// begins to wait or is woken needs the table.
fn describe(all: Vec<(system::Id, Waits)>) -> Vec<String> {
    let mut lines = Vec::new();
    for (thread, waits) in all {
        let thread = system::describe(thread);
        match waits {
            Waits::Thread(reason) => lines.push(format!("{thread}: {}", reason.as_str())),
            Waits::Greenlets(waits) => lines.extend(waits.iter().map(|wait| format!("{thread}: {wait}"))),
        }
    }
    lines
}

impl Entry {
    fn is_asleep(&self) -> bool {
        !self.awake
            && match &self.role {
                Role::Worker(is_idle) => is_idle(),
                Role::Waiter { sleep, ticket, .. } => sleep.lasts(*ticket),
            }
    }

    fn is_waiter(&self) -> bool {
        matches!(self.role, Role::Waiter { .. })
    }

    fn waits(&self) -> Option<&Waits> {
        match &self.role {
            Role::Waiter { waits, .. } => Some(waits),
            Role::Worker(_) => None,
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::cell::Cell;
    use std::fs;

    use super::super::fork;

    pub(super) type Id = i32;

    /// Returns the system's ID of the calling OS thread.
    pub(super) fn this_thread() -> Option<Id> {
        thread_local! {
            /// The ID, with the fork generation in which it was read.
            static ID: Cell<Option<(u32, Id)>> = const { Cell::new(None) };
        }
        let generation = fork::generation();
        if let Some((known, id)) = ID.get()
            && known == generation
        {
            return Some(id);
        }
        let id = rustix::thread::gettid().as_raw_nonzero().get();
        ID.set(Some((generation, id)));
        Some(id)
    }

    /// Returns all OS threads of the process except the caller, or `None` if the system does not list them.
    pub(super) fn other_threads() -> Option<Vec<Id>> {
        let this = this_thread()?;
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc/self/task").ok()? {
            all.push(entry.ok()?.file_name().to_str()?.parse().ok()?);
        }
        let here = all.iter().position(|id| *id == this)?;
        all.swap_remove(here);
        Some(all)
    }

    pub(super) fn describe(thread: Id) -> String {
        match fs::read_to_string(format!("/proc/self/task/{thread}/comm")) {
            Ok(name) => format!("OS thread {thread} ({:?})", name.trim_end()),
            Err(_) => format!("OS thread {thread}"),
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    pub(super) type Id = i32;

    pub(super) fn this_thread() -> Option<Id> {
        None
    }

    pub(super) fn other_threads() -> Option<Vec<Id>> {
        None
    }

    pub(super) fn describe(thread: Id) -> String {
        format!("OS thread {thread}")
    }
}
