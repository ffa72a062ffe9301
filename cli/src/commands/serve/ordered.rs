//! A field of a body as JSON whose objects have their keys in the order in which they were sent: templates write them so.

use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::failure::Failure;
use super::fields::Found;
use crate::output::JsonText;

/// The JSON of a field; nothing if it is not there, or null.
pub fn field(body: &[u8], name: &'static str) -> Found<Option<String>> {
    let found = serde_json::Deserializer::from_slice(body).deserialize_map(Field(name));
    let found = found.map_err(|error| Failure::parameter(name, format!("cannot be read: {error}")))?;
    Ok(found.filter(|json| json != "null"))
}

/// Finds a field of an object; the last one, as `serde_json` does.
struct Field(&'static str);

impl<'de> Visitor<'de> for Field {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == self.0 {
                let mut json = String::new();
                map.next_value_seed(Written(&mut json))?;
                found = Some(json);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Writes a value.
struct Written<'a>(&'a mut String);

impl Written<'_> {
    fn write<E: Error>(self, value: impl fmt::Display) -> Result<(), E> {
        write!(self.0, "{value}").map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Written<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Written<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.write("null")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.write(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.write(JsonText(&value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.write(JsonText(&value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.0.push('[');
        let start = self.0.len();
        while list.next_element_seed(Item { start, all: self.0 })?.is_some() {}
        self.0.push(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.push('{');
        let start = self.0.len();
        while map.next_key_seed(Item { start, all: self.0 })?.is_some() {
            self.0.push(':');
            map.next_value_seed(Written(self.0))?;
        }
        self.0.push('}');
        Ok(())
    }
}

/// Writes an item, or the key of one, behind the others, which begin at `start`.
struct Item<'a> {
    start: usize,
    all: &'a mut String,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        if self.all.len() > self.start {
            self.all.push(',');
        }
        Written(self.all).deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_field_keeps_its_order() {
        let body = br#"{"b": {"a": 0}, "a": 1, "a": {"z": [1, -2.5e3, "\u00fc\n", []], "b": {}, "a": null, "c": {"y": true, "x": 18446744073709551615}}}"#;
        let json = r#"{"z":[1,-2500.0,"ü\n",[]],"b":{},"a":null,"c":{"y":true,"x":18446744073709551615}}"#;
        assert_eq!(field(body, "a").unwrap().as_deref(), Some(json));
        assert_eq!(field(body, "c").unwrap(), None);
        assert_eq!(field(br#"{"a": null}"#, "a").unwrap(), None);
        assert!(field(br#"{"a": 1"#, "a").is_err());
    }
}
