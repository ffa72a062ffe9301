//! Metadata values.

use std::fmt::{self, Write};

use crate::error::{Error, Result};
#[cfg(feature = "capi")]
use crate::memory::text_with_room;
use crate::memory::{copied, with_room};

/// The type number of text in a file.
pub(super) const STR: u32 = 8;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the variants are the format's own types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// The value's type number in a file.
    pub(super) fn code(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::Str(_) => STR,
            Value::Array(_) => 9,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
        }
    }

    /// Bytes of the value in a file.
    pub(super) fn encoded_len(&self) -> usize {
        match self {
            Value::Str(text) => 8 + text.len(),
            Value::Array(array) => 4 + 8 + array.bytes.len(),
            number => number_bytes(number.code()).unwrap_or_default(),
        }
    }

    /// Appends the value as it is in a file.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(v) => out.extend(v.to_le_bytes()),
            Value::I8(v) => out.extend(v.to_le_bytes()),
            Value::U16(v) => out.extend(v.to_le_bytes()),
            Value::I16(v) => out.extend(v.to_le_bytes()),
            Value::U32(v) => out.extend(v.to_le_bytes()),
            Value::I32(v) => out.extend(v.to_le_bytes()),
            Value::F32(v) => out.extend(v.to_le_bytes()),
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::Str(v) => put_string(out, v),
            Value::Array(v) => v.put(out),
            Value::U64(v) => out.extend(v.to_le_bytes()),
            Value::I64(v) => out.extend(v.to_le_bytes()),
            Value::F64(v) => out.extend(v.to_le_bytes()),
        }
    }

    /// The value as an unsigned integer, if it is an integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// The value as a floating-point number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            _ => None,
        }
    }

    /// The text, if the value is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(v) => Some(v),
            _ => None,
        }
    }
}

/// Appends text as it is in a file: its length and its bytes.
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The bytes of a number or a truth value of the type `code`; `None` for text, arrays and unknown types.
pub(super) fn number_bytes(code: u32) -> Option<usize> {
    match code {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// The number or truth value that `bytes` are, of the type `code`. `None` for a truth value other than 0 and 1, and if
/// these are not the bytes of a number.
pub(super) fn number(code: u32, bytes: &[u8]) -> Option<Value> {
    Some(match code {
        0 => Value::U8(u8::from_le_bytes(bytes.try_into().ok()?)),
        1 => Value::I8(i8::from_le_bytes(bytes.try_into().ok()?)),
        2 => Value::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
        3 => Value::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
        4 => Value::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
        5 => Value::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
        6 => Value::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
        7 if *bytes == [0] => Value::Bool(false),
        7 if *bytes == [1] => Value::Bool(true),
        10 => Value::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
        11 => Value::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
        12 => Value::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}

impl Value {
    /// The complete value as text: text unchanged, numbers in decimal, an array in brackets with its strings quoted as
    /// in JSON.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_text(&mut text);
        text
    }

    /// As [`Value::to_text`], which may be some times as long as the value in the file.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    #[cfg(feature = "capi")]
    pub(crate) fn try_to_text(&self) -> Result<String> {
        let mut len = TextLength(0);
        // Neither counting nor writing to a string fails.
        let _ = self.write_text(&mut len);
        let mut text = text_with_room(len.0)?;
        let _ = self.write_text(&mut text);
        Ok(text)
    }

    fn write_text(&self, out: &mut impl Write) -> fmt::Result {
        match self {
            Value::Str(text) => out.write_str(text),
            Value::Array(values) => {
                out.write_char('[')?;
                for (index, element) in values.elements().enumerate() {
                    out.write_str(if index == 0 { "" } else { ", " })?;
                    match element {
                        Element::Text(text) => write!(out, "{}", Quoted(text))?,
                        Element::Number(number) => write!(out, "{number}")?,
                    }
                }
                out.write_char(']')
            }
            number => write!(out, "{number}"),
        }
    }
}

/// Counts the bytes of a text.
#[cfg(feature = "capi")]
struct TextLength(usize);

#[cfg(feature = "capi")]
impl Write for TextLength {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// A text as a JSON string.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let special = |c: char| matches!(c, '"' | '\\' | '\0'..='\x1f');
        for part in self.0.split_inclusive(special) {
            let plain = part.strip_suffix(special).unwrap_or(part);
            match part.get(plain.len()..).and_then(|end| end.chars().next()) {
                Some(c @ ('"' | '\\')) => write!(f, "{plain}\\{c}")?,
                Some(c) => write!(f, "{plain}\\u{:04x}", u32::from(c))?,
                None => f.write_str(plain)?,
            }
        }
        f.write_char('"')
    }
}

/// A number without the hundreds of zeros that very small and very large ones have in decimal.
fn write_float(
    f: &mut fmt::Formatter<'_>,
    v: impl Into<f64> + fmt::Display + fmt::LowerExp + Copy,
) -> fmt::Result {
    let size: f64 = v.into().abs();
    if size == 0.0 || !size.is_finite() || (1e-7..1e16).contains(&size) {
        write!(f, "{v}")
    } else {
        write!(f, "{v:e}")
    }
}

impl fmt::Display for Value {
    /// Numbers and text of up to 80 bytes in full; longer text and arrays by their size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::U8(v) => v.fmt(f),
            Value::I8(v) => v.fmt(f),
            Value::U16(v) => v.fmt(f),
            Value::I16(v) => v.fmt(f),
            Value::U32(v) => v.fmt(f),
            Value::I32(v) => v.fmt(f),
            Value::F32(v) => write_float(f, *v),
            Value::Bool(v) => v.fmt(f),
            Value::U64(v) => v.fmt(f),
            Value::I64(v) => v.fmt(f),
            Value::F64(v) => write_float(f, *v),
            Value::Str(v) if v.len() <= 80 => f.write_str(v),
            Value::Str(v) => write!(f, "({} bytes of text)", v.len()),
            Value::Array(v) => write!(f, "({} values)", v.len()),
        }
    }
}

/// An array of metadata. It keeps the file's bytes and decodes an element when it is asked for, so that an array takes
/// no more memory than it takes in the file, whatever a hostile file declares.
#[derive(Clone, PartialEq)]
pub struct Array {
    /// The elements' type number in a file.
    code: u32,
    len: usize,
    /// The elements as they follow the array's length in a file.
    bytes: Vec<u8>,
}

/// An element of an array, whose text is in the array.
enum Element<'a> {
    Number(Value),
    Text(&'a str),
}

impl Array {
    /// An array of these values.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they are of different types or are arrays; [`Error::OutOfMemory`].
    pub fn new(values: &[Value]) -> Result<Self> {
        // An array without elements has to have some element type; u8 it is.
        let code = values.first().map_or(Value::U8(0).code(), Value::code);
        if values.iter().any(|value| value.code() != code || matches!(value, Value::Array(_))) {
            return Err(Error::invalid("the elements of an array must be of one type, and not arrays"));
        }
        let mut bytes = with_room(values.iter().map(Value::encoded_len).sum())?;
        values.iter().for_each(|value| value.put(&mut bytes));
        Ok(Self { code, len: values.len(), bytes })
    }

    /// A copy of `len` elements of the type `code`, which the caller has checked to be well-formed.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn copy_of(code: u32, len: usize, elements: &[u8]) -> Result<Self> {
        let mut bytes = with_room(elements.len())?;
        bytes.extend_from_slice(elements);
        Ok(Self { code, len, bytes })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, decoded one at a time, or [`Error::OutOfMemory`].
    pub fn iter(&self) -> impl Iterator<Item = Result<Value>> {
        self.elements().map(|element| match element {
            Element::Number(number) => Ok(number),
            Element::Text(text) => copied(text).map(Value::Str),
        })
    }

    /// The elements that are text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.elements().filter_map(|element| match element {
            Element::Text(text) => Some(text),
            Element::Number(_) => None,
        })
    }

    fn elements(&self) -> impl Iterator<Item = Element<'_>> {
        let mut left = self.bytes.as_slice();
        std::iter::from_fn(move || match number_bytes(self.code) {
            Some(size) => number(self.code, left.split_off(..size)?).map(Element::Number),
            None => {
                let len = left.split_off(..8)?.first_chunk().copied().map(u64::from_le_bytes)?;
                let text = left.split_off(..usize::try_from(len).ok()?)?;
                std::str::from_utf8(text).ok().map(Element::Text)
            }
        })
    }

    /// Appends the array as it is in a file.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.code.to_le_bytes());
        out.extend((self.len as u64).to_le_bytes());
        out.extend(&self.bytes);
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().flatten().take(16)).finish()?;
        if self.len > 16 { write!(f, " and {} more", self.len - 16) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_convert_to_text() {
        let long = "x".repeat(100);
        assert_eq!(Value::Str(long.clone()).to_text(), long);
        assert_eq!(Value::I8(-3).to_text(), "-3");
        assert_eq!(Value::Bool(true).to_text(), "true");
        assert_eq!(Value::F64(5e-324).to_text(), "5e-324");
        assert_eq!(Value::F32(f32::MAX).to_text(), "3.4028235e38");
        let array = |values: &[Value]| Value::Array(Array::new(values).unwrap());
        assert_eq!(array(&[Value::F32(0.5), Value::F32(2.0)]).to_text(), "[0.5, 2]");
        let texts = ["a", "\"\\", "\n", "\u{e9}"].map(|t| Value::Str(t.into()));
        assert_eq!(array(&texts).to_text(), r#"["a", "\"\\", "\u000a", "é"]"#);
    }

    #[test]
    fn an_array_takes_the_bytes_that_it_has_in_a_file() {
        let lists = [
            vec![Value::U8(1), Value::U8(255)],
            vec![Value::Bool(true), Value::Bool(false)],
            vec![Value::F64(-0.5)],
            vec![Value::Str("a".into()), Value::Str(String::new()), Value::Str("\u{e9}".into())],
            vec![],
        ];
        for (values, bytes) in lists.into_iter().zip([2, 2, 8, 8 + 1 + 8 + 8 + 2, 0]) {
            let array = Array::new(&values).unwrap();
            assert_eq!((array.len(), array.bytes.len()), (values.len(), bytes));
            assert_eq!(array.iter().collect::<Result<Vec<_>>>().unwrap(), values);
        }
    }

    #[test]
    fn an_array_of_two_types_or_of_arrays_is_refused() {
        let nested = Value::Array(Array::new(&[]).unwrap());
        for values in [vec![Value::U8(1), Value::I8(1)], vec![nested]] {
            let refused = Array::new(&values);
            assert!(
                matches!(&refused, Err(Error::InvalidArgument(what)) if what.contains("one type")),
                "{refused:?}"
            );
        }
    }
}
