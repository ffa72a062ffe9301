//! How to quantize a model file, and the report.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::policy::Policy;
use crate::gguf::{Layout, TensorType};
use crate::memory::OPEN_FILE;
use crate::model::Defaults;

/// A model file that is read or written.
#[derive(Debug, Clone, Copy)]
pub enum FileOrPath<'a> {
    /// The file with this name. As an output it appears only when it is complete.
    Path(&'a Path),
    /// A regular file that is open for reading or for writing.
    File(&'a File),
}

impl<'a> FileOrPath<'a> {
    /// What messages call it.
    pub(super) fn name(self) -> &'a Path {
        match self {
            Self::Path(path) => path,
            Self::File(_) => Path::new(OPEN_FILE),
        }
    }
}

/// How to quantize a model file.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// Which type each tensor gets.
    pub policy: Policy,
    /// An importance matrix, as `esolm imatrix` writes it.
    pub importance: Option<PathBuf>,
    /// Defaults of a generation to write into the file; the input's others are kept.
    pub defaults: Defaults,
    /// The mask token of a Qwen2, Qwen3 or WeDLM whose file does not say it, as in [`LoadOptions`](crate::LoadOptions::mask_token):
    /// the output says it.
    pub mask_token: Option<u32>,
    /// How the rows of quantized matrices lie in the output.
    pub layout: Layout,
    /// Threads that quantize; 0 uses one per core. The output does not depend on it.
    pub threads: usize,
    /// Replaces an existing output.
    pub force: bool,
}

impl QuantizeOptions {
    /// The default policy for type `ty`, no importance matrix, panels, one thread per core.
    pub fn new(ty: TensorType) -> Self {
        Self {
            policy: Policy::new(ty),
            importance: None,
            defaults: Defaults::default(),
            mask_token: None,
            layout: Layout::Panels,
            threads: 0,
            force: false,
        }
    }
}

/// Sizes before and after, and notes.
#[derive(Debug, Clone)]
pub struct QuantizeReport {
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the tensors in the input and in the output.
    pub tensor_bytes: (u64, u64),
    /// Bytes of the input file and of the output file.
    pub file_bytes: (u64, u64),
    /// What else the user should know, one sentence each.
    pub notes: Vec<String>,
}

impl QuantizeReport {
    /// Bits per weight in the output, scales included.
    pub fn bits_per_weight(&self) -> f64 {
        self.tensor_bytes.1 as f64 * 8.0 / self.parameters as f64
    }
}
