//! A program with a console, on an OS thread of the test.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use greenhub::{Builder, sleep};

/// The program to test.
pub(crate) const TOP: &str = env!("CARGO_BIN_EXE_greenhub-top");

/// The time after which a test counts as hung.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// An OS thread named `served` with some green threads and a console.
pub(crate) struct Program {
    path: PathBuf,
    orders: Option<mpsc::Sender<Duration>>,
    thread: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts the program. `name` is for the path of its console.
    pub(crate) fn start(name: &str) -> Program {
        let path = std::env::temp_dir().join(format!("greenhub-top-{}-{name}", std::process::id()));
        let (orders, obeyed) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let served = path.clone();
        let run = move || {
            let console = greenhub::debug::console(&served).expect("a console");
            for name in ["alice", "bob", "carol"] {
                Builder::new()
                    .name(name.to_owned())
                    .spawn(|| sleep(Duration::from_secs(3600)))
                    .expect("a green thread");
            }
            greenhub::thread::yield_now();
            ready.send(()).expect("the test waits");
            loop {
                match obeyed.try_recv() {
                    // The loop is blocked on purpose.
                    Ok(time) => std::thread::sleep(time),
                    Err(mpsc::TryRecvError::Empty) => sleep(Duration::from_millis(2)),
                    Err(mpsc::TryRecvError::Disconnected) => break,
                }
            }
            console.stop();
        };
        let thread = std::thread::Builder::new()
            .name("served".to_owned())
            .spawn(|| greenhub::thread::os::run_and_shutdown(Some(HANG), run))
            .expect("an OS thread");
        is_ready.recv_timeout(HANG).expect("the program starts");
        Program { path, orders: Some(orders), thread: Some(thread) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Blocks the loop for that time.
    pub(crate) fn block(&self, time: Duration) {
        self.orders.as_ref().expect("it runs").send(time).expect("it obeys");
    }

    /// Ends the program.
    pub(crate) fn end(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}
