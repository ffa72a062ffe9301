//! Errors in the middle of a step: of the caller, and of damaged weights.

use esolm::{Context, ContextParams, Error, GenerateParams, Prompt, SamplingParams, Variant};

use crate::reference::{MASK, Network, Random};
use crate::runs::{both_phases, context, params, texts, tokens};

#[test]
fn error_in_a_step_undoes_the_step() {
    let model = Network::small(Variant::EsoB, 1).model();
    for batch_rows in [0, 5] {
        let mut context = Context::new(&model, &ContextParams { batch_rows, ..params(2) }).unwrap();
        let prompts = [Prompt::prefix(&[4, 5, 6]).unwrap(), Prompt::default()];
        let whole = texts(&mut context, &prompts, &both_phases(8));
        context.begin(&prompts, &both_phases(8)).unwrap();
        let mut random = Random(4);
        loop {
            let before = tokens(&context);
            // After some tokens the callback fails, chooses the mask, or a token that does not exist.
            let (fail_at, how) = (random.below(4), random.below(3));
            let mut calls = 0;
            let result = context.step_with_tokens(|_, _| {
                calls += 1;
                match (calls > fail_at, how) {
                    (false, _) => Ok(calls as u32),
                    (true, 0) => Err(Error::Busy),
                    (true, 1) => Ok(MASK),
                    (true, _) => Ok(u32::MAX),
                }
            });
            match result {
                Ok(None) => break,
                // The step wrote fewer tokens and succeeded: begin again, up to it.
                Ok(Some(_)) => {
                    let (done, _) = context.progress();
                    context.begin(&prompts, &both_phases(8)).unwrap();
                    for _ in 1..done {
                        context.step().unwrap();
                    }
                }
                Err(error) => {
                    assert!(matches!(error, Error::Busy | Error::InvalidArgument(_)), "{error}");
                }
            }
            assert_eq!(tokens(&context), before);
            context.step().unwrap().unwrap();
        }
        assert_eq!(tokens(&context), whole);
    }
}

#[test]
fn damaged_weights_are_an_error_and_the_context_can_begin_again() {
    // Only token 7's embedding is damaged, and its bias keeps it from being drawn.
    let mut damaged = Network::small(Variant::EsoB, 1);
    damaged.tensor_mut("output.bias")[7] = -1e4;
    let sound = texts(&mut context(&damaged.model(), 1), &[Prompt::default()], &both_phases(2));
    for value in [f32::NAN, f32::INFINITY] {
        damaged.tensor_mut("token_embd.weight")[7 * 64 + 3] = value;
        let mut context = context(&damaged.model(), 1);
        for _ in 0..2 {
            context.begin(&[Prompt { known: vec![(20, 7)] }], &both_phases(2)).unwrap();
            for _ in 0..2 {
                assert!(matches!(context.step(), Err(Error::NotFinite(_))));
            }
            assert_eq!(context.progress().0, 0);
            assert_eq!(texts(&mut context, &[Prompt::default()], &both_phases(2)), sound);
        }
    }
    for name in ["blk.1.ffn_up.weight", "blk.0.attn_qkv.weight", "output.bias", "output_norm.weight"] {
        let mut damaged = Network::small(Variant::EsoB, 1);
        damaged.tensor_mut(name)[5] = f32::NAN;
        let mut context = context(&damaged.model(), 1);
        for sampling in [SamplingParams::FULL, SamplingParams { temperature: 0.0, ..SamplingParams::FULL }] {
            let params = GenerateParams { sampling, ..both_phases(2) };
            context.begin(&[Prompt::default()], &params).unwrap();
            assert!(matches!(context.step(), Err(Error::NotFinite(_))), "{name}");
        }
    }
}
