//! The lists of a tokenizer file, with a limit for each, read straight into the form that the tokenizer library takes: as
//! generic JSON they would take twenty times the file.

use std::fmt;

use ahash::AHashMap;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tokenizers::AddedToken;

use crate::json::{Text, no_memory};
use crate::memory::{copied, filled, push, reserve};

/// Most tokens and merges; the largest vocabularies of these models have some 200,000. A little more, and the library's
/// tables of tokens would be twice as large.
pub(super) const MAX_TOKENS: usize = 220_000;
pub(crate) const MAX_MERGES: usize = 300_000;
/// Room for merges that is made at a time: doubling it would take twice the memory.
const MERGES_ROOM: usize = 1 << 14;
/// Longest token, in bytes.
const MAX_TOKEN: usize = 512;
/// Most tokens besides the model's, and bytes of all of them: they are searched for with an automaton.
pub(crate) const MAX_ADDED: usize = 4096;
pub(super) const MAX_ADDED_BYTES: usize = 64 << 10;

/// Tokens with their ids, each of which occurs once.
#[derive(Default)]
pub(super) struct TokenIds(pub AHashMap<String, u32>);

/// Pairs of tokens, in the order in which they are merged.
#[derive(Default)]
pub(super) struct Merges(pub Vec<(String, String)>);

/// Tokens that are found in a text before anything else.
#[derive(Default)]
pub(super) struct AddedTokens(pub Vec<AddedToken>);

impl<'de> Deserialize<'de> for TokenIds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TokenIdsVisitor)
    }
}

struct TokenIdsVisitor;

impl<'de> Visitor<'de> for TokenIdsVisitor {
    type Value = TokenIds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary: tokens with their ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TokenIds, A::Error> {
        let mut tokens = AHashMap::new();
        let mut taken = filled(MAX_TOKENS, false).map_err(no_memory)?;
        while let Some(token) = map.next_key_seed(Text)? {
            let id: u32 = map.next_value()?;
            check_token(&token)?;
            let place = taken.get_mut(id as usize);
            let place = place.ok_or_else(|| {
                A::Error::custom(format!("token '{token}': its id {id} is not below {MAX_TOKENS}"))
            })?;
            // Which of two tokens an id stands for would be left to chance.
            if std::mem::replace(place, true) {
                return Err(A::Error::custom(format!("token '{token}': another one has the id {id}, too")));
            }
            tokens.try_reserve(1).map_err(no_memory)?;
            if tokens.insert(token, id).is_some() {
                return Err(A::Error::custom(format!("token {id} has the text of another one")));
            }
        }
        Ok(TokenIds(tokens))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<TokenIds, A::Error> {
        Err(A::Error::custom("a list instead of a vocabulary: Unigram models are not supported"))
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(MergesVisitor)
    }
}

struct MergesVisitor;

impl<'de> Visitor<'de> for MergesVisitor {
    type Value = Merges;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
        let mut merges = Vec::new();
        while let Some(Merge(merge)) = list.next_element()? {
            if merges.len() >= MAX_MERGES {
                return Err(A::Error::custom(format!("more than {MAX_MERGES} merges")));
            }
            if merges.len() == merges.capacity() {
                reserve(&mut merges, MERGES_ROOM).map_err(no_memory)?;
            }
            merges.extend(merge);
        }
        Ok(Merges(merges))
    }
}

/// A merge: `"a b"` or `["a", "b"]`; `None` for the line with the version that old files have.
struct Merge(Option<(String, String)>);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(MergeVisitor)
    }
}

struct MergeVisitor;

impl<'de> Visitor<'de> for MergeVisitor {
    type Value = Merge;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("two tokens to merge")
    }

    fn visit_str<E: Error>(self, line: &str) -> Result<Merge, E> {
        if line.starts_with("#version") {
            return Ok(Merge(None));
        }
        match line.split_once(' ') {
            Some((a, b)) if !b.contains(' ') => {
                pair(copied(a).map_err(no_memory)?, copied(b).map_err(no_memory)?)
            }
            _ => Err(E::custom(format!("the merge '{line:.40}' is not of two tokens"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
        match (list.next_element_seed(Text)?, list.next_element_seed(Text)?, list.next_element_seed(Text)?) {
            (Some(a), Some(b), None) => pair(a, b),
            _ => Err(A::Error::custom("a merge is not of two tokens")),
        }
    }
}

fn pair<E: Error>(a: String, b: String) -> Result<Merge, E> {
    check_token(&a)?;
    check_token(&b)?;
    Ok(Merge(Some((a, b))))
}

fn check_token<E: Error>(token: &str) -> Result<(), E> {
    match token.len() {
        0..=MAX_TOKEN => Ok(()),
        len => Err(E::custom(format!("a token of {len} bytes, more than {MAX_TOKEN}"))),
    }
}

impl<'de> Deserialize<'de> for AddedTokens {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(AddedTokensVisitor)
    }
}

struct AddedTokensVisitor;

impl<'de> Visitor<'de> for AddedTokensVisitor {
    type Value = AddedTokens;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of added tokens")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AddedTokens, A::Error> {
        let (mut tokens, mut bytes) = (Vec::new(), 0);
        while let Some(token) = list.next_element::<AddedToken>()? {
            check_token(&token.content)?;
            bytes += token.content.len();
            if tokens.len() >= MAX_ADDED || bytes > MAX_ADDED_BYTES {
                return Err(A::Error::custom(format!(
                    "more than {MAX_ADDED} added tokens or {MAX_ADDED_BYTES} bytes of them"
                )));
            }
            push(&mut tokens, token).map_err(no_memory)?;
        }
        Ok(AddedTokens(tokens))
    }
}
