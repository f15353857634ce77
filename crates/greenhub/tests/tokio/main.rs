//! Green threads and the tasks of Tokio on one OS thread, by the feature `tokio`.

mod batches;
mod costs;
mod explicit;
mod implicit;
mod leaks;
mod random;
#[path = "../it/support/mod.rs"]
mod support;
mod transports;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::support::run;
use greenhub::use_hub;

/// A time that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

const MILLISECOND: Duration = Duration::from_millis(1);

/// Runs a test on an OS thread of its own, and then on two at the same time.
fn on_one_and_on_two(name: &'static str, test: impl Fn() + Clone + Send + 'static) {
    run(name, test.clone());
    let both = [(); 2].map(|()| {
        let test = test.clone();
        std::thread::spawn(move || run(name, test))
    });
    both.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Runs a test as [`on_one_and_on_two`] does, on the hub `tokio`.
fn on_the_hub(name: &'static str, test: fn()) {
    on_one_and_on_two(name, move || {
        use_hub("tokio").unwrap();
        test();
    });
}

/// A counter of what green threads and tasks do in turn.
#[derive(Clone, Default)]
struct Count(Rc<Cell<usize>>);

impl Count {
    fn add(&self) {
        self.0.set(self.0.get() + 1);
    }

    fn get(&self) -> usize {
        self.0.get()
    }
}

/// Returns a current-thread runtime with timers and sockets.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
