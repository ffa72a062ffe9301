//! How to convert a model, and the report.

use std::path::PathBuf;

use crate::gguf::{Layout, TensorType};
use crate::model::{Config, Defaults, Variant};
use crate::quantize::Rule;

/// How to convert a model.
#[derive(Debug, Clone)]
pub struct Options {
    /// A `tokenizer.json` to write into the file instead of the one that comes with the weights.
    pub tokenizer: Option<PathBuf>,
    /// The type of the matrices. Vectors (norms, biases) are always f32.
    pub tensor_type: TensorType,
    /// Exact types of some matrices, by name; the last rule that matches applies. All other matrices have the type that
    /// [`Policy::new`](crate::quantize::Policy::new) decides.
    pub rules: Vec<Rule>,
    /// An importance matrix, as `esolm imatrix` writes it.
    pub importance: Option<PathBuf>,
    /// How the rows of quantized matrices lie in the file.
    pub layout: Layout,
    /// Threads that quantize; 0 uses one per core. The output does not depend on it.
    pub threads: usize,
    /// Uses the weights of the last training step instead of their moving average (EMA).
    pub raw_weights: bool,
    /// The variant, if the configuration does not name it.
    pub variant: Option<Variant>,
    /// The number of attention heads, if neither configuration nor tensors determine it.
    pub head_count: Option<usize>,
    /// The longest sequence in tokens, if the configuration does not give it.
    pub context_length: Option<usize>,
    /// The token that begins a text, in place of the one that configuration or tokenizer name.
    pub bos: Option<SpecialToken>,
    /// The token that ends a text, in place of the one that configuration or tokenizer name.
    pub eos: Option<SpecialToken>,
    /// The mask token, where the configuration does not say it; a tokenizer may say another.
    pub mask_token: Option<SpecialToken>,
    /// Defaults of a generation to write into the file.
    pub defaults: Defaults,
    /// `general.name`; `None` uses the output's file name without its ending and type.
    pub name: Option<String>,
    /// Replaces an existing output.
    pub force: bool,
}

impl Default for Options {
    /// f32 (panels of what else is quantized), averaged weights, everything else from the input.
    fn default() -> Self {
        Self {
            tokenizer: None,
            tensor_type: TensorType::F32,
            rules: Vec::new(),
            importance: None,
            layout: Layout::Panels,
            threads: 0,
            raw_weights: false,
            variant: None,
            head_count: None,
            context_length: None,
            bos: None,
            eos: None,
            mask_token: None,
            defaults: Defaults::default(),
            name: None,
            force: false,
        }
    }
}

/// A token with a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpecialToken {
    /// By its id.
    Id(u32),
    /// By its text in the tokenizer.
    Text(String),
}

/// Which weights were converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightSet {
    /// The moving average of a training checkpoint.
    Ema,
    /// The last step's weights of a training checkpoint.
    Raw,
    /// The only ones: a published file has one set.
    AsStored,
}

/// Where the tokenizer in the file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerSource {
    /// [`Options::tokenizer`].
    Given,
    /// The checkpoint's hyperparameters.
    Embedded,
    /// The files beside the weights: `tokenizer.json`, or `vocab.json` and `merges.txt`.
    Beside,
    /// The file has no tokenizer.
    None,
}

/// The result of a conversion.
#[derive(Debug, Clone)]
pub struct Report {
    /// The hyperparameters in the file.
    pub config: Config,
    /// Number of weights in the file.
    pub parameters: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Which weights were converted.
    pub weights: WeightSet,
    /// Where the tokenizer came from.
    pub tokenizer: TokenizerSource,
    /// What else the user should know, one sentence each.
    pub notes: Vec<String>,
}
