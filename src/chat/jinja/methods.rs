//! The methods of Python's strings, dictionaries and lists that published templates call.

use super::budget::{Outcome, fault};
use super::functions::{joined, pairs};
use super::rewrite::{capitalized, lower, replaced, titled, upper};
use super::value::{Datum, Store};
use crate::memory::{collected, push};

/// Calls a method of a value.
pub(super) fn method<'a>(
    name: &str,
    of: &Datum<'a>,
    positional: &[Datum<'a>],
    named: &[(&str, Datum<'a>)],
    store: &'a Store<'a>,
) -> Outcome<Datum<'a>> {
    let budget = &store.budget;
    if !named.is_empty() {
        return fault(format_args!("{name}(): arguments by name"));
    }
    match of {
        Datum::Text(own) => of_text(name, own, positional, store),
        Datum::Map(map) => match (name, positional) {
            ("items", []) => pairs(&map.entries, store),
            ("keys", []) => Datum::list(of.elements(store)?, store),
            ("values", []) => {
                budget.items(map.entries.len())?;
                Datum::list(collected(map.entries.iter().map(|&(_, value)| value))?, store)
            }
            ("get", [Datum::Text(key), rest @ ..]) => Ok(match of.attribute(key, budget)? {
                Datum::Undefined => rest.first().copied().unwrap_or(Datum::None),
                found => found,
            }),
            _ => missing(name, of),
        },
        Datum::List(list) => match (name, positional) {
            ("count", [item]) => {
                let mut count = 0;
                for own in &list.items {
                    count += i64::from(own.equals(item, budget)?);
                }
                Ok(Datum::Int(count))
            }
            _ => missing(name, of),
        },
        _ => missing(name, of),
    }
}

fn missing<'a>(name: &str, of: &Datum<'_>) -> Outcome<Datum<'a>> {
    fault(format_args!("{} has no method '{name}' with these arguments", of.kind()))
}

fn of_text<'a>(
    name: &str,
    own: &'a str,
    positional: &[Datum<'a>],
    store: &'a Store<'a>,
) -> Outcome<Datum<'a>> {
    let budget = &store.budget;
    // Looking for an argument is linear in both.
    budget.bytes(own.len())?;
    for argument in positional.iter().filter_map(Datum::as_text) {
        budget.bytes(argument.len())?;
    }
    let is_blank = |set: Option<&str>, c: char| set.map_or(c.is_whitespace(), |set| set.contains(c));
    let text = |text: &'a str| Datum::text(text, budget);
    let made = |text| Datum::made(text, store);
    let number = |place: Option<usize>| {
        let characters = |place| own.get(..place).unwrap_or_default().chars().count() as i64;
        Ok(Datum::Int(place.map_or(-1, characters)))
    };
    let all = |holds: fn(char) -> bool| Ok(Datum::Bool(!own.is_empty() && own.chars().all(holds)));
    match (name, positional) {
        ("strip" | "lstrip" | "rstrip", [] | [Datum::Text(_) | Datum::None]) => {
            let set = positional.first().and_then(Datum::as_text);
            budget.product(own.len(), set.map_or(1, str::len))?;
            text(match name {
                "lstrip" => own.trim_start_matches(|c| is_blank(set, c)),
                "rstrip" => own.trim_end_matches(|c| is_blank(set, c)),
                _ => own.trim_matches(|c| is_blank(set, c)),
            })
        }
        ("split" | "rsplit", [] | [Datum::None]) => {
            budget.items(own.len())?;
            list(own.split_whitespace(), store)
        }
        ("split" | "rsplit", [Datum::Text(by), most @ ..]) if !by.is_empty() => {
            budget.items(own.matches(by).count())?;
            match (name, most) {
                (_, []) => list(own.split(by), store),
                (_, [Datum::Int(most)]) if *most < 0 => list(own.split(by), store),
                ("split", [Datum::Int(most)]) => list(own.splitn(parts(*most), by), store),
                (_, [Datum::Int(most)]) => {
                    let mut parts = items(own.rsplitn(parts(*most), by), store)?;
                    parts.reverse();
                    Datum::list(parts, store)
                }
                _ => missing(name, &Datum::Text("")),
            }
        }
        ("splitlines", []) => {
            budget.items(own.len())?;
            list(own.lines(), store)
        }
        ("startswith", [Datum::Text(start)]) => Ok(Datum::Bool(own.starts_with(start))),
        ("endswith", [Datum::Text(end)]) => Ok(Datum::Bool(own.ends_with(end))),
        ("startswith" | "endswith", [Datum::List(ends)]) => {
            let mut is_there = false;
            for end in ends.items.iter().filter_map(Datum::as_text) {
                budget.compare(own, end)?;
                is_there |= if name == "endswith" { own.ends_with(end) } else { own.starts_with(end) };
            }
            Ok(Datum::Bool(is_there))
        }
        ("upper", []) => made(upper(own)?),
        ("lower", []) => made(lower(own)?),
        ("capitalize", []) => made(capitalized(own)?),
        ("title", []) => made(titled(own)?),
        ("replace", [Datum::Text(from), Datum::Text(to)]) => {
            Ok(Datum::Text(store.text(replaced(own, from, to, budget)?)?))
        }
        ("join", [items]) => joined(items, own, store),
        ("find", [Datum::Text(part)]) => number(own.find(part)),
        ("rfind", [Datum::Text(part)]) => number(own.rfind(part)),
        ("count", [Datum::Text(part)]) => Ok(Datum::Int(own.matches(part).count() as i64)),
        ("isdigit" | "isnumeric", []) => all(char::is_numeric),
        ("isalpha", []) => all(char::is_alphabetic),
        ("isalnum", []) => all(char::is_alphanumeric),
        ("isspace", []) => all(char::is_whitespace),
        ("isupper", []) => Ok(Datum::Bool(upper(own)? == own && lower(own)? != own)),
        ("islower", []) => Ok(Datum::Bool(lower(own)? == own && upper(own)? != own)),
        _ => missing(name, &Datum::Text("")),
    }
}

/// The parts of a text that is split so many times.
fn parts(splits: i64) -> usize {
    usize::try_from(splits).unwrap_or(0).saturating_add(1)
}

fn list<'a>(parts: impl Iterator<Item = &'a str>, store: &'a Store<'a>) -> Outcome<Datum<'a>> {
    Datum::list(items(parts, store)?, store)
}

fn items<'a>(parts: impl Iterator<Item = &'a str>, store: &Store<'_>) -> Outcome<Vec<Datum<'a>>> {
    let mut all = Vec::new();
    for part in parts {
        push(&mut all, Datum::text(part, &store.budget)?)?;
    }
    Ok(all)
}
