//! What the tests of the main loop share: a limit for each test, reports by thread, hubs to look into.

#![allow(dead_code)]

use std::cell::Cell;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use hub_core::{Hub, Interest, Key, Lease, Notify, Ready, Rearm, Time, Watched};

/// A test that takes longer hangs, on whatever machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a test that must not hang.
pub(crate) fn limited<R>(test: impl FnOnce() -> R) -> R {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (done, is_done) = channel::<()>();
    thread::spawn(move || {
        if is_done.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            // Not by `eprintln!`, whose text is kept for the end of the test.
            let _ = writeln!(io::stderr(), "test {name} hangs: it has run for {LIMIT:?}");
            std::process::abort();
        }
    });
    let result = test();
    drop(done);
    result
}

/// Runs `test`, the body of the test `name`, in a process of its own.
pub(crate) fn in_child(name: &str, test: impl FnOnce()) {
    const CHILD: &str = "GREENHUB_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return test();
    }
    let output = super::in_child(name, |_| ());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A hub of the kind that this run tests.
pub(crate) fn default_hub() -> io::Result<Box<dyn Hub>> {
    let choose = hub_core::DEFAULT_HUB.first().expect("the facade brings a hub");
    (choose()?.build)()
}

/// How often a [`Counted`] hub was called, and what may go wrong in it.
#[derive(Clone, Default)]
pub(crate) struct Calls {
    pub(crate) watches: Rc<Cell<usize>>,
    pub(crate) waits: Rc<Cell<usize>>,
    /// Run by the next wait, inside the hub.
    pub(crate) in_wait: Rc<Cell<Option<Trick>>>,
    /// Run by the next watch, inside the hub.
    pub(crate) in_watch: Rc<Cell<Option<Trick>>>,
}

pub(crate) type Trick = Box<dyn FnOnce() -> io::Result<()>>;

impl Calls {
    /// The default hub, looked into.
    pub(crate) fn hub(&self) -> io::Result<Counted> {
        Ok(Counted { hub: default_hub()?, calls: self.clone() })
    }
}

/// A hub that counts what it is asked and does what it is told.
pub(crate) struct Counted {
    hub: Box<dyn Hub>,
    calls: Calls,
}

impl Hub for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }
    fn rearm(&self) -> Rearm {
        self.hub.rearm()
    }
    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        self.calls.watches.set(self.calls.watches.get() + 1);
        if let Some(trick) = self.calls.in_watch.take() {
            trick()?;
        }
        self.hub.watch(key, fd, interest, lease)
    }
    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        self.hub.forget(key, fd);
    }
    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        self.calls.waits.set(self.calls.waits.get() + 1);
        if let Some(trick) = self.calls.in_wait.take() {
            trick()?;
        }
        self.hub.wait(watched, timeout, ready)
    }
    fn after_fork(&mut self) -> io::Result<()> {
        self.hub.after_fork()
    }
    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        self.hub.notifier()
    }
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.hub.pollable()
    }
    fn now(&self) -> Time {
        self.hub.now()
    }
}
