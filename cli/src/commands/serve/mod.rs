//! `esolm serve`: a server that speaks OpenAI's API.

mod answer;
mod body;
mod engine;
mod failure;
mod fields;
mod held;
mod incoming;
mod job;
mod ordered;
mod origin;
mod patient;
mod request;
mod sampling;
mod server;
mod service;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use esolm::{Context, ContextParams, Error, GenerateParams, Model, Result};

use engine::Engine;
use held::HeldBytes;
use incoming::Bodies;
use service::{Limits, Service};

use crate::args::ComputeArgs;
use crate::chat_format::ChatTemplateArgs;
use crate::model_args::ModelArgs;
use crate::output::tell;
use crate::phase_args::{PassArgs, PhaseArgs, WINDOW};
use crate::prompt_args::{check_params, shortest_prompt};

/// Answer programs that speak OpenAI's API, over HTTP.
///
/// /v1/completions, /v1/chat/completions (both streamed or not), /v1/models, /health. Requests are computed together, as they come.
/// It listens on this machine only, unless --host says otherwise; there is no TLS. TERM or Ctrl-C ends it once what runs is
/// complete, a second one at once. docs/serve.md lists the parameters.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    template: ChatTemplateArgs,
    /// Address to listen on, or localhost.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS", value_parser = address)]
    host: IpAddr,
    /// Port; 0 = a free one, which is told.
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    port: u16,
    /// Key that requests have to give ("Authorization: Bearer KEY"). May be repeated. Default: what ESOLM_API_KEY holds, else none.
    #[arg(long = "api-key", value_name = "KEY")]
    keys: Vec<String>,
    /// Name of the model in answers. Default: its own.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Texts that are written at once; memory for all of them is reserved.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
    /// Texts that may wait for a place; more are refused (429).
    #[arg(long, default_value_t = 64, value_name = "N")]
    queue: usize,
    /// Bytes of answers that may wait for their clients to take them; while there are more, requests are refused (429).
    #[arg(long, default_value_t = 256 << 20, value_name = "BYTES")]
    max_unread: usize,
    /// Longest text in tokens, prompt included. Default, or 0: the model's context length, but 4096 at most.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "LEN")]
    length: usize,
    /// Most rows (tokens) that one run of the network is fed; fewer need less memory. Default, or 0: 128, on devices more.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    batch_rows: usize,
    /// Most tokens of prompts that a step feeds beside texts that are being written: fewer for steadier steps, more for a quicker
    /// first token. Default, or 0: 64, on devices 512.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    prompt_rows: usize,
    /// Longest body of a request in bytes.
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES")]
    max_body: usize,
    /// Bytes of requests' bodies that may be in memory at once, at least those of --max-body; while there are more, requests of
    /// over 16 KiB are refused (429).
    #[arg(long, default_value_t = 32 << 20, value_name = "BYTES")]
    max_bodies: usize,
    /// Seconds in which an answer has to be complete, waiting included, and as many in which its client has to take it.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Seconds in which a client has to send a head, and a body; and in which it has to take some of an answer.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    client_timeout: u64,
    #[command(flatten)]
    phases: PhaseArgs,
    #[command(flatten)]
    passes: PassArgs,
    #[command(flatten, next_help_heading = "Device and threads")]
    compute: ComputeArgs,
}

/// An address, or the name that this machine has for itself.
fn address(text: &str) -> std::result::Result<IpAddr, std::net::AddrParseError> {
    if text == "localhost" { Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { text.parse() }
}

const EXAMPLES: &str = "\
Examples:
  # The built-in model, which has no chat template of its own
  esolm serve --template chatml
  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' \\
    -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 40}'
  # On all addresses, with a key
  ESOLM_API_KEY=secret esolm serve -m model.gguf --host 0.0.0.0 --parallel 16
  # A WeDLM, its window as large as pays
  esolm serve -m wedlm.gguf --window auto";

pub fn run(args: &Args) -> Result<ExitCode> {
    let model = args.model.open(&args.compute.device)?;
    let has_template = model.metadata_value(esolm::ChatTemplate::KEY).is_some();
    let format = match args.template.format(&model) {
        Ok(format) => Some(format),
        Err(error @ (Error::OutOfMemory(_) | Error::Internal(_))) => return Err(error),
        Err(error) if args.template.template.is_some() => return Err(error),
        // Without chats there are completions.
        Err(error) => {
            if has_template {
                tell(&format!("esolm: no chats, --template chatml or FILE has some: {error}"));
            }
            None
        }
    };
    // Streaming needs it; so do stop strings.
    if !model.tokenizer()?.can_stream() {
        return Err(Error::Unsupported("this model's tokenizer cannot make text token by token".into()));
    }
    let places = usize::from(args.parallel);
    let own = ContextParams {
        sequences: places,
        length: args.length,
        batch_rows: args.batch_rows,
        prompt_rows: args.prompt_rows,
        ..args.compute.context_params()
    };
    let mut context = args.compute.context(&model, &own)?;
    args.passes.tell_overhead(&mut context)?;
    let params = params(args, &mut context)?;
    let length = context.length();
    let (engine, thread) = Engine::start(context, params, places, args.queue, args.max_unread)?;
    let name = args.name.clone().unwrap_or_else(|| name_of(args, &model));
    let (timeout, patience) = (Duration::from_secs(args.timeout), Duration::from_secs(args.client_timeout));
    let limits = Limits { length, timeout, patience };
    // One that is as long as it may be is never refused for being alone.
    let most = args.max_bodies.max(args.max_body);
    let bodies = Bodies { longest: args.max_body, most, patience, held: HeldBytes::default() };
    let service = Service::new(engine, model, format, name, keys(args)?, limits, bodies);
    server::run(SocketAddr::new(args.host, args.port), service)?;
    // The last request is answered, or its client has left: so the thread ends, too.
    if thread.join().is_err() {
        tell("esolm: the thread that computes has panicked; please report it");
        return Ok(ExitCode::from(crate::exit_code::RUNTIME));
    }
    Ok(ExitCode::SUCCESS)
}

/// How the texts of all requests are written: refused now, and not with each request.
fn params(args: &Args, context: &mut Context) -> Result<GenerateParams<'static>> {
    let adaptive = args.passes.parse()?;
    args.phases.check(adaptive.map(|_| WINDOW), context.model().config().variant)?;
    let params = args.phases.apply(GenerateParams {
        adaptive,
        lookahead: args.passes.lookahead,
        step_text: true,
        ..GenerateParams::default()
    });
    let prompt = shortest_prompt(context.model().config())?;
    check_params(context, &prompt, &params)?;
    Ok(params)
}

fn keys(args: &Args) -> Result<Vec<String>> {
    let mut keys = args.keys.clone();
    if keys.is_empty() {
        keys.extend(std::env::var("ESOLM_API_KEY").ok().filter(|key| !key.is_empty()));
    }
    match keys.iter().any(|key| key.trim().is_empty()) {
        true => Err(Error::InvalidArgument("--api-key: an empty key".into())),
        false => Ok(keys),
    }
}

/// The model's own name, or that of its file.
fn name_of(args: &Args, model: &Model) -> String {
    let own =
        model.metadata_value("general.name").and_then(|name| name.as_str()).filter(|name| !name.is_empty());
    let file = || {
        let path = args.model.name().ok().flatten()?;
        Some(path.file_stem()?.to_string_lossy().into_owned())
    };
    own.map(str::to_owned).or_else(file).unwrap_or_else(|| "esolm".into())
}
