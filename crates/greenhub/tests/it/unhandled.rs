//! Unhandled results: every `Err` is reported, whatever its type.

use std::any::type_name;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::green::{OnDrop, SHORT, keep_reports, quiet_panic, reports, reports_naming};
use crate::support::{alone, run};
use greenhub::debug::set_error_message;
use greenhub::greenpool::{GreenPile, Group};
use greenhub::net::{Cluster, Resolver, StopServe, SystemResolver, TcpListener, TcpStream, serve, serve_until};
use greenhub::thread::yield_now;
use greenhub::{Builder, GreenPool, get_hub, scope, sleep, spawn, spawn_after, spawn_after_local, spawn_n};

/// An error with neither `Debug` nor `Display`.
struct Opaque;

/// Lets every green thread run that is ready within `SHORT`; returns the reports since the last call.
fn reported(seen: &mut usize) -> Vec<String> {
    sleep(SHORT * 2);
    let all = reports();
    all[std::mem::replace(seen, all.len())..].to_vec()
}

/// Runs a test in a process of its own, without reports of other tests.
fn in_own_process(test: &'static str, body: fn()) {
    alone(test, move || {
        keep_reports();
        body();
    });
}

/// Runs `fail` and checks that the only report is one of an `Err(Opaque)` of this file.
#[track_caller]
fn reports_opaque(way: &str, fail: impl FnOnce()) {
    let mut seen = reports().len();
    fail();
    let reports = reported(&mut seen);
    assert_eq!(reports.len(), 1, "{way}: {reports:?}");
    let report = &reports[0];
    assert!(report.contains("tests/it/unhandled.rs:") && report.contains("Opaque"), "{way}: {report}");
}

#[test]
fn an_err_of_any_type_is_reported_with_its_type_and_spawn_location() {
    run("an_err_of_any_type_is_reported_with_its_type_and_spawn_location", || {
        keep_reports();
        let mut seen = 0;
        let line = line!() + 1;
        spawn_n(|| Err::<Vec<u8>, _>(Opaque));
        let reports = reported(&mut seen);
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(reports[0].contains(&format!("tests/it/unhandled.rs:{line}:")), "{reports:?}");
        let opaque = type_name::<Opaque>();
        assert!(reports[0].ends_with(&format!("(Result<alloc::vec::Vec<u8>, {opaque}>)")), "{reports:?}");
    });
}

#[test]
fn an_ok_and_other_types_are_not_reported() {
    run("an_ok_and_other_types_are_not_reported", || {
        keep_reports();
        spawn_n(|| Ok::<_, Opaque>(()));
        spawn_n(|| Ok::<Vec<u8>, io::Error>(Vec::new()));
        spawn_n(|| Ok::<Box<u8>, ()>(Box::new(1)));
        spawn_n(|| None::<u8>);
        spawn_n(|| std::ops::ControlFlow::Break::<_, ()>(Opaque));
        drop(spawn_after_local(Duration::ZERO, || Ok::<_, Opaque>(())));
        yield_now();
        assert_eq!(reports(), [""; 0]);
    });
}

#[test]
fn an_err_of_a_common_type_is_reported_with_its_message() {
    run("an_err_of_a_common_type_is_reported_with_its_message", || {
        keep_reports();
        spawn_n(|| Err::<(), _>(io::Error::other("of io")));
        spawn_n(|| Err::<Vec<u8>, _>(io::Error::other("beside bytes")));
        spawn_n(|| "x".parse::<i32>());
        spawn_n(|| Err::<(), _>(String::from("a string")));
        spawn_n(|| Err::<(), Box<dyn Error + Send + Sync>>("a box".into()));
        yield_now();
        let reports = reports();
        assert_eq!(reports.len(), 5, "{reports:?}");
        for (report, message) in reports.iter().zip(["of io", "beside bytes", "invalid digit", "a string", "a box"]) {
            assert!(report.contains(message) && report.contains("Result<"), "{message}: {report}");
        }
    });
}

#[test]
fn an_err_is_reported_for_every_kind_of_spawn() {
    run("an_err_is_reported_for_every_kind_of_spawn", || {
        keep_reports();
        let fail = || Err::<(), _>(Opaque);
        reports_opaque("spawn", || drop(spawn(fail)));
        reports_opaque("spawn_n", || spawn_n(fail));
        reports_opaque("spawn_after", || drop(spawn_after(SHORT, fail)));
        reports_opaque("spawn_after_local", || drop(spawn_after_local(SHORT, fail)));
        reports_opaque("a builder", || drop(Builder::new().spawn(fail).unwrap()));
        reports_opaque("a pool", || GreenPool::new(1).spawn_n(fail).unwrap());
        reports_opaque("a pile", || GreenPile::new(1).spawn(fail).unwrap());
        reports_opaque("a group", || drop(Group::new().spawn(fail)));
        reports_opaque("a full pool, by its own worker", || {
            let pool = GreenPool::new(1);
            let own = pool.clone();
            pool.spawn_n(move || own.spawn_n(fail).unwrap()).unwrap();
        });
    });
}

#[test]
fn an_unjoined_err_in_a_scope_is_reported_without_a_panic() {
    run("an_unjoined_err_in_a_scope_is_reported_without_a_panic", || {
        keep_reports();
        let text = String::from("borrowed");
        reports_opaque("a scope", || {
            scope(|s| {
                s.spawn(|| if text.is_empty() { Ok(text.as_str()) } else { Err(Opaque) });
            });
        });
        let taken = scope(|s| s.spawn(|| Err::<(), _>(Opaque)).join().unwrap());
        assert!(taken.is_err());
        assert_eq!(reports().len(), 1);
    });
}

#[test]
fn an_err_of_a_handler_is_reported_and_the_server_continues() {
    run("an_err_of_a_handler_is_reported_and_the_server_continues", || {
        keep_reports();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = StopServe::new();
        let own = stop.clone();
        let client = spawn(move || {
            for _ in 0..2 {
                let mut stream = greenhub::net::TcpStream::connect(address).unwrap();
                let mut rest = Vec::new();
                io::Read::read_to_end(&mut stream, &mut rest).unwrap();
            }
            own.stop();
        });
        let served = serve_until(&stop, &listener, &GreenPool::new(2), |_, _| Err::<(), _>(Opaque)).unwrap();
        client.join().unwrap();
        assert_eq!(served.accepted, 2);
        let reports = reports();
        assert!(reports.len() == 2 && reports.iter().all(|report| report.contains("Opaque")), "{reports:?}");
    });
}

/// Checks that `fail` is reported with the location of this call.
#[track_caller]
fn reports_call_site(way: &str, fail: impl FnOnce()) {
    let place = format!("spawned at {}:{}:", Location::caller().file(), Location::caller().line());
    fail();
    wait_until(way, || !reports_naming(&place).is_empty());
    let library = ["crates/greenstd/", "crates/hub-core/"].map(reports_naming).concat();
    assert_eq!(library, [""; 0], "{way}: the spawn place is not the library's");
}

/// Connects, and reads until the server closes the connection.
fn visit(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    io::Read::read_to_end(&mut stream, &mut Vec::new()).unwrap();
}

#[test]
fn a_failed_item_of_imap_is_reported_with_the_call_of_imap() {
    const TEST: &str = "a_failed_item_of_imap_is_reported_with_the_call_of_imap";
    in_own_process(TEST, || {
        // The first result is taken, the second is dropped.
        let fail = |_| Err::<(), _>(Opaque);
        reports_call_site("imap", || drop(GreenPool::new(2).imap(0..2, fail).next().unwrap()));
    });
}

#[test]
fn a_failed_handler_is_reported_with_the_call_of_serve() {
    const TEST: &str = "a_failed_handler_is_reported_with_the_call_of_serve";
    in_own_process(TEST, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), StopServe::new());
        let (own, pool) = (stop.clone(), GreenPool::new(2));
        spawn_n(move || {
            visit(address);
            own.stop();
        });
        let fail = |_, _| Err::<(), _>(Opaque);
        reports_call_site("serve_until", || drop(serve_until(&stop, &listener, &pool, fail)));
        let listener = Rc::new(listener);
        let own = Rc::clone(&listener);
        spawn_n(move || {
            visit(address);
            own.close();
        });
        reports_call_site("serve", || drop(serve(&*listener, &pool, fail)));
    });
}

#[test]
fn a_failed_handler_of_a_cluster_is_reported_with_the_call_of_serve() {
    const TEST: &str = "a_failed_handler_of_a_cluster_is_reported_with_the_call_of_serve";
    in_own_process(TEST, || {
        let serve = || {
            let place = format!("spawned at {}:{}:", file!(), line!() + 1);
            (place, Cluster::new(2).serve("127.0.0.1:0", |_, _| Err::<(), _>(Opaque)).unwrap())
        };
        let (place, server) = serve();
        visit(server.local_addr());
        wait_until("a cluster", || !reports_naming(&place).is_empty());
        server.stop().stop();
        server.join().unwrap();
    });
}

#[test]
fn a_panic_of_a_remote_body_is_reported_with_the_call_of_spawn() {
    const TEST: &str = "a_panic_of_a_remote_body_is_reported_with_the_call_of_spawn";
    in_own_process(TEST, || {
        let remote = get_hub().remote();
        reports_call_site("a remote", || remote.spawn(|| quiet_panic("remote")).unwrap());
    });
}

#[cfg(feature = "console")]
#[test]
fn the_green_threads_of_a_server_and_a_console_are_listed_with_their_call() {
    run("the_green_threads_of_a_server_and_a_console_are_listed_with_their_call", || {
        let path = std::env::temp_dir().join(format!("greenhub-unhandled-{}", std::process::id()));
        let console = greenhub::debug::console(&path).unwrap();
        let client = greenhub::os::unix::net::UnixStream::connect(&path).unwrap();
        let server = spawn(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            serve(&listener, &GreenPool::new(1), |_, _| ()).map(drop)
        });
        wait_until("a client of the console", || console.clients() == 1);
        let listed = greenhub::debug::format_green_threads();
        // The console, its client, the server, and the server's green thread that waits for the stop.
        assert_eq!(listed.matches("tests/it/unhandled.rs:").count(), 4, "{listed}");
        assert!(!listed.contains("crates/greenstd/") && !listed.contains("crates/hub-core/"), "{listed}");
        server.kill();
        drop(client);
    });
}

/// Starts a job, kills its caller, lets the job fail, and checks that there is one report.
#[track_caller]
fn reports_killed_call<T: 'static>(way: &str, call: fn(Job) -> T) -> String {
    let place = format!("spawned at {} ", Location::caller());
    let before = reports_naming(&place).len();
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let fail: Job = Box::new(move || {
        begun.send(()).unwrap();
        may_go_on.recv().unwrap();
        Err(Opaque)
    });
    let caller = spawn(move || drop(call(fail)));
    yield_now();
    has_begun.recv().unwrap();
    caller.kill();
    assert!(caller.join().is_err(), "{way}: the call was left");
    go_on.send(()).unwrap();
    wait_until(way, || reports_naming(&place).len() > before);
    let mut reports = reports_naming(&place).split_off(before);
    assert_eq!(reports.len(), 1, "{way}: {reports:?}");
    reports.remove(0)
}

type Job = Box<dyn FnOnce() -> Result<(), Opaque> + Send>;

/// Runs a job.
type Call = fn(Job) -> Result<Result<(), Opaque>, greenhub::tpool::JobError>;

#[track_caller]
fn wait_until(expectation: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{expectation}: never");
        sleep(SHORT);
    }
}

#[test]
fn an_err_of_a_job_whose_caller_was_killed_is_reported() {
    static OWN: greenhub::tpool::Pool = greenhub::tpool::Pool::new(1);
    run("an_err_of_a_job_whose_caller_was_killed_is_reported", || {
        keep_reports();
        let calls: [(&str, Call); 3] = [
            ("offload", |fail| greenhub::tpool::execute(fail)),
            ("tpool", |fail| greenhub::tpool::execute(fail)),
            ("an own pool", |fail| OWN.execute(fail)),
        ];
        for (way, call) in calls {
            let report = reports_killed_call(way, call);
            assert!(report.contains("called at") && report.contains("by the green thread spawned at"), "{report}");
            assert_eq!(report.matches("tests/it/unhandled.rs:").count(), 2, "{way}: {report}");
            let opaque = type_name::<Opaque>();
            assert!(report.ends_with(&format!("(Result<(), {opaque}>)")), "{way}: {report}");
        }
    });
}

#[test]
fn a_panic_of_a_job_whose_caller_was_killed_is_reported() {
    run("a_panic_of_a_job_whose_caller_was_killed_is_reported", || {
        keep_reports();
        let report = reports_killed_call("a panic", |fail| {
            greenhub::tpool::execute(move || {
                drop(fail());
                if true {
                    quiet_panic("of the job")
                }
            })
        });
        assert!(report.contains("of the job") && report.contains("tests/it/unhandled.rs:"), "{report}");
    });
}

#[test]
fn an_ok_of_a_job_whose_caller_was_killed_is_not_reported() {
    run("an_ok_of_a_job_whose_caller_was_killed_is_not_reported", || {
        keep_reports();
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let (dropped, is_dropped) = mpsc::channel();
        let place = format!("tests/it/unhandled.rs:{}:", line!() + 2);
        let caller = spawn(move || {
            greenhub::tpool::execute(move || {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
                Ok::<_, Opaque>(OnDrop(move || dropped.send(()).unwrap()))
            })
            .is_ok()
        });
        yield_now();
        has_begun.recv().unwrap();
        caller.kill();
        go_on.send(()).unwrap();
        is_dropped.recv().unwrap();
        assert_eq!(reports_naming(&place), [""; 0]);
    });
}

#[test]
fn an_err_of_a_file_or_a_name_is_reported_after_a_kill_of_its_caller() {
    const TIMES: usize = 50;
    run("an_err_of_a_file_or_a_name_is_reported_after_a_kill_of_its_caller", || {
        keep_reports();
        let no_file: fn() -> io::Result<()> = || greenhub::fs::File::open("/no/such/file").map(drop);
        let no_host: fn() -> io::Result<()> = || SystemResolver.resolve(&"x".repeat(64)).map(drop);
        for (way, fail) in [("a file", no_file), ("a name", no_host)] {
            let place = format!("tests/it/unhandled.rs:{}:", line!() + 3);
            let before = reports_naming(&place).len();
            for _ in 0..TIMES {
                let caller = spawn(fail);
                yield_now();
                // If the job ends before the kill, the green thread returns its error.
                caller.kill();
            }
            wait_until(way, || reports_naming(&place).len() >= before + TIMES);
            let reports = reports_naming(&place).split_off(before);
            assert_eq!(reports.len(), TIMES, "{way}");
            for report in reports {
                assert!(!report.contains("is not known") && report.contains("io::error::Error>)"), "{way}: {report}");
            }
        }
    });
}

#[test]
fn a_taken_err_is_not_reported() {
    run("a_taken_err_is_not_reported", || {
        keep_reports();
        assert!(spawn(|| Err::<(), _>(Opaque)).join().unwrap().is_err());
        assert!(spawn(|| Err::<(), _>("seen")).wait().unwrap().is_err());
        assert!(spawn_after_local(SHORT, || Err::<(), _>(Opaque)).join().unwrap().unwrap().is_err());
        assert_eq!(reports(), [""; 0]);
    });
}

#[test]
fn an_err_that_two_waits_have_seen_is_not_reported() {
    in_own_process("an_err_that_two_waits_have_seen_is_not_reported", || {
        let one = spawn(|| Err::<(), _>("seen"));
        for _ in 0..2 {
            assert_eq!(one.wait().unwrap(), Err("seen"));
        }
        drop(one);
        assert_eq!(reported(&mut 0), [""; 0]);
    });
}

#[test]
fn an_ignored_result_is_not_reported() {
    run("an_ignored_result_is_not_reported", || {
        keep_reports();
        spawn(|| Err::<(), _>(Opaque)).ignore_result();
        spawn(|| -> () { quiet_panic("unseen") }).ignore_result();
        let ended = spawn(|| Err::<(), _>(io::Error::other("unseen")));
        yield_now();
        ended.ignore_result();
        assert_eq!(reports(), [""; 0]);
    });
}

#[test]
fn an_error_message_function_sets_the_report_or_ignores_the_error() {
    struct Own(u8);
    run("an_error_message_function_sets_the_report_or_ignores_the_error", || {
        keep_reports();
        let mut seen = 0;
        set_error_message::<(), Own>(|own| (own.0 != 0).then(|| format!("own {}", own.0)));
        spawn_n(|| Err::<(), _>(Own(0)));
        spawn_n(|| Err::<(), _>(Own(7)));
        let reports = reported(&mut seen);
        assert!(reports.len() == 1 && reports[0].contains("own 7"), "{reports:?}");
        // A later message replaces the earlier one, for this pair of types only.
        set_error_message::<(), Own>(|own| Some(format!("another {}", own.0)));
        spawn_n(|| Err::<(), _>(Own(0)));
        spawn_n(|| Err::<u8, _>(Own(0)));
        let reports = reported(&mut seen);
        assert!(reports.len() == 2 && reports[0].contains("another 0"), "{reports:?}");
        assert!(!reports[1].contains("another") && reports[1].contains("Own"), "{reports:?}");
    });
}

#[test]
fn a_message_that_panics_does_not_hide_the_error() {
    struct Own;
    run("a_message_that_panics_does_not_hide_the_error", || {
        keep_reports();
        set_error_message::<(), Own>(|_| quiet_panic("within the message"));
        spawn_n(|| Err::<(), _>(Own));
        yield_now();
        let reports = reports();
        assert!(reports.len() == 1 && reports[0].contains("Own") && reports[0].contains("unhandled.rs"), "{reports:?}");
    });
}

#[test]
fn the_report_carries_the_type_of_the_result() {
    const TEST: &str = "the_report_carries_the_type_of_the_result";
    if !support::is_child() {
        let output = support::rerun(TEST, |_| ());
        return assert!(output.status.success(), "{output:?}");
    }
    let (sender, reports) = std::sync::mpsc::channel();
    greenhub::debug::set_report_stream(move |report| {
        if let greenhub::debug::Report::Unhandled { error, result, .. } = report {
            sender.send((error.clone(), *result)).unwrap();
        }
    });
    run(TEST, || {
        spawn_n(|| Err::<(), _>(io::Error::other("returned")));
        spawn_n(|| -> () { quiet_panic("panicked") });
        yield_now();
    });
    let (error, result) = reports.recv().unwrap();
    assert_eq!((error.as_str(), result), ("returned", Some(std::any::type_name::<io::Result<()>>())));
    let (error, result) = reports.recv().unwrap();
    assert!(error.contains("panicked") && result.is_none(), "{error}");
}
