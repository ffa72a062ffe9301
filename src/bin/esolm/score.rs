//! `esolm score`: how likely a text is.

use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use esolm::config::Variant;
use esolm::{Context, ContextParams, Error, Estimate, Model, Result, ScoreParams, TextScore};
use serde_json::json;

use crate::model_file::{ComputeArgs, ModelArgs, read_text};
use crate::progress;

const HELP: &str = "\
The text is cut into windows of the model's length (--length for less), one after the other, and each is scored by \
itself, as in training: its first token is given nothing. A text ends with <|endoftext|> only where it is written.

In an order:
  Every token given those before it in the order: from left to right, or with --orders K in K random orders, \
log p(text) >= log of the mean probability over them (importance-weighted bound). Costs two rows of the network for \
each token and order.

At alpha_0:
  The bound that the model is trained on: a share alpha_0 of the tokens by diffusion, averaged over times, the rest \
from left to right. --alpha0 1 is the diffusion bound (NELBO) alone. Costs a row for each token and draw, and two more \
if alpha_0 is below 1. +- is the standard error of the draws.

Examples:
  # From left to right, and the bound at the alpha_0 of training
  esolm score story.txt
  esolm score story.txt --orders 16 --draws 0
  esolm score story.txt --alpha0 1 --draws 32
  # With the log-probability of each token
  esolm score story.txt --json";

/// Tell how likely a text is.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A text file (UTF-8); `-` reads standard input.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    file: String,
    /// The order in which tokens become known: ltr (left to right), or random. Random if --orders is above 1, otherwise ltr.
    #[arg(long, value_parser = ["ltr", "random"], value_name = "ORDER")]
    order: Option<String>,
    /// Score in this many orders, of which more than one are random; 0 leaves this out. 1 if not given, 0 for MDLM.
    #[arg(long, value_name = "K")]
    orders: Option<usize>,
    /// Share of diffusion in the bound, 0 to 1; what the model was trained with if not given, 1 if it does not say.
    #[arg(long, value_name = "A")]
    alpha0: Option<f64>,
    /// Amounts of noise (times of the diffusion) drawn for each window's bound; 0 for no bound. 8 if not given, 0 for
    /// autoregressive models.
    #[arg(long, value_name = "N")]
    draws: Option<usize>,
    /// Tokens of a window; the model's context length if not given.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "LEN")]
    length: usize,
    /// Windows to score, from the beginning; all if not given, or 0.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    windows: usize,
    /// Chooses orders, times and masks.
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Print one JSON object, with the log-probability of each token.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let model = args.model.open(&args.compute.device)?;
    let params = params(args, &model)?;
    let text = read_text(&args.file)?;
    let tokenizer = model.tokenizer()?;
    let context_params = ContextParams { length: args.length, ..args.compute.context_params() };
    let mut context = Context::new(&model, &context_params)?;
    let mut tokens = tokenizer.encode(&text)?;
    let mut bytes = text.len();
    if args.windows > 0 && tokens.len() > args.windows.saturating_mul(context.length()) {
        tokens.truncate(args.windows * context.length());
        bytes = tokenizer.decode(&tokens)?.len();
    }
    let score = progress::of_items("windows", |show| {
        context.score_text(&tokens, &params, |done, all| {
            show(done, all);
            ControlFlow::Continue(())
        })
    })?;
    let report = if args.json {
        json(&score, &params, &tokens, bytes)
    } else {
        table(&score, &params, &tokens, bytes, context.length())
    };
    crate::print(&report)?;
    Ok(ExitCode::SUCCESS)
}

/// What is scored: what was asked for, and without a word what the variant can do.
fn params(args: &Args, model: &Model) -> Result<ScoreParams> {
    let config = model.config();
    let orders = args.orders.unwrap_or(usize::from(config.variant != Variant::Mdlm || args.order.is_some()));
    let random_order = args.order.as_deref().map_or(orders > 1, |order| order == "random");
    let draws = args.draws.unwrap_or(match config.variant {
        Variant::Ar if args.alpha0.is_none() => 0,
        _ => 8,
    });
    let trained = if config.variant == Variant::Mdlm { 1.0 } else { config.train_alpha_0.unwrap_or(1.0) };
    let alpha_0 = args.alpha0.unwrap_or(f64::from(trained));
    match orders + draws {
        0 => Err(Error::InvalidArgument("neither orders nor draws: nothing to do".into())),
        _ => Ok(ScoreParams { orders, random_order, draws, alpha_0, seed: args.seed }),
    }
}

fn order_name(params: &ScoreParams) -> String {
    match (params.random_order, params.orders) {
        (false, _) => "left to right".into(),
        (true, 1) => "in a random order".into(),
        (true, orders) => format!("in {orders} random orders"),
    }
}

fn table(score: &TextScore, params: &ScoreParams, tokens: &[u32], bytes: usize, length: usize) -> String {
    let count = tokens.len() as f64;
    let windows = tokens.len().div_ceil(length);
    let mut out = format!("{} tokens, {bytes} bytes, {windows} windows\n", tokens.len());
    let mut line = |name: &str, nats: f64, error: Option<f64>, whole: bool| {
        // One draw for one window has no error that could be known.
        let error = error.filter(|e| e.is_finite());
        let error = error.map_or(String::new(), |e| format!(" +- {:.4}", e / count));
        out += &format!("{name:26} {:.4}{error} nats per token", nats / count);
        if whole {
            let (perplexity, bits) = ((nats / count).exp(), nats / std::f64::consts::LN_2 / bytes as f64);
            out += &format!(", perplexity {perplexity:.2}, {bits:.4} bits per byte, NLL {nats:.1}");
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

fn json(score: &TextScore, params: &ScoreParams, tokens: &[u32], bytes: usize) -> String {
    let count = tokens.len() as f64;
    let nats = |nats: f64| {
        json!({ "nll": nats, "nll_per_token": nats / count, "perplexity": (nats / count).exp(),
                "bits_per_byte": nats / std::f64::consts::LN_2 / bytes as f64 })
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
    format!("{report}\n")
}
