//! The network on the CPU with the library's own kernels: a loop over the blocks, whose operations the threads share.
//!
//! Diffusion feeds 2 to 100 rows at a time over a long cache, which is where ggml's CPU path is furthest from what the
//! machine can do. Here the weights stay as they are in the file; a panel of a few rows at a time is packed into the L1
//! cache and multiplied with all rows of the batch there: quantized weights as bytes, others in single precision. Nothing
//! is allocated after a context is made, and waiting threads yield their cores to other processes.
//!
//! Each output is one sum in one order, whatever the number of threads, rows or sequences. So none of these changes a
//! bit of the result.
//!
//! From below: [`threads`] (pool, claims, shared memory), [`kernels`] (matmul, attention, row by row), [`layout`] (what
//! lies where), [`network`] (what one run has), [`attention`] and [`layers`] (the order of operations),
//! [`runner`] (memory and threads of all that), [`cache_bytes`] (the K/V cache as bytes). Beside them: [`limits`] (what `esolm bench`
//! holds the kernels against).
#![allow(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    reason = "sizes are the library's own, and the pool makes an error of a panic"
)]

mod attention;
mod cache_bytes;
mod kernels;
mod layers;
mod layout;
pub mod limits;
mod network;
mod runner;
mod threads;

pub(super) use kernels::isa::Platform;
pub(super) use layout::CpuLayout;
pub(super) use runner::CpuRunner;
pub(super) use threads::crew::Crew;
pub(super) use threads::placement::Placement;
pub(super) use threads::pool::{Pool, PoolOptions, RunTasks};
