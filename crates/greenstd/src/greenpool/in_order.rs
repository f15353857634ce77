//! Results in the order in which they were asked for.

use std::collections::VecDeque;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use hub_core::{GreenError, GreenThread, LoopError};

use super::pool::GreenPool;

/// Green threads whose results are taken in the order of spawning, in whatever order they end. Eventlet's
/// `GreenPile`. As an iterator it waits for the next result: switches. It ends when every result was taken; those that
/// were not are dropped with it, and the green threads run on.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::greenpool::GreenPile;
/// use std::time::Duration;
/// let mut pile = GreenPile::new(10);
/// for millis in [3, 1, 2] {
///     pile.spawn(move || {
///         greenstd::thread::sleep(Duration::from_millis(millis));
///         millis
///     })?;
/// }
/// assert_eq!(pile.collect::<Result<Vec<_>, _>>()?, [3, 1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct GreenPile<T> {
    pool: GreenPool,
    results: InOrder<T>,
}

impl<T: 'static> GreenPile<T> {
    /// A pile with a pool of its own, of that size. Does not switch.
    #[must_use]
    pub fn new(size: usize) -> GreenPile<T> {
        GreenPile::with_pool(&GreenPool::new(size))
    }

    /// A pile that shares `pool` with others. Does not switch.
    #[must_use]
    pub fn with_pool(pool: &GreenPool) -> GreenPile<T> {
        GreenPile { pool: pool.clone(), results: InOrder::new() }
    }

    /// Runs `f` in a green thread of the pool; its result is behind those of before. Switches if the pool is full. One
    /// that fails, or is killed or times out, adds nothing.
    ///
    /// # Errors
    ///
    /// As [`GreenPool::spawn`].
    #[track_caller]
    pub fn spawn(&mut self, f: impl FnOnce() -> T + 'static) -> Result<(), LoopError> {
        let green = self.pool.spawn(f)?;
        self.results.0.push_back(green);
        Ok(())
    }

    /// How many results were not taken yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.results.0.len()
    }

    /// Whether every result was taken.
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

/// The results of [`GreenPool::imap`]. Waiting for the next switches.
#[must_use = "nothing is done before a result is asked for"]
pub struct Imap<I: Iterator, F, T> {
    pool: GreenPool,
    /// None when it has ended.
    source: Option<I>,
    f: Rc<F>,
    results: InOrder<T>,
    /// Where `imap` was called.
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

    /// Sets as many to work as the pool is large and has room for; waits only if none is at work.
    fn spawn_ahead(&mut self) -> Result<(), LoopError> {
        while let Some(source) = &mut self.source
            && self.results.0.len() < self.pool.size().max(1)
        {
            // A place first: who is interrupted while waiting for one has taken no item.
            let admission = match self.pool.try_admit() {
                Some(admission) => admission,
                None if self.results.0.is_empty() => self.pool.admit()?,
                None => break,
            };
            match source.next() {
                Some(item) => {
                    let f = Rc::clone(&self.f);
                    self.results.0.push_back(admission.spawn(self.spawned_at, move || f(item)));
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

    /// The result of the next item. Switches.
    ///
    /// An error says how its green thread ended, or that there is no waiting: then no more of the source is read.
    ///
    /// # Panics
    ///
    /// If the source does.
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

/// Those whose results are still to be taken.
struct InOrder<T>(VecDeque<GreenThread<T>>);

impl<T> InOrder<T> {
    fn new() -> InOrder<T> {
        InOrder(VecDeque::new())
    }

    /// The next result. Who is interrupted while waiting for it finds it again.
    fn next(&mut self) -> Option<Result<T, GreenError>> {
        let waited = self.0.front()?.wait_for_end();
        let green = self.0.pop_front()?;
        Some(waited.and_then(|()| green.join()))
    }
}
