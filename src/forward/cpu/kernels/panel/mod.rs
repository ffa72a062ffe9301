//! A panel: sixteen rows of a quantized matrix, interleaved so that 64 bytes hold four bytes of each row.
//!
//! From below: [`block`] (a panel's blocks, and what a type has to say of them), [`blocks`] and [`super_blocks`] (the types),
//! [`micro_kernel`] (the products), [`unpacked`] (columns of a panel as bytes, for many rows of activations), [`repack`] (rows
//! made a panel), [`kernels`] (which of them to use).

mod block;
mod blocks;
mod kernels;
mod micro_kernel;
mod repack;
mod super_blocks;
#[cfg(test)]
mod tests;
mod unpacked;

pub(super) use block::PANEL_ROWS;
pub(super) use kernels::{PanelKernel, most_of_one_panel};
