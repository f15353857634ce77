//! Who waits for something that comes to one after the other.
//!
//! A primitive keeps its state, with one [`Line`] for each thing that is waited for, under one lock, which is
//! never held while anything else runs but `unpark`. Whoever has something to give *chooses* the first of the
//! line: the thing is theirs from then on, so nobody who comes later gets it. Those who are chosen and cannot take
//! it, because they are killed or their time is over that very moment, *pass it on*.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hub_core::{Doing, Limit, LoopError, Parker, Unparker};

/// In the order in which they came. Those who left in between are gaps, until they are the first.
#[derive(Debug, Default)]
pub(crate) struct Line {
    places: VecDeque<(u64, Option<Unparker>)>,
    next: u64,
    len: usize,
}

impl Line {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes the first out of the line and wakes it. False if nobody waits.
    pub(crate) fn choose(&mut self) -> bool {
        while let Some((_, place)) = self.places.pop_front() {
            if let Some(unparker) = place {
                self.len -= 1;
                unparker.unpark();
                return true;
            }
        }
        false
    }

    fn enter(&mut self, unparker: Unparker) -> u64 {
        let number = self.next;
        self.next += 1;
        self.len += 1;
        self.places.push_back((number, Some(unparker)));
        number
    }

    /// The place of one who waits still.
    fn place(&mut self, number: u64) -> Option<&mut Option<Unparker>> {
        let index = self.places.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&mut self.places[index].1).filter(|place| place.is_some())
    }

    /// Gives a place up. False if its holder was chosen before.
    fn leave(&mut self, number: u64) -> bool {
        let Some(place) = self.place(number) else { return false };
        *place = None;
        self.len -= 1;
        while self.places.front().is_some_and(|(_, place)| place.is_none()) {
            self.places.pop_front();
        }
        true
    }
}

/// The lock of a primitive. What it protects is right whatever panics while it is held, which is nothing.
pub(crate) fn lock<S>(state: &Mutex<S>) -> MutexGuard<'_, S> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How one waits in a line of the state `S`.
pub(crate) struct Wait<S> {
    pub(crate) doing: Doing,
    pub(crate) line: fn(&mut S) -> &mut Line,
    /// Gives to somebody else what was given to one who cannot take it.
    pub(crate) pass_on: fn(&mut S),
}

impl<S> Wait<S> {
    /// Waits at the end of the line until chosen, which is true, or `limit` is reached. Switches.
    ///
    /// A green thread that is killed leaves the line, and passes on what it was chosen for.
    ///
    /// # Errors
    ///
    /// Where nobody may wait, and what the main loop has to tell the main greenlet; the caller is not in the line
    /// then.
    pub(crate) fn wait(
        &self,
        state: &Mutex<S>,
        mut guard: MutexGuard<'_, S>,
        limit: &mut Limit,
    ) -> Result<bool, LoopError> {
        let mut parker = Parker::new(self.doing)?;
        let number = (self.line)(&mut guard).enter(parker.unparker());
        drop(guard);
        // Leaves the line however the wait ends.
        let place = Place { wait: self, state, number };
        loop {
            let in_time = parker.park(limit)?;
            let mut guard = lock(state);
            let line = (self.line)(&mut guard);
            let chosen = line.place(number).is_none();
            if chosen || !in_time {
                line.leave(number);
                drop(guard);
                place.done();
                return Ok(chosen);
            }
            drop(guard);
            // Woken for nothing: a new wait in the same place.
            parker = Parker::new(self.doing)?;
            match (self.line)(&mut lock(state)).place(number) {
                Some(known) => *known = Some(parker.unparker()),
                None => {
                    place.done();
                    return Ok(true);
                }
            }
        }
    }
}

struct Place<'a, S> {
    wait: &'a Wait<S>,
    state: &'a Mutex<S>,
    number: u64,
}

impl<S> Place<'_, S> {
    /// There is nothing to leave any more.
    fn done(self) {
        std::mem::forget(self);
    }
}

impl<S> Drop for Place<'_, S> {
    fn drop(&mut self) {
        let mut guard = lock(self.state);
        if !(self.wait.line)(&mut guard).leave(self.number) {
            (self.wait.pass_on)(&mut guard);
        }
    }
}
