//! Who holds the loop for too long: a detector of green threads that run without giving way.
//!
//! An OS thread of its own, the watchdog, looks now and then whether the watched loop has begun another turn or called
//! its hub, by two words that the loop writes anyway. If it has not, the watchdog has the watched OS thread say by a
//! signal who runs: see [`sample`]. The same green thread in the same stretch twice, with the resolution between, is
//! reported.

mod sample;
mod signal;
#[cfg_attr(
    not(all(feature = "backtrace", target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "blocking/no_snapshot.rs"
)]
mod snapshot;

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use self::sample::Heartbeat;
use self::sample::{Sample, Sampling, WatchedThread};
use crate::base::dormant::Dormant;
use crate::base::fork;
use crate::report::{self, Report};

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
    /// Watches the calling OS thread by its `pulse`.
    pub(crate) fn start(pulse: &'static Heartbeat, resolution: Duration) -> io::Result<Detector> {
        fork::install()?;
        let sampling = Sampling::prepare()?;
        let stop = Arc::<Stop>::default();
        let watchdog = {
            let (watched, stop) = (sampling.watched(pulse)?, Arc::clone(&stop));
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
fn watch(watched: &WatchedThread, resolution: Duration, stop: &Stop) {
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
