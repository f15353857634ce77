use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// In which order the items of a queue leave it.
///
/// It works under the lock of the queue, and so does the comparison of items in [`Priority`]: what it calls must
/// neither use that queue nor switch.
pub trait Order<T>: Default {
    /// How many items there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes an item in.
    fn push(&mut self, item: T);

    /// Lets the next item out.
    fn pop(&mut self) -> Option<T>;
}

/// First in, first out.
#[derive(Debug)]
pub struct Fifo<T>(VecDeque<T>);

/// Last in, first out.
#[derive(Debug)]
pub struct Lifo<T>(Vec<T>);

/// The smallest first; of equal ones the first in.
#[derive(Debug)]
pub struct Priority<T> {
    items: BinaryHeap<Reverse<(T, u64)>>,
    next: u64,
}

impl<T> Default for Fifo<T> {
    fn default() -> Fifo<T> {
        Fifo(VecDeque::new())
    }
}

impl<T> Default for Lifo<T> {
    fn default() -> Lifo<T> {
        Lifo(Vec::new())
    }
}

impl<T: Ord> Default for Priority<T> {
    fn default() -> Priority<T> {
        Priority { items: BinaryHeap::new(), next: 0 }
    }
}

impl<T> Order<T> for Fifo<T> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn push(&mut self, item: T) {
        self.0.push_back(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop_front()
    }
}

impl<T> Order<T> for Lifo<T> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn push(&mut self, item: T) {
        self.0.push(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }
}

impl<T: Ord> Order<T> for Priority<T> {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn push(&mut self, item: T) {
        self.items.push(Reverse((item, self.next)));
        self.next += 1;
    }

    fn pop(&mut self) -> Option<T> {
        self.items.pop().map(|Reverse((item, _))| item)
    }
}
