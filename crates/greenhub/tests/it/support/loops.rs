//! Helpers for tests of the main loop: a time limit for each test, and hubs that count their calls.

#![allow(dead_code)]

use std::cell::Cell;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use hub_core::hub::{Hub, Interest, Key, Lease, Notify, Ready, Rearm, Time, Watched};

/// The time after which a test counts as hung.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a test, and aborts the process with the test's name if the test hangs.
pub(crate) fn limited<R>(test: impl FnOnce() -> R) -> R {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (done, is_done) = channel::<()>();
    thread::spawn(move || {
        if is_done.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            // The harness captures `eprintln!` until the end of the test, which never comes.
            let _ = writeln!(io::stderr(), "test {name} hangs: it has run for {LIMIT:?}");
            std::process::abort();
        }
    });
    let result = test();
    drop(done);
    result
}

/// Runs `test`, the body of the test `name`, in its own process.
pub(crate) fn in_child(name: &str, test: impl FnOnce()) {
    const CHILD: &str = "GREENHUB_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return test();
    }
    let output = super::in_child(name, |_| ());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns a new hub of the kind under test.
pub(crate) fn default_hub() -> io::Result<Box<dyn Hub>> {
    let choose = hub_core::internal::DEFAULT_HUB.first().expect("the facade brings a hub");
    (choose()?.build)()
}

/// The calls of a [`Counted`] hub, and the hooks to run inside them.
#[derive(Clone, Default)]
pub(crate) struct Calls {
    pub(crate) watches: Rc<Cell<usize>>,
    pub(crate) waits: Rc<Cell<usize>>,
    /// Runs inside the hub's next `wait`.
    pub(crate) in_wait: Rc<Cell<Option<Trick>>>,
    /// Runs inside the hub's next `watch`.
    pub(crate) in_watch: Rc<Cell<Option<Trick>>>,
}

pub(crate) type Trick = Box<dyn FnOnce() -> io::Result<()>>;

impl Calls {
    /// Returns the default hub, with counted calls.
    pub(crate) fn hub(&self) -> io::Result<Counted> {
        Ok(Counted { hub: default_hub()?, calls: self.clone() })
    }
}

/// A hub that counts its calls, runs the hooks of [`Calls`], and forwards to the default hub.
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
