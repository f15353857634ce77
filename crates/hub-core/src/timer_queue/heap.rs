//! A 4-ary heap that reports the places of its nodes, so that any node can be removed.

use crate::hub::Time;

/// The sort key of a timer, and the slot that holds the rest.
#[derive(Copy, Clone)]
pub(super) struct Node {
    pub(super) deadline: Time,
    /// Orders timers of equal deadlines: a timer armed later fires later.
    pub(super) sequence: u64,
    pub(super) slot: u32,
    /// The number of nanoseconds by which the timer may fire late.
    pub(super) slack: u32,
}

impl Node {
    /// Returns both halves of the sort key as one integer, for a comparison without branches.
    #[inline]
    pub(super) fn key(&self) -> u128 {
        u128::from(self.deadline.as_nanos()) << 64 | u128::from(self.sequence)
    }

    /// Returns the time until which the loop may sleep for this timer; `NEVER` only if its deadline is.
    #[inline]
    pub(super) fn latest(&self) -> Time {
        let nanos = self.deadline.as_nanos();
        Time::from_nanos(nanos.saturating_add(u64::from(self.slack)).min(u64::MAX - 1).max(nanos))
    }
}

const ARITY: usize = 4;

/// The node with the least deadline comes first; among equal deadlines, the one with the least sequence number.
///
/// Every change takes a closure `placed`, and calls it with the slot and the new index of each moved node.
pub(super) struct Heap {
    nodes: Vec<Node>,
}

impl Heap {
    pub(super) const fn new() -> Heap {
        Heap { nodes: Vec::new() }
    }

    #[inline]
    pub(super) fn first(&self) -> Option<&Node> {
        self.nodes.first()
    }

    #[inline]
    pub(super) fn push(&mut self, node: Node, placed: impl FnMut(u32, usize)) {
        self.nodes.push(node);
        self.sift_up(self.nodes.len() - 1, placed);
    }

    /// Removes the node at `index`.
    #[inline]
    pub(super) fn remove(&mut self, index: usize, placed: impl FnMut(u32, usize)) -> Node {
        let removed = self.nodes.swap_remove(index);
        if index < self.nodes.len() {
            // The replacement was the last node, but may come from another branch.
            if index > 0 && self.nodes[index].key() < self.nodes[(index - 1) / ARITY].key() {
                self.sift_up(index, placed);
            } else {
                self.sift_down(index, placed);
            }
        }
        removed
    }

    /// Returns the earliest [latest](Node::latest) time of all nodes, or `bound` if that is earlier.
    pub(super) fn latest(&self, bound: Time) -> Time {
        if self.nodes.is_empty() { bound } else { self.latest_from(0, bound) }
    }

    /// Like [`latest`](Heap::latest), but only for the subtree of `index`.
    ///
    /// A node that is due after `bound` cannot lower the result, nor can its descendants.
    fn latest_from(&self, index: usize, bound: Time) -> Time {
        if self.nodes[index].deadline >= bound {
            return bound;
        }
        let bound = bound.min(self.nodes[index].latest());
        children(index, self.nodes.len()).fold(bound, |bound, child| self.latest_from(child, bound))
    }

    #[inline]
    fn sift_up(&mut self, mut index: usize, mut placed: impl FnMut(u32, usize)) {
        let node = self.nodes[index];
        while index > 0 {
            let parent = (index - 1) / ARITY;
            if self.nodes[parent].key() <= node.key() {
                break;
            }
            self.nodes[index] = self.nodes[parent];
            placed(self.nodes[index].slot, index);
            index = parent;
        }
        self.nodes[index] = node;
        placed(node.slot, index);
    }

    #[inline]
    fn sift_down(&mut self, mut index: usize, mut placed: impl FnMut(u32, usize)) {
        let node = self.nodes[index];
        while let Some(least) = children(index, self.nodes.len()).min_by_key(|&child| self.nodes[child].key()) {
            if node.key() <= self.nodes[least].key() {
                break;
            }
            self.nodes[index] = self.nodes[least];
            placed(self.nodes[index].slot, index);
            index = least;
        }
        self.nodes[index] = node;
        placed(node.slot, index);
    }
}

/// Returns the indices of the children of `index` in a heap of `len` nodes.
#[inline]
fn children(index: usize, len: usize) -> std::ops::Range<usize> {
    let first = (index * ARITY + 1).min(len);
    first..(first + ARITY).min(len)
}
