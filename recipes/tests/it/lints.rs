//! The settings of clippy for programs: each entry finds its violation, and none is in the way of another program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::is_installed;

/// The folder of the settings.
const LINTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/lints");

/// A project in a folder of its own, which is removed when this is dropped.
struct Project(PathBuf);

impl Project {
    fn new(name: &str, dependencies: &[(&str, &str)], code: &str) -> Project {
        let folder = std::env::temp_dir().join(format!("recipes-lints-{name}-{}", std::process::id()));
        let listed: String =
            dependencies.iter().map(|(name, _)| format!("{name} = {{ path = \"{name}\" }}\n")).collect();
        // A workspace of its own, whatever is above the folder.
        write_crate(&folder, name, &(listed + "[workspace]\n"), code);
        fs::copy(format!("{LINTS}/clippy.toml"), folder.join("clippy.toml")).expect("the settings");
        for (name, code) in dependencies {
            write_crate(&folder.join(name), name, "", code);
        }
        Project(folder)
    }

    /// Returns the output of clippy.
    fn clippy(&self) -> String {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["clippy", "--offline"]).current_dir(&self.0).env("CARGO_TARGET_DIR", self.0.join("target"));
        let output = cargo.env_remove("CLIPPY_CONF_DIR").env_remove("RUSTFLAGS").output().expect("cargo starts");
        let printed = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{printed}");
        printed
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write_crate(folder: &Path, name: &str, dependencies: &str, code: &str) {
    fs::create_dir_all(folder.join("src")).expect("a folder");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\n{dependencies}"
    );
    fs::write(folder.join("Cargo.toml"), manifest).expect("a file");
    fs::write(folder.join("src/lib.rs"), code).expect("a file");
}

/// Stand-ins for the crates that the settings name: clippy looks at names alone.
const CRATES: &[(&str, &str)] = &[
    ("parking_lot", "pub struct Condvar; pub type Mutex<T> = Option<T>; pub struct RwLock<T>(pub T);"),
    ("crossbeam_channel", "pub struct Receiver<T>(pub T); pub struct Sender<T>(pub T);"),
];

#[test]
fn clippy_finds_each_entry() {
    if !is_installed("cargo-clippy") {
        return;
    }
    let code = fs::read_to_string(format!("{LINTS}/violations.rs")).expect("the violations");
    let printed = Project::new("violations", CRATES, &code).clippy();
    let settings = fs::read_to_string(format!("{LINTS}/clippy.toml")).expect("the settings");
    let entries = settings.lines().filter_map(|line| line.split_once("path = \"")?.1.split('"').next());
    let (found, missed): (Vec<&str>, Vec<&str>) = entries.partition(|path| {
        printed.contains(&format!("a disallowed type `{path}`"))
            || printed.contains(&format!("a disallowed method `{path}`"))
    });
    assert_eq!(missed, [""; 0], "{printed}");
    assert!(found.len() > 40);
}

#[test]
fn clippy_has_nothing_to_say_about_a_program_without_those_crates() {
    if !is_installed("cargo-clippy") {
        return;
    }
    let printed = Project::new("quiet", &[], "/// Returns the answer.\npub fn answer() -> u8 {\n    42\n}\n").clippy();
    assert!(!printed.contains("warning"), "{printed}");
}
