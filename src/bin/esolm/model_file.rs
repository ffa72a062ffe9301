//! Which model a command works on, and what computes it.

use std::io::Read;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use esolm::{ContextParams, Error, KvType, LoadMode, LoadOptions, Model, Result};

/// Options of the commands that work with the built-in model, too.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// The model file (GGUF). Without it: the file that ESOLM_MODEL names, else the built-in model.
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Read the file into memory instead of mapping it: slower to open, and independent of the file afterwards.
    #[arg(long)]
    pub no_mmap: bool,
}

impl ModelArgs {
    /// How the model is loaded.
    pub fn options(&self, device: &str) -> LoadOptions<'static> {
        let mode = if self.no_mmap { LoadMode::Copy } else { LoadMode::Map };
        LoadOptions { device: device.into(), mode, progress: None }
    }

    /// Opens the model on a device.
    pub fn open(&self, device: &str) -> Result<Model> {
        let options = self.options(device);
        match self.model.clone().or_else(from_environment) {
            Some(path) => Model::open(path, &options),
            None => built_in(&options),
        }
    }
}

/// The file that ESOLM_MODEL names; set to nothing it is as if it were not set.
fn from_environment() -> Option<PathBuf> {
    std::env::var_os("ESOLM_MODEL").filter(|name| !name.is_empty()).map(PathBuf::from)
}

#[cfg(feature = "embed-model")]
fn built_in(options: &LoadOptions<'_>) -> Result<Model> {
    /// Gives the bytes the alignment that computing in place needs.
    #[repr(C, align(64))]
    struct Aligned<T: ?Sized>(T);
    static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../models/fairy-q8_0.gguf"));
    Model::from_static(&MODEL.0, options)
}

#[cfg(not(feature = "embed-model"))]
fn built_in(_: &LoadOptions<'_>) -> Result<Model> {
    Err(Error::InvalidArgument("this build has no built-in model; name one with -m FILE".into()))
}

/// Options of every command that computes with a model.
#[derive(clap::Args)]
pub struct ComputeArgs {
    /// The device that computes: auto, cpu, or a name from `esolm devices`.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub device: String,
    /// CPU threads, up to 512; one per core if not given.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub threads: usize,
    /// Precision of the K/V cache (what attention keeps of each token). f32 takes twice the memory, and is needed only for
    /// exact comparisons and where an error asks for it.
    #[arg(long, default_value = "f16", value_parser = kv_types(), value_name = "TYPE")]
    pub kv_type: KvType,
}

impl ComputeArgs {
    /// How a model file is loaded that is no [`ModelArgs`].
    pub fn load_options(&self) -> LoadOptions<'static> {
        LoadOptions { device: self.device.clone(), ..LoadOptions::default() }
    }

    /// A context of the model's own length, for one text.
    pub fn context_params(&self) -> ContextParams {
        ContextParams { threads: self.threads, kv_type: self.kv_type, ..ContextParams::default() }
    }
}

fn kv_types() -> impl TypedValueParser<Value = KvType> {
    PossibleValuesParser::new(["f16", "f32"]).map(|name| match name.as_str() {
        "f32" => KvType::F32,
        _ => KvType::F16,
    })
}

/// The process's resident memory in bytes, where the system tells.
pub fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// `bytes` for people.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// What is given as words, with a space between each two; standard input if there are none, or only `-`.
pub fn words_or_stdin(words: &[String]) -> Result<String> {
    match words {
        [] => read_stdin(),
        [only] if only == "-" => read_stdin(),
        words => Ok(words.join(" ")),
    }
}

/// The whole of standard input as text.
pub fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().read_to_end(&mut bytes);
    text("standard input", read.map(|_| bytes))
}

/// A text file; `-` is standard input.
pub fn read_text(file: &str) -> Result<String> {
    match file {
        "-" => read_stdin(),
        file => text(file, std::fs::read(file)),
    }
}

fn text(file: &str, bytes: std::io::Result<Vec<u8>>) -> Result<String> {
    let bytes = bytes.map_err(|source| Error::Io { file: file.into(), source })?;
    String::from_utf8(bytes).map_err(|e| Error::BadFile {
        file: file.into(),
        what: format!("the text is not UTF-8: {}", e.utf8_error()),
    })
}
