//! `esolm score --shard`: a line of JSON for each window, by one process or by several that share them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use esolm::{Context, Error, Result, ScoreParams, TextScore};
use serde_json::Value;

use crate::allocation::collected;
use crate::line_file::LineFile;
use crate::output::json_line;
use crate::progress;
use crate::seed::Seed;
use crate::shard::{Shard, seed_of};

/// The options as they are written on the command line.
#[derive(clap::Args)]
pub struct ShardArgs {
    /// Only each K-th window of the text, from the I-th on, with a line of JSON for each. K processes, on any machines, score all
    /// of them. A window's result depends on the text, the seed and its own number only.
    #[arg(long, value_name = "I/K")]
    shard: Option<Shard>,
    /// With --shard: append the lines to this file. Windows that it has are not scored again, but for the
    /// last one, which has to come out the same, and one whose line is cut.
    #[arg(short, long, value_name = "FILE", requires = "shard")]
    output: Option<PathBuf>,
}

impl ShardArgs {
    /// Whether each window is to have a line.
    pub fn is_given(&self) -> bool {
        self.shard.is_some()
    }

    /// A seed that is left to chance is another one in each process.
    pub fn check(&self, seed: Seed) -> Result<()> {
        if self.is_given() && seed.is_random() {
            return Err(Error::InvalidArgument("--shard needs a --seed other than -1".into()));
        }
        Ok(())
    }

    /// The file that lines go to.
    pub fn output(&self) -> Option<&Path> {
        self.output.as_deref()
    }
}

/// Scores windows of a text, each with a seed of its own. `report` makes the object of a line.
pub fn write(
    args: &ShardArgs,
    context: &mut Context,
    tokens: &[u32],
    params: &ScoreParams,
    report: impl Fn(&[u32], &TextScore, &ScoreParams) -> Result<Value>,
) -> Result<()> {
    let windows: Vec<&[u32]> = collected(tokens.chunks(context.length()).map(Ok))?;
    let shard = args.shard.unwrap_or(Shard::WHOLE);
    let (pieces, all) = (shard.pieces(windows.len() as u64), shard.share(windows.len() as u64));
    let mut lines = LineFile::open(args.output(), pieces.clone().map(|i| (i, seed_of(params.seed, i))), 1)?;
    let done = lines.done();
    progress::of_items("windows", |show| {
        for (number, index) in pieces.enumerate().skip(done) {
            let Some(&window) = windows.get(index as usize) else { break };
            let params = ScoreParams { seed: seed_of(params.seed, index), ..*params };
            let score = context.score_text(window, &params, |_, _| ControlFlow::Continue(()))?;
            let mut line = report(window, &score, &params)?;
            line["index"] = index.into();
            if !lines.write(json_line(line))? {
                break;
            }
            show(number + 1, all);
        }
        lines.finish()
    })
}
