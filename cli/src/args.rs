//! Options that several commands share: the device that computes, output files, windows of a text.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use esolm::gguf::{Layout, TensorType};
use esolm::{
    Context, ContextParams, Kernels, KvType, LoadOptions, Model, Result, ThreadPool, ThreadPoolParams,
    Variant,
};
use serde_json::Value;

use crate::output::{check_outputs, json_line, print, write_file};
use crate::plot::Plot;
use crate::seed::Seed;
use crate::tensor_types::TENSOR_TYPES;

/// Number of threads.
#[derive(clap::Args, Clone, Copy)]
pub struct ThreadArgs {
    /// Number of CPU threads, at most 512. Default, or 0: one per core that the process may use.
    #[arg(short, long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub threads: usize,
}

/// Where threads run, how they wait and what they give way to. Those of ggml's kernels are not concerned.
#[derive(clap::Args)]
pub struct PoolArgs {
    /// How long a thread waits for work before it sleeps, 0 (not at all) to 100.
    #[arg(long, default_value_t = ThreadPoolParams::DEFAULT_POLL, value_name = "N",
          value_parser = clap::value_parser!(u32).range(..=100))]
    pub poll: u32,
    /// Processors that the threads may run on, such as 0-3,8 (but for the first thread, the command's own). Linux.
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    pub cpus: Option<CpuList>,
    /// Added to the nice value of the threads but the first, -40 to 40: above 0 they give way to other programs. Linux.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub nice: i32,
}

/// Processors by number.
#[derive(Clone)]
pub struct CpuList(Vec<usize>);

fn cpu_list(list: &str) -> Result<CpuList> {
    ThreadPoolParams::parse_cpus(list).map(CpuList)
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
    /// Data type of the K/V cache. f32 takes twice the memory of f16; it is for exact comparisons, or if a message asks for it.
    /// q8_0 takes about half: longer texts fit, with slightly other results.
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
        match self.pool()? {
            Some(pool) => Context::with_pool(model, params, &pool),
            None => Context::new(model, params),
        }
    }

    /// The threads, where the options say more of them than their number.
    pub fn pool(&self) -> Result<Option<ThreadPool>> {
        let PoolArgs { poll, cpus, nice } = &self.pool;
        let cpus = cpus.as_ref().map_or(&[][..], |list| &list.0);
        let params = ThreadPoolParams { threads: self.cpu.threads, poll: *poll, cpus, nice: *nice };
        if params == (ThreadPoolParams { threads: params.threads, ..ThreadPoolParams::default() }) {
            return Ok(None);
        }
        ThreadPool::new(&params).map(Some)
    }

    /// A context for one text of the model's context length.
    pub fn context_params(&self) -> ContextParams {
        ContextParams { threads: self.cpu.threads, kv_type: self.kv_type, ..ContextParams::default() }
    }
}

/// Options of the commands that cut a text into windows.
#[derive(clap::Args)]
pub struct WindowArgs {
    /// Window length in tokens. Default, or 0: the model's context length, but 4096 at most.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "LEN")]
    pub length: usize,
    /// Random seed. The same seed gives the same result; -1 = a different one each time.
    #[arg(short, long, default_value = "0", value_name = "S")]
    pub seed: Seed,
}

/// Option of the commands that print a result.
#[derive(clap::Args, Clone, Copy)]
pub struct JsonArgs {
    /// Print JSON in place of text: an object on one line. docs/cli.md lists its fields.
    #[arg(long)]
    pub json: bool,
}

/// Option of the commands whose result takes long: it is a table and a file for programs at once.
#[derive(clap::Args)]
pub struct JsonFileArgs {
    #[command(flatten)]
    pub json: JsonArgs,
    /// Also write what --json prints to this file, overwriting it.
    #[arg(long, value_name = "FILE")]
    pub json_file: Option<PathBuf>,
}

impl JsonFileArgs {
    /// Fails before any work if the file or the `plot` beside it cannot be written, or would replace one of the `inputs`.
    pub fn check(&self, plot: Option<&Path>, inputs: &[&Path]) -> Result<()> {
        check_outputs(&[self.json_file.as_deref(), plot], inputs)
    }

    /// Shows a result: in files, if these are wanted, and as a table or JSON. `plot` is the name and the content of a picture.
    /// One that fails does not keep the others back: the work was long.
    pub fn show(&self, table: &str, object: Value, plot: Option<(&PathBuf, Plot)>) -> Result<()> {
        let json = json_line(object);
        let figures = self.json_file.as_ref().map_or(Ok(()), |file| write_file(file, &json));
        let picture = plot.map_or(Ok(()), |(file, plot)| write_file(file, plot.svg()));
        let shown = if self.json.json { print(&json) } else { print(table) };
        shown.and(figures).and(picture)
    }
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

/// Reads how a matrix's rows lie in a file, by its name.
pub fn layouts() -> impl TypedValueParser<Value = Layout> {
    one_of([Layout::Panels, Layout::Plain].map(|layout| (layout.name(), layout)))
}

/// Reads a model variant by its name.
pub fn variants() -> impl TypedValueParser<Value = Variant> {
    one_of(
        [Variant::EsoB, Variant::EsoA, Variant::Mdlm, Variant::Ar, Variant::WeDlm, Variant::Bd3Lm]
            .map(|variant| (variant.name(), variant)),
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

/// Reads the data type of a K/V cache by its name.
pub fn kv_types() -> impl TypedValueParser<Value = KvType> {
    one_of([("f16", KvType::F16), ("f32", KvType::F32), ("q8_0", KvType::Q8_0)])
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
