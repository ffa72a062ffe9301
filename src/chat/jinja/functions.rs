//! The functions, filters and tests that templates have.

use super::budget::{Budget, Fault, Outcome, fault};
use super::text::{print, to_json};
use super::value::{Datum, Entries};

/// Longest `range`.
const MAX_RANGE: u64 = 1 << 16;

type Named<'s> = [(&'s str, Datum)];

/// Calls a function that every template has.
pub(super) fn function(
    name: &str,
    positional: Vec<Datum>,
    named: Vec<(&str, Datum)>,
    budget: &Budget,
) -> Outcome<Datum> {
    let entries = || named.iter().map(|(name, value)| ((*name).into(), value.clone())).collect::<Entries>();
    match (name, positional.as_slice()) {
        ("namespace", []) => Datum::namespace(entries()),
        ("dict", []) => Datum::map(entries(), budget),
        ("raise_exception", [message]) => Err(Fault { raised: true, ..Fault::new(print(message, budget)?) }),
        ("range", [Datum::Int(end)]) => range(0, *end, 1, budget),
        ("range", [Datum::Int(start), Datum::Int(end)]) => range(*start, *end, 1, budget),
        ("range", [Datum::Int(start), Datum::Int(end), Datum::Int(step)]) => {
            range(*start, *end, *step, budget)
        }
        ("namespace" | "dict" | "raise_exception" | "range", _) => fault(format!("{name}: other arguments")),
        _ => fault(format!("there is no function '{name}'")),
    }
}

fn range(start: i64, end: i64, step: i64, budget: &Budget) -> Outcome<Datum> {
    let distance = if step >= 0 { end.saturating_sub(start) } else { start.saturating_sub(end) };
    let count = match u64::try_from(distance) {
        _ if step == 0 => return fault("range: a step of 0"),
        Ok(distance) => distance.div_ceil(step.unsigned_abs()),
        Err(_) => 0,
    };
    if count > MAX_RANGE {
        return fault(format!("range: {count} numbers; at most {MAX_RANGE}"));
    }
    let numbers = (0..count as i64).map(|index| Datum::Int(start.wrapping_add(index.wrapping_mul(step))));
    Datum::list(numbers.collect(), budget)
}

/// An argument by its place or its name.
fn argument<'a>(
    positional: &'a [Datum],
    named: &'a Named<'_>,
    place: usize,
    name: &str,
) -> Option<&'a Datum> {
    let by_name = || named.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
    positional.get(place).or_else(by_name)
}

/// Applies a filter.
pub(super) fn filter(
    name: &str,
    value: &Datum,
    positional: &[Datum],
    named: &Named<'_>,
    budget: &Budget,
) -> Outcome<Datum> {
    let text = || print(value, budget);
    let argument = |place, name: &str| argument(positional, named, place, name);
    match name {
        "trim" | "strip" => match argument(0, "chars").and_then(Datum::as_text) {
            Some(chars) => Datum::text(text()?.trim_matches(|c| chars.contains(c)), budget),
            None => Datum::text(text()?.trim(), budget),
        },
        "upper" => Datum::text(&text()?.to_uppercase(), budget),
        "lower" => Datum::text(&text()?.to_lowercase(), budget),
        "capitalize" => Datum::text(&capitalized(&text()?), budget),
        "title" => Datum::text(&titled(&text()?), budget),
        "string" => Ok(Datum::Text(text()?.into())),
        "safe" => Ok(value.clone()),
        "escape" | "e" => Datum::text(&escaped(&text()?), budget),
        "replace" => {
            let [from, to] =
                [argument(0, "old"), argument(1, "new")].map(|part| part.and_then(Datum::as_text));
            match (from, to) {
                (Some(from), Some(to)) => replaced(&text()?, from, to, budget),
                _ => fault("replace: two strings are missing"),
            }
        }
        "indent" => indented(&text()?, argument(0, "width"), argument(1, "first"), budget),
        "length" | "count" => length(value, budget),
        "join" => {
            let separator = argument(0, "d").and_then(Datum::as_text).unwrap_or_default();
            joined(value, separator, budget)
        }
        "first" => Ok(value.elements(budget)?.into_iter().next().unwrap_or(Datum::Undefined)),
        "last" => Ok(value.elements(budget)?.pop().unwrap_or(Datum::Undefined)),
        "list" => Datum::list(value.elements(budget)?, budget),
        "reverse" => match value {
            Datum::Text(own) => Datum::text(&own.chars().rev().collect::<String>(), budget),
            _ => Datum::list(value.elements(budget)?.into_iter().rev().collect(), budget),
        },
        "default" | "d" => {
            let other = argument(0, "default_value").cloned().unwrap_or(Datum::Text("".into()));
            let by_truth = argument(1, "boolean").is_some_and(Datum::is_true);
            let is_there = if by_truth { value.is_true() } else { !matches!(value, Datum::Undefined) };
            Ok(if is_there { value.clone() } else { other })
        }
        "tojson" => {
            let indent = match argument(0, "indent") {
                Some(Datum::Int(indent)) => Some(usize::try_from(*indent).unwrap_or(0)),
                _ => None,
            };
            Datum::text(&to_json(value, indent, budget)?, budget)
        }
        "int" => Ok(Datum::Int(match value {
            Datum::Text(own) => own.trim().parse().unwrap_or(0),
            _ => value.as_number().unwrap_or(0.0) as i64,
        })),
        "float" => Ok(Datum::Float(match value {
            Datum::Text(own) => own.trim().parse().unwrap_or(0.0),
            _ => value.as_number().unwrap_or(0.0),
        })),
        "abs" => match value {
            Datum::Int(value) => Ok(Datum::Int(value.wrapping_abs())),
            _ => value
                .as_number()
                .map(|value| Datum::Float(value.abs()))
                .ok_or_else(|| Fault::new("abs of no number")),
        },
        "items" | "dictsort" => {
            let Datum::Map(map) = value else { return fault(format!("{name} of {}", value.kind())) };
            budget.items(map.entries.len())?;
            let mut entries = map.entries.clone();
            if name == "dictsort" {
                budget.product(entries.len(), 256)?;
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            }
            pairs(&entries, budget)
        }
        "map" => {
            let Some(attribute) = argument(0, "attribute").and_then(Datum::as_text) else {
                return fault("map: an attribute or a filter is missing");
            };
            let by_attribute = positional.is_empty();
            let each = |item: Datum| match by_attribute {
                true => item.attribute(attribute, budget),
                false => filter(attribute, &item, positional.get(1..).unwrap_or_default(), &[], budget),
            };
            let items: Outcome<Vec<Datum>> = value.elements(budget)?.into_iter().map(each).collect();
            Datum::list(items?, budget)
        }
        "select" | "reject" | "selectattr" | "rejectattr" => {
            let wanted = name.starts_with("select");
            let by_attribute = name.ends_with("attr").then(|| positional.first().and_then(Datum::as_text));
            let rest = positional.get(usize::from(by_attribute.is_some())..).unwrap_or_default();
            let mut kept = Vec::new();
            for item in value.elements(budget)? {
                let asked = match by_attribute {
                    Some(Some(attribute)) => item.attribute(attribute, budget)?,
                    Some(None) => return fault(format!("{name}: an attribute is missing")),
                    None => item.clone(),
                };
                let holds = match rest.first() {
                    None => asked.is_true(),
                    Some(Datum::Text(name)) => test(name, &asked, rest.get(1), budget)?,
                    Some(other) => return fault(format!("{name}: {} names no test", other.kind())),
                };
                if holds == wanted {
                    kept.push(item);
                }
            }
            Datum::list(kept, budget)
        }
        "unique" => {
            let mut kept: Vec<Datum> = Vec::new();
            'items: for item in value.elements(budget)? {
                for known in &kept {
                    if known.equals(&item, budget)? {
                        continue 'items;
                    }
                }
                kept.push(item);
            }
            Datum::list(kept, budget)
        }
        _ => fault(format!("there is no filter '{name}'")),
    }
}

/// Whether a value passes a test.
pub(super) fn test(name: &str, value: &Datum, other: Option<&Datum>, budget: &Budget) -> Outcome<bool> {
    let whole =
        |what: fn(i64, i64) -> bool, by: i64| matches!(value, Datum::Int(own) if by != 0 && what(*own, by));
    Ok(match (name, other) {
        ("defined", _) => !matches!(value, Datum::Undefined),
        ("undefined", _) => matches!(value, Datum::Undefined),
        ("none", _) => matches!(value, Datum::None),
        ("string", _) => matches!(value, Datum::Text(_)),
        ("number", _) => matches!(value, Datum::Int(_) | Datum::Float(_) | Datum::Bool(_)),
        ("integer", _) => matches!(value, Datum::Int(_)),
        ("float", _) => matches!(value, Datum::Float(_)),
        ("boolean", _) => matches!(value, Datum::Bool(_)),
        ("true", _) => matches!(value, Datum::Bool(true)),
        ("false", _) => matches!(value, Datum::Bool(false)),
        ("mapping", _) => matches!(value, Datum::Map(_)),
        ("sequence" | "iterable", _) => matches!(value, Datum::List(_) | Datum::Map(_) | Datum::Text(_)),
        ("callable", _) => matches!(value, Datum::Macro(_)),
        ("odd", _) => whole(|own, by| own.rem_euclid(by) == 1, 2),
        ("even", _) => whole(|own, by| own.rem_euclid(by) == 0, 2),
        ("divisibleby", Some(Datum::Int(by))) => whole(|own, by| own.checked_rem(by) == Some(0), *by),
        ("eq" | "equalto" | "sameas" | "==", Some(other)) => value.equals(other, budget)?,
        ("ne" | "!=", Some(other)) => !value.equals(other, budget)?,
        ("in", Some(other)) => other.contains(value, budget)?,
        ("startingwith", Some(Datum::Text(start))) => {
            value.as_text().is_some_and(|own| own.starts_with(&**start))
        }
        ("endingwith", Some(Datum::Text(end))) => value.as_text().is_some_and(|own| own.ends_with(&**end)),
        _ => return fault(format!("there is no test '{name}' of this")),
    })
}

/// Pairs of key and value.
pub(super) fn pairs(entries: &Entries, budget: &Budget) -> Outcome<Datum> {
    let pair = |(key, value): &(std::rc::Rc<str>, Datum)| {
        Datum::list(vec![Datum::Text(key.clone()), value.clone()], budget)
    };
    let pairs: Outcome<Vec<Datum>> = entries.iter().map(pair).collect();
    Datum::list(pairs?, budget)
}

fn length(value: &Datum, budget: &Budget) -> Outcome<Datum> {
    let count = match value {
        Datum::Undefined => 0,
        Datum::Text(own) => {
            budget.bytes(own.len())?;
            own.chars().count()
        }
        Datum::List(list) => list.items.len(),
        Datum::Map(map) => map.entries.len(),
        other => return fault(format!("{} has no length", other.kind())),
    };
    Ok(Datum::Int(count as i64))
}

/// The items of a value, with a separator between them.
pub(super) fn joined(value: &Datum, separator: &str, budget: &Budget) -> Outcome<Datum> {
    let mut text = String::new();
    for (index, item) in value.elements(budget)?.iter().enumerate() {
        let separator = if index == 0 { "" } else { separator };
        budget.bytes(separator.len())?;
        text.push_str(separator);
        text.push_str(&print(item, budget)?);
    }
    Ok(Datum::Text(text.into()))
}

/// A text with `from` replaced by `to`.
pub(super) fn replaced(text: &str, from: &str, to: &str, budget: &Budget) -> Outcome<Datum> {
    budget.search(text.len(), from.len())?;
    budget.product(text.matches(from).count(), to.len())?;
    Ok(Datum::Text(text.replace(from, to).into()))
}

pub(super) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + &characters.as_str().to_lowercase()
}

pub(super) fn titled(text: &str) -> String {
    let words = text.split_inclusive(|c: char| !c.is_alphanumeric() && c != '\'');
    words.map(capitalized).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

fn indented(text: &str, width: Option<&Datum>, first: Option<&Datum>, budget: &Budget) -> Outcome<Datum> {
    let blanks = match width {
        Some(Datum::Int(width)) => usize::try_from(*width).unwrap_or(0),
        _ => 4,
    };
    budget.product(text.lines().count() + 1, blanks)?;
    let (blanks, mut made) = (" ".repeat(blanks), String::new());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_indented = if index == 0 { first.is_some_and(Datum::is_true) } else { line != "\n" };
        made.push_str(if is_indented { &blanks } else { "" });
        made.push_str(line);
    }
    Datum::text(&made, budget)
}
