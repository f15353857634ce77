//! Calls that block an OS thread, and the reports of the blocking detector about them.
//!
//! `cargo run -p recipes --example blocked_hub -- epoll` makes the usual mistakes, one after the other. Each is
//! reported with the name of the green thread and the place of its spawn, while it still blocks.

use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex as StdMutex, mpsc};
use std::time::Duration;

use greenhub::debug::{Report, hub_blocking_detection, set_report_stream};
use greenhub::{Builder, GreenError, sleep, spawn};
use recipes::web::AnyError;

/// A mistake: its name, and code that blocks the OS thread until the receiver gets a message.
type Mistake = (&'static str, fn(mpsc::Receiver<()>));

/// The mistakes. The receiver of std stands for the other channels that park OS threads.
pub(crate) const MISTAKES: &[Mistake] = &[
    ("a channel of std or crossbeam", |until| until.recv().unwrap_or_default()),
    ("a lock of std or parking_lot that another green thread holds across a wait", hold_across_a_wait),
    ("a socket of std", read_from_std),
];

fn main() -> ExitCode {
    recipes::way::main(|| {
        for (name, mistake) in MISTAKES {
            println!("{name}: {}", report_of(name, *mistake)?);
        }
        Ok::<_, AnyError>(())
    })
}

/// Runs a mistake in a green thread, and returns the report about it. The mistake ends when it is reported.
pub(crate) fn report_of(name: &'static str, mistake: fn(mpsc::Receiver<()>)) -> Result<String, AnyError> {
    let (reports, reported) = mpsc::channel();
    let (end, until) = mpsc::channel();
    // The report is made on another OS thread, so it comes despite the blocked one.
    set_report_stream(move |report| {
        if let Report::Blocked { name: blocked, .. } = report
            && blocked.contains(name)
        {
            let _ = reports.send(report.to_string());
            let _ = end.send(());
        }
    });
    hub_blocking_detection(Duration::from_millis(20))?;
    let blocked = Builder::new().name(name.to_owned()).spawn(move || mistake(until))?;
    blocked.join().map_err(|error: GreenError| error.to_string())?;
    hub_blocking_detection(None)?;
    Ok(reported.recv()?)
}

/// Waits for a lock whose holder is parked. The holder can only go on when this OS thread is free.
fn hold_across_a_wait(until: mpsc::Receiver<()>) {
    let lock = Arc::new(StdMutex::new(()));
    let held = Arc::clone(&lock);
    let holder = spawn(move || {
        // Wrong: the guard lives across a wait. A lock of `greenhub::sync` would park its waiters.
        let _guard = held.lock();
        sleep(Duration::from_millis(1));
    });
    greenhub::thread::yield_now();
    // `lock` would never return here, so this example tries until the report has come.
    while until.try_recv().is_err() {
        drop(lock.try_lock());
    }
    let _ = holder.join();
}

fn read_from_std(until: mpsc::Receiver<()>) {
    let Ok(listener) = StdListener::bind("127.0.0.1:0") else { return };
    let Ok(mut stream) = listener.local_addr().and_then(StdStream::connect) else { return };
    let Ok(ending) = stream.try_clone() else { return };
    // Another OS thread ends the read: no green thread of this one could.
    let ender = std::thread::spawn(move || {
        let _ = until.recv();
        ending.shutdown(Shutdown::Both)
    });
    let _ = std::io::Read::read(&mut stream, &mut [0]);
    let _ = ender.join();
}
