//! `docs/conformance.md`: each row of the catalogues has a test that exists, a decision or an area that it waits for.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::Faults;
use crate::workspace::{Workspace, files};

const MAP: &str = "docs/conformance.md";

pub fn check(workspace: &Workspace) -> Faults {
    let text = fs::read_to_string(workspace.root.join(MAP)).context(MAP)?;
    let mut faults = Vec::new();
    let mut seen = HashSet::new();
    for (number, line) in text.lines().enumerate() {
        let mut fault = |what: String| faults.push(format!("{MAP}:{}: {what}", number + 1));
        match row(line) {
            None => {}
            Some(Err(what)) => fault(what),
            Some(Ok(row)) => {
                if !seen.insert(row.id) {
                    fault(format!("{} is there twice", row.id));
                }
                if let Disposition::Tests(paths) = row.disposition {
                    for path in paths.split(", ") {
                        if let Err(what) = find_test(workspace, path.trim_matches('`')) {
                            fault(format!("{}: {what}", row.id));
                        }
                    }
                }
            }
        }
    }
    if seen.is_empty() {
        faults.push(format!("{MAP}: no row was found"));
    }
    Ok(faults)
}

#[derive(PartialEq, Eq, Debug)]
struct Row<'a> {
    id: &'a str,
    disposition: Disposition<'a>,
}

#[derive(PartialEq, Eq, Debug)]
enum Disposition<'a> {
    /// One, or several with commas between.
    Tests(&'a str),
    Decision,
    Later,
}

/// Reads `| ID | behaviour | test: … / decision: … / later: … |`; none if the line is no row of a map.
fn row(line: &str) -> Option<Result<Row<'_>, String>> {
    let inner = line.strip_prefix("| ")?;
    let id = inner.split(" |").next()?.trim();
    if !is_id(id) {
        return None;
    }
    let cells: Vec<&str> = line.trim().trim_matches('|').split(" | ").map(str::trim).collect();
    let [_, behaviour, disposition] = cells.as_slice() else {
        return Some(Err(format!("{id}: a row has three cells, not {}", cells.len())));
    };
    if behaviour.is_empty() {
        return Some(Err(format!("{id}: the behaviour is missing")));
    }
    let disposition = match disposition.split_once(": ") {
        Some(("test", paths)) => Disposition::Tests(paths),
        Some(("decision", why)) if !why.is_empty() => Disposition::Decision,
        Some(("later", area)) if !area.is_empty() => Disposition::Later,
        _ => return Some(Err(format!("{id}: `{disposition}` is none of `test: …`, `decision: …`, `later: …`"))),
    };
    Some(Ok(Row { id, disposition }))
}

/// Such as `EV-HUB-03`, `EV-GT-11a` or `GL-01`.
fn is_id(word: &str) -> bool {
    let parts: Vec<&str> = word.split('-').collect();
    let [letters @ .., number] = parts.as_slice() else { return false };
    !letters.is_empty()
        && letters.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_uppercase()))
        && number.starts_with(|first: char| first.is_ascii_digit())
        && number.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether `crate::module::name` is a test: a function of that name with a test attribute, in `tests/` or `src/` of the
/// crate, or a case of the testkit that the crate's `conformance.rs` instantiates.
fn find_test(workspace: &Workspace, path: &str) -> Result<(), String> {
    let parts: Vec<&str> = path.split("::").collect();
    let [package, modules @ .., name] = parts.as_slice() else { return Err(format!("`{path}` is no path of a test")) };
    let package = workspace.package(package).ok_or_else(|| format!("there is no crate `{package}`"))?;
    if modules.is_empty() {
        return Err(format!("`{path}` names no file"));
    }
    let module: PathBuf = modules.iter().collect();
    let mut places = Vec::new();
    for folder in ["tests", "tests/it", "src"] {
        places.push(package.folder.join(folder).join(&module).with_extension("rs"));
        places.push(package.folder.join(folder).join(&module).join("mod.rs"));
        places.push(package.folder.join(folder).join(&module).join("main.rs"));
    }
    let generated = *modules == ["conformance"];
    if generated && let Some(kit) = workspace.package("hub-testkit") {
        places.extend(files(&kit.folder.join("src")).unwrap_or_default());
    }
    let texts: Vec<String> = places.iter().filter_map(|place| fs::read_to_string(place).ok()).collect();
    if texts.is_empty() {
        return Err(format!("`{path}` is in no file of {}", package.name));
    }
    let found = texts.iter().any(|text| if generated { defines(text, name) } else { tests(text, name) });
    if found { Ok(()) } else { Err(format!("there is no test `{path}`")) }
}

/// Whether `text` has a function of this name.
fn defines(text: &str, name: &str) -> bool {
    line_of(text, name).is_some()
}

/// Whether `text` has a function of this name that is a test: by an attribute right above it, because it is in a
/// `same_as_std!`, which makes tests of all its functions, or because a test of its own harness names it a second time.
fn tests(text: &str, name: &str) -> bool {
    let Some(line) = line_of(text, name) else { return false };
    let above: Vec<&str> = text.lines().take(line).collect();
    let attributes = above.iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with(['#', '/']));
    let marked = attributes.filter(|line| line.starts_with("#[")).any(|line| line.contains("test"));
    let outside = above.iter().rev().find(|line| !line.is_empty() && !line.starts_with([' ', '#', '/']));
    let compared = text.lines().nth(line).is_some_and(|line| line.starts_with("    fn "))
        && outside.is_some_and(|line| line.starts_with("same_as_std! {"));
    marked || compared || (!text.contains("#[test]") && words(text).filter(|&word| word == name).count() > 1)
}

fn line_of(text: &str, name: &str) -> Option<usize> {
    text.lines().position(|line| {
        let code = line.trim_start();
        let code = code.strip_prefix("pub ").unwrap_or(code);
        code.strip_prefix("fn ").is_some_and(|rest| words(rest).next() == Some(name))
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disposition(line: &str) -> Disposition<'_> {
        row(line).unwrap().unwrap().disposition
    }

    #[test]
    fn rows_are_read() {
        assert_eq!(
            disposition("| EV-HUB-03 | No hub yet. | test: greenhub::hubs::none_yet |"),
            Disposition::Tests("greenhub::hubs::none_yet")
        );
        assert_eq!(disposition("| GL-41 | Typed. | decision: the compiler refuses |"), Disposition::Decision);
        assert_eq!(disposition("| EV-GT-11a | Links. | later: pools |"), Disposition::Later);
    }

    #[test]
    fn headings_and_other_tables_are_no_rows() {
        assert_eq!(row("| Row | Behaviour | Where |"), None);
        assert_eq!(row("|---|---|---|"), None);
        assert_eq!(row("EV-HUB-03 is a row."), None);
    }

    #[test]
    fn a_row_without_a_disposition_is_a_fault() {
        assert!(row("| EV-HUB-03 | No hub yet. | soon |").unwrap().is_err());
        assert!(row("| EV-HUB-03 | No hub yet. |").unwrap().is_err());
        assert!(row("| EV-HUB-03 | | test: a::b::c |").unwrap().is_err());
    }

    #[test]
    fn a_test_is_a_function_with_its_attribute() {
        let text = "#[test]\n/// Why.\n#[ignore = \"slow\"]\nfn counts_up() {}\n\nfn helper() {}\n";
        assert!(tests(text, "counts_up"));
        assert!(!tests(text, "helper"));
        assert!(!tests(text, "counts"));
    }

    #[test]
    fn what_is_compared_with_std_is_a_test() {
        let text = "same_as_std! {\n    fn reads() {\n        fn inner() {}\n    }\n\n    fn writes() {}\n}\n\nimpl A {\n    fn helper() {}\n}\n#[test]\nfn a() {}\n";
        assert!(tests(text, "reads") && tests(text, "writes"));
        assert!(!tests(text, "inner") && !tests(text, "helper"));
    }

    #[test]
    fn a_harness_of_its_own_names_its_tests_twice() {
        let text = "fn main() {\n    run(\"a\", child_works);\n}\nfn child_works() {}\nfn unused() {}\n";
        assert!(tests(text, "child_works"));
        assert!(!tests(text, "unused"));
    }
}
