//! What ends a text before its length.

use esolm::{
    Adaptive, Confidence, Config, Context, Error, GenerateParams, Model, Order, Prompt, StopReason, Variant,
};

use crate::reference::{LENGTH, MASK, Network, Random, config};
use crate::runs::{context, diffusion, finish, params};

const VARIANTS: [Variant; 4] = [Variant::EsoB, Variant::EsoA, Variant::Mdlm, Variant::Ar];

/// One token after the other.
fn one_by_one() -> GenerateParams<'static> {
    GenerateParams { alpha_0: 0.0, seed: 3, ..diffusion() }
}

/// A tokenizer whose tokens are `text` of their ids, with a decoder.
pub fn tokenizer(decoder: &str, text: impl Fn(u32) -> String) -> String {
    let vocab: serde_json::Map<String, serde_json::Value> =
        (0..MASK).map(|id| (text(id), id.into())).collect();
    assert_eq!(vocab.len(), MASK as usize);
    let decoder: serde_json::Value = serde_json::from_str(decoder).unwrap();
    serde_json::json!({
        "version": "1.0", "added_tokens": [], "decoder": decoder,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": text(0) }
    })
    .to_string()
}

/// A tokenizer whose tokens are short words of `a` and `b`, so that texts have many repetitions.
pub fn words() -> String {
    tokenizer(r#"{"type": "Fuse"}"#, |id| format!("{:b}", id + 2)[1..].replace('0', "a").replace('1', "b"))
}

/// A model with these [`words`].
fn model_of_words(variant: Variant, eos: Option<u32>) -> Model {
    let config = Config { variant, eos_token_id: eos, bos_token_id: eos, ..config(2, 4) };
    Network::random(config, 1).model_with_tokenizer(&words())
}

/// The tokens of a sequence, and why it ended.
type Ended = (Vec<u32>, Option<StopReason>);

/// Runs a generation to its end. Returns also the number of steps.
fn run(context: &mut Context, prompts: &[Prompt], params: &GenerateParams<'_>) -> (Vec<Ended>, usize) {
    context.begin(prompts, params).unwrap();
    finish(context);
    let all = (0..prompts.len())
        .map(|number| (context.tokens(number).unwrap().to_vec(), context.stop_reason(number).unwrap()));
    (all.collect(), context.progress().0)
}

#[test]
fn stop_token_ends_work_in_every_variant_and_order() {
    let adaptive =
        Adaptive { confidence: Confidence::Probability, threshold: 0.02, window: 6, ..Adaptive::default() };
    for variant in VARIANTS {
        let model = Network::small(variant, 1).model();
        let mut context = context(&model, 3);
        let mut ways = vec![one_by_one()];
        if variant != Variant::Ar {
            ways.extend([
                GenerateParams { steps: 12, seed: 3, ..diffusion() },
                GenerateParams { order: Order::Blocks { size: 7 }, steps: 20, seed: 3, ..diffusion() },
                GenerateParams {
                    adaptive: Some(adaptive),
                    order: Order::LeftToRight,
                    seed: 3,
                    ..diffusion()
                },
            ]);
        }
        for params in &ways {
            let prompts =
                [Prompt::prefix(&[7, 8]).unwrap(), Prompt::default(), Prompt::prefix(&[9]).unwrap()];
            let (whole, steps) = run(&mut context, &prompts, params);
            assert!(
                whole
                    .iter()
                    .all(|(tokens, reason)| tokens.len() == LENGTH && *reason == Some(StopReason::Length))
            );
            // The second text ends early; the tokens before are those of the whole text.
            let stop_tokens = [whole[1].0[5]];
            let stopping = GenerateParams { stop_tokens: &stop_tokens, ..*params };
            let expected: Vec<_> = whole
                .iter()
                .zip(&prompts)
                .map(|((tokens, _), prompt)| {
                    let first = prompt.known.len().max(1);
                    let end = tokens[first..].iter().position(|token| stop_tokens.contains(token));
                    match end {
                        Some(end) => (tokens[..=first + end].to_vec(), Some(StopReason::StopToken)),
                        None => (tokens.clone(), Some(StopReason::Length)),
                    }
                })
                .collect();
            let (found, _) = run(&mut context, &prompts, &stopping);
            assert_eq!(found, expected, "{variant:?} {params:?}");
            assert!(expected[1].0.len() <= 6);
            // Alone it is the same, and the steps behind it are not run.
            let alone = GenerateParams { constraints: &[], ..stopping };
            context.begin(&prompts[..1], &alone).unwrap();
            let mut first = 0;
            while let Some(step) = context.step().unwrap() {
                first += step.updates.len();
            }
            assert_eq!(context.tokens(0).unwrap(), expected[0].0, "{variant:?} {params:?}");
            let (done, total) = context.progress();
            assert!(done == total && done <= steps);
            if params.alpha_0 == 0.0 && variant != Variant::Mdlm {
                assert_eq!(done, expected[0].0.len() - 2, "{variant:?}: a step for each token");
                assert_eq!(first, done);
            }
        }
    }
}

#[test]
fn end_of_text_counts_only_where_the_model_wrote_it() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let plain = Network::random(Config { variant, ..config(2, 4) }, 1).model();
        let ignoring = GenerateParams { ignore_eos: true, ..one_by_one() };
        let whole = run(&mut context(&plain, 1), &[Prompt::prefix(&[1]).unwrap()], &ignoring).0[0].0.clone();
        let eos = whole[9];
        let end = 1 + whole[1..].iter().position(|&token| token == eos).unwrap();
        // The token that ends a text begins it, too, and comes in the prompt.
        let model = model_of_words(variant, Some(eos));
        let mut context = context(&model, 1);
        let prompt = [Prompt::prefix(&[eos, 5, eos, 6]).unwrap()];
        let (found, _) = run(&mut context, &prompt, &one_by_one());
        let text = context.text(0).unwrap();
        let tokenizer = model.tokenizer().unwrap();
        let shown: Vec<u32> = found[0].0.iter().copied().filter(|&token| token != eos).collect();
        assert!(found[0].0.len() > 4 && text.starts_with(&tokenizer.decode(&[5, 6]).unwrap()), "{text}");
        assert_eq!(text, tokenizer.decode(&shown).unwrap());
        let (found, _) = run(&mut context, &[Prompt::prefix(&[1]).unwrap()], &ignoring);
        assert_eq!(found[0].1, Some(StopReason::Length));
        if variant == Variant::EsoB {
            // (The first row of the other variant is the token that begins a text.)
            assert_eq!(found[0].0, whole);
            let (found, steps) = run(&mut context, &[Prompt::prefix(&[1]).unwrap()], &one_by_one());
            assert_eq!(found, [(whole[..=end].to_vec(), Some(StopReason::EndOfText))]);
            assert_eq!(steps, end);
            // In what is decoded without a context, position 0 does not count.
            let begun = [&[eos][..], &whole[..=end]].concat();
            assert_eq!(tokenizer.decode_prefix(&begun).unwrap(), context.text(0).unwrap());
        }
    }
}

#[test]
fn stop_string_is_found_over_borders_of_tokens() {
    let mut random = Random(5);
    let (mut stopped, mut ran) = (0, 0);
    for variant in VARIANTS {
        let model = model_of_words(variant, None);
        let mut context = context(&model, 2);
        for seed in 0..12 {
            let base = match variant {
                Variant::Mdlm => GenerateParams { steps: 12, seed, ..diffusion() },
                Variant::Ar => GenerateParams { seed, ..one_by_one() },
                _ => GenerateParams { alpha_0: 0.5, steps: 6, seed, ..diffusion() },
            };
            let prompts = [Prompt::prefix(&[9, 10]).unwrap(), Prompt::default()];
            context.begin(&prompts, &base).unwrap();
            let given = context.text(0).unwrap().len();
            finish(&mut context);
            let whole = [context.text(0).unwrap(), context.text(1).unwrap()];
            let needle = |random: &mut Random, len: usize| -> String {
                (0..len).map(|_| if random.below(2) == 0 { 'a' } else { 'b' }).collect()
            };
            let needles = [needle(&mut random, 5 + seed as usize), needle(&mut random, 7 + seed as usize)];
            let needles = needles.each_ref().map(String::as_str);
            context.begin(&prompts, &GenerateParams { stop_strings: &needles, ..base }).unwrap();
            let mut seen = [context.text(0).unwrap(), context.text(1).unwrap()];
            loop {
                let more = context.step().unwrap().is_some();
                for (number, seen) in seen.iter_mut().enumerate() {
                    let text = context.text(number).unwrap();
                    assert!(
                        text.starts_with(&*seen),
                        "{variant:?} {seed}: '{text}' does not go on from '{seen}'"
                    );
                    *seen = text;
                }
                if !more {
                    break;
                }
            }
            for (number, from) in [given, 0].into_iter().enumerate() {
                // The first that is complete; of those that are at once, the longest.
                let found = needles
                    .iter()
                    .filter_map(|needle| whole[number][from..].find(needle).map(|at| (at + needle.len(), at)))
                    .min();
                let reason = if found.is_some() { StopReason::StopString } else { StopReason::Length };
                let expected = found.map_or(&*whole[number], |(_, at)| &whole[number][..from + at]);
                assert_eq!(seen[number], expected, "{variant:?} {seed}: {needles:?} in {}", whole[number]);
                assert_eq!(context.stop_reason(number).unwrap(), Some(reason));
                stopped += usize::from(found.is_some());
                ran += 1;
            }
        }
    }
    assert!(stopped > 30 && stopped < ran, "{stopped} of {ran}");
}

/// Where the known tokens end.
fn end(tokens: &[u32]) -> usize {
    tokens.iter().rposition(|&token| token != MASK).map_or(0, |last| last + 1)
}

#[test]
fn max_tokens_counts_behind_the_prompt() {
    let mut context = context(&Network::small(Variant::EsoB, 1).model(), 2);
    let prompts = [Prompt::prefix(&[1, 2, 3]).unwrap(), Prompt { known: vec![(9, 4)] }];
    let lengths = |context: &Context| [0, 1].map(|number| context.tokens(number).unwrap().len());
    let of = |max_tokens: usize, length: usize| GenerateParams { max_tokens, length, ..one_by_one() };
    for (max_tokens, length, expected) in
        [(5, 0, [8, 15]), (5, 12, [8, 12]), (1, 0, [4, 11]), (usize::MAX, 0, [LENGTH; 2]), (0, 20, [20; 2])]
    {
        run(&mut context, &prompts, &of(max_tokens, length));
        assert_eq!(lengths(&context), expected);
    }
    // A text goes on from where it ends.
    run(&mut context, &prompts, &of(5, 0));
    context.extend(&[Prompt { known: vec![(8, 1)] }, Prompt::default()], &of(4, 0)).unwrap();
    finish(&mut context);
    assert_eq!(lengths(&context), [13, 19]);
    // A sequence beside others is the one that it is alone.
    let beside = context.tokens(0).unwrap().to_vec();
    run(&mut context, &prompts[..1], &of(5, 0));
    assert_eq!(context.tokens(0).unwrap(), &beside[..8]);

    // One that was not written to its end goes on from what there is, alone and beside another.
    for count in [1, 2] {
        context.begin(&prompts[..count], &of(0, 40)).unwrap();
        for _ in 0..6 {
            context.step().unwrap();
        }
        let written: Vec<usize> = (0..count).map(|i| end(context.tokens(i).unwrap())).collect();
        assert_eq!(written, [9, 10][..count], "of 40");
        let more = [Prompt::default(), Prompt { known: vec![(11, 1)] }];
        context.extend(&more[..count], &of(4, 0)).unwrap();
        finish(&mut context);
        for (number, expected) in [13, 16][..count].iter().enumerate() {
            assert_eq!(context.tokens(number).unwrap().len(), *expected);
            assert_eq!(end(context.tokens(number).unwrap()), *expected, "no gaps are left");
        }
        assert_eq!(context.stop_reason(0).unwrap(), Some(StopReason::Length));
    }
    // What is written is not given up.
    context.begin(&prompts[..1], &of(0, 40)).unwrap();
    for _ in 0..6 {
        context.step().unwrap();
    }
    let error = context.extend(&[Prompt::default()], &of(0, 8)).unwrap_err();
    assert_eq!(error.to_string(), "length 8, but there are 9 tokens");

    let long = Prompt::prefix(&(0..LENGTH as u32 + 2).collect::<Vec<_>>()).unwrap();
    let error = context.begin(&[long], &of(5, 0)).unwrap_err();
    assert_eq!(error.to_string(), "prompt 0: 50 tokens; at most 48 fit");
    let behind = Prompt { known: (8..60).map(|position| (position, 1)).collect() };
    let error = context.extend(&[behind], &of(5, 0)).unwrap_err();
    assert!(error.to_string().ends_with("; at most 48 fit"), "{error}");
}

#[test]
fn ended_text_is_saved_and_continued() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = model_of_words(variant, None);
        let mut context = context(&model, 2);
        let base = match variant {
            Variant::Ar => one_by_one(),
            _ => GenerateParams { steps: 12, seed: 3, ..diffusion() },
        };
        let prompts = [Prompt::prefix(&[7, 8]).unwrap(), Prompt::default()];
        let (whole, _) = run(&mut context, &prompts, &base);
        let tokens = [whole[0].0[12]];
        for (stop_tokens, stop_strings) in [(&tokens[..], &[][..]), (&[], &["abab", "bbb"])] {
            let stopping = GenerateParams { stop_tokens, stop_strings, ..base };
            let (ended, _) = run(&mut context, &prompts, &stopping);
            assert_ne!(ended[0].1, Some(StopReason::Length));
            let texts = [0, 1].map(|number| context.text(number).unwrap());
            let bytes = context.save().unwrap();
            assert_eq!(bytes.len(), context.saved_size().unwrap());
            let more = GenerateParams { length: 0, max_tokens: 4, seed: 9, ..base };
            let next = |number: usize| vec![(ended[number].0.len() as u32, 11)];
            let prompts = [0, 1].map(|number| match ended[number].0.len() {
                LENGTH => Prompt::default(),
                _ => Prompt { known: next(number) },
            });
            context.extend(&prompts, &more).unwrap();
            finish(&mut context);
            let expected = [0, 1].map(|number| context.tokens(number).unwrap().to_vec());
            assert!(expected[0].len() > ended[0].0.len() && expected[0].starts_with(&ended[0].0));

            let mut other = Context::new(&model, &params(2)).unwrap();
            other.restore(&bytes).unwrap();
            for (number, text) in texts.iter().enumerate() {
                assert_eq!(other.stop_reason(number).unwrap(), ended[number].1, "{variant:?}");
                assert_eq!(other.text(number).unwrap(), *text, "{variant:?}");
            }
            assert_eq!(other.save().unwrap(), bytes);
            other.extend(&prompts, &more).unwrap();
            finish(&mut other);
            assert_eq!([0, 1].map(|number| other.tokens(number).unwrap().to_vec()), expected);
        }
    }
}

#[test]
fn stop_reason_says_what_happened() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    assert!(context.stop_reason(0).is_err());
    context.begin(&[Prompt::default()], &one_by_one()).unwrap();
    assert_eq!(context.stop_reason(0).unwrap(), None);
    context.step().unwrap();
    assert_eq!(context.stop_reason(0).unwrap(), None);
    let token = context.cancel_token();
    token.cancel();
    assert!(matches!(context.step(), Err(Error::Cancelled)));
    assert_eq!(context.stop_reason(0).unwrap(), Some(StopReason::Cancelled));
    token.reset();
    let failing = context.step_with_logits(|_, _| Err(Error::InvalidArgument("no".into())));
    assert!(failing.is_err());
    assert_eq!(context.stop_reason(0).unwrap(), Some(StopReason::Error));
    context.step().unwrap();
    assert_eq!(context.stop_reason(0).unwrap(), None, "the text goes on");
    let stopped = context.finish(|_| std::ops::ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert_eq!(context.stop_reason(0).unwrap(), Some(StopReason::Cancelled));
    finish(&mut context);
    assert_eq!(context.stop_reason(0).unwrap(), Some(StopReason::Length));
    context.reset();
    assert!(context.stop_reason(0).is_err());
}

#[test]
fn wrong_stop_rules_are_refused() {
    let model = model_of_words(Variant::EsoB, None);
    let mut context = context(&model, 1);
    let begin = |context: &mut Context, stop_tokens: &[u32], stop_strings: &[&str]| {
        context.begin(&[Prompt::default()], &GenerateParams { stop_tokens, stop_strings, ..one_by_one() })
    };
    let long = "a".repeat(1025);
    let many = vec!["a"; 65];
    for (tokens, strings) in
        [(&[MASK + 1][..], &[][..]), (&[], &[""]), (&[], &["a", &long]), (&[], many.as_slice())]
    {
        let refused = begin(&mut context, tokens, strings);
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    }
    begin(&mut context, &[1, MASK], &many[1..]).unwrap();
    let mut without = self::context(&Network::small(Variant::EsoB, 1).model(), 1);
    assert!(matches!(begin(&mut without, &[], &["a"]), Err(Error::Tokenizer { .. })));
}
