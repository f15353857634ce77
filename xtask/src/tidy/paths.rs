//! The paths in a Rust file. Code that is compiled for tests only is left out.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, Meta, Token, UseTree};

/// Calls `each` for every path in `file` that has at least two names, with the inline modules around it, its names and
/// its place.
pub fn each_path(file: &syn::File, each: impl FnMut(&[String], &[String], &Ident)) {
    Paths { inline: Vec::new(), each }.visit_file(file);
}

/// Calls `each` for every import in `tree` with its path, the name that it gets (none for a glob) and its place.
pub fn each_import(prefix: &mut Vec<String>, tree: &UseTree, each: &mut impl FnMut(&[String], Option<String>, &Ident)) {
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

struct Paths<F> {
    inline: Vec<String>,
    each: F,
}

impl<F: FnMut(&[String], &[String], &Ident)> Paths<F> {
    fn add(&mut self, path: &[String], place: &Ident) {
        let is_only_steps = path.iter().all(|segment| matches!(segment.as_str(), "crate" | "self" | "super"));
        if path.len() > 1 && !is_only_steps {
            (self.each)(&self.inline, path, place);
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
                    match syn::parse2::<UseTree>(TokenStream::from(TokenTree::Group(group.clone()))) {
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

/// Passes over items that are compiled for tests only.
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

impl<'ast, F: FnMut(&[String], &[String], &Ident)> Visit<'ast> for Paths<F> {
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
        if !is_for_tests(&node.attrs) {
            self.inline.push(node.ident.to_string());
            visit::visit_item_mod(self, node);
            self.inline.pop();
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

/// Returns whether an item with these attributes is compiled for tests only.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg") && attribute.parse_args().is_ok_and(|meta| needs_tests(&meta))
    })
}

/// Returns whether a condition holds in tests only.
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
