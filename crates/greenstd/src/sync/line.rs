//! Who waits for something that comes to one after the other.
//!
//! A primitive keeps its state, with one [`Line`] for each thing that is waited for, under one lock, which is
//! never held while anything else runs but `unpark` and, at the first wait of an OS thread, what builds its hub. Whoever has something to give *chooses* the first of the
//! line: the thing is theirs from then on, so nobody who comes later gets it. Those who are chosen and cannot take
//! it, because they are killed or their time is over that very moment, *pass it on*.
//!
//! Those who wait may *bring* something along, which goes to whoever chooses them, or leaves the line with them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hub_core::{Doing, Limit, LoopError, Parker, Unparker};

/// In the order in which they came, each with what it brought.
pub(crate) struct Line<B = ()> {
    /// By rising numbers. Those who left in between are gaps.
    places: VecDeque<(i64, Option<(Unparker, B)>)>,
    next: i64,
    len: usize,
}

impl<B> Default for Line<B> {
    fn default() -> Line<B> {
        Line::new()
    }
}

impl<B> fmt::Debug for Line<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Line").field(&self.len).finish()
    }
}

impl Line {
    /// Takes the first out of the line and wakes it. False if nobody waits.
    pub(crate) fn choose(&mut self) -> bool {
        self.choose_with().is_some()
    }
}

impl<B> Line<B> {
    pub(crate) const fn new() -> Line<B> {
        Line { places: VecDeque::new(), next: 0, len: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes the first out of the line and wakes it, for what it brought.
    pub(crate) fn choose_with(&mut self) -> Option<B> {
        while let Some((_, place)) = self.places.pop_front() {
            if let Some((unparker, brought)) = place {
                self.len -= 1;
                unparker.unpark();
                return Some(brought);
            }
        }
        None
    }

    fn enter(&mut self, unparker: Unparker, brought: B) -> i64 {
        let number = self.next;
        self.next += 1;
        self.len += 1;
        self.places.push_back((number, Some((unparker, brought))));
        number
    }

    fn enter_first(&mut self, unparker: Unparker, brought: B) -> i64 {
        let Some((first, _)) = self.places.front() else { return self.enter(unparker, brought) };
        let number = first - 1;
        self.len += 1;
        self.places.push_front((number, Some((unparker, brought))));
        number
    }

    /// The place of one who waits still.
    fn place(&mut self, number: i64) -> Option<&mut Option<(Unparker, B)>> {
        let index = self.places.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&mut self.places[index].1).filter(|place| place.is_some())
    }

    /// Gives a place up, for what its holder brought. `None` if it was chosen before.
    fn leave(&mut self, number: i64) -> Option<B> {
        let (_, brought) = self.place(number)?.take()?;
        self.len -= 1;
        // Behind one who waits for long, many may come and go.
        if self.places.len() > 2 * self.len + 16 {
            self.places.retain(|(_, place)| place.is_some());
        }
        Some(brought)
    }
}

/// The lock of a primitive. What it protects is right whatever panics while it is held, which is nothing.
pub(crate) fn lock<S>(state: &Mutex<S>) -> MutexGuard<'_, S> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How one waits in a line of the state `S`.
pub(crate) struct Wait<S, B = ()> {
    pub(crate) doing: Doing,
    pub(crate) line: fn(&mut S) -> &mut Line<B>,
    /// Gives to somebody else what was given to one who cannot take it.
    pub(crate) pass_on: fn(&mut S),
}

/// A wait that an error ended, with what was brought unless it was taken before.
pub(crate) struct Failed<B>(pub(crate) LoopError, pub(crate) Option<B>);

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
        guard: MutexGuard<'_, S>,
        limit: &mut Limit,
    ) -> Result<bool, LoopError> {
        self.wait_with(state, guard, limit, (), |_| ()).map(|left| left.is_none()).map_err(|Failed(error, _)| error)
    }

    /// As [`wait`](Wait::wait), before all others: for one who was chosen in vain.
    pub(crate) fn wait_first(
        &self,
        state: &Mutex<S>,
        mut guard: MutexGuard<'_, S>,
        limit: &mut Limit,
    ) -> Result<bool, LoopError> {
        let parker = Parker::new(self.doing)?;
        let number = (self.line)(&mut guard).enter_first(parker.unparker(), ());
        drop(guard);
        self.stay(Place { wait: self, state, number }, parker, limit)
            .map(|left| left.is_none())
            .map_err(|Failed(error, _)| error)
    }
}

impl<S, B> Wait<S, B> {
    /// As [`wait`](Wait::wait), with something for whoever chooses the caller. `entered` runs under the lock, once
    /// the caller is in the line. When `limit` is reached, what was brought comes back.
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) fn wait_with(
        &self,
        state: &Mutex<S>,
        mut guard: MutexGuard<'_, S>,
        limit: &mut Limit,
        brought: B,
        entered: fn(&mut S),
    ) -> Result<Option<B>, Failed<B>> {
        let parker = match Parker::new(self.doing) {
            Ok(parker) => parker,
            Err(error) => return Err(Failed(error, Some(brought))),
        };
        let number = (self.line)(&mut guard).enter(parker.unparker(), brought);
        entered(&mut guard);
        drop(guard);
        self.stay(Place { wait: self, state, number }, parker, limit)
    }

    fn stay(&self, place: Place<'_, S, B>, mut parker: Parker, limit: &mut Limit) -> Result<Option<B>, Failed<B>> {
        loop {
            let in_time = match parker.park(limit) {
                Ok(in_time) => in_time,
                Err(error) => return Err(Failed(error, place.give_up())),
            };
            let mut guard = lock(place.state);
            let line = (self.line)(&mut guard);
            if !in_time || line.place(place.number).is_none() {
                let left = line.leave(place.number);
                drop(guard);
                std::mem::forget(place);
                return Ok(left);
            }
            drop(guard);
            // Woken for nothing: a new wait in the same place.
            parker = match Parker::new(self.doing) {
                Ok(parker) => parker,
                Err(error) => return Err(Failed(error, place.give_up())),
            };
            let mut guard = lock(place.state);
            let Some(Some((known, _))) = (self.line)(&mut guard).place(place.number) else {
                drop(guard);
                std::mem::forget(place);
                return Ok(None);
            };
            *known = parker.unparker();
        }
    }
}

/// A place in a line, which is left however the wait ends.
struct Place<'a, S, B> {
    wait: &'a Wait<S, B>,
    state: &'a Mutex<S>,
    number: i64,
}

impl<S, B> Place<'_, S, B> {
    fn give_up(self) -> Option<B> {
        let left = self.leave();
        std::mem::forget(self);
        left
    }

    fn leave(&self) -> Option<B> {
        let mut guard = lock(self.state);
        let left = (self.wait.line)(&mut guard).leave(self.number);
        if left.is_none() {
            (self.wait.pass_on)(&mut guard);
        }
        left
    }
}

impl<S, B> Drop for Place<'_, S, B> {
    fn drop(&mut self) {
        // What was brought is dropped without the lock: its destructor may be anybody's.
        drop(self.leave());
    }
}
