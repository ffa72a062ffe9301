//! A template's syntax: minijinja's parser, behind limits that keep its recursion, and that of its tree, shallow.

use minijinja::machinery::ast::Stmt;
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::budget::{Fault, Outcome, fault};

/// Longest template in bytes. (Those of published models have up to 20,000.)
const MAX_BYTES: usize = 1 << 18;
/// Most words and signs in one tag: chains of operators make trees as deep as they are long.
const MAX_IN_TAG: usize = 1000;
/// Most branches of all `if`s, of which each is inside the one before.
const MAX_BRANCHES: usize = 300;

/// How transformers sets Jinja up.
fn config() -> Outcome<SyntaxConfig> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|error| failed(&error))
}

/// Parses a template and hands its tree to `then`.
pub(super) fn with_parsed<T>(source: &str, then: impl FnOnce(&Stmt<'_>) -> Outcome<T>) -> Outcome<T> {
    if source.len() > MAX_BYTES {
        return fault(format_args!("{} bytes; at most {MAX_BYTES}", source.len()));
    }
    let (mut in_tag, mut branches) = (0, 0);
    for token in tokenize(source, false, config()?) {
        let (token, span) = token.map_err(|error| failed(&error))?;
        match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => in_tag = 0,
            Token::Ident("elif") => branches += 1,
            _ => in_tag += 1,
        }
        if in_tag > MAX_IN_TAG || branches > MAX_BRANCHES {
            return Err(Fault::new("a tag or an 'if' is too long").at(span.start_line));
        }
    }
    then(&parse(source, "", config()?).map_err(|error| failed(&error))?)
}

fn failed(error: &minijinja::Error) -> Fault {
    let fault = error.detail().map_or_else(|| Fault::new(error.kind()), Fault::new);
    match error.line() {
        Some(line) => fault.at(line),
        None => fault,
    }
}
