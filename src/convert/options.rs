//! What a conversion is asked for, and what it reports.

use std::path::PathBuf;

use crate::gguf::TensorType;
use crate::model::{Config, Variant};
use crate::quantize::Rule;

/// What to convert, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// A `tokenizer.json` to put into the file instead of the one that comes with the weights.
    pub tokenizer: Option<PathBuf>,
    /// The type of the matrices. Vectors (norms, biases) are always f32.
    pub tensor_type: TensorType,
    /// Exact types of some matrices, by name; the last rule that matches holds. Without one, a matrix has
    /// what [`Policy::new`](crate::quantize::Policy::new) says.
    pub rules: Vec<Rule>,
    /// A file of `esolm imatrix`: which columns of which matrix matter most.
    pub importance: Option<PathBuf>,
    /// Threads that pack; 0 takes one per core. The output does not depend on it.
    pub threads: usize,
    /// Takes the weights of the last training step instead of their moving average (EMA).
    pub raw_weights: bool,
    /// The variant, where the configuration does not say it.
    pub variant: Option<Variant>,
    /// The number of attention heads, where neither configuration nor tensors say it.
    pub head_count: Option<usize>,
    /// The longest sequence, where the configuration does not say it.
    pub context_length: Option<usize>,
    /// The token that begins a text, if neither configuration nor tokenizer says so.
    pub bos_token_id: Option<u32>,
    /// `general.name`; `None` takes the output's file name without its ending and type.
    pub name: Option<String>,
    /// Replaces an output that exists.
    pub force: bool,
}

impl Default for Options {
    /// f32, averaged weights, everything else as the input says.
    fn default() -> Self {
        Self {
            tokenizer: None,
            tensor_type: TensorType::F32,
            rules: Vec::new(),
            importance: None,
            threads: 0,
            raw_weights: false,
            variant: None,
            head_count: None,
            context_length: None,
            bos_token_id: None,
            name: None,
            force: false,
        }
    }
}

/// Which of a checkpoint's weights were converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// The moving average of a training checkpoint.
    Ema,
    /// The last step's weights of a training checkpoint.
    Raw,
    /// The only ones there are: a published file has one set.
    AsStored,
}

/// Where the tokenizer in the file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerSource {
    /// [`Options::tokenizer`].
    Given,
    /// The checkpoint's hyperparameters.
    Embedded,
    /// `tokenizer.json` beside the weights.
    Beside,
    /// The file has no tokenizer.
    None,
}

/// What was converted.
#[derive(Debug, Clone)]
pub struct Report {
    /// The hyperparameters in the file.
    pub config: Config,
    /// Number of weights in the file.
    pub parameters: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Which weights were taken.
    pub weights: Weights,
    /// Where the tokenizer came from.
    pub tokenizer: TokenizerSource,
    /// What else a person should know, one sentence each.
    pub notes: Vec<String>,
}
