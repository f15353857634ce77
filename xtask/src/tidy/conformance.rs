//! `docs/conformance.md`: each row has an existing test, a decision or a later area, and an origin in
//! `docs/origins.md`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cargo_metadata::Message;

use super::Faults;
use crate::step::Report;
use crate::workspace::Workspace;

const MAP: &str = "docs/conformance.md";
const ORIGINS: &str = "docs/origins.md";

/// Checks the form of the rows. [`check_tests`] looks for their tests, and builds them.
pub fn check(workspace: &Workspace) -> Faults {
    let mut seen = HashSet::new();
    let mut faults = each_row(workspace, |row| {
        if !seen.insert(row.id.to_owned()) {
            return vec!["the row appears twice".to_owned()];
        }
        let package = |path: &str| path.split("::").next().unwrap_or_default().to_owned();
        let unknown = row.tests().map(package).filter(|package| workspace.package(package).is_none());
        unknown.map(|package| format!("there is no crate `{package}`")).collect()
    })?;
    if seen.is_empty() {
        faults.push(format!("{MAP}: no row was found"));
    }
    let origins = fs::read_to_string(workspace.root.join(ORIGINS)).context(ORIGINS)?;
    faults.extend(faults_of_origins(&origins, &seen));
    Ok(faults)
}

/// Compares the rows that have an origin with the rows of the map.
fn faults_of_origins(text: &str, rows: &HashSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut found = HashSet::new();
    for (number, line) in text.lines().enumerate() {
        let Some(id) = origin(line) else { continue };
        if !rows.contains(id) {
            faults.push(format!("{ORIGINS}:{}: {id}: no such row in {MAP}", number + 1));
        }
        if !found.insert(id) {
            faults.push(format!("{ORIGINS}:{}: {id}: the row appears twice", number + 1));
        }
    }
    let mut missing: Vec<&String> = rows.iter().filter(|id| !found.contains(id.as_str())).collect();
    missing.sort();
    faults.extend(missing.into_iter().map(|id| format!("{ORIGINS}: {id}: the origin is missing")));
    faults
}

/// Returns the ID of a row `` | `ID` | origin | ``, or `None` without an origin.
fn origin(line: &str) -> Option<&str> {
    let (id, origin) = line.strip_prefix("| `")?.split_once("` | ")?;
    (is_id(id) && !origin.trim_matches([' ', '|']).is_empty()).then_some(id)
}

/// Checks that each test of the map is in the list of a test program.
///
/// `commands` build the programs and print their paths.
pub fn check_tests(workspace: &Workspace, commands: Vec<Command>, report: &mut Report) {
    const NAME: &str = "tests of the conformance map";
    if !report.asks_for(NAME) {
        return;
    }
    let start = Instant::now();
    let faults = listed(workspace, commands).and_then(|tests| {
        each_row(workspace, |row| {
            let missing = row.tests().filter(|path| !tests.has(path));
            missing.map(|path| format!("there is no test `{path}`")).collect()
        })
    });
    report.check(NAME, &faults.unwrap_or_else(|error| vec![format!("{error:#}")]), start);
}

/// Returns the faults of the map: malformed rows, and the faults that `judge` finds.
fn each_row(workspace: &Workspace, mut judge: impl FnMut(&Row<'_>) -> Vec<String>) -> Faults {
    let text = fs::read_to_string(workspace.root.join(MAP)).context(MAP)?;
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let found = match row(line) {
            None => continue,
            Some(Err(fault)) => vec![fault],
            Some(Ok(row)) => judge(&row).into_iter().map(|fault| format!("{}: {fault}", row.id)).collect(),
        };
        faults.extend(found.into_iter().map(|fault| format!("{MAP}:{}: {fault}", number + 1)));
    }
    Ok(faults)
}

/// The tests of each crate, as its programs list them, with and without the name of the program.
#[derive(Default)]
struct Tests(HashMap<String, Vec<String>>);

impl Tests {
    /// Returns whether there is a test `crate::module::name`, or one of that name in a module inside `module`.
    fn has(&self, path: &str) -> bool {
        let Some((package, path)) = path.split_once("::") else { return false };
        let Some((modules, name)) = path.rsplit_once("::") else { return false };
        let tests = self.0.get(package).map(Vec::as_slice).unwrap_or_default();
        tests.iter().any(|test| {
            let inside = test.strip_prefix(modules).and_then(|rest| rest.strip_prefix("::"));
            inside.is_some_and(|inside| inside.rsplit("::").next() == Some(name))
        })
    }

    fn add(&mut self, package: &str, program: &str, listed: &str) {
        let tests = self.0.entry(package.to_owned()).or_default();
        for test in listed.lines().filter_map(|line| line.strip_suffix(": test")) {
            tests.push(test.to_owned());
            tests.push(format!("{program}::{test}"));
        }
    }
}

fn listed(workspace: &Workspace, commands: Vec<Command>) -> Result<Tests> {
    let mut tests = Tests::default();
    for mut command in commands {
        command.args(["--no-run", "--message-format=json-render-diagnostics"]).stdout(Stdio::piped());
        let mut building = command.spawn().context("cargo test --no-run")?;
        for message in Message::parse_stream(BufReader::new(building.stdout.take().context("the output is piped")?)) {
            let Message::CompilerArtifact(artifact) = message? else { continue };
            let Some(program) = artifact.executable.filter(|_| artifact.profile.test) else { continue };
            let source = Path::new(&artifact.target.src_path);
            let package = workspace.packages.iter().find(|package| source.starts_with(&package.folder));
            let package = package.with_context(|| format!("{program} belongs to no crate"))?;
            let output = Command::new(&program).args(["--list", "--format=terse"]).output().context(program)?;
            tests.add(&package.name, &artifact.target.name, &String::from_utf8_lossy(&output.stdout));
        }
        ensure!(building.wait()?.success(), "the tests do not build");
    }
    Ok(tests)
}

#[derive(PartialEq, Eq, Debug)]
struct Row<'a> {
    id: &'a str,
    disposition: Disposition<'a>,
}

impl Row<'_> {
    fn tests(&self) -> impl Iterator<Item = &str> {
        let paths = if let Disposition::Tests(paths) = self.disposition { paths } else { "" };
        paths.split(", ").map(|path| path.trim_matches('`')).filter(|path| !path.is_empty())
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Disposition<'a> {
    /// The paths of the tests, separated by commas.
    Tests(&'a str),
    Decision,
    Later,
}

/// Reads `| ID | behaviour | test: … / decision: … / later: … |`. Returns `None` for a line that is not a row.
fn row(line: &str) -> Option<Result<Row<'_>, String>> {
    let inner = line.strip_prefix("| ")?;
    let id = inner.split(" |").next()?.trim();
    if !is_id(id) {
        return None;
    }
    let cells: Vec<&str> = line.trim().trim_matches('|').split(" | ").map(str::trim).collect();
    let [_, behaviour, disposition] = cells.as_slice() else {
        return Some(Err(format!("{id}: a row has three cells, not {}", cells.len())));
    };
    if behaviour.is_empty() {
        return Some(Err(format!("{id}: the behaviour is missing")));
    }
    let disposition = match disposition.split_once(": ") {
        Some(("test", paths)) => Disposition::Tests(paths),
        Some(("decision", why)) if !why.is_empty() => Disposition::Decision,
        Some(("later", area)) if !area.is_empty() => Disposition::Later,
        _ => return Some(Err(format!("{id}: `{disposition}` is none of `test: …`, `decision: …`, `later: …`"))),
    };
    Some(Ok(Row { id, disposition }))
}

/// Returns whether `word` is the name of a row, such as `EV-HUB-03`, `EV-GT-11a` or `GL-01`.
fn is_id(word: &str) -> bool {
    let parts: Vec<&str> = word.split('-').collect();
    let [letters @ .., number] = parts.as_slice() else { return false };
    !letters.is_empty()
        && letters.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_uppercase()))
        && number.starts_with(|first: char| first.is_ascii_digit())
        && number.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disposition(line: &str) -> Disposition<'_> {
        row(line).unwrap().unwrap().disposition
    }

    #[test]
    fn rows_are_read() {
        assert_eq!(
            disposition("| EV-HUB-03 | No hub yet. | test: greenhub::hubs::none_yet |"),
            Disposition::Tests("greenhub::hubs::none_yet")
        );
        assert_eq!(disposition("| GL-41 | Typed. | decision: the compiler refuses |"), Disposition::Decision);
        assert_eq!(disposition("| EV-GT-11a | Links. | later: pools |"), Disposition::Later);
    }

    #[test]
    fn headings_and_other_tables_are_not_rows() {
        assert_eq!(row("| Row | Behaviour | Where |"), None);
        assert_eq!(row("|---|---|---|"), None);
        assert_eq!(row("EV-HUB-03 is a row."), None);
    }

    #[test]
    fn a_row_without_a_disposition_is_a_fault() {
        assert!(row("| EV-HUB-03 | No hub yet. | soon |").unwrap().is_err());
        assert!(row("| EV-HUB-03 | No hub yet. |").unwrap().is_err());
        assert!(row("| EV-HUB-03 | | test: a::b::c |").unwrap().is_err());
    }

    #[test]
    fn tests_are_found_by_crate_module_and_name() {
        let mut tests = Tests::default();
        tests.add("greenhub", "it", "timers::fires: test\nsockets::green::reads: test\n\n2 tests, 0 benchmarks\n");
        tests.add("hub-kqueue", "recorded", "wakes: test\n");
        for path in ["greenhub::timers::fires", "greenhub::sockets::reads", "hub-kqueue::recorded::wakes"] {
            assert!(tests.has(path), "{path}");
        }
        for path in
            ["greenhub::timers::fire", "greenhub::time::fires", "hub-kqueue::timers::fires", "hub-kqueue::wakes"]
        {
            assert!(!tests.has(path), "{path}");
        }
    }

    #[test]
    fn each_row_has_one_origin_and_each_origin_a_row() {
        let rows = ["EV-HUB-03", "GL-01"].map(str::to_owned).into_iter().collect();
        assert_eq!(faults_of_origins("| `EV-HUB-03` | `a.py` |\n| `GL-01` | measured |", &rows), [""; 0]);
        assert_eq!(
            faults_of_origins(
                "| `EV-HUB-03` | `a.py` |\n| `EV-HUB-03` | `a.py` |\n| `GV-02` | `b.py` |\n| `GL-01` | |",
                &rows
            ),
            [
                "docs/origins.md:2: EV-HUB-03: the row appears twice",
                "docs/origins.md:3: GV-02: no such row in docs/conformance.md",
                "docs/origins.md: GL-01: the origin is missing",
            ]
        );
    }
}
