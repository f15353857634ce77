//! The modules of one crate, and the arrows between its files: an arrow is a path that names an item of another file.
//!
//! Names are resolved as far as `mod`, `use` and paths tell. A method call names no file, so a call of a method whose
//! `impl` stands in another file is no arrow. Code that is compiled for tests only is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, ItemMod, Lit, Meta, Token, UseTree};

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

/// How many imports may lead from a name to its item.
const LONGEST_CHAIN: usize = 16;

/// Reads a library. Returns its files except for the root, and the arrows between them.
///
/// The root is neither a start nor an end of an arrow: its re-exports are followed to the file that has the item. The
/// same holds for the re-exports of a folder's front file, for what is below it.
///
/// # Errors
///
/// A file is missing or is not Rust.
pub fn read(sources: &Sources) -> Result<(Vec<String>, Vec<Arrow>)> {
    let mut tree = Tree { sources, parsed: Vec::new(), modules: vec![Module::default()] };
    tree.read(0, ROOT)?;
    let mut found = BTreeSet::new();
    for (module, file, parsed) in tree.parsed.iter().filter(|(_, file, _)| file != ROOT) {
        Finder { tree: &tree, module: *module, file, found: &mut found }.visit_file(parsed);
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

/// Calls `each` for every import in `tree` with its path, the name that it gets (none for a glob) and its place.
fn each_import(prefix: &mut Vec<String>, tree: &UseTree, each: &mut impl FnMut(&[String], Option<String>, &Ident)) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            match &*path.tree {
                UseTree::Glob(_) => each(prefix, None, &path.ident),
                tree => each_import(prefix, tree, each),
            }
            prefix.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| each_import(prefix, tree, each)),
        UseTree::Name(name) if name.ident == "self" => each(prefix, prefix.last().cloned(), &name.ident),
        UseTree::Rename(rename) if rename.ident == "self" => {
            each(prefix, Some(rename.rename.to_string()), &rename.ident);
        }
        UseTree::Name(name) => {
            prefix.push(name.ident.to_string());
            each(prefix, prefix.last().cloned(), &name.ident);
            prefix.pop();
        }
        UseTree::Rename(rename) => {
            prefix.push(rename.ident.to_string());
            each(prefix, Some(rename.rename.to_string()), &rename.ident);
            prefix.pop();
        }
        UseTree::Glob(_) => {}
    }
}

/// Collects the arrows that start in one file.
struct Finder<'a> {
    tree: &'a Tree<'a>,
    module: usize,
    file: &'a str,
    found: &'a mut BTreeSet<Arrow>,
}

impl Finder<'_> {
    fn add(&mut self, path: &[String], place: &Ident) {
        let is_only_steps = path.iter().all(|segment| matches!(segment.as_str(), "crate" | "self" | "super"));
        if path.len() < 2 || is_only_steps {
            return;
        }
        let Some(Found::Module(number) | Found::Item(number)) = self.tree.find(self.module, path, LONGEST_CHAIN) else {
            return;
        };
        let files = &self.tree.modules[number].files;
        // Files of the same module do not see each other.
        if files.iter().any(|file| file == self.file || file == ROOT) {
            return;
        }
        for to in files {
            self.found.insert(Arrow {
                from: self.file.to_owned(),
                to: to.clone(),
                line: place.span().start().line,
                path: path.join("::"),
            });
        }
    }

    /// Adds the paths in the tokens of a macro, which may be anything.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<Ident> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) if colons == 2 && !path.is_empty() => {
                    path.push(ident);
                    colons = 0;
                }
                TokenTree::Ident(ident) => {
                    self.add_idents(&path);
                    path = vec![ident];
                    colons = 0;
                }
                TokenTree::Group(group) => {
                    let mut prefix: Vec<String> = path.iter().map(Ident::to_string).collect();
                    match syn::parse2::<UseTree>(quote_group(&group)) {
                        Ok(tree) if colons == 2 => {
                            each_import(&mut prefix, &tree, &mut |path, _, place| self.add(path, place))
                        }
                        _ => {
                            self.add_idents(&path);
                            self.add_tokens(group.stream());
                        }
                    }
                    path.clear();
                    colons = 0;
                }
                _ => {
                    self.add_idents(&path);
                    path.clear();
                    colons = 0;
                }
            }
        }
        self.add_idents(&path);
    }

    fn add_idents(&mut self, path: &[Ident]) {
        if let Some(place) = path.last() {
            self.add(&path.iter().map(Ident::to_string).collect::<Vec<_>>(), place);
        }
    }
}

fn quote_group(group: &proc_macro2::Group) -> TokenStream {
    TokenTree::Group(group.clone()).into()
}

/// Passes over what is compiled for tests only.
macro_rules! except_in_tests {
    ($($visit:ident: $node:ident,)*) => {
        $(
            fn $visit(&mut self, node: &'ast syn::$node) {
                if !is_for_tests(&node.attrs) {
                    visit::$visit(self, node);
                }
            }
        )*
    };
}

impl<'ast> Visit<'ast> for Finder<'_> {
    except_in_tests! {
        visit_item_const: ItemConst,
        visit_item_enum: ItemEnum,
        visit_item_fn: ItemFn,
        visit_item_foreign_mod: ItemForeignMod,
        visit_item_impl: ItemImpl,
        visit_item_macro: ItemMacro,
        visit_item_static: ItemStatic,
        visit_item_struct: ItemStruct,
        visit_item_trait: ItemTrait,
        visit_item_type: ItemType,
        visit_impl_item_const: ImplItemConst,
        visit_impl_item_fn: ImplItemFn,
        visit_trait_item_fn: TraitItemFn,
        visit_field: Field,
        visit_local: Local,
        visit_expr_block: ExprBlock,
        visit_stmt_macro: StmtMacro,
    }

    fn visit_item_mod(&mut self, node: &'ast ItemMod) {
        if node.content.is_some() && !is_for_tests(&node.attrs) {
            let outer = self.module;
            self.module = *self.tree.modules[outer].children.get(&node.ident.to_string()).unwrap_or(&outer);
            visit::visit_item_mod(self, node);
            self.module = outer;
        }
    }

    fn visit_item_use(&mut self, node: &'ast syn::ItemUse) {
        if !is_for_tests(&node.attrs) {
            each_import(&mut Vec::new(), &node.tree, &mut |path, _, place| self.add(path, place));
        }
    }

    fn visit_path(&mut self, node: &'ast syn::Path) {
        let path: Vec<String> = node.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let (Some(last), None) = (node.segments.last(), node.leading_colon) {
            self.add(&path, &last.ident);
        }
        visit::visit_path(self, node);
    }

    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        self.visit_path(&node.path);
        self.add_tokens(node.tokens.clone());
    }

    /// `pub(in path)` names no item.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

/// Whether an item with these attributes is compiled for tests only.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg") && attribute.parse_args().is_ok_and(|meta| needs_tests(&meta))
    })
}

/// Whether a condition holds in tests only.
fn needs_tests(condition: &Meta) -> bool {
    let parts = || match condition {
        Meta::List(list) => list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default(),
        _ => Punctuated::new(),
    };
    match condition.path().get_ident().map(Ident::to_string).as_deref() {
        Some("test") => true,
        Some("all") => parts().iter().any(needs_tests),
        Some("any") => !parts().is_empty() && parts().iter().all(needs_tests),
        _ => false,
    }
}

/// The values of `path = "…"`, also those in `cfg_attr`.
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

    /// The arrows of `a.rs` in a small crate, as (file, path).
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

    /// The files that `a.rs` names.
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
