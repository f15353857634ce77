//! Results in the order of spawning.

use std::collections::VecDeque;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use hub_core::{GreenError, GreenThread, LoopError};

use super::pool::GreenPool;

/// Green threads whose results are taken in the order of spawning. Eventlet's `GreenPile`.
///
/// As an iterator it waits for the next result, which switches. It ends when all results were taken. Dropping it drops
/// the results that are left, and their green threads run on.
///
/// ```
/// use greenhub::greenpool::GreenPile;
/// use std::time::Duration;
/// let mut pile = GreenPile::new(10);
/// for millis in [3, 1, 2] {
///     pile.spawn(move || {
///         greenhub::thread::sleep(Duration::from_millis(millis));
///         millis
///     })?;
/// }
/// assert_eq!(pile.collect::<Result<Vec<_>, _>>()?, [3, 1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct GreenPile<T> {
    pool: GreenPool,
    results: InOrder<T>,
}

impl<T: 'static> GreenPile<T> {
    /// Creates a pile with its own pool of that size. Does not switch.
    #[must_use]
    pub fn new(size: usize) -> GreenPile<T> {
        GreenPile::with_pool(&GreenPool::new(size))
    }

    /// Creates a pile that uses `pool`, which other piles may share. Does not switch.
    #[must_use]
    pub fn with_pool(pool: &GreenPool) -> GreenPile<T> {
        GreenPile { pool: pool.clone(), results: InOrder::new() }
    }

    /// Runs `f` in a green thread of the pool, and queues its result. Switches if the pool is full.
    ///
    /// A call that fails, or that an exit unwinds, queues nothing.
    ///
    /// # Errors
    ///
    /// Like [`GreenPool::spawn`].
    #[track_caller]
    pub fn spawn(&mut self, f: impl FnOnce() -> T + 'static) -> Result<(), LoopError> {
        let green = self.pool.spawn(f)?;
        self.results.0.push_back(green);
        Ok(())
    }

    /// Returns the number of results that were not taken yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.results.0.len()
    }

    /// Returns true if all results were taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.results.0.is_empty()
    }
}

impl<T> Iterator for GreenPile<T> {
    type Item = Result<T, GreenError>;

    fn next(&mut self) -> Option<Result<T, GreenError>> {
        self.results.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.results.0.len();
        (left, Some(left))
    }
}

impl<T> fmt::Debug for GreenPile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GreenPile").field("pool", &self.pool).field("left", &self.results.0.len()).finish()
    }
}

/// The results of [`GreenPool::imap`]. Waiting for the next one switches.
#[must_use = "nothing is done before a result is asked for"]
pub struct Imap<I: Iterator, F, T> {
    pool: GreenPool,
    /// `None` after its end.
    source: Option<I>,
    f: Rc<F>,
    results: InOrder<T>,
    /// The location of the call of `imap`.
    spawned_at: &'static Location<'static>,
}

impl<I, F, T> Imap<I, F, T>
where
    I: Iterator,
    I::Item: 'static,
    F: Fn(I::Item) -> T + 'static,
    T: 'static,
{
    pub(super) fn new(pool: GreenPool, source: I, f: F, spawned_at: &'static Location<'static>) -> Imap<I, F, T> {
        Imap { pool, source: Some(source), f: Rc::new(f), results: InOrder::new(), spawned_at }
    }

    /// Spawns as far ahead as the pool is large and has permits. Waits for a permit only if nothing runs.
    fn spawn_ahead(&mut self) -> Result<(), LoopError> {
        while let Some(source) = &mut self.source
            && self.results.0.len() < self.pool.size().max(1)
        {
            // The permit comes first: an exit or an error during the wait for it loses no item.
            let admission = match self.pool.try_admit() {
                Some(admission) => admission,
                None if self.results.0.is_empty() => self.pool.admit()?,
                None => break,
            };
            match source.next() {
                Some(item) => {
                    let f = Rc::clone(&self.f);
                    self.results.0.push_back(admission.spawn(self.spawned_at, None, move || f(item)));
                }
                None => self.source = None,
            }
        }
        Ok(())
    }
}

impl<I, F, T> Iterator for Imap<I, F, T>
where
    I: Iterator,
    I::Item: 'static,
    F: Fn(I::Item) -> T + 'static,
    T: 'static,
{
    type Item = Result<T, GreenError>;

    /// Returns the result of the next item. Switches.
    ///
    /// The error of an item is how its green thread ended. The error of a caller that cannot wait ends the reading of
    /// the source.
    ///
    /// # Panics
    ///
    /// Panics if the source panics.
    fn next(&mut self) -> Option<Result<T, GreenError>> {
        if let Err(error) = self.spawn_ahead() {
            self.source = None;
            return Some(Err(error.into()));
        }
        self.results.next()
    }
}

impl<I: Iterator, F, T> fmt::Debug for Imap<I, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("pool", &self.pool).field("ahead", &self.results.0.len()).finish()
    }
}

/// The green threads whose results are still to be taken.
struct InOrder<T>(VecDeque<GreenThread<T>>);

impl<T> InOrder<T> {
    fn new() -> InOrder<T> {
        InOrder(VecDeque::new())
    }

    /// Returns the next result. An exit or an error during the wait for it loses no result.
    fn next(&mut self) -> Option<Result<T, GreenError>> {
        let waited = self.0.front()?.wait_for_end();
        let green = self.0.pop_front()?;
        Some(waited.and_then(|()| green.join()))
    }
}
