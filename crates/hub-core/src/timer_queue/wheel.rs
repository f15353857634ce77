//! A ring of buckets for the timers of the next second, unordered within a bucket.

use super::heap::Node;
use crate::hub::Time;

/// A span of 2^20 nanoseconds, about a millisecond, counted from the clock's own beginning.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u64);

impl Tick {
    pub(super) const ZERO: Tick = Tick(0);

    #[inline]
    pub(super) fn of(time: Time) -> Tick {
        Tick(time.as_nanos() >> 20)
    }

    #[inline]
    pub(super) fn start(self) -> Time {
        Time::from_nanos(self.0 << 20)
    }

    #[inline]
    pub(super) fn before(self) -> Tick {
        Tick(self.0.saturating_sub(1))
    }

    #[inline]
    fn bucket(self) -> usize {
        self.0 as usize % BUCKETS
    }
}

const BUCKETS: usize = 1024;
const WORDS: usize = BUCKETS / 64;

/// The capacity that an emptied bucket keeps. The limit prevents a burst from holding memory forever.
const ROOM: usize = 256;

/// A ring of buckets. The tick of each node follows the present tick by less than the number of buckets, so no bucket
/// mixes two ticks.
pub(super) struct Wheel {
    /// Empty until the first node arrives, so that a queue without timers is small.
    buckets: Vec<Vec<Node>>,
    /// One bit per bucket, set while it is not empty.
    occupied: [u64; WORDS],
    len: usize,
}

impl Wheel {
    pub(super) const fn new() -> Wheel {
        Wheel { buckets: Vec::new(), occupied: [0; WORDS], len: 0 }
    }

    /// Returns whether the wheel can hold a node of `tick` while `present` is the present tick.
    #[inline]
    pub(super) fn reaches(present: Tick, tick: Tick) -> bool {
        tick > present && tick.0 - present.0 < BUCKETS as u64
    }

    /// Adds a node, and returns its index in its bucket.
    #[inline]
    pub(super) fn push(&mut self, node: Node) -> usize {
        if self.buckets.is_empty() {
            self.buckets.resize_with(BUCKETS, Vec::new);
        }
        let bucket = Tick::of(node.deadline).bucket();
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        self.len += 1;
        self.buckets[bucket].push(node);
        self.buckets[bucket].len() - 1
    }

    /// Removes the node at `index` of the bucket of `tick`. Returns the slot of the node that took its place.
    #[inline]
    pub(super) fn remove(&mut self, tick: Tick, index: usize) -> Option<u32> {
        let bucket = &mut self.buckets[tick.bucket()];
        bucket.swap_remove(index);
        self.len -= 1;
        if bucket.is_empty() {
            self.vacate(tick);
        }
        self.buckets[tick.bucket()].get(index).map(|node| node.slot)
    }

    /// Returns the nodes of `tick`, which must be within reach of the wheel.
    #[inline]
    pub(super) fn nodes(&self, tick: Tick) -> &[Node] {
        self.buckets.get(tick.bucket()).map_or(&[], Vec::as_slice)
    }

    /// Empties the bucket of `tick` into `take`.
    #[inline]
    pub(super) fn drain(&mut self, tick: Tick, take: impl FnMut(Node)) {
        if let Some(bucket) = self.buckets.get_mut(tick.bucket()) {
            self.len -= bucket.len();
            bucket.drain(..).for_each(take);
            self.vacate(tick);
        }
    }

    /// Returns the first tick after `present` that has nodes.
    #[inline]
    pub(super) fn first_after(&self, present: Tick) -> Option<Tick> {
        self.ticks_after(present).next()
    }

    /// Iterates over the ticks after `present` that have nodes, in ascending order.
    #[inline]
    pub(super) fn ticks_after(&self, present: Tick) -> impl Iterator<Item = Tick> {
        let first = Tick(present.0.wrapping_add(1));
        let start = first.bucket();
        // The first word comes twice: its upper part first, its lower part last.
        let words = if self.len == 0 { 0 } else { WORDS + 1 };
        (0..words).flat_map(move |step| {
            let mask = match step {
                0 => u64::MAX << (start % 64),
                WORDS => !(u64::MAX << (start % 64)),
                _ => u64::MAX,
            };
            let word = (start / 64 + step) % WORDS;
            Bits(self.occupied[word] & mask).map(move |bit| {
                let ahead = (word * 64 + bit + BUCKETS - start) % BUCKETS;
                Tick(first.0 + ahead as u64)
            })
        })
    }

    #[inline]
    fn vacate(&mut self, tick: Tick) {
        let bucket = tick.bucket();
        self.occupied[bucket / 64] &= !(1 << (bucket % 64));
        self.buckets[bucket].shrink_to(ROOM);
    }
}

/// The numbers of the set bits of a word, ascending.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;
    #[inline]
    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (bit < 64).then_some(bit)
    }
}
