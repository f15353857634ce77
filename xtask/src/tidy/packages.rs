//! The packages: each has a licence, a README and a section for docs.rs, and includes no file from outside of its
//! folder.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;

use super::Faults;
use crate::workspace::{Workspace, files};

/// The crate whose README repeats the programs of the repository's README, so that they are compiled.
const FACADE: &str = "greenhub";

pub fn check(workspace: &Workspace) -> Faults {
    let read = |file: PathBuf| fs::read_to_string(&file).with_context(|| file.display().to_string());
    let licence = read(workspace.root.join("LICENSE"))?;
    let readme = read(workspace.root.join("README.md"))?;
    let mut faults = Vec::new();
    for package in workspace.packages.iter().filter(|it| it.folder.starts_with(workspace.root.join("crates"))) {
        let text = |name: &str| fs::read_to_string(package.folder.join(name)).unwrap_or_default();
        if text("LICENSE") != licence {
            faults.push(format!("{}: LICENSE is not that of the repository", package.name));
        }
        let own_readme = text("README.md");
        if own_readme.is_empty() {
            faults.push(format!("{}: README.md is missing", package.name));
        }
        if !text("Cargo.toml").contains("\n[package.metadata.docs.rs]\n") {
            faults.push(format!("{}: Cargo.toml says nothing to docs.rs", package.name));
        }
        if package.name == FACADE {
            let missing = programs(&readme).into_iter().filter(|program| !own_readme.contains(program));
            faults.extend(missing.map(|program| {
                let first = program.lines().nth(1).unwrap_or_default();
                format!("README.md: the program that begins with `{first}` is not in that of {FACADE}, so nothing compiles it")
            }));
        }
        for file in files(&package.folder)?.iter().filter(|file| file.extension().is_some_and(|it| it == "rs")) {
            let inside = file.strip_prefix(&package.folder).unwrap_or(file);
            let text = fs::read_to_string(file)?;
            let outside = outside_files(inside, &text);
            faults.extend(
                outside.map(|path| format!("{}: `{path}` is not in the package", workspace.relative(file).display())),
            );
        }
    }
    Ok(faults)
}

/// Returns the code blocks of `text` in Rust, with their fences.
fn programs(text: &str) -> Vec<&str> {
    let starts = text.match_indices("```rust").map(|(at, _)| &text[at..]);
    starts.map(|rest| rest[3..].find("```").map_or(rest, |end| &rest[..end + 6])).collect()
}

/// Returns the included paths in `text`, a file of the package, that leave the package.
fn outside_files<'a>(file: &'a Path, text: &'a str) -> impl Iterator<Item = &'a str> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let includes = text.lines().filter(|line| line.contains("include"));
    includes.flat_map(|line| line.split('"').skip(1).step_by(2)).filter(move |path| match path.strip_prefix('/') {
        // Such a path follows the folder of the package.
        Some(path) => climbs_out(Path::new(path)),
        None => climbs_out(&folder.join(path)),
    })
}

/// Returns whether `path` leaves the folder that it is relative to.
fn climbs_out(path: &Path) -> bool {
    let mut depth = 0;
    path.components().any(|part| {
        depth += if part == Component::ParentDir { -1 } else { 1 };
        depth < 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_with_their_fences() {
        let text = "a\n```rust,no_run\nfn main() {}\n```\nb\n```sh\nls\n```\n";
        assert_eq!(programs(text), ["```rust,no_run\nfn main() {}\n```"]);
    }

    #[test]
    fn files_of_other_packages_are_named() {
        let outside = |text| outside_files(Path::new("src/a.rs"), text).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(outside("#[doc = include_str!(\"../README.md\")]"), Vec::<String>::new());
        assert_eq!(outside("#[doc = include_str!(\"../../README.md\")]"), ["../../README.md"]);
        assert_eq!(outside("include!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/tests/a.rs\"));"), Vec::<String>::new());
        assert_eq!(outside("include!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/../b/a.rs\"));"), ["/../b/a.rs"]);
    }
}
