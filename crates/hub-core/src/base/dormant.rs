//! Dormant OS threads: those that do nothing until another OS thread of this process wakes them.
//!
//! A main greenlet that waits for a lock or a queue is lost if no other OS thread can serve it. An OS thread of this
//! library that waits for work cannot, nor can one that waits for a lock or a queue itself. So each such thread enters
//! itself here before it goes to sleep and leaves before it does anything else. A thread that has stood still for a
//! while, in its loop or as a whole, compares the table with the list of OS threads that the system keeps.
//!
//! The comparison is exact. While the table is locked no thread can leave it. An OS thread that the table does not
//! have, the one that enters just now included, counts as awake. A waker that ended before the list was read has left a
//! trace that a thread of the table cannot remove while the table is locked: a letter, a queued job, an ended wait. So the
//! traces are looked for after the list was read. A queued job keeps awake only the threads that could do something for
//! it, those of its own pool that wait for work: behind threads that wait for each other it never begins.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fork::PerProcess;
use super::wait_reason::WaitReason;

/// The wait of an OS thread, as seen from another one.
pub(crate) trait Sleep: Send + Sync {
    /// Whether nothing has woken the sleep with that ticket yet.
    fn lasts(&self, ticket: u64) -> bool;
}

/// A calling OS thread that is dormant until this is dropped.
#[must_use = "the OS thread counts as awake again once this is dropped"]
pub(crate) struct Dormant {
    number: u64,
}

/// The state of all other OS threads of the process.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Others {
    /// There are none, but for threads of this library that wait for work.
    Idle,
    /// All wait for each other, the caller included: a line for each wait. Target once.
    Deadlocked(Vec<String>),
    /// At least one is awake, or that cannot be told, or the deadlock was told before.
    Awake,
}

/// The wait of a thread.
pub(crate) enum Waits {
    /// It waits as a whole.
    Thread(WaitReason),
    /// Each of its greenlets waits: in these words.
    Greenlets(Vec<String>),
}

enum Kind {
    /// Waits for work of this library, of which there is none if this says so.
    Worker(Box<dyn Fn() -> bool + Send>),
    /// Waits for other threads, in that sleep.
    Waiter { waits: Waits, sleep: Arc<dyn Sleep>, ticket: u64 },
}

struct Entry {
    /// No other entry of this process or its ancestors has it.
    number: u64,
    thread: system::Id,
    kind: Kind,
    /// Not dormant for the moment.
    awake: bool,
}

#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    /// The present deadlock was told.
    told: bool,
}

static TABLE: PerProcess<Mutex<Table>> = PerProcess::new();
static NEXT: AtomicU64 = AtomicU64::new(0);

/// How long a thread stands still before it looks for others that are awake; then twice as long, and so on, up to the
/// second.
pub(crate) const FIRST_LOOK: Duration = Duration::from_secs(1);
pub(crate) const LONGEST_LOOK: Duration = Duration::from_secs(16);

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dormant {
    /// For a thread of this library that waits for work. It is woken if `is_idle` no longer holds, which must not take
    /// a lock that is held while this is dropped.
    pub(crate) fn worker(is_idle: impl Fn() -> bool + Send + 'static) -> Dormant {
        Dormant::enter(|| Kind::Worker(Box::new(is_idle)))
    }

    /// For a thread that only another one can wake from that `sleep`.
    pub(crate) fn waiter(waits: Waits, sleep: Arc<dyn Sleep>, ticket: u64) -> Dormant {
        Dormant::enter(|| Kind::Waiter { waits, sleep, ticket })
    }

    fn enter(kind: impl FnOnce() -> Kind) -> Dormant {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Without an entry the thread counts as awake, which is safe.
        if let Some(thread) = system::this_thread()
            && let Ok(table) = TABLE.get_or_make(Mutex::default)
        {
            lock(table).entries.push(Entry { number, thread, kind: kind(), awake: false });
        }
        Dormant { number }
    }

    /// Compares the table with the OS threads of the process.
    pub(crate) fn others(&self) -> Others {
        let Some(mut table) = TABLE.get().map(lock) else { return Others::Awake };
        match table.others_wait(self.number) {
            None => Others::Awake,
            Some(false) => Others::Idle,
            Some(true) => table.deadlock().map_or(Others::Awake, Others::Deadlocked),
        }
    }

    /// A line for each wait if no OS thread is awake, the caller's included, which may be the only one. Target once.
    pub(crate) fn deadlock(&self) -> Option<Vec<String>> {
        let mut table = lock(TABLE.get()?);
        table.others_wait(self.number)?;
        table.deadlock()
    }

    /// Counts the thread as awake, or as dormant again, without ending a deadlock that was told.
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
        // Not there if the process was forked since.
        let Some(index) = table.entries.iter().position(|entry| entry.number == self.number) else { return };
        let entry = table.entries.swap_remove(index);
        table.told &= matches!(entry.kind, Kind::Worker(_));
        drop(table);
        drop(entry);
    }
}

/// Runs `wait`, during which the calling OS thread, one of this library, does nothing that could wake another one.
pub fn while_idle<R>(wait: impl FnOnce() -> R) -> R {
    let _dormant = Dormant::worker(|| true);
    wait()
}

impl Table {
    /// Whether any of the other threads waits for others. `None` if one of them is awake, or the caller, whose entry has
    /// that number.
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

    /// A line for each wait, once.
    fn deadlock(&mut self) -> Option<Vec<String>> {
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        self.entries.sort_unstable_by_key(|entry| entry.thread);
        Some(self.entries.iter().flat_map(Entry::describe).collect())
    }
}

impl Entry {
    fn is_asleep(&self) -> bool {
        !self.awake
            && match &self.kind {
                Kind::Worker(is_idle) => is_idle(),
                Kind::Waiter { sleep, ticket, .. } => sleep.lasts(*ticket),
            }
    }

    fn is_waiter(&self) -> bool {
        matches!(self.kind, Kind::Waiter { .. })
    }

    fn describe(&self) -> Vec<String> {
        let Kind::Waiter { waits, .. } = &self.kind else { return Vec::new() };
        let thread = system::describe(self.thread);
        match waits {
            Waits::Thread(doing) => vec![format!("{thread}: {}", doing.as_str())],
            Waits::Greenlets(waits) => waits.iter().map(|wait| format!("{thread}: {wait}")).collect(),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::cell::Cell;
    use std::fs;

    use super::super::fork;

    pub(super) type Id = i32;

    /// The number by which the system lists the calling thread.
    pub(super) fn this_thread() -> Option<Id> {
        thread_local! {
            /// With the generation of forks in which it was asked for.
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

    /// All threads of the process but the calling one. `None` if the system does not tell.
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
