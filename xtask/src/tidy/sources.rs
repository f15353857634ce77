//! The names and contents of files: modules, forbidden words, the width of text, unsafe code, output of libraries.

use std::fs;
use std::path::Path;

use super::Faults;
use crate::tables::{FORCED, LONG_SEEDS, PRINTING_FILES, UNSAFE_FILES};
use crate::workspace::{Workspace, files};

/// Words of a developer's machine or of unfinished work. Each is in two parts, so that this file does not contain it.
const FORBIDDEN: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("TO", "DO"), concat!("FIX", "ME")];

/// The greatest width of a line of text, which is rustfmt's for code.
const WIDTH: usize = 120;

/// The macros that print. A library reports through the report stream instead.
const PRINTING: &[&str] = &["println!(", "print!(", "eprintln!(", "eprint!(", "dbg!("];

pub fn check(workspace: &Workspace) -> Faults {
    let mut faults = Vec::new();
    let mut unread: Vec<&str> = FORCED.iter().map(|forced| forced.variable).chain([LONG_SEEDS.0]).collect();
    unread.dedup();
    for file in files(&workspace.root)? {
        // A binary file is not searched.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let name = workspace.relative(&file).to_string_lossy().into_owned();
        faults.extend(word_faults(&name, &text));
        faults.extend(module_fault(&name));
        faults.extend(width_faults(&name, &text));
        if name.starts_with("crates") && name.ends_with(".rs") {
            unread.retain(|variable| !text.contains(variable));
        }
        if is_library_source(Path::new(&name)) {
            faults.extend(unsafe_faults(&name, &text));
            if !PRINTING_FILES.contains(&name.as_str()) {
                faults.extend(printing_faults(&name, &text));
            }
        }
    }
    // If no crate reads the variable, a step that sets it tests the usual path under the name of the forced one.
    faults.extend(unread.iter().map(|variable| format!("{variable}: set by xtask, read by no crate")));
    for &name in UNSAFE_FILES {
        if !workspace.root.join(name).exists() {
            faults.push(format!("{name}: is on the list of files with unsafe code and does not exist"));
        }
    }
    Ok(faults)
}

/// Returns whether `file` is part of a library. A file of unit tests is not.
fn is_library_source(file: &Path) -> bool {
    let in_src = file.components().any(|part| part.as_os_str() == "src");
    let is_rust = file.extension().is_some_and(|extension| extension == "rs");
    file.starts_with("crates") && in_src && is_rust && file.file_name().is_some_and(|name| name != "tests.rs")
}

/// The front file of a module `x` with child modules is `x.rs` beside the folder `x`. Tests and examples cannot do
/// that: cargo would take the front file for a program.
fn module_fault(name: &str) -> Option<String> {
    (name.contains("src/") && name.ends_with("/mod.rs"))
        .then(|| format!("{name}: put it beside its folder, as `NAME.rs`"))
}

fn word_faults(name: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let found =
        lines.filter_map(|(number, line)| Some((number + 1, *FORBIDDEN.iter().find(|&&word| line.contains(word))?)));
    found.map(|(number, word)| format!("{name}:{number}: `{word}` has no place here")).collect()
}

fn width_faults(name: &str, text: &str) -> Vec<String> {
    let wide = wrappable(name, text).filter(|(_, line)| line.chars().count() > WIDTH);
    wide.map(|(number, _)| format!("{name}:{number}: wider than {WIDTH} columns")).collect()
}

/// Returns the lines of text that can be wrapped, with their numbers: comments in Rust, and text in Markdown. Rows of
/// tables and the targets of links cannot be wrapped.
fn wrappable<'a>(name: &str, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let (is_rust, is_markdown) = (name.ends_with(".rs"), name.ends_with(".md"));
    let mut in_code = false;
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines.filter(move |(_, line)| {
        let text = if is_rust { line.trim_start().strip_prefix("//") } else { is_markdown.then_some(*line) };
        let Some(text) = text else { return false };
        in_code ^= is_markdown && text.trim_start().starts_with("```");
        let text = text.trim_start_matches(['/', '!']).trim_start();
        !(in_code || text.starts_with('|') || text.starts_with('[') && text.contains("]: "))
    })
}

fn unsafe_faults(name: &str, text: &str) -> Vec<String> {
    let listed = UNSAFE_FILES.contains(&name);
    let has = holds_unsafe(text);
    let head: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
    match (has, listed) {
        (true, false) => vec![format!("{name}: unsafe code in a file that is not on the list in xtask/src/tables.rs")],
        (false, true) => vec![format!("{name}: is on the list of files with unsafe code and holds none")],
        (true, true) if !head.contains("Ground rule") => {
            vec![format!("{name}: holds unsafe code and does not open with its ground rules")]
        }
        _ => Vec::new(),
    }
}

fn printing_faults(name: &str, text: &str) -> Vec<String> {
    let lines = code_lines(text).filter(|(_, line)| PRINTING.iter().any(|call| calls(line, call)));
    lines.map(|(number, _)| format!("{name}:{number}: a library prints nothing")).collect()
}

/// Returns whether `line` has `call` as a whole word.
fn calls(line: &str, call: &str) -> bool {
    line.match_indices(call)
        .any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

fn holds_unsafe(text: &str) -> bool {
    code_lines(text).any(|(_, line)| {
        line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|word| word == "unsafe")
    })
}

/// Returns the lines with their numbers, without comments and without the unit tests at the end.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("mod tests {"));
    code.map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_in_comments_lints_and_tests_does_not_count() {
        assert!(!holds_unsafe("#![forbid(unsafe_code)]\n// an unsafe remark\nfn unsafe_looking() {}\n"));
        assert!(!holds_unsafe("#[cfg(test)]\nmod tests {\n    unsafe fn a() {}\n}\n"));
        assert!(holds_unsafe("#[cfg(test)]\nmod tests;\n\nfn a() {\n    unsafe { b() }\n}\n"));
    }

    #[test]
    fn wide_text_is_a_fault_where_it_can_be_wrapped() {
        let wide = "x ".repeat(WIDTH);
        let found = |name: &str, line: String| !width_faults(name, &line).is_empty();
        assert!(found("a.rs", format!("    // {wide}")) && found("a.rs", format!("//! {wide}")));
        assert!(found("a.md", wide.clone()) && found("a.md", format!("- {wide}")));
        assert!(!found("a.rs", format!("const A: &str = \"{wide}\";")) && !found("a.toml", wide.clone()));
        assert!(!found("a.rs", format!("/// | {wide} |")) && !found("a.rs", format!("/// [`A`]: https://{wide}")));
        assert!(!found("a.md", format!("```sh\n{wide}\n```")));
        assert_eq!(width_faults("a.md", &format!("```\na\n```\n{wide}")), ["a.md:4: wider than 120 columns"]);
        assert!(!found("a.md", "ä".repeat(WIDTH)), "a column is a character");
    }

    #[test]
    fn a_module_of_a_crate_stands_beside_its_folder() {
        assert!(module_fault("xtask/src/tidy/mod.rs").is_some());
        assert!(module_fault("xtask/src/tidy.rs").is_none());
        assert!(module_fault("crates/greenhub/tests/it/support/mod.rs").is_none());
    }

    #[test]
    fn unsafe_code_needs_a_place_on_the_list() {
        assert_eq!(unsafe_faults("crates/hub-core/src/new.rs", "unsafe fn a() {}\n").len(), 1);
    }

    #[test]
    fn unsafe_code_needs_ground_rules() {
        let listed = UNSAFE_FILES[0];
        assert_eq!(unsafe_faults(listed, "//! The table.\nunsafe fn a() {}\n").len(), 1);
        assert!(unsafe_faults(listed, "//! The table.\n//!\n//! Ground rules:\nunsafe fn a() {}\n").is_empty());
        assert_eq!(unsafe_faults(listed, "fn a() {}\n").len(), 1);
    }

    #[test]
    fn printing_is_a_fault_outside_comments_and_tests() {
        let text = "/// println!(\"doc\");\nfn a() { eprintln!(\"x\"); }\n#[cfg(test)]\nmod tests { fn b() { println!(); } }\n";
        assert_eq!(printing_faults("a.rs", text), ["a.rs:2: a library prints nothing"]);
    }

    #[test]
    fn forbidden_words_are_named_with_their_line() {
        let text = format!("fine\nsee {}x\n", FORBIDDEN[0]);
        assert!(word_faults("a.md", &text)[0].starts_with("a.md:2:"));
    }
}
