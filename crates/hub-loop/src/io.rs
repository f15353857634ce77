//! Watchers of descriptors.
//!
//! The hub has one listener for each direction of a number. A [`Fan`] is that listener, for all watchers of the number
//! and direction.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::{Rc, Weak};

use hub_core::hub::{Interest, Readiness};
use hub_core::internal::{ask_owner, drop_contained, listen_shared};
use hub_core::{Listener, Registration, TrampolineError, WaitReason};

use crate::error::WatcherError;
use crate::node::{Kind, Node};
use crate::state::{State, for_each};
use crate::watcher::{Watch, Watcher};

/// A watcher of a descriptor. gevent's `loop.io`.
///
/// Made by [`Loop::io`](crate::Loop::io). The callback is called in each turn in which the descriptor is ready. The
/// event is the readiness. A watcher owns what it watches. Several watchers of one descriptor are independent: each has
/// its own directions, priority and callback. A green thread that waits for the same direction of the descriptor by
/// another call makes the start of a watcher fail, and the reverse.
///
/// If a socket of greenstd is closed, its watchers are closed with it: their callbacks are not called any more, and
/// waits end with [`WaitError::Closed`](crate::WaitError::Closed). [`Loop::closing_fd`](crate::Loop::closing_fd) before
/// the close tells the callbacks.
///
/// If the callback does not make the descriptor unready, it is called again in the next turn, on every hub. If it
/// panics, the watcher is closed: it would be called again at once.
///
/// ```
/// use greenhub::Interest;
/// use greenhub::gevent::{Run, Watcher, event_loop};
/// use std::io::{Read, Write};
/// use std::rc::Rc;
/// let (reader, mut writer) = std::io::pipe()?;
/// let reader = Rc::new(reader);
/// let watcher = event_loop().io(Rc::clone(&reader), Interest::READ)?;
/// let (sender, text) = std::sync::mpsc::channel();
/// watcher.start(move |watcher, _| {
///     let mut buffer = [0; 8];
///     let count = (&*reader).read(&mut buffer).unwrap(); // does not block: the pipe is readable
///     sender.send(buffer[..count].to_vec()).unwrap();
///     watcher.stop();
/// })?;
/// writer.write_all(b"hello")?;
/// event_loop().run(Run::UntilIdle)?;
/// assert_eq!(text.recv()?, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Io = Watch<IoKind>;

/// The part of an [`Io`] that other watchers do not have.
pub struct IoKind {
    fd: Rc<dyn AsFd>,
    /// The number at the time when the watcher was made. The owner may be closed later.
    number: RawFd,
    events: Cell<Interest>,
    /// The listeners of the directions.
    fans: [OnceCell<Rc<Fan>>; 2],
}

const DIRECTIONS: [Interest; 2] = [Interest::READ, Interest::WRITE];

impl Io {
    /// Creates a watcher of `fd`.
    pub(crate) fn of(state: Rc<State>, fd: Rc<dyn AsFd>, events: Interest) -> Result<Io, WatcherError> {
        let number = check(&*fd, events)?;
        Ok(Watch::new(Node::new(
            state,
            IoKind { fd, number, events: Cell::new(events), fans: [OnceCell::new(), OnceCell::new()] },
        )))
    }

    /// Returns the directions that the watcher waits for. Does not switch. gevent's `io.events`.
    #[must_use]
    pub fn events(&self) -> Interest {
        self.node().kind.events.get()
    }

    /// Sets the directions that the watcher waits for. Does not switch. gevent's `io.events`.
    ///
    /// # Errors
    ///
    /// Returns [`WatcherError::Active`] while the watcher is active, and an error if `events` is empty or the
    /// descriptor is not open.
    pub fn set_events(&self, events: Interest) -> Result<(), WatcherError> {
        if self.is_active() {
            return Err(WatcherError::Active { setting: "events" });
        }
        check(&*self.node().kind.fd, events)?;
        self.node().kind.events.set(events);
        Ok(())
    }
}

/// Returns the number of a descriptor that is open. Checks that `events` names a direction.
fn check(fd: &dyn AsFd, events: Interest) -> Result<RawFd, WatcherError> {
    let fd = ask_owner(fd).map_err(TrampolineError::from)?;
    if events == Interest::NONE {
        let error = TrampolineError::Interest { interest: events, fd: fd.as_raw_fd() };
        return Err(error.into());
    }
    if rustix::io::fcntl_getfd(fd).is_err() {
        return Err(TrampolineError::InvalidFd { fd: fd.as_raw_fd() }.into());
    }
    Ok(fd.as_raw_fd())
}

impl fmt::Debug for IoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(Self::NAME);
        self.describe(&mut shown);
        shown.finish_non_exhaustive()
    }
}

impl Kind for IoKind {
    type Event = Readiness;

    const NAME: &'static str = "Io";
    const REASON: WaitReason = WaitReason::Descriptor;
    const CLOSES_ON_PANIC: bool = true;

    fn arm(&self, node: &Rc<Node<IoKind>>) -> Result<(), WatcherError> {
        for (direction, fan) in DIRECTIONS.into_iter().zip(&self.fans) {
            if self.events.get().contains(direction) {
                fan.get_or_init(|| Fan::of(&node.state, &self.fd, self.number, direction)).add(node)?;
            }
        }
        Ok(())
    }

    fn disarm(&self, node: &Node<IoKind>) {
        self.fans.iter().filter_map(OnceCell::get).for_each(|fan| fan.remove(node));
    }

    fn merge(earlier: Readiness, later: Readiness) -> Readiness {
        earlier | later
    }

    fn set_counted(&self, _: &Node<IoKind>, _: bool) {
        self.fans.iter().filter_map(OnceCell::get).for_each(|fan| fan.update_counted());
    }

    fn describe(&self, shown: &mut fmt::DebugStruct<'_, '_>) {
        shown.field("fd", &self.number).field("events", &self.events.get());
    }
}

/// The listener of one direction of a number, for all its watchers.
pub(crate) struct Fan {
    fd: Rc<dyn AsFd>,
    direction: Interest,
    listener: Rc<dyn Listener>,
    registration: RefCell<Option<Registration>>,
    watchers: RefCell<Vec<Rc<Node<IoKind>>>>,
}

impl Fan {
    /// Returns the listener of a number and direction.
    fn of(state: &State, fd: &Rc<dyn AsFd>, number: RawFd, direction: Interest) -> Rc<Fan> {
        let mut fans = state.fans.borrow_mut();
        let place = fans.entry((number, direction)).or_default();
        if let Some(fan) = place.upgrade() {
            return fan;
        }
        let fan = Rc::new_cyclic(|own: &Weak<Fan>| Fan {
            fd: Rc::clone(fd),
            direction,
            listener: Rc::new(FanListener(Weak::clone(own))),
            registration: RefCell::default(),
            watchers: RefCell::default(),
        });
        *place = Rc::downgrade(&fan);
        fans.retain(|_, fan| fan.strong_count() != 0);
        fan
    }

    fn add(&self, node: &Rc<Node<IoKind>>) -> Result<(), WatcherError> {
        if self.registration.borrow().is_none() {
            let registration = listen_shared(Rc::clone(&self.fd), self.direction, Rc::clone(&self.listener))?;
            self.registration.replace(Some(registration));
        }
        self.watchers.borrow_mut().push(Rc::clone(node));
        self.update_counted();
        Ok(())
    }

    fn remove(&self, node: &Node<IoKind>) {
        self.watchers.borrow_mut().retain(|watcher| !std::ptr::eq(&**watcher, node));
        if self.watchers.borrow().is_empty() {
            let registration = self.registration.take();
            drop(registration);
        } else {
            self.update_counted();
        }
    }

    /// Tells the hub whether a watcher keeps the loop alive.
    fn update_counted(&self) {
        let is_counted = self.watchers.borrow().iter().any(|watcher| watcher.is_counted());
        if let Some(registration) = &*self.registration.borrow() {
            registration.set_counted(is_counted);
        }
    }

    /// Makes all watchers pending.
    pub(crate) fn set_pending(&self, readiness: Readiness) -> bool {
        for_each(&self.watchers, |watcher| watcher.set_pending(readiness));
        !self.watchers.borrow().is_empty()
    }

    /// Closes all watchers: their descriptor was closed.
    fn close(&self) {
        let registration = self.registration.take();
        let watchers = self.watchers.take();
        drop(registration);
        watchers.iter().for_each(|watcher| watcher.close());
        // It may have the last references, and the owners of descriptors are foreign.
        drop_contained(watchers);
    }
}

/// The listener of a [`Fan`]. It runs no callback.
struct FanListener(Weak<Fan>);

impl Listener for FanListener {
    fn ready(&self, _: RawFd, readiness: Readiness) {
        if let Some(fan) = self.0.upgrade() {
            fan.set_pending(readiness);
        }
    }

    fn closed(&self, _: RawFd) {
        if let Some(fan) = self.0.upgrade() {
            fan.close();
        }
    }
}

impl State {
    /// Makes the watchers of a number pending. Returns whether there are any.
    pub(crate) fn feed_descriptor(&self, fd: RawFd) -> bool {
        let fans = DIRECTIONS.map(|direction| self.fans.borrow().get(&(fd, direction)).and_then(Weak::upgrade));
        let marked = fans.into_iter().flatten().map(|fan| fan.set_pending(Readiness::from(fan.direction)));
        marked.fold(false, |any, marked| any | marked)
    }
}
