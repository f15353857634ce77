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
use hub_testkit::fixture::set_soon;
use hub_testkit::process::{alone, watchdog};
use hub_testkit::saboteurs::{Fault, Over, Saboteur, TABLE};

/// Names the row that a process is started for, which of its sound hubs, and whether with its fault.
const ROW: &str = "HUB_TESTKIT_ROW";

/// How many processes run at once; most of them sleep.
const WORKERS: usize = 8;

/// What the process of a row prints when it finished its case.
const PASSED: &str = "the case passed";

type Sound = fn() -> io::Result<Box<dyn Hub>>;

/// The sound hubs of a kind, over each of which its faults are caught.
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

/// The process of one row; nothing in the process that runs all tests.
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
        // It is to fail, and is not waited for.
        set_soon(Duration::from_secs(2));
        limit = Duration::from_secs(8);
    }
    watchdog(name, limit, || (case.run)(&|| Ok(Box::new(Saboteur::new(sound()?, fault)?))));
    println!("{PASSED}");
}

/// Runs a row over one of its sound hubs, with or without its fault, and says whether the case passed.
fn passes(index: usize, sound: usize, with_fault: bool) -> bool {
    let output = alone("row", ROW, &format!("{index} {sound} {with_fault}"));
    String::from_utf8_lossy(&output.stdout).contains(PASSED)
}

#[test]
fn every_fault_is_caught_by_its_case_and_only_the_fault_is() {
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
