//! The end of several waits for watchers.

use std::cell::Cell;
use std::time::Duration;

use hub_core::{GreenError, Timer, get_hub};

use crate::watcher::AnyWatcher;
use crate::watcher::sealed::Cancel;

/// Closes `watchers`, ends the waits for them with `error`, and then calls `then`. Does not switch.
///
/// It is for the close of a descriptor, and of any object with several watchers: `then` may free what they watch. The
/// watchers are closed at once. If green threads wait for some of them, they get `error` in a later turn, and the main
/// loop calls `then` when they have run. Otherwise `then` is called before this function returns. `then` is dropped if
/// the hub is replaced or shut down before that turn; an abort of the loop leaves it to the next loop. gevent's
/// `cancel_waits_close_and_then`.
///
/// ```
/// use greenhub::gevent::{Watcher, cancel_waits_close_and_then, event_loop};
/// use greenhub::{GreenError, Interest};
/// use std::rc::Rc;
/// let (reader, writer) = std::io::pipe()?;
/// let reads = Rc::new(event_loop().io(reader, Interest::READ)?);
/// let watcher = Rc::clone(&reads);
/// let waiting = greenhub::spawn(move || watcher.wait(None));
/// greenhub::thread::yield_now();
/// cancel_waits_close_and_then([&*reads as _], GreenError::custom("closed by the peer"), move || drop(writer));
/// assert_eq!(waiting.join()?.unwrap_err().to_string(), "the wait was cancelled: closed by the peer");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn cancel_waits_close_and_then<'a>(
    watchers: impl IntoIterator<Item = &'a dyn AnyWatcher>,
    error: GreenError,
    then: impl FnOnce() + 'static,
) {
    // The iterator is foreign: it ends, or panics, before the first watcher is closed.
    let watchers: Vec<_> = watchers.into_iter().collect();
    let waits: Vec<Box<dyn Cancel>> = watchers.into_iter().filter_map(|watcher| watcher.close_during_wait()).collect();
    if waits.is_empty() {
        return then();
    }
    call_later(move || {
        waits.iter().for_each(|wait| wait.cancel(&error));
        // The waiters are ready now, and so before a call that is queued now.
        call_later(then);
    });
}

/// Calls `f` in a later turn. If the loop is aborted before, the call is made then.
pub(crate) fn call_later(f: impl FnOnce() + 'static) {
    get_hub().schedule(Duration::ZERO, Later(Cell::new(Some(f))));
}

/// A call that an abort of the loop does not discard.
struct Later<F>(Cell<Option<F>>);

impl<F: FnOnce()> Timer for Later<F> {
    fn expired(&self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }

    fn aborted(&self) {
        self.expired();
    }
}
