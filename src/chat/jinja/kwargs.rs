//! The variables that the caller gives a template: an object in JSON, whose values are made as those of the template, paid for
//! and in their order (`tojson` writes them as they were given).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::budget::{Fault, Outcome, fault};
use super::value::{Datum, Entries, Store};
use crate::error::Error;
use crate::json::{is_no_memory, longest_text, no_memory, number_in};
use crate::memory::{collected, copied, push};

/// Makes a text of the caller's what the template is to see.
pub type Mark<'a> = dyn Fn(&str) -> Result<String, Error> + Sync + 'a;

/// Of the longest text: where it is to be changed, the reader takes as much memory, and cannot be refused it.
const MOST_BYTES: usize = 1_000_000;
/// What the library gives every template.
const TAKEN: [&str; 4] = ["messages", "bos_token", "eos_token", "add_generation_prompt"];

/// The variables of an object in JSON, whose texts are what `mark` makes of them.
pub(super) fn read<'a>(
    json: &'a str,
    mark: Option<&'a Mark<'a>>,
    store: &'a Store<'a>,
) -> Outcome<Entries<'a>> {
    let longest = longest_text(json.as_bytes());
    if longest > MOST_BYTES {
        return fault(format_args!("its variables: a text of {longest} bytes, more than {MOST_BYTES}"));
    }
    let mut from = serde_json::Deserializer::from_str(json);
    let read = Seed { store, mark }.deserialize(&mut from).and_then(|value| from.end().map(|()| value));
    let value = read.map_err(|error| match is_no_memory(&error) {
        true => Fault::Memory(Error::OutOfMemory("variables of a chat template".into())),
        false => Fault::new(format_args!("its variables: {error}")),
    })?;
    let Datum::Map(map) = value else {
        return fault(format_args!("its variables are {}, and no object in JSON", value.kind()));
    };
    if let Some((name, _)) = map.entries.iter().find(|(name, _)| TAKEN.contains(name)) {
        return fault(format_args!("its variables: '{name}' is not to be given"));
    }
    Ok(collected(map.entries.iter().copied())?)
}

/// Makes a value.
#[derive(Clone, Copy)]
struct Seed<'a> {
    store: &'a Store<'a>,
    mark: Option<&'a Mark<'a>>,
}

impl<'a> Seed<'a> {
    fn text<E: serde::de::Error>(self, text: &str) -> Result<&'a str, E> {
        let own = match self.mark {
            None => copied(text),
            Some(mark) => mark(text),
        };
        match own {
            Ok(own) => self.store.text(own).map_err(told),
            Err(Error::OutOfMemory(what)) => Err(no_memory(Error::OutOfMemory(what))),
            Err(error) => Err(E::custom(error)),
        }
    }

    fn visit_number<E: serde::de::Error>(self, number: &serde_json::Number) -> Result<Datum<'a>, E> {
        match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), ..) => Ok(Datum::Int(whole)),
            (_, None, Some(number)) => Ok(Datum::Float(number)),
            _ => Err(E::custom("a number is too large")),
        }
    }
}

/// A fault as an error of the reader.
fn told<E: serde::de::Error>(fault: Fault) -> E {
    match fault {
        Fault::Wrong { what, .. } | Fault::Raised(what) => E::custom(what),
        Fault::Memory(error) => no_memory(error),
    }
}

impl<'de, 'a> DeserializeSeed<'de> for Seed<'a> {
    type Value = Datum<'a>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Datum<'a>, D::Error> {
        self.store.budget.items(1).map_err(told)?;
        from.deserialize_any(self)
    }
}

impl<'de, 'a> Visitor<'de> for Seed<'a> {
    type Value = Datum<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Datum<'a>, E> {
        Ok(Datum::None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Datum<'a>, E> {
        Ok(Datum::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Datum<'a>, E> {
        Ok(Datum::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Datum<'a>, E> {
        i64::try_from(value).map(Datum::Int).map_err(|_| E::custom("a number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Datum<'a>, E> {
        Ok(Datum::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Datum<'a>, E> {
        Datum::text(self.text(text)?, &self.store.budget).map_err(told)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Datum<'a>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self)? {
            push(&mut items, item).map_err(no_memory)?;
        }
        Datum::list(items, self.store).map_err(told)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Datum<'a>, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key_seed(Name(self))? {
            match number_in(name, &mut map)? {
                None => push(&mut entries, (name, map.next_value_seed(self)?)).map_err(no_memory)?,
                Some(number) if entries.is_empty() => return self.visit_number(&number),
                Some(_) => return Err(A::Error::custom("an object that is a number and more")),
            }
        }
        if let Some(name) = named_twice(&entries, self.store).map_err(told)? {
            return Err(A::Error::custom(format_args!("two values of '{name:.50}'")));
        }
        Datum::map(entries, self.store).map_err(told)
    }
}

/// A name that two of the entries have.
fn named_twice<'a>(entries: &Entries<'a>, store: &Store<'a>) -> Outcome<Option<&'a str>> {
    let mut names = collected(entries.iter().map(|&(name, _)| name))?;
    // (As sorting of `dictsort`.)
    store.budget.product(names.len(), 256)?;
    names.sort_unstable();
    Ok(names.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first().copied()))
}

/// Makes the name of a value.
struct Name<'a>(Seed<'a>);

impl<'de, 'a> DeserializeSeed<'de> for Name<'a> {
    type Value = &'a str;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<&'a str, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Name<'a> {
    type Value = &'a str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<&'a str, E> {
        self.0.text(name)
    }
}
