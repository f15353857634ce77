//! The timers of the ticks up to the present one, which are the first of all.
//!
//! The timers of a tick that becomes the present one are sorted once. Those that are armed for a present tick come into
//! a heap. The first of both is the first of all.

use super::heap::{Heap, Node};
use crate::hub::Time;

/// The slot of a node that was removed from the sorted tick.
const REMOVED: u32 = u32::MAX;

/// The bit of a place by which a node of the sorted tick is known.
const SORTED: u32 = 1 << 29;

/// The largest number of timers, so that places do not overlap.
pub(super) const MOST: u32 = SORTED;

/// The nodes of present ticks.
///
/// Every change takes a closure `placed`, and calls it with the slot and the new place of each moved node.
pub(super) struct Near {
    /// The tick that became present last, the first node at the end. A removed node stays in its place, but not at the
    /// end.
    sorted: Vec<Node>,
    heap: Heap,
}

impl Near {
    pub(super) const fn new() -> Near {
        Near { sorted: Vec::new(), heap: Heap::new() }
    }

    /// Returns the node that is due first.
    #[inline]
    pub(super) fn first(&self) -> Option<&Node> {
        if self.sorted_is_first() { self.sorted.last() } else { self.heap.first() }
    }

    #[inline]
    fn sorted_is_first(&self) -> bool {
        match (self.sorted.last(), self.heap.first()) {
            (Some(sorted), Some(other)) => sorted.key() < other.key(),
            (sorted, _) => sorted.is_some(),
        }
    }

    /// Adds a node of a present tick.
    #[inline]
    pub(super) fn push(&mut self, node: Node, placed: impl FnMut(u32, usize)) {
        self.heap.push(node, placed);
    }

    /// Adds a node of the tick that becomes the present one. There are no others, and [`sort`](Near::sort) follows.
    #[inline]
    pub(super) fn add(&mut self, node: Node) {
        self.sorted.push(node);
    }

    /// Sorts the added nodes.
    pub(super) fn sort(&mut self, mut placed: impl FnMut(u32, usize)) {
        self.sorted.sort_unstable_by_key(|node| std::cmp::Reverse(node.key()));
        for (index, node) in self.sorted.iter().enumerate() {
            placed(node.slot, index | SORTED as usize);
        }
    }

    /// Removes the first node.
    #[inline]
    pub(super) fn pop(&mut self, placed: impl FnMut(u32, usize)) {
        if self.sorted_is_first() {
            self.sorted.pop();
            self.trim();
        } else {
            self.heap.remove(0, placed);
        }
    }

    /// Removes the node at a place.
    pub(super) fn remove(&mut self, place: usize, placed: impl FnMut(u32, usize)) {
        if place & SORTED as usize == 0 {
            self.heap.remove(place, placed);
        } else {
            self.sorted[place & !(SORTED as usize)].slot = REMOVED;
            self.trim();
        }
    }

    #[inline]
    fn trim(&mut self) {
        while self.sorted.last().is_some_and(|last| last.slot == REMOVED) {
            self.sorted.pop();
        }
    }

    /// Returns the earliest [latest](Node::latest) time of all nodes, or `bound` if that is earlier.
    pub(super) fn latest(&self, bound: Time) -> Time {
        let mut bound = self.heap.latest(bound);
        for node in self.sorted.iter().rev() {
            if node.deadline >= bound {
                break;
            }
            if node.slot != REMOVED {
                bound = bound.min(node.latest());
            }
        }
        bound
    }
}
