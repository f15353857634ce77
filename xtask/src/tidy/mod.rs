//! What no compiler holds.

mod arrows;
mod backends;
mod conformance;
mod floors;
mod modules;
mod packages;
mod sources;

use std::time::Instant;

use crate::step::Report;
use crate::workspace::Workspace;

pub use floors::print as print_arrows;

/// One line for each fault; the error is for what could not be looked at.
type Faults = anyhow::Result<Vec<String>>;
type Check = (&'static str, fn(&Workspace) -> Faults);

pub fn run(workspace: &Workspace, report: &mut Report) {
    let checks: [Check; 6] = [
        ("tidy: direction of crates", arrows::check),
        ("tidy: floors inside a crate", floors::check),
        ("tidy: shape of a backend", backends::check),
        ("tidy: conformance map", conformance::check),
        ("tidy: packages", packages::check),
        ("tidy: sources", sources::check),
    ];
    for (name, check) in checks {
        let start = Instant::now();
        let faults = check(workspace).unwrap_or_else(|error| vec![format!("{error:#}")]);
        report.check(name, &faults, start);
    }
}
