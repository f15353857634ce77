//! Every case fails over a hub with the fault that it is for, and every fault is caught.

#[allow(unreachable_pub)] // a crate's root in all but name
#[path = "../../hub-core/tests/support/poll_hub.rs"]
mod poll_hub;

use std::collections::BTreeSet;
use std::env;
use std::io;
use std::thread;
use std::time::Duration;

use hub_core::Hub;
use hub_epoll::{EpollHub, Paths, Trigger};
use hub_testkit::cases::{ALL, Case};
use hub_testkit::process::{alone, watchdog};
use hub_testkit::saboteurs::{Fault, Over, Saboteur, TABLE};
use poll_hub::PollHub;

/// Names the row that a process is started for, and whether with its fault.
const ROW: &str = "HUB_TESTKIT_ROW";

/// How many processes run at once; most of them sleep.
const WORKERS: usize = 8;

/// What the process of a row prints when it finished its case.
const PASSED: &str = "the case passed";

fn sound(over: Over) -> io::Result<Box<dyn Hub>> {
    Ok(match over {
        Over::Level => Box::new(EpollHub::with(Paths { trigger: Trigger::Level, ..Paths::default() })?),
        Over::Automatic => Box::new(EpollHub::with(Paths { trigger: Trigger::Edge, ..Paths::default() })?),
        Over::Explicit => Box::new(PollHub::new()?),
    })
}

fn case(name: &str) -> Case {
    *ALL.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case is called {name}"))
}

/// The process of one row; nothing in the process that runs all tests.
#[test]
fn row() {
    let Ok(row) = env::var(ROW) else { return };
    let (index, with_fault) = row.split_once(' ').expect("a row and a word");
    let (fault, over, name) = TABLE[index.parse::<usize>().expect("the number of a row")];
    let fault = if with_fault == "true" { fault } else { Fault::None };
    let case = case(name);
    watchdog(name, Duration::from_secs(8), || (case.run)(&|| Ok(Box::new(Saboteur::new(sound(over)?, fault)?))));
    println!("{PASSED}");
}

/// Runs a row with or without its fault, and says whether the case passed.
fn passes(index: usize, with_fault: bool) -> bool {
    let output = alone("row", ROW, &format!("{index} {with_fault}"));
    String::from_utf8_lossy(&output.stdout).contains(PASSED)
}

#[test]
fn every_fault_is_caught_by_its_case_and_only_the_fault_is() {
    let wrong: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                scope.spawn(move || {
                    let rows = TABLE.iter().enumerate().skip(worker).step_by(WORKERS);
                    let wrong = rows.flat_map(|(index, row)| {
                        let missed = passes(index, true).then(|| format!("not caught: {row:?}"));
                        let blamed = (!passes(index, false)).then(|| format!("fails without the fault: {row:?}"));
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
