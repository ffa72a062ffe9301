//! `esolm pull`: a model of a hub becomes a model file here.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use esolm::gguf::TensorType;
use esolm::{Error, Result, Variant};
use serde_json::json;

use crate::args::{JsonArgs, tensor_types, variants};
use crate::hub::{Name, PUBLISHED, Published, Request, models_folder, pull};
use crate::model_file::tokenizer_file;
use crate::output::{human_bytes, io_error, print, print_json};

const HELP: &str = "\
What is downloaded: config.json, model.safetensors (or its shards with their index, or pytorch_model.bin), the tokenizer's \
files, chat_template.jinja and generation_config.json; nothing else, and nothing of it is executed. A GGUF file of the \
repository, of esolm's or llama.cpp's, is used as it is: the one of the type (q4_k: also Q4_K_M, _S or _L) or, where there is no checkpoint, the only one. \
Sizes and hashes are checked. A download that was interrupted is continued.

Where it goes: downloads into the hub's own cache (~/.cache/huggingface, or HF_HOME), which other programs share; the \
converted model into esolm in the system's cache folder (~/.cache or XDG_CACHE_HOME; macOS ~/Library/Caches; Windows \
%LOCALAPPDATA%). Every command that takes a model file takes hf:OWNER/NAME[@REVISION][:TYPE] instead: it finds the model \
there, without a network, and pulls it if it is not there. Delete what you no longer need.

Environment: HF_TOKEN for private and gated repositories, HF_ENDPOINT another hub, HF_HOME, HF_HUB_OFFLINE=1 no network, \
HF_HUB_DOWNLOAD_TIMEOUT the seconds in which something has to come.

Examples:
  esolm pull OWNER/NAME --type q4_k
  esolm generate -m hf:OWNER/NAME:q4_k -p \"Once upon a time\"
  # With what its repository does not say
  esolm pull OWNER/NAME --variant b --tokenizer hf:openai-community/gpt2
  # All models that were pulled and converted
  esolm pull --list";

/// The help's end: what is done, and the models that are known.
fn help() -> String {
    let line = |model: &Published| format!("\n  {:38} {}", model.repository, model.what);
    let known: String = PUBLISHED.iter().map(line).collect();
    format!(
        "{HELP}\n\nModels whose names are known, with what their repositories do not say (docs/models.md):{known}"
    )
}

/// Download a model from a hub and convert it to a model file (GGUF).
///
/// Prints the model file's name. The hub is huggingface.co.
#[derive(clap::Args)]
#[command(after_help = help())]
pub struct Args {
    /// The repository: OWNER/NAME, OWNER/NAME@REVISION or OWNER/NAME@REVISION:TYPE.
    #[arg(value_name = "MODEL", value_parser = NonEmptyStringValueParser::new(),
          required_unless_present_any = ["list", "model"], conflicts_with = "model")]
    first: Option<String>,
    /// The repository, if it is not the first argument.
    #[arg(short, long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: Option<String>,
    /// Type of the weight matrices. Default: q8_0, a quarter of f32, and no loss that shows in a text.
    #[arg(short, long = "type", value_name = "TYPE", value_parser = tensor_types())]
    tensor_type: Option<TensorType>,
    /// Branch, tag or commit. Default: main.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Model variant, if the configuration does not say: Eso-LM (B), Eso-LM (A), MDLM, autoregressive, WeDLM or
    /// BD3-LM.
    #[arg(long, value_parser = variants())]
    variant: Option<Variant>,
    /// A tokenizer.json to use instead of the repository's; hf:OWNER/NAME takes that of another repository.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Model file to write, instead of one in the cache.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Check the downloads again, convert again, and overwrite the output file if it exists.
    #[arg(short, long)]
    force: bool,
    /// List the models that were pulled and converted.
    #[arg(long, conflicts_with_all = ["first", "model"])]
    list: bool,
    #[command(flatten)]
    json: JsonArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let Some(model) = args.first.as_ref().or(args.model.as_ref()) else {
        return list(&models_folder()?, args.json.json).map(|()| ExitCode::SUCCESS);
    };
    let mut name = Name::parse(model)?;
    // OWNER/NAME[@REVISION][:TYPE]
    let named = |mark: char| model.strip_prefix("hf:").unwrap_or(model).contains(mark);
    for (given, named, option) in [
        (args.revision.is_some(), named('@'), "--revision"),
        (args.tensor_type.is_some(), named(':'), "--type"),
    ] {
        if given && named {
            return Err(Error::InvalidArgument(format!("{option}: '{model}' says it, too")));
        }
    }
    if let Some(revision) = &args.revision {
        name = name.at(revision)?;
    }
    name.tensor_type = args.tensor_type.unwrap_or(name.tensor_type);
    let file = pull(&Request {
        name,
        variant: args.variant,
        tokenizer: args.tokenizer.as_deref().map(tokenizer_file).transpose()?,
        output: args.output.clone(),
        force: args.force,
        tells_wants: true,
    })?;
    if args.json.json {
        print_json(json!({ "file": file.display().to_string(), "bytes": size(&file)? }))?;
    } else {
        print(format_args!("{}\n", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn size(file: &Path) -> Result<u64> {
    Ok(std::fs::metadata(file).map_err(|source| io_error(file, source))?.len())
}

/// Prints a line per converted model: size and file.
fn list(folder: &Path, json: bool) -> Result<()> {
    let (mut lines, mut models) = (String::new(), vec![]);
    // Repositories, commits, models.
    for repository in entries(folder)? {
        for commit in entries(&repository)? {
            let is_model = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "gguf");
            for model in entries(&commit)?.into_iter().filter(is_model) {
                let bytes = size(&model)?;
                models.push(json!({ "file": model.display().to_string(), "bytes": bytes }));
                lines += &format!("{:>12}  {}\n", human_bytes(bytes), model.display());
            }
        }
    }
    if json { print_json(json!({ "models": models })) } else { print(&lines) }
}

/// What is in a folder, by name; nothing if it is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(vec![]);
    }
    let read = std::fs::read_dir(folder).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect());
    let mut paths: Vec<PathBuf> = read.map_err(|source| io_error(folder, source))?;
    paths.sort();
    Ok(paths)
}
