//! Who waits for something that comes to one after the other.
//!
//! A primitive keeps its state, with one [`Line`] for each thing that is waited for, under one lock, which is
//! never held while anything else runs but `unpark` and what orders the items of a queue. Whoever has something to
//! give *chooses* the first of the line: the thing is theirs from then on, so nobody who comes later gets it. Those who
//! are chosen and cannot take it, because they are killed or their time is over that very moment, *pass it on*.
//!
//! Those who wait may *bring* something along, which goes to whoever chooses them, or leaves the line with them.

use std::collections::VecDeque;
use std::fmt;

use hub_core::{BiasedMutex, BiasedMutexGuard, Deadline, LoopError, Parked, Parker, Unparker, WaitReason};

/// In the order in which they came, each with what it brought.
pub(crate) struct Line<B = ()> {
    /// Who is next: nobody only if nobody waits. One who waits alone takes no memory.
    first: Option<Place<B>>,
    /// The others by rising numbers. Those who left are gaps.
    rest: VecDeque<(u64, Option<(Unparker, B)>)>,
    gaps: usize,
    next: u64,
}

struct Place<B> {
    number: u64,
    unparker: Unparker,
    brought: B,
}

impl<B> Default for Line<B> {
    fn default() -> Line<B> {
        Line::new()
    }
}

impl<B> fmt::Debug for Line<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Line").field(&self.len()).finish()
    }
}

impl Line {
    /// Takes the first out of the line and wakes it. False if nobody waits.
    #[inline]
    pub(crate) fn choose(&mut self) -> bool {
        self.choose_with().is_some()
    }

    pub(crate) fn choose_all(&mut self) {
        while self.choose() {}
    }
}

impl<B> Line<B> {
    pub(crate) const fn new() -> Line<B> {
        Line { first: None, rest: VecDeque::new(), gaps: 0, next: 0 }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len() - self.gaps
    }

    /// Takes the first out of the line and wakes it, for what it brought.
    #[inline]
    pub(crate) fn choose_with(&mut self) -> Option<B> {
        // Mostly nobody waits.
        if self.is_empty() { None } else { self.choose_first() }
    }

    #[inline(never)]
    fn choose_first(&mut self) -> Option<B> {
        loop {
            let chosen = self.first.take()?;
            if !self.rest.is_empty() {
                self.move_up();
            }
            if chosen.unparker.try_unpark() {
                return Some(chosen.brought);
            }
            // The waiter was left behind by a fork, or abandoned with its thread. What it brought stays with it.
            std::mem::forget(chosen.brought);
        }
    }

    /// The first of the rest is the first of all.
    #[cold]
    fn move_up(&mut self) {
        while let Some((number, place)) = self.rest.pop_front() {
            if let Some((unparker, brought)) = place {
                self.first = Some(Place { number, unparker, brought });
                return;
            }
            self.gaps -= 1;
        }
    }

    /// A new place at the end.
    #[inline]
    fn enter(&mut self, unparker: Unparker, brought: B) -> u64 {
        let number = self.next;
        self.next += 1;
        if self.first.is_none() {
            self.first = Some(Place { number, unparker, brought });
        } else {
            self.rest.push_back((number, Some((unparker, brought))));
        }
        number
    }

    /// The place again that one had who was chosen in vain.
    #[cold]
    fn enter_again(&mut self, number: u64, unparker: Unparker, brought: B) -> u64 {
        let mut place = Place { number, unparker, brought };
        if let Some(first) = &mut self.first {
            if number < first.number {
                std::mem::swap(first, &mut place);
            }
            let index = self.rest.partition_point(|(other, _)| *other < place.number);
            self.rest.insert(index, (place.number, Some((place.unparker, place.brought))));
        } else {
            self.first = Some(place);
        }
        number
    }

    /// Gives a place up, for what its holder brought. `None` if it was chosen before.
    #[cold]
    fn leave(&mut self, number: u64) -> Option<B> {
        if let Some(first) = self.first.take_if(|first| first.number == number) {
            self.move_up();
            return Some(first.brought);
        }
        let index = self.rest.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, brought) = self.rest[index].1.take()?;
        self.gaps += 1;
        // Behind one who waits for long, many may come and go.
        if self.gaps > self.rest.len() / 2 + 16 {
            self.rest.retain(|(_, place)| place.is_some());
            self.gaps = 0;
        }
        Some(brought)
    }
}

/// A wait that came to nothing.
pub(crate) enum Ended<B = ()> {
    /// By its limit, with what was brought.
    Late(B),
    /// By an error, with what was brought unless somebody took it before.
    Failed(Box<LoopError>, Option<B>),
}

/// How one waits for something.
pub(crate) trait Wait {
    /// What the lock of the primitive protects.
    type State;
    /// What is brought along.
    type Brought;

    /// What reports say that those who wait are doing.
    const DOING: WaitReason;
    /// Whether one who was chosen in vain has its place again, instead of the last one.
    const KEEPS_PLACE: bool = true;
    /// Whether all of the line are chosen together, for something that is not less when one has it: who is called away
    /// then has it all the same, and passes nothing on.
    const FOR_ALL: bool = false;
    /// Whether an attempt that may succeed at once is charged to the budget of operations. Not where a destructor may
    /// rely on a primitive that is free: taking a lock that nobody has never switches.
    const CHARGED: bool = false;

    /// Whether an exit does not keep a wait from beginning.
    const HOLDS_EXITS: bool = false;

    /// Where one waits.
    fn line(state: &mut Self::State) -> &mut Line<Self::Brought>;

    /// Gives to somebody else what was given to one who cannot take it.
    fn pass_on(state: &mut Self::State);

    /// Somebody has come, with what it brought.
    #[inline]
    fn entered(_: &mut Self::State) {}

    /// Attempts, waits to be chosen, and attempts again, until there is a result or `limit` is reached. Switches.
    ///
    /// The attempt gets what was brought, and gives it back if there is no result; it gets nothing after it was
    /// chosen, for then that has been taken.
    ///
    /// A green thread that is killed or times out leaves the line, and what it brought is dropped without the lock. One
    /// that was chosen before goes on, and the exit strikes at its next wait: whether it was is known under the lock
    /// only, for a wake-up from another OS thread may be under way.
    ///
    /// # Errors
    ///
    /// [`Ended::Failed`] where nobody may wait, and with what the main loop has to tell the main greenlet; the caller
    /// is not in the line then.
    #[inline]
    fn wait<R>(
        state: &BiasedMutex<Self::State>,
        limit: &mut Deadline,
        brought: Self::Brought,
        mut attempt: impl FnMut(&mut Self::State, Option<Self::Brought>) -> Result<R, Self::Brought>,
    ) -> Result<R, Ended<Self::Brought>> {
        if Self::CHARGED
            && let Err(error) = hub_core::consume_budget()
        {
            return Err(Ended::Failed(error, Some(brought)));
        }
        let mut guard = state.lock();
        match attempt(&mut guard, Some(brought)) {
            Ok(result) => Ok(result),
            Err(back) => Self::wait_in_line(state, guard, limit, back, attempt),
        }
    }

    /// As [`wait`](Wait::wait), after an attempt that brought nothing under `guard`.
    #[inline]
    fn wait_in_line<R>(
        state: &BiasedMutex<Self::State>,
        guard: BiasedMutexGuard<'_, Self::State>,
        limit: &mut Deadline,
        back: Self::Brought,
        mut attempt: impl FnMut(&mut Self::State, Option<Self::Brought>) -> Result<R, Self::Brought>,
    ) -> Result<R, Ended<Self::Brought>> {
        // Outlives the guard, for its destructor is anybody's.
        let mut kept = Some(back);
        let mut guard = guard;
        let mut number = None;
        loop {
            let parker = match Parker::if_prepared(Self::DOING) {
                Ok(Some(parker)) => parker,
                Ok(None) => {
                    drop(guard);
                    if let Err(error) = Parker::prepare(Self::DOING) {
                        return Err(Ended::Failed(error, kept));
                    }
                    guard = state.lock();
                    match attempt(&mut guard, kept.take()) {
                        Ok(result) => return Ok(result),
                        Err(back) => kept = Some(back),
                    }
                    continue;
                }
                Err(error) => return Err(Ended::Failed(error, kept)),
            };
            let Some(brought) = kept.take() else { unreachable!("an attempt gives back what it got") };
            let line = Self::line(&mut guard);
            let stay = Stay::<Self> {
                state,
                number: match number {
                    Some(number) if Self::KEEPS_PLACE => line.enter_again(number, parker.unparker(), brought),
                    _ => line.enter(parker.unparker(), brought),
                },
            };
            number = Some(stay.number);
            Self::entered(&mut guard);
            drop(guard);
            let parked = match parker.park_deferring_exit(limit) {
                Ok(parked) => parked,
                Err(error) => return Err(Ended::Failed(error, stay.give_up())),
            };
            guard = state.lock();
            // By nobody but who has chosen it.
            if parked != Parked::Unparked
                && let Some(back) = Self::line(&mut guard).leave(stay.number)
            {
                std::mem::forget(stay);
                if parked == Parked::Late {
                    return Err(Ended::Late(back));
                }
                kept = Some(back);
                if Self::HOLDS_EXITS {
                    // The patience is over. Others may run before the exit is thrown.
                    drop(guard);
                    hub_core::throw_exit();
                    guard = state.lock();
                    match attempt(&mut guard, kept.take()) {
                        Ok(result) => return Ok(result),
                        Err(back) => kept = Some(back),
                    }
                }
                // The exit is thrown before the next wait. If a mask holds it back, that goes on in this place.
                continue;
            }
            std::mem::forget(stay);
            match attempt(&mut guard, None) {
                Ok(result) => return Ok(result),
                Err(back) => kept = Some(back),
            }
        }
    }
}

/// Whoever stays in a line, and leaves it however the wait ends.
struct Stay<'a, W: Wait + ?Sized> {
    state: &'a BiasedMutex<W::State>,
    number: u64,
}

impl<W: Wait + ?Sized> Stay<'_, W> {
    fn give_up(self) -> Option<W::Brought> {
        let left = self.leave();
        std::mem::forget(self);
        left
    }

    fn leave(&self) -> Option<W::Brought> {
        let mut guard = self.state.lock();
        let left = W::line(&mut guard).leave(self.number);
        if left.is_none() {
            W::pass_on(&mut guard);
        }
        left
    }
}

impl<W: Wait + ?Sized> Drop for Stay<'_, W> {
    fn drop(&mut self) {
        // What was brought is dropped without the lock: its destructor may be anybody's.
        drop(self.leave());
    }
}
