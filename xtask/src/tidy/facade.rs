//! The root of the facade: few names, since each of them is one more that a reader meets first.

use std::fs;

use anyhow::Context;
use syn::{Item, UseTree, Visibility};

use super::Faults;
use crate::tables::ROOT_NAMES;
use crate::workspace::Workspace;

const FACADE: &str = "greenhub";

pub fn check(workspace: &Workspace) -> Faults {
    let package = workspace.package(FACADE).with_context(|| format!("there is no crate `{FACADE}`"))?;
    let root = package.folder.join("src/lib.rs");
    let text = fs::read_to_string(&root).with_context(|| root.display().to_string())?;
    let parsed = syn::parse_file(&text).with_context(|| root.display().to_string())?;
    Ok(faults_of(&parsed, ROOT_NAMES))
}

fn faults_of(file: &syn::File, most: usize) -> Vec<String> {
    let mut names = Vec::new();
    for item in &file.items {
        match item {
            Item::Use(item) if is_public(&item.vis) => leaves(&item.tree, &mut names),
            Item::Mod(item) if is_public(&item.vis) => names.push(item.ident.to_string()),
            _ => {}
        }
    }
    let mut faults = Vec::new();
    if names.iter().any(|name| name == "*") {
        faults.push(format!("`{FACADE}` exports everything of another module: name the items"));
    }
    if names.len() > most {
        faults.push(format!("`{FACADE}` has {} names at its root, {most} at most: move some to a module", names.len()));
    }
    faults
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Adds the names that a `use` declares.
fn leaves(tree: &UseTree, names: &mut Vec<String>) {
    match tree {
        UseTree::Path(path) => leaves(&path.tree, names),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, names)),
        UseTree::Name(name) => names.push(name.ident.to_string()),
        UseTree::Rename(name) => names.push(name.rename.to_string()),
        UseTree::Glob(_) => names.push("*".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str, most: usize) -> Vec<String> {
        faults_of(&syn::parse_file(text).unwrap(), most)
    }

    #[test]
    fn public_modules_and_imports_are_counted() {
        let text = "pub mod hub; mod registry; pub use a::{b, c::{D, E as F}}; use x::y; pub(crate) use x::z;";
        assert_eq!(faults(text, 4), [""; 0]);
        assert_eq!(faults(text, 3), ["`greenhub` has 4 names at its root, 3 at most: move some to a module"]);
    }

    #[test]
    fn a_glob_is_a_fault() {
        assert_eq!(faults("pub use a::*;", 4), ["`greenhub` exports everything of another module: name the items"]);
    }
}
