//! What is not this system, type-checked: BSD and macOS, with Debian's compiler that comes with the sources of std.

use std::path::Path;
use std::process::Command;

use crate::step::Report;
use crate::tables::{HUBS, OTHER_TARGETS};
use crate::workspace::Workspace;

/// What has to be there.
const TOOLS: &[&str] = &["/usr/bin/rustc", "/usr/bin/cargo", "/usr/bin/cargo-clippy", "/usr/lib/rustlib/src"];

/// What brings it.
const PACKAGES: &str = "apt-get install rustc-web cargo-web rust-web-src rust-web-clippy";

/// The crates that programs on those systems are built of, beside the backends.
const LIBRARIES: &[&str] = &["hub-core", "greenstd", "greenhub"];

/// Runs clippy on every crate for each of the other targets, and on the tests of the hubs that only they have.
pub fn check(workspace: &Workspace, report: &mut Report) {
    let there = TOOLS.iter().all(|path| Path::new(path).exists());
    let default = || HUBS.iter().filter(|hub| hub.default);
    let all: Vec<&str> = LIBRARIES.iter().copied().chain(default().map(|hub| hub.package)).collect();
    let foreign: Vec<&str> = default().filter(|hub| !hub.runs_here).map(|hub| hub.package).collect();
    for target in OTHER_TARGETS {
        for (what, packages, option) in [("libraries", &all, "--lib"), ("tests", &foreign, "--tests")] {
            let name = format!("clippy for {target}, {what}");
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
    // The assembly of `context` is not for this machine's assembler.
    command.args(["--config", &format!("target.{target}.boost_context.rustc-link-lib=[]")]);
    for package in packages {
        command.args(["-p", package]);
    }
    // OpenBSD has no thread-locals of its own, and the lint does not see `const` in what std makes of them there.
    command.args(["--", "-D", "warnings", "-A", "clippy::missing_const_for_thread_local"]);
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", "/usr/bin/rustc").env("CARGO", "/usr/bin/cargo");
    // The libraries of the compiler that runs this are not those of that one.
    command.env_remove("LD_LIBRARY_PATH");
    command.env("CARGO_TARGET_DIR", workspace.root.join("target/other"));
    command
}
