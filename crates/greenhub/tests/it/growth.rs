//! Repeated rounds of a hundred thousand green threads leak nothing.
//!
//! The test measures the memory of its process, and so runs alone in it.

#![cfg(target_os = "linux")]

use std::cell::Cell;
use std::fs;
use std::rc::Rc;

use crate::support::in_child;
use greenhub::thread::yield_now;
use greenhub::{get_hub, spawn};

const ROUNDS: usize = 10;

/// The resources in use after a round, which must not grow.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Resources {
    mappings: usize,
    stack_bytes_mapped: usize,
    greenlets: usize,
    green_threads: usize,
}

/// Runs `count` green threads, which all begin before the first ends. Returns the resources in use and the resident
/// bytes afterwards.
fn round(count: usize) -> (Resources, usize) {
    let begun = Rc::new(Cell::new(0));
    let threads: Vec<_> = (0..count)
        .map(|number| {
            let begun = Rc::clone(&begun);
            spawn(move || {
                begun.set(begun.get() + 1);
                yield_now();
                assert_eq!(begun.get(), count);
                number
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), number);
    }
    let stats = get_hub().stats();
    let resources = Resources {
        mappings: fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
        stack_bytes_mapped: stats.stack_bytes_mapped,
        greenlets: stats.greenlets,
        green_threads: stats.green_threads,
    };
    (resources, resident_bytes())
}

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
}

/// Returns whether each stack guard is a separate mapping: before Linux 6.13, or if the environment asks for it.
fn guards_are_mappings() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split('.').map_while(|part| part.parse().ok()).take(2).collect();
    version < vec![6, 13] || std::env::var_os("GREENHUB_GUARD").is_some_and(|guard| guard == "mprotect")
}

#[test]
fn ten_rounds_of_a_hundred_thousand_green_threads_leak_nothing() {
    in_child(|| {
        // A hundred thousand guards would exceed the limit of mappings.
        let count = if guards_are_mappings() { 10_000 } else { 100_000 };
        let rounds: Vec<_> = (0..ROUNDS).map(|_| round(count)).collect();
        let (second, last) = (rounds[1], rounds[ROUNDS - 1]);
        assert_eq!(second.0, last.0);
        // The limit is one byte per green thread of a round. A leaked page per green thread would be 4,096.
        assert!(last.1 <= second.1 + count, "{} bytes resident, then {}", second.1, last.1);
    });
}
