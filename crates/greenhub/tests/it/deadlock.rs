//! Deadlock detection across OS threads: the OS threads that count, and the reports.
//!
//! The tests depend on the OS threads of the process. So each runs in a forked child, which begins with one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crate::support::fork::{ends_well, exit, forked, in_fork};
use crate::support::in_child;
use greenhub::debug::{Report, set_report_stream};
use greenhub::sync::{Mutex, mpsc};
use greenhub::thread::yield_now;
use greenhub::{debug, fs, spawn, tpool};

/// Runs `body` in a forked child that has no hub, and asserts that the child succeeds.
#[track_caller]
fn in_fork_without_hub(body: fn()) {
    in_child(move || {
        assert!(!greenhub::hub::has_hub());
        ends_well(forked(body));
    });
}

fn os_threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("/proc is mounted").count()
}

/// Counts the OS threads of the pool for jobs of all threads.
fn idle_pool_threads() -> usize {
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is mounted");
    tasks.filter_map(name).filter(|name| name.trim_end() == "greenhub-pool").count()
}

/// Waits for an item that can never arrive, and returns the panic message that ends the wait.
fn wait_in_vain() -> String {
    let (_sender, receiver) = mpsc::channel::<u8>();
    let received = catch_unwind(AssertUnwindSafe(|| receiver.recv()));
    let payload = received.expect_err("a sender exists");
    payload.downcast_ref::<String>().expect("a text").clone()
}

/// Asserts that a hopeless wait of main ends although the library's own OS threads still run.
fn own_threads_do_not_count() {
    assert!(os_threads() > 1);
    let error = wait_in_vain();
    assert!(error.contains("block forever"), "{error}");
    assert!(os_threads() > 1, "the threads had to end first");
}

#[test]
fn a_monitor_of_a_pool_and_the_reaper_of_orphans_do_not_delay_loop_exit() {
    in_fork(|| {
        let pool = std::rc::Rc::new(tpool::Pool::new(1));
        let jobs = [(); 4].map(|()| pool.clone()).map(|pool| spawn(move || pool.execute(|| ()).unwrap()));
        jobs.into_iter().for_each(|job| job.join().unwrap());
        let (reader, _writer) = std::io::pipe().unwrap();
        let waiting = spawn(move || greenhub::process::Command::new("cat").stdin(reader).status());
        yield_now();
        waiting.kill();
        own_threads_do_not_count();
    });
}

#[test]
fn an_idle_thread_of_the_pool_does_not_delay_loop_exit() {
    in_fork(|| {
        fs::read("/proc/self/stat").unwrap();
        tpool::execute(|| ()).unwrap();
        own_threads_do_not_count();
    });
}

#[test]
fn a_blocking_detector_does_not_prevent_loop_exit() {
    in_fork(|| {
        debug::hub_blocking_detection(Duration::from_millis(20)).unwrap();
        own_threads_do_not_count();
    });
}

#[test]
fn a_thread_in_a_call_of_std_may_wake_main() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    in_fork(|| {
        set_report_stream(|_| _ = REPORTS.fetch_add(1, Ordering::SeqCst));
        fs::read("/proc/self/stat").unwrap();
        let (sender, receiver) = mpsc::channel();
        let other = std::thread::spawn(move || {
            // The main loop checks for a deadlock twice in this time.
            std::thread::sleep(Duration::from_millis(2500));
            sender.send(1).unwrap();
        });
        assert_eq!(receiver.recv(), Ok(1));
        assert_eq!(REPORTS.load(Ordering::SeqCst), 0);
        other.join().unwrap();
    });
}

#[test]
fn a_short_quiet_time_brings_a_report_and_no_earlier_loop_exit() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    in_fork(|| {
        set_report_stream(|report| {
            assert!(matches!(report, Report::Quiet { .. }), "{report}");
            REPORTS.fetch_add(1, Ordering::SeqCst);
        });
        greenhub::debug::set_quiet_time(Some(Duration::from_millis(5)));
        let begin = Instant::now();
        wait_in_vain();
        assert!(begin.elapsed() >= Duration::from_secs(1));
        assert_eq!(REPORTS.load(Ordering::SeqCst), 1);
    });
}

/// Parks main and a green thread of a new hub forever.
fn park_with_hub() {
    let green = spawn(|| {
        let (_sender, receiver) = mpsc::channel::<u8>();
        receiver.recv()
    });
    let _ = green.join();
}

/// Parks an OS thread without a hub forever.
fn park_without_hub() {
    let (_sender, receiver) = mpsc::channel::<u8>();
    let _ = receiver.recv();
}

fn start(name: &str, body: fn()) {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).unwrap();
}

/// Ends the process after a few seconds, with status 0 if `reports` is 1 then.
///
/// The time is longer than all OS threads need for their first checks.
fn exit_by_alarm(reports: &'static AtomicUsize) {
    let on_alarm = || exit(i32::from(reports.load(Ordering::SeqCst) != 1));
    // SAFETY: the handler reads an atomic and calls `_exit`, which are async-signal-safe.
    unsafe { signal_hook::low_level::register(libc::SIGALRM, on_alarm) }.unwrap();
    // SAFETY: the call has no preconditions.
    unsafe { libc::alarm(7) };
}

/// Counts the deadlock reports that have `lines` lines and contain all of `parts`. Any other report counts as 100.
fn count_deadlocks(reports: &'static AtomicUsize, lines: usize, parts: &'static [&'static str]) {
    set_report_stream(move |report| {
        let all = report.to_string();
        let is_right = matches!(report, Report::Deadlock { threads } if threads.len() == lines)
            && parts.iter().all(|part| all.contains(part));
        reports.fetch_add(if is_right { 1 } else { 100 }, Ordering::SeqCst);
        if !is_right {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), all.as_bytes());
        }
    });
}

#[test]
fn a_deadlock_of_several_threads_is_reported_once_with_all_waiters() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    in_fork(|| {
        count_deadlocks(&REPORTS, 4, &["with-hub", "without", "main greenlet", "deadlock.rs", "waiting for a channel"]);
        start("with-hub", park_with_hub);
        start("without", park_without_hub);
        exit_by_alarm(&REPORTS);
        let error = wait_in_vain();
        panic!("a deadlock of several threads ends no wait: {error}");
    });
}

#[test]
fn a_deadlock_of_threads_without_hubs_is_reported_once() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    static FIRST: Mutex<()> = Mutex::new(());
    static SECOND: Mutex<()> = Mutex::new(());
    in_fork_without_hub(|| {
        count_deadlocks(&REPORTS, 2, &["crosswise", "waiting for a lock"]);
        let _first = FIRST.lock().unwrap();
        let (sender, receiver) = channel();
        let crosswise = move || {
            let _second = SECOND.lock().unwrap();
            sender.send(()).unwrap();
            let _first = FIRST.lock().unwrap();
        };
        std::thread::Builder::new().name("crosswise".to_owned()).spawn(crosswise).unwrap();
        receiver.recv().unwrap();
        exit_by_alarm(&REPORTS);
        assert!(!greenhub::hub::has_hub());
        let _second = SECOND.lock();
    });
}

#[test]
fn a_hopeless_wait_of_the_only_thread_without_a_hub_is_reported_once() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    in_fork_without_hub(|| {
        count_deadlocks(&REPORTS, 1, &["waiting for a channel"]);
        exit_by_alarm(&REPORTS);
        park_without_hub();
    });
}

#[test]
fn a_recurring_deadlock_without_hubs_is_reported_again() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    in_fork_without_hub(|| {
        let (sender, receiver) = mpsc::channel();
        set_report_stream(move |report| {
            assert!(matches!(report, Report::Deadlock { .. }), "{report}");
            // A wait inside the report stream does not disturb the reported wait.
            let (_sender, late) = mpsc::channel::<()>();
            late.recv_timeout(Duration::from_millis(1)).unwrap_err();
            REPORTS.fetch_add(1, Ordering::SeqCst);
            sender.send(()).unwrap();
        });
        receiver.recv().unwrap();
        receiver.recv().unwrap();
        assert_eq!(REPORTS.load(Ordering::SeqCst), 2);
    });
}

/// Starts two pool threads, one of which stays idle in the test.
fn fill_pool() {
    let jobs = [(); 2].map(|()| spawn(|| tpool::execute(|| std::thread::sleep(Duration::from_millis(100))).unwrap()));
    jobs.into_iter().for_each(|job| job.join().unwrap());
}

#[test]
fn a_deadlock_of_main_and_its_job_is_reported_once() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    static LOCK: Mutex<()> = Mutex::new(());
    in_fork(|| {
        count_deadlocks(&REPORTS, 2, &["greenhub-pool", "main greenlet", "waiting for a lock"]);
        fill_pool();
        let _held = LOCK.lock().unwrap();
        exit_by_alarm(&REPORTS);
        let ended = tpool::execute(|| drop(LOCK.lock())).is_ok();
        panic!("the job has ended: {ended}");
    });
}

#[test]
fn a_deadlock_of_main_and_a_green_thread_that_waits_for_a_job_is_reported_once() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    static MAINS: Mutex<()> = Mutex::new(());
    static OTHER: Mutex<()> = Mutex::new(());
    in_fork(|| {
        count_deadlocks(&REPORTS, 3, &["greenhub-pool", "main greenlet", "deadlock.rs"]);
        let _held = MAINS.lock().unwrap();
        spawn(|| {
            let _other = OTHER.lock().unwrap();
            tpool::execute(|| drop(MAINS.lock())).unwrap();
        });
        yield_now();
        exit_by_alarm(&REPORTS);
        drop(OTHER.lock());
        panic!("main has got the lock");
    });
}

#[test]
fn a_job_queued_behind_a_deadlocked_job_does_not_hide_the_deadlock() {
    static LOCK: Mutex<()> = Mutex::new(());
    in_fork(|| {
        // The idle threads belong to another pool, and take no job of the pool below.
        fill_pool();
        assert_eq!(idle_pool_threads(), 2);
        set_report_stream(|report| match report {
            // The report lists main, the first job, and the green thread that waits for that job. It does not wait for
            // the end of the idle threads.
            Report::Deadlock { threads } => exit(i32::from(threads.len() != 3 || idle_pool_threads() != 2)),
            // The warning concerns the queued job, which starts late.
            Report::Warning(_) => {}
            _ => exit(1),
        });
        let pool = std::rc::Rc::new(tpool::Pool::new(1));
        let first = std::rc::Rc::clone(&pool);
        let _held = LOCK.lock().unwrap();
        spawn(move || first.execute(|| drop(LOCK.lock())));
        yield_now();
        let ended = pool.execute(|| ()).is_ok();
        panic!("the queued job has ended: {ended}");
    });
}

#[test]
fn a_job_queued_behind_a_running_job_is_no_deadlock() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    in_fork(|| {
        set_report_stream(|report| match report {
            Report::Warning(_) => {}
            _ => _ = REPORTS.fetch_add(1, Ordering::SeqCst),
        });
        let pool = std::rc::Rc::new(tpool::Pool::new(1));
        let first = std::rc::Rc::clone(&pool);
        // The main loop checks for a deadlock twice in this time.
        spawn(move || first.execute(|| std::thread::sleep(Duration::from_millis(3500))));
        yield_now();
        assert_eq!(pool.execute(|| 1).unwrap(), 1);
        assert_eq!(REPORTS.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_job_that_another_thread_serves_late_brings_no_report() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    in_fork(|| {
        set_report_stream(|_| _ = REPORTS.fetch_add(1, Ordering::SeqCst));
        greenhub::debug::set_quiet_time(Some(Duration::from_millis(5)));
        fill_pool();
        let (sender, receiver) = mpsc::channel();
        let other = std::thread::spawn(move || {
            // The main loop and the job check for a deadlock twice in this time.
            std::thread::sleep(Duration::from_millis(3500));
            sender.send(1).unwrap();
        });
        assert_eq!(tpool::execute(move || receiver.recv()).unwrap(), Ok(1));
        assert_eq!(REPORTS.load(Ordering::SeqCst), 0);
        other.join().unwrap();
    });
}

#[test]
fn a_recurring_deadlock_is_reported_again() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    in_fork(|| {
        let (sender, receiver) = mpsc::channel();
        set_report_stream(move |report| {
            assert!(matches!(report, Report::Deadlock { .. }), "{report}");
            REPORTS.fetch_add(1, Ordering::SeqCst);
            sender.send(()).unwrap();
        });
        start("without", park_without_hub);
        receiver.recv().unwrap();
        receiver.recv().unwrap();
        assert_eq!(REPORTS.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn the_end_of_the_last_other_thread_is_noticed() {
    in_fork(|| {
        let (end, ended) = channel::<()>();
        let other = std::thread::spawn(move || ended.recv().is_ok());
        end_on_quiet_report(end);
        let error = wait_in_vain();
        assert!(error.contains("block forever"), "{error}");
        assert!(other.is_finished());
    });
}

/// Ends the other OS thread after the main loop's first check.
fn end_on_quiet_report(end: Sender<()>) {
    set_report_stream(move |report| {
        assert!(matches!(report, Report::Quiet { .. }), "{report}");
        let _ = end.send(());
    });
    greenhub::debug::set_quiet_time(Some(Duration::from_secs(1)));
}
