//! What `esolm bench` measures: models, and combinations of options.

use esolm::gguf::TensorType;
use esolm::{Config, Context, ContextParams, GenerateParams, Kernels, Model, Result};

use super::floor::{Floor, Workload, floor};
use super::kind::Kind;
use super::machine::Machine;
use super::measure::{Times, quantile};
use super::options::Args;
use crate::memory;

/// A model under test, and what loading it takes.
pub struct Subject {
    pub model: Model,
    pub name: String,
    /// The type and the variant of a synthetic model.
    pub synthetic: Option<(TensorType, Kind)>,
    pub open_seconds: f64,
    /// Resident memory that loading it added, in bytes.
    pub resident: Option<u64>,
}

/// One combination.
pub struct Case<'a> {
    pub subject: &'a Subject,
    pub kernels: Kernels,
    pub batch: usize,
    /// Tokens of a text; 0 is the model's context.
    pub length: usize,
    pub amount: Amount,
    pub params: GenerateParams<'a>,
    pub times: Times,
}

/// How much a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// All tokens in so many diffusion steps.
    Steps(usize),
    /// So many tokens.
    Tokens(u32),
    /// WeDLM's window.
    Window(usize),
}

impl Amount {
    /// As a number, for a plot.
    pub fn number(self) -> usize {
        match self {
            Self::Steps(number) | Self::Window(number) => number,
            Self::Tokens(number) => number as usize,
        }
    }

    /// What the number is one of.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Steps(_) => "diffusion steps (T)",
            Self::Tokens(_) => "tokens a step",
            Self::Window(_) => "positions of the window",
        }
    }

    /// As it is told in the column of the steps.
    pub fn name(self) -> String {
        match self {
            Self::Steps(number) | Self::Window(number) => number.to_string(),
            Self::Tokens(number) => format!("{number}/step"),
        }
    }
}

/// Tokens of a text, where 0 is given for those of a context by default.
pub fn whole_length(given: usize, config: &Config) -> usize {
    if given > 0 { given } else { ContextParams::default_length(config) }
}

impl Subject {
    /// Loads the model several times and keeps the first one, which is the one that adds to the resident memory.
    pub fn open(
        name: String,
        synthetic: Option<(TensorType, Kind)>,
        open: impl Fn() -> Result<Model>,
    ) -> Result<Self> {
        let (model, resident) = memory::added_by(&open);
        let model = model?;
        let again = || Ok(open()?.load_time().as_secs_f64());
        let seconds = (0..5).map(|_| again()).collect::<Result<Vec<_>>>()?;
        Ok(Self { model, name, synthetic, open_seconds: quantile(&seconds, 0.5), resident })
    }
}

impl Case<'_> {
    /// Parameters of the case's context.
    pub fn context_params(&self, args: &Args) -> ContextParams {
        ContextParams {
            sequences: self.batch,
            length: self.length,
            kernels: self.kernels,
            ..args.compute.context_params()
        }
    }

    /// The least time of a generation, on the CPU.
    pub fn floor(&self, args: &Args, machine: &Machine) -> Option<Floor> {
        let model = &self.subject.model;
        let length = self.whole_length();
        let on_cpu =
            args.compute.device.eq_ignore_ascii_case("cpu") || model.device().eq_ignore_ascii_case("cpu");
        let window = match self.amount {
            Amount::Window(size) if self.params.alpha_0 == 1.0 => Some(size),
            _ => None,
        };
        let workload = Workload { sequences: self.batch, length, window };
        let kv_type = args.compute.kv_type;
        let floor = || floor(model, kv_type, workload, &self.times.written, machine);
        on_cpu.then(floor).flatten()
    }

    /// Tokens of a text.
    pub fn whole_length(&self) -> usize {
        whole_length(self.length, self.subject.model.config())
    }

    pub fn context(&self, args: &Args) -> Result<Context> {
        args.compute.context(&self.subject.model, &self.context_params(args))
    }
}
