//! Values as text: as a template writes them, and as JSON.

use super::budget::{Budget, Outcome, fault};
use super::rewrite::repeated;
use super::value::{Datum, Store};
use crate::memory::append;

/// A value as `{{ }}` writes it.
pub(super) fn print<'a>(value: &Datum<'a>, store: &'a Store<'a>) -> Outcome<&'a str> {
    let mut text = String::new();
    match value {
        Datum::Undefined => return Ok(""),
        Datum::Text(own) => {
            store.budget.bytes(own.len())?;
            return Ok(own);
        }
        Datum::None => return Ok("None"),
        Datum::Bool(true) => return Ok("True"),
        Datum::Bool(false) => return Ok("False"),
        Datum::Int(_) | Datum::Float(_) => {
            number(value, &mut text)?;
            store.budget.bytes(text.len())?;
        }
        Datum::List(_) | Datum::Map(_) => {
            json(value, Style { indent: None, python: true }, 0, &mut text, &store.budget)?
        }
        other => return fault(format_args!("{} is no text", other.kind())),
    }
    store.text(text)
}

/// A value as JSON; of several lines, each deeper one with `indent` blanks more.
pub(super) fn to_json(value: &Datum<'_>, indent: Option<usize>, budget: &Budget) -> Outcome<String> {
    let mut text = String::new();
    json(value, Style { indent, python: false }, 0, &mut text, budget)?;
    Ok(text)
}

#[derive(Clone, Copy)]
struct Style {
    indent: Option<usize>,
    /// As Python writes lists and maps.
    python: bool,
}

fn number(value: &Datum<'_>, text: &mut String) -> Outcome<()> {
    match value {
        Datum::Float(value) if !value.is_finite() => {
            append(
                text,
                if value.is_nan() {
                    "nan"
                } else if *value > 0.0 {
                    "inf"
                } else {
                    "-inf"
                },
            )?;
        }
        Datum::Float(value) if value.abs() >= 1e16 || *value != 0.0 && value.abs() < 1e-4 => {
            // As Python, with two digits of the exponent at least.
            let start = text.len();
            append(text, format_args!("{value:e}"))?;
            if let Some(at) = text.get(start..).and_then(|made| made.find('e')) {
                let exponent: i32 = text.get(start + at + 1..).and_then(|e| e.parse().ok()).unwrap_or(0);
                text.truncate(start + at);
                append(text, format_args!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()))?;
            }
        }
        Datum::Float(value) if value.fract() == 0.0 => append(text, format_args!("{value:.1}"))?,
        Datum::Float(value) => append(text, value)?,
        Datum::Int(value) => append(text, value)?,
        _ => (),
    }
    Ok(())
}

fn json(value: &Datum<'_>, style: Style, depth: usize, text: &mut String, budget: &Budget) -> Outcome<()> {
    budget.items(1)?;
    let (none, yes, no) = if style.python { ("None", "True", "False") } else { ("null", "true", "false") };
    match value {
        Datum::None => append(text, none)?,
        Datum::Bool(value) => append(text, if *value { yes } else { no })?,
        Datum::Int(_) | Datum::Float(_) => number(value, text)?,
        Datum::Text(own) => quote(own, style.python, text, budget)?,
        Datum::List(list) => {
            append(text, '[')?;
            for (index, item) in list.items.iter().enumerate() {
                separate(index, style, depth + 1, text, budget)?;
                json(item, style, depth + 1, text, budget)?;
            }
            close(list.items.is_empty(), style, depth, text, budget)?;
            append(text, ']')?;
        }
        Datum::Map(map) => {
            append(text, '{')?;
            for (index, (key, item)) in map.entries.iter().enumerate() {
                separate(index, style, depth + 1, text, budget)?;
                quote(key, style.python, text, budget)?;
                append(text, ": ")?;
                json(item, style, depth + 1, text, budget)?;
            }
            close(map.entries.is_empty(), style, depth, text, budget)?;
            append(text, '}')?;
        }
        other => return fault(format_args!("{} in JSON", other.kind())),
    }
    Ok(())
}

/// What is before an item.
fn separate(index: usize, style: Style, depth: usize, text: &mut String, budget: &Budget) -> Outcome<()> {
    match (index, style.indent) {
        (0, None) => (),
        (_, None) => append(text, ", ")?,
        (0, Some(_)) => line(style, depth, text, budget)?,
        (_, Some(_)) => {
            append(text, ',')?;
            line(style, depth, text, budget)?;
        }
    }
    Ok(())
}

fn close(is_empty: bool, style: Style, depth: usize, text: &mut String, budget: &Budget) -> Outcome<()> {
    if is_empty { Ok(()) } else { line(style, depth, text, budget) }
}

/// A new line at a depth, if there are lines.
fn line(style: Style, depth: usize, text: &mut String, budget: &Budget) -> Outcome<()> {
    let Some(indent) = style.indent else { return Ok(()) };
    budget.product(depth, indent)?;
    append(text, '\n')?;
    append(text, repeated(" ", depth.saturating_mul(indent))?)?;
    Ok(())
}

fn quote(own: &str, python: bool, text: &mut String, budget: &Budget) -> Outcome<()> {
    budget.bytes(own.len())?;
    let mark = if python { '\'' } else { '"' };
    append(text, mark)?;
    for c in own.chars() {
        match c {
            '\n' => append(text, "\\n")?,
            '\r' => append(text, "\\r")?,
            '\t' => append(text, "\\t")?,
            '\\' => append(text, "\\\\")?,
            c if c == mark => append(text, format_args!("\\{c}"))?,
            c if c < ' ' => append(text, format_args!("\\u{:04x}", c as u32))?,
            c => append(text, c)?,
        }
    }
    append(text, mark)?;
    Ok(())
}
