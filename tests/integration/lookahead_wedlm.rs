//! Lookahead with WeDLM: masks propose, the rows of tokens check, and the text has the distribution of one by one.

use esolm::{
    Adaptive, Architecture, Config, Constraints, Context, ContextParams, Error, Feature, GenerateParams,
    Kernels, KvType, Model, Prompt, SamplingParams, StopReason, Variant,
};

use crate::lookahead::{Counts, TINY, check_distribution, check_end, check_grammar, check_surroundings, run};
use crate::reference::{LENGTH, Network, Random};
use crate::runs::{context, finish, params, texts, tokens};
use crate::stopping::words;

const AUTO: u32 = GenerateParams::LOOKAHEAD_AUTO;
const GREEDY: SamplingParams = SamplingParams { temperature: 0.0, ..SamplingParams::FULL };

/// One by one, with lookahead or without.
fn ahead(lookahead: u32) -> GenerateParams<'static> {
    GenerateParams {
        alpha_0: 0.0,
        lookahead,
        sampling: SamplingParams::FULL,
        ignore_eos: true,
        ..GenerateParams::DEFAULT
    }
}

fn model(seed: u64) -> Model {
    Network::qwen(Variant::WeDlm, Architecture::QWEN3, seed).model()
}

fn prompts() -> [Prompt; 3] {
    [3, 11, 6].map(|length| Prompt::prefix(&Random(length as u64).text(length)).unwrap())
}

#[test]
fn texts_have_the_distribution_of_one_by_one() {
    let full = SamplingParams::FULL;
    let penalties = [Constraints {
        repetition_penalty: 1.5,
        frequency_penalty: 0.3,
        allowed: vec![(3, vec![0, 1, 3])],
        ..Constraints::default()
    }];
    // In WeDLM filters come before the temperature.
    let filtered = SamplingParams { temperature: 0.7, top_k: 3, top_p: 0.95, ..full };
    let cases = [
        (full, &[][..], 0),
        (full, &[], 1),
        (full, &[], 2),
        (full, &[], 4),
        (filtered, &[], 3),
        (SamplingParams { temperature: 1.3, ..full }, &penalties, 3),
        (SamplingParams { min_p: 0.1, ..full }, &penalties, AUTO),
    ];
    for architecture in [Architecture::QWEN2, Architecture::QWEN3] {
        let base = Network::qwen(Variant::WeDlm, architecture, 1).config;
        let mask_token_id = TINY as u32;
        let model = Network::random(Config { vocab_size: TINY + 1, mask_token_id, ..base }, 3).model();
        let mut context = Context::new(&model, &ContextParams { length: 5, ..params(1) }).unwrap();
        for (sampling, constraints, lookahead) in cases {
            let what = format!("{architecture:?} {sampling:?} {lookahead} {}", constraints.len());
            let request = GenerateParams { sampling, constraints, ..ahead(lookahead) };
            let counts = check_distribution(&mut context, &Prompt::prefix(&[1]).unwrap(), &request, &what);
            // With weights that a cache holds, `auto` finds that it pays only where all stays.
            if lookahead > 0 && lookahead != AUTO {
                assert!(counts.passes < counts.tokens, "{what}: {counts:?}");
                assert!(
                    counts.accepted > 1000 && counts.accepted + 1000 < counts.proposed,
                    "{what}: {counts:?}"
                );
            }
        }
    }
}

#[test]
fn greedy_texts_are_those_of_one_by_one() {
    let narrow = Architecture { head_dim: Some(24), ..Architecture::QWEN3 };
    let tied = Architecture { tied_output: true, ..Architecture::QWEN2 };
    let mut counts = Counts::default();
    for (number, architecture) in (0..).zip([Architecture::QWEN2, Architecture::QWEN3, narrow, tied]) {
        let model = Network::qwen(Variant::WeDlm, architecture, 50 + number).model();
        for (kernels, kv_type) in
            [(Kernels::Own, KvType::F32), (Kernels::Own, KvType::F16), (Kernels::Ggml, KvType::F32)]
        {
            let limits = ContextParams { kernels, kv_type, ..params(1) };
            let mut context = Context::new(&model, &limits).unwrap();
            for prompt in prompts() {
                let request = |lookahead| GenerateParams { sampling: GREEDY, ..ahead(lookahead) };
                let expected = texts(&mut context, std::slice::from_ref(&prompt), &request(0));
                for lookahead in [1, 2, 5, 16, AUTO] {
                    context.begin(std::slice::from_ref(&prompt), &request(lookahead)).unwrap();
                    let one = run(&mut context);
                    let what = format!("{architecture:?}, {kernels:?}, {lookahead}: {one:?}");
                    assert_eq!(tokens(&context), expected, "{what}");
                    assert_eq!(one.tokens, LENGTH - prompt.known.len(), "{what}");
                    assert!(one.passes <= one.tokens, "{what}");
                    // Each pass writes what stays, and at most one token more.
                    assert!(one.passes + one.accepted >= one.tokens, "{what}");
                    counts.passes += one.passes;
                    counts.tokens += one.tokens;
                    counts.accepted += one.accepted;
                }
            }
        }
    }
    assert!(counts.accepted > 50 && counts.passes < counts.tokens, "{counts:?}");
}

/// A model whose masks say what its tokens say: all rows are alike.
fn predictable(vocab_size: usize) -> Model {
    let base = Network::qwen(Variant::WeDlm, Architecture::QWEN2, 4).config;
    let mut network = Network::random(Config { vocab_size, ..base }, 4);
    // Nothing is added to a token's embedding.
    for (name, tensor) in &mut network.tensors {
        if name.ends_with("attn_output.weight") || name.ends_with("ffn_down.weight") {
            tensor.fill(0.0);
        }
    }
    let width = network.config.embedding_length;
    let embedding = network.tensor_mut("token_embd.weight");
    let first = embedding[..width].to_vec();
    embedding.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(&first));
    network.model()
}

#[test]
fn what_masks_foresee_takes_as_many_passes_less() {
    let model = predictable(101);
    let mut alone = context(&model, 1);
    for (sampling, lookahead) in [(GREEDY, 4), (SamplingParams::FULL, 4), (SamplingParams::FULL, 7)] {
        alone.begin(&prompts()[..1], &GenerateParams { sampling, ..ahead(lookahead) }).unwrap();
        let counts = run(&mut alone);
        // The first pass writes one token and proposes; each other one writes one more than it proposes.
        let rest = LENGTH - 3 - 1;
        let passes = 1 + rest.div_ceil(lookahead as usize + 1);
        assert_eq!((counts.passes, counts.accepted), (passes, counts.proposed), "{counts:?}");
    }
    // With weights that come from memory, `auto` finds out that it pays.
    let large = predictable(70_000);
    let mut alone = context(&large, 1);
    alone.begin(&prompts()[..1], &GenerateParams { sampling: GREEDY, ..ahead(AUTO) }).unwrap();
    let counts = run(&mut alone);
    assert!(counts.passes < 15 && counts.accepted == counts.proposed, "{counts:?}");
}

#[test]
fn seed_gives_the_same_text_for_any_threads_rows_and_neighbours() {
    let model = model(2);
    let all = prompts();
    for lookahead in [1, 3, AUTO] {
        let request = GenerateParams { seed: 9, ..ahead(lookahead) };
        // Also where the prompt comes in pieces, beside a window.
        for prompt_rows in [1, 2] {
            let mut alone = Context::new(&model, &ContextParams { prompt_rows, ..params(2) }).unwrap();
            let window = GenerateParams { sampling: GREEDY, ..GenerateParams::DEFAULT };
            check_surroundings(&mut alone, &all, &request, &window);
        }
    }
}

#[test]
fn keys_and_values_are_final_between_passes() {
    for model in [model(3), predictable(101)] {
        let request = GenerateParams { seed: 2, ..ahead(6) };
        let prompt = &prompts()[..1];
        let logits = |context: &mut Context, known: usize| {
            let mut logits = vec![0.0; model.config().vocab_size];
            context.logits(0, &[known as u32], &mut logits).unwrap();
            logits
        };
        for passes in 1..6 {
            let mut generating = context(&model, 2);
            generating.begin(prompt, &request).unwrap();
            for _ in 0..passes {
                generating.step().unwrap().unwrap();
            }
            let text = generating.tokens(0).unwrap().to_vec();
            let known = text.iter().position(|&token| token == model.config().mask_token_id).unwrap();
            // All but the last one, whose row tells of the next.
            assert_eq!(generating.cached_tokens(0).unwrap(), known - 1, "{passes} passes");
            let mut fed = context(&model, 1);
            fed.begin(&[Prompt::prefix(&text[..known]).unwrap()], &ahead(0)).unwrap();
            let expected = logits(&mut fed, known);
            assert!(logits(&mut generating, known) == expected, "{passes} passes");
            let state = generating.save().unwrap();
            let mut restored = context(&model, 2);
            restored.restore(&state).unwrap();
            restored.extend(&[Prompt::default()], &ahead(3)).unwrap();
            assert!(logits(&mut restored, known) == expected, "{passes} passes");
            // And the generation goes on as if nothing had been asked.
            finish(&mut generating);
            assert_eq!(tokens(&generating), texts(&mut context(&model, 2), prompt, &request));
        }
    }
}

#[test]
fn reported_log_probs_are_those_of_one_by_one() {
    let model = model(5);
    let mut context = context(&model, 1);
    let prompt = prompts()[1].clone();
    let request = GenerateParams { log_probs: true, top_log_probs: 3, seed: 5, ..ahead(4) };
    context.begin(std::slice::from_ref(&prompt), &request).unwrap();
    let mut reported = vec![];
    while let Some(step) = context.step().unwrap() {
        assert_eq!(
            (step.log_probs.len(), step.top_log_probs.len()),
            (step.updates.len(), 3 * step.updates.len())
        );
        reported.extend_from_slice(step.log_probs);
    }
    let (text, order) = (context.tokens(0).unwrap().to_vec(), context.order(0).unwrap().to_vec());
    let scores = context.score_order(&text, &order, prompt.known.len()).unwrap();
    assert_eq!(scores.len(), reported.len());
    for (score, reported) in scores.iter().zip(&reported) {
        assert!((score - reported).abs() < 1e-4, "{score} {reported}");
    }
}

#[test]
fn a_stop_token_ends_the_text_within_a_pass() {
    for model in [model(6), predictable(101)] {
        let mut context = context(&model, 1);
        let plain = GenerateParams { sampling: GREEDY, ..ahead(0) };
        let whole = texts(&mut context, &prompts()[..1], &plain).remove(0);
        for stop in [whole[7], whole[20]] {
            let stop_tokens = [stop];
            let request = |lookahead| GenerateParams { lookahead, stop_tokens: &stop_tokens, ..plain };
            let expected = texts(&mut context, &prompts()[..1], &request(0));
            for lookahead in [1, 5, AUTO] {
                context.begin(&prompts()[..1], &request(lookahead)).unwrap();
                let counts = run(&mut context);
                assert_eq!(tokens(&context), expected, "{lookahead}");
                assert_eq!(counts.tokens, expected[0].len() - 3, "{lookahead}");
                // And the text goes on behind it.
                context.extend(&[Prompt::default()], &GenerateParams { length: LENGTH, ..plain }).unwrap();
                finish(&mut context);
                assert_eq!(context.tokens(0).unwrap(), whole, "{lookahead}");
            }
        }
    }
}

fn model_of_words(seed: u64) -> Model {
    Network::qwen(Variant::WeDlm, Architecture::QWEN3, seed).model_with_tokenizer(&words())
}

#[test]
fn stop_strings_end_the_text_where_they_would() {
    let mut reasons = vec![];
    for seed in 0..3 {
        let mut context = context(&model_of_words(seed), 1);
        for stop_strings in [&["bbab"][..], &["aaaa", "babb"], &["ab", "ba"], &["abababababab"]] {
            let plain = GenerateParams {
                sampling: GREEDY,
                stop_strings,
                step_text: true,
                log_probs: true,
                ..ahead(0)
            };
            reasons.push(check_end(&mut context, &prompts()[0], &plain, &[1, 5, AUTO]));
        }
    }
    assert!(reasons.contains(&Some(StopReason::StopString)), "{reasons:?}");
    assert!(reasons.contains(&Some(StopReason::Length)), "{reasons:?}");
}

#[test]
fn grammars_are_matched_as_without() {
    let mut saved = 0;
    for (seed, regex) in (0..).zip(["(aab|bba){3,9}[ab]*", "a{1,9}(ba+){2,20}bbb[ab]*", "([ab]{3}bb)+[ab]*"])
    {
        let rules =
            [Constraints { grammar: Some(esolm::Grammar::Regex(regex.into())), ..Constraints::default() }];
        let plain = GenerateParams { sampling: GREEDY, constraints: &rules, ..ahead(0) };
        saved += check_grammar(&mut context(&model_of_words(seed), 1), &prompts()[0], &plain, &[1, 4, AUTO]);
    }
    assert!(saved > 0, "no pass wrote several tokens");
}

#[test]
fn functions_of_the_caller_write_one_token_per_step() {
    let model = predictable(101);
    let mut context = context(&model, 1);
    let request = GenerateParams { sampling: GREEDY, ..ahead(4) };
    let expected = texts(&mut context, &prompts()[..1], &request);
    context.begin(&prompts()[..1], &request).unwrap();
    for number in 0.. {
        let step = match number % 2 {
            0 => context.step_with_logits(|_, _| Ok(())),
            _ => context.step(),
        };
        let Some(step) = step.unwrap() else { break };
        assert!(number % 2 == 1 || (step.updates.len(), step.proposed) == (1, 0));
    }
    assert_eq!(tokens(&context), expected);
}

#[test]
fn lookahead_stands_for_one_by_one() {
    let model = model(7);
    assert!(model.supports(Feature::Lookahead));
    let mut context = context(&model, 1);
    for lookahead in [3, AUTO] {
        let auto = GenerateParams { alpha_0: GenerateParams::ALPHA_0_AUTO, ..ahead(lookahead) };
        let expected = texts(&mut context, &prompts()[..1], &ahead(lookahead));
        assert_eq!(texts(&mut context, &prompts()[..1], &auto), expected);
    }
    // With a window there is nothing to be exact with; and Qwen has no masks.
    let window = GenerateParams { adaptive: Some(Adaptive::WEDLM), alpha_0: 1.0, ..ahead(2) };
    let error = context.begin(&prompts()[..1], &window).unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument(e) if e.contains("one by one")), "{error}");
    let qwen = Network::qwen(Variant::Ar, Architecture::QWEN3, 7).model();
    assert!(!qwen.supports(Feature::Lookahead));
    let error = crate::runs::context(&qwen, 1).begin(&prompts()[..1], &ahead(2)).unwrap_err();
    assert!(matches!(&error, Error::Unsupported(e) if e.contains("variant 'ar'")), "{error}");
    let few = ContextParams { batch_rows: 6, ..params(1) };
    let error = Context::new(&model, &few).unwrap().begin(&prompts()[..1], &ahead(2)).unwrap_err();
    assert!(error.to_string().contains("batch_rows of 7"), "{error}");
}
