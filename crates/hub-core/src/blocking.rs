//! Who holds the loop for too long: a detector of green threads that run without giving way.
//!
//! An OS thread of its own, the watchdog, looks now and then whether the watched loop has begun another turn or called
//! its hub, by two words that the loop writes anyway. If it has not, the watchdog has the watched OS thread say by a
//! signal who runs: see [`sample`]. The same green thread in the same stretch twice, with the resolution between, is
//! reported.

mod question;
mod sample;
#[cfg_attr(
    not(all(feature = "backtrace", target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "blocking/no_snapshot.rs"
)]
mod snapshot;

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use self::sample::Pulse;
use self::sample::{Sample, Sampling, Watched};
use crate::dormant::Dormant;
use crate::error::LoopError;
use crate::fork;
use crate::greenlet::local;
use crate::main_loop::MainLoop;
use crate::report::{self, Report};

/// Reports each green thread of this OS thread, and each callback, that runs for longer than `resolution` without
/// giving way, as [`Report::Blocked`]; `None`: no longer. Eventlet's `hub_blocking_detection`. Does not switch.
///
/// What runs so keeps all others of its OS thread waiting: a computation that never yields, or a call that blocks the
/// OS thread, as those of std do. The report comes while it lasts, once, after one and a half times the resolution at
/// most, on another OS thread. It tells who it is and where it was spawned; with the feature `backtrace` also what it
/// does, on Linux on x86-64 and 64-bit ARM: the signal handler copies the end of the stack, and the backtrace is made of
/// the copy.
///
/// Off, which it is at first, it costs nothing, and on next to nothing: the loop does the same in both cases, and an OS
/// thread looks at it four times in each `resolution`. It uses the signal `SIGURG`, which it sends to this OS
/// thread only while that is suspected; system calls that are under way there go on (`SA_RESTART`), but those that
/// the system never resumes, such as `poll` or `nanosleep`, end with `EINTR`. On Linux it carries a value by which it is
/// known: any other `SIGURG` goes to the program's own handler, if there is one. Elsewhere as many are taken as were sent.
/// When the last detector of the process is switched off the signal is as before. A forked child has none.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{Report, hub_blocking_detection, set_report_stream};
/// use std::time::Duration;
/// let (told, blocked) = std::sync::mpsc::channel();
/// set_report_stream(move |report| {
///     if let Report::Blocked { name, .. } = report {
///         let _ = told.send(name.clone());
///     }
/// });
/// hub_blocking_detection(Duration::from_millis(20))?;
/// let selfish = hub_core::Builder::new().name("selfish").spawn(move || blocked.recv())?; // blocks the OS thread
/// assert!(selfish.join()??.contains("selfish"));
/// hub_blocking_detection(None)?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if `resolution` is zero, [`LoopError::ThreadEnding`] in an OS thread
/// that ends, and what the system says if it has no thread or refuses the signal. A detector that was on stays on
/// then.
pub fn hub_blocking_detection(resolution: impl Into<Option<Duration>>) -> io::Result<()> {
    let resolution = resolution.into();
    if resolution == Some(Duration::ZERO) {
        let text = "the blocking detector needs a resolution above zero; `None` switches it off";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let local = local::get_unless_ended()?;
    if !local::will_end_in_order() {
        return Err(LoopError::ThreadEnding.into());
    }
    let detector = &local.main_loop.detector;
    let new = resolution.map(|resolution| Detector::start(&local.main_loop, resolution).map(Box::new)).transpose()?;
    // It waits for its watchdog.
    drop(detector.replace(new));
    Ok(())
}

/// The watchdog of one OS thread. Dropping it stops that, and waits until it has ended.
pub(crate) struct Detector {
    stop: Arc<Stop>,
    watchdog: Option<JoinHandle<()>>,
    generation: u32,
    /// Given up after the watchdog has ended.
    _sampling: Sampling,
}

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Detector {
    /// Kept by the loop itself, and stopped when its OS thread ends.
    fn start(main_loop: &'static MainLoop, resolution: Duration) -> io::Result<Detector> {
        fork::install()?;
        let sampling = Sampling::prepare()?;
        let stop = Arc::<Stop>::default();
        let watchdog = {
            let (watched, stop) = (sampling.watched(&main_loop.pulse)?, Arc::clone(&stop));
            let watch = move || watch(&watched, resolution, &stop);
            std::thread::Builder::new().name("greenhub-watchdog".into()).spawn(watch)?
        };
        sampling.begin();
        Ok(Detector { stop, watchdog: Some(watchdog), generation: fork::generation(), _sampling: sampling })
    }
}

impl Detector {
    /// Stops it, like the drop, but waits no longer than a second. False if the watchdog runs on.
    pub(crate) fn end(self: Box<Self>) -> bool {
        const PATIENCE: Duration = Duration::from_secs(1);
        self.stop.ask();
        let begun = Instant::now();
        while self.generation == fork::generation()
            && self.watchdog.as_ref().is_some_and(|watchdog| !watchdog.is_finished())
        {
            if begun.elapsed() >= PATIENCE {
                std::mem::forget(self);
                return false;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        true
    }
}

impl Drop for Detector {
    fn drop(&mut self) {
        let Some(watchdog) = self.watchdog.take() else { return };
        if self.generation != fork::generation() {
            // It exists in the parent only, and may have held any lock.
            return std::mem::forget(watchdog);
        }
        self.stop.ask();
        // It does not panic; and if it did, it has ended.
        let _ = watchdog.join();
    }
}

impl Stop {
    fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits. True if the watchdog is to end.
    fn wait(&self, time: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(asked, time, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A stretch without a turn, and who runs in it.
struct Held {
    by: Sample,
    since: Instant,
    told: bool,
}

/// What the watchdog does.
fn watch(watched: &Watched, resolution: Duration, stop: &Stop) {
    const SHORTEST: Duration = Duration::from_millis(1);

    let tick = (resolution / 4).max(SHORTEST);
    let mut turn = None;
    let mut held: Option<Held> = None;
    let mut dormant = Some(Dormant::worker(|| true));
    while !stop.wait(tick) {
        let now = watched.turn();
        if now.is_none() || now != turn {
            turn = now;
            held = None;
            continue;
        }
        let Some(by) = watched.sample(tick) else { continue };
        match &mut held {
            Some(held) if held.by.is_same(&by) => {
                if !held.told && held.since.elapsed() >= resolution {
                    held.told = true;
                    // The stream is foreign code.
                    drop(dormant.take());
                    report::tell(Report::Blocked {
                        name: by.name(),
                        held: held.since.elapsed(),
                        backtrace: by.backtrace(),
                    });
                    dormant = Some(Dormant::worker(|| true));
                }
            }
            _ => held = Some(Held { by, since: Instant::now(), told: false }),
        }
    }
}
