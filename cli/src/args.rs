//! Options that several commands share: the model, the device that computes, output files, windows of a text.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use esolm::gguf::TensorType;
use esolm::{
    Context, ContextParams, Kernels, KvType, LoadMode, LoadOptions, Model, Result, ThreadPool,
    ThreadPoolParams, Variant,
};

use crate::model_file::model_file;
use crate::tensor_types::TENSOR_TYPES;

/// Options of the commands that also work with the built-in model.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// Model file (GGUF), or hf:OWNER/NAME (see `esolm pull`). Default: what ESOLM_MODEL names, else the built-in model.
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Read the model file into memory instead of memory-mapping it: slower to load, but the file may change afterwards.
    #[arg(long)]
    pub no_mmap: bool,
}

impl ModelArgs {
    /// How to load the model.
    pub fn load_options(&self, device: &str) -> LoadOptions<'static> {
        let mode = if self.no_mmap { LoadMode::Copy } else { LoadMode::Map };
        LoadOptions { device: device.into(), mode, ..LoadOptions::default() }
    }

    /// Loads the model onto a device.
    pub fn open(&self, device: &str) -> Result<Model> {
        let options = self.load_options(device);
        match self.model.clone().or_else(model_from_environment) {
            Some(path) => Model::open(model_file(&path)?, &options),
            None => built_in_model(&options),
        }
    }
}

/// The file that ESOLM_MODEL names. An empty variable counts as not set.
fn model_from_environment() -> Option<PathBuf> {
    std::env::var_os("ESOLM_MODEL").filter(|name| !name.is_empty()).map(PathBuf::from)
}

#[cfg(feature = "embed-model")]
fn built_in_model(options: &LoadOptions<'_>) -> Result<Model> {
    /// Gives the bytes the alignment that computing in place needs.
    #[repr(C, align(64))]
    struct Aligned<T: ?Sized>(T);
    static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../../models/stories-q8_0.gguf"));
    Model::from_static(&MODEL.0, options)
}

#[cfg(not(feature = "embed-model"))]
fn built_in_model(_: &LoadOptions<'_>) -> Result<Model> {
    Err(esolm::Error::InvalidArgument("this build has no built-in model; name one with -m FILE".into()))
}

/// Number of threads.
#[derive(clap::Args, Clone, Copy)]
pub struct ThreadArgs {
    /// Number of CPU threads, at most 512. Default: one per core that the process may use.
    // The library reads 0 as one per core.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub threads: usize,
}

/// Where threads run and how they wait. Those of ggml's kernels are not concerned.
#[derive(clap::Args)]
pub struct PoolArgs {
    /// How long a thread waits for work before it sleeps, 0 (not at all) to 100.
    #[arg(long, default_value_t = ThreadPoolParams::DEFAULT_POLL, value_name = "N",
          value_parser = clap::value_parser!(u32).range(..=100))]
    pub poll: u32,
    /// Processors that the threads may run on, such as 0-3,8 (the first thread is the command's own and may run
    /// anywhere). Linux.
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    pub cpus: Option<CpuList>,
}

/// Processors by number.
#[derive(Clone)]
pub struct CpuList(Vec<usize>);

/// Reads a list such as `0-3,8`.
fn cpu_list(list: &str) -> std::result::Result<CpuList, String> {
    let number =
        |text: &str| text.trim().parse::<u16>().map_err(|_| format!("'{text}' is no number of a processor"));
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend((number(first)?..=number(last)?).map(usize::from));
    }
    Ok(CpuList(cpus))
}

/// Options of every command that runs a model.
#[derive(clap::Args)]
pub struct ComputeArgs {
    /// Device to run on: auto, cpu, or a name listed by `esolm devices`.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub device: String,
    #[command(flatten)]
    pub cpu: ThreadArgs,
    #[command(flatten)]
    pub pool: PoolArgs,
    /// Data type of the K/V cache: f16, or f32, which takes twice the memory and is only needed for exact comparisons or
    /// if an error message asks for it.
    #[arg(long, default_value = "f16", value_parser = kv_types(), value_name = "TYPE")]
    pub kv_type: KvType,
}

impl ComputeArgs {
    /// How to load a model file that is not given by [`ModelArgs`].
    pub fn load_options(&self) -> LoadOptions<'static> {
        LoadOptions { device: self.device.clone(), ..LoadOptions::default() }
    }

    /// Makes a context with the threads that the options say.
    pub fn context(&self, model: &Model, params: &ContextParams) -> Result<Context> {
        if self.pool.poll == ThreadPoolParams::DEFAULT_POLL && self.pool.cpus.is_none() {
            return Context::new(model, params);
        }
        let cpus = self.pool.cpus.as_ref().map_or(&[][..], |list| &list.0);
        let pool = ThreadPoolParams { threads: params.threads, poll: self.pool.poll, cpus, nice: 0 };
        Context::with_pool(model, params, &ThreadPool::new(&pool)?)
    }

    /// A context for one text of the model's context length.
    pub fn context_params(&self) -> ContextParams {
        ContextParams { threads: self.cpu.threads, kv_type: self.kv_type, ..ContextParams::default() }
    }
}

/// Options of the commands that cut a text into windows.
#[derive(clap::Args)]
pub struct WindowArgs {
    /// Window length in tokens. Default: the model's context length.
    // The library reads 0 as the model's context length.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "LEN")]
    pub length: usize,
    /// Random seed. The same seed gives the same result.
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
}

/// Option of the commands that write a file which is costly to lose.
#[derive(clap::Args)]
pub struct OverwriteArgs {
    /// Overwrite the output file if it exists.
    #[arg(short, long)]
    pub force: bool,
}

/// Reads a tensor type by its name.
pub fn tensor_types() -> impl TypedValueParser<Value = TensorType> {
    one_of(TENSOR_TYPES.map(|ty| (ty.name(), ty)))
}

/// Reads a model variant by its name.
pub fn variants() -> impl TypedValueParser<Value = Variant> {
    one_of(
        [Variant::EsoB, Variant::EsoA, Variant::Mdlm, Variant::Ar].map(|variant| (variant.name(), variant)),
    )
}

/// Reads which kernels compute on the CPU.
pub fn kernels() -> impl TypedValueParser<Value = Kernels> {
    one_of([Kernels::Own, Kernels::Ggml].map(|kernels| (kernels_name(kernels), kernels)))
}

/// The name of CPU kernels on the command line.
pub fn kernels_name(kernels: Kernels) -> &'static str {
    match kernels {
        Kernels::Own => "own",
        Kernels::Ggml => "ggml",
    }
}

fn kv_types() -> impl TypedValueParser<Value = KvType> {
    one_of([("f16", KvType::F16), ("f32", KvType::F32)])
}

/// Reads one of some values by its name; the help lists the names.
fn one_of<T: Clone + Send + Sync + 'static, const N: usize>(
    values: [(&'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    let names = values.each_ref().map(|(name, _)| *name);
    PossibleValuesParser::new(names).try_map(move |given| {
        let value = values.iter().find(|(name, _)| *name == given);
        value.map(|(_, value)| value.clone()).ok_or_else(|| format!("'{given}' is not known"))
    })
}
