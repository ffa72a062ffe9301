//! Values of a template. Containers are never nested deeper than [`MAX_DEPTH`] and never contain themselves, and whoever
//! walks over one pays for each item. What they refer to lies in the messages, the template and the store.

use std::cell::RefCell;

use super::budget::{Budget, Outcome, fault};
use super::shelf::Shelf;
use crate::memory::{append, collected, push, text_with_room, with_room};

/// How deep lists and maps may be nested.
const MAX_DEPTH: u32 = 16;
/// Most names of a frame or a namespace: whoever looks for one walks over them.
const MAX_NAMES: usize = 256;

/// What an expression yields.
#[derive(Debug, Clone, Copy)]
pub(super) enum Datum<'a> {
    Undefined,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    List(&'a List<'a>),
    Map(&'a Map<'a>),
    /// What `namespace()` makes, the only value that changes.
    Namespace(&'a RefCell<Entries<'a>>),
    /// A macro, by its number.
    Macro(usize),
}

pub(super) type Entries<'a> = Vec<(&'a str, Datum<'a>)>;

#[derive(Debug)]
pub(super) struct List<'a> {
    pub(super) items: Vec<Datum<'a>>,
    depth: u32,
}

#[derive(Debug)]
pub(super) struct Map<'a> {
    pub(super) entries: Entries<'a>,
    depth: u32,
}

/// What a template has made, and what it may still do. All of it stays until the template has run, which the budget bounds: so
/// values are references, and nothing is counted or copied.
pub(super) struct Store<'a> {
    pub(super) budget: Budget,
    texts: Shelf<String>,
    lists: Shelf<List<'a>>,
    maps: Shelf<Map<'a>>,
    namespaces: Shelf<RefCell<Entries<'a>>>,
}

impl<'a> Store<'a> {
    pub(super) fn new(budget: Budget) -> Self {
        let (texts, lists, maps) = (Shelf::new(), Shelf::new(), Shelf::new());
        Self { budget, texts, lists, maps, namespaces: Shelf::new() }
    }

    pub(super) fn text(&'a self, text: String) -> Outcome<&'a str> {
        if text.is_empty() {
            return Ok("");
        }
        self.budget.keep::<String>(text.capacity())?;
        self.texts.put(text).map(String::as_str)
    }

    pub(super) fn list(&'a self, list: List<'a>) -> Outcome<&'a List<'a>> {
        self.budget.keep::<List<'_>>(size_of::<Datum<'_>>().saturating_mul(list.items.capacity()))?;
        self.lists.put(list)
    }

    pub(super) fn map(&'a self, map: Map<'a>) -> Outcome<&'a Map<'a>> {
        self.budget.keep::<Map<'_>>(size_of::<(&str, Datum<'_>)>().saturating_mul(map.entries.capacity()))?;
        self.maps.put(map)
    }

    pub(super) fn namespace(&'a self, entries: Entries<'a>) -> Outcome<&'a RefCell<Entries<'a>>> {
        self.budget.keep::<Entries<'_>>(size_of::<(&str, Datum<'_>)>().saturating_mul(entries.capacity()))?;
        self.namespaces.put(RefCell::new(entries))
    }
}

impl<'a> Datum<'a> {
    pub(super) fn text(text: &'a str, budget: &Budget) -> Outcome<Self> {
        budget.bytes(text.len())?;
        Ok(Self::Text(text))
    }

    /// A text that was made.
    pub(super) fn made(text: String, store: &'a Store<'a>) -> Outcome<Self> {
        Self::text(store.text(text)?, &store.budget)
    }

    pub(super) fn list(items: Vec<Self>, store: &'a Store<'a>) -> Outcome<Self> {
        store.budget.items(2 * items.len())?;
        let depth = deeper(items.iter())?;
        store.list(List { items, depth }).map(Self::List)
    }

    pub(super) fn map(entries: Entries<'a>, store: &'a Store<'a>) -> Outcome<Self> {
        store.budget.items(3 * entries.len())?;
        let depth = deeper(entries.iter().map(|(_, value)| value))?;
        store.map(Map { entries, depth }).map(Self::Map)
    }

    pub(super) fn namespace(entries: Entries<'a>, store: &'a Store<'a>) -> Outcome<Self> {
        deeper(entries.iter().map(|(_, value)| value))?;
        store.namespace(entries).map(Self::Namespace)
    }

    /// Sets an attribute of a namespace.
    pub(super) fn set(&self, name: &'a str, value: Self, budget: &Budget) -> Outcome<()> {
        let Self::Namespace(entries) = self else {
            return fault(format_args!("'{name}' cannot be set: only attributes of a namespace can"));
        };
        deeper(std::iter::once(&value))?;
        set(&mut entries.borrow_mut(), name, value, budget)
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

    pub(super) fn as_text(&self) -> Option<&'a str> {
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
    pub(super) fn attribute(&self, name: &str, budget: &Budget) -> Outcome<Self> {
        let among = |entries: &Entries<'a>| {
            budget.items(entries.len())?;
            Ok(find(entries, name, budget)?.unwrap_or(Self::Undefined))
        };
        match self {
            Self::Map(map) => among(&map.entries),
            Self::Namespace(entries) => among(&entries.borrow()),
            Self::Undefined => fault(format_args!("'{name}' of what is undefined")),
            _ => Ok(Self::Undefined),
        }
    }

    /// `self[key]`.
    pub(super) fn item(&self, key: &Self, budget: &Budget) -> Outcome<Self> {
        match (self, key) {
            (Self::Map(_) | Self::Namespace(_) | Self::Undefined, Self::Text(name)) => {
                self.attribute(name, budget)
            }
            (Self::List(list), Self::Int(index)) => {
                let place = place(*index, list.items.len());
                Ok(place.and_then(|place| list.items.get(place)).copied().unwrap_or(Self::Undefined))
            }
            (Self::Text(text), Self::Int(index)) => {
                budget.bytes(text.len())?;
                let place = place(*index, text.chars().count());
                let found = place.and_then(|place| characters(text).nth(place));
                Ok(found.map_or(Self::Undefined, Self::Text))
            }
            (Self::Undefined, _) => fault("an item of what is undefined"),
            _ => Ok(Self::Undefined),
        }
    }

    /// `self[start:stop:step]`.
    pub(super) fn slice(&self, bounds: [Option<i64>; 3], store: &'a Store<'a>) -> Outcome<Self> {
        let budget = &store.budget;
        match self {
            Self::List(list) => {
                let places = places(bounds, list.items.len())?;
                budget.items(places.len())?;
                let mut items = with_room(places.len())?;
                items.extend(places.into_iter().filter_map(|place| list.items.get(place)));
                Self::list(items, store)
            }
            Self::Text(text) if matches!(bounds, [.., None | Some(1)]) => {
                budget.bytes(text.len())?;
                let (first, end, _) = ends(bounds, text.chars().count())?;
                let at =
                    |place: i64| text.char_indices().nth(place as usize).map_or(text.len(), |(at, _)| at);
                Self::text(text.get(at(first)..at(end)).unwrap_or_default(), budget)
            }
            Self::Text(text) => {
                budget.bytes(text.len())?;
                let characters = all_characters(text)?;
                let places = places(bounds, characters.len())?;
                let mut found = text_with_room(places.len())?;
                for c in places.into_iter().filter_map(|place| characters.get(place)) {
                    append(&mut found, c)?;
                }
                Self::made(found, store)
            }
            Self::Undefined => Ok(Self::Undefined),
            other => fault(format_args!("{} has no parts", other.kind())),
        }
    }

    /// What a loop goes over.
    pub(super) fn elements(&self, store: &Store<'_>) -> Outcome<Vec<Self>> {
        let budget = &store.budget;
        match self {
            Self::Undefined => Ok(Vec::new()),
            Self::List(list) => {
                budget.items(list.items.len())?;
                Ok(collected(list.items.iter().copied())?)
            }
            Self::Map(map) => {
                budget.items(map.entries.len())?;
                Ok(collected(map.entries.iter().map(|&(key, _)| Self::Text(key)))?)
            }
            Self::Text(text) => {
                budget.items(text.len())?;
                let characters = all_characters(text)?;
                Ok(collected(characters.into_iter().map(Self::Text))?)
            }
            other => fault(format_args!("a loop over {}", other.kind())),
        }
    }

    /// As Jinja's `==`.
    pub(super) fn equals(&self, other: &Self, budget: &Budget) -> Outcome<bool> {
        budget.items(1)?;
        Ok(match (self, other) {
            (Self::Undefined, Self::Undefined) | (Self::None, Self::None) => true,
            (Self::Text(a), Self::Text(b)) => {
                budget.compare(a, b)?;
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
            (Self::Namespace(a), Self::Namespace(b)) => std::ptr::eq(*a, *b),
            _ => matches!((self.as_number(), other.as_number()), (Some(a), Some(b)) if a == b),
        })
    }

    /// `needle in self`.
    pub(super) fn contains(&self, needle: &Self, budget: &Budget) -> Outcome<bool> {
        match (self, needle) {
            (Self::Text(text), Self::Text(part)) => {
                budget.search(text.len(), part.len())?;
                Ok(text.contains(*part))
            }
            (Self::Map(map), Self::Text(key)) => {
                budget.items(map.entries.len())?;
                Ok(find(&map.entries, key, budget)?.is_some())
            }
            (Self::List(list), _) => {
                every(list.items.iter(), |item| Ok(!item.equals(needle, budget)?)).map(|none| !none)
            }
            (Self::Map(_) | Self::Undefined, _) => Ok(false),
            (other, needle) => fault(format_args!("{} in {}", needle.kind(), other.kind())),
        }
    }
}

/// The value of a name, whose search is paid for.
pub(super) fn find<'a>(names: &Entries<'a>, name: &str, budget: &Budget) -> Outcome<Option<Datum<'a>>> {
    budget.look_up(names.len(), name)?;
    Ok(names.iter().find(|(known, _)| *known == name).map(|&(_, value)| value))
}

/// Gives one of a frame's or a namespace's names a value, as [`find`].
pub(super) fn set<'a>(
    names: &mut Entries<'a>,
    name: &'a str,
    value: Datum<'a>,
    budget: &Budget,
) -> Outcome<()> {
    budget.look_up(names.len(), name)?;
    let count = names.len();
    match names.iter_mut().find(|(known, _)| *known == name) {
        Some((_, place)) => *place = value,
        None if count == MAX_NAMES => return fault(format_args!("more than {MAX_NAMES} names")),
        None => push(names, (name, value))?,
    }
    Ok(())
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

/// The characters of a text.
fn characters(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().filter_map(|(at, c)| text.get(at..at + c.len_utf8()))
}

fn all_characters(text: &str) -> Outcome<Vec<&str>> {
    let mut all = with_room(text.chars().count())?;
    all.extend(characters(text));
    Ok(all)
}

/// The depth of a container of `values`.
fn deeper<'d, 'a: 'd>(values: impl Iterator<Item = &'d Datum<'a>>) -> Outcome<u32> {
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
        return fault(format_args!("lists and maps nested more than {MAX_DEPTH} deep"));
    }
    Ok(depth)
}

/// The place that an index means, which counts from the end if it is negative.
fn place(index: i64, len: usize) -> Option<usize> {
    let place = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(place).ok().filter(|&place| place < len)
}

/// Where Python's `[start:stop:step]` begins and ends, and its step.
fn ends([start, stop, step]: [Option<i64>; 3], len: usize) -> Outcome<(i64, i64, i64)> {
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
    Ok((first, end, step))
}

/// The places between them.
fn places(bounds: [Option<i64>; 3], len: usize) -> Outcome<Vec<usize>> {
    let (first, end, step) = ends(bounds, len)?;
    let mut found = Vec::new();
    let mut at = first;
    while if step > 0 { at < end } else { at > end } {
        push(&mut found, at as usize)?;
        at = at.saturating_add(step);
    }
    Ok(found)
}
