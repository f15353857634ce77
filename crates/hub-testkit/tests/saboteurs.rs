//! Each case fails over the hubs with the faults that it must catch, and each case catches a fault.

#[allow(unreachable_pub)] // the file is also included as the root of a doctest
#[path = "../../hub-core/tests/support/poll_hub.rs"]
mod poll_hub;

use std::collections::BTreeSet;
use std::env;
use std::io;
use std::thread;
use std::time::Duration;

use hub_core::hub::Hub;
use hub_epoll::{EpollHub, Paths, Trigger};
use hub_testkit::cases::{ALL, Case};
use hub_testkit::fixture::set_time_limit;
use hub_testkit::process::{alone, watchdog};
use hub_testkit::saboteurs::{Fault, Over, Saboteur, TABLE};

/// The environment variable with the row that a process is started for: the index of the row, the index of the sound
/// hub, and whether the hub has the fault.
const ROW: &str = "HUB_TESTKIT_ROW";

/// The number of processes that run at once. Most of them sleep.
const WORKERS: usize = 8;

/// The line that the process of a row prints after its case has passed.
const PASSED: &str = "the case passed";

type Sound = fn() -> io::Result<Box<dyn Hub>>;

/// Returns the sound hubs of a kind. The faults of a row are caught over each of them.
fn sound(over: Over) -> &'static [Sound] {
    match over {
        Over::Level => &[|| Ok(Box::new(EpollHub::with(Paths { trigger: Trigger::Level, ..Paths::default() })?))],
        Over::Automatic => &[|| Ok(Box::new(EpollHub::with(Paths { trigger: Trigger::Edge, ..Paths::default() })?))],
        Over::Explicit => &[
            || Ok(Box::new(poll_hub::PollHub::new()?)),
            || Ok(Box::new(hub_poll::PollHub::new()?)),
            || Ok(Box::new(hub_select::SelectHub::new()?)),
        ],
    }
}

fn case(name: &str) -> Case {
    *ALL.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case is called {name}"))
}

/// Runs one row in a process of its own. Does nothing in the process that runs all tests.
#[test]
fn row() {
    let Ok(row) = env::var(ROW) else { return };
    let words: Vec<&str> = row.split(' ').collect();
    let number = |word: &str| word.parse::<usize>().expect("a number");
    let (fault, over, name) = TABLE[number(words[0])];
    let sound = sound(over)[number(words[1])];
    let fault = if words[2] == "true" { fault } else { Fault::None };
    let case = case(name);
    let mut limit = Duration::from_secs(120);
    if fault != Fault::None {
        // The case is expected to fail or hang: do not wait for long.
        set_time_limit(Duration::from_secs(2));
        limit = Duration::from_secs(8);
    }
    watchdog(name, limit, || (case.run)(&|| Ok(Box::new(Saboteur::new(sound()?, fault)?))));
    println!("{PASSED}");
}

/// Runs a row over one of its sound hubs, with or without its fault, and returns whether the case passed.
fn passes(index: usize, sound: usize, with_fault: bool) -> bool {
    let output = alone("row", ROW, &format!("{index} {sound} {with_fault}"));
    String::from_utf8_lossy(&output.stdout).contains(PASSED)
}

#[test]
fn every_case_fails_with_its_fault_and_passes_without() {
    let wrong: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                scope.spawn(move || {
                    let rows = TABLE.iter().enumerate();
                    let runs = rows.flat_map(|(index, row)| (0..sound(row.1).len()).map(move |hub| (index, hub, row)));
                    let wrong = runs.skip(worker).step_by(WORKERS).flat_map(|(index, hub, row)| {
                        let missed = passes(index, hub, true).then(|| format!("not caught: {row:?}, hub {hub}"));
                        let blamed = (!passes(index, hub, false))
                            .then(|| format!("fails without the fault: {row:?}, hub {hub}"));
                        missed.into_iter().chain(blamed)
                    });
                    wrong.collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_case_catches_a_fault() {
    let catching: BTreeSet<&str> = TABLE.iter().map(|&(_, _, name)| name).collect();
    let all: BTreeSet<&str> = ALL.iter().map(|case| case.name).collect();
    assert_eq!(catching, all);
}
