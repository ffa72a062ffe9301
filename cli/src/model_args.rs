//! The model of a command: its first argument, or -m; what ESOLM_MODEL names; the built-in one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use esolm::{Error, LoadMode, LoadOptions, Model, Result};

use crate::log;
use crate::model_file::{is_repository, model_file};

/// How every command is told of a model file.
#[derive(clap::Args, Clone)]
pub struct ModelFileArgs {
    /// Model file (GGUF), or hf:OWNER/NAME (see `esolm pull`).
    #[arg(value_name = "MODEL")]
    pub first: Option<PathBuf>,
    /// The model, if it is not the first argument.
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
}

impl ModelFileArgs {
    /// The name that was given.
    pub fn given(&self) -> Result<Option<&Path>> {
        match (&self.first, &self.model) {
            (Some(first), Some(model)) => Err(Error::InvalidArgument(format!(
                "the model is given twice: '{}' and -m '{}'",
                first.display(),
                model.display()
            ))),
            (Some(first), None) if first.as_os_str().is_empty() => {
                Err(Error::InvalidArgument("the name of the model is empty".into()))
            }
            (first, model) => Ok(first.as_deref().or(model.as_deref())),
        }
    }

    /// The file, for a command that has to be given one.
    pub fn file(&self) -> Result<PathBuf> {
        let none = || Error::InvalidArgument("no model file; name one first, or with -m FILE".into());
        self.given()?.ok_or_else(none).and_then(model_file)
    }
}

/// What the help says of the model where it need not be given.
const HELP: &str = "\
Model file (GGUF), or hf:OWNER/NAME (see `esolm pull`). Default: what ESOLM_MODEL names, else the built-in \
model";

/// Options of the commands that also work with the built-in model.
#[derive(clap::Args, Clone)]
#[command(mut_arg("first", |first| first.help(HELP).value_parser(word())))]
pub struct ModelArgs {
    #[command(flatten)]
    pub file: ModelFileArgs,
    /// Read the model file into memory in place of mapping it: slower to load, but the file may change.
    #[arg(long)]
    pub no_mmap: bool,
    /// If quantized matrices are plain in the file (see `esolm inspect`), read it into memory with these in panels, as the CPU's
    /// kernels read them fastest.
    #[arg(long, conflicts_with = "no_mmap")]
    pub repack: bool,
    /// Lock the weights in main memory, so that the system never moves them out; a warning says if it refuses.
    #[arg(long)]
    pub mlock: bool,
    /// Read the pages of a mapped model file in at once, and not when they are first used.
    #[arg(long)]
    pub prefetch: bool,
    #[command(flatten)]
    pub mask: MaskArgs,
}

/// How every command that reads a model is told of what its file may lack.
#[derive(clap::Args, Clone, Copy)]
pub struct MaskArgs {
    /// The mask token of a Qwen2, Qwen3 or WeDLM whose file does not say it (by its id): it is then run as WeDLM.
    #[arg(long, value_name = "ID")]
    pub mask_token: Option<u32>,
}

/// Reads the first argument, which may be an empty text where it is no name of a model.
fn word() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl ModelArgs {
    /// How to load the model.
    pub fn load_options(&self, device: &str) -> LoadOptions<'static> {
        let mode = match self {
            Self { repack: true, .. } => LoadMode::Repack,
            Self { no_mmap: true, .. } => LoadMode::Copy,
            _ => LoadMode::Map,
        };
        let Self { mlock, prefetch, mask: MaskArgs { mask_token }, .. } = *self;
        LoadOptions { device: device.into(), mode, mlock, prefetch, mask_token, progress: None }
    }

    /// Loads the model onto a device.
    pub fn open(&self, device: &str) -> Result<Model> {
        if self.mlock {
            log::show_warnings();
        }
        let options = self.load_options(device);
        match self.name()? {
            Some(path) => Model::open(model_file(&path)?, &options),
            None => built_in_model(&options),
        }
    }

    /// The name of the model, unless it is the built-in one.
    pub fn name(&self) -> Result<Option<PathBuf>> {
        Ok(self.file.given()?.map(Path::to_owned).or_else(model_from_environment))
    }

    /// The model, and the words of a command whose other arguments are words: the first one is a model only if -m names
    /// none and it looks like one.
    pub fn and_words(&self, words: &[String]) -> Result<(Self, Vec<String>)> {
        let (mut model, mut all) = (self.clone(), words.to_vec());
        if let Some(first) = model.file.first.take_if(|first| self.file.model.is_some() || !is_model(first)) {
            let not_utf8 = |word: OsString| format!("'{}' is not UTF-8", word.to_string_lossy());
            let word = first.into_os_string().into_string();
            all.insert(0, word.map_err(|word| Error::InvalidArgument(not_utf8(word)))?);
        }
        Ok((model, all))
    }
}

/// Refuses a model that is in the place of another file because that was left out.
pub fn check_other_file(model: &ModelFileArgs, file: &Path, what: &str) -> Result<()> {
    if model.first.is_some() || model.model.is_some() || !is_model(file) {
        return Ok(());
    }
    let name = file.display();
    Err(Error::InvalidArgument(format!("no {what} given: '{name}' names a model; name a file behind it")))
}

/// Whether a word looks like the name of a model: a `.gguf` file, or a repository.
pub fn is_model(word: &Path) -> bool {
    is_repository(word) || word.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
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
    static MODEL: &Aligned<[u8]> =
        &Aligned(*include_bytes!(concat!(env!("ESOLM_FILES"), "/models/stories-q8_0.gguf")));
    Model::from_static(&MODEL.0, options)
}

#[cfg(not(feature = "embed-model"))]
fn built_in_model(_: &LoadOptions<'_>) -> Result<Model> {
    Err(Error::InvalidArgument("this build has no built-in model; name one first, or with -m FILE".into()))
}
