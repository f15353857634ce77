//! The shape of a backend: the same files in the same order, so that a diff of two backends shows their differences
//! only.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::Faults;
use crate::tables::{HUBS, Hub, UNSAFE_FILES};
use crate::workspace::{Workspace, files};

/// The limit of lines. If a backend needs more, the trait asks too much of it.
const LONGEST_HUB: usize = 350;

/// The words before the type of a hub.
const CONTRACT: &str = " Hub for ";

/// The files of each hub's crate.
const NEEDED: &[&str] = &["src/hub.rs", "src/lib.rs", "tests/conformance.rs"];
/// The source files of a backend.
const SOURCES: &[&str] = &["src/convert.rs", "src/hub.rs", "src/lib.rs"];

pub fn check(workspace: &Workspace) -> Faults {
    let contract = workspace.root.join("crates/hub-core/src/hub/contract.rs");
    let contract = fs::read_to_string(&contract).with_context(|| contract.display().to_string())?;
    let order = functions(block(&contract, "pub trait Hub {"));
    let mut faults = Vec::new();
    for hub in HUBS {
        let Some(package) = workspace.package(hub.package) else { continue };
        let there = files(&package.folder)?;
        let there: Vec<&Path> = there.iter().filter_map(|file| file.strip_prefix(&package.folder).ok()).collect();
        faults.extend(file_faults(hub, &there));
        let text = |file: &str| fs::read_to_string(package.folder.join(file)).unwrap_or_default();
        faults.extend(lib_faults(hub, &text("src/lib.rs")));
        faults.extend(hub_faults(hub, &text("src/hub.rs"), &order));
    }
    Ok(faults)
}

fn file_faults(hub: &Hub, there: &[&Path]) -> Vec<String> {
    let own: &[&str] = if hub.drives_runtime { &[] } else { SOURCES };
    let needed: BTreeSet<&str> = NEEDED.iter().chain(own).copied().collect();
    let missing = needed.iter().filter(|&&file| !there.contains(&Path::new(file)));
    let missing = missing.map(|file| format!("{}: {file} is missing", hub.package));
    let is_known = |file: &Path| {
        let unsafe_code =
            UNSAFE_FILES.iter().filter_map(|&name| name.strip_prefix("crates/")?.strip_prefix(hub.package));
        let unsafe_code = unsafe_code.map(|name| name.trim_start_matches('/'));
        SOURCES.iter().copied().chain(unsafe_code).any(|name| Path::new(name) == file)
    };
    let foreign = there.iter().filter(|file| !hub.drives_runtime && file.starts_with("src") && !is_known(file));
    let foreign = foreign.map(|file| format!("{}: {} is no file of a backend", hub.package, file.display()));
    missing.chain(foreign).collect()
}

fn lib_faults(hub: &Hub, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut need = |holds: bool, fault: &str| {
        if !holds {
            faults.push(format!("{}: src/lib.rs {fault}", hub.package));
        }
    };
    let mut head = text.lines().take_while(|line| line.starts_with("//!") || line.is_empty());
    need(head.any(is_first_quirk), "opens without lettered quirks of the system call");
    need(hub.drives_runtime || text.contains(": HubDescriptor"), "has no `DESCRIPTOR`");
    need(!hub.forbids_unsafe || text.contains("#![forbid(unsafe_code)]"), "does not forbid unsafe code");
    faults
}

/// Returns whether `line` begins the list of quirks, such as `//! (a) It is slow.`
fn is_first_quirk(line: &str) -> bool {
    let text = line.trim_start_matches("//!").trim_start_matches([' ', '-', '*', '(']);
    ["a) ", "a. ", "A) ", "A. "].iter().any(|letter| text.replace("**", "").starts_with(letter))
}

fn hub_faults(hub: &Hub, text: &str, order: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST_HUB {
        faults.push(format!("{}: src/hub.rs has {lines} lines, more than {LONGEST_HUB}", hub.package));
    }
    let contract = text.lines().find(|line| line.starts_with("impl") && line.contains(CONTRACT));
    let Some((opening, state)) = contract.and_then(|line| Some((line, line.split(CONTRACT).nth(1)?))) else {
        return vec![format!("{}: src/hub.rs has no `impl Hub for`", hub.package)];
    };
    let state = state.split([' ', '<']).next().unwrap_or_default();
    let mut last = Section::State;
    for (number, line) in text.lines().enumerate() {
        let Some(section) = Section::of(line, state, last) else { continue };
        if section < last {
            faults.push(format!("{}: src/hub.rs:{}: {section:?} after {last:?}", hub.package, number + 1));
        }
        last = last.max(section);
    }
    let own: Vec<String> = functions(block(text, opening));
    let mut rest = order.iter();
    if let Some(function) = own.iter().find(|&function| !rest.any(|name| name == function)) {
        faults.push(format!("{}: src/hub.rs: `{function}` is out of the order of the trait", hub.package));
    }
    faults
}

/// The sections of `hub.rs`, in their order.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Section {
    State,
    Inherent,
    Contract,
    OtherTraits,
    Helpers,
    Tests,
}

impl Section {
    /// Returns the section of an item at the left margin, where `last` is the section before it. Implementations for
    /// types other than the hub, `state`, may stand in any section.
    fn of(line: &str, state: &str, last: Section) -> Option<Section> {
        let item = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
        let mut words = item.split([' ', '<', '(']);
        match words.next()? {
            "struct" if words.next() == Some(state) => Some(Section::State),
            "impl" if item.trim_end_matches(" {").rsplit(' ').next()?.split('<').next()? != state => None,
            "impl" if item.contains(CONTRACT) => Some(Section::Contract),
            "impl" if item.contains(" for ") => Some(Section::OtherTraits),
            "impl" if last < Section::Contract => Some(Section::Inherent),
            "impl" | "fn" => Some(Section::Helpers),
            "mod" => Some(Section::Tests),
            _ => None,
        }
    }
}

/// Returns the lines from the one that starts with `opening` to the next `}` at the left margin.
fn block<'a>(text: &'a str, opening: &str) -> &'a str {
    let start = text.find(&format!("\n{opening}")).map_or(text.len(), |at| at + 1);
    let rest = &text[start..];
    &rest[..rest.find("\n}").unwrap_or(rest.len())]
}

/// Returns the names of the functions that are indented by one step.
fn functions(block: &str) -> Vec<String> {
    let heads = block.lines().filter_map(|line| line.strip_prefix("    fn "));
    heads.filter_map(|head| Some(head.split(['(', '<']).next()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::DEFAULT_HUB;

    const HUB: Hub = Hub { name: "mine", package: "hub-mine", runs_here: false, ..DEFAULT_HUB };
    const GOOD: &str = "\
//! Mine.

const MAX: usize = 64;

/// State.
pub struct MyHub {}

impl MyHub {
    pub fn new() -> MyHub {
        MyHub {}
    }
}

impl Hub for MyHub {
    fn name(&self) -> &'static str {
        \"mine\"
    }
    fn wait(&mut self) {}
}

impl Drop for MyHub {
    fn drop(&mut self) {}
}

fn helper() {}
";

    fn faults(text: &str) -> Vec<String> {
        hub_faults(&HUB, text, &["name", "rearm", "wait"].map(str::to_owned))
    }

    #[test]
    fn the_right_order_has_no_fault() {
        assert_eq!(faults(GOOD), Vec::<String>::new());
    }

    #[test]
    fn a_helper_before_the_contract_is_a_fault() {
        let early = faults(&GOOD.replace("impl MyHub {", "fn early() {}\n\nimpl MyHub {"));
        assert!(early[0].ends_with("Contract after Helpers"), "{early:?}");
    }

    #[test]
    fn other_types_and_private_functions_of_the_hub_have_their_places() {
        let more = GOOD.replace("/// State.", "pub struct Choice;\n\nimpl Default for Choice {}\n\n/// State.");
        assert_eq!(faults(&more.replace("fn helper()", "impl MyHub {}\n\nfn helper()")), Vec::<String>::new());
    }

    #[test]
    fn functions_keep_the_order_of_the_trait() {
        let swapped = GOOD.replace("fn name", "fn x").replace("fn wait", "fn name").replace("fn x", "fn wait");
        assert_eq!(faults(&swapped).len(), 1);
    }

    #[test]
    fn a_hub_over_another_one_has_the_same_order() {
        let over = GOOD
            .replace("impl Hub for MyHub {", "impl<H: Hub> Hub for MyHub<H> {")
            .replace("struct MyHub", "struct MyHub<H>");
        assert_eq!(faults(&over), Vec::<String>::new());
        let early = faults(&over.replace("impl MyHub {", "fn early() {}\n\nimpl MyHub {"));
        assert!(early[0].ends_with("Contract after Helpers"), "{early:?}");
        assert_eq!(faults(&over.replace("fn name", "fn other")).len(), 1);
    }

    #[test]
    fn a_long_hub_is_a_fault() {
        assert_eq!(faults(&format!("{GOOD}{}", "\n".repeat(350))).len(), 1);
    }

    #[test]
    fn files_are_those_of_every_backend() {
        let there = ["Cargo.toml", "src/lib.rs", "src/hub.rs", "src/convert.rs", "src/more.rs"].map(Path::new);
        assert_eq!(file_faults(&HUB, &there).len(), 2);
    }

    #[test]
    fn a_hub_that_drives_a_runtime_has_further_files() {
        let hub = Hub { drives_runtime: true, ..HUB };
        let there = ["src/lib.rs", "src/hub.rs", "src/more.rs"].map(Path::new);
        assert_eq!(file_faults(&hub, &there), ["hub-mine: tests/conformance.rs is missing"]);
    }

    #[test]
    fn unsafe_code_has_a_file_of_its_own() {
        let kqueue = HUBS.iter().find(|hub| hub.package == "hub-kqueue").unwrap();
        let there = ["src/lib.rs", "src/hub.rs", "src/convert.rs", "tests/conformance.rs", "src/sys.rs"].map(Path::new);
        assert_eq!(file_faults(kqueue, &there), Vec::<String>::new());
        assert_eq!(file_faults(&HUB, &there).len(), 1);
    }

    #[test]
    fn lib_opens_with_lettered_quirks() {
        let good = "//! Mine.\n//!\n//! (a) It is slow.\n\n#![forbid(unsafe_code)]\n\npub const DESCRIPTOR: HubDescriptor = X;\n";
        assert_eq!(lib_faults(&HUB, good), Vec::<String>::new());
        assert_eq!(lib_faults(&HUB, "//! Mine.\n").len(), 3);
    }
}
