//! The modules of one crate, and the arrows between its files: an arrow is a path that names an item of another file.
//!
//! Names are resolved as far as `mod`, `use` and paths tell. A method call names no file, so a call of a method whose
//! `impl` stands in another file is no arrow. Code that is compiled for tests only is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use proc_macro2::Ident;
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Item, ItemMod, Lit, Meta, Token};

use super::paths::{each_import, each_path, is_for_tests};

/// The text of each file, by its path below `src`.
pub type Sources = BTreeMap<String, String>;

/// A path in one file that names an item of another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Arrow {
    pub from: String,
    pub to: String,
    pub line: usize,
    /// As it is written.
    pub path: String,
}

/// The root of a library.
const ROOT: &str = "lib.rs";

/// The number of imports that may lead from a name to its item.
const LONGEST_CHAIN: usize = 16;

/// Reads a library. Returns its files except for the root, and the arrows between them.
///
/// The root is neither a start nor an end of an arrow: its re-exports are followed to the file that has the item. The
/// same holds for the re-exports of a folder's front file, for what is below it.
///
/// # Errors
///
/// Returns an error if a file is missing or is not Rust.
pub fn read(sources: &Sources) -> Result<(Vec<String>, Vec<Arrow>)> {
    let mut tree = Tree { sources, parsed: Vec::new(), modules: vec![Module::default()] };
    tree.read(0, ROOT)?;
    let mut found = BTreeSet::new();
    for (module, file, parsed) in tree.parsed.iter().filter(|(_, file, _)| file != ROOT) {
        each_path(parsed, |inline, path, place| found.extend(tree.arrows(*module, file, inline, path, place)));
    }
    let files: BTreeSet<&String> = tree.parsed.iter().map(|(_, file, _)| file).filter(|file| *file != ROOT).collect();
    Ok((files.into_iter().cloned().collect(), found.into_iter().collect()))
}

/// A module. It has several files if a feature or the target chooses one of them.
#[derive(Default)]
struct Module {
    parent: usize,
    files: Vec<String>,
    children: HashMap<String, usize>,
    /// The names that it defines.
    items: HashSet<String>,
    /// The names that it imports, with their paths.
    imports: Vec<(String, Vec<String>)>,
    /// The modules from which it imports every name.
    globs: Vec<Vec<String>>,
}

struct Tree<'a> {
    sources: &'a Sources,
    /// Each file with its module.
    parsed: Vec<(usize, String, syn::File)>,
    /// The root is the first.
    modules: Vec<Module>,
}

/// The place of child modules' files.
struct Folders {
    /// An explicit path starts here.
    explicit: String,
    /// A file that is found by the module's name is here.
    named: String,
}

impl Tree<'_> {
    /// Reads `file` and the files of its child modules.
    fn read(&mut self, module: usize, file: &str) -> Result<()> {
        let text = self.sources.get(file).with_context(|| format!("{file}: no such file"))?;
        let parsed = syn::parse_file(text).with_context(|| format!("{file}: not Rust"))?;
        let stem = file.trim_end_matches(".rs");
        let (folder, name) = stem.rsplit_once('/').map_or(("", stem), |(folder, name)| (folder, name));
        let explicit = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let named = if matches!(name, "mod" | "lib") { explicit.clone() } else { format!("{stem}/") };
        self.enter(module, file, &Folders { explicit, named }, &parsed.items)?;
        self.parsed.push((module, file.to_owned(), parsed));
        Ok(())
    }

    /// Adds the names of `items`, which stand in `file`, to `module`.
    fn enter(&mut self, module: usize, file: &str, folders: &Folders, items: &[Item]) -> Result<()> {
        self.modules[module].files.push(file.to_owned());
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            let this = &mut self.modules[module];
            match item {
                Item::Mod(child) => self.enter_child(module, file, folders, child)?,
                Item::Use(import) => each_import(&mut Vec::new(), &import.tree, &mut |path, name, _| match name {
                    Some(name) => this.imports.push((name, path.to_vec())),
                    None => this.globs.push(path.to_vec()),
                }),
                item => this.items.extend(name(item).map(Ident::to_string)),
            }
        }
        Ok(())
    }

    fn enter_child(&mut self, module: usize, file: &str, folders: &Folders, child: &ItemMod) -> Result<()> {
        let name = child.ident.to_string();
        let next = self.modules.len();
        let number = *self.modules[module].children.entry(name.clone()).or_insert(next);
        if number == next {
            self.modules.push(Module { parent: module, ..Module::default() });
        }
        let Folders { explicit, named } = folders;
        if let Some((_, items)) = &child.content {
            let inner = format!("{named}{name}/");
            return self.enter(number, file, &Folders { explicit: inner.clone(), named: inner }, items);
        }
        let mut files: Vec<String> = explicit_paths(&child.attrs).map(|path| format!("{explicit}{path}")).collect();
        if !child.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
            let candidates = [format!("{named}{name}.rs"), format!("{named}{name}/mod.rs")];
            files.extend(candidates.into_iter().filter(|file| self.sources.contains_key(file)));
        }
        ensure!(!files.is_empty(), "{file}: module `{name}` has no file");
        files.iter().try_for_each(|file| self.read(number, file))
    }

    /// Returns the arrows of a path in `file`, a file of `module`. The path stands in the module `inline` of that file.
    fn arrows<'a>(
        &'a self,
        module: usize,
        file: &'a str,
        inline: &[String],
        path: &[String],
        place: &Ident,
    ) -> impl Iterator<Item = Arrow> + use<'a> {
        let at = inline.iter().fold(module, |at, name| *self.modules[at].children.get(name).unwrap_or(&at));
        let files = match self.find(at, path, LONGEST_CHAIN) {
            Some(Found::Module(number) | Found::Item(number)) => &*self.modules[number].files,
            None => &[],
        };
        // Files of the same module do not see each other.
        let is_foreign = !files.iter().any(|to| to == file || to == ROOT);
        let (line, path) = (place.span().start().line, path.join("::"));
        files.iter().filter(move |_| is_foreign).map(move |to| Arrow {
            from: file.to_owned(),
            to: to.clone(),
            line,
            path: path.clone(),
        })
    }

    /// Follows `path`, which stands in `module`. Returns nothing for a path out of the crate.
    fn find(&self, module: usize, path: &[String], depth: usize) -> Option<Found> {
        let (first, rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => 0,
            "self" => module,
            "super" => self.modules[module].parent,
            first => match self.name(module, first, depth)? {
                Found::Module(number) => number,
                item => return Some(item),
            },
        };
        for segment in rest {
            at = match self.name(at, segment, depth) {
                _ if segment == "super" => self.modules[at].parent,
                Some(Found::Module(number)) if self.is_within(number, at) => number,
                Some(Found::Item(number)) if self.is_within(number, at) => return Some(Found::Item(number)),
                // A re-export from elsewhere counts as an item of the module that re-exports it.
                _ => return Some(Found::Item(at)),
            };
        }
        Some(Found::Module(at))
    }

    /// Looks up `name` in `module`.
    fn name(&self, module: usize, name: &str, depth: usize) -> Option<Found> {
        let this = &self.modules[module];
        if let Some(&child) = this.children.get(name) {
            return Some(Found::Module(child));
        }
        if this.items.contains(name) {
            return Some(Found::Item(module));
        }
        let depth = depth.checked_sub(1)?;
        if let Some((_, path)) = this.imports.iter().find(|(known, _)| known == name) {
            return self.find(module, path, depth);
        }
        this.globs.iter().find_map(|path| match self.find(module, path, depth)? {
            Found::Module(number) => self.name(number, name, depth),
            Found::Item(_) => None,
        })
    }

    fn is_within(&self, mut module: usize, ancestor: usize) -> bool {
        while module != ancestor && module != 0 {
            module = self.modules[module].parent;
        }
        module == ancestor
    }
}

/// The end of a path.
#[derive(Copy, Clone)]
enum Found {
    Module(usize),
    /// An item of this module.
    Item(usize),
}

/// Returns the values of `path = "…"`, also those in `cfg_attr`.
fn explicit_paths(attributes: &[Attribute]) -> impl Iterator<Item = String> {
    attributes.iter().flat_map(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg_attr") => {
            let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default();
            parts.iter().skip(1).filter_map(path_value).collect::<Vec<_>>()
        }
        meta => path_value(meta).into_iter().collect(),
    })
}

fn path_value(meta: &Meta) -> Option<String> {
    let Meta::NameValue(pair) = meta else { return None };
    match &pair.value {
        Expr::Lit(literal) if pair.path.is_ident("path") => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

fn name(item: &Item) -> Option<&Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Macro(item) => item.ident.as_ref(),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the arrows of `a.rs` in a small crate, as (file, path).
    fn arrows(text: &str) -> Vec<(String, String)> {
        let files = [
            ("lib.rs", "mod a; mod b; mod folder; mod chosen; pub use b::{B, c::C as Renamed}; pub use folder::*;"),
            ("a.rs", text),
            ("b.rs", "pub(crate) use crate::folder::Deep; pub struct B; pub mod c; pub fn b() {}"),
            ("b/c.rs", "pub struct C; pub mod d { pub struct D; }"),
            ("folder/mod.rs", "mod deep; pub use self::deep::Deep; pub struct Shallow;"),
            ("folder/deep.rs", "pub struct Deep;"),
            ("chosen.rs", "#[cfg_attr(windows, path = \"other.rs\")] mod system; pub use self::system::*;"),
            ("chosen/system.rs", "pub fn call() {}"),
            ("other.rs", "pub fn call() {}"),
        ];
        let sources = files.into_iter().map(|(file, text)| (file.to_owned(), text.to_owned())).collect();
        let (_, arrows) = read(&sources).unwrap();
        arrows.into_iter().filter(|arrow| arrow.from == "a.rs").map(|arrow| (arrow.to, arrow.path)).collect()
    }

    /// Returns the files that `a.rs` names.
    fn named(text: &str) -> Vec<String> {
        let files: BTreeSet<String> = arrows(text).into_iter().map(|(to, _)| to).collect();
        files.into_iter().collect()
    }

    #[test]
    fn imports_lead_to_the_file_of_the_item() {
        assert_eq!(named("use crate::b;"), ["b.rs"]);
        assert_eq!(named("use crate::b::{self, b as other};"), ["b.rs"]);
        assert_eq!(named("use super::b::{c::C, B};"), ["b.rs", "b/c.rs"]);
        assert_eq!(named("use crate::b::c::d::D;"), ["b/c.rs"]);
        assert_eq!(named("use std::io; use libc::c_int;"), [""; 0]);
    }

    #[test]
    fn re_exports_of_the_root_and_of_a_folder_are_followed() {
        assert_eq!(named("use crate::B;"), ["b.rs"]);
        assert_eq!(named("use crate::Renamed;"), ["b/c.rs"]);
        assert_eq!(named("use crate::folder::Deep;"), ["folder/deep.rs"]);
        assert_eq!(named("use crate::{Deep, Shallow};"), ["folder/deep.rs", "folder/mod.rs"]);
    }

    #[test]
    fn a_re_export_from_elsewhere_belongs_to_its_module() {
        assert_eq!(named("use crate::b::Deep;"), ["b.rs"]);
    }

    #[test]
    fn every_file_of_a_module_is_an_end() {
        assert_eq!(named("use crate::chosen::call;"), ["chosen/system.rs", "other.rs"]);
    }

    #[test]
    fn paths_in_bodies_types_and_macros_count() {
        assert_eq!(named("fn f() { crate::b::b(); }"), ["b.rs"]);
        assert_eq!(named("fn f(_: &crate::b::c::C) { use crate::Shallow; }"), ["b/c.rs", "folder/mod.rs"]);
        assert_eq!(
            named("fn f() { assert!(crate::b::b(), \"{}\", super::folder::Deep); }"),
            ["b.rs", "folder/deep.rs"]
        );
        assert_eq!(named("macro_rules! m { () => { $crate::b::c::C; use crate::folder::{Deep, Shallow}; } }").len(), 3);
    }

    #[test]
    fn an_imported_module_is_followed() {
        assert_eq!(arrows("use crate::b; fn f() { b::c::C; }")[1], ("b/c.rs".to_owned(), "b::c::C".to_owned()));
    }

    #[test]
    fn tests_and_visibilities_do_not_count() {
        for text in [
            "#[cfg(test)] mod tests { use crate::b::B; }",
            "#[cfg(all(test, not(loom)))] use crate::b::B;",
            "struct A; impl A { #[cfg(test)] fn f() { crate::b::b(); } }",
            "#[test] fn f() { crate::b::b(); }",
            "mod inner { pub(in super::super) struct A; }",
            "/// [`crate::b::B`]\nstruct A;",
            "mod inner { use super::A; } struct A;",
        ] {
            assert_eq!(named(text), [""; 0], "{text}");
        }
        assert_eq!(named("#[cfg(any(test, unix))] use crate::b::B;"), ["b.rs"]);
        assert_eq!(named("#[cfg(not(test))] mod inner { use super::super::b::B; }"), ["b.rs"]);
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let sources = Sources::from([("lib.rs".to_owned(), "mod a;".to_owned())]);
        assert!(read(&sources).unwrap_err().to_string().contains("`a` has no file"));
    }
}
