//! Watchers of child processes.
//!
//! A process descriptor (Linux) becomes readable when the child ends. Where there is none, or the hub refuses it, each
//! SIGCHLD is a reason to look at the child. Either way only the child itself is reaped.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::{Rc, Weak};

use hub_core::hub::{Interest, Readiness};
use hub_core::internal::{listen_shared, report_failure};
use hub_core::{Listener, Registration, TrampolineError, WaitReason};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use crate::error::WatcherError;
use crate::node::{Kind, Node};
use crate::phase::SetPending;
use crate::signal::SignalFan;
use crate::state::State;
use crate::watcher::Watch;

/// A watcher of a child process: called once when it has ended. gevent's `loop.child`.
///
/// Made by [`Loop::child`](crate::Loop::child), on any OS thread. The event is the end with its status. The watcher
/// reaps the child, and nothing else: not the children of [`std::process`], of greenstd or of other watchers. It is
/// called as well if the child ended before the watcher was made. It stops before its callback is called.
///
/// The child has to be left to the watcher. If other code reaps it first, such as `std::process::Child::wait`, the
/// active watcher is called all the same, but the [status](ChildStatus::status) is lost. In a forked child the watcher
/// is closed: that process cannot wait for its siblings.
///
/// ```
/// use greenhub::gevent::{Watcher, event_loop};
/// let process = std::process::Command::new("sh").args(["-c", "exit 3"]).spawn()?;
/// let child = event_loop().child(process.id())?;
/// let ended = child.wait(None)?; // only this green thread waits
/// assert_eq!((ended.pid, ended.code()), (process.id(), Some(3)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Child = Watch<ChildKind>;

/// The end of a child process.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ChildStatus {
    /// The ID of the process.
    pub pid: u32,
    /// The exit code, or the signal that ended the process. `None` if other code has reaped it.
    pub status: Option<ExitStatus>,
}

impl ChildStatus {
    /// Returns the exit code. Returns `None` if a signal has ended the process, or if the status is lost.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status?.code()
    }
}

/// The part of a [`Child`] that other watchers do not have.
pub struct ChildKind {
    pid: Pid,
    /// The descriptor of the process, if the system has such.
    process: Option<Rc<dyn AsFd>>,
    listener: OnceCell<Rc<dyn Listener>>,
    registration: RefCell<Option<Registration>>,
    /// The watch for SIGCHLD, without a descriptor, and whether it is in use.
    fan: OnceCell<Rc<SignalFan>>,
    by_signal: Cell<bool>,
    ended: Cell<Option<ChildStatus>>,
}

impl Child {
    /// Creates a watcher of `pid`.
    pub(crate) fn of(state: Rc<State>, pid: u32) -> Result<Child, WatcherError> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or(WatcherError::Child { pid, reason: "no process has this number" })?;
        check(number)?;
        let kind = ChildKind {
            pid: number,
            // The child was not reaped, so no other process has its number.
            process: open(number),
            listener: OnceCell::new(),
            registration: RefCell::default(),
            fan: OnceCell::new(),
            by_signal: Cell::default(),
            ended: Cell::default(),
        };
        Ok(Watch::new(Node::new(state, kind)))
    }

    /// Returns the ID of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.node().kind.id()
    }

    /// Returns the status of the child, if the watcher has reaped it. gevent's `rstatus`.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        self.node().kind.ended.get()?.status
    }
}

impl ChildKind {
    fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Begins to wait for the end.
    fn listen(&self, node: &Rc<Node<ChildKind>>) -> Result<(), WatcherError> {
        if let Some(process) = &self.process {
            let listener = self.listener.get_or_init(|| Rc::new(ChildListener(Rc::downgrade(node))));
            match listen_shared(Rc::clone(process), Interest::READ, Rc::clone(listener)) {
                Ok(registration) => {
                    // This crate keeps the loop alive, as it does without a descriptor.
                    registration.set_counted(false);
                    self.registration.replace(Some(registration));
                    return Ok(());
                }
                // The number may be too large for the hub.
                Err(TrampolineError::Register { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let fan = self.fan.get_or_init(|| SignalFan::of(&node.state, Signal::CHILD.as_raw()));
        fan.add(&node.state, Rc::clone(node) as Rc<dyn SetPending>)?;
        self.by_signal.set(true);
        Ok(())
    }

    fn end_listen(&self, node: &Node<ChildKind>) {
        let registration = self.registration.take();
        drop(registration);
        if self.by_signal.take()
            && let Some(fan) = self.fan.get()
        {
            fan.remove(&node.state, node);
        }
    }

    /// Reaps the child if it has ended.
    fn reap(&self) -> Result<Option<ChildStatus>, Errno> {
        if let Some(ended) = self.ended.get() {
            return Ok(Some(ended));
        }
        let status = wait_for(self.pid, self.process.as_deref())?;
        Ok(status.map(|status| self.end(Some(status))))
    }

    /// Keeps the end of the child. `None` stands for a status that other code has got.
    fn end(&self, status: Option<ExitStatus>) -> ChildStatus {
        let ended = ChildStatus { pid: self.id(), status };
        self.ended.set(Some(ended));
        ended
    }
}

impl fmt::Debug for ChildKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(Self::NAME);
        self.describe(&mut shown);
        shown.finish_non_exhaustive()
    }
}

impl Kind for ChildKind {
    type Event = ChildStatus;

    const NAME: &'static str = "Child";
    const REASON: WaitReason = WaitReason::Child;
    const IS_COUNTED_HERE: bool = true;

    fn arm(&self, node: &Rc<Node<ChildKind>>) -> Result<(), WatcherError> {
        self.listen(node)?;
        // It may have ended before a signal could tell.
        match self.reap() {
            Ok(Some(ended)) => node.set_pending(ended),
            Ok(None) => {}
            Err(error) => {
                self.end_listen(node);
                return Err(refusal(self.pid, error));
            }
        }
        node.state.children.borrow_mut().push(Rc::clone(node));
        Ok(())
    }

    fn disarm(&self, node: &Node<ChildKind>) {
        self.end_listen(node);
        node.state.children.borrow_mut().retain(|other| !std::ptr::eq(&**other, node));
    }

    fn stays_active(&self) -> bool {
        // An event of the program does not reap the child.
        self.ended.get().is_none()
    }

    fn describe(&self, shown: &mut fmt::DebugStruct<'_, '_>) {
        shown.field("pid", &self.id()).field("by_signal", &self.process.is_none());
    }
}

impl SetPending for Node<ChildKind> {
    /// Looks at the child. Runs no foreign code.
    fn set_pending(self: Rc<Self>) {
        match self.kind.reap() {
            Ok(None) => {}
            Ok(Some(ended)) => Node::set_pending(&self, ended),
            // Other code has reaped the child since the start.
            Err(_) => {
                let ended = self.kind.end(None);
                Node::set_pending(&self, ended);
            }
        }
    }
}

/// The listener of a process descriptor. It runs no callback.
struct ChildListener(Weak<Node<ChildKind>>);

impl Listener for ChildListener {
    fn ready(&self, _: RawFd, _: Readiness) {
        if let Some(node) = self.0.upgrade() {
            // The descriptor stays readable.
            let registration = node.kind.registration.take();
            drop(registration);
            SetPending::set_pending(node);
        }
    }

    /// The hub has refused to watch the descriptor further, or the program has given up its number by mistake.
    fn closed(&self, _: RawFd) {
        if let Some(node) = self.0.upgrade() {
            node.kind.end_listen(&node);
            if let Err(error) = node.kind.listen(&node) {
                report_failure("the end of a child process", error);
            }
            SetPending::set_pending(node);
        }
    }
}

impl State {
    /// Closes the watchers of children in a forked child, whose siblings these are.
    pub(crate) fn close_children(&self) {
        let children = self.children.take();
        children.iter().for_each(|node| node.close());
    }
}

/// Returns the status of a child that has ended, and reaps it.
fn wait_for(pid: Pid, process: Option<&dyn AsFd>) -> Result<Option<ExitStatus>, Errno> {
    #[cfg(target_os = "linux")]
    if let Some(process) = process {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        // Unlike the number, the descriptor cannot be that of a later child. Linux before 5.4 cannot wait for it.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(process.as_fd()), options)) {
            Err(Errno::INVAL) => {}
            waited => return waited.map(|status| raw_status(&status?).map(ExitStatus::from_raw)),
        }
    }
    let _ = process;
    let waited = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::NOHANG))?;
    Ok(waited.map(|(_, status)| ExitStatus::from_raw(status.as_raw())))
}

/// Returns a status as waitpid(2) reports it. Returns `None` if the process has not ended.
#[cfg(target_os = "linux")]
fn raw_status(status: &rustix::process::WaitIdStatus) -> Option<std::ffi::c_int> {
    const DUMPED: std::ffi::c_int = 0x80;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some((code & 0xff) << 8),
        (None, Some(signal)) => Some(signal | if status.dumped() { DUMPED } else { 0 }),
        (None, None) => None,
    }
}

/// Checks that a process is a child of this one, without reaping it.
#[cfg(not(target_os = "openbsd"))]
fn check(pid: Pid) -> Result<(), WatcherError> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), options)) {
        Ok(_) => Ok(()),
        Err(error) => Err(refusal(pid, error)),
    }
}

/// Checks nothing: this system cannot look at a child without reaping it. The start of the watcher finds the error.
#[cfg(target_os = "openbsd")]
fn check(_: Pid) -> Result<(), WatcherError> {
    Ok(())
}

fn refusal(pid: Pid, error: Errno) -> WatcherError {
    if error == Errno::CHILD {
        let reason = "it is no child of this process, or was reaped; start the watcher before other code waits for it";
        return WatcherError::Child { pid: pid.as_raw_nonzero().get().cast_unsigned(), reason };
    }
    WatcherError::system("look at its child", io::Error::from(error))
}

/// Opens the descriptor of a process. The variable `GREENHUB_CHILD=signal` does without, as a system that has none.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn open(pid: Pid) -> Option<Rc<dyn AsFd>> {
    use rustix::process::{PidfdFlags, pidfd_open};
    if std::env::var_os("GREENHUB_CHILD").is_some_and(|way| way == "signal") {
        return None;
    }
    // Too many open files are a reason to do without, too.
    pidfd_open(pid, PidfdFlags::empty()).ok().map(|process| Rc::new(process) as Rc<dyn AsFd>)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn open(_: Pid) -> Option<Rc<dyn AsFd>> {
    None
}
