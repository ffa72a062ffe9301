//! JSON from outside as values, of which there may be so many. Objects with one of `serde_json`'s private keys are refused: if
//! any crate of a program asks for it, they stand for JSON in a text, whose values and nesting would not be limited. But for that of
//! numbers, which all are such objects if any crate asks for them as they are written (its feature `arbitrary_precision`).

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

#[cfg(any(test, feature = "convert", feature = "grammar"))]
use crate::error::Error;
use crate::error::Result;
use crate::memory::{copied, push};

/// Most values of a [`SmallJson`], and bytes of all its texts.
const SMALL: (usize, usize) = (4096, 64 << 10);

/// What those keys begin with.
const PRIVATE: &str = "$serde_json::private::";
const MORE: &str = "an object that is a number and more";
/// The key of a number.
const NUMBER: &str = "$serde_json::private::Number";

/// The number in an object whose first key has been read: another than a number's is left to who calls.
///
/// # Errors
/// If the object has more than the number.
pub(crate) fn number_in<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Option<Number>, A::Error> {
    if key != NUMBER {
        return Ok(None);
    }
    let text = map.next_value_seed(Text)?;
    if map.next_key_seed(Text)?.is_some() {
        return Err(serde::de::Error::custom(MORE));
    }
    let whole = text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from));
    let number = whole.ok().or_else(|| Number::from_f64(text.parse().ok()?));
    number.map(Some).ok_or_else(|| serde::de::Error::custom("a number out of range"))
}

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
pub(crate) fn no_memory<E: serde::de::Error>(_: impl std::error::Error) -> E {
    E::custom(NO_MEMORY)
}

/// Whether JSON was not read as there was no memory. Looks at the message without a copy of it.
pub(crate) fn is_no_memory(error: &serde_json::Error) -> bool {
    struct Compared(&'static str);
    impl fmt::Write for Compared {
        /// Ends at the first difference, and at the end of what is compared.
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let len = part.len().min(self.0.len());
            match part.as_bytes().get(..len) == self.0.as_bytes().get(..len) {
                true => self.0 = self.0.get(len..).unwrap_or_default(),
                false => return Err(fmt::Error),
            }
            if self.0.is_empty() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut compared = Compared(NO_MEMORY);
    let _ = fmt::Write::write_fmt(&mut compared, format_args!("{error}"));
    error.is_data() && compared.0.is_empty()
}

/// Bytes of the longest text in JSON, as it is written there. What is wrong with a file may be told with a text of it, more than
/// once, by libraries that cannot be refused memory.
pub(crate) fn longest_text(json: &[u8]) -> usize {
    let (mut longest, mut start) = (0, None);
    let mut bytes = json.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (byte, start) {
            (b'\\', Some(_)) => drop(bytes.next()),
            (b'"', None) => start = Some(at),
            (b'"', Some(from)) => (longest, start) = (longest.max(at - from), None),
            _ => (),
        }
    }
    longest.max(start.map_or(0, |from| json.len() - from))
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
        f.write_str("a string")
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
            match number_in(&key, &mut map)? {
                None => drop(all.insert(key, map.next_value_seed(self)?)),
                Some(number) if all.is_empty() => return Ok(Value::Number(number)),
                Some(_) => return Err(serde::de::Error::custom(MORE)),
            }
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
        if key.starts_with(PRIVATE) && key != NUMBER {
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
    fn no_memory_is_told_by_the_beginning_of_a_message() {
        let error = |message: &str| <serde_json::Error as serde::de::Error>::custom(message);
        assert!(is_no_memory(&error(NO_MEMORY)) && is_no_memory(&no_memory(fmt::Error)));
        for other in ["", "no", "no memor", "token 'no memory'", "No memory"] {
            assert!(!is_no_memory(&error(other)), "{other}");
        }
    }

    #[test]
    fn the_longest_text_is_found() {
        for (json, len) in [("", 0), ("{}", 0), (r#"["a", "bcd"]"#, 4), (r#"["\"x\\", 1"#, 6), ("[\"ab", 3)] {
            assert_eq!(longest_text(json.as_bytes()), len, "{json}");
        }
    }

    #[test]
    fn private_keys_of_the_library_are_refused() {
        for key in ["$serde_json::private::RawValue", "\\u0024serde_json::private::Numbers"] {
            let json = format!(r#"[{{"{key}": "[1, [2]]"}}]"#);
            let error = parse(json.as_bytes(), 100).unwrap_err().of_file("a.json").to_string();
            assert!(error.contains("private"), "{error}");
        }
    }

    /// As `serde_json` hands them out where a crate of the program has it keep numbers as they are written.
    #[test]
    fn numbers_as_they_are_written_are_numbers() {
        let number = |text: &str| {
            parse(format!(r#"[{{"{NUMBER}": "{text}"}}]"#).as_bytes(), 100).map(|v| v[0].clone())
        };
        for (text, expected) in [
            ("12", serde_json::json!(12)),
            ("18446744073709551615", serde_json::json!(u64::MAX)),
            ("-3", serde_json::json!(-3)),
            ("3.5e300", serde_json::json!(3.5e300)),
        ] {
            assert_eq!(number(text).unwrap(), expected);
        }
        for bad in ["1e999", "", "NaN", "[1]", r#"1", "a": "2"#] {
            assert!(number(bad).is_err(), "{bad}");
        }
        assert!(parse(format!(r#"{{"a": 1, "{NUMBER}": "2"}}"#).as_bytes(), 100).is_err());
        assert!(parse(format!(r#"{{"{NUMBER}": [2]}}"#).as_bytes(), 100).is_err());
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
