//! Panels of a quantized matrix: 16 rows side by side, packed as bytes for the micro-kernel.
//!
//! From below: [`buffer`] (a panel and its source), [`blocks`] and [`super_blocks`] (packing types of 32 and of 256
//! numbers per block), [`pack`] (any type), [`micro_kernel`] (panel times activations).

mod blocks;
mod buffer;
mod micro_kernel;
mod pack;
mod super_blocks;

pub(super) use buffer::{CHUNK, PANEL_ROWS, Panel};
