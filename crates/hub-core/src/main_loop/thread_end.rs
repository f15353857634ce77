//! The end of an OS thread: the hub is closed, the greenlets that are left are abandoned, and the memory is freed.
//!
//! An OS thread ends in one of two ways. [`end_with_thread_locals`] is the implicit way: it runs in a destructor of a
//! thread-local, when other thread-locals are gone. It therefore enters no greenlet and drops no value of the program.
//! A [shutdown](crate::HubRef::shutdown) unwinds the greenlets earlier, while all thread-locals are alive.
//!
//! Ground rules: those of the [state of an OS thread](crate::greenlet::local).

use super::MainLoop;
use super::reach;
use crate::greenlet::describe;
use crate::greenlet::driver::Driver;
use crate::greenlet::local::{self, Local};
use crate::greenlet::run;
use crate::report;

/// Ends this OS thread, unless it has ended. Called by the main greenlet after a shutdown.
///
/// Frees no memory that a frame of the main greenlet may refer to.
///
/// # Panics
///
/// Panics if another greenlet runs.
pub(crate) fn end_now() {
    let by_main = local::try_get().is_none_or(|local| run::current() == local.main);
    assert!(by_main, "a greenlet ends its OS thread, and is not the main one");
    // SAFETY: the main greenlet runs, as just checked, or the OS thread has no other greenlet.
    if let Some(local) = unsafe { local::mark_ended() } {
        end(local);
    }
}

/// Ends this OS thread while its thread-locals are being destroyed. A later call frees what an earlier one could not.
pub(crate) fn end_with_thread_locals() {
    // SAFETY: a destructor of a thread-local runs: on the stack of the main greenlet, or below a call of `exit` in
    // another one, which never returns.
    if let Some(local) = unsafe { local::mark_ended() } {
        end(local);
    }
    if let Some(local) = local::late().filter(|local| local.may_be_freed()) {
        // Must be first, because it may drop foreign values, which may use any part of the state.
        local.main.drop_cold();
        // SAFETY: a destructor of a thread-local runs, so the frames of the main greenlet are gone, or are never
        // returned to because `exit` was called in them. The cold state was just dropped.
        unsafe { local::free_late() };
    }
}

/// Closes the hub of this OS thread, and abandons and reports the remaining greenlets. Wakes the waiters of other OS
/// threads for their results.
///
/// Drops no value of a green thread or a callback: in the implicit case other thread-locals are gone, and in
/// `std::process::exit` the caller may hold a lock that a destructor needs.
fn end(this: &Local) {
    let me = run::current();
    // The watchdog refers to this OS thread and its state.
    if !this.main_loop.end_detector() {
        this.pin();
    }
    // At the end of the process a lock that the recorder needs may be held.
    if me == this.main && !is_process_main_thread() {
        this.main_loop.meter.end(|| this.main_loop.stats(this));
    }
    let sent = this.main_loop.close();
    if me != this.main {
        // `exit` was called in a greenlet, so the process ends. The main greenlet is suspended in frames that use this
        // state, and the main loop may be the caller.
        // Every park of a main greenlet takes the checked path, which refuses parks on an ended OS thread.
        return me.become_main();
    }
    this.main.drop_locals();
    this.main_loop.close_hub();
    // The end of the process frees everything, and needs no report.
    if is_process_main_thread() {
        this.pin();
        return;
    }
    this.main_loop.signal_waits.close();
    let mut abandoned: Vec<String> = this.alive().map(|control| describe::abandoned(this, control)).collect();
    abandoned.extend((0..sent).map(|_| "sent by another OS thread, not begun".to_owned()));
    run::clear_queue(this);
    // SAFETY: the main greenlet runs this, the OS thread has ended, and its loop is closed and its queue empty.
    unsafe { run::end_mainloop(this) };
    this.main_loop.foreign_futures.wake_all();
    if !abandoned.is_empty() {
        report::abandoned(abandoned);
    }
}

impl MainLoop {
    /// Stops the watchdog of this OS thread. Returns false if it does not end: its report may wait for a lock of the
    /// caller.
    fn end_detector(&self) -> bool {
        self.detector.take().is_none_or(|detector| detector.end())
    }

    /// Drops the hub and the wake-up descriptor of an ended OS thread, which other OS threads cannot reach any more.
    ///
    /// Leaks the callbacks, because they own values of the program.
    fn close_hub(&self) {
        let wakeup = self.wakeup.get().and_then(|wakeup| self.callbacks.borrow_mut().remove(wakeup));
        self.drop_hub().for_each(std::mem::forget);
        drop(wakeup);
        reach::forget_thread();
    }
}

/// Returns whether this is the OS thread whose end is the end of the process.
fn is_process_main_thread() -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        rustix::thread::gettid() == rustix::process::getpid()
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        std::thread::current().name() == Some("main")
    }
}
