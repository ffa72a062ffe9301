//! `esolm generate --count`: many texts, a line of JSON for each, by one process or by several that share them.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use esolm::{Context, Error, GenerateParams, Prompt, Result, StopReason};
use serde_json::json;

use crate::allocation::formatted;
use crate::exit_code::INTERRUPTED;
use crate::input::tokenizer;
use crate::line_file::LineFile;
use crate::output::{has_reader, json_line, tell};
use crate::progress;
use crate::seed::Seed;
use crate::shard::{Shard, seed_of};
use crate::signals::CancelOnInterrupt;

/// The options as they are written on the command line.
#[derive(clap::Args)]
pub struct ManyArgs {
    /// Number of texts to generate, with a line of JSON for each. A text depends on the seed and its own number only, not on
    /// --batch, the number of texts side by side. Several prompts take turns.
    #[arg(long, value_name = "N", conflicts_with_all = ["state", "watch", "plot", "json"])]
    count: Option<u64>,
    /// With --count: only each K-th text, from the I-th on. K processes, on any machines, write all of them. Needs --seed.
    #[arg(long, value_name = "I/K", requires_all = ["count", "seed"])]
    shard: Option<Shard>,
    /// With --count: append the lines to this file. Texts that it has are not generated again, but for
    /// the last few, which have to come out the same, and one whose line is cut. Needs --seed.
    #[arg(short, long, value_name = "FILE", requires_all = ["count", "seed"])]
    output: Option<PathBuf>,
}

impl ManyArgs {
    /// Whether many texts are asked for.
    pub fn is_given(&self) -> bool {
        self.count.is_some()
    }

    /// The file that lines go to.
    pub fn output(&self) -> Option<&Path> {
        self.output.as_deref()
    }

    /// How many of `batch` texts there are to write side by side.
    pub fn side_by_side(&self, batch: usize) -> usize {
        self.share().clamp(1, batch.max(1))
    }

    /// What is left to chance is another thing in each process: a seed, or a measured time.
    pub fn check(&self, seed: Option<Seed>, measures: bool) -> Result<()> {
        let wanted = match seed {
            _ if self.shard.is_none() && self.output.is_none() => return Ok(()),
            Some(seed) if seed.is_random() => "--seed other than -1",
            _ if measures => "--pass-overhead that is a number",
            _ => return Ok(()),
        };
        Err(Error::InvalidArgument(format!("--shard and --output need a {wanted}")))
    }

    /// How many texts there are to write.
    fn share(&self) -> usize {
        self.shard.unwrap_or(Shard::WHOLE).share(self.count.unwrap_or(0))
    }

    /// Their numbers.
    fn pieces(&self) -> impl Iterator<Item = u64> + Clone {
        self.shard.unwrap_or(Shard::WHOLE).pieces(self.count.unwrap_or(0))
    }
}

/// How many texts of a file are written once more to compare them.
const LEAST_AGAIN: usize = 4;
const MOST_AGAIN: usize = 16;

/// Writes the texts. Text `i` is of prompt `i` modulo their number, and has a seed of its own.
pub fn write(
    args: &ManyArgs,
    context: &mut Context,
    batch: usize,
    prompts: &[Prompt],
    params: &GenerateParams<'_>,
    quiet: bool,
) -> Result<ExitCode> {
    let pieces = args.pieces();
    let all = args.share();
    // A text of each prompt, since there may be other ones now; several, as a short one may come out the same.
    let again = prompts.len().clamp(LEAST_AGAIN, MOST_AGAIN);
    let numbers = pieces.clone().map(|i| (i, seed_of(params.seed, i)));
    let mut lines = LineFile::open(args.output(), numbers, again)?;
    let (found, done) = (lines.found(), lines.done());
    let cancel = context.cancel_token();
    let interrupt = CancelOnInterrupt::new(cancel.clone());
    let started = Instant::now();
    let written = progress::of_items("texts", |show| {
        let mut writer = Writer { context, prompts, params, running: BTreeMap::new(), tokens: 0, failed: 0 };
        let mut waiting = pieces.skip(done).peekable();
        // Lines come in the order of the texts: of those begun, which are finished and which not.
        let (mut begun, mut finished) = (VecDeque::new(), BTreeMap::new());
        let mut shown = done;
        show(shown, all);
        while !cancel.is_cancelled() && (waiting.peek().is_some() || !writer.running.is_empty()) {
            for index in waiting.by_ref().take(batch - writer.running.len()) {
                match writer.begin(index) {
                    Ok(()) => begun.push_back(index),
                    // The loop ends then.
                    Err(Error::Cancelled) => break,
                    Err(error) => return Err(error),
                }
            }
            match writer.step() {
                Ok(texts) => finished.extend(texts),
                Err(Error::Cancelled) => break,
                Err(error) => return Err(error),
            }
            if args.output().is_none() && !has_reader() {
                break;
            }
            while let Some(line) = begun.front().and_then(|index| finished.remove(index)) {
                begun.pop_front();
                shown += 1;
                show(shown, all);
                if !lines.write(&line)? {
                    return Ok((shown, writer.tokens, writer.failed));
                }
            }
        }
        Ok((shown, writer.tokens, writer.failed))
    });
    drop(interrupt);
    let ((shown, tokens, failed), seconds) = (written?, started.elapsed().as_secs_f64());
    lines.finish()?;
    if !quiet {
        let speed = tokens as f64 / seconds;
        let shown = shown.max(found);
        let of = if shown < all { format!("{shown} of ") } else { String::new() };
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        tell(&format!(
            "{of}{all} texts, {found} of them there before{failed}; {tokens} tokens, {seconds:.2} s ({speed:.0} tokens/s); seed {}",
            params.seed
        ));
    }
    Ok(if cancel.is_cancelled() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Texts that are written side by side.
struct Writer<'a> {
    context: &'a mut Context,
    prompts: &'a [Prompt],
    params: &'a GenerateParams<'a>,
    /// The number of the text of each sequence.
    running: BTreeMap<usize, u64>,
    /// Tokens written so far.
    tokens: usize,
    /// Texts that constraints left no token.
    failed: usize,
}

impl Writer<'_> {
    fn begin(&mut self, index: u64) -> Result<()> {
        let turn = index % (self.prompts.len().max(1) as u64);
        let none = Prompt::default();
        let prompt = self.prompts.get(turn as usize).unwrap_or(&none);
        let params = GenerateParams { seed: seed_of(self.params.seed, index), ..*self.params };
        let sequence = self.context.add_sequence(prompt, &params)?;
        self.running.insert(sequence, index);
        Ok(())
    }

    /// Runs a step, and returns the lines of the texts that are finished with it.
    fn step(&mut self) -> Result<Vec<(u64, String)>> {
        let failure = match self.context.step() {
            Ok(step) => {
                self.tokens += step.map_or(0, |step| step.updates.len());
                None
            }
            // Constraints left one of the texts no token; the others go on.
            Err(error @ Error::InvalidArgument(_)) => Some(error),
            Err(error) => return Err(error),
        };
        let mut lines = Vec::new();
        for (sequence, index) in self.running.clone() {
            let Some(reason) = self.context.stop_reason(sequence)? else { continue };
            self.failed += usize::from(reason == StopReason::Error);
            lines.push((index, self.line(sequence, index, reason)?));
            self.context.remove_sequence(sequence)?;
            self.running.remove(&sequence);
        }
        match failure {
            Some(error) if lines.is_empty() => Err(error),
            _ => Ok(lines),
        }
    }

    fn line(&self, sequence: usize, index: u64, reason: StopReason) -> Result<String> {
        let text = match tokenizer(self.context.model())? {
            Some(_) => Some(self.context.text(sequence)?),
            None => None,
        };
        // Nothing that depends on the sequence's number or the time: another run writes the same line.
        formatted(json_line(json!({ "index": index, "seed": seed_of(self.params.seed, index), "text": text,
            "tokens": self.context.tokens(sequence)?, "stop_reason": reason.name() })))
    }
}
