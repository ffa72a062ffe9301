//! What a JSON schema may have beside llguidance's own limits, which count what was made of it: some forms of it take long, or much
//! memory, before there is anything to count. Found by looking for the schemas of 64 KiB that take the most.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

/// Most levels of schemas inside one another, where a reference is as deep as what it stands for: each takes some kilobytes of the
/// compiler's stack.
const MOST_LEVELS: usize = 4000;
/// Most names of properties, those that are required too.
const MOST_NAMES: usize = 2000;
/// Most of them where a number of properties is asked for (`minProperties`): every number of them gets a grammar of its own.
const MOST_COUNTED_NAMES: usize = 256;
/// Most patterns of names, each of which is compared with every other.
const MOST_NAME_PATTERNS: usize = 64;
/// Most bytes of patterns that are copied, as each alternative (`anyOf`) gets those beside it.
const MOST_COPIED: usize = 1 << 23;

/// Entries that say nothing of a value.
const TELLS_NOTHING: [&str; 9] =
    ["$defs", "definitions", "$schema", "$id", "$comment", "title", "description", "default", "examples"];

type Object = Map<String, Value>;

/// Checks that a schema takes no more than about a second to compile. It is called on the compiler's stack.
///
/// # Errors
/// What there is too much of.
pub(super) fn check(root: &Value) -> Result<(), String> {
    let mut found = Found::default();
    found.visit(root);
    let mut levels = levels(root);
    // What a reference stands for may lie where no schema is looked for, and have references itself.
    while let Some(reference) = found.waiting.pop() {
        let target = target(root, reference);
        levels = levels.saturating_add(self::levels(target.unwrap_or(root)));
        limit("levels inside one another", levels, MOST_LEVELS)?;
        target.into_iter().for_each(|target| found.visit(target));
    }
    let most_names = if found.counts_properties { MOST_COUNTED_NAMES } else { MOST_NAMES };
    limit("names of properties", found.names, most_names)?;
    limit("patterns of names", found.name_patterns, MOST_NAME_PATTERNS)?;
    let mut patterns = Patterns { root, known: HashMap::new(), copied: 0 };
    found.objects.into_iter().for_each(|object| {
        patterns.of(object);
    });
    limit("bytes of patterns for all alternatives", patterns.copied, MOST_COPIED)
}

fn limit(what: &str, count: usize, most: usize) -> Result<(), String> {
    if count > most { Err(format!("{count} {what}; at most {most}")) } else { Ok(()) }
}

/// Levels of arrays and objects.
fn levels(value: &Value) -> usize {
    let inner = match value {
        Value::Array(values) => values.iter().map(levels).max(),
        Value::Object(entries) => entries.values().map(levels).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or(0)
}

/// What a reference within the schema stands for, if it is a path (`#/$defs/name`).
fn target<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    root.pointer(&percent_decoded(reference.strip_prefix('#')?))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.first_chunk::<2>().and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The schemas of a schema's entry: that it is, or that it has.
fn schemas<'a>(key: &str, value: &'a Value) -> impl Iterator<Item = &'a Value> {
    let (mut one, mut several, mut named) = (None, None, None);
    match (key, value) {
        (
            "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
            Value::Object(names),
        ) => named = Some(names.values()),
        // Data.
        ("const" | "enum" | "default" | "examples" | "required" | "x-guidance", _) => (),
        (_, Value::Array(values)) => several = Some(values),
        _ => one = Some(value),
    }
    one.into_iter().chain(several.into_iter().flatten()).chain(named.into_iter().flatten())
}

/// What is found in a schema.
#[derive(Debug, Default)]
struct Found<'a> {
    objects: Vec<&'a Object>,
    /// By address.
    seen: HashSet<usize>,
    references: HashSet<&'a str>,
    /// Those that nobody has followed.
    waiting: Vec<&'a str>,
    names: usize,
    name_patterns: usize,
    /// Whether a number of properties is asked for.
    counts_properties: bool,
}

impl<'a> Found<'a> {
    /// Notes a schema and those in it.
    fn visit(&mut self, value: &'a Value) {
        let Some(object) = value.as_object().filter(|object| self.seen.insert(address(object))) else {
            return;
        };
        self.objects.push(object);
        for (key, value) in object {
            match (key.as_str(), value) {
                ("$ref", Value::String(reference)) if self.references.insert(reference) => {
                    self.waiting.push(reference);
                }
                ("properties", Value::Object(names)) => self.names += names.len(),
                ("required", Value::Array(names)) => self.names += names.len(),
                ("patternProperties", Value::Object(patterns)) => self.name_patterns += patterns.len(),
                ("minProperties" | "maxProperties", _) => self.counts_properties = true,
                _ => (),
            }
            schemas(key, value).for_each(|schema| self.visit(schema));
        }
    }
}

fn address(object: &Object) -> usize {
    std::ptr::from_ref(object).addr()
}

/// Of a schema: its alternatives, or those of a schema in it that has more, and the bytes of its patterns.
#[derive(Clone, Copy)]
struct Size {
    alternatives: usize,
    bytes: usize,
}

/// The patterns of a schema.
struct Patterns<'a> {
    root: &'a Value,
    /// By address. One that is being looked at counts nothing: it is its own reference.
    known: HashMap<usize, Size>,
    /// Bytes that are copied.
    copied: usize,
}

impl<'a> Patterns<'a> {
    fn of(&mut self, object: &'a Object) -> Size {
        let own = address(object);
        if let Some(&size) = self.known.get(&own) {
            return size;
        }
        self.known.insert(own, Size { alternatives: 1, bytes: 0 });
        // Beside one another: what all alternatives have, and each of what has alternatives.
        let (mut beside, mut alternatives, mut options) = (0_usize, 1_usize, 0_usize);
        let mut inner = 1;
        // What is said of a value, in one place or another.
        let mut parts = 0;
        for (key, value) in object {
            parts += match (key.as_str(), value) {
                ("allOf", Value::Array(all)) => all.len(),
                (key, _) => usize::from(!TELLS_NOTHING.contains(&key)),
            };
            let sizes = schemas(key, value).filter_map(Value::as_object).map(|object| self.of(object));
            let sizes: Vec<Size> = match (key.as_str(), value) {
                ("pattern", Value::String(pattern)) => {
                    beside = beside.saturating_add(pattern.len());
                    continue;
                }
                ("$ref", Value::String(reference)) => {
                    let target = target(self.root, reference).and_then(Value::as_object);
                    target.into_iter().map(|target| self.of(target)).collect()
                }
                _ => sizes.collect(),
            };
            let bytes = sizes.iter().fold(0_usize, |sum, size| sum.saturating_add(size.bytes));
            let each = sizes.iter().map(|size| size.alternatives);
            match key.as_str() {
                "anyOf" | "oneOf" => {
                    let sum = each.fold(0, usize::saturating_add);
                    alternatives = alternatives.saturating_mul(sum.max(1));
                    options = options.saturating_add(bytes);
                }
                "allOf" | "$ref" => {
                    alternatives = each.fold(alternatives, usize::saturating_mul);
                    beside = beside.saturating_add(bytes);
                }
                "$defs" | "definitions" => (),
                _ => {
                    inner = each.fold(inner, usize::max);
                    beside = beside.saturating_add(bytes);
                }
            }
        }
        let copies = if parts > 1 { alternatives - 1 } else { 0 };
        self.copied = self.copied.saturating_add(copies.saturating_mul(beside));
        let size = Size { alternatives: alternatives.max(inner), bytes: beside.saturating_add(options) };
        self.known.insert(own, size);
        size
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named<T>(count: usize, of: impl Fn(usize) -> T) -> Value
    where
        Value: From<T>,
    {
        (0..count).map(|i| (format!("n{i}"), Value::from(of(i)))).collect::<Object>().into()
    }

    /// Definitions that refer to the next one, each behind so many arrays.
    fn chain(definitions: usize, arrays: usize) -> Value {
        let definition = |i: usize| {
            let inner = json!({ "$ref": format!("#/$defs/n{}", i + 1) });
            (0..arrays).fold(inner, |inner, _| json!({ "type": "array", "items": inner }))
        };
        let mut all = named(definitions, definition);
        all[format!("n{definitions}")] = json!({ "type": "string" });
        json!({ "$ref": "#/$defs/n0", "$defs": all })
    }

    /// Alternatives of alternatives, beside a pattern.
    fn copies(references: usize, options: usize, bytes: usize) -> Value {
        let references: Vec<Value> = (0..references).map(|_| json!({ "$ref": "#/$defs/a" })).collect();
        let options: Vec<Value> = (0..options).map(|_| json!({ "type": "string" })).collect();
        json!({ "pattern": "a".repeat(bytes), "anyOf": references, "$defs": { "a": { "anyOf": options } } })
    }

    #[test]
    fn schemas_that_take_long_are_refused() {
        let names: Vec<String> = (0..2001).map(|i| i.to_string()).collect();
        let mut both = copies(100, 20, 300);
        both["allOf"] =
            json!([{ "properties": { "a": { "anyOf": both["anyOf"].take() } } }, { "$ref": "#/$defs/a" }]);
        for (schema, what) in [
            (chain(45, 100), "levels"),
            // By a path with an escape, and where no schema is looked for.
            (json!({ "$ref": "#/x%79", "xy": { "enum": [chain(45, 100)["$defs"]] } }), "nothing"),
            (
                json!({ "$ref": "#/examples/0", "examples": [{ "properties": named(2001, |_| json!({})) }] }),
                "names",
            ),
            (json!({ "properties": named(257, |_| json!({})), "anyOf": [{ "minProperties": 1 }] }), "names"),
            (json!({ "required": names }), "names"),
            (json!({ "patternProperties": named(65, |_| json!(true)) }), "patterns of names"),
            (copies(1000, 20, 30_000), "alternatives"),
            (both, "alternatives"),
        ] {
            let said = check(&schema);
            match what {
                "nothing" => assert_eq!(said, Ok(())),
                what => assert!(said.as_ref().is_err_and(|said| said.contains(what)), "{said:?}"),
            }
        }
    }

    #[test]
    fn schemas_of_programs_are_not() {
        let item = |i: usize| {
            json!({
                "type": "object",
                "properties": { "id": { "type": "string", "pattern": "^[a-z0-9-]{8,64}$" }, "kind": { "enum": ["a", "b", "c"] },
                    "next": { "anyOf": [{ "$ref": format!("#/$defs/n{}", (i + 7) % 150) }, { "type": "null" }] },
                    "when": { "type": "string", "format": "date-time" }, "tags": { "type": "array", "items": { "type": "string" } } },
                "required": ["id", "kind"], "additionalProperties": false
            })
        };
        let definitions = named(150, item);
        let options: Vec<Value> = (0..150).map(|i| json!({ "$ref": format!("#/$defs/n{i}") })).collect();
        let colours: Vec<Value> = (0..500).map(|i| json!({ "const": format!("colour {i}") })).collect();
        for schema in [
            json!({ "$defs": definitions, "anyOf": options }),
            json!({ "type": "object", "properties": { "item": { "oneOf": options }, "colour": { "anyOf": colours } },
                "$defs": definitions, "required": ["item"] }),
            json!({ "type": "object", "properties": named(200, |_| json!({ "type": "number" })), "minProperties": 1 }),
            // It is its own reference.
            json!({ "type": "object", "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" } }, "pattern": "a" }),
            json!({ "$ref": "other.json#/none" }),
            json!(true),
        ] {
            assert_eq!(check(&schema), Ok(()));
        }
    }
}
