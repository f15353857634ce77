//! Functions that panic by themselves: the place in the message has to be the caller's, which `#[track_caller]` does.

use std::fs;

use super::Faults;
use crate::tables::UNTRACKED_PANICS;
use crate::workspace::{Workspace, files};

pub fn check(workspace: &Workspace) -> Faults {
    let mut excepted: Vec<_> = UNTRACKED_PANICS
        .iter()
        .flat_map(|one| one.functions.iter().map(|(file, function)| (*file, *function, one.reason)))
        .collect();
    let mut faults = Vec::new();
    for file in files(&workspace.root)? {
        let name = workspace.relative(&file).to_string_lossy().into_owned();
        if !(name.starts_with("crates/") && name.contains("/src/") && name.ends_with(".rs")) {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        for (line, function) in untracked(&text) {
            let listed = excepted.iter().position(|(file, listed, _)| (*file, *listed) == (&*name, function));
            if listed.map(|index| excepted.remove(index)).is_none() {
                faults.push(format!("{name}:{line}: `{function}` documents a panic and has no `#[track_caller]`"));
            }
        }
    }
    for (file, function, reason) in excepted {
        faults.push(format!("{file}: `{function}` is listed as an untracked panic and is none ({reason})"));
    }
    Ok(faults)
}

/// Returns the public functions that document a panic and lack the attribute, with their lines.
///
/// It reads lines, so it sees the functions that a macro makes, too.
fn untracked(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut panics, mut is_tracked) = (false, false);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if let Some(doc) = line.strip_prefix("///") {
            panics |= doc.trim() == "# Panics";
        } else if line.starts_with("#[") {
            is_tracked |= line.starts_with("#[track_caller]");
        } else if !line.starts_with("//") {
            if let Some(function) = function(line).filter(|_| panics && !is_tracked) {
                found.push((number + 1, function));
            }
            (panics, is_tracked) = (false, false);
        }
    }
    found
}

/// Returns the name of the function that `line` begins, if it may be public. One of a trait has no `pub`.
fn function(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let words = before.split_whitespace();
    let is_head = |word: &str| matches!(word, "pub" | "const" | "async" | "unsafe");
    words.into_iter().all(is_head).then(|| after.split(['(', '<']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_documented_panic_needs_the_attribute() {
        let text = "/// Adds.\n///\n/// # Panics\n///\n/// Always.\n#[must_use]\npub const fn add<T>(one: T) {}\n";
        assert_eq!(untracked(text), [(7, "add")]);
        assert_eq!(untracked(&text.replace("#[must_use]", "#[must_use]\n#[track_caller]")), []);
        assert_eq!(untracked(&text.replace("# Panics", "# Errors")), []);
    }

    #[test]
    fn functions_of_traits_and_macros_count() {
        let panics = "    /// # Panics\n    /// Always.\n";
        assert_eq!(untracked(&format!("impl A for B {{\n{panics}    fn next(&mut self) {{}}\n}}\n")), [(4, "next")]);
        assert_eq!(untracked(&format!("macro_rules! m {{\n{panics}    pub fn lock(&self) {{}}\n}}\n")), [(4, "lock")]);
    }

    #[test]
    fn other_items_are_no_functions() {
        assert_eq!(untracked("/// # Panics\n/// In `drop`.\npub struct Guard;\n\nfn f() {}\n"), []);
        assert_eq!([function("let call: fn (u8) = other;"), function("pub(crate) fn private() {}")], [None, None]);
    }
}
