//! Unpacking of ggml's block formats.

use std::ffi::c_void;

use crate::gguf::TensorType;

/// Unpacks `bytes`, whole blocks of `ty`, into `to`, which has a number for each element.
pub(crate) fn dequantize(ty: TensorType, bytes: &[u8], to: &mut [f32]) {
    assert_eq!(ty.row_bytes(to.len()), Some(bytes.len()));
    // SAFETY: `ty` is a type that ggml knows; the traits are ggml's own and last.
    let traits = unsafe { &*ggml_sys::ggml_get_type_traits(ty.code() as ggml_sys::ggml_type) };
    let Some(to_float) = traits.to_float else {
        // Only f32 has none.
        for (to, from) in to.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *to = f32::from_le_bytes(*from);
        }
        return;
    };
    // SAFETY: source and destination hold `to.len()` elements, as was checked.
    unsafe { to_float(bytes.as_ptr().cast::<c_void>(), to.as_mut_ptr(), to.len() as i64) };
}
