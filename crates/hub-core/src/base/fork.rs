//! Detects forks of the process without a system call.
//!
//! `pthread_atfork` calls [`in_child`] in the child before `fork` returns there. A child made without the C library's
//! `fork` (a bare `clone`) is not detected.
//!
//! Ground rules of the hook:
//!
//! 1. It may run where only async-signal-safe functions are allowed: every other OS thread is gone and may have held
//!    any lock. So it writes to atomics and to thread-local cells, and does nothing else.
//! 2. The thread-locals are const-initialized and have no destructor. An access is an address calculation: it registers
//!    nothing, and cannot fail at the end of an OS thread.
//!
//! Ground rules of [`PerProcess`]:
//!
//! 1. An entry lives as long as its `PerProcess`. There is one entry per fork generation. If another OS thread was
//!    using an entry during the fork, that use never finishes in the child. So the entry of an ancestor is leaked.
//! 2. `current` is null or points to an entry that came from a `Box`. Only `drop` frees a published entry.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// The number of forks of this process and its ancestors since the hook was installed.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// The token of the OS thread that survived the last fork; 0 if it never had one.
static SURVIVOR: AtomicU64 = AtomicU64::new(0);
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);
/// The first token that was given to an OS thread after the last fork.
static FIRST_TOKEN: AtomicU64 = AtomicU64::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static FORKED: Cell<bool> = const { Cell::new(false) };
    static TOKEN: Cell<u64> = const { Cell::new(0) };
}

/// Installs the hook that detects later forks. Cheap if it is installed already.
///
/// Two OS threads at once may both register the hook. It then runs twice per fork, which has no other effect than
/// running once. A lock here could be held by an OS thread that a fork leaves behind.
pub(crate) fn install() -> io::Result<()> {
    if INSTALLED.load(Ordering::Acquire) {
        return Ok(());
    }
    // SAFETY: `in_child` has the required signature, and lives as long as the program. It only does what rule 1 of the
    // hook allows.
    let error = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    INSTALLED.store(true, Ordering::Release);
    Ok(())
}

extern "C" fn in_child() {
    // Relaxed: no other OS thread exists, and later OS threads are started after this.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    SURVIVOR.store(TOKEN.get(), Ordering::Relaxed);
    FIRST_TOKEN.store(NEXT_TOKEN.load(Ordering::Relaxed), Ordering::Relaxed);
    FORKED.set(true);
}

/// Returns a number that changes in the child at a fork.
///
/// A value made under another generation belongs to an ancestor.
#[inline]
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Returns whether the calling OS thread came through a fork since the last call of [`take_forked`].
#[inline]
pub(crate) fn is_forked() -> bool {
    FORKED.get()
}

/// Returns whether the calling OS thread came through a fork since the last call.
#[inline]
pub(crate) fn take_forked() -> bool {
    FORKED.get() && FORKED.replace(false)
}

/// Returns a number unique among the OS threads of this process and those that a fork left behind. Never 0.
#[inline]
pub(crate) fn this_thread() -> u64 {
    match TOKEN.get() {
        0 => new_token(),
        token => token,
    }
}

#[cold]
fn new_token() -> u64 {
    let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
    TOKEN.set(token);
    token
}

/// Returns whether a fork left that OS thread behind. Such an OS thread exists only in an ancestor.
#[inline]
pub(crate) fn is_left_behind(thread: u64) -> bool {
    thread < FIRST_TOKEN.load(Ordering::Relaxed) && thread != SURVIVOR.load(Ordering::Relaxed)
}

/// Returns whether the owner of a value was left behind by a fork.
///
/// `thread` made the value under `generation`.
#[inline]
pub(crate) fn left_behind(generation: u32, thread: u64) -> bool {
    generation != self::generation() && thread != SURVIVOR.load(Ordering::Relaxed)
}

/// Returns the token of the OS thread that survived the last fork; 0 if it had no token, or there was no fork.
pub(crate) fn survivor() -> u64 {
    SURVIVOR.load(Ordering::Relaxed)
}

/// Returns whether `fd` still refers to the same open file as in `process`, and `process` is the parent of this
/// process.
///
/// Returns false where the system cannot compare the files.
#[cfg(target_os = "linux")]
pub(crate) fn is_shared_with_parent(process: u32, fd: RawFd) -> bool {
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: both calls only read a process ID.
    let (this, parent) = unsafe { (libc::getpid(), libc::getppid()) };
    // SAFETY: the call compares two open files, and fails if one of the numbers is not open.
    parent.cast_unsigned() == process && unsafe { libc::syscall(libc::SYS_kcmp, this, parent, KCMP_FILE, fd, fd) } == 0
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_shared_with_parent(_process: u32, _fd: RawFd) -> bool {
    false
}

/// A value of which each process has its own.
///
/// A forked child makes a new value, because OS threads left behind by the fork may hold the locks of the old one.
#[derive(Debug)]
pub struct PerProcess<T> {
    current: AtomicPtr<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: T,
}

impl<T> PerProcess<T> {
    /// Creates a cell without a value.
    #[expect(clippy::new_without_default, reason = "for statics")]
    #[must_use]
    pub const fn new() -> PerProcess<T> {
        PerProcess { current: AtomicPtr::new(ptr::null_mut()) }
    }
}

impl<T: Send + Sync> PerProcess<T> {
    /// Returns the value of this process, if it was made.
    pub fn get(&self) -> Option<&T> {
        // SAFETY: rule 2.
        let entry = unsafe { self.current.load(Ordering::Acquire).as_ref() }?;
        (entry.generation == generation()).then_some(&entry.value)
    }

    /// Returns the value of this process, and makes it if needed.
    ///
    /// # Errors
    ///
    /// Returns an error if the hook that detects forks cannot be installed.
    pub fn get_or_make(&self, make: impl Fn() -> T) -> io::Result<&T> {
        install()?;
        let mut current = self.current.load(Ordering::Acquire);
        loop {
            // SAFETY: rule 2.
            if let Some(entry) = unsafe { current.as_ref() }
                && entry.generation == generation()
            {
                return Ok(&entry.value);
            }
            let new = Box::into_raw(Box::new(Entry { generation: generation(), value: make() }));
            match self.current.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: the entry lives as long as `self` (rule 1).
                Ok(_) => return Ok(unsafe { &(*new).value }),
                Err(other) => {
                    // SAFETY: `new` came from `into_raw` above, and was never published.
                    drop(unsafe { Box::from_raw(new) });
                    current = other;
                }
            }
        }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let current = *self.current.get_mut();
        // SAFETY: rule 2.
        if unsafe { current.as_ref() }.is_some_and(|entry| entry.generation == generation()) {
            // SAFETY: `current` came from `into_raw`, and all references to it borrowed `self`.
            drop(unsafe { Box::from_raw(current) });
        }
    }
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use super::*;

    static OTHER: AtomicU64 = AtomicU64::new(0);

    /// Forks, and returns whether `in_child` returned true in the child.
    pub(crate) fn holds_in_child(in_child: fn() -> bool) -> bool {
        // SAFETY: other OS threads of the test program may hold locks. The child runs only `in_child`, and leaves by
        // `_exit`. The callers keep `in_child` free of such locks.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
        if pid == 0 {
            let held = std::panic::catch_unwind(in_child).unwrap_or(false);
            // SAFETY: ends the child at once, and runs no destructor or exit handler of the parent.
            unsafe { libc::_exit(if held { 0 } else { 1 }) }
        }
        let mut status = 0;
        // SAFETY: `status` is valid for writing, and `pid` is a child of this process.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }

    /// Runs `body`, that of the test `name`, in a process in which no other test runs.
    ///
    /// A child may then panic: no other OS thread can hold a lock of std for its own panic.
    pub(crate) fn in_own_process(name: &str, body: fn()) {
        const ALONE: &str = "GREENHUB_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return body();
        }
        let program = std::env::current_exe().unwrap();
        let mut test = std::process::Command::new(program);
        // With two test threads, the test runs in an OS thread beside the main one, however the tests were started.
        test.args([name, "--exact", "--nocapture", "--test-threads=2"]).env(ALONE, "1");
        let output = test.output().unwrap();
        let output_text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && output_text.contains("1 passed"),
            "{output_text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    fn a_fork_changes_the_generation_of_the_child_only() {
        install().unwrap();
        let before = generation();
        assert!(holds_in_child(|| generation() != 0));
        assert_eq!(generation(), before);
    }

    #[test]
    fn a_fork_is_noticed_once_and_by_the_child_only() {
        install().unwrap();
        assert!(holds_in_child(|| take_forked() && !take_forked()));
        assert!(!take_forked());
    }

    #[test]
    fn values_of_the_forking_thread_are_not_left_behind() {
        install().unwrap();
        this_thread();
        assert!(holds_in_child(|| !left_behind(0, this_thread()) && left_behind(0, this_thread() + 1)));
    }

    #[test]
    fn without_a_fork_nothing_is_left_behind() {
        assert!(!left_behind(generation(), u64::MAX));
        assert!(!is_left_behind(this_thread()) && !is_left_behind(this_thread() + 1));
    }

    #[test]
    fn all_threads_but_the_forking_one_are_left_behind() {
        install().unwrap();
        this_thread();
        let other = std::thread::spawn(this_thread).join().unwrap();
        OTHER.store(other, Ordering::Relaxed);
        assert!(holds_in_child(|| {
            let new = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
            let other = OTHER.load(Ordering::Relaxed);
            !is_left_behind(this_thread()) && is_left_behind(other) && !is_left_behind(new)
        }));
    }

    #[test]
    fn threads_have_different_tokens() {
        let here = this_thread();
        assert_eq!(here, this_thread());
        assert_ne!(here, std::thread::spawn(this_thread).join().unwrap());
    }
}
