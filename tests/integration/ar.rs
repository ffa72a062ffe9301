//! AR against the authors' code: `tests/golden/ar-tiny`.

use esolm::convert::{Options, convert};
use esolm::{
    Context, ContextParams, Error, GenerateParams, Kernels, Model, Plan, Prompt, SamplingParams, ScoreParams,
};

use crate::golden::{self, BOS, EXACT, Golden, LENGTH, MASK, VOCAB, check_logits, context};
use crate::replay::replay_one;
use crate::runs::{ON, finish, open, texts};

fn left_to_right(known: &[u32]) -> Plan {
    Plan {
        known: known.to_vec(),
        order: (0..LENGTH as u32).collect(),
        counts: vec![1; LENGTH - known.len()],
        diffusion: 0,
    }
}

/// Compares the logits of a text. `prefix` is the text with the token that the model puts before it.
fn check_prefix(context: &mut Context, what: &str, prefix: &[u32], expected: &[f32]) {
    let plan = Plan { known: vec![], order: (0..23).collect(), counts: vec![1; 23], diffusion: 0 };
    let logits = replay_one(context, &plan, &prefix[1..]);
    check_logits(what, &logits, &expected[..23 * VOCAB], 0);
}

#[test]
fn ar_matches_reference_logits_and_texts() {
    let golden = Golden::open("ar-tiny");
    // The reference's tokens include the one before the text.
    let (tokens, expected) = (golden.ints("greedy.tokens"), golden.floats("greedy.logits"));
    assert_eq!(tokens[0], BOS);
    let prefix = golden.ints("prefix");
    for context in &mut golden.contexts(2) {
        for (i, prefix) in prefix.chunks(24).enumerate() {
            assert_eq!(prefix[0], BOS);
            for name in ["logits", "logits_cached"] {
                let expected = &golden.floats(name)[i * 24 * VOCAB..];
                check_prefix(context, &format!("AR, {name}"), prefix, expected);
            }
        }
        let plan = left_to_right(&tokens[1..4]);
        check_logits("AR", &replay_one(context, &plan, &tokens[1..]), &expected, 3);
        let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::FULL };
        context.begin_with_plans(&[plan], greedy, 0).unwrap();
        finish(context);
        assert_eq!(context.tokens(0).unwrap(), &tokens[1..]);

        for (name, top_p) in [("samp_p1", 1.0), ("samp_p09", 0.9)] {
            let (u, tokens) = (golden.doubles(&format!("{name}.u")), golden.ints(&format!("{name}.tokens")));
            let sampling = SamplingParams { top_p, ..SamplingParams::FULL };
            context.begin_with_plans(&[left_to_right(&[]), left_to_right(&[])], sampling, 0).unwrap();
            while context
                .step_with_tokens(|sampler, choice| {
                    let row = choice.sequence * LENGTH + choice.position as usize;
                    sampler.draw_gumbel(choice.logits, &sampling, &u[row * VOCAB..][..VOCAB])
                })
                .unwrap()
                .is_some()
            {}
            for (sequence, expected) in tokens.chunks(LENGTH).enumerate() {
                assert_eq!(context.tokens(sequence).unwrap(), expected, "{name}");
            }
        }
    }
}

#[test]
fn ar_can_begin_with_the_mask_token() {
    let golden = Golden::open("ar-tiny");
    let dir = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "config.json"] {
        std::fs::copy(golden.path(file), dir.path().join(file)).unwrap();
    }
    let config = dir.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let changed = text.replace(r#""prepend_token": "bos""#, r#""prepend_token": "mask""#);
    assert_ne!(text, changed);
    std::fs::write(&config, changed).unwrap();
    let out = dir.path().join("model.gguf");
    // The token before the text must be given unless it is the mask.
    let unknown = convert(&golden.path("model.safetensors"), &out, &Options::default(), &mut |_| ());
    assert!(unknown.unwrap_err().to_string().contains("--bos"));
    convert(&dir.path().join("model.safetensors"), &out, &Options::default(), &mut |_| ()).unwrap();
    let mut context = context(&open(&out), ContextParams::default());
    let (prefix, expected) = (golden.ints("prefix_mask"), golden.floats("logits_mask"));
    for (prefix, expected) in prefix.chunks(24).zip(expected.chunks(24 * VOCAB)) {
        assert_eq!(prefix[0], MASK);
        check_prefix(&mut context, "AR, mask", prefix, expected);
    }
}

/// The golden model as `prepend_token: none` leaves it: its texts begin with the BOS that is before them otherwise.
fn without_prepended_token() -> Model {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(golden::path("ar-tiny/config.json")).unwrap();
    let changed = text.replace(r#""prepend_token": "bos""#, r#""prepend_token": "none""#);
    assert_ne!(text, changed);
    std::fs::write(dir.path().join("config.json"), changed).unwrap();
    std::fs::copy(golden::path("ar-tiny/model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    golden::model(dir.path(), &Options::default())
}

fn all_kernels(model: &Model) -> [Context; 3] {
    let params = ContextParams { sequences: 2, ..ContextParams::default() };
    [
        context(model, params),
        context(model, ContextParams { batch_rows: 5, ..params }),
        context(model, ContextParams { kernels: Kernels::Ggml, ..params }),
    ]
}

#[test]
fn ar_without_a_token_before_the_text_matches_reference_logits() {
    let golden = Golden::open("ar-tiny");
    let (tokens, prefix) = (golden.ints("greedy.tokens"), golden.ints("prefix"));
    for context in &mut all_kernels(&without_prepended_token()) {
        for (prefix, expected) in prefix.chunks(24).zip(golden.floats("logits").chunks(24 * VOCAB)) {
            for known in [1, 2, 9] {
                let counts = vec![1; 24 - known];
                let plan =
                    Plan { known: prefix[..known].to_vec(), order: (0..24).collect(), counts, diffusion: 0 };
                // The logits of a position are those of the row before it.
                let logits = replay_one(context, &plan, prefix);
                check_logits("AR, none", &logits[1..], &expected[..23 * VOCAB], known - 1);
            }
        }
        let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::FULL };
        let params = GenerateParams { sampling: greedy, ..GenerateParams::default() };
        let expected_text = &tokens[..LENGTH];
        let prompts = [Prompt::prefix(&tokens[..4]).unwrap(), Prompt::prefix(&tokens[..20]).unwrap()];
        for text in texts(context, &prompts, &params) {
            assert_eq!(text, expected_text);
        }
        // In two parts.
        let short = GenerateParams { length: 30, ..params };
        context.begin(&prompts[..1], &short).unwrap();
        finish(context);
        context.extend(&[Prompt::default()], &params).unwrap();
        finish(context);
        assert_eq!(context.tokens(0).unwrap(), expected_text);
    }
}

#[test]
fn ar_without_a_token_before_the_text_needs_the_first_one() {
    let model = without_prepended_token();
    let mut context = context(&model, ContextParams::default());
    let asks = |error: Error| {
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("position 0")), "{error}");
    };
    asks(context.begin(&[Prompt::default()], &GenerateParams::default()).unwrap_err());
    asks(context.begin(&[Prompt { known: vec![(1, 5)] }], &GenerateParams::default()).unwrap_err());
    asks(context.begin_with_plans(&[left_to_right(&[])], SamplingParams::FULL, 0).unwrap_err());
    asks(context.score_order(&[BOS, 3], &[0, 1], 0).unwrap_err());
    context.begin(&[Prompt::prefix(&[BOS]).unwrap()], &GenerateParams::default()).unwrap();
    finish(&mut context);
    // A text of the prompt alone is complete.
    let one = GenerateParams { length: 1, ..GenerateParams::default() };
    context.begin(&[Prompt::prefix(&[BOS]).unwrap()], &one).unwrap();
    assert!(context.step().unwrap().is_none());
}

#[test]
fn ar_without_a_token_before_the_text_scores_the_others() {
    let golden = Golden::open("ar-tiny");
    let [mut plain, _] = golden.contexts(1);
    for context in &mut all_kernels(&without_prepended_token()) {
        for x0 in golden.int_rows("nll.x0") {
            // The golden model with BOS before the text gives the same to the tokens of the text.
            let text: Vec<u32> = [&[BOS], &x0[..LENGTH - 1]].concat();
            let expected = plain.score_text(&x0[..LENGTH - 1], &ScoreParams::default(), ON).unwrap();
            let score = context.score_text(&text, &ScoreParams::default(), ON).unwrap();
            assert_eq!(score.tokens[0], 0.0);
            for (a, b) in score.tokens[1..].iter().zip(&expected.tokens) {
                assert!((a - b).abs() <= f64::from(EXACT), "{a} {b}");
            }
            assert!((score.nll - expected.nll).abs() < 1e-3);
            for known in [1, 7] {
                let order: Vec<u32> = (0..LENGTH as u32).collect();
                let scores = context.score_order(&text, &order, known).unwrap();
                assert_eq!(scores.len(), LENGTH - known);
                for (a, b) in scores.iter().zip(&score.tokens[known..]) {
                    assert!((a - b).abs() <= f64::from(EXACT), "{a} {b}");
                }
            }
        }
    }
}

#[test]
fn ar_without_a_token_before_the_text_saves_and_restores() {
    let model = without_prepended_token();
    let params = GenerateParams { seed: 4, ..GenerateParams::default() };
    let (mut first, mut second) = (all_kernels(&model), all_kernels(&model));
    for (first, second) in first.iter_mut().zip(&mut second) {
        first.begin(&[Prompt::prefix(&[BOS, 7]).unwrap()], &GenerateParams { length: 20, ..params }).unwrap();
        finish(first);
        second.restore(&first.save().unwrap()).unwrap();
        for context in [&mut *first, &mut *second] {
            context.extend(&[Prompt::default()], &params).unwrap();
            finish(context);
        }
        assert_eq!(first.tokens(0).unwrap(), second.tokens(0).unwrap());
    }
    // A state of the model with a token before the text is another model's.
    let golden = Golden::open("ar-tiny");
    let [mut other, _] = golden.contexts(2);
    let error = other.restore(&first[0].save().unwrap()).unwrap_err();
    assert!(error.to_string().contains("another model"), "{error}");
}
