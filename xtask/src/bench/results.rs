//! The figures of all programs, by group and name.
//!
//! A program prints a figure as a line of four fields with tabs between them: group, name, unit and value. A line of
//! three fields is `skipped`, the name of a workload or peer, and the reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The unit of a group, as the programs print it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Nanoseconds of processor time.
    Processor,
    /// Nanoseconds of real time.
    Real,
    Bytes,
}

/// The values of each round, by the number of the profile.
pub type Rounds = BTreeMap<usize, Vec<f64>>;

/// A group of benches that are compared.
pub struct Group {
    pub unit: Unit,
    pub benches: BTreeMap<String, Rounds>,
}

/// The figures that the programs have measured.
#[derive(Default)]
pub struct Results {
    pub groups: BTreeMap<String, Group>,
    /// The reasons, by the name of the workload or peer.
    pub skipped: BTreeMap<String, String>,
}

impl Results {
    fn add(&mut self, group: &str, bench: &str, unit: Unit, profile: usize, value: f64) -> Result<()> {
        let entry = || Group { unit, benches: BTreeMap::new() };
        let found = self.groups.entry(group.to_owned()).or_insert_with(entry);
        ensure!(found.unit == unit, "{group}: there are two units");
        found.benches.entry(bench.to_owned()).or_default().entry(profile).or_default().push(value);
        Ok(())
    }

    /// Adds the lines that a program has printed to the round of a profile.
    ///
    /// # Errors
    ///
    /// Returns an error if a line is no figure, or if its unit is not that of its group.
    pub fn add_figures(&mut self, lines: &str, profile: usize) -> Result<()> {
        self.add_skipped(lines);
        for line in lines.lines() {
            match line.split('\t').collect::<Vec<_>>()[..] {
                [group, bench, unit, value] => {
                    let unit = unit_named(unit).with_context(|| format!("no such unit: {line}"))?;
                    let value = value.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0);
                    self.add(group, bench, unit, profile, value.with_context(|| format!("no number: {line}"))?)?;
                }
                ["skipped", _, _] => {}
                _ => bail!("this line is no figure: {line}"),
            }
        }
        Ok(())
    }

    /// Adds the lines that name a skipped workload or peer. Ignores all other lines.
    pub fn add_skipped(&mut self, lines: &str) {
        for line in lines.lines() {
            if let ["skipped", name, reason] = line.split('\t').collect::<Vec<_>>()[..] {
                self.skipped.insert(name.to_owned(), reason.to_owned());
            }
        }
    }

    /// Adds the results of criterion in `folder`, and in the folders below it, to the round of a profile.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read, or lacks a name or a median.
    pub fn add_criterion(&mut self, folder: &Path, profile: usize) -> Result<()> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name == "new") {
                let read = |name: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path.join(name))?)?) };
                let (names, estimates) = (read("benchmark.json")?, read("estimates.json")?);
                let (group, bench) = names_of(&names).with_context(|| format!("{}: no names", path.display()))?;
                let median = estimates["median"]["point_estimate"].as_f64().context("no median")?;
                self.add(&group, &bench, Unit::Processor, profile, median)?;
            } else if path.is_dir() {
                self.add_criterion(&path, profile)?;
            }
        }
        Ok(())
    }
}

fn unit_named(name: &str) -> Option<Unit> {
    match name {
        "processor ns" => Some(Unit::Processor),
        "real ns" => Some(Unit::Real),
        "bytes" => Some(Unit::Bytes),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bench_has_a_group_and_a_name() {
        let names = |names: &str| names_of(&serde_json::from_str(names).unwrap());
        let expected = Some(("switch".to_owned(), "greenhub".to_owned()));
        assert_eq!(names(r#"{"group_id":"switch","function_id":"greenhub"}"#), expected);
        assert_eq!(names(r#"{"group_id":"switch/greenhub","function_id":null}"#), expected);
        assert_eq!(names("{}"), None);
    }

    #[test]
    fn figures_are_added_to_their_groups_and_rounds() {
        let mut results = Results::default();
        results.add_figures("echo\tgreenhub\tprocessor ns\t5.5\nparked\tGo\tbytes\t2700\n", 0).unwrap();
        results.add_figures("echo\tgreenhub\tprocessor ns\t6\nskipped\tlibev\tno <ev.h>\n", 2).unwrap();
        let echo = &results.groups["echo"];
        assert_eq!(echo.unit, Unit::Processor);
        assert_eq!(echo.benches["greenhub"], BTreeMap::from([(0, vec![5.5]), (2, vec![6.0])]));
        assert_eq!(results.groups["parked"].unit, Unit::Bytes);
        assert_eq!(results.skipped["libev"], "no <ev.h>");
    }

    #[test]
    fn a_line_that_is_no_figure_is_named() {
        let fault = |line: &str| Results::default().add_figures(line, 0).unwrap_err().to_string();
        assert_eq!(fault("echo: 5 ns"), "this line is no figure: echo: 5 ns");
        assert_eq!(fault("echo\tgreenhub\tms\t5"), "no such unit: echo\tgreenhub\tms\t5");
        assert_eq!(fault("echo\tgreenhub\tbytes\tNaN"), "no number: echo\tgreenhub\tbytes\tNaN");
        assert_eq!(fault("echo\ta\tbytes\t1\necho\tb\treal ns\t1"), "echo: there are two units");
    }

    #[test]
    fn only_skipped_lines_of_criterion_are_read() {
        let mut results = Results::default();
        results.add_skipped("echo/greenhub  time: [1 ns]\nskipped\techo, 10,000 pairs\ttoo few files\n");
        assert_eq!(results.skipped["echo, 10,000 pairs"], "too few files");
        assert_eq!(results.skipped.len(), 1);
    }
}
