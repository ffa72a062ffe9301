//! `esolm evaluate`: how good the texts are that a model writes.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use esolm::evaluate::samples::{Judge, SampleParams, SampleQuality, Samples, draw, windows};
use esolm::{
    Config, ContextParams, Error, Feature, GenerateParams, Model, Result, ScoreParams, Tokenizer, Variant,
};
use serde_json::{Value, json};

use crate::args::{ComputeArgs, JsonFileArgs, WindowArgs};
use crate::generation_args::GenerationArgs;
use crate::input::{read_text, tokenizer};
use crate::model_args::ModelArgs;
use crate::model_file::model_file;
use crate::output::short;
use crate::phase_args::check_phases;
use crate::plot::{Axis, Plot, Point, Series};
use crate::progress;
use crate::prompt_args::{PromptArgs, check_first_token, check_params};
use crate::sampling_args::SamplingArgs;

const HELP: &str = "\
For every pair of --alpha0 and --steps, samples are drawn without a prompt (or behind one: -p, -f), scored left to right by \
the judge, and counted. Every token counts, those after <|endoftext|>, too, but for a first one that the judge has to be \
given. At alpha_0 = 0 there is one row: steps are of diffusion.

  passes     passes through the network per text (steps that write something)
  ppl        generative perplexity: of the samples under the judge
  NLL        its logarithm, in nats per token, with the standard error over the samples
  bound      with --draws: bound of the judge at this alpha_0, in nats per token
  entropy    of the token counts of a sample, in nats: falls when a text repeats itself
  dist-N     fraction of different N-grams in a sample, mean over samples
  tokens/s   speed on this machine, of a whole batch

The perplexity is e^NLL, and at most e^bound. A low one is good only while entropy and dist-N are those of real text: --text \
FILE adds their row.

Examples:
  # The default model beside real text
  esolm evaluate --alpha0 0,1 --text heldout.txt --plot out.svg
  # Another model as the judge
  esolm evaluate -m model.gguf --judge larger.gguf --samples 100 --json";

const PROMPT_HELP: &str = "\
Prompt that each text begins with; it counts in all measures. `-` reads it from standard input, without the newline at its end; \
so it is without -p and -f if something is piped in. Default: no prompt";
const FILE_HELP: &str = "File with the prompt (UTF-8), without the newline at its end; `-` is standard input";
const IDS_HELP: &str = "\
Prompt as token ids, such as \"50256 464\" or [50256, 464]; for a model without a tokenizer, too. `-` reads them from standard \
input";

/// Measure the texts that a model writes: generative perplexity, entropy, distinct n-grams.
#[derive(clap::Args)]
#[command(after_help = HELP, mut_arg("prompts", |prompt| prompt.help(PROMPT_HELP)), mut_arg("files", |file| file.help(FILE_HELP)))]
#[command(mut_arg("prompt_ids", |ids| ids.help(IDS_HELP)))]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Model file that scores the texts, with the same or another tokenizer. Default: the model itself.
    #[arg(long, value_name = "FILE")]
    judge: Option<PathBuf>,
    /// Fractions of the tokens written by diffusion, 0 to 1. Default: 0,0.25,0.5,0.75,1; with --adaptive or --window 1, with a
    /// grammar 0 (1 with --steps or --schedule); of WeDLM 1, or 0 with --lookahead.
    #[arg(long, value_delimiter = ',', value_name = "A,..")]
    alpha0: Vec<f64>,
    /// Numbers of diffusion steps, unless --schedule, --adaptive, --window or a strided --order says how many tokens each writes.
    /// Default: 16,64,256.
    #[arg(long, value_delimiter = ',', value_name = "T,..")]
    steps: Vec<usize>,
    /// Number of texts of each row.
    #[arg(long, default_value_t = SampleParams::default().samples, value_name = "N")]
    samples: usize,
    /// Number of texts generated in parallel. The texts depend on it.
    #[arg(long, default_value_t = SampleParams::default().batch, value_name = "B")]
    batch: usize,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    window: WindowArgs,
    /// Number of diffusion times drawn per text for the bound; 0 = no bound.
    #[arg(long, default_value_t = 0, value_name = "N")]
    draws: usize,
    /// Also measure windows of this text, as many as --samples, to compare with; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    text: Option<String>,
    #[command(flatten, next_help_heading = "Sampling")]
    sampling: SamplingArgs,
    #[command(flatten, next_help_heading = "Device and threads")]
    compute: ComputeArgs,
    #[command(flatten, next_help_heading = "Output")]
    json: JsonFileArgs,
    /// Also plot perplexity against passes to this file as SVG, a line for each alpha_0, overwriting it.
    #[arg(long, value_name = "OUT.svg", help_heading = "Output")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    generation: GenerationArgs,
}

/// Fractions written by diffusion, unless they are given.
const ALPHAS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// Numbers of diffusion steps, unless they are given.
const STEPS: [usize; 3] = [16, 64, 256];

/// One row: where the texts come from, and their measures.
struct Row {
    alpha_0: f64,
    /// Of diffusion, if their number matters.
    steps: Option<usize>,
    samples: Samples,
    quality: SampleQuality,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let model = args.model.name()?;
    let text = args.text.as_ref().map(PathBuf::from);
    let inputs = [&model, &args.judge, &text].into_iter().flatten().map(PathBuf::as_path);
    let inputs: Vec<_> = inputs.chain(args.prompt.files()).chain(args.generation.files()).collect();
    args.json.check(args.plot.as_deref(), &inputs)?;
    let model = args.model.open(&args.compute.device)?;
    let judge = match &args.judge {
        Some(path) => Model::open(model_file(path)?, &args.compute.load_options())?,
        None => model.clone(),
    };
    for (wanted, feature, how) in [
        (true, Feature::ScoreOrder, "texts left to right"),
        (args.draws > 0, Feature::ScoreDiffusion, "by diffusion (--draws)"),
    ] {
        if wanted && !judge.supports(feature) {
            let what = format!("the judge (--judge; by default the model itself) cannot score {how}");
            return Err(Error::Unsupported(what));
        }
    }
    let settings = settings(args, model.config())?;
    args.window.seed.tell_if_random();
    // Before the prompt: what these options read from standard input is none.
    let options = args.generation.parse(&model)?;
    let text = args.text.as_deref().map(read_text).transpose()?;
    let (mut prompts, own_length) = args.prompt.read(&model, false)?;
    check_first_token(&model, &prompts)?;
    if prompts.len() > 1 {
        return Err(Error::InvalidArgument("several prompts; all texts begin with the same one".into()));
    }
    let prompt = prompts.pop().unwrap_or_default();
    // A template says how long the texts are.
    let (length, batch) = (args.window.length.max(own_length), args.batch);
    let params = ContextParams { length, sequences: batch, ..args.compute.context_params() };
    let mut context = args.compute.context(&model, &params)?;
    args.generation.passes.tell_overhead(&mut context)?;
    if prompt.known.len() >= context.length() {
        return Err(Error::InvalidArgument(format!(
            "a prompt of {} tokens, and a text has {}: there is nothing to write (see --length)",
            prompt.known.len(),
            context.length()
        )));
    }
    let sampling = args.sampling.params()?;
    let generate = |&(alpha_0, steps): &(f64, Option<usize>)| {
        options.apply(GenerateParams {
            alpha_0,
            steps: steps.unwrap_or_default(),
            sampling,
            seed: args.window.seed.value,
            ..GenerateParams::default()
        })
    };
    // The last row is refused now, too, and not when the others are done.
    settings.iter().try_for_each(|setting| check_params(&mut context, &prompt, &generate(setting)))?;
    let mut judge = Judge::new(args.compute.context(&judge, &args.compute.context_params())?, &model)?;
    // A model without a tokenizer writes tokens only.
    let tokenizer = tokenizer(&model)?;
    let text = match &text {
        Some(text) => windows(&model.tokenizer()?.encode_corpus(text)?, context.length(), args.samples)?,
        None => vec![],
    };
    if args.text.is_some() && text.is_empty() {
        return Err(Error::InvalidArgument(format!(
            "--text: shorter than one text of {} tokens",
            context.length()
        )));
    }
    let (rows, text) = progress::of_items("texts", |show| {
        // Each text is drawn, and then scored.
        let all = 2 * settings.len() * args.samples + text.len();
        let mut done = 0;
        let mut step = |within: usize, of: usize| {
            show(done + within, all);
            done += if within == of { of } else { 0 };
            ControlFlow::Continue(())
        };
        let mut rows = Vec::with_capacity(settings.len());
        for setting @ &(alpha_0, steps) in &settings {
            let generate = generate(setting);
            let params = SampleParams { samples: args.samples, batch, prompt: prompt.clone(), generate };
            let samples = draw(&mut context, &params, |n| step(n, args.samples))?;
            let quality =
                judge.measure(&samples.tokens, &score_params(args, alpha_0), |n| step(n, args.samples))?;
            rows.push(Row { alpha_0, steps, samples, quality });
        }
        let score = ScoreParams { draws: 0, ..score_params(args, 0.0) };
        let measure = |text: &Vec<_>| judge.measure(text, &score, |n| step(n, text.len()));
        Ok::<_, Error>((rows, Some(text).filter(|text| !text.is_empty()).as_ref().map(measure).transpose()?))
    })?;
    let report = report(args, &model, tokenizer, &rows, text.as_ref())?;
    let plot = args.plot.as_ref().map(|path| (path, plot(args, &rows, text.as_ref())));
    args.json.show(&table(&rows, text.as_ref(), args.draws > 0), report, plot)?;
    Ok(ExitCode::SUCCESS)
}

/// The pairs of alpha_0 and steps to measure, without those that write the same texts again.
fn settings(args: &Args, config: &Config) -> Result<Vec<(f64, Option<usize>)>> {
    let variant = config.variant;
    if args.samples == 0 || args.batch == 0 {
        return Err(Error::InvalidArgument("--samples and --batch must be at least 1".into()));
    }
    check_phases(&args.alpha0, &args.steps, args.generation.in_place_of_steps(), variant)?;
    // As a generation takes it, to which these mean diffusion.
    let has_steps = !args.steps.is_empty() || args.generation.in_place_of_steps().is_some();
    let usual = match variant {
        Variant::Ar => &[0.0][..],
        _ if config.diffusion_only || args.generation.is_adaptive() => &[1.0],
        Variant::WeDlm if args.generation.looks_ahead() => &[0.0],
        Variant::EsoA | Variant::EsoB | Variant::WeDlm if args.generation.has_grammar() => match has_steps {
            true => &[1.0],
            false => &[0.0],
        },
        Variant::Mdlm | Variant::Bd3Lm | Variant::WeDlm => &[1.0],
        Variant::EsoA | Variant::EsoB => &ALPHAS,
    };
    let alphas = if args.alpha0.is_empty() { usual } else { &args.alpha0 };
    let steps = if args.steps.is_empty() { STEPS.as_slice() } else { &args.steps };
    let steps: Vec<_> = steps.iter().map(|&steps| Some(steps)).collect();
    // A WeDLM slides a window.
    let counts = variant != Variant::WeDlm && args.generation.in_place_of_steps().is_none();
    let steps = |alpha_0: f64| if counts && alpha_0 > 0.0 { steps.as_slice() } else { &[None] };
    let rows: Vec<_> =
        alphas.iter().flat_map(|&alpha_0| steps(alpha_0).iter().map(move |&s| (alpha_0, s))).collect();
    if !args.steps.is_empty() && rows.iter().all(|(_, steps)| steps.is_none()) {
        return Err(Error::InvalidArgument(
            "--steps has no effect: no row has diffusion steps (an alpha_0 of 0 writes one token a step)"
                .into(),
        ));
    }
    Ok(rows)
}

/// Left to right, and with --draws the bound.
fn score_params(args: &Args, alpha_0: f64) -> ScoreParams {
    ScoreParams { draws: args.draws, alpha_0, seed: args.window.seed.value, ..ScoreParams::default() }
}

/// The results as a Markdown table.
fn table(rows: &[Row], text: Option<&SampleQuality>, bound: bool) -> String {
    let (title, line) = if bound { ("   bound |", "--------:|") } else { ("", "") };
    let mut out = format!(
        "| alpha_0 | steps | passes |    ppl |     NLL (error) |{title} entropy | dist-1 | dist-2 | dist-3 | tokens/s |\n\
         |--------:|------:|-------:|-------:|----------------:|{line}--------:|-------:|-------:|-------:|---------:|\n"
    );
    let measures = |q: &SampleQuality| {
        // A single text has no standard error.
        let error = q.nll.standard_error;
        let error = if error.is_finite() { format!("{error:.3}") } else { "?".into() };
        let bound = if bound { format!(" {:7.3} |", q.bound.mean) } else { String::new() };
        let [one, two, three] = q.distinct;
        format!(
            "{:6.2} | {:7.3} ({error:>5}) |{bound} {:7.3} | {one:6.3} | {two:6.3} | {three:6.3} |",
            q.perplexity(),
            q.nll.mean,
            q.entropy,
        )
    };
    for row in rows {
        let steps = row.steps.map_or(String::new(), |steps| steps.to_string());
        out += &format!(
            "| {:7} | {steps:>5} | {:6.1} | {} {:8.0} |\n",
            row.alpha_0,
            row.samples.passes,
            measures(&row.quality),
            row.samples.tokens_per_second
        );
    }
    if let Some(text) = text {
        let text = SampleQuality { bound: esolm::Estimate { mean: f64::NAN, ..text.bound }, ..*text };
        out +=
            &format!("|    text |       |        | {}          |\n", measures(&text).replace("NaN", "   "));
    }
    out
}

fn to_json(quality: &SampleQuality, draws: usize) -> Value {
    let mut value = json!({
        "samples": quality.samples, "tokens": quality.tokens, "perplexity": quality.perplexity(),
        "nll": quality.nll.mean, "nll_standard_error": quality.nll.standard_error,
        "entropy": quality.entropy, "distinct": quality.distinct,
    });
    if draws > 0 {
        value["bound"] = json!(quality.bound.mean);
        value["bound_perplexity"] = json!(quality.bound.mean.exp());
        value["bound_standard_error"] = json!(quality.bound.standard_error);
    }
    value
}

fn report(
    args: &Args,
    model: &Model,
    tokenizer: Option<&Tokenizer>,
    rows: &[Row],
    text: Option<&SampleQuality>,
) -> Result<Value> {
    let sampling = args.sampling.params()?.resolved(&model.config().generation_defaults());
    let row = |row: &Row| {
        let mut value = to_json(&row.quality, args.draws);
        value["alpha_0"] = json!(row.alpha_0);
        value["steps"] = json!(row.steps);
        value["passes"] = json!(row.samples.passes);
        value["tokens_per_second"] = json!(row.samples.tokens_per_second);
        value["token_ids"] = json!(row.samples.tokens);
        if let Some(tokenizer) = tokenizer {
            let texts = row.samples.tokens.iter().map(|tokens| tokenizer.decode(tokens));
            value["texts"] = json!(texts.collect::<Result<Vec<_>>>()?);
        }
        Ok(value)
    };
    let mut report = json!({
        "seed": args.window.seed.value, "batch": args.batch, "temperature": short(sampling.temperature),
        "top_p": short(sampling.top_p), "top_k": sampling.top_k,
        "min_p": short(sampling.min_p), "typical_p": short(sampling.typical_p),
        "top_n_sigma": short(sampling.top_n_sigma),
        "rows": rows.iter().map(row).collect::<Result<Vec<_>>>()?,
    });
    if let Some(text) = text {
        report["text"] = to_json(text, 0);
    }
    Ok(report)
}

/// Perplexity against passes, a line for each alpha_0.
fn plot(args: &Args, rows: &[Row], text: Option<&SampleQuality>) -> Plot {
    // More of them would cover the points.
    let are_labelled = rows.len() <= 15;
    let mut series: Vec<Series> = Vec::new();
    for run in rows.chunk_by(|a, b| a.alpha_0 == b.alpha_0) {
        let mut points: Vec<Point> = run
            .iter()
            .map(|row| {
                let label = match row.steps {
                    Some(steps) if are_labelled => format!("T = {steps}"),
                    _ => String::new(),
                };
                Point { x: row.samples.passes, y: row.quality.perplexity(), label }
            })
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        let name = run.first().map_or(String::new(), |row| format!("alpha_0 = {}", row.alpha_0));
        series.push(Series { name, points, line: true });
    }
    let text = text.map_or(String::new(), |text| format!("; real text has {:.1}", text.perplexity()));
    let steps: BTreeSet<usize> = rows.iter().filter_map(|row| row.steps).collect();
    let steps: Vec<String> = steps.iter().map(usize::to_string).collect();
    let steps = match steps.join(", ") {
        none if none.is_empty() => none,
        steps => format!(", T (diffusion steps) = {steps}"),
    };
    Plot {
        title: "Perplexity of samples against passes".into(),
        note: format!("seed {}, {} texts a point{steps}{text}", args.window.seed.value, args.samples),
        x: Axis { label: "passes through the network per text".into(), log: true },
        y: Axis { label: "generative perplexity".into(), log: true },
        series,
    }
}
