//! The timers of one loop: pure data, without a clock.
//!
//! ```text
//!  arm ──► fresh ──absorb──┬─ up to `present` ──────► near ──► pop_due
//!                          │                            ▲      ▲
//!                          ├─ in the next second ──► wheel     │   whole ticks, each when
//!                          │                                   │   near is empty
//!                          └─ later ───────────────► far: a heap
//! ```
//!
//! Most timers are timeouts that are cancelled in the turn that armed them. Such a timer touches only the end of the
//! fresh list. Every other timer waits unordered in the bucket of its tick, and is sorted only among the few of the
//! same tick. [`near`] contains exactly the ticks up to `present`, so its first timer is the first of all. If it is
//! empty, no timer of a tick up to `present` is left.
//!
//! A slot records where its timer is kept, so `cancel` removes the timer at once.

mod heap;
mod near;
#[cfg(test)]
mod tests;
mod wheel;

use std::num::NonZeroU64;
use std::time::Duration;

use self::heap::{Heap, Node};
use self::near::Near;
use self::wheel::{Tick, Wheel};
use crate::base::prefetch::prefetch;
use crate::hub::Time;

/// Identifies one arming of a timer: a slot, and the generation that distinguishes its timers.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TimerId(NonZeroU64);

impl TimerId {
    /// Creates the id of an armed timer, whose generation is odd, so the number is not zero.
    #[inline]
    fn new(slot: u32, generation: u32) -> TimerId {
        debug_assert!(generation % 2 == 1);
        TimerId(NonZeroU64::MIN | (u64::from(slot) << 32 | u64::from(generation)))
    }

    #[inline]
    fn slot(self) -> u32 {
        (self.0.get() >> 32) as u32
    }

    #[inline]
    fn generation(self) -> u32 {
        self.0.get() as u32
    }
}

/// How late a timer may fire, so that the loop wakes once for many timers.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slack {
    /// The divisor of the delay; zero for timers without slack.
    pub(crate) divisor: u32,
    /// The upper limit, for long delays; at most the 4 s that 32 bits of nanoseconds hold.
    pub(crate) at_most: Duration,
}

impl Slack {
    const DEFAULT: Slack = Slack { divisor: 16, at_most: Duration::from_millis(1) };

    /// A wake-up costs about as much, so a smaller slack saves nothing.
    const LEAST: u64 = 8_000;

    fn of(self, delay: Duration) -> u32 {
        let part = nanos(delay).checked_div(u64::from(self.divisor)).unwrap_or(0);
        if part < Slack::LEAST { 0 } else { u32::try_from(part.min(nanos(self.at_most))).unwrap_or(u32::MAX) }
    }
}

/// Timers that fire in the order of their deadlines, and of arming among equal deadlines.
pub(crate) struct TimerQueue<T> {
    slots: Vec<Slot<T>>,
    /// The first free slot; [`NONE`] if every slot is taken. The place of a free slot is the next free slot.
    free: u32,
    len: usize,
    fresh: Vec<Fresh>,
    near: Near,
    wheel: Wheel,
    far: Heap,
    /// The last tick whose timers are near.
    present: Tick,
    /// The sequence number of the next timer.
    sequence: u64,
    slack: Slack,
    /// The earliest time by which some timer must fire, `NEVER` if none must.
    wake: Time,
    /// Whether the timer that determined `wake` may be gone.
    stale: bool,
}

struct Slot<T> {
    /// Meaningless until the timer is absorbed.
    deadline: Time,
    /// Odd while the slot holds a timer.
    generation: u32,
    place: u32,
    payload: T,
}

/// A timer that is armed and not yet absorbed.
#[derive(Copy, Clone)]
struct Fresh {
    nanos: u64,
    slot: u32,
    start: Start,
}

/// The origin of the nanoseconds of a fresh timer.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Start {
    Absorption,
    ClockZero,
    /// No origin: the timer was cancelled and its slot is free.
    Cancelled,
}

const NONE: u32 = u32::MAX;

/// The place of an armed timer: a list in the upper two bits, an index into the list in the others.
const FRESH: u32 = 0 << 30;
const NEAR: u32 = 1 << 30;
const WHEEL: u32 = 2 << 30;
const FAR: u32 = 3 << 30;
const LIST: u32 = 3 << 30;

impl<T: Copy> TimerQueue<T> {
    pub(crate) const fn new() -> TimerQueue<T> {
        TimerQueue {
            slots: Vec::new(),
            free: NONE,
            len: 0,
            fresh: Vec::new(),
            near: Near::new(),
            wheel: Wheel::new(),
            far: Heap::new(),
            present: Tick::ZERO,
            sequence: 0,
            slack: Slack::DEFAULT,
            wake: Time::NEVER,
            stale: false,
        }
    }

    pub(crate) fn slack(&self) -> Slack {
        self.slack
    }

    pub(crate) fn set_slack(&mut self, slack: Slack) {
        self.slack = slack;
    }

    /// Arms a timer that is due `delay` after the time of the next [`absorb`](TimerQueue::absorb).
    #[inline]
    pub(crate) fn arm(&mut self, delay: Duration, payload: T) -> TimerId {
        self.arm_from(Start::Absorption, nanos(delay), payload)
    }

    /// Arms a timer that is due at `deadline`, after the next [`absorb`](TimerQueue::absorb).
    #[inline]
    pub(crate) fn arm_at(&mut self, deadline: Time, payload: T) -> TimerId {
        self.arm_from(Start::ClockZero, deadline.as_nanos(), payload)
    }

    #[inline]
    fn arm_from(&mut self, start: Start, nanos: u64, payload: T) -> TimerId {
        let place = FRESH | self.fresh.len() as u32;
        let slot = self.free;
        let id = match self.slots.get_mut(slot as usize) {
            Some(entry) => {
                self.free = entry.place;
                entry.generation = entry.generation.wrapping_add(1);
                entry.place = place;
                entry.payload = payload;
                TimerId::new(slot, entry.generation)
            }
            None => self.grow(place, payload),
        };
        self.fresh.push(Fresh { nanos, slot: id.slot(), start });
        self.len += 1;
        id
    }

    /// Inlined, so that `payload` goes from registers to its slot. Through memory, written in parts and read as a
    /// whole, the value would cost more than everything else.
    #[inline(always)]
    fn grow(&mut self, place: u32, payload: T) -> TimerId {
        let slot = self.slots.len() as u32;
        assert!(slot < near::MOST, "more than 2^29 timers at once");
        self.slots.push(Slot { deadline: Time::NEVER, generation: 1, place, payload });
        TimerId::new(slot, 1)
    }

    /// Disarms a timer. Returns `None` if it has fired or was cancelled already.
    #[inline]
    pub(crate) fn cancel(&mut self, id: TimerId) -> Option<T> {
        let &Slot { place, payload, .. } = self.slot(id)?;
        let index = (place & !LIST) as usize;
        if place & LIST == FRESH {
            self.fresh[index].start = Start::Cancelled;
            while self.fresh.last().is_some_and(|last| last.start == Start::Cancelled) {
                self.fresh.pop();
            }
        } else {
            self.remove_absorbed(id.slot(), place & LIST, index);
        }
        self.release(id.slot());
        Some(payload)
    }

    #[inline(never)]
    fn remove_absorbed(&mut self, slot: u32, list: u32, index: usize) {
        let deadline = self.slots[slot as usize].deadline;
        self.stale |= deadline <= self.wake;
        if list == WHEEL {
            if let Some(moved) = self.wheel.remove(Tick::of(deadline), index) {
                place_in(&mut self.slots, WHEEL)(moved, index);
            }
        } else if list == NEAR {
            self.near.remove(index, place_in(&mut self.slots, NEAR));
        } else {
            self.far.remove(index, place_in(&mut self.slots, FAR));
        }
    }

    #[inline]
    fn release(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.place = self.free;
        self.free = slot;
        self.len -= 1;
    }

    #[inline]
    fn slot(&self, id: TimerId) -> Option<&Slot<T>> {
        self.slots.get(id.slot() as usize).filter(|entry| entry.generation == id.generation())
    }

    /// Returns the value of an armed timer.
    #[cfg(test)]
    fn get(&self, id: TimerId) -> Option<&T> {
        self.slot(id).map(|entry| &entry.payload)
    }

    /// Returns the deadline of an armed timer, once it is absorbed.
    #[inline]
    pub(crate) fn deadline(&self, id: TimerId) -> Option<Time> {
        self.slot(id).filter(|entry| entry.place & LIST != FRESH).map(|entry| entry.deadline)
    }

    #[cfg(test)]
    fn is_armed(&self, id: TimerId) -> bool {
        self.slot(id).is_some()
    }

    /// Absorbs the timers armed since the last call, in order of arming.
    #[inline]
    pub(crate) fn absorb(&mut self, now: Time) {
        if !self.fresh.is_empty() {
            self.absorb_fresh(now);
        }
    }

    fn absorb_fresh(&mut self, now: Time) {
        // Passed ticks without timers need not be kept apart.
        let passed = self.next_tick().map_or(Tick::of(now), |next| next.before().min(Tick::of(now)));
        self.present = self.present.max(passed);
        let mut fresh = std::mem::take(&mut self.fresh);
        for Fresh { nanos, slot, start } in fresh.drain(..) {
            let deadline = match start {
                Start::Absorption => Time::from_nanos(now.as_nanos().saturating_add(nanos)),
                Start::ClockZero => Time::from_nanos(nanos),
                Start::Cancelled => continue,
            };
            let node = Node { deadline, sequence: self.sequence, slot, slack: self.slack.of(deadline - now) };
            self.sequence += 1;
            self.slots[slot as usize].deadline = deadline;
            self.wake = self.wake.min(node.latest());
            self.keep(node);
        }
        self.fresh = fresh;
    }

    #[inline]
    fn keep(&mut self, node: Node) {
        let tick = Tick::of(node.deadline);
        if tick <= self.present {
            self.near.push(node, place_in(&mut self.slots, NEAR));
        } else if Wheel::reaches(self.present, tick) {
            let index = self.wheel.push(node);
            place_in(&mut self.slots, WHEEL)(node.slot, index);
        } else {
            self.far.push(node, place_in(&mut self.slots, FAR));
        }
    }

    /// Returns the first tick after the present one that has timers.
    #[inline]
    fn next_tick(&self) -> Option<Tick> {
        let far = self.far.first().map(|first| Tick::of(first.deadline));
        match self.wheel.first_after(self.present) {
            Some(tick) => Some(far.map_or(tick, |far| far.min(tick))),
            None => far,
        }
    }

    /// Makes the next tick the present one if its start is not after `now`. `soon` gets the payload of each of its
    /// timers in the wheel.
    fn advance(&mut self, now: Time, soon: impl Fn(T)) -> bool {
        let Some(tick) = self.next_tick().filter(|&tick| tick <= Tick::of(now)) else {
            return false;
        };
        if Wheel::reaches(self.present, tick) {
            for node in self.wheel.nodes(tick) {
                prefetch::<1>(self.slots.as_ptr().wrapping_add(node.slot as usize).addr());
            }
            self.wheel.drain(tick, |node| {
                soon(self.slots[node.slot as usize].payload);
                self.near.add(node);
            });
        }
        self.present = tick;
        while self.far.first().is_some_and(|first| Tick::of(first.deadline) == tick) {
            self.near.add(self.far.remove(0, place_in(&mut self.slots, FAR)));
        }
        self.near.sort(place_in(&mut self.slots, NEAR));
        true
    }

    /// Removes the first timer that is due at `now`. Never returns a timer early, or a fresh timer. `soon` gets the
    /// payloads of timers that will be due within a tick.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: Time, soon: impl Fn(T)) -> Option<(TimerId, Time, T)> {
        if self.near.first().is_none() && !self.advance(now, soon) {
            return None;
        }
        let &Node { deadline, slot, .. } = self.near.first()?;
        if deadline > now || deadline == Time::NEVER {
            return None;
        }
        self.near.pop(place_in(&mut self.slots, NEAR));
        self.stale |= deadline <= self.wake;
        let &Slot { generation, payload, .. } = &self.slots[slot as usize];
        self.release(slot);
        Some((TimerId::new(slot, generation), deadline, payload))
    }

    /// Returns the time until which the loop may sleep.
    ///
    /// The time is not before the earliest deadline, and exceeds the slack of no timer. Returns `None` if no absorbed
    /// timer will ever fire.
    pub(crate) fn next_wake(&mut self) -> Option<Time> {
        if self.stale {
            if self.near.first().is_none_or(|first| first.deadline > self.wake) {
                self.wake = self.latest();
            }
            self.stale = false;
        }
        (self.wake != Time::NEVER).then_some(self.wake)
    }

    /// Returns the earliest time by which some timer must fire.
    fn latest(&self) -> Time {
        let mut bound = self.far.latest(self.near.latest(Time::NEVER));
        for tick in self.wheel.ticks_after(self.present) {
            if tick.start() >= bound {
                break;
            }
            bound = self.wheel.nodes(tick).iter().map(Node::latest).fold(bound, Time::min);
        }
        bound
    }

    /// Returns the earliest deadline of all absorbed timers, or `None` if none will ever fire.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let near = self.near.first().map(|first| first.deadline);
        let deadline = near.or_else(|| {
            let far = self.far.first().map(|first| first.deadline);
            let wheel = self.wheel.first_after(self.present).map_or(&[][..], |tick| self.wheel.nodes(tick));
            wheel.iter().map(|node| node.deadline).chain(far).min()
        });
        deadline.filter(|&deadline| deadline != Time::NEVER)
    }

    /// Returns the number of armed timers, including fresh ones.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of timers absorbed so far.
    pub(crate) fn absorbed(&self) -> u64 {
        self.sequence
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Iterates over all armed timers in no particular order. A fresh timer has no deadline yet.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TimerId, Option<Time>, T)> {
        self.slots.iter().zip(0..).filter(|(entry, _)| entry.generation % 2 == 1).map(|(entry, slot)| {
            let deadline = (entry.place & LIST != FRESH).then_some(entry.deadline);
            (TimerId::new(slot, entry.generation), deadline, entry.payload)
        })
    }
}

/// Returns a closure that records in a slot the place of its timer in `list`.
#[inline]
fn place_in<T>(slots: &mut [Slot<T>], list: u32) -> impl FnMut(u32, usize) {
    move |slot, index| slots[slot as usize].place = list | index as u32
}

#[inline]
fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}
