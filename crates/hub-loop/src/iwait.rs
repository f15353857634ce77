//! Waits for several objects, and the functions of gevent that are made of them.

use std::fmt;
use std::time::Duration;

use hub_core::internal::request_exit_with;
use hub_core::{Deadline, GreenError, GreenThread, LeftMark, LoopError, ReadyList, Waitable};

/// Returns an iterator over objects in the order in which they become ready.
///
/// gevent's `iwait`. Does not switch. The iterator waits for the next object, so its `next` switches unless one is
/// ready. It ends when each object was given, and when `limit` has elapsed since the first wait. It leaves a mark with
/// each object at once, and its drop takes back the marks of the objects that it has not given. Between two items the
/// caller may do anything: an object that becomes ready meanwhile keeps its place in the order. An object that is
/// listed twice is given twice.
///
/// ```
/// use greenhub::gevent::{Waitable, event_loop, iwait};
/// use greenhub::sync::Event;
/// use std::time::Duration;
/// let event = Event::new();
/// let timer = event_loop().timer(Duration::from_millis(1));
/// let green = greenhub::spawn(|| ());
/// let objects: [&dyn Waitable; 3] = [&event, &timer, &green];
/// let mut ready = iwait(objects, None);
/// assert!(ready.next().unwrap()?.is_ready()); // the green thread
/// event.send("now")?;
/// assert!(ready.next().unwrap()?.is_ready()); // the event
/// assert_eq!(ready.count(), 1); // the timer
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn iwait<'a, W: Waitable + ?Sized>(
    objects: impl IntoIterator<Item = &'a W>,
    limit: impl Into<Option<Duration>>,
) -> IWait<'a, W> {
    let deadline = Deadline::from(limit.into());
    let mut wait = IWait { objects: Vec::new(), remaining: 0, list: ReadyList::new(), deadline };
    for (number, object) in objects.into_iter().enumerate() {
        let left = object.leave(wait.list.mark(number));
        wait.objects.push(Some((object, left)));
        wait.remaining += 1;
    }
    wait
}

/// An iterator over objects in the order in which they become ready.
///
/// Returned by [`iwait`]. An item is an error if the caller cannot wait, and if the main loop ends the wait of the main
/// greenlet by an error. The iterator ends after it.
#[must_use = "iterators are lazy and wait for nothing unless consumed"]
pub struct IWait<'a, W: Waitable + ?Sized> {
    /// The objects, each with the mark that was left there. An object that was given leaves a gap.
    objects: Vec<Option<(&'a W, LeftMark)>>,
    remaining: usize,
    list: ReadyList,
    deadline: Deadline,
}

impl<'a, W: Waitable + ?Sized> IWait<'a, W> {
    /// Takes an object that is ready, unless it was given.
    fn give(&mut self, number: usize) -> Option<&'a W> {
        let (object, left) = self.objects[number].take()?;
        object.give(left);
        self.remaining -= 1;
        Some(object)
    }

    /// Takes the marks back, and ends the iterator.
    fn end(&mut self) {
        self.remaining = 0;
        for (object, left) in self.objects.drain(..).flatten() {
            object.take_back(left);
        }
    }
}

impl<'a, W: Waitable + ?Sized> Iterator for IWait<'a, W> {
    type Item = Result<&'a W, LoopError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        loop {
            let next = match self.list.next(&mut self.deadline) {
                Ok(Some(number)) => Some(number),
                // An object that became ready in the turn of the limit may not have set its mark yet.
                Ok(None) => {
                    self.objects.iter().position(|object| object.as_ref().is_some_and(|(object, _)| object.is_ready()))
                }
                Err(error) => {
                    self.end();
                    return Some(Err(error));
                }
            };
            let Some(number) = next else {
                self.end();
                return None;
            };
            // Another OS thread may set the mark of an object that was given at the limit.
            if let Some(object) = self.give(number) {
                return Some(Ok(object));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.remaining))
    }
}

impl<W: Waitable + ?Sized> std::iter::FusedIterator for IWait<'_, W> {}

impl<W: Waitable + ?Sized> Drop for IWait<'_, W> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<W: Waitable + ?Sized> fmt::Debug for IWait<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IWait").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

/// Waits until `count` of `objects` are ready, and returns these in their order.
///
/// gevent's `wait`. Switches, unless so many are ready. Waits for all objects if `count` is `None`. When `limit`
/// elapses, returns the objects that are ready by then. gevent's `wait` without objects is
/// [`HubRef::join`](hub_core::HubRef::join).
///
/// ```
/// use greenhub::gevent::wait;
/// use std::time::Duration;
/// let hour = || greenhub::sleep(Duration::from_secs(3600));
/// let threads = [greenhub::spawn(hour), greenhub::spawn(|| ())];
/// let ready = wait(&threads, None, 1)?;
/// assert!(ready.len() == 1 && ready[0].is_finished());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns an error if the caller cannot wait, and the error that the main loop has for the main greenlet.
pub fn wait<'a, W: Waitable + ?Sized>(
    objects: impl IntoIterator<Item = &'a W>,
    limit: impl Into<Option<Duration>>,
    count: impl Into<Option<usize>>,
) -> Result<Vec<&'a W>, LoopError> {
    iwait(objects, limit).take(count.into().unwrap_or(usize::MAX)).collect()
}

/// Waits until green threads have ended, and returns them.
///
/// gevent's `joinall`. Switches, unless they have ended. The order is that of the ends. When `limit` elapses, returns
/// those that have ended by then. Their results stay in place. [`Group::try_wait_all`] is gevent's form with
/// `raise_error`.
///
/// [`Group::try_wait_all`]: https://docs.rs/greenstd/latest/greenstd/greenpool/struct.Group.html#method.try_wait_all
///
/// ```
/// use greenhub::gevent::joinall;
/// let threads = [greenhub::spawn(|| 1), greenhub::spawn(|| 2)];
/// assert_eq!(joinall(&threads, None)?.len(), 2);
/// let sum: i32 = threads.into_iter().map(|green| green.join().unwrap()).sum();
/// assert_eq!(sum, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The same as [`wait`].
pub fn joinall<'a, T: 'a>(
    threads: impl IntoIterator<Item = &'a GreenThread<T>>,
    limit: impl Into<Option<Duration>>,
) -> Result<Vec<&'a GreenThread<T>>, LoopError> {
    wait(threads, limit, None)
}

/// Kills green threads, waits for their ends, and returns the number of survivors.
///
/// gevent's `killall`. Switches, unless all have ended. All are killed before the first of them runs. A green thread
/// that has not begun never runs. With a limit of zero the others run once. A green thread that
/// [refuses](hub_core::KillOutcome::Refused) its kill is waited for, up to `limit`.
///
/// ```
/// use greenhub::gevent::killall;
/// use std::time::Duration;
/// let threads = [(); 3].map(|()| greenhub::spawn(|| greenhub::sleep(Duration::from_secs(3600))));
/// greenhub::thread::yield_now();
/// assert_eq!(killall(&threads, Duration::from_secs(10))?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The same as [`wait`]. The green threads are killed even then.
pub fn killall<'a, T: 'a>(
    threads: impl IntoIterator<Item = &'a GreenThread<T>>,
    limit: impl Into<Option<Duration>>,
) -> Result<usize, LoopError> {
    killall_with(threads, GreenError::Kill, limit)
}

/// Like [`killall`], with an error of the caller, which the waiters get.
///
/// gevent's `killall` with `exception`.
///
/// ```
/// use greenhub::GreenError;
/// use greenhub::gevent::killall_with;
/// use std::time::Duration;
/// let threads = [(); 3].map(|()| greenhub::spawn(|| greenhub::sleep(Duration::from_secs(3600))));
/// greenhub::thread::yield_now();
/// assert_eq!(killall_with(&threads, GreenError::custom("shutting down"), None)?, 0);
/// for green in threads {
///     assert_eq!(green.join().unwrap_err().to_string(), "shutting down");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The same as [`killall`].
pub fn killall_with<'a, T: 'a>(
    threads: impl IntoIterator<Item = &'a GreenThread<T>>,
    error: GreenError,
    limit: impl Into<Option<Duration>>,
) -> Result<usize, LoopError> {
    let threads: Vec<_> = threads.into_iter().collect();
    for green in &threads {
        if let Some(id) = green.id() {
            request_exit_with(id, error.clone());
        }
    }
    let left: Vec<_> = threads.into_iter().filter(|green| !green.is_finished()).collect();
    joinall(left.iter().copied(), limit)?;
    Ok(left.iter().filter(|green| !green.is_finished()).count())
}
