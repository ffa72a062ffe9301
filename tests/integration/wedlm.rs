//! WeDLM against the authors' code: `tests/golden/wedlm-qwen3` and `wedlm-qwen25` (docs/wedlm.md).

use esolm::convert::Options;
use esolm::{
    Adaptive, Architecture, Confidence, Config, Context, ContextParams, GenerateParams, KvType, Model, Order,
    Prompt, SamplingParams, Schedule, Variant,
};
use serde_json::Value;

use crate::golden::{self, EXACT, Golden};
use crate::reference::{Attention, LENGTH, MASK, Network, Random};
use crate::replay::step_of_text;
use crate::runs::{everywhere, finish, own, texts, there};

const FOLDERS: [&str; 2] = ["wedlm-qwen3", "wedlm-qwen25"];
const VOCAB: usize = 512;
const GREEDY: SamplingParams = SamplingParams { temperature: 0.0, ..SamplingParams::FULL };

fn model(folder: &str) -> Model {
    there(&golden::converted(&golden::path(folder), &Options::default()))
}

/// The largest difference, by the largest logit.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    found.iter().zip(expected).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn logits_match_the_reference_one_by_one() {
    for folder in FOLDERS {
        let golden = Golden::open(folder);
        let (tokens, expected) = (golden.ints("ar.tokens"), golden.floats("ar.logits"));
        for context in &mut everywhere(&model(folder), 1) {
            let params = GenerateParams {
                length: tokens.len(),
                alpha_0: 0.0,
                ignore_eos: true,
                ..GenerateParams::DEFAULT
            };
            context.begin(&[Prompt::prefix(&tokens[..1]).unwrap()], &params).unwrap();
            let mut most = 0f32;
            while context
                .step_with_tokens(|_, row| {
                    let place = row.position as usize;
                    most = most.max(difference(row.logits, &expected[(place - 1) * VOCAB..place * VOCAB]));
                    Ok(tokens[place])
                })
                .unwrap()
                .is_some()
            {}
            println!("{folder}, one by one: {most:e}");
            assert!(most <= EXACT, "{folder}: {most}");
            assert_eq!(context.tokens(0).unwrap(), tokens);
        }
    }
}

#[test]
fn logits_of_masks_behind_known_tokens_match_the_reference() {
    for folder in FOLDERS {
        let golden = Golden::open(folder);
        let [tokens, positions] = ["mixed.tokens", "mixed.positions"].map(|name| golden.ints(name));
        let expected = golden.floats("mixed.logits");
        let model = model(folder);
        let mask = model.config().mask_token_id;
        let known = tokens.iter().filter(|&&token| token != mask).count();
        let pairs = positions.iter().copied().zip(tokens.iter().copied());
        let prompt = Prompt { known: pairs.take(known).collect() };
        for context in &mut everywhere(&model, 1) {
            let adaptive = Some(Adaptive { window: tokens.len() - known, ..Adaptive::WEDLM });
            let params = GenerateParams { length: tokens.len(), adaptive, ..GenerateParams::DEFAULT };
            context.begin(std::slice::from_ref(&prompt), &params).unwrap();
            let (mut most, mut rows) = (0f32, known);
            context
                .step_with_logits(|row, _| {
                    assert_eq!(row.position, positions[rows]);
                    most = most.max(difference(row.logits, &expected[rows * VOCAB..][..VOCAB]));
                    rows += 1;
                    Ok(())
                })
                .unwrap();
            println!("{folder}, masks: {most:e}");
            assert!(most <= EXACT && rows == tokens.len(), "{folder}: {most}, {rows} rows");
        }
    }
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// The parameters of one of the reference's generations.
fn params_of<'a>(run: &Value, stop_tokens: &'a [u32]) -> GenerateParams<'a> {
    let adaptive = Adaptive {
        confidence: Confidence::Entropy,
        // Without a threshold one position is filled in a pass.
        threshold: run["entropy_threshold"].as_f64().unwrap_or(0.0) as f32,
        window: run["window"].as_u64().unwrap() as usize,
        penalty: run["pos_penalty"].as_f64().unwrap() as f32,
        in_order: true,
    };
    GenerateParams {
        max_tokens: run["max_tokens"].as_u64().unwrap() as usize,
        adaptive: Some(adaptive),
        sampling: GREEDY,
        stop_tokens,
        ignore_eos: true,
        ..GenerateParams::DEFAULT
    }
}

#[test]
fn generations_are_the_reference_s_pass_by_pass() {
    for folder in FOLDERS {
        let model = model(folder);
        assert_eq!(model.config().eos_token_id, Some(509));
        assert_eq!(model.config().other_eos_token_ids, [508]);
        let runs = std::fs::read_to_string(golden::path(folder).join("runs.json")).unwrap();
        let runs: Value = serde_json::from_str(&runs).unwrap();
        for (number, run) in runs.as_array().unwrap().iter().enumerate() {
            let (prompt, stop) = (numbers(&run["prompt"]), numbers(&run["stop"]));
            let params = params_of(run, &stop);
            for context in &mut everywhere(&model, 1) {
                follow(context, &format!("{folder}, run {number}"), run, &prompt, &params);
            }
        }
    }
}

/// Generates, and compares what each pass is fed, its entropies, and what it leaves behind.
fn follow(context: &mut Context, what: &str, run: &Value, prompt: &[u32], params: &GenerateParams<'_>) {
    let mask = context.model().config().mask_token_id;
    context.begin(&[Prompt::prefix(prompt).unwrap()], params).unwrap();
    let passes = run["steps"].as_array().unwrap();
    let mut window: Vec<(u32, u32)> = vec![];
    let mut steps = 0;
    for (number, pass) in passes.iter().enumerate() {
        let what = format!("{what}, pass {number}");
        let base = pass["base"].as_u64().unwrap() as usize;
        // What the text has, and what the window is: the places that are filled keep their tokens.
        let fed = numbers(&pass["window"]);
        let expected: Vec<(u32, u32)> = fed
            .iter()
            .zip(base as u32..)
            .filter(|(token, _)| **token != mask)
            .map(|(&t, p)| (p, t))
            .collect();
        assert_eq!(window, expected, "{what}: filled places");
        let masks: Vec<u32> =
            (base as u32..).zip(&fed).filter(|(_, token)| **token == mask).map(|(p, _)| p).collect();
        let entropies = pass["entropy"].as_array().unwrap();
        let (mut seen, mut filled) = (vec![], vec![]);
        let before = context.cached_tokens(0).unwrap();
        let step = context
            .step_with_logits(|row, _| {
                seen.push((row.position, entropy(row.logits)));
                Ok(())
            })
            .unwrap();
        let Some(step) = step else {
            // The reference's last pass computes the keys and values of the last tokens, and nothing of the text.
            assert_eq!(number, passes.len() - 1, "{what}");
            break;
        };
        filled.extend(step.updates.iter().map(|update| (update.position, update.token)));
        steps += 1;
        assert_eq!(seen.iter().map(|(position, _)| *position).collect::<Vec<_>>(), masks, "{what}: masks");
        for ((_, found), expected) in seen.iter().zip(entropies) {
            assert!((found - expected.as_f64().unwrap()).abs() < 2e-5, "{what}: {found} {expected}");
        }
        let committed = numbers(&pass["committed"]).len();
        if number > 0 {
            assert_eq!(before, base, "{what}: final keys and values before");
        }
        let rows = pass["rows"].as_u64().unwrap() as usize;
        assert_eq!(seen.len() + window.len(), rows, "{what}: rows");
        window.extend(filled);
        window.sort_unstable();
        let base = (base + committed) as u32;
        window.retain(|(position, _)| *position >= base);
        // Beyond the end of the text nothing is told: take it from the reference.
        if let Some(next) = passes.get(number + 1) {
            let end = (prompt.len() + run["max_tokens"].as_u64().unwrap() as usize) as u32;
            let beyond =
                numbers(&next["window"]).into_iter().zip(base..).filter(|(t, p)| *t != mask && *p >= end);
            window.retain(|(position, _)| *position < end);
            window.extend(beyond.map(|(token, position)| (position, token)));
        }
    }
    assert!(steps >= passes.len() - 1, "{what}: {steps} steps of {}", passes.len());
    assert!(context.step().unwrap().is_none(), "{what}");
    let expected = [prompt, &numbers(&run["tokens"])].concat();
    assert_eq!(context.tokens(0).unwrap(), expected, "{what}");
}

/// Of the distribution over all tokens, the mask among them.
fn entropy(logits: &[f32]) -> f64 {
    let logits: Vec<f64> = logits.iter().map(|&l| f64::from(l)).collect();
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
    logits.iter().map(|l| (l - max).exp() / sum).map(|p| if p > 0.0 { -p * p.ln() } else { 0.0 }).sum()
}

/// Models of the family: with and without norms of queries and keys, biases, a tied output matrix, a head's own width.
fn architectures() -> [Architecture; 4] {
    let narrow = Architecture { head_dim: Some(24), ..Architecture::QWEN3 };
    let tied = Architecture { tied_output: true, ..Architecture::QWEN2 };
    [Architecture::QWEN2, Architecture::QWEN3, narrow, tied]
}

/// Checks logits against those of a row computed from scratch.
fn check_row(what: &str, found: &[f32], expected: &[f64]) {
    let expected: Vec<f32> = expected.iter().map(|&x| x as f32).collect();
    let most = difference(found, &expected);
    assert!(most <= EXACT, "{what}: {most}");
}

/// Writes a given text, and compares the logits of each place.
fn check_one_by_one(network: &Network, what: &str) {
    let text = Random(7).text(LENGTH);
    let rows: Vec<(u32, u32)> = text.iter().copied().zip(0..).collect();
    let expected = network.logits(&rows, Attention::Causal);
    for context in &mut everywhere(&there(&network.to_gguf()), 1) {
        context.begin(&[Prompt::prefix(&text[..9]).unwrap()], &GenerateParams::DEFAULT).unwrap();
        while context
            .step_with_tokens(|_, row| {
                let place = row.position as usize;
                check_row(&format!("{what}, {place}"), row.logits, &expected[place - 1]);
                Ok(text[place])
            })
            .unwrap()
            .is_some()
        {}
        assert_eq!(context.tokens(0).unwrap(), text);
    }
}

#[test]
fn qwen_one_by_one_computes_what_a_network_from_scratch_does() {
    for (number, architecture) in architectures().into_iter().enumerate() {
        let network = Network::qwen(Variant::Ar, architecture, number as u64);
        check_one_by_one(&network, &format!("{architecture:?}"));
    }
    // As many heads of queries to one of keys and values as in the 7B (28 to 4), the 8B (32 to 8), and all.
    for (heads, kv_heads) in [(14, 2), (8, 2), (3, 3), (5, 1)] {
        let architecture =
            Architecture { head_dim: Some(16), kv_head_count: Some(kv_heads), ..Architecture::QWEN2 };
        let config = Config { architecture, head_count: heads, ..Network::qwen_config(Variant::Ar) };
        check_one_by_one(&Network::random(config, heads as u64), &format!("{heads} heads to {kv_heads}"));
    }
}

/// A window over a text with known tokens before and behind, of which each step fills some positions, compared with the rows
/// that the reference feeds: known ones, filled ones, masks.
#[test]
fn a_window_computes_what_a_network_from_scratch_does() {
    for (number, architecture) in architectures().into_iter().enumerate() {
        let network = Network::qwen(Variant::WeDlm, architecture, number as u64);
        let text = Random(8).text(LENGTH);
        let known: Vec<(u32, u32)> =
            (0..).zip(text.iter().copied()).filter(|(p, _)| *p < 5 || [20, 21, 40].contains(p)).collect();
        for context in &mut everywhere(&there(&network.to_gguf()), 1) {
            let adaptive = Some(Adaptive { window: 9, threshold: 4.2, ..Adaptive::WEDLM });
            let params = GenerateParams { adaptive, ..GenerateParams::DEFAULT };
            context.begin(&[Prompt { known: known.clone() }], &params).unwrap();
            let mut steps = 0;
            loop {
                let tokens = context.tokens(0).unwrap().to_vec();
                let order = context.order(0).unwrap().to_vec();
                let masked = |p: &u32| tokens[*p as usize] == MASK;
                // The known tokens, final or filled, in the order of the sequence; then the masks that are asked for.
                let seen = step_of_text(context, &text);
                if seen.is_empty() {
                    break;
                }
                steps += 1;
                let given = order.iter().filter(|p| !masked(p)).map(|&p| (tokens[p as usize], p));
                let rows: Vec<(u32, u32)> = given.chain(seen.iter().map(|(p, _)| (MASK, *p))).collect();
                let expected = network.logits(&rows, Attention::Causal);
                let first = rows.len() - seen.len();
                for ((position, found), expected) in seen.iter().zip(&expected[first..]) {
                    check_row(
                        &format!("{architecture:?}, step {steps}, position {position}"),
                        found,
                        expected,
                    );
                }
            }
            assert_eq!(context.tokens(0).unwrap(), text);
            assert!((5..LENGTH - 8).contains(&steps), "{steps} steps: some fill several positions, none all");
        }
    }
}

/// A window has filled a hole behind which known tokens were: where rows predict the next token, the order is the text's again.
#[test]
fn one_by_one_behind_a_filled_hole_is_as_behind_a_prompt() {
    let network = Network::qwen(Variant::WeDlm, Architecture::QWEN3, 5);
    let greedy = |length: usize, alpha_0: f64| GenerateParams {
        length,
        alpha_0,
        sampling: GREEDY,
        ignore_eos: true,
        ..GenerateParams::DEFAULT
    };
    let known: Vec<(u32, u32)> = (0..)
        .zip(Random(4).text(11))
        .filter(|(position, _): &(u32, u32)| *position < 4 || *position > 7)
        .collect();
    for context in &mut everywhere(&there(&network.to_gguf()), 1) {
        let half = texts(context, &[Prompt { known: known.clone() }], &greedy(11, 1.0)).remove(0);
        assert!(!context.order(0).unwrap().is_sorted(), "the hole is filled last");
        let state = context.save().unwrap();
        let mut logits = vec![0.0; network.config.vocab_size];
        let mut goes_on = |context: &mut Context, lookahead: u32| {
            context.extend(&[Prompt::default()], &GenerateParams { lookahead, ..greedy(30, 0.0) }).unwrap();
            context.logits(0, &[11], &mut logits).unwrap();
            finish(context);
            (context.tokens(0).unwrap().to_vec(), logits.clone())
        };
        let (text, logits) = goes_on(context, 0);
        context.restore(&state).unwrap();
        assert_eq!(goes_on(context, 2).0, text, "with lookahead");
        let expected = network.logits(&half.iter().copied().zip(0..).collect::<Vec<_>>(), Attention::Causal);
        check_row("behind the hole", &logits, expected.last().unwrap());
        let whole = texts(context, &[Prompt::prefix(&half).unwrap()], &greedy(30, 0.0)).remove(0);
        assert_eq!(text, whole);
    }
}

fn prompts() -> [Prompt; 3] {
    [3, 11, 6].map(|length| Prompt::prefix(&Random(length as u64).text(length)).unwrap())
}

#[test]
fn a_batch_writes_the_texts_of_its_sequences_alone_with_any_threads() {
    for (number, architecture) in architectures().into_iter().enumerate() {
        let model = Network::qwen(Variant::WeDlm, architecture, 20 + number as u64).model();
        for alpha_0 in [0.0, 1.0] {
            let params = GenerateParams { alpha_0, sampling: GREEDY, ..GenerateParams::DEFAULT };
            let mut together = vec![];
            for context in &mut own(&model, 3) {
                together.push(texts(context, &prompts(), &params));
            }
            assert_eq!(together[0], together[1]);
            for (prompt, expected) in prompts().into_iter().zip(&together[0]) {
                let mut alone = everywhere(&model, 1);
                assert_eq!(&texts(&mut alone[0], &[prompt], &params)[0], expected, "alpha_0 {alpha_0}");
            }
            // Rows that do not fit into one batch.
            let params_of = ContextParams {
                sequences: 3,
                batch_rows: 7,
                kv_type: KvType::F32,
                ..ContextParams::default()
            };
            let mut narrow = Context::new(&model, &params_of).unwrap();
            assert_eq!(texts(&mut narrow, &prompts(), &params), together[0], "alpha_0 {alpha_0}");
        }
    }
}

#[test]
fn a_text_goes_on_from_a_state_and_behind_an_answer() {
    let model = Network::qwen(Variant::WeDlm, Architecture::QWEN3, 31).model();
    let params = |length| GenerateParams { length, sampling: GREEDY, ..GenerateParams::DEFAULT };
    let prompt = prompts()[1].clone();
    let [mut context, mut other] = own(&model, 1);
    let first = texts(&mut context, std::slice::from_ref(&prompt), &params(24)).remove(0);
    assert_eq!(first.len(), 24);
    let state = context.save().unwrap();
    context.extend(&[Prompt::default()], &params(LENGTH)).unwrap();
    let fed = context.cached_tokens(0).unwrap();
    assert!(fed >= 24 - 16, "{fed} of 24 tokens have final keys and values");
    finish(&mut context);
    let whole = context.tokens(0).unwrap().to_vec();
    other.restore(&state).unwrap();
    other.extend(&[Prompt::default()], &params(LENGTH)).unwrap();
    finish(&mut other);
    assert_eq!(other.tokens(0).unwrap(), whole);
    // The same from the tokens alone, and one by one behind a window.
    let again = texts(&mut other, &[Prompt::prefix(&first).unwrap()], &params(LENGTH)).remove(0);
    assert_eq!(again, whole);
    context.restore(&state).unwrap();
    let one_by_one = GenerateParams { alpha_0: 0.0, ..params(LENGTH) };
    context.extend(&[Prompt::default()], &one_by_one).unwrap();
    finish(&mut context);
    let behind = context.tokens(0).unwrap().to_vec();
    let from_tokens = texts(&mut other, &[Prompt::prefix(&first).unwrap()], &one_by_one).remove(0);
    assert_eq!(behind, from_tokens);
    // A window that is given up in the middle leaves what is known without a gap.
    context.begin(std::slice::from_ref(&prompt), &params(LENGTH)).unwrap();
    for _ in 0..6 {
        context.step().unwrap();
    }
    let state = context.save().unwrap();
    context.extend(&[Prompt::default()], &one_by_one).unwrap();
    finish(&mut context);
    other.restore(&state).unwrap();
    other.extend(&[Prompt::default()], &one_by_one).unwrap();
    finish(&mut other);
    assert_eq!(context.tokens(0).unwrap(), other.tokens(0).unwrap());
}

#[test]
fn sequences_join_windows_that_are_being_written() {
    let model = Network::qwen(Variant::WeDlm, Architecture::QWEN2, 41).model();
    let params = GenerateParams { sampling: GREEDY, ..GenerateParams::DEFAULT };
    let mut context = everywhere(&model, 3).remove(0);
    let alone: Vec<Vec<u32>> =
        prompts().map(|prompt| texts(&mut everywhere(&model, 1)[0], &[prompt], &params).remove(0)).into();
    let mut numbers = vec![];
    for prompt in prompts() {
        numbers.push(context.add_sequence(&prompt, &params).unwrap());
        context.step().unwrap();
        context.step().unwrap();
    }
    finish(&mut context);
    for (number, expected) in numbers.into_iter().zip(&alone) {
        assert_eq!(context.tokens(number).unwrap(), expected);
    }
}

#[test]
fn eso_lm_can_slide_a_window_in_order() {
    let network = Network::small(Variant::EsoB, 51);
    let text = Random(9).text(LENGTH);
    for context in &mut everywhere(&there(&network.to_gguf()), 1) {
        let adaptive = Some(Adaptive { window: 7, threshold: 4.0, ..Adaptive::WEDLM });
        let params = GenerateParams { adaptive, ..GenerateParams::DEFAULT };
        context.begin(&[Prompt::prefix(&text[..4]).unwrap()], &params).unwrap();
        loop {
            let (tokens, order) = (context.tokens(0).unwrap().to_vec(), context.order(0).unwrap().to_vec());
            let seen = step_of_text(context, &text);
            if seen.is_empty() {
                break;
            }
            let given = order.iter().map(|&p| (tokens[p as usize], p)).filter(|(token, _)| *token != MASK);
            let rows: Vec<(u32, u32)> = given.chain(seen.iter().map(|(p, _)| (MASK, *p))).collect();
            let expected = network.logits(&rows, Attention::Causal);
            for ((position, found), expected) in seen.iter().zip(&expected[rows.len() - seen.len()..]) {
                check_row(&format!("position {position}"), found, expected);
            }
        }
        assert_eq!(context.tokens(0).unwrap(), text);
    }
}

#[test]
fn a_window_larger_than_the_text_is_as_large_as_the_text() {
    let wedlm = Network::qwen(Variant::WeDlm, Architecture::QWEN3, 9).model();
    let models = [wedlm, Network::small(Variant::EsoB, 9).model(), Network::small(Variant::Mdlm, 9).model()];
    for model in models {
        let causal = model.config().variant != Variant::Mdlm;
        for in_order in [false, true].into_iter().filter(|in_order| causal || !in_order) {
            let with = |window| {
                let adaptive = Some(Adaptive { window, in_order, ..Adaptive::WEDLM });
                let params = GenerateParams { adaptive, ignore_eos: true, ..GenerateParams::DEFAULT };
                texts(&mut crate::runs::context(&model, 1), &prompts()[..1], &params)
            };
            let expected = with(model.config().context_length);
            for window in [1 << 33, usize::MAX / 2, usize::MAX - 1, usize::MAX] {
                assert_eq!(with(window), expected, "{window}, {in_order}");
            }
        }
    }
}

#[test]
fn what_wedlm_cannot_do_is_refused() {
    let model = Network::qwen(Variant::WeDlm, Architecture::QWEN3, 61).model();
    let mut context = everywhere(&model, 1).remove(0);
    let default = GenerateParams::DEFAULT;
    let adaptive = |penalty, window| Some(Adaptive { penalty, window, ..Adaptive::WEDLM });
    for (params, what) in [
        (GenerateParams { alpha_0: 0.5, ..default }, "sliding window"),
        (GenerateParams { steps: 8, ..default }, "neither orders nor schedules"),
        (GenerateParams { order: Order::Blocks { size: 4 }, ..default }, "left to right"),
        (GenerateParams { schedule: Schedule::Custom(&[2]), ..default }, "neither orders nor schedules"),
        (GenerateParams { adaptive: adaptive(-1.0, 4), ..default }, "penalty"),
        (GenerateParams { adaptive: adaptive(0.1, 0), ..default }, "window"),
        (GenerateParams { lookahead: 2, alpha_0: 1.0, ..default }, "looks ahead where it writes one by one"),
        (GenerateParams { lookahead: 2, adaptive: adaptive(0.0, 4), ..default }, "looks ahead where"),
    ] {
        let error = context.begin(&[Prompt::prefix(&[1]).unwrap()], &params).unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
    let error = context.begin(&[Prompt::default()], &default).unwrap_err().to_string();
    assert!(error.contains("position 0 has to be given"), "{error}");
    let mdlm = Network::small(Variant::Mdlm, 1).model();
    let params = GenerateParams { adaptive: adaptive(0.0, 4), ..default };
    let error = everywhere(&mdlm, 1)[0].begin(&[Prompt::default()], &params).unwrap_err().to_string();
    assert!(error.contains("causal"), "{error}");
}

#[test]
fn filters_come_before_the_temperature() {
    let model = Network::qwen(Variant::WeDlm, Architecture::QWEN3, 71).model();
    let mut context = everywhere(&model, 1).remove(0);
    let sampling = SamplingParams { temperature: 0.5, top_k: 5, ..SamplingParams::FULL };
    let params = GenerateParams { sampling, ..GenerateParams::DEFAULT };
    context.begin(&prompts()[1..2], &params).unwrap();
    let (mut logits, mut found) = (vec![0.0; 101], vec![0.0; 101]);
    context.logits(0, &[11], &mut logits).unwrap();
    context.probabilities(0, &[11], &mut found).unwrap();
    let mut likely: Vec<usize> = (0..MASK as usize).collect();
    likely.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    likely.truncate(5);
    let weight = |token: usize| (f64::from(logits[token] - logits[likely[0]]) / 0.5).exp();
    let sum: f64 = likely.iter().map(|&token| weight(token)).sum();
    for (token, &found) in found.iter().enumerate() {
        let expected = if likely.contains(&token) { weight(token) / sum } else { 0.0 };
        assert!((f64::from(found) - expected).abs() < 1e-5, "{token}: {found} {expected}");
    }
    // With a nucleus the order tells: of the untempered distribution it keeps more tokens.
    let top_p = 0.6;
    let nucleus = SamplingParams { top_k: 0, top_p, ..sampling };
    context.begin(&prompts()[1..2], &GenerateParams { sampling: nucleus, ..params }).unwrap();
    context.probabilities(0, &[11], &mut found).unwrap();
    let all: f64 = (0..MASK as usize).map(|t| f64::from(logits[t]).exp()).sum();
    let mut sorted: Vec<f64> = (0..MASK as usize).map(|t| f64::from(logits[t]).exp() / all).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let mut before = 0.0;
    let kept = sorted.iter().take_while(|&&p| {
        let keeps = before <= f64::from(top_p);
        before += p;
        keeps
    });
    assert_eq!(found.iter().filter(|&&p| p > 0.0).count(), kept.count());
}

#[test]
fn a_window_s_size_is_found_out_the_same_for_any_threads_and_neighbours() {
    let models = [
        Network::qwen(Variant::WeDlm, Architecture::QWEN3, 81).model(),
        Network::random(crate::reference::config(3, 4), 82).model(),
    ];
    for model in models {
        let mut rows = vec![];
        for threshold in [0.0, 3.8, 10.0] {
            let auto = Adaptive { threshold, window: Adaptive::WINDOW_AUTO, ..Adaptive::WEDLM };
            let sampling = SamplingParams::FULL;
            let params = GenerateParams {
                adaptive: Some(auto),
                alpha_0: 1.0,
                sampling,
                seed: 3,
                ..GenerateParams::DEFAULT
            };
            let [mut first, mut second] = own(&model, 3);
            let expected = texts(&mut first, &prompts(), &params);
            assert!(expected.iter().all(|text| text.len() == LENGTH && !text.contains(&MASK)));
            assert_eq!(texts(&mut second, &prompts(), &params), expected);
            let mut context = everywhere(&model, 1).remove(0);
            assert_eq!(texts(&mut context, &prompts()[..1], &params)[0], expected[0]);
            // How many places are asked for in the last pass but a few.
            context.begin(&prompts()[..1], &params).unwrap();
            let mut asked = vec![];
            loop {
                let mut masks = 0;
                let step = context.step_with_logits(|_, _| {
                    masks += 1;
                    Ok(())
                });
                if step.unwrap().is_none() {
                    break;
                }
                asked.push(masks);
            }
            assert!(asked.iter().all(|&masks| masks <= 32));
            rows.push(asked[asked.len() / 2]);
        }
        // Where one is filled in a pass the window is small, where all are it is as large as can be.
        assert!(rows[0] <= 4 && rows[0] < rows[2], "{rows:?}");
    }
    let model = Network::small(Variant::EsoB, 1).model();
    let loose = Adaptive { window: Adaptive::WINDOW_AUTO, ..Adaptive::default() };
    let params = GenerateParams { adaptive: Some(loose), ..GenerateParams::DEFAULT };
    let error = everywhere(&model, 1)[0].begin(&[Prompt::default()], &params).unwrap_err().to_string();
    assert!(error.contains("slides in order"), "{error}");
}

#[test]
fn declared_beginning_of_a_text_is_kept() {
    for (declared, expected) in [("7", Some(7)), ("null", None), ("4096", None), ("\"a\"", None)] {
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(golden::path("wedlm-qwen3")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        let path = dir.path().join("config.json");
        let config = std::fs::read_to_string(&path).unwrap();
        let changed = config.replace("\"bos_token_id\": null", &format!("\"bos_token_id\": {declared}"));
        std::fs::write(&path, changed).unwrap();
        let model = there(&golden::converted(dir.path(), &Options::default()));
        assert_eq!(model.config().bos_token_id, expected, "{declared}");
    }
}
