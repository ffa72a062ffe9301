//! `esolm score`: the likelihood of a text.

mod windows;

use std::path::Path;
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use esolm::{ContextParams, Error, Estimate, Model, Result, ScoreParams, TextScore, Tokenizer, Variant};
use serde_json::{Value, json};

use crate::args::{ComputeArgs, JsonArgs, WindowArgs};
use crate::input::{no_tokenizer, parse_ids, read_text, tokenizer};
use crate::model_args::{ModelArgs, is_model};
use crate::output::{check_outputs, print, print_json};
use crate::progress;
use windows::ShardArgs;

const HELP: &str = "\
The text is cut into consecutive windows of --length tokens, and each is scored on its own, without the text before it, \
as in training. No <|endoftext|> is added. The first token of a window is given to a model that was trained without a token \
before the text, and has no score.

Likelihood in an order:
  The probability of each token given the tokens before it in the order: left to right, or K random orders with \
--orders K. For K orders, the log of the mean probability is a lower bound of log p(text) (importance-weighted bound). \
Evaluates two rows of the network per token and order.

Bound at alpha_0:
  The bound on the likelihood that the model is trained on: a fraction alpha_0 of the tokens by diffusion, averaged over \
diffusion times, the rest left to right. --alpha0 1 is the diffusion bound (NELBO) alone. Evaluates one row per token and \
draw, and two more per token if alpha_0 is below 1. +- is the standard error over the draws.

Examples:
  # Left to right, and the bound at the alpha_0 of training
  esolm score story.txt
  esolm score story.txt --orders 16 --draws 0
  esolm score story.txt --alpha0 1 --draws 32
  # Another model
  esolm score model.gguf story.txt
  # Token ids in place of a text
  esolm tokenize - <story.txt | esolm score - --ids
  # With the log-probability of each token
  esolm score story.txt --json
  # The second of four parts of a long text, a line for each window
  esolm score corpus.txt --shard 2/4 -o scores-2.jsonl";

/// Compute the likelihood and perplexity of a text.
#[derive(clap::Args)]
#[command(after_help = HELP, allow_missing_positional = true)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text file (UTF-8); `-` reads standard input.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    file: String,
    /// The file has token ids in place of a text, separated by white space or commas, as `esolm tokenize` prints them. For a
    /// model without a tokenizer, too.
    #[arg(long)]
    ids: bool,
    /// Order of the tokens: ltr (left to right) or random. Default: random if --orders is above 1, else ltr.
    #[arg(long, value_parser = ["ltr", "random"], value_name = "ORDER")]
    order: Option<String>,
    /// Number of orders; more than one must be random; 0 = no likelihood in an order. Default: 1, for models that diffuse only
    /// (MDLM, BD3-LM) 0.
    #[arg(long, value_name = "K")]
    orders: Option<usize>,
    /// Fraction of diffusion in the bound, 0 to 1. Default: the alpha_0 that the model was trained with, 1 if its file does
    /// not say.
    #[arg(long, value_name = "A")]
    alpha0: Option<f64>,
    /// Number of diffusion times (noise levels) drawn per window for the bound; 0 = no bound. Default: 8, for autoregressive
    /// models 0.
    #[arg(long, value_name = "N")]
    draws: Option<usize>,
    #[command(flatten)]
    window: WindowArgs,
    /// Number of windows to score, from the beginning of the text. Default, or 0: all.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    windows: usize,
    #[command(flatten, next_help_heading = "Many windows")]
    shard: ShardArgs,
    #[command(flatten, next_help_heading = "Device and threads")]
    compute: ComputeArgs,
    #[command(flatten, next_help_heading = "Output")]
    json: JsonArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.model.file.first.is_none() && is_model(Path::new(&args.file)) {
        return Err(Error::InvalidArgument(format!(
            "no text given: '{}' names a model; name a text file behind it, or - for standard input",
            args.file
        )));
    }
    args.shard.check(args.window.seed)?;
    let name = args.model.name()?;
    let inputs = [name.as_deref(), (args.file != "-").then_some(Path::new(&args.file))];
    check_outputs(&[args.shard.output()], &inputs.into_iter().flatten().collect::<Vec<_>>())?;
    let model = args.model.open(&args.compute.device)?;
    let params = params(args, &model)?;
    args.window.seed.tell_if_random();
    let text = read_text(&args.file)?;
    let tokenizer = tokenizer(&model)?;
    let mut tokens = match &tokenizer {
        _ if args.ids => parse_ids(&text, &model)?,
        Some(tokenizer) => tokenizer.encode_corpus(&text)?,
        None => return Err(no_tokenizer("--ids")),
    };
    let context_params = ContextParams { length: args.window.length, ..args.compute.context_params() };
    let mut context = args.compute.context(&model, &context_params)?;
    let all = tokens.len();
    if args.windows > 0 {
        tokens.truncate(args.windows.saturating_mul(context.length()));
    }
    let bytes = match tokenizer {
        _ if !args.ids && tokens.len() == all => Some(text.len()),
        Some(tokenizer) => Some(tokenizer.decode(&tokens)?.len()),
        None => None,
    };
    let windows = tokens.len().div_ceil(context.length());
    let given = model.config().given_tokens();
    if tokens.len() == given * windows && given > 0 {
        let what = "the first token of a text is given to this model; there is no other to score";
        return Err(Error::InvalidArgument(what.into()));
    }
    if args.shard.is_given() {
        windows::write(&args.shard, &mut context, &tokens, &params, |window, score, params| {
            let bytes =
                tokenizer.map(|tokenizer| tokenizer.decode(window)).transpose()?.map(|text| text.len());
            let scored_bytes = scored_bytes(tokenizer, bytes, [window].into_iter(), given)?;
            Ok(report(score, params, &Text { tokens: window, bytes, scored_bytes, windows: 1 }))
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let score = progress::of_windows(|show| context.score_text(&tokens, &params, show))?;
    let each = tokens.chunks(context.length());
    let scored_bytes = scored_bytes(tokenizer, bytes, each, given)?;
    let text = Text { tokens: &tokens, bytes, scored_bytes, windows };
    if args.json.json {
        print_json(report(&score, &params, &text))?;
    } else {
        print(table(&score, &params, &text))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The bytes of the tokens that have a probability: without the first `given` of each window.
fn scored_bytes(
    tokenizer: Option<&Tokenizer>,
    bytes: Option<usize>,
    windows: impl Iterator<Item = impl AsRef<[u32]>>,
    given: usize,
) -> Result<Option<usize>> {
    let (Some(tokenizer), Some(mut bytes)) = (tokenizer, bytes) else { return Ok(bytes) };
    for window in windows {
        for &token in window.as_ref().iter().take(given) {
            bytes = bytes.saturating_sub(tokenizer.token_piece(token)?.map_or(0, |piece| piece.len()));
        }
    }
    Ok(Some(bytes).filter(|&bytes| bytes > 0))
}

/// A text that was scored.
struct Text<'a> {
    tokens: &'a [u32],
    /// Its length as text, if that is known.
    bytes: Option<usize>,
    /// That of the tokens that have a probability, if there are any.
    scored_bytes: Option<usize>,
    windows: usize,
}

/// What to compute: what the options say, and by default what the variant of the model can do.
fn params(args: &Args, model: &Model) -> Result<ScoreParams> {
    let config = model.config();
    let orders = args.orders.unwrap_or(usize::from(config.has_sequential_phase() || args.order.is_some()));
    let random_order = args.order.as_deref().map_or(orders > 1, |order| order == "random");
    let draws = args.draws.unwrap_or(match config.variant {
        Variant::Ar | Variant::WeDlm if args.alpha0.is_none() => 0,
        _ => 8,
    });
    let trained = config.train_alpha_0.filter(|_| config.has_sequential_phase()).unwrap_or(1.0);
    let alpha_0 = args.alpha0.unwrap_or(f64::from(trained));
    if orders == 0 && draws == 0 {
        return Err(Error::InvalidArgument("neither orders nor draws: nothing to do".into()));
    }
    Ok(ScoreParams { orders, random_order, draws, alpha_0, seed: args.window.seed.value })
}

fn order_name(params: &ScoreParams) -> String {
    match (params.random_order, params.orders) {
        (false, _) => "left to right".into(),
        (true, 1) => "in a random order".into(),
        (true, orders) => format!("in {orders} random orders"),
    }
}

fn table(score: &TextScore, params: &ScoreParams, text: &Text<'_>) -> String {
    let &Text { tokens, bytes, scored_bytes, windows } = text;
    let count = score.scored_tokens as f64;
    let of_bytes = bytes.map_or(String::new(), |bytes| format!(" {bytes} bytes,"));
    let plural = if windows == 1 { "" } else { "s" };
    let mut out = format!("{} tokens,{of_bytes} {windows} window{plural}\n", tokens.len());
    let mut line = |name: &str, nats: f64, error: Option<f64>, of_text: bool| {
        // One draw for one window has no standard error.
        let error = error.filter(|e| e.is_finite());
        let error = error.map_or(String::new(), |e| format!(" +- {:.4}", e / count));
        out += &format!("{name:26} {:.4}{error} nats per token", nats / count);
        if of_text {
            let bits = scored_bytes.map(|bytes| format!(", {:.4} bits per byte", bits_per_byte(nats, bytes)));
            let (perplexity, bits) = (perplexity(nats, count), bits.unwrap_or_default());
            out += &format!(", perplexity {perplexity:.2}{bits}, NLL {nats:.1}");
        }
        out += "\n";
    };
    if params.orders > 0 {
        line(&order_name(params), score.nll, None, true);
    }
    if params.draws > 0 {
        let Estimate { mean, standard_error } = score.bound.total();
        line(&format!("bound at alpha_0 = {}", params.alpha_0), mean, Some(standard_error), true);
        let parts = [("  diffusion", score.bound.diffusion), ("  left to right", score.bound.sequential)];
        for (name, part) in parts {
            line(name, part.mean, Some(part.standard_error), false);
        }
    }
    out
}

fn perplexity(nats: f64, tokens: f64) -> f64 {
    (nats / tokens).exp()
}

fn bits_per_byte(nats: f64, bytes: usize) -> f64 {
    nats / std::f64::consts::LN_2 / bytes as f64
}

fn report(score: &TextScore, params: &ScoreParams, text: &Text<'_>) -> Value {
    let &Text { tokens, bytes, scored_bytes, .. } = text;
    let count = score.scored_tokens as f64;
    let nats = |nats: f64| {
        json!({ "nll": nats, "nll_per_token": nats / count, "perplexity": perplexity(nats, count),
                "bits_per_byte": scored_bytes.map(|bytes| bits_per_byte(nats, bytes)) })
    };
    let estimate = |e: Estimate| {
        let mut value = nats(e.mean);
        value["standard_error_per_token"] = json!(e.standard_error / count);
        value
    };
    let mut report = json!({ "tokens": tokens, "bytes": bytes, "seed": params.seed });
    if params.orders > 0 {
        report["order"] = json!(if params.random_order { "random" } else { "ltr" });
        report["orders"] = json!(params.orders);
        report["log_probabilities"] = json!(score.tokens);
        report["in_order"] = nats(score.nll);
    }
    if params.draws > 0 {
        report["alpha_0"] = json!(params.alpha_0);
        report["draws"] = json!(params.draws);
        report["bound"] = estimate(score.bound.total());
        report["diffusion"] = estimate(score.bound.diffusion);
        report["sequential"] = estimate(score.bound.sequential);
    }
    report
}
