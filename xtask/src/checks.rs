//! What `ci` asks beside the tests.

use std::process::Command;

use crate::step::Report;
use crate::tables::{FEATURE_LISTS, FEATURE_TESTS, HUBS};
use crate::test::{buildable, lacking, missing};
use crate::workspace::Workspace;

/// The example that is run with `panic = "abort"`.
const ABORT_EXAMPLE: &str = "panic_abort";

pub fn fmt(workspace: &Workspace, report: &mut Report) {
    let mut command = workspace.cargo();
    command.args(["fmt", "--all", "--check"]);
    report.run("fmt", command);
}

pub fn clippy(workspace: &Workspace, report: &mut Report) {
    let mut command = workspace.cargo();
    command.args(["clippy", "--workspace", "--all-targets"]);
    exclude(&mut command);
    // What is compiled with a feature only.
    for (feature, _) in FEATURE_TESTS {
        command.args(["--features", &format!("greenhub/{feature}")]);
    }
    command.args(["--", "-D", "warnings"]);
    report.run("clippy", command);
}

pub fn doc(workspace: &Workspace, report: &mut Report) {
    let mut command = workspace.cargo();
    command.args(["doc", "--workspace", "--exclude", "xtask", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings");
    exclude(&mut command);
    report.run("doc", command);
}

/// Leaves out what cannot be built here.
fn exclude(command: &mut Command) {
    for package in lacking() {
        command.args(["--exclude", package]);
    }
}

/// Builds the facade with every list of features that is promised.
pub fn features(workspace: &Workspace, report: &mut Report) {
    for hub in HUBS {
        if let Some(why) = missing(hub) {
            report.skip(format!("features: {}", hub.name), why);
        }
    }
    for list in feature_lists() {
        let mut command = workspace.cargo();
        command.args(["check", "-p", "greenhub", "--lib", "--no-default-features", "--features", &list]);
        let name = if list.is_empty() { "none".to_owned() } else { list };
        report.run(format!("features: {name}"), command);
    }
    let mut command = workspace.cargo();
    command.args(["check", "-p", "greenhub", "--lib"]);
    report.run("features: the default", command);
}

/// None, each hub alone, and [`FEATURE_LISTS`], as far as they can be built here.
fn feature_lists() -> Vec<String> {
    let none = std::iter::once(String::new());
    let alone = buildable().map(|hub| hub.name.to_owned());
    let lacking = |name: &&str| HUBS.iter().any(|hub| hub.name == *name) && !buildable().any(|hub| hub.name == *name);
    let together = FEATURE_LISTS.iter().filter(move |list| !list.iter().any(lacking));
    let together = together.map(|list| list.join(","));
    none.chain(alone).chain(together).collect()
}

/// Tests cannot be built to abort with a stable compiler, an example can: it checks itself and says so by its exit status.
pub fn abort(workspace: &Workspace, report: &mut Report) {
    let mut command = workspace.cargo();
    command.args(["run", "--profile", "abort", "-p", "greenhub", "--example", ABORT_EXAMPLE]);
    report.run("panic = \"abort\"", command);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hub_is_built_alone_and_the_facade_without_any() {
        let lists = feature_lists();
        assert!(lists.contains(&String::new()));
        assert!(buildable().all(|hub| lists.iter().any(|list| list == hub.name)));
    }
}
