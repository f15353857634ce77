//! Each case fails over the hubs with the faults that it must catch, and each case catches a fault.

#[allow(unreachable_pub)] // the file is also included as the root of a doctest
#[path = "../../hub-core/tests/support/poll_hub.rs"]
mod poll_hub;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::env;
use std::io;
use std::thread;
use std::time::Duration;

use hub_core::hub::Hub;
use hub_epoll::{EpollHub, Paths, Trigger};
use hub_testkit::cases::foreign::a_wake_up_by_foreign_code_ends_the_wait;
use hub_testkit::cases::{ALL, Case};
use hub_testkit::fixture::set_time_limit;
use hub_testkit::process::{alone, watchdog};
use hub_testkit::saboteurs::{Fault, Over, Saboteur, TABLE};
use hub_tokio::TokioHub;

/// The environment variable with the row that a process is started for: the index of the row, the index of the sound
/// hub, and whether the hub has the fault.
const ROW: &str = "HUB_TESTKIT_ROW";

/// The row of the case of clause 19.
const FOREIGN: &str = "foreign";

/// The number of processes that run at once. Most of them sleep.
const WORKERS: usize = 8;

/// The line that the process of a row prints after its case has passed.
const PASSED: &str = "the case passed";

type Sound = fn() -> io::Result<Box<dyn Hub>>;

/// Returns the sound hubs over which the fault of a row shows. The row's case must catch the fault over each of them.
fn sound(row: (Fault, Over, &str)) -> &'static [Sound] {
    const LEVEL: &[Sound] = &[
        || Ok(Box::new(EpollHub::with(Paths { trigger: Trigger::Level, ..Paths::default() })?)),
        // Also level-triggered, by a set in an edge-triggered set.
        tokio_hub,
    ];
    match row {
        // The runtime restarts a wait that a signal has interrupted.
        (Fault::ErrorOnSignal, Over::Level, _) => &LEVEL[..1],
        (_, Over::Level, _) => LEVEL,
        (_, Over::Automatic, _) => {
            &[|| Ok(Box::new(EpollHub::with(Paths { trigger: Trigger::Edge, ..Paths::default() })?))]
        }
        (_, Over::Explicit, _) => &[
            || Ok(Box::new(poll_hub::PollHub::new()?)),
            || Ok(Box::new(hub_poll::PollHub::new()?)),
            || Ok(Box::new(hub_select::SelectHub::new()?)),
        ],
    }
}

fn tokio_hub() -> io::Result<Box<dyn Hub>> {
    Ok(Box::new(TokioHub::over(EpollHub::new()?)?))
}

fn case(name: &str) -> Case {
    *ALL.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case is called {name}"))
}

/// Runs one row in a process of its own. Does nothing in the process that runs all tests.
#[test]
fn row() {
    let Ok(row) = env::var(ROW) else { return };
    let words: Vec<&str> = row.split(' ').collect();
    if words[0] == FOREIGN {
        return foreign_case(words[1] == "true");
    }
    let number = |word: &str| word.parse::<usize>().expect("a number");
    let row = TABLE[number(words[0])];
    let sound = sound(row)[number(words[1])];
    let (fault, _, name) = row;
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

/// Runs the case of clause 19 over a hub that runs tasks, with or without the fault that it must catch.
fn foreign_case(with_fault: bool) {
    thread_local!(static CLOSURE: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) });
    let fault = if with_fault { Fault::IgnoreOwnThread } else { Fault::None };
    let limit = if with_fault { 8 } else { 120 };
    let make = || Saboteur::new(tokio_hub()?, fault);
    watchdog(FOREIGN, Duration::from_secs(limit), || {
        a_wake_up_by_foreign_code_ends_the_wait(&make, &|_, closure| {
            CLOSURE.set(Some(closure));
            tokio::spawn(async { CLOSURE.take().into_iter().for_each(|closure| closure()) });
        });
    });
    println!("{PASSED}");
}

#[test]
fn the_case_of_foreign_code_fails_with_its_fault_and_passes_without() {
    let passes = |with_fault: bool| {
        let output = alone("row", ROW, &format!("{FOREIGN} {with_fault}"));
        String::from_utf8_lossy(&output.stdout).contains(PASSED)
    };
    assert!(passes(false));
    assert!(!passes(true));
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
                    let runs = rows.flat_map(|(index, row)| (0..sound(*row).len()).map(move |hub| (index, hub, row)));
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
