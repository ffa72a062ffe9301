//! Vectors whose size depends on a file or an argument: no memory is an error, not the end of the process.

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

/// A copy of `text`.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn copied(text: &str) -> Result<String> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| no_room(text.len()))?;
    copy.push_str(text);
    Ok(copy)
}

/// Makes room for `more` elements.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn reserve<T>(all: &mut Vec<T>, more: usize) -> Result<()> {
    all.try_reserve_exact(more).map_err(|_| no_room(more.saturating_mul(size_of::<T>())))
}

/// What to say when so many bytes could not be allocated.
pub(crate) fn no_room(bytes: usize) -> Error {
    Error::OutOfMemory(format!("{bytes} bytes could not be allocated"))
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
    }
}
