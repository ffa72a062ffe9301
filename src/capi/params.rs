//! Structs whose first field is their size, so that fields can be appended without breaking programs that were
//! compiled with an older or a newer header.

use std::ptr::NonNull;

use crate::error::{Error, Result};

/// A struct of C that starts with `size_t struct_size`.
///
/// # Safety
/// The type must be `repr(C)`, without padding, start with a `usize`, and be valid for any bytes.
pub(super) unsafe trait SizedStruct: Copy {
    /// The struct's name in C.
    const NAME: &'static str;
    /// The size that version 1 of the struct had: no caller's is smaller.
    const VERSION_1: usize;
    /// What stands in fields that the caller's version does not have.
    const DEFAULT: Self;
}

/// No struct is larger; more is a size that was never set.
const LARGEST: usize = 1 << 12;

fn check<T: SizedStruct>(size: usize) -> Result<()> {
    match size {
        _ if size >= T::VERSION_1 && size <= LARGEST => Ok(()),
        _ => Err(Error::invalid(format!("{}: struct_size is {size}; it must be set to sizeof", T::NAME))),
    }
}

/// The caller's struct, or the defaults for NULL. A caller's unknown fields must be zero.
///
/// # Safety
/// `pointer` must be NULL or aligned and readable for as many bytes as its first field says, at least for that.
pub(super) unsafe fn read<T: SizedStruct>(pointer: *const T) -> Result<T> {
    let mut value = T::DEFAULT;
    if pointer.is_null() {
        return Ok(value);
    }
    let bytes = pointer.cast::<u8>();
    // SAFETY: the first field is a `usize`.
    let size = unsafe { pointer.cast::<usize>().read() };
    check::<T>(size)?;
    let known = size.min(size_of::<T>());
    // SAFETY: the caller promises `size` readable bytes, and any bytes are a `T`.
    unsafe { bytes.copy_to_nonoverlapping((&raw mut value).cast(), known) };
    // SAFETY: the bytes from `known` to `size` are readable, as the caller promises.
    let tail = unsafe { std::slice::from_raw_parts(bytes.add(known), size - known) };
    if tail.iter().any(|&byte| byte != 0) {
        return Err(Error::invalid(format!(
            "{}: a field that this version of the library does not know is set",
            T::NAME
        )));
    }
    Ok(value)
}

/// Sets the caller's struct of `size` bytes to the defaults.
///
/// # Safety
/// `pointer` must be NULL or writable for `size` bytes.
pub(super) unsafe fn init<T: SizedStruct>(pointer: *mut T, size: usize) -> Result<()> {
    let place = NonNull::new(pointer).ok_or_else(|| Error::invalid(format!("{} is NULL", T::NAME)))?;
    check::<T>(size)?;
    // SAFETY: the caller promises `size` writable bytes.
    unsafe { fill(place, size, T::DEFAULT) };
    Ok(())
}

/// The caller's struct for a result, cleared but for its size; [`Place::set`] fills it.
///
/// # Safety
/// `pointer` must be NULL, or aligned and writable for as many bytes as its first field says, at least for that.
pub(super) unsafe fn result<T: SizedStruct>(pointer: *mut T) -> Result<Place<T>> {
    let place = NonNull::new(pointer).ok_or_else(|| Error::invalid(format!("{} is NULL", T::NAME)))?;
    // SAFETY: the first field is a `usize`.
    let size = unsafe { place.cast::<usize>().read() };
    check::<T>(size)?;
    // SAFETY: the caller promises `size` writable bytes, and defaults of results are zero.
    unsafe { fill(place, size, T::DEFAULT) };
    Ok(Place { place, size })
}

/// Where a result goes.
pub(super) struct Place<T> {
    place: NonNull<T>,
    size: usize,
}

impl<T: SizedStruct> Place<T> {
    /// Writes the fields that the caller's version has.
    pub(super) fn set(self, value: T) {
        // SAFETY: `result` was promised that many writable bytes.
        unsafe { fill(self.place, self.size, value) }
    }
}

/// Writes `value` as far as it goes into `size` bytes, zeros behind it, and `size` to the front.
///
/// # Safety
/// `place` must be writable for `size` bytes, which are at least a `usize`.
unsafe fn fill<T: SizedStruct>(place: NonNull<T>, size: usize, value: T) {
    let bytes = place.cast::<u8>();
    let known = size.min(size_of::<T>());
    // SAFETY: all three writes are within `size` bytes.
    unsafe {
        bytes.copy_from_nonoverlapping(NonNull::from(&value).cast(), known);
        bytes.add(known).write_bytes(0, size - known);
        bytes.cast::<usize>().write_unaligned(size);
    }
}
