//! Where the workspace is and what it consists of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::tables::VARIABLES;

/// A crate of the workspace.
pub struct Package {
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    pub features: Vec<String>,
    pub dependencies: Vec<Dependency>,
}

/// One line under `[dependencies]` and its kin.
pub struct Dependency {
    pub name: String,
    pub dev: bool,
}

pub struct Workspace {
    pub root: PathBuf,
    pub packages: Vec<Package>,
    /// The oldest compiler that the manifest promises.
    pub rust_version: Option<String>,
}

impl Workspace {
    /// Asks cargo.
    pub fn load() -> Result<Workspace> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent folder")?.to_owned();
        let output =
            cargo(&root).args(["metadata", "--format-version=1", "--no-deps"]).output().context("cargo metadata")?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
        let metadata = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
        Ok(Workspace {
            packages: packages(&metadata).context("cargo metadata lacks a field")?,
            rust_version: oldest_compiler(&metadata),
            root,
        })
    }

    pub fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// A cargo command in the root of the workspace, free of what would change a test run.
    pub fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// `path` as seen from the root.
    pub fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
}

fn packages(metadata: &Value) -> Option<Vec<Package>> {
    metadata["packages"].as_array()?.iter().map(package).collect()
}

fn package(package: &Value) -> Option<Package> {
    let dependencies = package["dependencies"].as_array()?.iter().map(|dependency| {
        Some(Dependency { name: dependency["name"].as_str()?.to_owned(), dev: dependency["kind"] == "dev" })
    });
    Some(Package {
        name: package["name"].as_str()?.to_owned(),
        folder: Path::new(package["manifest_path"].as_str()?).parent()?.to_owned(),
        features: package["features"].as_object()?.keys().cloned().collect(),
        dependencies: dependencies.collect::<Option<_>>()?,
    })
}

fn oldest_compiler(metadata: &Value) -> Option<String> {
    metadata["packages"].as_array()?.iter().find_map(|package| Some(package["rust_version"].as_str()?.to_owned()))
}

/// Every file below `folder`, without build products and hidden folders, in order.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            // In a linked worktree `.git` is a file.
            if name == "target" || name == ".git" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read() {
        let metadata = serde_json::json!({"packages": [{
            "name": "hub-mine",
            "manifest_path": "/somewhere/crates/hub-mine/Cargo.toml",
            "rust_version": "1.88",
            "features": {"default": [], "extra": []},
            "dependencies": [{"name": "hub-core", "kind": null}, {"name": "hub-testkit", "kind": "dev"}],
        }]});
        let packages = packages(&metadata).unwrap();
        assert_eq!(packages[0].folder, Path::new("/somewhere/crates/hub-mine"));
        assert_eq!(packages[0].features, ["default", "extra"]);
        assert_eq!(packages[0].dependencies.iter().map(|it| it.dev).collect::<Vec<_>>(), [false, true]);
        assert_eq!(oldest_compiler(&metadata).as_deref(), Some("1.88"));
    }
}
