//! The notices of the system for all watchers of files of a loop.
//!
//! One descriptor serves all of them. The watches of a file and of its directory are set by each look at the file, on a
//! thread of the pool, since the system may have to wait for a file system. Setting a watch again changes nothing. A
//! watch that no watcher knows any more is removed by its first notice. On systems without inotify there are no
//! notices.

use std::cell::RefCell;
use std::ffi::CStr;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use hub_core::hub::{Interest, Readiness};
use hub_core::internal::{listen_shared, report_failure};
use hub_core::{Listener, Registration};

use crate::error::WatcherError;
use crate::inotify::{Inotify, Notice};
use crate::node::Node;
use crate::stat::{StatKind, look};
use crate::state::{State, for_each};

/// The active watchers of files, and the descriptor of their notices.
pub(crate) struct Directories {
    inotify: RefCell<Option<(Arc<Inotify>, Registration)>>,
    nodes: RefCell<Vec<Rc<Node<StatKind>>>>,
    listener: Rc<dyn Listener>,
}

impl Directories {
    pub(crate) fn new(own: &Weak<State>) -> Directories {
        Directories {
            inotify: RefCell::default(),
            nodes: RefCell::default(),
            listener: Rc::new(DirectoryListener(Weak::clone(own))),
        }
    }

    /// Returns the descriptor, if there is one.
    pub(crate) fn inotify(&self) -> Option<Arc<Inotify>> {
        self.inotify.borrow().as_ref().map(|(inotify, _)| Arc::clone(inotify))
    }

    pub(crate) fn add(&self, node: &Rc<Node<StatKind>>) {
        self.nodes.borrow_mut().push(Rc::clone(node));
        // There may be none, as on systems without inotify.
        _ = self.open();
    }

    pub(crate) fn remove(&self, node: &Node<StatKind>) {
        self.nodes.borrow_mut().retain(|other| !std::ptr::eq(&**other, node));
        if self.nodes.borrow().is_empty() {
            let former = self.inotify.take();
            drop(former);
        }
    }

    /// Makes the descriptor, unless there is one. Without it the periods of the watchers remain.
    fn open(&self) -> Result<(), WatcherError> {
        if self.inotify.borrow().is_some() {
            return Ok(());
        }
        let inotify = Inotify::new().map_err(|error| WatcherError::system("make its inotify descriptor", error))?;
        let inotify = Arc::new(inotify);
        let fd = Rc::new(Arc::clone(&inotify));
        let registration = listen_shared(fd, Interest::READ, Rc::clone(&self.listener))?;
        registration.set_counted(false);
        self.inotify.replace(Some((inotify, registration)));
        Ok(())
    }

    /// Replaces the descriptor: a forked child shares it with its parent, and a hub may refuse to watch it further.
    pub(crate) fn renew(&self) {
        let former = self.inotify.take();
        if self.nodes.borrow().is_empty() {
            return;
        }
        let had_notices = former.is_some();
        drop(former);
        if let Err(error) = self.open()
            && had_notices
        {
            report_failure("notices of changed files, which are only looked at in their periods now", error);
        }
        self.look_at(|_| true);
    }

    /// Looks at the files whose watcher `is_concerned`.
    fn look_at(&self, is_concerned: impl Fn(&StatKind) -> bool) -> bool {
        let any = self.nodes.borrow().iter().any(|node| is_concerned(&node.kind));
        // A look begins in a green thread of its own.
        for_each(&self.nodes, |node| {
            if is_concerned(&node.kind) {
                look(&node);
            }
        });
        any
    }

    /// Reads all notices.
    fn read(&self) {
        let Some(inotify) = self.inotify() else { return };
        inotify.read(|notice| match notice {
            Notice::Lost => _ = self.look_at(|_| true),
            Notice::Of { watch, name } => {
                let is_known = self.nodes.borrow().iter().any(|node| node.kind.watched.get().has(watch));
                // A look in progress may have set it, and looks again.
                if !is_known && !self.look_at(StatKind::is_looking) {
                    inotify.forget(watch);
                }
                self.look_at(|kind| kind.concerns(watch, name));
            }
        });
    }
}

impl StatKind {
    /// Returns whether a notice concerns the file.
    fn concerns(&self, watch: i32, name: Option<&CStr>) -> bool {
        let watched = self.watched.get();
        let is_own = || match (name, self.path().file_name()) {
            (Some(name), Some(own)) => name.to_bytes() == own.as_encoded_bytes(),
            _ => true,
        };
        watched.file == Some(watch) || (watched.directory == Some(watch) && is_own())
    }
}

/// The listener of the notices. It runs no callback.
struct DirectoryListener(Weak<State>);

impl Listener for DirectoryListener {
    fn ready(&self, _: RawFd, _: Readiness) {
        if let Some(state) = self.0.upgrade() {
            state.directories.read();
        }
    }

    fn closed(&self, _: RawFd) {
        if let Some(state) = self.0.upgrade() {
            state.directories.renew();
        }
    }
}
