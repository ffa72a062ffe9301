//! The options of `esolm bench`.

use std::path::PathBuf;

use esolm::gguf::{Layout, TensorType};
use esolm::{Kernels, SamplingParams};

use super::kind::Kind;
use super::synthetic::Shape;
use crate::args::{ComputeArgs, JsonFileArgs, kernels, layouts, tensor_types};
use crate::model_args::ModelArgs;

const HELP: &str = "\
Options shown with a comma take lists; every combination is measured. The combinations take turns, so that a slow \
phase of the machine affects all of them; times are medians and include sampling.

Examples:
  # The built-in model
  esolm bench
  # A synthetic model of the published size, without a checkpoint
  esolm bench --shape small --type q8_0,q4_k
  esolm bench --shape small --steps 128 --kernels own,ggml
  # Where a step's time goes
  esolm bench --shape small --steps 16,1024 --profile
  # Eso-LM (B) over its baselines
  esolm bench --shape small --variant b,bd3lm:4,mdlm --steps 1024 --mdlm-steps 8
  # One token per step, left to right
  esolm bench --shape small --alpha0 0
  esolm bench -m model.gguf --batch 1,4,16 --json-file speed.json";

/// Measure speed and memory use.
///
/// Reports the limits of the machine (how fast it reads memory and multiplies), the time and memory that loading the model
/// takes, the speed of generation, and how near that is to the limits.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Measure a synthetic model: one of a published size, with random weights, instead of a file.
    #[arg(long, value_enum, value_name = "SHAPE", conflicts_with_all = ["first", "model"])]
    pub shape: Option<Shape>,
    /// Types of the synthetic model's weight matrices (with --shape).
    #[arg(long = "type", value_delimiter = ',', default_value = "q8_0", requires = "shape", value_parser = tensor_types(), value_name = "TYPE,..")]
    pub types: Vec<TensorType>,
    /// How the rows of the synthetic model's quantized matrices lie (with --shape).
    #[arg(long, default_value = "panels", requires = "shape", value_parser = layouts(), value_name = "LAYOUT")]
    pub layout: Layout,
    /// Variants of the synthetic model (with --shape): b (Eso-LM (B), the default), a, mdlm, ar, bd3lm:BLOCK (BD3-LM with blocks
    /// of so many positions); of Qwen's shapes wedlm, the default, or ar. Of several, the times over the first one's are shown.
    #[arg(long, requires = "shape", value_delimiter = ',', value_name = "VARIANT,..")]
    pub variant: Vec<Kind>,
    /// Write the synthetic model, of a single type, to this file and exit without measuring.
    #[arg(long, value_name = "FILE", requires = "shape")]
    pub write: Option<PathBuf>,
    /// Overwrite the file of --write if it exists.
    #[arg(short, long, requires = "write")]
    pub force: bool,
    /// Batch sizes: numbers of texts generated in parallel.
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "B,..")]
    pub batch: Vec<usize>,
    /// Fractions of the tokens written by diffusion, 0 to 1.
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "A,..")]
    pub alpha0: Vec<f64>,
    /// Numbers of diffusion steps, of the whole text. (BD3-LM has its share of them in each block, at least one; an autoregressive
    /// model writes one token in each step.) [default: 16,64]
    #[arg(long, value_delimiter = ',', value_name = "T,..")]
    pub steps: Vec<usize>,
    /// Numbers of tokens that each diffusion step writes, in place of the numbers of steps.
    #[arg(long, value_delimiter = ',', conflicts_with = "steps", value_name = "K,..")]
    pub schedule: Vec<u32>,
    /// Run only the first N steps of MDLM's generations, and calculate the time of the others: each feeds the whole text.
    #[arg(long, value_name = "N")]
    pub mdlm_steps: Option<usize>,
    /// Windows of WeDLM, in positions, in place of the numbers of steps. [default: 4,16]
    #[arg(long, value_delimiter = ',', value_name = "W,..")]
    pub window: Vec<usize>,
    /// Lengths of the texts in tokens. (They have no prompt: all of it is new, as -n counts elsewhere.) Default, or 0: the model's
    /// context length, which a synthetic model takes from the largest one here.
    #[arg(
        short = 'n',
        long = "length",
        value_delimiter = ',',
        default_value = "0",
        hide_default_value = true,
        value_name = "LEN,.."
    )]
    pub length: Vec<usize>,
    /// Top-p (nucleus) sampling, above 0 to 1; 1 = off. The same for all models, so that they can be compared; -1 = each model's
    /// own default.
    #[arg(long, default_value_t = SamplingParams::LIBRARY.top_p, value_name = "P")]
    pub top_p: f32,
    /// Which CPU kernels to use: esolm's own, or ggml's. (Other devices always use ggml.)
    #[arg(long, value_delimiter = ',', default_value = "own", value_parser = kernels(), value_name = "KERNELS,..")]
    pub kernels: Vec<Kernels>,
    /// Number of times each combination is measured.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub repeat: usize,
    /// Also show how the time of a step is spent (own kernels only).
    #[arg(long)]
    pub profile: bool,
    #[command(flatten, next_help_heading = "Device and threads")]
    pub compute: ComputeArgs,
    #[command(flatten, next_help_heading = "Output")]
    pub json: JsonFileArgs,
    /// Also plot speed over the number of diffusion steps to this file as SVG, overwriting it.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub plot: Option<PathBuf>,
}
