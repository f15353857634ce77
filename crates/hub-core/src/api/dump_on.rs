//! Dumps of all OS threads on a signal.

use std::ffi::c_int;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};

use super::dump::dump;
use super::signal::{SignalLatch, latch_on};
use crate::base::dormant::while_idle;
use crate::base::os_thread::start_thread;
use crate::main_loop::latch::{Latch, LatchWakeup};
use crate::main_loop::loops;
use crate::main_loop::remote::Message;
use crate::report::{self, Report};

/// Reports the greenlets of all OS threads on `signal`. Does not switch.
///
/// Each signal makes every OS thread with a hub send a [`Report::Dump`] with its [`dump`] to the
/// [report stream](crate::set_report_stream), at the loop's next turn. An OS thread that blocks its loop sends none
/// until it yields; [`hub_blocking_detection`](crate::hub_blocking_detection) shows such a green thread.
///
/// The signal may be delivered to any OS thread of the process. The handler runs no code of the program: it sets a
/// flag, and an OS thread of the library asks the loops. The signals during a dump count as one. A program that only
/// waits for the signal is a deadlock as before. Other users of the crate `signal-hook` in the program get the signal
/// as well.
///
/// The dumps end when the returned value is dropped. After that the signal does nothing. A forked child begins without
/// dumps.
///
/// ```
/// use greenhub::debug::{Report, dump_on, set_report_stream};
/// const SIGQUIT: i32 = 3;
/// let (sender, dumps) = greenhub::sync::mpsc::channel();
/// set_report_stream(move |report| {
///     if let Report::Dump { greenlets, .. } = report {
///         let _ = sender.send(greenlets.clone());
///     }
/// });
/// greenhub::get_hub();
/// let _dumps = dump_on(SIGQUIT)?;
/// # signal_hook::low_level::raise(SIGQUIT)?;
/// let dump = dumps.recv()?; // `kill -QUIT` comes now
/// assert!(dump.contains("main greenlet"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns an error if the system refuses the signal, the descriptor or the OS thread, and
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a signal that cannot or must not be caught.
pub fn dump_on(signal: c_int) -> io::Result<DumpOn> {
    let wakeup = LatchWakeup::new();
    let latch = Latch::new(Arc::clone(&wakeup));
    let has_ended = Arc::new(AtomicBool::new(false));
    // The descriptor is made here, where its error can be returned.
    drop(wakeup.open()?);
    let handler = latch_on(signal, Arc::clone(&latch))?;
    let dumps = DumpOn { signal, latch: Arc::clone(&latch), has_ended: Arc::clone(&has_ended), _handler: handler };
    start_thread("greenhub-dump".to_owned(), move || {
        // It was made above, so this only looks it up.
        let Ok(fd) = wakeup.open() else { return };
        loop {
            while_idle(|| wait_for(&fd));
            wakeup.drain();
            // The latch is taken first: a drop that finds it set and writes nothing is seen below.
            let is_asked = latch.take();
            if has_ended.load(Ordering::Relaxed) {
                return;
            }
            if is_asked {
                dump_everywhere();
            }
        }
    })?;
    Ok(dumps)
}

/// Waits until the descriptor is readable. It may return earlier.
fn wait_for(fd: &Rc<dyn AsFd>) {
    let fd = fd.as_fd();
    // An error is an interruption, after which the caller looks and waits again.
    let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], None);
}

/// Asks every loop of the process for a report.
fn dump_everywhere() {
    for mailbox in loops::all() {
        let request = || {
            let thread = std::thread::current().name().map(str::to_owned);
            report::tell(Report::Dump { thread, greenlets: dump() });
        };
        // Fails for a loop that has ended.
        drop(mailbox.post(Message::Run(Box::new(request))));
    }
}

/// The dumps on a signal, while this value exists. Made by [`dump_on`].
#[derive(Debug)]
#[must_use = "the signal does nothing once this is dropped"]
pub struct DumpOn {
    signal: c_int,
    latch: Arc<Latch>,
    has_ended: Arc<AtomicBool>,
    _handler: SignalLatch,
}

impl DumpOn {
    /// Returns the number of the signal.
    #[must_use]
    pub fn signal(&self) -> c_int {
        self.signal
    }
}

impl Drop for DumpOn {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        self.latch.set();
    }
}
