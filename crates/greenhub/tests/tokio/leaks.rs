//! Hubs, runtimes and joins leave nothing behind, however many there were.

use std::time::{Duration, Instant};

use greenhub::future::{block_on, defer_to_green_thread};
use greenhub::thread::yield_now;
use greenhub::{sleep, spawn, use_hub};
use hub_tokio::run_until;

use crate::support::counting::allocated;
use crate::support::green::held;
use crate::support::{HANG, alone, open_descriptors};
use crate::{LONG, MILLISECOND, runtime};

/// Returns the number of OS threads of this process.
fn os_threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("/proc is mounted").count()
}

/// Asserts that many rounds leave the process with what it held after the first ones.
///
/// A round that leaked one block of memory would leave as many blocks as there are rounds. Less is allowed, since
/// pools, tables and the buckets of timers grow.
#[track_caller]
fn leaks_nothing(rounds: usize, mut round: impl FnMut()) {
    (0..50).for_each(|_| round());
    let (descriptors, threads, (blocks, bytes)) = (open_descriptors(), os_threads(), allocated());
    (0..rounds).for_each(|_| round());
    let (blocks_left, bytes_left) = (allocated().0 - blocks, allocated().1 - bytes);
    assert_eq!(open_descriptors(), descriptors);
    let begin = Instant::now();
    // The system may list a thread for a while after it was joined.
    while os_threads() != threads {
        assert!(begin.elapsed() < HANG / 2, "{threads} OS threads before, {} afterwards", os_threads());
        std::thread::sleep(MILLISECOND);
    }
    let rounds = rounds.cast_signed();
    assert!(
        blocks_left <= rounds / 10 && bytes_left <= 32 * 1024 + 4 * rounds,
        "{blocks_left} blocks and {bytes_left} bytes are left after {rounds} rounds"
    );
}

#[test]
fn many_changes_of_the_hub_leave_nothing_behind() {
    alone("many_changes_of_the_hub_leave_nothing_behind", || {
        leaks_nothing(10_000, || {
            use_hub("tokio").unwrap();
            let pending = tokio::spawn(std::future::pending::<()>());
            let timer = tokio::spawn(tokio::time::sleep(LONG));
            // Wakers of the runtime, and of the main loop.
            assert_eq!(block_on(tokio::spawn(async { 7 })).unwrap(), 7);
            yield_now();
            drop((pending, timer));
        });
    });
}

#[test]
fn many_os_threads_with_a_task_left_over_leave_nothing_behind() {
    alone("many_os_threads_with_a_task_left_over_leave_nothing_behind", || {
        leaks_nothing(1000, || {
            let thread = std::thread::spawn(|| {
                use_hub("tokio").unwrap();
                let _left_over = tokio::spawn(std::future::pending::<()>());
                assert_eq!(block_on(tokio::spawn(async { 7 })).unwrap(), 7);
            });
            thread.join().unwrap();
        });
    });
}

#[test]
fn many_joins_on_one_os_thread_leave_nothing_behind() {
    alone("many_joins_on_one_os_thread_leave_nothing_behind", || {
        use_hub("epoll").unwrap();
        let before = held();
        leaks_nothing(1000, || {
            let runtime = runtime();
            let left_over = spawn(|| sleep(LONG));
            let joined = runtime.block_on(run_until(async {
                let green = defer_to_green_thread(|| {
                    sleep(Duration::from_micros(10));
                    block_on(tokio::spawn(async { 7 })).unwrap()
                });
                green.await.unwrap()
            }));
            assert_eq!(joined.unwrap(), 7);
            left_over.kill();
        });
        sleep(MILLISECOND);
        assert_eq!(held(), before);
    });
}
