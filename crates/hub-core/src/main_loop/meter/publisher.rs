//! The OS thread that calls the recorder of metrics.
//!
//! A loop must not call it. `metrics::with_local_recorder` leaves a pointer to a recorder in its OS thread as long as a
//! closure runs. When closures of two greenlets overlap, the pointer outlives its recorder. This OS thread runs no code
//! of the program but the recorder.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use super::interval::{is_on, set_interval};
use crate::base::dormant::Dormant;
use crate::base::fork::PerProcess;
use crate::base::os_thread::start_thread;
use crate::greenlet::exit::contained;
use crate::report;

type Job = Box<dyn FnOnce() + Send>;

/// Calls the recorder, unless publication is off. Never unwinds. A panic switches publication off, and is reported.
#[cold]
fn call_recorder(call: impl FnOnce()) {
    if !is_on() {
        return;
    }
    if let Err(error) = contained(call) {
        set_interval(None);
        report::callback_failed("the recorder of metrics, which is no longer called,", None, error);
    }
}

/// The most publications that wait. A recorder that is slower than the loops gets no more.
const MOST_WAITING: usize = 1024;

struct Publisher {
    jobs: Sender<Job>,
    /// The number of jobs that have not ended.
    pending: Arc<AtomicUsize>,
}

/// Has the error of a process in which no OS thread could be started.
static PUBLISHER: PerProcess<OnceLock<Result<Publisher, io::ErrorKind>>> = PerProcess::new();

fn publisher() -> Result<&'static Publisher, io::ErrorKind> {
    let publisher = PUBLISHER.get_or_make(OnceLock::new).map_err(|error| error.kind())?;
    publisher.get_or_init(|| Publisher::start().map_err(|error| error.kind())).as_ref().map_err(|kind| *kind)
}

/// Hands a call of the recorder over. Returns false if that is not possible, because the recorder is too slow. Ends the
/// publication, and reports that, if there is no OS thread for it.
pub(super) fn publish(call: impl FnOnce() + Send + 'static) -> bool {
    let publisher = match publisher() {
        Ok(publisher) => publisher,
        Err(error) => {
            set_interval(None);
            report::warn(format!("metrics are no longer published: an OS thread for them cannot be started: {error}"));
            return false;
        }
    };
    publisher.pending.load(Ordering::Relaxed) < MOST_WAITING && publisher.submit(Box::new(|| call_recorder(call)))
}

/// Runs `call` after all publications that were handed over before. Returns false if nothing was ever published.
pub(crate) fn after_all(call: impl FnOnce() + Send + 'static) -> bool {
    let publisher = PUBLISHER.get().and_then(OnceLock::get);
    publisher.and_then(|publisher| publisher.as_ref().ok()).is_some_and(|publisher| publisher.submit(Box::new(call)))
}

impl Publisher {
    fn start() -> io::Result<Publisher> {
        let (jobs, queued) = channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&pending);
        start_thread("greenhub-metrics".to_owned(), move || run(&queued, &done))?;
        Ok(Publisher { jobs, pending })
    }

    fn submit(&self, job: Job) -> bool {
        self.pending.fetch_add(1, Ordering::Relaxed);
        // The OS thread lasts as long as the process.
        self.jobs.send(job).is_ok()
    }
}

fn run(queued: &Receiver<Job>, pending: &Arc<AtomicUsize>) {
    loop {
        let waiting = Arc::clone(pending);
        let dormant = Dormant::worker(move || waiting.load(Ordering::Relaxed) == 0);
        let Ok(job) = queued.recv() else { return };
        drop(dormant);
        job();
        pending.fetch_sub(1, Ordering::Relaxed);
    }
}
