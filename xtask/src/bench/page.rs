//! The page of the results.

use std::fmt::Write as _;

use super::results::{Group, Results, Unit};

/// The name by which the groups list the bench to which the others are compared.
const OWN: &str = "greenhub";

/// Returns the page. `heading` says what the figures were measured on.
pub fn page(heading: &str, profiles: &[&str], results: &Results) -> String {
    let mut page = format!(
        "# Results of the benches\n\nWritten by `cargo xtask bench`; [`README.md`](README.md) explains the benches. \
         Each cell is the median of the\nrounds, then their spread if there are several, and in brackets the ratio of \
         greenhub's value to the cell's: below 1,\ngreenhub needs less. Peers in C and Go do not depend on the \
         profile.\n\n{heading}\n"
    );
    for (name, group) in &results.groups {
        _ = write!(page, "\n## {name}\n\n{}\n\n{}", unit_line(group.unit), table(profiles, group));
    }
    if !results.skipped.is_empty() {
        page.push_str("\n## Skipped\n\n");
        results.skipped.iter().for_each(|(name, reason)| _ = writeln!(page, "{}", item(&format!("{name}: {reason}"))));
    }
    page
}

/// Returns a text as an item of a list, in lines that fit.
fn item(text: &str) -> String {
    const WIDTH: usize = 118;

    let (mut item, mut width) = ("-".to_owned(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count() + 1;
        if width + length > WIDTH {
            item.push_str("\n ");
            width = 0;
        }
        _ = write!(item, " {word}");
        width += length;
    }
    item
}

fn unit_line(unit: Unit) -> &'static str {
    match unit {
        Unit::Processor => "Processor time.",
        Unit::Real => "Real time.",
        Unit::Bytes => "Resident memory.",
    }
}

fn table(profiles: &[&str], group: &Group) -> String {
    let mut table = "| |".to_owned();
    profiles.iter().for_each(|profile| _ = write!(table, " {profile} |"));
    _ = writeln!(table, "\n|---|{}", "---:|".repeat(profiles.len()));
    let own = group.benches.get(OWN);
    // greenhub first, then the others.
    let others = group.benches.iter().filter(|(name, _)| *name != OWN);
    for (name, rounds) in group.benches.get_key_value(OWN).into_iter().chain(others) {
        _ = write!(table, "| {name} |");
        for profile in 0..profiles.len() {
            let cell = rounds.get(&profile).map_or("–".to_owned(), |values| {
                let own = own.filter(|_| name != OWN).and_then(|own| own.get(&profile));
                cell(group.unit, values, own.map(|own| median(own)))
            });
            _ = write!(table, " {cell} |");
        }
        table.push('\n');
    }
    table
}

fn cell(unit: Unit, values: &[f64], own: Option<f64>) -> String {
    let middle = median(values);
    if middle == 0.0 {
        return shown(unit, middle);
    }
    let (least, most) =
        values.iter().fold((f64::MAX, 0.0_f64), |(least, most), &value| (least.min(value), most.max(value)));
    let spread = if values.len() > 1 {
        format!(" ±{:.0} %", (most - least) / middle * 50.0)
    } else {
        // One round has no spread.
        String::new()
    };
    let ratio = own.map_or(String::new(), |own| format!(" ({:.2})", own / middle));
    format!("{}{spread}{ratio}", shown(unit, middle))
}

/// Returns a value in the unit that suits it.
fn shown(unit: Unit, value: f64) -> String {
    match (unit, value) {
        (Unit::Bytes, _) => format!("{value:.0} B"),
        (_, ..1e3) => format!("{value:.1} ns"),
        (_, ..1e6) => format!("{:.2} µs", value / 1e3),
        _ => format!("{:.2} ms", value / 1e6),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_median_the_spread_and_the_ratio() {
        assert_eq!(cell(Unit::Processor, &[110.0, 90.0, 100.0], Some(50.0)), "100.0 ns ±10 % (0.50)");
        assert_eq!(cell(Unit::Real, &[1500.0], None), "1.50 µs");
        assert_eq!(cell(Unit::Bytes, &[4410.5], None), "4410 B");
        assert_eq!(cell(Unit::Real, &[0.0], Some(1.0)), "0.0 ns");
        assert_eq!(shown(Unit::Processor, 2.5e6), "2.50 ms");
    }

    #[test]
    fn the_page_has_greenhub_first_and_a_dash_for_a_profile_without_figures() {
        let mut results = Results::default();
        results.add_figures("yield\ta peer\treal ns\t20\nyield\tgreenhub\treal ns\t10\n", 0).unwrap();
        results.add_figures("yield\tgreenhub\treal ns\t8\n", 2).unwrap();
        let page = page("machine", &["default", "thin LTO", "fat LTO"], &results);
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).collect();
        assert_eq!(
            rows,
            [
                "| | default | thin LTO | fat LTO |",
                "| greenhub | 10.0 ns | – | 8.0 ns |",
                "| a peer | 20.0 ns (0.50) | – | – |"
            ]
        );
        assert!(page.contains("\n## yield\n\nReal time.\n\n| |") && !page.contains("Skipped"));
    }

    #[test]
    fn a_long_item_goes_on_in_the_next_line() {
        let text = "word ".repeat(30);
        let item = item(&text);
        assert!(item.lines().all(|line| line.len() <= 120) && item.lines().count() == 2);
        assert!(item.starts_with("- word") && item.contains("\n  word"));
    }

    #[test]
    fn the_page_names_what_was_skipped() {
        let mut results = Results::default();
        results.add_skipped("skipped\tlibev\tno <ev.h>: apt-get install libev-dev\n");
        assert!(page("", &[], &results).ends_with("\n## Skipped\n\n- libev: no <ev.h>: apt-get install libev-dev\n"));
    }
}
