//! Drawing and measuring samples: against generation, scoring and definitions.

use std::ops::ControlFlow;

use esolm::evaluate::samples::{Judge, SampleParams, distinct, draw, entropy, windows};
use esolm::gguf::{Array, Value};
use esolm::{
    Architecture, Config, Context, ContextParams, Error, GenerateParams, Model, Prompt, ScoreParams, Variant,
};

use crate::reference::{LENGTH, MASK, Network, Random, config};
use crate::runs::{ON, both_phases, context, texts};

const GO_ON: fn(usize) -> ControlFlow<()> = |_| ControlFlow::Continue(());

fn model() -> Model {
    Network::small(Variant::EsoB, 1).model()
}

/// What scores the texts of `author`.
fn judge(judge: &Model, author: &Model) -> Judge {
    Judge::new(context(judge, 1), author).unwrap()
}

fn sample_params(samples: usize, batch: usize) -> SampleParams<'static> {
    SampleParams { samples, batch, generate: both_phases(7), ..SampleParams::default() }
}

#[test]
fn samples_are_those_of_generation() {
    let model = model();
    let mut context = context(&model, 3);
    let params = SampleParams { prompt: Prompt::prefix(&[5, 6]).unwrap(), ..sample_params(5, 3) };
    let mut done = vec![];
    let drawn = draw(&mut context, &params, |samples| {
        done.push(samples);
        ControlFlow::Continue(())
    });
    let drawn = drawn.unwrap();
    let prompts = vec![params.prompt.clone(); 3];
    let mut expected = texts(&mut context, &prompts, &both_phases(7));
    expected.extend(texts(&mut context, &prompts[..2], &both_phases(8)));
    assert_eq!((&drawn.tokens, done), (&expected, vec![3, 5]));
    assert!(drawn.tokens_per_second > 0.0);
    let again = draw(&mut context, &params, GO_ON).unwrap();
    assert_eq!((again.tokens, again.passes), (drawn.tokens, drawn.passes), "the same seed");
    assert_ne!(draw(&mut context, &SampleParams { batch: 2, ..params }, GO_ON).unwrap().tokens, expected);
}

#[test]
fn passes_are_the_steps_of_each_sample() {
    let model = model();
    let mut context = context(&model, 4);
    // One token per step in a batch of any size; 12 in each step; and in the mean what single generations take.
    for (alpha_0, schedule, expected) in [(0.0, &[][..], 48.0), (1.0, &[12][..], 4.0)] {
        let schedule = match schedule {
            [] => esolm::Schedule::Reference,
            counts => esolm::Schedule::Custom(counts),
        };
        let generate = GenerateParams { alpha_0, schedule, ..both_phases(1) };
        let drawn = draw(&mut context, &SampleParams { generate, ..sample_params(4, 4) }, GO_ON).unwrap();
        assert_eq!(drawn.passes, expected);
    }
    let mut steps = 0;
    for seed in 7..12 {
        context.begin(&[Prompt::default()], &both_phases(seed)).unwrap();
        steps += context.progress().1;
    }
    let one_by_one = draw(&mut context, &sample_params(5, 1), GO_ON).unwrap();
    assert_eq!(one_by_one.passes, f64::from(steps as u32) / 5.0);
}

#[test]
fn measures_match_scoring_and_definitions() {
    let model = model();
    let samples: Vec<Vec<u32>> = (1..4).map(|seed| Random(seed).text(LENGTH - seed as usize)).collect();
    let mut judge = self::judge(&model, &model);
    let score = ScoreParams { draws: 3, alpha_0: 0.5, ..ScoreParams::default() };
    let found = judge.measure(&samples, &score, GO_ON).unwrap();
    let mut context = context(&model, 1);
    let scores: Vec<_> =
        samples.iter().map(|sample| context.score_text(sample, &score, ON).unwrap()).collect();
    let tokens: usize = samples.iter().map(Vec::len).sum();
    let nll = scores.iter().map(|score| score.nll).sum::<f64>() / tokens as f64;
    let bound = scores.iter().map(|score| score.bound.total().mean).sum::<f64>() / tokens as f64;
    assert_eq!((found.samples, found.tokens), (3, tokens));
    assert!((found.nll.mean - nll).abs() < 1e-12 && (found.perplexity() - nll.exp()).abs() < 1e-9);
    assert!((found.bound.mean - bound).abs() < 1e-12 && bound > 0.0);
    let mean = |of: &dyn Fn(&[u32]) -> f64| samples.iter().map(|sample| of(sample)).sum::<f64>() / 3.0;
    assert!((found.entropy - mean(&|sample| entropy(sample).unwrap())).abs() < 1e-12);
    for (n, distinct_n) in (1..).zip(found.distinct) {
        assert!((distinct_n - mean(&|sample| distinct(sample, n).unwrap())).abs() < 1e-12);
    }
    // The error comes from how the samples' means differ.
    let each: Vec<f64> = scores.iter().zip(&samples).map(|(s, sample)| s.nll / sample.len() as f64).collect();
    let middle = each.iter().sum::<f64>() / 3.0;
    let variance = each.iter().map(|x| (x - middle).powi(2)).sum::<f64>() / 2.0;
    assert!((found.nll.standard_error - (variance / 3.0).sqrt()).abs() < 1e-12);
}

/// The first token of each window has no probability.
#[test]
fn measures_are_per_token_that_has_a_probability() {
    let model = Network::qwen(Variant::Ar, Architecture::QWEN3, 1).model();
    let limits = ContextParams { length: 16, threads: 1, ..ContextParams::default() };
    let samples = vec![(1..40).collect::<Vec<u32>>(), (20..50).collect()];
    let mut judge = Judge::new(Context::new(&model, &limits).unwrap(), &model).unwrap();
    let quality = judge.measure(&samples, &ScoreParams::default(), GO_ON).unwrap();
    let mut context = Context::new(&model, &limits).unwrap();
    let scores = samples.iter().map(|text| context.score_text(text, &ScoreParams::default(), ON).unwrap());
    let (mut nats, mut scored) = (0.0, vec![]);
    for score in scores {
        nats += score.nll;
        scored.push(score.scored_tokens);
    }
    assert_eq!(scored, [36, 28]);
    assert_eq!(quality.tokens, 39 + 30);
    assert!((quality.nll.mean - nats / (36.0 + 28.0)).abs() < 1e-9, "{quality:?}");
    // A sample of the token alone says nothing; there have to be others.
    let with_one = judge.measure(&[&samples[..], &[vec![7]]].concat(), &ScoreParams::default(), GO_ON);
    let with_one = with_one.unwrap();
    assert_eq!((with_one.nll, with_one.tokens, with_one.samples), (quality.nll, quality.tokens + 1, 3));
    assert!(judge.measure(&[vec![7]], &ScoreParams::default(), GO_ON).is_err());
}

/// A tokenizer whose token `id(n)` is the word `w{n}`.
fn words(id: impl Fn(u32) -> u32) -> String {
    let entries: Vec<String> = (0..MASK).map(|n| format!("\"w{n}\":{}", id(n))).collect();
    format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":{{"type":"WhitespaceSplit"}},"post_processor":null,"decoder":null,
            "model":{{"type":"WordLevel","vocab":{{{}}},"unk_token":"w1"}}}}"#,
        entries.join(",")
    )
}

#[test]
fn judge_with_another_tokenizer_encodes_the_text_again() {
    let network =
        |eos| Network::random(Config { eos_token_id: Some(eos), ..config(2, 4) }, u64::from(eos) + 1);
    let author = network(0).model_with_tokenizer(&words(|n| n));
    let judge = network(7).model_with_tokenizer(&words(|n| MASK - 1 - n));
    let samples = [vec![3, 4, 0, 5, 0, 0, 98], vec![0], vec![1, 2]];
    // Word for word, and the end of text of one is that of the other.
    let same = |token: &u32| if *token == 0 { 7 } else { MASK - 1 - token };
    let expected: Vec<Vec<u32>> = samples.iter().map(|sample| sample.iter().map(same).collect()).collect();
    let score = ScoreParams::default();
    let measure = |author: &Model, samples: &[Vec<u32>]| {
        self::judge(&judge, author).measure(samples, &score, GO_ON).unwrap()
    };
    let (found, own) = (measure(&author, &samples), measure(&judge, &expected));
    assert_eq!((found.nll, found.tokens), (own.nll, own.tokens));
    assert!((found.entropy - own.entropy).abs() < 1e-12, "of the author's tokens: {found:?}");
    assert_ne!(measure(&judge, &samples).nll, found.nll, "the judge's own tokens are kept");
    // Vocabularies as llama.cpp has them differ, too.
    let array = |values: Vec<Value>| Value::Array(Array::new(&values).unwrap());
    let llama = |first: [&str; 2]| {
        let fillers = (3..MASK).map(|n| format!("w{n}"));
        let tokens = first.map(str::to_owned).into_iter().chain(["ab".to_owned()]).chain(fillers);
        network(7).model_with([
            ("tokenizer.ggml.model", Value::Str("gpt2".into())),
            ("tokenizer.ggml.pre", Value::Str("gpt-2".into())),
            ("tokenizer.ggml.tokens", array(tokens.map(Value::Str).collect())),
            ("tokenizer.ggml.token_type", array(vec![Value::I32(1); MASK as usize])),
            ("tokenizer.ggml.merges", array(vec![Value::Str("a b".into())])),
        ])
    };
    let (one, same, other) = (llama(["a", "b"]), llama(["a", "b"]), llama(["b", "a"]));
    let tokens = |judge: &Model| {
        let mut judge = self::judge(judge, &one);
        judge.measure(&[vec![0, 1]], &score, GO_ON).unwrap().tokens
    };
    assert_eq!((tokens(&same), tokens(&other)), (2, 1), "kept, and encoded again");
    // Without a tokenizer texts cannot pass from one vocabulary to the other.
    let none = network(0).model();
    for (judge, author) in [(&judge, &none), (&none, &author)] {
        assert!(matches!(Judge::new(context(judge, 1), author), Err(Error::Tokenizer { .. })));
    }
}

#[test]
fn what_cannot_be_drawn_or_measured_is_refused() {
    let model = model();
    let mut context = context(&model, 2);
    for params in [sample_params(0, 1), sample_params(1, 0), sample_params(3, 3)] {
        assert!(matches!(draw(&mut context, &params, GO_ON), Err(Error::InvalidArgument(_))), "{params:?}");
    }
    let stop = |_| ControlFlow::Break(());
    assert!(matches!(draw(&mut context, &sample_params(2, 1), stop), Err(Error::Cancelled)));
    let mut judge = self::judge(&model, &model);
    let mut refused = |samples: &[Vec<u32>]| judge.measure(samples, &ScoreParams::default(), GO_ON);
    for samples in [&[][..], &[vec![]], &[vec![MASK + 1]]] {
        let error = refused(samples).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{samples:?}: {error}");
    }
    let measured = judge.measure(&[vec![1, 2]], &ScoreParams::default(), stop);
    assert!(matches!(measured, Err(Error::Cancelled)));
    // MDLM has no likelihood left to right, but a bound.
    let mdlm = Network::small(Variant::Mdlm, 1).model();
    let mut judge = self::judge(&mdlm, &mdlm);
    let bound = ScoreParams { orders: 0, draws: 2, ..ScoreParams::default() };
    assert!(matches!(judge.measure(&[vec![1]], &ScoreParams::default(), GO_ON), Err(Error::Unsupported(_))));
    assert!(judge.measure(&[vec![1, 2]], &bound, GO_ON).unwrap().bound.mean > 0.0);
}

#[test]
fn windows_of_a_text_are_samples_to_compare_with() {
    let text: Vec<u32> = (0..10).collect();
    assert_eq!(windows(&text, 4, 0).unwrap(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
    assert_eq!(windows(&text, 4, 1).unwrap(), [vec![0, 1, 2, 3]]);
    assert!(windows(&text, 11, 3).unwrap().is_empty());
}
