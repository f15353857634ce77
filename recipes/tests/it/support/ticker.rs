//! A green thread that shows that the OS thread is not blocked.
//!
//! The tests of the facade only count ticks. Here a gate ends an operation of another library after some ticks.

use std::time::Duration;

use greenhub::future::block_on;
use greenhub::{GreenThread, kill, sleep, spawn};
use tokio::sync::watch;

/// The number of ticks that a gate waits for.
const TICKS: u64 = 5;

/// A green thread that ticks each millisecond. It ends when this is dropped.
pub(crate) struct Ticker {
    ticks: watch::Sender<u64>,
    thread: GreenThread<()>,
}

impl Ticker {
    pub(crate) fn start() -> Ticker {
        let ticks = watch::Sender::new(0);
        let thread = spawn({
            let ticks = ticks.clone();
            move || {
                loop {
                    sleep(Duration::from_millis(1));
                    ticks.send_modify(|count| *count += 1);
                }
            }
        });
        Ticker { ticks, thread }
    }

    pub(crate) fn ticks(&self) -> u64 {
        *self.ticks.borrow()
    }

    /// Returns a gate, which opens while the ticker runs. An operation that waits for one would hang if it blocked the
    /// OS thread meanwhile.
    pub(crate) fn gate(&self) -> Gate {
        Gate(self.ticks.subscribe())
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        kill(&self.thread);
    }
}

/// A gate that a ticker opens.
#[derive(Clone)]
pub(crate) struct Gate(watch::Receiver<u64>);

impl Gate {
    /// Waits until the ticker has ticked some times from now on. Switches.
    pub(crate) fn pass(&self) {
        let mut ticks = self.0.clone();
        let enough = *ticks.borrow() + TICKS;
        block_on(async { ticks.wait_for(|count| *count >= enough).await.map(drop) }).expect("the ticker lives");
    }
}
