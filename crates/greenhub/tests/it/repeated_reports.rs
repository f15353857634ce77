//! Reports on standard error: one write for each, and a count instead of repetitions.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{is_child, rerun};
use greenhub::debug::{hub_exceptions, set_report_stream};
use greenhub::net::{StopServe, TcpListener, TcpStream, serve_until};
use greenhub::{Builder, GreenPool, sleep, spawn, spawn_n};

/// Runs the calling test in a process of its own, and returns what that process has written to standard error, call by
/// call. Returns `None` in that process, after `body`.
fn written_by(test: &str, body: impl FnOnce()) -> Option<Vec<String>> {
    if is_child() {
        body();
        return None;
    }
    let (ours, theirs) = UnixDatagram::pair().expect("a pair");
    // Each write becomes one datagram. A reader of its own keeps the socket from filling up.
    let reader = std::thread::spawn(move || {
        let mut writes = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = ours.recv(&mut buffer).expect("a datagram");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text == END {
                return writes;
            }
            writes.push(text);
        }
    });
    let end = theirs.try_clone().expect("a free descriptor");
    let output = rerun(test, |command| _ = command.stderr(Stdio::from(OwnedFd::from(theirs))));
    end.send(END.as_bytes()).expect("the reader reads");
    let writes = reader.join().expect("no panic");
    assert!(output.status.success(), "{output:?}{writes:?}");
    Some(writes)
}

const END: &str = "end of the test";

fn fail(error: &'static str) {
    spawn_n(move || Err::<(), _>(error));
}

#[test]
fn each_report_is_one_write() {
    let Some(writes) = written_by("each_report_is_one_write", || {
        let threads = [(); 4].map(|()| {
            std::thread::spawn(|| {
                for _ in 0..3 {
                    spawn_n(|| Err::<(), _>(format!("{:?}", std::thread::current().id())));
                    sleep(Duration::ZERO);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }) else {
        return;
    };
    for text in &writes {
        assert!(text.starts_with("greenhub: ") && text.ends_with('\n'), "{text:?}");
        assert_eq!(text.lines().count(), 1, "{text:?}");
    }
    assert_eq!(writes.iter().map(|text| reports_in(text)).sum::<u64>(), 12, "{writes:?}");
}

#[test]
fn repeated_failures_are_counted() {
    let Some(writes) = written_by("repeated_failures_are_counted", || {
        for _ in 0..1000 {
            fail("refused");
        }
        // It runs after them all.
        spawn(|| ()).join().expect("no panic");
    }) else {
        return;
    };
    let total: u64 = writes.iter().map(|text| reports_in(text)).sum();
    assert_eq!(total, 1000, "{writes:?}");
    // One for the first failure, and one for each second of the rest.
    assert!(writes.len() < 20, "{writes:?}");
    assert!(writes.iter().all(|text| text.contains("refused")), "{writes:?}");
}

/// Returns how many reports a line represents.
fn reports_in(text: &str) -> u64 {
    let count = text.strip_prefix("greenhub: ").expect("a report").split(" more like this: ").next();
    count.and_then(|count| count.parse().ok()).unwrap_or(1)
}

#[test]
fn a_count_is_written_although_no_report_follows() {
    let Some(writes) = written_by("a_count_is_written_although_no_report_follows", || {
        for _ in 0..10 {
            fail("refused");
        }
        sleep(Duration::from_secs(3));
        std::io::stderr().write_all(b"later\n").expect("a reader");
    }) else {
        return;
    };
    assert_eq!(writes.last().map(String::as_str), Some("later\n"));
    assert_eq!(writes[..writes.len() - 1].iter().map(|text| reports_in(text)).sum::<u64>(), 10, "{writes:?}");
}

#[test]
fn failures_at_different_places_and_with_different_errors_are_each_written() {
    let Some(writes) = written_by("failures_at_different_places_and_with_different_errors_are_each_written", || {
        fail("refused");
        fail("reset");
        spawn_n(|| Err::<(), _>("refused"));
        sleep(Duration::ZERO);
    }) else {
        return;
    };
    assert_eq!(writes.len(), 3, "{writes:?}");
}

#[test]
fn the_names_of_green_threads_do_not_distinguish_their_failures() {
    let Some(writes) = written_by("the_names_of_green_threads_do_not_distinguish_their_failures", || {
        for number in 0..100 {
            let named = Builder::new().name(format!("worker {number}"));
            drop(named.spawn(|| Err::<(), _>("refused")).expect("a green thread"));
        }
        sleep(Duration::ZERO);
    }) else {
        return;
    };
    assert!(writes[0].starts_with("greenhub: green thread \"worker 0\" (spawned at "), "{writes:?}");
    assert_eq!(writes.iter().map(|text| reports_in(text)).sum::<u64>(), 100, "{writes:?}");
    assert!(writes.len() < 10, "{writes:?}");
}

#[test]
fn a_stream_of_the_program_gets_every_report() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    crate::support::alone("a_stream_of_the_program_gets_every_report", || {
        set_report_stream(|_| _ = REPORTS.fetch_add(1, Ordering::SeqCst));
        for _ in 0..100 {
            fail("refused");
        }
        sleep(Duration::ZERO);
        assert_eq!(REPORTS.load(Ordering::SeqCst), 100);
    });
}

#[test]
fn the_failure_of_a_handler_names_its_peer_and_the_caller_of_serve() {
    let Some(writes) = written_by("the_failure_of_a_handler_names_its_peer_and_the_caller_of_serve", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = StopServe::new();
        let stopper = stop.clone();
        let client = spawn(move || {
            let mut client = TcpStream::connect(address).expect("a server listens");
            std::io::stderr().write_all(client.local_addr().expect("an address").to_string().as_bytes()).unwrap();
            client.write_all(b"x").expect("the handler reads");
            // The handler has failed when it has closed the connection.
            assert_eq!(client.read(&mut [0]).expect("the handler has read all"), 0);
            stopper.stop();
        });
        let handler = |mut stream: TcpStream, _| {
            stream.read_exact(&mut [0]).expect("the client writes");
            Err::<(), _>("refused")
        };
        let served = serve_until(&stop, &listener, &GreenPool::new(10), handler);
        client.join().expect("no panic");
        assert_eq!(served.expect("the server was stopped").accepted, 1);
    }) else {
        return;
    };
    let [peer, report] = &writes[..] else { panic!("{writes:?}") };
    let expected = format!("greenhub: green thread {peer:?} (spawned at {}:", file!());
    assert!(report.starts_with(&expected), "{writes:?}");
}

#[test]
fn a_server_leaves_no_green_thread_behind() {
    let Some(writes) = written_by("a_server_leaves_no_green_thread_behind", || {
        let server = std::thread::spawn(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("an address");
            let stop = StopServe::new();
            let stopper = stop.clone();
            let client = spawn(move || TcpStream::connect(address).expect("a server listens"));
            let served = serve_until(&stop, &listener, &GreenPool::new(10), move |_, _| {
                stopper.stop_within(Duration::from_secs(60));
                sleep(Duration::from_millis(10));
            });
            drop(client.join());
            served.expect("the server was stopped").accepted
        });
        assert_eq!(server.join().expect("no panic"), 1);
    }) else {
        return;
    };
    assert_eq!(writes, [] as [&str; 0]);
}

#[test]
fn os_threads_that_end_do_not_write_the_count_early() {
    let Some(writes) = written_by("os_threads_that_end_do_not_write_the_count_early", || {
        for _ in 0..50 {
            let thread = std::thread::spawn(|| {
                fail("refused");
                sleep(Duration::ZERO);
            });
            thread.join().expect("no panic");
        }
    }) else {
        return;
    };
    assert_eq!(writes.iter().map(|text| reports_in(text)).sum::<u64>(), 50, "{writes:?}");
    assert!(writes.len() < 20, "{writes:?}");
}

#[test]
fn an_exit_from_another_os_thread_writes_the_count() {
    let Some(writes) = written_by("an_exit_from_another_os_thread_writes_the_count", || {
        for _ in 0..10 {
            fail("refused");
        }
        sleep(Duration::ZERO);
        let exiting = std::thread::spawn(|| std::process::exit(0));
        drop(exiting.join());
    }) else {
        return;
    };
    assert_eq!(writes.iter().map(|text| reports_in(text)).sum::<u64>(), 10, "{writes:?}");
}

#[test]
fn a_held_lock_of_standard_error_delays_neither_reports_nor_the_exit() {
    let Some(writes) = written_by("a_held_lock_of_standard_error_delays_neither_reports_nor_the_exit", || {
        let (locked, lock) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _lock = std::io::stderr().lock();
            locked.send(()).expect("the test waits");
            loop {
                std::thread::park();
            }
        });
        lock.recv().expect("the lock is held");
        for _ in 0..10 {
            fail("refused");
        }
        sleep(Duration::ZERO);
        std::process::exit(0);
    }) else {
        return;
    };
    assert_eq!(writes.iter().map(|text| reports_in(text)).sum::<u64>(), 10, "{writes:?}");
}

#[test]
fn a_new_stream_follows_the_count_of_the_former_one() {
    let Some(writes) = written_by("a_new_stream_follows_the_count_of_the_former_one", || {
        for _ in 0..10 {
            fail("refused");
        }
        sleep(Duration::ZERO);
        set_report_stream(|_| ());
        std::io::stderr().write_all(b"later\n").expect("a reader");
        sleep(Duration::from_millis(1500));
    }) else {
        return;
    };
    assert_eq!(writes.last().map(String::as_str), Some("later\n"));
    assert_eq!(writes[..writes.len() - 1].iter().map(|text| reports_in(text)).sum::<u64>(), 10, "{writes:?}");
}

#[test]
fn disabled_reports_have_no_count() {
    let Some(writes) = written_by("disabled_reports_have_no_count", || {
        for _ in 0..10 {
            fail("refused");
        }
        sleep(Duration::ZERO);
        hub_exceptions(false);
        sleep(Duration::from_millis(1500));
    }) else {
        return;
    };
    assert_eq!(writes.len(), 1, "{writes:?}");
}
