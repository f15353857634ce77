//! Hubs of tests: the default hub, with a manual clock or with additions of a test.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use greenhub::hub::{Hub, Key, Lease, ManualClock, Notify, Ready, Rearm, Time, Watched};
use greenhub::{Interest, use_hub_with};

/// Returns a new hub of the kind under test.
pub(crate) fn default_hub() -> io::Result<Box<dyn Hub>> {
    let choose = hub_core::internal::DEFAULT_HUB.first().expect("the facade brings a hub");
    (choose()?.build)()
}

/// Makes this OS thread use the default hub with a clock that advances only while every green thread waits.
///
/// A wait that a report ends takes no time.
pub(crate) fn use_manual_clock() -> ManualClock {
    let clock = ManualClock::new();
    let driven = clock.clone();
    use_hub_with(move || Ok(driven.drive(default_hub()?))).expect("not in the main loop");
    clock
}

/// The additions of a test to a hub. A method that a test leaves out forwards to the hub.
pub(crate) trait Tap: 'static {
    fn name(&self, hub: &dyn Hub) -> &'static str {
        hub.name()
    }
    fn watch(&mut self, hub: &mut dyn Hub, call: Watch<'_>) -> io::Result<()> {
        call.forward(hub)
    }
    fn forget(&mut self, hub: &mut dyn Hub, key: Key, fd: Option<BorrowedFd<'_>>) {
        hub.forget(key, fd);
    }
    fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
        call.forward(hub)
    }
    fn after_fork(&mut self, hub: &mut dyn Hub) -> io::Result<()> {
        hub.after_fork()
    }
    fn notifier(&mut self, hub: &mut dyn Hub) -> Option<Arc<dyn Notify>> {
        hub.notifier()
    }
    fn pollable<'hub>(&self, hub: &'hub dyn Hub) -> Option<BorrowedFd<'hub>> {
        hub.pollable()
    }
    fn may_wake(&self, hub: &dyn Hub) -> bool {
        hub.may_wake()
    }
    fn completes_futures(&self, hub: &dyn Hub) -> bool {
        hub.completes_futures()
    }
    fn stack_size(&self, hub: &dyn Hub) -> usize {
        hub.stack_size()
    }
    fn now(&self, hub: &dyn Hub) -> Time {
        hub.now()
    }
}

/// The arguments of [`Hub::watch`].
pub(crate) struct Watch<'a> {
    pub(crate) key: Key,
    pub(crate) fd: BorrowedFd<'a>,
    interest: Interest,
    pub(crate) lease: Lease,
}

impl Watch<'_> {
    pub(crate) fn forward(self, hub: &mut dyn Hub) -> io::Result<()> {
        hub.watch(self.key, self.fd, self.interest, self.lease)
    }
}

/// The arguments of [`Hub::wait`].
pub(crate) struct Wait<'a> {
    pub(crate) watched: &'a Watched,
    pub(crate) timeout: Option<Duration>,
    pub(crate) ready: &'a mut Ready,
}

impl Wait<'_> {
    pub(crate) fn forward(self, hub: &mut dyn Hub) -> io::Result<()> {
        hub.wait(self.watched, self.timeout, self.ready)
    }
}

/// The default hub with the additions of a test.
pub(crate) struct Tapped<T> {
    // Dropped before the hub.
    tap: T,
    hub: Box<dyn Hub>,
}

impl<T: Tap> Tapped<T> {
    pub(crate) fn new(tap: T) -> io::Result<Tapped<T>> {
        Ok(Tapped { tap, hub: default_hub()? })
    }
}

/// Makes this OS thread use the default hub with these additions.
pub(crate) fn use_tapped_hub(tap: impl Tap) {
    use_hub_with(move || Tapped::new(tap)).expect("not in the main loop");
}

impl<T: Tap> Hub for Tapped<T> {
    fn name(&self) -> &'static str {
        self.tap.name(&*self.hub)
    }
    fn rearm(&self) -> Rearm {
        self.hub.rearm()
    }
    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        self.tap.watch(&mut *self.hub, Watch { key, fd, interest, lease })
    }
    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        self.tap.forget(&mut *self.hub, key, fd);
    }
    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        self.tap.wait(&mut *self.hub, Wait { watched, timeout, ready })
    }
    fn after_fork(&mut self) -> io::Result<()> {
        self.tap.after_fork(&mut *self.hub)
    }
    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        self.tap.notifier(&mut *self.hub)
    }
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.tap.pollable(&*self.hub)
    }
    fn may_wake(&self) -> bool {
        self.tap.may_wake(&*self.hub)
    }
    fn completes_futures(&self) -> bool {
        self.tap.completes_futures(&*self.hub)
    }
    fn stack_size(&self) -> usize {
        self.tap.stack_size(&*self.hub)
    }
    fn now(&self) -> Time {
        self.tap.now(&*self.hub)
    }
}

/// Counts the calls of a hub, and runs hooks inside them.
#[derive(Clone, Default)]
pub(crate) struct Calls {
    pub(crate) watches: Rc<Cell<usize>>,
    pub(crate) waits: Rc<Cell<usize>>,
    /// Runs inside the hub's next `wait`.
    pub(crate) in_wait: Rc<Cell<Option<CallHook>>>,
    /// Runs inside the hub's next `watch`.
    pub(crate) in_watch: Rc<Cell<Option<CallHook>>>,
}

pub(crate) type CallHook = Box<dyn FnOnce() -> io::Result<()>>;

impl Calls {
    /// Returns the default hub, with counted calls.
    pub(crate) fn hub(&self) -> io::Result<Tapped<Calls>> {
        Tapped::new(self.clone())
    }
}

impl Tap for Calls {
    fn name(&self, _: &dyn Hub) -> &'static str {
        "counted"
    }
    fn watch(&mut self, hub: &mut dyn Hub, call: Watch<'_>) -> io::Result<()> {
        self.watches.set(self.watches.get() + 1);
        if let Some(hook) = self.in_watch.take() {
            hook()?;
        }
        call.forward(hub)
    }
    fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
        self.waits.set(self.waits.get() + 1);
        if let Some(hook) = self.in_wait.take() {
            hook()?;
        }
        call.forward(hub)
    }
}

/// The descriptor that a `forget` call passes beside the number.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Lent {
    Nothing,
    Open,
    Closed,
}

/// The recorded `forget` calls: the numbers with their descriptors.
pub(crate) type Forgotten = Rc<RefCell<Vec<(RawFd, Lent)>>>;

struct ForgetRecorder(Forgotten);

impl Tap for ForgetRecorder {
    fn name(&self, _: &dyn Hub) -> &'static str {
        "recorder"
    }
    fn forget(&mut self, hub: &mut dyn Hub, key: Key, fd: Option<BorrowedFd<'_>>) {
        let lent = match fd {
            None => Lent::Nothing,
            Some(fd) if rustix::io::fcntl_getfd(fd).is_ok() => Lent::Open,
            Some(_) => Lent::Closed,
        };
        self.0.borrow_mut().push((key.fd(), lent));
        hub.forget(key, fd);
    }
}

/// Makes this OS thread use the default hub with recorded `forget` calls.
pub(crate) fn use_recording_hub() -> Forgotten {
    let forgotten = Forgotten::default();
    use_tapped_hub(ForgetRecorder(Rc::clone(&forgotten)));
    forgotten
}
