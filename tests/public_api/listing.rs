//! A line for each thing that a program outside of the crate can name.

use std::collections::BTreeMap;

use syn::punctuated::Punctuated;
use syn::{
    Attribute, Fields, FnArg, ImplItem, Item, ItemFn, Pat, Path, Signature, Token, TraitItem, Type, TypePath,
    parse_quote,
};

use crate::source::{Name, Source, attributes, is_public};

/// The lines, sorted. Of the modules `left_out` only the names are listed.
pub fn listing(krate: &str, source: &Source, left_out: &[&str]) -> Vec<String> {
    let mut list = Listing { source, left_out, lines: Vec::new(), shown: BTreeMap::new() };
    list.module(&[], krate);
    list.impls();
    list.lines.sort();
    list.lines.dedup();
    list.lines
}

struct Listing<'a> {
    source: &'a Source,
    left_out: &'a [&'a str],
    lines: Vec<String>,
    /// Where items are declared, and the name that they are public by.
    shown: BTreeMap<Name, String>,
}

impl Listing<'_> {
    fn module(&mut self, module: &[String], shown: &str) {
        if self.left_out.contains(&shown) {
            return;
        }
        let source = self.source;
        let found = &source.modules[module];
        for (name, item) in &found.items {
            if visibility(item) {
                self.item(&[module, std::slice::from_ref(name)].concat(), &format!("{shown}::{name}"));
            }
        }
        for import in found.imports.iter().filter(|import| import.public) {
            let own = source.resolve(module, &import.path);
            match own {
                Some(place) if import.name == "*" => self.module(&place, shown),
                Some(place) => self.item(&place, &format!("{shown}::{}", import.name)),
                None => {
                    self.lines.push(format!("{shown}::{}: pub use {}", import.name, import.path.join("::")));
                }
            }
        }
    }

    /// The item that is declared at `place`.
    fn item(&mut self, place: &[String], shown: &str) {
        let (name, module) = place.split_last().unwrap();
        let item = &self.source.modules[module].items[name];
        if self.shown.insert(place.to_vec(), shown.to_owned()).is_some_and(|other| other != shown) {
            panic!("{shown} is public by two names"); // which the list of its methods would not show
        }
        let attrs = kept(attributes(item));
        let mut line = |text: String| self.lines.push(format!("{shown}: {attrs}{text}"));
        match item {
            Item::Mod(item) => {
                line(format!("pub mod {}", item.ident));
                self.module(place, shown);
            }
            Item::Fn(item) => line(format!("pub {}", signature(&item.sig))),
            Item::Const(item) => line(format!("pub const {}: {}", item.ident, type_text(&item.ty))),
            Item::Static(item) => line(format!("pub static {}: {}", item.ident, type_text(&item.ty))),
            Item::Type(found) => line(text(Item::Type(found.clone())).trim_end_matches(';').to_owned()),
            Item::Struct(item) => {
                let (generics, clause) = (generics(&item.generics), &item.generics.where_clause);
                assert!(clause.is_none(), "{shown}: a where clause, which is not listed");
                line(format!("pub struct {}{generics}{}", item.ident, shape(&item.fields)));
                self.fields(shown, &item.fields, false);
                self.derives(shown, &item.attrs);
            }
            Item::Enum(item) => {
                line(format!("pub enum {}{}", item.ident, generics(&item.generics)));
                for variant in &item.variants {
                    let name = format!("{shown}::{}", variant.ident);
                    let shape = match &variant.fields {
                        Fields::Named(_) => ": { }",
                        Fields::Unnamed(_) => ": ( )",
                        Fields::Unit => "",
                    };
                    self.lines.push(format!("{name}{shape}"));
                    self.fields(&name, &variant.fields, true);
                }
                self.derives(shown, &item.attrs);
            }
            Item::Trait(item) => {
                line(format!("pub trait {}{}", item.ident, generics(&item.generics)));
                for part in &item.items {
                    let (name, text) = match part {
                        TraitItem::Fn(part) => (&part.sig.ident, signature(&part.sig)),
                        TraitItem::Const(part) => {
                            (&part.ident, format!("const {}: {}", part.ident, type_text(&part.ty)))
                        }
                        TraitItem::Type(part) => (&part.ident, format!("type {}", part.ident)),
                        _ => panic!("{shown}: a part of a trait that this test does not know"),
                    };
                    self.lines.push(format!("{shown}::{name}: {text}"));
                }
            }
            _ => panic!("{shown}: a kind of item that this test does not know"),
        }
    }

    fn fields(&mut self, shown: &str, fields: &Fields, all: bool) {
        for (index, field) in fields.iter().enumerate() {
            if all || is_public(&field.vis) {
                let name = field.ident.as_ref().map_or(index.to_string(), ToString::to_string);
                self.lines.push(format!("{shown}.{name}: {}", type_text(&field.ty)));
            }
        }
    }

    fn derives(&mut self, shown: &str, attrs: &[Attribute]) {
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("derive")) {
            for path in attr.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated).unwrap() {
                self.lines.push(format!("{shown}: impl {}", last(&path)));
            }
        }
    }

    /// The methods and traits of what is public, wherever they are.
    fn impls(&mut self) {
        for (module, found) in &self.source.impls {
            let Type::Path(TypePath { qself: None, path }) = &*found.self_ty else { continue };
            let path: Name = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            let place = self.source.resolve(module, &path);
            let Some(shown) = place.and_then(|place| self.shown.get(&place)) else { continue };
            if let Some((_, path, _)) = &found.trait_ {
                self.lines.push(format!("{shown}: {}impl {}", kept(&found.attrs), last(path)));
                continue;
            }
            for part in &found.items {
                let line = match part {
                    ImplItem::Fn(part) if is_public(&part.vis) => {
                        format!(
                            "{shown}::{}: {}pub {}",
                            part.sig.ident,
                            kept(&part.attrs),
                            signature(&part.sig)
                        )
                    }
                    ImplItem::Const(part) if is_public(&part.vis) => {
                        format!("{shown}::{0}: pub const {0}: {1}", part.ident, type_text(&part.ty))
                    }
                    _ => continue,
                };
                self.lines.push(line);
            }
        }
    }
}

fn visibility(item: &Item) -> bool {
    match item {
        Item::Const(item) => is_public(&item.vis),
        Item::Enum(item) => is_public(&item.vis),
        Item::Fn(item) => is_public(&item.vis),
        Item::Macro(item) => item.attrs.iter().any(|attr| attr.path().is_ident("macro_export")),
        Item::Mod(item) => is_public(&item.vis),
        Item::Static(item) => is_public(&item.vis),
        Item::Struct(item) => is_public(&item.vis),
        Item::Trait(item) => is_public(&item.vis),
        Item::Type(item) => is_public(&item.vis),
        Item::Union(item) => is_public(&item.vis),
        _ => false,
    }
}

/// The attributes that matter to a program.
fn kept(attrs: &[Attribute]) -> String {
    let matters = |attr: &&Attribute| attr.path().is_ident("non_exhaustive") || attr.path().is_ident("cfg");
    let mut kept = String::new();
    for attr in attrs.iter().filter(matters) {
        kept += text(parse_quote!(#attr struct X;)).trim_end_matches("struct X;");
    }
    kept
}

/// How a struct is written, and whether it has private fields.
fn shape(fields: &Fields) -> &'static str {
    let private = fields.iter().any(|field| !is_public(&field.vis));
    match (fields, private) {
        (Fields::Named(_), true) => " { .. }",
        (Fields::Named(_), false) => " { }",
        (Fields::Unnamed(_), true) => "( .. )",
        (Fields::Unnamed(_), false) => "( )",
        (Fields::Unit, _) => "",
    }
}

/// A function's signature. Whether it changes its own copy of an argument is its own affair.
fn signature(sig: &Signature) -> String {
    let mut sig = sig.clone();
    for input in &mut sig.inputs {
        match input {
            FnArg::Receiver(receiver) if receiver.reference.is_none() => receiver.mutability = None,
            FnArg::Receiver(_) => {}
            FnArg::Typed(typed) => {
                if let Pat::Ident(ident) = &mut *typed.pat {
                    ident.mutability = None;
                }
            }
        }
    }
    let item: ItemFn = parse_quote!(#sig {});
    text(Item::Fn(item)).trim_end_matches(" {}").to_owned()
}

fn generics(generics: &syn::Generics) -> String {
    text(parse_quote!(type X #generics = u8;))
        .trim_start_matches("type X")
        .trim_end_matches(" = u8;")
        .to_owned()
}

fn type_text(ty: &Type) -> String {
    text(parse_quote!(type X = #ty;)).trim_start_matches("type X = ").trim_end_matches(';').to_owned()
}

/// A path's last name, with its arguments.
fn last(path: &Path) -> String {
    let last = path.segments.last().unwrap();
    type_text(&parse_quote!(#last))
}

/// An item in one line.
fn text(mut item: Item) -> String {
    if let Item::Type(item) = &mut item {
        item.attrs.clear();
    }
    let file = syn::File { shebang: None, attrs: Vec::new(), items: vec![item] };
    let lines = prettyplease::unparse(&file);
    let line = lines.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace("( ", "(").replace(", )", ")").replace("< ", "<").replace(", >", ">")
}
