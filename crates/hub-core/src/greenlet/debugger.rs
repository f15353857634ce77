//! The table by which a debugger finds the greenlets of a process or of a core file.
//!
//! `debug/greenhub-gdb.py` of the crate `greenhub` reads the table by the name of its symbol. The table has the offsets
//! of the fields that the script needs, because debug information that has only lines describes no types. A change of
//! [`Table`] changes [`VERSION`] and the script.
//!
//! Ground rules:
//! - An entry of the list is leaked, so it lives forever. Its `next` is not changed after the entry is in the list.
//! - An entry belongs to the OS thread that has put its number there, until that sets the number to zero again. Others
//!   change nothing in it. In a forked child the entries of the parent's OS threads belong to the OS thread that has
//!   forked.
//! - This code never follows `chunks`. A debugger does, while the process stands still.

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

use super::control::arena::{BLOCKS, ChunkList};
use super::control::{Control, Kind, State};
use super::stack::Stack;
use super::task::cell;
use crate::base::fork;
use crate::base::wait_reason::WaitReason;

const VERSION: u32 = 1;

/// A text, with zeros behind it.
type Text = [u8; 48];

/// The content of [`GREENHUB_GDB`]. The script has the same order.
#[repr(C)]
struct Table {
    magic: [u8; 12],
    version: u32,
    threads: &'static AtomicPtr<OsThread>,
    /// The offsets in [`OsThread`]: `next`, `id`, `chunks`.
    thread: [u32; 3],
    /// The offsets in [`ChunkList`], the number of blocks of a chunk, and the size of a block.
    chunks: [u32; 4],
    /// The offsets in a control block: context, stack, task, number, state, reason, kind.
    control: [u32; 7],
    /// The offsets in a stack's header: top and bottom.
    stack: [u32; 2],
    /// The offsets in a task: the location of the spawn, and the rare state; and there the pointer and length of the
    /// name.
    task: [u32; 4],
    states: [Text; 10],
    kinds: [Text; 4],
    reasons: [Text; WaitReason::ALL.len()],
}

#[used]
#[unsafe(no_mangle)]
static GREENHUB_GDB: Table = Table {
    magic: *b"greenhub-gdb",
    version: VERSION,
    threads: &THREADS,
    thread: [
        std::mem::offset_of!(OsThread, next) as u32,
        std::mem::offset_of!(OsThread, id) as u32,
        std::mem::offset_of!(OsThread, chunks) as u32,
    ],
    chunks: [ChunkList::OFFSETS[0], ChunkList::OFFSETS[1], BLOCKS as u32, size_of::<Control>() as u32],
    control: Control::OFFSETS,
    stack: Stack::OFFSETS,
    task: cell::OFFSETS,
    states: states(),
    kinds: kinds(),
    reasons: reasons(),
};

/// The state of an OS thread, as a debugger finds it.
#[repr(C)]
struct OsThread {
    next: *const OsThread,
    /// The system's number of the OS thread, or zero if the entry is free.
    id: AtomicI32,
    chunks: AtomicPtr<ChunkList>,
    /// The fork generation in which the number was put there. Debuggers do not read it.
    generation: AtomicU32,
}

static THREADS: AtomicPtr<OsThread> = AtomicPtr::new(ptr::null_mut());

/// Iterates over all entries, free ones included.
fn entries() -> impl Iterator<Item = &'static OsThread> {
    let mut next = THREADS.load(Ordering::Acquire).cast_const();
    std::iter::from_fn(move || {
        // SAFETY: the pointer is null or leads to an entry, which lives forever.
        let entry = unsafe { next.as_ref() }?;
        next = entry.next;
        Some(entry)
    })
}

/// Lets debuggers find the control blocks of the calling OS thread.
pub(super) fn enter(chunks: &ChunkList) {
    let (id, chunks) = (this_thread(), ptr::from_ref(chunks).cast_mut());
    let generation = fork::generation();
    let is_free = |entry: &&OsThread| {
        entry.id.load(Ordering::Relaxed) == 0 && {
            // Before the number: see `after_fork`. Every OS thread that tries to take the entry stores the same.
            entry.generation.store(generation, Ordering::Relaxed);
            entry.id.compare_exchange(0, id, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        }
    };
    if let Some(entry) = entries().find(is_free) {
        return entry.chunks.store(chunks, Ordering::Release);
    }
    let (id, chunks, generation) = (AtomicI32::new(id), AtomicPtr::new(chunks), AtomicU32::new(generation));
    let new = Box::new(OsThread { next: ptr::null(), id, chunks, generation });
    let new = Box::into_raw(new);
    let mut first = THREADS.load(Ordering::Relaxed);
    loop {
        // SAFETY: the entry is not in the list yet, so only this OS thread refers to it.
        unsafe { (*new).next = first };
        match THREADS.compare_exchange_weak(first, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => first = other,
        }
    }
}

/// Puts the new number of the calling OS thread into its entry, and hides the OS threads that a fork has left behind.
///
/// OS threads of the child may have taken entries already, which stay as they are.
pub(crate) fn after_fork(chunks: &ChunkList) {
    let chunks = ptr::from_ref(chunks).cast_mut();
    for entry in entries() {
        let id = entry.id.load(Ordering::Acquire);
        if id == 0 || entry.generation.load(Ordering::Relaxed) == fork::generation() {
            continue;
        }
        entry.generation.store(fork::generation(), Ordering::Relaxed);
        if entry.chunks.load(Ordering::Relaxed) == chunks {
            entry.id.store(this_thread(), Ordering::Release);
        } else {
            entry.chunks.store(ptr::null_mut(), Ordering::Relaxed);
            entry.id.store(0, Ordering::Release);
        }
    }
}

/// Hides the control blocks of the calling OS thread, which may be freed from now on.
pub(super) fn leave(chunks: &ChunkList) {
    // A forked child has the entry under the number that its OS thread had in the parent.
    let chunks = ptr::from_ref(chunks).cast_mut();
    if let Some(entry) = entries().find(|entry| entry.chunks.load(Ordering::Relaxed) == chunks) {
        entry.chunks.store(ptr::null_mut(), Ordering::Relaxed);
        entry.id.store(0, Ordering::Release);
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Returns a number that stands for an OS thread, because the system has none.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn this_thread() -> i32 {
    1
}

const fn text(from: &str) -> Text {
    let (mut text, from, mut index) = ([0; size_of::<Text>()], from.as_bytes(), 0);
    assert!(from.len() < text.len());
    while index < from.len() {
        text[index] = from[index];
        index += 1;
    }
    text
}

/// Returns the names of the states. A block in a state without a name is no greenlet, or has ended.
const fn states() -> [Text; 10] {
    let mut all = [[0; size_of::<Text>()]; 10];
    all[State::Unstarted as usize] = text("about to begin");
    all[State::Ready as usize] = text("ready");
    all[State::Running as usize] = text("running");
    // The script shows the reason of the wait.
    all[State::Parked as usize] = text("parked");
    all[State::Switched as usize] = text("switched to another");
    all[State::Delayed as usize] = text("begins later");
    all[State::Abandoned as usize] = text("abandoned");
    all
}

const fn kinds() -> [Text; 4] {
    let mut all = [[0; size_of::<Text>()]; 4];
    all[Kind::Thread as usize] = text("green thread");
    all[Kind::Main as usize] = text("main greenlet");
    all[Kind::MainLoop as usize] = text("main loop");
    all[Kind::Raw as usize] = text("greenlet");
    all
}

const fn reasons() -> [Text; WaitReason::ALL.len()] {
    let mut all = [[0; size_of::<Text>()]; WaitReason::ALL.len()];
    let mut index = 0;
    while index < all.len() {
        all[WaitReason::ALL[index] as usize] = text(WaitReason::ALL[index].as_str());
        index += 1;
    }
    all
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::fork::tests::holds_in_child;
    use crate::greenlet::local;

    fn found() -> Vec<i32> {
        entries().map(|entry| entry.id.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn a_forked_child_lists_its_own_os_thread_alone() {
        fork::install().unwrap();
        let in_child = || {
            let chunks = local::get().controls.list();
            after_fork(chunks);
            let used: Vec<i32> = found().into_iter().filter(|id| *id != 0).collect();
            let own = entries().find(|entry| entry.chunks.load(Ordering::Relaxed) == ptr::from_ref(chunks).cast_mut());
            used == [this_thread()] && own.is_some()
        };
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            local::get();
            begun.send(()).unwrap();
            let _ = stopped.recv();
        });
        has_begun.recv().unwrap();
        local::get();
        assert!(holds_in_child(in_child));
        assert!(found().contains(&this_thread()), "the entry of the parent is as before");
        drop(stop);
        other.join().unwrap();
    }

    // Elsewhere all OS threads have the same number.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn an_os_thread_is_found_until_it_ends_and_its_entry_is_used_again() {
        let run = || {
            local::get();
            let id = this_thread();
            let entry = entries().find(|entry| entry.id.load(Ordering::Relaxed) == id).unwrap();
            (id, ptr::from_ref(entry).addr())
        };
        let (id, _) = std::thread::spawn(run).join().unwrap();
        assert!(!found().contains(&id));
        // Other tests use entries at the same time, so only the sum is bounded.
        let before = found().len();
        for _ in 0..100 {
            std::thread::spawn(run).join().unwrap();
        }
        assert!(found().len() < before + 100);
    }

    #[test]
    fn each_reason_is_in_its_place() {
        let reason = |reason: WaitReason| {
            let text = &GREENHUB_GDB.reasons[reason as usize];
            let end = text.iter().position(|byte| *byte == 0).unwrap();
            std::str::from_utf8(&text[..end]).unwrap()
        };
        assert_eq!(reason(WaitReason::Yield), "yielding");
        assert_eq!(reason(WaitReason::Lock), "waiting for a lock");
        assert_eq!(reason(WaitReason::Park), "waiting to be unparked");
        assert_eq!(reason(WaitReason::Watcher), "waiting for a watcher");
        assert_eq!(reason(WaitReason::Channel), "waiting for a channel");
        let mut all: Vec<&str> = WaitReason::ALL.into_iter().map(reason).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), WaitReason::ALL.len(), "no text is left out, and none comes twice");
    }
}
