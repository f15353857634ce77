//! The effects of the library on a program: exhausted resources, warnings, version information, callbacks.

#![cfg(target_os = "linux")]

use std::cell::{Cell, RefCell};
use std::env;
use std::ffi::c_void;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hub_core::hub::{Hub, Interest, Key, Lease, Ready, Watched};
use hub_libevent::LibeventHub;
use hub_testkit::process::alone;

/// Set in the process of a single test. These tests change process-wide state.
const ALONE: &str = "HUB_LIBEVENT_ALONE";

/// Runs `case` in a process of its own, which must exit successfully.
fn in_a_process_of_its_own(test: &str, case: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        return case();
    }
    let output = alone(test, ALONE, "1");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
}

fn key(file: &impl AsRawFd) -> Key {
    Key::new(file.as_raw_fd(), 1)
}

#[test]
fn debug_shows_method_and_version() {
    let text = format!("{:?}", LibeventHub::new().unwrap());
    assert!(text.contains("version: \"2."), "{text}");
    assert!(text.contains("method: \"epoll\""), "{text}");
}

#[test]
fn a_hub_with_registered_descriptors_can_be_dropped() {
    let (reader, writer) = io::pipe().unwrap();
    for lease in [Lease::Life, Lease::Wait] {
        let mut hub = LibeventHub::new().unwrap();
        hub.watch(key(&reader), reader.as_fd(), Interest::READ, lease).unwrap();
        hub.watch(key(&writer), writer.as_fd(), Interest::BOTH, lease).unwrap();
    }
}

#[test]
fn creating_a_hub_fails_without_enough_descriptors() {
    in_a_process_of_its_own("creating_a_hub_fails_without_enough_descriptors", || {
        rustix::process::setrlimit(
            rustix::process::Resource::Nofile,
            rustix::process::Rlimit { current: Some(64), maximum: Some(64) },
        )
        .unwrap();
        let mut held: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        for _ in 0..8 {
            let error = LibeventHub::new().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
            held.pop();
        }
        LibeventHub::new().unwrap();
    });
}

#[test]
fn a_failed_allocation_in_the_library_is_an_error() {
    /// The number of further allocations of the library that succeed.
    static LEFT: AtomicUsize = AtomicUsize::new(0);

    fn may_have() -> bool {
        LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
    fn none() -> *mut c_void {
        // SAFETY: errno is thread-local.
        unsafe { *libc::__errno_location() = libc::ENOMEM };
        std::ptr::null_mut()
    }
    /// # Safety
    ///
    /// The same as for `malloc`.
    unsafe extern "C" fn allocate(size: usize) -> *mut c_void {
        // SAFETY: the caller upholds the contract of `malloc`, which is the same.
        if may_have() { unsafe { libc::malloc(size) } } else { none() }
    }
    /// # Safety
    ///
    /// The same as for `realloc`.
    unsafe extern "C" fn resize(memory: *mut c_void, size: usize) -> *mut c_void {
        // SAFETY: the caller upholds the contract of `realloc`; the memory came from `malloc`.
        if may_have() { unsafe { libc::realloc(memory, size) } } else { none() }
    }
    /// # Safety
    ///
    /// The same as for `free`.
    unsafe extern "C" fn free(memory: *mut c_void) {
        // SAFETY: the memory came from `malloc`.
        unsafe { libc::free(memory) };
    }
    type Allocate = unsafe extern "C" fn(usize) -> *mut c_void;
    type Resize = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
    type Free = unsafe extern "C" fn(*mut c_void);
    unsafe extern "C" {
        fn event_set_mem_functions(allocate: Allocate, resize: Resize, free: Free);
    }

    in_a_process_of_its_own("a_failed_allocation_in_the_library_is_an_error", || {
        // SAFETY: the functions belong to one allocator, and the library has not allocated yet.
        unsafe { event_set_mem_functions(allocate, resize, free) };
        let (reader, _writer) = io::pipe().unwrap();
        let use_hub = || {
            let mut hub = LibeventHub::new()?;
            hub.watch(key(&reader), reader.as_fd(), Interest::READ, Lease::Life)?;
            hub.wait(&Watched::new(), Some(Duration::from_micros(1)), &mut Ready::new())
        };
        let mut refused = 0;
        loop {
            LEFT.store(refused, Ordering::Relaxed);
            match use_hub() {
                Ok(()) => break,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "after {refused} allocations: {error}")
                }
            }
            refused += 1;
            assert!(refused < 1000, "the library still fails after {refused} allocations");
        }
        assert!(refused > 3, "the library has asked for memory {refused} times");
    });
}

#[test]
fn a_warning_of_the_library_is_reported() {
    in_a_process_of_its_own("a_warning_of_the_library_is_reported", || {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&reports);
        hub_core::set_report_stream(move |report| sink.lock().unwrap().push(report.to_string()));
        let mut hub = LibeventHub::new().unwrap();
        let set = fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .find(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().contains("eventpoll")));
        let set: i32 = set.expect("the set of the hub").file_name().to_str().unwrap().parse().unwrap();
        // SAFETY: only the library uses this number, and the test expects it to get EBADF.
        assert_eq!(unsafe { libc::close(set) }, 0);
        let error = hub.wait(&Watched::new(), Some(Duration::ZERO), &mut Ready::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        let reports = reports.lock().unwrap();
        assert!(reports.iter().any(|text| text.starts_with("libevent: epoll_wait")), "{reports:?}");
    });
}

#[test]
fn an_error_returned_to_the_caller_is_not_reported_as_a_warning() {
    in_a_process_of_its_own("an_error_returned_to_the_caller_is_not_reported_as_a_warning", || {
        static REPORTS: AtomicUsize = AtomicUsize::new(0);
        hub_core::set_report_stream(|_| {
            REPORTS.fetch_add(1, Ordering::Relaxed);
        });
        let file = fs::File::open("/proc/self/exe").unwrap();
        let mut hub = LibeventHub::new().unwrap();
        let error = hub.watch(key(&file), file.as_fd(), Interest::READ, Lease::Wait).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert_eq!(REPORTS.load(Ordering::Relaxed), 0);
    });
}

/// Runs a main loop on this hub.
fn on_libevent(case: impl FnOnce()) {
    hub_core::use_hub_with(LibeventHub::new).unwrap();
    case();
    assert_eq!(hub_core::get_hub().name(), "libevent");
}

#[test]
fn timers_armed_before_the_first_turn_fire() {
    on_libevent(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        for millis in [3, 1, 2] {
            let log = Rc::clone(&log);
            hub_core::get_hub().schedule(Duration::from_millis(millis), move || log.borrow_mut().push(millis));
        }
        assert!(log.borrow().is_empty(), "a callback has run before main waits");
        hub_core::sleep(Duration::from_millis(10));
        assert_eq!(*log.borrow(), [1, 2, 3]);
    });
}

#[test]
fn a_removed_listener_is_not_called() {
    on_libevent(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        let other = reader.try_clone().unwrap();
        let registration = hub_core::get_hub().listen(reader, Interest::READ, |_| panic!("called")).unwrap();
        hub_core::yield_now();
        writer.write_all(b"x").unwrap();
        drop(registration);
        hub_core::sleep(Duration::from_millis(5));
        // The file is still open and is ready.
        hub_core::trampoline(&other, Interest::READ, Some(Duration::from_secs(10))).unwrap();
    });
}

#[test]
fn a_panicking_callback_does_not_unwind_through_the_library() {
    on_libevent(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        let called = Rc::new(Cell::new(0));
        let calls = Rc::clone(&called);
        let registration = hub_core::get_hub().listen(reader, Interest::READ, move |_| {
            calls.set(calls.get() + 1);
            panic!("a listener that fails");
        });
        writer.write_all(b"x").unwrap();
        hub_core::sleep(Duration::from_millis(5));
        assert!(called.get() > 0);
        drop(registration);
        hub_core::sleep(Duration::from_millis(1));
    });
}
