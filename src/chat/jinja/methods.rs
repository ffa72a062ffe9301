//! The methods of Python's strings, dictionaries and lists that published templates call.

use super::budget::{Budget, Outcome, fault};
use super::functions::{capitalized, joined, pairs, replaced, titled};
use super::value::Datum;

/// Calls a method of a value.
pub(super) fn method(
    name: &str,
    of: &Datum,
    positional: &[Datum],
    named: &[(&str, Datum)],
    budget: &Budget,
) -> Outcome<Datum> {
    if !named.is_empty() {
        return fault(format!("{name}(): arguments by name"));
    }
    match of {
        Datum::Text(own) => of_text(name, own, positional, budget),
        Datum::Map(map) => match (name, positional) {
            ("items", []) => pairs(&map.entries, budget),
            ("keys", []) => Datum::list(of.elements(budget)?, budget),
            ("values", []) => {
                budget.items(map.entries.len())?;
                Datum::list(map.entries.iter().map(|(_, value)| value.clone()).collect(), budget)
            }
            ("get", [Datum::Text(key), rest @ ..]) => Ok(match of.attribute(key, budget)? {
                Datum::Undefined => rest.first().cloned().unwrap_or(Datum::None),
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

fn missing(name: &str, of: &Datum) -> Outcome<Datum> {
    fault(format!("{} has no method '{name}' with these arguments", of.kind()))
}

fn of_text(name: &str, own: &str, positional: &[Datum], budget: &Budget) -> Outcome<Datum> {
    budget.bytes(own.len())?;
    let is_blank = |set: Option<&str>, c: char| set.map_or(c.is_whitespace(), |set| set.contains(c));
    let text = |text: &str| Datum::text(text, budget);
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
            list(own.split_whitespace(), budget)
        }
        ("split" | "rsplit", [Datum::Text(by), most @ ..]) if !by.is_empty() => {
            budget.items(own.matches(&**by).count())?;
            match (name, most) {
                (_, []) => list(own.split(&**by), budget),
                (_, [Datum::Int(most)]) if *most < 0 => list(own.split(&**by), budget),
                ("split", [Datum::Int(most)]) => list(own.splitn(parts(*most), &**by), budget),
                (_, [Datum::Int(most)]) => {
                    let mut parts: Vec<&str> = own.rsplitn(parts(*most), &**by).collect();
                    parts.reverse();
                    list(parts.into_iter(), budget)
                }
                _ => missing(name, &Datum::Text("".into())),
            }
        }
        ("splitlines", []) => {
            budget.items(own.len())?;
            list(own.lines(), budget)
        }
        ("startswith", [Datum::Text(start)]) => Ok(Datum::Bool(own.starts_with(&**start))),
        ("endswith", [Datum::Text(end)]) => Ok(Datum::Bool(own.ends_with(&**end))),
        ("startswith" | "endswith", [Datum::List(ends)]) => {
            budget.items(ends.items.len())?;
            let is_there =
                |end: &str| if name == "endswith" { own.ends_with(end) } else { own.starts_with(end) };
            Ok(Datum::Bool(ends.items.iter().filter_map(Datum::as_text).any(is_there)))
        }
        ("upper", []) => text(&own.to_uppercase()),
        ("lower", []) => text(&own.to_lowercase()),
        ("capitalize", []) => text(&capitalized(own)),
        ("title", []) => text(&titled(own)),
        ("replace", [Datum::Text(from), Datum::Text(to)]) => replaced(own, from, to, budget),
        ("join", [items]) => joined(items, own, budget),
        ("find", [Datum::Text(part)]) => number(own.find(&**part)),
        ("rfind", [Datum::Text(part)]) => number(own.rfind(&**part)),
        ("count", [Datum::Text(part)]) => Ok(Datum::Int(own.matches(&**part).count() as i64)),
        ("isdigit" | "isnumeric", []) => all(char::is_numeric),
        ("isalpha", []) => all(char::is_alphabetic),
        ("isalnum", []) => all(char::is_alphanumeric),
        ("isspace", []) => all(char::is_whitespace),
        ("isupper", []) => Ok(Datum::Bool(own.to_uppercase() == own && own.to_lowercase() != own)),
        ("islower", []) => Ok(Datum::Bool(own.to_lowercase() == own && own.to_uppercase() != own)),
        _ => missing(name, &Datum::Text("".into())),
    }
}

/// The parts of a text that is split so many times.
fn parts(splits: i64) -> usize {
    usize::try_from(splits).unwrap_or(0).saturating_add(1)
}

fn list<'a>(parts: impl Iterator<Item = &'a str>, budget: &Budget) -> Outcome<Datum> {
    let parts: Outcome<Vec<Datum>> = parts.map(|part| Datum::text(part, budget)).collect();
    Datum::list(parts?, budget)
}
