use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

#[cfg(target_os = "linux")]
use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

use super::*;

fn own<T>(mutex: &BiasedMutex<T>) {
    drop(mutex.lock());
    assert!(!barrier::available() || mutex.bias.owner.load(Relaxed) == fork::this_thread());
}

fn is_ordinary<T>(mutex: &BiasedMutex<T>) -> bool {
    mutex.bias.owner.load(Relaxed) == UNBIASED
}

#[test]
fn the_first_thread_to_lock_it_owns_the_lock() {
    let mutex = BiasedMutex::new(0);
    assert_eq!(mutex.bias.owner.load(Relaxed), NO_OWNER);
    own(&mutex);
    *mutex.lock() += 1;
    assert_eq!(*mutex.lock(), 1);
    own(&mutex);
}

#[test]
fn another_thread_makes_it_an_ordinary_lock() {
    let mutex = BiasedMutex::new(String::from("mine"));
    own(&mutex);
    thread::scope(|scope| scope.spawn(|| mutex.lock().push_str(" and yours")).join().unwrap());
    assert!(is_ordinary(&mutex));
    assert_eq!(*mutex.lock(), "mine and yours");
}

#[test]
fn an_ended_owner_leaves_the_lock_to_others() {
    let mutex = BiasedMutex::new(1);
    thread::scope(|scope| scope.spawn(|| own(&mutex)).join().unwrap());
    *mutex.lock() += 1;
    assert_eq!(*mutex.lock(), 2);
}

#[test]
fn another_thread_waits_until_its_owner_has_left() {
    let mutex = Arc::new(BiasedMutex::new(0));
    own(&mutex);
    let mut guard = mutex.lock();
    let (about_to_lock, waiting) = mpsc::channel();
    let done = Arc::new(AtomicBool::new(false));
    let other = thread::spawn({
        let (mutex, done) = (Arc::clone(&mutex), Arc::clone(&done));
        move || {
            about_to_lock.send(()).unwrap();
            let seen = *mutex.lock();
            done.store(true, Relaxed);
            seen
        }
    });
    waiting.recv().unwrap();
    (0..100).for_each(|_| thread::yield_now());
    assert!(!done.load(Relaxed));
    *guard = 7;
    drop(guard);
    assert_eq!(other.join().unwrap(), 7);
}

#[test]
fn locking_twice_panics() {
    let mutex = BiasedMutex::new(());
    own(&mutex);
    if barrier::available() {
        let guard = mutex.lock();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(mutex.lock()))).is_err());
        drop(guard);
        drop(mutex.lock());
    }
}

#[test]
fn a_panic_unlocks_it_and_leaves_no_poison() {
    let mutex = BiasedMutex::new(3);
    own(&mutex);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = mutex.lock();
        panic!("while it is locked");
    }));
    assert!(panicked.is_err());
    assert_eq!(*mutex.lock(), 3);
}

#[test]
fn many_threads_lose_no_addition_while_the_bias_ends() {
    const ROUNDS: u64 = 2_000;
    for _ in 0..50 {
        let mutex = BiasedMutex::new(0);
        own(&mutex);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..ROUNDS).for_each(|_| *mutex.lock() += 1));
            }
            (0..ROUNDS).for_each(|_| *mutex.lock() += 1);
        });
        assert_eq!(*mutex.lock(), 4 * ROUNDS);
    }
}

static OF_A_CHILD: BiasedMutex<u32> = BiasedMutex::new(0);

#[test]
fn the_owner_goes_on_in_a_forked_child() {
    own(&OF_A_CHILD);
    assert!(fork::tests::holds_in_child(|| {
        *OF_A_CHILD.lock() += 1;
        *OF_A_CHILD.lock() == 1
    }));
}

static HELD_ELSEWHERE: BiasedMutex<u32> = BiasedMutex::new(0);
static FREE_ELSEWHERE: BiasedMutex<u32> = BiasedMutex::new(5);

#[test]
fn a_lock_held_by_a_left_behind_thread_panics_in_a_forked_child() {
    fork::tests::in_own_process(
        "wait::biased::tests::a_lock_held_by_a_left_behind_thread_panics_in_a_forked_child",
        || {
            fork::this_thread();
            let ((locked, is_locked), (done, wait)) = (mpsc::channel(), mpsc::channel::<()>());
            let other = thread::spawn(move || {
                own(&FREE_ELSEWHERE);
                own(&HELD_ELSEWHERE);
                let _held = HELD_ELSEWHERE.lock();
                locked.send(()).unwrap();
                let _ = wait.recv();
            });
            is_locked.recv().unwrap();
            if barrier::available() {
                assert!(fork::tests::holds_in_child(|| {
                    std::panic::set_hook(Box::new(|_| ()));
                    let panicked = catch_unwind(|| drop(HELD_ELSEWHERE.lock())).is_err();
                    panicked && catch_unwind(|| drop(HELD_ELSEWHERE.lock())).is_err() && *FREE_ELSEWHERE.lock() == 5
                }));
            }
            drop(done);
            other.join().unwrap();
        },
    );
}

/// Makes the system refuse these commands of membarrier to the calling OS thread from now on, as in a sandbox.
#[cfg(target_os = "linux")]
fn refuse(commands: &[u32]) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const COMPARE: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The place of the first argument's lower half.
    const COMMAND: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };
    let count = commands.len() as u8;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps =
        vec![step(LOAD, 0, 0, 0), step(COMPARE, 0, count + 1, libc::SYS_membarrier as u32), step(LOAD, 0, 0, COMMAND)];
    steps.extend((0..count).zip(commands).map(|(index, &command)| step(COMPARE, count - index, 0, command)));
    steps.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    steps.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the call takes numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the system copies the filter before this returns.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) }, 0);
}

#[cfg(target_os = "linux")]
const BARRIER: u32 = MembarrierCommand::PrivateExpedited as u32;

#[test]
#[cfg(target_os = "linux")]
fn the_barrier_is_available_where_the_system_has_it() {
    let has = membarrier_query().contains_command(MembarrierCommand::PrivateExpedited)
        && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
    assert_eq!(barrier::available(), has);
}

#[test]
#[cfg(target_os = "linux")]
fn the_system_is_asked_for_the_barrier_once_in_a_child() {
    assert!(fork::tests::holds_in_child(|| {
        let has = barrier::available();
        const QUERY: u32 = 0;
        refuse(&[QUERY, MembarrierCommand::RegisterPrivateExpedited as u32, BARRIER]);
        barrier::available() == has
    }));
}

static BEFORE_THE_SANDBOX: BiasedMutex<u32> = BiasedMutex::new(0);
static IN_THE_SANDBOX: BiasedMutex<u32> = BiasedMutex::new(0);

#[test]
#[cfg(target_os = "linux")]
fn a_barrier_refused_later_keeps_the_bias_and_makes_new_locks_ordinary() {
    fork::tests::in_own_process(
        "wait::biased::tests::a_barrier_refused_later_keeps_the_bias_and_makes_new_locks_ordinary",
        || {
            assert!(fork::tests::holds_in_child(|| {
                std::panic::set_hook(Box::new(|_| ()));
                own(&BEFORE_THE_SANDBOX);
                let had_one = barrier::available();
                // Everything else succeeds, so that a second request for the barrier would be granted.
                refuse(&[BARRIER]);
                let other = |mutex: &'static BiasedMutex<u32>| thread::spawn(|| *mutex.lock() += 1).join();
                let refused = other(&BEFORE_THE_SANDBOX).is_err() && other(&BEFORE_THE_SANDBOX).is_err();
                *BEFORE_THE_SANDBOX.lock() += 1;
                *IN_THE_SANDBOX.lock() += 1;
                refused == had_one && other(&IN_THE_SANDBOX).is_ok() && *IN_THE_SANDBOX.lock() == 2
            }));
        },
    );
}
