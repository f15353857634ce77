//! Waiting for the ends of many killed green threads.

use std::time::Duration;

use hub_core::internal::{KillProgress, kill_progress};
use hub_core::{Deadline, GreenletId};

/// Waits until all of them have ended, all that are left refuse their kill, or `limit` is reached. Switches.
///
/// Returns the number of green threads that are left. `left` lists them. `wait` waits for all ends, and returns false
/// if its deadline came first.
///
/// # Errors
///
/// Returns the errors of `wait`.
pub(crate) fn wait_for_killed<E>(
    limit: Duration,
    left: impl Fn() -> Vec<GreenletId>,
    mut wait: impl FnMut(&mut Deadline) -> Result<bool, E>,
) -> Result<usize, E> {
    let mut deadline = Deadline::from(Some(limit));
    loop {
        let left: Vec<KillProgress> = left().into_iter().map(kill_progress).collect();
        if left.iter().all(|progress| *progress == KillProgress::Refused) {
            return Ok(left.len());
        }
        // The outcome of a kill that is striking is known after a bounded number of turns.
        let in_turn = left.contains(&KillProgress::Striking);
        let mut turn = Deadline::from(Some(Duration::ZERO));
        let all_ended = wait(if in_turn { &mut turn } else { &mut deadline })?;
        if !all_ended && !in_turn {
            return Ok(left.len());
        }
    }
}
