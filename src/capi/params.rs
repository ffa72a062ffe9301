//! Structs whose first field is their size, so that fields can be appended without breaking programs that were
//! compiled with an older or a newer header; and the values of their fields.

use std::ptr::NonNull;

use super::args;
use crate::error::{Error, Result};

/// A struct of C that starts with `size_t struct_size`.
///
/// # Safety
/// The type must be `repr(C)`, without padding, start with a `usize`, and be valid for any bytes.
pub(super) unsafe trait SizedStruct: Copy {
    /// The struct's name in C.
    const NAME: &'static str;
    /// The size of the struct's first version: no caller's is smaller.
    const VERSION_1: usize;
    /// The value of the fields that the caller's version does not have.
    const DEFAULT: Self;

    /// The struct's reserved field, which must be 0.
    fn reserved(&self) -> u32 {
        0
    }
}

/// No struct is larger: a larger size was never set.
const LARGEST: usize = 1 << 12;

fn check_size<T: SizedStruct>(size: usize) -> Result<()> {
    // Another size could end inside a field: of a pointer there would be one half.
    if (T::VERSION_1..=LARGEST).contains(&size) && size.is_multiple_of(align_of::<usize>()) {
        return Ok(());
    }
    let name = T::NAME;
    let how =
        if name.ends_with("_params") { format!("{name}_init sets it") } else { "set it to sizeof".into() };
    Err(Error::invalid(format!("{name}: struct_size is {size}; {how}")))
}

/// The error for a field that holds none of the constants that name its values.
pub(super) fn unknown<T: SizedStruct>(field: &str, value: i32) -> Error {
    Error::invalid(format!("{}: unknown {field} {value}", T::NAME))
}

/// A field that is 0 or 1.
pub(super) fn flag<T: SizedStruct>(field: &str, value: i32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::invalid(format!("{}: {field} is {other}, not 0 or 1", T::NAME))),
    }
}

/// Checks the reserved field of the struct `name`.
pub(super) fn check_reserved(name: &str, reserved: u32) -> Result<()> {
    if reserved != 0 {
        return Err(Error::invalid(format!("{name}: reserved is {reserved}, not 0")));
    }
    Ok(())
}

/// The caller's struct, or the defaults for NULL. Fields that the library does not know, and reserved ones, must be 0.
///
/// # Safety
/// `pointer` must be NULL or aligned and readable for as many bytes as its first field says, at least for that.
pub(super) unsafe fn read<T: SizedStruct>(pointer: *const T) -> Result<T> {
    let mut value = T::DEFAULT;
    if pointer.is_null() {
        return Ok(value);
    }
    let bytes = pointer.cast::<u8>();
    // SAFETY: the pointer is not NULL, so the contract says that the first field, a `usize`, is readable.
    let size = unsafe { pointer.cast::<usize>().read() };
    check_size::<T>(size)?;
    let known = size.min(size_of::<T>());
    // SAFETY: `known` is at most the `size` bytes that are readable and at most a `T`, for which any bytes are valid.
    unsafe { bytes.copy_to_nonoverlapping((&raw mut value).cast(), known) };
    // SAFETY: the bytes from `known` to `size` are readable too, and initialised by a caller that knows their fields.
    let tail = unsafe { std::slice::from_raw_parts(bytes.add(known), size - known) };
    if tail.iter().any(|&byte| byte != 0) {
        return Err(Error::invalid(format!(
            "{}: a field that this version of the library does not know is set",
            T::NAME
        )));
    }
    check_reserved(T::NAME, value.reserved())?;
    Ok(value)
}

/// Sets the caller's struct of `size` bytes to the defaults.
///
/// # Safety
/// `pointer` must be NULL or writable for `size` bytes.
pub(super) unsafe fn init<T: SizedStruct>(pointer: *mut T, size: usize) -> Result<()> {
    let place = NonNull::new(pointer).ok_or_else(|| args::null(T::NAME))?;
    check_size::<T>(size)?;
    // SAFETY: the contract says that `size` bytes are writable; `check_size` found room for the first field.
    unsafe { fill(place, size, T::DEFAULT) };
    Ok(())
}

/// The caller's struct for a result, cleared except for its size; [`Place::set`] fills it.
///
/// # Safety
/// `pointer` must be NULL, or aligned and writable for as many bytes as its first field says, at least for that.
pub(super) unsafe fn result<T: SizedStruct>(pointer: *mut T) -> Result<Place<T>> {
    let place = NonNull::new(pointer).ok_or_else(|| args::null(T::NAME))?;
    // SAFETY: the pointer is not NULL, so the contract says that the first field, a `usize`, is there.
    let size = unsafe { place.cast::<usize>().read() };
    check_size::<T>(size)?;
    // SAFETY: the contract says that `size` bytes are writable; the defaults of results are zero.
    unsafe { fill(place, size, T::DEFAULT) };
    Ok(Place { place, size })
}

/// The caller's struct for a result.
pub(super) struct Place<T> {
    place: NonNull<T>,
    size: usize,
}

impl<T: SizedStruct> Place<T> {
    /// Writes the fields that the caller's version has.
    pub(super) fn set(self, value: T) {
        // SAFETY: only `result` makes a `Place`, and its caller guarantees that `size` bytes are writable.
        unsafe { fill(self.place, self.size, value) }
    }
}

/// Writes as much of `value` as fits into `size` bytes, zeros behind it, and `size` to the first field.
///
/// # Safety
/// `place` must be writable for `size` bytes, which are at least a `usize`.
unsafe fn fill<T: SizedStruct>(place: NonNull<T>, size: usize, value: T) {
    let bytes = place.cast::<u8>();
    let known = size.min(size_of::<T>());
    // SAFETY: all three writes end at or before `size`, and `value` is on this function's stack, not in the caller's
    // struct.
    unsafe {
        bytes.copy_from_nonoverlapping(NonNull::from(&value).cast(), known);
        bytes.add(known).write_bytes(0, size - known);
        bytes.cast::<usize>().write_unaligned(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capi::esolm_model_params;

    #[test]
    fn sizes_that_end_inside_a_field_are_refused() {
        let mut params = esolm_model_params::DEFAULT;
        for size in 0..=LARGEST + 8 {
            params.struct_size = size;
            // Behind the struct there is nothing to read.
            if size > size_of::<esolm_model_params>() && size.is_multiple_of(8) && size <= LARGEST {
                continue;
            }
            // SAFETY: a size that is larger than the struct is refused before anything behind it is read.
            let read = unsafe { read(&raw const params) };
            let whole = size >= esolm_model_params::VERSION_1 && size.is_multiple_of(8) && size <= LARGEST;
            assert_eq!(read.is_ok(), whole, "{size}");
        }
    }
}
