//! The loop's table of descriptors: their waiters, and the known readiness.
//!
//! This is bookkeeping only: nothing here calls a hub, runs foreign code or switches. [`Watched`] is the half of the
//! table that hubs see; both halves have the same indexes.
//!
//! Ground rules:
//! - No descriptor is used here, only its number. A caller that arms or lends a number promises the hub that it stays
//!   open. The promise is passed on to [`Watched`] unchanged.
//! - A place is a direction of a number, where a waiter is the first one or queued behind it. A waiter is not in the
//!   same place twice. A park in [`wait_for`](super::MainLoop::wait_for) has one place. A park in
//!   [`wait_for_any`](super::MainLoop::wait_for_any) has a place for each direction, and leaves all of them by itself.
//! - [`Reported`] is made where a waiter leaves a place, and speaks of this place only.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use super::doubt::Doubts;
use crate::base::prefetch::prefetch;
use crate::greenlet::control::Reported;
use crate::greenlet::target::Target;
use crate::hub::{Interest, Key, Lease, Readiness, Rearm, Watched};

/// The owner of a number: one word, so that a slot is one cache line.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owner(u64);

impl Owner {
    /// No known owner: the number is lent for one wait.
    pub(crate) const RAW: Owner = Owner(0);

    /// The loop's wake-up descriptor: the number is lent for the life of that descriptor.
    pub(crate) const WAKEUP: Owner = Owner(u64::MAX);

    /// The socket with this id, which is neither 0 nor the last number: the number is lent for the socket's life.
    #[inline]
    pub(crate) const fn socket(id: u64) -> Owner {
        Owner(id)
    }
}

/// A number and its waiters, one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    owner: Owner,
    /// The first waiters, for reading and for writing.
    target: [Target; 2],
    /// The directions in which an operation may succeed at once.
    ready: Interest,
    /// Whether no more data will come. A short read then does not clear the readiness.
    ended: bool,
    /// The directions that had a waiter, so that `ready` is valid for them.
    known: Interest,
    /// The directions that the hub reports without being asked again.
    watched: Interest,
    /// The reports that polls have not confirmed. Operations of greenlets count their own.
    doubts: Doubts,
    /// The waiters behind the first ones, oldest first.
    queued: Queue,
}

const _: () = assert!(size_of::<Slot>() == 64);

/// The waiters behind the first ones of a slot, which most slots never have.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "one word, so that a slot is one cache line")]
struct Queue(Option<Box<VecDeque<(Interest, Target)>>>);

impl Queue {
    #[inline]
    fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|queue| queue.is_empty())
    }

    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len())
    }

    fn iter(&self) -> impl Iterator<Item = (Interest, Target)> {
        self.0.iter().flat_map(|queue| queue.iter().copied())
    }

    /// Returns whether a waiter for `direction` is queued.
    fn contains(&self, direction: Interest) -> bool {
        self.iter().any(|(other, _)| other == direction)
    }

    fn push(&mut self, direction: Interest, target: Target) {
        self.0.get_or_insert_default().push_back((direction, target));
    }

    fn retain(&mut self, stays: impl FnMut(&(Interest, Target)) -> bool) {
        if let Some(queue) = &mut self.0 {
            queue.retain(stays);
        }
    }

    /// Removes and returns the first waiter for `direction`.
    fn take_first(&mut self, direction: Interest) -> Option<Target> {
        let queue = self.0.as_mut()?;
        let index = queue.iter().position(|(other, _)| *other == direction)?;
        queue.remove(index).map(|(_, target)| target)
    }
}

impl Default for Slot {
    fn default() -> Slot {
        Slot {
            owner: Owner::RAW,
            target: [Target::Vacant; 2],
            ready: Interest::NONE,
            ended: false,
            known: Interest::NONE,
            watched: Interest::NONE,
            doubts: Doubts::NONE,
            queued: Queue::default(),
        }
    }
}

impl Slot {
    /// Returns all waiters, queued ones last.
    fn waiters(self) -> Vec<Target> {
        let queued = self.queued.iter().map(|(_, target)| target);
        self.target.into_iter().filter(|target| *target != Target::Vacant).chain(queued).collect()
    }
}

/// The result of [`Descriptors::prepare`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Prepared {
    /// The hub watches already: arm this key.
    Watched(Key),
    /// The hub has to watch this interest first: then arm this key.
    Watch(Key, Interest),
    /// The direction has a waiter.
    Taken,
}

/// The table of descriptors.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    pub(super) watched: Watched,
    slots: Vec<Slot>,
}

#[inline]
fn side(direction: Interest) -> usize {
    usize::from(direction == Interest::WRITE)
}

/// Both directions, for loops.
pub(super) const SIDES: [Interest; 2] = [Interest::READ, Interest::WRITE];

impl Descriptors {
    /// Prepares a wait for one direction of `fd`. Changes no waiter, except that a new owner of the number drops the
    /// paused waiters of the former one.
    ///
    /// # Safety
    ///
    /// The number is that of the socket or wake-up descriptor that `owner` names, if it names one. The owner gives the
    /// number up before it closes it. The table lends the number for the owner's life on that ground, whichever waiter
    /// comes.
    pub(super) unsafe fn prepare(&mut self, fd: RawFd, owner: Owner, direction: Interest, rearm: Rearm) -> Prepared {
        if fd as usize >= self.slots.len() {
            self.slots.resize_with(fd as usize + 1, Slot::default);
        }
        let known = self.watched.key(fd);
        let slot = &mut self.slots[fd as usize];
        let waits = slot.target.map(|target| target != Target::Vacant);
        let key = match (owner, known) {
            // A raw wait on a number of a socket shares the socket's registration, and a second raw wait shares that of
            // the first.
            (Owner::RAW, Some(key)) if slot.owner != Owner::RAW || waits[0] || waits[1] || !slot.queued.is_empty() => {
                key
            }
            (_, Some(key)) if owner != Owner::RAW && slot.owner == owner => key,
            _ => {
                let key = self.watched.enter(fd);
                *slot = Slot { owner, ..Slot::default() };
                key
            }
        };
        if slot.target[side(direction)] != Target::Vacant || slot.queued.contains(direction) {
            return Prepared::Taken;
        }
        let lasting = slot.owner != Owner::RAW && owner == slot.owner && rearm != Rearm::Explicit;
        if lasting && slot.watched.contains(direction) {
            return Prepared::Watched(key);
        }
        let armed = self.watched.armed(key);
        let kept = if rearm == Rearm::Explicit { Interest::NONE } else { slot.watched };
        Prepared::Watch(key, armed | kept | direction)
    }

    /// Does [`prepare`](Descriptors::prepare) and [`arm`](Descriptors::arm) for an owner's direction that the hub
    /// watches already, the common case. Otherwise returns `None`, and changes nothing.
    ///
    /// # Safety
    ///
    /// The same as for [`arm`](Descriptors::arm).
    #[inline(always)]
    pub(super) unsafe fn arm_again(
        &mut self,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
        target: Target,
    ) -> Option<Key> {
        let slot = self.slots.get_mut(fd as usize)?;
        let first = &mut slot.target[side(direction)];
        // Only a number that has an owner is watched for longer than a wait.
        if owner == Owner::RAW || slot.owner != owner || !slot.watched.contains(direction) || *first != Target::Vacant {
            return None;
        }
        let key = self.watched.key(fd)?;
        *first = target;
        slot.ready = slot.ready.without(direction);
        slot.known |= direction;
        // SAFETY: the caller upholds the same contract.
        unsafe { self.watched.arm(key, direction) };
        Some(key)
    }

    /// Returns whether the hub may forget `key`: it has no waiter, and no owner relies on the registration.
    pub(super) fn may_be_forgotten(&self, key: Key) -> bool {
        self.watched.is_current(key) && self.watched.armed(key).is_empty() && self.lease(key) == Lease::Wait
    }

    /// Returns the first waiters of `key`.
    pub(super) fn targets(&self, key: Key) -> [Target; 2] {
        self.slots.get(key.fd() as usize).map_or([Target::Vacant; 2], |slot| slot.target)
    }

    /// Returns how the descriptor of `key` is lent to the hub.
    pub(super) fn lease(&self, key: Key) -> Lease {
        match self.slots.get(key.fd() as usize) {
            Some(slot) if slot.owner != Owner::RAW && self.watched.is_current(key) => Lease::Life,
            _ => Lease::Wait,
        }
    }

    /// Returns whether another owner, or a raw waiter, still waits under a number that `owner` wants to use.
    pub(super) fn is_stale_for(&self, fd: RawFd, owner: Owner) -> bool {
        let Some(slot) = self.slots.get(fd as usize) else { return false };
        owner != Owner::RAW && slot.owner != owner && slot.target != [Target::Vacant; 2]
    }

    /// Adds a waiter for `direction` of `key`.
    ///
    /// # Safety
    ///
    /// The descriptor stays open until the wait ends or the number is entered anew.
    pub(super) unsafe fn arm(&mut self, key: Key, direction: Interest, target: Target) {
        let slot = &mut self.slots[key.fd() as usize];
        slot.target[side(direction)] = target;
        slot.ready = slot.ready.without(direction);
        slot.known |= direction;
        // SAFETY: the caller upholds the same contract.
        unsafe { self.watched.arm(key, direction) };
    }

    /// Records what the hub reports of an owner's number without being asked again, unless it was given up.
    ///
    /// # Safety
    ///
    /// The owner's descriptor stays open until its number is entered anew.
    pub(super) unsafe fn lend(&mut self, key: Key, interest: Interest) {
        if self.watched.is_current(key) {
            self.slots[key.fd() as usize].watched = interest;
        }
        // SAFETY: the caller upholds the same contract.
        unsafe { self.watched.lend(key) };
    }

    /// Queues a waiter behind the first one.
    ///
    /// # Safety
    ///
    /// The descriptor stays open until the waiter has left the queue, and then as for [`arm`](Descriptors::arm).
    pub(super) unsafe fn queue(&mut self, fd: RawFd, direction: Interest, target: Target) {
        self.slots[fd as usize].queued.push(direction, target);
    }

    /// Queues a waiter that pauses: nothing is armed for it. Later waiters still find the direction taken.
    ///
    /// # Safety
    ///
    /// The same as for [`queue`](Descriptors::queue).
    pub(super) unsafe fn queue_paused(&mut self, fd: RawFd, direction: Interest, target: Target) {
        let slot = &mut self.slots[fd as usize];
        // `arm_again` does not check the queue.
        slot.watched = slot.watched.without(direction);
        slot.queued.push(direction, target);
    }

    /// Removes a waiter. Returns true if the direction has no first waiter now, so that the next one moves up.
    pub(super) fn leave(&mut self, key: Key, direction: Interest, target: Target) -> bool {
        if !self.watched.is_current(key) {
            return false;
        }
        let slot = &mut self.slots[key.fd() as usize];
        if slot.target[side(direction)] == target {
            slot.target[side(direction)] = Target::Vacant;
            self.watched.disarm(key, direction);
            return true;
        }
        let count = slot.queued.len();
        slot.queued.retain(|(_, other)| *other != target);
        slot.queued.len() != count && slot.target[side(direction)] == Target::Vacant
    }

    /// Removes the greenlets and wakers that wait for a socket in `directions`, and returns each with its direction as
    /// the readiness.
    pub(super) fn take_parked(&mut self, fd: RawFd, socket: u64, directions: Interest) -> Vec<(Target, Reported)> {
        let Some(key) = self.key_of(fd, socket) else { return Vec::new() };
        let slot = &mut self.slots[fd as usize];
        let is_parked = |target: Target| matches!(target, Target::Parked { .. } | Target::Waker { .. });
        let mut taken = Vec::new();
        for direction in SIDES.into_iter().filter(|&direction| directions.contains(direction)) {
            slot.ready |= direction;
            let target = &mut slot.target[side(direction)];
            if is_parked(*target) {
                // SAFETY: the target leaves this place here: a first waiter is not queued behind itself.
                taken.push((std::mem::take(target), unsafe { Reported::new(direction.into()) }));
                self.watched.disarm(key, direction);
            }
        }
        slot.queued.retain(|&(direction, target)| {
            let stays = !directions.contains(direction) || !is_parked(target);
            if !stays {
                // SAFETY: the target leaves this place here: a queued waiter is not the first one as well.
                taken.push((target, unsafe { Reported::new(direction.into()) }));
            }
            stays
        });
        taken
    }

    /// Removes and returns the next queued waiter once the first one has gone. `None` if there is a new first waiter,
    /// or if the number has a new owner.
    #[inline]
    pub(super) fn next_queued(&mut self, key: Key, direction: Interest) -> Option<Target> {
        let slot = self.slots.get_mut(key.fd() as usize)?;
        // The common case.
        if slot.queued.is_empty() || slot.target[side(direction)] != Target::Vacant || !self.watched.is_current(key) {
            return None;
        }
        slot.queued.take_first(direction)
    }

    /// Makes a socket the owner of a number that it has lent and that has waiters.
    ///
    /// # Safety
    ///
    /// The number is that of the socket, which gives it up before it closes it.
    pub(crate) unsafe fn adopt(&mut self, fd: RawFd, socket: u64) {
        if let Some(slot) = self.slots.get_mut(fd as usize)
            && slot.owner == Owner::RAW
            && slot.target != [Target::Vacant; 2]
        {
            slot.owner = Owner::socket(socket);
        }
    }

    /// Prefetches what a report of `key` will change.
    #[inline]
    pub(super) fn prefetch(&self, key: Key) {
        if let Some(slot) = self.slots.get(key.fd() as usize) {
            prefetch::<1>(std::ptr::from_ref(slot).addr());
        }
    }

    /// Records a report of the hub. Appends the waiters to notify to `reported`, each with its readiness. Returns false
    /// for a stale key.
    #[inline]
    pub(super) fn report(
        &mut self,
        key: Key,
        readiness: Readiness,
        rearm: Rearm,
        reported: &mut Vec<(Target, Reported, Key, Interest)>,
    ) -> bool {
        if !self.watched.is_current(key) {
            return false;
        }
        let slot = &mut self.slots[key.fd() as usize];
        slot.ended |= readiness.contains(Readiness::END);
        for direction in SIDES {
            if !readiness.directions().contains(direction) {
                continue;
            }
            slot.ready |= direction;
            match std::mem::take(&mut slot.target[side(direction)]) {
                Target::Vacant => {
                    if rearm == Rearm::Level {
                        slot.watched = slot.watched.without(direction);
                    }
                }
                waiter => {
                    self.watched.disarm(key, direction);
                    // SAFETY: the waiter has left this place above: a first waiter is not queued behind itself.
                    reported.push((waiter, unsafe { Reported::new(readiness) }, key, direction));
                }
            }
        }
        if readiness.contains(Readiness::INVALID)
            && let Some((_, waited)) = self.retire(key.fd())
        {
            // SAFETY: `retire` has emptied the entry of the number.
            let gone = unsafe { Reported::new(Readiness::GONE) };
            reported.extend(waited.into_iter().map(|one| (one, gone, key, Interest::NONE)));
        }
        true
    }

    /// Retires a number: all its keys become stale, and it has no waiter. Returns the old key and the former waiters.
    pub(super) fn retire(&mut self, fd: RawFd) -> Option<(Key, Vec<Target>)> {
        let key = self.watched.key(fd)?;
        let retired = std::mem::take(self.slots.get_mut(fd as usize)?);
        self.watched.enter(fd);
        Some((key, retired.waiters()))
    }

    /// Removes the waiters of a number that has an owner, and keeps the registration. The hub is asked again for the
    /// next waiter, and the next operation is tried. Returns `None`, and changes nothing, if the number has no owner.
    pub(super) fn evict(&mut self, fd: RawFd) -> Option<Vec<Target>> {
        let key = self.watched.key(fd)?;
        let slot = self.slots.get_mut(fd as usize).filter(|slot| slot.owner != Owner::RAW)?;
        let evicted = std::mem::replace(slot, Slot { owner: slot.owner, ..Slot::default() });
        self.watched.disarm(key, Interest::BOTH);
        Some(evicted.waiters())
    }

    /// Returns the key under which a socket is registered.
    #[inline]
    pub(super) fn key_of(&self, fd: RawFd, socket: u64) -> Option<Key> {
        let slot = self.slots.get(fd as usize)?;
        if slot.owner == Owner::socket(socket) { self.watched.key(fd) } else { None }
    }

    /// Returns whether a socket is registered here.
    pub(crate) fn knows(&self, fd: RawFd, socket: u64) -> bool {
        self.key_of(fd, socket).is_some()
    }

    /// Returns the waker that is armed for a direction of a socket.
    pub(super) fn waker_of(&self, fd: RawFd, socket: u64, direction: Interest) -> Option<Target> {
        let slot = self.slots.get(fd as usize).filter(|slot| slot.owner == Owner::socket(socket))?;
        let queued = slot.queued.iter().filter(|(other, _)| *other == direction).map(|(_, target)| target);
        std::iter::once(slot.target[side(direction)])
            .chain(queued)
            .find(|target| matches!(target, Target::Waker { .. }))
    }

    /// Removes a waker, and records that its operation should be tried. Returns true if the next waiter moves up.
    pub(super) fn leave_and_retry(&mut self, key: Key, direction: Interest, target: Target) -> bool {
        if !self.watched.is_current(key) {
            return false;
        }
        let slot = &mut self.slots[key.fd() as usize];
        let waits = slot.target[side(direction)] == target || slot.queued.iter().any(|(_, other)| other == target);
        if waits {
            slot.ready |= direction;
        }
        waits && self.leave(key, direction, target)
    }

    /// Returns whether the hub has reported a direction of a socket that no operation has used up since.
    pub(crate) fn was_reported(&self, fd: RawFd, socket: u64, direction: Interest) -> bool {
        self.slots
            .get(fd as usize)
            .is_some_and(|slot| slot.owner == Owner::socket(socket) && (slot.ready & slot.known).contains(direction))
    }

    /// Makes the next wait for a direction of a socket ask the hub anew, if the hub has reported the direction and no
    /// operation has used it up. A hub that reports each arrival once then reports what is still there.
    pub(crate) fn ask_anew(&mut self, fd: RawFd, socket: u64, direction: Interest) {
        if let Some(slot) = self.slots.get_mut(fd as usize)
            && slot.owner == Owner::socket(socket)
        {
            slot.watched = slot.watched.without(slot.ready & direction);
        }
    }

    /// Returns the unconfirmed reports of a polled socket.
    pub(crate) fn doubts(&mut self, fd: RawFd, socket: u64) -> Option<&mut Doubts> {
        let slot = self.slots.get_mut(fd as usize).filter(|slot| slot.owner == Owner::socket(socket))?;
        Some(&mut slot.doubts)
    }

    /// Returns whether an operation on a socket may succeed at once. It may on a socket that is not registered.
    #[inline]
    pub(crate) fn may_succeed(&self, fd: RawFd, socket: u64, direction: Interest) -> bool {
        match self.slots.get(fd as usize) {
            Some(slot) if slot.owner == Owner::socket(socket) => {
                slot.ready.contains(direction) || !slot.known.contains(direction)
            }
            _ => true,
        }
    }

    /// Records that a direction is exhausted: the next operation parks at once.
    #[inline]
    pub(crate) fn used_up(&mut self, fd: RawFd, socket: u64, direction: Interest, blocked: bool) {
        if let Some(slot) = self.slots.get_mut(fd as usize)
            && slot.owner == Owner::socket(socket)
            && (blocked || !slot.ended)
        {
            slot.ready = slot.ready.without(direction);
        }
    }

    /// Returns whether an end of a socket was reported: a half close, a hang-up or an error.
    pub(crate) fn has_ended(&self, fd: RawFd, socket: u64) -> bool {
        self.slots.get(fd as usize).is_some_and(|slot| slot.owner == Owner::socket(socket) && slot.ended)
    }

    /// Clears a reported end.
    pub(crate) fn has_not_ended(&mut self, fd: RawFd, socket: u64) {
        if let Some(slot) = self.slots.get_mut(fd as usize)
            && slot.owner == Owner::socket(socket)
        {
            slot.ended = false;
        }
    }

    /// Records that an operation may succeed again.
    pub(crate) fn make_ready(&mut self, fd: RawFd, socket: u64, direction: Interest) {
        if let Some(slot) = self.slots.get_mut(fd as usize)
            && slot.owner == Owner::socket(socket)
        {
            slot.ready |= direction;
        }
    }

    /// Clears what the hub watches, for a new hub or in a forked child. Returns the armed directions.
    pub(super) fn unwatch_all(&mut self) -> Vec<(Key, Interest)> {
        for slot in &mut self.slots {
            slot.watched = Interest::NONE;
        }
        self.watched.iter().map(|(key, _, interest)| (key, interest)).collect()
    }

    /// Returns all waiters, each with number and direction.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (RawFd, Interest, Target)> {
        self.first_waiters().chain(self.queued())
    }

    /// Returns the waiters that are queued behind another.
    pub(super) fn queued(&self) -> impl Iterator<Item = (RawFd, Interest, Target)> {
        self.slots
            .iter()
            .enumerate()
            .flat_map(|(fd, slot)| slot.queued.iter().map(move |(direction, target)| (fd as RawFd, direction, target)))
    }

    /// Returns the waiters that are not queued behind another.
    pub(super) fn first_waiters(&self) -> impl Iterator<Item = (RawFd, Interest, Target)> {
        self.slots.iter().enumerate().flat_map(|(fd, slot)| {
            SIDES
                .into_iter()
                .map(move |direction| (fd as RawFd, direction, slot.target[side(direction)]))
                .filter(|(_, _, target)| *target != Target::Vacant)
        })
    }
}

#[cfg(test)]
mod tests;
