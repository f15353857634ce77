//! Clippy for BSD and macOS, with a std that is built from its sources.

use std::path::Path;
use std::process::Command;

use crate::step::Report;
use crate::tables::{HUBS, OTHER_TARGETS};
use crate::workspace::Workspace;

/// The command that installs the sources of std.
const SOURCES: &str = "rustup component add rust-src";

/// The crates that the other systems share, beside the backends.
const LIBRARIES: &[&str] = &["hub-core", "greenstd", "hub-loop", "greenhub"];

/// Runs clippy on every crate for each of the other targets, and on the tests of the hubs that only these have.
pub fn check(workspace: &Workspace, report: &mut Report) {
    let there = has_sources() || (install_sources() && has_sources());
    let default = || HUBS.iter().filter(|hub| hub.default);
    // Apart from the default hubs, one that drives a runtime needs no library of the system either.
    let built = HUBS.iter().filter(|hub| hub.default || hub.drives_runtime);
    let all: Vec<&str> = LIBRARIES.iter().copied().chain(built.map(|hub| hub.package)).collect();
    let foreign: Vec<&str> = default().filter(|hub| !hub.runs_here).map(|hub| hub.package).collect();
    for target in OTHER_TARGETS {
        for (part, packages, option) in [("libraries", &all, "--lib"), ("tests", &foreign, "--tests")] {
            let name = format!("clippy for {target}, {part}");
            if there {
                report.run(name, clippy(workspace, target, packages, option));
            } else {
                report.skip(name, format!("no sources of std: {SOURCES}"));
            }
        }
    }
}

/// Returns whether the compiler has the sources of its std.
fn has_sources() -> bool {
    let asked = Command::new("rustc").args(["--print", "sysroot"]).output();
    asked.is_ok_and(|output| {
        let root = String::from_utf8_lossy(&output.stdout);
        Path::new(root.trim()).join("lib/rustlib/src/rust/library").exists()
    })
}

fn install_sources() -> bool {
    let mut words = SOURCES.split(' ');
    words.next().is_some_and(|program| Command::new(program).args(words).status().is_ok_and(|status| status.success()))
}

fn clippy(workspace: &Workspace, target: &str, packages: &[&str], option: &str) -> Command {
    let mut command = workspace.cargo();
    command.args(["clippy", option, "--target", target]);
    command.arg("-Zbuild-std=std,panic_abort,panic_unwind");
    // The assembler here cannot read the assembly of `context` for another target.
    command.args(["--config", &format!("target.{target}.boost_context.rustc-link-lib=[]")]);
    for package in packages {
        command.args(["-p", package]);
    }
    // OpenBSD has no native thread-locals, and the lint does not see the `const` in their replacement by std.
    command.args(["--", "-D", "warnings", "-A", "clippy::missing_const_for_thread_local"]);
    // A stable compiler builds std only with this variable.
    command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", workspace.root.join("target/other"));
    command
}
