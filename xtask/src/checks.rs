//! The checks of CI beside the tests.

use std::process::Command;

use anyhow::Result;

use crate::costs;
use crate::returns;
use crate::step::Report;
use crate::tables::{ADAPTER_FEATURES, ADAPTERS, FEATURE_LISTS, FEATURE_TESTS, HUBS, RECIPES};
use crate::test::{buildable, lacking, missing};
use crate::tidy;
use crate::workspace::Workspace;

/// The example that runs with `panic = "abort"`.
const ABORT_EXAMPLE: &str = "panic_abort";

/// Runs every check.
///
/// # Errors
///
/// Returns an error if the program whose costs are counted cannot be built, or a tool does not print its count.
pub fn run(workspace: &Workspace, report: &mut Report) -> Result<()> {
    fmt(workspace, report);
    clippy(workspace, report);
    doc(workspace, report);
    features(workspace, report);
    abort(workspace, report);
    costs::check(workspace, report)?;
    returns::check(workspace, report)?;
    tidy::run(workspace, report);
    Ok(())
}

fn fmt(workspace: &Workspace, report: &mut Report) {
    let mut command = workspace.cargo();
    command.args(["fmt", "--all", "--check"]);
    report.run("fmt", command);
}

fn clippy(workspace: &Workspace, report: &mut Report) {
    let mut command = workspace.cargo();
    command.args(["clippy", "--workspace", "--all-targets"]);
    exclude(&mut command);
    // Some code exists only with a feature.
    for (feature, _) in FEATURE_TESTS {
        command.args(["--features", &format!("greenhub/{feature}")]);
    }
    command.args(["--features", &adapter_features()]);
    command.args(["--", "-D", "warnings"]);
    report.run("clippy", command);
}

fn doc(workspace: &Workspace, report: &mut Report) {
    let mut command = workspace.cargo();
    command.args(["doc", "--workspace", "--exclude", "xtask", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings");
    exclude(&mut command);
    command.args(["--features", &adapter_features()]);
    report.run("doc", command);
}

/// Returns all features of the adapters, as a list for a command that concerns other crates, too.
fn adapter_features() -> String {
    ADAPTER_FEATURES.iter().map(|feature| format!("{ADAPTERS}/{feature}")).collect::<Vec<_>>().join(",")
}

/// Leaves out the crates that cannot be built here, and the one that a full test run checks.
fn exclude(command: &mut Command) {
    for package in lacking().chain([RECIPES]) {
        command.args(["--exclude", package]);
    }
}

/// Checks the facade with every list of features that it promises.
fn features(workspace: &Workspace, report: &mut Report) {
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
    for feature in ADAPTER_FEATURES {
        let mut command = workspace.cargo();
        command.args(["check", "-p", ADAPTERS, "--lib", "--features", feature]);
        report.run(format!("features: {feature}"), command);
    }
}

/// Returns the lists that can be built here: no feature, each hub alone, and [`FEATURE_LISTS`].
fn feature_lists() -> Vec<String> {
    let none = std::iter::once(String::new());
    let alone = buildable().map(|hub| hub.name.to_owned());
    let lacking = |name: &&str| HUBS.iter().any(|hub| hub.name == *name) && !buildable().any(|hub| hub.name == *name);
    let together = FEATURE_LISTS.iter().filter(move |list| !list.iter().any(lacking));
    let together = together.map(|list| list.join(","));
    none.chain(alone).chain(together).collect()
}

/// Runs an example that checks itself, since a stable compiler cannot build tests with `panic = "abort"`.
fn abort(workspace: &Workspace, report: &mut Report) {
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
