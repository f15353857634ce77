//! Watchers of files.
//!
//! A look at a file is a job of the pool, for which a green thread waits: a file system may take long to answer. The
//! period and, where there are such, the notices of [`directories`](crate::directories) are reasons to look.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use hub_core::internal::{offload, schedule_shared};
use hub_core::{Parker, TimerHandle, WaitReason, spawn_n};

use crate::error::WatcherError;
use crate::inotify::Watched;
use crate::node::{Kind, Node};
use crate::state::State;
use crate::watcher::Watch;

/// A watcher of a file: called after the metadata at a path has changed. gevent's `loop.stat`.
///
/// Made by [`Loop::stat`](crate::Loop::stat). The event has the metadata before and after, which is none for a missing
/// file. A change, a file that appears or goes, and a file that is replaced by another one are each reported. Several
/// changes between two looks are one event. A time of access alone is no change.
///
/// On Linux the watcher looks when inotify reports the file or its directory. It also looks once in every period, since
/// network file systems report nothing. A look does not block the OS thread. As long as it lasts it keeps the loop
/// alive, as each job of the pool does, even if the watcher was stopped or is not counted.
///
/// ```
/// use greenhub::gevent::{Watcher, event_loop};
/// use std::time::Duration;
/// let path = std::env::temp_dir().join(format!("greenhub-stat-{}", std::process::id()));
/// let watcher = event_loop().stat(&path, Duration::from_millis(100));
/// std::fs::write(&path, "x")?;
/// let change = watcher.wait(None)?; // only this green thread waits
/// assert!(change.prev.is_none() && change.attr.is_some());
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Stat = Watch<StatKind>;

/// A change of a file.
#[derive(Clone, Debug)]
pub struct StatEvent {
    /// The metadata before the change; none if there was no file.
    pub prev: Option<Metadata>,
    /// The metadata after the change; none if there is no file any more.
    pub attr: Option<Metadata>,
}

/// The part of a [`Stat`] that other watchers do not have.
pub struct StatKind {
    path: Arc<PathBuf>,
    every: Duration,
    /// The result of the last look; none before the first one.
    known: RefCell<Option<Option<Metadata>>>,
    armed: RefCell<Option<TimerHandle>>,
    expiry: OnceCell<Rc<dyn hub_core::Timer>>,
    /// The numbers of the file and its directory at inotify.
    pub(crate) watched: Cell<Watched>,
    is_looking: Cell<bool>,
    /// Whether a reason to look has come during a look.
    looks_again: Cell<bool>,
}

/// The shortest period.
const SHORTEST: Duration = Duration::from_millis(100);
/// The period of a watcher that names none. libev's default.
const DEFAULT: Duration = Duration::from_secs(5);

impl Stat {
    /// Creates a watcher of the file at `path`.
    pub(crate) fn of(state: Rc<State>, path: &Path, every: Duration) -> Stat {
        let path = Arc::new(path.to_owned());
        let every = if every.is_zero() { DEFAULT } else { every.max(SHORTEST) };
        let kind = StatKind {
            known: RefCell::new(first_look(&path)),
            path,
            every,
            armed: RefCell::default(),
            expiry: OnceCell::new(),
            watched: Cell::default(),
            is_looking: Cell::default(),
            looks_again: Cell::default(),
        };
        Watch::new(Node::new(state, kind))
    }

    /// Returns the path. Does not switch. gevent's `stat.path`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.node().kind.path
    }

    /// Returns the period. Does not switch. gevent's `stat.interval`.
    #[doc(alias = "interval")]
    #[must_use]
    pub fn every(&self) -> Duration {
        self.node().kind.every
    }

    /// Returns the metadata that the last look has found. Does not switch. gevent's `stat.attr`.
    ///
    /// Returns `None` if there was no file, and before the first look.
    #[must_use]
    pub fn attr(&self) -> Option<Metadata> {
        self.node().kind.known.borrow().clone().flatten()
    }
}

/// Looks at a file on behalf of a caller that can wait.
fn first_look(path: &Arc<PathBuf>) -> Option<Option<Metadata>> {
    // A callback cannot wait, and must not block.
    let _ = Parker::new(WaitReason::Event).ok()?;
    let path = Arc::clone(path);
    offload(move || fs::metadata(&*path).ok()).ok()
}

impl StatKind {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_looking(&self) -> bool {
        self.is_looking.get()
    }

    fn schedule(&self, node: &Rc<Node<StatKind>>) {
        let expiry = self.expiry.get_or_init(|| Rc::new(Expiry(Rc::downgrade(node))));
        let armed = schedule_shared(node.state.hub().cached_now() + self.every, Rc::clone(expiry));
        // This crate keeps the loop alive.
        armed.set_counted(false);
        self.armed.replace(Some(armed));
    }

    /// Takes in what a look has found.
    fn take_in(&self, node: &Rc<Node<StatKind>>, attr: Option<Metadata>) {
        let Some(prev) = self.known.replace(Some(attr.clone())) else { return };
        if !is_same(prev.as_ref(), attr.as_ref()) {
            node.set_pending(StatEvent { prev, attr });
        }
    }
}

/// Looks at the file in a green thread of its own, unless there is one.
pub(crate) fn look(node: &Rc<Node<StatKind>>) {
    if node.kind.is_looking.replace(true) {
        node.kind.looks_again.set(true);
        return;
    }
    let node = Rc::clone(node);
    spawn_n(move || look_until_quiet(&node));
}

fn look_until_quiet(node: &Rc<Node<StatKind>>) {
    let kind = &node.kind;
    let _looking = Looking(kind);
    loop {
        kind.looks_again.set(false);
        if !node.is_active() {
            return;
        }
        let (path, inotify) = (Arc::clone(&kind.path), node.state.directories.inotify());
        // The watch comes before the look, so that no change is between them.
        let found = offload(move || (inotify.map(|inotify| inotify.watch(&path)), fs::metadata(&*path).ok()));
        if let Ok((watched, attr)) = found
            && node.is_active()
        {
            kind.watched.set(watched.unwrap_or_default());
            kind.take_in(node, attr);
        }
        if !kind.looks_again.get() {
            return;
        }
    }
}

/// A look in progress. `Drop` ends it, also if its green thread is killed.
struct Looking<'a>(&'a StatKind);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.is_looking.set(false);
    }
}

/// Returns whether nothing but the time of the last access differs.
fn is_same(one: Option<&Metadata>, other: Option<&Metadata>) -> bool {
    let file =
        |data: &Metadata| (data.dev(), data.ino(), data.mode(), data.nlink(), data.uid(), data.gid(), data.rdev());
    let content = |data: &Metadata| (data.size(), data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec());
    one.map(file) == other.map(file) && one.map(content) == other.map(content)
}

impl fmt::Debug for StatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(Self::NAME);
        self.describe(&mut shown);
        shown.finish_non_exhaustive()
    }
}

impl Kind for StatKind {
    type Event = StatEvent;

    const NAME: &'static str = "Stat";
    const REASON: WaitReason = WaitReason::File;
    const IS_COUNTED_HERE: bool = true;
    const KEEPS_EVENTS: bool = true;

    fn arm(&self, node: &Rc<Node<StatKind>>) -> Result<(), WatcherError> {
        node.state.directories.add(node);
        self.schedule(node);
        // The file may have changed since the last look.
        look(node);
        Ok(())
    }

    fn disarm(&self, node: &Node<StatKind>) {
        node.state.directories.remove(node);
        if let Some(armed) = self.armed.take() {
            armed.cancel();
        }
    }

    fn merge(earlier: StatEvent, later: StatEvent) -> StatEvent {
        StatEvent { prev: earlier.prev, attr: later.attr }
    }

    fn describe(&self, shown: &mut fmt::DebugStruct<'_, '_>) {
        shown.field("path", &self.path).field("every", &self.every);
    }
}

/// The end of a period. It runs no callback.
struct Expiry(Weak<Node<StatKind>>);

impl hub_core::Timer for Expiry {
    fn expired(&self) {
        if let Some(node) = self.0.upgrade() {
            node.kind.schedule(&node);
            look(&node);
        }
    }

    fn aborted(&self) {
        if let Some(node) = self.0.upgrade() {
            node.kind.schedule(&node);
        }
    }
}
