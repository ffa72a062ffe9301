//! The operations of the network on the CPU: products, attention and what goes row by row.

pub(super) mod activations;
pub(super) mod attention;
pub(super) mod isa;
pub(super) mod matmul;
pub(super) mod panel;
pub(super) mod rowwise;
#[cfg(test)]
mod testing;
pub(super) mod weights;
