//! Clippy for BSD and macOS, by Debian's compiler, which comes with the sources of std.

use std::path::Path;
use std::process::Command;

use crate::step::Report;
use crate::tables::{HUBS, OTHER_TARGETS};
use crate::workspace::Workspace;

/// The files that have to be installed.
const TOOLS: &[&str] = &["/usr/bin/rustc", "/usr/bin/cargo", "/usr/bin/cargo-clippy", "/usr/lib/rustlib/src"];

/// The command that installs [`TOOLS`].
const PACKAGES: &str = "apt-get install rustc-web cargo-web rust-web-src rust-web-clippy";

/// The crates that the other systems share, beside the backends.
const LIBRARIES: &[&str] = &["hub-core", "greenstd", "hub-loop", "greenhub"];

/// Runs clippy on every crate for each of the other targets, and on the tests of the hubs that only these have.
pub fn check(workspace: &Workspace, report: &mut Report) {
    let there = TOOLS.iter().all(|path| Path::new(path).exists());
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
                report.skip(name, format!("no sources of std: {PACKAGES}"));
            }
        }
    }
}

fn clippy(workspace: &Workspace, target: &str, packages: &[&str], option: &str) -> Command {
    let mut command = Command::new("/usr/bin/cargo-clippy");
    command.current_dir(&workspace.root).args(["clippy", option, "--target", target]);
    command.arg("-Zbuild-std=std,panic_abort,panic_unwind");
    // The assembler here cannot read the assembly of `context` for another target.
    command.args(["--config", &format!("target.{target}.boost_context.rustc-link-lib=[]")]);
    for package in packages {
        command.args(["-p", package]);
    }
    // OpenBSD has no native thread-locals, and the lint does not see the `const` in their replacement by std.
    command.args(["--", "-D", "warnings", "-A", "clippy::missing_const_for_thread_local"]);
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", "/usr/bin/rustc").env("CARGO", "/usr/bin/cargo");
    // This program runs with the libraries of its own compiler, which do not fit that one.
    command.env_remove("LD_LIBRARY_PATH");
    command.env("CARGO_TARGET_DIR", workspace.root.join("target/other"));
    command
}
