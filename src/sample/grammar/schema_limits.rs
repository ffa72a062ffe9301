//! What a JSON schema may have beside llguidance's own limits, which count what was made of it: some forms of it take long, or much
//! memory, before there is anything to count. Found by looking for the schemas of 64 KiB that take the most.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

/// Most levels of schemas inside one another, where a reference is as deep as what it stands for: each takes some kilobytes of the
/// compiler's stack.
const MOST_LEVELS: usize = 4000;
/// Most names of properties.
const MOST_NAMES: usize = 2000;
/// Most of them, but for required ones, where a number of properties is asked for (`minProperties`, `maxProperties`): every number of
/// them gets a grammar of its own.
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
    found.visit(root, false);
    let mut levels = levels(root);
    // What a reference stands for may lie where no schema is looked for, and have references itself.
    while let Some((reference, merged)) = found.waiting.pop() {
        let target = target(root, reference);
        levels = levels.saturating_add(self::levels(target.unwrap_or(root)));
        limit("levels inside one another", levels, MOST_LEVELS)?;
        target.into_iter().for_each(|target| found.visit(target, merged));
    }
    let counted = if found.counts_all { found.names } else { found.counted_names };
    limit("names of properties", found.names, MOST_NAMES)?;
    limit("names of properties whose number is limited", counted, MOST_COUNTED_NAMES)?;
    limit("patterns of names", found.name_patterns, MOST_NAME_PATTERNS)?;
    let mut patterns = Patterns { root, known: HashMap::new(), named: HashMap::new(), copied: 0 };
    found.objects.into_iter().for_each(|object| {
        patterns.of(object);
    });
    let named = patterns.named.values().map(Named::copied).fold(0, usize::saturating_add);
    let copied = patterns.copied.saturating_add(if found.merges { named } else { 0 });
    limit("bytes of patterns for all alternatives", copied, MOST_COPIED)
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

/// How many of a schema's entries say something of a value.
fn parts(object: &Object) -> usize {
    let of = |(key, value): (&String, &Value)| match (key.as_str(), value) {
        ("allOf", Value::Array(all)) => all.len(),
        (key, _) => usize::from(!TELLS_NOTHING.contains(&key)),
    };
    object.iter().map(of).sum()
}

/// What is found in a schema.
#[derive(Debug, Default)]
struct Found<'a> {
    objects: Vec<&'a Object>,
    /// By address, and whether they are made one with others.
    seen: HashSet<(usize, bool)>,
    references: HashSet<(&'a str, bool)>,
    /// Those that nobody has followed.
    waiting: Vec<(&'a str, bool)>,
    names: usize,
    /// Those that need not be there, of schemas that ask for a number of them.
    counted_names: usize,
    /// Whether a schema does that is made one with others, whose names are then its own.
    counts_all: bool,
    name_patterns: usize,
    /// Whether schemas are made one.
    merges: bool,
}

impl<'a> Found<'a> {
    /// Notes a schema and those in it. `merged`: whether it is made one with what stands beside it.
    fn visit(&mut self, value: &'a Value, merged: bool) {
        let Some(object) = value.as_object().filter(|object| self.seen.insert((address(object), merged)))
        else {
            return;
        };
        let counts = object.contains_key("minProperties") || object.contains_key("maxProperties");
        self.counts_all |= counts && merged;
        self.merges |= merged;
        if !self.seen.contains(&(address(object), !merged)) {
            self.objects.push(object);
            let names = object.get("properties").and_then(Value::as_object);
            let required =
                object.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let is_listed = |name: &&Value| {
                names.zip(name.as_str()).is_some_and(|(names, name)| names.contains_key(name))
            };
            let listed = required.iter().filter(is_listed).count();
            let all = names.map_or(0, Map::len);
            self.names += all + required.len() - listed;
            self.counted_names += if counts { all.saturating_sub(listed) } else { 0 };
            let patterns = object.get("patternProperties").and_then(Value::as_object);
            self.name_patterns += patterns.map_or(0, Map::len);
        }
        let beside = merged || parts(object) > 1;
        for (key, value) in object {
            let combines =
                matches!(key.as_str(), "allOf" | "anyOf" | "oneOf" | "$ref" | "if" | "then" | "else" | "not");
            let merged = combines && beside;
            match (key.as_str(), value) {
                ("$ref", Value::String(reference)) if self.references.insert((reference, merged)) => {
                    self.waiting.push((reference, merged));
                }
                _ => schemas(key, value).for_each(|schema| self.visit(schema, merged)),
            }
        }
    }
}

fn address(object: &Object) -> usize {
    std::ptr::from_ref(object).addr()
}

/// Of a schema: its alternatives, and the bytes of its patterns, those of schemas in it too.
#[derive(Clone, Copy)]
struct Size {
    alternatives: usize,
    bytes: usize,
}

/// The largest schemas of a name, which are made one where those that have them are.
#[derive(Default)]
struct Named {
    alternatives: [usize; 2],
    bytes: [usize; 2],
}

impl Named {
    fn note(&mut self, size: Size) {
        for (largest, of_this) in [(&mut self.alternatives, size.alternatives), (&mut self.bytes, size.bytes)]
        {
            let [first, second] = largest;
            *second = (*second).max(of_this.min(*first));
            *first = (*first).max(of_this);
        }
    }

    /// The bytes of patterns that are copied if two are made one.
    fn copied(&self) -> usize {
        let ([a, b], [one, other]) = (self.alternatives, self.bytes);
        a.saturating_mul(b).saturating_sub(1).saturating_mul(one.saturating_add(other))
    }
}

/// The patterns of a schema.
struct Patterns<'a> {
    root: &'a Value,
    /// What schemas of a property's name have, or those of an entry without names (`items`).
    named: HashMap<&'a str, Named>,
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
        for (key, value) in object {
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
                    beside = beside.saturating_add(bytes);
                    let names =
                        value.as_object().filter(|_| key == "properties" || key == "patternProperties");
                    match names {
                        Some(names) => {
                            let objects = names.iter().filter(|(_, schema)| schema.is_object());
                            objects.zip(&sizes).for_each(|((name, _), &size)| self.note(name, size));
                        }
                        None => sizes.iter().for_each(|&size| self.note(key, size)),
                    }
                }
            }
        }
        let copies = if parts(object) > 1 { alternatives.saturating_sub(1) } else { 0 };
        self.copied = self.copied.saturating_add(copies.saturating_mul(beside));
        let size = Size { alternatives, bytes: beside.saturating_add(options) };
        self.known.insert(own, size);
        size
    }

    fn note(&mut self, name: &'a str, size: Size) {
        self.named.entry(name).or_default().note(size);
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
        let texts: Vec<Value> = (0..100).map(|_| json!({ "type": "string" })).collect();
        let both = json!({ "allOf": [
            { "properties": { "a": { "anyOf": texts } } },
            { "properties": { "a": { "anyOf": texts, "pattern": "a".repeat(3000) } } },
        ] });
        for (schema, what) in [
            (chain(45, 100), "levels"),
            // By a path with an escape, and where no schema is looked for.
            (json!({ "$ref": "#/x%79", "xy": { "enum": [chain(45, 100)["$defs"]] } }), "nothing"),
            (
                json!({ "$ref": "#/examples/0", "examples": [{ "properties": named(2001, |_| json!({})) }] }),
                "names",
            ),
            (
                json!({ "properties": named(257, |_| json!({})), "anyOf": [{ "minProperties": 1 }] }),
                "whose number",
            ),
            (json!({ "properties": named(257, |_| json!({})), "maxProperties": 1 }), "whose number"),
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
        let all_names: Vec<String> = (0..400).map(|i| format!("n{i}")).collect();
        // Objects that are made one, each with a list of constants under a name of its own.
        let object = |name: &str, count: usize| {
            let codes: Vec<Value> = (0..count).map(|i| json!({ "const": format!("{name} {i}") })).collect();
            json!({ "type": "object", "properties": {
                name: { "oneOf": codes }, format!("{name} code"): { "type": "string", "pattern": "^[A-Z0-9]{3,10}$" } } })
        };
        let composed =
            json!({ "allOf": [object("country", 249), object("currency", 170), object("language", 184)] });
        for schema in [
            json!({ "$defs": definitions, "anyOf": options }),
            json!({ "type": "object", "properties": { "item": { "oneOf": options }, "colour": { "anyOf": colours } },
                "$defs": definitions, "required": ["item"] }),
            json!({ "type": "object", "properties": named(200, |_| json!({ "type": "number" })), "minProperties": 1 }),
            json!({ "type": "object", "properties": named(400, |_| json!({ "type": "number" })), "required": all_names, "minProperties": 1 }),
            json!({ "properties": named(400, |_| json!({ "minProperties": 1, "additionalProperties": { "type": "string" } })) }),
            composed,
            // It is its own reference.
            json!({ "type": "object", "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" } }, "pattern": "a" }),
            json!({ "$ref": "other.json#/none" }),
            json!(true),
        ] {
            assert_eq!(check(&schema), Ok(()));
        }
    }
}
