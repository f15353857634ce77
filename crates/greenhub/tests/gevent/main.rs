//! gevent's event loop, by the feature `loop`.

mod asyncs;
mod children;
mod churn;
mod costs;
mod descriptors;
mod exits;
mod files;
mod foreign_loop;
mod kept;
mod liveness;
mod pending;
mod phases;
mod random_programs;
mod signals;
#[path = "../it/support/mod.rs"]
mod support;
mod timers;
mod together;
mod waiter;
mod waits;
mod watchers;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(1);

/// A time that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

/// Lets the events that have come be delivered. The first sleep may end in their turn, before their callbacks.
fn settle() {
    greenhub::sleep(5 * SHORT);
    greenhub::sleep(SHORT);
}

/// Gives up every number of a descriptor at this OS thread's hub, as a program does by mistake.
fn give_up_all_numbers() {
    (3..1024).for_each(greenhub::park::notify_close);
}

/// Ends the process for a call that must not happen. The panic of a callback would only be reported.
fn unexpected(text: &str) {
    eprintln!("unexpected call: {text}");
    std::process::abort();
}

/// The entries that callbacks have written, in their order.
#[derive(Clone, Default)]
struct Log<T>(Rc<RefCell<Vec<T>>>);

impl<T> Log<T> {
    fn new() -> Log<T> {
        Log(Rc::default())
    }

    fn push(&self, entry: T) {
        self.0.borrow_mut().push(entry);
    }

    fn take(&self) -> Vec<T> {
        self.0.take()
    }

    fn len(&self) -> usize {
        self.0.borrow().len()
    }
}
