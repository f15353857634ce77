//! Orphans: children that no handle can wait for any more.
//!
//! A child stays a zombie after its end until its parent has waited for it. An OS thread does that for orphans, as long
//! as there are any. It checks in pauses: a descriptor for each child may not be free, and a handler of `SIGCHLD` would
//! replace the one that the program has set for its other children.

use std::process::Child;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hub_core::internal::{PerProcess, start_thread, while_idle};

static ORPHANS: PerProcess<Orphans> = PerProcess::new();

const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest time that an orphan stays a zombie.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The time for which the OS thread stays without orphans.
const IDLE: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Orphans {
    state: Mutex<State>,
    adopted: Condvar,
}

#[derive(Default)]
struct State {
    children: Vec<Child>,
    /// Whether the OS thread runs.
    served: bool,
}

impl State {
    /// Reaps the children that have ended. Drops a child that cannot be waited for: other code has reaped it.
    fn reap(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

impl Orphans {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the OS thread if it is needed and does not run.
    fn have_served(&'static self, state: &mut State) {
        if !state.served && !state.children.is_empty() {
            state.served = start_thread("greenhub-reaper".into(), move || self.serve()).is_ok();
        }
    }

    /// Reaps orphans until there have been none for a while.
    fn serve(&self) {
        let mut pause = FIRST_PAUSE;
        let mut state = self.lock();
        loop {
            let before = state.children.len();
            state.reap();
            pause = if state.children.len() < before { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            let (longest, known) = match state.children.len() {
                0 => (IDLE, 0),
                orphans => (pause, orphans),
            };
            let unchanged = |state: &mut State| state.children.len() == known;
            let waited = while_idle(|| self.adopted.wait_timeout_while(state, longest, unchanged));
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if !timeout.timed_out() {
                pause = FIRST_PAUSE;
            } else if state.children.is_empty() {
                state.served = false;
                return;
            }
        }
    }
}

/// Takes over a child that no handle can wait for any more.
pub(super) fn adopt(mut child: Child) {
    // An error means that forks cannot be noticed. Then the children of a fork must not wait for this child.
    let Ok(orphans) = ORPHANS.get_or_make(Orphans::default) else { return };
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let mut state = orphans.lock();
    state.children.push(child);
    orphans.have_served(&mut state);
    orphans.adopted.notify_one();
}

/// Reaps orphans where no OS thread could be started for that.
pub(super) fn reap() {
    let Some(orphans) = ORPHANS.get() else { return };
    let mut state = orphans.lock();
    if !state.served {
        state.reap();
        orphans.have_served(&mut state);
    }
}
