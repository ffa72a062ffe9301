//! Packing of floating-point numbers into ggml's block formats.

use std::ffi::c_void;

use crate::error::{Error, Result};
use crate::gguf::TensorType;

/// Appends `values`, rows of `row_len` numbers, to `out` in the format of `ty`.
///
/// # Errors
/// [`Error::InvalidArgument`] if `row_len` is no multiple of the type's block or does not divide the values.
#[cfg_attr(not(feature = "convert"), allow(dead_code, reason = "only the converter packs tensors"))]
pub(crate) fn quantize(ty: TensorType, values: &[f32], row_len: usize, out: &mut Vec<u8>) -> Result<()> {
    let row_bytes = ty
        .row_bytes(row_len)
        .filter(|_| row_len > 0 && values.len().is_multiple_of(row_len))
        .ok_or_else(|| Error::invalid(format!("rows of {row_len} do not fit the type {}", ty.name())))?;
    let rows = values.len() / row_len;
    let start = out.len();
    out.resize(start + rows * row_bytes, 0);
    let Some(packed) = out.get_mut(start..) else {
        return Err(Error::internal("the output of quantize is shorter than it was made"));
    };
    // SAFETY: `values` holds rows * row_len floats and `packed` holds rows * row_bytes bytes, which is what
    // ggml reads and writes for this type; none of the types of `TensorType` needs an importance matrix.
    let written = unsafe {
        ggml_sys::ggml_quantize_chunk(
            ty.code() as ggml_sys::ggml_type,
            values.as_ptr(),
            packed.as_mut_ptr().cast::<c_void>(),
            0,
            rows as i64,
            row_len as i64,
            std::ptr::null(),
        )
    };
    if written != packed.len() {
        return Err(Error::internal(format!("ggml packed {written} bytes, not {}", packed.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_types_agrees_with_ggml() {
        for ty in TensorType::all() {
            let code = ty.code() as ggml_sys::ggml_type;
            // SAFETY: `code` is a type number that ggml knows.
            let (bytes, len) = unsafe { (ggml_sys::ggml_type_size(code), ggml_sys::ggml_blck_size(code)) };
            assert_eq!((ty.block_bytes(), ty.block_len()), (bytes, len as usize), "{}", ty.name());
        }
    }

    #[test]
    fn packed_rows_have_the_right_size() {
        let values: Vec<f32> = (0..512).map(|i| (i as f32 * 0.37).sin()).collect();
        for ty in TensorType::all() {
            let mut out = vec![9; 3];
            quantize(ty, &values, 256, &mut out).unwrap();
            assert_eq!(out.len(), 3 + 2 * ty.row_bytes(256).unwrap(), "{}", ty.name());
        }
        assert!(quantize(TensorType::Q8_0, &values, 16, &mut Vec::new()).is_err());
        assert!(quantize(TensorType::F32, &values, 0, &mut Vec::new()).is_err());
    }
}
