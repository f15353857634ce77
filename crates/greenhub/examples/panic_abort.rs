//! Checks the behaviour without unwinding, in a program built with `panic = "abort"`.
//!
//! ```text
//! cargo run --profile abort --example panic_abort -p greenhub
//! ```
//!
//! Without unwinding a started green thread cannot be ended early. So `kill`, `with_timeout` and `with_link` return an
//! "unsupported" result. Operations that need no unwinding work: timeouts of sockets, cancelling a green thread before
//! its start, scopes.

mod cli;

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitCode;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use clap::Parser;
use greenhub::greenlet::{Greenlet, GreenletError, Payload};
use greenhub::greenthread::KillOutcome;
use greenhub::hub::LoopErrorKind;
use greenhub::net::{StopServe, TcpListener, TcpStream, serve_until};
use greenhub::park::{ReadHint, Source};
use greenhub::sync::CancellationToken;
use greenhub::thread::os;
use greenhub::{GreenError, GreenPool, Interest, TrampolineError};

use crate::cli::Failure;

const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(3600);

type Check = fn() -> io::Result<bool>;

const CHECKS: &[(&str, Check)] = &[
    ("a started green thread cannot be killed", a_kill_is_unsupported),
    ("a green thread can be cancelled before its start", an_unstarted_green_thread_is_cancelled),
    ("a started plain greenlet cannot be killed", a_kill_of_a_plain_greenlet_is_unsupported),
    ("a plain greenlet outlives its last handle", a_plain_greenlet_outlives_its_last_handle),
    ("with_timeout does not call a closure that it could not interrupt", with_timeout_is_unsupported),
    ("with_link does not call a closure that it could not interrupt", with_link_is_unsupported),
    ("run_until_cancelled calls a closure that it cannot interrupt", run_until_cancelled_does_not_interrupt),
    ("timeouts of sockets and descriptors are returned as errors", socket_timeouts_are_errors),
    ("a scope joins its green threads", a_scope_joins),
    ("a shield calls its closure", a_shield_calls_its_closure),
    ("a server is stopped after the next connection", a_server_is_stopped_after_the_next_connection),
    ("replacing the hub ends no green thread", replacing_the_hub_ends_no_green_thread),
    ("an OS thread ends while green threads are parked", an_os_thread_ends),
    ("a shutdown does not wait for parked green threads", a_shutdown_does_not_wait),
];

/// Checks the behaviour without unwinding.
///
/// Exit status: 0 if every claim holds, 1 if a claim does not hold, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "panic_abort")]
struct Options {}

fn main() -> ExitCode {
    cli::main(|_: Options| check_all())
}

fn check_all() -> Result<ExitCode, Failure> {
    if cfg!(panic = "unwind") {
        return Err(Failure::Run("this needs `panic = \"abort\"`: build it with `--profile abort`".to_owned()));
    }
    let mut code = ExitCode::SUCCESS;
    for (claim, check) in CHECKS {
        let holds = match check() {
            Ok(true) => "holds".to_owned(),
            Ok(false) => "does not hold".to_owned(),
            Err(error) => format!("failed: {error}"),
        };
        println!("{claim}: {holds}");
        if holds != "holds" {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn a_kill_is_unsupported() -> io::Result<bool> {
    let (reader, writer) = io::pipe()?;
    let parked = greenhub::spawn(move || greenhub::trampoline(&reader, Interest::READ, None).is_ok());
    greenhub::sleep(SHORT);
    let killed = parked.kill();
    greenhub::sleep(SHORT);
    // The green thread continues, and ends after its wait.
    let lives = !parked.is_finished();
    drop(writer);
    Ok(killed == KillOutcome::Unsupported && lives && parked.join()?)
}

fn an_unstarted_green_thread_is_cancelled() -> io::Result<bool> {
    let inside = Rc::new(());
    let dropped = Rc::downgrade(&inside);
    let queued = greenhub::spawn(move || drop(inside));
    let delayed = greenhub::spawn_after(LONG, || ());
    Ok(queued.kill() == KillOutcome::Cancelled && dropped.upgrade().is_none() && delayed.cancel())
}

/// Returns a plain greenlet that is suspended in a switch, and a reference that dies if its stack is unwound.
fn suspended() -> io::Result<(Greenlet, Weak<()>)> {
    let (main, inside) = (Greenlet::main(), Rc::new(()));
    let lives = Rc::downgrade(&inside);
    let greenlet = Greenlet::new(move |value| {
        let _inside = inside;
        main.switch(value)
    });
    greenlet.switch(Payload::unit())?;
    Ok((greenlet, lives))
}

fn a_kill_of_a_plain_greenlet_is_unsupported() -> io::Result<bool> {
    let (greenlet, lives) = suspended()?;
    let refused = matches!(greenlet.kill(), Err(GreenError::Switch(GreenletError::Unsupported)));
    let suspended = !greenlet.is_dead() && lives.upgrade().is_some();
    // Resumed, the greenlet ends.
    greenlet.switch(Payload::unit())?;
    Ok(refused && suspended && greenlet.is_dead() && lives.upgrade().is_none())
}

fn a_plain_greenlet_outlives_its_last_handle() -> io::Result<bool> {
    let (greenlet, lives) = suspended()?;
    drop(greenlet);
    greenhub::sleep(SHORT);
    Ok(lives.upgrade().is_some())
}

fn with_timeout_is_unsupported() -> io::Result<bool> {
    let ran = Cell::new(false);
    let limited = greenhub::with_timeout(SHORT, || ran.set(true));
    let unlimited = greenhub::with_timeout(None, || 5);
    let Err(timeout) = limited else { return Ok(false) };
    let unsupported = timeout.is_unsupported() && io::Error::from(timeout).kind() == ErrorKind::Unsupported;
    Ok(unsupported && !ran.get() && unlimited == Ok(5))
}

fn with_link_is_unsupported() -> io::Result<bool> {
    let ran = Cell::new(false);
    let Err(linked) = greenhub::spawn(|| ()).with_link(|| ran.set(true)) else { return Ok(false) };
    let unsupported = linked.is_unsupported() && io::Error::from(linked).kind() == ErrorKind::Unsupported;
    Ok(unsupported && !ran.get())
}

fn run_until_cancelled_does_not_interrupt() -> io::Result<bool> {
    let token = CancellationToken::new();
    let cancels = token.clone();
    greenhub::spawn_n(move || cancels.cancel());
    let ran = token.run_until_cancelled(|| {
        greenhub::sleep(SHORT);
        token.is_cancelled()
    });
    Ok(ran == Some(true) && token.run_until_cancelled(|| ()).is_none())
}

fn socket_timeouts_are_errors() -> io::Result<bool> {
    let (reader, _writer) = io::pipe()?;
    let waited = greenhub::trampoline(&reader, Interest::READ, Some(SHORT));
    let source = Source::new(reader.into())?;
    let mut buffer = [0; 16];
    let read = source.read(Some(SHORT), |fd| Ok((rustix::io::read(fd, &mut buffer)?, ReadHint::Perhaps)));
    Ok(matches!(waited, Err(TrampolineError::TimedOut { .. })) && read.is_err_and(|e| e.kind() == ErrorKind::TimedOut))
}

fn a_scope_joins() -> io::Result<bool> {
    let sum = Cell::new(0);
    greenhub::scope(|s| {
        for summand in [1, 2, 3] {
            let sum = &sum;
            s.spawn(move || {
                greenhub::sleep(SHORT);
                sum.set(sum.get() + summand);
            });
        }
    });
    Ok(sum.get() == 6)
}

fn a_shield_calls_its_closure() -> io::Result<bool> {
    let green = greenhub::spawn(|| greenhub::shield(|| greenhub::sleep(SHORT)));
    greenhub::thread::yield_now();
    let killed = green.kill();
    Ok(killed == KillOutcome::Unsupported && green.join().is_ok())
}

fn a_server_is_stopped_after_the_next_connection() -> io::Result<bool> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let stop = StopServe::new();
    let own = stop.clone();
    let before = greenhub::get_hub().stats().green_threads;
    let server = greenhub::spawn(move || {
        serve_until(&own, &listener, &GreenPool::new(10), |mut stream: TcpStream, _| {
            greenhub::sleep(2 * SHORT);
            stream.write_all(b"served")
        })
    });
    greenhub::sleep(SHORT);
    // Without unwinding the handlers cannot be killed, so the server waits for them.
    stop.stop_within(SHORT);
    greenhub::sleep(SHORT);
    let goes_on = !server.is_finished();
    let mut text = String::new();
    TcpStream::connect(address)?.read_to_string(&mut text)?;
    let served = server.join()?.map_err(io::Error::from)?;
    greenhub::sleep(SHORT);
    let left = greenhub::get_hub().stats().green_threads - before;
    Ok(goes_on && text == "served" && (served.accepted, served.killed, left) == (1, 0, 0))
}

fn replacing_the_hub_ends_no_green_thread() -> io::Result<bool> {
    let parked = greenhub::spawn(|| greenhub::sleep(LONG));
    greenhub::thread::yield_now();
    greenhub::spawn_n(|| drop(greenhub::use_hub(None)));
    // The wait of the main greenlet returns an error.
    let (reader, _writer) = io::pipe()?;
    let waited = greenhub::trampoline(&reader, Interest::READ, Some(LONG));
    greenhub::sleep(SHORT);
    Ok(matches!(&waited, Err(TrampolineError::Loop(error)) if error.kind() == LoopErrorKind::HubReplaced)
        && !parked.is_finished())
}

fn an_os_thread_ends() -> io::Result<bool> {
    let ends = || {
        greenhub::spawn_n(|| greenhub::sleep(LONG));
        greenhub::spawn_n(|| {
            greenhub::scope(|s| {
                s.spawn(|| greenhub::sleep(LONG));
            })
        });
        greenhub::sleep(SHORT);
    };
    Ok([std::thread::spawn(ends), os::spawn(ends).into_std()].into_iter().all(|thread| thread.join().is_ok()))
}

fn a_shutdown_does_not_wait() -> io::Result<bool> {
    const LIMIT: Duration = Duration::from_secs(30);
    let (reader, _writer) = io::pipe()?;
    let begin = Instant::now();
    let ended = std::thread::spawn(move || {
        greenhub::spawn_n(move || drop(greenhub::trampoline(&reader, Interest::READ, None)));
        greenhub::sleep(SHORT);
        greenhub::get_hub().shutdown(Some(LIMIT))
    });
    Ok(ended.join().is_ok_and(|ended| ended.is_ok_and(|ended| ended.abandoned == 1)) && begin.elapsed() < LIMIT)
}
