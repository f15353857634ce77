use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use hub_core::hub::{Interest, Readiness, Time};
use hub_core::internal::present_time;
use hub_core::{Deadline, LeftMark, ReadyList, TrampolineError, Waitable};

use super::{PollFd, poll_now};

/// A wait for the first of several things: channels, events, green threads, descriptors, points in time.
///
/// crossbeam's `Select`, with its form for readiness: a wait says which one is ready, and the caller then completes the
/// operation by a call that does not wait, such as [`try_recv`](crate::sync::mpsc::Receiver::try_recv). Another caller
/// may have been faster; then the caller waits again. So no item is lost if the waiter is killed or times out: a wait
/// takes nothing.
///
/// Several that are ready are reported in a random order, so none of them starves. The objects are all that are
/// [`Waitable`]: receivers of the channels of [`sync`](crate::sync), queues, events, semaphores, notifications,
/// cancellations and green threads. Callers that wait for one of these objects alone come before a `Select`. Each wait
/// leaves a mark with each object, and takes it back at its end.
///
/// ```
/// use greenhub::io::{self, PipeReader};
/// use greenhub::select::Select;
/// use greenhub::sync::{Event, mpsc};
/// use std::io::{Read, Write};
/// use std::time::{Duration, Instant};
///
/// /// Works until it is told to stop.
/// fn work(jobs: &mpsc::Receiver<u32>, stop: &Event<()>, mut input: &PipeReader) -> io::Result<Vec<String>> {
///     let (mut log, mut next) = (Vec::new(), Instant::now());
///     loop {
///         let mut select = Select::new();
///         let (job, stopped) = (select.wait(jobs), select.wait(stop));
///         let (readable, _timer) = (select.readable(input), select.at(next));
///         match select.ready()? {
///             ready if ready == job => log.extend(jobs.try_recv().map(|job| format!("job {job}"))),
///             ready if ready == stopped => return Ok(log),
///             ready if ready == readable => {
///                 let mut byte = [0];
///                 input.read_exact(&mut byte)?;
///                 log.push(format!("byte {}", byte[0]));
///             }
///             _ => {
///                 next += Duration::from_millis(5);
///                 log.push("tick".to_owned());
///             }
///         }
///     }
/// }
///
/// let (sender, jobs) = mpsc::channel();
/// let (input, mut output) = io::pipe()?;
/// let stop = Event::new();
/// let log = greenhub::scope(|scope| {
///     let worker = scope.spawn(|| work(&jobs, &stop, &input));
///     sender.send(1).unwrap();
///     output.write_all(&[7]).unwrap();
///     greenhub::sleep(Duration::from_millis(20));
///     stop.send(()).unwrap();
///     worker.join().unwrap()
/// })?;
/// assert!(["job 1", "byte 7", "tick"].iter().all(|entry| log.contains(&(*entry).to_owned())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Select<'a> {
    /// The operations by their numbers. A removed one leaves a gap.
    operations: Vec<Option<Operation<'a>>>,
}

enum Operation<'a> {
    Object(&'a dyn Waitable),
    Descriptor(BorrowedFd<'a>, Interest),
    Time(Time),
}

/// The marks of one wait. `Drop` takes them back, however the wait ends.
struct Marks<'a> {
    list: ReadyList,
    left: Vec<(usize, &'a dyn Waitable, LeftMark)>,
}

impl<'a> Marks<'a> {
    fn leave(&mut self, number: usize, object: &'a dyn Waitable) {
        let left = object.leave(self.list.mark(number));
        self.left.push((number, object, left));
    }

    /// Gives the object to the caller, if it is still ready. Otherwise leaves a mark again.
    fn give(&mut self, number: usize) -> bool {
        let Some(index) = self.left.iter().position(|(other, ..)| *other == number) else { return false };
        let (_, object, left) = self.left.swap_remove(index);
        if object.is_ready() {
            object.give(left);
            return true;
        }
        object.take_back(left);
        self.leave(number, object);
        false
    }
}

impl Drop for Marks<'_> {
    fn drop(&mut self) {
        for (_, object, left) in self.left.drain(..) {
            object.take_back(left);
        }
    }
}

impl<'a> Select<'a> {
    /// Creates a wait for nothing.
    #[must_use]
    pub fn new() -> Select<'a> {
        Select::default()
    }

    /// Adds an object, and returns the number by which it is reported. Does not switch.
    ///
    /// The call that completes the operation depends on the object: `try_recv`, `try_get`, `poll`, `try_acquire`. An
    /// event and the end of a green thread stay ready, so they are reported again.
    pub fn wait(&mut self, object: &'a dyn Waitable) -> usize {
        self.add(Operation::Object(object))
    }

    /// Adds a descriptor to read from, and returns the number by which it is reported. Does not switch.
    ///
    /// It is reported when a read would not wait: there is data, the end or an error. While it is waited for, another
    /// waiter for the same direction is an error, as in a [`trampoline`](hub_core::trampoline()).
    ///
    /// # Panics
    ///
    /// Panics if `fd` does, as a socket of this crate that was closed.
    #[track_caller]
    pub fn readable(&mut self, fd: &'a impl AsFd) -> usize {
        self.add(Operation::Descriptor(fd.as_fd(), Interest::READ))
    }

    /// Adds a descriptor to write to, and returns the number by which it is reported. Does not switch.
    ///
    /// # Panics
    ///
    /// Panics if `fd` does, as a socket of this crate that was closed.
    #[track_caller]
    pub fn writable(&mut self, fd: &'a impl AsFd) -> usize {
        self.add(Operation::Descriptor(fd.as_fd(), Interest::WRITE))
    }

    /// Adds a point in time, and returns the number by which it is reported. Does not switch.
    ///
    /// It is reported when `deadline` has passed, and stays ready. The time left counts by the hub's clock, from this
    /// call on.
    pub fn at(&mut self, deadline: Instant) -> usize {
        self.after(deadline.saturating_duration_since(Instant::now()))
    }

    /// Adds the end of a time, and returns the number by which it is reported. Does not switch.
    ///
    /// The time counts from this call on, not from each wait, and stays ready when it has passed.
    pub fn after(&mut self, duration: Duration) -> usize {
        self.add(Operation::Time(present_time() + duration))
    }

    /// Removes what has this number. The other numbers stay. Does not switch.
    ///
    /// It is for an object that stays ready, such as a channel without senders.
    ///
    /// # Panics
    ///
    /// Panics if nothing has this number.
    #[track_caller]
    pub fn remove(&mut self, number: usize) {
        assert!(self.operations.get(number).is_some_and(Option::is_some), "nothing has the number {number}");
        self.operations[number] = None;
    }

    fn add(&mut self, operation: Operation<'a>) -> usize {
        self.operations.push(Some(operation));
        self.operations.len() - 1
    }

    /// Returns the number of one that is ready, if there is one. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns the error of poll(2) for the descriptors.
    pub fn try_ready(&mut self) -> io::Result<Option<usize>> {
        let mut descriptors = self.descriptors().map(|(_, fd, interest)| PollFd::of(fd, interest)).collect::<Vec<_>>();
        if !descriptors.is_empty() {
            poll_now(&mut descriptors, Duration::ZERO)?;
        }
        let now = present_time();
        let mut polled = descriptors.iter().map(|fd| fd.readiness() != Readiness::NONE);
        let is_ready = |(number, operation): (usize, &Option<Operation<'a>>)| match operation {
            None => None,
            Some(Operation::Object(object)) => object.is_ready().then_some(number),
            Some(Operation::Descriptor(..)) => polled.next().unwrap_or(false).then_some(number),
            Some(Operation::Time(time)) => (*time <= now).then_some(number),
        };
        let mut ready: Vec<usize> = self.operations.iter().enumerate().filter_map(is_ready).collect();
        while !ready.is_empty() {
            let number = ready.swap_remove(random(ready.len()));
            if let Some(Operation::Object(object)) = &self.operations[number] {
                let mut marks = Marks { list: ReadyList::new(), left: Vec::new() };
                marks.leave(number, *object);
                if !marks.give(number) {
                    continue;
                }
            }
            return Ok(Some(number));
        }
        Ok(None)
    }

    /// Waits until one is ready, and returns its number. Switches.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), if the main loop ends the wait
    /// of the main greenlet by an error, and the errors of a [`trampoline`](hub_core::trampoline()) for the
    /// descriptors.
    ///
    /// # Panics
    ///
    /// Panics if there is nothing to wait for.
    #[track_caller]
    pub fn ready(&mut self) -> io::Result<usize> {
        assert!(self.operations.iter().any(Option::is_some), "nothing has been added to the select");
        self.ready_within(None)
    }

    /// Like [`ready`](Select::ready), for at most `timeout`. Switches.
    ///
    /// A timeout of zero lets other green threads run once. Without anything to wait for, only the timeout ends the
    /// wait.
    ///
    /// ```
    /// use greenhub::select::Select;
    /// use greenhub::sync::Queue;
    /// use std::io::ErrorKind;
    /// use std::time::Duration;
    /// let (one, other) = (Queue::<u8>::new(), Queue::new());
    /// let mut select = Select::new();
    /// let (_one, other_ready) = (select.wait(&one), select.wait(&other));
    /// let waited = select.ready_timeout(Duration::from_millis(1));
    /// assert_eq!(waited.unwrap_err().kind(), ErrorKind::TimedOut);
    /// other.put(7)?;
    /// assert_eq!(select.ready_timeout(Duration::from_millis(1))?, other_ready);
    /// assert_eq!(other.try_get()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error of the kind [`TimedOut`](io::ErrorKind::TimedOut) if none was ready in time, or an error of
    /// [`ready`](Select::ready).
    pub fn ready_timeout(&mut self, timeout: Duration) -> io::Result<usize> {
        self.ready_within(Some(timeout))
    }

    fn ready_within(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        hub_core::consume_budget()?;
        if let Some(number) = self.try_ready()? {
            return Ok(number);
        }
        let until = timeout.map(|timeout| present_time() + timeout);
        let times = self.operations.iter().flatten().filter_map(|operation| match operation {
            Operation::Time(time) => Some(*time),
            _ => None,
        });
        let earliest = times.chain(until).min();
        let descriptors: Vec<_> = self.descriptors().map(|(_, fd, interest)| (fd, interest)).collect();
        let mut marks = Marks { list: ReadyList::new(), left: Vec::new() };
        for (number, operation) in self.operations.iter().enumerate() {
            if let Some(Operation::Object(object)) = operation {
                marks.leave(number, *object);
            }
        }
        loop {
            let left = earliest.map(|earliest| earliest - present_time());
            match marks.list.next_with(&descriptors, &mut Deadline::from(left)) {
                Ok(Some(number)) if marks.give(number) => return Ok(number),
                Ok(Some(_)) => continue,
                Ok(None) => {}
                // The operation on a descriptor that was closed returns the error of the close.
                Err(TrampolineError::Closed { fd }) => {
                    let closed = self.descriptors().find(|(_, descriptor, _)| descriptor.as_raw_fd() == fd);
                    return closed.map(|(number, ..)| number).ok_or(TrampolineError::Closed { fd }.into());
                }
                Err(error) => return Err(error.into()),
            }
            // A descriptor, a time, or an object that became ready in the turn of the limit and whose mark comes late.
            if let Some(number) = self.try_ready()? {
                return Ok(number);
            }
            if until.is_some_and(|until| until <= present_time()) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"));
            }
        }
    }

    fn descriptors(&self) -> impl Iterator<Item = (usize, BorrowedFd<'a>, Interest)> {
        self.operations.iter().enumerate().filter_map(|(number, operation)| match operation {
            Some(Operation::Descriptor(fd, interest)) => Some((number, *fd, *interest)),
            _ => None,
        })
    }
}

/// Returns a random number below `count`. The keys of std's hash tables are random, and change with each table.
fn random(count: usize) -> usize {
    if count < 2 {
        return 0;
    }
    RandomState::new().build_hasher().finish() as usize % count
}

impl fmt::Debug for Select<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select").field("operations", &self.operations.iter().flatten().count()).finish()
    }
}
