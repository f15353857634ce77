//! The dependencies between crates: each crate depends only on those that the table allows. A program that depends on
//! the facade alone builds few crates.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::Faults;
use crate::tables::{BACKEND_DEPENDENCIES, DEPENDENCIES, FACADE_CRATES, HUBS};
use crate::workspace::{Package, Workspace};

pub fn check(workspace: &Workspace) -> Faults {
    let ours: Vec<&str> = workspace.packages.iter().map(|package| package.name.as_str()).collect();
    let mut faults: Vec<String> = workspace.packages.iter().flat_map(|package| faults_of(package, &ours)).collect();
    for hub in HUBS {
        let facade = workspace.package("greenhub");
        if facade.is_none_or(|facade| !facade.features.iter().any(|feature| feature == hub.name)) {
            faults.push(format!("greenhub has no feature `{}`", hub.name));
        }
        if workspace.package(hub.package).is_none() {
            faults.push(format!("there is no crate `{}`", hub.package));
        }
    }
    let built = crates_of_facade(workspace)?;
    if built > FACADE_CRATES {
        faults.push(format!("greenhub alone builds {built} crates, but FACADE_CRATES allows {FACADE_CRATES}"));
    }
    Ok(faults)
}

/// Returns the number of crates that the facade needs with its default features, itself included.
fn crates_of_facade(workspace: &Workspace) -> Result<usize> {
    let mut command = workspace.cargo();
    command.args(["tree", "-p", "greenhub", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    let output = command.output().context("cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8_lossy(&output.stdout);
    // A crate that is listed again may have a mark at the end of its line.
    let names = listed.lines().filter_map(|line| line.split_once(' ').map(|(name, _)| name));
    Ok(names.collect::<BTreeSet<&str>>().len())
}

fn faults_of(package: &Package, ours: &[&str]) -> Vec<String> {
    let Some((normal, dev)) = allowed(&package.name) else {
        return vec![format!("{}: xtask/src/tables.rs lists no allowed dependencies of this crate", package.name)];
    };
    let wrong = package.dependencies.iter().filter(|dependency| {
        let named = |list: &[&str]| {
            list.contains(&dependency.name.as_str()) || (list.contains(&"*") && is_backend(&dependency.name))
        };
        ours.contains(&dependency.name.as_str()) && !named(normal) && !(dependency.dev && named(dev))
    });
    wrong.map(|dependency| format!("{} must not depend on {}", package.name, dependency.name)).collect()
}

fn allowed(package: &str) -> Option<(&'static [&'static str], &'static [&'static str])> {
    let own = DEPENDENCIES.iter().find(|allowed| allowed.package == package);
    own.map(|allowed| (allowed.normal, allowed.dev)).or_else(|| is_backend(package).then_some(BACKEND_DEPENDENCIES))
}

fn is_backend(package: &str) -> bool {
    HUBS.iter().any(|hub| hub.package == package)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    const OURS: &[&str] = &["hub-core", "hub-epoll", "hub-testkit", "greenstd", "greenhub"];

    fn package(name: &str, dependencies: &[(&str, bool)]) -> Package {
        let dependencies = dependencies.iter().map(|&(name, dev)| Dependency { name: name.to_owned(), dev }).collect();
        Package { name: name.to_owned(), folder: "crates".into(), features: Vec::new(), dependencies }
    }

    #[test]
    fn a_listed_dependency_is_allowed() {
        assert!(
            faults_of(&package("greenhub", &[("hub-epoll", false), ("greenstd", false), ("libc", false)]), OURS)
                .is_empty()
        );
        assert!(faults_of(&package("hub-epoll", &[("hub-core", false), ("hub-testkit", true)]), OURS).is_empty());
    }

    #[test]
    fn a_dependency_on_a_higher_crate_or_a_sibling_is_a_fault() {
        assert_eq!(faults_of(&package("hub-core", &[("greenstd", false)]), OURS).len(), 1);
        assert_eq!(faults_of(&package("hub-epoll", &[("greenhub", true)]), OURS).len(), 1);
        assert_eq!(faults_of(&package("greenstd", &[("hub-epoll", true)]), OURS).len(), 1);
    }

    #[test]
    fn a_dev_dependency_is_not_allowed_as_a_normal_one() {
        assert_eq!(faults_of(&package("hub-epoll", &[("hub-testkit", false)]), OURS).len(), 1);
    }

    #[test]
    fn an_unknown_crate_is_a_fault() {
        assert_eq!(faults_of(&package("newcomer", &[]), OURS).len(), 1);
    }
}
