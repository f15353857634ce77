//! How green threads end with their OS thread: abandoned at an implicit end, unwound by a shutdown.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::support::fork::{exits_with, forked};
use crate::support::green;
use crate::support::green::{LONG, OnDrop, SHORT};
use crate::support::{is_child, open_descriptors, rerun, run};
use greenhub::future::{block_on, defer_to_green_thread};
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::greenthread::KillOutcome;
use greenhub::hub::{Ended, LoopError, LoopErrorKind};
use greenhub::sync::{Mutex, Semaphore};
use greenhub::thread::{os, yield_now};
use greenhub::tpool::execute_scoped;
use greenhub::{GreenError, GreenThread, get_hub, scope, sleep, spawn, spawn_after, spawn_n};

/// Longer than a shutdown takes on a busy machine, and shorter than the watchdogs.
const LIMIT: Option<Duration> = Some(Duration::from_secs(60));

/// Runs this test again in a process of its own, which aborts if it hangs. Returns `None` in that process.
fn in_own_process(test: &str, variant: &str) -> Option<Output> {
    if is_child() {
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_secs(60));
            eprintln!("the process hangs");
            std::process::abort();
        });
        return None;
    }
    Some(rerun(test, |command| _ = command.env("GREENHUB_TEST_VARIANT", variant)))
}

fn variant() -> String {
    std::env::var("GREENHUB_TEST_VARIANT").unwrap_or_default()
}

#[track_caller]
fn ended_with(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

/// Runs `f` on an OS thread of std, which ends implicitly.
fn on_std_thread<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().name("ends implicitly".into()).spawn(f).unwrap().join().unwrap()
}

fn park_for_long() {
    spawn_n(|| sleep(LONG));
    yield_now();
}

// ---- the implicit end --------------------------------------------------------------------------

#[test]
fn implicit_end_abandons_green_threads_and_reports_them_once() {
    let test = "implicit_end_abandons_green_threads_and_reports_them_once";
    let Some(output) = in_own_process(test, "") else {
        on_std_thread(|| {
            for _ in 0..2 {
                spawn_n(|| {
                    let _end = OnDrop(|| println!("unwound"));
                    sleep(LONG);
                });
            }
            spawn_n(|| {
                let _end = OnDrop(|| println!("unwound"));
                scope(|s| {
                    s.spawn(|| sleep(LONG));
                });
            });
            yield_now();
            let not_begun = OnDrop(|| println!("dropped"));
            spawn_n(move || drop(not_begun));
            let sent = OnDrop(|| println!("dropped"));
            get_hub().remote().spawn(move || drop(sent)).unwrap();
        });
        return;
    };
    ended_with(&output, 0);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!out.contains("unwound") && !out.contains("dropped"), "{out}");
    assert_eq!(err.matches("abandoned").count(), 1, "{err}");
    assert!(err.contains("OS thread \"ends implicitly\" abandoned 6 green threads"), "{err}");
    assert!(err.contains("2 × spawned at crates/greenhub/tests/it/thread_end.rs"), "{err}");
    assert!(err.contains("waiting for a green thread") && err.contains(":23, not begun"), "{err}");
    assert!(err.contains("sent by another OS thread, not begun"), "{err}");
}

#[test]
fn implicit_end_without_green_threads_reports_nothing() {
    let test = "implicit_end_without_green_threads_reports_nothing";
    let Some(output) = in_own_process(test, "") else {
        on_std_thread(|| {
            spawn(|| sleep(SHORT)).join().unwrap();
            get_hub().schedule(LONG, || ());
            assert!(spawn(|| 1).kill() == greenhub::greenthread::KillOutcome::Cancelled);
        });
        return;
    };
    ended_with(&output, 0);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("greenhub"), "{output:?}");
}

/// The OS thread that calls `fork` is the main thread of the child.
#[test]
fn end_of_the_main_thread_reports_nothing_and_unwinds_nothing() {
    let test = "end_of_the_main_thread_reports_nothing_and_unwinds_nothing";
    let Some(output) = in_own_process(test, "") else {
        let child = forked(|| {
            spawn_n(|| {
                let _end = OnDrop(|| eprintln!("unwound"));
                sleep(LONG);
            });
            yield_now();
            std::process::exit(7);
        });
        exits_with(child, 7);
        return;
    };
    ended_with(&output, 0);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(!printed.contains("abandoned") && !printed.contains("unwound"), "{output:?}");
}

/// A thread-local that a parked green thread borrows, and writes to while it unwinds.
#[derive(Default)]
struct Lines(RefCell<Vec<String>>);

struct WritesOnDrop<'a>(&'a Lines);

impl Drop for WritesOnDrop<'_> {
    fn drop(&mut self) {
        self.0.0.borrow_mut().push("end".to_owned());
        println!("{:?}", self.0.0.borrow());
    }
}

thread_local!(static LINES: Lines = Lines::default());

fn park_in_a_thread_local() {
    spawn_n(|| {
        LINES.with(|lines| {
            lines.0.borrow_mut().push("begin, long enough to be on the heap".to_owned());
            let _end = WritesOnDrop(lines);
            sleep(LONG);
        });
    });
    yield_now();
}

#[test]
fn implicit_end_does_not_enter_a_green_thread_that_borrows_a_thread_local() {
    let test = "implicit_end_does_not_enter_a_green_thread_that_borrows_a_thread_local";
    let Some(output) = in_own_process(test, "") else { return on_std_thread(park_in_a_thread_local) };
    ended_with(&output, 0);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("end\"]"), "{output:?}");
}

#[test]
fn os_thread_unwinds_a_green_thread_while_its_thread_local_lives() {
    let test = "os_thread_unwinds_a_green_thread_while_its_thread_local_lives";
    let Some(output) = in_own_process(test, "") else { return os::spawn(park_in_a_thread_local).join().unwrap() };
    ended_with(&output, 0);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("[\"begin, long enough to be on the heap\", \"end\"]"), "{output:?}");
}

/// Destructors of thread-locals run in the reverse order of their initialization there.
#[test]
#[cfg(target_os = "linux")]
fn implicit_end_comes_before_the_end_of_thread_locals_older_than_a_wait() {
    struct Looks(mpsc::Sender<bool>);
    impl Drop for Looks {
        fn drop(&mut self) {
            let _ = self.0.send(greenhub::try_get_hub().is_err());
        }
    }
    thread_local!(static LOOKS: RefCell<Option<Looks>> = const { RefCell::new(None) });
    let (sender, receiver) = mpsc::channel();
    on_std_thread(|| {
        // The state of the thread is older than the thread-local, and the wait is younger.
        sleep(SHORT);
        LOOKS.set(Some(Looks(sender)));
        sleep(SHORT);
    });
    assert_eq!(receiver.recv(), Ok(true));
}

#[test]
fn implicit_end_of_an_idle_thread_frees_all_stacks() {
    let test = "implicit_end_of_an_idle_thread_frees_all_stacks";
    let Some(output) = in_own_process(test, "") else {
        let once = || on_std_thread(|| spawn(|| sleep(SHORT)).join().unwrap());
        once();
        let before = mapped();
        (0..8).for_each(|_| once());
        // The stack of a main loop would keep a slab of 16 stacks mapped each time.
        let grown = mapped().saturating_sub(before);
        assert!(grown < 2 << 20, "{grown} bytes more are mapped");
        return;
    };
    ended_with(&output, 0);
}

#[test]
fn implicit_end_closes_the_hub_and_frees_unused_stacks() {
    let test = "implicit_end_closes_the_hub_and_frees_unused_stacks";
    let Some(output) = in_own_process(test, "") else {
        greenhub::debug::hub_exceptions(false);
        let once = || {
            on_std_thread(|| {
                // A slab full of stacks of another size, all unused when the OS thread ends.
                let one = || greenhub::Builder::new().stack_size(1 << 20).spawn(yield_now).unwrap();
                let many: Vec<_> = (0..40).map(|_| one()).collect();
                many.into_iter().for_each(|one| one.join().unwrap());
                park_for_long();
            });
        };
        once();
        let descriptors = open_descriptors();
        let mut growths: Vec<_> = (0..9)
            .map(|_| {
                let before = mapped();
                once();
                mapped().saturating_sub(before)
            })
            .collect();
        assert_eq!(open_descriptors(), descriptors);
        // Each abandoned green thread keeps a slab of 16 small stacks mapped, and none of 16 MiB or more. The median
        // leaves out an arena that the allocator maps for an OS thread.
        growths.sort_unstable();
        assert!(growths[4] < 8 << 20, "{growths:?} bytes more are mapped");
        return;
    };
    ended_with(&output, 0);
}

/// Returns the number of mapped bytes of this process.
fn mapped() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
}

// ---- exit ------------------------------------------------------------------------------------------

/// Takes a lock in its destructor.
struct Locks(Arc<std::sync::Mutex<()>>);

impl Drop for Locks {
    fn drop(&mut self) {
        drop(self.0.lock());
    }
}

#[test]
fn exit_does_not_wait_for_a_lock_that_the_caller_holds() {
    let test = "exit_does_not_wait_for_a_lock_that_the_caller_holds";
    for held_by in ["parked", "not begun", "delayed", "callback", "remote", "report", "detector"] {
        let Some(output) = in_own_process(test, held_by) else {
            let mutex = Arc::new(std::sync::Mutex::new(()));
            let (locks, lock) = (Locks(mutex.clone()), mutex.clone());
            return on_std_thread(move || {
                match variant().as_str() {
                    "parked" => {
                        spawn_n(move || {
                            let _locks = locks;
                            sleep(LONG);
                        });
                        yield_now();
                    }
                    "not begun" => spawn_n(move || drop(locks)),
                    "delayed" => drop(spawn_after(LONG, move || drop(locks))),
                    "callback" => drop(get_hub().schedule(LONG, move || _ = &locks)),
                    "remote" => get_hub().remote().spawn(move || drop(locks)).unwrap(),
                    "detector" => {
                        // The detector's watchdog reports the sleep below, and waits for the lock in the report stream.
                        greenhub::debug::set_report_stream(move |_| drop(locks.0.lock()));
                        greenhub::debug::hub_blocking_detection(SHORT).unwrap();
                        sleep(SHORT);
                    }
                    _ => {
                        greenhub::debug::set_report_stream(move |_| drop(locks.0.lock()));
                        park_for_long();
                    }
                }
                let _held = lock.lock();
                std::thread::sleep(20 * SHORT);
                std::process::exit(7);
            });
        };
        ended_with(&output, 7);
    }
}

#[test]
fn exit_does_not_wait_for_a_borrowing_job() {
    let test = "exit_does_not_wait_for_a_borrowing_job";
    let Some(output) = in_own_process(test, "") else {
        return on_std_thread(|| {
            spawn_n(|| {
                let mut done = false;
                let _ = execute_scoped(|| {
                    std::thread::sleep(LONG);
                    done = true;
                });
            });
            yield_now();
            std::process::exit(7);
        });
    };
    ended_with(&output, 7);
}

// ---- destructors of thread-locals --------------------------------------------------------------------

/// Suffix of a variant: `exit` is called on the stack of a green thread.
const ON_A_GREEN_THREAD: &str = ", exit on a green thread";

/// Calls the variant's operation of [`BLOCKING`] in its destructor.
struct Blocks(Cell<bool>);

impl Drop for Blocks {
    fn drop(&mut self) {
        if self.0.get() {
            (BLOCKING.iter().find(|(name, _)| *name == variant().trim_end_matches(ON_A_GREEN_THREAD)).unwrap().1)();
        }
    }
}

fn source() -> greenhub::park::Source {
    let (reader, writer) = std::io::pipe().unwrap();
    std::mem::forget(writer);
    greenhub::park::Source::new(reader.into()).unwrap()
}

#[track_caller]
fn timed_out(error: std::io::Error) {
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error:?}");
}

/// The operations that block, or may block.
const BLOCKING: &[(&str, fn())] = &[
    ("sleep", || sleep(Duration::from_millis(1))),
    ("yield_now", yield_now),
    ("block_on", || {
        assert_eq!(block_on(std::future::ready(1)), 1);
        let (sender, receiver) = futures_channel::oneshot::channel();
        let other = std::thread::spawn(move || {
            std::thread::sleep(SHORT);
            sender.send(2)
        });
        assert_eq!(block_on(receiver), Ok(2));
        other.join().unwrap().unwrap();
    }),
    ("a deferred", || assert!(block_on(defer_to_green_thread(|| 1)).is_err())),
    ("offload", || assert_eq!(greenhub::tpool::execute(|| 1).unwrap(), 1)),
    ("execute_scoped", || assert_eq!(execute_scoped(|| 1).unwrap(), 1)),
    ("tpool", || assert_eq!(greenhub::tpool::execute(|| 1).unwrap(), 1)),
    ("fs::read", || assert!(!greenhub::fs::read("/proc/self/stat").unwrap().is_empty())),
    ("spawn", || {
        let error = spawn(|| 1).join().unwrap_err();
        assert!(matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::ThreadEnding));
    }),
    ("spawn_n", || spawn_n(|| panic!("begun in a thread that has ended"))),
    ("spawn_after", || assert!(spawn_after(SHORT, || 1).join().is_err())),
    ("spawn_after_local", || assert!(greenhub::spawn_after_local(SHORT, || 1).join().is_err())),
    ("Builder", || assert!(greenhub::Builder::new().name("late".into()).spawn(|| 1).unwrap().join().is_err())),
    ("kill", || _ = spawn(|| 1).kill()),
    ("scope", || {
        let mut numbers = vec![3, 1, 2];
        let sum = scope(|s| {
            s.spawn(|| sleep(SHORT));
            let killed = s.spawn(|| panic!("killed before it begins"));
            killed.kill();
            let sorted = s.spawn(|| numbers.sort_unstable());
            s.spawn(|| s.spawn(|| 40).join().unwrap() + 2).join().unwrap() + i32::from(sorted.join().is_err())
        });
        assert_eq!((sum, numbers), (42, vec![1, 2, 3]));
    }),
    ("with_timeout", || assert!(greenhub::with_timeout(SHORT, || sleep(2 * SHORT)).is_ok())),
    ("with_timeout of zero", || assert!(greenhub::with_timeout(Duration::ZERO, yield_now).is_ok())),
    ("use_hub", || assert!(greenhub::use_hub("poll").is_err())),
    ("get_hub", || {
        let hub = get_hub();
        hub.schedule(SHORT, || ()).cancel();
        hub.abort();
        hub.interrupt();
        hub.trim_stacks();
        assert!(hub.run_once(None).is_err() && hub.shutdown(None).is_err() && hub.abort_wait().is_ok());
        assert!(hub.remote().is_gone() && hub.remote().spawn(|| ()).is_err());
        assert!(hub.listen(std::io::pipe().unwrap().0, greenhub::Interest::READ, |_| ()).is_err());
        let _ = (hub.stats(), hub.now(), hub.next_deadline(), hub.pollable(), hub.name(), greenhub::hub::has_hub());
    }),
    ("try_get_hub", || assert!(greenhub::try_get_hub().is_err())),
    ("GreenPool", || {
        let pool = greenhub::GreenPool::new(1);
        for _ in 0..3 {
            assert!(pool.spawn(|| 1).is_err_and(|_| true) || pool.running() <= 1);
        }
        let _ = pool.wait_all();
        pool.kill_all();
    }),
    ("Group", || {
        let group = greenhub::greenpool::Group::new();
        drop(group.spawn(|| 1).unwrap());
        let _ = group.wait_all();
        group.kill_all();
    }),
    ("Greenlet", || {
        let greenlet = Greenlet::new(Ok);
        assert!(greenlet.switch(Payload::unit()).is_err());
        assert!(Greenlet::current().switch(Payload::unit()).is_err());
        assert!(Greenlet::main().kill().is_err());
    }),
    ("trampoline", || {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(greenhub::trampoline(&reader, greenhub::Interest::READ, Some(SHORT)).is_err());
        let many = [(std::os::fd::AsFd::as_fd(&reader), greenhub::Interest::READ)];
        assert!(greenhub::park::trampoline_any(&many, &mut greenhub::park::Deadline::from(Some(SHORT))).is_err());
    }),
    ("Source", || {
        let source = source();
        assert!(source.wait(greenhub::Interest::READ, Some(SHORT)).is_err());
        let read =
            source.read(Some(SHORT), |fd| Ok((rustix::io::read(fd, &mut [0; 8])?, greenhub::park::ReadHint::Nothing)));
        assert!(read.is_err());
    }),
    ("TcpStream", || {
        use std::io::{Read, Write};
        let listener = greenhub::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut one = greenhub::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        other.write_all(b"x").unwrap();
        one.read_exact(&mut [0]).unwrap();
        assert!(one.read(&mut [0]).is_err(), "data has arrived within the grace period");
    }),
    ("select", || {
        let (reader, _writer) = std::io::pipe().unwrap();
        let mut fds = [greenhub::select::PollFd::new(&reader, greenhub::Interest::READ)];
        let _ = greenhub::select::poll(&mut fds, Some(SHORT));
    }),
    ("Mutex", || {
        let mutex = Mutex::new(1);
        assert_eq!(*mutex.lock().unwrap(), 1);
    }),
    ("Mutex of another thread", || {
        let mutex = Arc::new(Mutex::new(1));
        let (own, (locked, is_locked)) = (mutex.clone(), mpsc::channel());
        let other = std::thread::spawn(move || {
            let _held = own.lock().unwrap();
            locked.send(()).unwrap();
            std::thread::sleep(10 * SHORT);
        });
        is_locked.recv().unwrap();
        assert_eq!(*mutex.lock().unwrap(), 1);
        other.join().unwrap();
    }),
    ("channel", || {
        let (sender, receiver) = greenhub::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            std::thread::sleep(2 * SHORT);
            sender.send(1).unwrap();
        });
        assert_eq!(receiver.recv().unwrap(), 1);
        assert!(receiver.recv_timeout(SHORT).is_err());
        other.join().unwrap();
    }),
    ("Event", || drop(greenhub::sync::Event::<()>::new().wait_timeout(SHORT))),
    ("Queue", || assert!(greenhub::sync::Queue::<()>::new().get_timeout(SHORT).is_err())),
    ("Semaphore", || assert!(greenhub::sync::Semaphore::new(0).acquire_timeout(SHORT).is_err())),
    ("park", || greenhub::thread::park_timeout(SHORT)),
    ("Command", || {
        let status = greenhub::process::Command::new("true").status();
        assert!(status.is_ok_and(|status| status.success()));
    }),
    ("the output of a child", || {
        // The child ends when the writer is dropped.
        let (input, _writer) = std::io::pipe().unwrap();
        let child = greenhub::process::Command::new("cat").stdin(input).output();
        timed_out(child.unwrap_err());
    }),
    ("the end of a child", || {
        let (input, _writer) = std::io::pipe().unwrap();
        timed_out(greenhub::process::Command::new("cat").stdin(input).status().unwrap_err());
    }),
    ("FIFOs", || {
        let path = std::env::temp_dir().join(format!("greenhub-thread-end-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let opened = (greenhub::fs::File::open(&path), greenhub::fs::File::options().write(true).open(&path));
        std::fs::remove_file(path).unwrap();
        timed_out(opened.0.unwrap_err());
        timed_out(opened.1.unwrap_err());
    }),
    ("a server", || {
        let listener = greenhub::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let served = greenhub::net::serve(&listener, &greenhub::GreenPool::new(1), |_, _| ());
        assert!(served.is_err());
    }),
    ("green_local", || {
        greenhub::local::green_local!(static VALUE: u32 = 1);
        assert!(VALUE.try_with(|_| ()).is_err());
    }),
    ("lists", || {
        let _ =
            (greenhub::debug::greenlets(), greenhub::greenthread::current_id(), greenhub::greenthread::current_name());
        let _ = greenhub::thread::current().id();
        greenhub::park::notify_close(1_000);
    }),
    ("hub_blocking_detection", || {
        assert!(greenhub::debug::hub_blocking_detection(Some(LONG)).is_err());
    }),
    ("run_and_shutdown", || assert_eq!(os::run_and_shutdown(LIMIT, || 1), 1)),
];

/// Leaves thread-locals with blocking destructors, initialized before and after the first green thread.
fn block_at_the_end() {
    thread_local! {
        static LAST: Blocks = const { Blocks(Cell::new(false)) };
        static BEFORE: Blocks = const { Blocks(Cell::new(false)) };
        static AFTER: Blocks = const { Blocks(Cell::new(false)) };
    }
    LAST.with(|blocks| blocks.0.set(true));
    BEFORE.with(|blocks| blocks.0.set(true));
    assert_eq!(spawn(|| 1).join().unwrap(), 1);
    AFTER.with(|blocks| blocks.0.set(true));
    park_for_long();
}

/// Each operation runs in a process of its own, since a failure ends the process.
#[test]
fn blocking_operations_in_thread_local_destructors_do_not_abort() {
    let test = "blocking_operations_in_thread_local_destructors_do_not_abort";
    if is_child() {
        assert!(in_own_process(test, "").is_none());
        greenhub::debug::hub_exceptions(false);
        on_std_thread(block_at_the_end);
        os::spawn(block_at_the_end).join().unwrap();
        let exit = || std::process::exit(7);
        return on_std_thread(move || {
            block_at_the_end();
            if variant().ends_with(ON_A_GREEN_THREAD) { spawn(exit).join().unwrap() } else { exit() }
        });
    }
    // The variants alternate; both for each operation would double the time.
    let mut variants = 0;
    let failed: Vec<_> = BLOCKING
        .iter()
        .filter_map(|(name, _)| {
            let stack = if variants % 2 == 0 { "" } else { ON_A_GREEN_THREAD };
            variants += 1;
            let output = in_own_process(test, &format!("{name}{stack}"))?;
            let failed = output.status.code() != Some(7);
            failed.then(|| format!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_late_destructor_waits_for_another_os_thread_without_a_limit() {
    let test = "a_late_destructor_waits_for_another_os_thread_without_a_limit";
    static LOCK: Mutex<()> = Mutex::new(());
    static PERMITS: Semaphore = Semaphore::new(0);
    static SERVED: AtomicUsize = AtomicUsize::new(0);
    struct Waits(mpsc::Sender<()>, greenhub::sync::mpsc::Receiver<u8>);
    impl Drop for Waits {
        fn drop(&mut self) {
            assert!(greenhub::try_get_hub().is_err(), "the thread has not ended");
            self.0.send(()).unwrap();
            let locked = LOCK.lock().is_ok();
            SERVED.fetch_add(usize::from(locked), Ordering::SeqCst);
            let acquired = PERMITS.acquire().is_ok();
            SERVED.fetch_add(usize::from(acquired), Ordering::SeqCst);
            let received = self.1.recv().is_ok();
            SERVED.fetch_add(usize::from(received), Ordering::SeqCst);
        }
    }
    thread_local!(static WAITS: RefCell<Option<Waits>> = const { RefCell::new(None) });
    let Some(output) = in_own_process(test, "") else {
        let ((started, is_started), (sender, receiver)) = (mpsc::channel(), greenhub::sync::mpsc::channel());
        let serves = std::thread::spawn(move || {
            // Longer than the grace period that limits other waits of such a destructor.
            let pause = || std::thread::sleep(3 * greenhub::greenthread::panicking_grace());
            let held = LOCK.lock().unwrap();
            is_started.recv().unwrap();
            pause();
            drop(held);
            pause();
            PERMITS.release();
            pause();
            sender.send(1).unwrap();
        });
        on_std_thread(move || {
            // Initialized before the library's thread-locals, so destroyed after them.
            WAITS.with(|_| ());
            yield_now();
            WAITS.set(Some(Waits(started, receiver)));
        });
        serves.join().unwrap();
        return assert_eq!(SERVED.load(Ordering::SeqCst), 3);
    };
    ended_with(&output, 0);
}

#[test]
fn sleep_in_a_destructor_of_a_thread_local_does_not_switch() {
    let test = "sleep_in_a_destructor_of_a_thread_local_does_not_switch";
    struct Sleeps;
    impl Drop for Sleeps {
        fn drop(&mut self) {
            sleep(4 * SHORT);
        }
    }
    thread_local! {
        static SLEEPS: Sleeps = const { Sleeps };
        static LENT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }
    let Some(output) = in_own_process(test, "") else {
        return on_std_thread(|| {
            spawn_n(|| {
                LENT.with(|lent| {
                    lent.borrow_mut().push("a string on the heap".into());
                    sleep(SHORT);
                    println!("switched to");
                });
            });
            SLEEPS.with(|_| ());
            yield_now();
        });
    };
    ended_with(&output, 0);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("switched to"), "{output:?}");
}

// ---- the explicit end ------------------------------------------------------------------------------

#[test]
fn shutdown_unwinds_started_and_cancels_unstarted_green_threads() {
    run("shutdown_unwinds_started_and_cancels_unstarted_green_threads", || {
        static DROPPED: AtomicUsize = AtomicUsize::new(0);
        let drops = || OnDrop(|| _ = DROPPED.fetch_add(1, Ordering::SeqCst));
        let one = drops();
        let parked = spawn(move || {
            let _one = one;
            sleep(LONG);
        });
        let one = drops();
        let greenlet = Greenlet::new(move |_| {
            let _one = one;
            Greenlet::main().switch(Payload::unit())
        });
        greenlet.switch(Payload::unit()).unwrap();
        yield_now();
        let (one, other) = (drops(), drops());
        let unstarted = spawn(move || drop(one));
        let delayed = spawn_after(LONG, move || drop(other));
        let one = drops();
        get_hub().schedule(LONG, move || _ = &one);
        let descriptors = greenhub::hub::has_hub();
        let ended = get_hub().shutdown(LIMIT).unwrap();
        assert!(descriptors && !greenhub::hub::has_hub());
        assert_eq!((ended.unwound, ended.cancelled, ended.abandoned), (2, 2, 0));
        assert!(ended.is_complete());
        assert_eq!(DROPPED.load(Ordering::SeqCst), 5);
        for green in [parked, unstarted, delayed] {
            assert!(
                matches!(green.join(), Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::ThreadEnding)
            );
        }
        assert!(greenlet.is_dead());
        // The next use builds another hub.
        assert_eq!(spawn(|| 1).join().unwrap(), 1);
        sleep(SHORT);
        let nothing = get_hub().shutdown(LIMIT).unwrap();
        assert_eq!(nothing, Ended::default());
    });
}

#[test]
fn shutdown_waits_for_blocking_destructors() {
    run("shutdown_waits_for_blocking_destructors", || {
        let (sender, ends) = mpsc::channel();
        for _ in 0..3 {
            let sender = sender.clone();
            spawn_n(move || {
                let _end = OnDrop(move || {
                    let late = std::thread::panicking();
                    let _ = sender.send(late);
                });
                let caught = std::panic::catch_unwind(|| sleep(LONG));
                assert!(caught.is_err());
                execute_scoped(|| std::thread::sleep(SHORT)).unwrap();
            });
        }
        yield_now();
        let ended = get_hub().shutdown(LIMIT).unwrap();
        assert_eq!((ended.unwound, ended.abandoned), (3, 0));
        assert_eq!(ends.try_iter().count(), 3);
    });
}

#[test]
fn shutdown_waits_for_borrowing_jobs() {
    run("shutdown_waits_for_borrowing_jobs", || {
        let (go, wait) = mpsc::channel::<()>();
        let green = spawn(move || {
            let mut done = false;
            let lent = &mut done;
            execute_scoped(move || {
                let _ = wait.recv();
                *lent = true;
            })
            .unwrap();
            assert!(done);
            sleep(LONG);
            unreachable!("the exit strikes at the first wait after the job");
        });
        yield_now();
        let other = std::thread::spawn(move || {
            std::thread::sleep(4 * SHORT);
            drop(go);
        });
        let ended = get_hub().shutdown(LIMIT).unwrap();
        assert_eq!((ended.unwound, ended.abandoned), (1, 0));
        assert!(matches!(green.join(), Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::ThreadEnding));
        other.join().unwrap();
    });
}

#[test]
fn shutdown_continues_after_an_earlier_interrupt() {
    run("shutdown_continues_after_an_earlier_interrupt", || {
        let (go, wait) = mpsc::channel::<()>();
        spawn_n(move || execute_scoped(move || _ = wait.recv()).is_ok());
        spawn_n(|| get_hub().interrupt());
        yield_now();
        let other = std::thread::spawn(move || {
            std::thread::sleep(4 * SHORT);
            drop(go);
        });
        let ended = get_hub().shutdown(LIMIT).unwrap();
        assert_eq!((ended.unwound, ended.abandoned), (1, 0));
        other.join().unwrap();
        // The interrupt does not affect the next loop.
        sleep(SHORT);
    });
}

#[test]
fn shutdown_abandons_remaining_green_threads_at_its_deadline() {
    run("shutdown_abandons_remaining_green_threads_at_its_deadline", || {
        green::keep_reports();
        static DROPPED: AtomicUsize = AtomicUsize::new(0);
        let (go, wait) = mpsc::channel::<()>();
        let refuses = spawn(move || {
            let _end = OnDrop(|| _ = DROPPED.fetch_add(1, Ordering::SeqCst));
            scope(|s| {
                s.spawn(|| execute_scoped(move || _ = wait.recv()).unwrap());
            });
        });
        let ends = std::rc::Rc::new(Cell::new(0));
        let (linked, joined) = (ends.clone(), ends.clone());
        refuses.link(move |_| linked.set(linked.get() + 1));
        let joins = spawn(move || refuses.join());
        joins.link(move |_| joined.set(joined.get() + 1));
        sleep(4 * SHORT);
        let ended = get_hub().shutdown(Some(4 * SHORT)).unwrap();
        assert_eq!((ended.unwound, ended.cancelled, ended.abandoned), (1, 0, 2));
        assert_eq!(DROPPED.load(Ordering::SeqCst), 0);
        assert_eq!(ends.get(), 2);
        // The job ends, but its abandoned caller is not woken.
        drop(go);
        for _ in 0..3 {
            sleep(SHORT);
        }
        assert_eq!(spawn(|| 1).join().unwrap(), 1);
        assert_eq!(DROPPED.load(Ordering::SeqCst), 0);
        assert!(get_hub().shutdown(LIMIT).unwrap().is_complete(), "abandoned once");
    });
}

/// Kills its green thread when it is dropped.
struct Kills(GreenThread<()>, mpsc::Sender<(KillOutcome, bool)>);

impl Drop for Kills {
    fn drop(&mut self) {
        let outcome = self.0.kill();
        self.1.send((outcome, self.0.cancel())).unwrap();
    }
}

#[test]
fn kill_of_an_abandoned_green_thread_finds_it_dead() {
    run("kill_of_an_abandoned_green_thread_finds_it_dead", || {
        thread_local! {
            static LATE: RefCell<Option<Kills>> = const { RefCell::new(None) };
        }
        green::keep_reports();
        let (sender, outcomes) = mpsc::channel();
        on_std_thread(move || {
            // Registered before the library's own thread-locals, so destroyed after them.
            LATE.set(None);
            let parked = spawn(|| sleep(LONG));
            yield_now();
            LATE.set(Some(Kills(parked, sender)));
        });
        assert_eq!(outcomes.recv().unwrap(), (KillOutcome::Dead, false));
    });
}

#[test]
fn shutdown_is_refused_outside_of_main_and_within_its_scopes() {
    run("shutdown_is_refused_outside_of_main_and_within_its_scopes", || {
        let refused = |result: Result<Ended, LoopError>| {
            result.is_err_and(|error| error.kind() == LoopErrorKind::ShutdownRefused)
        };
        assert!(spawn(move || refused(get_hub().shutdown(LIMIT))).join().unwrap());
        scope(|s| {
            let child = s.spawn(|| sleep(SHORT));
            assert!(refused(get_hub().shutdown(LIMIT)));
            child.join().unwrap();
        });
        let (sender, was_refused) = mpsc::channel();
        get_hub().schedule(Duration::ZERO, move || {
            sender
                .send(matches!(get_hub().shutdown(LIMIT), Err(error) if error.kind() == LoopErrorKind::InMainloop))
                .unwrap();
        });
        sleep(SHORT);
        assert!(was_refused.try_recv().unwrap());
        assert!(get_hub().shutdown(LIMIT).is_ok());
    });
}

#[test]
fn nothing_begins_during_a_shutdown() {
    run("nothing_begins_during_a_shutdown", || {
        let (sender, was_refused) = mpsc::channel();
        spawn_n(move || {
            let _end = OnDrop(move || {
                let refused = spawn(|| 1).join();
                let _ = sender.send(
                    matches!(&refused, Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::ThreadEnding),
                );
            });
            sleep(LONG);
        });
        yield_now();
        assert_eq!(get_hub().shutdown(LIMIT).unwrap().unwound, 1);
        assert_eq!(was_refused.recv(), Ok(true));
    });
}

#[test]
fn shutdown_drops_a_sent_closure_that_no_turn_has_taken() {
    for has_loop in [false, true] {
        let (sender, dropped) = mpsc::channel();
        let thread = os::spawn(move || {
            let remote = get_hub().remote();
            if has_loop {
                sleep(SHORT);
            }
            let end = OnDrop(move || _ = sender.send(()));
            remote.spawn(move || drop(end)).unwrap();
        });
        thread.join().unwrap();
        assert_eq!(dropped.try_recv(), Ok(()), "with a loop: {has_loop}");
    }
}

#[test]
fn os_thread_ends_its_green_threads_when_it_panics() {
    let (sender, ended) = mpsc::channel();
    let thread = os::Builder::new().name("panics".to_owned()).spawn(move || {
        let notice = OnDrop(move || _ = sender.send(()));
        spawn_n(move || {
            let _notice = notice;
            sleep(LONG);
        });
        yield_now();
        green::quiet_panic("on purpose");
    });
    assert_eq!(thread.unwrap().join().unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(ended.try_recv(), Ok(()));
}

/// Returns the number of open descriptors, and the mappings of the process by name.
fn held() -> (usize, BTreeMap<String, usize>) {
    let mut names = BTreeMap::new();
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
        *names.entry(line.split_whitespace().nth(5).unwrap_or("").to_owned()).or_default() += 1;
    }
    (open_descriptors(), names)
}

#[test]
fn many_os_threads_leave_nothing_behind() {
    let test = "many_os_threads_leave_nothing_behind";
    let Some(output) = in_own_process(test, "") else {
        let one = || {
            os::spawn(|| {
                for _ in 0..3 {
                    park_for_long();
                }
                let (reader, _writer) = std::io::pipe().unwrap();
                spawn_n(move || greenhub::trampoline(&reader, greenhub::Interest::READ, None).is_ok());
                spawn_n(|| scope(|s| _ = s.spawn(|| sleep(LONG))));
                yield_now();
                spawn_n(|| ());
            })
            .join()
            .unwrap();
        };
        let count = if cfg!(debug_assertions) { 500 } else { 10_000 };
        // Warms up the allocator's arenas and the C library's cached stacks.
        (0..50).for_each(|_| one());
        let before = held();
        (0..count).for_each(|_| one());
        let after = held();
        assert_eq!(before.0, after.0, "descriptors");
        let (before, after): (usize, usize) = (before.1.values().sum(), after.1.values().sum());
        assert!(after <= before + 8, "{before} mappings have become {after}");
        return;
    };
    ended_with(&output, 0);
}

// ---- others -----------------------------------------------------------------------------------------

/// An abandoned waiter is skipped by live ones.
#[test]
fn lock_is_not_granted_to_a_waiter_whose_thread_has_ended() {
    run("lock_is_not_granted_to_a_waiter_whose_thread_has_ended", || {
        green::keep_reports();
        let mutex = Arc::new(Mutex::new(()));
        let held = mutex.lock().unwrap();
        let waiting = mutex.clone();
        on_std_thread(move || {
            spawn_n(move || drop(waiting.lock()));
            yield_now();
        });
        drop(held);
        let other = mutex.clone();
        let begun = Instant::now();
        let locked = std::thread::spawn(move || drop(other.lock().unwrap()));
        while !locked.is_finished() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the lock was granted to the abandoned waiter");
            sleep(SHORT);
        }
        locked.join().unwrap();
        drop(mutex.lock().unwrap());
    });
}
