//! The benches in several profiles of the compiler, and the file of their results.
//!
//! Each round runs every program of the benches once in each profile, so that what else the machine does falls on all
//! of them. A figure is the median of the medians of its rounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cargo_metadata::Message;
use serde_json::Value;

use crate::workspace::Workspace;

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

/// The name by which the groups list the bench to which the others are compared.
const OWN: &str = "greenhub";

/// The median times in nanoseconds of each round, by profile.
type Rounds = BTreeMap<usize, Vec<f64>>;

/// The benches of each group.
type Groups = BTreeMap<String, BTreeMap<String, Rounds>>;

/// Runs the benches whose groups contain `only`, `rounds` times, and writes `benches/RESULTS.md`.
///
/// # Errors
///
/// Returns an error if a program cannot be built, fails, or leaves no results.
pub fn run(workspace: &Workspace, only: Option<&str>, rounds: usize) -> Result<()> {
    ensure!(rounds != 0, "the number of rounds is zero");
    let mut programs = Vec::new();
    for profile in PROFILES {
        println!("  ..   building, {}", profile.name);
        programs.push(build(workspace, profile)?);
    }
    let mut groups = Groups::new();
    for round in 1..=rounds {
        for (number, (profile, programs)) in PROFILES.iter().zip(&programs).enumerate() {
            for program in programs {
                let name = program.file_stem().unwrap_or_default().to_string_lossy();
                println!("  ..   round {round} of {rounds}, {}, {name}", profile.name);
                let home = workspace.root.join("target/bench/results");
                measure(program, &home, only)?;
                collect(&home, number, &mut groups)?;
            }
        }
    }
    ensure!(!groups.is_empty(), "no bench has a name with this text");
    let path = workspace.root.join("benches/RESULTS.md");
    fs::write(&path, page(&heading(workspace, rounds)?, &groups)).with_context(|| path.display().to_string())?;
    println!("ok     {}", workspace.relative(&path).display());
    Ok(())
}

/// Builds all benches in a profile. Returns their programs.
fn build(workspace: &Workspace, profile: &Profile) -> Result<Vec<PathBuf>> {
    let mut command = workspace.cargo();
    command.args(["bench", "--quiet", "-p", "benches", "--benches", "--no-run", "--message-format=json"]);
    command.env("CARGO_TARGET_DIR", workspace.root.join("target/bench").join(profile.folder));
    command.envs(profile.settings.iter().copied()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cargo bench")?;
    let output = child.stdout.take().context("the output of cargo")?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(BufReader::new(output)) {
        if let Message::CompilerArtifact(artifact) = message?
            && artifact.target.is_bench()
            && let Some(program) = artifact.executable
        {
            programs.push(program.into());
        }
    }
    ensure!(child.wait()?.success(), "the benches do not build");
    programs.sort();
    Ok(programs)
}

/// Runs a program, which leaves its results in `home`.
fn measure(program: &Path, home: &Path, only: Option<&str>) -> Result<()> {
    if home.exists() {
        fs::remove_dir_all(home)?;
    }
    let mut command = Command::new(program);
    command.args(TIMES).args(only).env("CRITERION_HOME", home).env_remove("EVENTLET_HUB");
    let output = command.output().with_context(|| program.display().to_string())?;
    ensure!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Adds the results in `folder`, and in the folders below it, to the round of a profile.
fn collect(folder: &Path, profile: usize, groups: &mut Groups) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name == "new") {
            let read = |name: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path.join(name))?)?) };
            let (names, estimates) = (read("benchmark.json")?, read("estimates.json")?);
            let (group, bench) = names_of(&names).with_context(|| format!("{}: no names", path.display()))?;
            let median = estimates["median"]["point_estimate"].as_f64().context("no median")?;
            groups.entry(group).or_default().entry(bench).or_default().entry(profile).or_default().push(median);
        } else if path.is_dir() {
            collect(&path, profile, groups)?;
        }
    }
    Ok(())
}

/// Returns the group of a bench and its name within the group. A bench outside of a group has both in one name.
fn names_of(names: &Value) -> Option<(String, String)> {
    let group = names["group_id"].as_str()?;
    let (group, bench) = match names["function_id"].as_str() {
        Some(bench) => (group, bench),
        None => group.rsplit_once('/')?,
    };
    Some((group.to_owned(), bench.to_owned()))
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
        "{} × {}, {}; {}; commit {}{changed}; {rounds} rounds.",
        std::thread::available_parallelism()?,
        model.map_or("unknown processor", |(_, model)| model),
        output("uname", &["-sr"])?,
        output("rustc", &["--version"])?,
        output("git", &["rev-parse", "--short", "HEAD"])?,
    ))
}

/// Returns the page of the results.
fn page(heading: &str, groups: &Groups) -> String {
    let mut page = format!(
        "# Results of the benches\n\nWritten by `cargo xtask bench`; [`README.md`](README.md) explains the benches. \
         Each cell is the median of the\nrounds, then their spread, and in brackets the ratio of greenhub's time to the \
         cell's: below 1, greenhub is faster.\nTimes are processor time.\n\n{heading}\n"
    );
    for (group, benches) in groups {
        _ = write!(page, "\n## {group}\n\n| |");
        PROFILES.iter().for_each(|profile| _ = write!(page, " {} |", profile.name));
        page.push_str("\n|---|");
        PROFILES.iter().for_each(|_| page.push_str("---:|"));
        page.push('\n');
        let own = benches.get(OWN);
        // greenhub first, then the others.
        let others = benches.iter().filter(|(name, _)| *name != OWN);
        for (name, rounds) in benches.get_key_value(OWN).into_iter().chain(others) {
            _ = write!(page, "| {name} |");
            for profile in 0..PROFILES.len() {
                let cell = rounds.get(&profile).map_or("–".to_owned(), |times| {
                    let own = own.filter(|_| name != OWN).and_then(|own| own.get(&profile));
                    cell(times, own.map(|own| median(own)))
                });
                _ = write!(page, " {cell} |");
            }
            page.push('\n');
        }
    }
    page
}

fn cell(times: &[f64], own: Option<f64>) -> String {
    let middle = median(times);
    let (least, most) =
        times.iter().fold((f64::MAX, 0.0_f64), |(least, most), &time| (least.min(time), most.max(time)));
    let spread = (most - least) / middle * 100.0;
    let ratio = own.map_or(String::new(), |own| format!(" ({:.2})", own / middle));
    format!("{} ±{:.0} %{ratio}", shown(middle), spread / 2.0)
}

/// Returns a time in the unit that suits it.
fn shown(nanos: f64) -> String {
    match nanos {
        ..1e3 => format!("{nanos:.1} ns"),
        ..1e6 => format!("{:.2} µs", nanos / 1e3),
        _ => format!("{:.2} ms", nanos / 1e6),
    }
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_median_the_spread_and_the_ratio() {
        assert_eq!(cell(&[110.0, 90.0, 100.0], Some(50.0)), "100.0 ns ±10 % (0.50)");
        assert_eq!(cell(&[1500.0], None), "1.50 µs ±0 %");
        assert_eq!(shown(2.5e6), "2.50 ms");
    }

    #[test]
    fn a_bench_has_a_group_and_a_name() {
        let names = |names: &str| names_of(&serde_json::from_str(names).unwrap());
        let expected = Some(("switch".to_owned(), "greenhub".to_owned()));
        assert_eq!(names(r#"{"group_id":"switch","function_id":"greenhub"}"#), expected);
        assert_eq!(names(r#"{"group_id":"switch/greenhub","function_id":null}"#), expected);
        assert_eq!(names("{}"), None);
    }

    #[test]
    fn the_page_has_greenhub_first_and_a_dash_for_a_profile_without_figures() {
        let mut groups = Groups::new();
        let benches = groups.entry("yield".to_owned()).or_default();
        benches.entry("a peer".to_owned()).or_default().insert(0, vec![20.0]);
        benches.entry(OWN.to_owned()).or_default().extend([(0, vec![10.0]), (2, vec![8.0])]);
        let page = page("machine", &groups);
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).collect();
        assert_eq!(
            rows,
            [
                "| | default | thin LTO | fat LTO |",
                "| greenhub | 10.0 ns ±0 % | – | 8.0 ns ±0 % |",
                "| a peer | 20.0 ns ±0 % (0.50) | – | – |"
            ]
        );
    }
}
