//! What may be as long as a file or a text: no memory for it is an error, not the end of the process.

use std::fmt::{self, Display, Write};

use esolm::{Error, Result};

/// The error of so many bytes that could not be allocated.
pub fn none_for(bytes: usize) -> Error {
    Error::OutOfMemory(format!("{bytes} bytes could not be allocated"))
}

/// Makes room for `more` elements behind those that are there.
pub fn reserve<T>(all: &mut Vec<T>, more: usize) -> Result<()> {
    all.try_reserve(more).map_err(|_| none_for(all.len().saturating_add(more).saturating_mul(size_of::<T>())))
}

/// Appends an element.
pub fn push<T>(all: &mut Vec<T>, one: T) -> Result<()> {
    reserve(all, 1)?;
    all.push(one);
    Ok(())
}

/// Appends elements.
pub fn extend<T: Copy>(all: &mut Vec<T>, more: &[T]) -> Result<()> {
    reserve(all, more.len())?;
    all.extend_from_slice(more);
    Ok(())
}

/// A copy of a list.
pub fn copy_of<T: Copy>(list: &[T]) -> Result<Vec<T>> {
    let mut copy = Vec::new();
    extend(&mut copy, list)?;
    Ok(copy)
}

/// All that `items` has, or the first error.
pub fn collected<T>(items: impl IntoIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for item in items {
        push(&mut all, item?)?;
    }
    Ok(all)
}

/// A copy of a text.
pub fn copied(text: &str) -> Result<String> {
    let mut copy = String::new();
    append(&mut copy, text)?;
    Ok(copy)
}

/// Appends to a text.
pub fn append(text: &mut String, part: &str) -> Result<()> {
    text.try_reserve(part.len()).map_err(|_| none_for(text.len().saturating_add(part.len())))?;
    text.push_str(part);
    Ok(())
}

/// Texts, one behind the other, with `between` between two.
pub fn joined<'a>(parts: impl IntoIterator<Item = &'a str>, between: &str) -> Result<String> {
    let mut text = String::new();
    for (number, part) in parts.into_iter().enumerate() {
        append(&mut text, if number == 0 { "" } else { between })?;
        append(&mut text, part)?;
    }
    Ok(text)
}

/// What `text` shows.
pub fn formatted(text: impl Display) -> Result<String> {
    struct Growing {
        text: String,
        refused: Option<Error>,
    }
    impl Write for Growing {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            append(&mut self.text, part).map_err(|error| self.refused = Some(error)).map_err(|()| fmt::Error)
        }
    }
    let mut made = Growing { text: String::new(), refused: None };
    // Writing fails for no other reason.
    match write!(made, "{text}") {
        Err(_) => Err(made.refused.unwrap_or_else(|| none_for(made.text.len()))),
        Ok(()) => Ok(made.text),
    }
}
