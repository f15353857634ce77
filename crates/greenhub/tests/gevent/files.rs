//! Watchers of files.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::support::descriptors::until;
use crate::support::fork::{ends_well, forked};
use crate::support::web_server::Directory;
use crate::support::{alone, in_child, open_descriptors, run};
use crate::{LONG, Log, SHORT, give_up_all_numbers};
use greenhub::gevent::{Run, Stat, StatEvent, Watcher, event_loop};
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn, tpool};

/// The shortest period.
const PERIOD: Duration = Duration::from_millis(100);

/// Returns an active watcher, and the log of its calls.
fn logged(path: &Path, every: Duration) -> (Stat, Log<StatEvent>) {
    let (watcher, log) = (event_loop().stat(path, every), Log::new());
    let calls = log.clone();
    watcher.start(move |_, change| calls.push(change)).unwrap();
    (watcher, log)
}

/// Puts a file of `size` bytes at `path` in one step.
///
/// The system changes the times of a file before its size, so that a look during a write finds half of a change.
pub(crate) fn put(directory: &Directory, path: &Path, size: usize) {
    directory.write("new", &"x".repeat(size));
    fs::rename(directory.path().join("new"), path).unwrap();
}

/// Returns the sizes before and after each change.
fn sizes(log: &Log<StatEvent>) -> Vec<(Option<u64>, Option<u64>)> {
    let size = |attr: Option<fs::Metadata>| attr.map(|attr| attr.len());
    log.take().into_iter().map(|change| (size(change.prev), size(change.attr))).collect()
}

fn file() -> (Directory, PathBuf) {
    let directory = Directory::new();
    let path = directory.path().join("watched");
    (directory, path)
}

#[test]
fn a_change_is_told_at_once_after_the_descriptor_of_notices_was_given_up() {
    run("a_change_is_told_at_once_after_the_descriptor_of_notices_was_given_up", || {
        let (directory, path) = file();
        let (_watcher, log) = logged(&path, LONG);
        put(&directory, &path, 1);
        until(|| log.len() == 1);
        assert_eq!(sizes(&log), [(None, Some(1))]);
        give_up_all_numbers();
        put(&directory, &path, 2);
        until(|| log.len() == 1);
        assert_eq!(sizes(&log), [(Some(1), Some(2))], "a change before the new listener");
        put(&directory, &path, 3);
        until(|| log.len() == 1);
        assert_eq!(sizes(&log), [(Some(2), Some(3))]);
    });
}

#[test]
fn each_change_of_a_file_is_told_once() {
    run("each_change_of_a_file_is_told_once", || {
        let (directory, path) = file();
        let (watcher, log) = logged(&path, PERIOD);
        let told = |expected| {
            until(|| log.len() == 1);
            sleep(3 * PERIOD / 2);
            assert_eq!(sizes(&log), [expected]);
        };
        put(&directory, &path, 1);
        told((None, Some(1)));
        put(&directory, &path, 3);
        told((Some(1), Some(3)));
        let before = watcher.attr().unwrap().ino();
        put(&directory, &path, 3);
        told((Some(3), Some(3)));
        assert_ne!(watcher.attr().unwrap().ino(), before, "another file");
        fs::remove_file(&path).unwrap();
        told((Some(3), None));
        assert!(watcher.attr().is_none());
        assert_eq!((watcher.path(), watcher.every()), (&*path, PERIOD));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_change_is_told_without_waiting_for_the_period() {
    run("a_change_is_told_without_waiting_for_the_period", || {
        let (directory, path) = file();
        let (_watcher, log) = logged(&path, LONG);
        // Notices come once the first look has set the watches.
        sleep(PERIOD);
        put(&directory, &path, 1);
        until(|| log.len() == 1);
        put(&directory, &path, 0);
        until(|| log.len() == 2);
        fs::remove_file(&path).unwrap();
        until(|| log.len() == 3);
        directory.write("other", "");
        sleep(PERIOD);
        assert_eq!(sizes(&log), [(None, Some(1)), (Some(1), Some(0)), (Some(0), None)]);
    });
}

#[test]
fn a_change_without_a_notice_is_found_after_a_period() {
    run("a_change_without_a_notice_is_found_after_a_period", || {
        let (directory, _) = file();
        // The directory does not exist, so there is nothing to give notices.
        let path = directory.path().join("inner").join("watched");
        let (_watcher, log) = logged(&path, PERIOD);
        sleep(PERIOD / 2);
        fs::create_dir(path.parent().unwrap()).unwrap();
        put(&directory, &path, 2);
        until(|| log.len() == 1);
        assert_eq!(sizes(&log), [(None, Some(2))]);
    });
}

#[test]
fn a_period_has_a_minimum_and_a_default() {
    run("a_period_has_a_minimum_and_a_default", || {
        let every = |every| event_loop().stat("/", every).every();
        assert_eq!(every(SHORT), PERIOD);
        assert_eq!(every(Duration::ZERO), Duration::from_secs(5));
        assert_eq!(every(LONG), LONG);
    });
}

#[test]
fn a_change_before_the_start_is_told_at_the_start() {
    run("a_change_before_the_start_is_told_at_the_start", || {
        let (directory, path) = file();
        let watcher = event_loop().stat(&path, LONG);
        put(&directory, &path, 4);
        let change = watcher.wait(None).unwrap();
        assert!(change.prev.is_none() && change.attr.is_some_and(|attr| attr.len() == 4));
        assert!(watcher.wait(SHORT).is_err(), "it is told once");
    });
}

#[test]
fn a_watcher_made_in_a_callback_is_told_of_later_changes() {
    run("a_watcher_made_in_a_callback_is_told_of_later_changes", || {
        let (directory, path) = file();
        put(&directory, &path, 1);
        let (made, log) = (Rc::new(RefCell::new(None)), Log::new());
        let (slot, calls, watched) = (Rc::clone(&made), log.clone(), path.clone());
        event_loop().run_callback(move || {
            let watcher = event_loop().stat(&watched, PERIOD);
            watcher.start(move |_, change| calls.push(change)).unwrap();
            slot.replace(Some(watcher));
        });
        until(|| made.borrow().as_ref().is_some_and(|watcher: &Stat| watcher.attr().is_some()));
        assert_eq!(log.len(), 0, "the first look has nothing to compare");
        put(&directory, &path, 2);
        until(|| log.len() == 1);
        assert_eq!(sizes(&log), [(Some(1), Some(2))]);
        made.take();
    });
}

#[test]
fn reading_a_file_is_no_change() {
    run("reading_a_file_is_no_change", || {
        let (directory, path) = file();
        put(&directory, &path, 4);
        let (_watcher, log) = logged(&path, PERIOD);
        fs::read(&path).unwrap();
        sleep(3 * PERIOD / 2);
        assert_eq!(log.len(), 0);
    });
}

#[test]
fn all_watchers_of_a_file_and_of_its_neighbors_are_told() {
    run("all_watchers_of_a_file_and_of_its_neighbors_are_told", || {
        let (directory, path) = file();
        let other = directory.path().join("other");
        let watchers = [logged(&path, PERIOD), logged(&path, PERIOD), logged(&other, PERIOD)];
        sleep(PERIOD);
        put(&directory, &path, 1);
        until(|| watchers[0].1.len() == 1 && watchers[1].1.len() == 1);
        watchers[0].0.stop();
        put(&directory, &other, 1);
        until(|| watchers[2].1.len() == 1);
        put(&directory, &path, 2);
        until(|| watchers[1].1.len() == 2);
        assert_eq!(watchers[0].1.len(), 1);
    });
}

#[test]
fn a_callback_stops_and_drops_file_watchers() {
    run("a_callback_stops_and_drops_file_watchers", || {
        let (directory, path) = file();
        let (own, log): (Rc<RefCell<Vec<Stat>>>, _) = (Rc::default(), Log::new());
        for _ in 0..2 {
            let (watcher, slot, calls) = (event_loop().stat(&path, PERIOD), Rc::clone(&own), log.clone());
            watcher
                .start(move |watcher, _| {
                    calls.push(());
                    watcher.stop();
                    drop(slot.take());
                })
                .unwrap();
            own.borrow_mut().push(watcher);
        }
        put(&directory, &path, 1);
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn a_file_watcher_that_is_not_counted_does_not_keep_the_loop_alive() {
    run("a_file_watcher_that_is_not_counted_does_not_keep_the_loop_alive", || {
        let (directory, path) = file();
        let (watcher, log) = logged(&path, PERIOD);
        watcher.set_counted(false);
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        watcher.set_counted(true);
        assert!(event_loop().run(Run::NoWait).unwrap());
        put(&directory, &path, 1);
        until(|| log.len() == 1);
    });
}

#[test]
fn a_kill_ends_a_wait_for_a_file() {
    run("a_kill_ends_a_wait_for_a_file", || {
        let (directory, path) = file();
        let watcher = Rc::new(event_loop().stat(&path, PERIOD));
        let waited = Rc::clone(&watcher);
        let waiting = spawn(move || waited.wait(None));
        yield_now();
        waiting.kill();
        assert!(!watcher.is_active());
        put(&directory, &path, 1);
        assert!(watcher.wait(None).unwrap().attr.is_some());
    });
}

#[test]
fn a_storm_of_writes_ends_with_the_last_state() {
    run("a_storm_of_writes_ends_with_the_last_state", || {
        let (directory, path) = file();
        put(&directory, &path, 0);
        let (watcher, log) = logged(&path, PERIOD);
        let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
        for round in 0..10_000 {
            writer.write_all(b"x").unwrap();
            if round % 100 == 0 {
                sleep(Duration::ZERO);
            }
        }
        until(|| watcher.attr().is_some_and(|attr| attr.len() == 10_000));
        sleep(3 * PERIOD / 2);
        let sizes = sizes(&log);
        assert_eq!(sizes[0].0, Some(0));
        assert_eq!(sizes[sizes.len() - 1].1, Some(10_000));
        assert!(sizes.windows(2).all(|pair| pair[0].1 == pair[1].0), "no gap: {sizes:?}");
    });
}

#[test]
fn a_look_does_not_block_the_loop() {
    alone("a_look_does_not_block_the_loop", || {
        tpool::set_num_threads(NonZeroUsize::MIN);
        let (directory, path) = file();
        let (watcher, log) = logged(&path, PERIOD);
        sleep(PERIOD);
        let (release, released) = channel::<()>();
        let (begin, begun) = channel();
        let busy = spawn(move || {
            let job = move || {
                begin.send(()).unwrap();
                released.recv().unwrap();
            };
            tpool::execute(job).unwrap();
        });
        until(|| begun.try_recv().is_ok());
        put(&directory, &path, 1);
        // The only thread of the pool is busy, so no look ends.
        sleep(2 * PERIOD);
        assert_eq!((log.len(), watcher.attr().is_none()), (0, true));
        release.send(()).unwrap();
        busy.join().unwrap();
        until(|| log.len() == 1);
    });
}

#[test]
fn file_watchers_leave_no_descriptor_behind() {
    alone("file_watchers_leave_no_descriptor_behind", || {
        let (directory, path) = file();
        drop(event_loop().stat(&path, LONG));
        let before = open_descriptors();
        for size in 0..10 {
            let watchers = [logged(&path, PERIOD), logged(directory.path(), PERIOD)];
            assert!(open_descriptors() <= before + 1, "one descriptor for all");
            put(&directory, &path, size);
            until(|| watchers.iter().all(|(_, log)| log.len() > 0));
        }
        until(|| open_descriptors() == before);
        assert_eq!((get_hub().stats().timers, event_loop().counts().active), (0, 0));
    });
}

#[test]
fn parent_and_child_are_both_told_of_a_change() {
    in_child(|| {
        let (directory, path) = file();
        let (watcher, log) = logged(&path, if cfg!(target_os = "linux") { LONG } else { PERIOD });
        sleep(PERIOD);
        let change = || {
            put(&directory, &path, 3);
            until(|| log.len() == 1);
            assert_eq!(sizes(&log), [(None, Some(3))]);
        };
        let child = forked(|| {
            sleep(PERIOD);
            until(|| log.len() == 1);
        });
        change();
        ends_well(child);
        drop(watcher);
    });
}
