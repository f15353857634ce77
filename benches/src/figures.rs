//! The figures of a program, printed as lines that `cargo xtask bench` collects.
//!
//! A figure is a line of four fields: group, name, unit and value. A workload or peer that cannot run is a line of
//! three fields: `skipped`, a name and the reason. Tabs separate the fields. Smaller values are better.

use std::fmt;

/// The unit of a figure. All figures of a group have the same unit.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Nanoseconds of processor time, system calls included.
    Processor,
    /// Nanoseconds of real time.
    Real,
    /// Bytes.
    Bytes,
}

impl fmt::Display for Unit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Unit::Processor => "processor ns",
            Unit::Real => "real ns",
            Unit::Bytes => "bytes",
        })
    }
}

/// The request to print figures.
#[derive(Clone, Debug)]
pub struct Figures {
    only: String,
}

impl Figures {
    /// Reads the arguments of a program, without its name: `--figures [TEXT]`.
    ///
    /// Returns `None` for other arguments.
    #[must_use]
    pub fn requested(arguments: &[&str]) -> Option<Figures> {
        match *arguments {
            ["--figures"] => Some(Figures { only: String::new() }),
            ["--figures", only] => Some(Figures { only: only.to_owned() }),
            _ => None,
        }
    }

    /// Returns whether a figure is requested: its group and name contain the text of the arguments.
    #[must_use]
    pub fn wants(&self, group: &str, name: &str) -> bool {
        format!("{group}/{name}").contains(&self.only)
    }

    /// Prints a figure.
    pub fn print(&self, group: &str, name: &str, unit: Unit, value: f64) {
        println!("{group}\t{name}\t{unit}\t{value:.3}");
    }
}

/// Prints that a workload or peer cannot run, and why. The benches of criterion may print this as well.
pub fn skip(name: &str, reason: impl fmt::Display) {
    let reason = reason.to_string();
    println!("skipped\t{name}\t{}", reason.trim().replace(['\t', '\n'], " "));
}
