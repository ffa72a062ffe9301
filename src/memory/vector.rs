//! Vectors and texts whose size depends on a file or an argument: no memory is an error, not the end of the process.

#[cfg(any(test, feature = "convert"))]
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Write};
#[cfg(any(test, feature = "convert"))]
use std::hash::{BuildHasher, Hash};

use crate::error::{Error, Result};

/// An empty vector with room for `len` elements.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn with_room<T>(len: usize) -> Result<Vec<T>> {
    let mut all = Vec::new();
    reserve(&mut all, len)?;
    Ok(all)
}

/// A vector of `len` times `value`.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn filled<T: Clone>(len: usize, value: T) -> Result<Vec<T>> {
    let mut all = with_room(len)?;
    all.resize(len, value);
    Ok(all)
}

/// The elements of `items`, of which there are exactly as many as they say.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn collected<T>(items: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>> {
    let mut all = with_room(items.len())?;
    all.extend(items);
    Ok(all)
}

/// The elements of `items`, of which there are at most as many as they say, or the first error.
///
/// # Errors
/// [`Error::OutOfMemory`]; those of the items.
pub(crate) fn try_collected<T, E: From<Error>>(
    items: impl ExactSizeIterator<Item = Result<T, E>>,
) -> Result<Vec<T>, E> {
    let mut all = with_room(items.len())?;
    for item in items {
        all.push(item?);
    }
    Ok(all)
}

/// What `text` shows.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn formatted(text: fmt::Arguments<'_>) -> Result<String> {
    let mut made = String::new();
    append(&mut made, text)?;
    Ok(made)
}

/// A copy of `text`.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn copied(text: &str) -> Result<String> {
    let mut copy = text_with_room(text.len())?;
    copy.push_str(text);
    Ok(copy)
}

/// An empty text with room for `len` bytes.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn text_with_room(len: usize) -> Result<String> {
    let mut text = String::new();
    text.try_reserve_exact(len).map_err(|_| no_room(len))?;
    Ok(text)
}

/// Makes room for exactly `more` elements; where more follow, [`extend`] and [`push`] copy less.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn reserve<T>(all: &mut Vec<T>, more: usize) -> Result<()> {
    all.try_reserve_exact(more).map_err(|_| no_room(more.saturating_mul(size_of::<T>())))
}

/// Appends `item`, with room for as many again if there is none.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn push<T>(all: &mut Vec<T>, item: T) -> Result<()> {
    all.try_reserve(1).map_err(|_| no_room(size_of::<T>().saturating_mul(all.len())))?;
    all.push(item);
    Ok(())
}

/// Appends `items`.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn extend<T: Clone>(all: &mut Vec<T>, items: &[T]) -> Result<()> {
    all.try_reserve(items.len())
        .map_err(|_| no_room(size_of::<T>().saturating_mul(all.len() + items.len())))?;
    all.extend_from_slice(items);
    Ok(())
}

/// Puts `value` under `key`. What was there before is returned.
///
/// # Errors
/// [`Error::OutOfMemory`].
#[cfg(any(test, feature = "convert"))]
pub(crate) fn insert<K: Eq + Hash, V>(
    map: &mut HashMap<K, V, impl BuildHasher>,
    key: K,
    value: V,
) -> Result<Option<V>> {
    map.try_reserve(1).map_err(|_| no_room(size_of::<(K, V)>().saturating_mul(map.len())))?;
    Ok(map.insert(key, value))
}

/// Adds `key` to a set. Whether it was not there before.
///
/// # Errors
/// [`Error::OutOfMemory`].
#[cfg(any(test, feature = "convert"))]
pub(crate) fn add<K: Eq + Hash>(set: &mut HashSet<K, impl BuildHasher>, key: K) -> Result<bool> {
    set.try_reserve(1).map_err(|_| no_room(size_of::<K>().saturating_mul(set.len())))?;
    Ok(set.insert(key))
}

/// Appends what `part` shows.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn append(text: &mut String, part: impl Display) -> Result<()> {
    let mut growing = Growing { text, refused: 0 };
    write!(growing, "{part}").map_err(|_| no_room(growing.refused))
}

/// A text that grows as long as there is memory.
struct Growing<'a> {
    text: &'a mut String,
    /// The bytes that there was no memory for.
    refused: usize,
}

impl Write for Growing<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.refused = self.text.len().saturating_add(part.len());
        self.text.try_reserve(part.len()).map_err(|_| fmt::Error)?;
        self.text.push_str(part);
        Ok(())
    }
}

/// What to say when so many bytes could not be allocated. If there is no memory for that either, nothing is said.
pub(crate) fn no_room(bytes: usize) -> Error {
    /// More than the longest such text.
    const LONGEST: usize = 64;
    let mut what = String::new();
    if what.try_reserve_exact(LONGEST).is_ok() {
        // Writing to a string does not fail.
        let _ = write!(what, "{bytes} bytes could not be allocated");
    }
    Error::OutOfMemory(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_an_error() {
        assert!(matches!(with_room::<u64>(usize::MAX), Err(Error::OutOfMemory(_))));
        assert!(matches!(with_room::<u8>(1 << 62), Err(Error::OutOfMemory(_))));
        assert!(matches!(filled(1 << 60, 1u32), Err(Error::OutOfMemory(_))));
        assert!(matches!(reserve(&mut vec![1], usize::MAX), Err(Error::OutOfMemory(_))));
        assert_eq!(filled(2, 1).unwrap(), [1, 1]);
        assert_eq!(collected(0..2).unwrap(), [0, 1]);
        let two: Result<Vec<i32>> = try_collected([Ok(0), Ok(1)].into_iter());
        assert_eq!(two.unwrap(), [0, 1]);
        assert!(matches!(try_collected([Ok(0), Err(Error::Busy)].into_iter()), Err(Error::Busy)));
        let (mut all, mut text) = (vec![1], "a".to_owned());
        push(&mut all, 2).unwrap();
        append(&mut text, 'b').unwrap();
        append(&mut text, format_args!("{:.1}", 2.0)).unwrap();
        assert_eq!((all.as_slice(), text.as_str()), ([1, 2].as_slice(), "ab2.0"));
        extend(&mut all, &[3]).unwrap();
        assert_eq!(
            (all, formatted(format_args!("{}-{text}", 1)).unwrap().as_str()),
            (vec![1, 2, 3], "1-ab2.0")
        );
        let (mut map, mut set) = (HashMap::new(), HashSet::new());
        assert_eq!((insert(&mut map, 1, 'a').unwrap(), insert(&mut map, 1, 'b').unwrap()), (None, Some('a')));
        assert!(add(&mut set, 1).unwrap() && !add(&mut set, 1).unwrap());
        assert_eq!(
            no_room(usize::MAX).to_string(),
            format!("out of memory: {} bytes could not be allocated", usize::MAX)
        );
    }
}
