//! Dumps of all OS threads on a signal.

use std::ffi::c_int;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use rustix::event::{PollFd, PollFlags, poll};

use super::dump::dump_at_most;
use super::hub_ref::try_get_hub;
use super::signal::{SignalLatch, latch_on};
use crate::base::dormant::while_idle;
use crate::base::os_thread::start_thread;
use crate::main_loop::dump_request::DumpRequest;
use crate::main_loop::latch::{Latch, LatchWakeup};
use crate::main_loop::loops;
use crate::main_loop::remote::{Mailbox, Message};
use crate::report::{self, Report};

/// The most greenlets in a dump of an OS thread.
const MOST: usize = 1000;

/// Reports the greenlets of all OS threads on `signal`. Builds the hub of the calling OS thread if there is none. Does
/// not switch.
///
/// Each signal makes every OS thread with a hub send a [`Report::Dump`] with its [`dump`](crate::dump) to the [report
/// stream](crate::set_report_stream), at the loop's next turn. The report shows the first 1000 greenlets of the OS
/// thread, and the number of the others. An OS thread that blocks its loop sends none until it yields;
/// [`hub_blocking_detection`](crate::hub_blocking_detection) shows such a green thread. Another OS thread has a hub
/// from its first wait, or from [`get_hub`](crate::get_hub), but not from a mere yield. A signal that comes before
/// gives no dump of it.
///
/// The signal may be delivered to any OS thread of the process. The handler runs no code of the program: it sets a
/// flag, and an OS thread of the library asks the loops. All signals until a loop begins its dump count as one. A
/// program that only waits for the signal is a deadlock as before. Other users of the crate `signal-hook` in the
/// program get the signal as well.
///
/// The dumps end when the returned value is dropped, and dumps that no loop has begun are cancelled. After that the
/// signal does nothing. A forked child begins without dumps: it inherits the handler, so the signal does nothing there.
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
/// let _dumps = dump_on(SIGQUIT)?;
/// # signal_hook::low_level::raise(SIGQUIT)?;
/// let dump = dumps.recv()?; // `kill -QUIT` comes now
/// assert!(dump.contains("main greenlet"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns an error if the hub cannot be built, if the system refuses the signal, the descriptor or the OS thread, and
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a signal that cannot or must not be caught.
pub fn dump_on(signal: c_int) -> io::Result<DumpOn> {
    // Otherwise a signal that comes before the first wait of the program would be lost.
    try_get_hub()?;
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
        let mut requests = Requests { has_ended, pending: Vec::new() };
        loop {
            while_idle(|| wait_for(&fd));
            wakeup.drain();
            // The latch is taken first: a drop that finds it set and writes nothing is seen below.
            let is_asked = latch.take();
            if requests.has_ended.load(Ordering::Acquire) {
                return;
            }
            if is_asked {
                requests.ask_all_loops();
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

/// The requests to the loops.
struct Requests {
    /// Cancels the requests.
    has_ended: Arc<AtomicBool>,
    /// The last request to each loop, which exists until the loop begins to carry it out.
    pending: Vec<(Weak<Mailbox>, Weak<DumpRequest>)>,
}

impl Requests {
    /// Asks each loop of the process for a dump, except loops that are asked already.
    fn ask_all_loops(&mut self) {
        self.pending.retain(|(_, request)| request.strong_count() != 0);
        for mailbox in loops::all() {
            if self.pending.iter().any(|(asked, _)| asked.as_ptr() == Arc::as_ptr(&mailbox)) {
                continue;
            }
            let request = DumpRequest::new(&self.has_ended, report_dump);
            self.pending.push((Arc::downgrade(&mailbox), Arc::downgrade(&request)));
            // Fails for a loop that has ended.
            drop(mailbox.post(Message::Dump(request)));
        }
    }
}

/// Sends the dump of this OS thread to the report stream.
fn report_dump() {
    let thread = std::thread::current().name().map(str::to_owned);
    report::tell(Report::Dump { thread, greenlets: dump_at_most(MOST) });
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
        self.has_ended.store(true, Ordering::Release);
        self.latch.set();
    }
}
