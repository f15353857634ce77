//! The root of the workspace and its crates.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cargo_metadata::semver::Version;
use cargo_metadata::{DependencyKind, MetadataCommand};
use ignore::WalkBuilder;

use crate::tables::VARIABLES;

/// A crate of the workspace.
pub struct Package {
    pub name: String,
    pub folder: PathBuf,
    pub features: Vec<String>,
    pub dependencies: Vec<Dependency>,
}

/// A dependency of a crate.
pub struct Dependency {
    pub name: String,
    pub dev: bool,
}

/// The workspace as cargo describes it.
pub struct Workspace {
    pub root: PathBuf,
    pub packages: Vec<Package>,
    /// The oldest compiler that the manifests promise.
    pub rust_version: Option<Version>,
}

impl Workspace {
    /// Loads the workspace from the metadata of cargo.
    ///
    /// # Errors
    ///
    /// Returns an error if cargo cannot read a manifest.
    pub fn load() -> Result<Workspace> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec()?;
        Ok(Workspace {
            rust_version: metadata.packages.iter().find_map(|package| package.rust_version.clone()),
            packages: metadata.packages.into_iter().map(Package::from).collect(),
            root: metadata.workspace_root.into(),
        })
    }

    pub fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// Returns a cargo command in the root of the workspace, without the variables that would change a test run.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command
    }

    /// Returns `path` relative to the root.
    pub fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}

impl From<cargo_metadata::Package> for Package {
    fn from(package: cargo_metadata::Package) -> Package {
        let dependencies = package.dependencies.into_iter();
        Package {
            name: package.name.to_string(),
            folder: package.manifest_path.parent().map(PathBuf::from).unwrap_or_default(),
            features: package.features.into_keys().collect(),
            dependencies: dependencies
                .map(|found| Dependency { name: found.name, dev: found.kind == DependencyKind::Development })
                .collect(),
        }
    }
}

/// Returns the files below `folder` that git does not ignore, in order.
///
/// # Errors
///
/// Returns an error if a folder cannot be listed.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    // In a linked worktree `.git` is a file.
    let walk = WalkBuilder::new(folder).hidden(false).filter_entry(|entry| entry.file_name() != ".git").build();
    let mut files = Vec::new();
    for entry in walk {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        if entry.file_type().is_some_and(|kind| !kind.is_dir()) {
            files.push(entry.into_path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_has_its_crates_with_their_dependencies() {
        let workspace = Workspace::load().unwrap();
        assert!(workspace.rust_version.as_ref().is_some_and(|version| version.major == 1));
        let core = workspace.package("hub-core").unwrap();
        assert_eq!(workspace.relative(&core.folder), Path::new("crates/hub-core"));
        assert!(core.features.contains(&"tracing".to_owned()));
        assert!(core.dependencies.iter().any(|found| found.name == "libc" && !found.dev));
        assert!(core.dependencies.iter().any(|found| found.name == "hub-testkit" && found.dev));
    }

    #[test]
    fn hidden_files_are_listed_and_ignored_ones_are_not() {
        let root = Workspace::load().unwrap().root;
        let files = files(&root).unwrap();
        assert!(files.contains(&root.join(".ci/run")) && files.contains(&root.join("xtask/src/workspace.rs")));
        assert!(!files.iter().any(|file| file.starts_with(root.join("target")) || file.starts_with(root.join(".git"))));
    }
}
