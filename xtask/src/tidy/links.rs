//! The links in Markdown: a link to a file of the repository names one that exists, and a heading that it has.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::Faults;
use crate::workspace::{Workspace, files};

/// The addresses at which the files of the repository are found, for links from the built guide and from packages.
const REPOSITORY: [&str; 2] =
    ["https://github.com/greenhub/greenhub/blob/main/", "https://github.com/greenhub/greenhub/tree/main/"];

pub fn check(workspace: &Workspace) -> Faults {
    let files = files(&workspace.root)?;
    let chapters = files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    let mut texts: HashMap<PathBuf, String> = HashMap::new();
    for file in chapters {
        // The path of a symbolic link is that of its target, where the links begin.
        let file = file.canonicalize()?;
        texts.insert(file.clone(), fs::read_to_string(&file)?);
    }
    let root = workspace.root.canonicalize()?;
    let mut faults = Vec::new();
    for (file, text) in &texts {
        let name = file.strip_prefix(&root).unwrap_or(file).display();
        for (line, target) in links(text) {
            if let Some(fault) = fault(&root, file, target, &texts) {
                faults.push(format!("{name}:{line}: `{target}`: {fault}"));
            }
        }
    }
    faults.sort();
    Ok(faults)
}

/// Returns what is wrong with a link in `file`. A link to another site is not followed.
fn fault(root: &Path, file: &Path, target: &str, texts: &HashMap<PathBuf, String>) -> Option<&'static str> {
    let (path, heading) = target.split_once('#').map_or((target, None), |(path, heading)| (path, Some(heading)));
    let path = match REPOSITORY.iter().find_map(|address| path.strip_prefix(address)) {
        Some(inside) => root.join(inside),
        None if path.contains("://") || path.starts_with("mailto:") => return None,
        None if path.is_empty() => file.to_owned(),
        None => file.parent().unwrap_or(root).join(path),
    };
    let path = without_dots(&path);
    if !path.exists() {
        return Some("there is no such file");
    }
    let text = texts.get(&path.canonicalize().unwrap_or(path));
    match (heading, text) {
        (Some(heading), Some(text)) if !headings(text).iter().any(|it| it == heading) => {
            Some("there is no such heading")
        }
        _ => None,
    }
}

/// Resolves the `..` of a path by its text, as a browser does.
fn without_dots(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut whole, part| {
        match part {
            Component::ParentDir => drop(whole.pop()),
            Component::CurDir => {}
            part => whole.push(part),
        }
        whole
    })
}

/// Returns the targets of the links in `text` with their lines. Links in code are none.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let definition =
            line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target.trim());
        let inline = line.match_indices("](").filter(|&(at, _)| !is_in_code(line, at)).filter_map(|(at, _)| {
            let rest = &line[at + 2..];
            Some(&rest[..rest.find(')')?])
        });
        let targets = definition.into_iter().chain(inline);
        // rustdoc resolves the paths of items.
        found.extend(targets.filter(|target| !target.contains("::")).map(|target| (number, target)));
    }
    found
}

/// Returns the identifiers that GitHub and mdBook give to the headings of `text`.
fn headings(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, line) in prose(text) {
        let Some(title) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')) else { continue };
        let Some(title) = title.strip_prefix(' ') else { continue };
        let kept = title.trim().chars().filter(|&it| it.is_alphanumeric() || " _-".contains(it));
        let identifier: String = kept.flat_map(char::to_lowercase).map(|it| if it == ' ' { '-' } else { it }).collect();
        let earlier =
            found.iter().filter(|it| it.trim_end_matches(|it: char| it.is_ascii_digit() || it == '-') == identifier);
        let number = earlier.count();
        found.push(if number == 0 { identifier } else { format!("{identifier}-{number}") });
    }
    found
}

/// Returns the lines outside of code blocks with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().map(|(number, line)| (number + 1, line)).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// Returns whether the place `at` of `line` is between backticks.
fn is_in_code(line: &str, at: usize) -> bool {
    line[..at].matches('`').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_prose_are_found_and_links_in_code_are_not() {
        let text = "a [b](c.md#d), ![e](f.svg)\n`[g](h)` [`i`](j.md)\n```rust\n[k](l.md)\n```\n[m]: n.md\n[o](p::Q)\n";
        assert_eq!(links(text), [(1, "c.md#d"), (1, "f.svg"), (2, "j.md"), (6, "n.md")]);
    }

    #[test]
    fn a_heading_is_known_by_its_words() {
        let text = "# What `a` is, or isn't\n## Same\n## Same\n```sh\n# no heading\n```\n#hash\n";
        assert_eq!(headings(text), ["what-a-is-or-isnt", "same", "same-1"]);
    }

    #[test]
    fn a_missing_file_and_a_missing_heading_are_faults() {
        let root = Workspace::load().unwrap().root.canonicalize().unwrap();
        let here = root.join("docs/design.md");
        let texts =
            HashMap::from([(root.join("README.md"), "# One\n".to_owned()), (here.clone(), "# Two\n".to_owned())]);
        let fault = |target| fault(&root, &here, target, &texts);
        assert_eq!(fault("../README.md"), None);
        assert_eq!(fault("../README.md#one"), None);
        assert_eq!(fault("#two"), None);
        assert_eq!(fault("https://example.org/none"), None);
        assert_eq!(fault("https://github.com/greenhub/greenhub/blob/main/README.md#one"), None);
        assert!(fault("README.md").is_some() && fault("../README.md#two").is_some() && fault("#one").is_some());
        assert!(fault("https://github.com/greenhub/greenhub/blob/main/none.md").is_some());
    }
}
