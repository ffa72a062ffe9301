//! Arguments from C: checked for NULL, then turned into references, slices and text; results copied to buffers of C.

use std::ffi::{CStr, c_char};
use std::path::Path;
use std::ptr::NonNull;

use crate::error::{Error, Result};

/// The error for a NULL `name`.
pub(super) fn null(name: &str) -> Error {
    Error::invalid(format!("{name} is NULL"))
}

/// What `pointer` points to.
///
/// # Safety
/// `pointer` must be NULL or point to a `T` that lives, and is not changed, during `'a`.
pub(super) unsafe fn reference<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: a pointer that is not NULL points to a `T` that lives for 'a, by this function's contract.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// A place for a result. It is set to `cleared` at once, so that a failing call leaves that behind.
///
/// # Safety
/// `pointer` must be NULL or valid for writing a `T` for as long as the result is used.
pub(super) unsafe fn out<T>(pointer: *mut T, cleared: T, name: &str) -> Result<NonNull<T>> {
    let place = NonNull::new(pointer).ok_or_else(|| null(name))?;
    // SAFETY: `place` is not NULL, so this function's contract says that a `T` may be written to it.
    unsafe { place.write(cleared) };
    Ok(place)
}

/// `count` items at `pointer`, which may be NULL if there are none.
///
/// # Safety
/// Unless NULL, `pointer` must point to `count` items that live, and are not changed, during `'a`.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, count: usize, name: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(null(name));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) || !pointer.is_aligned() {
        return Err(Error::invalid(format!(
            "{name}: {count} items are too many, or at a misaligned address"
        )));
    }
    // SAFETY: the pointer is aligned and not NULL, the size fits an isize, and the contract says that the items are
    // there.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// `len` bytes of UTF-8 at `pointer`.
///
/// # Safety
/// As [`slice`].
pub(super) unsafe fn text<'a>(pointer: *const c_char, len: usize, name: &str) -> Result<&'a str> {
    // SAFETY: this function has `slice`'s contract, for bytes.
    utf8(unsafe { slice(pointer.cast::<u8>(), len, name)? }, name)
}

/// The NUL-terminated UTF-8 at `pointer`; NULL is empty.
///
/// # Safety
/// `pointer` must be NULL or point to a NUL-terminated string that lives, and is not changed, during `'a`.
pub(super) unsafe fn optional_string<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    if pointer.is_null() {
        return Ok("");
    }
    // SAFETY: this function has `string`'s contract.
    unsafe { string(pointer, name) }
}

/// The NUL-terminated UTF-8 at `pointer`.
///
/// # Safety
/// As [`optional_string`].
pub(super) unsafe fn string<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: this function has `c_string`'s contract.
    utf8(unsafe { c_string(pointer, name)? }.to_bytes(), name)
}

/// The NUL-terminated file name at `pointer`: any bytes on Unix, UTF-8 elsewhere.
///
/// # Safety
/// As [`optional_string`].
pub(super) unsafe fn path<'a>(pointer: *const c_char, name: &str) -> Result<&'a Path> {
    // SAFETY: this function has `c_string`'s contract.
    let bytes = unsafe { c_string(pointer, name)? }.to_bytes();
    #[cfg(unix)]
    let path = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes));
    #[cfg(not(unix))]
    let path = Path::new(utf8(bytes, name)?);
    Ok(path)
}

/// # Safety
/// As [`optional_string`].
unsafe fn c_string<'a>(pointer: *const c_char, name: &str) -> Result<&'a CStr> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: the pointer is not NULL, so the contract says that a NUL-terminated string lives there for 'a.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

fn utf8<'a>(bytes: &'a [u8], name: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|e| Error::invalid(format!("{name} is not UTF-8: {e}")))
}

/// Writes to `n_out` how many items are `needed`, and checks that the caller's buffer holds them.
///
/// # Safety
/// `n_out` must be valid for writing.
pub(super) unsafe fn check_room<T>(
    needed: usize,
    to: *mut T,
    capacity: usize,
    n_out: NonNull<usize>,
    name: &str,
) -> Result<()> {
    if to.is_null() && capacity > 0 {
        return Err(null(name));
    }
    // SAFETY: the contract says that `n_out` may be written.
    unsafe { n_out.write(needed) };
    if needed > capacity {
        return Err(Error::BufferTooSmall { given: capacity, needed });
    }
    Ok(())
}

/// Copies `items` to the caller's buffer and their number to `n_out`, which is also the number needed when they do not
/// fit.
///
/// # Safety
/// Unless NULL, `to` must be valid for writing `capacity` items; `n_out` must be valid for writing.
pub(super) unsafe fn copy_items<T: Copy>(
    items: &[T],
    to: *mut T,
    capacity: usize,
    n_out: NonNull<usize>,
    name: &str,
) -> Result<()> {
    // SAFETY: the contract says that `n_out` may be written.
    unsafe { check_room(items.len(), to, capacity, n_out, name)? };
    if !items.is_empty() {
        // SAFETY: `check_room` found that the buffer holds the items and is not NULL; a buffer of C does not overlap
        // memory that Rust allocated.
        unsafe { to.copy_from_nonoverlapping(items.as_ptr(), items.len()) };
    }
    Ok(())
}

/// The first `needed` numbers of the caller's array, or `None` for NULL.
///
/// # Safety
/// Unless NULL, `to` must be valid for reading and writing `capacity` numbers, whatever they hold, during `'a`. Any
/// bytes are a `T`.
pub(super) unsafe fn room<'a, T>(to: *mut T, capacity: usize, needed: usize) -> Result<Option<&'a mut [T]>> {
    if to.is_null() {
        return Ok(None);
    }
    if capacity < needed {
        return Err(Error::BufferTooSmall { given: capacity, needed });
    }
    if needed > isize::MAX as usize / size_of::<T>() || !to.is_aligned() {
        return Err(Error::invalid(format!("{needed} numbers are too many, or at a misaligned address")));
    }
    // SAFETY: `to` is aligned and not NULL, the size fits an isize, `needed` is within the capacity of the contract, and
    // any bytes are a number.
    Ok(Some(unsafe { std::slice::from_raw_parts_mut(to, needed) }))
}

/// As [`copy_items`] for text, followed by a NUL that is not counted.
///
/// # Safety
/// As [`copy_items`].
pub(super) unsafe fn copy_text(
    text: &str,
    to: *mut c_char,
    capacity: usize,
    len_out: NonNull<usize>,
) -> Result<()> {
    // SAFETY: this function has `copy_items`' contract, and asks for one byte less than the capacity, for the NUL.
    let copied =
        unsafe { copy_items(text.as_bytes(), to.cast(), capacity.saturating_sub(1), len_out, "text") };
    let (len, copied) = match (copied, capacity) {
        (Err(Error::BufferTooSmall { .. }), _) | (Ok(()), 0) => {
            (0, Err(Error::BufferTooSmall { given: capacity, needed: text.len() + 1 }))
        }
        (Ok(()), _) => (text.len(), Ok(())),
        (Err(error), _) => return Err(error),
    };
    if capacity > 0 {
        if to.is_null() {
            return Err(null("text"));
        }
        // SAFETY: `to` is not NULL, and `len` is less than the capacity, which the contract says may be written.
        unsafe { to.add(len).write(0) };
    }
    copied
}
