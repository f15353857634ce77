//! A hub that records its `forget` calls.

use std::cell::RefCell;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use greenhub::hub::{Hub, Key, Lease, Ready, Rearm, Time, Watched};
use greenhub::{Interest, use_hub_with};

/// The descriptor that a `forget` call passes beside the number.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Lent {
    Nothing,
    Open,
    Closed,
}

/// The recorded `forget` calls: the numbers with their descriptors.
pub(crate) type Forgotten = Rc<RefCell<Vec<(RawFd, Lent)>>>;

/// The default hub, which records its `forget` calls.
struct Noting {
    hub: Box<dyn Hub>,
    forgotten: Forgotten,
}

impl Hub for Noting {
    fn name(&self) -> &'static str {
        "noting"
    }
    fn rearm(&self) -> Rearm {
        self.hub.rearm()
    }
    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        self.hub.watch(key, fd, interest, lease)
    }
    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        let lent = match fd {
            None => Lent::Nothing,
            Some(fd) if rustix::io::fcntl_getfd(fd).is_ok() => Lent::Open,
            Some(_) => Lent::Closed,
        };
        self.forgotten.borrow_mut().push((key.fd(), lent));
        self.hub.forget(key, fd);
    }
    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        self.hub.wait(watched, timeout, ready)
    }
    fn after_fork(&mut self) -> io::Result<()> {
        self.hub.after_fork()
    }
    fn now(&self) -> Time {
        self.hub.now()
    }
}

/// Makes the calling OS thread use the default hub with recorded `forget` calls.
pub(crate) fn use_noting_hub() -> Forgotten {
    let forgotten = Forgotten::default();
    let noted = Rc::clone(&forgotten);
    use_hub_with(move || {
        let default = hub_core::internal::DEFAULT_HUB.first().expect("the facade brings a hub");
        let hub = (default().map_err(io::Error::other)?.build)()?;
        Ok(Noting { hub, forgotten: noted })
    })
    .expect("not in the main loop");
    forgotten
}
