//! The parts of the library that do not call ggml, with their tests, as they are in the library: the readers of files, plans,
//! samplers, memory, files written, the threads of a context, and the kernels, whose tests here are `kernels.rs`.
#![allow(dead_code, unused_imports)]

extern crate self as ggml_sys;
#[path = "no_ggml.rs"]
mod no_ggml;
pub use no_ggml::*;

#[path = "../../src/atomic_file/mod.rs"]
mod atomic_file;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/gguf/mod.rs"]
mod gguf;
#[path = "../../src/json.rs"]
mod json;
#[path = "../../src/log.rs"]
mod log;
#[path = "../../src/memory/mod.rs"]
mod memory;
#[path = "../../src/plan/mod.rs"]
mod plan;
#[path = "../../src/rng.rs"]
mod rng;
#[path = "../../src/sample/mod.rs"]
mod sample;
#[path = "../../src/simd/mod.rs"]
mod simd;

#[path = "../../src/convert"]
mod convert {
    mod json;
    mod names;
    mod pickle;
    mod small_file;
    mod zip;
    #[cfg(test)]
    #[path = "../../tests/miri/damaged.rs"]
    mod damaged;
}

#[path = "../../src/chat"]
mod chat {
    mod jinja;
    mod message;
}

#[path = "../../src/model"]
mod model {
    mod architecture;
    mod config;
    mod defaults;
    mod keys;
    mod llama_keys;
    pub use config::{Config, Variant};
    pub use defaults::Defaults;
    pub(crate) use defaults::check_range;

    /// Stands for the library's, which has weights and a tokenizer.
    pub struct Model(Config);

    impl Model {
        pub fn config(&self) -> &Config {
            &self.0
        }
    }
}

/// Stands for the library's, which is not Rust.
mod ggml {
    use crate::error::{Error, Result};
    use crate::gguf::TensorType;

    pub fn quantize(ty: TensorType, values: &[f32], _: usize, _: Option<&[f32]>, to: &mut [u8]) -> Result<()> {
        if ty != TensorType::F32 {
            return Err(Error::internal("only f32"));
        }
        values.iter().zip(to.as_chunks_mut::<4>().0).for_each(|(value, to)| *to = value.to_le_bytes());
        Ok(())
    }

    pub fn dequantize(_: TensorType, _: &[u8], _: &mut [f32]) -> Result<()> {
        Err(Error::internal("no ggml"))
    }
}

#[path = "../../src/forward"]
mod forward {
    #[allow(clippy::indexing_slicing)]
    pub mod cpu {
        mod kernels;
        mod threads;
        #[cfg(test)]
        #[path = "../../../tests/miri/kernels.rs"]
        mod products;
    }
}
