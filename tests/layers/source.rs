//! A crate's modules, what each declares and imports, and which paths it names: where does a path lead?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::TokenStream;

use crate::reader::Reader;

/// A module's path or an item's, from the crate's root, which is empty.
pub type Name = Vec<String>;

/// The files of a crate: path below its root (`plan/order.rs`) and text.
pub type Files = BTreeMap<String, String>;

/// A path that a file names, such as `super::order::shuffle`.
pub struct Reference {
    pub file: String,
    pub line: usize,
    /// The module that it stands in, which `self` and `super` count from.
    pub module: Name,
    pub path: Name,
    pub in_test: bool,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// In code.
    Code,
    /// In a `use`.
    Import,
    /// In a `pub use`.
    Reexport,
}

/// A struct, enum, union or trait with `pub` or `pub(..)`.
pub struct Type {
    pub name: String,
    pub file: String,
    pub line: usize,
    /// Whether it is one of several definitions, of which a `#[cfg]` picks one.
    pub conditional: bool,
}

/// An `unsafe` that is followed by a block, `impl`, `fn` or `extern` block.
pub struct Unsafe {
    pub file: String,
    pub line: usize,
    pub is_fn: bool,
}

#[derive(Default)]
pub struct Module {
    pub file: String,
    /// Structs, functions, constants, macros: what ends a path.
    pub items: BTreeSet<String>,
    /// The names that `use` brings in, and where from. `*` names are in `globs`.
    pub imports: BTreeMap<String, Name>,
    pub globs: Vec<Name>,
    /// Whether the module, or one that it is in, is declared with `#[cfg(..)]` or `#[cfg(test)]`.
    pub conditional: bool,
    pub test: bool,
}

#[derive(Default)]
pub struct Source {
    pub modules: BTreeMap<Name, Module>,
    pub references: Vec<Reference>,
    pub types: Vec<Type>,
    pub unsafes: Vec<Unsafe>,
    /// The names that each file's code has, its `use` lines aside.
    pub named: BTreeMap<String, BTreeSet<String>>,
}

/// All `.rs` files below `root`.
pub fn read_files(root: &Path) -> Files {
    fn walk(folder: &Path, root: &Path, to: &mut Files) {
        for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, to);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                to.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut files = Files::new();
    walk(root, root, &mut files);
    files
}

/// `plan/mod.rs` is the module `plan`, `plan/order.rs` is `plan::order`, `lib.rs` and `main.rs` are the root.
fn module_of(file: &str) -> Name {
    let mut name: Name = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(name.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        name.pop();
    }
    name
}

impl Source {
    pub fn parse(files: &Files) -> Self {
        let mut source = Self::default();
        // Outer modules first: they say of the inner ones whether these are tests.
        let mut names: Vec<&String> = files.keys().collect();
        names.sort_by_key(|file| module_of(file).len());
        for file in names {
            let tokens: TokenStream = files[file].parse().unwrap_or_else(|e| panic!("{file}: {e}"));
            let module = module_of(file);
            source.modules.entry(module.clone()).or_default().file = file.clone();
            let (test, conditional) = (source.modules[&module].test, source.modules[&module].conditional);
            let mut reader = Reader { source: &mut source, file, module, test, conditional };
            reader.group(tokens);
        }
        source
    }

    /// The file that declares what `path` names in `module`; nothing if that is no part of this crate. The second
    /// value says whether the path names a module, not an item.
    pub fn resolve(&self, module: &[String], path: &[String]) -> Option<(String, bool)> {
        let (place, item) = self.place(module, path, 0)?;
        Some((self.modules.get(&place)?.file.clone(), !item))
    }

    /// The module that a path leads to, and whether it goes on to an item in it.
    fn place(&self, module: &[String], path: &[String], depth: usize) -> Option<(Name, bool)> {
        if depth > 32 {
            return None;
        }
        let (first, mut rest) = path.split_first()?;
        let mut place = match first.as_str() {
            "crate" => Name::new(),
            "self" => module.to_vec(),
            "super" => module.split_last()?.1.to_vec(),
            name => match self.look_up(module, name, depth)? {
                (place, true) => return Some((place, true)),
                (place, false) => place,
            },
        };
        while let Some((name, behind)) = rest.split_first() {
            rest = behind;
            place = match name.as_str() {
                "self" => place,
                "super" => place.split_last()?.1.to_vec(),
                name => match self.look_up(&place, name, depth) {
                    Some((place, false)) => place,
                    Some((place, true)) => return Some((place, true)),
                    // From another crate, or made by a macro: it belongs to the module that offers it.
                    None => return Some((place, true)),
                },
            };
        }
        Some((place, false))
    }

    /// What a module knows by a name.
    fn look_up(&self, module: &[String], name: &str, depth: usize) -> Option<(Name, bool)> {
        let inner = [module, &[name.to_owned()]].concat();
        if self.modules.contains_key(&inner) {
            return Some((inner, false));
        }
        let found = self.modules.get(module)?;
        if found.items.contains(name) {
            return Some((module.to_vec(), true));
        }
        match found.imports.get(name) {
            // `use memmap2;`, or a crate called as an item that it brings in.
            Some(path) if path.first().is_some_and(|first| first == name) => None,
            Some(path) => self.place(module, path, depth + 1),
            None => found.globs.iter().find_map(|path| {
                let (from, is_item) = self.place(module, path, depth + 1)?;
                (!is_item && from != module).then(|| self.look_up(&from, name, depth + 1))?
            }),
        }
    }
}
