//! How good a model's own texts are: drawing samples, and measuring them.
//!
//! * **Generative perplexity**: the perplexity of the samples under a judge, which may be another model. A low one is no
//!   proof of quality: a text that repeats itself has it, too. So it is read together with the other two.
//! * **Entropy**: as the authors' code measures it (`record_entropy` in `metrics.py`): of the counts of the tokens of one
//!   sample, in nats; the mean over the samples.
//! * **Distinct n-grams**: of one sample, how many different n-grams there are, divided by the number of n-grams; the mean
//!   over the samples. It falls with the length, so texts of one length are compared.
//!
//! The authors' code decodes the samples, encodes the text with the judge's tokenizer and leaves out each text's first
//! token and, from the second on, every end-of-text token. Here tokens are kept where the judge has the same tokenizer, and
//! all of them count, the first and every end of text, as in [`Context::score_text`].

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::windows::spread;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::generate::{GenerateParams, Prompt};
use crate::memory::{collected, extend, push, try_collected, with_room};
use crate::model::Model;
use crate::score::{Estimate, ScoreParams};

/// Most samples that are drawn at once.
const MOST_SAMPLES: usize = 1 << 20;

/// Texts that a model has written.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// The tokens of each, prompt included.
    pub tokens: Vec<Vec<u32>>,
    /// The mean number of passes through the network (steps) for a sample.
    pub passes: f64,
    /// Tokens written per second, over all samples of a batch.
    pub tokens_per_second: f64,
}

/// What samples to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleParams<'a> {
    /// Number of samples.
    pub samples: usize,
    /// Number of samples drawn side by side; the context must hold as many sequences.
    pub batch: usize,
    /// What each sample begins with.
    pub prompt: Prompt,
    /// How they are written. The first batch has this seed, the second the next, and so on: the samples depend on the seed
    /// and on the size of a batch.
    pub generate: GenerateParams<'a>,
}

impl Default for SampleParams<'_> {
    /// 32 samples without a prompt, one after the other.
    fn default() -> Self {
        let (prompt, generate) = (Prompt::default(), GenerateParams::default());
        Self { samples: 32, batch: 1, prompt, generate }
    }
}

/// Draws samples. `progress` is called with the number of samples done; breaking cancels.
///
/// # Errors
/// [`Error::InvalidArgument`] for no samples, more than 2^20, or a batch of none; those of [`Context::generate`]; [`Error::Cancelled`].
pub fn draw(
    context: &mut Context,
    params: &SampleParams<'_>,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Samples> {
    let count = params.samples;
    if count == 0 || params.batch == 0 {
        return Err(Error::invalid(format!("{count} samples in batches of {}: not one", params.batch)));
    }
    if count > MOST_SAMPLES {
        return Err(Error::invalid(format!("{count} samples; at most {MOST_SAMPLES}")));
    }
    let prompt = |_| Ok::<_, Error>(Prompt { known: collected(params.prompt.known.iter().copied())? });
    let prompts: Vec<Prompt> = try_collected((0..params.batch.min(count)).map(prompt))?;
    let mut samples = Samples { tokens: with_room(count)?, passes: 0.0, tokens_per_second: 0.0 };
    let (mut passes, mut written, mut time) = (0, 0, Duration::ZERO);
    for (batch, first) in (0..count).step_by(prompts.len()).enumerate() {
        let (prompts, _) = prompts.split_at(prompts.len().min(count - first));
        let seed = params.generate.seed.wrapping_add(batch as u64);
        let started = Instant::now();
        context.begin(prompts, &GenerateParams { seed, ignore_eos: true, ..params.generate })?;
        while let Some(step) = context.step()? {
            written += step.updates.len();
            passes += step.updates.chunk_by(|a, b| a.sequence == b.sequence).count();
        }
        time += started.elapsed();
        for sequence in 0..prompts.len() {
            samples.tokens.push(collected(context.tokens(sequence)?.iter().copied())?);
        }
        if progress(first + prompts.len()).is_break() {
            return Err(Error::Cancelled);
        }
    }
    samples.passes = passes as f64 / count as f64;
    samples.tokens_per_second = written as f64 / time.as_secs_f64();
    Ok(samples)
}

/// At most `max` windows of `length` tokens (0: all), spread evenly over a text: samples to compare a model's with.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn windows(tokens: &[u32], length: usize, max: usize) -> Result<Vec<Vec<u32>>> {
    try_collected(spread(tokens, length.max(1), max).map(|window| collected(window.iter().copied())))
}

/// The measures of samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleQuality {
    /// Number of samples.
    pub samples: usize,
    /// Number of their tokens, counted with the judge's tokenizer.
    pub tokens: usize,
    /// Negative log-likelihood under the judge in nats per token: the mean over all tokens but those that the judge
    /// has to be given ([`Config::given_tokens`](crate::Config::given_tokens)). The standard error takes the
    /// samples as independent. Zero without orders ([`ScoreParams::orders`]).
    pub nll: Estimate,
    /// The judge's bound at [`ScoreParams::alpha_0`], likewise. Zero without draws ([`ScoreParams::draws`]).
    pub bound: Estimate,
    /// Entropy of a sample's token counts in nats, the mean over samples.
    pub entropy: f64,
    /// The fractions of different 1-, 2- and 3-grams in a sample, the mean over samples.
    pub distinct: [f64; 3],
}

impl SampleQuality {
    /// Generative perplexity: that of all samples' tokens under the judge.
    pub fn perplexity(&self) -> f64 {
        self.nll.mean.exp()
    }
}

/// A model that scores samples of the same or of another model.
#[derive(Debug)]
pub struct Judge {
    context: Context,
    /// The model that wrote the samples, if its tokens are not the judge's.
    author: Option<Model>,
}

impl Judge {
    /// A judge that scores what `author` writes, in `context`, with its model. If their tokenizers differ, samples are decoded and
    /// encoded again.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if their vocabularies differ and one has no tokenizer; [`Error::OutOfMemory`].
    pub fn new(context: Context, author: &Model) -> Result<Self> {
        let judge = context.model();
        let author = if judge.has_vocabulary_of(author) {
            None
        } else {
            judge.tokenizer()?;
            author.tokenizer()?;
            Some(author.clone())
        };
        Ok(Self { context, author })
    }

    /// Measures samples. A sample that is longer than the judge's context is scored in windows, as a text is. `progress` is
    /// called with the samples done; breaking cancels.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no samples, or an empty one; those of [`Context::score_text`].
    pub fn measure(
        &mut self,
        samples: &[Vec<u32>],
        params: &ScoreParams,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<SampleQuality> {
        let count = samples.len();
        if count == 0 {
            return Err(Error::invalid("there are no samples to measure"));
        }
        let (mut lengths, mut nlls, mut bounds) = (with_room(count)?, with_room(count)?, with_room(count)?);
        let mut count_of_tokens = 0;
        let (mut sum_of_entropies, mut sums_of_distinct) = (0.0, [0.0; 3]);
        for (number, sample) in samples.iter().enumerate() {
            let own = self.author.as_ref().map(|author| self.encode(author, sample)).transpose()?;
            let tokens = own.as_deref().unwrap_or(sample);
            let score = self.context.score_text(tokens, params, |_, _| ControlFlow::Continue(()))?;
            count_of_tokens += tokens.len();
            // One whose tokens all have to be given says nothing.
            if score.scored_tokens > 0 {
                lengths.push(score.scored_tokens as f64);
                nlls.push(score.nll);
                bounds.push(score.bound.total().mean);
            }
            sum_of_entropies += entropy(sample)?;
            for (n, sum) in (1..).zip(&mut sums_of_distinct) {
                *sum += distinct(sample, n)?;
            }
            if progress(number + 1).is_break() {
                return Err(Error::Cancelled);
            }
        }
        if lengths.is_empty() {
            return Err(Error::invalid(
                "the first token of a text is given to this judge; no sample has another one to score",
            ));
        }
        Ok(SampleQuality {
            samples: count,
            tokens: count_of_tokens,
            nll: per_token(&nlls, &lengths)?,
            bound: per_token(&bounds, &lengths)?,
            entropy: sum_of_entropies / count as f64,
            distinct: sums_of_distinct.map(|sum| sum / count as f64),
        })
    }

    /// The author's tokens as the judge's. Each end of text becomes the judge's, if it has one.
    fn encode(&self, author: &Model, sample: &[u32]) -> Result<Vec<u32>> {
        let judge = self.context.model();
        let (config, own_end) = (author.config(), judge.config().eos_token_id);
        let mut tokens = with_room(sample.len())?;
        for run in sample.split_inclusive(|&token| config.ends_text(token)) {
            let (text, ended) = match run.split_last() {
                Some((&last, text)) if config.ends_text(last) && own_end.is_some() => (text, own_end),
                _ => (run, None),
            };
            extend(&mut tokens, &judge.tokenizer()?.encode(&author.tokenizer()?.decode(text)?)?)?;
            if let Some(ended) = ended {
                push(&mut tokens, ended)?;
            }
        }
        Ok(tokens)
    }
}

/// The mean of `nats` over all scored tokens, with the standard error over samples.
fn per_token(nats: &[f64], lengths: &[f64]) -> Result<Estimate> {
    let each: Vec<f64> = collected(nats.iter().zip(lengths).map(|(nats, length)| nats / length))?;
    let mean = nats.iter().sum::<f64>() / lengths.iter().sum::<f64>();
    Ok(Estimate { mean, standard_error: Estimate::of(&each).standard_error })
}

/// The entropy of the counts of the tokens, in nats: 0 if all are the same, ln n for n different ones.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn entropy(tokens: &[u32]) -> Result<f64> {
    let mut sorted = collected(tokens.iter().copied())?;
    sorted.sort_unstable();
    let fractions = sorted.chunk_by(|a, b| a == b).map(|run| run.len() as f64 / sorted.len() as f64);
    Ok(fractions.map(|p| -p * p.ln()).sum())
}

/// The number of different `n`-grams, divided by the number of `n`-grams; 1 if there is none.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn distinct(tokens: &[u32], n: usize) -> Result<f64> {
    let mut grams: Vec<&[u32]> = collected(tokens.windows(n.max(1)))?;
    let all = grams.len();
    grams.sort_unstable();
    grams.dedup();
    Ok(if all == 0 { 1.0 } else { grams.len() as f64 / all as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_matches_examples_counted_by_hand() {
        assert_eq!(entropy(&[]).unwrap(), 0.0);
        assert_eq!(entropy(&[7, 7, 7]).unwrap(), 0.0);
        assert!((entropy(&[3, 1, 2, 0]).unwrap() - 4f64.ln()).abs() < 1e-12);
        // 5 three times of six, 2 twice, 9 once.
        let expected = 0.5 * 2f64.ln() + 3f64.ln() / 3.0 + 6f64.ln() / 6.0;
        assert!((entropy(&[5, 2, 5, 9, 2, 5]).unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn distinct_matches_examples_counted_by_hand() {
        // 1 2 1 2 3: the tokens 1 2 3; the pairs 12 21 23; the triples 121 212 123.
        let text = [1, 2, 1, 2, 3];
        assert_eq!([1, 2, 3].map(|n| distinct(&text, n).unwrap()), [3.0 / 5.0, 3.0 / 4.0, 1.0]);
        assert_eq!([1, 2, 3].map(|n| distinct(&[4; 5], n).unwrap()), [1.0 / 5.0, 1.0 / 4.0, 1.0 / 3.0]);
        assert_eq!([1, 2, 3].map(|n| distinct(&[4], n).unwrap()), [1.0; 3]);
    }

    #[test]
    fn means_count_each_token_once() {
        // Six nats for three tokens and two for one: two nats per token each.
        let same = per_token(&[6.0, 2.0], &[3.0, 1.0]).unwrap();
        assert_eq!(same, Estimate { mean: 2.0, standard_error: 0.0 });
        let other = per_token(&[3.0, 3.0], &[3.0, 1.0]).unwrap();
        assert!((other.mean - 1.5).abs() < 1e-12 && (other.standard_error - 1.0).abs() < 1e-12, "{other:?}");
    }
}
