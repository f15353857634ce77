//! Checks that backends and the testkit import nothing but the contract of a hub from hub-core.

use std::fs;

use anyhow::Context;

use super::Faults;
use super::paths::each_path;
use crate::tables::{CONTRACT, HUBS};
use crate::workspace::{Workspace, files};

const TESTKIT: &str = "hub-testkit";

pub fn check(workspace: &Workspace) -> Faults {
    let mut faults = Vec::new();
    let Some(contract) = CONTRACT else { return Ok(faults) };
    for name in HUBS.iter().filter(|hub| !hub.drives_runtime).map(|hub| hub.package).chain([TESTKIT]) {
        let package = workspace.package(name).with_context(|| format!("there is no crate `{name}`"))?;
        for file in
            files(&package.folder.join("src"))?.iter().filter(|file| file.extension().is_some_and(|it| it == "rs"))
        {
            let name = workspace.relative(file).display().to_string();
            let text = fs::read_to_string(file).with_context(|| name.clone())?;
            let parsed = syn::parse_file(&text).with_context(|| name.clone())?;
            faults.extend(faults_of(&name, &parsed, contract));
        }
    }
    Ok(faults)
}

fn faults_of(name: &str, file: &syn::File, contract: &str) -> Vec<String> {
    let mut faults = Vec::new();
    each_path(file, |_, path, place| {
        if path[0] == "hub_core" && path[1] != contract {
            let (line, path) = (place.span().start().line, path.join("::"));
            faults.push(format!("{name}:{line}: `{path}` is not of `hub_core::{contract}`, the contract of a hub"));
        }
    });
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        faults_of("hub.rs", &syn::parse_file(text).unwrap(), "hub")
    }

    #[test]
    fn imports_of_the_contract_and_of_other_crates_are_allowed() {
        assert_eq!(faults("use hub_core::hub::{Hub, Interest}; use std::io; use hub_core::hub;"), [""; 0]);
        assert_eq!(faults("#[cfg(test)] mod tests { use hub_core::spawn; }"), [""; 0]);
    }

    #[test]
    fn every_other_path_into_the_core_is_a_fault() {
        assert_eq!(
            faults("use hub_core::{\n hub::Hub,\n Interest,\n};"),
            ["hub.rs:3: `hub_core::Interest` is not of `hub_core::hub`, the contract of a hub"]
        );
        assert_eq!(faults("fn f() { hub_core::spawn(|| {}); assert!(hub_core::has_hub()); }").len(), 2);
        assert_eq!(faults("use hub_core::{self as core, sleep};").len(), 1);
    }
}
