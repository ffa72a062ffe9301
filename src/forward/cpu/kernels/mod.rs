//! The operations of the network on the CPU: products, attention, and what goes row by row.
//!
//! From below: [`isa`] (16 numbers at a time, with the best instructions of this processor), [`weights`] (matrices in the
//! model file), [`activations`] (rows quantized to bytes), [`panel`] (16 rows of a quantized matrix, packed), then the
//! products in BLIS's terms: [`macro_kernel`] (the loop over panels and rows), two micro-kernels in it, [`matmul`].
//! [`attention`] over the [`cache`] and [`rowwise`] stand beside them.
#![allow(clippy::needless_range_loop, reason = "see `simd::wide`")]

pub(super) mod activations;
pub(super) mod attention;
mod byte_kernel;
pub(super) mod cache;
mod float_kernel;
pub(super) mod isa;
mod macro_kernel;
pub(super) mod matmul;
mod panel;
pub(super) mod rowwise;
#[cfg(test)]
pub(super) mod testing;
pub(super) mod weights;
