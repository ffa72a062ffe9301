//! The CPU's own forward pass: what `forward` builds as a graph for ggml's backends, as one loop over the blocks
//! that all threads go through together.
//!
//! Diffusion feeds 2 to 100 rows at a time over a long cache, which is where ggml's CPU path is furthest from
//! what the machine can do. Here the weights stay as they are in the file; a few rows of them are unpacked into
//! the first-level cache and multiplied with all rows of the pass there: quantized ones as bytes, others in single
//! precision. Nothing is allocated after a context is made, and waiting threads leave their cores to whoever wants them.
//!
//! Every output is one sum in one order, whatever the number of threads, rows or sequences, so those change
//! no bit of a result.
//!
//! * [`pool`](Pool): the threads. `gate`: where they wait. `memory`: what they share. `simd`: eight numbers at once.
//!   `isa`: sixteen at once, with the instructions that the machine turns out to have.
//! * `unpack`: weights to floats. `strip`: quantized weights to bytes. `rounded`: activations to bytes. `matmul`,
//!   `attention`, `norm`: the operations. `pass`: their order. [`CpuRunner`]: memory and threads of all that.
#![allow(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    reason = "sizes are the library's own, and the pool makes an error of a panic"
)]

mod attention;
mod cache_bytes;
mod kernels;
mod layers;
mod runner;
mod threads;

pub(crate) use runner::CpuRunner;
pub(super) use threads::pool::Pool;
