//! f32 values to ggml's types and back.
#![cfg_attr(not(feature = "convert"), allow(dead_code, reason = "only `convert` quantizes"))]

use std::ffi::c_void;

use crate::error::{Error, Result};
use crate::gguf::TensorType;

/// Quantizes `values` [rows, row_len] to `ty` into `packed`, which has exactly their size. `importance` [row_len] weights
/// each column's squared error; the floating-point types and q8_0 ignore it. Rows do not depend on each other.
///
/// # Errors
/// [`Error::InvalidArgument`] if `row_len` is not a multiple of the type's block or does not divide the values, or
/// `packed` or `importance` has another size; [`Error::NotFinite`] if a block's scale is NaN or infinite.
pub(crate) fn quantize(
    ty: TensorType,
    values: &[f32],
    row_len: usize,
    importance: Option<&[f32]>,
    packed: &mut [u8],
) -> Result<()> {
    let row_bytes = ty
        .row_bytes(row_len)
        .filter(|_| row_len > 0 && values.len().is_multiple_of(row_len))
        .ok_or_else(|| Error::invalid(format!("rows of {row_len} do not fit the type {}", ty.name())))?;
    let rows = values.len() / row_len;
    if rows.checked_mul(row_bytes) != Some(packed.len()) {
        return Err(Error::invalid(format!("{rows} rows of {row_bytes} bytes do not fill {}", packed.len())));
    }
    if let Some(columns) = importance.map(<[f32]>::len).filter(|&columns| columns != row_len) {
        return Err(Error::invalid(format!("an importance of {columns} columns for rows of {row_len}")));
    }
    if rows == 0 {
        return Ok(());
    }
    // SAFETY: `values` holds rows * row_len floats, `packed` rows * row_bytes bytes and `importance` is null or
    // holds row_len floats, which is what ggml reads and writes for this type; no type of `TensorType` needs
    // an importance.
    let (written, valid) = unsafe {
        let written = ggml_sys::ggml_quantize_chunk(
            ty.code() as ggml_sys::ggml_type,
            values.as_ptr(),
            packed.as_mut_ptr().cast::<c_void>(),
            0,
            rows as i64,
            row_len as i64,
            importance.map_or(std::ptr::null(), <[f32]>::as_ptr),
        );
        let ty = ty.code() as ggml_sys::ggml_type;
        (written, ggml_sys::ggml_validate_row_data(ty, packed.as_ptr().cast(), packed.len()))
    };
    if written != packed.len() {
        return Err(Error::internal(format!("ggml packed {written} bytes, not {}", packed.len())));
    }
    if !valid {
        return Err(Error::NotFinite(format!("a block's scale is not finite in {}", ty.name())));
    }
    Ok(())
}

/// Dequantizes `bytes`, whole blocks of `ty`, to `to`. Any bytes are accepted; the values need not be finite.
///
/// # Errors
/// [`Error::InvalidArgument`] if `bytes` is not the size of `to.len()` elements, or is not aligned for the blocks.
pub(crate) fn dequantize(ty: TensorType, bytes: &[u8], to: &mut [f32]) -> Result<()> {
    if ty.row_bytes(to.len()) != Some(bytes.len()) {
        let (len, ty) = (to.len(), ty.name());
        return Err(Error::invalid(format!("{} bytes are not {len} elements of {ty}", bytes.len())));
    }
    if ty == TensorType::F32 {
        for (to, from) in to.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *to = f32::from_le_bytes(*from);
        }
        return Ok(());
    }
    // ggml's blocks are structs with 16-bit fields, or 32-bit ones if their size is a multiple of 4.
    let alignment = if ty.block_bytes().is_multiple_of(4) { 4 } else { 2 };
    if !bytes.as_ptr().addr().is_multiple_of(alignment) {
        return Err(Error::invalid("blocks at an address that is not aligned"));
    }
    // SAFETY: `code` is a type number that ggml knows, so it has traits, and they are static.
    let traits = unsafe { ggml_sys::ggml_get_type_traits(ty.code() as ggml_sys::ggml_type).as_ref() };
    let unpack = traits
        .and_then(|traits| traits.to_float)
        .ok_or_else(|| Error::internal(format!("ggml does not dequantize {}", ty.name())))?;
    // SAFETY: `bytes` holds whole, aligned blocks with `to.len()` elements.
    unsafe { unpack(bytes.as_ptr().cast(), to.as_mut_ptr(), to.len() as i64) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_table_matches_ggml() {
        for ty in TensorType::all() {
            let code = ty.code() as ggml_sys::ggml_type;
            // SAFETY: `code` is a type number that ggml knows.
            let (bytes, len, row) = unsafe {
                let row = ggml_sys::ggml_row_size(code, 1024);
                (ggml_sys::ggml_type_size(code), ggml_sys::ggml_blck_size(code), row)
            };
            assert_eq!((ty.block_bytes(), ty.block_len()), (bytes, len as usize), "{}", ty.name());
            assert_eq!(ty.row_bytes(1024), Some(row), "{}", ty.name());
        }
    }

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.37).sin()).collect()
    }

    #[test]
    fn quantized_rows_have_the_size_of_their_type() {
        let values = values(512);
        for ty in TensorType::all() {
            let mut out = vec![9; 2 * ty.row_bytes(256).unwrap()];
            quantize(ty, &values, 256, None, &mut out).unwrap();
            out.push(0);
            assert!(quantize(ty, &values, 256, None, &mut out).is_err(), "{}", ty.name());
        }
        assert!(quantize(TensorType::Q8_0, &values, 16, None, &mut [0; 34]).is_err());
        assert!(quantize(TensorType::F32, &values, 0, None, &mut []).is_err());
        let mut out = vec![0; 2 * TensorType::Q4K.row_bytes(256).unwrap()];
        assert!(quantize(TensorType::Q4K, &values, 256, Some(&[1.0; 255]), &mut out).is_err());
        quantize(TensorType::Q4K, &[], 256, None, &mut []).unwrap();
    }

    #[test]
    fn any_bytes_are_dequantized_and_partial_blocks_refused() {
        let words: Vec<u64> = (0..512u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        for ty in TensorType::all() {
            let row = ty.row_bytes(256).unwrap();
            dequantize(ty, &bytes[..row], &mut [0.0; 256]).unwrap();
            assert!(dequantize(ty, &bytes[..row - 1], &mut [0.0; 256]).is_err(), "{}", ty.name());
            assert!(dequantize(ty, &bytes[..row], &mut [0.0; 255]).is_err(), "{}", ty.name());
        }
    }

    #[test]
    fn scale_that_is_not_finite_is_an_error() {
        let mut values = values(256);
        values[3] = f32::INFINITY;
        for ty in [TensorType::Q8_0, TensorType::Q4_0, TensorType::Q5_0] {
            let mut out = vec![0; ty.row_bytes(256).unwrap()];
            assert!(matches!(quantize(ty, &values, 256, None, &mut out), Err(Error::NotFinite(_))));
        }
    }
}
