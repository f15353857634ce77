//! A hub that watches no descriptors, with a notifier.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use greenhub::Interest;
use greenhub::hub::{Hub, Key, Lease, Notify, Ready, Rearm, Watched};

/// Counts how often a notifier was requested and called, and how often its hub began to wait.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) asked: AtomicUsize,
    pub(crate) called: AtomicUsize,
    pub(crate) waits: AtomicUsize,
}

impl Counts {
    /// Blocks the OS thread until that many hubs wait, or have waited.
    pub(crate) fn until_waits(&self, hubs: usize) {
        while self.waits.load(Ordering::SeqCst) < hubs {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A flag that an OS thread can wait for.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
    pub(crate) counts: Arc<Counts>,
    /// A call that the notifier makes first.
    uses: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Notify for Bell {
    fn notify(&self) {
        if let Some(uses) = &self.uses {
            uses();
        }
        self.counts.called.fetch_add(1, Ordering::SeqCst);
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

/// A hub that watches no descriptors.
#[derive(Default)]
pub(crate) struct Bare(pub(crate) Arc<Bell>);

impl Bare {
    pub(crate) fn new(counts: &Arc<Counts>) -> Bare {
        Bare(Arc::new(Bell { counts: Arc::clone(counts), ..Bell::default() }))
    }

    /// Returns a hub whose notifier calls `uses`.
    pub(crate) fn using(counts: &Arc<Counts>, uses: impl Fn() + Send + Sync + 'static) -> Bare {
        Bare(Arc::new(Bell { counts: Arc::clone(counts), uses: Some(Box::new(uses)), ..Bell::default() }))
    }
}

impl Hub for Bare {
    fn name(&self) -> &'static str {
        "bare"
    }

    fn rearm(&self) -> Rearm {
        Rearm::Explicit
    }

    fn watch(&mut self, _: Key, _: BorrowedFd<'_>, _: Interest, _: Lease) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn forget(&mut self, _: Key, _: Option<BorrowedFd<'_>>) {}

    fn wait(&mut self, _: &Watched, timeout: Option<Duration>, _: &mut Ready) -> io::Result<()> {
        let timeout = timeout.unwrap_or(Duration::from_secs(3600));
        if !timeout.is_zero() {
            self.0.counts.waits.fetch_add(1, Ordering::SeqCst);
        }
        let waited = self.0.changed.wait_timeout_while(self.0.rung.lock().unwrap(), timeout, |rung| !*rung);
        *waited.unwrap().0 = false;
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        self.0.counts.asked.fetch_add(1, Ordering::SeqCst);
        Some(self.0.clone())
    }
}
