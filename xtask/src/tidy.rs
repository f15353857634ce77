//! Checks of rules that no compiler checks.

mod backends;
mod conformance;
mod contract;
mod dependencies;
mod facade;
mod guide;
mod layers;
mod links;
mod modules;
mod packages;
mod panics;
mod paths;
mod sources;

use std::time::Instant;

use crate::step::Report;
use crate::tables::CONTRACT;
use crate::workspace::Workspace;

pub use conformance::check_tests as check_tests_of_conformance;
pub use layers::print as print_arrows;

/// The faults, one line each. An error means that the check could not read a file.
type Faults = anyhow::Result<Vec<String>>;
type Check = (&'static str, fn(&Workspace) -> Faults);

/// Runs every check.
pub fn run(workspace: &Workspace, report: &mut Report) {
    let checks: [Check; 10] = [
        ("tidy: dependencies between crates", dependencies::check),
        ("tidy: layers inside a crate", layers::check),
        ("tidy: shape of a backend", backends::check),
        ("tidy: root of the facade", facade::check),
        ("tidy: conformance map", conformance::check),
        ("tidy: packages", packages::check),
        ("tidy: chapters of the guide", guide::check),
        ("tidy: links", links::check),
        ("tidy: documented panics", panics::check),
        ("tidy: sources", sources::check),
    ];
    let contract: Check = ("tidy: contract of a hub", contract::check);
    for (name, check) in checks.into_iter().chain(CONTRACT.map(|_| contract)) {
        let start = Instant::now();
        let faults = check(workspace).unwrap_or_else(|error| vec![format!("{error:#}")]);
        report.check(name, &faults, start);
    }
}
