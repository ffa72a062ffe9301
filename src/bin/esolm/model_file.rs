//! Which model a command works on.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use esolm::{Error, KvType, LoadMode, LoadOptions, Model, Result};

/// Options of every command that runs a model.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// The model file (GGUF). Without it: the file that ESOLM_MODEL names, else the built-in model.
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// The device that computes: auto, cpu, or a name from `esolm devices`.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub device: String,
    /// Read the file into memory instead of mapping it.
    #[arg(long)]
    pub no_mmap: bool,
}

impl ModelArgs {
    /// How the model is loaded.
    pub fn options(&self) -> LoadOptions<'static> {
        let mode = if self.no_mmap { LoadMode::Copy } else { LoadMode::Map };
        LoadOptions { device: self.device.clone(), mode, progress: None }
    }

    /// Opens the model.
    pub fn open(&self) -> Result<Model> {
        let options = self.options();
        match self.model.clone().or_else(|| std::env::var_os("ESOLM_MODEL").map(PathBuf::from)) {
            Some(path) => Model::open(path, &options),
            None => built_in(&options),
        }
    }
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

/// The values of every `--kv-type`.
pub fn kv_types() -> impl TypedValueParser<Value = KvType> {
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

/// The whole of standard input as text.
pub fn read_stdin() -> Result<String> {
    std::io::read_to_string(std::io::stdin())
        .map_err(|source| Error::Io { file: "standard input".into(), source })
}

/// A text file; `-` is standard input.
pub fn read_text(file: &str) -> Result<String> {
    match file {
        "-" => read_stdin(),
        file => std::fs::read_to_string(file).map_err(|source| Error::Io { file: file.into(), source }),
    }
}
