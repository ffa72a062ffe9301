//! WeDLM against the authors' code: `tests/golden/wedlm-qwen3` and `wedlm-qwen25` (docs/wedlm.md).

use esolm::convert::Options;
use esolm::{
    Adaptive, Architecture, Confidence, Config, Context, GenerateParams, Model, Order, Prompt,
    SamplingParams, Schedule, Variant,
};
use serde_json::Value;

use crate::golden::{self, EXACT, Golden};
use crate::reference::{Attention, LENGTH, MASK, Network, Random};
use crate::replay::step_of_text;
use crate::runs::{everywhere, finish, texts, there};
use crate::windows;

const FOLDERS: [&str; 2] = ["wedlm-qwen3", "wedlm-qwen25"];
const VOCAB: usize = 512;
const GREEDY: SamplingParams = SamplingParams { temperature: 0.0, ..SamplingParams::FULL };

pub fn model(folder: &str) -> Model {
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
pub fn architectures() -> [Architecture; 4] {
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

/// `tokenizer.ggml.add_bos_token`: a text is the one behind this token.
#[test]
fn token_before_each_text_is_the_first_row() {
    const BEFORE: u32 = 7;
    for (number, architecture) in architectures().into_iter().enumerate() {
        let plain = Network::qwen(Variant::Ar, architecture, number as u64);
        let mut put = Network::qwen(Variant::Ar, architecture, number as u64);
        put.config.bos_token_id = Some(BEFORE);
        put.config.prepend_token_id = Some(BEFORE);
        put.config.needs_first_token = false;
        let [plain, put] = [&plain, &put].map(|network| there(&network.to_gguf()));
        assert_eq!((plain.config().given_tokens(), put.config().given_tokens()), (1, 0));
        for (one, other) in everywhere(&plain, 1).iter_mut().zip(&mut everywhere(&put, 1)) {
            for prompt in [&[BEFORE][..], &[BEFORE, 1, 2, 3]] {
                let written = |context: &mut Context, prompt: &[u32], length: usize| {
                    let params =
                        GenerateParams { length, seed: 3, ignore_eos: true, ..GenerateParams::DEFAULT };
                    texts(context, &[Prompt::prefix(prompt).unwrap()], &params).remove(0)
                };
                let text = written(one, prompt, LENGTH);
                assert_eq!(written(other, &prompt[1..], LENGTH - 1), text[1..], "{architecture:?}");
                let order: Vec<u32> = (0..LENGTH as u32).collect();
                let scores = one.score_order(&text, &order, 1).unwrap();
                let of_put = other.score_order(&text[1..], &order[..LENGTH - 1], 0).unwrap();
                assert!(
                    scores.iter().zip(&of_put).all(|(a, b)| (a - b).abs() < 1e-5),
                    "{scores:?} {of_put:?}"
                );
                assert_eq!(scores.len(), of_put.len());
            }
        }
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

#[test]
fn eso_lm_can_slide_a_window_in_order() {
    let network = Network::small(Variant::EsoB, 51);
    let text = Random(9).text(LENGTH);
    for context in &mut everywhere(&there(&network.to_gguf()), 1) {
        let adaptive = Some(Adaptive { window: 7, threshold: 4.0, ..Adaptive::WEDLM });
        let params = GenerateParams { adaptive, ..GenerateParams::DEFAULT };
        context.begin(&[Prompt::prefix(&text[..4]).unwrap()], &params).unwrap();
        loop {
            let tokens = context.tokens(0).unwrap().to_vec();
            let seen = step_of_text(context, &text);
            if seen.is_empty() {
                break;
            }
            // What is filled behind a gap is fed behind what is final: in the order of the text.
            let given = tokens.iter().copied().zip(0..).filter(|(token, _)| *token != MASK);
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
    context.begin(&windows::prompts()[1..2], &params).unwrap();
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
    context.begin(&windows::prompts()[1..2], &GenerateParams { sampling: nucleus, ..params }).unwrap();
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
