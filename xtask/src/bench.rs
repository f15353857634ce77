//! The benches in several profiles of the compiler, and the file of their results.
//!
//! Each round runs every program of the benches once in each profile, so that what else the machine does falls on all
//! of them. A figure is the median of its rounds. The benches of criterion leave files with their medians. The other
//! programs print lines, see [`results`].

mod page;
mod results;

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cargo_metadata::Message;

use crate::process;
use crate::workspace::Workspace;

use results::Results;

/// A way to compile the programs.
struct Profile {
    name: &'static str,
    /// The folder below `target/bench`.
    folder: &'static str,
    settings: &'static [(&'static str, &'static str)],
}

const PROFILES: &[Profile] = &[
    Profile {
        name: "default",
        folder: "default",
        settings: &[("CARGO_PROFILE_BENCH_LTO", "false"), ("CARGO_PROFILE_BENCH_CODEGEN_UNITS", "16")],
    },
    Profile {
        name: "thin LTO",
        folder: "thin",
        settings: &[("CARGO_PROFILE_BENCH_LTO", "thin"), ("CARGO_PROFILE_BENCH_CODEGEN_UNITS", "1")],
    },
    Profile {
        name: "fat LTO",
        folder: "fat",
        settings: &[("CARGO_PROFILE_BENCH_LTO", "fat"), ("CARGO_PROFILE_BENCH_CODEGEN_UNITS", "1")],
    },
];

/// The times of one run of a program.
const TIMES: [&str; 6] =
    ["--bench", "--warm-up-time=0.2", "--measurement-time=0.8", "--sample-size=10", "--nresamples=1001", "--noplot"];

/// The programs that print figures.
const PROGRAMS: [&str; 5] = ["across", "parked", "ring", "servers", "worst_gap"];

/// The time after which a program counts as hung. The longest one takes about two minutes.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// A program, and the way to get its figures.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Program {
    Criterion(PathBuf),
    Figures(PathBuf),
}

/// Runs the benches whose groups and names contain `only`, `rounds` times, and writes `benches/RESULTS.md`.
///
/// # Errors
///
/// Returns an error if a program cannot be built, fails, hangs, or prints a line that is no figure.
pub fn run(workspace: &Workspace, only: Option<&str>, rounds: usize) -> Result<()> {
    ensure!(rounds != 0, "the number of rounds is zero");
    let mut programs = Vec::new();
    for profile in PROFILES {
        println!("  ..   building, {}", profile.name);
        programs.push(build(workspace, profile)?);
    }
    let mut results = Results::default();
    let home = workspace.root.join("target/bench/results");
    for round in 1..=rounds {
        for (number, (profile, programs)) in PROFILES.iter().zip(&programs).enumerate() {
            for program in programs {
                println!("  ..   round {round} of {rounds}, {}, {}", profile.name, program.name());
                program.measure(&home, only, number, &mut results)?;
            }
        }
    }
    ensure!(!results.groups.is_empty(), "no bench has a name with this text");
    let path = workspace.root.join("benches/RESULTS.md");
    let profiles: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
    let page = page::page(&heading(workspace, rounds)?, &profiles, &results);
    fs::write(&path, page).with_context(|| path.display().to_string())?;
    println!("ok     {}", workspace.relative(&path).display());
    Ok(())
}

/// Builds all benches in a profile, and the programs that print figures. Returns their programs.
fn build(workspace: &Workspace, profile: &Profile) -> Result<Vec<Program>> {
    let mut command = workspace.cargo();
    // Cargo builds the programs of a package together with its benches.
    command.args(["bench", "--quiet", "-p", "benches", "--benches", "--no-run", "--message-format=json"]);
    command.env("CARGO_TARGET_DIR", workspace.root.join("target/bench").join(profile.folder));
    command.envs(profile.settings.iter().copied()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cargo bench")?;
    let output = child.stdout.take().context("the output of cargo")?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(BufReader::new(output)) {
        if let Message::CompilerArtifact(artifact) = message?
            && let Some(program) = artifact.executable
        {
            if artifact.target.is_bench() {
                programs.push(Program::Criterion(program.into()));
            } else if artifact.target.is_bin() && PROGRAMS.contains(&artifact.target.name.as_str()) {
                programs.push(Program::Figures(program.into()));
            }
        }
    }
    ensure!(child.wait()?.success(), "the benches do not build");
    let count = programs.iter().filter(|program| matches!(program, Program::Figures(_))).count();
    ensure!(count == PROGRAMS.len(), "cargo has built {count} programs instead of {}", PROGRAMS.len());
    programs.sort();
    Ok(programs)
}

impl Program {
    fn path(&self) -> &Path {
        match self {
            Program::Criterion(path) | Program::Figures(path) => path,
        }
    }

    fn name(&self) -> String {
        self.path().file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Runs the program, and adds its figures to the round of a profile. criterion leaves them in `home`.
    fn measure(&self, home: &Path, only: Option<&str>, profile: usize, results: &mut Results) -> Result<()> {
        let mut command = Command::new(self.path());
        match self {
            Program::Criterion(_) => {
                if home.exists() {
                    fs::remove_dir_all(home)?;
                }
                command.args(TIMES).env("CRITERION_HOME", home);
            }
            Program::Figures(_) => _ = command.arg("--figures"),
        }
        command.args(only).env_remove("GREENHUB_HUB").env_remove("EVENTLET_HUB");
        let output = process::collect(&mut command, LIMIT).with_context(|| self.name())?;
        ensure!(output.status.success(), "{}: {}", self.name(), String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8_lossy(&output.stdout);
        match self {
            Program::Criterion(_) => {
                results.add_skipped(&printed);
                results.add_criterion(home, profile)
            }
            Program::Figures(_) => results.add_figures(&printed, profile).with_context(|| self.name()),
        }
    }
}

/// Returns what the figures were measured on.
fn heading(workspace: &Workspace, rounds: usize) -> Result<String> {
    let output = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = Command::new(program).args(arguments).current_dir(&workspace.root).output().context("a tool")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let changed = if output("git", &["status", "--porcelain"])?.is_empty() { "" } else { ", with changes" };
    Ok(format!(
        "{} × {}, {}; {}; commit {}{changed}; rounds: {rounds}.",
        std::thread::available_parallelism()?,
        model.map_or("unknown processor", |(_, model)| model),
        // Without the suffix of the build.
        output("uname", &["-sr"])?.split('-').next().unwrap_or_default(),
        output("rustc", &["--version"])?,
        output("git", &["rev-parse", "--short", "HEAD"])?,
    ))
}
