//! The case of hubs whose `wait` runs foreign code. [`foreign_code`](crate::foreign_code) makes a test of it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hub_core::hub::{Hub, Ready, Watched};

use crate::fixture::{Make, time_limit};

/// Makes a hub run code in its next `wait`.
pub type RunInWait<'a, H> = &'a dyn Fn(&mut H, Box<dyn FnOnce()>);

/// A timeout far beyond the duration of the case.
const LONG: Duration = Duration::from_secs(60);

/// Clause 19: *`wait` MUST return soon after that waker was woken*, by code that it runs.
pub fn a_wake_up_by_foreign_code_ends_the_wait<H: Hub>(make: Make<'_, H>, run_in_wait: RunInWait<'_, H>) {
    let mut hub = make().expect("the hub can be created");
    let watched = Rc::new(Watched::new());
    let mut ready = Ready::new();
    for timeout in [Some(LONG), None, Some(LONG)] {
        let (has_run, wakes) = (Rc::new(Cell::new(false)), Rc::clone(&watched));
        let runs = Rc::clone(&has_run);
        run_in_wait(
            &mut hub,
            Box::new(move || {
                runs.set(true);
                wakes.wake();
            }),
        );
        let start = Instant::now();
        while !has_run.get() {
            watched.begin_wait();
            hub.wait(&watched, timeout, &mut ready).expect("wait succeeds");
        }
        assert!(start.elapsed() < time_limit(), "the wait took {:?} after it was woken", start.elapsed());
    }
}
