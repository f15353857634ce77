//! The waiters for the end of a green thread, and the links, which are called at its end.

use super::super::control::Waiter;
use super::super::exit::drop_contained;
use super::super::run::queue::current;
use super::cell::{ALIVE, Link, TaskRef};

impl TaskRef {
    /// Returns whether the running greenlet need not wait for the end.
    ///
    /// The waiters were woken, or the running greenlet is about to do so itself.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.header().bits.get() & ALIVE == 0 || self.is_linking_here()
    }

    #[cold]
    fn is_linking_here(&self) -> bool {
        self.extra().is_some_and(|extra| extra.linking.get() == Some(current()))
    }

    /// Adds a waiter for the end.
    pub(crate) fn add_waiter(&self, waiter: Waiter) {
        let header = self.header();
        match header.waiter.get() {
            None => header.waiter.set(Some(waiter)),
            Some(_) => self.extra_or_new().waiters.borrow_mut().push(waiter),
        }
    }

    /// Removes a waiter that has left.
    pub(crate) fn remove_waiter(&self, waiter: Waiter) {
        let header = self.header();
        if header.waiter.get() == Some(waiter) {
            // The oldest of the others moves up, so that waiters are woken in order.
            let next = self.extra().and_then(|extra| {
                let mut waiters = extra.waiters.borrow_mut();
                (!waiters.is_empty()).then(|| waiters.remove(0))
            });
            header.waiter.set(next);
        } else if let Some(extra) = self.extra() {
            extra.waiters.borrow_mut().retain(|other| *other != waiter);
        }
    }

    /// Adds a callback for the end. Returns a number for [`remove_link`](TaskRef::remove_link).
    pub(crate) fn add_link(&self, link: Link) -> u64 {
        let extra = self.extra_or_new();
        let number = extra.next_link.get();
        extra.next_link.set(number + 1);
        extra.links.borrow_mut().push_back((number, link));
        number
    }

    pub(crate) fn remove_link(&self, number: u64) -> bool {
        let Some(extra) = self.extra() else { return false };
        let mut links = extra.links.borrow_mut();
        let Some(index) = links.iter().position(|(link, _)| *link == number) else { return false };
        let link = links.remove(index);
        drop(links);
        drop_contained(link);
        true
    }
}
