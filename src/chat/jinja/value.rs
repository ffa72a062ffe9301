//! Values of a template. Containers are never nested deeper than [`MAX_DEPTH`] and never contain themselves, and whoever
//! walks over one pays for each item.

use std::cell::RefCell;
use std::rc::Rc;

use super::budget::{Budget, Outcome, fault};

/// How deep lists and maps may be nested.
const MAX_DEPTH: u32 = 16;

/// What an expression yields.
#[derive(Debug, Clone)]
pub(super) enum Datum {
    Undefined,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<List>),
    Map(Rc<Map>),
    /// What `namespace()` makes, the only value that changes.
    Namespace(Rc<RefCell<Entries>>),
    /// A macro, by its number.
    Macro(usize),
}

pub(super) type Entries = Vec<(Rc<str>, Datum)>;

#[derive(Debug)]
pub(super) struct List {
    pub(super) items: Vec<Datum>,
    depth: u32,
}

#[derive(Debug)]
pub(super) struct Map {
    pub(super) entries: Entries,
    depth: u32,
}

impl Datum {
    pub(super) fn text(text: &str, budget: &Budget) -> Outcome<Self> {
        budget.bytes(text.len())?;
        Ok(Self::Text(text.into()))
    }

    pub(super) fn list(items: Vec<Datum>, budget: &Budget) -> Outcome<Self> {
        budget.items(items.len())?;
        let depth = deeper(items.iter())?;
        Ok(Self::List(Rc::new(List { items, depth })))
    }

    pub(super) fn map(entries: Entries, budget: &Budget) -> Outcome<Self> {
        budget.items(entries.len())?;
        let depth = deeper(entries.iter().map(|(_, value)| value))?;
        Ok(Self::Map(Rc::new(Map { entries, depth })))
    }

    pub(super) fn namespace(entries: Entries) -> Outcome<Self> {
        deeper(entries.iter().map(|(_, value)| value))?;
        Ok(Self::Namespace(Rc::new(RefCell::new(entries))))
    }

    /// Sets an attribute of a namespace.
    pub(super) fn set(&self, name: &str, value: Datum) -> Outcome<()> {
        let Self::Namespace(entries) = self else {
            return fault(format!("'{name}' cannot be set: only attributes of a namespace can"));
        };
        deeper(std::iter::once(&value))?;
        let mut entries = entries.borrow_mut();
        match entries.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, place)) => *place = value,
            None => entries.push((name.into(), value)),
        }
        Ok(())
    }

    /// What kind of value it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined => "undefined",
            Self::None => "none",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Namespace(_) => "a namespace",
            Self::Macro(_) => "a macro",
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Undefined | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.entries.is_empty(),
            Self::Namespace(_) | Self::Macro(_) => true,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            Self::Bool(value) => Some(f64::from(*value)),
            _ => None,
        }
    }

    /// The attribute or the entry `name`.
    pub(super) fn attribute(&self, name: &str, budget: &Budget) -> Outcome<Datum> {
        let find = |entries: &Entries| {
            budget.items(entries.len())?;
            let found = entries.iter().find(|(known, _)| **known == *name);
            Ok(found.map_or(Self::Undefined, |(_, value)| value.clone()))
        };
        match self {
            Self::Map(map) => find(&map.entries),
            Self::Namespace(entries) => find(&entries.borrow()),
            Self::Undefined => fault(format!("'{name}' of what is undefined")),
            _ => Ok(Self::Undefined),
        }
    }

    /// `self[key]`.
    pub(super) fn item(&self, key: &Datum, budget: &Budget) -> Outcome<Datum> {
        match (self, key) {
            (Self::Map(_) | Self::Namespace(_) | Self::Undefined, Self::Text(name)) => {
                self.attribute(name, budget)
            }
            (Self::List(list), Self::Int(index)) => {
                let place = place(*index, list.items.len());
                Ok(place.and_then(|place| list.items.get(place)).cloned().unwrap_or(Self::Undefined))
            }
            (Self::Text(text), Self::Int(index)) => {
                budget.bytes(text.len())?;
                let place = place(*index, text.chars().count());
                let found = place.and_then(|place| text.chars().nth(place));
                Ok(found
                    .map_or(Self::Undefined, |c| Self::Text(c.encode_utf8(&mut [0; 4]).to_owned().into())))
            }
            (Self::Undefined, _) => fault("an item of what is undefined"),
            _ => Ok(Self::Undefined),
        }
    }

    /// `self[start:stop:step]`.
    pub(super) fn slice(&self, bounds: [Option<i64>; 3], budget: &Budget) -> Outcome<Datum> {
        match self {
            Self::List(list) => {
                let places = places(bounds, list.items.len())?;
                budget.items(places.len())?;
                let items = places.into_iter().filter_map(|place| list.items.get(place).cloned());
                Self::list(items.collect(), budget)
            }
            Self::Text(text) => {
                budget.bytes(text.len())?;
                let characters: Vec<char> = text.chars().collect();
                let places = places(bounds, characters.len())?;
                let found: String = places.into_iter().filter_map(|place| characters.get(place)).collect();
                Self::text(&found, budget)
            }
            Self::Undefined => Ok(Self::Undefined),
            other => fault(format!("{} has no parts", other.kind())),
        }
    }

    /// What a loop goes over.
    pub(super) fn elements(&self, budget: &Budget) -> Outcome<Vec<Datum>> {
        match self {
            Self::Undefined => Ok(Vec::new()),
            Self::List(list) => {
                budget.items(list.items.len())?;
                Ok(list.items.clone())
            }
            Self::Map(map) => {
                budget.items(map.entries.len())?;
                Ok(map.entries.iter().map(|(key, _)| Self::Text(key.clone())).collect())
            }
            Self::Text(text) => {
                budget.items(text.len())?;
                let character = |c: char| Self::Text(c.encode_utf8(&mut [0; 4]).to_owned().into());
                Ok(text.chars().map(character).collect())
            }
            other => fault(format!("a loop over {}", other.kind())),
        }
    }

    /// As Jinja's `==`.
    pub(super) fn equals(&self, other: &Datum, budget: &Budget) -> Outcome<bool> {
        budget.items(1)?;
        Ok(match (self, other) {
            (Self::Undefined, Self::Undefined) | (Self::None, Self::None) => true,
            (Self::Text(a), Self::Text(b)) => {
                budget.bytes(a.len().min(b.len()))?;
                a == b
            }
            (Self::List(a), Self::List(b)) => {
                a.items.len() == b.items.len()
                    && every(a.items.iter().zip(&b.items), |(a, b)| a.equals(b, budget))?
            }
            (Self::Map(a), Self::Map(b)) => {
                a.entries.len() == b.entries.len()
                    && every(a.entries.iter(), |(key, value)| {
                        other.attribute(key, budget)?.equals(value, budget)
                    })?
            }
            (Self::Namespace(a), Self::Namespace(b)) => Rc::ptr_eq(a, b),
            _ => matches!((self.as_number(), other.as_number()), (Some(a), Some(b)) if a == b),
        })
    }

    /// `needle in self`.
    pub(super) fn contains(&self, needle: &Datum, budget: &Budget) -> Outcome<bool> {
        match (self, needle) {
            (Self::Text(text), Self::Text(part)) => {
                budget.search(text.len(), part.len())?;
                Ok(text.contains(&**part))
            }
            (Self::Map(map), Self::Text(key)) => {
                budget.items(map.entries.len())?;
                Ok(map.entries.iter().any(|(known, _)| known == key))
            }
            (Self::List(list), _) => {
                every(list.items.iter(), |item| Ok(!item.equals(needle, budget)?)).map(|none| !none)
            }
            (Self::Map(_) | Self::Undefined, _) => Ok(false),
            (other, needle) => fault(format!("{} in {}", needle.kind(), other.kind())),
        }
    }
}

/// Whether `holds` for all.
fn every<T>(items: impl Iterator<Item = T>, holds: impl Fn(T) -> Outcome<bool>) -> Outcome<bool> {
    for item in items {
        if !holds(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The depth of a container of `values`.
fn deeper<'a>(values: impl Iterator<Item = &'a Datum>) -> Outcome<u32> {
    let mut depth = 1;
    for value in values {
        depth = depth.max(match value {
            Datum::List(list) => list.depth + 1,
            Datum::Map(map) => map.depth + 1,
            Datum::Namespace(_) => return fault("a namespace inside another value"),
            _ => 1,
        });
    }
    if depth > MAX_DEPTH {
        return fault(format!("lists and maps nested more than {MAX_DEPTH} deep"));
    }
    Ok(depth)
}

/// The place that an index means, which counts from the end if it is negative.
fn place(index: i64, len: usize) -> Option<usize> {
    let place = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(place).ok().filter(|&place| place < len)
}

/// The places of Python's `[start:stop:step]`.
fn places([start, stop, step]: [Option<i64>; 3], len: usize) -> Outcome<Vec<usize>> {
    let (len, step) = (len as i64, step.unwrap_or(1));
    if step == 0 {
        return fault("a slice with a step of 0");
    }
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let bound = |given: Option<i64>, default: i64| match given {
        None => default,
        Some(index) if index < 0 => index.saturating_add(len).clamp(low, high),
        Some(index) => index.clamp(low, high),
    };
    let (first, end) = if step > 0 {
        (bound(start, low), bound(stop, high))
    } else {
        (bound(start, high), bound(stop, low))
    };
    let mut found = Vec::new();
    let mut at = first;
    while if step > 0 { at < end } else { at > end } {
        found.push(at as usize);
        at = at.saturating_add(step);
    }
    Ok(found)
}
