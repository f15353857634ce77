use super::*;

const MS: Duration = Duration::from_millis(1);

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn fired(queue: &mut TimerQueue<u32>, now: Time) -> Vec<u32> {
    std::iter::from_fn(|| queue.pop_due(now, |_| ())).map(|(_, _, payload)| payload).collect()
}

#[test]
fn an_id_and_an_optional_id_are_eight_bytes() {
    assert_eq!(size_of::<Option<TimerId>>(), 8);
}

#[test]
fn a_slot_of_a_sixteen_byte_value_is_half_a_cache_line() {
    assert_eq!(size_of::<Slot<[u64; 2]>>(), 32);
}

#[test]
fn a_delay_counts_from_the_absorption() {
    let mut queue = TimerQueue::new();
    queue.arm(5 * MS, 1);
    queue.absorb(at(100));
    assert_eq!(fired(&mut queue, Time::from_nanos(at(105).as_nanos() - 1)), []);
    assert_eq!(fired(&mut queue, at(105)), [1]);
}

#[test]
fn a_timer_fires_once() {
    let mut queue = TimerQueue::new();
    queue.arm(MS, 1);
    queue.absorb(at(0));
    assert_eq!(fired(&mut queue, at(1)), [1]);
    assert_eq!(fired(&mut queue, at(1_000_000)), []);
    assert_eq!(queue.len(), 0);
}

#[test]
fn timers_fire_in_order_of_deadline_across_all_distances() {
    let mut queue = TimerQueue::new();
    let delays = [900_000, 0, 3, 40, 1, 2_000, 41, 1_072, 1_074, 500, 86_400_000];
    for delay in delays {
        queue.arm(delay * MS, delay);
    }
    queue.absorb(at(7));
    let mut sorted = delays;
    sorted.sort();
    assert_eq!(fired(&mut queue, at(100_000_000)), sorted);
}

#[test]
fn equal_deadlines_fire_in_order_of_arming() {
    let mut queue = TimerQueue::new();
    for payload in 0..2000 {
        if payload % 2 == 0 {
            queue.arm(30 * MS, payload)
        } else {
            queue.arm_at(at(30), payload)
        };
        if payload % 100 == 50 {
            queue.absorb(at(0));
        }
    }
    queue.absorb(at(0));
    assert!(fired(&mut queue, at(30)).into_iter().eq(0..2000));
}

#[test]
fn zero_delays_are_due_at_the_absorption_in_order_of_arming() {
    let mut queue = TimerQueue::new();
    for payload in 0..2000 {
        queue.arm(Duration::ZERO, payload);
    }
    queue.absorb(at(3));
    assert!(fired(&mut queue, at(3)).into_iter().eq(0..2000));
}

#[test]
fn a_deadline_in_the_past_comes_before_a_zero_delay() {
    let mut queue = TimerQueue::new();
    queue.arm(Duration::ZERO, 0);
    queue.arm_at(at(2), 1);
    queue.absorb(at(3));
    assert_eq!(fired(&mut queue, at(3)), [1, 0]);
}

#[test]
fn a_timer_armed_while_firing_waits_for_the_next_absorption() {
    let mut queue = TimerQueue::new();
    queue.arm(Duration::ZERO, 0);
    queue.absorb(at(1));
    assert!(queue.pop_due(at(1), |_| ()).is_some());
    queue.arm(Duration::ZERO, 1);
    assert_eq!(fired(&mut queue, at(1)), []);
    queue.absorb(at(1));
    assert_eq!(fired(&mut queue, at(1)), [1]);
}

#[test]
fn a_timer_is_cancelled_wherever_it_is_kept() {
    for delay in [Duration::ZERO, MS, 50 * MS, 10_000 * MS, Duration::MAX] {
        let mut queue = TimerQueue::new();
        let fresh = queue.arm(delay, 1);
        assert_eq!(queue.cancel(fresh), Some(1));
        let absorbed = queue.arm(delay, 2);
        queue.absorb(at(1));
        assert_eq!(queue.cancel(absorbed), Some(2));
        assert_eq!((queue.len(), queue.next_wake(), queue.next_deadline()), (0, None, None));
        assert_eq!(fired(&mut queue, at(u64::MAX >> 24)), []);
    }
}

#[test]
fn a_stale_id_is_recognised_after_its_slot_is_reused() {
    let mut queue = TimerQueue::new();
    let first = queue.arm(MS, 1);
    queue.absorb(at(0));
    queue.pop_due(at(1), |_| ());
    let second = queue.arm(MS, 2);
    assert_eq!(first.slot(), second.slot());
    assert_eq!((queue.cancel(first), queue.get(first), queue.is_armed(first)), (None, None, false));
    assert_eq!((queue.get(second), queue.is_armed(second)), (Some(&2), true));
    assert_eq!((queue.cancel(second), queue.cancel(second)), (Some(2), None));
}

#[test]
fn cancelled_timers_leave_nothing_behind() {
    let mut queue = TimerQueue::new();
    for delay in [MS, 100 * MS, 60_000 * MS] {
        for _ in 0..2000 {
            let id = queue.arm(delay, 0);
            queue.absorb(at(0));
            queue.cancel(id);
            let id = queue.arm(delay, 0);
            queue.cancel(id);
        }
    }
    assert_eq!((queue.len(), queue.slots.len(), queue.fresh.len()), (0, 1, 0));
}

#[test]
fn cancelling_the_newest_fresh_timer_also_drops_the_cancelled_ones_before_it() {
    let mut queue = TimerQueue::new();
    let ids = [1, 2, 3].map(|payload| queue.arm(MS, payload));
    queue.cancel(ids[1]);
    assert_eq!(queue.fresh.len(), 3);
    queue.cancel(ids[2]);
    assert_eq!(queue.fresh.len(), 1);
}

#[test]
fn the_longest_delay_never_fires_and_sets_no_wake_time() {
    let mut queue = TimerQueue::new();
    queue.arm(Duration::MAX, 1);
    queue.arm_at(Time::NEVER, 2);
    queue.absorb(at(1));
    assert_eq!((queue.next_wake(), queue.next_deadline(), queue.len()), (None, None, 2));
    assert_eq!(fired(&mut queue, Time::NEVER), []);
}

#[test]
fn short_delays_have_no_slack() {
    let mut queue = TimerQueue::new();
    queue.arm(Duration::from_micros(100), 1);
    queue.absorb(at(1));
    assert_eq!(queue.next_wake(), Some(Time::from_nanos(1_100_000)));
}

#[test]
fn slack_is_a_part_of_the_delay_up_to_its_limit() {
    for (delay, wake) in [(8_000, 8_500), (16_000, 17_000), (60_000, 61_000)] {
        let mut queue = TimerQueue::new();
        queue.arm(delay * MS / 1000, 1);
        queue.absorb(at(0));
        assert_eq!(queue.next_wake(), Some(Time::from_nanos(wake * 1000)));
    }
}

#[test]
fn the_wake_time_respects_the_slack_of_every_timer() {
    let mut queue = TimerQueue::new();
    queue.arm(100 * MS, 1);
    queue.absorb(at(0));
    queue.arm_at(Time::from_nanos(100_100_000), 2);
    queue.absorb(at(100));
    assert_eq!(queue.next_wake(), Some(Time::from_nanos(100_100_000)));
}

#[test]
fn the_wake_time_moves_on_when_nothing_is_due_by_it() {
    let mut queue = TimerQueue::new();
    let first = queue.arm(100 * MS, 1);
    queue.arm(200 * MS, 2);
    queue.absorb(at(0));
    assert_eq!(queue.next_wake(), Some(at(101)));
    queue.cancel(first);
    assert_eq!(queue.next_wake(), Some(at(201)));
    queue.pop_due(at(200), |_| ());
    assert_eq!(queue.next_wake(), None);
}

#[test]
fn slack_can_be_turned_off() {
    let mut queue = TimerQueue::new();
    queue.set_slack(Slack { divisor: 0, at_most: MS });
    queue.arm(100 * MS, 1);
    queue.absorb(at(0));
    assert_eq!(queue.next_wake(), Some(at(100)));
}

#[test]
fn fresh_timers_are_listed_without_a_deadline() {
    let mut queue = TimerQueue::new();
    let first = queue.arm(MS, 1);
    queue.absorb(at(4));
    let second = queue.arm(MS, 2);
    let mut listed: Vec<_> = queue.iter().collect();
    listed.sort_by_key(|&(_, _, payload)| payload);
    assert_eq!(listed, [(first, Some(at(5)), 1), (second, None, 2)]);
}

mod model {
    //! Compares the queue with a sorted map, under random operations.

    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::*;

    /// Returns a value of any magnitude, with equal values and the limits of the clock among them.
    fn nanos(random: &mut Rng) -> u64 {
        match random.u64(..8) {
            0 => 0,
            1 => u64::MAX - random.u64(..3),
            2 => random.u64(..4) << 20,
            3 => random.u64(..3) * 1_000_000_000,
            4 => (1 << 30) - (1 << 21) + random.u64(..1 << 22),
            _ => {
                let bits = random.u64(..40);
                random.u64(..1 << bits)
            }
        }
    }
    #[derive(Copy, Clone)]
    enum Due {
        After(u64),
        At(u64),
    }

    #[derive(Default)]
    struct Model {
        now: u64,
        fresh: Vec<(u32, Due)>,
        /// Maps deadline and order of arming to the value and the latest time to fire.
        absorbed: BTreeMap<(u64, u64), (u32, u64)>,
        sequence: u64,
        armed: Vec<(u32, TimerId)>,
        gone: Vec<TimerId>,
    }

    impl Model {
        fn absorb(&mut self) {
            for (payload, due) in std::mem::take(&mut self.fresh) {
                let deadline = match due {
                    Due::After(delay) => self.now.saturating_add(delay),
                    Due::At(deadline) => deadline,
                };
                let slack = deadline.saturating_sub(self.now) / 16;
                let slack = if slack < 8_000 { 0 } else { slack.min(1_000_000) };
                self.absorbed.insert((deadline, self.sequence), (payload, deadline.saturating_add(slack)));
                self.sequence += 1;
            }
        }

        fn pop(&mut self, now: u64) -> Option<(u32, u64)> {
            let entry = self.absorbed.first_entry()?;
            let deadline = entry.key().0;
            if deadline > now || deadline == u64::MAX {
                return None;
            }
            let payload = entry.remove().0;
            Some((payload, deadline))
        }

        fn leave(&mut self, payload: u32) -> TimerId {
            let index = self.armed.iter().position(|&(armed, _)| armed == payload).expect("the timer was armed");
            let (_, id) = self.armed.swap_remove(index);
            self.gone.push(id);
            id
        }
    }

    fn run(seed: u64) {
        let mut random = Rng::with_seed(seed);
        let mut queue = TimerQueue::new();
        let mut model = Model { now: nanos(&mut random) >> 1, ..Model::default() };
        for payload in 0..300 {
            match random.u64(..16) {
                0..=6 => {
                    let nanos = nanos(&mut random);
                    let (id, due) = if random.u64(..3) > 0 {
                        let delay = if nanos == u64::MAX { Duration::MAX } else { Duration::from_nanos(nanos) };
                        (queue.arm(delay, payload), Due::After(nanos))
                    } else {
                        let deadline = if random.u64(..2) == 0 { nanos } else { model.now.saturating_add(nanos) };
                        (queue.arm_at(Time::from_nanos(deadline), payload), Due::At(deadline))
                    };
                    model.fresh.push((payload, due));
                    model.armed.push((payload, id));
                }
                7..=8 if !model.armed.is_empty() => {
                    let (payload, id) = model.armed[random.usize(..model.armed.len())];
                    assert_eq!(queue.get(id), Some(&payload));
                    assert_eq!(queue.cancel(id), Some(payload));
                    model.leave(payload);
                    model.fresh.retain(|&(fresh, _)| fresh != payload);
                    model.absorbed.retain(|_, &mut (absorbed, _)| absorbed != payload);
                }
                9 if !model.gone.is_empty() => {
                    let id = model.gone[random.usize(..model.gone.len())];
                    assert!(queue.cancel(id).is_none() && !queue.is_armed(id));
                }
                10..=12 => {
                    queue.absorb(Time::from_nanos(model.now));
                    model.absorb();
                }
                13..=14 => {
                    let step = nanos(&mut random);
                    model.now = model.now.saturating_add(if step > 1 << 60 { 0 } else { step });
                    for _ in 0..random.u64(..30) {
                        let popped = queue.pop_due(Time::from_nanos(model.now), |_| ());
                        let expected = model.pop(model.now);
                        assert_eq!(popped.map(|(_, at, payload)| (payload, at.as_nanos())), expected);
                        let Some((id, _, payload)) = popped else { break };
                        assert_eq!(model.leave(payload), id);
                    }
                }
                _ => {}
            }
            check(&mut queue, &model);
        }
    }

    fn check(queue: &mut TimerQueue<u32>, model: &Model) {
        assert_eq!(queue.len(), model.fresh.len() + model.absorbed.len());
        let earliest = model.absorbed.keys().map(|&(deadline, _)| deadline).next().filter(|&at| at != u64::MAX);
        assert_eq!(queue.next_deadline().map(Time::as_nanos), earliest);
        let wake = queue.next_wake().map(Time::as_nanos);
        assert_eq!(wake.is_some(), earliest.is_some());
        if let (Some(wake), Some(earliest)) = (wake, earliest) {
            assert!(wake >= earliest, "woken before anything is due");
            let latest = model.absorbed.values().map(|&(_, latest)| latest).min();
            assert!(latest.is_some_and(|latest| wake <= latest), "some timer is later than its slack");
        }
        if !model.sequence.is_multiple_of(8) {
            return;
        }
        let mut listed: Vec<_> = queue.iter().map(|(_, at, payload)| (payload, at.map(Time::as_nanos))).collect();
        let fresh = model.fresh.iter().map(|&(payload, _)| (payload, None));
        let absorbed = model.absorbed.iter().map(|(&(deadline, _), &(payload, _))| (payload, Some(deadline)));
        let mut expected: Vec<_> = fresh.chain(absorbed).collect();
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
    }

    #[test]
    fn the_queue_agrees_with_the_model() {
        for seed in 0..3000 {
            if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
                eprintln!("the seed is {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}
