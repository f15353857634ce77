//! Tests of the table, which name numbers and use no descriptor.

use super::*;

const ONE: Target = Target::Parked { greenlet: 1, ticket: 1 };
const TWO: Target = Target::Parked { greenlet: 2, ticket: 1 };

fn prepare(table: &mut Descriptors, fd: RawFd, owner: Owner, direction: Interest, rearm: Rearm) -> Prepared {
    // SAFETY: the tests only look at numbers and never use the descriptors.
    unsafe { table.prepare(fd, owner, direction, rearm) }
}

fn armed(table: &mut Descriptors, fd: RawFd, owner: Owner, direction: Interest, target: Target) -> Key {
    match prepare(table, fd, owner, direction, Rearm::Level) {
        Prepared::Watch(key, interest) => {
            // SAFETY: the tests only look at numbers and never use the descriptors.
            unsafe {
                table.arm(key, direction, target);
                if owner != Owner::RAW {
                    table.lend(key, interest);
                }
            }
            key
        }
        Prepared::Watched(key) => {
            // SAFETY: as above.
            unsafe { table.arm(key, direction, target) };
            key
        }
        Prepared::Taken => panic!("the direction has a waiter"),
    }
}

fn queue(table: &mut Descriptors, fd: RawFd, direction: Interest, target: Target) {
    // SAFETY: the tests only look at numbers and never use the descriptors.
    unsafe { table.queue(fd, direction, target) };
}

#[test]
fn a_target_takes_16_bytes() {
    assert!(size_of::<Target>() <= 16);
}

#[test]
fn a_second_waiter_finds_the_direction_taken() {
    let mut table = Descriptors::default();
    armed(&mut table, 5, Owner::RAW, Interest::READ, ONE);
    assert_eq!(prepare(&mut table, 5, Owner::RAW, Interest::READ, Rearm::Level), Prepared::Taken);
}

#[test]
fn reader_and_writer_share_a_key_and_get_separate_reports() {
    let mut table = Descriptors::default();
    let key = armed(&mut table, 5, Owner::RAW, Interest::READ, ONE);
    assert_eq!(armed(&mut table, 5, Owner::RAW, Interest::WRITE, TWO), key);
    let mut target = Vec::new();
    table.report(key, Readiness::WRITE, Rearm::Level, &mut target);
    let reported: Vec<_> = target.iter().map(|&(one, it, key, side)| (one, it.readiness(), key, side)).collect();
    assert_eq!(reported, [(TWO, Readiness::WRITE, key, Interest::WRITE)]);
    assert_eq!(table.watched.armed(key), Interest::READ);
}

#[test]
fn a_socket_is_watched_once_for_life() {
    let mut table = Descriptors::default();
    let key = armed(&mut table, 7, Owner::socket(3), Interest::READ, ONE);
    table.report(key, Readiness::READ, Rearm::Level, &mut Vec::new());
    assert_eq!(prepare(&mut table, 7, Owner::socket(3), Interest::READ, Rearm::Level), Prepared::Watched(key));
}

#[test]
fn a_report_without_a_waiter_needs_another_watch_on_level_hubs() {
    let mut table = Descriptors::default();
    let key = armed(&mut table, 7, Owner::socket(3), Interest::READ, ONE);
    let mut target = Vec::new();
    table.report(key, Readiness::READ, Rearm::Level, &mut target);
    table.report(key, Readiness::READ, Rearm::Level, &mut target);
    assert_eq!(target.len(), 1);
    assert_eq!(
        prepare(&mut table, 7, Owner::socket(3), Interest::READ, Rearm::Level),
        Prepared::Watch(key, Interest::READ)
    );
}

#[test]
fn a_raw_wait_under_a_sockets_number_asks_the_hub_again() {
    let mut table = Descriptors::default();
    let key = armed(&mut table, 7, Owner::socket(3), Interest::READ, ONE);
    table.report(key, Readiness::READ, Rearm::Automatic, &mut Vec::new());
    // Unlike an operation of the socket, a raw wait does not try first, and the hub repeats no report by itself.
    assert_eq!(
        prepare(&mut table, 7, Owner::RAW, Interest::READ, Rearm::Automatic),
        Prepared::Watch(key, Interest::READ)
    );
}

#[test]
fn a_watch_keeps_the_directions_that_the_hub_reports_already() {
    let mut table = Descriptors::default();
    let key = armed(&mut table, 7, Owner::socket(3), Interest::READ, ONE);
    table.report(key, Readiness::READ, Rearm::Automatic, &mut Vec::new());
    assert_eq!(
        prepare(&mut table, 7, Owner::socket(3), Interest::WRITE, Rearm::Automatic),
        Prepared::Watch(key, Interest::BOTH)
    );
}

#[test]
fn a_stale_key_has_no_lease_for_life() {
    let mut table = Descriptors::default();
    let old = armed(&mut table, 7, Owner::socket(3), Interest::READ, ONE);
    let new = armed(&mut table, 7, Owner::socket(4), Interest::READ, TWO);
    assert_eq!((table.lease(old), table.lease(new)), (Lease::Wait, Lease::Life));
}

#[test]
fn a_number_of_a_new_owner_has_a_new_key_and_no_old_readiness() {
    let mut table = Descriptors::default();
    let old = armed(&mut table, 7, Owner::socket(3), Interest::READ, ONE);
    let Prepared::Watch(new, _) = prepare(&mut table, 7, Owner::socket(4), Interest::READ, Rearm::Level) else {
        panic!("a new owner has a new key")
    };
    assert_ne!(old, new);
    assert!(!table.report(old, Readiness::READ, Rearm::Level, &mut Vec::new()));
}

#[test]
fn an_end_survives_a_short_read_and_not_a_blocked_one() {
    let mut table = Descriptors::default();
    let key = armed(&mut table, 7, Owner::socket(3), Interest::READ, ONE);
    table.report(key, Readiness::READ | Readiness::END, Rearm::Automatic, &mut Vec::new());
    table.used_up(7, 3, Interest::READ, false);
    assert!(table.may_succeed(7, 3, Interest::READ));
    table.used_up(7, 3, Interest::READ, true);
    assert!(!table.may_succeed(7, 3, Interest::READ));
}

#[test]
fn no_waiter_moves_up_while_the_direction_is_taken() {
    let mut table = Descriptors::default();
    let key = armed(&mut table, 5, Owner::RAW, Interest::READ, ONE);
    queue(&mut table, 5, Interest::READ, TWO);
    assert_eq!(table.next_queued(key, Interest::READ), None);
    assert!(table.leave(key, Interest::READ, ONE));
    assert_eq!(table.next_queued(key, Interest::READ), Some(TWO));
}

#[test]
fn a_paused_waiter_keeps_its_place_until_it_leaves() {
    let mut table = Descriptors::default();
    let owner = Owner::socket(3);
    let key = armed(&mut table, 7, owner, Interest::READ, ONE);
    table.report(key, Readiness::READ, Rearm::Level, &mut Vec::new());
    // SAFETY: the tests only look at numbers and never use the descriptors.
    unsafe { table.queue_paused(7, Interest::READ, ONE) };
    // SAFETY: the tests only look at numbers and never use the descriptors.
    assert!(unsafe { table.arm_again(7, owner, Interest::READ, TWO) }.is_none());
    assert_eq!(prepare(&mut table, 7, owner, Interest::READ, Rearm::Level), Prepared::Taken);
    queue(&mut table, 7, Interest::READ, TWO);
    assert!(table.leave(key, Interest::READ, ONE));
    assert_eq!(table.next_queued(key, Interest::READ), Some(TWO));
}

#[test]
fn take_parked_removes_the_first_waiter_and_the_queue() {
    let mut table = Descriptors::default();
    let owner = Owner::socket(3);
    let key = armed(&mut table, 7, owner, Interest::READ, ONE);
    let call = Target::Call(1);
    armed(&mut table, 7, owner, Interest::WRITE, call);
    queue(&mut table, 7, Interest::READ, TWO);
    assert!(table.take_parked(7, 4, Interest::BOTH).is_empty(), "another socket");
    let taken = table.take_parked(7, 3, Interest::BOTH);
    let taken: Vec<_> = taken.into_iter().map(|(one, reported)| (one, reported.readiness())).collect();
    assert_eq!(taken, [(ONE, Readiness::READ), (TWO, Readiness::READ)]);
    assert_eq!(table.watched.armed(key), Interest::WRITE, "a callback stays");
    assert!(table.may_succeed(7, 3, Interest::READ));
}

#[test]
fn no_waiter_moves_up_under_a_retired_number() {
    let mut table = Descriptors::default();
    let old = armed(&mut table, 5, Owner::RAW, Interest::READ, ONE);
    table.retire(5);
    armed(&mut table, 5, Owner::RAW, Interest::WRITE, ONE);
    queue(&mut table, 5, Interest::READ, TWO);
    assert_eq!(table.next_queued(old, Interest::READ), None);
}

#[test]
fn an_invalid_number_is_reported_to_queued_waiters_too() {
    let mut table = Descriptors::default();
    let key = armed(&mut table, 5, Owner::RAW, Interest::READ, ONE);
    queue(&mut table, 5, Interest::READ, TWO);
    let mut target = Vec::new();
    table.report(key, Readiness::INVALID, Rearm::Level, &mut target);
    assert_eq!(target.iter().map(|(one, ..)| *one).collect::<Vec<_>>(), [ONE, TWO]);
}

#[test]
fn a_socket_adopts_the_waiters_of_its_lent_number() {
    let mut table = Descriptors::default();
    let key = armed(&mut table, 5, Owner::RAW, Interest::READ, ONE);
    assert!(table.is_stale_for(5, Owner::socket(3)));
    // SAFETY: the tests only look at numbers and never use the descriptors.
    unsafe { table.adopt(5, 3) };
    assert!(!table.is_stale_for(5, Owner::socket(3)));
    assert_eq!(
        prepare(&mut table, 5, Owner::socket(3), Interest::WRITE, Rearm::Level),
        Prepared::Watch(key, Interest::BOTH)
    );
}

#[test]
fn evicting_from_a_socket_returns_its_waiters_and_keeps_its_key() {
    let mut table = Descriptors::default();
    let key = armed(&mut table, 5, Owner::socket(3), Interest::READ, ONE);
    queue(&mut table, 5, Interest::READ, TWO);
    assert_eq!(table.evict(5), Some(vec![ONE, TWO]));
    assert!(table.watched.is_empty());
    assert_eq!(
        prepare(&mut table, 5, Owner::socket(3), Interest::READ, Rearm::Level),
        Prepared::Watch(key, Interest::READ)
    );
}

#[test]
fn evicting_from_a_number_that_no_socket_owns_changes_nothing() {
    let mut table = Descriptors::default();
    let key = armed(&mut table, 5, Owner::RAW, Interest::READ, ONE);
    assert_eq!(table.evict(5), None);
    assert_eq!(table.watched.armed(key), Interest::READ);
}

#[test]
fn retiring_a_number_returns_all_waiters() {
    let mut table = Descriptors::default();
    armed(&mut table, 5, Owner::RAW, Interest::READ, ONE);
    queue(&mut table, 5, Interest::READ, TWO);
    let (_, waited) = table.retire(5).expect("the number has an entry");
    assert_eq!(waited, [ONE, TWO]);
    assert!(table.watched.is_empty());
}
