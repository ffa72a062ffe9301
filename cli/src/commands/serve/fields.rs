//! The fields of a request's body.

use serde_json::{Map, Value};

use super::failure::Failure;

pub type Found<T> = Result<T, Failure>;

/// Parameters that ask for something else than text, unless they are empty.
/// (And llama.cpp's and vLLM's names of grammars, which would be missed.)
const IMPOSSIBLE: [&str; 10] = [
    "tools",
    "functions",
    "audio",
    "web_search_options",
    "grammar",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
];
/// And in chats.
const NOT_IN_CHATS: [&str; 2] = ["suffix", "echo"];

/// The fields of a body.
pub struct Fields(Map<String, Value>);

impl Fields {
    pub fn parse(body: &[u8], own_name: &str) -> Found<Self> {
        let fields = match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Self(fields),
            Ok(_) => return Err(Failure::wrong("the body is no JSON object")),
            Err(error) => return Err(Failure::wrong(format!("the body is no JSON: {error}"))),
        };
        match fields.get("model") {
            Value::Null => (),
            Value::String(name) if name == own_name => (),
            Value::String(name) => return Err(Failure::other_model(name, own_name)),
            _ => return Err(Failure::parameter("model", "is no text")),
        }
        fields.refuse(&IMPOSSIBLE)?;
        Ok(fields)
    }

    /// Refuses what only texts have.
    pub fn refuse_in_chats(&self) -> Found<()> {
        self.refuse(&NOT_IN_CHATS)
    }

    fn refuse(&self, names: &[&'static str]) -> Found<()> {
        for &name in names {
            let value = self.get(name);
            let is_empty = value.as_array().is_some_and(Vec::is_empty) || value.as_str() == Some("");
            if !(value.is_null() || value == &Value::Bool(false) || is_empty) {
                return Err(Failure::parameter(name, "is not supported"));
            }
        }
        Ok(())
    }

    /// A field; null if it is not there.
    pub fn get(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    pub fn whole(&self, name: &'static str, range: std::ops::RangeInclusive<u64>) -> Found<Option<u64>> {
        match self.get(name) {
            Value::Null => Ok(None),
            value => match value.as_u64() {
                Some(number) if range.contains(&number) => Ok(Some(number)),
                _ => {
                    let (least, most) = (range.start(), range.end());
                    Err(Failure::parameter(
                        name,
                        format!("is {value}, not a whole number from {least} to {most}"),
                    ))
                }
            },
        }
    }

    pub fn number(&self, name: &'static str, range: std::ops::RangeInclusive<f64>) -> Found<Option<f32>> {
        match self.get(name) {
            Value::Null => Ok(None),
            value => match value.as_f64() {
                Some(number) if range.contains(&number) => Ok(Some(number as f32)),
                _ => {
                    let (least, most) = (range.start(), range.end());
                    Err(Failure::parameter(name, format!("is {value}, not a number from {least} to {most}")))
                }
            },
        }
    }

    pub fn flag(&self, name: &'static str) -> Found<bool> {
        match self.get(name) {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            _ => Err(Failure::parameter(name, "is neither true nor false")),
        }
    }
}
