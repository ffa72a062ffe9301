//! Values as text: as a template writes them, and as JSON.

use std::fmt::Write;

use super::budget::{Budget, Outcome, fault};
use super::value::Datum;

/// A value as `{{ }}` writes it.
pub(super) fn print(value: &Datum, budget: &Budget) -> Outcome<String> {
    let mut text = String::new();
    match value {
        Datum::Undefined => (),
        Datum::Text(own) => {
            budget.bytes(own.len())?;
            text.push_str(own);
        }
        Datum::None => text.push_str("None"),
        Datum::Bool(true) => text.push_str("True"),
        Datum::Bool(false) => text.push_str("False"),
        Datum::Int(_) | Datum::Float(_) => number(value, &mut text),
        Datum::List(_) | Datum::Map(_) => {
            json(value, Style { indent: None, python: true }, 0, &mut text, budget)?
        }
        other => return fault(format!("{} is no text", other.kind())),
    }
    Ok(text)
}

/// A value as JSON; of several lines, each deeper one with `indent` blanks more.
pub(super) fn to_json(value: &Datum, indent: Option<usize>, budget: &Budget) -> Outcome<String> {
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

fn number(value: &Datum, text: &mut String) {
    // Writing to a string does not fail.
    let _ = match value {
        Datum::Float(value) if value.fract() == 0.0 && value.abs() < 1e16 => write!(text, "{value:.1}"),
        Datum::Float(value) => write!(text, "{value}"),
        Datum::Int(value) => write!(text, "{value}"),
        _ => Ok(()),
    };
}

fn json(value: &Datum, style: Style, depth: usize, text: &mut String, budget: &Budget) -> Outcome<()> {
    budget.items(1)?;
    let (none, yes, no) = if style.python { ("None", "True", "False") } else { ("null", "true", "false") };
    match value {
        Datum::None => text.push_str(none),
        Datum::Bool(value) => text.push_str(if *value { yes } else { no }),
        Datum::Int(_) | Datum::Float(_) => number(value, text),
        Datum::Text(own) => quote(own, style.python, text, budget)?,
        Datum::List(list) => {
            text.push('[');
            for (index, item) in list.items.iter().enumerate() {
                separate(index, style, depth + 1, text, budget)?;
                json(item, style, depth + 1, text, budget)?;
            }
            close(list.items.is_empty(), style, depth, text, budget)?;
            text.push(']');
        }
        Datum::Map(map) => {
            text.push('{');
            for (index, (key, item)) in map.entries.iter().enumerate() {
                separate(index, style, depth + 1, text, budget)?;
                quote(key, style.python, text, budget)?;
                text.push_str(": ");
                json(item, style, depth + 1, text, budget)?;
            }
            close(map.entries.is_empty(), style, depth, text, budget)?;
            text.push('}');
        }
        other => return fault(format!("{} in JSON", other.kind())),
    }
    Ok(())
}

/// What is before an item.
fn separate(index: usize, style: Style, depth: usize, text: &mut String, budget: &Budget) -> Outcome<()> {
    match (index, style.indent) {
        (0, None) => (),
        (_, None) => text.push_str(", "),
        (0, Some(_)) => line(style, depth, text, budget)?,
        (_, Some(_)) => {
            text.push(',');
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
    text.push('\n');
    text.push_str(&" ".repeat(depth * indent));
    Ok(())
}

fn quote(own: &str, python: bool, text: &mut String, budget: &Budget) -> Outcome<()> {
    budget.bytes(own.len())?;
    let mark = if python { '\'' } else { '"' };
    text.push(mark);
    for c in own.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\\' => text.push_str("\\\\"),
            c if c == mark => {
                text.push('\\');
                text.push(c);
            }
            c if c < ' ' => {
                let _ = write!(text, "\\u{:04x}", c as u32);
            }
            c => text.push(c),
        }
    }
    text.push(mark);
    Ok(())
}
