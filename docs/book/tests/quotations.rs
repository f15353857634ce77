//! The quotations of the chapters: the output of their programs, and parts of files of the repository.

#[path = "../code/chapters.rs"]
mod chapters;

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use chapters::{Block, Mark, all_blocks, blocks, copies, whole_programs};

/// Ends a program that does not end by itself.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Variables of the environment that would change what a program prints.
const VARIABLES: &[&str] = &["EVENTLET_HUB", "GREENHUB_BLOCKING", "GREENHUB_HUB", "RUST_BACKTRACE"];

fn chapters() -> Vec<Block> {
    all_blocks(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap()
}

#[test]
fn programs_print_what_the_chapters_quote() {
    let mut faults = Vec::new();
    let (mut programs, mut quoted) = (HashSet::new(), HashSet::new());
    for block in chapters() {
        match block.mark {
            Mark::Program(name) => drop(programs.insert(name)),
            Mark::Output { program, variables } => {
                let printed = output(&program, &variables).unwrap();
                if !matches(&block.text, &printed) {
                    faults.push(format!("{}: `{program}` printed\n{printed}", block.place));
                }
                quoted.insert(program);
            }
            Mark::Excerpt(_) => {}
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(!quoted.is_empty());
    assert_eq!(programs, quoted, "the programs, and those with a quoted output");
}

#[test]
fn each_quoted_text_is_compared() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let unmarked = chapters::files(&folder).unwrap().into_iter().flat_map(|file| {
        let text = fs::read_to_string(&file).unwrap();
        chapters::unmarked(&file.display().to_string(), &text)
    });
    assert_eq!(unmarked.collect::<Vec<_>>(), Vec::<String>::new(), "these texts have no mark");
    assert_eq!(chapters::unmarked("a.md", "<!-- output of: x -->\n```text\n```\n\n```text\n```\n"), ["a.md:5"]);
}

#[test]
fn excerpts_are_parts_of_their_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut excerpts = 0;
    for block in chapters() {
        let Mark::Excerpt(path) = block.mark else { continue };
        let whole = fs::read_to_string(root.join(&path)).unwrap();
        assert!(is_part(&block.text, &whole), "{}: these lines are not in {}", block.place, path.display());
        excerpts += 1;
    }
    assert_ne!(excerpts, 0);
}

#[test]
fn programs_that_a_reader_may_copy_are_found() {
    // The build has compiled them.
    assert!(copies(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().len() > 10);
    let text = "```rust\n# use a::B;\nfn main() {}\n```\n```rust\nf();\n```\n```text\nfn main() {}\n```\n";
    assert_eq!(whole_programs(text), ["fn main() {}\n"]);
}

/// Returns what a program prints on both outputs, with the names of files as in a package of its own.
fn output(program: &str, variables: &[(String, String)]) -> io::Result<String> {
    let (mut reader, writer) = io::pipe()?;
    let limit = variables.iter().find(|(name, _)| name == "ulimit").map(|(_, limit)| limit);
    let mut command = Command::new("sh");
    let start = "if [ -n \"$0\" ]; then ulimit -n \"$0\"; fi; exec \"$1\" \"$2\"";
    command.args(["-c", start, limit.map_or("", String::as_str), env!("CARGO_BIN_EXE_guide-program"), program]);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command.envs(variables.iter().cloned());
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    drop(command); // and its ends of the pipe
    let id = child.id();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let timed_out = is_done.recv_timeout(WATCHDOG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if timed_out {
            let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
        }
        timed_out
    });
    let mut printed = String::new();
    reader.read_to_string(&mut printed)?;
    drop(done);
    assert!(!watchdog.join().unwrap(), "`{program}` does not end; it printed\n{printed}");
    child.wait()?;
    Ok(with_plain_paths(&printed, program))
}

/// Replaces the file that the build has made of the program by `src/main.rs`.
fn with_plain_paths(printed: &str, program: &str) -> String {
    let file = format!("/{program}.rs:");
    let mut plain = String::new();
    let mut rest = printed;
    while let Some(at) = rest.find(&file) {
        let start = rest[..at].rfind(|letter: char| letter.is_whitespace() || "\"(<".contains(letter));
        plain.push_str(&rest[..start.map_or(0, |start| start + 1)]);
        plain.push_str("src/main.rs:");
        rest = &rest[at + file.len()..];
    }
    plain + rest
}

/// Returns whether `printed` is what `quoted` says.
///
/// `…` stands for any text within a line, with the spaces around it. As a line of its own it stands for any lines.
/// Empty lines do not count, because the first one of std's message depends on the compiler.
fn matches(quoted: &str, printed: &str) -> bool {
    let lines = |text| str::lines(text).filter(|line| !line.is_empty()).collect::<Vec<&str>>();
    lines_match(&lines(quoted), &lines(printed))
}

fn lines_match(quoted: &[&str], printed: &[&str]) -> bool {
    match (quoted.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((&"…", others)), _) => (0..=printed.len()).any(|skipped| lines_match(others, &printed[skipped..])),
        (Some((line, others)), Some((first, rest))) => line_matches(line, first) && lines_match(others, rest),
        _ => false,
    }
}

fn line_matches(quoted: &str, printed: &str) -> bool {
    let Some((before, after)) = quoted.split_once('…') else { return quoted == printed };
    let Some(rest) = printed.strip_prefix(before.trim_end()) else { return false };
    (0..=rest.len()).any(|at| rest.is_char_boundary(at) && line_matches(after.trim_start(), &rest[at..]))
}

/// Returns whether the lines of `excerpt` follow each other in `whole`, at any indentation.
fn is_part(excerpt: &str, whole: &str) -> bool {
    let trimmed = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let (excerpt, whole) = (trimmed(excerpt), trimmed(whole));
    !excerpt.is_empty() && whole.windows(excerpt.len()).any(|lines| lines == excerpt)
}

#[test]
fn a_quotation_with_another_word_does_not_match() {
    assert!(matches("one\ntwo\n", "one\ntwo\n"));
    assert!(!matches("one\n", "one\ntwo\n"));
    assert!(!matches("one\ntwo\n", "one\n"));
    assert!(!matches("one\n", "ones\n"));
}

#[test]
fn an_ellipsis_stands_for_text_within_a_line_or_for_lines() {
    assert!(matches("thread 'main' … panicked", "thread 'main' (17) panicked"));
    assert!(matches("thread 'main' … panicked", "\nthread 'main' panicked"));
    assert!(!matches("thread 'main' … panicked", "thread 'main' (17) panicked at"));
    assert!(matches("one\n…\nfour\n", "one\ntwo\nthree\nfour\n") && matches("one\n…\n", "one\n"));
    assert!(!matches("one\n…\nfour\n", "one\ntwo\n"));
}

#[test]
fn places_are_those_of_a_package_of_its_own() {
    assert_eq!(with_plain_paths("at /a/out/x.rs:3:5\n(/b/x.rs:1)", "x"), "at src/main.rs:3:5\n(src/main.rs:1)");
    assert_eq!(with_plain_paths("at /a/y.rs:3:5", "x"), "at /a/y.rs:3:5");
}

#[test]
fn a_mark_needs_a_code_block() {
    assert!(blocks("a.md", "<!-- output of: x -->\ntext\n").is_err());
    assert!(blocks("a.md", "<!-- outputs: x -->\n```text\n```\n").is_err());
    let found = blocks("a.md", "<!-- output of: x A=1 -->\n```text\ny\n```\n").unwrap();
    assert!(matches!(&found[0].mark, Mark::Output { variables, .. } if variables == &[("A".into(), "1".into())]));
    assert_eq!((found[0].place.as_str(), found[0].text.as_str()), ("a.md:1", "y\n"));
}

#[test]
fn an_excerpt_keeps_the_order_of_lines() {
    assert!(is_part("a\n  b\n", "    a\n      b\nc\n"));
    assert!(!is_part("a\nc\n", "a\nb\nc\n") && !is_part("", "a\n"));
}
