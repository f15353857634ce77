use std::cmp::Ordering;
use std::collections::VecDeque;

/// The order in which items leave a queue.
///
/// Its methods run under the lock of the queue, and so do the comparisons of items in [`Priority`]. Code that they call
/// cannot switch: a wait or a yield fails or panics there, as in the main loop. Any use of a queue whose order
/// [calls out](Order::CALLS_OUT) panics there, this queue included.
///
/// A panic leaves the queue usable. It resumes in the operation that caused it, after the lock is released. If that
/// operation gets an item, or its green thread is unwinding, the panic resumes in a later operation that puts an item
/// or gets none.
pub trait Order<T>: Default {
    /// Whether a method may call user code, such as a comparison, or panic. The queue skips its precautions where this
    /// is false.
    const CALLS_OUT: bool = true;

    /// Returns the number of items.
    fn len(&self) -> usize;

    /// Returns true if there are no items.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an item.
    fn push(&mut self, item: T);

    /// Removes the next item and returns it.
    fn pop(&mut self) -> Option<T>;
}

/// First in, first out.
#[derive(Debug)]
pub struct Fifo<T>(VecDeque<T>);

/// Last in, first out.
#[derive(Debug)]
pub struct Lifo<T>(Vec<T>);

/// The smallest item first; equal items in the order in which they came.
///
/// A comparison that panics loses no item. The item that was to leave stays; a new item is kept, maybe out of its
/// place. (std's `BinaryHeap` drops an item that leaves it then.)
#[derive(Debug)]
pub struct Priority<T> {
    /// A binary heap. Items move only after all comparisons are done.
    items: Vec<(T, u64)>,
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
        Priority { items: Vec::new(), next: 0 }
    }
}

impl<T> Order<T> for Fifo<T> {
    const CALLS_OUT: bool = false;

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
    const CALLS_OUT: bool = false;

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
        let place = self.items.len();
        self.items.push((item, self.next));
        self.next += 1;
        let target = self.place_above(place);
        self.rotate_up(place, target);
    }

    fn pop(&mut self) -> Option<T> {
        self.items.len().checked_sub(1)?;
        let target = self.place_below_first();
        let (item, _) = self.items.swap_remove(0);
        self.rotate_down(target);
        Some(item)
    }
}

impl<T: Ord> Priority<T> {
    fn precedes(&self, one: usize, other: usize) -> bool {
        let ((one, came), (other, other_came)) = (&self.items[one], &self.items[other]);
        one.cmp(other).then_with(|| came.cmp(other_came)) == Ordering::Less
    }

    /// Returns the heap position of the last item, which is at `place`, on the way to the root.
    fn place_above(&self, place: usize) -> usize {
        let mut target = place;
        while target > 0 && self.precedes(place, parent(target)) {
            target = parent(target);
        }
        target
    }

    /// Returns the position of the last item after it has replaced the root.
    fn place_below_first(&self) -> usize {
        let last = self.items.len() - 1;
        let mut target = 0;
        loop {
            let (left, right) = (2 * target + 1, 2 * target + 2);
            let child = if right < last && self.precedes(right, left) { right } else { left };
            if child >= last || !self.precedes(child, last) {
                return target;
            }
            target = child;
        }
    }
}

impl<T> Priority<T> {
    fn rotate_up(&mut self, place: usize, target: usize) {
        let mut place = place;
        while place > target {
            self.items.swap(place, parent(place));
            place = parent(place);
        }
    }

    /// Moves the first item to `target`. The ancestors of a position are the binary prefixes of its number, counted
    /// from 1.
    fn rotate_down(&mut self, target: usize) {
        let mut place = 0;
        for level in (0..(target + 1).ilog2()).rev() {
            let next = ((target + 1) >> level) - 1;
            self.items.swap(place, next);
            place = next;
        }
    }
}

fn parent(place: usize) -> usize {
    (place - 1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local!(static COMPARISONS_LEFT: Cell<u32> = const { Cell::new(u32::MAX) });

    #[derive(PartialEq, Eq, Debug)]
    struct Item(u32);

    impl PartialOrd for Item {
        fn partial_cmp(&self, other: &Item) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl Ord for Item {
        fn cmp(&self, other: &Item) -> Ordering {
            match COMPARISONS_LEFT.get() {
                0 => resume_unwind(Box::new(())),
                left => COMPARISONS_LEFT.set(left - 1),
            }
            self.0.cmp(&other.0)
        }
    }

    /// Returns pseudo-random numbers with repetitions.
    fn numbers(seed: u32) -> impl Iterator<Item = u32> {
        let mut random = fastrand::Rng::with_seed(seed.into());
        std::iter::repeat_with(move || random.u32(..50))
    }

    #[test]
    fn priority_pops_the_smallest_item_and_equal_items_in_order_of_arrival() {
        for length in 0..100 {
            let mut order = Priority::default();
            numbers(length).take(length as usize).enumerate().for_each(|(number, n)| order.push((n, number)));
            let mut expected: Vec<_> = numbers(length).take(length as usize).zip(0..).collect();
            expected.sort();
            assert_eq!(std::iter::from_fn(|| order.pop()).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_panicking_comparison_loses_no_item() {
        for comparisons in 0..12 {
            let mut order = Priority::default();
            for n in numbers(7).take(40) {
                COMPARISONS_LEFT.set(comparisons);
                let _ = catch_unwind(AssertUnwindSafe(|| order.push(Item(n))));
            }
            let mut left = Vec::new();
            COMPARISONS_LEFT.set(comparisons);
            if let Ok(item) = catch_unwind(AssertUnwindSafe(|| order.pop())) {
                left.extend(item);
            }
            COMPARISONS_LEFT.set(u32::MAX);
            left.extend(std::iter::from_fn(|| order.pop()));
            let mut left: Vec<u32> = left.into_iter().map(|item| item.0).collect();
            left.sort();
            let mut expected: Vec<u32> = numbers(7).take(40).collect();
            expected.sort();
            assert_eq!(left, expected, "{comparisons}");
        }
    }
}
