//! The queue of watchers with an event that was not delivered.
//!
//! A place in the queue has a serial number. The places of one priority are in the order of their numbers, so that a
//! place is found by its number and vacated when its watcher is stopped.

use std::array;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use hub_core::Phase;

use crate::node::Deliver;
use crate::state::Priority;

/// Identifies a place in the queue forever.
#[derive(Copy, Clone)]
pub(crate) struct Place {
    priority: Priority,
    serial: u64,
}

#[derive(Default)]
struct Queue {
    /// The places of one priority; vacant ones have no watcher.
    places: VecDeque<(u64, Option<Rc<dyn Deliver>>)>,
    vacant: usize,
}

/// The watchers with an event that was not delivered, by priority and then in order.
pub(crate) struct Pending {
    queues: [RefCell<Queue>; Priority::COUNT],
    /// The serial number of the last place.
    last: Cell<u64>,
    len: Cell<usize>,
}

impl Pending {
    pub(crate) fn new() -> Pending {
        Pending { queues: array::from_fn(|_| RefCell::default()), last: Cell::default(), len: Cell::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len.get() == 0
    }

    /// Returns the serial number of the last place.
    pub(crate) fn last(&self) -> u64 {
        self.last.get()
    }

    /// Appends a watcher to those of its priority.
    pub(crate) fn push(&self, node: Rc<dyn Deliver>, priority: Priority) -> Place {
        let serial = self.last.get() + 1;
        self.last.set(serial);
        self.len.set(self.len.get() + 1);
        self.queues[priority as usize].borrow_mut().places.push_back((serial, Some(node)));
        Place { priority, serial }
    }

    /// Removes a watcher, for the caller to drop.
    pub(crate) fn remove(&self, place: Place) -> Option<Rc<dyn Deliver>> {
        let mut queue = self.queues[place.priority as usize].borrow_mut();
        let index = queue.places.binary_search_by_key(&place.serial, |(serial, _)| *serial).ok()?;
        let node = queue.places[index].1.take()?;
        queue.vacant += 1;
        self.len.set(self.len.get() - 1);
        // So that the vacant places are never more than the others.
        if 2 * queue.vacant > queue.places.len() {
            queue.places.retain(|(_, node)| node.is_some());
            queue.vacant = 0;
        }
        Some(node)
    }

    /// Removes the first watcher of a phase, of the highest priority, whose place has no higher number than `last`.
    pub(crate) fn pop_of(&self, phase: Phase, last: u64) -> Option<Rc<dyn Deliver>> {
        let is_wanted = |(serial, node): &(u64, Option<Rc<dyn Deliver>>)| {
            *serial <= last && node.as_ref().is_some_and(|node| node.phase() == Some(phase))
        };
        for (priority, queue) in Priority::ALL.into_iter().zip(&self.queues).rev() {
            let found = queue.borrow().places.iter().find(|place| is_wanted(place)).map(|(serial, _)| *serial);
            if let Some(serial) = found {
                return self.remove(Place { priority, serial });
            }
        }
        None
    }

    /// Removes the first watcher of the highest priority whose place has no higher number than `last`.
    pub(crate) fn pop(&self, last: u64) -> Option<Rc<dyn Deliver>> {
        self.queues.iter().rev().find_map(|queue| {
            let queue = &mut *queue.borrow_mut();
            while queue.places.front()?.0 <= last {
                match queue.places.pop_front()?.1 {
                    None => queue.vacant -= 1,
                    node => {
                        self.len.set(self.len.get() - 1);
                        return node;
                    }
                }
            }
            None
        })
    }
}
