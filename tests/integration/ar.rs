//! AR against the authors' code: `tests/golden/ar-tiny`.

use esolm::convert::{Options, convert};
use esolm::{Context, ContextParams, Plan, SamplingParams};

use crate::golden::{BOS, Golden, LENGTH, MASK, VOCAB, check_logits, context};
use crate::replay::replay_one;
use crate::runs::{finish, open};

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
