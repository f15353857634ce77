//! The table by which a debugger finds the greenlets of a process or of a core file.
//!
//! `debug/greenhub-gdb.py` of the crate `greenhub` reads the table by the name of its symbol. The table has the offsets
//! of the fields that the script needs, because debug information that has only lines describes no types. A change of
//! [`Table`] changes [`VERSION`] and the script.
//!
//! Ground rules:
//! - An entry of the list is leaked, so it lives forever. Its `next` is not changed after the entry is in the list.
//! - An entry belongs to the OS thread that has put its number there, until that sets the number to zero again. Others
//!   change nothing in it.
//! - This code never follows `chunks`. A debugger does, while the process stands still.

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use super::control::arena::{BLOCKS, ChunkList};
use super::control::{Control, Kind, State};
use super::stack::Stack;
use super::task::cell;
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
    let is_free = |entry: &&OsThread| entry.id.compare_exchange(0, id, Ordering::Acquire, Ordering::Relaxed).is_ok();
    if let Some(entry) = entries().find(is_free) {
        return entry.chunks.store(chunks, Ordering::Release);
    }
    let new = Box::new(OsThread { next: ptr::null(), id: AtomicI32::new(id), chunks: AtomicPtr::new(chunks) });
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
    use crate::greenlet::local;

    fn found() -> Vec<i32> {
        entries().map(|entry| entry.id.load(Ordering::Relaxed)).collect()
    }

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
        for (number, reason) in WaitReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
            assert!(GREENHUB_GDB.reasons[number].starts_with(reason.as_str().as_bytes()));
        }
    }
}
