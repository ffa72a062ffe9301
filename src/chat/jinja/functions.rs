//! The functions, filters and tests that templates have.

use super::budget::{Budget, Fault, Outcome, fault};
use super::rewrite::{capitalized, escaped, indented, lower, replaced, reversed, titled, upper};
use super::text::{print, to_json};
use super::value::{Datum, Entries, Store};
use crate::memory::{append, collected, copied, push, try_collected};

/// Longest `range`.
const MAX_RANGE: u64 = 1 << 16;

type Named<'a> = [(&'a str, Datum<'a>)];

/// Calls a function that every template has.
pub(super) fn function<'a>(
    name: &str,
    positional: &[Datum<'a>],
    named: Entries<'a>,
    store: &'a Store<'a>,
) -> Outcome<Datum<'a>> {
    match (name, positional) {
        ("namespace", []) => Datum::namespace(named, store),
        ("dict", []) => Datum::map(named, store),
        ("raise_exception", [message]) => Err(Fault::Raised(copied(print(message, store)?)?)),
        ("range", [Datum::Int(end)]) => range(0, *end, 1, store),
        ("range", [Datum::Int(start), Datum::Int(end)]) => range(*start, *end, 1, store),
        ("range", [Datum::Int(start), Datum::Int(end), Datum::Int(step)]) => {
            range(*start, *end, *step, store)
        }
        ("namespace" | "dict" | "raise_exception" | "range", _) => {
            fault(format_args!("{name}: other arguments"))
        }
        _ => fault(format_args!("there is no function '{name}'")),
    }
}

fn range<'a>(start: i64, end: i64, step: i64, store: &'a Store<'a>) -> Outcome<Datum<'a>> {
    let distance = if step >= 0 { end.saturating_sub(start) } else { start.saturating_sub(end) };
    let count = match u64::try_from(distance) {
        _ if step == 0 => return fault("range: a step of 0"),
        Ok(distance) => distance.div_ceil(step.unsigned_abs()),
        Err(_) => 0,
    };
    if count > MAX_RANGE {
        return fault(format_args!("range: {count} numbers; at most {MAX_RANGE}"));
    }
    // (Of a number of 64 bits, a range does not say how long it is.)
    let numbers =
        (0..count as u32).map(|index| Datum::Int(start.wrapping_add(i64::from(index).wrapping_mul(step))));
    Datum::list(collected(numbers)?, store)
}

/// An argument by its place or its name.
fn argument<'a>(positional: &[Datum<'a>], named: &Named<'a>, place: usize, name: &str) -> Option<Datum<'a>> {
    let by_name = || named.iter().find(|(known, _)| *known == name).map(|&(_, value)| value);
    positional.get(place).copied().or_else(by_name)
}

/// Applies a filter.
pub(super) fn filter<'a>(
    name: &str,
    value: &Datum<'a>,
    positional: &[Datum<'a>],
    named: &Named<'a>,
    store: &'a Store<'a>,
) -> Outcome<Datum<'a>> {
    let budget = &store.budget;
    let text = || print(value, store);
    let made = |text| Datum::made(text, store);
    let argument = |place, name: &str| argument(positional, named, place, name);
    match name {
        "trim" | "strip" => match argument(0, "chars").as_ref().and_then(Datum::as_text) {
            Some(chars) => {
                let own = text()?;
                budget.product(own.len(), chars.len())?;
                Datum::text(own.trim_matches(|c| chars.contains(c)), budget)
            }
            None => Datum::text(text()?.trim(), budget),
        },
        "upper" => made(upper(text()?)?),
        "lower" => made(lower(text()?)?),
        "capitalize" => made(capitalized(text()?)?),
        "title" => made(titled(text()?)?),
        "string" => Ok(Datum::Text(text()?)),
        "safe" => Ok(*value),
        "escape" | "e" => made(escaped(text()?)?),
        "replace" => {
            let [from, to] =
                [argument(0, "old"), argument(1, "new")].map(|part| part.as_ref().and_then(Datum::as_text));
            match (from, to) {
                (Some(from), Some(to)) => {
                    Ok(Datum::Text(store.text(replaced(text()?, from, to, budget)?)?))
                }
                _ => fault("replace: two strings are missing"),
            }
        }
        "indent" => {
            let width = match argument(0, "width") {
                Some(Datum::Int(width)) => usize::try_from(width).unwrap_or(0),
                _ => 4,
            };
            let first = argument(1, "first").is_some_and(|first| first.is_true());
            made(indented(text()?, width, first, budget)?)
        }
        "length" | "count" => length(value, budget),
        "join" => {
            let separator = argument(0, "d").as_ref().and_then(Datum::as_text).unwrap_or_default();
            joined(value, separator, store)
        }
        "first" => Ok(value.elements(store)?.first().copied().unwrap_or(Datum::Undefined)),
        "last" => Ok(value.elements(store)?.pop().unwrap_or(Datum::Undefined)),
        "list" => Datum::list(value.elements(store)?, store),
        "reverse" => match value {
            Datum::Text(own) => made(reversed(own)?),
            _ => {
                let mut items = value.elements(store)?;
                items.reverse();
                Datum::list(items, store)
            }
        },
        "default" | "d" => {
            let other = argument(0, "default_value").unwrap_or(Datum::Text(""));
            let by_truth = argument(1, "boolean").is_some_and(|value| value.is_true());
            let is_there = if by_truth { value.is_true() } else { !matches!(value, Datum::Undefined) };
            Ok(if is_there { *value } else { other })
        }
        "tojson" => {
            let indent = match argument(0, "indent") {
                Some(Datum::Int(indent)) => Some(usize::try_from(indent).unwrap_or(0)),
                _ => None,
            };
            made(to_json(value, indent, budget)?)
        }
        "int" => Ok(Datum::Int(match value {
            Datum::Text(own) => paid(own, budget)?.trim().parse().unwrap_or(0),
            _ => value.as_number().unwrap_or(0.0) as i64,
        })),
        "float" => Ok(Datum::Float(match value {
            Datum::Text(own) => paid(own, budget)?.trim().parse().unwrap_or(0.0),
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
            let Datum::Map(map) = value else { return fault(format_args!("{name} of {}", value.kind())) };
            budget.items(map.entries.len())?;
            let mut entries = collected(map.entries.iter().copied())?;
            if name == "dictsort" {
                budget.product(entries.len(), 256)?;
                // A stable sort would allocate; the keys differ.
                entries.sort_unstable_by_key(|&(key, _)| key);
            }
            pairs(&entries, store)
        }
        "map" => {
            let Some(attribute) = argument(0, "attribute").as_ref().and_then(Datum::as_text) else {
                return fault("map: an attribute or a filter is missing");
            };
            let by_attribute = positional.is_empty();
            let each = |item: Datum<'a>| match by_attribute {
                true => item.attribute(attribute, budget),
                false => filter(attribute, &item, positional.get(1..).unwrap_or_default(), &[], store),
            };
            Datum::list(try_collected(value.elements(store)?.into_iter().map(each))?, store)
        }
        "select" | "reject" | "selectattr" | "rejectattr" => {
            let wanted = name.starts_with("select");
            let by_attribute = name.ends_with("attr").then(|| positional.first().and_then(Datum::as_text));
            let rest = positional.get(usize::from(by_attribute.is_some())..).unwrap_or_default();
            let mut kept = Vec::new();
            for item in value.elements(store)? {
                let asked = match by_attribute {
                    Some(Some(attribute)) => item.attribute(attribute, budget)?,
                    Some(None) => return fault(format_args!("{name}: an attribute is missing")),
                    None => item,
                };
                let holds = match rest.first() {
                    None => asked.is_true(),
                    Some(Datum::Text(name)) => test(name, &asked, rest.get(1), budget)?,
                    Some(other) => return fault(format_args!("{name}: {} names no test", other.kind())),
                };
                if holds == wanted {
                    push(&mut kept, item)?;
                }
            }
            Datum::list(kept, store)
        }
        "unique" => {
            let mut kept: Vec<Datum<'a>> = Vec::new();
            'items: for item in value.elements(store)? {
                for known in &kept {
                    if known.equals(&item, budget)? {
                        continue 'items;
                    }
                }
                push(&mut kept, item)?;
            }
            Datum::list(kept, store)
        }
        _ => fault(format_args!("there is no filter '{name}'")),
    }
}

/// A text that is read as a number.
fn paid<'t>(text: &'t str, budget: &Budget) -> Outcome<&'t str> {
    budget.bytes(text.len()).map(|()| text)
}

/// Whether a value passes a test.
pub(super) fn test<'a>(
    name: &str,
    value: &Datum<'a>,
    other: Option<&Datum<'a>>,
    budget: &Budget,
) -> Outcome<bool> {
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
        ("startingwith" | "endingwith", Some(Datum::Text(end))) => match value.as_text() {
            Some(own) => {
                budget.compare(own, end)?;
                if name == "endingwith" { own.ends_with(end) } else { own.starts_with(end) }
            }
            None => false,
        },
        _ => return fault(format_args!("there is no test '{name}' of this")),
    })
}

/// Pairs of key and value.
pub(super) fn pairs<'a>(entries: &Entries<'a>, store: &'a Store<'a>) -> Outcome<Datum<'a>> {
    let pair = |&(key, value): &(&'a str, Datum<'a>)| {
        Datum::list(collected([Datum::Text(key), value].into_iter())?, store)
    };
    Datum::list(try_collected(entries.iter().map(pair))?, store)
}

fn length<'a>(value: &Datum<'a>, budget: &Budget) -> Outcome<Datum<'a>> {
    let count = match value {
        Datum::Undefined => 0,
        Datum::Text(own) => {
            budget.bytes(own.len())?;
            own.chars().count()
        }
        Datum::List(list) => list.items.len(),
        Datum::Map(map) => map.entries.len(),
        other => return fault(format_args!("{} has no length", other.kind())),
    };
    Ok(Datum::Int(count as i64))
}

/// The items of a value, with a separator between them.
pub(super) fn joined<'a>(value: &Datum<'a>, separator: &str, store: &'a Store<'a>) -> Outcome<Datum<'a>> {
    let mut text = String::new();
    for (index, item) in value.elements(store)?.iter().enumerate() {
        let separator = if index == 0 { "" } else { separator };
        store.budget.bytes(separator.len())?;
        append(&mut text, separator)?;
        append(&mut text, print(item, store)?)?;
    }
    Ok(Datum::Text(store.text(text)?))
}
