//! The guide: its contents, its files and the chapters that are compiled are the same.

use std::collections::BTreeSet;
use std::fs;

use super::Faults;
use crate::workspace::{Workspace, files};

/// The folder of the chapters.
const CHAPTERS: &str = "docs/book/src";

/// The file that names the chapters which rustdoc compiles.
const COMPILED: &str = "docs/book/code/lib.rs";

/// The table of contents, which is no chapter.
const CONTENTS: &str = "SUMMARY.md";

pub fn check(workspace: &Workspace) -> Faults {
    let folder = workspace.root.join(CHAPTERS);
    let contents = fs::read_to_string(folder.join(CONTENTS))?;
    let code = fs::read_to_string(workspace.root.join(COMPILED))?;
    let names =
        files(&folder)?.into_iter().filter_map(|file| Some(file.strip_prefix(&folder).ok()?.to_str()?.to_owned()));
    let present = names.filter(|name| name.ends_with(".md") && name != CONTENTS).collect();
    Ok(faults(&between(&contents, "](", ')'), &between(&code, ": \"", '"'), &present))
}

/// Compares the chapters in the table of contents, those that are compiled, and the files.
fn faults(listed: &BTreeSet<String>, compiled: &BTreeSet<String>, present: &BTreeSet<String>) -> Vec<String> {
    let difference = |one: &BTreeSet<String>, other: &BTreeSet<String>, text: &str| {
        one.difference(other).map(|name| format!("{CHAPTERS}/{name}: {text}")).collect::<Vec<_>>()
    };
    let mut faults = difference(listed, compiled, &format!("is not compiled: {COMPILED} does not name it"));
    faults.extend(difference(present, listed, &format!("is not in {CONTENTS}")));
    faults.extend(difference(compiled, listed, &format!("is compiled and not in {CONTENTS}")));
    faults.extend(difference(listed, present, "does not exist"));
    faults
}

/// Returns the names of Markdown files between `open` and `close`.
fn between(text: &str, open: &str, close: char) -> BTreeSet<String> {
    let starts = text.match_indices(open).map(|(at, _)| &text[at + open.len()..]);
    let names = starts.filter_map(|rest| rest.split(close).next());
    names.filter(|name| name.ends_with(".md")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn chapters_are_found_in_the_contents_and_in_the_code() {
        assert_eq!(between("# Contents\n\n[A](a.md)\n- [B](b.md)\n", "](", ')'), set(&["a.md", "b.md"]));
        assert_eq!(between("chapters! {\n    A: \"a.md\",\n}\n", ": \"", '"'), set(&["a.md"]));
    }

    #[test]
    fn a_chapter_that_lacks_one_of_the_three_is_a_fault() {
        let all = set(&["a.md", "b.md"]);
        let one = set(&["a.md"]);
        assert!(faults(&all, &all, &all).is_empty());
        assert_eq!(faults(&all, &one, &all).len(), 1);
        assert_eq!(faults(&all, &all, &one).len(), 1);
        // Neither in the contents nor needed by the compiler.
        assert_eq!(faults(&one, &all, &all).len(), 2);
    }
}
