//! The modules of a crate: what each declares, and what it brings in from others.

use std::collections::BTreeMap;
use std::path::Path;

use syn::{Attribute, Item, ItemImpl, UseTree, Visibility};

/// A module's path or an item's, from the crate's root, which is empty.
pub type Name = Vec<String>;

/// A name that `use` brings into a module, or all of a module's (`name` is `*`).
pub struct Import {
    pub name: String,
    pub path: Name,
    pub public: bool,
}

#[derive(Default)]
pub struct Module {
    pub items: BTreeMap<String, Item>,
    pub imports: Vec<Import>,
}

#[derive(Default)]
pub struct Source {
    pub modules: BTreeMap<Name, Module>,
    /// With the module that each is in.
    pub impls: Vec<(Name, ItemImpl)>,
}

impl Source {
    /// Reads a crate from its `lib.rs`.
    pub fn read(root: &Path) -> Self {
        let mut source = Self::default();
        source.add(&[], read(root), root.parent());
        source
    }

    /// A crate of one file.
    pub fn parse(text: &str) -> Self {
        let mut source = Self::default();
        source.add(&[], syn::parse_file(text).unwrap().items, None);
        source
    }

    /// Adds a module, whose own modules have their files in `folder`.
    fn add(&mut self, module: &[String], items: Vec<Item>, folder: Option<&Path>) {
        self.modules.entry(module.to_vec()).or_default();
        for item in items {
            if attributes(&item).iter().any(is_test) {
                continue;
            }
            match item {
                Item::Impl(found) => self.impls.push((module.to_vec(), found)),
                Item::Use(found) => {
                    let public = is_public(&found.vis);
                    let imports = &mut self.modules.get_mut(module).unwrap().imports;
                    flatten(&found.tree, &mut Vec::new(), public, imports);
                }
                Item::Mod(mut found) => {
                    let name = found.ident.to_string();
                    let inner = [module, std::slice::from_ref(&name)].concat();
                    let own = folder.map(|folder| folder.join(&name));
                    let items = match found.content.take() {
                        Some((_, items)) => items,
                        None => {
                            let own = own.as_ref().expect("a file of its own");
                            let beside = own.with_extension("rs");
                            read(&if beside.exists() { beside } else { own.join("mod.rs") })
                        }
                    };
                    self.add(&inner, items, own.as_deref());
                    self.declare(module, name, Item::Mod(found));
                }
                other => {
                    if let Some(name) = name(&other) {
                        self.declare(module, name, other);
                    }
                }
            }
        }
    }

    fn declare(&mut self, module: &[String], name: String, item: Item) {
        self.modules.get_mut(module).unwrap().items.insert(name, item);
    }

    /// Where the item is declared that `path` names in `module`; nothing if it is not this crate's.
    pub fn resolve(&self, module: &[String], path: &[String]) -> Option<Name> {
        let (first, rest) = path.split_first()?;
        let place = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module.split_last()?.1.to_vec(),
            name => self.look_up(module, name)?,
        };
        match rest {
            [] => Some(place),
            // Within a path, `super` goes on from where it is; all else is a name in a module.
            _ => self.resolve(&place, rest),
        }
    }

    /// Where the item is declared that a module knows by a name.
    fn look_up(&self, module: &[String], name: &str) -> Option<Name> {
        let found = self.modules.get(module)?;
        if found.items.contains_key(name) {
            return Some([module, &[name.to_owned()]].concat());
        }
        let named = found.imports.iter().find(|import| import.name == name);
        if let Some(import) = named {
            // A crate that is called as what it brings in: not this one's.
            return (import.path[0] != name).then(|| self.resolve(module, &import.path))?;
        }
        let globs = found.imports.iter().filter(|import| import.name == "*");
        globs
            .filter_map(|import| self.resolve(module, &import.path))
            .find_map(|from| self.look_up(&from, name))
    }
}

fn read(path: &Path) -> Vec<Item> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())).items
}

fn flatten(tree: &UseTree, path: &mut Name, public: bool, to: &mut Vec<Import>) {
    let mut add = |name: String, path: Name| to.push(Import { name, path, public });
    match tree {
        UseTree::Path(found) => {
            path.push(found.ident.to_string());
            flatten(&found.tree, path, public, to);
            path.pop();
        }
        UseTree::Name(found) if found.ident == "self" => add(path.last().unwrap().clone(), path.clone()),
        UseTree::Name(found) => {
            let name = found.ident.to_string();
            add(name.clone(), [path.as_slice(), &[name]].concat());
        }
        UseTree::Rename(found) => {
            add(found.rename.to_string(), [path.as_slice(), &[found.ident.to_string()]].concat());
        }
        UseTree::Glob(_) => add("*".into(), path.clone()),
        UseTree::Group(found) => {
            for tree in &found.items {
                flatten(tree, path, public, to);
            }
        }
    }
}

pub fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
}

fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
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
