//! The layers inside a crate: no path names an item of a module above its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;

use super::Faults;
use super::modules::{self, Arrow, Sources};
use crate::tables::{LAYERS, Layers};
use crate::workspace::{Workspace, files};

const TABLE: &str = "xtask/src/tables/layers.rs";

pub fn check(workspace: &Workspace) -> Faults {
    let mut faults = Vec::new();
    for layers in LAYERS {
        let (folder, sources) = sources(workspace, layers)?;
        let (files, arrows) = modules::read(&sources).context(folder.clone())?;
        faults.extend(faults_of(layers, &folder, &files, &arrows));
    }
    Ok(faults)
}

/// Prints the cycles between the files of each crate, and the arrows that point up.
///
/// # Errors
///
/// Returns an error if a file cannot be read.
pub fn print(workspace: &Workspace) -> Result<()> {
    for layers in LAYERS {
        let (folder, sources) = sources(workspace, layers)?;
        let (files, arrows) = modules::read(&sources).context(folder)?;
        print!("{}", described(layers, &files, &arrows));
    }
    Ok(())
}

/// Returns the folder of a crate's sources, and their text.
fn sources(workspace: &Workspace, layers: &Layers) -> Result<(String, Sources)> {
    let package = workspace.package(layers.package);
    let folder = package.with_context(|| format!("there is no crate `{}`", layers.package))?.folder.join("src");
    let mut sources = Sources::new();
    for file in files(&folder)?.iter().filter(|file| file.extension().is_some_and(|it| it == "rs")) {
        let name = file.strip_prefix(&folder)?.to_string_lossy().into_owned();
        sources.insert(name, fs::read_to_string(file).with_context(|| file.display().to_string())?);
    }
    Ok((workspace.relative(&folder).display().to_string(), sources))
}

/// The place of a file, counted from the bottom.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    layer: usize,
    group: usize,
}

impl Layers {
    /// Returns the place of `file`: that of the longest entry which is the file or a folder around it.
    fn place(&self, file: &str) -> Option<Place> {
        let entries = self.entries().filter(|(_, module)| covers(module, file));
        entries.max_by_key(|(_, module)| module.len()).map(|(place, _)| place)
    }

    fn entries(&self) -> impl Iterator<Item = (Place, &'static str)> {
        self.layers.iter().enumerate().flat_map(|(layer, it)| {
            it.groups
                .iter()
                .enumerate()
                .flat_map(move |(group, modules)| modules.iter().map(move |&module| (Place { layer, group }, module)))
        })
    }

    fn layer_of(&self, file: &str) -> &'static str {
        self.place(file).map_or("none", |place| self.layers[place.layer].name)
    }

    /// Returns the arrows that point up, with one path for each pair of files.
    fn upward<'a>(&self, arrows: &'a [Arrow]) -> BTreeMap<(&'a str, &'a str), &'a Arrow> {
        let mut upward = BTreeMap::new();
        for arrow in arrows {
            if let (Some(from), Some(to)) = (self.place(&arrow.from), self.place(&arrow.to))
                && to > from
            {
                upward.entry((&*arrow.from, &*arrow.to)).or_insert(arrow);
            }
        }
        upward
    }
}

/// Returns whether `file` is the file of `module` or lies in its folder.
fn covers(module: &str, file: &str) -> bool {
    file.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn faults_of(layers: &Layers, folder: &str, files: &[String], arrows: &[Arrow]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| layers.place(file).is_none()) {
        faults.push(format!("{folder}/{file}: has no layer in {TABLE}"));
    }
    for (_, module) in layers.entries().filter(|(_, module)| !files.iter().any(|file| covers(module, file))) {
        faults.push(format!("{TABLE}: `{module}` is no module of {}", layers.package));
    }
    let upward = layers.upward(arrows);
    for ((from, to), arrow) in &upward {
        if !layers.known.contains(&(from, to)) {
            let Arrow { line, path, .. } = arrow;
            let (low, high) = (layers.layer_of(from), layers.layer_of(to));
            faults.push(format!(
                "{folder}/{from}:{line}: `{path}` points up to {to}, from `{low}` to `{high}` in {TABLE}"
            ));
        }
    }
    for known @ (from, to) in layers.known {
        if !upward.contains_key(known) {
            faults.push(format!("{TABLE}: no path in {from} points up to {to}: remove it from the list"));
        }
    }
    faults
}

fn described(layers: &Layers, files: &[String], arrows: &[Arrow]) -> String {
    let pairs: BTreeSet<(&str, &str)> = arrows.iter().map(|arrow| (&*arrow.from, &*arrow.to)).collect();
    let mut text = format!("{}: {} files, {} arrows between them\n", layers.package, files.len(), pairs.len());
    for cycle in cycles(&pairs) {
        let inner = |(from, to): &(&str, &str)| cycle.contains(from) && cycle.contains(to);
        let count = pairs.iter().filter(|pair| inner(pair)).count();
        text += &format!("\na cycle of {} files with {count} arrows\n", cycle.len());
        for (from, to) in pairs.iter().filter(|pair| inner(pair)) {
            text += &format!("    {from} -> {to}: {}\n", paths(arrows, from, to));
        }
    }
    let upward = layers.upward(arrows);
    text += &format!("\n{} arrows point up\n", upward.len());
    for (from, to) in upward.keys() {
        text += &format!("    ({from:?}, {to:?}), // {}\n", paths(arrows, from, to));
    }
    text
}

/// Returns the sets of files in which each file leads to each other one, the largest first.
fn cycles<'a>(pairs: &BTreeSet<(&'a str, &'a str)>) -> Vec<BTreeSet<&'a str>> {
    let graph: DiGraphMap<&str, ()> = pairs.iter().copied().collect();
    let mut cycles: Vec<BTreeSet<&str>> = tarjan_scc(&graph).into_iter().map(BTreeSet::from_iter).collect();
    cycles.retain(|cycle| cycle.len() > 1);
    cycles.sort_by_key(|cycle| std::cmp::Reverse(cycle.len()));
    cycles
}

/// Returns the paths from one file to another, with their lines. An import by `use` is not named again where it is
/// used.
fn paths(arrows: &[Arrow], from: &str, to: &str) -> String {
    let all = || arrows.iter().filter(|arrow| arrow.from == from && arrow.to == to);
    let is_whole = |arrow: &&Arrow| ["crate::", "self::", "super::"].iter().any(|start| arrow.path.starts_with(start));
    let whole: Vec<&Arrow> = all().filter(is_whole).collect();
    let shown = if whole.is_empty() { all().collect() } else { whole };
    shown.iter().map(|arrow| format!("{} {}", arrow.line, arrow.path)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Layer;

    const LAYERS: Layers = Layers {
        package: "sample",
        layers: &[
            Layer { name: "ground", groups: &[&["stone"], &["wood", "nails"]] },
            Layer { name: "attic", groups: &[&["attic"], &["attic/roof"]] },
        ],
        known: &[],
    };

    /// Returns a crate of the modules in the table, with this line in this file.
    fn sample(file: &str, line: &str) -> Sources {
        let files = [
            ("lib.rs", "mod attic; mod nails; mod stone; mod wood; pub use attic::Chest; pub use stone::Stone;"),
            ("attic/mod.rs", "pub(crate) mod roof; pub struct Chest;"),
            ("attic/roof.rs", "pub(crate) fn tile() {}"),
            ("nails.rs", "pub(crate) struct Nail;"),
            ("stone.rs", "pub struct Stone;"),
            ("wood.rs", "pub(crate) struct Wood;"),
        ];
        let mut sources: Sources = files.into_iter().map(|(file, text)| (file.to_owned(), text.to_owned())).collect();
        *sources.get_mut(file).unwrap() += &format!("\n{line}");
        sources
    }

    fn faults(layers: &Layers, file: &str, line: &str) -> Vec<String> {
        let (files, arrows) = modules::read(&sample(file, line)).unwrap();
        faults_of(layers, "src", &files, &arrows)
    }

    #[test]
    fn arrows_down_and_within_a_group_are_allowed() {
        for (file, line) in [
            ("attic/roof.rs", "use crate::attic::Chest;"),
            ("attic/mod.rs", "use crate::wood::Wood;"),
            ("wood.rs", "use crate::{Stone, nails::Nail};"),
            ("nails.rs", "use crate::wood::Wood;"),
        ] {
            assert_eq!(faults(&LAYERS, file, line), Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn an_arrow_to_a_higher_layer_or_a_later_group_is_a_fault() {
        assert_eq!(
            faults(&LAYERS, "wood.rs", "use crate::Chest;"),
            [format!("src/wood.rs:2: `crate::Chest` points up to attic/mod.rs, from `ground` to `attic` in {TABLE}")]
        );
        assert_eq!(faults(&LAYERS, "stone.rs", "use crate::nails::Nail;").len(), 1);
        assert_eq!(faults(&LAYERS, "attic/mod.rs", "use self::roof::tile;").len(), 1);
    }

    #[test]
    fn a_known_arrow_is_allowed_and_has_to_exist() {
        let layers = Layers { known: &[("wood.rs", "attic/mod.rs")], ..LAYERS };
        assert_eq!(faults(&layers, "wood.rs", "use crate::Chest;"), Vec::<String>::new());
        let gone = faults(&layers, "wood.rs", "use crate::Stone;");
        assert!(gone[0].ends_with("remove it from the list"), "{gone:?}");
    }

    #[test]
    fn every_file_has_a_place_and_every_place_a_file() {
        let layers = Layers { layers: &LAYERS.layers[..1], ..LAYERS };
        assert_eq!(faults(&layers, "wood.rs", "").len(), 2);
        let cellar = Layer { name: "below", groups: &[&["below"]] };
        let layers: &'static [Layer] = Box::leak(Box::new([cellar]));
        assert_eq!(faults(&Layers { layers, ..LAYERS }, "wood.rs", "").len(), 1 + 5);
    }

    #[test]
    fn the_description_names_cycles_and_upward_arrows_for_the_table() {
        let sources = sample("wood.rs", "use crate::nails::Nail;\nuse crate::Chest;\nfn a() { Chest; crate::Chest; }");
        let (files, mut arrows) = modules::read(&sources).unwrap();
        arrows.push(Arrow { from: "nails.rs".into(), to: "wood.rs".into(), line: 7, path: "super::wood::Wood".into() });
        let text = described(&LAYERS, &files, &arrows);
        assert!(
            text.contains("a cycle of 2 files with 2 arrows\n    nails.rs -> wood.rs: 7 super::wood::Wood\n"),
            "{text}"
        );
        assert!(text.contains("(\"wood.rs\", \"attic/mod.rs\"), // 3 crate::Chest, 4 crate::Chest\n"), "{text}");
    }
}
