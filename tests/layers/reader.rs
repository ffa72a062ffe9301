//! Reads a file as tokens and adds what it finds to a [`Source`].
//!
//! Tokens rather than a syntax tree, since paths in macro calls and attributes count too. Comments are no tokens, so
//! a name in a comment is not an import.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::source::{Kind, Module, Name, Reference, Source, Type, Unsafe};

/// Goes through the tokens of one file.
pub struct Reader<'a> {
    pub source: &'a mut Source,
    pub file: &'a str,
    pub module: Name,
    pub test: bool,
    pub conditional: bool,
}

impl Reader<'_> {
    pub fn group(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        self.tokens(&tokens);
    }

    fn own(&mut self) -> &mut Module {
        let file = self.file.to_owned();
        let module = self.source.modules.entry(self.module.clone()).or_default();
        module.file = file;
        module
    }

    fn tokens(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        while at < tokens.len() {
            at = self.token(tokens, at);
        }
    }

    /// Reads what begins at `at`. Where the next begins.
    fn token(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let name = match &tokens[at] {
            TokenTree::Group(group) => {
                self.group(group.stream());
                return at + 1;
            }
            TokenTree::Punct(punct) if punct.as_char() == '#' => return self.attribute(tokens, at),
            TokenTree::Ident(ident) => ident.to_string(),
            _ => return at + 1,
        };
        let line = tokens[at].span().start().line;
        let next = ident(tokens, at + 1);
        match (name.as_str(), next) {
            ("use", _) if !is_punct(tokens, at + 1, '<') => return self.import(tokens, at),
            ("mod", Some(inner)) => return self.inner_module(inner, tokens, at),
            ("struct" | "enum" | "union" | "trait", Some(item)) => {
                self.own().items.insert(item.clone());
                if is_visible(tokens, at) && !self.test {
                    let (file, conditional) = (self.file.to_owned(), self.conditional);
                    self.source.types.push(Type { name: item, file, line, conditional });
                }
            }
            ("fn" | "const" | "static" | "type", Some(item)) => {
                self.own().items.insert(item);
            }
            ("macro_rules", _) => {
                self.own().items.extend(ident(tokens, at + 2));
            }
            ("unsafe", _) => self.unsafe_code(tokens, at, line),
            _ if is_path(tokens, at + 1) && !is_path_end(tokens, at) => return self.path(tokens, at),
            _ => {}
        }
        if name != "unsafe" {
            self.source.named.entry(self.file.to_owned()).or_default().insert(name);
        }
        at + 1
    }

    fn unsafe_code(&mut self, tokens: &[TokenTree], at: usize, line: usize) {
        // `unsafe extern "C" fn name`, but not the type `unsafe extern "C" fn(..)`.
        let function =
            (at + 1..tokens.len().min(at + 4)).find(|&i| ident(tokens, i).as_deref() == Some("fn"));
        let is_fn = function.is_some_and(|i| ident(tokens, i + 1).is_some());
        let is_block = brace(tokens, at + 1) || brace(tokens, at + 2) || brace(tokens, at + 3);
        let is_impl = ident(tokens, at + 1).as_deref() == Some("impl");
        if is_fn || is_impl || (is_block && function.is_none()) {
            self.source.unsafes.push(Unsafe { file: self.file.to_owned(), line, is_fn });
        }
    }

    /// An attribute. With `cfg(..)` it is read together with what it belongs to.
    fn attribute(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let Some(TokenTree::Group(group)) = tokens.get(at + 1) else { return at + 1 };
        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
        if ident(&inner, 0).as_deref() != Some("cfg") {
            self.tokens(&inner);
            return at + 2;
        }
        let condition = inner.get(1).map(ToString::to_string).unwrap_or_default();
        let is_test = condition.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test");
        let end = item_end(tokens, at + 2);
        let before = (self.test, self.conditional);
        self.test |= is_test && !condition.contains("not");
        self.conditional = true;
        self.tokens(&tokens[at + 2..end]);
        (self.test, self.conditional) = before;
        end
    }

    fn inner_module(&mut self, name: String, tokens: &[TokenTree], at: usize) -> usize {
        let inner = [self.module.as_slice(), &[name]].concat();
        let module = self.source.modules.entry(inner.clone()).or_default();
        (module.test, module.conditional) = (self.test, self.conditional);
        let Some(TokenTree::Group(group)) = tokens.get(at + 2) else { return at + 2 };
        module.file = self.file.to_owned();
        let outer = std::mem::replace(&mut self.module, inner);
        self.group(group.stream());
        self.module = outer;
        at + 3
    }

    fn import(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let kind = if is_visible(tokens, at) { Kind::Reexport } else { Kind::Import };
        let is_end = |i: &usize| is_punct(tokens, *i, ';');
        let end = (at..tokens.len()).find(is_end).unwrap_or(tokens.len());
        self.use_tree(&tokens[at + 1..end], &[], kind);
        end
    }

    /// `tokens` is what stands behind `path` in a `use`.
    fn use_tree(&mut self, tokens: &[TokenTree], path: &[String], kind: Kind) {
        let mut path = path.to_vec();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    for tree in inner.split(|token| token.to_string() == ",") {
                        if !tree.is_empty() {
                            self.use_tree(tree, &path, kind);
                        }
                    }
                    return;
                }
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    self.own().globs.push(path.clone());
                    return self.refer(path, tokens[at].span().start().line, kind);
                }
                TokenTree::Ident(found) if found == "as" => break,
                // `{self}` is the module itself.
                TokenTree::Ident(found) if found == "self" && !path.is_empty() => {}
                TokenTree::Ident(found) => path.push(found.to_string()),
                _ => {}
            }
            at += 1;
        }
        let known_as = ident(tokens, at + 1).or_else(|| path.last().cloned()).unwrap_or_default();
        self.own().imports.insert(known_as, path.clone());
        self.refer(path, tokens[0].span().start().line, kind);
    }

    fn path(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let mut path = Name::new();
        let mut end = at;
        while let Some(name) = ident(tokens, end) {
            path.push(name);
            end += 1;
            if !is_path(tokens, end) {
                break;
            }
            end += 2;
        }
        let named = self.source.named.entry(self.file.to_owned()).or_default();
        named.extend(path.iter().cloned());
        self.refer(path, tokens[at].span().start().line, Kind::Code);
        end
    }

    fn refer(&mut self, path: Name, line: usize, kind: Kind) {
        let (file, module, in_test) = (self.file.to_owned(), self.module.clone(), self.test);
        self.source.references.push(Reference { file, line, module, path, in_test, kind });
    }
}

fn ident(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn is_punct(tokens: &[TokenTree], at: usize, c: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == c)
}

fn brace(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace)
}

/// Whether `::` stands at `at`.
fn is_path(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens, at, ':') && is_punct(tokens, at + 1, ':')
}

/// Whether `::` stands before `at`.
fn is_path_end(tokens: &[TokenTree], at: usize) -> bool {
    at >= 2 && is_path(tokens, at - 2)
}

/// Whether `pub` or `pub(..)` stands before the keyword at `at`.
fn is_visible(tokens: &[TokenTree], at: usize) -> bool {
    let is_pub = |at: Option<usize>| at.and_then(|at| ident(tokens, at)).is_some_and(|word| word == "pub");
    let before = at.checked_sub(1);
    let keyword = before.and_then(|at| ident(tokens, at)).filter(|word| word == "unsafe" || word == "auto");
    if keyword.is_some() {
        return is_visible(tokens, at - 1);
    }
    let in_parentheses = before.and_then(|at| tokens.get(at)).is_some_and(
        |token| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis),
    );
    is_pub(before) || in_parentheses && is_pub(at.checked_sub(2))
}

/// Where the item ends that an attribute before `from` belongs to.
fn item_end(tokens: &[TokenTree], from: usize) -> usize {
    let mut keyword = None;
    for at in from..tokens.len() {
        let word = ident(tokens, at);
        let is_keyword = |word: &String| {
            let all =
                ["use", "const", "static", "type", "let", "mod", "fn", "struct", "enum", "trait", "impl"];
            all.contains(&word.as_str())
        };
        if keyword.is_none() {
            keyword = word.filter(is_keyword);
        }
        // `use a::{b};` and `const A: B = B { .. };` end at the semicolon, a function at its body.
        let by_semicolon = matches!(keyword.as_deref(), Some("use" | "const" | "static" | "type" | "let"));
        let is_const_fn = keyword.as_deref() == Some("const") && ident(tokens, at).as_deref() == Some("fn");
        if is_const_fn {
            keyword = Some("fn".to_owned());
        }
        if is_punct(tokens, at, ';')
            || keyword.is_none() && is_punct(tokens, at, ',')
            || !by_semicolon && brace(tokens, at)
        {
            return at + 1;
        }
    }
    tokens.len()
}
