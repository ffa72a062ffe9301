//! Arrays of metadata, kept as the bytes that they are in a file.

use super::value::{Value, number, number_bytes};
use crate::error::{Error, Result};
use crate::memory::with_room;

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

impl Array {
    /// An array of these values.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they are of different types or are arrays.
    pub fn new(values: &[Value]) -> Result<Self> {
        // An array without elements has to have some element type; u8 it is.
        let code = values.first().map_or(Value::U8(0).code(), Value::code);
        if values.iter().any(|value| value.code() != code || matches!(value, Value::Array(_))) {
            return Err(Error::invalid("the elements of an array must be of one type, and not arrays"));
        }
        let mut bytes = Vec::new();
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

    /// The elements, decoded one at a time.
    pub fn iter(&self) -> impl Iterator<Item = Value> {
        let mut left = self.bytes.as_slice();
        std::iter::from_fn(move || match number_bytes(self.code) {
            Some(size) => number(self.code, left.split_off(..size)?),
            None => {
                let len = left.split_off(..8)?.first_chunk().copied().map(u64::from_le_bytes)?;
                let text = left.split_off(..usize::try_from(len).ok()?)?;
                std::str::from_utf8(text).ok().map(|text| Value::Str(text.to_owned()))
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
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().take(16)).finish()?;
        if self.len > 16 { write!(f, " and {} more", self.len - 16) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(array.iter().collect::<Vec<_>>(), values);
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
