//! JSON from outside as values, of which there may be so many. Objects with one of `serde_json`'s private keys are refused: if
//! any crate of a program asks for it, they stand for JSON in a text, whose values and nesting would not be limited.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};
use crate::memory::{copied, formatted, push};

/// Most values of a [`SmallJson`], and bytes of all its texts.
const SMALL: (usize, usize) = (4096, 64 << 10);

/// What those keys begin with.
const PRIVATE: &str = "$serde_json::private::";

/// Why JSON is not read.
#[cfg(any(test, feature = "convert", feature = "grammar"))]
#[derive(Debug)]
pub(crate) enum Unread {
    /// What is wrong with it.
    Damaged(serde_json::Error),
    /// There is no memory for its values.
    NoMemory,
}

#[cfg(any(test, feature = "convert", feature = "grammar"))]
impl Unread {
    /// The error of a file.
    pub(crate) fn of_file(self, file: impl Into<String>) -> Error {
        match self {
            Self::Damaged(error) => Error::unreadable(file, "JSON", error),
            Self::NoMemory => Error::OutOfMemory("the values of a JSON file".into()),
        }
    }
}

/// Reads JSON of at most so many values.
///
/// # Errors
/// What is wrong with it.
#[cfg(any(test, feature = "convert", feature = "grammar"))]
pub(crate) fn parse(json: &[u8], values: usize) -> Result<Value, Unread> {
    let room = Room::new(values, json.len());
    let mut from = serde_json::Deserializer::from_slice(json);
    let value = Seed(&room).deserialize(&mut from).and_then(|value| from.end().map(|()| value));
    value.map_err(|error| if is_no_memory(&error) { Unread::NoMemory } else { Unread::Damaged(error) })
}

/// What stands for [`Error::OutOfMemory`] while JSON is read. No other message begins with it.
const NO_MEMORY: &str = "no memory";

/// The error of a reader for what could not be allocated.
pub(crate) fn no_memory<E: serde::de::Error>(_: Error) -> E {
    E::custom(NO_MEMORY)
}

/// Whether JSON was not read as there was no memory.
pub(crate) fn is_no_memory(error: &serde_json::Error) -> bool {
    error.is_data()
        && formatted(format_args!("{error}")).map_or(true, |message| message.starts_with(NO_MEMORY))
}

/// Makes a text.
pub(crate) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        copied(text).map_err(no_memory)
    }
}

/// A small part of a file of JSON.
#[derive(Debug)]
pub(crate) struct SmallJson(pub Value);

impl<'de> Deserialize<'de> for SmallJson {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let room = Room::new(SMALL.0, SMALL.1);
        Seed(&room).deserialize(from).map(Self)
    }
}

/// What may still be read.
struct Room {
    values: Cell<usize>,
    /// Bytes of texts.
    text: Cell<usize>,
}

impl Room {
    fn new(values: usize, text: usize) -> Self {
        Self { values: Cell::new(values), text: Cell::new(text) }
    }

    fn take<E: serde::de::Error>(left: &Cell<usize>, count: usize, what: &str) -> Result<(), E> {
        left.set(left.get().checked_sub(count).ok_or_else(|| E::custom(format_args!("too many {what}")))?);
        Ok(())
    }
}

/// Makes a value.
#[derive(Clone, Copy)]
struct Seed<'a>(&'a Room);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        Room::take(&self.0.values, 1, "values")?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        Room::take(&self.0.text, text.len(), "bytes of text")?;
        copied(text).map(Value::String).map_err(no_memory)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            push(&mut all, value).map_err(no_memory)?;
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = map.next_key_seed(Key(self.0))? {
            all.insert(key, map.next_value_seed(self)?);
        }
        Ok(Value::Object(all))
    }
}

/// Makes a key.
struct Key<'a>(&'a Room);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        if key.starts_with(PRIVATE) {
            return Err(E::custom(format_args!("a key that begins with '{PRIVATE}'")));
        }
        Room::take(&self.0.text, key.len(), "bytes of text")?;
        copied(key).map_err(no_memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_library() {
        for json in [
            r#"{"a": [1, -2, 3.5e300, 18446744073709551615, true, null], "b": {"c": "\u00e9\n", "": {}}, "a": []}"#,
            "0.1",
            "[]",
            " \"x\" ",
        ] {
            let expected: Value = serde_json::from_str(json).unwrap();
            assert_eq!(parse(json.as_bytes(), 100).unwrap(), expected, "{json}");
        }
        for bad in ["", "[1,]", "{\"a\"}", "1 2", "[1e999]", "\"\u{1}\""] {
            assert!(matches!(parse(bad.as_bytes(), 100), Err(Unread::Damaged(_))), "{bad}");
        }
    }

    #[test]
    fn private_keys_of_the_library_are_refused() {
        for key in ["$serde_json::private::RawValue", "\\u0024serde_json::private::Number"] {
            let json = format!(r#"[{{"{key}": "[1, [2]]"}}]"#);
            let error = parse(json.as_bytes(), 100).unwrap_err().of_file("a.json").to_string();
            assert!(error.contains("private"), "{error}");
        }
    }

    #[test]
    fn values_text_and_nesting_are_limited() {
        assert!(parse(b"[1, [2, 3]]", 5).is_ok() && parse(b"[1, [2, 3]]", 4).is_err());
        assert!(parse("[".repeat(200).as_bytes(), 1000).is_err());
        let part = |json: String| serde_json::from_str::<SmallJson>(&json).map(|part| part.0);
        assert_eq!(part("[1]".into()).unwrap(), serde_json::json!([1]));
        assert!(part(format!("[{}0]", "0,".repeat(4096))).unwrap_err().to_string().contains("values"));
        assert!(
            part(format!("\"{}\"", "x".repeat(70_000))).unwrap_err().to_string().contains("bytes of text")
        );
    }
}
