//! Grammars with llguidance: its matcher walks a trie of the vocabulary's bytes. What it spends is limited, and its panics
//! become errors.

use std::fmt;
use std::sync::Arc;
use std::thread;

use ::llguidance::api::{ParserLimits, TopLevelGrammar};
use ::llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use ::llguidance::{Matcher as Inner, ParserFactory};

use super::matcher::{Grammar, GrammarCompiler, GrammarMatcher};
use super::schema_limits;
use crate::error::{Error, Result};
use crate::json::{self, Unread};
use crate::memory::{start_scoped, with_room};
use crate::model::Model;

/// Stack of the thread that compiles a grammar: a level of a schema takes 5 KB, and there may be [some thousands](schema_limits).
const STACK: usize = 64 << 20;

/// Most repetitions and groups of an expression, or of all in a schema, and most of that number times their bytes: for each of
/// them the matcher may note all that is behind it. For so many it takes some tens of megabytes.
const MOST_PARTS: usize = 1024;
const MOST_WORK: usize = 1 << 24;

/// What a grammar may take: some tens of milliseconds to compile and for each token, some tens of megabytes.
fn limits() -> ParserLimits {
    ParserLimits {
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        max_items_in_row: 2000,
        max_lexer_states: 20_000,
        max_grammar_size: 100_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}

/// The vocabulary as a trie of bytes. Behind the model's tokens there is one more, which ends a match.
struct TokenTrie {
    factory: ParserFactory,
    end: u32,
}

impl fmt::Debug for TokenTrie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenTrie").finish_non_exhaustive()
    }
}

/// A compiler for the model's vocabulary.
///
/// # Errors
/// [`Error::Tokenizer`] if there is no tokenizer; [`Error::OutOfMemory`].
pub(super) fn compiler(model: &Model) -> Result<Box<dyn GrammarCompiler>> {
    let tokenizer = model.tokenizer()?;
    let end = model.config().vocab_size as u32;
    // Without bytes, special tokens match nothing.
    let bytes = |token| {
        if tokenizer.is_special(token) {
            return Ok(Vec::new());
        }
        tokenizer.token_piece(token).map(Option::unwrap_or_default)
    };
    let mut words = with_room(end as usize + 1)?;
    for token in 0..end {
        words.push(bytes(token)?);
    }
    words.push([&[TokTrie::SPECIAL_TOKEN_MARKER], &b"<end>"[..]].concat());
    let trie = TokTrie::from(&TokRxInfo::new(end + 1, end), &words);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &[]);
    let mut factory = factory.map_err(|error| Error::internal(format!("grammars: {error}")))?;
    *factory.limits_mut() = limits();
    factory.quiet();
    Ok(Box::new(TokenTrie { factory, end }))
}

impl GrammarCompiler for TokenTrie {
    fn compile(&self, grammar: &Grammar) -> Result<Box<dyn GrammarMatcher>> {
        let (kind, _) = grammar.parts();
        let bad = |what: String| Error::invalid(format!("{kind}: {}", shortened(&what)));
        let ((parts, work), source) = match grammar {
            Grammar::Regex(regex) => (work(regex), Source::Regex(regex)),
            Grammar::JsonSchema(schema) => {
                let parsed = json::parse(schema.as_bytes(), schema.len() + 1);
                let mut schema = parsed.map_err(|unread| match unread {
                    Unread::Damaged(error) => bad(error.to_string()),
                    Unread::NoMemory => unread.of_file(kind),
                })?;
                separate_plainly(&mut schema);
                (work_of_texts(&schema), Source::JsonSchema(schema))
            }
        };
        if parts > MOST_PARTS || work > MOST_WORK {
            return Err(bad(format!(
                "{parts} repetitions and groups, {work} times bytes; at most {MOST_PARTS}, {MOST_WORK} times bytes"
            )));
        }
        let inner = thread::scope(|scope| {
            let compile = || Ok(Inner::new(self.factory.create_parser(source.grammar()?)));
            let thread = start_scoped(scope, Some(STACK), compile)
                .map_err(|error| Error::OutOfMemory(format!("a thread for a grammar: {error}")))?;
            thread.join().map_err(|_| bad("the parser panicked".into()))?.map_err(bad)
        })?;
        match inner.get_error() {
            Some(error) => Err(bad(error)),
            None => Ok(Box::new(TextMatcher { inner, end: self.end })),
        }
    }
}

/// What a grammar is made of.
enum Source<'a> {
    Regex(&'a str),
    JsonSchema(serde_json::Value),
}

impl Source<'_> {
    /// The grammar, with the stack that it takes.
    ///
    /// # Errors
    /// What there is too much of.
    fn grammar(self) -> std::result::Result<TopLevelGrammar, String> {
        match self {
            Self::Regex(regex) => Ok(TopLevelGrammar::from_regex(regex)),
            Self::JsonSchema(schema) => {
                schema_limits::check(&schema)?;
                Ok(TopLevelGrammar::from_json_schema(schema))
            }
        }
    }
}

/// llguidance's matcher.
struct TextMatcher {
    inner: Inner,
    end: u32,
}

impl fmt::Debug for TextMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextMatcher").finish_non_exhaustive()
    }
}

impl GrammarMatcher for TextMatcher {
    fn allowed(&mut self, allowed: &mut [bool]) -> Result<bool> {
        let found = self.inner.compute_mask_or_eos().map_err(|error| too_much(&error))?;
        for (token, allowed) in allowed.iter_mut().enumerate() {
            *allowed = token < found.len() && found.get(token);
        }
        Ok((self.end as usize) < found.len() && found.get(self.end as usize))
    }

    fn advance(&mut self, token: u32) -> Result<()> {
        self.inner.consume_token(token).map_err(|error| too_much(&error))
    }

    fn copy(&self) -> Box<dyn GrammarMatcher> {
        Box::new(Self { inner: self.inner.clone(), end: self.end })
    }

    fn separate(&self) -> Box<dyn GrammarMatcher> {
        Box::new(Self { inner: self.inner.deep_clone(), end: self.end })
    }
}

/// The repetitions and groups of an expression, and the same times its bytes.
fn work(expression: &str) -> (usize, usize) {
    let parts = expression.bytes().filter(|byte| b"*+?{(".contains(byte)).count();
    (parts, parts.saturating_mul(expression.len()))
}

/// The sums for all texts of a schema, any of which may be an expression, but for what people are told.
fn work_of_texts(value: &serde_json::Value) -> (usize, usize) {
    use serde_json::Value;
    let add = |a: (usize, usize), b: (usize, usize)| (a.0.saturating_add(b.0), a.1.saturating_add(b.1));
    match value {
        Value::String(text) => work(text),
        Value::Array(values) => values.iter().map(work_of_texts).fold((0, 0), add),
        Value::Object(entries) => {
            let told = |key: &str, value: &Value| {
                matches!(key, "description" | "title" | "$comment") && value.is_string()
            };
            let entries = entries.iter().filter(|(key, value)| !told(key, value));
            entries.map(|(key, value)| add(work(key), work_of_texts(value))).fold((0, 0), add)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => (0, 0),
    }
}

/// White space as Python writes it, unless the schema asks for something else: a small model may write blanks without end
/// where they are allowed.
fn separate_plainly(schema: &mut serde_json::Value) {
    if let Some(object) = schema.as_object_mut() {
        let plain = || serde_json::json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
        object.entry("x-guidance").or_insert_with(plain);
    }
}

fn too_much(error: &impl fmt::Display) -> Error {
    match error.to_string() {
        what if what.contains("NoExtensionBias") => {
            Error::invalid("the grammar matches no text that goes on here")
        }
        what => Error::invalid(format!("the grammar: {}", shortened(&what))),
    }
}

/// The line in which the parser of expressions says what is wrong, else the first line; and not all of one that quotes a
/// grammar. (`at 1(8): ` is a place in what llguidance makes of an expression.)
fn shortened(what: &str) -> String {
    let mut lines = what.lines();
    let line = match lines.clone().find_map(|line| line.strip_prefix("error: ")) {
        Some(error) => error,
        None => lines.find(|line| !line.trim().is_empty()).unwrap_or(what),
    };
    line.strip_prefix("at 1(8): ").unwrap_or(line).chars().take(300).collect()
}
