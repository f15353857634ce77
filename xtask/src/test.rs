//! The tests, on every hub.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bsd;
use crate::costs;
use crate::faults;
use crate::returns;
use crate::step::Report;
use crate::tables::{
    ADAPTER_FEATURES, ADAPTERS, FEATURE_EXAMPLES, FEATURE_TESTS, FORCED, Forced, HUBS, Hub, JOINING_TESTS, LONG_SEEDS,
    Library, MANY_RUNS, PEERS, RECIPE_FEATURES, RECIPES, TRANSPORT_SEEDS, hubs_here,
};
use crate::tidy;
use crate::workspace::Workspace;

/// Runs the tests in debug, and the green suite also in release on the hub that the facade prefers, without the
/// examples of the documentation. `full` adds the tests that take longer.
///
/// # Errors
///
/// Returns an error if a compiler is missing, or a program that `full` needs cannot be built.
pub fn run(workspace: &Workspace, full: bool, report: &mut Report) -> Result<()> {
    require_compilers(workspace)?;
    for hub in HUBS {
        if let Some(why) = missing(hub) {
            report.skip(format!("conformance and green suite, {}", hub.name), why);
        }
    }
    report.run_all_tests("tests, debug", suite(workspace, ALL, |command| all_but_green(workspace, command)));
    let preferred = runnable().next().map(|hub| hub.name);
    for hub in runnable() {
        let is_whole = full || Some(hub.name) == preferred;
        let mut in_debug = suite(workspace, GREEN, |command| green(command, hub));
        if !is_whole {
            // Without the examples of the documentation, which use the hub as the tests do.
            in_debug.truncate(1);
        }
        report.run_all_tests(format!("green suite, debug, {}", hub.name), in_debug);
        // Faults that only an optimized build shows lie in the core, which all hubs share. `full` runs it on each hub.
        if is_whole {
            let mut in_release = suite(workspace, GREEN, |command| {
                green_with_all(command, hub);
                in_release(command);
            });
            if !full {
                in_release.truncate(1);
            }
            report.run_all_tests(format!("green suite, release, {}", hub.name), in_release);
        }
    }
    // All features share one build. `checks` builds each feature alone.
    report.run_tests("features, debug", of_features(workspace, |_| true));
    for hub in runnable().filter(|hub| hub.default && Some(hub.name) != preferred) {
        let mut command = of_features(workspace, |test| !JOINING_TESTS.contains(&test));
        command.env("GREENHUB_HUB", hub.name);
        report.run_tests(format!("features, debug, {}", hub.name), command);
    }
    report.run_all_tests("adapters", adapters(workspace));
    for (package, feature, example) in FEATURE_EXAMPLES {
        let mut command = workspace.cargo();
        // The example is for a program that depends on the facade, which passes the feature on.
        command.args(["test", "-p", package, "-p", "greenhub", "--doc"]);
        command.args(["--features", &format!("greenhub/{feature}"), example]);
        report.run_tests(format!("example of {example}, feature {feature}"), command);
    }
    conformance_map(workspace, report);
    peers(workspace, report);
    if full {
        let mut features = of_features(workspace, |_| true);
        in_release(&mut features);
        report.run_tests("features, release", features);
        let in_release = suite(workspace, ALL, |command| {
            all_but_green(workspace, command);
            in_release(command);
        });
        report.run_all_tests("tests, release", in_release);
        for hub in runnable() {
            for forced in FORCED.iter().filter(|forced| forced.hub.is_none_or(|only| only == hub.name)) {
                let commands = forced_run(workspace, hub, forced);
                report.run_all_tests(format!("{}, {}", forced.name, hub.name), commands);
            }
            let commands = suite(workspace, GREEN, |command| {
                green_with_all(command, hub);
                many_seeds(command);
            });
            report.run_all_tests(format!("long seeds, {}", hub.name), commands);
        }
        let of_core = suite(workspace, ALL, |command| {
            command.args(["-p", "hub-core"]);
            many_seeds(command);
        });
        report.run_all_tests("long seeds, hub-core", of_core);
        report.run_all_tests("long seeds, modes of Tokio", long_seeds_of_tokio(workspace));
        bundled_libevent(workspace, report);
        guarded_pool(workspace, report);
        recipes(workspace, report);
        loom(workspace, report);
        faults::check(workspace, report)?;
        leaks(workspace, report)?;
        mutants(workspace, report);
        costs::check(workspace, report)?;
        returns::check(workspace, report)?;
        bsd::check(workspace, report);
    }
    Ok(())
}

/// Selects all test programs of a package.
const ALL: &[&str] = &[];

/// Selects the test programs of the facade that run on each hub. Programs that need a feature run once, see
/// [`of_features`].
const GREEN: &[&str] = &["--lib", "--test", "it", "--test", "core_names", "--test", "gevent"];

/// The features of the facade that the green suite needs.
const GREEN_FEATURES: &str = "console,loop";

/// Returns the commands that run every test `select` asks for: the programs, by nextest or by cargo, and the examples
/// in the documentation.
fn suite(workspace: &Workspace, programs: &[&str], select: impl Fn(&mut Command)) -> Vec<Command> {
    const NEXTEST: &[&str] =
        &["nextest", "run", "--status-level=slow", "--final-status-level=fail", "--show-progress=none"];
    let kinds: &[&[&str]] = match (has_nextest(workspace), programs.is_empty()) {
        (true, _) => &[NEXTEST, &["test", "--doc"]],
        (false, true) => &[&["test"]],
        (false, false) => &[&["test"], &["test", "--doc"]],
    };
    let command = |kind: &&[&str]| {
        let mut command = workspace.cargo();
        command.args(*kind).arg("--no-fail-fast");
        if !kind.contains(&"--doc") {
            command.args(programs);
        }
        select(&mut command);
        command
    };
    kinds.iter().map(command).collect()
}

fn has_nextest(workspace: &Workspace) -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let asked = workspace.cargo().args(["nextest", "--version"]).output();
        asked.is_ok_and(|output| output.status.success())
    })
}

/// Selects every test but the green suite, which runs once for each hub.
fn all_but_green(workspace: &Workspace, command: &mut Command) {
    let lacking: Vec<&str> = lacking().collect();
    let others = workspace.packages.iter().filter(|it| !["greenhub", "benches", RECIPES].contains(&it.name.as_str()));
    for package in others.filter(|it| !lacking.contains(&it.name.as_str())) {
        command.args(["-p", &package.name]);
    }
}

/// Selects the green suite on `hub`. The hubs that are off by default share one build.
pub fn green(command: &mut Command, hub: &Hub) {
    if !hub.default {
        return green_with_all(command, hub);
    }
    select_facade(command, hub);
}

fn select_facade(command: &mut Command, hub: &Hub) {
    command.args(["-p", "greenhub", "--features", GREEN_FEATURES]).env("GREENHUB_HUB", hub.name);
    run_side_by_side(command);
}

/// Runs two tests for each processor at once, since most of them sleep or wait for a process of their own.
fn run_side_by_side(command: &mut Command) {
    // libtest reads the first variable, and nextest the second.
    for threads in ["RUST_TEST_THREADS", "NEXTEST_TEST_THREADS"] {
        if std::env::var_os(threads).is_none()
            && let Ok(processors) = std::thread::available_parallelism()
        {
            command.env(threads, (2 * processors.get()).to_string());
        }
    }
}

/// Selects the green suite on `hub`, with every hub that runs here compiled in, so that all hubs share one build.
fn green_with_all(command: &mut Command, hub: &Hub) {
    select_facade(command, hub);
    for other in runnable().filter(|it| !it.default) {
        command.args(["--features", other.name]);
    }
}

/// Returns a command that runs those tests of the features off by default that `selects` returns true for. Any of them
/// share one build.
fn of_features(workspace: &Workspace, selects: impl Fn(&str) -> bool) -> Command {
    let mut command = workspace.cargo();
    command.args(["test", "--no-fail-fast", "-p", "greenhub"]);
    for (feature, test) in FEATURE_TESTS {
        command.args(["--features", feature]);
        if selects(test) {
            command.args(["--test", test]);
        }
    }
    run_side_by_side(&mut command);
    command
}

/// Returns the commands that run the tests of the adapters: with the features that need no TLS, and with all, by which
/// some tests do not hold.
fn adapters(workspace: &Workspace) -> Vec<Command> {
    let (tls, others): (Vec<&str>, Vec<&str>) = ADAPTER_FEATURES.iter().partition(|feature| feature.contains("rustls"));
    [others.clone(), [others, tls].concat()]
        .map(|features| {
            let mut command = workspace.cargo();
            command.args(["test", "--no-fail-fast", "-p", ADAPTERS, "--features", &features.join(",")]);
            command
        })
        .into()
}

/// Finds the tests of the conformance map in the programs that the steps in debug have built.
fn conformance_map(workspace: &Workspace, report: &mut Report) {
    let mut others = workspace.cargo();
    others.arg("test");
    all_but_green(workspace, &mut others);
    let mut facade = workspace.cargo();
    facade.args(["test", "-p", "greenhub", "--features", GREEN_FEATURES]);
    let commands = vec![others, facade, of_features(workspace, |_| true)];
    tidy::check_tests_of_conformance(workspace, commands, report);
}

fn in_release(command: &mut Command) {
    command.arg("--release");
}

/// Runs the tests that speak to other programs, as far as these are installed or can be.
fn peers(workspace: &Workspace, report: &mut Report) {
    for peer in PEERS {
        let (package, test) = peer.tested_by;
        let name = format!("tests of {package}, with {}", peer.program);
        if !is_there(peer.program) {
            install(peer.program, &[peer.package]);
        }
        if !is_there(peer.program) {
            report.skip(name, format!("no {}: apt-get install {}", peer.program, peer.package));
            continue;
        }
        let mut command = workspace.cargo();
        command.args(["test", "-p", package, "--test", test]);
        if package == "greenhub" {
            // The build of the green suite serves here as well.
            command.args(["--features", GREEN_FEATURES]);
        }
        command.args(["--", "--ignored", peer.tests]);
        report.run_tests(name, command);
    }
}

/// Returns the commands that run the tests which reach a forced path: the green suite, and those of the core and of the
/// backend, which choose their hubs themselves.
fn forced_run(workspace: &Workspace, hub: &Hub, forced: &Forced) -> Vec<Command> {
    let force = |command: &mut Command| {
        in_release(command);
        command.env(forced.variable, forced.value);
    };
    let mut commands = suite(workspace, GREEN, |command| {
        green_with_all(command, hub);
        force(command);
    });
    commands.extend(suite(workspace, ALL, |command| {
        command.args(["-p", "hub-core", "-p", hub.package]);
        force(command);
    }));
    commands
}

fn many_seeds(command: &mut Command) {
    in_release(command);
    let (variable, value) = LONG_SEEDS;
    command.env(variable, value).env("NEXTEST_PROFILE", "long");
}

/// Returns commands that run the random programs with tasks in both modes, and those over transports.
fn long_seeds_of_tokio(workspace: &Workspace) -> Vec<Command> {
    let programs: [(_, &[&str]); 2] = [
        (LONG_SEEDS, &["-p", "greenhub", "--features", "tokio", "--test", "tokio", "random::"]),
        (TRANSPORT_SEEDS, &["-p", "hub-tokio", "--test", "transports", "random_programs"]),
    ];
    let command = |((variable, value), arguments): (_, &[&str])| {
        let mut command = workspace.cargo();
        command.args(["test", "--release"]).args(arguments).env(variable, value);
        command
    };
    programs.map(command).into()
}

/// Runs the tests of the choice of a hub with a libevent that is built from its source.
fn bundled_libevent(workspace: &Workspace, report: &mut Report) {
    const NAME: &str = "libevent-bundled";
    const PACKAGES: &[&str] = &["cmake", "libclang-dev"];
    let has_tools = || is_there("cmake") && has_library("libclang");
    if !has_tools() {
        install("cmake and libclang", PACKAGES);
    }
    if !has_tools() {
        report.skip(NAME, format!("no cmake or no libclang: apt-get install {}", PACKAGES.join(" ")));
        return;
    }
    let mut command = workspace.cargo();
    command.args(["test", "-p", "greenhub", "--features", NAME, "--test", "it", "hubs::"]);
    command.env("GREENHUB_HUB", "libevent").env("CARGO_TARGET_DIR", workspace.root.join("target/bundled"));
    report.run_tests(NAME, command);
}

/// Returns whether the system's linker finds a library with `name` in its name or path.
fn has_library(name: &str) -> bool {
    Command::new("ldconfig")
        .arg("-p")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(name))
}

/// Runs the test of a pool whose guards return connections during an unwinding. Runs it many times, in each kind of
/// build that changes how unwinding is compiled.
fn guarded_pool(workspace: &Workspace, report: &mut Report) {
    const TEST: &str = "a_pool_with_returning_guards_loses_no_connection_under_timeouts";
    let (variable, runs) = MANY_RUNS;
    let test = || {
        let mut command = workspace.cargo();
        command.args(["test", "-p", "greenhub", "--test", "it", TEST]).env(variable, runs);
        command
    };
    let (mut release, mut lto) = (test(), test());
    in_release(&mut release);
    in_release(&mut lto);
    lto.env("CARGO_PROFILE_RELEASE_LTO", "fat").env("CARGO_TARGET_DIR", workspace.root.join("target/lto"));
    for (build, command) in [("debug", test()), ("release", release), ("fat LTO", lto)] {
        report.run_tests(format!("{runs} runs of a pool with guards, {build}"), command);
    }
}

/// Runs the tests of programs with other libraries, some of which start a server of another program if it is installed.
fn recipes(workspace: &Workspace, report: &mut Report) {
    let mut features = Vec::new();
    for (feature, library) in RECIPE_FEATURES {
        match missing_library(library) {
            Some(why) => report.skip(format!("recipes, {feature}"), why),
            None => features.push(*feature),
        }
    }
    let features = features.join(",");
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "-p", RECIPES, "--features", &features, "--all-targets", "--", "-D", "warnings"]);
    report.run("recipes, clippy", clippy);
    let mut tests = workspace.cargo();
    tests.args(["test", "--no-fail-fast", "-p", RECIPES, "--features", &features]);
    report.run_tests("recipes", tests);
}

/// Runs the models of loom: the remote handle, the parker, the biased lock, the source, waits for several objects, and
/// the wait queue of all primitives.
fn loom(workspace: &Workspace, report: &mut Report) {
    let models: [(_, &[&str]); 3] = [
        ("loom, threads", &["-p", "hub-core", "--release", "--lib", "model"]),
        ("loom, waits for several objects", &["-p", "hub-core", "--release", "--test", "ready_list_model"]),
        ("loom, the wait queue", &["-p", "greenstd", "--release", "--test", "wait_queue_model"]),
    ];
    for (name, args) in models {
        let mut command = workspace.cargo();
        command.arg("test").args(args);
        command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", workspace.root.join("target/loom"));
        report.run_tests(name, command);
    }
}

/// Runs the unit tests of the core under valgrind. Definite leaks and invalid accesses are failures.
fn leaks(workspace: &Workspace, report: &mut Report) -> Result<()> {
    const NAME: &str = "leaks, hub-core";
    const VALGRIND: &str = "valgrind --quiet --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --error-exitcode=97";
    if !is_there("valgrind") {
        report.skip(NAME, "no valgrind: apt-get install valgrind");
        return Ok(());
    }
    let mut command = workspace.cargo();
    // A forked child has lost the stacks of the other threads, and all that only these stacks referred to is a leak.
    command.args(["test", "-p", "hub-core", "--lib", "--", "--skip", "child", "--skip", "fork"]);
    let known = workspace.root.join("xtask/leaks.supp");
    command.env(runner()?, format!("{VALGRIND} --suppressions={}", known.display()));
    // valgrind removes the vDSO. rustix's own system calls look for the clock there. libc needs no vDSO.
    command.env("RUSTFLAGS", "--cfg rustix_use_libc").env("CARGO_TARGET_DIR", workspace.root.join("target/valgrind"));
    report.run_tests(NAME, command);
    Ok(())
}

/// Tries a sample of the small faults that cargo-mutants puts into the core. A test has to notice each.
fn mutants(workspace: &Workspace, report: &mut Report) {
    const NAME: &str = "mutants, a sample";
    /// One mutant of 300 is tried. All of them take days.
    const SAMPLE: &str = "0/300";
    const LIMIT: Duration = Duration::from_secs(90 * 60);
    /// The time limit of a run, in seconds, for a test that hangs. The tests themselves take about two minutes.
    const HANGS_AFTER: &str = "600";
    const TIMED_OUT: i32 = 3;
    let mut asked = workspace.cargo();
    asked.args(["mutants", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    if !asked.status().is_ok_and(|status| status.success()) {
        report.skip(NAME, "no cargo-mutants: cargo install cargo-mutants --locked");
        return;
    }
    let mut command = workspace.cargo();
    command.args(["mutants", "--no-shuffle", "--shard", SAMPLE, "--sharding", "round-robin"]);
    // The first run without a mutant would leave out the facade, whose tests have passed before this step.
    command.args(["--baseline", "skip", "--timeout", HANGS_AFTER]);
    run_side_by_side(&mut command);
    command.arg("--output").arg(workspace.root.join("target"));
    report.run_judged(NAME, command, LIMIT, |output| {
        // A test that hangs has noticed the fault.
        if matches!(output.status.code(), Some(0 | TIMED_OUT)) {
            return None;
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let unnoticed: Vec<&str> = text.lines().filter(|line| line.starts_with("MISSED")).collect();
        Some(if unnoticed.is_empty() { text.into_owned() } else { unnoticed.join("\n") })
    });
}

fn require_compilers(workspace: &Workspace) -> Result<()> {
    let version = rustc_version::version().context("no rustc: see https://rustup.rs")?;
    if let Some(oldest) = &workspace.rust_version {
        ensure!(version >= *oldest, "rustc {version} is too old: {oldest} or later is needed (`rustup update stable`)");
    }
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    if !is_there(&compiler) {
        install("a C compiler", &["gcc", "libc6-dev"]);
    }
    ensure!(
        is_there(&compiler),
        "no C compiler `{compiler}`, which the crate `context` needs: apt-get install gcc libc6-dev"
    );
    Ok(())
}

/// Returns the hubs on which the tests can run here.
pub fn runnable() -> impl Iterator<Item = &'static Hub> {
    hubs_here().filter(|hub| missing(hub).is_none())
}

/// Returns the hubs that can be built here.
pub fn buildable() -> impl Iterator<Item = &'static Hub> {
    HUBS.iter().filter(|hub| missing(hub).is_none())
}

/// Returns the crates of the hubs that cannot be built here.
pub fn lacking() -> impl Iterator<Item = &'static str> {
    HUBS.iter().filter(|hub| missing(hub).is_some()).map(|hub| hub.package)
}

/// Returns what `hub` lacks here and how to get it, after an attempt to install it.
pub fn missing(hub: &Hub) -> Option<String> {
    hub.needs.as_ref().and_then(missing_library)
}

/// Returns the name of a library that is not installed and how to get it, after one attempt to install it.
fn missing_library(library: &Library) -> Option<String> {
    static TRIED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let has = || {
        let asked = Command::new("pkg-config").args(["--exists", library.name]).output();
        asked.is_ok_and(|output| output.status.success())
    };
    if !has() && TRIED.lock().unwrap_or_else(PoisonError::into_inner).insert(library.name) {
        install(library.name, library.packages);
    }
    (!has()).then(|| format!("no {}: apt-get install {}", library.name, library.packages.join(" ")))
}

/// Tries to install packages. The caller checks whether that has worked.
fn install(name: &str, packages: &[&str]) {
    if is_there("apt-get") {
        println!("  ..   installing {name}");
        let install = ["install", "-y", "-qq", "--no-install-recommends"];
        let mut command = Command::new("apt-get");
        // A package may come with a service, which must not start.
        command.args(install).args(packages).env("RUNLEVEL", "1").env("SYSTEMD_OFFLINE", "1");
        let _ = command.status();
    }
}

/// Returns whether `program` can be started.
pub fn is_there(program: &str) -> bool {
    which::which(program).is_ok()
}

/// Returns the variable that makes cargo run each test program under another one.
pub fn runner() -> Result<String> {
    let host = rustc_version::version_meta().context("rustc does not name its host")?.host;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace(['-', '.'], "_")))
}
