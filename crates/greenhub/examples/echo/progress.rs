//! The progress on standard error: one changing line on a terminal, a line per second elsewhere.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenhub::GreenThread;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Run;
use crate::options::{Mode, Options};

pub(crate) struct Progress {
    stopped: Rc<Cell<bool>>,
    ticker: GreenThread<()>,
}

impl Progress {
    pub(crate) fn start(run: &Rc<Run>, options: &Options) -> Progress {
        let stopped = Rc::new(Cell::new(false));
        let (run, stop) = (Rc::clone(run), Rc::clone(&stopped));
        let wanted = if matches!(options.mode(), Mode::Server(_)) { None } else { Some(options.connections()) };
        let bytes = options.bytes as u64;
        let ticker = greenhub::spawn(move || tick(&run, &stop, wanted, bytes));
        Progress { stopped, ticker }
    }

    pub(crate) fn stop(self) {
        self.stopped.set(true);
        // The ticker only prints, so its failure does not matter.
        let _ = self.ticker.join();
    }
}

fn tick(run: &Run, stop: &Cell<bool>, wanted: Option<usize>, bytes: u64) {
    const TICK: Duration = Duration::from_millis(100);
    const TICKS_PER_LINE: u32 = 10;
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
    let (mut last, mut at) = (0, Instant::now());
    for ticks in 1u32.. {
        greenhub::sleep(TICK);
        if stop.get() {
            return bar.finish_and_clear();
        }
        if bar.is_hidden() && ticks % TICKS_PER_LINE != 0 {
            continue;
        }
        let round_trips = run.round_trips(bytes);
        let rate = (round_trips - last) as f64 / at.elapsed().as_secs_f64();
        (last, at) = (round_trips, Instant::now());
        let connected = match wanted {
            Some(wanted) => format!("{} of {wanted} connections", run.connected.get()),
            None => format!("{} connections", run.accepted.get()),
        };
        let line = format!("{connected}, {round_trips} round trips, {rate:.0}/s, {} errors", run.failures().count);
        if bar.is_hidden() {
            eprintln!("{line}");
        } else {
            bar.set_message(line);
            bar.tick();
        }
    }
}
