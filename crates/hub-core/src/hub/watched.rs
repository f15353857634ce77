//! The loop's table of descriptors, as a hub sees it.
//!
//! A hub never keeps a descriptor, and never turns a number into a [`BorrowedFd`] itself. [`Watched`] lends it one for
//! as long as the number is guaranteed to be open.
//!
//! Ground rules:
//! - A direction is armed only while its waiter keeps the descriptor open, either by a borrow or because the
//!   registration owns it. An entry has the lease [`Life`](Lease::Life) only while its socket has not been closed. The
//!   callers of [`arm`](Watched::arm) and [`lend`](Watched::lend) promise that.
//! - The table hands out borrows of itself, so none outlives the next change of the table.

use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::task::Waker;

use super::interest::Interest;
use super::lease::Lease;
use super::loop_waker::LoopWaker;

/// Identifies one registration: the number of a descriptor and a generation.
///
/// A number that is closed and reused gets a new generation. A late report for the old file is thereby recognized and
/// dropped.
///
/// ```
/// use greenhub::hub::Key;
/// let key = Key::new(5, 2);
/// assert_eq!(Key::from_u64(key.to_u64()), key);
/// assert_eq!((key.fd(), key.generation()), (5, 2));
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key(u64);

impl Key {
    /// Creates the key of generation `generation` of the number `fd`.
    #[must_use]
    #[inline]
    pub const fn new(fd: RawFd, generation: u32) -> Key {
        Key((generation as u64) << 32 | fd as u32 as u64)
    }

    /// Returns the number of the descriptor.
    #[must_use]
    #[inline]
    pub const fn fd(self) -> RawFd {
        self.0 as u32 as RawFd
    }

    /// Returns how often the entry of this number was given to a new file.
    #[must_use]
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the key as one integer, for the system to keep.
    #[must_use]
    #[inline]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// Restores a key from the integer that [`to_u64`](Key::to_u64) returned.
    #[must_use]
    #[inline]
    pub const fn from_u64(bits: u64) -> Key {
        Key(bits)
    }
}

#[derive(Copy, Clone, Default)]
struct Entry {
    generation: u32,
    armed: Interest,
    lent: bool,
}

/// The table of armed descriptors. The loop keeps it, and lends it to [`Hub::wait`](crate::hub::Hub::wait).
///
/// ```
/// use greenhub::Interest;
/// use greenhub::hub::Watched;
/// use std::os::fd::AsRawFd;
/// let (reader, _writer) = std::io::pipe()?;
/// let mut watched = Watched::new();
/// let key = watched.enter(reader.as_raw_fd());
/// // SAFETY: `reader` outlives the table's use of its number.
/// unsafe { watched.arm(key, Interest::READ) };
/// assert_eq!(watched.iter().map(|(key, _, interest)| (key, interest)).collect::<Vec<_>>(), [(key, Interest::READ)]);
/// watched.disarm(key, Interest::READ);
/// assert!(watched.is_empty());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Default)]
pub struct Watched {
    entries: Vec<Entry>,
    /// One bit per number, set while a direction of it is armed.
    armed: Vec<u64>,
    count: usize,
    waker: Rc<LoopWaker>,
}

impl Watched {
    /// Creates an empty table.
    #[must_use]
    pub fn new() -> Watched {
        Watched::default()
    }

    /// Iterates over the armed descriptors with their armed directions.
    ///
    /// The order is ascending by number.
    pub fn iter(&self) -> impl Iterator<Item = (Key, BorrowedFd<'_>, Interest)> {
        self.armed.iter().enumerate().flat_map(move |(index, &word)| Bits(word).map(move |bit| index * 64 + bit)).map(
            move |number| {
                let entry = &self.entries[number];
                let key = Key::new(number as RawFd, entry.generation);
                // SAFETY: a direction of this entry is armed, so the number is open for as long as
                // the table is not changed, which the borrow of `self` excludes.
                (key, unsafe { BorrowedFd::borrow_raw(number as RawFd) }, entry.armed)
            },
        )
    }

    /// Returns the number of armed descriptors.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether no descriptor is armed.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the current key of a number.
    #[must_use]
    #[inline]
    pub fn key(&self, fd: RawFd) -> Option<Key> {
        self.entries.get(fd as usize).map(|entry| Key::new(fd, entry.generation))
    }

    /// Returns whether `key` is the current key of its number.
    #[must_use]
    #[inline]
    pub fn is_current(&self, key: Key) -> bool {
        self.entry(key).is_some()
    }

    /// Returns the armed directions of `key`; none if the key is not current.
    #[must_use]
    #[inline]
    pub fn armed(&self, key: Key) -> Interest {
        self.entry(key).map_or(Interest::NONE, |entry| entry.armed)
    }

    /// Returns the descriptor of `key`, if it is lent to the hub now.
    #[must_use]
    #[inline]
    pub fn fd(&self, key: Key) -> Option<BorrowedFd<'_>> {
        let entry = self.entry(key)?;
        if !entry.lent && entry.armed.is_empty() {
            return None;
        }
        // SAFETY: the entry is armed or lent for life, so the number is open for as long as the
        // table is not changed, which the borrow of `self` excludes.
        Some(unsafe { BorrowedFd::borrow_raw(key.fd()) })
    }

    /// Returns the lease under which the descriptor of `key` is lent.
    #[must_use]
    #[inline]
    pub fn lease(&self, key: Key) -> Lease {
        if self.entry(key).is_some_and(|entry| entry.lent) { Lease::Life } else { Lease::Wait }
    }

    /// Sets the waker of the present wait.
    ///
    /// It is woken when a green thread of this OS thread becomes ready. It is for a hub whose
    /// [`wait`](crate::hub::Hub::wait) runs foreign code, such as tasks of a runtime. Such code may wake green threads,
    /// schedule callbacks or end the loop. Other OS threads are no concern of this waker. If a green thread became
    /// ready earlier in the same wait, the waker is woken at once. It is woken once in each wait.
    ///
    /// The waker must only make the wait return. It is woken inside of the call that makes the green thread ready,
    /// which may hold a lock of this library.
    ///
    /// ```
    /// use greenhub::hub::Watched;
    /// use std::task::Waker;
    ///
    /// let watched = Watched::new();
    /// watched.begin_wait();
    /// watched.wake_by(Waker::noop()); // in `Hub::wait`, before a task is polled
    /// watched.wake(); // what the loop does when a task makes a green thread ready
    /// ```
    pub fn wake_by(&self, waker: &Waker) {
        self.waker.set(waker);
    }

    /// Begins a wait: forgets wake-ups of earlier ones.
    ///
    /// For callers that drive a hub: the main loop, and test suites.
    #[inline]
    pub fn begin_wait(&self) {
        self.waker.begin_wait();
    }

    /// Wakes the waker set by [`wake_by`](Watched::wake_by), or the next one set in this wait.
    ///
    /// For callers that drive a hub: the main loop, and test suites.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Returns the waker of the loop, for a call while the table is not borrowed.
    pub(crate) fn loop_waker(&self) -> Rc<LoopWaker> {
        Rc::clone(&self.waker)
    }

    /// Gives the number `fd` to a new file, and returns its key.
    ///
    /// Nothing is armed or lent under that key, and every older key is stale. For callers that drive a hub: the main
    /// loop, and test suites.
    pub fn enter(&mut self, fd: RawFd) -> Key {
        let number = fd as usize;
        if number >= self.entries.len() {
            self.entries.resize(number + 1, Entry::default());
            self.armed.resize(self.entries.len().div_ceil(64), 0);
        }
        let generation = self.entries[number].generation.wrapping_add(1);
        self.set(number, Entry { generation, armed: Interest::NONE, lent: false });
        Key::new(fd, generation)
    }

    /// Adds `interest` to the armed directions of `key`.
    ///
    /// # Safety
    ///
    /// The descriptor must stay open until the direction is [disarmed](Watched::disarm) or the number is
    /// [entered](Watched::enter) anew.
    #[inline]
    pub unsafe fn arm(&mut self, key: Key, interest: Interest) {
        if let Some(&entry) = self.entry(key) {
            self.set(key.fd() as usize, Entry { armed: entry.armed | interest, ..entry });
        }
    }

    /// Removes `interest` from the armed directions of `key`.
    #[inline]
    pub fn disarm(&mut self, key: Key, interest: Interest) {
        if let Some(&entry) = self.entry(key) {
            self.set(key.fd() as usize, Entry { armed: entry.armed.without(interest), ..entry });
        }
    }

    /// Lends the descriptor of `key` until the number is entered anew.
    ///
    /// # Safety
    ///
    /// The descriptor must stay open until the number is [entered](Watched::enter) anew.
    pub unsafe fn lend(&mut self, key: Key) {
        if let Some(&entry) = self.entry(key) {
            self.set(key.fd() as usize, Entry { lent: true, ..entry });
        }
    }

    #[inline]
    fn entry(&self, key: Key) -> Option<&Entry> {
        self.entries.get(key.fd() as usize).filter(|entry| entry.generation == key.generation())
    }

    #[inline]
    fn set(&mut self, number: usize, entry: Entry) {
        let was = !self.entries[number].armed.is_empty();
        let is = !entry.armed.is_empty();
        self.entries[number] = entry;
        if was != is {
            self.armed[number / 64] ^= 1 << (number % 64);
            self.count = if is { self.count + 1 } else { self.count - 1 };
        }
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter().map(|(key, _, interest)| (key.fd(), interest))).finish()
    }
}

/// The numbers of the set bits of a word, ascending.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_conversion_to_an_integer() {
        let key = Key::new(70_000, 9);
        assert_eq!(Key::from_u64(key.to_u64()), key);
        assert_eq!((key.fd(), key.generation()), (70_000, 9));
    }

    #[test]
    fn only_armed_entries_are_iterated_in_ascending_order() {
        let mut watched = Watched::new();
        let keys: Vec<Key> = [200, 1, 64].into_iter().map(|fd| watched.enter(fd)).collect();
        for &key in &keys {
            // SAFETY: the test only looks at numbers and never uses the descriptors.
            unsafe { watched.arm(key, Interest::READ) };
        }
        watched.disarm(keys[1], Interest::READ);
        let seen: Vec<_> = watched.iter().map(|(key, _, interest)| (key.fd(), interest)).collect();
        assert_eq!(seen, [(64, Interest::READ), (200, Interest::READ)]);
        assert_eq!(watched.len(), 2);
    }

    #[test]
    fn a_number_entered_anew_is_neither_armed_nor_lent() {
        let mut watched = Watched::new();
        let old = watched.enter(3);
        // SAFETY: the test only looks at numbers and never uses the descriptors.
        unsafe {
            watched.arm(old, Interest::BOTH);
            watched.lend(old);
        }
        let new = watched.enter(3);
        assert!(!watched.is_current(old) && watched.is_current(new));
        assert!(watched.fd(old).is_none() && watched.fd(new).is_none());
        assert!(watched.is_empty());
    }
}
