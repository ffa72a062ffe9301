//! The kernels of `src/forward/cpu/kernels`, compiled for their instructions: `run` reads them. (Compiling the whole library would
//! take minutes, and its C++ a compiler for each processor.)
#![allow(dead_code, unused_imports, private_interfaces)]

extern crate self as ggml_sys;
#[path = "../../tests/miri/no_ggml.rs"]
mod no_ggml;
pub use no_ggml::*;

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/gguf/mod.rs"]
mod gguf;
#[path = "../../src/log.rs"]
mod log;
#[path = "../../src/memory/mod.rs"]
mod memory;
#[path = "../../src/simd/mod.rs"]
mod simd;

/// Stands for the library's, which is not Rust.
mod ggml {
    use crate::error::{Error, Result};
    use crate::gguf::TensorType;

    pub fn dequantize(_: TensorType, _: &[u8], _: &mut [f32]) -> Result<()> {
        Err(Error::internal("no ggml"))
    }
}

#[path = "../../src/forward"]
#[allow(unsafe_code, clippy::indexing_slicing)]
mod forward {
    pub mod cpu {
        #[path = "../../../benches/cycles/attention.rs"]
        pub mod attention_loops;
        mod kernels;
        #[path = "../../../benches/cycles/uses.rs"]
        pub mod uses;
        mod threads;
    }
}

// Public, so that they are compiled.
pub use forward::cpu::attention_loops::{with_8_vectors, with_32_vectors};
pub use forward::cpu::uses::{attend_f16, attend_f32, nanoseconds, products};
pub use gguf::TensorType;
