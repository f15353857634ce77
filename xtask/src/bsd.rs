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

/// Runs clippy on every crate for each of the other targets.
pub fn check(workspace: &Workspace, report: &mut Report) {
    let there = TOOLS.iter().all(|path| Path::new(path).exists());
    for target in OTHER_TARGETS {
        let name = format!("clippy for {target}");
        if there {
            report.run(name, clippy(workspace, target));
        } else {
            report.skip(name, format!("no sources of std: {PACKAGES}"));
        }
    }
}

fn clippy(workspace: &Workspace, target: &str) -> Command {
    let mut command = Command::new("/usr/bin/cargo-clippy");
    command.current_dir(&workspace.root).args(["clippy", "--target", target]);
    command.arg("-Zbuild-std=std,panic_abort,panic_unwind");
    // The assembly of `context` is not for this machine's assembler.
    command.args(["--config", &format!("target.{target}.boost_context.rustc-link-lib=[]")]);
    let backends = HUBS.iter().filter(|hub| hub.default).map(|hub| hub.package);
    for package in LIBRARIES.iter().copied().chain(backends) {
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
